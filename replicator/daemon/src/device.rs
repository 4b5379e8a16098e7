//! The block device of a Primary: started when a promotion has succeeded, told to go before a demotion.
//!
//! It is kept by a process of its own (`tandem-device`), which a restart of this daemon does not end.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::{Rc, Weak};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem_control::{BlockDeviceSpec, DeviceDriver, ResourceSpec, RuntimeDir, STEP_LIMIT};
use tandem_core::refusal::{CommandError, StateChangeRefusal};
use tandem_core::state::Role;
use tandem_device::control::{self, Files, Reply, Request};
use tandem_device::links::Links;
use tandem_device::serve;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::daemon::Entry;
use crate::failure::Failure;
use crate::resource::{AdminCommand, Clients, ExportState, Reign};

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
    /// The data that a device was opened with which an earlier daemon has left, until this node is Primary again.
    adopted: Cell<Option<Reign>>,
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
            adopted: Cell::new(None),
            turn: Mutex::new(()),
        }
    }

    /// Whether this process keeps the device.
    pub(crate) fn is_kept_by(&self, pid: Option<i32>) -> bool {
        let keeper = self.keeper.get().and_then(|pid| i32::try_from(pid).ok());
        keeper.is_some() && keeper == pid
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
        let (path, pid) = (self.path.display(), device.pid);
        info!(resource = self.resource, "{path} is still there ({}, pid {pid})", device.node.display());
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
            warn!(resource = self.resource, "the keeper of {} is killed: {error}", self.path.display());
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
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
        match self.ask(Request::Status, ANSWER_LIMIT).await {
            Some(Ok(Reply { device: Some(device), .. })) if !device.failing => return Ok(()),
            None => (),
            // It is of no use to anybody any more.
            Some(_) => self.close().await?,
        }
        let failure = |why: String| {
            let text = format!("the device {} cannot be made: {why}", self.path.display());
            Failure::unnumbered(text)
        };
        let mut child = self.spawn().map_err(|e| failure(format!("{PROGRAM} cannot be started: {e}")))?;
        self.keeper.set(child.id());
        let said = timeout(APPEAR_LIMIT, first_words(&mut child)).await;
        if let Ok(Ok(Reply { device: Some(device), .. })) = said {
            let (path, node) = (self.path.display(), device.node.display());
            info!(resource = self.resource, "{path} is there ({node}, pid {})", device.pid);
            self.watch(child);
            return Ok(());
        }
        // It may have ended by itself; as long as it lives it holds the volume open.
        let _ = child.start_kill();
        let _ = timeout(ANSWER_LIMIT, child.wait()).await;
        self.watch(child);
        Err(failure(match said {
            Ok(Ok(reply)) => reply.error.unwrap_or_default(),
            Ok(Err(error)) => format!("{PROGRAM} has said nothing ({error}); see the daemon's log"),
            Err(_) => format!("not within {} s", APPEAR_LIMIT.as_secs()),
        }))
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
            .args(["--driver", self.spec.driver.word()])
            .args(["--away-limit", &(self.spec.away_limit_ms / 1000).to_string()])
            .env("TANDEM_RUN_DIR", self.run.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    }

    /// The same for a keeper that is not our child: its socket ends with it.
    fn watch_adopted(&self, pid: u32) {
        let (keeper, resource) = (self.keeper.clone(), self.resource.clone());
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
        self.adopted.set(None);
        Ok(())
    }

    fn is_open_with_other_data(&self) -> Failure {
        let (path, name) = (self.path.display(), &self.resource);
        Failure::unnumbered(format_args!(
            "{path} is still open, and its data has changed since: 'tandemadm secondary --force {name}', then close it"
        ))
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
    pub(crate) async fn promote(self: &Rc<Self>, force: bool) -> Result<(), Failure> {
        let _turn = self.device.turn.lock().await;
        let was_primary = self.role() == Role::Primary;
        self.check_adopted(false).await?;
        if !was_primary && !self.device.is_adopted() {
            // Of an earlier reign that has ended without it.
            self.device.close().await?;
        }
        self.resource.command(AdminCommand::Primary { force }).await?;
        // Now that nobody else can be Primary.
        let appeared = match self.check_adopted(true).await {
            Ok(()) => {
                self.device.adopted.set(None);
                self.device.appear().await
            }
            Err(failure) => Err(failure),
        };
        let Err(failure) = appeared else {
            if !was_primary {
                spawn_local(end_with_reign(Rc::downgrade(self)));
            }
            return Ok(());
        };
        if was_primary {
            return Err(failure);
        }
        self.resource.stop_clients(Clients::Device).await;
        match self.resource.command(AdminCommand::Secondary).await {
            Ok(()) => Err(failure.because(format_args!("{} is Secondary again", self.spec.name))),
            Err(stays) => Err(failure.because(format_args!("and it stays Primary: {}", stays.text))),
        }
    }

    /// A device that stayed open while no daemon was there goes on only with the data that it was opened with.
    async fn check_adopted(&self, promoted: bool) -> Result<(), Failure> {
        let Some(opened_with) = self.device.adopted.get().filter(|_| self.device.is_adopted()) else {
            return Ok(());
        };
        let now = self.resource.reign().await;
        // A promotion may begin a generation: from then on only the others matter.
        let same = |now: Reign| now.generation == opened_with.generation || promoted;
        match now.is_some_and(|now| !now.others_wrote && same(now)) {
            true => Ok(()),
            false => Err(self.device.is_open_with_other_data()),
        }
    }

    fn role(&self) -> Role {
        self.resource.export().get().role
    }

    /// Secondary, and the device is gone; or neither.
    pub(crate) async fn demote(&self) -> Result<(), Failure> {
        let _turn = self.device.turn.lock().await;
        let clients = self.resource.status().await.map_or(Vec::new(), |status| status.openers);
        if !clients.is_empty() {
            return Err(held_open(&clients));
        }
        self.device.close().await?;
        self.resource.stop_clients(Clients::Device).await;
        let demoted = self.resource.command(AdminCommand::Secondary).await;
        if demoted.is_err() && self.role() == Role::Primary {
            let appeared = self.device.appear().await;
            if let Err(failure) = appeared {
                error!(resource = self.spec.name, "{}", failure.text);
            }
        }
        demoted
    }
}

/// Makes this node Primary again, for the sake of a device that stayed open while no daemon was there, as soon as it is
/// certain that no other node is or was: a peer is there and is not, or this node had gone on alone before.
pub(crate) async fn resume(entry: Weak<Entry>) {
    let Some(mut states) = entry.upgrade().map(|entry| entry.resource.export().watch()) else { return };
    let mut waiting = String::new();
    loop {
        let state = states.borrow_and_update().clone();
        let Some(entry) = entry.upgrade().filter(|entry| entry.device.is_adopted()) else { return };
        if state.others_wrote {
            error!(resource = entry.spec.name, "{}", entry.device.is_open_with_other_data().text);
            return entry.device.fail().await;
        }
        if let Some(why) = entry.must_wait(&state).await {
            if waiting != why {
                warn!(resource = entry.spec.name, "{} waits: {why}", entry.device.path.display());
                waiting = why;
            }
        } else {
            info!(resource = entry.spec.name, "{} goes on here", entry.device.path.display());
            return;
        }
        drop(entry);
        if states.changed().await.is_err() {
            return;
        }
    }
}

impl Entry {
    /// Why the device that stayed open must wait; `None` if it goes on.
    async fn must_wait(self: &Rc<Self>, state: &ExportState) -> Option<String> {
        let alone = self.device.adopted.get().is_some_and(|reign| reign.alone);
        if !alone && !state.all_connected {
            let name = &self.spec.name;
            return Some(format!(
                "a peer may be Primary by now; 'tandemadm primary {name}' if you know that it is not, 'tandemadm secondary \
                 --force {name}' if it is"
            ));
        }
        if self.role() == Role::Primary {
            return None;
        }
        let refused = self.promote(false).await.err()?;
        Some([vec![refused.text], refused.detail].concat().join("; "))
    }
}

/// A reign may end without anybody asking for it: what is open then must not go on, whatever comes next.
async fn end_with_reign(entry: Weak<Entry>) {
    let Some(mut states) = entry.upgrade().map(|entry| entry.resource.export().watch()) else { return };
    for primary in [true, false] {
        if states.wait_for(|state| (state.role == Role::Primary) == primary).await.is_err() {
            return;
        }
    }
    let Some(entry) = entry.upgrade() else { return };
    // Whoever has asked for it takes the device away, too.
    let _turn = entry.device.turn.lock().await;
    if entry.device.keeper.get().is_some() && entry.role() != Role::Primary {
        error!(resource = entry.spec.name, "no longer Primary: every request of the device fails");
        entry.device.fail().await;
    }
}
