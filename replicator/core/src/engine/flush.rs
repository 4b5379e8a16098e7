//! Flushes of the clients on the Primary.

use super::Engine;
use super::client::{Leg, Request};
use super::disk::DiskWork;
use super::held::Held;
use crate::config::Protocol;
use crate::io::{Device, DiskOpKind};
use crate::seeded;
use crate::units::{Epoch, NodeId, RequestId};

/// A flush under way.
#[derive(Clone, Debug)]
pub(super) struct ClientFlush {
    id: RequestId,
    local: Leg,
    /// Peers and the epochs whose barrier acks are awaited.
    awaiting: Vec<(NodeId, Epoch)>,
    remote_done: bool,
}

impl ClientFlush {
    /// The disk has failed: what it has done counts for nothing.
    pub(super) fn forget_local_leg(&mut self) {
        if self.local == Leg::Done {
            self.local = Leg::Failed;
        }
    }
}

impl Engine {
    /// Durable here, and with B and C on every peer that replicates.
    pub(super) fn client_flush(&mut self, id: RequestId) {
        let key = self.key();
        let mut awaiting = Vec::new();
        if self.effective_protocol() == Protocol::A {
            self.close_epoch_if_begun(false);
        } else {
            self.close_epoch_if_begun(true);
            for peer in self.peer_ids() {
                awaiting.extend(self.barrier_to_await(peer).map(|epoch| (peer, epoch)));
            }
        }
        if seeded!(self, FlushIgnoresPeer) {
            awaiting.clear();
        }
        let local = if self.takes_writes() {
            self.start_disk_op(Device::Data, DiskOpKind::Flush, DiskWork::ClientFlush { key });
            Leg::Pending
        } else {
            Leg::None
        };
        let remote_done = self.peers.iter().any(|p| p.has_good_data() && p.all_durable);
        self.flushes.insert(key, ClientFlush { id, local, awaiting, remote_done });
        self.try_complete_flush(key);
    }

    pub(super) fn client_flush_done(&mut self, key: u64, ok: bool) {
        let Some(flush) = self.flushes.get_mut(&key) else { return };
        flush.local = if ok { Leg::Done } else { Leg::Failed };
        if !ok && flush.awaiting.is_empty() && !flush.remote_done && self.good_peer().is_some() {
            // Nobody else was asked, since the local disk was to answer for it.
            if let Some(flush) = self.flushes.remove(&key) {
                self.client_flush(flush.id);
            }
            return;
        }
        self.try_complete_flush(key);
    }

    /// What the peer was sent of the epochs that this covers is durable there, or it is gone.
    pub(super) fn flush_leg_ended(&mut self, peer: NodeId, covers: impl Fn(Epoch) -> bool, good: bool) {
        let keys: Vec<u64> = self.flushes.keys().copied().collect();
        for key in keys {
            if let Some(flush) = self.flushes.get_mut(&key) {
                let before = flush.awaiting.len();
                flush.awaiting.retain(|(p, e)| *p != peer || !covers(*e));
                flush.remote_done |= good && flush.awaiting.len() < before;
            }
            self.try_complete_flush(key);
        }
    }

    fn try_complete_flush(&mut self, key: u64) {
        let Some(flush) = self.flushes.get(&key) else { return };
        if flush.local == Leg::Pending || !flush.awaiting.is_empty() {
            return;
        }
        let Some(flush) = self.flushes.remove(&key) else { return };
        if flush.local == Leg::Done && self.has_good_disk() || flush.remote_done {
            // No write belongs to epoch 0: a flush closes none.
            self.complete_or_hold(Held {
                key,
                id: flush.id,
                request: Request::Flush,
                epoch: Epoch(0),
                remote_done: flush.remote_done,
            });
        } else {
            self.put_back_or_fail(key, flush.id, Request::Flush);
        }
    }
}
