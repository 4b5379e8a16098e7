//! Disks that grow, and volumes that grow with them.

use bytes::Bytes;
use tandem_core::Engine;
use tandem_core::io::{Device, DiskOp, Input, Measured};
use tandem_core::metadata::{self, LastPlace, LoadError, Metadata, Placement};
use tandem_core::state::{DiskState, Role};
use tandem_core::units::{BLOCK_BYTES, ByteRange, NodeId, SECTOR_BYTES};

use super::disk::{SECTOR, SimDisk, range_of, sectors};
use super::errand::Errand;
use super::faults::Kind;
use super::link::Micros;
use super::node::Node;
use super::oracle::Violation;
use super::script::Step;
use super::world::{DATA_BYTES, Event, World};

/// What a disk grows by: more than its metadata takes. Volumes, if there are two, begin and grow at multiples of it.
pub(super) const GROWTH_BYTES: u64 = 16 * 4096;
/// What each volume's may grow by in all.
pub(super) const MOST_GROWTH_BYTES: u64 = 2 * GROWTH_BYTES;
/// What is put off until both are in sync is not put off for longer at a time.
const LONGEST_PUTTING_OFF: Micros = 10_000;
/// Disk operations of a move of metadata, one behind the other.
const OPERATIONS_OF_A_MOVE: u64 = 9;
/// The largest that the volumes become.
pub(super) const MOST_BYTES: u64 = DATA_BYTES + 2 * MOST_GROWTH_BYTES;

impl SimDisk {
    /// The device becomes larger; what is new holds whatever `token` makes of its sectors.
    pub fn grow(&mut self, bytes: u64, mut token: impl FnMut(usize) -> u64) {
        let old = self.layout.data_bytes + self.layout.grown_bytes;
        self.layout.grown_bytes += bytes;
        self.grown_by_mistake = 0;
        for sector in sectors(ByteRange::new(old, bytes)) {
            self.fill(sector, token(sector));
        }
    }

    /// The device is as large as before it grew by so much.
    fn cut(&mut self, bytes: u64) {
        self.layout.grown_bytes -= bytes;
        self.grown_by_mistake = 0;
        if self.layout.internal {
            // Of metadata that lay there nothing is left.
            let first = ((self.layout.backing_bytes() - self.layout.meta_start()) / SECTOR_BYTES) as usize;
            for sector in first..self.meta.view.len() {
                self.meta.write(sector, Bytes::from_static(&[0xda; SECTOR]), true, self.clock);
            }
            self.meta_version += 1;
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
    /// Their disks are as large, and grow together.
    fn volumes(&self) -> u64 {
        if self.plan.two_volumes { 2 } else { 1 }
    }

    /// What each of two volumes' disks has room for, with so much in all.
    fn rooms(&self, bytes: u64) -> Vec<u64> {
        if self.plan.two_volumes { vec![bytes / 2; 2] } else { Vec::new() }
    }

    fn grown_bytes(&self) -> [u64; 2] {
        [0, 1].map(|n| self.nodes[n].disk.layout().grown_bytes)
    }

    /// Both disks grow, or one, and then the volume.
    pub(super) fn grow_script(&mut self) -> Option<Vec<Step>> {
        let n = self.prng.node();
        if !self.in_sync && self.prng.chance(15, 16) {
            // It would be refused.
            return self.put_off(Kind::Grow);
        }
        if self.nodes.iter().any(|node| node.grows_when_met) {
            return None;
        }
        if self.prng.chance(1, 2)
            && let Some(steps) = self.grow_apart_script(n)
        {
            return Some(steps);
        }
        let (growth_bytes, most) = (self.volumes() * GROWTH_BYTES, self.volumes() * MOST_GROWTH_BYTES);
        let mut wants = [0, 1].map(|n| {
            // Whoever carries a disk attaches it before it grows: its metadata would not be found.
            let is_known = self.nodes[n].last_place.is_some();
            self.grown_bytes()[n] < most && is_known && self.prng.chance(2, 3)
        });
        if !self.size_is_agreed() {
            // Whoever begins alone uses all of its disk.
            wants = [wants[0] && self.grown_bytes() == [self.grown_bytes()[0]; 2]; 2];
        }
        let will_be = [0, 1].map(|n| self.grown_bytes()[n] + if wants[n] { growth_bytes } else { 0 });
        let unused = self.size_bytes < DATA_BYTES + will_be[0].min(will_be[1]);
        if wants == [false; 2] && !unused {
            return None;
        }
        let mut steps = vec![Step::GrowDisks(wants), Step::Pause(self.prng.below(5_000))];
        // The administrator knows what the peer has.
        let assume_peer_has_space = will_be[n] <= will_be[1 - n] && self.prng.chance(1, 3);
        let assume_peer_has_space = assume_peer_has_space && self.peer_has_not_grown_apart(n);
        // What nobody has written to is zeroes on both disks, or different ones.
        let assume_clean = !self.plan.diverged && self.prng.chance(1, 3);
        let (least, most) = (self.size_bytes, DATA_BYTES + will_be[0].min(will_be[1]));
        let several = self.plan.two_volumes;
        let sized = !several && least < most && self.prng.chance(1, 3);
        let blocks = sized.then(|| self.prng.between(least / BLOCK_BYTES, most / BLOCK_BYTES));
        // One of them, or both.
        let volume = several.then(|| self.prng.below(3) as u16).filter(|number| *number < 2);
        steps.push(Step::Do(n, Errand::Resize { assume_peer_has_space, assume_clean, blocks, volume }));
        Some(steps)
    }

    /// A volume grows without the peer, whose disk grows at the last moment.
    fn grow_apart_script(&mut self, n: usize) -> Option<Vec<Step>> {
        let (growth_bytes, most) = (self.volumes() * GROWTH_BYTES, self.volumes() * MOST_GROWTH_BYTES);
        let [here, there] = [n, 1 - n].map(|n| self.grown_bytes()[n]);
        let even = here == there && here + growth_bytes <= most && self.size_bytes == DATA_BYTES + here;
        // Who serves has the data, whatever becomes of the other.
        let serves = self.role(n) == Some(Role::Primary) && self.in_sync;
        if !even || !serves || !self.size_is_agreed() || !self.peer_has_not_grown_apart(n) {
            return None;
        }
        let volume = self.plan.two_volumes.then(|| self.prng.below(3) as u16).filter(|number| *number < 2);
        let resize =
            Errand::Resize { assume_peer_has_space: true, assume_clean: false, blocks: None, volume };
        Some(vec![
            Step::WantNet(1 - n, false),
            Step::Do(1 - n, Errand::Disconnect),
            Step::GrowWhenMet(1 - n),
            Step::GrowDisks([n == 0, n == 1]),
            Step::Do(n, resize),
            Step::WantNet(1 - n, true),
        ])
    }

    /// The administrator has put it off until now.
    pub(super) fn grow_at_last(&mut self, n: usize) {
        let growth_bytes = self.volumes() * GROWTH_BYTES;
        let fits = self.grown_bytes()[n] + growth_bytes <= self.volumes() * MOST_GROWTH_BYTES;
        if std::mem::take(&mut self.nodes[n].grows_when_met) && fits {
            // Clients may know that size already, and have seen what the other disk holds there, or nothing.
            self.nodes[n].disk.grow(growth_bytes, |_| 0);
            self.trace(Some(n), "disk grows", || format!("{growth_bytes} bytes, at last"));
        }
    }

    /// Of several volumes: what one node's have grown by without the other, the other's must not before they meet.
    fn peer_has_not_grown_apart(&mut self, n: usize) -> bool {
        let [here, there] = [n, 1 - n].map(|n| {
            let probed = self.look_at_metadata(n, |disk, placement, _| metadata::probe(disk, placement));
            probed.map(|superblock| superblock.layout).unwrap_or_default()
        });
        there.begins(&here)
    }

    /// The moment is not right.
    pub(super) fn put_off(&mut self, kind: Kind) -> Option<Vec<Step>> {
        let (delay, node) = (self.prng.below(LONGEST_PUTTING_OFF), self.prng.node());
        self.at(delay, Event::Strike { kind, node });
        None
    }

    /// A disk grows, the nodes meet anew, and the disk is cut.
    pub(super) fn mistake_script(&mut self) -> Option<Vec<Step>> {
        let n = self.prng.node();
        let pause = Step::Pause(self.prng.below(10_000));
        let room = self.grown_bytes()[n] < self.volumes() * MOST_GROWTH_BYTES;
        // A resize that is still under way would use it.
        let idle = |node: &Node| node.errand.is_none() && !node.grows_when_met;
        let idle = self.in_sync && self.nodes.iter().all(idle);
        if !idle {
            return self.put_off(Kind::GrowByMistake);
        }
        room.then(|| vec![Step::GrowByMistake(n), Step::Flap, pause, Step::CutDisk(n)])
    }

    /// The administrator has given the node a larger disk.
    pub(super) fn grow_disk(&mut self, n: usize) {
        let (diverged, volumes) = (self.plan.diverged, self.volumes());
        let prng = &mut self.prng;
        let whatever = |sector: usize| match diverged && prng.chance(1, 2) {
            true => (0x4000 * (n as u64 + 1)) | sector as u64,
            false => 0,
        };
        let bytes = volumes * GROWTH_BYTES;
        self.nodes[n].disk.grow(bytes, whatever);
        self.trace(Some(n), "disk grows", || format!("{bytes} bytes"));
    }

    /// No operation on internal metadata reaches what this node knows as its clients' data.
    pub(super) fn check_metadata_stays_away(&self, n: usize, op: &DiskOp) -> Result<(), Violation> {
        let node = &self.nodes[n];
        let (range, shares) = (range_of(&op.kind), op.device == Device::Meta && node.disk.layout.internal);
        // On a fresh disk clients know nothing.
        let holds_data = node.status.as_ref().is_some_and(|status| status.disk > DiskState::Inconsistent);
        let data_bytes = node.engine.as_ref().filter(|_| holds_data).map_or(0, Engine::shown_bytes);
        match range.filter(|range| shares && range.offset < data_bytes) {
            None => Ok(()),
            Some(range) => {
                let text = format!("metadata at {range}, where clients' data is: {}", self.describe());
                Err(Violation::new("size", text))
            }
        }
    }

    pub(super) fn grow_by_mistake(&mut self, n: usize) {
        self.grow_disk(n);
        self.nodes[n].disk.grown_by_mistake = self.volumes() * GROWTH_BYTES;
    }

    /// The size that each disk says was agreed on; 0 if none was.
    fn agreed_bytes(&mut self) -> [u64; 2] {
        [0, 1].map(|n| {
            let probed = self.look_at_metadata(n, |disk, placement, _| metadata::probe(disk, placement));
            probed.map_or(0, |superblock| superblock.agreed_bytes)
        })
    }

    fn size_is_agreed(&mut self) -> bool {
        self.agreed_bytes().iter().all(|bytes| *bytes > 0)
    }

    /// The largest that the volume is on either node, as far as the disk knows or the engine.
    fn largest_bytes(&mut self) -> u64 {
        let on_disk = self.agreed_bytes();
        let known = self.nodes.iter().filter_map(|node| node.engine.as_ref()).map(Engine::size_bytes);
        on_disk.into_iter().chain(known).fold(self.size_bytes, u64::max)
    }

    /// Nobody has said that the disk shall be used as large as it is: it need not be.
    pub(super) fn cut_disk(&mut self, n: usize) -> Result<(), Violation> {
        let bytes = std::mem::take(&mut self.nodes[n].disk.grown_by_mistake);
        let room_bytes = DATA_BYTES + self.grown_bytes()[n] - bytes;
        if bytes == 0 || self.largest_bytes() > room_bytes {
            return Ok(());
        }
        self.nodes[n].disk.cut(bytes);
        self.trace(Some(n), "disk is cut", || format!("{bytes} bytes"));
        let found = self.look_at_metadata(n, |disk, placement, _| metadata::probe(disk, placement));
        found.map(|_| ()).map_err(|error| {
            let text = format!("node {n} has moved its metadata, and nobody has said resize: {error}");
            Violation::new("K7", text)
        })
    }

    /// The engine wants to know how large its disk is.
    pub(super) fn asked_to_measure(&mut self, n: usize, use_all: bool) {
        if use_all {
            self.nodes[n].disk.grown_by_mistake = 0;
        }
        let delay = self.prng.below(500);
        let incarnation = self.nodes[n].incarnation;
        self.at(delay, Event::Measured { node: n, incarnation, use_all });
    }

    /// A driver has found out how large a disk is; if all of it is to be used, what marks it lies at its end from now on.
    pub(super) fn measured(&mut self, n: usize, use_all: bool) -> Result<(), Violation> {
        if use_all && self.nodes[n].disk_in_use {
            let layout = self.nodes[n].disk.layout();
            self.nodes[n].stamped_rooms = self.rooms(layout.data_bytes + layout.grown_bytes);
        }
        self.tell_size(n)
    }

    /// No volume behind the first one reaches what marks its disk.
    fn check_stamps(&self, n: usize) -> Result<(), Violation> {
        let node = &self.nodes[n];
        let has_disk = node.status.as_ref().is_some_and(|status| status.disk >= DiskState::Negotiating);
        let Some(engine) = node.engine.as_ref().filter(|_| has_disk) else { return Ok(()) };
        let mut others = engine.layout().volumes().iter().zip(&node.stamped_rooms).skip(1);
        match others.find(|(volume, room)| volume.bytes > **room) {
            None => Ok(()),
            Some((volume, room)) => {
                let text = format!(
                    "volume {} of node {n} has {} bytes, and what marks its disk lies behind {room}: {}",
                    volume.number,
                    volume.bytes,
                    self.describe()
                );
                Err(Violation::new("stamp", text))
            }
        }
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
            self.ambush_move(n);
        }
        // The disk of the first volume is simulated as large as both.
        let rooms = self.rooms(layout.data_bytes + layout.grown_bytes);
        let (limit_bytes, other_rooms) = (rooms.first().copied(), rooms.into_iter().skip(1).collect());
        let measured = Measured { backing_bytes, meta_bytes, limit_bytes, other_rooms };
        self.feed(n, Input::DiskMeasured(Ok(measured)))
    }

    /// Metadata that moves lies in two places, or half in each: a good moment to die.
    fn ambush_move(&mut self, n: usize) {
        if self.prng.chance(1, 2) {
            let longest = OPERATIONS_OF_A_MOVE * self.plan.disk_delay.1 * self.plan.disk_factors[n];
            self.kill_soon(n, longest);
        }
    }

    /// The metadata of a disk that is taken into use.
    pub(super) fn open_metadata(&mut self, n: usize) -> Result<Metadata, LoadError> {
        let (placement, node) = (self.placement(), NodeId(n as u8));
        let last = self.nodes[n].last_place.clone();
        let disk = &mut self.nodes[n].disk;
        disk.grown_by_mistake = 0;
        let bytes = match placement {
            Placement::Internal => metadata::bring_to_end(disk, last.as_ref(), node)?,
            Placement::External => disk.layout().backing_bytes(),
        };
        let mut loaded =
            self.look_at_metadata(n, |disk, placement, _| metadata::load(disk, placement, bytes, node))?;
        let device_id = loaded.superblock.device_id;
        self.nodes[n].last_place = Some(LastPlace { device_id, ends: vec![bytes] });
        let meta_bytes =
            if placement == Placement::Internal { self.nodes[n].disk.layout().meta_bytes } else { 0 };
        loaded.rooms = self.rooms(bytes - meta_bytes);
        self.nodes[n].stamped_rooms.clone_from(&loaded.rooms);
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
        self.check_stamps(n)?;
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
            self.check_layouts(n)?;
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

    /// What one node shows of the volumes lies on the other where it does here.
    fn check_layouts(&self, n: usize) -> Result<(), Violation> {
        let [Some(here), Some(there)] = [n, 1 - n].map(|n| self.nodes[n].engine.as_ref()) else {
            return Ok(());
        };
        let knows = there.size_bytes() >= here.shown_bytes();
        if self.split || !knows || here.shown_layout().begins(there.layout()) {
            return Ok(());
        }
        let text = format!("the volumes lie elsewhere: {:?} and {:?}", here.shown_layout(), there.layout());
        Err(Violation::new("layout", text))
    }

    /// The node's volume has grown, and its clients do not know yet: what is marked there counts for nobody.
    pub(super) fn hides_size(&self, n: usize) -> bool {
        self.nodes[n].engine.as_ref().is_some_and(|e| e.shown_bytes() != e.size_bytes())
    }

    /// Both nodes show the size that clients know, or one that the next ones will, and hold the same.
    pub(super) fn check_sizes_at_rest(&self) -> Result<(), Violation> {
        let sizes = [0, 1].map(|n| self.nodes[n].engine.as_ref().map(Engine::shown_bytes));
        let served = (0..2).any(|n| self.role(n) == Some(Role::Primary));
        let agreed = sizes[0].filter(|bytes| sizes[1] == Some(*bytes));
        let right = |bytes: &u64| *bytes == self.size_bytes || *bytes > self.size_bytes && !served;
        let Some(bytes) = agreed.filter(right) else {
            let text = format!("at rest: clients saw {} bytes, the nodes show {sizes:?}", self.size_bytes);
            return Err(Violation::new("size", text));
        };
        let held = |n: usize| &self.nodes[n].disk.all_tokens()[sectors(ByteRange::new(0, bytes))];
        if held(0) != held(1) {
            let text = format!("at rest: the copies differ beyond what clients saw: {}", self.describe());
            return Err(Violation::new("size", text));
        }
        self.check_layouts(0)
    }
}
