//! What goes into the engine and what comes out.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::authentication::Challenge;
use crate::config::Options;
use crate::handler::{Handler, HandlerOutcome};
use crate::metadata::Metadata;
use crate::refusal::CommandError;
use crate::state::{ConnectionState, DiskState, ReplicationState, Role};
use crate::units::{ByteRange, CommandId, DiskOpId, HandlerId, NodeId, RequestId};
use crate::wire::{Message, Stream};

/// Data with the checksum that was computed where it entered the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// The bytes.
    pub data: Bytes,
    /// crc32 (IEEE) of `data`.
    pub crc32: u32,
}

impl Payload {
    /// Wraps `data`, computing its checksum.
    pub fn new(data: Bytes) -> Self {
        let crc32 = crc32fast::hash(&data);
        Payload { data, crc32 }
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

/// What a client asks for. Offsets and lengths are multiples of 512 and lie inside the device; lengths are not 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientOp {
    /// Read a range.
    Read(ByteRange),
    /// Write `payload` at `offset`; with `fua`, complete only when it is durable.
    Write {
        /// First byte.
        offset: u64,
        /// The data.
        payload: Payload,
        /// Durable before completion.
        fua: bool,
    },
    /// Make a range read as zeroes; `unmap` allows the backing storage to be given back. Serves TRIM as well.
    Zero {
        /// The range.
        range: ByteRange,
        /// Give the storage back.
        unmap: bool,
        /// Durable before completion.
        fua: bool,
    },
    /// Make every completed write durable.
    Flush,
}

/// Why a client's request failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClientError {
    /// No copy of the data could be reached: EIO.
    Io,
    /// The device is not Primary here (any more): EPERM.
    NotPrimary,
    /// Beyond the end of the device: ENOSPC for writes, EINVAL for the rest.
    OutOfRange,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// A client's request.
    Client {
        /// Names the request in [`Output::Complete`].
        id: RequestId,
        /// What is asked.
        op: ClientOp,
    },
    /// Both streams to the peer stand; nothing was sent on them yet but the preamble.
    PeerConnected {
        /// Which peer.
        peer: NodeId,
        /// Random, drawn for this connection from the operating system: nobody can have known it.
        challenge: Challenge,
    },
    /// A message from a peer. None may follow `PeerGone` or `Output::ClosePeer` for that connection.
    PeerMessage {
        /// Who sent it.
        peer: NodeId,
        /// What it says.
        message: Message,
    },
    /// The connection to a peer broke. Not to be given after `Output::ClosePeer` of the same connection.
    PeerGone {
        /// Which peer.
        peer: NodeId,
        /// How it broke, for the log; `BrokenPipe`, `ProtocolError` or `NetworkFailure`.
        how: ConnectionState,
        /// Why, in words.
        reason: String,
    },
    /// Somebody connects from the peer's address although a connection stands, of which nobody has said `PeerGone`.
    Newcomer {
        /// Which peer.
        peer: NodeId,
        /// What it does.
        event: NewcomerEvent,
    },
    /// The peer was reached but will not talk to us (wrong version, unknown resource): stop trying.
    PeerRefused {
        /// Which peer.
        peer: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// A disk operation ended.
    DiskDone {
        /// Which.
        id: DiskOpId,
        /// The data of a read (empty for other operations), or the error.
        result: Result<Bytes, DiskError>,
    },
    /// An administrator's command.
    Command {
        /// Names the command in [`Output::CommandDone`].
        id: CommandId,
        /// What is asked.
        command: Command,
    },
    /// Nobody waits for this command any longer: it ends with a timeout, unless it is already being written down.
    CancelCommand {
        /// Which.
        id: CommandId,
    },
    /// A handler has ended, or could not be run.
    HandlerDone {
        /// Which run.
        id: HandlerId,
        /// How it ended.
        outcome: HandlerOutcome,
    },
    /// How large the disk is now: to be given on [`Output::MeasureDisk`], and before [`Input::PeerConnected`]: it may
    /// have grown, and the peer's volume with its disk. Not without a disk.
    DiskMeasured(Result<Measured, DiskError>),
    /// `resync-after`: the resync of another resource comes first, or no longer.
    ResyncMustWait(bool),
    /// Time has passed: to be given when [`crate::Engine::deadline`] is reached.
    Tick,
}

/// What is heard of somebody who may be a peer that connects anew. There is one at a time for each peer: the last one counts.
#[derive(Debug)]
pub enum NewcomerEvent {
    /// Both its streams stand; nothing was sent on them yet but the preamble.
    Connected {
        /// As for [`Input::PeerConnected`], and drawn anew.
        challenge: Challenge,
    },
    /// A message from it. None may follow `Gone`, [`NewcomerAct::Close`] or [`NewcomerAct::Admit`].
    Says(Message),
    /// Its connection broke.
    Gone,
}

/// What to do about it.
#[derive(Clone, PartialEq, Debug)]
pub enum NewcomerAct {
    /// Queue this message on one of its streams.
    Send {
        /// On which.
        stream: Stream,
        /// What.
        message: Message,
    },
    /// Send what is queued, then close both its streams.
    Close,
    /// Its connection is the peer's from now on: it takes the place of the one before, which is closed without a word, and the
    /// peer is not to be reached any more.
    Admit,
}

/// Why a disk operation failed, in words for the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DiskError(pub String);

/// What a verify has found is resynced from the Primary, or from the node that is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Repair {
    /// The node whose copy is right, where no Primary says so.
    pub from: Option<NodeId>,
}

/// How large the attached disk is; of several, the first volume's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// The data's device.
    pub backing_bytes: u64,
    /// The metadata's; the same one if it is internal.
    pub meta_bytes: u64,
    /// No more than this is to be used.
    pub limit_bytes: Option<u64>,
    /// Bytes of data that the disks of the volumes behind the first have room for, once all of each is used.
    pub other_rooms: Vec<u64>,
}

/// How large the volume shall be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Resize {
    /// This large; if not given, as large as both disks let it be.
    pub size_bytes: Option<u64>,
    /// Only the volume of this number, of several.
    #[serde(default)]
    pub volume: Option<u16>,
    /// The peer, which is not there, has room.
    pub assume_peer_has_space: bool,
    /// What is new is the same on both disks.
    pub assume_clean: bool,
}

/// What an administrator asks of a resource.
#[derive(Clone, Debug)]
pub enum Command {
    /// Take a disk into use.
    Attach {
        /// Its metadata, as read by [`crate::metadata::load`].
        metadata: Box<Metadata>,
    },
    /// Give the disk up.
    Detach,
    /// Give up the disk at once, whatever is under way on it and whoever needs it.
    ForceDetach,
    /// Disconnect also from the peer that has the only good data.
    ForceDisconnect,
    /// Connect to every peer.
    Connect,
    /// Connect to every peer, with a wish.
    ConnectWith {
        /// Give this node's data up for the peer's, where they differ.
        discard_my_data: bool,
        /// Only find out what would happen; the connection's reason for being StandAlone tells.
        tentative: bool,
    },
    /// Disconnect from every peer.
    Disconnect,
    /// Become Primary.
    Primary {
        /// Consider the local data UpToDate, whatever it is.
        force: bool,
    },
    /// Become Secondary.
    Secondary,
    /// Compare the copies, while they are in use.
    Verify {
        /// Only this volume, from whose beginning start and stop count.
        volume: Option<u16>,
        /// From here; if not given, from where the last one of all volumes ended early, or from the beginning.
        start_bytes: Option<u64>,
        /// To here; if not given, to the end.
        stop_bytes: Option<u64>,
        /// Resync what is found at once.
        repair: Option<Repair>,
    },
    /// Give up the local copy and have it anew from the peer.
    Invalidate {
        /// Every block, not only those that are marked.
        reset_bitmap: bool,
    },
    /// Give up the peer's copy and send it the local one.
    InvalidateRemote {
        /// Every block, not only those that are marked.
        reset_bitmap: bool,
    },
    /// Begin a new generation: on two fresh copies as they are, or alone, so that the disk can be copied to the peer
    /// by other means.
    NewCurrentUuid {
        /// Nothing counts as different; required for two fresh copies.
        clear_bitmap: bool,
    },
    /// Grow the volume.
    Resize(Resize),
    /// Let resyncs wait.
    PauseSync,
    /// Let them go on.
    ResumeSync,
    /// Consider the local data old, for good.
    Outdate,
    /// Let clients' requests wait, and those under way end.
    SuspendIo,
    /// Let clients' requests go on, whatever they wait for.
    ResumeIo,
    /// What the administrator chooses from now on.
    SetOptions {
        /// All options.
        options: Box<Options>,
        /// The handlers that are configured.
        handlers: BTreeSet<Handler>,
    },
}

/// Which disk an operation is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Device {
    /// The data; offset 0 is the volume's first byte.
    Data,
    /// The file for undo logs, if the metadata that was attached has one; offset 0 is its first byte, and it grows.
    Undo,
    /// The metadata; offset 0 is the first byte of the device that holds it (the same one when internal).
    Meta,
}

/// One operation on a disk. Operations given together may run in any order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskOp {
    /// Names the operation in [`Input::DiskDone`].
    pub id: DiskOpId,
    /// Which disk.
    pub device: Device,
    /// What to do.
    pub kind: DiskOpKind,
}

/// What to do with a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskOpKind {
    /// Read a range.
    Read(ByteRange),
    /// Write; with `fua` it is durable when it is done, and so is everything that was done before it began.
    Write {
        /// First byte.
        offset: u64,
        /// The data.
        data: Bytes,
        /// Durable when done.
        fua: bool,
    },
    /// Make a range read as zeroes.
    Zero {
        /// The range.
        range: ByteRange,
        /// Give the storage back if the disk can.
        unmap: bool,
    },
    /// Make everything durable that was done before this began.
    Flush,
}

/// One thing to do. The driver does them in order, as far as order can be seen from outside.
#[derive(Clone, Debug)]
pub enum Output {
    /// Do this on a disk and report with [`Input::DiskDone`].
    Disk(DiskOp),
    /// Queue this message on one of the peer's streams; each stream keeps its order.
    Send {
        /// To whom.
        peer: NodeId,
        /// On which stream.
        stream: Stream,
        /// What.
        message: Message,
    },
    /// Answer a client.
    Complete {
        /// Which request.
        id: RequestId,
        /// The data of a read (empty otherwise), or the error.
        result: Result<Bytes, ClientError>,
    },
    /// Try to reach the peer until it answers ([`Input::PeerConnected`]) or `Disconnect`.
    Connect(NodeId),
    /// Stop trying to reach the peer.
    StopConnecting(NodeId),
    /// Send what is queued, then close both streams. No input of this connection may follow.
    ClosePeer(NodeId),
    /// Something is to be done about whoever wants a connection's place ([`Input::Newcomer`]).
    Newcomer {
        /// Whose address it has.
        peer: NodeId,
        /// What.
        act: NewcomerAct,
    },
    /// A command has ended.
    CommandDone {
        /// Which.
        id: CommandId,
        /// How.
        result: Result<(), CommandError>,
    },
    /// Run a configured handler, within its time limit, and report with [`Input::HandlerDone`]. Nothing else may wait
    /// for it.
    RunHandler {
        /// Names the run.
        id: HandlerId,
        /// Which handler.
        handler: Handler,
        /// The peer that it is about, if one.
        peer: Option<NodeId>,
    },
    /// Tell how large the disk is now, with [`Input::DiskMeasured`].
    MeasureDisk {
        /// Use all of it: what marks the disks of the volumes behind the first lies at their ends from then on.
        use_all: bool,
    },
    /// End every client's connection at once; [`crate::Engine::close`] tells of each when its requests have ended.
    DropClients,
    /// Close the backing device: it was detached or failed. No disk operation is in flight.
    ReleaseDisk,
    /// Something the operator's log should have.
    Event(Event),
}

/// What happened, for the log and for those who watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// This node's role changed.
    Role {
        /// Before.
        old: Role,
        /// After.
        new: Role,
    },
    /// This node's disk state changed.
    Disk {
        /// Before.
        old: DiskState,
        /// After.
        new: DiskState,
    },
    /// The local disk is given up.
    DiskFailed {
        /// For what.
        why: String,
    },
    /// The connection to a peer changed.
    Connection {
        /// Which peer.
        peer: NodeId,
        /// Before.
        old: ConnectionState,
        /// After.
        new: ConnectionState,
    },
    /// Replication with a peer changed.
    Replication {
        /// Which peer.
        peer: NodeId,
        /// Before.
        old: ReplicationState,
        /// After.
        new: ReplicationState,
    },
    /// A peer's role changed.
    PeerRole {
        /// Which peer.
        peer: NodeId,
        /// Before.
        old: Role,
        /// After.
        new: Role,
    },
    /// A peer's disk state changed.
    PeerDisk {
        /// Which peer.
        peer: NodeId,
        /// Before.
        old: DiskState,
        /// After.
        new: DiskState,
    },
    /// A verify has found that the copies differ.
    OutOfSync {
        /// From which peer's copy.
        peer: NodeId,
        /// Where.
        range: ByteRange,
    },
    /// A verify has come to its end.
    Verified {
        /// With which peer.
        peer: NodeId,
        /// What was verified.
        ranges: Vec<ByteRange>,
        /// Blocks that differ.
        blocks: u64,
    },
    /// A handler is run.
    HandlerCalled {
        /// Which.
        handler: Handler,
        /// The peer that it is about, if one.
        peer: Option<NodeId>,
    },
    /// A handler has ended.
    HandlerDone {
        /// Which.
        handler: Handler,
        /// The peer that it was about, if one.
        peer: Option<NodeId>,
        /// How.
        outcome: HandlerOutcome,
    },
    /// A sentence for the log.
    Note {
        /// Which peer it concerns, if one.
        peer: Option<NodeId>,
        /// How grave it is.
        level: Level,
        /// The sentence.
        text: String,
    },
}

/// How grave a note is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Wants a look.
    Warn,
    /// Wants an action.
    Error,
}
