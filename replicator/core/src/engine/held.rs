//! Requests that are done and must not complete yet: their generation is not on disk, or they are frozen.

use bytes::Bytes;

use super::Engine;
use super::client::Request;
use crate::config::Protocol;
use crate::io::{ClientError, Output};
use crate::seeded;
use crate::units::{Epoch, RequestId};

/// A request that is done and waits for its generation to be durable.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) key: u64,
    pub(super) id: RequestId,
    /// What it was, should it have to be done again.
    pub(super) request: Request,
    pub(super) epoch: Epoch,
    /// A good peer has done it too.
    pub(super) remote_done: bool,
}

impl Engine {
    /// A completion is held back until the generation it belongs to is on disk.
    pub(super) fn complete_or_hold(&mut self, done: Held) {
        let may_complete = self.generation_is_durable() || seeded!(self, CompletesBeforeGeneration);
        if self.fails_without_quorum() {
            self.fail_write(done.id, done.epoch, ClientError::Io);
        } else if may_complete && (!self.is_frozen() || seeded!(self, WritesWhileFrozen)) {
            self.complete_write(done.id, done.epoch);
        } else {
            self.held.push(done);
        }
    }

    pub(super) fn release_held_completions(&mut self) {
        if self.generation_is_durable() && !self.is_frozen() && !self.fails_without_quorum() {
            for held in std::mem::take(&mut self.held) {
                self.complete_write(held.id, held.epoch);
            }
        }
    }

    /// What has not been let in, and what is done and held back, fails.
    pub(super) fn fail_what_waits(&mut self, error: ClientError) {
        self.fail_what_was_put_back(error);
        for (id, _) in self.take_requests() {
            self.fail_client(id, error);
        }
        for held in std::mem::take(&mut self.held) {
            self.fail_write(held.id, held.epoch, error);
        }
    }

    /// The disk has failed: what it has done counts for nothing.
    pub(super) fn fail_held_without_peer(&mut self) {
        for held in std::mem::take(&mut self.held) {
            if held.remote_done && self.is_frozen() {
                self.held.push(held);
            } else if held.remote_done {
                self.complete_write(held.id, held.epoch);
            } else {
                self.end_epoch_of(held.epoch);
                self.put_back_or_fail(held.key, held.id, held.request);
            }
        }
    }

    fn complete_write(&mut self, id: RequestId, epoch: Epoch) {
        self.end_epoch_of(epoch);
        self.succeed(id);
    }

    pub(super) fn succeed(&mut self, id: RequestId) {
        self.outputs.push_back(Output::Complete { id, result: Ok(Bytes::new()) });
    }

    fn fail_write(&mut self, id: RequestId, epoch: Epoch, error: ClientError) {
        self.end_epoch_of(epoch);
        self.fail_client(id, error);
    }

    /// Later writes may depend on one whose end the client knows: they belong to another epoch.
    fn end_epoch_of(&mut self, epoch: Epoch) {
        let stays_open = seeded!(self, StarvesOnOpenEpoch) && self.effective_protocol() == Protocol::C;
        if epoch == self.epoch && !stays_open {
            self.close_epoch(false);
        }
    }
}
