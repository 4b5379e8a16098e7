//! A file that is the export: a FUSE file system whose root is one regular file, for a loop device to be made of.
//!
//! It is mounted in a mount namespace that lives for a moment, and opened there: nobody else ever sees the mount, and it
//! goes with the last process that has the file open, whatever becomes of the keeper.

mod device;
mod wire;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tandem_nbd::constants::{CMD_FLAG_NO_HOLE, CMD_FLUSH, CMD_READ, CMD_WRITE, CMD_WRITE_ZEROES};

use crate::line::{Answer, Line, Request};
pub(crate) use device::FuseDevice;
use wire::{Header, MAX_WRITE_BYTES, Operation};

const DEVICE: &str = "/dev/fuse";

/// Whether the kernel has FUSE.
pub(crate) fn is_available() -> bool {
    Path::new(DEVICE).exists()
}

/// A served file.
pub(crate) struct Export {
    /// Open for reading and writing.
    pub(crate) file: File,
    connection: Arc<File>,
}

impl Export {
    /// Mounts the file on `place`, a regular file, and serves it from `line`.
    pub(crate) fn serve(line: Arc<Line>, place: &Path) -> io::Result<Export> {
        let connection = Arc::new(open(Path::new(DEVICE))?);
        let server = Server { connection: connection.clone(), line };
        let (mounted, is_mounted) = mpsc::channel();
        let (mounting, place) = (connection.clone(), place.to_owned());
        // A namespace belongs to its threads: when this one ends, nobody is in it any more.
        let opening = thread::Builder::new().name("mount".into());
        let opening = opening.spawn(move || {
            mount_privately(&mounting, &place)?;
            // It fails if nobody wants the file any more.
            let _ = mounted.send(());
            open(&place)
        })?;
        if is_mounted.recv().is_ok() {
            // From here, and not from that thread: its threads would be in the namespace, too.
            thread::Builder::new().name("fuse".into()).spawn(move || server.run())?;
        }
        let file = opening.join().unwrap_or_else(|_| Err(io::Error::other("mounting has panicked")))?;
        // The kernel learns that closing is not to be announced: a keeper that is killed closes this file, and would wait
        // for itself to answer.
        drop(file.try_clone()?);
        // It learns how large the file is: before Linux 6.17 a loop device takes what is known, and does not ask.
        file.metadata()?;
        Ok(Export { file, connection })
    }

    /// Makes the kernel look anew how large the file is.
    pub(crate) fn look_at_size(&self) -> io::Result<u64> {
        (&*self.connection).write_all(&wire::forget_attributes())?;
        Ok(self.file.metadata()?.len())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Mounts the file where only this thread sees it.
fn mount_privately(connection: &File, place: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    let options = format!("fd={},rootmode=100000,user_id=0,group_id=0", connection.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    mount(Some("tandem"), place, Some("fuse"), flags, Some(options.as_str()))?;
    Ok(())
}

/// The thread that takes the kernel's requests.
struct Server {
    connection: Arc<File>,
    line: Arc<Line>,
}

impl Server {
    fn run(self) {
        let mut buffer = vec![0; wire::BUFFER_BYTES];
        loop {
            let length = match (&*self.connection).read(&mut buffer) {
                Ok(length) => length,
                Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                    // It was interrupted before it could be taken.
                    Some(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => continue,
                    Some(Errno::ENODEV) => return, // Nobody has the file open any more.
                    _ => return tracing::error!("reading from {DEVICE}: {e}"),
                },
            };
            match wire::parse(&buffer[..length]) {
                Some((header, operation)) => self.begin(header, operation),
                None => tracing::error!("the kernel's request on {DEVICE} has no number to answer"),
            }
        }
    }

    fn begin(&self, header: Header, operation: Operation<'_>) {
        let pass_on = |command, flags, offset, length, payload| {
            let (connection, id) = (self.connection.clone(), header.id);
            let done = move |answer: Answer| match (command, answer) {
                (CMD_WRITE, Ok(_)) => reply(&connection, id, Ok(&wire::written(length))),
                (_, Ok(data)) => reply(&connection, id, Ok(&data)),
                (_, Err(errno)) => reply(&connection, id, Err(errno)),
            };
            self.line.submit(Request { command, flags, offset, length, payload }, Box::new(done));
        };
        let answer = |body: Result<&[u8], Errno>| reply(&self.connection, header.id, body);
        match operation {
            Operation::Init { minor, flags, readahead_bytes } => {
                answer(Ok(&wire::initialised(minor, flags, readahead_bytes)));
            }
            Operation::Attributes => answer(Ok(&wire::attributes(self.line.size_bytes()))),
            Operation::Open => answer(Ok(&wire::opened())),
            Operation::Done => answer(Ok(&[])),
            Operation::FileSystem => answer(Ok(&wire::file_system(self.line.size_bytes()))),
            Operation::Read { offset, length } if length <= MAX_WRITE_BYTES => {
                match self.within_device(offset, length) {
                    0 => answer(Ok(&[])),
                    length => pass_on(CMD_READ, 0, offset, length, Bytes::new()),
                }
            }
            Operation::Write { offset, data } => {
                let payload = Bytes::copy_from_slice(data);
                pass_on(CMD_WRITE, 0, offset, data.len() as u32, payload);
            }
            Operation::Sync => pass_on(CMD_FLUSH, 0, 0, 0, Bytes::new()),
            Operation::Zero { offset, length, keep_allocated } => {
                let flags = if keep_allocated { CMD_FLAG_NO_HOLE } else { 0 };
                pass_on(CMD_WRITE_ZEROES, flags, offset, length, Bytes::new());
            }
            Operation::Forget => (),
            Operation::Read { .. } => answer(Err(Errno::EINVAL)),
            Operation::Unsupported => answer(Err(Errno::EOPNOTSUPP)),
            Operation::Unknown => answer(Err(Errno::ENOSYS)),
            // Unanswered, whoever waits for it would wait for ever.
            Operation::Nonsense => {
                tracing::error!("the kernel's request {} on {DEVICE} was not understood", header.id);
                answer(Err(Errno::EIO));
            }
        }
    }

    /// Reads may look beyond the end of a file, and not beyond the end of an export.
    fn within_device(&self, offset: u64, length: u32) -> u32 {
        self.line.size_bytes().saturating_sub(offset).min(u64::from(length)) as u32
    }
}

/// Answers a request. The kernel may have given it up.
fn reply(mut connection: &File, id: u64, body: Result<&[u8], Errno>) {
    let data = body.unwrap_or_default();
    let header = wire::reply_header(id, body.err(), data.len());
    let sent = connection.write_vectored(&[IoSlice::new(&header), IoSlice::new(data)]);
    if let Err(error) = sent
        && error.raw_os_error() != Some(Errno::ENOENT as i32)
    {
        tracing::debug!("answering on {DEVICE}: {error}");
    }
}
