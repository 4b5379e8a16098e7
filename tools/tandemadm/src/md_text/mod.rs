//! `dump-md` and `restore-md`: a disk's metadata as a text for people, which can be edited and written back.
//! The words are drbdmeta's where they mean the same.

mod read;
mod write;

use tandem_core::bitmap::Bitmap;
use tandem_core::metadata::{Metadata, Superblock};

pub use read::{ParseError, parse};
pub use write::dump;

/// What the first line with content says.
const VERSION: &str = "tandem1";
/// Stands in the dump of metadata whose activity log counts, so that nobody restores it by mistake. drbdmeta's.
const UNCLEAN: &str = "This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap.";
/// The word for no node.
const NO_NODE: &str = "-1";

/// All of a disk's metadata but the activity log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// The superblock.
    pub superblock: Superblock,
    /// What the bitmaps are for.
    pub volume_bytes: u64,
    /// One for each slot of the superblock.
    pub bitmaps: Vec<Bitmap>,
}

impl From<Metadata> for Image {
    fn from(metadata: Metadata) -> Image {
        let volume_bytes = metadata.volume_bytes();
        Image { superblock: metadata.superblock, volume_bytes, bitmaps: metadata.bitmaps }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use tandem_core::generation::{Generations, HISTORY_SLOTS};
    use tandem_core::layout::{Layout, VolumeSize};
    use tandem_core::metadata::{ActivityLogState, Flags, PeerSlot, Placement};
    use tandem_core::units::{BLOCK_BYTES, ByteRange, NodeId};

    use super::*;

    const ROOM: u64 = 400 * BLOCK_BYTES;

    fn node() -> impl Strategy<Value = Option<NodeId>> {
        proptest::option::of((0..32u8).prop_map(NodeId))
    }

    fn slot() -> impl Strategy<Value = PeerSlot> {
        (node(), any::<(u64, u64)>(), any::<[bool; 4]>()).prop_map(|(node, (bitmap_id, resync_id), flags)| {
            let [outdated, fenced, gave_up, overcounted] = flags;
            PeerSlot { node, bitmap_id, resync_id, outdated, fenced, gave_up, overcounted }
        })
    }

    prop_compose! {
        fn superblock()(
            node in node(),
            [sequence, device_id, backing_bytes, current, undo_id] in any::<[u64; 5]>(),
            flags in any::<[bool; 4]>(),
            external in any::<bool>(),
            history in any::<[u64; HISTORY_SLOTS]>(),
            peers in proptest::collection::vec(slot(), 1..5),
        ) -> Superblock {
            let [consistent, up_to_date, crashed_primary, failed] = flags;
            Superblock {
                sequence, device_id, agreed_bytes: 0, backing_bytes,
                flags: Flags { consistent, up_to_date, primary: false, crashed_primary, failed },
                node,
                placement: if external { Placement::External } else { Placement::Internal },
                activity_log: ActivityLogState::Closed,
                generations: Generations { current, history },
                undo_id,
                layout: Layout::default(),
                room_behind_first: 0,
                peers,
            }
        }
    }

    prop_compose! {
        fn image()(superblock in superblock(), blocks in 1..400u64, short in 0..4096u64)(
            ranges in proptest::collection::vec(
                proptest::collection::vec((0..blocks, 1..200u64), 0..6), superblock.peers.len()
            ),
            volume_bytes in Just(blocks * BLOCK_BYTES - short),
            superblock in Just(superblock),
            agreed in any::<bool>(),
        ) -> Image {
            let agreed_bytes = if agreed { volume_bytes } else { 0 };
            let superblock = Superblock { agreed_bytes, ..superblock };
            let bitmaps = ranges.into_iter().map(|ranges| {
                let mut bitmap = Bitmap::new(volume_bytes);
                let bytes = |(first, count)| ByteRange::new(first * BLOCK_BYTES, count * BLOCK_BYTES);
                ranges.into_iter().for_each(|range| bitmap.set_range(bytes(range)));
                bitmap.mark_written();
                bitmap
            });
            let bitmaps = bitmaps.collect();
            Image { superblock, volume_bytes, bitmaps }
        }
    }

    proptest! {
        #[test]
        fn what_is_dumped_is_read_back(image in image()) {
            prop_assert_eq!(parse(&dump(&image, "alpha", "r0"), ROOM).unwrap(), image);
        }

        #[test]
        fn no_dump_that_is_cut_off_or_altered_is_half_believed(image in image(), at in any::<prop::sample::Index>(), byte in 0..128u8) {
            let text = dump(&image, "alpha", "r0");
            let mut bytes = text.clone().into_bytes();
            let at = at.index(bytes.len());
            // A cut may spare only comments and blanks.
            if let Ok(half) = parse(&text[..at], ROOM) {
                prop_assert_eq!(half, image.clone());
            }
            bytes[at] = byte;
            // Whatever it says, it is said or understood.
            let _ = parse(std::str::from_utf8(&bytes).unwrap(), ROOM);
        }
    }

    fn small() -> Image {
        let mut superblock = Superblock::fresh(0xD, 1 << 20, Placement::Internal, 1);
        (superblock.node, superblock.agreed_bytes) = (Some(NodeId(0)), 130 * BLOCK_BYTES);
        (superblock.flags.consistent, superblock.flags.up_to_date) = (true, true);
        superblock.generations.current = 0xABC;
        superblock.generations.history[0] = 0x11;
        superblock.peers[0].node = Some(NodeId(1));
        superblock.peers[0].fenced = true;
        let mut bitmap = Bitmap::new(130 * BLOCK_BYTES);
        bitmap.set_range(ByteRange::new(64 * BLOCK_BYTES, 66 * BLOCK_BYTES));
        bitmap.mark_written();
        Image { superblock, volume_bytes: 130 * BLOCK_BYTES, bitmaps: vec![bitmap] }
    }

    #[test]
    fn a_dump_reads_like_drbdmetas() {
        let zeroes =
            "        0x0000000000000000; 0x0000000000000000; 0x0000000000000000; 0x0000000000000000;\n";
        let expected = format!(
            "# Tandem meta data dump\n# alpha> tandemadm dump-md r0\n#\n\nversion \"tandem1\";\n\nmax-peers 1;\n\
             meta-disk internal;\n\nnode-id 0;\ncurrent-uuid 0x0000000000000ABC;\nflags consistent was-up-to-date;\n\
             peer[0] {{\n    node-id 1;\n    bitmap-uuid 0x0000000000000000;\n    resync-uuid 0x0000000000000000;\n    \
             flags fenced;\n}}\nhistory-uuids {{\n        0x0000000000000011; 0x0000000000000000; 0x0000000000000000; \
             0x0000000000000000;\n{}}}\nla-size-bytes 532480;\nbacking-bytes 1048576;\nbm-byte-per-bit 4096;\n\
             device-uuid 0x000000000000000D;\nundo-log 0x0000000000000000;\nsequence 0;\n\nbm-covers-bytes 532480;\n\
             bitmap[0] {{\n    0x0000000000000000;\n    0xFFFFFFFFFFFFFFFF; # at 256 kB\n    0x0000000000000003; \
             # at 512 kB\n}}\n# bits-set 66;\n",
            zeroes.repeat(7)
        );
        assert_eq!(dump(&small(), "alpha", "r0"), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let good = dump(&small(), "alpha", "r0");
        for (from, to, error) in [
            (
                "version \"tandem1\"",
                "version \"v09\"",
                "line 5: this release restores version \"tandem1\" only",
            ),
            ("max-peers 1", "max-peers 32", "line 7: a number from 1 to 31 expected, got '32'"),
            ("node-id 0;", "node-id 32;", "line 10: a number from 0 to 31 expected, got '32'"),
            ("la-size-bytes", "la-siz", "line 29: keyword 'la-size-bytes' expected, got 'la-siz'"),
            ("flags fenced", "flags fence", "line 17: no such flag: 'fence'"),
            ("peer[0]", "peer[1]", "line 13: a number from 0 to 0 expected, got '1'"),
            (
                "532480;\nbitmap",
                "532479;\nbitmap",
                "line 36: the bitmaps cover 532479 bytes, the size is 532480",
            ),
            ("3; #", "7; #", "line 40: the bitmap marks what lies behind the volume's end"),
            (
                "    0xFFFFFFFFFFFFFFFF; # at 256 kB\n",
                "",
                "line 40: the bitmap has 2 words of 64 blocks, 3 are needed",
            ),
            (
                "    0x0000000000000000;\n    0xF",
                "   9 times 0x0000000000000000;\n    0xF",
                "line 38: the bitmap has more than 3 words of 64 blocks",
            ),
            ("# bits-set 66;\n", "more\n", "line 42: nothing more expected, got 'more'"),
            ("}\n# bits-set 66;\n", "", "line 40: '}' expected, got the end"),
        ] {
            assert!(good.contains(from), "{from}");
            let found = parse(&good.replacen(from, to, 1), ROOM).unwrap_err().to_string();
            assert!(found.starts_with(&format!("Parse error in {error}")), "{found}\nis not {error}");
        }
    }

    #[test]
    fn several_volumes_stand_in_the_dump() {
        let mut image = small();
        let volumes =
            [(0, 8), (3, 2)].map(|(number, blocks)| VolumeSize { number, bytes: blocks * BLOCK_BYTES });
        image.superblock.layout = Layout::new(volumes.to_vec()).unwrap();
        image.volume_bytes = image.superblock.layout.space_bytes();
        image.superblock.agreed_bytes = 0;
        image.bitmaps = vec![Bitmap::new(image.volume_bytes)];
        let text = dump(&image, "alpha", "r0");
        assert!(
            text.contains(
                "volume 0 size-bytes 32768;\nvolume 3 size-bytes 8192;\nbm-covers-bytes 4202496;\n"
            ),
            "{text}"
        );
        assert_eq!(parse(&text, 8 << 20).unwrap(), image);
        let mut grown = image.clone();
        grown.superblock.layout = image.superblock.layout.grown(0, 10 * BLOCK_BYTES).unwrap();
        grown.superblock.room_behind_first = 64 << 20;
        grown.volume_bytes = grown.superblock.layout.space_bytes();
        grown.bitmaps = vec![Bitmap::new(grown.volume_bytes)];
        assert_eq!(parse(&dump(&grown, "alpha", "r0"), 16 << 20).unwrap(), grown);
        for (from, to, error) in [
            ("volume 3", "volume 0", "volume 0 stands twice"),
            (
                "size-bytes 8192",
                "size-bytes 4096",
                "the bitmaps cover 4202496 bytes, the volumes take 4198400",
            ),
        ] {
            let found = parse(&text.replace(from, to), 8 << 20).unwrap_err().to_string();
            assert!(found.contains(error), "{found}");
        }
    }

    #[test]
    fn an_unclean_dump_is_for_reading_only() {
        let mut unclean = small();
        unclean.superblock.activity_log = ActivityLogState::Open(7);
        let text = dump(&unclean, "alpha", "r0");
        assert!(text.contains("# You should \"apply-al\" first, if you plan to restore this."));
        let error = parse(&text, ROOM).unwrap_err().to_string();
        assert!(error.contains("apply-al"), "{error}");
    }
}
