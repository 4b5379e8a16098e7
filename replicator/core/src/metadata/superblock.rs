//! The superblock: 4 KiB, little-endian, checksummed.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic `TANDEMSB` |
//! | 8..12 | version, 1 |
//! | 12..16 | crc32 of the 4096 bytes with this field zero |
//! | 16..24 | sequence number; the valid copy with the higher one counts |
//! | 24..32 | device identifier, random at creation |
//! | 32..40 | size in bytes agreed with the peers, 0 if never |
//! | 40..48 | size in bytes of the backing device when the metadata was put there |
//! | 48..52 | flags: 1 consistent, 2 was UpToDate, 4 Primary, 8 crashed Primary, 16 failed under a Primary |
//! | 52 | node id, 255 while unknown |
//! | 53 | bitmap slots |
//! | 54 | placement: 0 internal, 1 external |
//! | 55 | zero |
//! | 56..64 | activity log: number of the first transaction that counts; 0: nothing may differ but what bitmaps mark; all ones: not kept, everything may |
//! | 64..72 | current generation |
//! | 72..328 | 32 generations of history, the latest first |
//! | 328..1072 | 31 peer slots of 24 bytes: bitmap generation, resync generation, node id (255: free), flags (1: known to be outdated, 2: fence-peer was run, 4: a split brain was decided for it, 8: the bitmap marks more than was written), zero |
//! | 1072..1080 | undo log that holds what a resync has overwritten since it began; 0: none |
//! | 1080..1082 | number of the volumes' pieces, 0 if there is one volume |
//! | 1082 | log2 of what the pieces begin at multiples of; 0 for 22, 4 MiB: another only on simulated disks |
//! | 1083..1088 | zero |
//! | 1088..3136 | 128 pieces of 16 bytes: size in bytes, volume (2 bytes), zero; the volumes by ascending number, then what they have grown by, in the order in which they grew |
//! | 3136..3144 | bytes of all pieces behind the first that the bitmaps have room for, 0: as many as there are |
//! | 3144..4096 | zero |
//!
//! Both copies are written, one after the other, each durable before the next step: whatever write is torn, the other
//! copy is whole; and a copy that rots later never takes the operator back to an older state unnoticed.

use thiserror::Error;

use super::{MAX_PEERS, Placement};
use crate::generation::{Generations, HISTORY_SLOTS, JUST_CREATED, parting_identifier};
use crate::layout::{Layout, MAX_PIECES, SLOT_BYTES, VolumeSize};
use crate::units::NodeId;

/// Length of a superblock copy.
pub const SUPERBLOCK_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"TANDEMSB";
const VERSION: u32 = 1;
const CRC: std::ops::Range<usize> = 12..16;
const HISTORY: usize = 72;
const PEERS: usize = 328;
const PEER_BYTES: usize = 24;
const UNDO: usize = 1072;
const PIECE_COUNT: usize = 1080;
const SLOTS: usize = 1082;
const PIECES: usize = 1088;
const PIECE_BYTES: usize = 16;
const ROOM: usize = 3136;
const NO_NODE: u8 = 255;

const _: () = assert!(HISTORY + HISTORY_SLOTS * 8 == PEERS);
const _: () = assert!(PEERS + MAX_PEERS as usize * PEER_BYTES <= UNDO);
const _: () = assert!(PIECES + MAX_PIECES * PIECE_BYTES == ROOM);

/// What is remembered of the disk's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// The data is a consistent point in time.
    pub consistent: bool,
    /// The data was the newest known.
    pub up_to_date: bool,
    /// This node is Primary; found set at attach, it crashed as such.
    pub primary: bool,
    /// This node crashed as Primary and has not met an UpToDate peer since.
    pub crashed_primary: bool,
    /// The disk failed while a Primary was there, and may have lost what it had acknowledged; until it is UpToDate again.
    pub failed: bool,
}

impl Flags {
    /// The data is the newest known: whatever the disk had lost before, it has now.
    pub fn set_up_to_date(&mut self) {
        (self.up_to_date, self.failed) = (true, false);
    }
}

/// One peer's slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerSlot {
    /// Whose slot it is; `None` while free.
    pub node: Option<NodeId>,
    /// The generation that ended when the bitmap began to count for this peer; 0 while it does not.
    pub bitmap_id: u64,
    /// The generation that the peer has if it saw the end of a resync that we did not see; 0 if there is none. The
    /// bitmap counts from there as well.
    pub resync_id: u64,
    /// The peer's data is known to be old, and it knows that or is dead: it does not become Primary by itself.
    pub outdated: bool,
    /// fence-peer was run against it, and unfence-peer was not.
    pub fenced: bool,
    /// A split brain was decided for the peer: until its data has replaced ours, what the bitmap counts is not what was
    /// written here.
    pub gave_up: bool,
    /// After a crash the bitmap marks whole extents of the activity log: what it counts is a bound.
    pub overcounted: bool,
}

/// Where, besides the blocks that the bitmaps mark, a crash may have left the copies different.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ActivityLogState {
    /// Nowhere.
    #[default]
    Closed,
    /// In the extents of the log, whose first transaction that counts is this one.
    Open(u64),
    /// Everywhere: no log is kept.
    Unlogged,
}

impl PeerSlot {
    pub(super) const FREE: PeerSlot = PeerSlot {
        node: None,
        bitmap_id: 0,
        resync_id: 0,
        outdated: false,
        fenced: false,
        gave_up: false,
        overcounted: false,
    };
}

/// The superblock's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Number of times it was written.
    pub sequence: u64,
    /// Random, drawn at creation.
    pub device_id: u64,
    /// Size in bytes agreed with the peers, 0 if never.
    pub agreed_bytes: u64,
    /// Size in bytes of the backing device when the metadata was put there.
    pub backing_bytes: u64,
    /// Disk state.
    pub flags: Flags,
    /// The node that uses this disk; `None` until the first attach.
    pub node: Option<NodeId>,
    /// Where the metadata is kept.
    pub placement: Placement,
    /// What a crash would leave different.
    pub activity_log: ActivityLogState,
    /// Generation identifiers.
    pub generations: Generations,
    /// The undo log of the resync that has made the data Inconsistent; 0: none.
    pub undo_id: u64,
    /// The volumes, if there are several.
    pub layout: Layout,
    /// Bytes of all pieces behind the first that the bitmaps have room for; 0: as many as there are.
    pub room_behind_first: u64,
    /// One entry per bitmap slot.
    pub peers: Vec<PeerSlot>,
}

/// Why a copy of the superblock is not valid.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SuperblockError {
    /// There is none.
    #[error("no Tandem superblock")]
    Absent,
    /// Damaged.
    #[error("checksum does not match")]
    Checksum,
    /// Written by a newer release.
    #[error("version {0} is newer than this release understands ({VERSION})")]
    Version(u32),
    /// The checksum matches, the content makes no sense.
    #[error("field {0} is out of range")]
    Field(&'static str),
}

impl Superblock {
    /// The superblock of a disk that has never held data.
    pub fn fresh(device_id: u64, backing_bytes: u64, placement: Placement, max_peers: u8) -> Self {
        Superblock {
            sequence: 0,
            device_id,
            agreed_bytes: 0,
            backing_bytes,
            flags: Flags::default(),
            node: None,
            placement,
            activity_log: ActivityLogState::Closed,
            generations: Generations { current: JUST_CREATED, history: [0; HISTORY_SLOTS] },
            undo_id: 0,
            layout: Layout::default(),
            room_behind_first: 0,
            peers: vec![PeerSlot::FREE; usize::from(max_peers)],
        }
    }

    /// Bytes of all pieces behind the first that the bitmaps have room for.
    pub fn covered_behind_first(&self) -> u64 {
        match self.room_behind_first {
            0 => self.layout.bytes_behind_first(),
            room => room,
        }
    }

    /// The data goes on without any peer, as another generation: what a bitmap marks counts from the one before.
    pub(super) fn begin_generation(&mut self, id: u64) {
        let old = std::mem::replace(&mut self.generations.current, id);
        self.generations.remember(old);
        let in_sync = |slot: &&mut PeerSlot| slot.node.is_some() && slot.bitmap_id == 0;
        for slot in self.peers.iter_mut().filter(in_sync) {
            slot.bitmap_id = parting_identifier(old, false);
        }
    }

    /// The 4096 bytes of a copy.
    pub fn encode(&self) -> Vec<u8> {
        let mut b = vec![0u8; SUPERBLOCK_BYTES];
        let put = |b: &mut Vec<u8>, at: usize, n: u64| b[at..at + 8].copy_from_slice(&n.to_le_bytes());
        b[0..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        put(&mut b, 16, self.sequence);
        put(&mut b, 24, self.device_id);
        put(&mut b, 32, self.agreed_bytes);
        put(&mut b, 40, self.backing_bytes);
        b[48] = u8::from(self.flags.consistent)
            | u8::from(self.flags.up_to_date) << 1
            | u8::from(self.flags.primary) << 2
            | u8::from(self.flags.crashed_primary) << 3
            | u8::from(self.flags.failed) << 4;
        b[52] = self.node.map_or(NO_NODE, |n| n.0);
        b[53] = self.peers.len() as u8;
        b[54] = match self.placement {
            Placement::Internal => 0,
            Placement::External => 1,
        };
        put(
            &mut b,
            56,
            match self.activity_log {
                ActivityLogState::Closed => 0,
                ActivityLogState::Open(first) => first,
                ActivityLogState::Unlogged => u64::MAX,
            },
        );
        put(&mut b, 64, self.generations.current);
        for (i, id) in self.generations.history.iter().enumerate() {
            put(&mut b, HISTORY + i * 8, *id);
        }
        for (i, slot) in self.peers.iter().enumerate() {
            let at = PEERS + i * PEER_BYTES;
            put(&mut b, at, slot.bitmap_id);
            put(&mut b, at + 8, slot.resync_id);
            b[at + 16] = slot.node.map_or(NO_NODE, |n| n.0);
            b[at + 17] = u8::from(slot.outdated)
                | u8::from(slot.fenced) << 1
                | u8::from(slot.gave_up) << 2
                | u8::from(slot.overcounted) << 3;
        }
        put(&mut b, UNDO, self.undo_id);
        let pieces = self.layout.pieces();
        b[PIECE_COUNT] = pieces.len() as u8;
        if self.layout.slot_bytes() != SLOT_BYTES {
            b[SLOTS] = self.layout.slot_bytes().ilog2() as u8;
        }
        for (i, piece) in pieces.iter().enumerate() {
            let at = PIECES + i * PIECE_BYTES;
            put(&mut b, at, piece.bytes);
            put(&mut b, at + 8, u64::from(piece.number));
        }
        put(&mut b, ROOM, self.room_behind_first);
        let crc = crc32fast::hash(&b);
        b[CRC].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads a copy.
    pub fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Superblock, SuperblockError> {
        if bytes[0..8] != MAGIC {
            return Err(SuperblockError::Absent);
        }
        let mut unsigned = *bytes;
        unsigned[CRC].fill(0);
        if crc32fast::hash(&unsigned).to_le_bytes() != bytes[CRC] {
            return Err(SuperblockError::Checksum);
        }
        let u64_at = |at: usize| {
            let mut n = [0; 8];
            n.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(n)
        };
        let version = u64_at(8) as u32;
        if version > VERSION {
            return Err(SuperblockError::Version(version));
        }
        let node = |n: u8| match n {
            NO_NODE => Ok(None),
            0..=31 => Ok(Some(NodeId(n))),
            _ => Err(SuperblockError::Field("node id")),
        };
        let max_peers = bytes[53];
        if max_peers == 0 || max_peers > MAX_PEERS {
            return Err(SuperblockError::Field("bitmap slots"));
        }
        let mut history = [0; HISTORY_SLOTS];
        for (i, id) in history.iter_mut().enumerate() {
            *id = u64_at(HISTORY + i * 8);
        }
        let peers = (0..usize::from(max_peers)).map(|i| {
            let at = PEERS + i * PEER_BYTES;
            Ok(PeerSlot {
                node: node(bytes[at + 16])?,
                bitmap_id: u64_at(at),
                resync_id: u64_at(at + 8),
                outdated: bytes[at + 17] & 1 != 0,
                fenced: bytes[at + 17] & 2 != 0,
                gave_up: bytes[at + 17] & 4 != 0,
                overcounted: bytes[at + 17] & 8 != 0,
            })
        });
        let slot_bytes = match bytes[SLOTS] {
            0 => SLOT_BYTES,
            log2 => 1u64.checked_shl(log2.into()).ok_or(SuperblockError::Field("volumes"))?,
        };
        // More than there is room for are refused by `Layout::of_pieces`.
        let pieces = (0..usize::from(bytes[PIECE_COUNT]).min(MAX_PIECES + 1)).map(|i| {
            let at = PIECES + i * PIECE_BYTES;
            VolumeSize { number: u64_at(at + 8) as u16, bytes: u64_at(at) }
        });
        Ok(Superblock {
            sequence: u64_at(16),
            device_id: u64_at(24),
            agreed_bytes: u64_at(32),
            backing_bytes: u64_at(40),
            flags: Flags {
                consistent: bytes[48] & 1 != 0,
                up_to_date: bytes[48] & 2 != 0,
                primary: bytes[48] & 4 != 0,
                crashed_primary: bytes[48] & 8 != 0,
                failed: bytes[48] & 16 != 0,
            },
            node: node(bytes[52])?,
            placement: match bytes[54] {
                0 => Placement::Internal,
                1 => Placement::External,
                _ => return Err(SuperblockError::Field("placement")),
            },
            activity_log: match u64_at(56) {
                0 => ActivityLogState::Closed,
                u64::MAX => ActivityLogState::Unlogged,
                first => ActivityLogState::Open(first),
            },
            generations: Generations { current: u64_at(64), history },
            undo_id: u64_at(UNDO),
            layout: Layout::of_pieces(pieces.collect(), slot_bytes)
                .map_err(|_| SuperblockError::Field("volumes"))?,
            room_behind_first: u64_at(ROOM),
            peers: peers.collect::<Result<_, _>>()?,
        })
    }
}
