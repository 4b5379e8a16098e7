//! Generation identifiers: whose data is newer (reference/drbd.md, B6, B8).
//!
//! Every data set has a current identifier. A node that goes on writing without a peer keeps the identifier at which
//! they parted as its bitmap identifier for that peer and draws a new current one; where two nodes meet, the
//! identifiers tell who knows everything that the other has. [`decide`] is a pure function of what both said in the
//! handshake; both sides evaluate it and must come to mirrored results.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::config::Protocol;
use crate::seeded;
use crate::state::{DiskState, Role};
use crate::units::NodeId;
use crate::wire::Handshake;

/// Identifiers of former generations that are remembered.
pub const HISTORY_SLOTS: usize = 32;
/// The current identifier of metadata that has never seen data.
pub const JUST_CREATED: u64 = 4;

/// The lowest bit tells that the generation began on a Primary; it is no part of the identity.
const PRIMARY_BIT: u64 = 1;

/// The generations of one node's data, without the per-peer bitmap identifiers. 0 is "none".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Generations {
    /// The generation of the data now.
    pub current: u64,
    /// Former generations, the latest first.
    pub history: [u64; HISTORY_SLOTS],
}

impl Generations {
    /// Of a node that has no disk.
    pub const NONE: Generations = Generations { current: 0, history: [0; HISTORY_SLOTS] };

    /// True if the data has never been used.
    pub const fn is_fresh(&self) -> bool {
        self.current & !PRIMARY_BIT == JUST_CREATED
    }

    /// Remembers a former generation as the latest.
    pub fn remember(&mut self, id: u64) {
        if id != 0 && !self.history.iter().any(|h| same(*h, id)) {
            self.history.copy_within(..HISTORY_SLOTS - 1, 1);
            self.history[0] = id;
        }
    }

    fn knows(&self, id: u64) -> bool {
        self.history.iter().any(|h| same(*h, id))
    }
}

/// Makes an identifier from 64 random bits: never one of the special values, the lowest bit tells the role.
pub fn new_identifier(random: u64, role: Role) -> u64 {
    let id = (random | 1 << 63) & !PRIMARY_BIT;
    if role == Role::Primary { id | PRIMARY_BIT } else { id }
}

/// What the two copies need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing: they agree, or one side has no disk.
    InSync,
    /// Both are fresh: nothing until somebody forces a Primary.
    BothFresh,
    /// This node sends what the bitmaps say; with `full`, everything.
    Source {
        /// The bitmaps do not tell: everything.
        full: bool,
    },
    /// This node receives.
    Target {
        /// The bitmaps do not tell: everything.
        full: bool,
    },
    /// They must not talk: the sentence is for the operator.
    Refuse(String),
}

/// The identities of the two sides, for breaking ties alike on both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sides {
    /// This node.
    pub me: NodeId,
    /// The peer.
    pub peer: NodeId,
    #[cfg(feature = "mutations")]
    pub(crate) mutation: Option<crate::mutation::Mutation>,
}

impl Sides {
    /// Both nodes as `me` sees them.
    pub const fn new(me: NodeId, peer: NodeId) -> Sides {
        Sides {
            me,
            peer,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// Decides what the two copies need, and by which rule.
pub fn decide(
    mine: &Handshake,
    theirs: &Handshake,
    protocol: Protocol,
    sides: Sides,
) -> (Verdict, &'static str) {
    if mine.disk < DiskState::Negotiating || theirs.disk < DiskState::Negotiating {
        return (respect_roles(Verdict::InSync, mine, theirs), "diskless");
    }
    let (verdict, rule) = compare(mine, theirs, protocol, sides);
    if seeded!(sides, SyncsFromInconsistent) {
        return (respect_roles(verdict, mine, theirs), rule);
    }
    let (verdict, rule) = follow_disk_states(verdict, rule, mine, theirs);
    if seeded!(sides, OverwritesPrimary) {
        return (verdict, rule);
    }
    (respect_roles(verdict, mine, theirs), rule)
}

fn compare(
    mine: &Handshake,
    theirs: &Handshake,
    protocol: Protocol,
    sides: Sides,
) -> (Verdict, &'static str) {
    use Verdict::{BothFresh, Refuse, Source, Target};
    let (me, peer) = (&mine.generations, &theirs.generations);
    match (me.is_fresh(), peer.is_fresh()) {
        (true, true) => return (BothFresh, "just-created-both"),
        (true, false) => return (Target { full: true }, "just-created-self"),
        (false, true) => return (Source { full: true }, "just-created-peer"),
        (false, false) => {}
    }
    if same(me.current, peer.current) {
        return equal_current(mine, theirs, protocol, sides);
    }
    let counts_from = |id: u64, h: &Handshake| {
        same(id, h.bitmap_id) && !seeded!(sides, IgnoresBitmapId)
            || same(id, h.resync_id) && !seeded!(sides, IgnoresMissedFinish)
    };
    match (counts_from(me.current, theirs), counts_from(peer.current, mine)) {
        (true, false) if seeded!(sides, PrefersOldData) => return (Source { full: false }, "bitmap-peer"),
        (false, true) if seeded!(sides, PrefersOldData) => return (Target { full: false }, "bitmap-self"),
        (true, false) => return (Target { full: false }, "bitmap-peer"),
        (false, true) => return (Source { full: false }, "bitmap-self"),
        _ => {}
    }
    match (peer.knows(me.current), me.knows(peer.current)) {
        (true, false) => return (Target { full: true }, "history-peer"),
        (false, true) => return (Source { full: true }, "history-self"),
        _ => {}
    }
    let common_bitmap = same(mine.bitmap_id, theirs.bitmap_id);
    if seeded!(sides, MissesSplitBrain) && common_bitmap {
        let verdict = if sides.me < sides.peer { Source { full: false } } else { Target { full: false } };
        return (verdict, "bitmap-both");
    }
    let remembered = if seeded!(sides, IgnoresHistory) { 0 } else { HISTORY_SLOTS };
    let ancestors = |h: &Handshake| {
        let history = h.generations.history.into_iter().take(remembered);
        [h.bitmap_id].into_iter().chain(history).filter(|id| *id != 0)
    };
    if common_bitmap || ancestors(mine).any(|id| ancestors(theirs).any(|other| same(id, other))) {
        let rule = if common_bitmap { "bitmap-both" } else { "history-both" };
        return (Refuse("Split-Brain detected but unresolved, dropping connection!".into()), rule);
    }
    (Refuse("Unrelated data, aborting!".into()), "unrelated")
}

/// Both have the same current generation: they were connected when last one of them wrote.
fn equal_current(
    mine: &Handshake,
    theirs: &Handshake,
    protocol: Protocol,
    sides: Sides,
) -> (Verdict, &'static str) {
    use Verdict::{InSync, Source, Target};
    let source = |it_is_me: bool| if it_is_me { Source { full: false } } else { Target { full: false } };
    match (mine.crashed_primary, theirs.crashed_primary) {
        (false, false) => {}
        (true, true) => {
            let better = mine.disk.cmp(&theirs.disk).then(sides.peer.cmp(&sides.me));
            return (source(better == Ordering::Greater), "crashed-primary-both");
        }
        (i_crashed, _) => {
            // Only a Primary that came back without a new generation: it has exposed its data since.
            let roles = (mine.role == Role::Primary, theirs.role == Role::Primary);
            let verdict = match (roles, protocol) {
                ((true, false), _) => source(true),
                ((false, true), _) => source(false),
                // The crashed node completed writes that the survivor may lack.
                (_, Protocol::A) if !seeded!(sides, CrashedPrimaryLosesInA) => source(i_crashed),
                // The survivor has every completed write; the crashed node may have lost its disk's cache.
                (_, Protocol::A | Protocol::B | Protocol::C) => source(!i_crashed),
            };
            return (verdict, "crashed-primary");
        }
    }
    let clean = mine.bitmap_id == theirs.bitmap_id && mine.dirty_blocks == 0 && theirs.dirty_blocks == 0;
    if clean || seeded!(sides, MissedFinishIsInSync) {
        return (InSync, "no-sync");
    }
    // One of them did not see the end of a resync: neither has written since, or it would have another generation.
    // What is marked is compared once more, away from the data that is in use.
    let doubt = |h: &Handshake| (h.role == Role::Primary, h.bitmap_id != 0, h.dirty_blocks > 0);
    match doubt(mine).cmp(&doubt(theirs)) {
        Ordering::Greater => (source(true), "missed-finish"),
        Ordering::Less => (source(false), "missed-finish"),
        Ordering::Equal => (source(sides.me < sides.peer), "missed-finish"),
    }
}

/// An inconsistent disk is never a source, whatever the identifiers say. What the bitmaps know they know whoever sends.
fn follow_disk_states(
    verdict: Verdict,
    rule: &'static str,
    mine: &Handshake,
    theirs: &Handshake,
) -> (Verdict, &'static str) {
    use Verdict::{InSync, Refuse, Source, Target};
    let inconsistent = |h: &Handshake| h.disk <= DiskState::Inconsistent;
    let refusal = || Refuse("I shall become SyncSource, but I am inconsistent!".into());
    match (&verdict, inconsistent(mine), inconsistent(theirs)) {
        (InSync, true, false) => (Target { full: false }, "disk-states"),
        (InSync, false, true) => (Source { full: false }, "disk-states"),
        (Source { full }, true, false) => (Target { full: *full }, "disk-states"),
        (Target { full }, false, true) => (Source { full: *full }, "disk-states"),
        (Source { .. } | Target { .. }, true, true) => (refusal(), rule),
        _ => (verdict, rule),
    }
}

/// Data under a running client is never overwritten.
fn respect_roles(verdict: Verdict, mine: &Handshake, theirs: &Handshake) -> Verdict {
    let exposed = |h: &Handshake| h.role == Role::Primary && h.disk >= DiskState::Consistent;
    match verdict {
        Verdict::Target { .. } if exposed(mine) => {
            Verdict::Refuse("I shall become SyncTarget, but I am primary!".into())
        }
        Verdict::Source { .. } if exposed(theirs) => {
            Verdict::Refuse("The peer shall become SyncTarget, but it is primary!".into())
        }
        Verdict::InSync | Verdict::BothFresh
            if mine.role == Role::Primary && theirs.role == Role::Primary =>
        {
            Verdict::Refuse("Multiple primaries not allowed by config".into())
        }
        verdict => verdict,
    }
}

/// Equal and not "none".
pub(crate) fn same(a: u64, b: u64) -> bool {
    a & !PRIMARY_BIT == b & !PRIMARY_BIT && a & !PRIMARY_BIT != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handshake() -> impl Strategy<Value = Handshake> {
        let id = prop_oneof![
            Just(0u64),
            Just(JUST_CREATED),
            (1u64..6).prop_map(|n| n << 8),
            (1u64..6).prop_map(|n| n << 8 | 1)
        ];
        let disk = prop_oneof![
            Just(DiskState::Diskless),
            Just(DiskState::Inconsistent),
            Just(DiskState::Outdated),
            Just(DiskState::UpToDate)
        ];
        let role = prop_oneof![Just(Role::Secondary), Just(Role::Primary)];
        let ids = (id.clone(), id.clone(), id.clone(), id.clone(), id);
        (ids, disk, role, 0u64..2, any::<bool>()).prop_map(
            |((current, bitmap_id, resync_id, h0, h1), disk, role, dirty_blocks, crashed_primary)| {
                let mut history = [0; HISTORY_SLOTS];
                history[..2].copy_from_slice(&[h0, h1]);
                Handshake {
                    round: 1,
                    role,
                    disk,
                    disk_bytes: 0,
                    agreed_bytes: 0,
                    generations: Generations { current, history },
                    bitmap_id,
                    resync_id,
                    dirty_blocks,
                    crashed_primary,
                }
            },
        )
    }

    fn mirror(verdict: &Verdict) -> Verdict {
        match verdict {
            Verdict::Source { full } => Verdict::Target { full: *full },
            Verdict::Target { full } => Verdict::Source { full: *full },
            Verdict::Refuse(_) => Verdict::Refuse(String::new()),
            other => other.clone(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        #[test]
        fn both_sides_come_to_mirrored_verdicts(
            a in handshake(),
            b in handshake(),
            protocol in prop_oneof![Just(Protocol::A), Just(Protocol::B), Just(Protocol::C)],
        ) {
            let (x, y) = (NodeId(0), NodeId(1));
            let (at_a, _) = decide(&a, &b, protocol, Sides::new(x, y));
            let (at_b, _) = decide(&b, &a, protocol, Sides::new(y, x));
            let at_b = if let Verdict::Refuse(_) = at_b { Verdict::Refuse(String::new()) } else { at_b };
            prop_assert_eq!(mirror(&at_a), at_b, "{:?}", at_a);
        }
    }

    #[test]
    fn history_remembers_each_generation_once_and_the_latest_first() {
        let mut g = Generations { current: 1 << 40, history: [0; HISTORY_SLOTS] };
        for id in 1..=40u64 {
            g.remember(id << 8);
            g.remember(id << 8 | 1);
        }
        assert_eq!(g.history[0], 40 << 8);
        assert_eq!(g.history[HISTORY_SLOTS - 1], 9 << 8);
    }
}
