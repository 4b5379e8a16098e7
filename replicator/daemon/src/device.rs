//! The block device of a volume on its Primary: kept by a process of its own (`tandem-device`), which a restart of this
//! daemon does not end.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem_control::{DeviceDriver, ResourceSpec, RuntimeDir, STEP_LIMIT, VolumeSpec};
use tandem_core::refusal::{CommandError, StateChangeRefusal};
use tandem_device::control::{self, Files, Reply, Request};
use tandem_device::links::Links;
use tandem_device::serve::{self, Options};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::failure::Failure;
use crate::resource::Reign;
use crate::spare::{PROGRAM, Spare, program};

/// For a device to appear: kernel modules may have to be loaded.
const APPEAR_LIMIT: Duration = Duration::from_secs(30);
/// For a keeper to say how it is.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The device of one volume on this node.
pub(crate) struct Device {
    /// What its keeper is told.
    options: Options,
    spare: Rc<Spare>,
    files: Files,
    links: Links,
    /// The keeper's process, while one is known to live.
    keeper: Rc<Cell<Option<u32>>>,
    /// The data that a device was opened with which an earlier daemon has left, until this node is Primary again.
    adopted: Cell<Option<Reign>>,
}

impl Device {
    pub(crate) fn new(
        spec: &ResourceSpec,
        volume: &VolumeSpec,
        run: &RuntimeDir,
        spare: &Rc<Spare>,
    ) -> Device {
        let files = Files::new(run, &spec.name, volume.number);
        let away_limit_s = spec.block_device.away_limit_ms / 1000;
        Device {
            options: Options {
                resource: spec.name.clone(),
                volume: volume.number,
                device: volume.device.clone(),
                driver: spec.block_device.driver,
                run: run.clone(),
                away_limit: (away_limit_s > 0).then(|| Duration::from_secs(away_limit_s)),
            },
            spare: spare.clone(),
            links: Links::new(&files.node, &volume.device, &spec.name, volume.number),
            files,
            keeper: Rc::default(),
            adopted: Cell::new(None),
        }
    }

    /// Whether this process keeps the device.
    pub(crate) fn is_kept_by(&self, pid: Option<i32>) -> bool {
        let keeper = self.keeper.get().and_then(|pid| i32::try_from(pid).ok());
        keeper.is_some() && keeper == pid
    }

    /// A process is known that keeps it.
    pub(crate) fn has_keeper(&self) -> bool {
        self.keeper.get().is_some()
    }

    /// The configured name.
    pub(crate) fn path(&self) -> &Path {
        &self.options.device
    }

    /// The data that an adopted device was opened with.
    pub(crate) fn opened_with(&self) -> Option<Reign> {
        self.adopted.get()
    }

    /// An adopted device may go on.
    pub(crate) fn goes_on(&self) {
        self.adopted.set(None);
    }

    /// An earlier daemon has left it, and nobody has found out yet whether it may go on.
    pub(crate) fn is_adopted(&self) -> bool {
        // With its keeper it has gone.
        self.adopted.get().is_some() && self.keeper.get().is_some()
    }

    /// Takes over the device that an earlier daemon has left, if there is one; `reign` is what the disk says before any peer
    /// is met.
    pub(crate) async fn adopt(&self, reign: Option<Reign>) -> bool {
        let (None, Some(reign)) = (self.keeper.get(), reign) else { return false };
        let asked = self.ask(Request::Status, ANSWER_LIMIT).await;
        let Some(Ok(Reply { device: Some(device), .. })) = asked else { return false };
        if device.failing {
            return false;
        }
        let (path, pid) = (self.path().display(), device.pid);
        info!(
            resource = self.options.resource,
            "{path} is still there ({}, pid {pid})",
            device.node.display()
        );
        self.keeper.set(Some(pid));
        self.adopted.set(Some(reign));
        self.watch_adopted(pid);
        true
    }

    /// Fails all its requests, those that wait too, for good. A keeper that does not answer is killed: that comes to the
    /// same.
    pub(crate) async fn fail(&self) {
        let failed = self.ask(Request::Fail, ANSWER_LIMIT).await;
        let pid = self.keeper.get().and_then(|pid| i32::try_from(pid).ok());
        if let Some(Err(error)) = failed
            && let Some(pid) = pid
        {
            warn!(
                resource = self.options.resource,
                "the keeper of {} is killed: {error}",
                self.path().display()
            );
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// The volume has grown: the device becomes as large, if it is there.
    pub(crate) async fn grow(&self) -> Result<(), Failure> {
        if !self.has_keeper() {
            return Ok(());
        }
        let why = match self.ask(Request::Resize, STEP_LIMIT).await {
            None | Some(Ok(Reply { error: None, .. })) => return Ok(()),
            Some(Ok(reply)) => reply.error.unwrap_or_default(),
            Some(Err(error)) => error.to_string(),
        };
        let text = format!("the volume has grown, its device {} has not: {why}", self.path().display());
        Err(Failure::unnumbered(text))
    }

    /// Who has the device open.
    pub(crate) async fn openers(&self) -> Vec<String> {
        match self.ask(Request::Openers, ANSWER_LIMIT).await {
            Some(Ok(reply)) => reply.openers,
            _ => Vec::new(),
        }
    }

    /// The device is there when this returns; if it is wanted.
    pub(crate) async fn appear(&self) -> Result<(), Failure> {
        if self.options.driver == DeviceDriver::None {
            return Ok(());
        }
        match self.ask(Request::Status, ANSWER_LIMIT).await {
            Some(Ok(Reply { device: Some(device), .. })) if !device.failing => return Ok(()),
            None => (),
            // It is of no use to anybody any more.
            Some(_) => self.close().await?,
        }
        if let Some(spare) = self.spare.keeper(&self.options).await {
            match self.made_by(spare).await {
                Ok(()) => return Ok(()),
                // It was killed before it came to that. Another may fare better, or say more.
                Err(Unmade::Silent(_)) => (),
                Err(unmade) => return Err(self.cannot_be_made(unmade)),
            }
        }
        let started = self.spawn().map_err(|e| Unmade::Refused(format!("{PROGRAM} cannot be started: {e}")));
        let made = match started {
            Ok(child) => self.made_by(child).await,
            Err(unmade) => Err(unmade),
        };
        made.map_err(|unmade| self.cannot_be_made(unmade))
    }

    fn cannot_be_made(&self, unmade: Unmade) -> Failure {
        Failure::unnumbered(format_args!("the device {} cannot be made: {unmade}", self.path().display()))
    }

    /// Waits until the process has made the device, which it keeps from then on; it has ended if it has not.
    async fn made_by(&self, mut child: Child) -> Result<(), Unmade> {
        self.keeper.set(child.id());
        let said = timeout(APPEAR_LIMIT, first_words(&mut child)).await;
        if let Ok(Ok(Reply { device: Some(device), .. })) = said {
            let (path, node) = (self.path().display(), device.node.display());
            info!(resource = self.options.resource, "{path} is there ({node}, pid {})", device.pid);
            self.watch(child);
            return Ok(());
        }
        // It may have ended by itself; as long as it lives it holds the volume open.
        let _ = child.start_kill();
        let _ = timeout(ANSWER_LIMIT, child.wait()).await;
        self.watch(child);
        Err(match said {
            Ok(Ok(reply)) => Unmade::Refused(reply.error.unwrap_or_default()),
            Ok(Err(error)) => Unmade::Silent(error),
            Err(_) => Unmade::Refused(format!("not within {} s", APPEAR_LIMIT.as_secs())),
        })
    }

    fn spawn(&self) -> io::Result<Child> {
        let Options { resource, volume, device, driver, run, away_limit } = &self.options;
        program(run)
            .args(["serve", "--resource", resource, "--volume", &volume.to_string()])
            .arg("--device")
            .arg(device)
            .arg("--run-dir")
            .arg(run.path())
            .args(["--driver", driver.word()])
            .args(["--away-limit", &away_limit.map_or(0, |limit| limit.as_secs()).to_string()])
            .spawn()
    }

    /// The same for a keeper that is not our child: its socket ends with it.
    fn watch_adopted(&self, pid: u32) {
        let (keeper, resource) = (self.keeper.clone(), self.options.resource.clone());
        let (files, links) = (self.files.clone(), self.links.clone());
        spawn_local(async move {
            while let Ok(mut stream) = UnixStream::connect(&files.socket).await {
                // Conversations in which nobody speaks end, too.
                let _ = stream.read(&mut [0; 1]).await;
            }
            if keeper.get() == Some(pid) {
                error!(resource, "the device is gone: {PROGRAM} (pid {pid}) has ended");
                keeper.set(None);
                serve::clean_up(&files, &links);
            }
        });
    }

    /// Cleans up after a keeper when it has ended.
    fn watch(&self, mut child: Child) {
        let (keeper, resource) = (self.keeper.clone(), self.options.resource.clone());
        let (files, links) = (self.files.clone(), self.links.clone());
        let pid = child.id();
        spawn_local(async move {
            let ended = child.wait().await;
            if keeper.get() == pid {
                keeper.set(None);
                serve::clean_up(&files, &links);
            }
            match ended {
                Ok(status) if status.success() => (),
                Ok(status) => error!(resource, "the device is gone: {PROGRAM} has ended ({status})"),
                Err(error) => warn!(resource, "{PROGRAM} cannot be waited for: {error}"),
            }
        });
    }

    /// The device is gone when this returns, or is open.
    pub(crate) async fn close(&self) -> Result<(), Failure> {
        match self.ask(Request::Close, STEP_LIMIT).await {
            None => serve::clean_up(&self.files, &self.links),
            Some(Ok(Reply { error: None, .. })) => self.keeper.set(None),
            Some(Ok(reply)) if !reply.openers.is_empty() => return Err(held_open(&reply.openers)),
            Some(Ok(reply)) => return Err(refused_as_held(reply.error.into_iter().collect())),
            Some(Err(error)) => {
                let text = format!("the keeper of {} does not answer: {error}", self.path().display());
                return Err(Failure::unnumbered(text));
            }
        }
        self.adopted.set(None);
        Ok(())
    }

    pub(crate) fn is_open_with_other_data(&self) -> Failure {
        let (path, name) = (self.path().display(), &self.options.resource);
        Failure::unnumbered(format_args!(
            "{path} is still open, and its data has changed since: 'tandemadm secondary --force {name}', then close it"
        ))
    }

    /// What cannot be told to anybody who has asked.
    pub(crate) fn complain(&self, failure: &Failure) {
        error!(resource = self.options.resource, "{}", failure.text);
    }

    /// `None` if there is no keeper.
    async fn ask(&self, request: Request, limit: Duration) -> Option<io::Result<Reply>> {
        let socket = self.files.socket.clone();
        let asked = spawn_blocking(move || control::ask(&socket, request, limit)).await;
        match asked.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => None,
            answer => Some(answer),
        }
    }
}

/// Why a process has not made a device.
#[derive(Debug, Error)]
enum Unmade {
    /// It says why, or takes too long.
    #[error("{0}")]
    Refused(String),
    /// It has ended without a word.
    #[error("{PROGRAM} has said nothing ({0}); see the daemon's log")]
    Silent(io::Error),
}

/// What a keeper says when the device is there, or cannot be.
async fn first_words(child: &mut Child) -> io::Result<Reply> {
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).await?;
    }
    Ok(serde_json::from_str(&line)?)
}

pub(crate) fn held_open(openers: &[String]) -> Failure {
    refused_as_held(openers.iter().map(|opener| format!("opened by {opener}")).collect())
}

fn refused_as_held(detail: Vec<String>) -> Failure {
    CommandError::Refused { refusal: StateChangeRefusal::HeldOpen, detail }.into()
}
