//! What the engines say of themselves: whether they may say so, and what follows from it.

use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::{PeerStatus, Status};

use super::admin::ORPHANED;
use super::errand::Errand;
use super::faults::Kind;
use super::node::Node;
use super::oracle::Violation;
use super::world::World;

/// What a node says of itself, as far as anything follows from it.
#[derive(Clone, Copy)]
struct Said {
    role: Role,
    disk: DiskState,
    generation: u64,
    connection: ConnectionState,
    replication: ReplicationState,
    peer_disk: DiskState,
    out_of_sync_bytes: u64,
    sees_good_peer: bool,
    stands_alone: bool,
}

impl Said {
    fn of(status: &Status) -> Said {
        let peer = &status.peers[0];
        Said {
            role: status.role,
            disk: status.disk,
            generation: status.generations.current,
            connection: peer.connection,
            replication: peer.replication,
            peer_disk: peer.disk,
            out_of_sync_bytes: peer.out_of_sync_bytes,
            sees_good_peer: sees_good_peer(peer),
            stands_alone: peer.standalone_reason.is_some(),
        }
    }

    fn is_connected(&self) -> bool {
        self.connection == ConnectionState::Connected
    }

    /// All that the node lacked has come.
    fn is_finishing(&self) -> bool {
        self.disk == DiskState::Inconsistent && self.out_of_sync_bytes == 0
    }
}

impl World {
    /// Looks at what has changed.
    pub(super) fn observe(&mut self, n: usize, before: Option<Status>) -> Result<(), Violation> {
        let Some(status) = self.nodes[n].status.as_ref() else { return Ok(()) };
        let said = Said::of(status);
        self.follow_data(n, before.as_ref());
        let before = before.as_ref().map(Said::of);
        self.check_parting(n, before)?;
        self.follow_reliance(n, before.is_some_and(|b| b.sees_good_peer));
        self.check_peer_found_again(n, said, before)?;
        self.note_skipped_sync(n, said);
        self.follow_primary(n, said, before);
        self.follow_disk(n, said, before)?;
        let changed = before.is_some_and(|b| b.replication != said.replication || b.disk != said.disk);
        if changed && said.replication == ReplicationState::Ahead {
            self.counts.note(Kind::PullAhead);
        }
        let received_all = self.follow_mixture(n, said, changed)?;
        self.follow_sync(n, said.replication);
        if changed {
            self.trouble_for_source(n);
            self.ambush(n);
        }
        if received_all {
            self.ambush(1 - n);
        }
        Ok(())
    }

    /// K8: nobody stands alone without a reason.
    fn check_parting(&mut self, n: usize, before: Option<Said>) -> Result<(), Violation> {
        let status = self.nodes[n].status.as_ref();
        let Some(reason) = status.and_then(|s| s.peers[0].standalone_reason.as_ref()) else { return Ok(()) };
        if reason.contains(ORPHANED) {
            if before.is_some_and(|b| !b.stands_alone) {
                self.counts.note(Kind::Orphaned);
                return self.check_refused_copy();
            }
        } else if !self.split && !self.nodes[n].awaits_connect {
            let text =
                format!("node {n} goes StandAlone although no data has split: {reason}; {}", self.describe());
            return Err(Violation::new("K8", text));
        }
        Ok(())
    }

    /// K7: a Primary without a disk goes on only with a peer that has all that its clients were told is written.
    fn check_peer_found_again(
        &mut self,
        n: usize,
        said: Said,
        before: Option<Said>,
    ) -> Result<(), Violation> {
        let found_again = before.is_some_and(|b| b.disk < DiskState::Consistent && !b.is_connected());
        let works_through_peer =
            said.role == Role::Primary && said.disk < DiskState::Consistent && said.sees_good_peer;
        if found_again
            && works_through_peer
            && !self.split
            && let Some(w) = self.oracle.lost_write(&self.nodes[1 - n].disk)
        {
            let text =
                format!("node {n} has no disk and goes on with a peer that lacks w{w}; {}", self.describe());
            return Err(Violation::new("K7", text));
        }
        Ok(())
    }

    /// What two fresh copies hold counts as equal, as somebody has declared.
    fn note_skipped_sync(&mut self, n: usize, said: Said) {
        let declared = self.skips_sync && said.disk == DiskState::UpToDate && !self.oracle.has_begun();
        if declared && !self.nodes[n].errand.is_some_and(|e| matches!(e.1, Errand::Primary { .. })) {
            self.counts.note(Kind::SkippedSync);
            self.oracle.begin_together(&self.nodes[n].disk);
        }
    }

    /// Whose data is old from now on, because the other node goes on without it.
    fn follow_primary(&mut self, n: usize, said: Said, before: Option<Said>) {
        let new_generation = before.is_some_and(|b| b.generation != said.generation);
        let primary = said.role == Role::Primary;
        match self.holders(n) {
            // It goes its own way, or will: the other's data is old from now on.
            [true, false] if n == 0 && (primary || new_generation) => self.oracle.left_behind(1),
            [false, true] if n == 1 && (primary || new_generation) => self.oracle.left_behind(0),
            // It works through its peer.
            [false, true] | [true, false] if primary => self.oracle.left_behind(n),
            _ => {}
        }
        if primary && !said.is_connected() {
            self.oracle.parted(1 - n);
        }
        if primary && said.is_connected() && said.peer_disk == DiskState::Diskless {
            self.oracle.could_not_note(1 - n);
        }
    }

    /// What becomes of the copy here; K6: one that was left behind is not good before it was brought up to date.
    fn follow_disk(&mut self, n: usize, said: Said, before: Option<Said>) -> Result<(), Violation> {
        let disk = said.disk;
        let is_target = said.replication == ReplicationState::WFBitMapT || said.replication.is_target();
        let was_better = before.is_some_and(|b| b.disk > DiskState::Inconsistent);
        if was_better && disk == DiskState::Inconsistent && !is_target {
            self.gave_its_copy_up(n)?;
        }
        // With fencing, one that has lost its source at that moment is not sure of being the newest.
        if before.is_some_and(|b| b.disk == DiskState::Inconsistent) && disk >= DiskState::Consistent {
            self.oracle.target_finished(n);
        }
        // A disk that is being detached, or is slow and given up, notes the end of its resync before it is gone, and nobody
        // sees it UpToDate. Nor where it becomes a target again in the same breath.
        let gone = matches!(disk, DiskState::Diskless | DiskState::Failed);
        if before.is_some_and(|b| b.is_finishing()) && (gone || disk > DiskState::Inconsistent) {
            self.oracle.caught_up(n);
        }
        if self.oracle.is_behind(n)
            && disk > DiskState::Outdated
            && disk != DiskState::Negotiating
            && !self.split
        {
            let text =
                format!("node {n} calls its data {disk} although its peer pulled ahead; {}", self.describe());
            return Err(Violation::new("K6", text));
        }
        Ok(())
    }

    fn gave_its_copy_up(&mut self, n: usize) -> Result<(), Violation> {
        self.check_repair(n)?;
        self.oracle.invalidated(n);
        if self.prng.chance(1, 3) {
            self.kill_soon(n, 1_500);
        }
        Ok(())
    }

    /// K6: the target of a resync is a mixture until all has come, which this says.
    fn follow_mixture(&mut self, n: usize, said: Said, changed: bool) -> Result<bool, Violation> {
        let complete = said.out_of_sync_bytes == 0 && said.disk >= DiskState::Inconsistent;
        // A disk that is being detached while a resync has nothing to send stays whole.
        // What a Primary has marked since all has come is its own.
        let receiving = changed && said.replication.is_target() && said.disk >= DiskState::Inconsistent;
        let received_all = self.nodes[n].mixed && complete;
        self.nodes[n].mixed = (self.nodes[n].mixed || receiving) && !complete;
        if self.nodes[n].mixed && said.disk > DiskState::Inconsistent && !self.split {
            let text = format!(
                "node {n} calls its data {} although a resync has not ended; {}",
                said.disk,
                self.describe()
            );
            return Err(Violation::new("K6", text));
        }
        Ok(received_all)
    }

    /// Who sends whom what it lacks, and when that is over.
    fn follow_sync(&mut self, n: usize, replication: ReplicationState) {
        let source = match replication {
            ReplicationState::SyncSource | ReplicationState::PausedSyncS | ReplicationState::WFBitMapS => {
                Some(n)
            }
            ReplicationState::SyncTarget | ReplicationState::PausedSyncT | ReplicationState::WFBitMapT => {
                Some(1 - n)
            }
            ReplicationState::Off
            | ReplicationState::Established
            | ReplicationState::Ahead
            | ReplicationState::Behind
            | ReplicationState::VerifyS
            | ReplicationState::VerifyT => None,
        };
        if let Some(source) = source
            && self.sync_source != Some(source)
        {
            self.sync_source = Some(source);
            self.oracle.resync_began(1 - source);
        }
        // Both may be so before the first promotion is answered: its node died, and the disk knows.
        let in_sync = self.oracle.has_begun() && (0..2).all(|n| self.says_in_sync(n));
        if in_sync && !self.in_sync && !self.split {
            self.counts.syncs += 1;
            self.met = true;
            self.lone_promotions = 0;
            self.begun_alone = None;
            self.forced = None;
            // A repair that was refused leaves marked what was found.
            let marked = |n: &Node| n.status.as_ref().is_some_and(|s| s.peers[0].out_of_sync_bytes > 0);
            if !self.nodes.iter().any(marked) {
                self.nothing_is_open();
            }
            self.trace(None, "in sync", || format!("source {:?}", self.sync_source));
            self.oracle.in_sync(self.sync_source.take());
        }
        self.in_sync = in_sync;
        if in_sync {
            self.rely_on_policies();
        }
    }

    /// Which nodes' copies are UpToDate, as node `n` sees it.
    pub(super) fn holders(&self, n: usize) -> [bool; 2] {
        let mut holders = [false; 2];
        if let Some(status) = &self.nodes[n].status {
            holders[n] = status.disk == DiskState::UpToDate;
            holders[1 - n] = sees_good_peer(&status.peers[0]);
        }
        holders
    }

    fn says_in_sync(&self, n: usize) -> bool {
        self.holders(n) == [true; 2]
            && self.nodes[n]
                .status
                .as_ref()
                .map(|s| s.peers[0].replication)
                .is_some_and(|r| r == ReplicationState::Established || r.is_verify())
    }

    /// The node's role; `None` while it is dead.
    pub(super) fn role(&self, n: usize) -> Option<Role> {
        self.nodes[n].status.as_ref().map(|s| s.role)
    }

    /// All that the node lacked has come: it writes down that it is complete.
    pub(super) fn is_finishing(&self, n: usize) -> bool {
        self.nodes[n].status.as_ref().is_some_and(|status| Said::of(status).is_finishing())
    }
}

/// True if the peer is there and its data is good.
pub(super) fn sees_good_peer(peer: &PeerStatus) -> bool {
    peer.connection == ConnectionState::Connected
        && peer.replication != ReplicationState::Off
        && peer.disk == DiskState::UpToDate
}
