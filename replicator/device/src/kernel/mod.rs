//! The device where the kernel has an NBD driver: it is told by netlink which connection to use, and gets another for each
//! one that dies. Requests wait in the kernel meanwhile.

mod netlink;

use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tandem_nbd::client::Opened;
use tandem_netlink::Attributes;

use crate::backend::Backend;
use crate::line::{self, Server};
use netlink::{
    BACKEND, BLOCK_BYTES, CONNECT, DEAD_LIMIT_S, DISCONNECT, Driver, INDEX, RECONFIGURE, SERVER_FLAGS,
    SIZE_BYTES, SOCKETS, TIMEOUT_S, one_socket,
};

/// The smallest request that tandemd takes.
const SECTOR_BYTES: u64 = 512;
/// A request that takes longer is sent again on another connection: what was under way on one that has died, too.
const IO_LIMIT_S: u64 = 3;
/// For the driver "for ever": a year.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// The driver gives up later than its keeper: it would begin again for the next connection.
const AFTER_US: Duration = Duration::from_secs(5);
/// The driver notices that a connection is dead when one of its own threads looks.
const SETTLE_MS: u16 = 20;
/// Between two looks whether requests go on.
const LOOK_MS: u16 = 5000;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// A device of the kernel's driver.
pub(crate) struct KernelDevice {
    server: Server,
    index: u32,
    node: PathBuf,
    label: String,
    size_bytes: AtomicU64,
    connected: AtomicBool,
    /// No connection is wanted any more.
    ended: AtomicBool,
    /// Held while the driver is given a connection: it would take one after it was told to let go, too.
    handing_over: Mutex<()>,
}

/// Whether the kernel has the driver, if need be once it is loaded.
pub(crate) fn is_available() -> bool {
    let load = || Command::new("modprobe").arg("nbd").stdin(Stdio::null()).stderr(Stdio::null()).status();
    Driver::open().is_ok() || load().is_ok_and(|ended| ended.success()) && Driver::open().is_ok()
}

/// Disconnects the devices of this label that keepers which were killed have left. Their requests fail.
pub(crate) fn remove_left_over(label: &str) {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let index = name.strip_prefix("nbd").and_then(|number| number.parse().ok());
        let backend = fs::read_to_string(entry.path().join("backend"));
        if let Some(index) = index
            && backend.is_ok_and(|backend| backend.trim() == label)
            && let Err(error) = disconnect(index)
        {
            tracing::warn!("{name} cannot be disconnected: {error}");
        }
    }
}

impl KernelDevice {
    /// A device that does not exist yet, connected.
    pub(crate) fn new(
        server: Server,
        label: String,
        (stream, opened): (UnixStream, Opened),
    ) -> io::Result<Arc<KernelDevice>> {
        let attributes = Attributes::default()
            .u64(SIZE_BYTES, opened.size_bytes)
            .u64(BLOCK_BYTES, SECTOR_BYTES)
            .u64(TIMEOUT_S, IO_LIMIT_S)
            .u64(DEAD_LIMIT_S, (server.away_limit.unwrap_or(NO_LIMIT) + AFTER_US).as_secs())
            .u64(SERVER_FLAGS, opened.flags.bits().into())
            .text(BACKEND, &label)
            .nested(SOCKETS, one_socket(&stream));
        let said = Driver::open()?.ask(CONNECT, attributes)?;
        let index =
            said.get_u32(INDEX).ok_or_else(|| io::Error::other("the driver does not say which device"))?;
        let node = PathBuf::from(format!("/dev/nbd{index}"));
        if !node.exists() {
            disconnect(index)?;
            return Err(io::Error::other(format!("there is no {}", node.display())));
        }
        let device = Arc::new(KernelDevice {
            server,
            index,
            node,
            label,
            size_bytes: AtomicU64::new(opened.size_bytes),
            connected: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            handing_over: Mutex::new(()),
        });
        let keeping = device.clone();
        thread::Builder::new().name("line".into()).spawn(move || keeping.keep(stream))?;
        Ok(device)
    }

    /// Gives the driver a new connection for each that dies.
    fn keep(&self, mut stream: UnixStream) {
        loop {
            self.wait_until_dead(&stream);
            self.connected.store(false, Ordering::Relaxed);
            tracing::warn!("requests wait for tandemd: the connection has ended");
            // For the driver to notice, too; it fails if somebody was faster.
            let _ = stream.shutdown(Shutdown::Both);
            match self.reconnect() {
                Ok(Some(next)) => stream = next,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(
                        "the kernel takes no connection for {} any more: {error}",
                        self.node.display()
                    );
                    return self.ended.store(true, Ordering::Relaxed);
                }
            }
            self.connected.store(true, Ordering::Relaxed);
            tracing::info!("connected to tandemd again");
        }
    }

    /// Whoever shuts a connection down, tandemd or the driver: our copy of it hears of that. What neither has noticed
    /// shows in requests that do not go on.
    fn wait_until_dead(&self, stream: &UnixStream) {
        let mut before = None;
        loop {
            if is_dead(stream, PollTimeout::from(LOOK_MS)) || self.ended.load(Ordering::Relaxed) {
                return;
            }
            let now = self.progress();
            if now.is_some_and(|(pending, _)| pending > 0) && now == before {
                return;
            }
            before = now;
        }
    }

    /// `None` if no connection is wanted any more; an error if the driver takes none.
    fn reconnect(&self) -> io::Result<Option<UnixStream>> {
        let lost_at = Instant::now();
        while !self.ended.load(Ordering::Relaxed) {
            if let Ok((stream, opened)) = line::connect(&self.server)
                && opened.size_bytes >= self.size_bytes.load(Ordering::Relaxed)
            {
                self.hand_over(&stream)?;
                return Ok(Some(stream));
            }
            if self.server.away_limit.is_some_and(|limit| lost_at.elapsed() >= limit) {
                tracing::error!("tandemd has stayed away too long: every request fails from now on");
                self.fail();
                return Ok(None);
            }
            thread::sleep(PAUSE);
        }
        Ok(None)
    }

    /// Gives the driver a connection. It takes one only in place of one that it knows to be dead, and does not say whether
    /// it did; but one that it takes gets its time limit.
    fn hand_over(&self, stream: &UnixStream) -> io::Result<()> {
        let _turn = self.handing_over.lock().unwrap_or_else(PoisonError::into_inner);
        let mut driver = Driver::open()?;
        while !self.ended.load(Ordering::SeqCst) {
            driver.ask(RECONFIGURE, self.named().nested(SOCKETS, one_socket(stream)))?;
            if stream.write_timeout()?.is_some() || is_dead(stream, PollTimeout::from(SETTLE_MS)) {
                break;
            }
        }
        Ok(())
    }

    /// No connection is wanted any more, and none is given to the driver when this returns. Whether that was so before.
    fn end(&self) -> bool {
        let ended = self.ended.swap(true, Ordering::SeqCst);
        drop(self.handing_over.lock());
        ended
    }

    /// The driver changes a device only for those who know its label.
    fn named(&self) -> Attributes {
        Attributes::default().u32(INDEX, self.index).text(BACKEND, &self.label)
    }

    /// Requests under way, and those that have ended since the device is there.
    fn progress(&self) -> Option<(usize, u64)> {
        let numbers = |file: &str| -> Option<Vec<u64>> {
            let text = fs::read_to_string(format!("/sys/block/nbd{}/{file}", self.index)).ok()?;
            text.split_whitespace().map(|number| number.parse().ok()).collect()
        };
        let (pending, ended) = (numbers("inflight")?, numbers("stat")?);
        // Reads, writes, discards, flushes (Documentation/block/stat.rst).
        let ended = [0, 4, 11, 15].iter().filter_map(|at| ended.get(*at)).sum();
        Some((pending.iter().sum::<u64>() as usize, ended))
    }
}

impl Backend for KernelDevice {
    fn driver(&self) -> &'static str {
        "nbd"
    }

    fn node(&self) -> &Path {
        &self.node
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    fn condition(&self) -> (bool, usize, bool) {
        let pending = self.progress().map_or(0, |(pending, _)| pending);
        (self.connected.load(Ordering::Relaxed), pending, self.ended.load(Ordering::Relaxed))
    }

    fn resize(&self) -> io::Result<()> {
        let size_bytes = line::look(&self.server)?.size_bytes;
        if size_bytes > self.size_bytes() {
            Driver::open()?.ask(RECONFIGURE, self.named().u64(SIZE_BYTES, size_bytes))?;
            self.size_bytes.store(size_bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn fail(&self) {
        self.end();
        if let Err(error) = disconnect(self.index) {
            tracing::error!("{} cannot be disconnected: {error}", self.node.display());
        }
    }

    fn remove(&self, _claim: File) -> io::Result<()> {
        match self.end() {
            true => Ok(()),
            false => disconnect(self.index),
        }
    }
}

/// Whether somebody shuts a connection down within this time.
fn is_dead(stream: &UnixStream, within: PollTimeout) -> bool {
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    // An interrupted wait is one that was short.
    poll(&mut watched, within).unwrap_or(0) > 0
}

/// What waits in the driver fails, and so does what comes.
fn disconnect(index: u32) -> io::Result<()> {
    Driver::open()?.ask(DISCONNECT, Attributes::default().u32(INDEX, index)).map(drop)
}
