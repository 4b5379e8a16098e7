//! Every history of two nodes, up to a number of events: an enumeration of what the generation identifiers must get
//! right.
//!
//! Real engines live every history; beside them stands [`truth`]: version vectors that no identifier has part in. When
//! the nodes meet, what comes of it must be what the truth says: newer data is never overwritten by older, a split
//! brain is found exactly where both copies went on, nothing is sent that the bitmaps do not mark, and both nodes come
//! to the same result. States from which the same can follow are followed once.

mod event;
mod pair;
mod truth;
mod world;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tandem_core::config::Protocol;
use tandem_core::mutation::Mutation;

pub use event::Event;
use world::World;

/// A rule that was broken, in words.
type Violation = String;

/// What to enumerate.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The replication protocol.
    pub protocol: Protocol,
    /// Number of events.
    pub depth: usize,
    /// Events that come first in every history, besides those that are enumerated.
    pub prologue: &'static [Event],
    /// With this seeded bug.
    pub mutation: Option<Mutation>,
}

/// The first thing after which there is data to speak of: a Primary, and its peer in sync.
pub const PAIR_IN_SYNC: &[Event] = &[Event::Connect, Event::Force(0)];

/// What was found.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Histories, of every length up to the depth.
    pub histories: u128,
    /// States that were told apart.
    pub states: usize,
    /// Events that were lived.
    pub events: u64,
    /// How often the nodes met by each rule.
    pub rules: BTreeMap<String, u64>,
    /// Histories at whose end a rule was broken, shortest first.
    pub failures: Vec<Failure>,
}

/// A history that breaks a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The history, after the prologue.
    pub events: Vec<Event>,
    /// What was broken.
    pub violation: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.events, self.violation)
    }
}

/// A state, and the shortest history that leads to it.
struct State {
    path: Vec<u8>,
    successors: Vec<usize>,
}

/// What came of one event in one state.
struct Step {
    from: usize,
    event: u8,
    outcome: Result<u64, Violation>,
    rules: Vec<String>,
}

/// Lives every history of the plan.
pub fn enumerate(plan: Plan, jobs: usize) -> Report {
    let events = Event::all();
    let mut report = Report::default();
    let mut states = vec![State { path: Vec::new(), successors: Vec::new() }];
    let mut known: HashMap<u64, usize> = HashMap::new();
    match replay(&plan, &events, &[]).and_then(|w| w.fingerprint()) {
        Ok(first) => known.insert(first, 0),
        Err(violation) => {
            report.failures.push(Failure { events: Vec::new(), violation });
            return report;
        }
    };
    let mut frontier = 0..1;
    for _ in 0..plan.depth {
        for step in expand(&plan, &events, &states, frontier.clone(), jobs) {
            report.events += 1;
            for rule in step.rules {
                *report.rules.entry(rule).or_default() += 1;
            }
            let mut path = states[step.from].path.clone();
            path.push(step.event);
            match step.outcome {
                Ok(fingerprint) => {
                    let state = *known.entry(fingerprint).or_insert_with(|| {
                        states.push(State { path, successors: Vec::new() });
                        states.len() - 1
                    });
                    states[step.from].successors.push(state);
                }
                Err(violation) => {
                    let events = path.iter().map(|e| events[usize::from(*e)]).collect();
                    report.failures.push(Failure { events, violation });
                }
            }
        }
        frontier = frontier.end..states.len();
        if !report.failures.is_empty() {
            break;
        }
    }
    report.states = states.len();
    report.histories = count_histories(&states, plan.depth);
    report
}

/// Everything that can happen in each of these states.
fn expand(
    plan: &Plan,
    events: &[Event],
    states: &[State],
    frontier: std::ops::Range<usize>,
    jobs: usize,
) -> Vec<Step> {
    let (next, end) = (AtomicUsize::new(frontier.start), frontier.end);
    let steps = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let mut mine = Vec::new();
                loop {
                    let from = next.fetch_add(1, Ordering::Relaxed);
                    if from >= end {
                        break;
                    }
                    expand_one(plan, events, from, &states[from].path, &mut mine);
                }
                if let Ok(mut steps) = steps.lock() {
                    steps.append(&mut mine);
                }
            });
        }
    });
    let mut steps = steps.into_inner().unwrap_or_default();
    steps.sort_by_key(|s: &Step| (s.from, s.event));
    steps
}

fn expand_one(plan: &Plan, events: &[Event], from: usize, path: &[u8], steps: &mut Vec<Step>) {
    let Ok(world) = replay(plan, events, path) else { return };
    for (number, event) in events.iter().enumerate() {
        let mut world = world.clone();
        let outcome = match world.happen(*event) {
            Ok(false) => continue,
            Ok(true) => world.fingerprint(),
            Err(violation) => Err(violation),
        };
        let rules = world.seen().rules.clone();
        steps.push(Step { from, event: number as u8, outcome, rules });
    }
}

/// Lives a history again.
fn replay(plan: &Plan, events: &[Event], path: &[u8]) -> Result<World, Violation> {
    let mut world = World::new(plan.protocol, plan.mutation)?;
    let path = path.iter().map(|e| events[usize::from(*e)]);
    for event in plan.prologue.iter().copied().chain(path) {
        world.happen(event)?;
    }
    Ok(world)
}

/// Paths of every length up to the depth in the graph of states.
fn count_histories(states: &[State], depth: usize) -> u128 {
    let mut here = vec![0u128; states.len()];
    here[0] = 1;
    let mut all = 0;
    for _ in 0..depth {
        let mut next = vec![0u128; states.len()];
        for (state, count) in states.iter().zip(&here).filter(|(_, count)| **count > 0) {
            for successor in &state.successors {
                next[*successor] += count;
            }
        }
        all += next.iter().sum::<u128>();
        here = next;
    }
    all
}
