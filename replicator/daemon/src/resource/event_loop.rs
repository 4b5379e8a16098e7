//! The loop of a resource's thread: one ring, one engine, no hop to another thread for any request.
//!
//! A turn: mail, what has ended on the ring, timers, clients' requests; each input to the engine is followed by all
//! its outputs. Then sends and receives are started, and one system call submits everything and waits.

mod change;
mod clients;
mod mail;
mod peers;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tandem_control::{LastSeen, ResourceSpec};
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::io::{DiskError, Event};
use tandem_core::refusal::{CommandError, StateChangeRefusal};
use tandem_core::state::{ConnectionState, Role};
use tandem_core::units::{CommandId, HandlerId, NodeId, Timestamp};
use tandem_core::wire::Stream;
use tandem_core::{Engine, Input, Output};
use tokio::sync::{Notify, mpsc::UnboundedSender, oneshot};

use super::backing::{self, Disks};
use super::buffer::BufferPool;
use super::disk::{self, Job, Outcome};
use super::mailbox::{Clients, CommandReply, ExportState, Mail, SharedExport, Wish};
use super::nbd_conn::{NbdClient, NbdConn};
use super::peer_conn::{Loss, PeerConn};
use super::pieces::Whole;
use super::ring::{Completion, Operation, Ring};
use crate::event_log;
use crate::failure::Failure;
use crate::handlers;
use crate::slab::Slab;
use crate::watchers::News;

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
    /// Told of every state.
    pub(crate) news: UnboundedSender<News>,
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
#[derive(Clone, Copy)]
struct PendingRequest {
    conn: u64,
    cookie: u64,
    is_read: bool,
    cost_bytes: usize,
    /// It is this part of a request that lies in several pieces.
    part_of: Option<(usize, usize)>,
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
    /// Why there are none, if they failed or could not be attached.
    disk_failure: Option<String>,
    /// Inputs that arose while outputs were being done.
    inputs: VecDeque<Input>,
    nbd: BTreeMap<u64, NbdConn>,
    peers: BTreeMap<u64, PeerConn>,
    /// The connection that the engine knows as the peer's.
    current: HashMap<NodeId, u64>,
    /// Who connected from a peer's address although there is a connection, and has not proved that it is the peer.
    newcomers: HashMap<NodeId, u64>,
    /// Peers that the engine wants to be connected to, with the number of the wish.
    wanted: HashMap<NodeId, u64>,
    requests: Slab<PendingRequest>,
    /// Requests that lie in several pieces of a volume.
    wholes: Slab<Whole>,
    commands: HashMap<CommandId, PendingCommand>,
    /// An attach that waits for the disk before it to be let go, and until when.
    waiting_attach: Option<(Instant, CommandReply)>,
    /// Keepers of the volumes' devices that have connected anew, while what they asked for before is not done.
    waiting_devices: Vec<NbdClient>,
    clients_stopped: Vec<(Clients, oneshot::Sender<()>)>,
    admits_clients: bool,
    others_wrote: bool,
    last_number: u64,
    changed: bool,
    /// There is a state that was not reported.
    has_news: bool,
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
            disk_failure: None,
            inputs: VecDeque::new(),
            nbd: BTreeMap::new(),
            peers: BTreeMap::new(),
            current: HashMap::new(),
            newcomers: HashMap::new(),
            wanted: HashMap::new(),
            requests: Slab::default(),
            wholes: Slab::default(),
            commands: HashMap::new(),
            waiting_attach: None,
            waiting_devices: Vec::new(),
            clients_stopped: Vec::new(),
            admits_clients: true,
            others_wrote: false,
            last_number: 0,
            changed: true,
            has_news: false,
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
            self.serve_waiting_attach();
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

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Gives the engine an input and does everything it asks for.
    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            self.engine.handle(self.now(), input);
            while let Some(output) = self.engine.poll_output() {
                self.perform(output);
            }
            self.report_state();
        }
    }
}

/// What the engine asks for.
impl EventLoop {
    fn perform(&mut self, output: Output) {
        match output {
            Output::Disk(op) => match &self.disks {
                Some(disks) => match disk::start(op, disks, self.engine.layout(), &self.pool) {
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
                if let Some(result) = self.whole_result(&request, result) {
                    self.answer(&request, result);
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
            Output::Newcomer { peer, act } => self.act_on_newcomer(peer, act),
            Output::CommandDone { id, result } => self.command_done(id, result),
            Output::RunHandler { id, handler, peer } => self.run_handler(id, handler, peer),
            Output::MeasureDisk { use_all: true } => self.use_disks(),
            Output::MeasureDisk { use_all: false } => self.measure_disk(),
            Output::DropClients => self.nbd.values_mut().for_each(NbdConn::abort),
            Output::ReleaseDisk => self.disks = None,
            Output::Event(event) => {
                // Whatever else changes the data here begins another generation, or brings what its clients were told is written.
                self.others_wrote |= matches!(event, Event::PeerRole { new: Role::Primary, .. });
                if let Event::DiskFailed { why } = &event {
                    self.disk_failure = Some(why.clone());
                }
                event_log::write(&self.spec, self.engine.layout(), &event);
                self.changed = true;
                match News::of_handler(&self.spec.name, &event) {
                    None => self.has_news |= !matches!(event, Event::OutOfSync { .. }),
                    Some(news) => {
                        self.report_state();
                        self.report(news);
                    }
                }
            }
        }
    }

    /// One input brings a resource to one state.
    fn report_state(&mut self) {
        if std::mem::take(&mut self.has_news) {
            let status = self.snapshot().of(&self.spec);
            self.report(News::State(Arc::new(status)));
        }
    }

    fn report(&self, news: News) {
        // Fails only while the main thread is ending.
        let _ = self.links.news.send(news);
    }

    /// All of the disks is to be used.
    fn use_disks(&mut self) {
        let Some(disks) = &self.disks else { return };
        match backing::use_other_disks(disks, &self.spec, &self.links.last_seen, &self.pool) {
            Ok(()) => self.measure_disk(),
            Err(error) => self.inputs.push_back(Input::DiskMeasured(Err(error))),
        }
    }

    /// Whatever the metadata's place will be: whoever opens the disk next finds it.
    fn measure_disk(&mut self) {
        if let Some(disks) = &self.disks {
            let used = self.engine.internal_metadata();
            let measured = backing::measure(disks, &self.spec, &self.links.last_seen, used);
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
        let result = result.map_err(Failure::from);
        match command.effect {
            Effect::Attaches if result.is_err() => {
                self.disks = None;
                self.disk_failure = result.as_ref().err().map(Failure::in_one_line);
            }
            Effect::Changes(spec) if result.is_ok() => self.spec = *spec,
            Effect::Nothing | Effect::Attaches | Effect::Changes(_) => {}
        }
        // Whoever asked may have gone.
        let _ = command.reply.send(result);
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
            layout: self.engine.shown_layout().into_owned(),
            role: status.role,
            primary_peer,
            all_connected: status.peers.iter().all(|peer| peer.connection == ConnectionState::Connected),
            others_wrote: self.others_wrote,
        });
        self.tell_clients_their_size();
        self.links.changed.notify_one();
    }

    fn is_published(&self, size_bytes: u64) -> bool {
        let published = self.links.export.get();
        published.size_bytes == size_bytes && published.layout == *self.engine.shown_layout()
    }

    fn sleep_limit(&self) -> Option<Duration> {
        let now = Instant::now();
        let engine = self.engine.deadline().map(|deadline| {
            Duration::from_micros(deadline.0.saturating_sub(self.now().0)).max(SHORTEST_SLEEP)
        });
        let attach = self.waiting_attach.iter().map(|(limit, _)| *limit);
        let commands = self.commands.values().map(|command| command.limit).chain(attach);
        let peers = self.peers.values().filter_map(PeerConn::deadline);
        let clients = self.nbd.values().filter_map(NbdConn::deadline);
        let ours = commands.chain(peers).chain(clients).min().map(|end| end.saturating_duration_since(now));
        engine.into_iter().chain(ours).min()
    }
}
