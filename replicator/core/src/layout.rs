//! Where the volumes of a resource lie in the one space of blocks that the engine replicates.
//!
//! The space is made of *pieces* one behind the other, each from a multiple of [`SLOT_BYTES`] on, and only ever grows at its
//! end: first the volumes by ascending number, a piece each; then, in the order in which volumes grew, what each grew by. A
//! volume is its pieces in that order. So no extent of the activity log belongs to two pieces, and what the engine asks of the
//! disks at a time never does. What lies between a piece's end and the next one's beginning, its pad, reads as zeroes.
//!
//! A resource with one volume has no layout: the volume is the space.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::AL_EXTENT_BYTES;
use crate::parting::{SIZES_DIFFER, VOLUMES_DIFFER};
use crate::units::{BLOCK_BYTES, ByteRange};

#[cfg(test)]
mod tests;

/// Most volumes of a resource.
pub const MAX_VOLUMES: usize = 64;
/// Most pieces of all its volumes.
pub const MAX_PIECES: usize = 128;
/// Every piece begins at a multiple of this, but on small simulated disks.
pub const SLOT_BYTES: u64 = AL_EXTENT_BYTES;
/// DRBD's largest device.
const MAX_SPACE_BYTES: u64 = 1 << 50;

/// How large a volume is, or a piece of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeSize {
    /// The volume's number within the resource.
    pub number: u16,
    /// Its size, whole blocks.
    pub bytes: u64,
}

/// The volumes of a resource that has several, by ascending number; none if it has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    volumes: Vec<VolumeSize>,
    pieces: Vec<Piece>,
    slot_bytes: u64,
}

/// A part of a volume that lies in one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    /// Which volume, counted from 0 by ascending number.
    index: usize,
    /// Where in the volume it begins.
    begin: u64,
    /// Where it lies in the space.
    at: ByteRange,
}

impl Default for Layout {
    fn default() -> Self {
        Layout { volumes: Vec::new(), pieces: Vec::new(), slot_bytes: SLOT_BYTES }
    }
}

/// What cannot be a layout.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    /// Too many.
    #[error("a resource has at most {MAX_VOLUMES} volumes, not {0}")]
    TooMany(usize),
    /// The volumes have grown too often.
    #[error(
        "the volumes of a resource can grow {MAX_PIECES} times less their number, and have: save the data, and run \
         'tandemadm create-md' on both nodes"
    )]
    TooManyPieces,
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
    /// What follows, in the piece's pad.
    pub pad_bytes: u64,
}

/// A part of a range of the space that lies in one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Of which volume, counted from 0 by ascending number.
    pub index: usize,
    /// Where in the volume, from its first byte.
    pub range: ByteRange,
    /// Where in the space it begins.
    pub offset: u64,
}

impl Layout {
    /// The layout of these volumes, none of which has grown; one needs none.
    pub fn new(volumes: Vec<VolumeSize>) -> Result<Layout, LayoutError> {
        Layout::with_slots(volumes, SLOT_BYTES)
    }

    /// The same, each from a multiple of `slot_bytes` on, a power of two.
    pub fn with_slots(volumes: Vec<VolumeSize>, slot_bytes: u64) -> Result<Layout, LayoutError> {
        if volumes.len() > MAX_VOLUMES {
            return Err(LayoutError::TooMany(volumes.len()));
        }
        match volumes.windows(2).find(|pair| pair[0].number >= pair[1].number) {
            Some(pair) => Err(LayoutError::Order(pair[1].number)),
            None => Layout::of_pieces(volumes, slot_bytes),
        }
    }

    /// The layout of these pieces: the volumes by ascending number, then what they have grown by. No volume has two that stand
    /// one behind the other: that is one.
    pub fn of_pieces(sizes: Vec<VolumeSize>, slot_bytes: u64) -> Result<Layout, LayoutError> {
        if !slot_bytes.is_power_of_two() || !(BLOCK_BYTES..=SLOT_BYTES).contains(&slot_bytes) {
            return Err(LayoutError::Slots(slot_bytes));
        }
        if sizes.len() > MAX_PIECES {
            return Err(LayoutError::TooManyPieces);
        }
        let mut layout = Layout { slot_bytes, ..Layout::default() };
        for size in &sizes {
            layout.append(*size)?;
        }
        if layout.volumes.len() > MAX_VOLUMES {
            return Err(LayoutError::TooMany(layout.volumes.len()));
        }
        if sizes.len() < 2 {
            return Ok(Layout::default());
        }
        if layout.space_bytes().next_multiple_of(slot_bytes) > MAX_SPACE_BYTES {
            return Err(LayoutError::TooLarge);
        }
        Ok(layout)
    }

    fn append(&mut self, VolumeSize { number, bytes }: VolumeSize) -> Result<(), LayoutError> {
        if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(LayoutError::Size(number, bytes));
        }
        let end = self.space_bytes();
        if end.saturating_add(bytes) > MAX_SPACE_BYTES && end > 0 {
            return Err(LayoutError::TooLarge);
        }
        let known = self.volumes.iter().position(|volume| volume.number == number);
        let none_has_grown = self.pieces.len() == self.volumes.len();
        let last = self.pieces.last().map(|piece| piece.index);
        let index = match known {
            Some(index) if Some(index) != last => index,
            None if none_has_grown && self.volumes.last().is_none_or(|v| v.number < number) => {
                self.volumes.push(VolumeSize { number, bytes: 0 });
                self.volumes.len() - 1
            }
            _ => return Err(LayoutError::Order(number)),
        };
        let volume = &mut self.volumes[index];
        let at = ByteRange::new(end.next_multiple_of(self.slot_bytes), bytes);
        self.pieces.push(Piece { index, begin: volume.bytes, at });
        volume.bytes += bytes;
        Ok(())
    }

    /// The layout when a volume, counted from 0, has grown to this size: the space grows at its end.
    pub fn grown(&self, index: usize, bytes: u64) -> Result<Layout, LayoutError> {
        let Some(volume) = self.volumes.get(index).filter(|volume| volume.bytes < bytes) else {
            return Ok(self.clone());
        };
        let more = VolumeSize { number: volume.number, bytes: bytes - volume.bytes };
        let mut pieces = self.pieces();
        match pieces.last_mut().filter(|last| last.number == more.number) {
            Some(last) => last.bytes += more.bytes,
            None => pieces.push(more),
        }
        Layout::of_pieces(pieces, self.slot_bytes)
    }

    /// What of it lies in the first `space_bytes` of the space, where it once ended.
    pub fn cut_to(&self, space_bytes: u64) -> Layout {
        if !self.is_cut_at(space_bytes) {
            return self.clone();
        }
        let begun = self.pieces.iter().filter(|piece| piece.at.offset < space_bytes);
        let cut = begun.map(|piece| VolumeSize {
            number: self.volumes[piece.index].number,
            bytes: piece.at.end().min(space_bytes) - piece.at.offset,
        });
        Layout::of_pieces(cut.collect(), self.slot_bytes).unwrap_or_default()
    }

    /// Not all of it lies in the first `space_bytes`.
    pub fn is_cut_at(&self, space_bytes: u64) -> bool {
        !self.is_single() && space_bytes < self.space_bytes()
    }

    /// Every piece begins at a multiple of this.
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// Several volumes; none if the resource has one.
    pub fn volumes(&self) -> &[VolumeSize] {
        &self.volumes
    }

    /// The pieces of several volumes, as [`Layout::of_pieces`] takes them.
    pub fn pieces(&self) -> Vec<VolumeSize> {
        let size =
            |piece: &Piece| VolumeSize { number: self.volumes[piece.index].number, bytes: piece.at.length };
        self.pieces.iter().map(size).collect()
    }

    /// The resource has one volume.
    pub fn is_single(&self) -> bool {
        self.volumes.is_empty()
    }

    /// Number of volumes.
    pub fn count(&self) -> usize {
        self.volumes.len().max(1)
    }

    /// Where the pieces of a volume, counted from 0, lie, in order; a single volume is all of the space.
    pub fn ranges_of(&self, index: usize, space_bytes: u64) -> Vec<ByteRange> {
        match self.is_single() {
            true => vec![ByteRange::new(0, space_bytes)],
            false => self.pieces.iter().filter(|piece| piece.index == index).map(|piece| piece.at).collect(),
        }
    }

    /// The same for every volume.
    pub fn ranges(&self, space_bytes: u64) -> Vec<Vec<ByteRange>> {
        (0..self.count()).map(|index| self.ranges_of(index, space_bytes)).collect()
    }

    /// Where in the space a range of a volume, counted from 0, lies: a part per piece.
    pub fn in_space(&self, index: usize, range: ByteRange) -> Vec<ByteRange> {
        if self.is_single() {
            return vec![range];
        }
        let shared = |piece: &Piece| {
            let from = range.offset.max(piece.begin);
            let to = range.end().min(piece.begin + piece.at.length);
            (from < to).then(|| ByteRange::new(piece.at.offset + (from - piece.begin), to - from))
        };
        self.pieces.iter().filter(|piece| piece.index == index).filter_map(shared).collect()
    }

    /// From the first piece's beginning to the last one's end; 0 of a single volume.
    pub fn space_bytes(&self) -> u64 {
        self.pieces.last().map_or(0, |last| last.at.end())
    }

    /// What the slots behind the first piece take.
    pub fn bytes_behind_first(&self) -> u64 {
        self.pieces.iter().skip(1).map(|piece| piece.at.length.next_multiple_of(self.slot_bytes)).sum()
    }

    /// The volume, counted from 0, in which or in whose pad a byte lies.
    pub fn index_at(&self, offset: u64) -> usize {
        self.piece_at(offset).map_or(0, |(_, piece)| piece.index)
    }

    /// Where the slots of a byte's piece end, its pad with them.
    pub fn slot_end(&self, offset: u64) -> u64 {
        self.piece_at(offset).map_or(u64::MAX, |(n, _)| self.slots_end(n))
    }

    /// Where a range lies; `None` if it touches two pieces.
    pub fn place(&self, range: ByteRange) -> Option<Place> {
        let Some((n, piece)) = self.piece_at(range.offset) else {
            return Some(Place { index: 0, range, pad_bytes: 0 });
        };
        if range.end() > self.slots_end(n) {
            return None;
        }
        let end = range.end().min(piece.at.end()).max(range.offset);
        let offset = piece.begin + (range.offset - piece.at.offset);
        let inside = ByteRange::new(offset, end - range.offset);
        Some(Place { index: piece.index, range: inside, pad_bytes: range.length - inside.length })
    }

    /// The parts of a range by piece; pads are left out.
    pub fn parts(&self, range: ByteRange) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut from = range.offset;
        while from < range.end() {
            let to = self.slot_end(from).min(range.end());
            if let Some(place) = self.place(ByteRange::new(from, to - from)).filter(|p| p.range.length > 0) {
                parts.push(Part { index: place.index, range: place.range, offset: from });
            }
            from = to;
        }
        parts
    }

    /// The other one is this, or what came of it when volumes grew.
    pub fn begins(&self, other: &Layout) -> bool {
        self.volumes.len() == other.volumes.len() && other.cut_to(self.space_bytes()) == *self
    }

    /// Both are for volumes of the same numbers.
    pub fn has_same_volumes(&self, other: &Layout) -> bool {
        let numbers = |layout: &Layout| layout.volumes.iter().map(|v| v.number).collect::<Vec<_>>();
        self.slot_bytes == other.slot_bytes && numbers(self) == numbers(other)
    }

    /// What two nodes must change of which neither has what came of the other's; `None` if one does.
    pub fn disagreement(&self, theirs: &Layout) -> Option<String> {
        match self.begins(theirs) || theirs.begins(self) {
            true => None,
            false if self.has_same_volumes(theirs) => Some(grown_apart()),
            false => self.difference(theirs),
        }
    }

    /// What two nodes must change that shall have the same; `None` if they do.
    pub fn difference(&self, theirs: &Layout) -> Option<String> {
        let numbers = |layout: &Layout| match layout.is_single() {
            true => "one volume".to_owned(),
            false => {
                let numbers: Vec<String> =
                    layout.volumes.iter().map(|volume| volume.number.to_string()).collect();
                format!("volumes {}", numbers.join(", "))
            }
        };
        if !self.has_same_volumes(theirs) {
            return Some(format!(
                "{VOLUMES_DIFFER}: the meta-data here is for {}, the peer's for {}; correct the configuration, and run \
                 'tandemadm create-md' on the node whose data may be overwritten",
                numbers(self),
                numbers(theirs)
            ));
        }
        if self == theirs {
            return None;
        }
        let mut pairs = self.volumes.iter().zip(&theirs.volumes);
        let Some((ours, theirs)) = pairs.find(|(a, b)| a.bytes != b.bytes) else {
            return Some(grown_apart());
        };
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

    /// Where the slots of a piece end; those of the last one go on.
    fn slots_end(&self, n: usize) -> u64 {
        match n + 1 < self.pieces.len() {
            true => self.pieces[n].at.end().next_multiple_of(self.slot_bytes),
            false => u64::MAX,
        }
    }

    /// The piece in whose slots a byte lies, and its number; none of a single volume. Asked for every request.
    fn piece_at(&self, offset: u64) -> Option<(usize, Piece)> {
        let begun = self.pieces.partition_point(|piece| piece.at.offset <= offset);
        let n = begun.checked_sub(1)?;
        Some((n, self.pieces[n]))
    }
}

/// Each node has grown volumes without the other, and not the same.
fn grown_apart() -> String {
    format!(
        "{SIZES_DIFFER}: volumes have grown on both nodes while they were apart, and not in the same way: run 'tandemadm create-md' on \
         the node whose data may be overwritten"
    )
}
