//! Faults as they happen: deaths, cuts, slowness, and the administrator's disturbances.

use tandem_core::io::Input;

use super::faults::Kind;
use super::link::Micros;
use super::oracle::Violation;
use super::world::{Event, World};

impl World {
    /// A fault is due; the next is planned.
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.healing.is_some() || self.split {
            return Ok(());
        }
        let next = self.prng.between(1, 2 * self.plan.fault_interval);
        self.at(next, Event::Fault);
        let kind = self.plan.draw_kind(&mut self.prng);
        let node = self.prng.node();
        self.inject(kind, node)
    }

    /// Something has just changed on the node: a good moment for a fault.
    pub(super) fn ambush(&mut self, n: usize) {
        if self.plan.ambush && self.healing.is_none() && !self.split && self.prng.chance(1, 8) {
            self.counts.note(Kind::Ambush);
            let longest = if self.prng.chance(1, 2) { 2_000 } else { 8_000 };
            let delay = self.prng.below(longest);
            let kind = if self.prng.chance(1, 4) {
                Kind::PowerLossBoth
            } else {
                self.plan.draw_kind(&mut self.prng)
            };
            let node = if self.prng.chance(2, 3) { n } else { 1 - n };
            self.at(delay, Event::Strike { kind, node });
        }
    }

    /// The node dies within this time, one way or another.
    pub(super) fn kill_soon(&mut self, node: usize, longest: Micros) {
        if self.healing.is_none() && !self.split {
            self.counts.note(Kind::Ambush);
            let kind = if self.prng.chance(1, 2) { Kind::ProcessCrash } else { Kind::PowerLoss };
            let delay = self.prng.below(longest);
            self.at(delay, Event::Strike { kind, node });
        }
    }

    /// Makes a fault happen, to `node` if it is one that happens to a node.
    pub(super) fn inject(&mut self, kind: Kind, node: usize) -> Result<(), Violation> {
        if self.split {
            return Ok(());
        }
        match kind {
            Kind::ProcessCrash | Kind::PowerLoss => {
                let dead = self.nodes[node].engine.is_none();
                if dead && (kind == Kind::ProcessCrash || self.prng.chance(3, 4)) {
                    return Ok(());
                }
                self.counts.note(kind);
                self.die(node, kind == Kind::PowerLoss);
            }
            Kind::PowerLossBoth | Kind::DoubleDeath => {
                if self.nodes.iter().all(|n| n.engine.is_none()) {
                    return Ok(());
                }
                self.counts.note(kind);
                let power = |w: &mut World| kind == Kind::PowerLossBoth || w.prng.chance(1, 2);
                let first = power(self);
                self.die(node, first);
                let second = if power(self) { Kind::PowerLoss } else { Kind::ProcessCrash };
                let longest = [1, 2_000, 20_000][self.prng.below(3) as usize];
                let delay = self.prng.below(longest);
                self.at(delay, Event::Strike { kind: second, node: 1 - node });
            }
            Kind::LinkFlap => {
                self.counts.note(kind);
                self.break_connection([true; 2]);
            }
            Kind::LinkCut | Kind::HalfOpen => {
                if self.link.down {
                    return Ok(());
                }
                self.counts.note(kind);
                self.trace(None, "link down", String::new);
                self.link.down = true;
                let mut hears = [kind == Kind::LinkCut; 2];
                hears[node] |= self.prng.chance(1, 2);
                self.break_connection(hears);
                let longest = [2_000, 50_000, 400_000][self.prng.below(3) as usize];
                let delay = self.prng.below(longest);
                self.at(delay, Event::LinkUp);
            }
            Kind::SlowDisk => {
                self.counts.note(kind);
                self.nodes[node].disk_slowness = [5, 30, 100][self.prng.below(3) as usize];
                self.calm(Some(node));
            }
            Kind::SlowLink => {
                self.counts.note(kind);
                self.link_slowness = [5, 30, 100][self.prng.below(3) as usize];
                self.calm(None);
            }
            Kind::Impatience => {
                if let Some((id, errand, _)) = self.nodes[node].errand {
                    self.counts.note(kind);
                    self.trace(Some(node), "cancels", || format!("{errand:?}"));
                    self.feed(node, Input::CancelCommand { id })?;
                }
            }
            Kind::ReadError
            | Kind::WriteError
            | Kind::MetadataError
            | Kind::FlushError
            | Kind::DyingDisk
            | Kind::HungDisk => self.trouble(kind, node),
            Kind::Impostor => return self.meet_impostor(node),
            Kind::ClockJump | Kind::ClockStop => return self.disturb_clock(kind, node),
            _ => {
                if let Some(steps) = self.script_for(kind) {
                    self.begin_script(kind, steps);
                }
            }
        }
        Ok(())
    }

    fn calm(&mut self, node: Option<usize>) {
        let delay: Micros = self.prng.below(30_000);
        self.at(delay, Event::Calm { node });
    }

    /// The process dies; with `power`, the machine does. It comes back later. A machine may lose its power while no
    /// process runs.
    pub(super) fn die(&mut self, n: usize, power: bool) {
        self.trace(Some(n), "dies", || if power { "power loss".into() } else { "process".into() });
        let lived = self.nodes[n].engine.is_some();
        if self.is_finishing(n) {
            // It was writing down that it is complete; that may have reached the disk.
            self.oracle.target_finished(n);
        }
        self.drop_process(n);
        if power {
            self.nodes[n].disk.power_loss(&mut self.prng);
        } else {
            self.nodes[n].disk.process_crash(&mut self.prng);
        }
        if self.disk_is_consistent(n) {
            self.oracle.kept(n);
        }
        self.oracle.died(n, power);
        self.check_undo(n, power);
        if !lived {
            return;
        }
        let silent = power && self.prng.chance(1, 2) || self.link.down;
        self.abandon_connection(n, silent);
        self.try_to_meet();
        let delay = self.prng.below(self.plan.longest_death);
        self.at(delay, Event::Restart { node: n });
    }
}
