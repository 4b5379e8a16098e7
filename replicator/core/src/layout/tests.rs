//! Pieces and volumes belong together one to one, and what has grown begins with what it was.

use proptest::prelude::*;

use super::*;

fn layout(sizes: &[(u16, u64)]) -> Layout {
    let volumes = sizes.iter().map(|&(number, blocks)| VolumeSize { number, bytes: blocks * BLOCK_BYTES });
    Layout::new(volumes.collect()).unwrap()
}

#[test]
fn one_volume_is_the_space() {
    let one = layout(&[(3, 5)]);
    assert!(one.is_single() && one == Layout::default());
    assert_eq!(one.ranges(777), [[ByteRange::new(0, 777)]]);
    let range = ByteRange::new(SLOT_BYTES - 512, 9 << 20);
    assert_eq!(one.place(range), Some(Place { index: 0, range, pad_bytes: 0 }));
    assert_eq!(one.parts(range), [Part { index: 0, range, offset: range.offset }]);
    assert_eq!(one.in_space(0, range), [range]);
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
fn what_is_no_list_of_pieces_is_refused() {
    let pieces = |sizes: &[(u16, u64)]| {
        let sizes = sizes.iter().map(|&(number, blocks)| VolumeSize { number, bytes: blocks * BLOCK_BYTES });
        Layout::of_pieces(sizes.collect(), SLOT_BYTES).map(|layout| layout.volumes().to_vec())
    };
    let grown = [(0, 8 * BLOCK_BYTES), (1, 3 * BLOCK_BYTES), (2, BLOCK_BYTES)];
    let grown = grown.map(|(number, bytes)| VolumeSize { number, bytes }).to_vec();
    assert_eq!(pieces(&[(0, 3), (1, 3), (2, 1), (0, 5)]), Ok(grown));
    assert_eq!(pieces(&[(0, 3), (1, 3), (0, 5), (2, 1)]), Err(LayoutError::Order(2)), "it was never made");
    assert_eq!(pieces(&[(0, 3), (0, 5), (1, 3)]), Err(LayoutError::Order(0)), "that is one piece");
    let mut often = vec![(0, 1), (1, 1)];
    often.extend((0..MAX_PIECES as u16 - 2).map(|n| (n % 2, 1)));
    assert!(pieces(&often).is_ok());
    often.push((0, 1));
    assert_eq!(pieces(&often), Err(LayoutError::TooManyPieces));
}

#[test]
fn volumes_grow_in_turns() {
    let made = layout(&[(0, 3), (1, 3)]);
    let longer = made.grown(1, 5 * BLOCK_BYTES).unwrap();
    assert_eq!(longer.space_bytes(), SLOT_BYTES + 5 * BLOCK_BYTES, "the last piece grows where it is");
    let both = longer.grown(0, 7 * BLOCK_BYTES).unwrap();
    assert_eq!(both.space_bytes(), 2 * SLOT_BYTES + 4 * BLOCK_BYTES);
    let across = ByteRange::new(2 * BLOCK_BYTES, 3 * BLOCK_BYTES);
    let parts = [ByteRange::new(across.offset, BLOCK_BYTES), ByteRange::new(2 * SLOT_BYTES, 2 * BLOCK_BYTES)];
    assert_eq!(both.in_space(0, across), parts);
    assert_eq!(
        both.place(ByteRange::new(2 * SLOT_BYTES, 512)).map(|p| p.range.offset),
        Some(3 * BLOCK_BYTES)
    );
    assert!(made.begins(&longer) && longer.begins(&both) && made.begins(&both) && !both.begins(&made));
    assert_eq!(made.disagreement(&both), None);
    assert!(made.difference(&both).is_some());
    assert_eq!(both.grown(0, BLOCK_BYTES), Ok(both.clone()), "none shrinks");
    assert_eq!(both.bytes_behind_first(), 2 * SLOT_BYTES);

    let other_way = made.grown(0, 7 * BLOCK_BYTES).unwrap().grown(1, 5 * BLOCK_BYTES).unwrap();
    assert_eq!(other_way.volumes(), both.volumes());
    let text = both.disagreement(&other_way).unwrap();
    assert!(text.contains("while they were apart"), "{text}");
}

#[test]
fn nodes_that_disagree_are_told_where() {
    let ours = layout(&[(0, 8), (1, 16)]);
    assert_eq!(ours.disagreement(&ours.clone()), None);
    let text = ours.difference(&layout(&[(0, 8), (1, 12)])).unwrap();
    assert!(text.contains("volume 1 has 65536 bytes here, 49152 bytes on the peer"), "{text}");
    assert!(text.contains("'volume 1 { disk { size 48k; } }'"), "{text}");
    let text = ours.disagreement(&Layout::default()).unwrap();
    assert!(text.contains("here is for volumes 0, 1, the peer's for one volume"), "{text}");
}

prop_compose! {
    fn any_layout()(
        sizes in prop::collection::vec((1u16..9, 1u64..5000), 2..6),
        growth in prop::collection::vec((0usize..6, 0u64..3000), 0..8),
    ) -> Layout {
        let mut number = 0;
        let volumes = sizes.iter().map(|(step, blocks)| {
            number += step;
            VolumeSize { number, bytes: blocks * BLOCK_BYTES }
        });
        let layout = Layout::new(volumes.collect()).unwrap();
        growth.iter().fold(layout, |layout, (index, blocks)| {
            let index = index % layout.count();
            layout.grown(index, layout.volumes()[index].bytes + blocks * BLOCK_BYTES).unwrap()
        })
    }
}

proptest! {
    #[test]
    fn pieces_begin_at_slots_and_never_overlap(layout in any_layout()) {
        let volumes = layout.ranges(0);
        prop_assert_eq!(volumes.len(), layout.count());
        for (ranges, volume) in volumes.iter().zip(layout.volumes()) {
            prop_assert!(ranges.iter().all(|range| range.offset.is_multiple_of(SLOT_BYTES)));
            prop_assert_eq!(ranges.iter().map(|range| range.length).sum::<u64>(), volume.bytes);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end() <= pair[1].offset));
        }
        let mut ranges: Vec<ByteRange> = volumes.into_iter().flatten().collect();
        ranges.sort_by_key(|range| range.offset);
        for pair in ranges.windows(2) {
            prop_assert!(pair[0].end() <= pair[1].offset);
            prop_assert!(pair[1].offset - pair[0].end() < SLOT_BYTES);
        }
        prop_assert_eq!(layout.space_bytes(), ranges[ranges.len() - 1].end());
        prop_assert_eq!(Layout::of_pieces(layout.pieces(), SLOT_BYTES), Ok(layout));
    }

    /// What lay somewhere lies there for ever: the space grows at its end.
    #[test]
    fn what_has_grown_begins_with_what_it_was(
        layout in any_layout(),
        index in 0usize..6,
        blocks in 1u64..3000,
        at in 0f64..1.0,
    ) {
        let index = index % layout.count();
        let grown = layout.grown(index, layout.volumes()[index].bytes + blocks * BLOCK_BYTES).unwrap();
        prop_assert!(layout.begins(&grown) && !grown.begins(&layout));
        prop_assert_eq!(grown.cut_to(layout.space_bytes()), layout.clone());
        let offset = (layout.space_bytes() as f64 * at) as u64;
        let parts = layout.parts(ByteRange::new(offset, 1));
        prop_assert_eq!(parts, grown.parts(ByteRange::new(offset, 1)));
    }

    /// A volume's bytes and the space's, but for the pads, belong together one to one.
    #[test]
    fn a_range_of_a_volume_is_found_again(layout in any_layout(), from in 0f64..1.0, length in 1u64..40_000_000) {
        for (index, volume) in layout.volumes().iter().enumerate() {
            let offset = (volume.bytes as f64 * from) as u64;
            let range = ByteRange::new(offset, length.min(volume.bytes - offset));
            let mut next = range.offset;
            for part in layout.in_space(index, range) {
                let place = layout.place(part);
                prop_assert_eq!(
                    place,
                    Some(Place { index, range: ByteRange::new(next, part.length), pad_bytes: 0 })
                );
                next += part.length;
            }
            prop_assert_eq!(next, range.end());
        }
    }

    #[test]
    fn every_byte_has_one_place(layout in any_layout(), at in 0f64..1.0, length in 1u64..9_000_000) {
        let space = layout.space_bytes();
        let offset = (space as f64 * at) as u64;
        let range = ByteRange::new(offset, length.min(space - offset));
        // An extent never lies in the slots of two pieces.
        let extent = ByteRange::new(offset / SLOT_BYTES * SLOT_BYTES, SLOT_BYTES);
        prop_assert!(layout.place(extent).is_some());
        if let Some(place) = layout.place(range) {
            prop_assert_eq!(place.range.length + place.pad_bytes, range.length);
            prop_assert_eq!(place.index, layout.index_at(range.end() - 1));
            prop_assert!(place.range.length == 0 || place.range.end() <= layout.volumes()[place.index].bytes);
        } else {
            prop_assert!(layout.slot_end(offset) < range.end());
        }
        // The parts are what the volumes' pieces share with the range.
        let mut shared = Vec::new();
        for (index, pieces) in layout.ranges(0).iter().enumerate() {
            let mut begin = 0;
            for piece in pieces {
                let (from, to) = (range.offset.max(piece.offset), range.end().min(piece.end()));
                if from < to {
                    let inside = ByteRange::new(begin + (from - piece.offset), to - from);
                    shared.push(Part { index, range: inside, offset: from });
                }
                begin += piece.length;
            }
        }
        shared.sort_by_key(|part| part.offset);
        prop_assert_eq!(layout.parts(range), shared);
    }
}
