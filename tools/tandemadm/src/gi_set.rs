//! `set-gi`: the generation identifiers as the administrator says, in the words of `get-gi`.

use tandem_control::NodeSpec;
use tandem_core::metadata::{ActivityLogState, PeerSlot, Superblock};

use crate::gi_text;

/// Identifiers stand before the flags: `C:B:H0:H1`.
const IDENTIFIERS: usize = 4;
const MAX_DIGITS: usize = 16;
const FORM: &str =
    "C:B:H0:H1 in hexadecimal and up to twelve flags of 0 or 1, with colons between, as 'get-gi' prints them";

/// The superblock with what the text has in it. A field that is empty or left away stays as it is.
pub fn changed(superblock: &Superblock, peer: &NodeSpec, text: &str) -> Result<Superblock, String> {
    if superblock.activity_log != ActivityLogState::Closed {
        return Err("Found meta data is \"unclean\", please apply-al first".into());
    }
    let is = gi_text::flags(superblock, gi_text::slot_of(superblock, peer.id), None, peer.id);
    let mut new = superblock.clone();
    for (at, field) in text.trim().split(':').enumerate().filter(|(_, field)| !field.is_empty()) {
        match at {
            0 => new.generations.current = identifier(field)?,
            1 => set_bitmap(&mut new, peer, identifier(field)?)?,
            2 | 3 => new.generations.history[at - 2] = identifier(field)?,
            _ => {
                let number = at - IDENTIFIERS;
                let was = *is.get(number).ok_or_else(|| form(field))?;
                let becomes = flag(field)?;
                if was != becomes {
                    set_flag(&mut new, number, becomes)?;
                }
            }
        }
    }
    if new.generations.current == 0 {
        return Err("the data is of some generation: 0 is none".into());
    }
    if new.flags.up_to_date && !new.flags.consistent {
        return Err("data that is not consistent cannot be UpToDate: flags 0:1".into());
    }
    Ok(new)
}

fn set_bitmap(superblock: &mut Superblock, peer: &NodeSpec, id: u64) -> Result<(), String> {
    let mut slots = superblock.peers.iter();
    let at = slots.position(|slot| slot.node == Some(peer.id));
    let at = match at.or_else(|| superblock.peers.iter().position(|slot| slot.node.is_none())) {
        Some(at) => at,
        None => {
            return Err(format!("the meta-data has no room for {}; see 'create-md --max-peers'", peer.name));
        }
    };
    // Another generation that the bitmap may count from is no longer known either.
    superblock.peers[at] =
        PeerSlot { node: Some(peer.id), bitmap_id: id, resync_id: 0, ..superblock.peers[at] };
    Ok(())
}

fn set_flag(superblock: &mut Superblock, number: usize, set: bool) -> Result<(), String> {
    let flags = &mut superblock.flags;
    match number {
        0 => flags.consistent = set,
        1 if set => flags.set_up_to_date(),
        1 => flags.up_to_date = false,
        3 => flags.crashed_primary = set,
        _ => {
            return Err(format!(
                "flag {} follows from other things and cannot be set: of the flags, the first, the second and the fourth can",
                number + 1
            ));
        }
    }
    Ok(())
}

fn identifier(field: &str) -> Result<u64, String> {
    match field.len() <= MAX_DIGITS && field.chars().all(|c| c.is_ascii_hexdigit()) {
        true => u64::from_str_radix(field, 16).map_err(|_| form(field)),
        false => Err(form(field)),
    }
}

fn flag(field: &str) -> Result<bool, String> {
    match field {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(form(field)),
    }
}

fn form(field: &str) -> String {
    format!("'{field}': {FORM}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tandem_core::metadata::Placement;
    use tandem_core::units::NodeId;

    use super::*;
    use crate::fixture;

    fn fresh() -> Superblock {
        Superblock::fresh(0xD, 1 << 20, Placement::Internal, 1)
    }

    fn set(text: &str) -> Result<Superblock, String> {
        changed(&fresh(), &fixture::spec().peers[0], text)
    }

    /// As drbdmeta takes them.
    #[test]
    fn what_get_gi_prints_can_be_set() {
        for text in [
            "0000000000000ABC:0000000000000022:0000000000000011:0000000000000000:1:1:0:1:1:0:0:0:0:0:0:1",
            "0000000000000ABC:0000000000000022:0000000000000000:0000000000000012:1:0:0:0:1:0:0:0:0:0:0:1",
        ] {
            let spec = fixture::spec();
            let line = |superblock: &Superblock| gi_text::get_gi(&spec, superblock, None);
            let made = set(text.trim_end_matches('1').trim_end_matches(':')).unwrap();
            assert_eq!(line(&made), format!("{text}\n"));
            assert_eq!(changed(&made, &spec.peers[0], text), Ok(made));
        }
    }

    #[test]
    fn what_is_left_away_stays() {
        let new = set("12").unwrap();
        assert_eq!(new.generations.current, 0x12);
        assert_eq!(Superblock { generations: fresh().generations, ..new }, fresh());
        let new = set(":22::A").unwrap();
        assert_eq!((new.generations.current, new.generations.history[1]), (4, 0xA));
        assert_eq!((new.peers[0].node, new.peers[0].bitmap_id), (Some(NodeId(1)), 0x22));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, part) in [
            ("xyz", "'xyz': C:B:H0:H1"),
            ("12345678901234567", "C:B:H0:H1"),
            ("0", "0 is none"),
            (":::::1", "not consistent"),
            ("::::1:2", "'2': "),
            ("::::::1", "flag 3 follows from other things"),
            ("::::::::::::::::1", "'1': "),
        ] {
            let error = set(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let open = Superblock { activity_log: ActivityLogState::Unlogged, ..fresh() };
        let error = changed(&open, &fixture::spec().peers[0], "12").unwrap_err();
        assert!(error.contains("apply-al"), "{error}");
        let mut full = fresh();
        full.peers[0].node = Some(NodeId(7));
        assert!(changed(&full, &fixture::spec().peers[0], ":22").unwrap_err().contains("no room for bravo"));
    }
}
