//! Generation identifiers: whose data is newer (docs/generations.md).
//!
//! Every data set has a current identifier. A node that goes on writing without a peer keeps the identifier at which
//! they parted as its bitmap identifier for that peer and draws a new current one; where two nodes meet, the
//! identifiers tell who knows everything that the other has. [`decide`] is a pure function of what both said in the
//! handshake; both sides evaluate it and must come to mirrored results.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::config::{Protocol, Terms};
use crate::parting::{BOTH_PRIMARY, DATA_NOT_THERE, I_AM_PRIMARY, NO_SOURCE, PEER_IS_PRIMARY, UNRELATED};
use crate::seeded;
use crate::split_brain::{Outcome, SPLIT_BRAIN, SplitBrain, resolve};
use crate::state::{DiskState, Role};
use crate::units::NodeId;
use crate::wire::Handshake;

/// Identifiers of former generations that are remembered.
pub const HISTORY_SLOTS: usize = 32;
/// The current identifier of metadata that has never seen data.
pub const JUST_CREATED: u64 = 4;

/// The lowest bit tells that the generation began on a Primary; it is no part of the identity.
pub const PRIMARY_BIT: u64 = 1;

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

/// The identifier at which two copies parted, with whether its keeper was Primary then and went on as such.
pub(crate) const fn parting_identifier(id: u64, stayed_primary: bool) -> u64 {
    if stayed_primary { id | PRIMARY_BIT } else { id & !PRIMARY_BIT }
}

/// What the two copies need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing: they agree, or one side has no disk.
    InSync,
    /// Both are fresh: nothing until somebody forces a Primary.
    BothFresh,
    /// Both are fresh, and an administrator has said that nothing need be sent: both take this generation as it is.
    Begin {
        /// Which.
        generation: u64,
    },
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

/// What was decided, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What the two copies need.
    pub verdict: Verdict,
    /// The rule that said so.
    pub rule: &'static str,
    /// Both copies went on: how that ends.
    pub split_brain: Option<SplitBrain>,
    /// Why the verdict is a refusal, if it is one for that.
    pub conflict: Option<RoleConflict>,
}

/// What the copies need, and a Primary is in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleConflict {
    /// This node is Primary and was to receive the peer's data.
    IAmTarget,
    /// The peer is Primary and was to receive this node's data.
    PeerIsTarget,
    /// Both are Primary.
    BothPrimary,
}

impl Decision {
    /// This node is Primary and was to receive the peer's data.
    pub fn primary_lost(&self) -> bool {
        match self.split_brain.map(|split| split.outcome) {
            Some(Outcome::PrimaryShouldGiveUp { me }) => me,
            _ => self.conflict == Some(RoleConflict::IAmTarget),
        }
    }
}

/// Decides what the two copies need.
pub fn decide(mine: &Handshake, theirs: &Handshake, terms: &Terms, sides: Sides) -> Decision {
    if lacks_exposed_data(mine, theirs) || lacks_exposed_data(theirs, mine) {
        let verdict = Verdict::Refuse(DATA_NOT_THERE.into());
        return Decision { verdict, rule: "diskless-primary", split_brain: None, conflict: None };
    }
    if mine.disk < DiskState::Negotiating || theirs.disk < DiskState::Negotiating {
        let (verdict, conflict) = respect_roles(Verdict::InSync, mine, theirs);
        return Decision { verdict, rule: "diskless", split_brain: None, conflict };
    }
    let (relation, rule) = compare(mine, theirs, terms.protocol, sides);
    let (verdict, split_brain) = match relation {
        Relation::Plain(verdict) => (follow_wish(verdict, mine, theirs), None),
        Relation::Split { common, bitmaps_tell } => {
            let full = !bitmaps_tell;
            let outcome = resolve(mine, theirs, &terms.after_split_brain, bitmaps_tell, sides);
            let verdict = match (outcome, inconsistent(mine), inconsistent(theirs)) {
                // Somebody has given up already.
                (_, true, false) => Verdict::Target { full },
                (_, false, true) => Verdict::Source { full },
                (Outcome::Automatic { i_win: true } | Outcome::Manual { i_win: true }, ..)
                | (Outcome::PrimaryStepsDown { me: false, .. }, ..) => Verdict::Source { full },
                (
                    Outcome::Automatic { .. } | Outcome::Manual { .. } | Outcome::PrimaryStepsDown { .. },
                    ..,
                ) => Verdict::Target { full },
                (Outcome::Unresolved | Outcome::PrimaryShouldGiveUp { .. }, ..) => {
                    Verdict::Refuse(SPLIT_BRAIN.into())
                }
            };
            let settled = inconsistent(mine) != inconsistent(theirs);
            (verdict, Some(SplitBrain { common, bitmaps_tell, outcome }).filter(|_| !settled))
        }
        Relation::Unrelated => (Verdict::Refuse(UNRELATED.into()), None),
    };
    if seeded!(sides, SyncsFromInconsistent) {
        let (verdict, conflict) = respect_roles(verdict, mine, theirs);
        return Decision { verdict, rule, split_brain, conflict };
    }
    let (verdict, rule) = follow_disk_states(verdict, rule, mine, theirs);
    let (verdict, conflict) = match seeded!(sides, OverwritesPrimary) {
        true => (verdict, None),
        false => respect_roles(verdict, mine, theirs),
    };
    Decision { verdict, rule, split_brain, conflict }
}

/// How two copies are related, as far as the identifiers tell.
enum Relation {
    /// One has been through all that the other has.
    Plain(Verdict),
    /// Both went on from a common generation.
    Split {
        /// Which.
        common: u64,
        /// Both bitmaps count from it.
        bitmaps_tell: bool,
    },
    /// They have nothing in common.
    Unrelated,
}

/// `--discard-my-data` also takes a node back to older data.
fn follow_wish(verdict: Verdict, mine: &Handshake, theirs: &Handshake) -> Verdict {
    match (verdict, mine.discard_my_data, theirs.discard_my_data) {
        (Verdict::Source { full }, true, false) => Verdict::Target { full },
        (Verdict::Target { full }, false, true) => Verdict::Source { full },
        (verdict, ..) => verdict,
    }
}

/// A Primary without a good disk works through a peer that has the data its clients have seen, and no other.
fn lacks_exposed_data(primary: &Handshake, other: &Handshake) -> bool {
    let attached = primary.disk >= DiskState::Negotiating;
    let worth = if attached { DiskState::Inconsistent } else { DiskState::Outdated };
    if primary.role != Role::Primary || primary.disk > DiskState::Outdated || other.disk <= worth {
        return false;
    }
    let exposed = primary.generations.current;
    let has_generation = same(exposed, other.generations.current) || same(exposed, other.bitmap_id);
    // The generation of a disk that is attached is not what was exposed. And what was relied on may have been a target, which
    // was sent writes, and nothing of what came before.
    primary.relied_on.is_some_and(|attachment| attachment != other.attachment) || !attached && !has_generation
}

fn compare(
    mine: &Handshake,
    theirs: &Handshake,
    protocol: Protocol,
    sides: Sides,
) -> (Relation, &'static str) {
    use Verdict::{BothFresh, Source, Target};
    let plain = |verdict: Verdict, rule: &'static str| (Relation::Plain(verdict), rule);
    let (me, peer) = (&mine.generations, &theirs.generations);
    match (me.is_fresh(), peer.is_fresh()) {
        (true, true) => {
            return match mine.begins.max(theirs.begins) {
                0 => plain(BothFresh, "just-created-both"),
                generation => plain(Verdict::Begin { generation }, "skip-initial-sync"),
            };
        }
        (true, false) => return plain(Target { full: true }, "just-created-self"),
        (false, true) => return plain(Source { full: true }, "just-created-peer"),
        (false, false) => {}
    }
    if same(me.current, peer.current) {
        let (verdict, rule) = equal_current(mine, theirs, protocol, sides);
        return plain(verdict, rule);
    }
    let counts_from = |id: u64, h: &Handshake| {
        same(id, h.bitmap_id) && !seeded!(sides, IgnoresBitmapId)
            || same(id, h.resync_id) && !seeded!(sides, IgnoresMissedFinish)
    };
    match (counts_from(me.current, theirs), counts_from(peer.current, mine)) {
        (true, false) if seeded!(sides, PrefersOldData) => {
            return plain(Source { full: false }, "bitmap-peer");
        }
        (false, true) if seeded!(sides, PrefersOldData) => {
            return plain(Target { full: false }, "bitmap-self");
        }
        (true, false) => return plain(Target { full: false }, "bitmap-peer"),
        (false, true) => return plain(Source { full: false }, "bitmap-self"),
        _ => {}
    }
    match (peer.knows(me.current), me.knows(peer.current)) {
        (true, false) => return plain(Target { full: true }, "history-peer"),
        (false, true) => return plain(Source { full: true }, "history-self"),
        _ => {}
    }
    if let Some(common) = common_bitmap(mine, theirs, sides) {
        if seeded!(sides, MissesSplitBrain) {
            let verdict = if sides.me < sides.peer { Source { full: false } } else { Target { full: false } };
            return plain(verdict, "bitmap-both");
        }
        return (Relation::Split { common, bitmaps_tell: true }, "bitmap-both");
    }
    match common_ancestor(mine, theirs, sides) {
        Some(common) => (Relation::Split { common, bitmaps_tell: false }, "history-both"),
        None => (Relation::Unrelated, "unrelated"),
    }
}

/// The generation that both bitmaps count from; where a missed end of a resync leaves two, the later one.
fn common_bitmap(mine: &Handshake, theirs: &Handshake, sides: Sides) -> Option<u64> {
    let (first, second) = if sides.me < sides.peer { (mine, theirs) } else { (theirs, mine) };
    let pairs = [
        (first.resync_id, second.resync_id),
        (first.resync_id, second.bitmap_id),
        (first.bitmap_id, second.resync_id),
        (first.bitmap_id, second.bitmap_id),
    ];
    pairs.into_iter().find(|(a, b)| same(*a, *b)).map(|(a, _)| a & !PRIMARY_BIT)
}

/// The latest generation, in the order of the lower node id, that both have been through.
fn common_ancestor(mine: &Handshake, theirs: &Handshake, sides: Sides) -> Option<u64> {
    let ancestors = |h: &Handshake| [h.bitmap_id].into_iter().chain(h.generations.history);
    let (first, second) = if sides.me < sides.peer { (mine, theirs) } else { (theirs, mine) };
    ancestors(first).find(|id| ancestors(second).any(|other| same(*id, other))).map(|id| id & !PRIMARY_BIT)
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
                // The survivor's disk failed before the other crashed: it knows that it lacks what was written since.
                _ if survivor_is_old(mine, theirs) => source(i_crashed),
                // The crashed node completed writes that the survivor may lack.
                (_, Protocol::A) if !seeded!(sides, CrashedPrimaryLosesInA) => source(i_crashed),
                // The survivor has every completed write; the crashed node may have lost its disk's cache.
                (_, Protocol::A | Protocol::B | Protocol::C) => source(!i_crashed),
            };
            return (verdict, "crashed-primary");
        }
    }
    let clean = (mine.bitmap_id ^ theirs.bitmap_id) & !PRIMARY_BIT == 0
        && mine.dirty_blocks == 0
        && theirs.dirty_blocks == 0;
    if clean || seeded!(sides, MissedFinishIsInSync) {
        return (InSync, "no-sync");
    }
    // One of them did not see the end of a resync: neither has written since, or it would have another generation.
    // What is marked is compared once more, away from the data that is in use; who is Outdated was to be sent it, and was not.
    let claim = |h: &Handshake| {
        (h.role == Role::Primary, h.disk > DiskState::Outdated, h.bitmap_id != 0, h.dirty_blocks > 0)
    };
    match claim(mine).cmp(&claim(theirs)) {
        Ordering::Greater => (source(true), "missed-finish"),
        Ordering::Less => (source(false), "missed-finish"),
        Ordering::Equal => (source(sides.me < sides.peer), "missed-finish"),
    }
}

/// Of the two, the disk of the one that did not crash as Primary had failed before, and may have lost what the other has. One
/// that is Outdated because it left has everything: a Primary that goes on begins another generation.
fn survivor_is_old(mine: &Handshake, theirs: &Handshake) -> bool {
    let (crashed, survivor) = if mine.crashed_primary { (mine, theirs) } else { (theirs, mine) };
    survivor.failed && !crashed.failed
}

/// An inconsistent disk is never a source, whatever the identifiers say. What the bitmaps know they know whoever sends.
fn follow_disk_states(
    verdict: Verdict,
    rule: &'static str,
    mine: &Handshake,
    theirs: &Handshake,
) -> (Verdict, &'static str) {
    use Verdict::{InSync, Refuse, Source, Target};
    let refusal = || Refuse(NO_SOURCE.into());
    match (exposes_other_data(mine, theirs), exposes_other_data(theirs, mine)) {
        // What clients have seen is the peer's: whatever else the identifiers say, nothing but all of it will do.
        (true, false) if matches!(verdict, Source { .. }) => {
            return (Target { full: true }, "primary-without-data");
        }
        (false, true) if matches!(verdict, Target { .. }) => {
            return (Source { full: true }, "primary-without-data");
        }
        _ => {}
    }
    match (&verdict, inconsistent(mine), inconsistent(theirs)) {
        (InSync, true, false) => (Target { full: false }, "disk-states"),
        (InSync, false, true) => (Source { full: false }, "disk-states"),
        (Source { full }, true, false) => (Target { full: *full }, "disk-states"),
        (Target { full }, false, true) => (Source { full: *full }, "disk-states"),
        (Source { .. } | Target { .. }, true, true) => (refusal(), rule),
        _ => (verdict, rule),
    }
}

/// A Primary that works through the other's copy.
fn exposes_other_data(h: &Handshake, other: &Handshake) -> bool {
    h.role == Role::Primary && h.disk <= DiskState::Outdated && other.disk > DiskState::Inconsistent
}

fn inconsistent(h: &Handshake) -> bool {
    h.disk <= DiskState::Inconsistent
}

/// Data under a running client is never overwritten.
fn respect_roles(verdict: Verdict, mine: &Handshake, theirs: &Handshake) -> (Verdict, Option<RoleConflict>) {
    let exposed = |h: &Handshake| h.role == Role::Primary && h.disk >= DiskState::Consistent;
    let (text, conflict) = match verdict {
        Verdict::Target { .. } if exposed(mine) => (I_AM_PRIMARY, RoleConflict::IAmTarget),
        Verdict::Source { .. } if exposed(theirs) => (PEER_IS_PRIMARY, RoleConflict::PeerIsTarget),
        Verdict::InSync | Verdict::BothFresh | Verdict::Begin { .. }
            if mine.role == Role::Primary && theirs.role == Role::Primary =>
        {
            (BOTH_PRIMARY, RoleConflict::BothPrimary)
        }
        verdict => return (verdict, None),
    };
    (Verdict::Refuse(text.into()), Some(conflict))
}

/// Equal and not "none".
pub(crate) fn same(a: u64, b: u64) -> bool {
    a & !PRIMARY_BIT == b & !PRIMARY_BIT && a & !PRIMARY_BIT != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
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
        let begins = prop_oneof![3 => Just(0u64), 1 => (6u64..9).prop_map(|n| n << 8)];
        (ids, disk, role, 0u64..3, any::<[bool; 6]>(), begins).prop_map(
            |(
                ids,
                disk,
                role,
                dirty_blocks,
                [crashed_primary, discard_my_data, overcounted, gave_up, failed, held_open],
                begins,
            )| {
                let (current, bitmap_id, resync_id, h0, h1) = ids;
                let mut history = [0; HISTORY_SLOTS];
                history[..2].copy_from_slice(&[h0, h1]);
                Handshake {
                    round: 1,
                    role,
                    disk,
                    disk_bytes: 0,
                    growable_bytes: 0,
                    agreed_bytes: 0,
                    generations: Generations { current, history },
                    bitmap_id,
                    resync_id,
                    dirty_blocks,
                    crashed_primary,
                    discard_my_data,
                    overcounted,
                    gave_up,
                    failed,
                    held_open,
                    attachment: 0,
                    relied_on: None,
                    begins,
                    layout: Layout::default(),
                    rooms: Vec::new(),
                    growable_rooms: Vec::new(),
                }
            },
        )
    }

    fn terms() -> impl Strategy<Value = Terms> {
        use crate::split_brain::{AfterSplitBrain, NoPrimary, OnePrimary, TwoPrimaries};
        let protocol = prop_oneof![Just(Protocol::A), Just(Protocol::B), Just(Protocol::C)];
        let no_primary = prop_oneof![
            Just(NoPrimary::Disconnect),
            Just(NoPrimary::DiscardYoungerPrimary),
            Just(NoPrimary::DiscardOlderPrimary),
            Just(NoPrimary::DiscardZeroChanges),
            Just(NoPrimary::DiscardLeastChanges),
            (0u8..3).prop_map(|n| NoPrimary::DiscardNode(NodeId(n))),
        ];
        let one_primary = prop_oneof![
            Just(OnePrimary::Disconnect),
            Just(OnePrimary::Consensus),
            Just(OnePrimary::DiscardSecondary),
            Just(OnePrimary::CallPriLostAfterSb),
            Just(OnePrimary::ViolentlyAs0p),
        ];
        let two_primaries = prop_oneof![
            Just(TwoPrimaries::Disconnect),
            Just(TwoPrimaries::CallPriLostAfterSb),
            Just(TwoPrimaries::ViolentlyAs0p),
        ];
        (protocol, no_primary, one_primary, two_primaries, any::<bool>()).prop_map(
            |(protocol, no_primary, one_primary, two_primaries, always)| Terms {
                protocol,
                after_split_brain: AfterSplitBrain { no_primary, one_primary, two_primaries, always },
            },
        )
    }

    fn mirrored(outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Unresolved => Outcome::Unresolved,
            Outcome::PrimaryStepsDown { me, forced } => Outcome::PrimaryStepsDown { me: !me, forced },
            Outcome::PrimaryShouldGiveUp { me } => Outcome::PrimaryShouldGiveUp { me: !me },
            Outcome::Automatic { i_win } => Outcome::Automatic { i_win: !i_win },
            Outcome::Manual { i_win } => Outcome::Manual { i_win: !i_win },
        }
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
            terms in terms(),
        ) {
            let (x, y) = (NodeId(0), NodeId(1));
            let at_a = decide(&a, &b, &terms, Sides::new(x, y));
            let at_b = decide(&b, &a, &terms, Sides::new(y, x));
            prop_assert_eq!(mirror(&at_a.verdict), mirror(&mirror(&at_b.verdict)), "{:?}", at_a);
            prop_assert_eq!(at_a.split_brain.map(|s| s.common), at_b.split_brain.map(|s| s.common));
            let outcomes = (at_a.split_brain.map(|s| s.outcome), at_b.split_brain.map(|s| s.outcome));
            prop_assert_eq!(outcomes.0.map(mirrored), outcomes.1, "{:?}", at_a);
            // Data under a running client is never overwritten, whatever the policies say.
            let exposed = a.role == Role::Primary && a.disk >= DiskState::Consistent;
            let overwritten = exposed && matches!(at_a.verdict, Verdict::Target { .. });
            prop_assert!(!overwritten, "{:?}", at_a);
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
