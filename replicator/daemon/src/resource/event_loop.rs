//! The loop of a resource's thread: one ring, one engine, no hop to another thread for any request.
//!
//! A turn: mail, what has ended on the ring, timers, clients' requests; each input to the engine is followed by all
//! its outputs. Then sends and receives are started, and one system call submits everything and waits.

mod change;
mod peers;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tandem_control::{LastSeen, ResourceSpec, STEP_LIMIT};
use tandem_core::generation::PRIMARY_BIT;
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::io::{Command, DiskError, Event};
use tandem_core::refusal::{CommandError, HAS_DISK, StateChangeRefusal};
use tandem_core::state::{ConnectionState, Role};
use tandem_core::status::Status;
use tandem_core::units::{CommandId, HandlerId, NodeId, RequestId, Timestamp};
use tandem_core::wire::Stream;
use tandem_core::{Engine, Input, Output};
use tokio::sync::{Notify, mpsc::UnboundedSender, oneshot};

use super::backing::{self, Disks};
use super::buffer::BufferPool;
use super::disk::{self, Job, Outcome};
use super::mailbox::{Clients, CommandReply, ExportState, Mail, Reign, SharedExport, Wish};
use super::nbd_conn::{NbdClient, NbdConn};
use super::peer_conn::{Loss, PeerConn};
use super::ring::{Completion, Operation, Ring};
use crate::event_log;
use crate::failure::Failure;
use crate::handlers;
use crate::slab::Slab;

/// Shortest sleep before a deadline that has just been served.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
const STREAMS: [Stream; 2] = [Stream::Data, Stream::Control];

/// What the loop shares with the main thread.
pub(crate) struct Links {
    pub(crate) mail: mpsc::Receiver<Mail>,
    /// Readable when there is mail.
    pub(crate) bell: Arc<OwnedFd>,
    pub(crate) wishes: UnboundedSender<Wish>,
    pub(crate) handlers: UnboundedSender<handlers::Run>,
    pub(crate) export: SharedExport,
    pub(crate) last_seen: LastSeen,
    /// Rung when a state has changed.
    pub(crate) changed: Arc<Notify>,
}

/// What an operation on the ring was for.
enum Tag {
    Mail,
    Disk(Job),
    NbdReceive(u64),
    NbdSend(u64),
    PeerReceive(u64, Stream),
    PeerSend(u64, Stream),
}

/// A client's request that the engine has.
struct PendingRequest {
    conn: u64,
    cookie: u64,
    is_read: bool,
    cost_bytes: usize,
}

/// An administrator's command that the engine has.
struct PendingCommand {
    reply: CommandReply,
    /// When it is reported as timed out; it may still take effect later.
    limit: Instant,
    effect: Effect,
}

/// What the end of a command means for the loop.
enum Effect {
    Nothing,
    /// The disks are in use, or are let go again.
    Attaches,
    /// The resource is as this says.
    Changes(Box<ResourceSpec>),
}

/// A resource while it is up.
pub(crate) struct EventLoop {
    ring: Ring<Tag>,
    engine: Engine,
    spec: ResourceSpec,
    links: Links,
    start: Instant,
    pool: BufferPool,
    disks: Option<Disks>,
    /// Inputs that arose while outputs were being done.
    inputs: VecDeque<Input>,
    nbd: BTreeMap<u64, NbdConn>,
    peers: BTreeMap<u64, PeerConn>,
    /// The connection that the engine knows as the peer's.
    current: HashMap<NodeId, u64>,
    /// Peers that the engine wants to be connected to, with the number of the wish.
    wanted: HashMap<NodeId, u64>,
    requests: Slab<PendingRequest>,
    commands: HashMap<CommandId, PendingCommand>,
    /// Keepers of the volumes' devices that have connected anew, while what they asked for before is not done.
    waiting_devices: Vec<NbdClient>,
    clients_stopped: Vec<(Clients, oneshot::Sender<()>)>,
    admits_clients: bool,
    others_wrote: bool,
    last_number: u64,
    changed: bool,
    exit: bool,
}

impl EventLoop {
    /// To be called on the thread that will run it.
    pub(crate) fn new(spec: ResourceSpec, entropy: u64, links: Links) -> io::Result<EventLoop> {
        Ok(EventLoop {
            ring: Ring::new()?,
            engine: Engine::new(super::engine_config(&spec), entropy, Timestamp(0)),
            spec,
            links,
            start: Instant::now(),
            pool: BufferPool::default(),
            disks: None,
            inputs: VecDeque::new(),
            nbd: BTreeMap::new(),
            peers: BTreeMap::new(),
            current: HashMap::new(),
            wanted: HashMap::new(),
            requests: Slab::default(),
            commands: HashMap::new(),
            waiting_devices: Vec::new(),
            clients_stopped: Vec::new(),
            admits_clients: true,
            others_wrote: false,
            last_number: 0,
            changed: true,
            exit: false,
        })
    }

    /// Runs until [`Mail::Exit`].
    pub(crate) fn run(&mut self) -> io::Result<()> {
        self.await_mail();
        while !self.exit {
            while let Some(done) = self.ring.next_completion() {
                self.completed(done);
            }
            self.serve_timers();
            self.admit_waiting_devices();
            self.take_requests();
            self.start_transfers();
            self.publish();
            if !self.exit {
                self.ring.submit_and_wait(self.sleep_limit())?;
            }
        }
        self.nbd.values_mut().for_each(NbdConn::abort);
        self.peers.values_mut().for_each(PeerConn::abort);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.start.elapsed().as_micros() as u64)
    }

    /// Gives the engine an input and does everything it asks for.
    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            self.engine.handle(self.now(), input);
            while let Some(output) = self.engine.poll_output() {
                self.perform(output);
            }
        }
    }
}

/// What the engine asks for.
impl EventLoop {
    fn perform(&mut self, output: Output) {
        match output {
            Output::Disk(op) => match &self.disks {
                Some(disks) => match disk::start(op, disks, &self.pool) {
                    Outcome::Next(job, operation) => self.ring.push(Tag::Disk(job), operation),
                    Outcome::Done(id, result) => self.inputs.push_back(Input::DiskDone { id, result }),
                },
                None => {
                    let result = Err(DiskError("no disk is attached".into()));
                    self.inputs.push_back(Input::DiskDone { id: op.id, result });
                }
            },
            Output::Send { peer, stream, message } => {
                if let Some(conn) = self.current.get(&peer).and_then(|id| self.peers.get_mut(id)) {
                    conn.send(stream, &message);
                }
            }
            Output::Complete { id, result } => {
                let Some(request) = self.requests.take(id.0 as usize) else { return };
                if let Some(conn) = self.nbd.get_mut(&request.conn) {
                    conn.complete(request.cookie, request.is_read, request.cost_bytes, result);
                }
            }
            Output::Connect(peer) => {
                let attempt = self.number();
                self.wanted.insert(peer, attempt);
                self.wish(Wish::Connect { peer, attempt });
            }
            Output::StopConnecting(peer) => {
                self.wanted.remove(&peer);
                self.wish(Wish::Stop(peer));
            }
            Output::ClosePeer(peer) => {
                if let Some(conn) = self.current.remove(&peer).and_then(|id| self.peers.get_mut(&id)) {
                    conn.close(Instant::now());
                }
                self.wish(Wish::Stop(peer));
            }
            Output::CommandDone { id, result } => self.command_done(id, result),
            Output::RunHandler { id, handler, peer } => self.run_handler(id, handler, peer),
            Output::MeasureDisk => self.measure_disk(),
            Output::DropClients => self.nbd.values_mut().for_each(NbdConn::abort),
            Output::ReleaseDisk => self.disks = None,
            Output::Event(event) => {
                // Whatever else changes the data here begins another generation, or brings what its clients were told is written.
                self.others_wrote |= matches!(event, Event::PeerRole { new: Role::Primary, .. });
                event_log::write(&self.spec, self.engine.layout(), &event);
                self.changed = true;
            }
        }
    }

    /// Whatever the metadata's place will be: whoever opens the disk next finds it.
    fn measure_disk(&mut self) {
        if let Some(disks) = &self.disks {
            let measured = backing::measure(disks, &self.spec, &self.links.last_seen);
            self.inputs.push_back(Input::DiskMeasured(measured));
        }
    }

    fn wish(&self, wish: Wish) {
        // Fails only while the main thread is ending.
        let _ = self.links.wishes.send(wish);
    }

    fn run_handler(&mut self, id: HandlerId, handler: Handler, peer: Option<NodeId>) {
        let status = self.engine.status(self.now());
        let run = handlers::Run::new(id, handler, peer, &self.spec, &status);
        let sent = run.is_some_and(|run| self.links.handlers.send(run).is_ok());
        if !sent {
            self.inputs.push_back(Input::HandlerDone { id, outcome: HandlerOutcome::NotStarted });
        }
    }

    fn command_done(&mut self, id: CommandId, result: Result<(), CommandError>) {
        let Some(command) = self.commands.remove(&id) else { return };
        match command.effect {
            Effect::Attaches if result.is_err() => self.disks = None,
            Effect::Changes(spec) if result.is_ok() => self.spec = *spec,
            Effect::Nothing | Effect::Attaches | Effect::Changes(_) => {}
        }
        // Whoever asked may have gone.
        let _ = command.reply.send(result.map_err(Failure::from));
    }
}

/// What the main thread says.
impl EventLoop {
    fn await_mail(&mut self) {
        let wait = Operation::Wait { event: self.links.bell.clone(), value: Box::new([0; 8]) };
        self.ring.push(Tag::Mail, wait);
    }

    fn take_mail(&mut self) {
        loop {
            match self.links.mail.try_recv() {
                Ok(mail) => self.open(mail),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.exit = true;
                    break;
                }
            }
        }
        if !self.exit {
            self.await_mail();
        }
    }

    fn open(&mut self, mail: Mail) {
        match mail {
            Mail::Attach(reply) => self.attach(reply),
            Mail::Command(command, reply) => self.command(command.into(), Effect::Nothing, reply),
            Mail::Change(spec, reply) => self.change(spec, reply),
            Mail::Nbd(client) if client.is_device => self.admit_device(client),
            Mail::Nbd(client) => self.admit(client),
            Mail::PeerConnected { peer, attempt, data, control } => {
                self.peer_connected(peer, attempt, data, control);
            }
            Mail::PeerRefused { peer, reason } => {
                if self.wanted.contains_key(&peer) {
                    self.feed(Input::PeerRefused { peer, reason });
                }
            }
            Mail::HandlerDone { id, outcome } => self.feed(Input::HandlerDone { id, outcome }),
            Mail::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Mail::Reign(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(Reign {
                    generation: self.engine.status(self.now()).generations.current & !PRIMARY_BIT,
                    alone: self.engine.had_gone_on_alone(),
                    others_wrote: self.others_wrote,
                });
            }
            Mail::Divergences(from_bytes, reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.engine.divergences(self.now(), from_bytes));
            }
            Mail::ResyncMustWait(wait) => self.feed(Input::ResyncMustWait(wait)),
            Mail::StopClients(which, stopped) => {
                self.admits_clients &= which != Clients::All;
                self.waiting_devices.clear();
                self.nbd.values_mut().filter(|conn| which.contains(conn)).for_each(NbdConn::abort);
                self.clients_stopped.push((which, stopped));
            }
            Mail::Exit => self.exit = true,
        }
    }

    /// The engine counts the device's keeper among the clients that hold the device open: whether it does, the main
    /// thread finds out.
    fn status(&self) -> Status {
        let mut status = self.engine.status(self.now());
        let is_keeper = |name: &str| self.nbd.values().any(|conn| conn.is_device() && conn.name() == name);
        status.openers.retain(|name| !is_keeper(name));
        for conn in self.nbd.values().filter(|conn| !conn.is_device()) {
            if let Some(volume) = status.volumes.get_mut(conn.volume()) {
                volume.openers.push(conn.name().to_owned());
            }
        }
        status
    }

    fn command(&mut self, command: Command, effect: Effect, reply: CommandReply) {
        let id = CommandId(self.number());
        let mut limit = Instant::now() + STEP_LIMIT;
        if matches!(command, Command::Primary { .. }) {
            // It may wait for fence-peer.
            limit += Duration::from_millis(self.spec.handlers.limit_ms);
        }
        self.commands.insert(id, PendingCommand { reply, limit, effect });
        self.feed(Input::Command { id, command });
    }

    fn attach(&mut self, reply: CommandReply) {
        let opened = match &self.disks {
            Some(_) => Err(Failure::numbered(HAS_DISK.0, HAS_DISK.1)),
            None => backing::attach(&self.spec, &self.links.last_seen, &self.pool),
        };
        match opened {
            Ok((disks, metadata)) => {
                self.disks = Some(disks);
                self.command(Command::Attach { metadata: Box::new(metadata) }, Effect::Attaches, reply);
            }
            Err(failure) => {
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// A device sends again on a new connection what was not answered on the old one. What comes from that one late must
    /// not overwrite what is written afterwards: it is dropped, and what has been taken in ends first.
    fn admit_device(&mut self, client: NbdClient) {
        let volume = client.volume;
        self.nbd.values_mut().filter(|conn| conn.is_device_of(volume)).for_each(NbdConn::abort);
        self.waiting_devices.retain(|waiting| waiting.volume != volume);
        self.waiting_devices.push(client);
    }

    fn admit_waiting_devices(&mut self) {
        if self.waiting_devices.is_empty() {
            return;
        }
        self.drop_finished_clients();
        let (still, free): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting_devices)
            .into_iter()
            .partition(|client| self.nbd.values().any(|conn| conn.is_device_of(client.volume)));
        self.waiting_devices = still;
        free.into_iter().for_each(|client| self.admit(client));
    }

    fn admit(&mut self, client: NbdClient) {
        let opened = match self.admits_clients {
            true => self.engine.open(client.name.clone()),
            false => Err("the daemon is stopping".into()),
        };
        match opened {
            Ok(()) => {
                tracing::info!(resource = self.spec.name, client = client.name, "NBD client connected");
                let id = self.number();
                self.nbd.insert(id, NbdConn::new(client));
                // What it was promised may have grown while it came.
                self.tell_clients_their_size();
                self.changed = true;
            }
            Err(reason) => {
                tracing::warn!(resource = self.spec.name, client = client.name, "refused: {reason}")
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// What has ended on the ring.
impl EventLoop {
    fn completed(&mut self, done: Completion<Tag>) {
        match (done.tag, done.operation) {
            (Tag::Mail, _) => self.take_mail(),
            (Tag::Disk(job), operation) => match job.advance(operation, done.result, &self.pool) {
                Outcome::Next(job, operation) => self.ring.push(Tag::Disk(job), operation),
                Outcome::Done(id, result) => self.feed(Input::DiskDone { id, result }),
            },
            (Tag::NbdReceive(id), operation) => {
                if let Some(conn) = self.nbd.get_mut(&id) {
                    conn.received(operation, done.result);
                }
            }
            (Tag::NbdSend(id), Operation::Send { parts, .. }) => {
                if let Some(conn) = self.nbd.get_mut(&id) {
                    conn.sent(parts, done.result);
                }
            }
            (Tag::PeerReceive(id, stream), operation) => {
                if let Some(conn) = self.peers.get_mut(&id) {
                    conn.received(stream, operation, done.result, Instant::now());
                    self.take_messages(id, stream);
                }
            }
            (Tag::PeerSend(id, stream), Operation::Send { parts, .. }) => {
                if let Some(conn) = self.peers.get_mut(&id) {
                    conn.sent(stream, parts, done.result);
                }
            }
            (Tag::NbdSend(_) | Tag::PeerSend(..), _) => (),
        }
    }
}

/// Timers, requests, transfers.
impl EventLoop {
    fn serve_timers(&mut self) {
        if self.engine.deadline().is_some_and(|deadline| deadline <= self.now()) {
            self.feed(Input::Tick);
        }
        let now = Instant::now();
        let late: Vec<CommandId> =
            self.commands.iter().filter(|(_, command)| command.limit <= now).map(|(id, _)| *id).collect();
        for id in late {
            // What is being written down goes on; a disk that is being attached stays.
            self.feed(Input::CancelCommand { id });
            if let Some(command) = self.commands.remove(&id) {
                let _ = command.reply.send(Err(CommandError::from(StateChangeRefusal::Timeout).into()));
            }
        }
        let losses: Vec<(u64, Loss)> =
            self.peers.iter_mut().filter_map(|(id, conn)| Some((*id, conn.take_loss(now)?))).collect();
        for (id, loss) in losses {
            self.lose(id, loss);
        }
    }

    /// Hands clients' requests to the engine, as many as their limits allow.
    fn take_requests(&mut self) {
        let ids: Vec<u64> = self.nbd.keys().copied().collect();
        for id in ids {
            while let Some(request) = self.nbd.get_mut(&id).and_then(|conn| conn.next_request(&self.pool)) {
                let pending = PendingRequest {
                    conn: id,
                    cookie: request.cookie,
                    is_read: request.is_read,
                    cost_bytes: request.cost_bytes,
                };
                let id = RequestId(self.requests.insert(pending) as u64);
                self.feed(Input::Client { id, op: request.op });
            }
        }
    }

    fn start_transfers(&mut self) {
        let now = Instant::now();
        for (id, conn) in &mut self.nbd {
            conn.progress(now);
            if let Some(send) = conn.next_send() {
                self.ring.push(Tag::NbdSend(*id), send);
            }
            if let Some(receive) = conn.next_receive() {
                self.ring.push(Tag::NbdReceive(*id), receive);
            }
        }
        for (id, conn) in &mut self.peers {
            for stream in STREAMS {
                if let Some(send) = conn.next_send(stream) {
                    self.ring.push(Tag::PeerSend(*id, stream), send);
                }
            }
            conn.progress(now);
            for stream in STREAMS {
                if let Some(receive) = conn.next_receive(stream) {
                    self.ring.push(Tag::PeerReceive(*id, stream), receive);
                }
            }
        }
        self.peers.retain(|_, conn| !conn.is_finished());
        self.drop_finished_clients();
    }

    fn drop_finished_clients(&mut self) {
        let finished: Vec<u64> =
            self.nbd.iter().filter(|(_, conn)| conn.is_finished()).map(|(id, _)| *id).collect();
        for id in finished {
            if let Some(conn) = self.nbd.remove(&id) {
                tracing::info!(resource = self.spec.name, client = conn.name(), "NBD client gone");
                self.engine.close(conn.name());
                self.changed = true;
            }
        }
        let nbd = &self.nbd;
        let are_gone = |which: Clients| !nbd.values().any(|conn| which.contains(conn));
        for (_, stopped) in self.clients_stopped.extract_if(.., |(which, _)| are_gone(*which)) {
            // Whoever waited may have given up.
            let _ = stopped.send(());
        }
    }

    /// Tells the main thread what has changed.
    fn publish(&mut self) {
        let size_bytes = self.engine.shown_bytes();
        if !self.changed && self.is_published(size_bytes) {
            return;
        }
        self.changed = false;
        let status = self.engine.status(self.now());
        let primary = status.peers.iter().find(|peer| peer.role == Role::Primary);
        let primary_peer = primary.map(|peer| peer.name.clone());
        self.links.export.set(ExportState {
            size_bytes,
            layout: self.engine.layout().clone(),
            role: status.role,
            primary_peer,
            all_connected: status.peers.iter().all(|peer| peer.connection == ConnectionState::Connected),
            others_wrote: self.others_wrote,
        });
        self.tell_clients_their_size();
        self.links.changed.notify_one();
    }

    /// A volume may have grown under its clients; who knows may use it.
    fn tell_clients_their_size(&mut self) {
        let export = self.links.export.get();
        for conn in self.nbd.values_mut() {
            conn.grow_to(export.volume(conn.volume()).length);
        }
    }

    fn is_published(&self, size_bytes: u64) -> bool {
        let published = self.links.export.get();
        published.size_bytes == size_bytes && published.layout == *self.engine.layout()
    }

    fn sleep_limit(&self) -> Option<Duration> {
        let now = Instant::now();
        let engine = self.engine.deadline().map(|deadline| {
            Duration::from_micros(deadline.0.saturating_sub(self.now().0)).max(SHORTEST_SLEEP)
        });
        let commands = self.commands.values().map(|command| command.limit);
        let peers = self.peers.values().filter_map(PeerConn::deadline);
        let clients = self.nbd.values().filter_map(NbdConn::deadline);
        let ours = commands.chain(peers).chain(clients).min().map(|end| end.saturating_duration_since(now));
        engine.into_iter().chain(ours).min()
    }
}

impl Clients {
    fn contains(self, conn: &NbdConn) -> bool {
        self != Clients::Device || conn.is_device()
    }
}
