//! The lab: two servers, a witness and a client on a switch, in a folder that takes everything along when it is dropped.
//!
//! Nothing outside of the namespaces is touched: no interface, no mount, no packet filter of the machine. Other deciders
//! (UCARP, keepalived, Pacemaker, HAProxy) are programs on these hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::mkdtemp;

use crate::host::Host;
use crate::switch::Switch;

/// The address that clients know.
pub(crate) const VIP: &str = "10.99.0.100";

/// Another one, for those who want it.
pub(crate) const VIP6: &str = "fd00:99::100";

/// The lab.
pub(crate) struct Lab {
    pub(crate) switch: Arc<Switch>,
    /// The servers.
    pub(crate) a: Host,
    pub(crate) b: Host,
    /// Where the client runs.
    pub(crate) c: Host,
    /// A third party, for the servers to ask when they lose each other.
    pub(crate) w: Host,
    folder: PathBuf,
}

impl Lab {
    /// All hosts are switched on, and nothing runs.
    pub(crate) fn new() -> Lab {
        let folder = mkdtemp(&std::env::temp_dir().join("tandem-ha-XXXXXX")).unwrap();
        let switch = Arc::new(Switch::new(&folder));
        let host = |name, last: u8| {
            let mut host = Host::new(&folder, name, last);
            host.power_on(&switch);
            host
        };
        let (a, b, c, w) = (host("a", 11), host("b", 12), host("c", 50), host("w", 20));
        Lab { switch, a, b, c, w, folder }
    }

    /// For what all hosts may read.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in [&mut self.a, &mut self.b, &mut self.c, &mut self.w] {
            if host.is_on() {
                host.power_off(&self.switch);
            }
        }
        if std::env::var_os("TANDEM_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
