//! What the engines say of themselves, and the checks that look at everything after every event.

use tandem_core::metadata;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::{PeerStatus, Status};
use tandem_core::units::{BLOCK_BYTES, ByteRange, NodeId};

use super::admin::ORPHANED;
use super::disk::{SimDisk, sectors};
use super::errand::Errand;
use super::faults::Kind;
use super::link::End;
use super::network::peer_of;
use super::node::Node;
use super::oracle::{Violation, undamaged};
use super::resize::MOST_BYTES;
use super::world::{Event, World};

/// Changes of a disk between two looks at whether it holds a causal cut: the look takes as long as ten events.
const CUT_EVERY: u64 = 8;

/// A set of sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mask([u64; (MOST_BYTES / 512 / 64) as usize]);

impl Mask {
    fn add(&mut self, range: ByteRange) {
        sectors(range).for_each(|sector| self.add_sector(sector));
    }

    fn add_sector(&mut self, sector: usize) {
        self.0[sector / 64] |= 1 << (sector % 64);
    }

    /// Everything.
    pub(super) fn all() -> Self {
        Mask([!0; (MOST_BYTES / 512 / 64) as usize])
    }

    fn union(mut self, other: Mask) -> Mask {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
        self
    }

    /// These ranges.
    pub(super) fn of_ranges<'a>(ranges: impl IntoIterator<Item = &'a ByteRange>) -> Self {
        let mut mask = Mask::default();
        ranges.into_iter().for_each(|range| mask.add(*range));
        mask
    }

    /// The first sector that is in `self` and not in `other`.
    pub(super) fn first_outside(&self, other: &Mask) -> Option<usize> {
        let words = self.0.iter().zip(other.0).map(|(a, b)| a & !b).enumerate();
        words.filter(|(_, w)| *w != 0).map(|(i, w)| i * 64 + w.trailing_zeros() as usize).next()
    }

    pub(super) fn of_differences(a: &SimDisk, b: &SimDisk) -> Option<Mask> {
        let (a, b) = (a.tokens(), b.tokens());
        if a == b {
            return None;
        }
        let differ = |a: &u64, b: &u64| undamaged(*a) != undamaged(*b);
        let mut mask = Mask::default();
        for (i, (a, b)) in a.chunks_exact(64).zip(b.chunks_exact(64)).enumerate() {
            mask.0[i] = a
                .iter()
                .zip(b)
                .enumerate()
                .fold(0, |word, (bit, (a, b))| word | u64::from(differ(a, b)) << bit);
        }
        Some(mask).filter(|m| *m != Mask::default())
    }
}

impl World {
    // What the engines say of themselves.

    /// Looks at what has changed.
    pub(super) fn observe(&mut self, n: usize, before: Option<Status>) -> Result<(), Violation> {
        let Some(status) = self.nodes[n].status.as_ref() else { return Ok(()) };
        let peer = &status.peers[0];
        if let Some(reason) = &peer.standalone_reason
            && !self.split
            && !self.nodes[n].resync_refused
            && !reason.contains(ORPHANED)
        {
            let text =
                format!("node {n} goes StandAlone although no data has split: {reason}; {}", self.describe());
            return Err(Violation::new("K8", text));
        }
        if peer.standalone_reason.as_ref().is_some_and(|r| r.contains(ORPHANED))
            && before.as_ref().is_some_and(|b| b.peers[0].standalone_reason.is_none())
        {
            self.counts.note(Kind::Orphaned);
        }
        let works_through_peer = |s: &Status| {
            s.role == Role::Primary && s.disk < DiskState::Consistent && sees_good_peer(&s.peers[0])
        };
        let found_again = before.as_ref().is_some_and(|b| {
            b.disk < DiskState::Consistent && b.peers[0].connection != ConnectionState::Connected
        });
        if found_again
            && works_through_peer(status)
            && !self.split
            && let Some(w) = self.oracle.lost_write(&self.nodes[1 - n].disk)
        {
            let text =
                format!("node {n} has no disk and goes on with a peer that lacks w{w}; {}", self.describe());
            return Err(Violation::new("K7", text));
        }
        let declared = self.skips_sync && status.disk == DiskState::UpToDate && !self.oracle.has_begun();
        if declared && !self.nodes[n].errand.is_some_and(|e| matches!(e.1, Errand::Primary { .. })) {
            self.counts.note(Kind::SkippedSync);
            self.oracle.begin_together(&self.nodes[n].disk);
        }
        let replication = peer.replication;
        let new_state =
            before.as_ref().is_some_and(|b| b.peers[0].replication != replication || b.disk != status.disk);
        let before_disk = before.as_ref().map(|b| b.disk);
        let was_finishing = before.as_ref().is_some_and(is_finishing);
        let was_inconsistent = before.as_ref().is_some_and(|b| b.disk == DiskState::Inconsistent);
        let new_generation = before.is_some_and(|b| b.generations.current != status.generations.current);
        let primary = status.role == Role::Primary;
        match self.holders(n) {
            // It goes its own way, or will: the other's data is old from now on.
            [true, false] if n == 0 && (primary || new_generation) => self.oracle.left_behind(1),
            [false, true] if n == 1 && (primary || new_generation) => self.oracle.left_behind(0),
            // It works through its peer.
            [false, true] | [true, false] if primary => self.oracle.left_behind(n),
            _ => {}
        }
        if primary && peer.connection != ConnectionState::Connected {
            self.oracle.parted(1 - n);
        }
        if primary && peer.connection == ConnectionState::Connected && peer.disk == DiskState::Diskless {
            self.oracle.could_not_note(1 - n);
        }
        let gave_up = before_disk.is_some_and(|b| b > DiskState::Inconsistent)
            && status.disk == DiskState::Inconsistent
            && !(replication == ReplicationState::WFBitMapT || replication.is_target());
        // With fencing, one that has lost its source at that moment is not sure of being the newest.
        let finished = status.disk >= DiskState::Consistent && was_inconsistent;
        let disk = status.disk;
        let complete = peer.out_of_sync_bytes == 0 && disk >= DiskState::Inconsistent;
        // A disk that is being detached while a resync has nothing to send stays whole.
        // What a Primary has marked since all has come is its own.
        let receiving = new_state && replication.is_target() && disk >= DiskState::Inconsistent;
        if gave_up {
            self.check_repair(n)?;
            self.oracle.invalidated(n);
            if self.healing.is_none() && self.prng.chance(1, 3) {
                let kind = if self.prng.chance(1, 2) { Kind::ProcessCrash } else { Kind::PowerLoss };
                let delay = self.prng.below(1_500);
                self.at(delay, Event::Strike { kind, node: n });
            }
        }
        if finished {
            self.oracle.target_finished(n);
        }
        // A disk that is being detached, or is slow and given up, notes the end of its resync before it is gone, and nobody
        // sees it UpToDate. Nor where it becomes a target again in the same breath.
        let gone = matches!(disk, DiskState::Diskless | DiskState::Failed);
        if was_finishing && (gone || disk > DiskState::Inconsistent) {
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
        if new_state && replication == ReplicationState::Ahead {
            self.counts.note(Kind::PullAhead);
        }
        let received_all = self.nodes[n].mixed && complete;
        self.nodes[n].mixed = (self.nodes[n].mixed || receiving) && !complete;
        if self.nodes[n].mixed && disk > DiskState::Inconsistent && !self.split {
            let text = format!(
                "node {n} calls its data {disk} although a resync has not ended; {}",
                self.describe()
            );
            return Err(Violation::new("K6", text));
        }
        self.follow_sync(n, replication);
        if new_state {
            self.trouble_for_source(n);
            self.ambush(n);
        }
        if received_all {
            self.ambush(1 - n);
        }
        Ok(())
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

    // What must hold.

    /// K5 and the standing half of K6.
    pub(super) fn check(&mut self) -> Result<(), Violation> {
        self.check_fencing()?;
        if !self.met || self.split {
            return Ok(());
        }
        for n in 0..2 {
            let Some(status) = &self.nodes[n].status else { continue };
            let peer = &status.peers[0];
            let agreed = self.holders(n) == [true; 2] && peer.replication == ReplicationState::Established;
            // But for what a verify has found and nobody has repaired.
            if agreed && !self.hides_size(n) && peer.out_of_sync_bytes > self.open_bytes() {
                let text =
                    format!("both UpToDate and Established with blocks out of sync: {}", self.describe());
                return Err(Violation::new("K6", text));
            }
        }
        self.check_cut()?;
        let mut differences = self.differences().unwrap_or_default();
        self.known_damage().for_each(|sector| differences.add_sector(sector));
        if differences == Mask::default() {
            return Ok(());
        }
        let known = [self.known_to(0), self.known_to(1)];
        for (n, known) in known.iter().enumerate() {
            if self.must_know_alone(n)
                && let Some(sector) = differences.first_outside(known)
            {
                let text = format!(
                    "sector {sector} differs, and its source, node {n}, does not know: {}",
                    self.describe()
                );
                return Err(Violation::new("K5", text));
            }
        }
        let known = known[0].union(known[1]);
        let on_disk = self.on_disk(0).union(self.on_disk(1));
        if let Some(sector) = differences.first_outside(&on_disk) {
            let text = format!("sector {sector} differs, and neither disk says so: {}", self.describe());
            return Err(Violation::new("K5", text));
        }
        let Some(sector) = differences.first_outside(&known) else { return Ok(()) };
        let found = [0, 1].map(|n| self.nodes[n].disk.tokens()[sector]);
        let text = format!(
            "sector {sector} (block {}) differs, {:#x} and {:#x}, and nobody knows: {}",
            sector / 8,
            found[0],
            found[1],
            self.describe()
        );
        Err(Violation::new("K5", text))
    }

    /// K3 on the Secondary, after every few of its writes.
    fn check_cut(&mut self) -> Result<(), Violation> {
        let Some(follower) = self.oracle.follower() else { return Ok(()) };
        let node = &mut self.nodes[follower];
        let version = node.disk.data_version();
        if node.mixed || version == node.cut_checked || !version.is_multiple_of(CUT_EVERY) {
            return Ok(());
        }
        node.cut_checked = version;
        self.oracle.check_cut(follower, &node.disk)
    }

    /// The sectors that differ, if any do; looked for again only if a disk has changed.
    fn differences(&mut self) -> Option<Mask> {
        let versions = [0, 1].map(|n| self.nodes[n].disk.data_version());
        if self.differences.0 != versions {
            let mask = Mask::of_differences(&self.nodes[0].disk, &self.nodes[1].disk);
            self.differences = (versions, mask);
        }
        self.differences.1
    }

    /// The source of a resync knows all that its target lacks, unless the target, as the Primary, is written to, or has
    /// lost its disk, and the source has not heard of it.
    fn must_know_alone(&self, n: usize) -> bool {
        self.link.open_end(0).is_some()
            && self.link.open_end(1).is_some()
            && self.role(1 - n) == Some(Role::Secondary)
            && self.nodes[1 - n].status.as_ref().is_some_and(|s| s.disk >= DiskState::Inconsistent)
            && self.nodes[n].status.as_ref().is_some_and(|s| s.peers[0].replication.is_source())
    }

    /// What the node knows may differ.
    fn known_to(&mut self, n: usize) -> Mask {
        let used = self.nodes[n]
            .status
            .as_ref()
            .filter(|s| s.disk >= DiskState::Attaching && s.disk != DiskState::Failed || has_marks(s));
        if let Some(status) = used {
            if status.generations.is_fresh() {
                return Mask::all();
            }
            let mut mask = Mask::default();
            if let Some(engine) = &self.nodes[n].engine {
                engine.may_differ(peer_of(n), |range| {
                    mask.add(ByteRange::new(range.offset, range.end().min(MOST_BYTES) - range.offset));
                });
            }
            return mask;
        }
        self.on_disk(n)
    }

    /// What the node will know if its process dies now: bits, and the extents of its activity log.
    fn on_disk(&mut self, n: usize) -> Mask {
        let version = self.nodes[n].disk.meta_version();
        if let Some((of, mask)) = self.nodes[n].bits
            && of == version
        {
            return mask;
        }
        let mask = self.written_down(n);
        self.nodes[n].bits = Some((version, mask));
        mask
    }

    /// The metadata of a disk says that the data is no mixture.
    pub(super) fn disk_is_consistent(&mut self, n: usize) -> bool {
        let probed = self.look_at_metadata(n, |disk, placement, _| metadata::probe(disk, placement));
        probed.is_ok_and(|s| s.flags.consistent)
    }

    /// All that the node lacked has come: it writes down that it is complete.
    pub(super) fn is_finishing(&self, n: usize) -> bool {
        self.nodes[n].status.as_ref().is_some_and(is_finishing)
    }

    /// What the metadata of a disk says.
    fn written_down(&mut self, n: usize) -> Mask {
        let loaded = self.look_at_metadata(n, |disk, placement, bytes| {
            metadata::load(disk, placement, bytes, NodeId(n as u8))
        });
        // Metadata that cannot be read is found at the next attach.
        let Ok(metadata) = loaded else {
            return Mask::all();
        };
        let sb = &metadata.superblock;
        if sb.generations.is_fresh() {
            return Mask::all();
        }
        let Some(slot) = sb.peers.iter().position(|p| p.node == Some(peer_of(n))) else {
            return Mask::default();
        };
        let mut mask = Mask::default();
        for range in metadata.hot_ranges(metadata::Carelessness::default()) {
            mask.add(ByteRange::new(range.offset, range.end().min(MOST_BYTES) - range.offset));
        }
        for block in 0..MOST_BYTES / BLOCK_BYTES {
            if metadata.bitmaps[slot].is_set(block) {
                mask.add(ByteRange::new(block * BLOCK_BYTES, BLOCK_BYTES));
            }
        }
        mask
    }

    /// K6: faults have stopped, everything has come to rest: both copies are equal, and hold what they must.
    pub(super) fn check_convergence(&mut self) -> Result<(), Violation> {
        let [a, b] = [0, 1].map(|n| self.nodes[n].disk.tokens());
        if let Some(sector) = a.iter().zip(b).position(|(a, b)| a != b) {
            let text = format!("at rest: sector {sector} differs; {}", self.describe());
            return Err(Violation::new("K6", text));
        }
        self.check_sizes_at_rest()?;
        (0..2).try_for_each(|n| self.oracle.promoted(n, n, true, [&self.nodes[0].disk, &self.nodes[1].disk]))
    }

    /// Neither engine thinks that anything may differ.
    pub(super) fn knows_of_no_difference(&self) -> bool {
        (0..2).all(|n| {
            let mut any = false;
            let engine = self.nodes[n].engine.as_ref();
            engine.inspect(|e| e.may_differ(peer_of(n), |_| any = true)).is_some() && !any
        })
    }

    /// No message is under way.
    pub(super) fn link_is_quiet(&self) -> bool {
        self.link.session.as_ref().is_some_and(|s| {
            s.ends == [End::Open; 2] && s.quiet_after(0) < self.now && s.quiet_after(1) < self.now
        })
    }
}

/// True if all that the node lacked has come.
fn is_finishing(status: &Status) -> bool {
    status.disk == DiskState::Inconsistent && status.peers[0].out_of_sync_bytes == 0
}

/// A disk that is being detached is shown as Diskless, and its marks are still in memory: they are written before it is let
/// go. A disk that is gone has none.
fn has_marks(status: &Status) -> bool {
    status.disk == DiskState::Diskless && status.peers[0].out_of_sync_bytes > 0
}

/// True if the peer is there and its data is good.
pub(super) fn sees_good_peer(peer: &PeerStatus) -> bool {
    peer.connection == ConnectionState::Connected
        && peer.replication != ReplicationState::Off
        && peer.disk == DiskState::UpToDate
}
