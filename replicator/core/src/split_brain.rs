//! Split brain: both copies went on from a common generation. Who gives up what it wrote, if anybody
//! (drbd.conf(5), after-sb-0pri and those beside it).
//!
//! Both nodes evaluate [`resolve`] on the same two handshakes with the same policies, and must come to mirrored results.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::generation::{PRIMARY_BIT, Sides};
use crate::seeded;
use crate::state::Role;
use crate::units::{BLOCK_BYTES, NodeId};
use crate::wire::Handshake;

/// With no Primary: `after-sb-0pri`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoPrimary {
    /// Nobody gives up.
    #[default]
    Disconnect,
    /// Who became Primary after they had parted.
    DiscardYoungerPrimary,
    /// Who was Primary when they parted.
    DiscardOlderPrimary,
    /// Who has written nothing.
    DiscardZeroChanges,
    /// Who has written less; nobody, if a crash leaves that open.
    DiscardLeastChanges,
    /// This node.
    DiscardNode(NodeId),
}

/// With one Primary: `after-sb-1pri`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnePrimary {
    /// Nobody gives up.
    #[default]
    Disconnect,
    /// Who would with no Primary, if that is the Secondary.
    Consensus,
    /// The Secondary.
    DiscardSecondary,
    /// Who would with no Primary; a Primary steps down for that, or, if its device is in use, runs the handler
    /// `pri-lost-after-sb`.
    CallPriLostAfterSb,
    /// Who would with no Primary; a Primary's clients are cut off and it steps down.
    ViolentlyAs0p,
}

/// With two Primaries: `after-sb-2pri`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TwoPrimaries {
    /// Nobody gives up.
    #[default]
    Disconnect,
    /// Who would with no Primary steps down for that, or, if its device is in use, runs the handler `pri-lost-after-sb`.
    CallPriLostAfterSb,
    /// Who would with no Primary: its clients are cut off and it steps down.
    ViolentlyAs0p,
}

/// What is done about a split brain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct AfterSplitBrain {
    /// With no Primary.
    pub no_primary: NoPrimary,
    /// With one.
    pub one_primary: OnePrimary,
    /// With two.
    pub two_primaries: TwoPrimaries,
    /// Also where the bitmaps do not count from a common generation: everything is sent then.
    pub always: bool,
}

/// How a split brain ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It does not: both stand alone.
    Unresolved,
    /// A Primary steps down, and then gives up.
    PrimaryStepsDown {
        /// It is this node.
        me: bool,
        /// Its clients are cut off.
        forced: bool,
    },
    /// A Primary should give up, and does not under a running client.
    PrimaryShouldGiveUp {
        /// It is this node.
        me: bool,
    },
    /// A policy decides.
    Automatic {
        /// The peer gives up.
        i_win: bool,
    },
    /// The administrator has decided, with `--discard-my-data`.
    Manual {
        /// The peer gives up.
        i_win: bool,
    },
}

/// A split brain, as both nodes see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SplitBrain {
    /// The last generation that both have been through.
    pub common: u64,
    /// Both bitmaps count from it. Otherwise everything may differ.
    pub bitmaps_tell: bool,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// Decides. `bitmaps_tell`: the bitmaps count from a common generation.
pub(crate) fn resolve(
    mine: &Handshake,
    theirs: &Handshake,
    policies: &AfterSplitBrain,
    bitmaps_tell: bool,
    sides: Sides,
) -> Outcome {
    match (mine.discard_my_data, theirs.discard_my_data) {
        // What somebody says now counts for more than what was configured once.
        (true, false) => Outcome::Manual { i_win: false },
        (false, true) => Outcome::Manual { i_win: true },
        // Decided already; the bitmaps are one by now.
        _ if mine.gave_up != theirs.gave_up => Outcome::Automatic { i_win: theirs.gave_up },
        _ if bitmaps_tell || policies.always => by_policy(mine, theirs, policies, sides),
        _ => Outcome::Unresolved,
    }
}

fn by_policy(mine: &Handshake, theirs: &Handshake, policies: &AfterSplitBrain, sides: Sides) -> Outcome {
    let without_roles = without_primary(mine, theirs, policies.no_primary, sides);
    let automatic =
        |i_win: Option<bool>| i_win.map_or(Outcome::Unresolved, |i_win| Outcome::Automatic { i_win });
    let steps_down = |i_win: bool, forced: bool| {
        let loser = if i_win { theirs } else { mine };
        match loser.held_open && !forced {
            true => Outcome::PrimaryShouldGiveUp { me: !i_win },
            false => Outcome::PrimaryStepsDown { me: !i_win, forced },
        }
    };
    match (mine.role == Role::Primary, theirs.role == Role::Primary) {
        (false, false) => automatic(without_roles),
        (true, true) => match (policies.two_primaries, without_roles) {
            (TwoPrimaries::CallPriLostAfterSb, Some(i_win)) => steps_down(i_win, false),
            (TwoPrimaries::ViolentlyAs0p, Some(i_win)) => steps_down(i_win, true),
            (TwoPrimaries::Disconnect, _) | (_, None) => Outcome::Unresolved,
        },
        (i_am_primary, _) => match (policies.one_primary, without_roles) {
            (OnePrimary::DiscardSecondary, _) => Outcome::Automatic { i_win: i_am_primary },
            (OnePrimary::Disconnect, _) | (_, None) => Outcome::Unresolved,
            (_, Some(i_win)) if i_win == i_am_primary => Outcome::Automatic { i_win },
            (OnePrimary::Consensus, _) => Outcome::Unresolved,
            (OnePrimary::CallPriLostAfterSb, Some(i_win)) => steps_down(i_win, false),
            (OnePrimary::ViolentlyAs0p, Some(i_win)) => steps_down(i_win, true),
        },
    }
}

/// True if the peer would give up were there no Primary; `None` if nobody would.
fn without_primary(mine: &Handshake, theirs: &Handshake, policy: NoPrimary, sides: Sides) -> Option<bool> {
    let (i_wrote, peer_wrote) = (mine.dirty_blocks, theirs.dirty_blocks);
    let (i_stayed, peer_stayed) = (mine.stayed_primary(), theirs.stayed_primary());
    let i_win = match policy {
        NoPrimary::Disconnect => None,
        // What does not tell them apart leaves it to the changes.
        NoPrimary::DiscardYoungerPrimary | NoPrimary::DiscardOlderPrimary if i_stayed == peer_stayed => {
            i_changed_more(mine, theirs, sides)
        }
        NoPrimary::DiscardYoungerPrimary => Some(i_stayed),
        NoPrimary::DiscardOlderPrimary => Some(peer_stayed),
        NoPrimary::DiscardZeroChanges if i_wrote > 0 && peer_wrote > 0 => None,
        NoPrimary::DiscardZeroChanges | NoPrimary::DiscardLeastChanges => i_changed_more(mine, theirs, sides),
        NoPrimary::DiscardNode(node) if node == sides.me => Some(false),
        NoPrimary::DiscardNode(node) if node == sides.peer => Some(true),
        NoPrimary::DiscardNode(_) => None,
    };
    if seeded!(sides, DiscardsWrongSide) { i_win.map(|i_win| !i_win) } else { i_win }
}

/// `None` if that cannot be told: who seems to have changed more has crashed, and its count is only a bound.
fn i_changed_more(mine: &Handshake, theirs: &Handshake, sides: Sides) -> Option<bool> {
    let by_node = sides.peer.cmp(&sides.me);
    let i_did = mine.dirty_blocks.cmp(&theirs.dirty_blocks).then(by_node) == Ordering::Greater;
    let (more, less) = if i_did { (mine, theirs) } else { (theirs, mine) };
    let told = !more.overcounted || less.dirty_blocks == 0 || seeded!(sides, TrustsCountAfterCrash);
    told.then_some(i_did)
}

impl Handshake {
    /// The sender was Primary when both parted, and went on as such.
    pub(crate) fn stayed_primary(&self) -> bool {
        self.bitmap_id & PRIMARY_BIT != 0
    }
}

impl SplitBrain {
    /// For the log: how it was resolved, if it was.
    pub(crate) fn resolution(&self, mine: &Handshake, theirs: &Handshake) -> Option<String> {
        let (i_win, how) = match self.outcome {
            Outcome::Automatic { i_win } => (i_win, "automatically"),
            Outcome::Manual { i_win } => (i_win, "manually"),
            Outcome::Unresolved | Outcome::PrimaryStepsDown { .. } | Outcome::PrimaryShouldGiveUp { .. } => {
                return None;
            }
        };
        let primaries = [mine, theirs].iter().filter(|h| h.role == Role::Primary).count();
        let source = if i_win { "this" } else { "peer" };
        Some(format!("Split-Brain detected, {primaries} primaries, {how} solved. Sync from {source} node"))
    }

    /// For the operator of an unresolved one: what is at stake, and what to do.
    pub(crate) fn explanation(
        &self,
        mine: &Handshake,
        theirs: &Handshake,
        peer_name: &str,
        resource: &str,
    ) -> String {
        let kib = |h: &Handshake| h.dirty_blocks.saturating_mul(BLOCK_BYTES / 1024);
        let should_give_up = match self.outcome {
            Outcome::PrimaryShouldGiveUp { me: true } => {
                " This node should give up its data, and is Primary."
            }
            Outcome::PrimaryShouldGiveUp { me: false } => {
                " The peer should give up its data, and is Primary."
            }
            _ => "",
        };
        format!(
            "{SPLIT_BRAIN}{should_give_up} Last common generation {:016X}; written since: at most {} KiB here ({}), {} \
             KiB on {peer_name} ({}). Decide whose changes are lost, make that node Secondary, and run on it \
             'tandemadm connect --discard-my-data {resource}'; then on the other 'tandemadm connect {resource}'. 'tandemadm \
             split-brain show {resource}' tells more",
            self.common,
            kib(mine),
            mine.role,
            kib(theirs),
            theirs.role,
        )
    }
}

/// How the reason of a connection that a split brain has ended begins.
pub const SPLIT_BRAIN: &str = "Split-Brain detected but unresolved, dropping connection!";
