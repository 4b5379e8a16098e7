//! A disk with a volatile write cache.
//!
//! Data sectors hold a version token each (the sector's bytes are the token, repeated); metadata sectors hold real
//! bytes. What a read sees is the *view*: every completed write. What survives a power loss is *durable*, plus any
//! subset of the sectors of the writes that no flush covers, completed or in flight.

use bytes::{BufMut, Bytes, BytesMut};
use tandem_core::io::{Device, DiskError, DiskOp, DiskOpKind};
use tandem_core::metadata::MetaIo;
use tandem_core::units::{ByteRange, DiskOpId, SECTOR_BYTES};

use super::prng::Prng;
use super::zone::Zone;

/// Room for a header, and a record for each of 64 blocks with some to spare.
pub(super) const UNDO_BYTES: usize = 768 << 10;
pub(super) const SECTOR: usize = SECTOR_BYTES as usize;

/// Where the metadata of a simulated disk is kept.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of metadata.
    pub meta_bytes: u64,
    /// Data and metadata share one device, the data first, and one cache.
    pub internal: bool,
    /// Of a resource with two volumes, where the second one begins: it has a device of its own, with a cache of its own.
    pub second_at: Option<u64>,
    /// The cache is volatile: a completed write is durable only after a flush.
    pub volatile: bool,
    /// The device has grown by so many bytes since it was made.
    pub grown_bytes: u64,
    /// It never grows by more.
    pub most_growth_bytes: u64,
}

impl Layout {
    /// Size of the device that holds the data.
    pub fn backing_bytes(&self) -> u64 {
        self.data_bytes + self.grown_bytes + if self.internal { self.meta_bytes } else { 0 }
    }

    /// Size of the device that holds the metadata.
    pub fn meta_device_bytes(&self) -> u64 {
        if self.internal { self.backing_bytes() } else { self.meta_bytes }
    }

    /// The sectors of data that share a cache with internal metadata end here.
    fn shared_sectors(&self) -> usize {
        self.second_at.map_or(usize::MAX, |at| (at / SECTOR_BYTES) as usize)
    }

    /// How much of the data `device` is a flush of: up to which sector.
    fn flushed_below(&self, device: Device) -> usize {
        match device {
            Device::Data => usize::MAX,
            Device::Meta if self.internal => self.shared_sectors(),
            Device::Meta | Device::Undo => 0,
        }
    }

    pub(super) fn meta_start(&self) -> u64 {
        if self.internal { self.data_bytes } else { 0 }
    }
}

/// The simulated disk.
#[derive(Debug)]
pub struct SimDisk {
    pub(super) layout: Layout,
    /// Sectors of data that clients may know.
    pub(super) visible: usize,
    /// For whoever reads metadata, the device ends here.
    pub(super) ends_at: Option<u64>,
    /// The device has grown by so much, which nobody has used.
    pub(super) grown_by_mistake: u64,
    data: Zone<u64>,
    pub(super) meta: Zone<Bytes>,
    /// The file for undo logs, on a device of its own.
    pub(super) undo: Zone<Bytes>,
    in_flight: Vec<InFlight>,
    /// Counts beginnings and completions, to tell what completed before what began.
    pub(super) clock: u64,
    /// Change whenever the view of the data, or of the metadata, does; they begin with 1.
    pub(super) data_version: u64,
    pub(super) meta_version: u64,
}

#[derive(Debug)]
struct InFlight {
    op: DiskOp,
    began: u64,
}

impl SimDisk {
    /// A disk of zeroes.
    pub fn new(layout: Layout) -> Self {
        let sectors = |bytes: u64| (bytes / SECTOR_BYTES) as usize;
        let meta_growth = if layout.internal { layout.most_growth_bytes } else { 0 };
        SimDisk {
            layout,
            visible: sectors(layout.data_bytes),
            ends_at: None,
            grown_by_mistake: 0,
            data: Zone::new(sectors(layout.data_bytes + layout.most_growth_bytes), 0),
            meta: Zone::new(sectors(layout.meta_bytes + meta_growth), Bytes::from_static(&[0; SECTOR])),
            undo: Zone::new(UNDO_BYTES / SECTOR, Bytes::from_static(&[0; SECTOR])),
            in_flight: Vec::new(),
            clock: 0,
            data_version: 1,
            meta_version: 1,
        }
    }

    /// A disk of zeroes in the place of this one.
    pub fn successor(&self) -> Self {
        let (data_version, meta_version) = (self.data_version + 1, self.meta_version + 1);
        SimDisk { data_version, meta_version, visible: self.visible, ..SimDisk::new(self.layout) }
    }

    /// The layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What reads see of the data, a token per sector.
    pub fn tokens(&self) -> &[u64] {
        &self.data.view[..self.visible]
    }

    /// The same, also of what clients do not know.
    pub fn all_tokens(&self) -> &[u64] {
        &self.data.view
    }

    /// Changes whenever what reads see of the data does; never 0.
    pub fn data_version(&self) -> u64 {
        self.data_version
    }

    /// Changes whenever what reads see of the metadata does.
    pub fn meta_version(&self) -> u64 {
        self.meta_version
    }

    /// Puts durable data onto the disk, before the history begins.
    pub fn fill(&mut self, sector: usize, token: u64) {
        self.data_version += 1;
        self.data.view[sector] = token;
        self.data.durable[sector] = token;
    }

    /// The other disk's data in these sectors is copied here.
    pub fn copy_data(&mut self, other: &SimDisk, sectors: std::ops::Range<usize>) {
        for sector in sectors {
            self.rot(sector, other.data.view[sector]);
        }
    }

    /// The other disk's metadata is copied here.
    pub fn copy_metadata(&mut self, other: &SimDisk) {
        self.meta_version += 1;
        self.meta.view.clone_from(&other.meta.view);
        self.meta.durable.clone_from(&other.meta.view);
        self.meta.unflushed.clear();
    }

    /// The disk changes a sector silently.
    pub fn rot(&mut self, sector: usize, token: u64) {
        self.fill(sector, token);
        self.data.unflushed.retain(|u| u.sector != sector);
    }

    /// True if the sector may yet come to hold this token without another operation being given: it lies durable or
    /// in the cache below the view, or is being written.
    pub fn may_hold(&self, sector: usize, token: u64) -> bool {
        self.data.view[sector] == token
            || self.data.durable[sector] == token
            || self.data.unflushed.iter().any(|u| u.sector == sector && u.value == token)
            || self.in_flight.iter().any(|f| match (&f.op.device, &f.op.kind) {
                (Device::Data, DiskOpKind::Write { offset, data, .. }) => {
                    let first = (*offset / SECTOR_BYTES) as usize;
                    let count = data.len() / SECTOR;
                    (first..first + count).contains(&sector) && token_at(data, sector - first) == token
                }
                (Device::Data, DiskOpKind::Zero { range, .. }) => {
                    token == 0 && sectors(*range).contains(&sector)
                }
                _ => false,
            })
    }

    /// All data that was written is durable.
    pub fn cache_is_empty(&self) -> bool {
        self.data.unflushed.is_empty()
    }

    /// Number of operations in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// An operation begins.
    pub fn begin(&mut self, op: DiskOp) {
        self.check_place(&op);
        self.clock += 1;
        self.in_flight.push(InFlight { op, began: self.clock });
    }

    /// No operation on data touches two devices, and none goes beyond a device's end.
    fn check_place(&self, op: &DiskOp) {
        let (end, second_at) = match op.device {
            Device::Data => (self.layout.backing_bytes(), self.layout.second_at),
            Device::Meta => (self.layout.meta_device_bytes(), None),
            Device::Undo => return,
        };
        let Some(range) = range_of(&op.kind) else { return };
        assert!(range.end() <= end, "an operation beyond the end: {range}");
        let crosses = second_at.is_some_and(|at| range.offset < at && range.end() > at);
        assert!(!crosses, "an operation on two volumes: {range}");
    }

    /// An operation ends; `None` if it is not in flight.
    pub fn finish(&mut self, id: DiskOpId) -> Option<Bytes> {
        let at = self.in_flight.iter().position(|f| f.op.id == id)?;
        let InFlight { op, began } = self.in_flight.remove(at);
        self.clock += 1;
        match &op.kind {
            DiskOpKind::Read(range) => return Some(self.read(op.device, *range)),
            DiskOpKind::Flush => self.settle(op.device, began),
            DiskOpKind::Write { fua, .. } => {
                if *fua {
                    self.settle(op.device, began);
                }
                self.apply(&op, *fua, |_| true);
            }
            DiskOpKind::Zero { .. } => self.apply(&op, false, |_| true),
        }
        Some(Bytes::new())
    }

    /// The operation, if it is in flight.
    pub fn in_flight_op(&self, id: DiskOpId) -> Option<DiskOp> {
        self.in_flight.iter().find(|f| f.op.id == id).map(|f| f.op.clone())
    }

    /// An operation fails: a write may have landed in part, unless the disk is `dead`; a flush loses what it should have
    /// made durable. True if something was lost from the cache.
    pub fn fail(&mut self, id: DiskOpId, dead: bool, prng: &mut Prng) -> bool {
        let Some(at) = self.in_flight.iter().position(|f| f.op.id == id) else { return false };
        let InFlight { op, began } = self.in_flight.remove(at);
        self.clock += 1;
        let flushes = match &op.kind {
            DiskOpKind::Read(_) => return false,
            DiskOpKind::Flush => true,
            DiskOpKind::Zero { .. } => false,
            DiskOpKind::Write { fua, .. } => *fua && prng.chance(1, 2),
        };
        let odds = [0, 50, 100][prng.below(3) as usize];
        if !dead {
            self.apply(&op, false, |_| prng.chance(odds, 100));
        }
        let mut lost = false;
        if op.device == Device::Undo {
            if flushes {
                self.undo.lose(began, usize::MAX, || prng.chance(odds, 100));
            }
            return false;
        }
        if flushes {
            let below = self.layout.flushed_below(op.device);
            lost |= self.data.lose(began, below, || prng.chance(odds, 100));
            if op.device == Device::Meta || self.layout.internal {
                lost |= self.meta.lose(began, usize::MAX, || prng.chance(odds, 100));
            }
        }
        lost
    }

    /// The device is closed: reads no longer see what a failed flush has lost.
    pub fn close(&mut self) {
        self.data.refresh();
        self.meta.refresh();
        self.undo.refresh();
        self.data_version += 1;
        self.meta_version += 1;
    }

    /// The process dies, the machine lives: what is in flight lands wholly, in part or not at all; the cache stays.
    pub fn process_crash(&mut self, prng: &mut Prng) {
        for InFlight { op, .. } in std::mem::take(&mut self.in_flight) {
            let odds = [0, 50, 100][prng.below(3) as usize];
            self.clock += 1;
            self.apply(&op, false, |_| prng.chance(odds, 100));
        }
        self.close();
    }

    /// The power fails: of all that is not durable, each sector survives or not.
    pub fn power_loss(&mut self, prng: &mut Prng) {
        let odds = [0, 20, 50, 80, 100][prng.below(5) as usize];
        self.data.settle_some(|| prng.chance(odds, 100));
        self.meta.settle_some(|| prng.chance(odds, 100));
        self.undo.settle_some(|| prng.chance(odds, 100));
        for InFlight { op, .. } in std::mem::take(&mut self.in_flight) {
            if op.device == Device::Meta && prng.chance(1, 2) {
                self.tear_sectors(&op, prng);
            } else {
                self.apply(&op, true, |_| prng.chance(odds, 100));
            }
        }
        self.data_version += 1;
        self.meta_version += 1;
    }

    /// The power failed while metadata was being written: each sector is new up to some byte and old behind it.
    fn tear_sectors(&mut self, op: &DiskOp, prng: &mut Prng) {
        let DiskOpKind::Write { offset, data, .. } = &op.kind else { return };
        let range = self.meta_sectors(ByteRange::new(*offset, data.len() as u64));
        for (sector, new) in range.zip(data.chunks_exact(SECTOR)) {
            let torn_at = prng.below(SECTOR as u64 + 1) as usize;
            let mut bytes = BytesMut::from(&new[..torn_at]);
            bytes.put_slice(&self.meta.view[sector][torn_at..]);
            self.meta.write(sector, bytes.freeze(), true, self.clock);
        }
    }

    fn read(&self, device: Device, range: ByteRange) -> Bytes {
        let mut bytes = BytesMut::with_capacity(range.length as usize);
        match device {
            Device::Data => {
                let view = &self.data.view[sectors(range)];
                view.iter().for_each(|&token| put_sector(&mut bytes, token));
            }
            Device::Meta => {
                let view = &self.meta.view[self.meta_sectors(range)];
                view.iter().for_each(|sector| bytes.put_slice(sector));
            }
            Device::Undo => self.undo.view[sectors(range)].iter().for_each(|s| bytes.put_slice(s)),
        }
        bytes.freeze()
    }

    /// Everything that completed before `began` becomes durable.
    fn settle(&mut self, device: Device, began: u64) {
        if device == Device::Undo {
            return self.undo.settle(began, usize::MAX);
        }
        self.data.settle(began, self.layout.flushed_below(device));
        if device == Device::Meta || self.layout.internal {
            self.meta.settle(began, usize::MAX);
        }
    }

    /// Writes those sectors of the operation that `lands` picks.
    fn apply(&mut self, op: &DiskOp, durable: bool, mut lands: impl FnMut(usize) -> bool) {
        let durable = durable || !self.layout.volatile;
        let (range, data) = match &op.kind {
            DiskOpKind::Write { offset, data, .. } => {
                (ByteRange::new(*offset, data.len() as u64), Some(data))
            }
            DiskOpKind::Zero { range, .. } => (*range, None),
            DiskOpKind::Read(_) | DiskOpKind::Flush => return,
        };
        assert!(
            range.offset % SECTOR_BYTES == 0 && range.length % SECTOR_BYTES == 0,
            "unaligned disk operation {range}"
        );
        match op.device {
            Device::Data => {
                self.data_version += 1;
                self.overwrite_old_metadata(range);
                for (i, sector) in sectors(range).enumerate() {
                    if lands(i) {
                        let token = data.map_or(0, |d| token_at(d, i));
                        self.data.write(sector, token, durable, self.clock);
                    }
                }
            }
            Device::Undo => self.undo.write_sectors(sectors(range), data, durable, self.clock, lands),
            Device::Meta => {
                self.meta_version += 1;
                let range = self.meta_sectors(range);
                self.meta.write_sectors(range, data, durable, self.clock, lands);
            }
        }
    }

    /// Data that is written to where the metadata was leaves nothing of it.
    fn overwrite_old_metadata(&mut self, range: ByteRange) {
        let start = self.layout.meta_start();
        if self.layout.internal && range.end() > start {
            let from = range.offset.max(start);
            for sector in sectors(ByteRange::new(from - start, range.end() - from)) {
                self.meta.write(sector, Bytes::from_static(&[0xda; SECTOR]), true, self.clock);
            }
        }
    }

    fn meta_sectors(&self, range: ByteRange) -> std::ops::Range<usize> {
        let start = self.layout.meta_start();
        assert!(range.offset >= start, "a metadata operation at {range} reaches into the data");
        sectors(ByteRange::new(range.offset - start, range.length))
    }
}

/// Reading and creating metadata while no engine uses the disk; what is written is durable at once.
impl MetaIo for SimDisk {
    fn size_bytes(&self) -> u64 {
        self.ends_at.unwrap_or(self.layout.meta_device_bytes())
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let range = self.meta_sectors(ByteRange::new(offset, buffer.len() as u64));
        for (target, source) in buffer.chunks_exact_mut(SECTOR).zip(&self.meta.view[range]) {
            target.copy_from_slice(source);
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let range = self.meta_sectors(ByteRange::new(offset, data.len() as u64));
        self.meta_version += 1;
        for (sector, bytes) in range.zip(data.chunks_exact(SECTOR)) {
            self.meta.write(sector, Bytes::copy_from_slice(bytes), true, self.clock);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.settle(Device::Meta, u64::MAX);
        Ok(())
    }
}

/// What an operation touches; a flush nothing.
pub(super) fn range_of(kind: &DiskOpKind) -> Option<ByteRange> {
    match kind {
        DiskOpKind::Read(range) | DiskOpKind::Zero { range, .. } => Some(*range),
        DiskOpKind::Write { offset, data, .. } => Some(ByteRange::new(*offset, data.len() as u64)),
        DiskOpKind::Flush => None,
    }
}

/// The sector numbers of a range.
pub fn sectors(range: ByteRange) -> std::ops::Range<usize> {
    (range.offset / SECTOR_BYTES) as usize..(range.end() / SECTOR_BYTES) as usize
}

/// Appends the 512 bytes of a token.
pub fn put_sector(bytes: &mut BytesMut, token: u64) {
    let start = bytes.len();
    bytes.resize(start + SECTOR, 0);
    if token != 0 {
        let token = token.to_le_bytes();
        bytes[start..].as_chunks_mut::<8>().0.fill(token);
    }
}

/// The token of sector `i` of `data`. Panics if the sector is a mixture: nothing smaller than a sector may be torn.
pub fn token_at(data: &[u8], i: usize) -> u64 {
    let sector = &data[i * SECTOR..(i + 1) * SECTOR];
    assert!(sector[8..] == sector[..SECTOR - 8], "a sector holds a mixture of versions");
    u64::from_le_bytes(std::array::from_fn(|b| sector[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        data_bytes: 8 * 512,
        meta_bytes: 4096,
        internal: true,
        second_at: None,
        volatile: true,
        grown_bytes: 0,
        most_growth_bytes: 0,
    };

    fn op(id: u64, kind: DiskOpKind) -> DiskOp {
        DiskOp { id: DiskOpId(id), device: Device::Data, kind }
    }

    fn write(id: u64, sector: u64, count: u64, token: u64, fua: bool) -> DiskOp {
        let mut data = BytesMut::new();
        (0..count).for_each(|_| put_sector(&mut data, token));
        op(id, DiskOpKind::Write { offset: sector * 512, data: data.freeze(), fua })
    }

    fn disk_after(ops: impl IntoIterator<Item = DiskOp>) -> SimDisk {
        let mut disk = SimDisk::new(LAYOUT);
        for op in ops {
            let id = op.id;
            disk.begin(op);
            disk.finish(id);
        }
        disk
    }

    /// Every content of the first two sectors that power losses lead to.
    fn after_power_loss(build: impl Fn() -> SimDisk) -> std::collections::BTreeSet<[u64; 2]> {
        (0..200)
            .map(|seed| {
                let mut disk = build();
                disk.power_loss(&mut Prng::new(seed));
                [disk.tokens()[0], disk.tokens()[1]]
            })
            .collect()
    }

    #[test]
    fn reads_see_completed_writes_only() {
        let mut disk = disk_after([write(1, 0, 1, 7, false)]);
        disk.begin(write(2, 0, 1, 8, false));
        disk.begin(op(3, DiskOpKind::Read(ByteRange::new(0, 512))));
        assert_eq!(disk.finish(DiskOpId(3)).map(|b| token_at(&b, 0)), Some(7));
        disk.finish(DiskOpId(2));
        assert_eq!(disk.tokens()[0], 8);
        assert_eq!(disk.finish(DiskOpId(2)), None);
    }

    #[test]
    fn a_flush_covers_what_completed_before_it_began() {
        let build = || {
            let mut disk = disk_after([write(1, 0, 1, 1, false)]);
            disk.begin(op(2, DiskOpKind::Flush));
            disk.begin(write(3, 1, 1, 1, false));
            disk.finish(DiskOpId(3));
            disk.finish(DiskOpId(2));
            disk
        };
        assert_eq!(after_power_loss(build), [[1, 0], [1, 1]].into());
    }

    #[test]
    fn fua_is_durable_with_all_that_completed_before() {
        let build = || disk_after([write(1, 0, 1, 1, false), write(2, 1, 1, 2, true)]);
        assert_eq!(after_power_loss(build), [[1, 2]].into());
    }

    #[test]
    fn unflushed_writes_survive_in_any_combination() {
        let build = || disk_after([write(1, 0, 2, 1, false), write(2, 0, 2, 2, false)]);
        let all = [0, 1, 2].iter().flat_map(|&a| [0, 1, 2].map(|b| [a, b])).collect();
        assert_eq!(after_power_loss(build), all);
    }

    #[test]
    fn an_older_write_does_not_outlive_a_newer_durable_one() {
        let build = || {
            let mut disk = SimDisk::new(LAYOUT);
            disk.begin(write(1, 0, 1, 1, true));
            disk.begin(write(2, 0, 1, 2, false));
            disk.finish(DiskOpId(2));
            disk.finish(DiskOpId(1));
            disk
        };
        assert_eq!(after_power_loss(build), [[1, 0]].into());
    }

    #[test]
    fn a_dead_process_leaves_torn_writes_in_the_cache() {
        let contents: std::collections::BTreeSet<_> = (0..200)
            .map(|seed| {
                let mut disk = SimDisk::new(LAYOUT);
                disk.begin(write(1, 0, 2, 1, false));
                disk.process_crash(&mut Prng::new(seed));
                let before = [disk.tokens()[0], disk.tokens()[1]];
                assert!(disk.in_flight() == 0 && disk.may_hold(0, 0));
                before
            })
            .collect();
        assert_eq!(contents, [[0, 0], [0, 1], [1, 0], [1, 1]].into());
    }

    #[test]
    fn a_disk_without_volatile_cache_keeps_what_completed() {
        let build = || {
            let mut disk = SimDisk::new(Layout { volatile: false, ..LAYOUT });
            disk.begin(write(1, 0, 2, 1, false));
            disk.finish(DiskOpId(1));
            disk
        };
        assert_eq!(after_power_loss(build), [[1, 1]].into());
    }

    #[test]
    fn external_metadata_has_a_cache_of_its_own() {
        let flush_meta = DiskOp { id: DiskOpId(2), device: Device::Meta, kind: DiskOpKind::Flush };
        let build = || {
            let mut disk = SimDisk::new(Layout { internal: false, ..LAYOUT });
            for op in [write(1, 0, 2, 1, false), flush_meta.clone()] {
                let id = op.id;
                disk.begin(op);
                disk.finish(id);
            }
            disk
        };
        assert!(after_power_loss(build).contains(&[0, 0]));
    }
}
