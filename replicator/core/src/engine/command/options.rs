//! What the administrator has chosen changes while the resource is up: at once where that is safe, refused where it is not yet.

use std::collections::BTreeSet;

use super::{Engine, failure};
use crate::config::{Fencing, OnCongestion, Options, Protocol, Takes};
use crate::handler::Handler;
use crate::refusal::{
    AHEAD_NEEDS_A, CSUMS_IN_USE, CommandError, HAS_DISK, NEED_STANDALONE, STONITH_NEEDS_B_OR_C, VERIFY_IN_USE,
};
use crate::seeded;
use crate::state::ConnectionState;
use crate::units::CommandId;

impl Engine {
    pub(super) fn set_options(&mut self, id: CommandId, options: Options, handlers: BTreeSet<Handler>) {
        let result = self.may_take(&options);
        if result.is_ok() {
            let before = std::mem::replace(&mut self.config.options, options);
            self.config.handlers = handlers;
            if seeded!(self, KeepsOldFencing) {
                self.config.options.fencing = before.fencing;
            }
            if seeded!(self, KeepsOldQuorum) {
                self.config.options.quorum = before.quorum;
            }
            if !self.fences() {
                self.forget_fences();
            }
            // What waited for quorum and is to fail now must not be let in before that is noticed.
            self.progress_quorum();
        }
        self.finish_command(id, result);
    }

    fn may_take(&self, new: &Options) -> Result<(), CommandError> {
        let changes = self.config.options.changes(new);
        let taken = |when| changes.iter().filter(move |c| c.1 == when).map(|c| c.0).collect::<Vec<_>>();
        let (with_attach, with_connect) = (taken(Takes::WithNextAttach), taken(Takes::WithNextConnection));
        if (self.disk.open || self.disk.is_usable()) && !with_attach.is_empty() {
            return Err(later(HAS_DISK, Takes::WithNextAttach, &with_attach));
        }
        let stands_alone = self.peers.iter().all(|p| p.connection == ConnectionState::StandAlone);
        if !stands_alone && !with_connect.is_empty() {
            return Err(later(NEED_STANDALONE, Takes::WithNextConnection, &with_connect));
        }
        let changes = |name| changes.iter().any(|c| c.0 == name);
        let resyncs = self.peers.iter().any(|p| p.replication.is_source() || p.replication.is_target());
        if changes("csums-alg") && resyncs {
            return Err(failure(CSUMS_IN_USE));
        }
        if changes("verify-alg") && self.peers.iter().any(|p| p.replication.is_verify()) {
            return Err(failure(VERIFY_IN_USE));
        }
        if new.fencing == Fencing::ResourceAndStonith && new.protocol == Protocol::A {
            return Err(failure(STONITH_NEEDS_B_OR_C));
        }
        if new.congestion.policy == OnCongestion::PullAhead && new.protocol != Protocol::A {
            return Err(failure(AHEAD_NEEDS_A));
        }
        Ok(())
    }
}

fn later((number, text): (u16, &'static str), takes: Takes, options: &[&str]) -> CommandError {
    CommandError::Failure { number, text, detail: vec![takes.refusal(options)] }
}
