//! What is known of one peer, and what is under way with it.

use std::collections::VecDeque;

use crate::config::{PeerConfig, Protocol};
use crate::state::{ConnectionState, DiskState, ReplicationState, Role};
use crate::status::ResyncSuspended;
use crate::units::{ByteRange, Epoch, HandlerId, NodeId, Timestamp, WriteSeq};
use crate::wire::{Handshake, Message};

use super::VolumeBytes;
use super::authentication::Proving;
use super::congestion::PullingAhead;
use super::divergence::{Farewell, Meeting};
use super::fencing::Fence;
use super::peer_reads::PeerReads;
use super::receiver::{Burden, Receiver};
use super::resync::{PeerPause, Progress, SourceState, TargetState};
use super::verify::Verify;

/// One peer.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) config: PeerConfig,
    /// Its bitmap slot in our metadata, while a disk is attached.
    pub(super) slot: usize,

    pub(super) connection: ConnectionState,
    /// The streams stand, and it is to prove who it is.
    pub(super) proving: Option<Proving>,
    /// The streams stand: messages may be sent.
    pub(super) link_up: bool,
    /// Counts the connections, so that late disk completions are told apart.
    pub(super) session: u32,
    pub(super) standalone_reason: Option<String>,
    /// What it has chosen otherwise, as it last said.
    pub(super) differing_options: Vec<String>,
    /// The administrator gives our data up for the peer's.
    pub(super) discard_my_data: bool,
    /// We only want to know what would happen.
    pub(super) tentative: bool,
    /// The peer only wants to know.
    pub(super) peer_is_tentative: bool,
    /// The peer has said what it was configured for.
    pub(super) options_known: bool,
    /// We were Primary when we lost it, and have been since.
    pub(super) parted_as_primary: bool,
    /// When to connect again, if not at once.
    pub(super) retry_at: Option<Timestamp>,
    pub(super) round_since: Timestamp,
    pub(super) last_received: Timestamp,
    pub(super) ping_sent: Option<Timestamp>,
    /// It has answered since a command asked whether it lives.
    pub(super) ping_answered: bool,
    pub(super) fence: Fence,

    pub(super) role: Role,
    pub(super) disk: DiskState,
    /// It was allowed to give its copy up.
    pub(super) gives_up: bool,
    /// An ack said that the disk has failed; what the data stream says of it until it says so too is past.
    pub(super) failed_by_ack: bool,
    /// Names the time since its disk was attached.
    pub(super) attachment: u64,
    pub(super) replication: ReplicationState,

    /// The round of the handshake under way or last ended; 0 before the first.
    pub(super) round: u32,
    pub(super) in_round: bool,
    /// Something changed after our part of the round was sent: another must follow.
    pub(super) round_again: bool,
    pub(super) our_handshake: Option<Handshake>,
    pub(super) their_handshake: Option<Handshake>,
    /// The last meeting, if it found that both copies went on.
    pub(super) meeting: Option<Meeting>,
    /// They tell each other what they have written since, and then part.
    pub(super) farewell: Option<Farewell>,
    /// Messages on the data stream wait until this version of the metadata is durable.
    pub(super) stalled_until: Option<u64>,
    pub(super) deferred: VecDeque<Message>,
    pub(super) deferred_held: Burden,
    /// Messages on the data stream, and the resync, wait for this handler.
    pub(super) before_resync: Option<HandlerId>,
    /// We are its target: the bitmaps have met, and what it wrote before is still being applied.
    pub(super) draining: bool,

    /// Writes sent and not yet behind a barrier ack, in order of their numbers.
    pub(super) transfer_log: VecDeque<SentWrite>,
    pub(super) next_seq: WriteSeq,
    /// Every write before this one has got the ack that its client waits for.
    answered_before: WriteSeq,
    /// Bytes of the writes in the transfer log that the peer may still hold in memory.
    pub(super) unconfirmed_bytes: u64,
    /// It was asked to note that its data grows old.
    pub(super) pulling_ahead: Option<PullingAhead>,
    /// As our Primary, it waits until our disk says that our data grows old.
    pub(super) behind_question: Option<u64>,
    /// A question of that kind that counts from the end of the handshake on.
    pub(super) behind_early: Option<u64>,
    /// Writes sent in the current epoch.
    pub(super) epoch_writes: u32,
    pub(super) barriers: VecDeque<SentBarrier>,
    /// Has the peer's word that all it was sent is durable.
    pub(super) all_durable: bool,

    pub(super) receiver: Receiver,
    pub(super) reads: PeerReads,
    /// The session whose writes the receiver holds.
    pub(super) receiver_session: u32,
    /// What the receiver counted belongs to a stream of writes that has ended.
    pub(super) receiver_stale: bool,
    pub(super) target: Option<TargetState>,
    /// As a target of ours, it has noted on disk that it is one.
    pub(super) target_is_marked: bool,
    pub(super) source: SourceState,
    pub(super) pause: PeerPause,
    /// Why resyncs with it are paused, as last told.
    pub(super) told_of_pause: ResyncSuspended,
    /// When it became our target.
    pub(super) target_since: Timestamp,
    pub(super) progress: Option<Progress>,
    pub(super) verify: Option<Verify>,
    /// Where the last verify ended early; 0 if it did not.
    pub(super) verify_from_bytes: u64,
    /// Writes of this connection, for telling what a digest includes.
    pub(super) writes_sent: u64,
    pub(super) writes_received: u64,

    /// Its volume's size, as the last handshake has left it; of one that is sent nothing, as its disk had it then.
    pub(super) volume_bytes: u64,
    /// It wants to grow, and what is new is the same on both disks.
    pub(super) assumes_clean: bool,
    /// A disk looked too small for what both should have, and was measured again.
    pub(super) was_measured_again: bool,

    pub(super) sent: VolumeBytes,
    pub(super) received: VolumeBytes,
}

/// A replicated write that may still be lost to the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentWrite {
    pub(super) key: u64,
    pub(super) range: ByteRange,
    /// Bytes of memory that it costs the peer; 0 once it is known to be on the peer's disk.
    pub(super) held_bytes: u64,
    pub(super) epoch: Epoch,
    pub(super) sent_at: Timestamp,
    /// The ack that its client waits for.
    pub(super) wants: Protocol,
    pub(super) acked: bool,
    /// It holds extents of the activity log.
    pub(super) logged: bool,
}

/// A barrier that was not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentBarrier {
    pub(super) epoch: Epoch,
    pub(super) writes: u32,
    pub(super) flush: bool,
    pub(super) sent_at: Timestamp,
}

impl Peer {
    pub(super) fn new(config: PeerConfig, now: Timestamp) -> Self {
        Peer {
            config,
            slot: 0,
            connection: ConnectionState::StandAlone,
            proving: None,
            link_up: false,
            session: 0,
            standalone_reason: None,
            differing_options: Vec::new(),
            discard_my_data: false,
            tentative: false,
            peer_is_tentative: false,
            options_known: false,
            parted_as_primary: false,
            retry_at: None,
            round_since: now,
            last_received: now,
            ping_sent: None,
            ping_answered: false,
            fence: Fence::default(),
            role: Role::Unknown,
            disk: DiskState::DUnknown,
            gives_up: false,
            failed_by_ack: false,
            attachment: 0,
            replication: ReplicationState::Off,
            round: 0,
            in_round: false,
            round_again: false,
            our_handshake: None,
            their_handshake: None,
            meeting: None,
            farewell: None,
            stalled_until: None,
            deferred: VecDeque::new(),
            deferred_held: Burden::default(),
            before_resync: None,
            draining: false,
            transfer_log: VecDeque::new(),
            next_seq: WriteSeq(1),
            answered_before: WriteSeq(1),
            unconfirmed_bytes: 0,
            pulling_ahead: None,
            behind_question: None,
            behind_early: None,
            epoch_writes: 0,
            barriers: VecDeque::new(),
            all_durable: true,
            receiver: Receiver::default(),
            reads: PeerReads::default(),
            receiver_session: 0,
            receiver_stale: true,
            target: None,
            target_is_marked: false,
            source: SourceState::default(),
            pause: PeerPause::default(),
            told_of_pause: ResyncSuspended::default(),
            target_since: now,
            progress: None,
            verify: None,
            verify_from_bytes: 0,
            writes_sent: 0,
            writes_received: 0,
            volume_bytes: 0,
            assumes_clean: false,
            was_measured_again: false,

            sent: VolumeBytes::default(),
            received: VolumeBytes::default(),
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.config.id
    }

    /// Why this Primary keeps its connection and the disk here.
    pub(super) fn is_served(&self) -> String {
        format!("{} is Primary and works with this disk", self.config.name)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection == ConnectionState::Connected
    }

    /// The streams stand, the verdict is not there yet.
    pub(super) fn is_negotiating(&self) -> bool {
        self.link_up && (self.in_round || !self.is_connected())
    }

    /// Messages on its data stream wait.
    pub(super) fn is_held_back(&self) -> bool {
        self.stalled_until.is_some() || self.before_resync.is_some() || self.draining
    }

    /// What comes on its data stream waits.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_held_back() || !self.deferred.is_empty()
    }

    /// Writes are sent to it; otherwise they are marked in its bitmap. Old data takes none: it would
    /// become a mixture. Unless it is being renewed, or grows old only when the peer has noted that.
    pub(super) fn replicates(&self) -> bool {
        let renewed = self.replication.is_source()
            || self.replication == ReplicationState::WFBitMapS
            || self.pulling_ahead.is_some();
        self.is_connected()
            && !matches!(self.replication, ReplicationState::Off | ReplicationState::Ahead)
            && (self.disk == DiskState::UpToDate || renewed && self.disk >= DiskState::Inconsistent)
    }

    /// It was chosen as our target, and might forget that in a crash.
    pub(super) fn is_unmarked_target(&self) -> bool {
        let sending = self.replication == ReplicationState::WFBitMapS || self.replication.is_source();
        sending && !self.target_is_marked
    }

    /// Connected, and it said that it has no disk (any more).
    pub(super) fn lost_disk(&self) -> bool {
        self.disk < DiskState::Negotiating
    }

    /// The number of the oldest write in the transfer log, or of the next one if it is empty.
    fn first_seq(&self) -> u64 {
        self.next_seq.0 - self.transfer_log.len() as u64
    }

    /// A write in the transfer log; `None` if it has left it, or was never there.
    pub(super) fn logged(&mut self, seq: WriteSeq) -> Option<&mut SentWrite> {
        let index = seq.0.checked_sub(self.first_seq())?;
        self.transfer_log.get_mut(index as usize)
    }

    /// Moves on past writes that nobody waits for, so that the oldest of the others need not be looked for.
    pub(super) fn note_answers(&mut self) {
        let first = self.first_seq();
        let mut seq = self.answered_before.0.max(first);
        while self.transfer_log.get((seq - first) as usize).is_some_and(|w| w.acked || w.wants == Protocol::A)
        {
            seq += 1;
        }
        self.answered_before = WriteSeq(seq);
    }

    /// When the oldest write was sent whose client waits for the peer.
    pub(super) fn oldest_unanswered(&self) -> Option<Timestamp> {
        let index = self.answered_before.0.saturating_sub(self.first_seq());
        self.transfer_log.get(index as usize).map(|w| w.sent_at)
    }

    /// It can serve a read.
    pub(super) fn has_good_data(&self) -> bool {
        self.is_connected() && self.disk == DiskState::UpToDate
    }
}
