//! `split-brain show`: what each side of a split brain has written, for people.

use std::fmt::{Result, Write};

use tandem_control::ResourceSpec;
use tandem_core::divergence::{CopyState, Divergence, Meeting};
use tandem_core::generation::PRIMARY_BIT;
use tandem_core::split_brain::Outcome;
use tandem_core::units::ByteRange;

/// Ranges of each node that are shown; `--json` has them all.
const RANGES_SHOWN: usize = 10;

/// A resource's copy here and each peer's.
pub fn show(spec: &ResourceSpec, divergences: &[Divergence]) -> String {
    let mut text = String::new();
    for divergence in divergences {
        // Writing to a string does not fail.
        let _ = match &divergence.meeting {
            Some(meeting) => split(&mut text, spec, divergence, meeting),
            None => not_met(&mut text, spec, divergence),
        };
    }
    text
}

/// `8 KiB (8192 bytes)`.
pub fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => {
            format!("{} {name} ({bytes} bytes)", bytes / unit)
        }
        Some((unit, name)) => format!("{:.1} {name} ({bytes} bytes)", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

fn split(text: &mut String, spec: &ResourceSpec, divergence: &Divergence, meeting: &Meeting) -> Result {
    let (here, there) = (&spec.node.name, &divergence.peer_name);
    let age = age(meeting.age_ms);
    writeln!(text, "{}: split brain between {here} and {there}, as they met {age} ago", spec.name)?;
    let counts = if meeting.bitmaps_tell {
        "what each has written since is marked"
    } else {
        "too long ago for the marks: everything may differ"
    };
    writeln!(text, "  last common generation  {:016X}   <-- {counts}", meeting.common)?;
    writeln!(text, "  outcome                 {}", outcome(meeting.outcome, here, there))?;
    writeln!(text)?;
    writeln!(text, "  {here}, this node, now: {}, {}", divergence.here.role, divergence.here.disk)?;
    copy(text, &divergence.here)?;
    ranges(text, &divergence.here.ranges)?;
    writeln!(text)?;
    writeln!(text, "  {there}, {age} ago: {}, {}", meeting.there.role, meeting.there.disk)?;
    copy(text, &meeting.there)?;
    if meeting.complete {
        ranges(text, &meeting.there.ranges)?;
    } else {
        writeln!(text, "      where is not known: the connection broke before {there} had told; look there")?;
    }
    if let Some(bytes) = divergence.changed_by_both_bytes() {
        writeln!(text)?;
        writeln!(text, "  changed by both         {}", size(bytes))?;
    }
    writeln!(text)?;
    writeln!(
        text,
        "  To decide: 'tandemadm split-brain resolve {} --keep NODE --dry-run' on the node that gives up its data",
        spec.name
    )
}

fn not_met(text: &mut String, spec: &ResourceSpec, divergence: &Divergence) -> Result {
    let (here, there, own) = (&spec.node.name, &divergence.peer_name, &divergence.here);
    writeln!(text, "{}: no split brain between {here} and {there} is known", spec.name)?;
    if own.parted_at == 0 {
        return writeln!(text, "  {here} has not gone on without {there}");
    }
    writeln!(
        text,
        "  {here} has gone on without {there}. Whether {there} has too is not known: they have not met"
    )?;
    writeln!(text, "  since tandemd was started; run 'tandemadm connect {}' on both.", spec.name)?;
    writeln!(text)?;
    writeln!(text, "  {here}, this node, now: {}, {}", own.role, own.disk)?;
    copy(text, own)?;
    ranges(text, &own.ranges)
}

fn copy(text: &mut String, copy: &CopyState) -> Result {
    let mut generations = vec![format!("{:016X} now", copy.current)];
    let since = copy.history.iter().take_while(|id| **id | PRIMARY_BIT != copy.parted_at | PRIMARY_BIT);
    let began = |id: u64| if id & PRIMARY_BIT == 0 { "Secondary" } else { "Primary" };
    if copy.parted_at != 0 {
        generations.push(format!("parted at {:016X}", copy.parted_at & !PRIMARY_BIT));
    }
    generations.extend(since.take(2).map(|id| format!("{id:016X}")));
    writeln!(text, "    generations           {}", generations.join(" <- "))?;
    let primary = match (copy.stayed_primary, copy.parted_at, began(copy.current)) {
        (true, ..) => "was Primary when they parted, and went on as such",
        (false, 0, _) => "has not gone on alone",
        (false, _, "Primary") => "became Primary after they had parted",
        (false, ..) => "went on without being Primary: for a Primary that had lost its disk",
    };
    writeln!(text, "    role since            {primary}")?;
    let bound = if copy.overcounted { ", at most: after a crash whole extents count" } else { "" };
    let count = copy.ranges.len();
    let places = if count == 1 { "range" } else { "ranges" };
    writeln!(text, "    written since         {}, in {count} {places}{bound}", size(copy.changed_bytes))
}

fn ranges(text: &mut String, ranges: &[ByteRange]) -> Result {
    for range in ranges.iter().take(RANGES_SHOWN) {
        writeln!(text, "      from {:>14}  {}", range.offset, size(range.length))?;
    }
    match ranges.len().saturating_sub(RANGES_SHOWN) {
        0 => Ok(()),
        more => writeln!(text, "      and {more} more: --json lists them"),
    }
}

fn outcome(outcome: Outcome, here: &str, there: &str) -> String {
    match outcome {
        Outcome::Unresolved => "unresolved: both stand alone, and nothing was changed".into(),
        Outcome::PrimaryStepsDown { me, .. } => {
            format!("{} would step down as Primary and give up its data", if me { here } else { there })
        }
        Outcome::PrimaryShouldGiveUp { me } => {
            format!("{} should give up its data, and was Primary", if me { here } else { there })
        }
        Outcome::Automatic { i_win } | Outcome::Manual { i_win } => {
            format!("{} would give up its data", if i_win { there } else { here })
        }
    }
}

fn age(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::state::{DiskState, Role};
    use tandem_core::units::NodeId;

    use super::*;
    use crate::fixture;

    fn copy(current: u64, parted_at: u64, blocks: &[u64]) -> CopyState {
        CopyState {
            role: Role::Secondary,
            disk: DiskState::UpToDate,
            current,
            parted_at,
            history: vec![0x11],
            stayed_primary: parted_at & 1 == 1,
            overcounted: false,
            changed_bytes: blocks.len() as u64 * 4096,
            ranges: blocks.iter().map(|block| ByteRange::new(block * 4096, 4096)).collect(),
        }
    }

    fn divergence() -> Divergence {
        Divergence {
            volume_bytes: 1 << 20,
            listed_to_bytes: 1 << 20,
            here: copy(0xA1, 0x101, &[1]),
            meeting: Some(Meeting {
                age_ms: 5000,
                common: 0x100,
                bitmaps_tell: true,
                outcome: Outcome::Unresolved,
                there: copy(0xB1, 0x100, &[1, 3]),
                complete: true,
            }),
            peer: NodeId(1),
            peer_name: "bravo".into(),
        }
    }

    #[test]
    fn both_sides_are_shown_with_what_they_wrote_and_who_was_primary() {
        let text = show(&fixture::spec(), &[divergence()]);
        for part in [
            "r0: split brain between alpha and bravo, as they met 5 s ago",
            "last common generation  0000000000000100",
            "alpha, this node, now: Secondary, UpToDate",
            "00000000000000A1 now <- parted at 0000000000000100",
            "was Primary when they parted",
            "4 KiB (4096 bytes), in 1 range\n",
            "became Primary after they had parted",
            "8 KiB (8192 bytes), in 2 ranges\n",
            "from          12288  4 KiB",
            "changed by both         4 KiB",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_said() {
        let mut restarted = divergence();
        restarted.meeting = None;
        let text = show(&fixture::spec(), &[restarted]);
        assert!(text.contains("Whether bravo has too is not known"), "{text}");
        let mut untold = divergence();
        untold.meeting.as_mut().unwrap().complete = false;
        assert!(show(&fixture::spec(), &[untold]).contains("where is not known"));
    }
}
