//! The administrator's programs: they take their time, succeed, fail, or hang until their time limit.

use std::collections::BTreeSet;

use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::io::{self, Input};
use tandem_core::state::{ConnectionState, ReplicationState};
use tandem_core::status::Status;
use tandem_core::units::HandlerId;

use super::link::Micros;
use super::oracle::Violation;
use super::prng::Prng;
use super::world::{Event, World};

/// A handler that hangs is killed after this time.
const LIMIT: Micros = 150_000;

/// Which handlers there are, and what becomes of them.
#[derive(Clone, Debug)]
pub struct Handlers {
    /// Configured on both nodes.
    pub configured: BTreeSet<Handler>,
    /// Of 100 runs, how many fail.
    pub failing: u64,
    /// Of 100 runs of fence-peer, how many fail.
    pub fence_failing: u64,
    /// Of 100 runs, how many hang.
    pub hanging: u64,
    /// A run takes at most.
    pub longest: Micros,
}

impl Handlers {
    pub(super) fn draw(prng: &mut Prng, fences: bool) -> Handlers {
        let any = prng.chance(1, 3);
        let mut configured: BTreeSet<Handler> =
            Handler::ALL.iter().copied().filter(|_| any && prng.chance(1, 2)).collect();
        // Who fences must unfence.
        for handler in [Handler::FencePeer, Handler::UnfencePeer] {
            if fences {
                configured.insert(handler);
            }
        }
        Handlers {
            configured,
            failing: [0, 10, 40][prng.below(3) as usize],
            fence_failing: [0, 30, 80][prng.below(3) as usize],
            hanging: [0, 0, 5][prng.below(3) as usize],
            longest: [100, 2_000, 30_000][prng.below(3) as usize],
        }
    }
}

impl World {
    /// A handler is to be run on a node.
    pub(super) fn run_handler(&mut self, n: usize, id: HandlerId, handler: Handler) -> Result<(), Violation> {
        if !self.plan.handlers.configured.contains(&handler) {
            let text = format!("node {n} runs {handler}, which is not configured");
            return Err(Violation::new("contract", text));
        }
        if handler == Handler::BeforeResyncTarget {
            self.nodes[n].snapshot = Some((id, self.nodes[n].disk.tokens().to_vec()));
        }
        let Handlers { failing, fence_failing, hanging, longest, .. } = self.plan.handlers;
        let failing = if handler == Handler::FencePeer { fence_failing } else { failing };
        // A refusal after a split brain has marked the loser, and the next decision may weigh that.
        let healing = self.healing.is_some() || self.split;
        let (outcome, delay) = if !healing && self.prng.chance(hanging, 100) {
            (HandlerOutcome::TimedOut, LIMIT)
        } else if !healing && self.prng.chance(failing, 100) {
            (HandlerOutcome::Exited(1 + self.prng.below(2) as u8), self.prng.below(longest))
        } else {
            (HandlerOutcome::Exited(0), self.prng.below(longest))
        };
        let incarnation = self.nodes[n].incarnation;
        self.at(delay, Event::HandlerDone { node: n, incarnation, id, handler, outcome });
        Ok(())
    }

    /// The resync that a handler was run for will not be: whatever comes next is something else, and has a handler of its own.
    pub(super) fn note_called_off(&mut self, n: usize, event: &io::Event) {
        if matches!(event, io::Event::Replication { new: ReplicationState::Off, .. }) {
            self.nodes[n].snapshot = None;
        }
    }

    /// A handler has ended.
    pub(super) fn handler_done(
        &mut self,
        n: usize,
        id: HandlerId,
        handler: Handler,
        outcome: HandlerOutcome,
    ) -> Result<(), Violation> {
        match (handler, outcome) {
            (Handler::FencePeer, HandlerOutcome::Exited(0)) => return self.fence(n, id),
            (Handler::UnfencePeer, HandlerOutcome::Exited(0)) => self.unfence(n),
            _ => {}
        }
        self.trace(Some(n), "handler", || format!("{handler} {outcome}"));
        let node = &mut self.nodes[n];
        if let Some((_, then)) = node.snapshot.take_if(|(run, _)| *run == id)
            && then != node.disk.tokens()[..then.len()]
        {
            let text = format!("the data of node {n} changed while its {handler} handler ran");
            return Err(Violation::new("handlers", text));
        }
        let before_resync = matches!(handler, Handler::BeforeResyncTarget | Handler::BeforeResyncSource);
        node.awaits_connect |= before_resync && outcome != HandlerOutcome::Exited(0);
        self.feed(n, Input::HandlerDone { id, outcome })?;
        // Unless the connection was lost meanwhile, and the outcome means nothing.
        let alone = |s: &Status| s.peers[0].connection == ConnectionState::StandAlone;
        self.nodes[n].awaits_connect &= self.nodes[n].status.as_ref().is_some_and(alone);
        Ok(())
    }
}
