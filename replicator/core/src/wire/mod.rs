//! What two nodes say to each other.
//!
//! Two TCP streams per peer. Requests and data travel on [`Stream::Data`], in order; heartbeats and
//! acknowledgements on [`Stream::Control`], so that they never wait behind a megabyte.
//! The frame layout is in [`codec`]; docs/wire.md is checked against both.

mod codec;

pub use codec::{
    FRAME_HEADER_BYTES, FrameError, FrameHeader, MAX_BODY_BYTES, MAX_PAYLOAD_BYTES, decode, encode,
};

use crate::authentication::{Challenge, HmacAlgorithm};
use crate::config::{Protocol, Terms};
use crate::digest::DigestAlgorithm;
use crate::generation::Generations;
use crate::io::Payload;
use crate::layout::Layout;
use crate::parting::{NODE_IDS_DIFFER, OTHER_RESOURCE, RELEASES_DIFFER};
use crate::settings::Settings;
use crate::state::{DiskState, Role};
use crate::units::{ByteRange, Epoch, NodeId, WriteSeq};

/// The oldest wire protocol version that this build speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest. 1: the first.
pub const VERSION_MAX: u16 = 1;

/// Which of the two TCP streams.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Stream {
    /// Requests, data, state.
    Data = 0,
    /// Heartbeats and acknowledgements.
    Control = 1,
}

/// The first frame in both directions on each stream; the drivers exchange it before the engine hears of the
/// connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preamble {
    /// Oldest version the sender speaks.
    pub version_min: u16,
    /// Newest version the sender speaks.
    pub version_max: u16,
    /// Which stream this is.
    pub stream: Stream,
    /// The connecting node's number for this attempt; pairs the two streams.
    pub session: u64,
    /// The sender.
    pub from: NodeId,
    /// Whom the sender means to reach.
    pub to: NodeId,
    /// The resource.
    pub resource: String,
    /// The sender's name.
    pub node_name: String,
}

impl Preamble {
    /// Checks the other side's preamble against our own; the error is a sentence for both operators.
    pub fn accept(&self, theirs: &Preamble) -> Result<(), String> {
        if theirs.version_max < self.version_min || theirs.version_min > self.version_max {
            return Err(format!(
                "{RELEASES_DIFFER}: {} speaks {} to {}, {} speaks {} to {}; \
                 install the same release of Tandem on both nodes",
                self.node_name,
                self.version_min,
                self.version_max,
                theirs.node_name,
                theirs.version_min,
                theirs.version_max
            ));
        }
        if theirs.resource != self.resource {
            return Err(format!(
                "{OTHER_RESOURCE} '{}', this port serves '{}'; compare the addresses in both \
                 configuration files",
                theirs.resource, self.resource
            ));
        }
        if theirs.from != self.to || theirs.to != self.from {
            return Err(format!(
                "{NODE_IDS_DIFFER}: '{}' says it is node {} talking to node {}, here it should be node {} \
                 talking to node {}; the configuration files differ",
                theirs.node_name, theirs.from, theirs.to, self.to, self.from
            ));
        }
        Ok(())
    }
}

/// What a node says of its data at the start of a connection, and again whenever a disk comes or a force changes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// Rounds of one connection are numbered from 1; a round ends when both sides have sent it.
    pub round: u32,
    /// The sender's role.
    pub role: Role,
    /// The sender's disk.
    pub disk: DiskState,
    /// Bytes the sender's disk can hold besides its metadata; 0 when diskless.
    pub disk_bytes: u64,
    /// The same once the metadata has moved to the end of a disk that has grown; no less.
    pub growable_bytes: u64,
    /// The size both once agreed on; 0 if never.
    pub agreed_bytes: u64,
    /// The volumes on the sender's disk, if they are several.
    pub layout: Layout,
    /// Bytes of data that the disk of each of several volumes has room for; none when diskless. `disk_bytes` is what the bitmaps
    /// have room for then.
    pub rooms: Vec<u64>,
    /// The same once all of each disk that has grown is used; none is less.
    pub growable_rooms: Vec<u64>,
    /// The sender's generation identifiers.
    pub generations: Generations,
    /// The sender's bitmap identifier for the receiver.
    pub bitmap_id: u64,
    /// The generation that the receiver has if it saw the end of a resync that the sender did not see; 0 if none.
    pub resync_id: u64,
    /// Blocks marked out of sync in the sender's bitmap for the receiver.
    pub dirty_blocks: u64,
    /// They are more than what it has written: after a crash whole extents are marked.
    pub overcounted: bool,
    /// The sender was Primary when it crashed and has not met an UpToDate peer since.
    pub crashed_primary: bool,
    /// The sender's administrator gives its data up for the receiver's.
    pub discard_my_data: bool,
    /// A split brain was decided for the receiver, and the sender has not had its data yet.
    pub gave_up: bool,
    /// The sender's disk failed while a Primary was there: it may lack what it had acknowledged.
    pub failed: bool,
    /// Clients hold the sender's device open.
    pub held_open: bool,
    /// Random, drawn when the sender's disk was attached; 0 when diskless. While it stays the same, no completed write
    /// was lost from the disk's cache.
    pub attachment: u64,
    /// The sender is Primary without a disk, and completed writes were in the cache of the disk of this attachment when
    /// it lost sight of it: no other has them. 0: nobody has.
    pub relied_on: Option<u64>,
    /// The generation that shall begin on both copies as they are, if neither has ever held data; 0: none.
    pub begins: u64,
}

impl Handshake {
    fn has_sensible_rooms(&self) -> bool {
        let volumes = self.layout.volumes();
        let grow = |less: &[u64], more: &[u64]| {
            less.len() == more.len() && less.iter().zip(more).all(|(less, more)| less <= more)
        };
        let sizes: Vec<u64> = volumes.iter().map(|volume| volume.bytes).collect();
        grow(&sizes, &self.rooms) && grow(&self.rooms, &self.growable_rooms)
    }

    /// What no node can mean: a sentence about the first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        let has_disk = self.disk >= DiskState::Negotiating;
        match () {
            () if self.role == Role::Unknown => Err("a handshake without a role".into()),
            () if self.disk == DiskState::DUnknown => Err("a handshake without a disk state".into()),
            () if has_disk && (self.disk_bytes == 0 || self.disk_bytes < self.agreed_bytes) => {
                Err(format!("a handshake with room for {} of {} bytes", self.disk_bytes, self.agreed_bytes))
            }
            () if self.growable_bytes < self.disk_bytes => Err(format!(
                "a handshake with room for {} bytes, and {} later",
                self.disk_bytes, self.growable_bytes
            )),
            () if has_disk && !self.has_sensible_rooms() => {
                Err("a handshake with a volume that its disk has no room for".into())
            }
            () if has_disk && self.generations.current == 0 => {
                Err("a handshake with a disk of no generation".into())
            }
            () => Ok(()),
        }
    }
}

/// A message between two engines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The driver's first frame.
    Preamble(Preamble),
    /// We will not talk; the sentence is for the operator.
    Refuse {
        /// Why.
        reason: String,
    },
    /// Prove who you are. Before this is done on both streams, nothing else is said, and nothing is believed.
    Challenge {
        /// How.
        algorithm: HmacAlgorithm,
        /// What must be answered.
        challenge: Challenge,
    },
    /// The answer: one on each stream.
    Proof {
        /// Which stream it is on and for.
        stream: Stream,
        /// See [`crate::authentication::Claim`].
        code: Vec<u8>,
    },
    /// The options on which both sides must agree.
    Options {
        /// What both nodes must have chosen alike.
        terms: Terms,
        /// What they should have chosen alike, for the operator.
        settings: Settings,
        /// The sender only wants to know what would happen.
        tentative: bool,
    },
    /// What the sender's data is worth.
    Handshake(Handshake),
    /// A piece of the bitmap: one bit per 4 KiB, 32768 bits from block `chunk * 32768`; pieces that are all zero are
    /// not sent, and an empty payload means that every bit is set. Before a resync both work on the union; after a split
    /// brain each side only learns what the other has written.
    BitmapChunk {
        /// Number of the piece.
        chunk: u64,
        /// The bits, least significant first; empty for all ones.
        words: Payload,
    },
    /// The bitmap is complete.
    BitmapEnd,
    /// The sender's role or disk changed.
    State {
        /// The sender's role.
        role: Role,
        /// The sender's disk.
        disk: DiskState,
    },
    /// May I become Primary?
    PromoteRequest {
        /// Names the question in the answer.
        id: u64,
    },
    /// Yes or no.
    PromoteReply {
        /// The question.
        id: u64,
        /// Yes.
        granted: bool,
    },
    /// One of the two copies is to be given up and had anew from the other.
    InvalidateRequest {
        /// Named in the reply.
        id: u64,
        /// The receiver's copy, not the sender's.
        remote: bool,
        /// Every block, not only those that are marked.
        reset_bitmap: bool,
    },
    /// Yes, and if it was the copy of this message's sender, that is on its disk; or no.
    InvalidateReply {
        /// Names the request.
        id: u64,
        /// Yes.
        granted: bool,
    },
    /// The sender would compare the copies.
    VerifyStart {
        /// Named in the reply and at the end.
        id: u64,
        /// How.
        algorithm: DigestAlgorithm,
        /// Which parts, in ascending order: from a block's start to a block's end, or to the volume's.
        ranges: Vec<ByteRange>,
    },
    /// Yes or no.
    VerifyReply {
        /// Names the request.
        id: u64,
        /// Yes.
        granted: bool,
    },
    /// The receiver, which is Primary, is to send the digests of a piece.
    VerifyRequest {
        /// Named in the digests.
        id: u64,
        /// At most 16 whole blocks, but for the volume's end.
        range: ByteRange,
    },
    /// The digests of a piece at this place in the order of the sender's writes.
    VerifyDigests {
        /// Names the piece.
        id: u64,
        /// Which blocks.
        range: ByteRange,
        /// How many of the receiver's writes on this connection they include.
        seen: u64,
        /// How they were made.
        algorithm: DigestAlgorithm,
        /// One for each block.
        digests: Payload,
    },
    /// What came of a piece.
    VerifyResult {
        /// Names the piece.
        id: u64,
        /// Which blocks.
        range: ByteRange,
        /// It was compared; otherwise it is to be tried again.
        compared: bool,
        /// A bit for each block that differs, the first the lowest.
        differing: u64,
    },
    /// The sender, which began it, ends the verify.
    VerifyEnd {
        /// Which verify.
        id: u64,
        /// Everything was compared.
        complete: bool,
    },
    /// The sender's volume shall grow: look how large your disk has become.
    ResizeRequest {
        /// Named in the reply.
        id: u64,
        /// What is new is the same on both disks.
        assume_clean: bool,
    },
    /// The sender has room for so much data.
    ResizeReply {
        /// Names the request.
        id: u64,
        /// Bytes; 0 if it has no disk; what the bitmaps have room for if there are several volumes.
        room_bytes: u64,
        /// The same of each volume's disk, if there are several.
        rooms: Vec<u64>,
    },
    /// The sender leaves on purpose.
    Goodbye {
        /// Its disk says that its data is old, and it is not Primary.
        outdated: bool,
    },
    /// The sender, Primary, wants to leave: note on disk that your data grows old, and say [`Message::Goodbye`].
    OutdateRequest,
    /// A replicated write.
    Write {
        /// Its number.
        seq: WriteSeq,
        /// First byte.
        offset: u64,
        /// The acknowledgement that it waits for: none, received, written.
        wants: Protocol,
        /// The data.
        payload: Payload,
    },
    /// A replicated write of zeroes.
    Zero {
        /// Its number.
        seq: WriteSeq,
        /// The range.
        range: ByteRange,
        /// The acknowledgement that it waits for.
        wants: Protocol,
        /// Give the storage back.
        unmap: bool,
    },
    /// The epoch ends here.
    Barrier {
        /// Which.
        epoch: Epoch,
        /// Number of its writes on this connection.
        writes: u32,
        /// A client waits for durability: flush, whatever the write ordering.
        flush: bool,
    },
    /// The target's disk says that it is one: nothing can take it for complete.
    ResyncReady,
    /// The target asks for a range.
    ResyncRequest {
        /// The range, whole blocks (but for the volume's end).
        range: ByteRange,
    },
    /// The source answers with data.
    ResyncData {
        /// First byte.
        offset: u64,
        /// The data.
        payload: Payload,
    },
    /// The source answers: the range is all zero.
    ResyncZeroes {
        /// The range.
        range: ByteRange,
    },
    /// The target has written the range.
    ResyncWritten {
        /// The range.
        range: ByteRange,
        /// False if the disk could not, and stays: it will be asked for again.
        written: bool,
    },
    /// The target is complete and durable.
    ResyncDone,
    /// The target asks for what differs from what it has.
    ResyncCompare {
        /// The range, whole blocks (but for the volume's end).
        range: ByteRange,
        /// How the digests are made.
        algorithm: DigestAlgorithm,
        /// Of every block of the target's, one after the other.
        digests: Payload,
    },
    /// The source answers: the range is equal.
    ResyncInSync {
        /// The range.
        range: ByteRange,
    },
    /// The sender wants resyncs to wait, or no longer; not so at first.
    SyncPause {
        /// To wait.
        paused: bool,
    },
    /// A read for a client of the sender, which has no good copy.
    ReadRequest {
        /// Named in the reply.
        id: u64,
        /// The range.
        range: ByteRange,
    },
    /// The data of a read; `None` if it could not be read.
    ReadReply {
        /// Names the request.
        id: u64,
        /// The data.
        payload: Option<Payload>,
    },
    /// Are you there?
    Ping,
    /// Yes.
    PingAck,
    /// The sender is about to write what it does not send: note that your data grows old. On the stream that is not
    /// congested.
    Behind {
        /// Names the question in the answer.
        id: u64,
        /// The round of the handshake that it follows: one stream may overtake the other.
        round: u32,
    },
    /// It is noted on disk.
    BehindAck {
        /// The question.
        id: u64,
    },
    /// The write is in the peer's memory (protocol B).
    ReceiveAck {
        /// Which write.
        seq: WriteSeq,
    },
    /// The peer's disk has completed the write (protocol C).
    WriteAck {
        /// Which write.
        seq: WriteSeq,
    },
    /// The peer could not write.
    NegativeAck {
        /// Which write.
        seq: WriteSeq,
        /// Its disk stays in use all the same.
        disk_stays: bool,
    },
    /// Every write of the epoch is on the peer's disk, and durable if its write ordering is flush or the barrier
    /// asked for it.
    BarrierAck {
        /// Which epoch.
        epoch: Epoch,
        /// Number of its writes that were seen.
        writes: u32,
    },
}

impl Message {
    /// The stream this message belongs on.
    pub const fn stream(&self) -> Stream {
        match self {
            Message::Proof { stream, .. } => *stream,
            Message::Ping
            | Message::PingAck
            | Message::Behind { .. }
            | Message::BehindAck { .. }
            | Message::ReceiveAck { .. }
            | Message::WriteAck { .. }
            | Message::NegativeAck { .. }
            | Message::BarrierAck { .. } => Stream::Control,
            _ => Stream::Data,
        }
    }

    /// Where in the space of blocks the payload belongs, if the message says so.
    pub const fn offset(&self) -> Option<u64> {
        match self {
            Message::Write { offset, .. } | Message::ResyncData { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    /// Bytes of a volume's data that it carries: bitmaps and digests are none, as in the kernel module's counters.
    pub fn data_bytes(&self) -> u64 {
        match self {
            Message::Write { .. } | Message::ResyncData { .. } | Message::ReadReply { .. } => {
                self.payload_bytes()
            }
            _ => 0,
        }
    }

    /// Bytes of payload.
    pub fn payload_bytes(&self) -> u64 {
        self.payload().map_or(0, Payload::len)
    }

    /// The payload, if the message carries one.
    pub const fn payload(&self) -> Option<&Payload> {
        match self {
            Message::Write { payload, .. }
            | Message::ResyncData { payload, .. }
            | Message::VerifyDigests { digests: payload, .. }
            | Message::BitmapChunk { words: payload, .. }
            | Message::ResyncCompare { digests: payload, .. }
            | Message::ReadReply { payload: Some(payload), .. } => Some(payload),
            _ => None,
        }
    }
}
