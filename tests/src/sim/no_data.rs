//! A Primary that reaches no copy of its data: its clients' requests wait for one, if that is configured, until the
//! administrator says otherwise.

use tandem_core::config::OnNoData;
use tandem_core::status::Status;

use super::faults::Kind;
use super::world::World;

/// What a node does without data, as far as an administrator can know.
#[derive(Debug, Default)]
pub(super) struct NoData {
    /// What it was started with, or told since.
    option: OnNoData,
    /// What it is being told.
    next: Option<OnNoData>,
    /// The administrator has said that requests shall not wait.
    resumed: bool,
}

impl NoData {
    pub(super) fn configured(option: OnNoData) -> NoData {
        NoData { option, ..NoData::default() }
    }

    /// The administrator changes what was chosen.
    pub(super) fn tell(&mut self, option: OnNoData) {
        self.next = Some(option);
    }

    /// It has said whether it takes that.
    pub(super) fn told(&mut self, taken: bool) {
        if let Some(option) = self.next.take().filter(|_| taken) {
            self.option = option;
        }
    }

    /// No request may fail for want of data.
    pub(super) fn must_wait(&self) -> bool {
        let waits = |option| option == OnNoData::SuspendIo;
        waits(self.option) && self.next.is_none_or(waits) && !self.resumed
    }
}

impl World {
    /// The administrator lets requests go on, whatever they wait for.
    pub(super) fn resumes(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.suspended = false;
        node.no_data.resumed |= node.status.as_ref().is_some_and(|s| s.suspended.no_data);
    }

    /// From the next copy on requests wait again.
    pub(super) fn follow_data(&mut self, n: usize, before: Option<&Status>) {
        if self.holders(n) != [false; 2] {
            self.nodes[n].no_data.resumed = false;
        }
        let waits = |s: &Status| s.suspended.no_data;
        let waited = before.is_some_and(waits);
        if !waited && self.nodes[n].status.as_ref().is_some_and(waits) {
            self.counts.note(Kind::NoData);
        }
    }

    /// Clients shall go, and wait for data that may never come: the administrator ends that now and then.
    pub(super) fn ends_wait_for_data(&mut self, n: usize) -> bool {
        let node = &self.nodes[n];
        let Some(status) = node.status.as_ref().filter(|s| s.suspended.no_data) else { return false };
        let refused = status.peers[0].standalone_reason.is_some();
        let leaving = node.client.as_ref().is_some_and(|client| client.leaving && client.pending() > 0);
        leaving && self.prng.chance(1, if refused { 2 } else { 20 })
    }
}
