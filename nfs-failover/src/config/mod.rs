//! `/etc/tandem/nfs-failover.conf`: which services there are, in the language of drbd.conf.
//!
//! ```text
//! service nfs {
//!     resource  r0;                      # device, sizes, roles are tandemd's
//!     mount     /srv/nfs { fstype ext4; options noatime,errors=remount-ro; }
//!     server    ganesha;                 # kernel | ganesha | none
//!     state     /srv/nfs/.nfs-state;     # NFSv4 recovery, statd, clients: on the volume
//!     export    "/srv/nfs/data 10.99.0.0/24(rw,sync,no_subtree_check,no_root_squash)";
//!     vip       10.99.0.100/24 dev eth0;
//!     grace 10; lease 10;
//!     nfs3-locks no;                     # with ganesha
//!     health    0.0.0.0:8008;
//!     peer      10.99.0.12:7790; shared-secret "...";
//!     on-stuck  none;                    # or reboot
//!     hooks     { start /path; stop /path; check /path; }
//!     decider   ucarp;                   # ucarp | keepalived | pacemaker | none
//! }
//! ```

mod export;
mod read;
mod rules;
mod words;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use tandem_config::language::{self, Diagnostics};
use tandem_config::{ConfigError, Diagnostic, Stage};

pub(crate) use export::derived_fsid;
pub use export::{Client, Export, Squash};
pub use words::{IN_HOOKS, IN_MOUNT, IN_SERVICE, Word};

/// Where the configuration lies unless something else is asked for.
pub const DEFAULT_PATH: &str = "/etc/tandem/nfs-failover.conf";

/// Every service, in the order of the file.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// At least one.
    pub services: Vec<Service>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// What moves from node to node together: a volume, the server on it, its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The replicated resource whose device holds the filesystem.
    pub resource: String,
    /// Where and how the filesystem is mounted.
    pub mount: Mount,
    /// What serves it.
    pub server: Server,
    /// Folder on the volume for what must move with it: NFSv4 recovery, statd, the list of clients.
    pub state: PathBuf,
    /// What is exported; empty for `server none`.
    pub exports: Vec<Export>,
    /// The addresses that clients know; at least one.
    pub vips: Vec<Vip>,
    /// Ports closed on the addresses until the service is ready; all of TCP and UDP if there is none.
    pub ports: Vec<u16>,
    /// For how long NFSv4 clients may reclaim their state.
    pub grace_s: u32,
    /// For how long an NFSv4 client's state lives without renewal.
    pub lease_s: u32,
    /// Whether NFS-Ganesha has the locks of NFSv3, which the kernel's server always has.
    pub nfs3_locks: bool,
    /// Where the health endpoint listens.
    pub health: Option<SocketAddr>,
    /// The other node's service, or both nodes' where the file is the same on both.
    pub peers: Vec<SocketAddr>,
    /// What the two nodes' services know each other by.
    pub shared_secret: Option<Secret>,
    /// The last resort when this node cannot give the volume up.
    pub on_stuck: OnStuck,
    /// Programs of the administrator.
    pub hooks: Hooks,
    /// Who elects the node that holds the addresses.
    pub decider: Decider,
}

/// Where and how the filesystem is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// The folder.
    pub point: PathBuf,
    /// `ext4`, `xfs`, ...
    pub fstype: String,
    /// As `mount -o` takes them.
    pub options: String,
    /// The filesystem's UUID, if only that one may be mounted.
    pub uuid: Option<String>,
}

/// What serves the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// knfsd.
    Kernel,
    /// NFS-Ganesha.
    Ganesha,
    /// Nothing but the hooks.
    None,
}

/// An address that clients know, on the node that serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// The interface that carries it.
    pub interface: String,
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} dev {}", self.address, self.prefix, self.interface)
    }
}

/// What the two nodes' services know each other by. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The last resort when this node cannot give the volume up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnStuck {
    /// Say so and wait for the operator.
    #[default]
    None,
    /// Reboot at once.
    Reboot,
}

/// Programs of the administrator, run at the place of the server as `PROGRAM SERVICE start|stop|check`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hooks {
    /// Starts what lives on the volume; must end when it answers.
    pub start: Option<PathBuf>,
    /// Stops it; must end when it is gone.
    pub stop: Option<PathBuf>,
    /// Ends with 0 while it works.
    pub check: Option<PathBuf>,
}

/// Who elects the node that holds the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Decider {
    /// The operator.
    #[default]
    None,
    /// UCARP.
    Ucarp,
    /// keepalived.
    Keepalived,
    /// Pacemaker.
    Pacemaker,
}

impl Config {
    /// Reads and checks a configuration file with its includes.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut found = Diagnostics::default();
        let statements = language::load(path, &mut found);
        Self::check(&statements, found)
    }

    /// Checks a text as if it were the file `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut found = Diagnostics::default();
        let statements = language::load_text(path, text, &mut found);
        Self::check(&statements, found)
    }

    fn check(statements: &[language::Statement], found: Diagnostics) -> Result<Self, ConfigError> {
        let mut found = found.usable(Stage::Syntax)?;
        let services = read::services(statements, &mut found);
        Ok(Self { services, warnings: found.usable(Stage::Check)?.into_warnings() })
    }

    /// The service of this name, or the only one if none is named.
    pub fn service(&self, name: Option<&str>) -> Option<&Service> {
        match name {
            Some(name) => self.services.iter().find(|service| service.name == name),
            None => self.services.first().filter(|_| self.services.len() == 1),
        }
    }
}

impl Service {
    /// Whether NFS is what is served.
    pub fn is_nfs(&self) -> bool {
        self.server != Server::None
    }
}

#[cfg(test)]
mod tests;
