//! This node: where its files lie, and what becomes of a service on it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tandem_control::RuntimeDir;

/// Between two attempts to get the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// This node.
#[derive(Clone, Debug)]
pub struct Here {
    /// Where `tandemd` is to be found.
    pub tandem: RuntimeDir,
    /// The configuration, for processes of our own.
    pub config_file: PathBuf,
}

/// What a service is on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is not served here.
    #[default]
    Secondary,
    /// On the way up.
    Promoting,
    /// It is served here.
    Primary,
    /// On the way down.
    Demoting,
    /// It could be brought neither up nor down; nothing is served.
    Failed,
    /// This node cannot give the volume up: nobody else may have it before this node is fenced.
    MustFence,
}

impl State {
    /// The word shown to the operator.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Secondary => "secondary",
            State::Promoting => "promoting",
            State::Primary => "primary",
            State::Demoting => "demoting",
            State::Failed => "failed",
            State::MustFence => "must-fence",
        }
    }
}

/// What a service is on this node, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// What it is.
    pub state: State,
    /// Why, where the operator should know.
    pub why: Option<String>,
}

/// Makes the runtime folder. Root's own: whoever may write there may move the service.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

impl Here {
    /// As the environment has it.
    pub fn new(config_file: &Path) -> Self {
        Self { tandem: RuntimeDir::from_env(), config_file: config_file.to_owned() }
    }

    /// The runtime folder; made if it is not there.
    pub fn folder(&self) -> io::Result<PathBuf> {
        let folder = self.path("");
        make_folder(&folder)?;
        Ok(folder)
    }

    /// A file of a service in the runtime folder.
    pub fn file(&self, service: &str, what: &str) -> PathBuf {
        self.path(&format!("{service}.{what}"))
    }

    /// What is known of a service whatever becomes of this machine's power.
    pub fn kept(&self, service: &str, what: &str) -> PathBuf {
        self.tandem.kept().join("nfs-failover").join(format!("{service}.{what}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tandem.path().join("nfs-failover").join(name)
    }

    /// Whether what becomes of services can be read.
    pub fn look(&self) -> io::Result<()> {
        match fs::read_dir(self.path("")) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
            // Nothing has become of any yet.
            _ => Ok(()),
        }
    }

    /// What the service is on this node.
    pub fn standing(&self, service: &str) -> Standing {
        let text = fs::read(self.file(service, "state")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Notes what the service is on this node.
    pub fn set_standing(&self, service: &str, state: State, why: Option<String>) -> io::Result<()> {
        let path = self.file(service, "state");
        self.folder()?;
        let fresh = path.with_extension("state.new");
        fs::write(&fresh, serde_json::to_vec(&Standing { state, why })?)?;
        fs::rename(fresh, path)
    }

    /// Keeps everybody else from changing the service on this node, as long as the lock lives.
    pub fn lock(&self, service: &str, limit: Duration) -> io::Result<Flock<File>> {
        self.folder()?;
        let path = self.file(service, "lock");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let began = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((back, _)) if began.elapsed() < limit => file = back,
                Err((_, error)) => return Err(error.into()),
            }
            std::thread::sleep(LOCK_INTERVAL);
        }
    }
}
