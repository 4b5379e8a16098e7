//! Where the volumes of a resource lie in the one space of blocks that the engine replicates.
//!
//! One behind the other by ascending number, each from a multiple of [`SLOT_BYTES`] on. So no extent of the activity log
//! belongs to two volumes, and what the engine asks of the disks at a time never does. What lies between a volume's end
//! and the next one's beginning, its pad, reads as zeroes.
//!
//! A resource with one volume has no layout: the volume is the space.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::AL_EXTENT_BYTES;
use crate::parting::{SIZES_DIFFER, VOLUMES_DIFFER};
use crate::units::{BLOCK_BYTES, ByteRange};

/// Most volumes of a resource.
pub const MAX_VOLUMES: usize = 64;
/// Every volume begins at a multiple of this, but on small simulated disks.
pub const SLOT_BYTES: u64 = AL_EXTENT_BYTES;
/// DRBD's largest device.
const MAX_SPACE_BYTES: u64 = 1 << 50;

/// How large a volume is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeSize {
    /// Its number within the resource.
    pub number: u16,
    /// Its size, whole blocks.
    pub bytes: u64,
}

/// The volumes of a resource that has several, by ascending number; none if it has one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layout {
    volumes: Vec<VolumeSize>,
    slot_bytes: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Layout { volumes: Vec::new(), slot_bytes: SLOT_BYTES }
    }
}

/// What cannot be a layout.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    /// Too many.
    #[error("a resource has at most {MAX_VOLUMES} volumes, not {0}")]
    TooMany(usize),
    /// Two of the same number, or not in order.
    #[error("volume {0} stands twice, or behind one of a higher number")]
    Order(u16),
    /// Nothing, or not whole blocks.
    #[error("volume {0} cannot have {1} bytes: a size is a multiple of {BLOCK_BYTES}")]
    Size(u16, u64),
    /// No extent of an activity log fits.
    #[error("volumes cannot begin at multiples of {0} bytes")]
    Slots(u64),
    /// Larger than any device.
    #[error("the volumes have more than 1 PiB together")]
    TooLarge,
}

/// Where a range of the space lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which volume, counted from 0 by ascending number.
    pub index: usize,
    /// The part that lies in the volume, from its first byte; it may be empty.
    pub range: ByteRange,
    /// What follows, in the volume's pad.
    pub pad_bytes: u64,
}

impl Layout {
    /// The layout of these volumes; one needs none.
    pub fn new(volumes: Vec<VolumeSize>) -> Result<Layout, LayoutError> {
        Layout::with_slots(volumes, SLOT_BYTES)
    }

    /// The same, each from a multiple of `slot_bytes` on, a power of two.
    pub fn with_slots(volumes: Vec<VolumeSize>, slot_bytes: u64) -> Result<Layout, LayoutError> {
        if !slot_bytes.is_power_of_two() || !(BLOCK_BYTES..=SLOT_BYTES).contains(&slot_bytes) {
            return Err(LayoutError::Slots(slot_bytes));
        }
        if volumes.len() > MAX_VOLUMES {
            return Err(LayoutError::TooMany(volumes.len()));
        }
        let mut space: u64 = 0;
        for (i, volume) in volumes.iter().enumerate() {
            if i > 0 && volumes[i - 1].number >= volume.number {
                return Err(LayoutError::Order(volume.number));
            }
            if volume.bytes == 0 || !volume.bytes.is_multiple_of(BLOCK_BYTES) {
                return Err(LayoutError::Size(volume.number, volume.bytes));
            }
            space = space.saturating_add(volume.bytes);
        }
        let pads = volumes.len() as u64 * slot_bytes;
        if space.saturating_add(pads) > MAX_SPACE_BYTES && volumes.len() > 1 {
            return Err(LayoutError::TooLarge);
        }
        Ok(if volumes.len() > 1 { Layout { volumes, slot_bytes } } else { Layout::default() })
    }

    /// Every volume begins at a multiple of this.
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// Several volumes; none if the resource has one.
    pub fn volumes(&self) -> &[VolumeSize] {
        &self.volumes
    }

    /// The resource has one volume.
    pub fn is_single(&self) -> bool {
        self.volumes.is_empty()
    }

    /// Number of volumes.
    pub fn count(&self) -> usize {
        self.volumes.len().max(1)
    }

    /// Where the volumes lie, in order; a single one is all of the space.
    pub fn ranges(&self, space_bytes: u64) -> Vec<ByteRange> {
        match self.is_single() {
            true => vec![ByteRange::new(0, space_bytes)],
            false => self.several().collect(),
        }
    }

    /// The same of several volumes, none of a single one.
    fn several(&self) -> impl Iterator<Item = ByteRange> {
        let mut next: u64 = 0;
        self.volumes.iter().map(move |volume| {
            let range = ByteRange::new(next.next_multiple_of(self.slot_bytes), volume.bytes);
            next = range.end();
            range
        })
    }

    /// From the first volume's beginning to the last one's end; 0 of a single volume.
    pub fn space_bytes(&self) -> u64 {
        self.several().last().map_or(0, |last| last.end())
    }

    /// What the slots behind the first one take.
    pub fn bytes_behind_first(&self) -> u64 {
        self.volumes.iter().skip(1).map(|volume| volume.bytes.next_multiple_of(self.slot_bytes)).sum()
    }

    /// The volume, counted from 0, in which or in whose pad a byte lies.
    pub fn index_at(&self, offset: u64) -> usize {
        self.slot_at(offset).0
    }

    /// Where the slot of a byte ends: its volume and the pad.
    pub fn slot_end(&self, offset: u64) -> u64 {
        let (index, range) = self.slot_at(offset);
        if index + 1 < self.volumes.len() { range.end().next_multiple_of(self.slot_bytes) } else { u64::MAX }
    }

    /// Where a range lies; `None` if it touches two volumes.
    pub fn place(&self, range: ByteRange) -> Option<Place> {
        let (index, volume) = self.slot_at(range.offset);
        if range.end() > self.slot_end(range.offset) {
            return None;
        }
        let end = range.end().min(volume.end()).max(range.offset);
        let inside = ByteRange::new(range.offset - volume.offset, end - range.offset);
        Some(Place { index, range: inside, pad_bytes: range.length - inside.length })
    }

    /// The parts of a range by volume, counted from 0; pads are left out.
    pub fn parts(&self, range: ByteRange) -> Vec<(usize, ByteRange)> {
        let mut parts = Vec::new();
        let mut from = range.offset;
        while from < range.end() {
            let to = self.slot_end(from).min(range.end());
            if let Some(place) = self.place(ByteRange::new(from, to - from)).filter(|p| p.range.length > 0) {
                parts.push((place.index, place.range));
            }
            from = to;
        }
        parts
    }

    /// What two nodes must change that do not agree; `None` if they do.
    pub fn disagreement(&self, theirs: &Layout) -> Option<String> {
        let numbers = |layout: &Layout| match layout.is_single() {
            true => "one volume".to_owned(),
            false => {
                let numbers: Vec<String> =
                    layout.volumes.iter().map(|volume| volume.number.to_string()).collect();
                format!("volumes {}", numbers.join(", "))
            }
        };
        let pairs = || self.volumes.iter().zip(&theirs.volumes);
        let same_numbers = self.volumes.len() == theirs.volumes.len()
            && self.slot_bytes == theirs.slot_bytes
            && pairs().all(|(a, b)| a.number == b.number);
        if !same_numbers {
            return Some(format!(
                "{VOLUMES_DIFFER}: the meta-data here is for {}, the peer's for {}; correct the configuration, and run \
                 'tandemadm create-md' on the node whose data may be overwritten",
                numbers(self),
                numbers(theirs)
            ));
        }
        let (ours, theirs) = pairs().find(|(a, b)| a.bytes != b.bytes)?;
        let smaller = ours.bytes.min(theirs.bytes);
        Some(format!(
            "{SIZES_DIFFER}: volume {} has {} bytes here, {} bytes on the peer. Of a resource with several volumes each \
             must be as large on both nodes: where it is larger, set 'volume {} {{ disk {{ size {}k; }} }}' and run \
             'tandemadm create-md'",
            ours.number,
            ours.bytes,
            theirs.bytes,
            ours.number,
            smaller / 1024
        ))
    }

    /// The volume in whose slot a byte lies; a single one has no end. Asked for every request.
    fn slot_at(&self, offset: u64) -> (usize, ByteRange) {
        let begun = self.several().enumerate().take_while(|(_, range)| range.offset <= offset);
        begun.last().unwrap_or((0, ByteRange::new(0, u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(sizes: &[(u16, u64)]) -> Layout {
        let volumes =
            sizes.iter().map(|&(number, blocks)| VolumeSize { number, bytes: blocks * BLOCK_BYTES });
        Layout::new(volumes.collect()).unwrap()
    }

    #[test]
    fn one_volume_is_the_space() {
        let one = layout(&[(3, 5)]);
        assert!(one.is_single() && one == Layout::default());
        assert_eq!(one.ranges(777), [ByteRange::new(0, 777)]);
        let range = ByteRange::new(SLOT_BYTES - 512, 9 << 20);
        assert_eq!(one.place(range), Some(Place { index: 0, range, pad_bytes: 0 }));
        assert_eq!(one.parts(range), [(0, range)]);
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let sizes = |sizes: &[(u16, u64)]| {
            Layout::new(sizes.iter().map(|&(number, bytes)| VolumeSize { number, bytes }).collect())
        };
        assert_eq!(sizes(&[(1, 4096), (1, 4096)]), Err(LayoutError::Order(1)));
        assert_eq!(sizes(&[(1, 4096), (0, 4096)]), Err(LayoutError::Order(0)));
        assert_eq!(sizes(&[(0, 4096), (1, 0)]), Err(LayoutError::Size(1, 0)));
        assert_eq!(sizes(&[(0, 4096), (1, 512)]), Err(LayoutError::Size(1, 512)));
        assert_eq!(sizes(&[(0, 1 << 62), (1, 1 << 62)]), Err(LayoutError::TooLarge));
        for slot_bytes in [0, 2048, 5000, 8 << 20] {
            assert_eq!(Layout::with_slots(Vec::new(), slot_bytes), Err(LayoutError::Slots(slot_bytes)));
        }
        let many: Vec<_> = (0..65).map(|number| (number, 4096)).collect();
        assert_eq!(sizes(&many), Err(LayoutError::TooMany(65)));
    }

    #[test]
    fn nodes_that_disagree_are_told_where() {
        let ours = layout(&[(0, 8), (1, 16)]);
        assert_eq!(ours.disagreement(&ours.clone()), None);
        let text = ours.disagreement(&layout(&[(0, 8), (1, 12)])).unwrap();
        assert!(text.contains("volume 1 has 65536 bytes here, 49152 bytes on the peer"), "{text}");
        assert!(text.contains("'volume 1 { disk { size 48k; } }'"), "{text}");
        let text = ours.disagreement(&Layout::default()).unwrap();
        assert!(text.contains("here is for volumes 0, 1, the peer's for one volume"), "{text}");
    }

    prop_compose! {
        fn any_layout()(sizes in prop::collection::vec((1u16..9, 1u64..5000), 2..6)) -> Layout {
            let mut number = 0;
            let volumes = sizes.iter().map(|(step, blocks)| {
                number += step;
                VolumeSize { number, bytes: blocks * BLOCK_BYTES }
            });
            Layout::new(volumes.collect()).unwrap()
        }
    }

    proptest! {
        #[test]
        fn volumes_begin_at_extents_and_never_overlap(layout in any_layout()) {
            let ranges = layout.ranges(0);
            prop_assert_eq!(ranges.len(), layout.count());
            for (range, volume) in ranges.iter().zip(layout.volumes()) {
                prop_assert!(range.offset.is_multiple_of(SLOT_BYTES));
                prop_assert_eq!(range.length, volume.bytes);
            }
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].end() <= pair[1].offset);
                prop_assert!(pair[1].offset - pair[0].end() < SLOT_BYTES);
            }
            prop_assert_eq!(layout.space_bytes(), ranges[ranges.len() - 1].end());
        }

        #[test]
        fn every_byte_has_one_place(layout in any_layout(), at in 0f64..1.0, length in 1u64..9_000_000) {
            let space = layout.space_bytes();
            let offset = (space as f64 * at) as u64;
            let range = ByteRange::new(offset, length.min(space - offset));
            let ranges = layout.ranges(0);
            // An extent never lies in two slots.
            let extent = ByteRange::new(offset / SLOT_BYTES * SLOT_BYTES, SLOT_BYTES);
            prop_assert!(layout.place(extent).is_some());
            if let Some(place) = layout.place(range) {
                prop_assert_eq!(place.range.length + place.pad_bytes, range.length);
                prop_assert_eq!(place.range.offset + ranges[place.index].offset, offset);
                prop_assert_eq!(place.index, layout.index_at(range.end() - 1));
                if place.range.length > 0 {
                    prop_assert!(place.range.end() <= ranges[place.index].length);
                }
            } else {
                prop_assert!(layout.index_at(offset) != layout.index_at(range.end() - 1));
            }
            // The parts are what the volumes share with the range.
            let mut shared = Vec::new();
            for (index, volume) in ranges.iter().enumerate() {
                let (from, to) = (range.offset.max(volume.offset), range.end().min(volume.end()));
                if from < to {
                    shared.push((index, ByteRange::new(from - volume.offset, to - from)));
                }
            }
            prop_assert_eq!(layout.parts(range), shared);
        }
    }
}
