//! kill -9, again and again: after every kill each completed write is found, and once healed both disks are the same.
//!
//! `TANDEM_KILL_ROUNDS` is the number of rounds per protocol, `TANDEM_SEED` repeats a choice of rounds.

use std::sync::Arc;
use std::thread;

use tandem_core::config::Protocol;
use tandem_core::state::{DiskState, ReplicationState, Role};

use crate::history::History;
use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::wait;
use crate::workload::{Workload, read_versions};

/// Rounds per protocol; three protocols make more than the 50 that are asked for.
const ROUNDS: u64 = 18;
/// Blocks that are written: half of the disks.
const BLOCKS: u64 = 4096;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_a() {
    rounds(Protocol::A);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_b() {
    rounds(Protocol::B);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_c() {
    rounds(Protocol::C);
}

/// What is killed, and when.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The secondary, while clients write; they notice nothing.
    Secondary,
    /// The primary, while clients write; the survivor is promoted.
    PrimaryThenSurvivor,
    /// The primary, while clients write; it comes back and is promoted again.
    PrimaryThenItself,
    /// The secondary, and again while it is the target of a resync.
    TargetDuringResync,
    /// The primary; the survivor is promoted, and killed while it is the source of the resync.
    SourceDuringResync,
}

const KINDS: [Kind; 5] = [
    Kind::Secondary,
    Kind::PrimaryThenSurvivor,
    Kind::PrimaryThenItself,
    Kind::TargetDuringResync,
    Kind::SourceDuringResync,
];

fn rounds(protocol: Protocol) {
    let mut random = Random::from_env(&format!("kill rounds, protocol {}", protocol.letter()));
    let count = std::env::var("TANDEM_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut test = Test {
        pair: Pair::synced(Setup { protocol, ..Setup::default() }),
        protocol,
        alpha_is_primary: true,
        history: Arc::new(History::new(BLOCKS)),
        mid_resync: 0,
    };
    let mut passed = Passed(0);
    // Every kind in turn, so that none is left out by chance; what is random is when.
    for round in 0..count {
        let kind = KINDS[round as usize % KINDS.len()];
        test.round(kind, &mut random);
        passed.0 += 1;
    }
    println!("  {} kills hit a resync under way", test.mid_resync);
}

/// Prints the rounds that passed, also when the next one did not: that one counts as the test's failure.
struct Passed(u64);

impl Drop for Passed {
    fn drop(&mut self) {
        println!("  kill rounds: {} passed, 0 failed", self.0);
    }
}

struct Test {
    pair: Pair,
    protocol: Protocol,
    alpha_is_primary: bool,
    history: Arc<History>,
    mid_resync: u32,
}

impl Test {
    fn round(&mut self, kind: Kind, random: &mut Random) {
        println!("  {kind:?}, primary {}", self.primary().name);
        let clients = Workload::start(self.primary(), &self.history, random);
        clients.wait_for_operations(random.below(400));
        match kind {
            Kind::Secondary => self.kill_secondary(clients, random),
            Kind::PrimaryThenSurvivor => {
                self.fail_over(clients);
                self.return_under_load(random);
            }
            Kind::PrimaryThenItself => self.kill_primary_and_return(clients),
            Kind::TargetDuringResync => self.kill_target_during_resync(clients, random),
            Kind::SourceDuringResync => self.kill_source_during_resync(clients),
        }
        self.pair.wait_healed();
        self.settle();
        self.check("healed", History::check_nothing_lost);
        self.pair.assert_identical();
    }

    fn kill_secondary(&self, clients: Workload, random: &mut Random) {
        self.secondary().kill();
        clients.wait_for_operations(1 + random.below(200));
        self.secondary().adm(&["up", RESOURCE]).ok();
        self.pair.wait_healed();
        clients.wait_for_operations(50);
        clients.stop();
    }

    /// Kills the primary, promotes the other one, and looks at what it has.
    fn fail_over(&mut self, clients: Workload) {
        self.primary().kill();
        clients.wait_for_loss();
        self.alpha_is_primary = !self.alpha_is_primary;
        self.primary().promote();
        match self.protocol {
            Protocol::A => self.check("survivor", History::check_causal_cut),
            Protocol::B | Protocol::C => self.check("survivor", History::check_nothing_lost),
        }
    }

    /// The one that crashed has the newest data, in every protocol; the survivor, never promoted, follows.
    fn kill_primary_and_return(&self, clients: Workload) {
        self.primary().kill();
        clients.wait_for_loss();
        self.primary().adm(&["up", RESOURCE]).ok();
        self.pair.wait_healed();
        self.primary().adm(&["primary", RESOURCE]).ok();
    }

    fn kill_target_during_resync(&mut self, clients: Workload, random: &mut Random) {
        self.secondary().kill();
        clients.wait_for_operations(300 + random.below(300));
        self.mid_resync += u32::from(self.kill_as_resync_begins(self.secondary()));
        clients.wait_for_operations(20);
        self.secondary().adm(&["up", RESOURCE]).ok();
        self.pair.wait_healed();
        clients.stop();
    }

    fn kill_source_during_resync(&mut self, clients: Workload) {
        self.fail_over(clients);
        self.mid_resync += u32::from(self.kill_as_resync_begins(self.primary()));
        wait::until("the target has noticed", || {
            self.secondary().peer().is_some_and(|p| p.replication == ReplicationState::Off)
        });
        if self.secondary().disk_state() == DiskState::Inconsistent {
            self.secondary().adm(&["primary", RESOURCE]).refused(17, "(-2) Need access to UpToDate data");
        }
        self.primary().adm(&["up", RESOURCE]).ok();
        self.pair.wait_healed();
        self.primary().adm(&["primary", RESOURCE]).ok();
    }

    /// Brings the secondary up and kills the victim as soon as the primary is the source of a resync. True if that
    /// was seen; a resync may be over before anybody looks.
    fn kill_as_resync_begins(&self, victim: &Node) -> bool {
        thread::scope(|scope| {
            // The command may still be waiting for an answer when its node is killed.
            scope.spawn(|| self.secondary().adm(&["up", RESOURCE]));
            let mut seen = false;
            wait::until("a resync begins", || {
                seen = self.primary().peer().is_some_and(|p| p.replication == ReplicationState::SyncSource);
                seen || self.pair.is_healed()
            });
            victim.kill();
            seen
        })
    }

    /// The killed node comes back, and is resynced while clients write.
    fn return_under_load(&self, random: &mut Random) {
        let clients = Workload::start(self.primary(), &self.history, random);
        clients.wait_for_operations(random.below(200));
        self.secondary().adm(&["up", RESOURCE]).ok();
        self.pair.wait_healed();
        clients.stop();
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

    fn primary(&self) -> &Node {
        if self.alpha_is_primary { &self.pair.alpha } else { &self.pair.bravo }
    }

    fn secondary(&self) -> &Node {
        if self.alpha_is_primary { &self.pair.bravo } else { &self.pair.alpha }
    }
}
