//! What the main thread tells a resource's thread, and what that reports back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tandem_control::{PathSpec, ResourceSpec, ResourceStatus};
use tandem_core::divergence::Divergence;
use tandem_core::handler::HandlerOutcome;
use tandem_core::io::Command;
use tandem_core::layout::Layout;
use tandem_core::state::Role;
use tandem_core::status::Status;
use tandem_core::units::{HandlerId, NodeId};
use tokio::sync::{oneshot, watch};

use super::nbd_conn::NbdClient;
use crate::failure::Failure;

/// How a command ended.
pub(crate) type CommandReply = oneshot::Sender<Result<(), Failure>>;

/// A message to a resource's thread.
pub(crate) enum Mail {
    /// Open the disk and take it into use.
    Attach(CommandReply),
    /// Do this, which needs nothing but the engine.
    Command(Command, CommandReply),
    /// Be like this from now on.
    Change(Box<ResourceSpec>, CommandReply),
    /// Serve this client.
    Nbd(NbdClient),
    /// Both streams to a peer stand. `attempt` is the number of the wish that this answers.
    PeerConnected { path: PathSpec, attempt: Attempt, data: OwnedFd, control: OwnedFd },
    /// A peer will not talk to us, or we not to it.
    PeerRefused { peer: NodeId, reason: String },
    /// A handler has ended.
    HandlerDone { id: HandlerId, outcome: HandlerOutcome },
    /// The resync of another resource comes first, or no longer.
    ResyncMustWait(bool),
    /// Say how you are.
    Status(oneshot::Sender<Snapshot>),
    /// Say what a device that is open may know of the data.
    Reign(oneshot::Sender<Reign>),
    /// Say what is known of copies that went on without each other, with the ranges from this byte on.
    Divergences(u64, oneshot::Sender<Vec<Divergence>>),
    /// Drop these NBD clients, and say when their last request has ended.
    StopClients(Clients, oneshot::Sender<()>),
    /// End.
    Exit,
}

/// Some of a resource's NBD clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clients {
    /// The keeper of the block device.
    Device,
    /// All that are there.
    Present,
    /// All that are there, and no more are admitted.
    All,
}

/// Whether streams answer a wish to connect that may have been withdrawn meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempt {
    /// We connected because of the wish with this number.
    Ours(u64),
    /// The peer connected: it is there now, whatever we believe of an older connection.
    Theirs,
}

/// What a resource's thread wants of the main thread.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// Connect to the peer, or let it connect.
    Connect { peer: NodeId, attempt: u64 },
    /// No longer.
    Stop(NodeId),
}

/// The main thread's end of a resource's mailbox.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: mpsc::Sender<Mail>,
    event: Arc<EventFd>,
}

impl Mailbox {
    /// A mailbox: our end, the thread's end, and the descriptor that becomes readable when there is mail.
    pub(crate) fn new() -> Result<(Mailbox, mpsc::Receiver<Mail>, Arc<OwnedFd>), Failure> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(no_descriptor)?;
        let bell = event.as_fd().try_clone_to_owned().map_err(no_descriptor)?;
        let (sender, receiver) = mpsc::channel();
        Ok((Mailbox { sender, event: Arc::new(event) }, receiver, Arc::new(bell)))
    }

    /// Delivers `mail`. Whoever waits for an answer learns from its absence that the thread has ended.
    pub(crate) fn send(&self, mail: Mail) {
        if self.sender.send(mail).is_ok() && self.event.write(1).is_err() {
            tracing::error!("a resource's thread could not be woken");
        }
    }

    /// Both streams to a peer stand.
    pub(crate) fn peer_connected(&self, path: PathSpec, attempt: Attempt, data: OwnedFd, control: OwnedFd) {
        self.send(Mail::PeerConnected { path, attempt, data, control });
    }

    /// A handler has ended.
    pub(crate) fn handler_done(&self, id: HandlerId, outcome: HandlerOutcome) {
        self.send(Mail::HandlerDone { id, outcome });
    }

    /// A peer will not talk to us, or we not to it.
    pub(crate) fn peer_refused(&self, peer: NodeId, reason: String) {
        self.send(Mail::PeerRefused { peer, reason });
    }
}

fn no_descriptor(error: impl std::fmt::Display) -> Failure {
    Failure::unnumbered(format_args!("no descriptor for a mailbox: {error}; raise the limit of open files"))
}

/// How a resource is.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) engine: Status,
    /// The paths that connections go over.
    pub(crate) used_paths: Vec<PathSpec>,
    /// What the disk was given up for, or what the last attempt to attach it met with.
    pub(crate) disk_failure: Option<String>,
}

impl Snapshot {
    /// As it is told to others. The engine keeps what concerns a peer that was taken away.
    pub(crate) fn of(self, spec: &ResourceSpec) -> ResourceStatus {
        let Snapshot { mut engine, used_paths, disk_failure } = self;
        engine.peers.retain(|peer| spec.peers.iter().any(|known| known.id == peer.id));
        ResourceStatus { spec: spec.clone(), engine, used_paths, disk_failure }
    }
}

/// What is to be known of the data by a device that stayed open while the daemon was away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reign {
    /// The generation, but for the Primary's bit.
    pub(crate) generation: u64,
    /// This node was the Primary, and had gone on without its peers.
    pub(crate) alone: bool,
    /// Since the resource is up, a peer was Primary: its clients have changed the data, or may have.
    pub(crate) others_wrote: bool,
}

/// What the main thread needs to know of a resource at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ExportState {
    pub(crate) size_bytes: u64,
    /// The volumes, if there are several.
    pub(crate) layout: Layout,
    pub(crate) role: Role,
    /// The name of a peer that is Primary.
    pub(crate) primary_peer: Option<String>,
    /// Every peer is connected.
    pub(crate) all_connected: bool,
    /// See [`Reign::others_wrote`].
    pub(crate) others_wrote: bool,
}

impl ExportState {
    /// How large a volume is, counted from 0; 0 if that is not known.
    pub(crate) fn volume_bytes(&self, index: usize) -> u64 {
        match self.layout.is_single() {
            true => Some(self.size_bytes).filter(|_| index == 0).unwrap_or(0),
            false => self.layout.volumes().get(index).map_or(0, |volume| volume.bytes),
        }
    }
}

/// A resource's state as last published by its thread.
#[derive(Clone)]
pub(crate) struct SharedExport(watch::Sender<ExportState>);

impl SharedExport {
    pub(crate) fn new() -> SharedExport {
        let state = ExportState {
            size_bytes: 0,
            layout: Layout::default(),
            role: Role::Secondary,
            primary_peer: None,
            all_connected: false,
            others_wrote: false,
        };
        SharedExport(watch::Sender::new(state))
    }

    pub(crate) fn get(&self) -> watch::Ref<'_, ExportState> {
        self.0.borrow()
    }

    pub(crate) fn set(&self, state: ExportState) {
        self.0.send_replace(state);
    }

    /// Tells of every later state, until the resource is gone.
    pub(crate) fn watch(&self) -> watch::Receiver<ExportState> {
        self.0.subscribe()
    }
}
