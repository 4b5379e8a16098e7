//! What a Primary requires of the other node, and of a peer that it has lost; and that this changes while both are up.

use tandem_core::config::{Fencing, OnNoQuorum, Protocol, Quorum, Votes};

use super::errand::Errand;
use super::faults::Kind;
use super::prng::Prng;
use super::script::Step;
use super::world::{Event, World};

/// What a node is configured to require.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Of a lost peer.
    pub fencing: Fencing,
    /// Of the other node.
    pub quorum: Quorum,
}

impl Policy {
    /// Of nobody anything.
    pub const NONE: Policy = Policy {
        fencing: Fencing::DontCare,
        quorum: Quorum { votes: Votes::Off, minimum_redundancy: Votes::Off, on_loss: OnNoQuorum::SuspendIo },
    };

    pub(super) fn draw(prng: &mut Prng) -> Policy {
        let fencing = [Fencing::DontCare, Fencing::ResourceOnly, Fencing::ResourceAndStonith]
            [prng.weighted(&[4, 1, 3])];
        Policy { fencing, quorum: draw_quorum(prng, fencing) }
    }

    /// What is required at first, and what later.
    pub(super) fn draw_two(prng: &mut Prng, changes: bool) -> [Policy; 2] {
        let first = Policy::draw(prng);
        if !changes {
            return [first; 2];
        }
        let mut second = Policy::draw(prng);
        match prng.chance(1, 2) {
            true => second.fencing = Fencing::ResourceAndStonith,
            false => second.quorum.votes = Votes::Majority,
        }
        let first = if prng.chance(1, 2) { Policy::NONE } else { first };
        if prng.chance(1, 2) { [first, second] } else { [second, first] }
    }

    /// Protocol A promises nothing that could be kept.
    fn with(self, protocol: Protocol) -> Policy {
        match (self.fencing, protocol) {
            (Fencing::ResourceAndStonith, Protocol::A) => Policy { fencing: Fencing::ResourceOnly, ..self },
            _ => self,
        }
    }

    /// Neither node serves without the other, unless that one is known to be outdated.
    pub(super) fn needs_both(self) -> bool {
        matches!(self.quorum.votes, Votes::Majority | Votes::All | Votes::Count(2))
    }

    /// Somebody may rely on it.
    fn protects(self, protocol: Protocol) -> bool {
        self.fencing == Fencing::ResourceAndStonith || self.needs_both() && protocol != Protocol::A
    }

    /// But for how requests end.
    fn requires_the_same(self, other: Policy) -> bool {
        let how = |quorum: Quorum| (quorum.votes, quorum.minimum_redundancy);
        self.fencing == other.fencing && how(self.quorum) == how(other.quorum)
    }

    fn with_other_end(self) -> Policy {
        let on_loss = match self.quorum.on_loss {
            OnNoQuorum::SuspendIo => OnNoQuorum::IoError,
            OnNoQuorum::IoError => OnNoQuorum::SuspendIo,
        };
        Policy { quorum: Quorum { on_loss, ..self.quorum }, ..self }
    }
}

/// The only thing that protects, or together with fencing that does.
fn draw_quorum(prng: &mut Prng, fencing: Fencing) -> Quorum {
    let votes = [Votes::Majority, Votes::All, Votes::Count(1), Votes::Count(2)][prng.weighted(&[6, 2, 1, 2])];
    let needed = prng.chance(1, 4) && fencing != Fencing::ResourceOnly;
    Quorum {
        votes: if needed { votes } else { Votes::Off },
        minimum_redundancy: if needed && prng.chance(1, 2) { Votes::Count(1) } else { Votes::Off },
        on_loss: [OnNoQuorum::SuspendIo, OnNoQuorum::IoError][prng.below(2) as usize],
    }
}

impl World {
    /// What both nodes begin with.
    pub(super) fn begin_with_policy(&mut self) {
        if !self.plan.split_brain {
            let [first, _] = self.plan.policies;
            self.policies = [first.with(self.protocol); 2];
            self.rely_on_policies();
        }
    }

    /// Neither node serves without the other, unless that one is known to be outdated.
    pub(super) fn needs_both(&self) -> bool {
        self.policies.iter().all(|policy| policy.needs_both())
    }

    /// Both nodes require the same, and are in sync, or have not begun: from now on the administrator relies on it.
    pub(super) fn rely_on_policies(&mut self) {
        let [one, other] = self.policies;
        self.is_trusting = one.requires_the_same(other) && one.protects(self.protocol);
    }

    /// The node is to require this, and its engine is about to be told.
    pub(super) fn adopt_policy(&mut self, n: usize, policy: Policy) {
        let policy = policy.with(self.protocol);
        self.is_trusting &= policy.requires_the_same(self.policies[n]);
        self.policies[n] = policy;
    }

    /// Both nodes are to require something else. How requests end may change whenever; who serves, only when nothing depends
    /// on what is required.
    pub(super) fn policy_script(&mut self) -> Option<Vec<Step>> {
        let n = self.prng.node();
        let policies = if self.prng.chance(1, 3) {
            self.policies.map(Policy::with_other_end)
        } else if self.in_sync
            && self.nodes.iter().all(|n| n.errand.is_none() && !n.suspended)
            && self.holds_data.is_none()
        {
            // That one is required that was not, only a cut tells.
            let delay = self.prng.below(30_000);
            self.at(delay, Event::Strike { kind: Kind::LinkCut, node: n });
            let [first, second] = self.plan.policies;
            let present = self.policies[n];
            let other = if present == first.with(self.protocol) { second } else { first };
            [if self.prng.chance(7, 8) { other } else { first }; 2]
        } else {
            return self.put_off(Kind::Policy);
        };
        (!self.plan.split_brain).then(|| {
            [n, 1 - n]
                .map(|n| Step::Do(n, Errand::SetPolicy { new: policies[n], old: self.policies[n] }))
                .to_vec()
        })
    }
}
