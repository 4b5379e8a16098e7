//! A Primary that reaches no copy of its data (drbd.conf(5), on-no-data-accessible): its clients' requests fail, or wait for
//! a copy.
//!
//! What was under way when the last copy was lost is put back, in the order in which it was let in, and is carried out once
//! more before anything else. A client may have read what such a write had brought: until all of them are done again, nothing
//! else is let in, and nothing is read.

use std::collections::BTreeMap;

use super::Engine;
use super::client::Request;
use crate::config::OnNoData;
use crate::io::ClientError;
use crate::seeded;
use crate::state::Role;
use crate::units::RequestId;

/// Requests that wait for a copy of the data.
#[derive(Clone, Default, Debug)]
pub(super) struct NoData {
    /// Were under way when the last copy was lost, by the order in which they were let in.
    put_back: BTreeMap<u64, (RequestId, Request)>,
    /// So many of the first requests that have not been let in were put back before.
    again: usize,
    /// Those are being carried out.
    repeats: bool,
    /// The administrator has said resume-io: until a copy is there, requests fail.
    resumed: bool,
}

impl NoData {
    /// Requests that were put back.
    pub(super) fn requests(&self) -> impl ExactSizeIterator<Item = &Request> {
        self.put_back.values().map(|(_, request)| request)
    }
}

impl Engine {
    fn reaches_data(&self) -> bool {
        self.has_good_disk() || self.good_peer().is_some()
    }

    /// Clients' requests wait for a copy of the data.
    pub(super) fn waits_for_data(&self) -> bool {
        self.config.options.on_no_data == OnNoData::SuspendIo
            && self.role == Role::Primary
            && !self.is_demoting()
            && !self.no_data.resumed
            && !self.reaches_data()
            && !seeded!(self, FailsWithoutData)
    }

    /// No copy has done it, as far as is known: it waits, or fails.
    pub(super) fn put_back_or_fail(&mut self, key: u64, id: RequestId, request: Request) {
        if !self.waits_for_data() {
            return self.fail_client(id, ClientError::Io);
        }
        if seeded!(self, CompletesWithoutData) && !matches!(request, Request::Read(_)) {
            return self.succeed(id);
        }
        self.no_data.put_back.insert(key, (id, request));
    }

    /// The administrator does not wait for a copy any longer.
    pub(super) fn go_on_without_data(&mut self) {
        self.no_data.resumed |= self.waits_for_data();
    }

    pub(super) fn progress_no_data(&mut self) {
        let (waits, reached) = (self.waits_for_data(), self.reaches_data());
        self.no_data.resumed &= !reached && self.role == Role::Primary;
        if reached && self.is_written_out() {
            self.repeat_what_was_put_back();
        } else if !reached && !waits {
            self.fail_what_was_put_back(ClientError::Io);
        }
    }

    fn repeat_what_was_put_back(&mut self) {
        let put_back = std::mem::take(&mut self.no_data.put_back);
        if put_back.is_empty() {
            return;
        }
        let (reads, mut first): (Vec<_>, Vec<_>) =
            put_back.into_values().partition(|(_, request)| matches!(request, Request::Read(_)));
        first.extend(self.admission.drain(..self.no_data.again));
        (self.no_data.again, self.no_data.repeats) = (first.len(), true);
        first.extend(reads);
        first.append(&mut Vec::from(std::mem::take(&mut self.admission)));
        self.admission = first.into();
    }

    /// The client will not get what it has asked for.
    pub(super) fn fail_what_was_put_back(&mut self, error: ClientError) {
        for (id, _) in std::mem::take(&mut self.no_data.put_back).into_values() {
            self.fail_client(id, error);
        }
    }

    /// The first request that has not been let in is taken.
    pub(super) fn take_first_request(&mut self) -> Option<(RequestId, Request)> {
        self.no_data.again = self.no_data.again.saturating_sub(1);
        self.admission.pop_front()
    }

    /// A request goes on before all others.
    pub(super) fn ask_first(&mut self, id: RequestId, request: Request) {
        self.no_data.again += usize::from(self.no_data.again > 0);
        self.admission.push_front((id, request));
    }

    /// All requests that have not been let in.
    pub(super) fn take_requests(&mut self) -> impl Iterator<Item = (RequestId, Request)> + use<> {
        self.no_data.again = 0;
        std::mem::take(&mut self.admission).into_iter()
    }

    /// What was put back is being carried out once more: everything else waits.
    pub(super) fn repeats_requests(&self) -> bool {
        self.no_data.repeats
    }

    /// Only what is to be repeated may be let in now, or anything. Nothing, as long as something is put back.
    pub(super) fn may_admit(&mut self) -> bool {
        if self.no_data.repeats && self.no_data.again == 0 && self.is_written_out() {
            self.no_data.repeats = false;
        }
        self.no_data.put_back.is_empty() && (self.no_data.again > 0 || !self.repeats_requests())
    }
}
