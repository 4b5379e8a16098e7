//! The block device of a Primary: started when a promotion has succeeded, told to go before a demotion.
//!
//! It is kept by a process of its own (`tandem-device`), which a restart of this daemon does not end.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tandem_control::{BlockDeviceSpec, DeviceDriver, ResourceSpec, RuntimeDir, STEP_LIMIT};
use tandem_core::refusal::{CommandError, StateChangeRefusal};
use tandem_core::state::Role;
use tandem_device::control::{self, Files, Reply, Request};
use tandem_device::links::Links;
use tandem_device::serve;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::daemon::Entry;
use crate::failure::Failure;
use crate::resource::AdminCommand;

const PROGRAM: &str = "tandem-device";
/// For a device to appear: kernel modules may have to be loaded.
const APPEAR_LIMIT: Duration = Duration::from_secs(30);
/// For a keeper to say how it is.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The device of one volume on this node.
pub(crate) struct Device {
    spec: BlockDeviceSpec,
    resource: String,
    volume: u16,
    path: PathBuf,
    run: RuntimeDir,
    files: Files,
    links: Links,
    /// The keeper's process, while one is known to live.
    keeper: Rc<Cell<Option<u32>>>,
    /// One change of the role at a time.
    turn: Mutex<()>,
}

impl Device {
    pub(crate) fn new(spec: &ResourceSpec, run: &RuntimeDir) -> Device {
        let volume = &spec.volume;
        let files = Files::new(run, &spec.name, volume.number);
        Device {
            spec: spec.block_device,
            resource: spec.name.clone(),
            volume: volume.number,
            path: volume.device.clone(),
            run: run.clone(),
            links: Links::new(&files.node, &volume.device, &spec.name, volume.number),
            files,
            keeper: Rc::default(),
            turn: Mutex::new(()),
        }
    }

    /// Whether this process keeps the device.
    pub(crate) fn is_kept_by(&self, pid: Option<i32>) -> bool {
        let keeper = self.keeper.get().and_then(|pid| i32::try_from(pid).ok());
        keeper.is_some() && keeper == pid
    }

    /// Who has the device open.
    pub(crate) async fn openers(&self) -> Vec<String> {
        match self.ask(Request::Status, ANSWER_LIMIT).await {
            Some(Ok(reply)) => reply.openers,
            _ => Vec::new(),
        }
    }

    /// The device is there when this returns; if it is wanted.
    async fn appear(&self) -> Result<(), Failure> {
        if self.spec.driver == DeviceDriver::None {
            return Ok(());
        }
        if let Some(Ok(Reply { device: Some(_), .. })) = self.ask(Request::Status, ANSWER_LIMIT).await {
            return Ok(());
        }
        let failure = |why: String| {
            let text = format!("the device {} cannot be made: {why}", self.path.display());
            Failure::unnumbered(text)
        };
        let mut child = self.spawn().map_err(|e| failure(format!("{PROGRAM} cannot be started: {e}")))?;
        self.keeper.set(child.id());
        match timeout(APPEAR_LIMIT, first_words(&mut child)).await {
            Ok(Ok(Reply { device: Some(device), .. })) => {
                let (path, node) = (self.path.display(), device.node.display());
                info!(resource = self.resource, "{path} is there ({node}, pid {})", device.pid);
                self.watch(child);
                Ok(())
            }
            Ok(Ok(reply)) => {
                self.watch(child);
                Err(failure(reply.error.unwrap_or_default()))
            }
            Ok(Err(error)) => {
                self.watch(child);
                Err(failure(format!("{PROGRAM} has said nothing ({error}); see the daemon's log")))
            }
            Err(_) => {
                // It may have ended at this very moment.
                let _ = child.start_kill();
                self.watch(child);
                Err(failure(format!("not within {} s", APPEAR_LIMIT.as_secs())))
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let beside = std::env::current_exe().map(|exe| exe.with_file_name(PROGRAM));
        let program = beside.ok().filter(|path| path.is_file()).unwrap_or_else(|| PROGRAM.into());
        Command::new(program)
            .args(["serve", "--resource", &self.resource, "--volume", &self.volume.to_string()])
            .arg("--device")
            .arg(&self.path)
            .arg("--run-dir")
            .arg(self.run.path())
            .args(["--away-limit", &(self.spec.away_limit_ms / 1000).to_string()])
            .env("TANDEM_RUN_DIR", self.run.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    }

    /// Cleans up after a keeper when it has ended.
    fn watch(&self, mut child: Child) {
        let (keeper, resource) = (self.keeper.clone(), self.resource.clone());
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
            Some(Ok(reply)) => return Err(held_open(&reply.error.into_iter().collect::<Vec<_>>())),
            Some(Err(error)) => {
                let text = format!("the keeper of {} does not answer: {error}", self.path.display());
                return Err(Failure::unnumbered(text));
            }
        }
        Ok(())
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

/// What a keeper says when the device is there, or cannot be.
async fn first_words(child: &mut Child) -> io::Result<Reply> {
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).await?;
    }
    Ok(serde_json::from_str(&line)?)
}

fn held_open(openers: &[String]) -> Failure {
    let detail = openers.iter().map(|opener| format!("opened by {opener}")).collect();
    CommandError::Refused { refusal: StateChangeRefusal::HeldOpen, detail }.into()
}

/// Promotion and demotion, the device included.
impl Entry {
    /// Primary, and the device is there; or neither.
    pub(crate) async fn promote(&self, force: bool) -> Result<(), Failure> {
        let _turn = self.device.turn.lock().await;
        let was_primary = self.resource.export().lock().role == Role::Primary;
        self.resource.command(AdminCommand::Primary { force }).await?;
        let Err(failure) = self.device.appear().await else { return Ok(()) };
        if was_primary {
            return Err(failure);
        }
        match self.resource.command(AdminCommand::Secondary).await {
            Ok(()) => Err(failure.because(format_args!("{} is Secondary again", self.spec.name))),
            Err(stays) => Err(failure.because(format_args!("and it stays Primary: {}", stays.text))),
        }
    }

    /// Secondary, and the device is gone; or neither.
    pub(crate) async fn demote(&self) -> Result<(), Failure> {
        let _turn = self.device.turn.lock().await;
        let clients = self.resource.status().await.map_or(Vec::new(), |status| status.openers);
        if !clients.is_empty() {
            return Err(held_open(&clients));
        }
        self.device.close().await?;
        self.resource.stop_device().await;
        let demoted = self.resource.command(AdminCommand::Secondary).await;
        if demoted.is_err() && self.resource.export().lock().role == Role::Primary {
            let appeared = self.device.appear().await;
            if let Err(failure) = appeared {
                error!(resource = self.spec.name, "{}", failure.text);
            }
        }
        demoted
    }
}
