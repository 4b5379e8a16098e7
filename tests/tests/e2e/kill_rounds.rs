//! kill -9, again and again: after every kill each completed write is found, and once healed both disks are the same.
//!
//! `TANDEM_KILL_ROUNDS` is the number of rounds per protocol, `TANDEM_SEED` repeats a choice of rounds.

use std::thread;

use tandem_core::config::Protocol;
use tandem_core::state::{DiskState, ReplicationState};

use crate::node::{Node, RESOURCE};
use crate::pair::Setup;
use crate::random::Random;
use crate::trial::{Passed, Trial, rounds_from_env};
use crate::wait;
use crate::workload::Workload;

/// Rounds per protocol; three protocols make more than the 50 that are asked for.
const ROUNDS: u64 = 18;

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
    let count = rounds_from_env("TANDEM_KILL_ROUNDS").unwrap_or(ROUNDS);
    let mut test = Test { trial: Trial::new(Setup { protocol, ..Setup::default() }), mid_resync: 0 };
    let mut passed = Passed { what: "kill rounds", rounds: 0 };
    // Every kind in turn, so that none is left out by chance; what is random is when.
    for round in 0..count {
        test.round(KINDS[round as usize % KINDS.len()], &mut random);
        passed.rounds += 1;
    }
    println!("  {} kills hit a resync under way", test.mid_resync);
}

struct Test {
    trial: Trial,
    mid_resync: u32,
}

impl Test {
    fn round(&mut self, kind: Kind, random: &mut Random) {
        println!("  {kind:?}, primary {}", self.trial.primary().name);
        let clients = self.trial.clients(random);
        clients.wait_for_operations(random.below(400));
        match kind {
            Kind::Secondary => self.kill_secondary(clients, random),
            Kind::PrimaryThenSurvivor => {
                self.trial.fail_over(clients);
                self.trial.secondary_returns_under_load(random);
            }
            Kind::PrimaryThenItself => {
                self.trial.kill_primary(clients);
                self.trial.primary_returns();
            }
            Kind::TargetDuringResync => self.kill_target_during_resync(clients, random),
            Kind::SourceDuringResync => self.kill_source_during_resync(clients),
        }
        self.trial.finish_round();
    }

    fn kill_secondary(&self, clients: Workload, random: &mut Random) {
        self.trial.secondary().kill();
        clients.wait_for_operations(1 + random.below(200));
        self.trial.secondary().adm(&["up", RESOURCE]).ok();
        self.trial.pair.wait_healed();
        clients.wait_for_operations(50);
        clients.stop();
    }

    fn kill_target_during_resync(&mut self, clients: Workload, random: &mut Random) {
        self.trial.secondary().kill();
        clients.wait_for_operations(300 + random.below(300));
        self.mid_resync += u32::from(self.kill_as_resync_begins(self.trial.secondary()));
        clients.wait_for_operations(20);
        self.trial.secondary().adm(&["up", RESOURCE]).ok();
        self.trial.pair.wait_healed();
        clients.stop();
    }

    fn kill_source_during_resync(&mut self, clients: Workload) {
        self.trial.fail_over(clients);
        self.mid_resync += u32::from(self.kill_as_resync_begins(self.trial.primary()));
        wait::until("the target has noticed", || {
            self.trial.secondary().peer().is_some_and(|p| p.replication == ReplicationState::Off)
        });
        if self.trial.secondary().disk_state() == DiskState::Inconsistent {
            let refused = self.trial.secondary().adm(&["primary", RESOURCE]);
            refused.refused(17, "(-2) Need access to UpToDate data");
        }
        self.trial.primary_returns();
    }

    /// Brings the secondary up and kills the victim as soon as the primary is the source of a resync. True if that
    /// was seen; a resync may be over before anybody looks.
    fn kill_as_resync_begins(&self, victim: &Node) -> bool {
        let (primary, secondary) = (self.trial.primary(), self.trial.secondary());
        thread::scope(|scope| {
            // The command may still be waiting for an answer when its node is killed.
            scope.spawn(|| secondary.adm(&["up", RESOURCE]));
            let mut seen = false;
            wait::until("a resync begins", || {
                seen = primary.peer().is_some_and(|p| p.replication == ReplicationState::SyncSource);
                seen || self.trial.pair.is_healed()
            });
            victim.kill();
            seen
        })
    }
}
