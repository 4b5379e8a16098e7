//! The servers that are compared, each started afresh for a round and ended after it.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Result, run};

/// How long a server may take to answer, or a pair to be in sync.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The resource's name.
const RESOURCE: &str = "r0";
/// Both nodes' replication port.
const PORT: u16 = 17788;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// nbdkit's file plugin.
    Nbdkit,
    /// qemu-nbd without cache, on io_uring.
    QemuNbd,
    /// tandemd, its peer away.
    Tandem,
    /// tandemd, replicating to a second one by protocol C.
    TandemPair,
}

impl Kind {
    /// Every server.
    pub(crate) const ALL: [Kind; 4] = [Kind::Nbdkit, Kind::QemuNbd, Kind::Tandem, Kind::TandemPair];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Nbdkit => "nbdkit",
            Kind::QemuNbd => "qemu-nbd",
            Kind::Tandem => "tandem",
            Kind::TandemPair => "tandem C",
        })
    }
}

/// A running server.
pub(crate) struct Server {
    /// Its export.
    pub(crate) uri: String,
    /// Held for its end.
    _running: Running,
}

enum Running {
    Other { _process: Process },
    Tandem { _pair: Pair },
}

impl Server {
    /// Starts a server on a fresh file in the folder.
    pub(crate) fn start(kind: Kind, folder: &Path, bytes: u64) -> Result<Server> {
        let (socket, image) = (folder.join("nbd.sock"), folder.join("other.img"));
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        let mut command = match kind {
            Kind::Tandem | Kind::TandemPair => return Server::tandem(kind, folder, bytes),
            Kind::Nbdkit => Command::new("nbdkit"),
            Kind::QemuNbd => Command::new("qemu-nbd"),
        };
        match kind {
            Kind::Nbdkit => command.arg("-f").arg("-U").arg(&socket).arg("file").arg(&image),
            _ => command
                .args(["-t", "-e", "16", "-f", "raw", "--cache=none", "--aio=io_uring", "-k"])
                .args([&socket, &image]),
        };
        let _ = fs::remove_file(&socket);
        fill(&image, bytes)?;
        let process =
            Process(command.stdout(Stdio::null()).spawn().map_err(|e| format!("{command:?}: {e}"))?);
        until("the server answers", || run(Command::new("nbdinfo").arg("--size").arg(&uri)).is_ok())?;
        Ok(Server { uri, _running: Running::Other { _process: process } })
    }

    fn tandem(kind: Kind, folder: &Path, bytes: u64) -> Result<Server> {
        let pair = Pair::new(folder, "", |disk| fill(disk, bytes))?;
        pair.start(kind == Kind::TandemPair)?;
        Ok(Server { uri: pair.uri("alpha"), _running: Running::Tandem { _pair: pair } })
    }
}

/// Two nodes of Tandem; those that were brought up are taken down when it is dropped.
pub(crate) struct Pair {
    folder: PathBuf,
    config: PathBuf,
}

impl Pair {
    /// Configuration with some more statements, disks made by `make_disk`, metadata; nothing runs.
    pub(crate) fn new(
        folder: &Path,
        statements: &str,
        make_disk: impl Fn(&Path) -> Result<()>,
    ) -> Result<Pair> {
        let pair = Pair { folder: folder.to_owned(), config: folder.join("r0.res") };
        // Both share /dev.
        let mut text = format!(
            "global {{ device-driver none; }}\nresource {RESOURCE} {{\n  protocol C;\n  {statements}\n"
        );
        for name in ["alpha", "bravo"] {
            let disk = folder.join(name).with_extension("img");
            make_disk(&disk)?;
            text += &format!(
                "  on {name} {{ device /dev/drbd0; disk {}; address {}:{PORT}; meta-disk internal; }}\n",
                disk.display(),
                address(name)
            );
        }
        fs::write(&pair.config, text + "}\n")?;
        pair.alpha(&["create-md", "--force", RESOURCE])?;
        pair.bravo(&["create-md", "--force", RESOURCE])?;
        Ok(pair)
    }

    /// Alpha becomes Primary, and bravo, if it takes part, a copy of it.
    pub(crate) fn start(&self, with_peer: bool) -> Result<()> {
        if with_peer {
            self.connect()?;
        } else {
            self.alpha(&["up", RESOURCE])?;
        }
        self.alpha(&["primary", "--force", RESOURCE])?;
        if with_peer { self.until_in_sync() } else { Ok(()) }
    }

    /// Both are up and have met.
    pub(crate) fn connect(&self) -> Result<()> {
        self.alpha(&["up", RESOURCE])?;
        self.bravo(&["up", RESOURCE])?;
        self.alpha(&["wait-connect", RESOURCE]).map(drop)
    }

    /// Waits for the end of the resync.
    pub(crate) fn until_in_sync(&self) -> Result<()> {
        until("the pair is in sync", || {
            self.alpha(&["dstate", RESOURCE]).is_ok_and(|s| s.trim() == "UpToDate/UpToDate")
        })
    }

    /// `tandemadm ARGS` as alpha.
    pub(crate) fn alpha(&self, args: &[&str]) -> Result<String> {
        self.adm("alpha", args)
    }

    /// `tandemadm ARGS` as bravo.
    pub(crate) fn bravo(&self, args: &[&str]) -> Result<String> {
        self.adm("bravo", args)
    }

    /// The export of a node.
    pub(crate) fn uri(&self, node: &str) -> String {
        format!("nbd+unix:///{RESOURCE}?socket={}", self.folder.join(node).join("nbd.sock").display())
    }

    /// The process of a node's daemon.
    pub(crate) fn pid(&self, node: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(node).join("tandemd.pid")).ok().map(|pid| pid.trim().to_owned())
    }

    fn adm(&self, node: &str, args: &[&str]) -> Result<String> {
        let programs =
            std::env::var_os("TANDEM_BIN_DIR").ok_or("TANDEM_BIN_DIR is not set: run cargo xtask bench")?;
        let mut command = Command::new(Path::new(&programs).join("tandemadm"));
        command.arg("-c").arg(&self.config).args(args);
        command.env("TANDEM_NODE", node).env("TANDEM_RUN_DIR", self.folder.join(node));
        run(&mut command)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for node in ["alpha", "bravo"] {
            let Some(pid) = self.pid(node) else { continue };
            let ended = || !Path::new("/proc").join(&pid).join("exe").exists();
            if ended() {
                continue;
            }
            let killed = run(Command::new("kill").args(["-9", &pid]));
            // The kernel ends what the ring still does after the process is gone.
            let gone = || ended() && TcpListener::bind((address(node), PORT)).is_ok();
            if let Err(error) = killed.and_then(|_| until("the daemon has ended", gone)) {
                eprintln!("bench: {error}");
            }
            let _ = fs::remove_dir_all(self.folder.join(node));
        }
    }
}

/// Where a node listens for its peer.
fn address(node: &str) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, if node == "alpha" { 1 } else { 2 })
}

/// nbdkit with this file, and the address of its export.
pub(crate) fn nbdkit_on_tcp(image: &Path) -> Result<(Process, String)> {
    let mut command = Command::new("nbdkit");
    command.args(["-f", "-i", "127.0.0.1", "-p", &PORT.to_string(), "file"]).arg(image);
    let process = Process(command.stdout(Stdio::null()).spawn().map_err(|e| format!("{command:?}: {e}"))?);
    let uri = format!("nbd://127.0.0.1:{PORT}");
    until("the server answers", || run(Command::new("nbdinfo").arg("--size").arg(&uri)).is_ok())?;
    Ok((process, uri))
}

/// A child that does not outlive this.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file without holes, and without zeroes that a server could treat in a special way.
pub(crate) fn fill(path: &Path, bytes: u64) -> Result<()> {
    fill_with(path, bytes, 0)
}

/// Two files of a different `kind`, an even number, have no block in common.
pub(crate) fn fill_with(path: &Path, bytes: u64, kind: u8) -> Result<()> {
    const CHUNK_BYTES: u64 = 1 << 20;
    let mut file = File::create(path)?;
    for number in 0..bytes / CHUNK_BYTES {
        file.write_all(&vec![(number as u8 ^ kind) | 1; CHUNK_BYTES as usize])?;
    }
    file.sync_all()?;
    Ok(())
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > START_LIMIT {
            return Err(format!("not within {} s: {what}", START_LIMIT.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
