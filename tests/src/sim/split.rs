//! Split brain, on purpose: the link is cut, both nodes are promoted and written to, then they meet again. From the
//! cut on, all that is checked is that both go StandAlone, say why, and overwrite nothing.

use tandem_core::state::{ConnectionState, Role};

use super::admin::Errand;
use super::faults::Kind;
use super::link::Micros;
use super::oracle::Violation;
use super::world::{PATIENCE, World};

/// How far the drama has come.
#[derive(Debug)]
pub(super) enum Act {
    /// The link is cut; both shall become Primary and serve a write. How many each had served at the cut.
    Parted { since: Micros, served: [u64; 2] },
    /// The clients leave, perhaps the Primaries step down.
    Ending { step_down: [bool; 2] },
    /// The link stands again. What each held then.
    Rejoined { since: Micros, held: [Vec<u64>; 2] },
}

impl World {
    /// Begins the drama if it is planned and the stage is set.
    pub(super) fn may_split(&mut self) {
        let primary = (0..2).find(|n| self.role(*n) == Some(Role::Primary));
        let calm = self.in_sync && self.healing.is_none() && self.script.is_none() && !self.link.down;
        let errands = self.nodes.iter().any(|n| n.errand.is_some());
        if !self.plan.split_brain || !calm || errands || primary.is_none() || self.prng.chance(3, 4) {
            return;
        }
        self.counts.note(Kind::SplitBrain);
        self.trace(None, "split", String::new);
        self.split = true;
        self.requests_left = u64::MAX;
        self.link.down = true;
        let hears = [self.prng.chance(1, 2), self.prng.chance(1, 2)];
        self.break_connection(hears);
        self.act = Some(Act::Parted { since: self.now, served: self.writes_served });
    }

    /// The next step of the drama.
    pub(super) fn drive_split_brain(&mut self) -> Result<(), Violation> {
        let Some(act) = self.act.take() else { return Ok(()) };
        let next = match act {
            Act::Parted { since, served } => {
                self.patient_since(since)?;
                self.promote_both()?;
                let alone = (0..2).all(|n| self.connection(n) != Some(ConnectionState::Connected));
                let both_served = (0..2).all(|n| self.writes_served[n] > served[n]);
                if !alone {
                    Act::Parted { since, served: self.writes_served }
                } else if both_served {
                    self.requests_left = 0;
                    Act::Ending { step_down: [self.prng.chance(1, 2), self.prng.chance(1, 2)] }
                } else {
                    Act::Parted { since, served }
                }
            }
            Act::Ending { step_down } => {
                if self.end_writing(step_down)? {
                    self.link_up();
                    Act::Rejoined { since: self.now, held: self.contents() }
                } else {
                    Act::Ending { step_down }
                }
            }
            Act::Rejoined { since, held } => {
                self.patient_since(since)?;
                if self.contents() != held {
                    return Err(Violation::new(
                        "K7",
                        format!("split brain: data was overwritten; {}", self.describe()),
                    ));
                }
                let settled = (0..2).all(|n| {
                    let status = self.nodes[n].status.as_ref();
                    status.is_some_and(|s| {
                        s.peers[0].connection == ConnectionState::StandAlone
                            && s.peers[0].standalone_reason.is_some()
                    })
                });
                self.finished = settled && self.now > since + 200_000;
                Act::Rejoined { since, held }
            }
        };
        self.act = Some(next);
        Ok(())
    }

    fn promote_both(&mut self) -> Result<(), Violation> {
        for n in 0..2 {
            let secondary = self.role(n) == Some(Role::Secondary);
            let alone = self.connection(n).is_some_and(|c| c != ConnectionState::Connected);
            if secondary && alone && self.nodes[n].errand.is_none() {
                let force = self.prng.chance(1, 2);
                self.send_errand(n, Errand::Primary { force })?;
            }
        }
        Ok(())
    }

    /// True once no client is there and those who shall have stepped down.
    fn end_writing(&mut self, step_down: [bool; 2]) -> Result<bool, Violation> {
        let mut done = true;
        for (n, step_down) in step_down.into_iter().enumerate() {
            let gone = self.see_client_off(n);
            let stepped = !step_down || self.role(n) == Some(Role::Secondary);
            if gone && !stepped && self.nodes[n].errand.is_none() {
                self.send_errand(n, Errand::Secondary)?;
            }
            done &= gone && stepped && self.nodes[n].errand.is_none() && self.nodes[n].disk.in_flight() == 0;
        }
        Ok(done)
    }

    fn patient_since(&self, since: Micros) -> Result<(), Violation> {
        if self.now > since + PATIENCE {
            return Err(Violation::new("K10", format!("split brain does not settle: {}", self.describe())));
        }
        Ok(())
    }

    fn connection(&self, n: usize) -> Option<ConnectionState> {
        self.nodes[n].status.as_ref().map(|s| s.peers[0].connection)
    }

    fn contents(&self) -> [Vec<u64>; 2] {
        [0, 1].map(|n| self.nodes[n].disk.tokens().to_vec())
    }
}
