//! Split brain, on purpose: the link is cut, both nodes are promoted and written to, then they meet again. From the
//! cut on, what is checked is whose data wins: what the policies say, or else the administrator, once asked; and until
//! then that both go StandAlone, say why, and overwrite nothing.

use tandem_core::split_brain::{NoPrimary, OnePrimary, TwoPrimaries};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::Status;
use tandem_core::units::Timestamp;

use super::checks::Mask;
use super::errand::Errand;
use super::faults::Kind;
use super::link::Micros;
use super::oracle::{Violation, undamaged};
use super::world::{PATIENCE, World};

/// What each disk holds.
type Held = [Vec<u64>; 2];

/// How far the drama has come.
#[derive(Debug)]
pub(super) enum Act {
    /// The link is cut; both shall become Primary and serve a write alone. How many each had served alone at the cut, and
    /// who was Primary then.
    Parted { since: Micros, served: [u64; 2], stayed: usize },
    /// The clients leave, or only stop, perhaps the Primaries step down.
    Ending { ends: [End; 2], stayed: usize },
    /// The link stands again. What each held then.
    Rejoined { since: Micros, held: Held },
    /// The administrator has chosen the loser, and asks once more what would happen.
    Asking { since: Micros, held: Held, loser: usize },
    /// The winner's data comes to the loser, however often that is interrupted.
    Resolving { since: Micros, held: Held, winner: usize, manually: bool },
}

/// How a Primary's clients end what they do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// They keep the device open.
    Stop,
    /// They leave.
    Leave,
    /// They leave, and the node becomes Secondary.
    StepDown,
    /// They leave, and the node's process dies.
    Crash,
}

impl World {
    /// Begins the drama if it is planned and the stage is set.
    pub(super) fn may_split(&mut self) {
        let primary = (0..2).find(|n| self.role(*n) == Some(Role::Primary));
        let calm = self.in_sync && self.healing.is_none() && self.script.is_none() && !self.link.down;
        let errands = self.nodes.iter().any(|n| n.errand.is_some());
        let Some(stayed) = primary.filter(|_| self.plan.split_brain && calm && !errands) else { return };
        if self.prng.chance(3, 4) {
            return;
        }
        self.counts.note(Kind::SplitBrain);
        self.trace(None, "split", String::new);
        self.split = true;
        self.requests_left = u64::MAX;
        self.end_troubles();
        self.link.down = true;
        let hears = [self.prng.chance(1, 2), self.prng.chance(1, 2)];
        self.break_connection(hears);
        self.act = Some(Act::Parted { since: self.now, served: self.served_alone, stayed });
    }

    /// The next step of the drama.
    pub(super) fn drive_split_brain(&mut self) -> Result<(), Violation> {
        let Some(act) = self.act.take() else { return Ok(()) };
        let next = match act {
            Act::Parted { since, served, stayed } => {
                self.patient_since(since)?;
                self.promote_both()?;
                if (0..2).all(|n| self.served_alone[n] > served[n]) {
                    self.requests_left = 0;
                    let all = [End::StepDown, End::StepDown, End::Leave, End::Stop, End::Stop, End::Crash];
                    let mut end = || all[self.prng.below(6) as usize];
                    let mut ends = [end(), end()];
                    if self.plan.crashes_when_split {
                        ends[self.prng.node()] = End::Crash;
                    }
                    Act::Ending { ends, stayed }
                } else {
                    Act::Parted { since, served, stayed }
                }
            }
            Act::Ending { mut ends, stayed } => {
                if self.end_writing(&mut ends)? {
                    self.rejoin(stayed)
                } else {
                    Act::Ending { ends, stayed }
                }
            }
            Act::Rejoined { since, held } => self.both_stand_alone(since, held)?,
            Act::Asking { since, held, loser } => self.ask_what_would_happen(since, held, loser)?,
            Act::Resolving { since, held, winner, manually } => {
                self.resolve(since, held, winner, manually)?
            }
        };
        self.act = Some(next);
        Ok(())
    }

    /// The link stands again: either the policies decide, or nobody gives up.
    fn rejoin(&mut self, stayed: usize) -> Act {
        let (since, held) = (self.now, self.contents());
        let winner = self.winner_by_policy(stayed);
        self.trace(None, "split", || format!("winner by policy: {winner:?}"));
        self.link_up();
        match winner {
            Some(winner) => Act::Resolving { since, held, winner, manually: false },
            None => Act::Rejoined { since, held },
        }
    }

    /// Whom the policies let win; both have written.
    fn winner_by_policy(&self, stayed: usize) -> Option<usize> {
        let policies = &self.plan.after_split_brain;
        let changes =
            [0, 1].map(|n| self.nodes[n].status.as_ref().map_or(0, |s| s.peers[0].out_of_sync_bytes));
        let without_primary = match policies.no_primary {
            NoPrimary::Disconnect | NoPrimary::DiscardZeroChanges => None,
            NoPrimary::DiscardYoungerPrimary => Some(stayed),
            NoPrimary::DiscardOlderPrimary => Some(1 - stayed),
            NoPrimary::DiscardLeastChanges => {
                let winner = usize::from(changes[1] > changes[0]);
                let overcounted = |n: usize| {
                    let engine = self.nodes[n].engine.as_ref();
                    engine.is_some_and(|e| e.divergences(Timestamp(self.now), 0)[0].here.overcounted)
                };
                Some(winner).filter(|winner| changes[1 - winner] == 0 || !overcounted(*winner))
            }
            NoPrimary::DiscardNode(node) => Some(1 - usize::from(node.0)),
        };
        let primaries: Vec<usize> = (0..2).filter(|n| self.role(*n) == Some(Role::Primary)).collect();
        // A Primary whose device is open loses to violence only.
        let unless_open = |winner: &usize| {
            let loser = 1 - winner;
            self.role(loser) != Some(Role::Primary) || self.nodes[loser].client.is_none()
        };
        match primaries.as_slice() {
            [] => without_primary,
            [primary] => match policies.one_primary {
                OnePrimary::Disconnect => None,
                OnePrimary::DiscardSecondary => Some(*primary),
                OnePrimary::Consensus => without_primary.filter(|winner| winner == primary),
                OnePrimary::CallPriLostAfterSb => without_primary.filter(unless_open),
                OnePrimary::ViolentlyAs0p => without_primary,
            },
            _ => match policies.two_primaries {
                TwoPrimaries::Disconnect => None,
                TwoPrimaries::CallPriLostAfterSb => without_primary.filter(unless_open),
                TwoPrimaries::ViolentlyAs0p => without_primary,
            },
        }
    }

    fn both_stand_alone(&mut self, since: Micros, held: Held) -> Result<Act, Violation> {
        self.patient_since(since)?;
        self.nothing_is_overwritten(&held)?;
        let settled = (0..2).all(|n| self.stands_alone_and_says_why(n));
        if !settled || self.now < since + 200_000 {
            return Ok(Act::Rejoined { since, held });
        }
        self.both_know_what_differs()?;
        let loser = self.prng.node();
        Ok(Act::Asking { since: self.now, held, loser })
    }

    /// A connection that only asks changes nothing. Then the administrator decides: the loser gives its data up.
    fn ask_what_would_happen(&mut self, since: Micros, held: Held, loser: usize) -> Result<Act, Violation> {
        self.patient_since(since)?;
        self.nothing_is_overwritten(&held)?;
        if self.nodes.iter().any(|n| n.errand.is_some()) {
            return Ok(Act::Asking { since, held, loser });
        }
        if self.role(loser) == Some(Role::Primary) {
            self.see_client_off(loser);
            self.send_errand(loser, Errand::Secondary)?;
            return Ok(Act::Asking { since, held, loser });
        }
        let answered = self.nodes[loser].status.as_ref().is_some_and(|s| {
            let reason = s.peers[0].standalone_reason.as_ref();
            reason.is_some_and(|r| r.contains("dry-run connect: Would become SyncTarget"))
        });
        if answered {
            return Ok(Act::Resolving { since: self.now, held, winner: 1 - loser, manually: true });
        }
        if self.connection(1 - loser) == Some(ConnectionState::StandAlone) {
            self.send_errand(1 - loser, Errand::Connect)?;
        } else if self.connection(loser) == Some(ConnectionState::StandAlone) {
            self.send_errand(loser, Errand::ConnectWith { discard_my_data: true, tentative: true })?;
        }
        Ok(Act::Asking { since, held, loser })
    }

    /// Until both hold the winner's data: the connection breaks now and then, and processes die if the administrator
    /// is there to say again who gives up.
    fn resolve(
        &mut self,
        since: Micros,
        held: Held,
        winner: usize,
        manually: bool,
    ) -> Result<Act, Violation> {
        self.patient_since(since)?;
        let now = self.contents();
        if now[winner] != held[winner] {
            let text =
                format!("split brain: the winner, node {winner}, was overwritten; {}", self.describe());
            return Err(Violation::new("K7", text));
        }
        if self.in_sync && self.nodes.iter().all(|n| n.errand.is_none() && n.disk.in_flight() == 0) {
            if now[1 - winner] != held[winner] {
                let text =
                    format!("split brain: in sync, and node {winner} has not won; {}", self.describe());
                return Err(Violation::new("K6", text));
            }
            self.finished = true;
            return Ok(Act::Resolving { since, held, winner, manually });
        }
        let early = self.now < since + 300_000;
        // A loser that dies forgets its administrator's word, and a policy may then say otherwise.
        let undecided = [NoPrimary::Disconnect, NoPrimary::DiscardZeroChanges];
        let loser_may_die = undecided.contains(&self.plan.after_split_brain.no_primary);
        for n in (0..2).filter(|_| manually) {
            let stands = self.connection(n) == Some(ConnectionState::StandAlone);
            if stands && self.nodes[n].errand.is_none() {
                let wish = Errand::ConnectWith { discard_my_data: true, tentative: false };
                self.send_errand(n, if n == winner { Errand::Connect } else { wish })?;
            } else if early
                && (n == winner || loser_may_die)
                && self.prng.chance(1, 20)
                && self.nodes[n].engine.is_some()
            {
                self.die(n, false);
            }
        }
        if early && self.prng.chance(1, 6) {
            self.break_connection([true; 2]);
        }
        // Who has lost by policy remembers, once the bitmaps meet.
        let receiving = |s: &Status| {
            s.peers[0].replication == ReplicationState::WFBitMapT || s.disk == DiskState::Inconsistent
        };
        let giving_up = self.nodes[1 - winner].status.as_ref().is_some_and(receiving);
        if early && !manually && giving_up && self.prng.chance(1, 3) {
            let power = self.prng.chance(1, 2);
            self.die(1 - winner, power);
        }
        Ok(Act::Resolving { since, held, winner, manually })
    }

    fn nothing_is_overwritten(&self, held: &Held) -> Result<(), Violation> {
        if self.contents() == *held {
            return Ok(());
        }
        let text = format!("split brain: data was overwritten; {}", self.describe());
        Err(Violation::new("K7", text))
    }

    /// What would be saved before one side gives its data up holds every block that the other's data would overwrite.
    fn both_know_what_differs(&self) -> Result<(), Violation> {
        let disks = [&self.nodes[0].disk, &self.nodes[1].disk];
        for n in 0..2 {
            let Some(engine) = self.nodes[n].engine.as_ref() else { continue };
            let divergence = &engine.divergences(Timestamp(self.now), 0)[0];
            let told = divergence.meeting.as_ref().filter(|m| m.complete);
            let there = told.map_or(&[][..], |m| &m.there.ranges);
            let known = Mask::of_ranges(divergence.here.ranges.iter().chain(there));
            let missing = Mask::of_differences(disks[0], disks[1]).and_then(|m| m.first_outside(&known));
            if told.is_none_or(|m| m.bitmaps_tell) && missing.is_some() {
                let text = format!(
                    "split brain: node {n} does not know that sector {missing:?} differs; {}",
                    self.describe()
                );
                return Err(Violation::new("K5", text));
            }
        }
        Ok(())
    }

    fn stands_alone_and_says_why(&self, n: usize) -> bool {
        self.nodes[n].status.as_ref().is_some_and(|s| {
            let reason = s.peers[0].standalone_reason.as_ref();
            s.peers[0].connection == ConnectionState::StandAlone
                && reason.is_some_and(|r| r.contains("Split-Brain") && r.contains("written since"))
        })
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

    /// True once nothing is under way, clients are gone as they shall, and those who shall have stepped down.
    fn end_writing(&mut self, ends: &mut [End; 2]) -> Result<bool, Violation> {
        let mut done = true;
        for (n, end) in ends.iter_mut().enumerate() {
            let ended = match end {
                End::Stop => self.nodes[n].client.as_ref().is_none_or(|client| client.pending() == 0),
                End::Leave | End::StepDown | End::Crash => self.see_client_off(n),
            };
            if ended && *end == End::Crash {
                self.die(n, false);
                *end = End::StepDown;
            }
            let stepped = *end != End::StepDown || self.role(n) == Some(Role::Secondary);
            if ended && !stepped && self.role(n).is_some() && self.nodes[n].errand.is_none() {
                self.send_errand(n, Errand::Secondary)?;
            }
            let has_disk = self.nodes[n].status.as_ref().is_some_and(|s| s.disk > DiskState::Inconsistent);
            let idle = self.nodes[n].errand.is_none() && self.nodes[n].disk.in_flight() == 0;
            done &= ended && stepped && has_disk && idle;
        }
        Ok(done)
    }

    fn patient_since(&self, since: Micros) -> Result<(), Violation> {
        if self.now > since + PATIENCE {
            return Err(Violation::new("K10", format!("split brain does not settle: {}", self.describe())));
        }
        Ok(())
    }

    pub(super) fn connection(&self, n: usize) -> Option<ConnectionState> {
        self.nodes[n].status.as_ref().map(|s| s.peers[0].connection)
    }

    fn contents(&self) -> Held {
        [0, 1].map(|n| self.nodes[n].disk.tokens().iter().map(|token| undamaged(*token)).collect())
    }
}
