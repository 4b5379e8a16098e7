//! The keeper: makes the device, keeps it while tandemd comes and goes, and takes it away when it is told to.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};
use tandem_control::{DeviceDriver, RuntimeDir};
use thiserror::Error;

use crate::backend::Backend;
use crate::control::{DeviceStatus, Files, MAX_LINE_BYTES, Reply, Request, write_line};
use crate::fuse::{self, FuseDevice};
use crate::kernel::{self, KernelDevice};
use crate::line::{self, Line, Server};
use crate::links::{LinkError, Links};
use crate::loop_device::{self, LoopDevice};
use crate::{memory, openers};

/// For tandemd to let us in for the first time: it has just become Primary.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// udev looks at a device that somebody has closed; that is over within this time.
const UDEV_LIMIT: Duration = Duration::from_secs(1);
const UDEV_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks whether a device that fails is still open.
const CLOSE_PAUSE: Duration = Duration::from_millis(50);
/// A conversation in which nobody speaks is ended.
const CONVERSATION_LIMIT: Duration = Duration::from_secs(60);

/// Which device, and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// The resource.
    pub resource: String,
    /// The volume.
    pub volume: u16,
    /// The configured name of the device.
    pub device: PathBuf,
    /// What makes it.
    pub driver: DeviceDriver,
    /// tandemd's runtime folder.
    pub run: RuntimeDir,
    /// How long tandemd may stay away until every request fails; `None`: for ever.
    pub away_limit: Option<Duration>,
}

/// Why there is no device.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A keeper is there.
    #[error("the device of {0} has a keeper already{1}")]
    Running(String, String),
    /// A name is taken.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// tandemd does not let us in.
    #[error("tandemd does not serve the device: {0}")]
    Connect(io::Error),
    /// The kernel's driver.
    #[error(
        "the kernel's NBD driver cannot be used: {0}; 'modprobe nbd', or set 'global {{ device-driver fuse; }}'"
    )]
    Kernel(io::Error),
    /// The file of the export.
    #[error(
        "the FUSE file cannot be made: {0}; load the kernel's fuse module, or set 'global {{ device-driver none; }}'"
    )]
    Fuse(io::Error),
    /// The loop device.
    #[error(
        "the loop device cannot be made: {0}; load the kernel's loop module, or set 'global {{ device-driver none; }}'"
    )]
    Loop(io::Error),
    /// Something else in the system.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// What a keeper is whichever device it keeps: nobody's terminal reaches it, and its memory stays. First of all, before any
/// thread begins.
pub fn settle() {
    // It fails if we lead a group already: then no terminal reaches us either.
    let _ = setsid();
    memory::protect();
}

/// Waits for somebody to say what is to be kept; `None` if nobody ever will. What every device needs of the kernel is found
/// out meanwhile.
pub fn wait_for_order(driver: DeviceDriver, input: &mut impl BufRead) -> io::Result<Option<Options>> {
    if driver != DeviceDriver::Fuse {
        kernel::is_available();
    }
    let mut line = String::new();
    match input.take(MAX_LINE_BYTES).read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

/// Makes the device and keeps it until it is told to go. `ready` is called once, when the device is there.
pub fn run(options: &Options, ready: impl FnOnce(&DeviceStatus)) -> Result<(), ServeError> {
    let signals = terminating_signals();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| ServeError::Io(path, error)
    };
    // Before any thread begins: they inherit it.
    signals.thread_block().map_err(|e| io(Path::new("signals"))(e.into()))?;
    let files = Files::new(&options.run, &options.resource, options.volume);
    let folder = options.run.devices();
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io(&folder))?;
    let lock = lock(&files.pid, &options.resource)?;
    let links = Links::new(&files.node, &options.device, &options.resource, options.volume);
    links.check()?;
    remove_left_over(&files);
    let server = Server {
        socket: options.run.nbd_socket(),
        export: format!("{}/{}", options.resource, options.volume),
        away_limit: options.away_limit,
    };
    let device = match options.driver {
        DeviceDriver::Nbd => by_kernel(server, &files)?,
        DeviceDriver::Auto if kernel::is_available() => match by_kernel(server.clone(), &files) {
            // As in a container that may not.
            Err(error @ ServeError::Kernel(_)) if fuse::is_available() => {
                tracing::warn!("{error}; it is made with FUSE");
                by_fuse(server, &files)?
            }
            made => made?,
        },
        DeviceDriver::Auto | DeviceDriver::Fuse | DeviceDriver::None => by_fuse(server, &files)?,
    };
    links.make(device.node())?;
    let listener = bind(&files.socket).map_err(io(&files.socket))?;
    let keeper = Arc::new(Keeper {
        node: device.node().to_owned(),
        device,
        links,
        held: Mutex::new(Some(lock)),
        files,
    });
    ready(&keeper.status());
    tracing::info!(resource = options.resource, "{} is {}", options.device.display(), keeper.node.display());
    keeper.serve(&listener, signals);
    Ok(())
}

/// Removes what a keeper that was killed has left.
pub fn clean_up(files: &Files, links: &Links) {
    links.remove();
    remove_left_over(files);
}

fn remove_left_over(files: &Files) {
    // Without the folder, no keeper has been here.
    let Ok(label) = files.label() else { return };
    loop_device::remove_left_over(&label);
    kernel::remove_left_over(&label);
}

fn label(files: &Files) -> Result<String, ServeError> {
    files.label().map_err(|error| ServeError::Io(files.node.clone(), error))
}

fn by_kernel(server: Server, files: &Files) -> Result<Arc<dyn Backend>, ServeError> {
    let connected = line::connect_within(&server, CONNECT_LIMIT).map_err(ServeError::Connect)?;
    Ok(KernelDevice::new(server, label(files)?, connected).map_err(ServeError::Kernel)?)
}

fn by_fuse(server: Server, files: &Files) -> Result<Arc<dyn Backend>, ServeError> {
    let line = Line::open(server, CONNECT_LIMIT).map_err(ServeError::Connect)?;
    let export = fuse::Export::serve(line.clone(), &files.pid).map_err(ServeError::Fuse)?;
    let device = LoopDevice::new(&export.file, &label(files)?).map_err(ServeError::Loop)?;
    if !device.is_direct() {
        tracing::warn!("{} has a page cache of its own below it: slow, and right", device.node().display());
    }
    Ok(Arc::new(FuseDevice { line, export, device }))
}

/// A device that is there.
struct Keeper {
    node: PathBuf,
    device: Arc<dyn Backend>,
    links: Links,
    /// Until the device is removed: then another keeper may make it anew, whenever this process ends.
    held: Mutex<Option<Flock<File>>>,
    files: Files,
}

impl Keeper {
    /// Answers until the device is gone; ends the process then, whatever other conversations are going on.
    fn serve(self: &Arc<Keeper>, listener: &UnixListener, signals: SigSet) {
        let keeper = self.clone();
        thread::spawn(move || keeper.end_on_signals(&signals));
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                thread::sleep(UDEV_PAUSE); // No descriptor is free; the next attempt would fail at once too.
                continue;
            };
            let keeper = self.clone();
            let conversation = thread::Builder::new().name("control".into());
            let begun = conversation.spawn(move || {
                if let Err(error) = keeper.converse(stream) {
                    tracing::debug!("a conversation has ended: {error}");
                }
            });
            if let Err(error) = begun {
                tracing::warn!("a conversation cannot begin: {error}");
            }
        }
    }

    /// A device in use stays: who wants it gone must stop what uses it.
    fn end_on_signals(&self, signals: &SigSet) {
        while let Ok(signal) = signals.wait() {
            let reply = self.close();
            match reply.error {
                None => self.end(),
                Some(error) => {
                    tracing::warn!("{signal}: the device stays: {error} {}", reply.openers.join(", "));
                }
            }
        }
    }

    fn converse(self: &Arc<Keeper>, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(CONVERSATION_LIMIT))?;
        stream.set_write_timeout(Some(CONVERSATION_LIMIT))?;
        let mut answers = stream.try_clone()?;
        let mut questions = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if (&mut questions).take(MAX_LINE_BYTES).read_line(&mut line)? == 0 {
                return Ok(());
            }
            let request = match serde_json::from_str(&line) {
                Ok(request) => request,
                Err(error) => return write_line(&mut answers, &Reply::refused(error)),
            };
            let reply = self.answer(request);
            let gone = request == Request::Close && reply.error.is_none();
            let told = write_line(&mut answers, &reply);
            if gone {
                self.end();
            }
            told?;
        }
    }

    fn answer(self: &Arc<Keeper>, request: Request) -> Reply {
        match request {
            Request::Status => Reply { device: Some(self.status()), ..Reply::default() },
            Request::Openers => {
                Reply { openers: openers::find(&self.node), device: Some(self.status()), ..Reply::default() }
            }
            Request::Close => self.close(),
            Request::Fail => {
                self.fail();
                Reply::default()
            }
            Request::Resize => match self.device.resize() {
                Ok(()) => Reply { device: Some(self.status()), ..Reply::default() },
                Err(error) => {
                    Reply::refused(format_args!("{} cannot be resized: {error}", self.node.display()))
                }
            },
        }
    }

    fn status(&self) -> DeviceStatus {
        let (connected, pending, failing) = self.device.condition();
        DeviceStatus {
            pid: std::process::id(),
            driver: self.device.driver().into(),
            node: self.node.clone(),
            size_bytes: self.device.size_bytes(),
            connected,
            pending,
            failing,
        }
    }

    /// Nobody shall open the device any more; it goes when its last user has closed it.
    fn fail(self: &Arc<Keeper>) {
        tracing::warn!("every request of {} fails from now on", self.node.display());
        self.device.fail();
        self.links.remove();
        let keeper = self.clone();
        let closing = thread::Builder::new().name("closing".into()).spawn(move || {
            while keeper.close().error.is_some() {
                thread::sleep(CLOSE_PAUSE); // The kernel tells nobody that a device is closed.
            }
            keeper.end();
        });
        if let Err(error) = closing {
            tracing::warn!("the device will not go by itself: {error}");
        }
    }

    /// Takes the device away, unless it is open.
    fn close(&self) -> Reply {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            return Reply::default();
        }
        let end = Instant::now() + UDEV_LIMIT;
        let claim = loop {
            let claimed = loop_device::claim(&self.node);
            let openers = openers::find(&self.node);
            match claimed {
                Ok(claim) if openers.is_empty() => break claim,
                Err(error) if error.raw_os_error() != Some(Errno::EBUSY as i32) => {
                    return Reply::refused(error);
                }
                _ if only_udev(&openers) && Instant::now() < end => thread::sleep(UDEV_PAUSE),
                _ if openers.is_empty() => return Reply::refused("nobody is found who has it open"),
                _ => return Reply { openers, ..Reply::refused("the device is open") },
            }
        };
        self.links.remove();
        // What was written without O_DIRECT and fsync may still be in the page cache.
        if let Err(error) = claim.sync_all() {
            tracing::warn!("what was written last to {} is lost: {error}", self.node.display());
        }
        if let Err(error) = self.device.remove(claim) {
            tracing::warn!("{} cannot be given up: {error}", self.node.display());
        }
        // Before the lock: the next keeper makes one of the same name. The file of the process id stays: removing it would let two
        // keepers lock two files of the same name.
        let _ = fs::remove_file(&self.files.socket);
        *held = None;
        Reply::default()
    }

    fn end(&self) -> ! {
        tracing::info!("the device is gone");
        std::process::exit(0)
    }
}

fn only_udev(openers: &[String]) -> bool {
    openers.iter().all(|opener| opener.contains("udev"))
}

fn terminating_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

fn lock(path: &Path, resource: &str) -> Result<Flock<File>, ServeError> {
    let failed = |e| ServeError::Io(path.to_owned(), e);
    let mut opening = OpenOptions::new();
    opening.read(true).write(true).create(true).truncate(false);
    let file = opening.open(path).map_err(failed)?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, _)| {
        let mut pid = String::new();
        let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
        let who = if known { format!(" (pid {})", pid.trim()) } else { String::new() };
        ServeError::Running(resource.to_owned(), who)
    })?;
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut lock).map_err(failed)?;
    Ok(lock)
}

/// The folder is its owner's alone, and so is what is made in it.
fn bind(path: &Path) -> io::Result<UnixListener> {
    // A keeper that was killed has left it.
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
