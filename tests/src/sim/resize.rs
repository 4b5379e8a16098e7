//! Disks that grow, and volumes that grow with them.

use tandem_core::Engine;
use tandem_core::io::{Input, Measured};
use tandem_core::metadata::{self, LastPlace, LoadError, Metadata, Placement};
use tandem_core::state::Role;
use tandem_core::units::{ByteRange, NodeId, SECTOR_BYTES};

use super::admin::Step;
use super::disk::{SimDisk, sectors};
use super::errand::Errand;
use super::faults::Kind;
use super::oracle::Violation;
use super::world::{DATA_BYTES, Event, World};

/// What a disk grows by: more than its metadata takes.
const GROWTH_BYTES: u64 = 16 * 4096;
/// What it may grow by in all.
pub(super) const MOST_GROWTH_BYTES: u64 = 2 * GROWTH_BYTES;
/// The largest that a volume becomes.
pub(super) const MOST_BYTES: u64 = DATA_BYTES + MOST_GROWTH_BYTES;

impl SimDisk {
    /// The device becomes larger; what is new holds whatever `token` makes of its sectors.
    pub fn grow(&mut self, bytes: u64, mut token: impl FnMut(usize) -> u64) {
        let old = self.layout.data_bytes + self.layout.grown_bytes;
        self.layout.grown_bytes += bytes;
        for sector in sectors(ByteRange::new(old, bytes)) {
            self.fill(sector, token(sector));
        }
    }

    /// From now on clients may know so many bytes of data.
    pub fn show(&mut self, bytes: u64) {
        self.visible = (bytes / SECTOR_BYTES) as usize;
        self.data_version += 1;
    }

    /// Where the device ends for whoever reads metadata; `None` for its end.
    pub fn end_at(&mut self, bytes: Option<u64>) {
        self.ends_at = bytes;
    }
}

impl World {
    /// Both disks grow, and then the volume.
    pub(super) fn grow_script(&mut self) -> Option<Vec<Step>> {
        let n = self.prng.node();
        let disks = self.nodes[0].disk.layout().grown_bytes < MOST_GROWTH_BYTES && self.prng.chance(2, 3);
        let unused = self.size_bytes < DATA_BYTES + self.nodes[0].disk.layout().grown_bytes;
        if !disks && !unused {
            return None;
        }
        let pause = Step::Pause(self.prng.below(5_000));
        let alone = self.prng.chance(1, 3);
        let resize = Step::Do(n, Errand::Resize { assume_peer_has_space: alone });
        let first = if disks { vec![Step::GrowDisks, pause] } else { Vec::new() };
        Some([first, vec![resize]].concat())
    }

    /// The administrator has given both nodes larger disks.
    pub(super) fn grow_disks(&mut self) {
        for n in 0..2 {
            let diverged = self.plan.diverged;
            let prng = &mut self.prng;
            let whatever = |sector: usize| match diverged && prng.chance(1, 2) {
                true => (0x4000 * (n as u64 + 1)) | sector as u64,
                false => 0,
            };
            self.nodes[n].disk.grow(GROWTH_BYTES, whatever);
        }
        self.trace(None, "disks grow", || format!("{GROWTH_BYTES} bytes"));
    }

    /// The engine wants to know how large its disk is.
    pub(super) fn asked_to_measure(&mut self, n: usize) {
        let delay = self.prng.below(500);
        let incarnation = self.nodes[n].incarnation;
        self.at(delay, Event::Measured { node: n, incarnation });
    }

    /// Tells an engine how large its disk is. If metadata moves, it may be there from now on.
    pub(super) fn tell_size(&mut self, n: usize) -> Result<(), Violation> {
        if !self.nodes[n].disk_in_use {
            return Ok(());
        }
        let layout = self.nodes[n].disk.layout();
        let (backing_bytes, meta_bytes) = (layout.backing_bytes(), layout.meta_device_bytes());
        if let Some(last) = self.nodes[n].last_place.as_mut()
            && !last.ends.contains(&backing_bytes)
        {
            last.ends.push(backing_bytes);
        }
        let measured = Measured { backing_bytes, meta_bytes, limit_bytes: None };
        self.feed(n, Input::DiskMeasured(Ok(measured)))
    }

    /// The metadata of a disk that is taken into use.
    pub(super) fn open_metadata(&mut self, n: usize) -> Result<Metadata, LoadError> {
        let (placement, node) = (self.placement(), NodeId(n as u8));
        let last = self.nodes[n].last_place.clone();
        let disk = &mut self.nodes[n].disk;
        let bytes = match placement {
            Placement::Internal => metadata::bring_to_end(disk, last.as_ref(), node)?,
            Placement::External => disk.layout().backing_bytes(),
        };
        let loaded =
            self.look_at_metadata(n, |disk, placement, _| metadata::load(disk, placement, bytes, node))?;
        let device_id = loaded.superblock.device_id;
        self.nodes[n].last_place = Some(LastPlace { device_id, ends: vec![bytes] });
        Ok(loaded)
    }

    /// Looks at the metadata of a disk, wherever it lies; `look` gets the size of the device that goes with it.
    pub(super) fn look_at_metadata<T>(
        &mut self,
        n: usize,
        look: impl FnOnce(&mut SimDisk, Placement, u64) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let (placement, last) = (self.placement(), self.nodes[n].last_place.clone());
        let disk = &mut self.nodes[n].disk;
        let bytes = match placement {
            Placement::Internal => metadata::bytes_until_metadata_ends(disk, last.as_ref())?,
            Placement::External => disk.layout().backing_bytes(),
        };
        disk.end_at((placement == Placement::Internal).then_some(bytes));
        let found = look(disk, placement, bytes);
        disk.end_at(None);
        found
    }

    /// What the engines show to clients only grows.
    pub(super) fn check_size(&mut self, n: usize) -> Result<(), Violation> {
        let (Some(engine), Some(Role::Primary)) = (&self.nodes[n].engine, self.role(n)) else {
            return Ok(());
        };
        let shown = engine.shown_bytes();
        if shown < self.size_bytes && !self.split {
            let text = format!(
                "clients of node {n} saw {} bytes, and see {shown}: {}",
                self.size_bytes,
                self.describe()
            );
            return Err(Violation::new("size", text));
        }
        if shown > self.size_bytes {
            self.counts.note(Kind::Grown);
            self.trace(Some(n), "shows", || format!("{shown} bytes"));
            self.size_bytes = shown;
            self.nodes.iter_mut().for_each(|node| node.disk.show(shown));
            self.oracle.grown([&self.nodes[n].disk, &self.nodes[1 - n].disk]);
            let equal = self.nodes[0].disk.tokens() == self.nodes[1].disk.tokens();
            let other_knows = self.nodes[1 - n].engine.as_ref().is_some_and(|e| e.size_bytes() == shown);
            if !equal || !other_knows {
                // Nobody may take the other for a copy of it until it is.
                self.oracle.left_behind(1 - n);
            }
        }
        Ok(())
    }

    /// The node's volume has grown, and its clients do not know yet: what is marked there counts for nobody.
    pub(super) fn hides_size(&self, n: usize) -> bool {
        self.nodes[n].engine.as_ref().is_some_and(|e| e.shown_bytes() != e.size_bytes())
    }

    /// Both nodes show the size that clients know.
    pub(super) fn check_sizes_at_rest(&self) -> Result<(), Violation> {
        let sizes = [0, 1].map(|n| self.nodes[n].engine.as_ref().map(Engine::shown_bytes));
        if sizes == [Some(self.size_bytes); 2] {
            return Ok(());
        }
        Err(Violation::new(
            "size",
            format!("at rest: clients saw {} bytes, the nodes show {sizes:?}", self.size_bytes),
        ))
    }
}
