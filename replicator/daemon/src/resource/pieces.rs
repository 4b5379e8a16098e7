//! A client's request where its volume consists of several pieces: the engine takes one for each.

use bytes::{Bytes, BytesMut};
use tandem_core::io::{ClientError, ClientOp, Payload};
use tandem_core::layout::Layout;
use tandem_core::units::ByteRange;

/// What a request for a range of a volume, counted from 0, is in the resource's space of blocks.
pub(crate) fn in_space(op: ClientOp, layout: &Layout, volume: usize) -> Vec<ClientOp> {
    let parts = |range| layout.in_space(volume, range).into_iter();
    match op {
        ClientOp::Flush => vec![ClientOp::Flush],
        ClientOp::Read(range) => parts(range).map(ClientOp::Read).collect(),
        ClientOp::Zero { range, unmap, fua } => {
            parts(range).map(|range| ClientOp::Zero { range, unmap, fua }).collect()
        }
        ClientOp::Write { offset, payload, fua } => {
            let ranges: Vec<ByteRange> = parts(ByteRange::new(offset, payload.len())).collect();
            if let [only] = ranges[..] {
                return vec![ClientOp::Write { offset: only.offset, payload, fua }];
            }
            let mut rest = payload.data;
            let write = |range: ByteRange| {
                let payload = Payload::new(rest.split_to(range.length as usize));
                ClientOp::Write { offset: range.offset, payload, fua }
            };
            ranges.into_iter().map(write).collect()
        }
    }
}

/// A request whose parts the engine has.
pub(crate) struct Whole {
    /// What was read, by part; nothing while it is not done.
    done: Vec<Option<Bytes>>,
    left: usize,
    error: Option<ClientError>,
}

impl Whole {
    pub(crate) fn of(parts: usize) -> Whole {
        Whole { done: vec![None; parts], left: parts, error: None }
    }

    /// True when all have ended.
    pub(crate) fn part_ended(&mut self, part: usize, result: Result<Bytes, ClientError>) -> bool {
        self.left -= 1;
        match result {
            Ok(data) => self.done[part] = Some(data),
            Err(error) => self.error = Some(error),
        }
        self.left == 0
    }

    /// It has failed if one part has.
    pub(crate) fn into_result(self) -> Result<Bytes, ClientError> {
        let mut whole = BytesMut::new();
        self.done.iter().flatten().for_each(|data| whole.extend_from_slice(data));
        self.error.map_or(Ok(whole.freeze()), Err)
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::layout::{SLOT_BYTES, VolumeSize};

    use super::*;

    /// Two volumes of two blocks each, the first of which has grown to four.
    fn layout() -> Layout {
        let volumes = [0, 1].map(|number| VolumeSize { number, bytes: 8192 });
        Layout::new(volumes.to_vec()).unwrap().grown(0, 4 * 4096).unwrap()
    }

    #[test]
    fn a_request_for_two_pieces_becomes_two() {
        let layout = layout();
        let range = ByteRange::new(4096, 2 * 4096);
        let parts = [ByteRange::new(4096, 4096), ByteRange::new(2 * SLOT_BYTES, 4096)];
        assert_eq!(in_space(ClientOp::Read(range), &layout, 0), parts.map(ClientOp::Read));
        let zero = |range| ClientOp::Zero { range, unmap: true, fua: true };
        assert_eq!(in_space(zero(range), &layout, 0), parts.map(zero));
        assert_eq!(in_space(ClientOp::Flush, &layout, 0), [ClientOp::Flush], "once");
        let data = Bytes::from([vec![1; 4096], vec![2; 4096]].concat());
        let write = ClientOp::Write { offset: 4096, payload: Payload::new(data.clone()), fua: true };
        let half = |n: usize| {
            let payload = Payload::new(data.slice(n * 4096..(n + 1) * 4096));
            ClientOp::Write { offset: parts[n].offset, payload, fua: true }
        };
        assert_eq!(in_space(write.clone(), &layout, 0), [half(0), half(1)]);
        let other = ByteRange::new(4096, 512);
        let there = ByteRange::new(SLOT_BYTES + 4096, 512);
        assert_eq!(in_space(ClientOp::Read(other), &layout, 1), [ClientOp::Read(there)]);
    }

    #[test]
    fn a_request_ends_with_its_last_part_and_fails_with_any() {
        let part = |byte| Ok(Bytes::from(vec![byte; 2]));
        let mut whole = Whole::of(2);
        assert!(!whole.part_ended(1, part(2)));
        assert!(whole.part_ended(0, part(1)));
        assert_eq!(whole.into_result().unwrap(), [1, 1, 2, 2][..]);
        let mut whole = Whole::of(2);
        assert!(!whole.part_ended(0, Err(ClientError::Io)));
        assert!(whole.part_ended(1, part(2)));
        assert_eq!(whole.into_result(), Err(ClientError::Io));
    }
}
