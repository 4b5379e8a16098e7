//! The administrator: knows everything, keeps promises, is careless about timing only.
//!
//! It brings up what is down, never promotes a node while the other may still be writing, and never one that lacks
//! completed writes; so whatever is lost is the engines' doing.

use tandem_core::io::Input;
use tandem_core::refusal::{CommandError, StateChangeRefusal};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::CommandId;

use super::checks::Mask;
use super::client::Client;
use super::errand::Errand;
use super::faults::Kind;
use super::link::Micros;
use super::observe::sees_good_peer;
use super::oracle::Violation;
use super::world::{Event, PATIENCE, World};

/// What a Primary without a disk says to a peer whose data is not what its clients have seen.
pub(super) const ORPHANED: &str = "this diskless Primary has exposed";
/// Requests that are still to be served after faults have stopped.
const LAST_REQUESTS: u64 = 10;
/// A history with faults ends after this time, whatever its clients have got done.
const LONGEST_HISTORY: Micros = 1_500_000;
/// Promotions of a node without its peer, one after the other: the metadata remembers 32 generations.
const MOST_LONE_PROMOTIONS: u32 = 20;

impl World {
    /// The administrator looks around and does what seems best.
    pub(super) fn administrate(&mut self) -> Result<(), Violation> {
        let longest = if self.healing.is_some() { 30_000 } else { 8_000 };
        let again = self.prng.between(500, longest);
        self.at(again, Event::Admin);
        self.check_patience()?;
        if self.healing.is_none() && !self.split && (self.requests_left == 0 || self.now > LONGEST_HISTORY) {
            self.stop_faults();
        }
        self.follow_script()?;
        for n in 0..2 {
            self.look_after(n)?;
        }
        self.may_split();
        if self.split {
            return self.drive_split_brain();
        }
        if self.script.is_none() {
            self.see_to_a_primary()?;
        }
        self.finish_if_done()
    }

    // One node.

    /// Attaches and connects what shall be.
    fn look_after(&mut self, n: usize) -> Result<(), Violation> {
        let node = &self.nodes[n];
        let Some(status) = node.status.as_ref() else { return Ok(()) };
        if node.errand.is_some() {
            return Ok(());
        }
        let suspended = status.peers[0].resync_suspended;
        if self.script.is_none() && suspended.dependency {
            return self.feed(n, Input::ResyncMustWait(false));
        }
        if self.script.is_none() && suspended.user {
            return self.send_errand(n, Errand::ResumeSync);
        }
        if node.suspended && self.script.is_none() {
            return self.send_errand(n, Errand::ResumeIo);
        }
        let hopeless = self.split && !sees_good_peer(&status.peers[0]);
        let orphaned = hopeless || status.peers[0].standalone_reason.is_some();
        let orphaned = status.disk < DiskState::Consistent && orphaned;
        let relief = status.disk == DiskState::Diskless || orphaned;
        if status.role == Role::Primary && relief && self.script.is_none() {
            return self.relieve_primary_without_disk(n);
        }
        if self.script.is_none() {
            // Its disk came back before it had gone.
            self.nodes[n].client.iter_mut().for_each(|client| client.leaving = false);
        }
        let node = &self.nodes[n];
        let attach = node.want_disk && !node.disk_in_use && self.disk_is_ready(n);
        let node = &self.nodes[n];
        let Some(status) = node.status.as_ref() else { return Ok(()) };
        let reason = status.peers[0].standalone_reason.as_ref();
        let connect = node.want_net
            && status.peers[0].connection == ConnectionState::StandAlone
            && (reason.is_none_or(|r| r.contains(ORPHANED)) || node.awaits_connect);
        let serve = status.role == Role::Primary && node.client.is_none();
        let serve = serve && self.script.is_none() && self.requests_left > 0;
        match (attach, connect) {
            (true, true) if self.prng.chance(1, 4) => self.send_errand(n, Errand::Connect),
            (true, _) => self.send_errand(n, Errand::Attach),
            (false, true) => self.send_errand(n, Errand::Connect),
            (false, false) if serve => self.admit_client(n),
            (false, false) => Ok(()),
        }
    }

    /// A Primary whose disk failed works through its peer, until somebody attends to it: it gets its disk back, or gives
    /// up its role first.
    fn relieve_primary_without_disk(&mut self, n: usize) -> Result<(), Violation> {
        let node = &self.nodes[n];
        if node.want_disk && !node.disk_in_use && self.prng.chance(1, 4) && self.disk_is_ready(n) {
            return self.send_errand(n, Errand::Attach);
        }
        if self.ends_wait_for_data(n) {
            return self.send_errand(n, Errand::ResumeIo);
        }
        let Some(client) = self.nodes[n].client.as_ref() else {
            return self.send_errand(n, Errand::Secondary);
        };
        let refused = self.nodes[n].status.as_ref().is_some_and(|s| s.peers[0].standalone_reason.is_some());
        if client.leaving || self.healing.is_some() || refused || self.prng.chance(1, 100) {
            self.see_client_off(n);
        }
        Ok(())
    }

    /// Gives a command; the answer comes to [`World::command_done`].
    pub(super) fn send_errand(&mut self, n: usize, errand: Errand) -> Result<(), Violation> {
        self.next_id += 1;
        let id = CommandId(self.next_id);
        let command = self.command_for(n, errand)?;
        if errand == Errand::ResumeIo {
            self.resumes(n);
        }
        if matches!(errand, Errand::Primary { .. }) && !self.in_sync {
            self.lone_promotions += 1;
        }
        if errand == (Errand::NewCurrentUuid { clear_bitmap: true }) {
            // From now on generations tell what the other node lacks, where bitmaps do not.
            self.met = false;
        }
        if errand == Errand::Connect {
            self.nodes[n].awaits_connect = false;
        }
        self.trace(Some(n), "command", || format!("{errand:?}"));
        self.nodes[n].errand = Some((id, errand, self.now));
        self.ambush(n);
        self.feed(n, Input::Command { id, command })
    }

    /// A command has ended.
    pub(super) fn command_done(
        &mut self,
        n: usize,
        id: CommandId,
        result: Result<(), CommandError>,
    ) -> Result<(), Violation> {
        let Some((_, errand, _)) = self.nodes[n].errand.take_if(|e| e.0 == id) else {
            return Err(Violation::new("contract", format!("node {n} answers a command twice, or none")));
        };
        self.trace(Some(n), "answer", || match &result {
            Ok(()) => format!("{errand:?}: done"),
            Err(e) => format!("{errand:?}: {e}"),
        });
        match (errand, &result) {
            // One that hangs is kept until everything on it has ended.
            (Errand::Attach, Err(_)) => self.nodes[n].disk_in_use = self.nodes[n].disk.in_flight() > 0,
            (Errand::Primary { force }, Ok(())) => {
                self.forced = self.forced.or(force.then_some(n));
                self.promoted(n)?;
            }
            (Errand::SuspendIo, Ok(())) => self.suspended(n)?,
            (Errand::SetOptions, result) => self.nodes[n].no_data.told(result.is_ok()),
            (Errand::Outdate, result) => {
                if let Some(by) = self.nodes[n].outdating.take() {
                    return self.outdated(n, by, result);
                }
            }
            (Errand::SetPolicy { old, .. }, result) => {
                self.nodes[n].no_data.told(result.is_ok());
                if result.is_err() {
                    self.adopt_policy(n, old);
                }
            }
            (Errand::Secondary, Ok(())) => self.oracle.demoted(n, self.in_sync),
            (Errand::Invalidate { reset_bitmap: true }, Ok(())) => self.gave_up(n),
            (Errand::InvalidateRemote { reset_bitmap: true }, Ok(())) => self.gave_up(1 - n),
            (Errand::SecondaryWhileOpen, Ok(())) => {
                return Err(Violation::new(
                    "contract",
                    format!("node {n} was demoted while a client was there"),
                ));
            }
            (Errand::SecondaryWhileOpen, Err(CommandError::Refused { refusal, .. })) => {
                if !matches!(refusal, StateChangeRefusal::HeldOpen | StateChangeRefusal::InTransientState) {
                    return Err(Violation::new(
                        "contract",
                        format!("demotion with a client there: {refusal}"),
                    ));
                }
                return Ok(());
            }
            _ => {}
        }
        if result.is_err() {
            self.give_up_script();
        }
        Ok(())
    }

    /// Nothing is under way: copies that are in sync are equal.
    fn suspended(&mut self, n: usize) -> Result<(), Violation> {
        self.nodes[n].suspended = true;
        let differences = Mask::of_differences(&self.nodes[0].disk, &self.nodes[1].disk);
        if self.role(n) == Some(Role::Primary) && self.in_sync && differences.is_some() {
            let text =
                format!("requests on node {n} are suspended, and the copies differ: {}", self.describe());
            return Err(Violation::new("suspended", text));
        }
        Ok(())
    }

    fn promoted(&mut self, n: usize) -> Result<(), Violation> {
        self.counts.promotions += 1;
        if !self.oracle.has_begun() {
            self.oracle.begin(n, &self.nodes[n].disk);
        } else if !self.split {
            let holder = self.holders(n);
            let holder = if holder[n] { n } else { 1 - n };
            self.check_fenced_promotion(n, holder)?;
            if self.nodes[1 - n].engine.is_none() {
                self.counts.note(Kind::Failover);
            }
            let disks = [&self.nodes[0].disk, &self.nodes[1].disk];
            self.oracle.promoted(n, holder, self.in_sync, disks)?;
        }
        if self.script.is_none() { self.admit_client(n) } else { Ok(()) }
    }

    fn admit_client(&mut self, n: usize) -> Result<(), Violation> {
        let Some(engine) = self.nodes[n].engine.as_mut() else { return Ok(()) };
        if let Err(reason) = engine.open("client".into()) {
            return Err(Violation::new(
                "contract",
                format!("node {n} is Primary and refuses a client: {reason}"),
            ));
        }
        self.nodes[n].client = Some(Client::default());
        self.at(1, Event::Submit { node: n, incarnation: self.nodes[n].incarnation });
        Ok(())
    }

    // The pair.

    /// Promotes a node if none is Primary and one may be.
    fn see_to_a_primary(&mut self) -> Result<(), Violation> {
        let busy = (0..2).any(|n| matches!(self.nodes[n].errand, Some((_, Errand::Primary { .. }, _))));
        if self.is_trusting && self.oracle.has_begun() && self.healing.is_none() && !busy {
            self.promote_recklessly()?;
        }
        if busy || (0..2).any(|n| self.role(n) == Some(Role::Primary)) {
            return Ok(());
        }
        let first = self.prng.node();
        if !self.oracle.has_begun() {
            if self.may_skip_sync(first) {
                return self.skip_sync(first);
            }
            // Either may have begun already; a force would begin something else.
            if self.skips_sync {
                return Ok(());
            }
            // Which of the two fresh disks holds the data is the administrator's word; not half of each.
            let ready = self.nodes[0].errand.is_none()
                && !self.nodes[0].mixed
                && self.nodes[0].status.as_ref().is_some_and(|s| s.disk >= DiskState::Inconsistent);
            let go = ready && self.prng.chance(1, 3);
            // A force that was written down before the node died counts: another would begin something else.
            let force = self.nodes[0].status.as_ref().is_some_and(|s| s.disk < DiskState::Consistent);
            return if go { self.send_errand(0, Errand::Primary { force }) } else { Ok(()) };
        }
        for n in [first, 1 - first] {
            if self.nodes[n].errand.is_none() && self.may_be_promoted(n) {
                return self.send_errand(n, Errand::Primary { force: false });
            }
        }
        Ok(())
    }

    fn may_be_promoted(&mut self, n: usize) -> bool {
        let (eagerness, healing) = (self.plan.eagerness, self.healing.is_some());
        let Some(status) = self.nodes[n].status.as_ref() else { return false };
        let good_here = !self.oracle.is_stale(n) && status.disk >= DiskState::Consistent;
        // A node without good data of its own can work through its peer, and on nothing else.
        let good_there = matches!(status.disk, DiskState::Diskless | DiskState::Inconsistent)
            && !self.oracle.is_stale(1 - n)
            && self.link.open_end(0).is_some()
            && self.link.open_end(1).is_some()
            && sees_good_peer(&status.peers[0]);
        let together = status.peers[0].connection == ConnectionState::Connected;
        let willing = match (together, healing) {
            (true, _) => self.prng.chance(1, 3),
            // A pair that can meet will; better to wait.
            (false, true) => false,
            (false, false) => self.lone_promotions < MOST_LONE_PROMOTIONS && self.prng.chance(eagerness, 100),
        };
        willing && (good_here || good_there) && self.begun_alone.is_none_or(|begun| begun == n)
    }

    /// The node is Primary, or about to be.
    pub(super) fn goes_on(&self, n: usize) -> bool {
        let asked = matches!(self.nodes[n].errand, Some((_, Errand::Primary { .. }, _)));
        asked || self.role(n) == Some(Role::Primary)
    }

    // The end.

    /// Faults stop; whatever is broken gets well.
    pub(super) fn stop_faults(&mut self) {
        self.trace(None, "healing", String::new);
        self.healing = Some(self.now);
        self.requests_left += LAST_REQUESTS;
        self.give_up_script();
        self.link_up();
        self.link_slowness = 1;
        self.end_troubles();
        for n in 0..2 {
            self.nodes[n].disk_slowness = 1;
            let delay = self.prng.below(20_000);
            self.at(delay, Event::Restart { node: n });
        }
    }

    /// Nothing may take forever.
    fn check_patience(&self) -> Result<(), Violation> {
        for (n, node) in self.nodes.iter().enumerate() {
            let oldest_request = node.client.as_ref().and_then(Client::oldest);
            let oldest = [oldest_request, node.errand.map(|e| e.2)].into_iter().flatten().min();
            if oldest.is_some_and(|since| self.now > since + PATIENCE) {
                let text = format!("a request or command on node {n} hangs: {}", self.describe());
                return Err(Violation::new("K10", text));
            }
        }
        Ok(())
    }

    fn finish_if_done(&mut self) -> Result<(), Violation> {
        if self.healing.is_none() || self.requests_left > 0 || !self.in_sync {
            return Ok(());
        }
        let idle = self.nodes.iter().all(|n| n.errand.is_none() && n.disk.in_flight() == 0);
        let served = (0..2).all(|n| self.nodes[n].client.as_ref().is_none_or(|c| c.pending() == 0));
        if !idle || !served || !self.link_is_quiet() {
            return Ok(());
        }
        if self.nodes[0].disk.tokens() != self.nodes[1].disk.tokens() || self.open_bytes() > 0 {
            return self.inspect();
        }
        if self.knows_of_no_difference() {
            self.check_convergence()?;
            self.finished = true;
        }
        Ok(())
    }
}
