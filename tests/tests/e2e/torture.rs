//! Real daemons in network namespaces under kill -9, SIGSTOP and cut cables, while clients write: every completed write
//! is found afterwards, on the survivor where one may be promoted, and both copies are equal.
//!
//! `TANDEM_TORTURE_ROUNDS` is the number of rounds per protocol, `TANDEM_SEED` repeats a choice of rounds;
//! `cargo xtask torture --rounds 200` runs them.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use tandem_core::config::Protocol;
use tandem_core::state::{ConnectionState, ReplicationState};

use crate::cable::Cut;
use crate::node::{Node, RESOURCE};
use crate::pair::Setup;
use crate::random::Random;
use crate::trial::{Passed, Trial, rounds_from_env};
use crate::wait;
use crate::workload::Workload;

/// Rounds per protocol: every kind of trouble once.
const ROUNDS: u64 = KINDS.len() as u64;
/// A silent peer is noticed within two seconds, not within the 42 of the defaults.
const SHORT_TEMPER: &str = "ping-int 1; ping-timeout 5; timeout 5; ko-count 3;";

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_a() {
    torture(Protocol::A);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_b() {
    torture(Protocol::B);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_c() {
    torture(Protocol::C);
}

/// What happens to the pair while clients write to the primary.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The secondary is killed and comes back.
    KillSecondary,
    /// The primary is killed, the survivor promoted; the old primary comes back.
    KillPrimaryThenSurvivor,
    /// The primary is killed, comes back and is promoted again.
    KillPrimaryThenItself,
    /// Both are killed at once.
    KillBoth,
    /// The secondary is stopped, for a moment or until it is given up.
    StopSecondary,
    /// The primary is stopped, for a moment or until the secondary gives it up. Nobody takes its place.
    StopPrimary,
    /// The primary is stopped until it is given up; then it is shot, and the survivor promoted.
    StopPrimaryThenShootIt,
    /// The cable is cut, for a moment or until both have noticed; the primary goes on.
    CutCable,
    /// The cable is cut, and the primary killed before it has noticed: the survivor has everything.
    CutCableThenKillPrimary,
    /// The cable is cut, the primary goes on alone and is killed: only itself has everything.
    CutCableThenPrimaryGoesOn,
    /// The cable is cut, the secondary killed; it comes back before the cable does.
    CutCableThenKillSecondary,
    /// The cable is cut again as soon as the resync of the first cut begins.
    CutCableDuringResync,
}

const KINDS: [Kind; 12] = [
    Kind::CutCable,
    Kind::KillSecondary,
    Kind::KillPrimaryThenSurvivor,
    Kind::StopSecondary,
    Kind::CutCableThenKillPrimary,
    Kind::KillPrimaryThenItself,
    Kind::StopPrimary,
    Kind::CutCableDuringResync,
    Kind::KillBoth,
    Kind::StopPrimaryThenShootIt,
    Kind::CutCableThenPrimaryGoesOn,
    Kind::CutCableThenKillSecondary,
];

fn torture(protocol: Protocol) {
    let mut random = Random::from_env(&format!("torture, protocol {}", protocol.letter()));
    let count = rounds_from_env("TANDEM_TORTURE_ROUNDS").unwrap_or(ROUNDS);
    let setup = Setup { protocol, net: SHORT_TEMPER, own_networks: true, ..Setup::default() };
    let mut torture = Torture { trial: Trial::new(setup), survivors: 0 };
    let mut passed = Passed { what: "torture", rounds: 0 };
    // Every kind in turn, so that none is left out by chance; what is random is when, and how long.
    for round in 0..count {
        torture.round(KINDS[round as usize % KINDS.len()], &mut random);
        passed.rounds += 1;
    }
    println!("  {} times the survivor was promoted", torture.survivors);
}

struct Torture {
    trial: Trial,
    survivors: u32,
}

impl Torture {
    fn round(&mut self, kind: Kind, random: &mut Random) {
        println!("  {kind:?}, primary {}", self.trial.primary().name);
        let clients = self.trial.clients(random);
        clients.wait_for_operations(random.below(300));
        match kind {
            Kind::KillSecondary => self.kill_secondary(clients, random),
            Kind::KillPrimaryThenSurvivor => {
                self.trial.kill_primary(clients);
                self.survivor(random);
            }
            Kind::KillPrimaryThenItself => {
                self.trial.kill_primary(clients);
                self.trial.primary_returns();
            }
            Kind::KillBoth => self.kill_both(clients, random),
            Kind::StopSecondary => self.stop_secondary(clients, random),
            Kind::StopPrimary => self.stop_primary(clients, random),
            Kind::StopPrimaryThenShootIt => self.stop_primary_then_shoot_it(clients, random),
            Kind::CutCable => self.cut_cable(clients, random),
            Kind::CutCableThenKillPrimary => self.cut_cable_then_kill_primary(clients, random),
            Kind::CutCableThenPrimaryGoesOn => self.cut_cable_then_primary_goes_on(clients, random),
            Kind::CutCableThenKillSecondary => self.cut_cable_then_kill_secondary(clients, random),
            Kind::CutCableDuringResync => self.cut_cable_during_resync(clients, random),
        }
        self.trial.finish_round();
    }

    /// The primary is dead, and the survivor has everything: it takes over, the other one comes back under load.
    fn survivor(&mut self, random: &mut Random) {
        self.trial.promote_survivor();
        self.survivors += 1;
        self.trial.secondary_returns_under_load(random);
    }

    fn kill_secondary(&self, clients: Workload, random: &mut Random) {
        self.trial.secondary().kill();
        clients.wait_for_operations(1 + random.below(200));
        self.trial.secondary().adm(&["up", RESOURCE]).ok();
        self.heal_under_load(clients);
    }

    fn kill_both(&self, clients: Workload, random: &mut Random) {
        let (primary, secondary) = (self.trial.primary(), self.trial.secondary());
        if random.one_in(2) {
            primary.kill();
            secondary.kill();
        } else {
            secondary.kill();
            primary.kill();
        }
        clients.wait_for_loss();
        secondary.adm(&["up", RESOURCE]).ok();
        self.trial.primary_returns();
        self.trial.check_after_both_died();
    }

    /// Clients wait, or go on without it; they see no error.
    fn stop_secondary(&self, clients: Workload, random: &mut Random) {
        let secondary = self.trial.secondary().pid().unwrap();
        kill(secondary, Signal::SIGSTOP).unwrap();
        if random.one_in(3) {
            thread::sleep(moment(random));
        } else {
            self.wait_until_lost(self.trial.primary());
            clients.wait_for_operations(random.below(200));
        }
        kill(secondary, Signal::SIGCONT).unwrap();
        self.heal_under_load(clients);
    }

    fn stop_primary(&self, clients: Workload, random: &mut Random) {
        let primary = self.trial.primary().pid().unwrap();
        kill(primary, Signal::SIGSTOP).unwrap();
        if random.one_in(3) {
            thread::sleep(moment(random));
        } else {
            self.wait_until_lost(self.trial.secondary());
        }
        kill(primary, Signal::SIGCONT).unwrap();
        self.heal_under_load(clients);
    }

    /// What fencing does: one that only seems dead must be dead before another takes its place.
    fn stop_primary_then_shoot_it(&mut self, clients: Workload, random: &mut Random) {
        kill(self.trial.primary().pid().unwrap(), Signal::SIGSTOP).unwrap();
        self.wait_until_lost(self.trial.secondary());
        self.trial.kill_primary(clients);
        self.survivor(random);
    }

    fn cut_cable(&self, clients: Workload, random: &mut Random) {
        let cut = any_cut(random);
        println!("    {cut:?}");
        self.trial.pair.cable().cut(cut);
        if random.one_in(3) {
            thread::sleep(moment(random));
        } else {
            self.wait_until_lost(self.trial.primary());
            clients.wait_for_operations(random.below(300));
        }
        self.trial.pair.cable().mend();
        self.heal_under_load(clients);
    }

    fn cut_cable_then_kill_primary(&mut self, clients: Workload, random: &mut Random) {
        let cut = any_cut(random);
        self.trial.pair.cable().cut(cut);
        thread::sleep(moment(random) / 4);
        self.trial.kill_primary(clients);
        self.trial.pair.cable().mend();
        // What it completed after it had given its peer up, only itself has.
        match has_noticed(self.trial.primary()) {
            true => self.trial.primary_returns(),
            false => self.survivor(random),
        }
    }

    fn cut_cable_then_primary_goes_on(&self, clients: Workload, random: &mut Random) {
        self.trial.pair.cable().cut(any_cut(random));
        self.wait_until_lost(self.trial.primary());
        clients.wait_for_operations(1 + random.below(200));
        self.trial.kill_primary(clients);
        self.trial.pair.cable().mend();
        self.trial.primary_returns();
    }

    fn cut_cable_then_kill_secondary(&self, clients: Workload, random: &mut Random) {
        self.trial.pair.cable().cut(any_cut(random));
        thread::sleep(moment(random));
        self.trial.secondary().kill();
        clients.wait_for_operations(1 + random.below(200));
        self.trial.secondary().adm(&["up", RESOURCE]).ok();
        self.trial.pair.cable().mend();
        self.heal_under_load(clients);
    }

    fn cut_cable_during_resync(&self, clients: Workload, random: &mut Random) {
        self.trial.pair.cable().cut(any_cut(random));
        self.wait_until_lost(self.trial.primary());
        clients.wait_for_operations(200 + random.below(300));
        self.trial.pair.cable().mend();
        wait::until("a resync begins", || {
            self.trial.primary().peer().is_some_and(|p| p.replication == ReplicationState::SyncSource)
                || self.trial.pair.is_healed()
        });
        self.trial.pair.cable().cut(any_cut(random));
        self.wait_until_lost(self.trial.primary());
        clients.wait_for_operations(random.below(100));
        self.trial.pair.cable().mend();
        self.heal_under_load(clients);
    }

    fn heal_under_load(&self, clients: Workload) {
        self.trial.pair.wait_healed();
        clients.wait_for_operations(20);
        clients.stop();
    }

    fn wait_until_lost(&self, node: &Node) {
        let lost = || node.connection().is_some_and(|connection| connection != ConnectionState::Connected);
        wait::until("the peer is given up", lost);
    }
}

/// Less than it takes to notice, or about as long.
fn moment(random: &mut Random) -> Duration {
    Duration::from_millis(random.below(1500))
}

fn any_cut(random: &mut Random) -> Cut {
    let end = random.below(2) as usize;
    match random.below(3) {
        0 => Cut::Silent,
        1 => Cut::OneWay { from: end },
        _ => Cut::Down { end },
    }
}

/// Whether the dead node's last words tell that it had given its peer up.
fn has_noticed(node: &Node) -> bool {
    let log = node.log();
    let last = log.lines().rev().find(|line| line.contains("conn( "));
    !last.is_some_and(|line| line.contains("-> Connected )"))
}
