//! What the bodies of frames are made of, as it is read.

use crate::digest::DigestAlgorithm;
use crate::layout::MAX_PIECES;
use crate::units::{ByteRange, NodeId};
use crate::wire::Stream;

/// The part of a body not yet read; every getter is `None` past the end.
pub(super) struct Body<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Body<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(|[b]| b)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn algorithm(&mut self) -> Option<DigestAlgorithm> {
        DigestAlgorithm::from_u8(self.u8()?)
    }

    pub(super) fn stream(&mut self) -> Option<Stream> {
        match self.u8()? {
            0 => Some(Stream::Data),
            1 => Some(Stream::Control),
            _ => None,
        }
    }

    pub(super) fn rest(&mut self, most: usize) -> Option<&'a [u8]> {
        Some(std::mem::take(&mut self.bytes)).filter(|rest| rest.len() <= most)
    }

    pub(super) fn node(&mut self) -> Option<NodeId> {
        self.u8().map(NodeId)
    }

    pub(super) fn range(&mut self) -> Option<ByteRange> {
        let range = ByteRange::new(self.u64()?, self.u64()?);
        range.offset.checked_add(range.length)?;
        Some(range)
    }

    /// At least one, in ascending order.
    pub(super) fn ranges(&mut self) -> Option<Vec<ByteRange>> {
        let count = usize::from(self.u8()?);
        let ranges: Vec<ByteRange> = (0..count).map(|_| self.range()).collect::<Option<_>>()?;
        let ascending = ranges.windows(2).all(|pair| pair[0].end() <= pair[1].offset);
        Some(ranges).filter(|ranges| ascending && (1..=MAX_PIECES).contains(&ranges.len()))
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}
