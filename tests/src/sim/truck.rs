//! Copies that do not travel over the network: the initial sync is skipped because both disks are known to be equal, and a
//! copy of one node's disk, made in pieces while clients write, is carried to the other node.

use tandem_core::config::Fencing;
use tandem_core::io::{Device, DiskOp, DiskOpKind};
use tandem_core::metadata;
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::NodeId;

use super::disk::SECTOR;
use super::errand::Errand;
use super::faults::Kind;
use super::link::Micros;
use super::oracle::Violation;
use super::script::Step;
use super::world::World;

const PIECES: usize = 4;
/// Longest pause between two pieces.
const LONGEST_STOP: Micros = 4_000;

/// What is copied at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// This piece of the data.
    Data(usize),
    /// All metadata.
    Metadata,
}

impl World {
    // Skipping the initial sync.

    /// Both disks are fresh, connected and equal.
    pub(super) fn may_skip_sync(&mut self, n: usize) -> bool {
        let ready = (0..2).all(|n| {
            self.nodes[n].errand.is_none()
                && self.nodes[n].status.as_ref().is_some_and(|s| {
                    s.disk == DiskState::Inconsistent && s.peers[0].connection == ConnectionState::Connected
                })
        });
        !self.plan.diverged && ready && self.nodes[n].engine.is_some() && self.prng.chance(1, 3)
    }

    pub(super) fn skip_sync(&mut self, n: usize) -> Result<(), Violation> {
        self.skips_sync = true;
        self.send_errand(n, Errand::NewCurrentUuid { clear_bitmap: true })
    }

    // The truck.

    /// A copy of this node's disk becomes the other's; or the copy is never made.
    pub(super) fn truck_script(&mut self, from: usize) -> Option<Vec<Step>> {
        let to = 1 - from;
        let good = self.nodes[from].status.as_ref().is_some_and(|s| s.disk == DiskState::UpToDate);
        if !good
            || !self.uses_all_of_its_disk(from)
            || self.oracle.is_stale(from)
            || self.role(to) == Some(Role::Primary)
            || self.plan.split_brain
            || self.policies.iter().any(|policy| policy.fencing != Fencing::DontCare)
        {
            return None;
        }
        let begin = |clear_bitmap| Step::Do(from, Errand::NewCurrentUuid { clear_bitmap });
        let clear = self.prng.chance(3, 4);
        let mut steps = vec![Step::WantNet(from, false)];
        let alone = |s: &tandem_core::status::Status| s.peers[0].connection == ConnectionState::StandAlone;
        if !self.nodes[from].status.as_ref().is_some_and(alone) {
            steps.push(Step::Do(from, Errand::Disconnect));
        }
        let pause = Step::Pause(self.prng.below(20_000));
        if self.prng.chance(1, 2) {
            steps.extend([pause, begin(clear), pause, Step::WantNet(from, true)]);
            return Some(steps);
        }
        steps.extend([begin(clear), Step::Load(to)]);
        let mut parts: Vec<Part> = (0..PIECES).map(Part::Data).chain([Part::Metadata]).collect();
        while !parts.is_empty() {
            let part = parts.swap_remove(self.prng.below(parts.len() as u64) as usize);
            steps.extend([Step::Carry { from, part }, Step::Pause(self.prng.below(LONGEST_STOP))]);
        }
        steps.extend([begin(false), Step::Unload(to), pause, Step::WantNet(from, true)]);
        Some(steps)
    }

    pub(super) fn load(&mut self, n: usize) {
        if self.nodes[n].engine.is_some() {
            let script = self.script.take();
            self.die(n, false);
            self.script = script;
        }
        self.nodes[n].on_truck = true;
        // A disk as large as the one that is copied.
        let grown_bytes = self.nodes[1 - n].disk.layout().grown_bytes;
        let node = &mut self.nodes[n];
        if node.disk.layout.grown_bytes != grown_bytes {
            node.disk.layout.grown_bytes = grown_bytes;
            node.disk = node.disk.successor();
        }
        (node.last_place, node.bits) = (None, None);
    }

    /// Its metadata lies where whoever gets a copy of the disk looks for it.
    fn uses_all_of_its_disk(&mut self, n: usize) -> bool {
        let backing_bytes = self.nodes[n].disk.layout().backing_bytes();
        self.look_at_metadata(n, |_, _, bytes| Ok(bytes)).is_ok_and(|bytes| bytes == backing_bytes)
    }

    /// While disks are copied, some writes take so long that a copy overtakes them.
    pub(super) fn straggling(&mut self, op: &DiskOp) -> Micros {
        let copying = self.script.as_ref().is_some_and(|s| s.is_of(Kind::Truck));
        let write = op.device == Device::Data && matches!(op.kind, DiskOpKind::Write { .. });
        if copying && write && self.prng.chance(1, 4) { 20 } else { 1 }
    }

    pub(super) fn carry(&mut self, from: usize, part: Part) {
        let [a, b] = &mut self.nodes;
        let (source, target) = if from == 0 { (&*a, b) } else { (&*b, a) };
        match part {
            Part::Metadata => target.disk.copy_metadata(&source.disk),
            Part::Data(piece) => {
                let layout = source.disk.layout();
                let length = (layout.data_bytes + layout.grown_bytes) as usize / SECTOR / PIECES;
                target.disk.copy_data(&source.disk, piece * length..(piece + 1) * length);
            }
        }
        target.bits = None;
        self.oracle.disk_replaced(1 - from);
        self.trace(Some(1 - from), "carried", || format!("{part:?}"));
    }

    pub(super) fn unload(&mut self, n: usize) -> Result<(), Violation> {
        let placement = self.placement();
        self.nodes[n].on_truck = false;
        metadata::adopt(&mut self.nodes[n].disk, placement, NodeId(n as u8))
            .map_err(|e| Violation::new("truck", format!("node {n} does not take the copy: {e}")))
    }

    /// A copy that is not complete is no use: a new disk takes its place.
    pub(super) fn lose_load(&mut self) {
        for n in 0..2 {
            if std::mem::take(&mut self.nodes[n].on_truck) {
                self.replace_disk(n);
            }
        }
    }
}
