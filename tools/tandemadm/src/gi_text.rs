//! `show-gi` and `get-gi`: the generation identifiers of the data on a disk.

use std::fmt::Write;

use tandem_control::{NodeSpec, ResourceSpec, ResourceStatus};
use tandem_core::metadata::{ActivityLogState, PeerSlot, Superblock};
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::units::NodeId;

/// Generations of history that are shown; the others only serve the handshake.
const HISTORY_SHOWN: usize = 2;

/// One line per peer, as drbdmeta's for DRBD 9: `C:B:H0:H1:` and twelve flags of 0 or 1 with colons between: data
/// consistent, was UpToDate, was Primary, crashed Primary, activity log applied, activity log off, lost quorum as
/// Primary, connected, peer outdated, peer fenced, full sync needed, peer's disk seen.
pub fn get_gi(spec: &ResourceSpec, superblock: &Superblock, live: Option<&ResourceStatus>) -> String {
    spec.peers.iter().map(|peer| line(superblock, peer.id, live) + "\n").collect()
}

/// The same of one peer.
pub(crate) fn line(superblock: &Superblock, peer: NodeId, live: Option<&ResourceStatus>) -> String {
    let slot = slot_of(superblock, peer);
    let ids = [superblock.generations.current, slot.map_or(0, |s| s.bitmap_id)];
    let ids = ids.iter().chain(&superblock.generations.history[..HISTORY_SHOWN]);
    let flags = flags(superblock, slot, live, peer).map(|flag| if flag { "1" } else { "0" });
    ids.map(|id| format!("{id:016X}:")).collect::<String>() + &flags.join(":")
}

/// The identifiers and what they mean, for people.
pub fn show_gi(spec: &ResourceSpec, superblock: &Superblock, live: Option<&ResourceStatus>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = generations(&mut text, spec, superblock);
    let _ = facts(&mut text, superblock, live);
    text
}

/// The state of a disk that is not attached, as its flags tell.
pub fn disk_state(superblock: &Superblock) -> DiskState {
    match (superblock.flags.consistent, superblock.flags.up_to_date) {
        (false, _) => DiskState::Inconsistent,
        (true, false) => DiskState::Outdated,
        (true, true) => DiskState::Consistent,
    }
}

fn generations(text: &mut String, spec: &ResourceSpec, superblock: &Superblock) -> std::fmt::Result {
    let ids = &superblock.generations;
    let disks: Vec<String> = spec.volumes().map(|volume| volume.disk.display().to_string()).collect();
    writeln!(text, "{}: generations of the data on {}\n", spec.name, disks.join(", "))?;
    writeln!(text, "  current   {:016X}   <-- the data as it is now{}", ids.current, never(ids.current))?;
    for peer in &spec.peers {
        let (id, resync_id) =
            slot_of(superblock, peer.id).map_or((0, 0), |slot| (slot.bitmap_id, slot.resync_id));
        writeln!(text, "     |")?;
        writeln!(text, "     v")?;
        writeln!(text, "  bitmap    {id:016X}   <-- {}", bitmap_meaning(peer, id))?;
        if resync_id != 0 {
            writeln!(
                text,
                "  or        {resync_id:016X}   <-- if {} saw the end of the last resync",
                peer.name
            )?;
        }
    }
    for (age, id) in ids.history.iter().enumerate().take_while(|(age, id)| *age < HISTORY_SHOWN || **id != 0)
    {
        writeln!(text, "     |")?;
        writeln!(text, "     v")?;
        let meaning = match (age, id) {
            (_, 0) => "none",
            (0, _) => "the generation before",
            _ => "older still",
        };
        writeln!(text, "  history   {id:016X}   <-- {meaning}")?;
    }
    writeln!(text)
}

fn never(current: u64) -> &'static str {
    if current == tandem_core::generation::JUST_CREATED { " (fresh meta-data, no data yet)" } else { "" }
}

fn bitmap_meaning(peer: &NodeSpec, id: u64) -> String {
    match id {
        0 => {
            format!("{} (node {}): no separate history since the last common generation", peer.name, peer.id)
        }
        _ => {
            format!("{} (node {}): has this; the bitmap marks every block written since", peer.name, peer.id)
        }
    }
}

fn facts(text: &mut String, superblock: &Superblock, live: Option<&ResourceStatus>) -> std::fmt::Result {
    let disk = live.map_or(disk_state(superblock), |live| live.engine.disk);
    let role = match live {
        Some(live) => live.engine.role.to_string(),
        None if superblock.flags.primary => "crashed Primary".to_owned(),
        None => "Secondary".to_owned(),
    };
    writeln!(text, "  flags:      {role}, {disk}{}", if live.is_none() { ", not up" } else { "" })?;
    if superblock.flags.crashed_primary {
        writeln!(text, "              crashed as Primary and has not met an UpToDate peer since")?;
    }
    match superblock.node {
        Some(node) => writeln!(text, "  node:       {node}")?,
        None => writeln!(text, "  node:       not attached yet")?,
    }
    writeln!(text, "  device id:  {:016X}", superblock.device_id)?;
    match superblock.agreed_bytes {
        0 => writeln!(text, "  size:       zero -- never seen a peer yet?"),
        bytes => writeln!(text, "  size:       {bytes} bytes ({} KiB)", bytes / 1024),
    }
}

pub(crate) fn slot_of(superblock: &Superblock, peer: NodeId) -> Option<&PeerSlot> {
    superblock.peers.iter().find(|slot| slot.node == Some(peer))
}

pub(crate) fn flags(
    superblock: &Superblock,
    slot: Option<&PeerSlot>,
    live: Option<&ResourceStatus>,
    peer: NodeId,
) -> [bool; 12] {
    let live_peer = live.and_then(|live| live.engine.peers.iter().find(|p| p.id == peer));
    let connected = live_peer.is_some_and(|p| p.connection == ConnectionState::Connected);
    let outdated = live_peer.is_some_and(|p| matches!(p.disk, DiskState::Outdated | DiskState::Inconsistent));
    let applied = superblock.activity_log == ActivityLogState::Closed;
    let own = superblock.flags;
    [
        own.consistent,
        own.up_to_date,
        own.primary,
        own.crashed_primary,
        applied,
        superblock.activity_log == ActivityLogState::Unlogged,
        false,
        connected,
        outdated,
        false,
        false,
        slot.is_some(),
    ]
}

#[cfg(test)]
mod tests {
    use tandem_core::metadata::{Flags, Placement};

    use super::*;
    use crate::fixture;

    fn superblock() -> Superblock {
        let mut superblock = Superblock::fresh(0xD, 1 << 20, Placement::Internal, 1);
        superblock.flags = Flags {
            consistent: true,
            up_to_date: true,
            primary: true,
            crashed_primary: false,
            failed: false,
        };
        superblock.generations.current = 0xABC;
        superblock.generations.history[0] = 0x11;
        superblock.peers[0].node = Some(NodeId(1));
        superblock.peers[0].bitmap_id = 0x22;
        superblock
    }

    #[test]
    fn get_gi_of_fresh_metadata_is_drbdmetas() {
        let fresh = Superblock::fresh(0xD, 1 << 20, Placement::Internal, 1);
        assert_eq!(
            get_gi(&fixture::spec(), &fresh, None),
            "0000000000000004:0000000000000000:0000000000000000:0000000000000000:0:0:0:0:1:0:0:0:0:0:0:0\n"
        );
    }

    #[test]
    fn get_gi_shows_flags_and_connection() {
        let expected =
            "0000000000000ABC:0000000000000022:0000000000000011:0000000000000000:1:1:1:0:1:0:0:1:0:0:0:1\n";
        assert_eq!(get_gi(&fixture::spec(), &superblock(), Some(&fixture::connected())), expected);
    }

    #[test]
    fn show_gi_explains_each_identifier() {
        let text = show_gi(&fixture::spec(), &superblock(), None);
        for part in [
            "0000000000000ABC   <-- the data as it is now",
            "0000000000000022   <-- bravo (node 1): has this",
            "0000000000000011   <-- the generation before",
            "crashed Primary, Consistent, not up",
            "never seen a peer yet",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn the_state_of_an_idle_disk_follows_its_flags() {
        let mut superblock = superblock();
        assert_eq!(disk_state(&superblock), DiskState::Consistent);
        superblock.flags.up_to_date = false;
        assert_eq!(disk_state(&superblock), DiskState::Outdated);
        superblock.flags.consistent = false;
        assert_eq!(disk_state(&superblock), DiskState::Inconsistent);
    }
}
