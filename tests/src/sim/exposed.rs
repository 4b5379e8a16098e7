//! A Primary that works through its peer's copy: as long as that has all that was completed, for good, the Primary goes on with it,
//! whatever becomes of the connection and of that disk. (That it goes on with nothing less is K7.)

use tandem_core::config::{Protocol, WriteOrdering};
use tandem_core::state::{DiskState, Role};

use super::observe::sees_good_peer;
use super::oracle::Violation;
use super::world::World;

/// The copy that a Primary without one of its own works through, or has worked through last.
#[derive(Debug)]
pub(super) struct Reliance {
    primary: usize,
    /// Of both nodes: whoever lives anew remembers nothing.
    incarnations: [u32; 2],
    /// What was completed may have been lost with the disk's cache.
    lost: bool,
}

impl World {
    /// Whether a node works through the other's copy.
    pub(super) fn follow_reliance(&mut self, n: usize, saw_good_peer: bool) {
        let Some(status) = self.nodes[n].status.as_ref() else { return };
        let lacks_copy = status.role == Role::Primary && status.disk < DiskState::Consistent;
        let through_peer = lacks_copy && sees_good_peer(&status.peers[0]);
        let relied = self.reliance.as_ref().is_some_and(|reliance| reliance.primary == n);
        if !lacks_copy && (relied || status.role == Role::Primary) {
            self.reliance = None;
        } else if through_peer && !(relied && saw_good_peer) {
            // What it sees may be past.
            let peer = self.nodes[1 - n].status.as_ref();
            let true_of_peer = peer.is_some_and(|status| status.disk == DiskState::UpToDate)
                && (0..2).all(|n| self.link.open_end(n).is_some());
            let incarnations = self.incarnations();
            self.reliance = true_of_peer.then_some(Reliance { primary: n, incarnations, lost: false });
        }
    }

    fn incarnations(&self) -> [u32; 2] {
        [0, 1].map(|n| self.nodes[n].incarnation)
    }

    /// The node's disk is about to fail an operation.
    pub(super) fn note_cache(&mut self, n: usize) {
        self.nodes[n].cache_was_empty = Some(self.nodes[n].disk.cache_is_empty());
    }

    /// The node has given its disk up.
    pub(super) fn note_lost_copy(&mut self, n: usize) {
        let kept = self.nodes[n].cache_was_empty.unwrap_or_else(|| self.nodes[n].disk.cache_is_empty());
        if let Some(reliance) = self.reliance.as_mut().filter(|reliance| reliance.primary != n) {
            reliance.lost |= !kept;
        }
    }

    /// A Primary has refused its peer for the data that it has. Nobody can tell what a disk holds that is not flushed, and of which
    /// only a part is; nor what was on its way with less than protocol C when the Primary lost its own.
    pub(super) fn check_refused_copy(&self) -> Result<(), Violation> {
        let Some(reliance) = self.reliance.as_ref() else { return Ok(()) };
        let parts = self.plan.two_volumes && self.plan.internal_metadata;
        let told = self.plan.write_ordering == WriteOrdering::Flush && !parts && self.protocol == Protocol::C;
        let same = reliance.incarnations == self.incarnations();
        if !told || !same || reliance.lost || self.split {
            return Ok(());
        }
        let text = format!(
            "node {} refuses its peer, which has lost nothing of what clients have seen: {}",
            reliance.primary,
            self.describe()
        );
        Err(Violation::new("exposed", text))
    }
}
