//! Reaching a resource's peers. The node with the lower number connects, over one path at a time, the other accepts at
//! its end of every path; both say who they are before the resource's thread hears of it.
//!
//! A connection is two TCP streams of one session. The accepting side answers when it has both.

mod listeners;
mod reach;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use listeners::Listeners;
use reach::{Taken, dial, reach};
use tandem_control::{NodeSpec, PathSpec, ResourceSpec, clock};
use tandem_core::units::NodeId;
use tandem_core::wire::{Message, Preamble, Stream};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::failure::Failure;
use crate::handshake::{First, answer_clock, into_fd, preamble, receive, receive_first, send};
use crate::log_limit::LogLimit;
use crate::resource::{Attempt, Mailbox, Wish};
use crate::sockets::{accept_failed, stop};

/// For the other side to say who it is.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// First pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause, unless connect-int is shorter: a peer that comes back should not wait for us.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Strangers that may be in the middle of introducing themselves.
const MAX_HANDSHAKES: usize = 32;
/// It is not told so: it may be a peer that was taken away for a moment, and that goes on trying.
const STRANGER: &str = "closed a connection from an address that is no peer's";

/// Connects and accepts for one resource, until stopped.
pub(crate) struct Connector {
    task: JoinHandle<()>,
    changes: UnboundedSender<Change>,
}

/// The resource has changed; the answer is whether it is listened for where it is now.
type Change = (Rc<ResourceSpec>, oneshot::Sender<Result<(), Failure>>);

impl Connector {
    /// Listens on the resource's addresses and does what its thread wishes.
    pub(crate) fn start(
        spec: &ResourceSpec,
        mailbox: Mailbox,
        wishes: UnboundedReceiver<Wish>,
    ) -> Result<Connector, Failure> {
        let mut listeners = Listeners::default();
        listeners.become_like(&spec.own_addresses())?;
        let (changes, orders) = unbounded_channel();
        let hub = Hub {
            spec: RefCell::new(Rc::new(spec.clone())),
            mailbox,
            accepting: RefCell::new(HashSet::new()),
            halves: RefCell::new(HashMap::new()),
            taken: RefCell::default(),
            strangers: LogLimit::new(),
        };
        let task = tokio::task::spawn_local(Rc::new(hub).run(listeners, wishes, orders));
        Ok(Connector { task, changes })
    }

    /// The resource has changed. What is refused is an address where nobody can listen: then nothing has.
    pub(crate) fn tell(&self, spec: Rc<ResourceSpec>) -> oneshot::Receiver<Result<(), Failure>> {
        let (done, answer) = oneshot::channel();
        // It fails only when the connector has ended; then there is no answer.
        let _ = self.changes.send((spec, done));
        answer
    }

    /// Ends it, and frees its addresses.
    pub(crate) async fn stop(self) {
        stop(self.task).await;
    }
}

struct Hub {
    spec: RefCell<Rc<ResourceSpec>>,
    mailbox: Mailbox,
    /// Peers that may connect.
    accepting: RefCell<HashSet<NodeId>>,
    /// The first stream of a session, waiting for the second.
    halves: RefCell<HashMap<NodeId, Half>>,
    taken: RefCell<Taken>,
    /// For what those who connect can cause to be logged.
    strangers: LogLimit,
}

struct Half {
    theirs: Preamble,
    stream: TcpStream,
}

/// Why an attempt to connect failed.
enum AttemptError {
    /// The other side is not who it should be, or will not talk to us: it makes no sense to go on.
    Refused(String),
    /// It may work next time.
    Unreachable(io::Error),
}

/// Why somebody who connected is sent away.
enum Unwelcome {
    /// Nobody whom the resource knows.
    Stranger,
    /// It cannot be joined; and whose attempts to reach us make no sense any more.
    Refused { concerned: Option<NodeId>, reason: String },
}

impl From<io::Error> for AttemptError {
    fn from(error: io::Error) -> Self {
        AttemptError::Unreachable(error)
    }
}

impl Hub {
    async fn run(
        self: Rc<Self>,
        mut listeners: Listeners,
        mut wishes: UnboundedReceiver<Wish>,
        mut changes: UnboundedReceiver<Change>,
    ) {
        // Dropped, and with it whatever is under way, when this task is aborted.
        let mut tasks = JoinSet::new();
        let mut attempts: HashMap<NodeId, AbortHandle> = HashMap::new();
        loop {
            tokio::select! {
                wish = wishes.recv() => match wish {
                    None => return,
                    Some(Wish::Connect { peer, attempt }) => {
                        self.accepting.borrow_mut().insert(peer);
                        let spec = self.spec();
                        if spec.node.id < peer && let Some(node) = find(&spec, peer) {
                            let task = tasks.spawn_local(self.clone().keep_connecting(node.clone(), attempt));
                            if let Some(older) = attempts.insert(peer, task) {
                                older.abort();
                            }
                        }
                    }
                    Some(Wish::Stop(peer)) => {
                        self.accepting.borrow_mut().remove(&peer);
                        self.halves.borrow_mut().remove(&peer);
                        if let Some(attempt) = attempts.remove(&peer) {
                            attempt.abort();
                        }
                    }
                },
                accepted = listeners.accept() => match accepted {
                    Ok((stream, remote)) if tasks.len() < MAX_HANDSHAKES + self.spec().peers.len() => {
                        tasks.spawn_local(self.clone().greet(stream, remote));
                    }
                    Ok((_, remote)) => debug!(resource = self.spec().name, %remote, "too many handshakes at once"),
                    Err(error) => accept_failed(&error).await,
                },
                Some(_) = tasks.join_next() => (),
                Some((spec, done)) = changes.recv() => {
                    // Whoever asked may have gone.
                    let _ = done.send(self.become_like(spec, &mut listeners));
                }
            }
        }
    }

    /// As the resource is now.
    fn spec(&self) -> Rc<ResourceSpec> {
        self.spec.borrow().clone()
    }

    fn become_like(&self, spec: Rc<ResourceSpec>, listeners: &mut Listeners) -> Result<(), Failure> {
        listeners.become_like(&spec.own_addresses())?;
        self.spec.replace(spec);
        Ok(())
    }
}

fn find(spec: &ResourceSpec, id: NodeId) -> Option<&NodeSpec> {
    spec.peers.iter().find(|peer| peer.id == id)
}

/// The connecting side.
impl Hub {
    async fn keep_connecting(self: Rc<Self>, peer: NodeSpec, attempt: u64) {
        let name = peer.name.as_str();
        let mut pause = FIRST_PAUSE;
        loop {
            let spec = self.spec();
            let resource = spec.name.as_str();
            let longest = LONGEST_PAUSE.min(Duration::from_millis(spec.connect_interval_ms)).max(FIRST_PAUSE);
            match self.connect(&spec, peer.id).await {
                Ok((path, data, control)) => {
                    debug!(resource, peer = name, %path, "connected");
                    self.mailbox.peer_connected(path, Attempt::Ours(attempt), data, control);
                    return;
                }
                Err(AttemptError::Refused(reason)) => {
                    warn!(resource, peer = name, "connection refused: {reason}");
                    self.mailbox.peer_refused(peer.id, reason);
                    return;
                }
                Err(AttemptError::Unreachable(error)) => {
                    debug!(resource, peer = name, "not reached: {error}");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    async fn connect(
        &self,
        spec: &ResourceSpec,
        peer: NodeId,
    ) -> Result<(PathSpec, OwnedFd, OwnedFd), AttemptError> {
        let paths = self.taken.borrow().in_order(spec, peer, Instant::now());
        let (path, data) = reach(paths).await?;
        self.taken.borrow_mut().note(path);
        let (data, control) = introduce(spec, &path, data).await?;
        Ok((path, data, control))
    }
}

/// The second stream, by the same path, and who we are.
async fn introduce(
    spec: &ResourceSpec,
    path: &PathSpec,
    mut data: TcpStream,
) -> Result<(OwnedFd, OwnedFd), AttemptError> {
    let mut control = dial(path).await?;
    let session = crate::entropy::draw()?;
    let handshake = async {
        let ours = |stream| preamble(spec, path.peer, stream, session);
        send(&mut data, &Message::Preamble(ours(Stream::Data))).await?;
        send(&mut control, &Message::Preamble(ours(Stream::Control))).await?;
        for (stream, kind) in [(&mut data, Stream::Data), (&mut control, Stream::Control)] {
            check_answer(stream, &ours(kind)).await?;
        }
        Ok::<(), AttemptError>(())
    };
    timeout(HANDSHAKE_LIMIT, handshake).await.map_err(too_slow)??;
    Ok((into_fd(data)?, into_fd(control)?))
}

async fn check_answer(stream: &mut TcpStream, ours: &Preamble) -> Result<(), AttemptError> {
    match receive(stream).await? {
        Message::Preamble(theirs) => match ours.accept(&theirs) {
            Ok(()) if theirs.session == ours.session && theirs.stream == ours.stream => Ok(()),
            Ok(()) => Err(io::Error::other("the answer is for another session").into()),
            Err(reason) => {
                send(stream, &Message::Refuse { reason: reason.clone() }).await?;
                Err(AttemptError::Refused(reason))
            }
        },
        Message::Refuse { reason } => Err(AttemptError::Refused(reason)),
        _ => Err(io::Error::other("the peer does not start with a preamble").into()),
    }
}

/// The accepting side.
impl Hub {
    /// Whatever goes wrong here concerns this stream alone: an existing connection is not touched.
    async fn greet(self: Rc<Self>, mut stream: TcpStream, remote: SocketAddr) {
        let spec = self.spec();
        let resource = spec.name.as_str();
        if !spec.paths.iter().any(|path| path.remote.ip() == remote.ip()) {
            self.complain(remote, STRANGER);
            return;
        }
        let theirs = match timeout(HANDSHAKE_LIMIT, receive_first(&mut stream))
            .await
            .unwrap_or_else(|e| Err(too_slow(e)))
        {
            Ok(First::Message(Message::Preamble(theirs))) => theirs,
            Ok(First::Clock) => {
                let received_us = clock::now_us();
                // Who asked may be gone.
                let _ = timeout(HANDSHAKE_LIMIT, answer_clock(&mut stream, received_us)).await;
                return;
            }
            // A peer that changed its mind, or looked whether somebody listens.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                debug!(resource, %remote, "a connection ended before the preamble");
                return;
            }
            Err(error) => {
                self.complain(remote, &format!("closed a connection: {error}"));
                return;
            }
            Ok(First::Message(_)) => {
                self.complain(remote, "closed a connection that did not start with a preamble");
                return;
            }
        };
        let local = stream.local_addr().ok();
        match self.recognise(&theirs, local, remote.ip()) {
            Ok(path) if self.accepting.borrow().contains(&path.peer) => self.pair(path, theirs, stream).await,
            // Not now: the other side tries again.
            Ok(_) => debug!(resource, %remote, "closed a connection that is not wanted now"),
            // No peer any more, and perhaps one again soon.
            Err(Unwelcome::Stranger) => self.complain(remote, STRANGER),
            Err(Unwelcome::Refused { concerned, reason }) => {
                self.complain(remote, &format!("connection refused: {reason}"));
                // The other side may be gone already.
                let _ = send(&mut stream, &Message::Refuse { reason: reason.clone() }).await;
                if let Some(peer) = concerned {
                    self.mailbox.peer_refused(peer, reason);
                }
            }
        }
    }

    /// Logs what a stranger did, but not each time.
    fn complain(&self, remote: SocketAddr, what: &str) {
        if let Some(permit) = self.strangers.permit() {
            warn!(resource = self.spec().name, %remote, "{what}{permit}");
        }
    }

    /// Which peer has introduced itself, and by which path it came.
    fn recognise(
        &self,
        theirs: &Preamble,
        local: Option<SocketAddr>,
        remote: IpAddr,
    ) -> Result<PathSpec, Unwelcome> {
        let spec = self.spec();
        let from_there: Vec<&PathSpec> =
            spec.paths.iter().filter(|path| path.remote.ip() == remote).collect();
        let is_claimed = |path: &PathSpec| path.peer == theirs.from;
        // The same address may stand in several paths.
        let likeness = |path: &&&PathSpec| (is_claimed(path), Some(path.local) == local);
        let Some(&path) = from_there.iter().rev().max_by_key(likeness) else {
            return Err(Unwelcome::Stranger);
        };
        let ours = preamble(&spec, path.peer, theirs.stream, theirs.session);
        // Only a peer that means this resource can have a say in whether we go on trying to reach it.
        let concerned = (theirs.resource == spec.name).then_some(path.peer);
        ours.accept(theirs).map_err(|reason| Unwelcome::Refused { concerned, reason })?;
        if path.peer > spec.node.id {
            let reason = format!("node {} waits to be connected to by node {}", path.peer, spec.node.id);
            return Err(Unwelcome::Refused { concerned: None, reason });
        }
        Ok(*path)
    }

    async fn pair(&self, path: PathSpec, theirs: Preamble, stream: TcpStream) {
        let peer = path.peer;
        let older = self.halves.borrow_mut().remove(&peer);
        let mate = older.filter(|h| h.theirs.session == theirs.session && h.theirs.stream != theirs.stream);
        let Some(mate) = mate else {
            self.halves.borrow_mut().insert(peer, Half { theirs, stream });
            return;
        };
        let (data, control) = match theirs.stream {
            Stream::Data => (stream, mate.stream),
            Stream::Control => (mate.stream, stream),
        };
        match self.answer(peer, theirs.session, data, control).await {
            Ok((data, control)) => {
                info!(resource = self.spec().name, peer = theirs.node_name, %path, "accepted");
                self.mailbox.peer_connected(path, Attempt::Theirs, data, control);
            }
            Err(error) => {
                debug!(resource = self.spec().name, peer = theirs.node_name, "not accepted: {error}")
            }
        }
    }

    async fn answer(
        &self,
        peer: NodeId,
        session: u64,
        mut data: TcpStream,
        mut control: TcpStream,
    ) -> io::Result<(OwnedFd, OwnedFd)> {
        for (stream, kind) in [(&mut data, Stream::Data), (&mut control, Stream::Control)] {
            send(stream, &Message::Preamble(preamble(&self.spec(), peer, kind, session))).await?;
        }
        Ok((into_fd(data)?, into_fd(control)?))
    }
}

fn too_slow(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}
