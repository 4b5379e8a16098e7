//! The node that was told to verify: it goes over the volume piece by piece, as fast as a resync would.

use std::collections::{BTreeMap, VecDeque};

use super::{PIECE_BLOCKS, Step};
use crate::engine::Engine;
use crate::engine::peer::Peer;
use crate::engine::persist::Then;
use crate::engine::receiver::What;
use crate::engine::resync::{Controller, Turn};
use crate::io::{Level, Repair};
use crate::layout::Layout;
use crate::seeded;
use crate::state::Role;
use crate::units::{BLOCK_BYTES, ByteRange, NodeId, Timestamp};
use crate::wire::Message;

/// The way over the volume.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Walk {
    /// What is not begun yet, in ascending order.
    ahead: VecDeque<ByteRange>,
    stop_bytes: u64,
    /// If it ends early, the next one goes on from there.
    resumes: bool,
    /// Pieces under way.
    outstanding: BTreeMap<u64, ByteRange>,
    /// Pieces that could not be compared, because a role changed meanwhile.
    again: VecDeque<ByteRange>,
    controller: Controller,
    finishing: bool,
    repair: Option<Repair>,
}

impl Walk {
    pub(in crate::engine) fn new(
        ranges: &[ByteRange],
        resumes: bool,
        repair: Option<Repair>,
        now: Timestamp,
    ) -> Self {
        Walk {
            ahead: ranges.iter().copied().collect(),
            stop_bytes: ranges.last().map_or(0, |last| last.end()),
            resumes,
            outstanding: BTreeMap::new(),
            again: VecDeque::new(),
            controller: Controller::new(now),
            finishing: false,
            repair,
        }
    }

    pub(super) fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Everything before this was compared.
    pub(super) fn reached(&self) -> u64 {
        let waiting = self.outstanding.values().chain(&self.again).chain(self.ahead.front());
        waiting.map(|range| range.offset).min().unwrap_or(self.stop_bytes)
    }

    pub(super) fn resumes(&self) -> bool {
        self.resumes
    }

    fn next_piece(&mut self, most_bytes: u64, layout: &Layout) -> Option<ByteRange> {
        if let Some(range) = self.again.pop_front() {
            return Some(range);
        }
        let range = self.ahead.front_mut()?;
        let end = range.end().min(layout.slot_end(range.offset));
        let length = most_bytes.min(PIECE_BLOCKS * BLOCK_BYTES).min(end - range.offset);
        let piece = ByteRange::new(range.offset, length);
        *range = ByteRange::new(piece.end(), range.length - length);
        if range.length == 0 {
            self.ahead.pop_front();
        }
        Some(piece).filter(|p| p.length > 0)
    }

    pub(super) fn awaits(&self, key: u64, range: ByteRange) -> bool {
        self.outstanding.get(&key) == Some(&range)
    }

    fn is_over(&self) -> bool {
        self.ahead.is_empty() && self.outstanding.is_empty() && self.again.is_empty()
    }
}

impl Engine {
    /// Begins to compare as many pieces as are due, or ends the walk.
    pub(in crate::engine) fn progress_verifies(&mut self) {
        for id in self.peer_ids() {
            while self.compare_next_piece(id) {}
        }
    }

    fn compare_next_piece(&mut self, id: NodeId) -> bool {
        let (now, active) = (self.now, self.clients_are_active());
        let misses_tail = seeded!(self, VerifyMissesTail);
        let layout = self.layout().clone();
        let options = &self.config.options.resync;
        let Some(peer) = self.peers.iter_mut().find(|p| p.id() == id) else { return false };
        let Some(walk) = peer.verify.as_mut().and_then(|v| v.walk.as_mut()).filter(|w| !w.finishing) else {
            return false;
        };
        if walk.is_over() {
            self.finish_walk(id);
            return false;
        }
        let Turn::Now(most_bytes) = walk.controller.turn(options, now, active) else { return false };
        let Some(mut range) = walk.next_piece(most_bytes, &layout) else { return false };
        if misses_tail && walk.ahead.is_empty() && range.length > BLOCK_BYTES {
            range.length -= BLOCK_BYTES;
        }
        walk.controller.asked(options, now, active, range.length);
        self.next_key += 1;
        let key = self.next_key;
        walk.outstanding.insert(key, range);
        if peer.role == Role::Primary {
            self.send(id, Message::VerifyRequest { id: key, range });
        } else if let Err(violation) = self.read_for_peer(id, key, range) {
            self.protocol_error(id, &violation);
        }
        true
    }

    /// Reads a piece in its place among the writes, for the peer to compare.
    pub(super) fn read_for_peer(&mut self, id: NodeId, key: u64, range: ByteRange) -> Result<(), String> {
        let token = self.key();
        let Some(peer) = self.peer(id).filter(|p| !p.receiver_stale) else { return Ok(()) };
        let (session, seen) = (peer.session, peer.writes_received);
        self.enqueue(id, session, range, token, What::Verify(Step::Digest { id: key, seen }))
    }

    /// A piece has been compared, or could not be.
    pub(super) fn piece_ended(&mut self, id: NodeId, key: u64, compared: bool) {
        let now = self.now;
        let options = &self.config.options.resync;
        let peer = self.peers.iter_mut().find(|p| p.id() == id);
        let walk = peer.and_then(|p| p.verify.as_mut()).and_then(|v| v.walk.as_mut());
        let Some(walk) = walk else { return };
        let Some(range) = walk.outstanding.remove(&key) else { return };
        walk.controller.answered(options, now, range.length);
        if !compared {
            walk.again.push_back(range);
        }
    }

    /// What was found is brought to disk before anybody is told that the verify is done.
    fn finish_walk(&mut self, id: NodeId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let session = peer.session;
        let Some(verify) = peer.verify.as_mut() else { return };
        let found = verify.found_blocks > 0;
        if let Some(walk) = verify.walk.as_mut() {
            walk.finishing = true;
        }
        if found && !seeded!(self, VerifyForgetsFound) {
            self.disk.persist.request_then(true, Then::Verified(id, session));
        } else {
            self.walk_finished(id, session);
        }
    }

    pub(in crate::engine) fn walk_finished(&mut self, id: NodeId, session: u32) {
        let Some(peer) = self.peer(id).filter(|p| p.session == session && p.link_up) else { return };
        let walk = peer.verify.as_ref().and_then(|v| v.walk.as_ref());
        if walk.is_none_or(|w| !w.finishing) {
            return;
        }
        let Some(verify) = self.end_verify(id) else { return };
        self.send(id, Message::VerifyEnd { id: verify.id, complete: true });
        // What an earlier verify has found is marked as well.
        let marked = self.dirty_blocks(id) > 0;
        if let Some(repair) = verify.walk.and_then(|w| w.repair).filter(|_| marked) {
            self.repair(id, repair);
        }
    }

    /// The copy that is wrong gives up what was found, and has it from the other: from the Primary if there is one.
    fn repair(&mut self, id: NodeId, repair: Repair) {
        let peer_is_primary = self.peer(id).is_some_and(|p| p.role == Role::Primary);
        let source = match (self.role == Role::Primary, peer_is_primary) {
            (true, _) => Some(self.config.node),
            (_, true) => Some(id),
            _ => repair.from,
        };
        match source {
            Some(source) => {
                let remote = (source == self.config.node) != seeded!(self, RepairFromWrongSide);
                self.replace_marked_blocks(id, remote);
            }
            None => {
                let text = "neither node is Primary any more: what was found is not repaired; choose the copy that is \
                            wrong with 'invalidate --reset-bitmap=no' there";
                self.note(Some(id), Level::Error, text);
            }
        }
    }

    /// When the walk may go on that has to wait for nothing but time.
    pub(in crate::engine) fn next_piece_at(&self, peer: &Peer) -> Option<Timestamp> {
        let walk = peer.verify.as_ref()?.walk.as_ref().filter(|w| !w.finishing && !w.is_over())?;
        match walk.controller.turn(&self.config.options.resync, self.now, self.clients_are_active()) {
            Turn::At(at) => Some(at),
            Turn::Now(_) | Turn::WhenAnswered => None,
        }
    }
}
