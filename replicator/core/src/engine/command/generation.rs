//! A new generation by command: `new-current-uuid`.
//!
//! Two fresh copies begin one together, as they are, in a round of the handshake: what nobody has ever written need not
//! be sent. A node that stands alone begins one so that a copy of its disk can travel to the peer by other means: from then on
//! the bitmap counts from the generation that the copy has. What the bitmap counted from before stays true, unless it was
//! cleared: then who has the older data gets everything.

use super::{CurrentCommand, Stage, disk_lost, failure};
use crate::bitmap::Bitmap;
use crate::engine::Engine;
use crate::engine::persist::Then;
use crate::io::Level;
use crate::refusal::{NEED_STANDALONE, NO_DISK, StateChangeRefusal};
use crate::state::{ConnectionState, DiskState, ReplicationState};
use crate::units::{CommandId, NodeId};

/// How a generation shall begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beginning {
    /// The administrator has said so.
    Wanted { clear_bitmap: bool },
    /// It was offered to the peer.
    Offered(u64),
    /// It has begun, and is being written down. Then bitmaps that count from this identifier are cleared; 0: none.
    Begun { clear: u64 },
}

impl Engine {
    pub(super) fn progress_beginning(&mut self, id: CommandId) {
        // What a lost Primary sent is still being written: nothing marks it.
        let applying = self.peers.iter().any(|p| !p.receiver.is_drained());
        if applying || self.peers.iter().any(|p| p.is_negotiating()) {
            return;
        }
        let Some(CurrentCommand { stage: Stage::Beginning(beginning), .. }) = self.current_command else {
            return;
        };
        let Some(metadata) = self.disk.metadata.as_ref() else {
            let wanted = matches!(beginning, Beginning::Wanted { .. });
            return self.finish_command(id, Err(if wanted { failure(NO_DISK) } else { disk_lost() }));
        };
        let fresh = metadata.superblock.generations.is_fresh();
        let connected = self.peers.iter().find(|p| p.is_connected());
        match (beginning, connected) {
            (Beginning::Wanted { clear_bitmap: true }, Some(peer)) if fresh => {
                if peer.lost_disk() {
                    return self.refuse_command(id, StateChangeRefusal::NoRemoteDisk, Vec::new());
                }
                self.offer_generation(id, peer.id());
            }
            (Beginning::Wanted { .. }, _)
                if self.peers.iter().any(|p| p.connection != ConnectionState::StandAlone) =>
            {
                self.finish_command(id, Err(failure(NEED_STANDALONE)));
            }
            (Beginning::Wanted { .. }, _) if self.disk.state != DiskState::UpToDate => {
                let text = format!("the local disk is {}", self.disk.state);
                self.refuse_command(id, StateChangeRefusal::NoUpToDateDisk, vec![text]);
            }
            (Beginning::Wanted { clear_bitmap }, _) => self.begin_alone(id, clear_bitmap),
            (_, None) if fresh => self.refuse_command(id, StateChangeRefusal::NeedConnection, Vec::new()),
            (_, Some(_)) if fresh => self.refuse_command(id, StateChangeRefusal::PeerRefused, Vec::new()),
            _ if !self.generation_is_durable() => {}
            (Beginning::Begun { clear }, _) if clear != 0 => self.clear_bitmaps(id, clear),
            _ => self.finish_command(id, Ok(())),
        }
    }

    // Two fresh copies.

    fn offer_generation(&mut self, id: CommandId, peer: NodeId) {
        let generation = self.new_generation_id();
        self.begin(id, Stage::Beginning(Beginning::Offered(generation)));
        self.note(Some(peer), Level::Info, "Preparing to skip initial sync");
        self.begin_handshake(peer);
    }

    /// What this node offers the peer to begin; 0: nothing.
    pub(in crate::engine) fn generation_to_begin(&self) -> u64 {
        match self.current_command.as_ref().map(|c| &c.stage) {
            Some(Stage::Beginning(Beginning::Offered(generation))) => *generation,
            _ => 0,
        }
    }

    /// Neither copy has ever held data, and somebody has said that they count as equal.
    pub(in crate::engine) fn begin_together(&mut self, id: NodeId, generation: u64) {
        if let Some(metadata) = self.disk.metadata.as_mut() {
            let superblock = &mut metadata.superblock;
            superblock.generations.current = generation;
            (superblock.flags.consistent, superblock.flags.up_to_date) = (true, true);
            metadata.bitmaps.iter_mut().for_each(Bitmap::clear_all);
        }
        self.disk.generation_version = self.disk.persist.request_then(true, Then::BegunTogether);
        let text = "the initial sync is skipped: both copies count as equal, whatever they hold";
        self.note(Some(id), Level::Warn, text);
        self.set_replication(id, ReplicationState::Established);
    }

    /// It is on disk here. Another round makes both copies UpToDate at the same place in the conversation: a node that was
    /// promoted before would take the other for one that lacks data.
    pub(in crate::engine) fn begun_together(&mut self) {
        self.set_disk(DiskState::Negotiating);
        for peer in self.peer_ids() {
            self.begin_handshake(peer);
        }
        if !self.peers.iter().any(|p| p.link_up) {
            self.end_negotiation(DiskState::UpToDate);
        }
    }

    // Alone.

    fn begin_alone(&mut self, id: CommandId, clear_bitmap: bool) {
        let (generation, nobodys) = (self.new_generation_id(), self.new_generation_id());
        let under_way: Vec<_> = self.ranges_being_written().collect();
        let slots: Vec<usize> = self.peers.iter().map(|p| p.slot).collect();
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let superblock = &mut metadata.superblock;
        let old = std::mem::replace(&mut superblock.generations.current, generation);
        superblock.generations.remember(old);
        let mut clear = 0;
        for slot in slots {
            let (peer, bitmap) = (&mut superblock.peers[slot], &mut metadata.bitmaps[slot]);
            let counts = bitmap.set_count() > 0;
            // A copy of the disk that is made from now on may lack it, whatever the peer has acknowledged.
            under_way.iter().for_each(|range| bitmap.set_range(*range));
            if clear_bitmap && counts {
                superblock.generations.remember(peer.bitmap_id);
                superblock.generations.remember(peer.resync_id);
                (peer.bitmap_id, peer.resync_id) = (nobodys, 0);
                clear = nobodys;
            } else if peer.bitmap_id == 0 {
                peer.bitmap_id = old;
            } else {
                superblock.generations.remember(peer.resync_id);
                peer.resync_id = old;
            }
        }
        self.note(None, Level::Info, format!("new current generation {generation:016X}, was {old:016X}"));
        self.begin(id, Stage::Beginning(Beginning::Begun { clear }));
        self.disk.generation_version = self.disk.persist.request(true);
    }

    /// The disk says that these bitmaps tell nothing about the data before: only now may they be cleared there.
    fn clear_bitmaps(&mut self, id: CommandId, clear: u64) {
        let under_way: Vec<_> = self.ranges_being_written().collect();
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        for (slot, bitmap) in metadata.superblock.peers.iter().zip(&mut metadata.bitmaps) {
            if slot.bitmap_id == clear {
                bitmap.clear_all();
                under_way.iter().for_each(|range| bitmap.set_range(*range));
            }
        }
        self.begin(id, Stage::Beginning(Beginning::Begun { clear: 0 }));
        self.disk.generation_version = self.disk.persist.request(true);
    }
}
