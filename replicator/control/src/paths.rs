//! The runtime folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const DEFAULT: &str = "/run/tandem";

/// Where the daemon keeps its sockets and its status file: `/run/tandem`, or `TANDEM_RUN_DIR`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// The folder that the environment names, or the default.
    pub fn from_env() -> Self {
        RuntimeDir(std::env::var_os("TANDEM_RUN_DIR").map_or_else(|| DEFAULT.into(), PathBuf::from))
    }

    /// This folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RuntimeDir(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where is kept what must outlive the machine's restart: `/var/lib/tandem`; another folder than the default keeps it itself.
    pub fn kept(&self) -> PathBuf {
        if self.0 == Path::new(DEFAULT) { "/var/lib/tandem".into() } else { self.0.clone() }
    }

    /// Where `tandemadm` talks to the daemon.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Where NBD clients connect.
    pub fn nbd_socket(&self) -> PathBuf {
        self.0.join("nbd.sock")
    }

    /// Where the processes that keep the block devices have their sockets and links.
    pub fn devices(&self) -> PathBuf {
        self.0.join("device")
    }

    /// The status file in the format of DRBD 8.4's /proc/drbd.
    pub fn proc_drbd(&self) -> PathBuf {
        self.0.join("proc/drbd")
    }

    /// Holds the daemon's process id, and a lock while it runs.
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("tandemd.pid")
    }

    /// The log of a daemon that `tandemadm up` started.
    pub fn log_file(&self) -> PathBuf {
        self.0.join("tandemd.log")
    }
}
