//! The text.

use std::fmt::{self, Write};

use tandem_core::bitmap::Bitmap;
use tandem_core::metadata::{ActivityLogState, Flags, PeerSlot, Placement};
use tandem_core::units::{BLOCK_BYTES, NodeId};

use super::{Image, NO_NODE, UNCLEAN, VERSION};

const HISTORY_PER_LINE: usize = 4;
const BLOCKS_PER_WORD: u64 = 64;

/// The metadata of `resource` on the node `node`, as it was read.
pub fn dump(image: &Image, node: &str, resource: &str) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut text, image, node, resource);
    text
}

fn write_all(text: &mut String, image: &Image, node: &str, resource: &str) -> fmt::Result {
    let superblock = &image.superblock;
    writeln!(text, "# Tandem meta data dump\n# {node}> tandemadm dump-md {resource}\n#\n")?;
    writeln!(text, "version \"{VERSION}\";\n")?;
    if superblock.flags.primary || superblock.activity_log != ActivityLogState::Closed {
        writeln!(text, "{UNCLEAN}\n# You should \"apply-al\" first, if you plan to restore this.")?;
        writeln!(text, "# {}\n", log_state(superblock.activity_log))?;
    }
    writeln!(
        text,
        "max-peers {};\nmeta-disk {};\n",
        superblock.peers.len(),
        placement(superblock.placement)
    )?;
    writeln!(text, "node-id {};", node_id(superblock.node))?;
    writeln!(text, "current-uuid {};", hex(superblock.generations.current))?;
    writeln!(text, "flags{};", device_flags(superblock.flags))?;
    for (slot, peer) in superblock.peers.iter().enumerate() {
        write_peer(text, slot, peer)?;
    }
    writeln!(text, "history-uuids {{")?;
    for line in superblock.generations.history.chunks(HISTORY_PER_LINE) {
        let ids: Vec<String> = line.iter().map(|id| format!("{};", hex(*id))).collect();
        writeln!(text, "        {}", ids.join(" "))?;
    }
    writeln!(text, "}}")?;
    writeln!(text, "la-size-bytes {};", superblock.agreed_bytes)?;
    writeln!(text, "backing-bytes {};", superblock.backing_bytes)?;
    writeln!(text, "bm-byte-per-bit {BLOCK_BYTES};")?;
    writeln!(text, "device-uuid {};", hex(superblock.device_id))?;
    writeln!(text, "undo-log {};", hex(superblock.undo_id))?;
    writeln!(text, "sequence {};\n", superblock.sequence)?;
    for piece in superblock.layout.pieces() {
        writeln!(text, "volume {} size-bytes {};", piece.number, piece.bytes)?;
    }
    if superblock.room_behind_first > 0 {
        writeln!(text, "bm-room-behind-first {};", superblock.room_behind_first)?;
    }
    writeln!(text, "bm-covers-bytes {};", image.volume_bytes)?;
    image.bitmaps.iter().enumerate().try_for_each(|(slot, bitmap)| write_bitmap(text, slot, bitmap))
}

fn write_peer(text: &mut String, slot: usize, peer: &PeerSlot) -> fmt::Result {
    writeln!(text, "peer[{slot}] {{")?;
    writeln!(text, "    node-id {};", node_id(peer.node))?;
    writeln!(text, "    bitmap-uuid {};", hex(peer.bitmap_id))?;
    writeln!(text, "    resync-uuid {};", hex(peer.resync_id))?;
    writeln!(text, "    flags{};\n}}", peer_flags(peer))
}

/// A line for each run of equal words.
fn write_bitmap(text: &mut String, slot: usize, bitmap: &Bitmap) -> fmt::Result {
    writeln!(text, "bitmap[{slot}] {{")?;
    let mut first = 0;
    for run in bitmap.words().chunk_by(|a, b| a == b) {
        match run.len() {
            1 => write!(text, "    {};", hex(run[0]))?,
            count => write!(text, "    {count} times {};", hex(run[0]))?,
        }
        match run[0] {
            0 => writeln!(text)?,
            _ => writeln!(text, " # at {} kB", first * BLOCKS_PER_WORD * BLOCK_BYTES / 1024)?,
        }
        first += run.len() as u64;
    }
    writeln!(text, "}}\n# bits-set {};", bitmap.set_count())
}

fn log_state(state: ActivityLogState) -> String {
    match state {
        ActivityLogState::Closed => "crashed as Primary; everything may differ".to_owned(),
        ActivityLogState::Open(first) => format!("the activity log counts from transaction {first} on"),
        ActivityLogState::Unlogged => "no activity log was kept; everything may differ".to_owned(),
    }
}

fn placement(placement: Placement) -> &'static str {
    match placement {
        Placement::Internal => "internal",
        Placement::External => "external",
    }
}

fn node_id(node: Option<NodeId>) -> String {
    node.map_or_else(|| NO_NODE.to_owned(), |node| node.to_string())
}

fn hex(id: u64) -> String {
    format!("0x{id:016X}")
}

fn device_flags(flags: Flags) -> String {
    let Flags { consistent, up_to_date, primary, crashed_primary, failed } = flags;
    words(&[
        (consistent, "consistent"),
        (up_to_date, "was-up-to-date"),
        (primary, "primary"),
        (crashed_primary, "crashed-primary"),
        (failed, "failed-under-primary"),
    ])
}

fn peer_flags(peer: &PeerSlot) -> String {
    words(&[
        (peer.outdated, "outdated"),
        (peer.fenced, "fenced"),
        (peer.gave_up, "gave-up"),
        (peer.overcounted, "overcounted"),
    ])
}

fn words(flags: &[(bool, &str)]) -> String {
    flags.iter().filter(|(set, _)| *set).map(|(_, word)| format!(" {word}")).collect()
}
