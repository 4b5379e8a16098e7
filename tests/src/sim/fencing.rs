//! Fencing: an agent that tells the truth, and an administrator who relies on it.
//!
//! fence-peer of node n really outdates the other node, or kills it, and remembers that n holds the data: until
//! unfence-peer, the other may not fence n in turn. With resource-and-stonith, the administrator promotes whatever node
//! comes to mind, whether or not the other is Primary or has newer data: the engines must see to it that neither loses
//! a completed write.

use tandem_core::config::OnNoQuorum;
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::io::Input;
use tandem_core::metadata;
use tandem_core::refusal::CommandError;
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::status::Status;
use tandem_core::units::{HandlerId, NodeId};

use super::errand::Errand;
use super::faults::Kind;
use super::oracle::Violation;
use super::world::World;

/// A node that was told to outdate itself, on behalf of the other's fence-peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outdating {
    by: usize,
    incarnation: u32,
    id: HandlerId,
}

impl World {
    /// fence-peer of a node comes to its point.
    pub(super) fn fence(&mut self, n: usize, id: HandlerId) -> Result<(), Violation> {
        let m = 1 - n;
        if self.holds_data == Some(m) {
            return self.fenced(n, id, 1);
        }
        let alive = self.nodes[m].engine.is_some();
        let status = self.nodes[m].status.as_ref();
        let primary = status.is_some_and(|s| s.role == Role::Primary);
        let inconsistent = status.is_some_and(|s| s.disk == DiskState::Inconsistent);
        let good = self.nodes[n].status.as_ref().is_some_and(|s| s.disk == DiskState::UpToDate);
        let code = match self.prng.below(5) {
            0 if primary => return self.fenced(n, id, 6),
            0 | 1 if alive && !primary && self.nodes[m].errand.is_none() => {
                let incarnation = self.nodes[n].incarnation;
                self.nodes[m].outdating = Some(Outdating { by: n, incarnation, id });
                return self.send_errand(m, Errand::Outdate);
            }
            2 if inconsistent && !primary => 3,
            3 if good && !primary => 5,
            _ => {
                if alive {
                    self.die(m, true);
                }
                7
            }
        };
        self.holds_data = Some(n);
        self.fenced(n, id, code)
    }

    /// A node was told to outdate itself.
    pub(super) fn outdated(
        &mut self,
        m: usize,
        by: Outdating,
        result: &Result<(), CommandError>,
    ) -> Result<(), Violation> {
        let Outdating { by: n, incarnation, id } = by;
        if self.nodes[n].incarnation != incarnation {
            return Ok(());
        }
        let refused = result.is_err() || self.holds_data == Some(m);
        if !refused {
            self.holds_data = Some(n);
        }
        self.fenced(n, id, if refused { 1 } else { 4 })
    }

    fn fenced(&mut self, n: usize, id: HandlerId, code: u8) -> Result<(), Violation> {
        self.counts.note(Kind::Fencing);
        let outcome = HandlerOutcome::Exited(code);
        self.trace(Some(n), "handler", || format!("{} {outcome}", Handler::FencePeer));
        self.feed(n, Input::HandlerDone { id, outcome })
    }

    /// unfence-peer has succeeded.
    pub(super) fn unfence(&mut self, n: usize) {
        self.holds_data.take_if(|holder| *holder == n);
    }

    /// Promotes a node without asking whether that is wise.
    pub(super) fn promote_recklessly(&mut self) -> Result<(), Violation> {
        let n = self.prng.node();
        let other_reigns = self.role(1 - n) == Some(Role::Primary);
        let Some(status) = self.nodes[n].status.as_ref() else { return Ok(()) };
        let connected = status.peers[0].connection == ConnectionState::Connected;
        let chances = if other_reigns { self.plan.recklessness } else { self.plan.eagerness };
        // A disk that had failed could not be told that data went on without it; only the administrator knows.
        let deceived = self.oracle.has_failed_disk(n) && self.oracle.is_stale(n);
        // Nor could a node that was not there be told that the other, which it knows to be outdated, was promoted by force.
        let deceived = deceived || self.forced == Some(1 - n) && self.oracle.is_stale(n);
        let sensible =
            status.role == Role::Secondary && status.disk > DiskState::Negotiating && !connected && !deceived;
        if sensible && self.nodes[n].errand.is_none() && self.prng.chance(chances, 100) {
            return self.send_errand(n, Errand::Primary { force: false });
        }
        Ok(())
    }

    // What must hold.

    /// With an agent that tells the truth, there is one Primary at most.
    pub(super) fn check_fencing(&self) -> Result<(), Violation> {
        if self.is_trusting && (0..2).all(|n| self.role(n) == Some(Role::Primary)) {
            return Err(Violation::new("fencing", format!("both nodes are Primary: {}", self.describe())));
        }
        Ok(())
    }

    /// Whoever is promoted on its own data has every completed write.
    pub(super) fn check_fenced_promotion(&self, n: usize, holder: usize) -> Result<(), Violation> {
        // A disk that had failed could not be told that data went on without it.
        if !self.is_trusting || n != holder || self.in_sync || self.oracle.has_failed_disk(n) {
            return Ok(());
        }
        let disks = [&self.nodes[0].disk, &self.nodes[1].disk];
        match self.oracle.missed_write(n, disks) {
            None => Ok(()),
            Some(w) => {
                let text =
                    format!("node {n} was promoted, and lacks w{w}, which completed: {}", self.describe());
                Err(Violation::new("fencing", text))
            }
        }
    }

    /// What completes without a connection is safe only if the other node cannot be promoted without it: it was fenced, or
    /// its disk says that its data is old.
    pub(super) fn check_fenced_completion(&mut self, n: usize) -> Result<(), Violation> {
        let m = 1 - n;
        let apart = self.nodes[n]
            .status
            .as_ref()
            .is_some_and(|s| s.peers[0].connection != ConnectionState::Connected);
        // Who is just being met may be UpToDate already, and does not go on without this node.
        let met = self.needs_both() && self.link.open_end(n).is_some();
        let excused = met || self.holds_data == Some(n) || self.forced == Some(n);
        if !self.is_trusting || self.split || !apart || excused {
            return Ok(());
        }
        let loaded = self.look_at_metadata(m, |disk, placement, bytes| {
            metadata::load(disk, placement, bytes, NodeId(m as u8))
        });
        let flags = loaded.map(|m| m.superblock.flags);
        if flags.is_ok_and(|f| f.consistent && f.up_to_date) {
            let text =
                format!("node {n} completes a write, and node {m} may go on without it: {}", self.describe());
            return Err(Violation::new("fencing", text));
        }
        Ok(())
    }

    /// Requests fail where quorum is lost, or was a moment ago: also if it was not asked for until now.
    pub(super) fn may_fail(&self, n: usize, served: bool) -> bool {
        let policy = self.policies[n];
        let is_told = matches!(self.nodes[n].errand, Some((_, Errand::SetPolicy { .. }, _)));
        let alone = self.connection(n) != Some(ConnectionState::Connected);
        let lacks_quorum = !served || is_told && alone;
        policy.needs_both() && policy.quorum.on_loss == OnNoQuorum::IoError && lacks_quorum
    }

    /// Connected and not frozen, as far as the engine's outputs have come: one input may complete a request and then break
    /// the connection (an acknowledgement that a late clock finds overdue), and the status is of the end of it all.
    pub(super) fn has_peer_until_now(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let met = |s: &Status| s.peers[0].connection == ConnectionState::Connected && !s.suspended.any();
        !node.connection_changed && node.status.as_ref().is_some_and(met)
    }

    /// Not frozen, and with quorum, as far as the engine's outputs have come.
    pub(super) fn is_served_until_now(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        !node.connection_changed && node.status.as_ref().is_some_and(|s| !s.suspended.any() && s.quorum)
    }

    /// What is suspended does not complete.
    pub(super) fn check_suspended(&self, n: usize, with_peer: bool, served: bool) -> Result<(), Violation> {
        let status = self.nodes[n].status.as_ref();
        let frozen = !with_peer && status.is_some_and(|s| s.suspended.fencing)
            || !served && status.is_some_and(|s| s.suspended.quorum);
        if frozen || self.nodes[n].suspended {
            let text = format!("node {n} completes requests while they are suspended: {}", self.describe());
            return Err(Violation::new("suspended", text));
        }
        Ok(())
    }
}
