//! A pair that is maltreated while clients write, round after round, and what must be found each time.

use std::sync::Arc;

use tandem_core::config::Protocol;
use tandem_core::state::Role;

use crate::history::History;
use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::wait;
use crate::workload::{Workload, read_versions};

/// Blocks that are written: half of the disks.
const BLOCKS: u64 = 4096;

/// The pair, who is Primary, and what was written.
pub(crate) struct Trial {
    pub(crate) pair: Pair,
    protocol: Protocol,
    alpha_is_primary: bool,
    history: Arc<History>,
}

impl Trial {
    pub(crate) fn new(setup: Setup) -> Trial {
        Trial {
            protocol: setup.protocol,
            pair: Pair::synced(setup),
            alpha_is_primary: true,
            history: Arc::new(History::new(BLOCKS)),
        }
    }

    pub(crate) fn primary(&self) -> &Node {
        if self.alpha_is_primary { &self.pair.alpha } else { &self.pair.bravo }
    }

    pub(crate) fn secondary(&self) -> &Node {
        if self.alpha_is_primary { &self.pair.bravo } else { &self.pair.alpha }
    }

    /// Clients that write to the primary.
    pub(crate) fn clients(&self, random: &mut Random) -> Workload {
        Workload::start(self.primary(), &self.history, random)
    }

    /// Kills the primary, promotes the other one, and looks at what it has.
    pub(crate) fn fail_over(&mut self, clients: Workload) {
        self.kill_primary(clients);
        self.promote_survivor();
    }

    pub(crate) fn kill_primary(&self, clients: Workload) {
        self.primary().kill();
        clients.wait_for_loss();
    }

    /// The primary is dead: the other one takes its place, and is looked at.
    pub(crate) fn promote_survivor(&mut self) {
        self.alpha_is_primary = !self.alpha_is_primary;
        self.primary().promote();
        match self.protocol {
            Protocol::A => self.check("survivor", History::check_causal_cut),
            Protocol::B | Protocol::C => self.check("survivor", History::check_nothing_lost),
        }
    }

    /// The primary that was killed comes back and takes its place again: it has the newest data, in every protocol.
    pub(crate) fn primary_returns(&self) {
        self.primary().adm(&["up", RESOURCE]).ok();
        self.pair.wait_healed();
        self.primary().adm(&["primary", RESOURCE]).ok();
    }

    /// Both were killed and are back. In protocol B a completed write may have been in the memory of the secondary only
    /// received: what a flush has covered must be there, and of the rest what both have.
    pub(crate) fn check_after_both_died(&self) {
        match self.protocol {
            Protocol::B => self.check("both died", History::check_nothing_durable_lost),
            Protocol::A | Protocol::C => self.check("both died", History::check_nothing_lost),
        }
    }

    /// The secondary comes back, and is resynced while clients write.
    pub(crate) fn secondary_returns_under_load(&self, random: &mut Random) {
        let clients = self.clients(random);
        clients.wait_for_operations(random.below(200));
        self.secondary().adm(&["up", RESOURCE]).ok();
        self.pair.wait_healed();
        clients.stop();
    }

    /// Both copies are equal, and hold what was completed.
    pub(crate) fn finish_round(&self) {
        self.pair.wait_healed();
        self.settle();
        self.check("healed", History::check_nothing_lost);
        self.pair.assert_identical();
    }

    /// Protocols A and B complete a write before the peer's disk has it: waits until nothing is under way.
    fn settle(&self) {
        let mut client = self.primary().client().unwrap();
        client.flush().unwrap();
        drop(client);
        wait::until("nothing is under way", || {
            self.pair.nodes().iter().all(|node| {
                node.status().is_some_and(|s| {
                    let idle = s.peers.iter().all(|p| p.pending == 0 && p.unacked == 0);
                    idle && s.client_pending == 0 && s.local_pending == 0 && s.openers.is_empty()
                })
            })
        });
    }

    /// Reads everything on the primary and judges it; then it is the new base.
    fn check(&self, when: &str, judge: impl Fn(&History, &[u64]) -> Result<(), String>) {
        let primary = self.primary();
        assert_eq!(primary.role(), Role::Primary, "{when}: {}", primary.name);
        let found = read_versions(primary, &self.history).unwrap_or_else(|e| panic!("{when}: {e}"));
        judge(&self.history, &found).unwrap_or_else(|e| panic!("{when}, on {}: {e}", primary.name));
        self.history.rebase(&found);
    }
}

/// Prints the rounds that passed, also when the next one did not: that one counts as the test's failure.
pub(crate) struct Passed {
    pub(crate) what: &'static str,
    pub(crate) rounds: u64,
}

impl Drop for Passed {
    fn drop(&mut self) {
        println!("  {}: {} passed, 0 failed", self.what, self.rounds);
    }
}

/// The number of rounds that the environment asks for.
pub(crate) fn rounds_from_env(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
