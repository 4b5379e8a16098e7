//! The daemon's resources, and what the administrator asks of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, hash_map};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tandem_control::{Action, LastSeen, NodeSpec, Reply, Request, ResourceSpec, ResourceStatus, RuntimeDir};
use tandem_core::divergence::Divergence;
use tandem_core::io::Command;
use tandem_core::refusal::{
    ALREADY_EXISTS, CommandError, HAS_DISK, HAS_NET, INVALID_REQUEST, StateChangeRefusal,
};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::status::Status;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::connector::Connector;
use crate::devices::{self, Devices};
use crate::failure::{Failure, Kind};
use crate::handlers;
use crate::nbd_listener;
use crate::openers::Openers;
use crate::resource::{self, Clients, Resource, Snapshot};
use crate::sockets;
use crate::spare::Spare;
use crate::watchers::{News, Watchers};

/// NBD clients at once, all resources together.
const MAX_CLIENTS: usize = 256;
/// For a resource's thread to end once it has nothing to do.
const THREAD_END_LIMIT: Duration = Duration::from_secs(10);
/// For clients' requests to end and for the peer to agree when the daemon stops. Then the peer is left: one that hangs
/// must not keep the daemon until ko-count finds out.
const PEER_LIMIT: Duration = Duration::from_secs(5);
/// For clients' requests to end once the peer is left; only a disk can keep them then.
const CLIENT_END_LIMIT: Duration = Duration::from_secs(10);
/// For a demotion by force to be one in good order.
const FORCE_LIMIT: Duration = Duration::from_secs(3);
/// The same where requests wait for the peer to be fenced, for quorum or for the administrator: none of that comes in time.
const FROZEN_FORCE_LIMIT: Duration = Duration::from_millis(200);
/// For a resource to be taken down when the daemon stops.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);
/// `detach` of a volume that has no disk.
const NO_DISK_CONFIG: u16 = 138;
/// Anything asked of a resource that is not up.
const UNKNOWN_RESOURCE: (u16, &str) = (158, "Unknown resource");

/// A resource that is up.
pub(crate) struct Entry {
    /// As it was brought up, or changed since.
    spec: RefCell<Rc<ResourceSpec>>,
    /// The peers that it was made with. The engine keeps what those lack that were taken away.
    made_with: Vec<NodeSpec>,
    pub(crate) resource: Resource,
    pub(crate) devices: Devices,
    /// One `up` or `down` at a time.
    admin: Mutex<()>,
    /// The last snapshot, for when the thread is too busy to give one.
    last_status: RefCell<Option<Snapshot>>,
    /// Until the resource is removed.
    connector: RefCell<Option<Connector>>,
}

/// All resources.
pub(crate) struct Daemon {
    run: RuntimeDir,
    spare: Rc<Spare>,
    entries: RefCell<BTreeMap<String, Rc<Entry>>>,
    prepared: Prepared,
    /// Rung when a state has changed.
    pub(crate) changed: Arc<Notify>,
    /// Told of what has changed.
    pub(crate) watchers: Rc<Watchers>,
    /// Admits NBD clients.
    pub(crate) clients: Arc<Semaphore>,
    nbd_listeners: RefCell<HashMap<SocketAddr, JoinHandle<()>>>,
}

impl Daemon {
    pub(crate) fn new(run: RuntimeDir) -> Rc<Daemon> {
        Rc::new(Daemon {
            spare: Spare::new(&run),
            run,
            entries: RefCell::default(),
            prepared: Prepared::default(),
            changed: Arc::new(Notify::new()),
            watchers: Rc::new(Watchers::new()),
            clients: Arc::new(Semaphore::new(MAX_CLIENTS)),
            nbd_listeners: RefCell::default(),
        })
    }

    /// Does what is asked.
    pub(crate) async fn handle(self: &Rc<Self>, request: Request) -> Reply {
        match request {
            Request::Up { spec } => {
                let name = spec.name.clone();
                match self.up(spec).await {
                    Ok(detail) => Reply { detail, ..Reply::default() },
                    Err(failure) => failure.reply(&name),
                }
            }
            Request::New { spec } => {
                let name = spec.name.clone();
                told(&name, self.make_bare(*spec).await)
            }
            Request::Change { spec } => {
                let name = spec.name.clone();
                told(&name, self.change(*spec).await)
            }
            Request::Prepare { was, becomes } => self.prepare(was, becomes).await,
            Request::Act { resource, action } => told(&resource, self.act(&resource, action).await),
            Request::Status { resource } => {
                let mut reply = self.brief_status(resource).await;
                self.add_openers(&mut reply.status).await;
                reply
            }
            Request::BriefStatus { resource } => self.brief_status(resource).await,
            // Not a matter of one reply.
            Request::Watch { .. } => Reply::default(),
            Request::Divergences { resource, from_bytes } => {
                match self.divergences(&resource, from_bytes).await {
                    Ok(divergences) => Reply { divergences, ..Reply::default() },
                    Err(failure) => failure.reply(&resource),
                }
            }
        }
    }

    async fn brief_status(&self, resource: Option<String>) -> Reply {
        let Some(name) = resource else {
            return Reply { status: self.statuses().await, ..Reply::default() };
        };
        if let Some(status) = self.prepared.status(&name) {
            return Reply { status: vec![status], ..Reply::default() };
        }
        match self.entry(&name) {
            Ok(entry) => Reply { status: entry.status().await.into_iter().collect(), ..Reply::default() },
            Err(failure) => failure.reply(&name),
        }
    }

    async fn divergences(&self, name: &str, from_bytes: u64) -> Result<Vec<Divergence>, Failure> {
        let entry = self.entry(name)?;
        let answer = entry.resource.divergences(from_bytes).await;
        answer
            .ok_or_else(|| Failure::unnumbered("the resource's thread does not answer; see the daemon's log"))
    }

    /// A snapshot of each resource. All are asked at the same time: one that hangs delays no other.
    pub(crate) async fn statuses(&self) -> Vec<ResourceStatus> {
        let asked: Vec<_> =
            self.entries().into_iter().map(|e| spawn_local(async move { e.status().await })).collect();
        let mut statuses = Vec::new();
        for answer in asked {
            statuses.extend(answer.await.ok().flatten());
        }
        statuses.extend(self.prepared.statuses());
        statuses.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        statuses
    }

    /// Who has opened a device, besides the clients that the engine knows.
    async fn add_openers(&self, statuses: &mut [ResourceStatus]) {
        self.openers(statuses).await.add_to(statuses);
    }

    /// The same of these resources, for later.
    pub(crate) async fn openers(&self, statuses: &[ResourceStatus]) -> Openers {
        let mut found = Openers::default();
        for name in statuses.iter().map(|status| &status.spec.name) {
            let Ok(entry) = self.entry(name) else { continue };
            found.0.insert(name.clone(), entry.devices.openers().await);
        }
        found
    }

    /// Every resource, by name.
    pub(crate) fn entries(&self) -> Vec<Rc<Entry>> {
        self.entries.borrow().values().cloned().collect()
    }

    /// The resource of this name.
    pub(crate) fn entry(&self, name: &str) -> Result<Rc<Entry>, Failure> {
        let entry = self.entries.borrow().get(name).cloned();
        entry.ok_or_else(unknown_resource)
    }

    async fn act(self: &Rc<Self>, name: &str, action: Action) -> Result<(), Failure> {
        if let Some(done) = self.prepared.act(name, action) {
            self.changed.notify_one();
            return done;
        }
        let entry = self.entry(name)?;
        info!(resource = name, ?action, "asked");
        let command = match action {
            Action::Attach => return entry.resource.attach().await,
            Action::Down => return self.down(&entry).await,
            Action::Detach { force: false } => Command::Detach,
            Action::Detach { force: true } => Command::ForceDetach,
            Action::Connect { discard_my_data, tentative } => {
                may_connect(&entry.spec())?;
                Command::ConnectWith { discard_my_data, tentative }
            }
            Action::Disconnect => Command::Disconnect,
            Action::ForceDisconnect => Command::ForceDisconnect,
            Action::Primary { force } => return entry.promote(force).await,
            Action::Secondary { force: false } => return entry.demote().await,
            Action::Secondary { force: true } => return self.demote_by_force(&entry).await,
            Action::Invalidate { reset_bitmap } => Command::Invalidate { reset_bitmap },
            Action::Verify { volume, start_bytes, stop_bytes, repair } => {
                Command::Verify { volume, start_bytes, stop_bytes, repair }
            }
            Action::InvalidateRemote { reset_bitmap } => Command::InvalidateRemote { reset_bitmap },
            Action::NewCurrentUuid { clear_bitmap } => Command::NewCurrentUuid { clear_bitmap },
            Action::Resize(wish) => return entry.grow(wish).await,
            Action::PauseSync => Command::PauseSync,
            Action::ResumeSync => Command::ResumeSync,
            Action::Outdate => Command::Outdate,
            Action::SuspendIo => Command::SuspendIo,
            Action::ResumeIo => Command::ResumeIo,
        };
        entry.resource.command(command).await
    }
}

/// Changes while a resource is up.
impl Daemon {
    async fn change(self: &Rc<Self>, wanted: ResourceSpec) -> Result<(), Failure> {
        let entry = self.entry(&wanted.name)?;
        let _admin = entry.admin.lock().await;
        if !self.is_current(&entry) {
            return Err(unknown_resource());
        }
        let changed = self.become_like(&entry, wanted).await;
        self.stop_unused_listeners().await;
        self.changed.notify_one();
        changed
    }

    async fn become_like(self: &Rc<Self>, entry: &Entry, wanted: ResourceSpec) -> Result<(), Failure> {
        if let Some(address) = wanted.nbd_listen {
            self.listen_for_clients(address)?;
        }
        let running = entry.spec();
        entry.resource.change(&wanted).await?;
        let options = running.options.changes(&wanted.options);
        info!(resource = wanted.name, ?options, others = ?running.differences(&wanted), "changed");
        let wanted = Rc::new(wanted);
        entry.spec.replace(wanted.clone());
        let told = match entry.connector.borrow().as_ref() {
            Some(connector) => connector.tell(wanted),
            None => return Ok(()),
        };
        // It ends only with the resource.
        let Ok(Err(failure)) = told.await else { return Ok(()) };
        // It still listens where it did.
        let paths = running.paths.clone();
        let listening = ResourceSpec { paths, ..ResourceSpec::clone(&entry.spec()) };
        entry.resource.change(&listening).await?;
        entry.spec.replace(Rc::new(listening));
        Err(failure)
    }
}

/// Up and down.
impl Daemon {
    /// Brings a resource up as far as it is not; returns what the operator should know.
    async fn up(self: &Rc<Self>, spec: ResourceSpec) -> Result<Vec<String>, Failure> {
        let mut detail = Vec::new();
        loop {
            let existing = self.entries.borrow().get(&spec.name).cloned();
            let entry = match existing {
                None => self.create(&spec).await?,
                Some(entry) => entry,
            };
            let _admin = entry.admin.lock().await;
            if !self.is_current(&entry) {
                continue; // It was taken down while we waited.
            }
            if *entry.spec() != spec && entry.is_unconfigured().await {
                self.remove(&entry).await;
                continue;
            }
            if *entry.spec() != spec {
                let name = &spec.name;
                let text = format!(
                    "{name}: the configuration has changed; it takes effect with 'tandemadm adjust {name}'"
                );
                warn!(resource = spec.name, "{text}");
                detail.push(text);
            }
            unless(entry.resource.attach().await, &[Kind::Numbered(HAS_DISK.0)])?;
            if entry.devices.adopt(entry.resource.reign().await).await {
                spawn_local(devices::resume(Rc::downgrade(&entry)));
            }
            if may_connect(&entry.spec()).is_ok() {
                let connected = entry.resource.command(Command::Connect).await;
                let no_peers = Kind::Refused(StateChangeRefusal::NoNetConfig);
                unless(connected, &[Kind::Numbered(HAS_NET.0), no_peers])?;
            }
            return Ok(detail);
        }
    }

    /// The engine has room for the peers, and does not know them yet.
    async fn make_bare(self: &Rc<Self>, spec: ResourceSpec) -> Result<(), Failure> {
        if self.entry(&spec.name).is_ok() {
            return Err(Failure::numbered(ALREADY_EXISTS.0, ALREADY_EXISTS.1));
        }
        let entry = self.create(&spec).await?;
        let _admin = entry.admin.lock().await;
        self.become_like(&entry, ResourceSpec { peers: Vec::new(), paths: Vec::new(), ..spec }).await
    }

    async fn create(self: &Rc<Self>, spec: &ResourceSpec) -> Result<Rc<Entry>, Failure> {
        let made = self.make(spec).await;
        match &made {
            Ok(entry) => {
                info!(resource = spec.name, addresses = ?spec.own_addresses(), "created");
                self.entries.borrow_mut().insert(spec.name.clone(), entry.clone());
                self.prepared.forget(&spec.name);
                self.spare.ensure(spec.block_device.driver);
            }
            // Of a resource that could not be made nothing stays behind.
            Err(_) => self.stop_unused_listeners().await,
        }
        made
    }

    async fn make(self: &Rc<Self>, spec: &ResourceSpec) -> Result<Rc<Entry>, Failure> {
        if let Some(address) = spec.nbd_listen {
            self.listen_for_clients(address)?;
        }
        let (resource, wishes, handlers) =
            Resource::start(spec, LastSeen::of(&self.run), self.changed.clone(), self.watchers.reporter())?;
        match Connector::start(spec, resource.mailbox().clone(), wishes) {
            Ok(connector) => {
                // Ends with the resource's thread.
                let (name, mailbox) = (spec.name.clone(), resource.mailbox().clone());
                spawn_local(handlers::serve(name, mailbox, handlers));
                let entry = Rc::new(Entry::new(spec, &self.run, &self.spare, resource, Some(connector)));
                spawn_local(devices::follow_size(Rc::downgrade(&entry)));
                Ok(entry)
            }
            Err(failure) => {
                resource.end(THREAD_END_LIMIT).await;
                Err(failure)
            }
        }
    }

    /// Secondary, disconnect, detach, forget; stops at the first refusal.
    async fn down(&self, entry: &Rc<Entry>) -> Result<(), Failure> {
        let _admin = entry.admin.lock().await;
        if !self.is_current(entry) {
            return Ok(());
        }
        if !entry.resource.has_ended() {
            entry.demote().await?;
            unless(entry.resource.command(Command::Disconnect).await, &NO_PEER)?;
            unless(entry.resource.command(Command::Detach).await, &NOT_ATTACHED)?;
        }
        self.remove(entry).await;
        Ok(())
    }

    /// Every request fails, at once, and nothing more reaches the disk. If that cannot be done in good order, because a peer
    /// hangs or requests are frozen, the resource is what it would be had this node crashed and come back.
    async fn demote_by_force(self: &Rc<Self>, entry: &Rc<Entry>) -> Result<(), Failure> {
        let _admin = entry.admin.lock().await;
        if !self.is_current(entry) {
            return Ok(());
        }
        entry.devices.fail().await;
        let is_frozen = entry.resource.status().await.is_some_and(|status| status.suspended.any());
        let limit = if is_frozen { FROZEN_FORCE_LIMIT } else { FORCE_LIMIT };
        let in_good_order = async {
            entry.resource.stop_clients(Clients::Present).await;
            entry.resource.command(Command::Secondary).await
        };
        if !matches!(timeout(limit, in_good_order).await, Ok(Ok(()))) {
            warn!(
                resource = entry.spec().name,
                "not demoted within {limit:?}: begins anew, as after a crash"
            );
            let wanted = ResourceSpec::clone(&entry.spec());
            let whole = ResourceSpec { peers: entry.made_with.clone(), ..wanted.clone() };
            self.remove(entry).await;
            let entry = self.create(&whole).await?;
            self.become_like(&entry, wanted).await?;
            entry.resource.attach().await?;
            if may_connect(&entry.spec()).is_ok() {
                entry.resource.command(Command::Connect).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, entry: &Rc<Entry>) {
        // An `up` that waits for this finds the address and the disk free.
        let connector = entry.connector.borrow_mut().take();
        if let Some(connector) = connector {
            connector.stop().await;
        }
        entry.resource.end(THREAD_END_LIMIT).await;
        self.entries.borrow_mut().remove(&entry.spec().name);
        if self.entries.borrow().is_empty() {
            self.spare.dismiss();
        }
        self.stop_unused_listeners().await;
        // Its threads' last words come before.
        let _ = self.watchers.reporter().send(News::Gone(entry.spec().name.clone()));
        info!(resource = entry.spec().name, "removed");
        self.changed.notify_one();
    }

    fn is_current(&self, entry: &Rc<Entry>) -> bool {
        self.entries.borrow().get(&entry.spec().name).is_some_and(|current| Rc::ptr_eq(current, entry))
    }

    fn listen_for_clients(self: &Rc<Self>, address: SocketAddr) -> Result<(), Failure> {
        let mut listeners = self.nbd_listeners.borrow_mut();
        if let hash_map::Entry::Vacant(vacant) = listeners.entry(address) {
            let serve = nbd_listener::serve_tcp(self.clone(), sockets::listen(address)?);
            vacant.insert(spawn_local(serve));
        }
        Ok(())
    }

    async fn stop_unused_listeners(&self) {
        let used: Vec<SocketAddr> =
            self.entries().iter().filter_map(|entry| entry.spec().nbd_listen).collect();
        let unused: Vec<JoinHandle<()>> = {
            let mut listeners = self.nbd_listeners.borrow_mut();
            listeners.extract_if(|address, _| !used.contains(address)).map(|(_, listener)| listener).collect()
        };
        for listener in unused {
            sockets::stop(listener).await;
        }
    }
}

fn told(resource: &str, done: Result<(), Failure>) -> Reply {
    done.map_or_else(|failure| failure.reply(resource), |()| Reply::default())
}

fn unknown_resource() -> Failure {
    Failure::numbered(UNKNOWN_RESOURCE.0, UNKNOWN_RESOURCE.1)
}

const NO_PEER: [Kind; 1] = [Kind::Refused(StateChangeRefusal::NoNetConfig)];
const NOT_ATTACHED: [Kind; 2] = [Kind::Refused(StateChangeRefusal::Diskless), Kind::Numbered(NO_DISK_CONFIG)];

/// There must be somebody to connect to, and a way.
fn may_connect(spec: &ResourceSpec) -> Result<(), Failure> {
    if spec.peers.is_empty() {
        let refusal = StateChangeRefusal::NoNetConfig;
        return Err(Failure::from(CommandError::Refused { refusal, detail: Vec::new() }));
    }
    if spec.peers.iter().any(|peer| spec.paths_to(peer.id).next().is_none()) {
        let (number, text) = INVALID_REQUEST;
        return Err(Failure::numbered(number, text).because("connection endpoint(s) missing"));
    }
    Ok(())
}

/// Takes some failures for success: what was asked for is so already.
fn unless(result: Result<(), Failure>, fine: &[Kind]) -> Result<(), Failure> {
    result.or_else(|failure| if fine.contains(&failure.kind) { Ok(()) } else { Err(failure) })
}

/// The end of the daemon.
impl Daemon {
    /// Takes every resource down, whoever still uses it.
    pub(crate) async fn shut_down(self: &Rc<Self>) {
        let tasks: Vec<_> = self.entries().into_iter().map(|entry| spawn_local(shut_down(entry))).collect();
        for task in tasks {
            // A panic in one of them has been reported.
            let _ = task.await;
        }
    }
}

async fn shut_down(entry: Rc<Entry>) {
    let spec = entry.spec();
    let resource = spec.name.as_str();
    if timeout(SHUTDOWN_LIMIT, take_down(&entry)).await.is_err() {
        error!(resource, "not down after {SHUTDOWN_LIMIT:?}; the next start treats it as crashed");
    }
    entry.resource.end(THREAD_END_LIMIT).await;
    info!(resource, "stopped");
}

async fn take_down(entry: &Entry) {
    let spec = entry.spec();
    let resource = spec.name.as_str();
    if let Err(failure) = entry.devices.close().await {
        info!(resource, "the device stays, its requests wait for the next start: {}", failure.text);
        if timeout(CLIENT_END_LIMIT, entry.resource.stop_clients(Clients::All)).await.is_err() {
            warn!(resource, "requests have not ended after {CLIENT_END_LIMIT:?}");
        }
        return;
    }
    let in_agreement = async {
        entry.resource.stop_clients(Clients::All).await;
        entry.resource.command(Command::Secondary).await
    };
    let demoted = timeout(PEER_LIMIT, in_agreement).await;
    if demoted.is_err() {
        warn!(resource, "the peer does not answer: leaving it");
    }
    let disconnected = unless(entry.resource.command(Command::Disconnect).await, &NO_PEER);
    // Without the peer there is nothing left to wait for.
    let demoted = match demoted {
        Ok(Ok(())) => Ok(()),
        _ => {
            if timeout(CLIENT_END_LIMIT, entry.resource.stop_clients(Clients::All)).await.is_err() {
                warn!(resource, "requests of NBD clients have not ended after {CLIENT_END_LIMIT:?}");
            }
            entry.resource.command(Command::Secondary).await
        }
    };
    let detached = unless(entry.resource.command(Command::Detach).await, &NOT_ATTACHED);
    for failure in [demoted, disconnected, detached].into_iter().filter_map(Result::err) {
        warn!(resource, "while stopping: {}", failure.text);
    }
}

impl Entry {
    fn new(
        spec: &ResourceSpec,
        run: &RuntimeDir,
        spare: &Rc<Spare>,
        resource: Resource,
        connector: Option<Connector>,
    ) -> Entry {
        Entry {
            spec: RefCell::new(Rc::new(spec.clone())),
            made_with: spec.peers.clone(),
            resource,
            devices: Devices::new(spec, run, spare),
            admin: Mutex::new(()),
            last_status: RefCell::new(None),
            connector: RefCell::new(connector),
        }
    }

    /// As it is now.
    pub(crate) fn spec(&self) -> Rc<ResourceSpec> {
        self.spec.borrow().clone()
    }

    async fn status(&self) -> Option<ResourceStatus> {
        match self.resource.snapshot().await {
            Some(snapshot) => *self.last_status.borrow_mut() = Some(snapshot),
            None if self.resource.has_ended() => {
                let engine = dead(&self.spec());
                *self.last_status.borrow_mut() =
                    Some(Snapshot { engine, used_paths: Vec::new(), disk_failure: None });
            }
            None => (),
        }
        let snapshot = self.last_status.borrow().clone()?;
        Some(snapshot.of(&self.spec()))
    }

    /// True if it is Secondary without disk and connections: nothing is lost by making it anew.
    async fn is_unconfigured(&self) -> bool {
        let Some(status) = self.resource.status().await else { return false };
        status.role != Role::Primary
            && status.disk == DiskState::Diskless
            && status.peers.iter().all(|peer| peer.connection == ConnectionState::StandAlone)
    }
}

/// What is left of a resource whose thread has died.
fn dead(spec: &ResourceSpec) -> Status {
    let mut status = resource::initial_status(spec);
    status.role = Role::Unknown;
    status.disk = DiskState::Failed;
    for peer in &mut status.peers {
        peer.standalone_reason = Some(resource::ENDED.into());
    }
    status
}

mod prepared;
use prepared::Prepared;

#[cfg(test)]
mod tests;
