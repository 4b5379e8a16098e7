//! Requests that are done and must not complete yet: their generation is not on disk, or they are frozen.

use bytes::Bytes;

use super::Engine;
use crate::config::Protocol;
use crate::io::{ClientError, Output};
use crate::seeded;
use crate::units::{Epoch, RequestId};

/// A request that is done and waits for its generation to be durable.
#[derive(Clone, Debug)]
pub(super) struct Held {
    id: RequestId,
    epoch: Epoch,
    /// A good peer has done it too.
    remote_done: bool,
}

impl Engine {
    /// A completion is held back until the generation it belongs to is on disk.
    pub(super) fn complete_or_hold(&mut self, id: RequestId, epoch: Epoch, remote_done: bool) {
        let may_complete = self.generation_is_durable() || seeded!(self, CompletesBeforeGeneration);
        if self.fails_without_quorum() {
            self.fail_write(id, epoch, ClientError::Io);
        } else if may_complete && (!self.is_frozen() || seeded!(self, WritesWhileFrozen)) {
            self.complete_write(id, epoch);
        } else {
            self.held.push(Held { id, epoch, remote_done });
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
        for (id, _) in std::mem::take(&mut self.admission) {
            self.fail_client(id, error);
        }
        for held in std::mem::take(&mut self.held) {
            self.fail_write(held.id, held.epoch, error);
        }
    }

    /// The disk has failed: what it has done counts for nothing.
    pub(super) fn fail_held_without_peer(&mut self) {
        for Held { id, epoch, remote_done } in std::mem::take(&mut self.held) {
            if remote_done && self.is_frozen() {
                self.held.push(Held { id, epoch, remote_done });
            } else if remote_done {
                self.complete_write(id, epoch);
            } else {
                self.fail_write(id, epoch, ClientError::Io);
            }
        }
    }

    fn complete_write(&mut self, id: RequestId, epoch: Epoch) {
        self.end_epoch_of(epoch);
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
