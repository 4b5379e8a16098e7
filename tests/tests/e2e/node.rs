//! One node: its disk, its runtime folder, its daemon, and what can be done to it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem_control::{Request, ResourceStatus, RuntimeDir, ask};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::status::{PeerStatus, Status};

use crate::nbd_client::{NbdClient, NbdError};
pub(crate) use crate::outcome::{Outcome, binary};
use crate::wait;

/// The only resource.
pub(crate) const RESOURCE: &str = "r0";

/// A node of the pair.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) run: RuntimeDir,
    pub(crate) disk: PathBuf,
    /// Of volume 1, if there is one.
    pub(crate) second_disk: Option<PathBuf>,
    pub(crate) config: PathBuf,
    /// What its programs are started with.
    pub(crate) prefix: Vec<String>,
}

impl Node {
    /// `tandemadm ARGS` on this node.
    pub(crate) fn adm(&self, args: &[&str]) -> Outcome {
        let mut command = self.command(&binary("tandemadm"));
        command.arg("-c").arg(&self.config).args(args);
        Outcome::of(command)
    }

    /// Any program, with this node's environment.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut line = self.prefix.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(line.next().unwrap_or_default());
        command.args(line);
        command.env("TANDEM_NODE", self.name).env("TANDEM_RUN_DIR", self.run.path());
        command
    }

    /// kill -9 of the daemon; returns when it is gone.
    pub(crate) fn kill(&self) {
        let pid = self.pid().unwrap_or_else(|| panic!("{}: no daemon runs", self.name));
        kill(pid, Signal::SIGKILL).unwrap();
        wait::until("the killed daemon is gone", || !is_running(pid));
    }

    /// The daemon's process, if it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.run.pid_file()).ok()?;
        text.trim().parse().ok().map(Pid::from_raw).filter(|pid| is_running(*pid))
    }

    /// The engine's snapshot; `None` while no daemon answers or the resource is down.
    pub(crate) fn status(&self) -> Option<Status> {
        self.resource().map(|resource| resource.engine)
    }

    /// The same with what the daemon knows besides.
    pub(crate) fn resource(&self) -> Option<ResourceStatus> {
        let request = Request::Status { resource: Some(RESOURCE.into()) };
        let reply = ask(&self.run.control_socket(), &request, wait::LIMIT).ok()?;
        reply.status.into_iter().next()
    }

    /// What this node knows of its peer.
    pub(crate) fn peer(&self) -> Option<PeerStatus> {
        self.status()?.peers.into_iter().next()
    }

    pub(crate) fn role(&self) -> Role {
        self.status().map_or(Role::Unknown, |s| s.role)
    }

    pub(crate) fn disk_state(&self) -> DiskState {
        self.status().map_or(DiskState::DUnknown, |s| s.disk)
    }

    pub(crate) fn connection(&self) -> Option<ConnectionState> {
        self.peer().map(|p| p.connection)
    }

    /// Becomes Primary, if need be after a while: the loss of the peer must have been noticed.
    pub(crate) fn promote(&self) {
        let mut last = None;
        let promoted = wait::holds_within(wait::LIMIT, || {
            let outcome = self.adm(&["primary", RESOURCE]);
            let done = outcome.code == Some(0);
            last = Some(outcome);
            done
        });
        assert!(promoted, "{} could not be promoted: {last:?}", self.name);
    }

    /// A client of this node's export.
    pub(crate) fn client(&self) -> Result<NbdClient, NbdError> {
        self.client_of(RESOURCE)
    }

    /// A client of this export.
    pub(crate) fn client_of(&self, export: &str) -> Result<NbdClient, NbdError> {
        NbdClient::connect(&self.run.nbd_socket(), export)
    }

    /// The exports for other programs, one for each volume.
    pub(crate) fn uris(&self) -> Vec<String> {
        let numbers = if self.second_disk.is_some() { &["/0", "/1"][..] } else { &[""] };
        let socket = self.run.nbd_socket();
        let uri = |number: &&str| format!("nbd+unix:///{RESOURCE}{number}?socket={}", socket.display());
        numbers.iter().map(uri).collect()
    }

    /// The export of the only volume.
    pub(crate) fn uri(&self) -> String {
        self.uris().remove(0)
    }

    /// Of each volume.
    pub(crate) fn disks(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.disk).chain(&self.second_disk)
    }

    /// Of each volume; empty while that is not known.
    pub(crate) fn volume_sizes(&self) -> Vec<u64> {
        match self.status() {
            Some(status) if self.second_disk.is_none() => vec![status.size_bytes],
            status => status.map_or(Vec::new(), |s| s.volumes.iter().map(|v| v.size_bytes).collect()),
        }
    }

    /// The first `length` bytes of the disk, as they are in the file.
    pub(crate) fn disk_bytes(&self, length: u64) -> Vec<u8> {
        self.bytes_of(0, length)
    }

    /// The same of a volume's disk.
    pub(crate) fn bytes_of(&self, volume: usize, length: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        File::open(self.disks().nth(volume).unwrap()).unwrap().take(length).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.run.log_file()).unwrap_or_default()).into_owned()
    }
}

/// A zombie does not count: nobody may be there to reap it.
pub(crate) fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
