//! A simulator of two nodes' services: each life of theirs is a seed. tandemd, the deciders, the operator and the plans are
//! models that behave as badly as the real ones do; what is tested are the machines, and what is noted for the next one.
//!
//! Replay a life: `TANDEM_SEED=17 cargo test -p nfs-failover --lib service::sim`; `TANDEM_SEED=0..100000` for more of them.

mod chance;
mod decider;
mod node;
mod onlooker;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

const LIVES: u64 = 3_000;
/// A bug is to be found within so many.
const LIVES_PER_BUG: u64 = 1_000;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// Seeded bugs: each breaks one rule of the machine, and the simulator must find it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(in crate::service) enum Bug { $($(#[doc = $doc])+ $name),+ }

        impl Bug {
            const ALL: &[Bug] = &[$(Bug::$name),+];
        }
    };
}

bugs! {
    /// A setback holds nothing back.
    ForgetsHold,
    /// The tenth setback holds back for as long as the first.
    HoldDoesNotGrow,
    /// Setbacks count for ever, however long it was up since.
    NeverForgives,
    /// Every reason to step down is a setback, although it does so already.
    CountsOneSetbackTwice,
    /// The operator's word does not end a hold.
    OperatorWaits,
    /// A wish that comes while a plan runs is not noted.
    KeepsOlderWish,
    /// A promotion that nobody wants any more goes on.
    NeverCancels,
    /// A demotion is cancelled when it is wished up.
    CancelsDemotion,
    /// A plan is started while another one runs.
    RunsTwoPlans,
    /// After it had to step down, it is promoted again without a new wish.
    KeepsSpentWish,
    /// The same, but only after a restart.
    ForgetsToSpend,
    /// The same, but only if it is killed while it begins to step down.
    SpendsLast,
    /// What the operator wanted and did not get is tried again.
    TriesAgainForOperator,
    /// A peer that was elected is not given way.
    IgnoresYield,
    /// After a promotion that could not begin, nothing is thought to be there.
    TakesRefusedForDown,
    /// What is left of a promotion counts as nothing.
    TakesHalfwayForDown,
    /// A demotion that was killed is not finished.
    LeavesHalfDemoted,
    /// That it must be fenced is forgotten when the service is restarted.
    ForgetsMustFence,
    /// It is promoted although it must be fenced.
    PromotesWhatMustBeFenced,
    /// What could not be demoted is never tried again.
    NeverTriesAgain,
    /// It is called fit while it is held back.
    TellsFitTooEarly,
    /// Whoever elects it while it is not fit is not told.
    ElectedInVain,
}

/// Lives one life to its end, if it breaks no rule.
fn live(seed: u64, bug: Option<Bug>) -> Result<(), String> {
    let mut world = World::new(seed, bug);
    catch_unwind(AssertUnwindSafe(|| world.live())).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        format!("seed {seed}: {said}\n{}", world.history())
    })
}

/// One, or from one to another.
fn seeds() -> Option<Range<u64>> {
    let text = std::env::var("TANDEM_SEED").ok()?;
    let (first, end) = text.split_once("..").unwrap_or((&text, ""));
    let first = first.parse().ok()?;
    Some(first..end.parse().unwrap_or(first + 1))
}

#[test]
fn no_life_breaks_a_rule() {
    for seed in seeds().unwrap_or(0..LIVES) {
        live(seed, None).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn every_seeded_bug_is_found() {
    let find = |bug: &Bug| (*bug, (0..LIVES_PER_BUG).find_map(|seed| live(seed, Some(*bug)).err()));
    let found: Vec<_> = Bug::ALL.iter().map(find).collect();
    for (bug, failure) in &found {
        let first = failure.as_ref().and_then(|text| text.lines().next());
        println!("{bug:?}: {}", first.unwrap_or("NOT FOUND"));
    }
    let missed: Vec<_> = found.iter().filter(|(_, failure)| failure.is_none()).map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
