//! The checks that look at everything after every event.

use tandem_core::metadata;
use tandem_core::state::{DiskState, ReplicationState, Role};
use tandem_core::status::Status;
use tandem_core::units::{BLOCK_BYTES, ByteRange, NodeId};

use super::disk::{SimDisk, sectors};
use super::link::End;
use super::network::peer_of;
use super::oracle::{Violation, undamaged};
use super::resize::MOST_BYTES;
use super::world::World;

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

/// A disk that is being detached is shown as Diskless, and its marks are still in memory: they are written before it is let
/// go. A disk that is gone has none.
fn has_marks(status: &Status) -> bool {
    status.disk == DiskState::Diskless && status.peers[0].out_of_sync_bytes > 0
}
