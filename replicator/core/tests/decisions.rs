//! The decision table row by row: docs/generations.md.

#![allow(clippy::unwrap_used)]

use tandem_core::config::{Options, Protocol, Terms};
use tandem_core::generation::{Generations, HISTORY_SLOTS, JUST_CREATED, Sides, Verdict, decide};
use tandem_core::layout::Layout;
use tandem_core::split_brain::{AfterSplitBrain, NoPrimary};
use tandem_core::state::{DiskState, Role};
use tandem_core::units::NodeId;
use tandem_core::wire::Handshake;

const FULL: bool = true;

/// A Secondary, UpToDate, that has been through these generations, the current one first.
fn node(current: u64, bitmap_id: u64, former: &[u64]) -> Handshake {
    let mut history = [0; HISTORY_SLOTS];
    history[..former.len()].copy_from_slice(former);
    Handshake {
        round: 1,
        role: Role::Secondary,
        disk: DiskState::UpToDate,
        disk_bytes: 1 << 20,
        growable_bytes: 1 << 20,
        agreed_bytes: 1 << 20,
        generations: Generations { current, history },
        bitmap_id,
        resync_id: 0,
        dirty_blocks: 0,
        crashed_primary: false,
        discard_my_data: false,
        overcounted: false,
        gave_up: false,
        failed: false,
        held_open: false,
        attachment: 0,
        relied_on: None,
        begins: 0,
        layout: Layout::default(),
        rooms: Vec::new(),
        growable_rooms: Vec::new(),
    }
}

/// Generations: 0x100 is older than 0x200, and so on.
fn at(generation: u64) -> Handshake {
    node(generation, 0, &[])
}

fn primary(handshake: Handshake) -> Handshake {
    Handshake { role: Role::Primary, ..handshake }
}

fn crashed(handshake: Handshake) -> Handshake {
    Handshake { crashed_primary: true, ..handshake }
}

fn outdated(handshake: Handshake) -> Handshake {
    Handshake { disk: DiskState::Outdated, ..handshake }
}

fn marked(dirty_blocks: u64, handshake: Handshake) -> Handshake {
    Handshake { dirty_blocks, ..handshake }
}

/// Has sent a resync up to this generation and not seen its end.
fn sent(resync_id: u64, handshake: Handshake) -> Handshake {
    Handshake { resync_id, ..handshake }
}

fn disk(disk: DiskState, handshake: Handshake) -> Handshake {
    Handshake { disk, ..handshake }
}

fn discarding(handshake: Handshake) -> Handshake {
    Handshake { discard_my_data: true, ..handshake }
}

fn beginning(begins: u64, handshake: Handshake) -> Handshake {
    Handshake { begins, ..handshake }
}

fn terms(protocol: Protocol) -> Terms {
    Options { protocol, ..Options::default() }.terms()
}

/// DRBD's rule, ours, what both say, and what it means for this node, whose id is the lower one.
fn rows() -> Vec<(&'static str, &'static str, Protocol, Handshake, Handshake, Verdict)> {
    use Protocol::{A, B, C};
    use Verdict::{BothFresh, InSync, Source, Target};
    let (source, target) = (Source { full: false }, Target { full: false });
    let (source_full, target_full) = (Source { full: FULL }, Target { full: FULL });
    let fresh = || disk(DiskState::Inconsistent, at(JUST_CREATED));
    let none = || Handshake { disk_bytes: 0, ..disk(DiskState::Diskless, at(0)) };
    let refuse = |reason: &str| Verdict::Refuse(reason.into());
    let split = || refuse("Split-Brain detected but unresolved, dropping connection!");
    vec![
        ("", "diskless", C, at(0x100), none(), InSync),
        ("10", "just-created-both", C, fresh(), fresh(), BothFresh),
        (
            "",
            "skip-initial-sync",
            C,
            beginning(0x200, fresh()),
            fresh(),
            Verdict::Begin { generation: 0x200 },
        ),
        ("20", "just-created-self", C, beginning(0x200, fresh()), at(0x100), target_full.clone()),
        ("20", "just-created-self", C, fresh(), at(0x100), target_full.clone()),
        ("30", "just-created-peer", C, at(0x100), fresh(), source_full.clone()),
        // 34 to 37: one of them did not see the end of a resync.
        ("34", "missed-finish", C, sent(0x200, node(0x200, 0x100, &[])), at(0x200), source.clone()),
        ("35", "missed-finish", C, at(0x200), sent(0x200, node(0x200, 0x100, &[])), target.clone()),
        (
            "36",
            "missed-finish",
            C,
            marked(3, sent(0x200, node(0x200, 0x100, &[]))),
            at(0x200),
            source.clone(),
        ),
        (
            "37",
            "missed-finish",
            C,
            at(0x200),
            marked(3, sent(0x200, node(0x200, 0x100, &[]))),
            target.clone(),
        ),
        ("34", "missed-finish", C, sent(0x200, node(0x200, 0x100, &[])), primary(at(0x200)), target.clone()),
        // 40, 41: the same generation.
        ("40", "no-sync", C, at(0x100), primary(at(0x100)), InSync),
        ("40", "missed-finish", C, marked(1, at(0x100)), at(0x100), source.clone()),
        // What was to be sent was marked on both sides, and not sent.
        ("40", "missed-finish", B, outdated(marked(6, at(0x100))), marked(6, at(0x100)), target.clone()),
        ("41", "crashed-primary", C, primary(at(0x100)), crashed(at(0x100)), source.clone()),
        ("41", "crashed-primary", A, crashed(at(0x100)), primary(at(0x100)), target.clone()),
        ("40", "crashed-primary", A, crashed(at(0x100)), at(0x100), source.clone()),
        ("40", "crashed-primary", B, crashed(at(0x100)), at(0x100), target.clone()),
        ("40", "crashed-primary", C, at(0x100), crashed(at(0x100)), source.clone()),
        ("40", "crashed-primary-both", C, crashed(at(0x100)), crashed(at(0x100)), source.clone()),
        // 50 to 80: one went on.
        ("50", "bitmap-peer", C, at(0x100), node(0x200, 0x100, &[]), target.clone()),
        ("50", "bitmap-peer", C, at(0x100), primary(node(0x201, 0x101, &[])), target.clone()),
        ("51", "bitmap-peer", C, at(0x200), sent(0x200, node(0x300, 0x100, &[0x200])), target.clone()),
        ("60", "history-peer", C, at(0x100), node(0x300, 0x200, &[0x100]), target_full.clone()),
        ("70", "bitmap-self", C, node(0x200, 0x100, &[]), at(0x100), source.clone()),
        ("71", "bitmap-self", C, sent(0x200, node(0x300, 0x100, &[0x200])), at(0x200), source.clone()),
        ("80", "history-self", C, node(0x300, 0x200, &[0x100]), at(0x100), source_full.clone()),
        // 90 to -1000: both went on.
        ("90", "bitmap-both", C, node(0x200, 0x100, &[]), node(0x300, 0x100, &[]), split()),
        ("90", "bitmap-both", C, sent(0x200, node(0x300, 0x100, &[0x200])), node(0x400, 0x200, &[]), split()),
        ("100", "history-both", C, node(0x300, 0x200, &[0x100]), node(0x500, 0x400, &[0x100]), split()),
        ("-1000", "unrelated", C, at(0x100), at(0x200), refuse("Unrelated data, aborting!")),
        // Disk states: a resync that was interrupted goes on in its direction.
        (
            "",
            "disk-states",
            C,
            disk(DiskState::Inconsistent, node(0x200, 0x100, &[])),
            at(0x100),
            target.clone(),
        ),
        (
            "",
            "bitmap-both",
            C,
            disk(DiskState::Inconsistent, node(0x200, 0x100, &[])),
            node(0x300, 0x100, &[]),
            target.clone(),
        ),
        // Roles.
        (
            "",
            "bitmap-peer",
            C,
            primary(at(0x100)),
            node(0x200, 0x100, &[]),
            refuse("I shall become SyncTarget, but I am primary!"),
        ),
        // The administrator's word.
        ("", "bitmap-self", C, discarding(node(0x200, 0x100, &[])), at(0x100), target.clone()),
        ("", "bitmap-both", C, discarding(node(0x200, 0x100, &[])), node(0x300, 0x100, &[]), target),
        (
            "",
            "history-both",
            C,
            node(0x300, 0x200, &[0x100]),
            discarding(node(0x500, 0x400, &[0x100])),
            source_full,
        ),
    ]
}

#[test]
fn every_row_of_the_table_is_decided_alike_on_both_sides() {
    let (me, peer) = (NodeId(0), NodeId(1));
    for (drbd, rule, protocol, mine, theirs, verdict) in rows() {
        let here = decide(&mine, &theirs, &terms(protocol), Sides::new(me, peer));
        assert_eq!((here.rule, &here.verdict), (rule, &verdict), "DRBD's rule {drbd}: {mine:?} {theirs:?}");
        let there = decide(&theirs, &mine, &terms(protocol), Sides::new(peer, me));
        let mirrored = match (&verdict, &there.verdict) {
            (Verdict::Source { full }, Verdict::Target { full: other })
            | (Verdict::Target { full }, Verdict::Source { full: other }) => full == other,
            (Verdict::Refuse(_), Verdict::Refuse(_)) => true,
            (one, other) => one == other,
        };
        assert!(mirrored, "DRBD's rule {drbd}: {verdict:?} here, {:?} there", there.verdict);
    }
}

#[test]
fn always_asbp_applies_the_policies_where_the_bitmaps_do_not_tell() {
    let (mine, theirs) = (node(0x300, 0x200, &[0x100]), marked(1, node(0x500, 0x400, &[0x100])));
    let policies = |always| AfterSplitBrain {
        no_primary: NoPrimary::DiscardZeroChanges,
        always,
        ..AfterSplitBrain::default()
    };
    let decided = |always| {
        let terms = Terms { protocol: Protocol::C, after_split_brain: policies(always) };
        decide(&mine, &theirs, &terms, Sides::new(NodeId(0), NodeId(1))).verdict
    };
    assert!(matches!(decided(false), Verdict::Refuse(_)));
    assert_eq!(decided(true), Verdict::Target { full: FULL });
}

#[test]
fn the_document_has_a_row_for_every_rule_and_no_other() {
    let document = include_str!("../../../docs/generations.md");
    let table = document.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split('|').map(str::trim).collect();
        (cells.len() == 5 && cells[0] != "rule").then(|| cells[0].to_owned())
    });
    let mut documented: Vec<String> = table.collect();
    let mut tested: Vec<String> =
        rows().iter().map(|row| row.1.to_owned()).filter(|rule| rule != "disk-states").collect();
    documented.sort();
    tested.sort();
    tested.dedup();
    assert_eq!(documented, tested);
}
