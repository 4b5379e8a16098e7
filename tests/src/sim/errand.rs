//! What the administrator can ask of one node.

use tandem_core::config::{OnNoData, Options};
use tandem_core::io::{Command, Repair, Resize};
use tandem_core::units::{BLOCK_BYTES, NodeId};

use super::faults::{draw_congestion, draw_resync};
use super::oracle::Violation;
use super::policy::Policy;
use super::world::World;

/// A command to one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Errand {
    /// Take the disk into use.
    Attach,
    /// Give it up.
    Detach,
    /// Give it up at once.
    ForceDetach,
    /// Connect.
    Connect,
    /// Connect, with a wish.
    ConnectWith { discard_my_data: bool, tentative: bool },
    /// Disconnect.
    Disconnect,
    /// Become Primary.
    Primary { force: bool },
    /// Become Secondary.
    Secondary,
    /// Consider the data old.
    Outdate,
    /// Let requests wait.
    SuspendIo,
    /// Let requests go on.
    ResumeIo,
    /// Become Secondary although a client is there: must be refused.
    SecondaryWhileOpen,
    /// Compare the copies, or one volume's, or a part of them, from block to block; repair what is found, from a node's copy.
    Verify { volume: Option<u16>, part: Option<(u64, u64)>, repair: bool, from: Option<usize> },
    /// Give up the own copy.
    Invalidate { reset_bitmap: bool },
    /// Give up the other node's copy.
    InvalidateRemote { reset_bitmap: bool },
    /// Grow the volume.
    Resize { assume_peer_has_space: bool, assume_clean: bool, blocks: Option<u64>, volume: Option<u16> },
    /// Begin a new generation.
    NewCurrentUuid { clear_bitmap: bool },
    /// Let resyncs wait.
    PauseSync,
    /// Let them go on.
    ResumeSync,
    /// Resyncs, epochs and congestion go otherwise from now on.
    SetOptions,
    /// Other things are required of the other node.
    SetPolicy { new: Policy, old: Policy },
}

impl World {
    /// The errand in the engine's words.
    pub(super) fn command_for(&mut self, n: usize, errand: Errand) -> Result<Command, Violation> {
        Ok(match errand {
            Errand::Attach => self.attach_command(n)?,
            Errand::Detach => Command::Detach,
            Errand::ForceDetach => Command::ForceDetach,
            Errand::Connect => Command::Connect,
            Errand::ConnectWith { discard_my_data, tentative } => {
                Command::ConnectWith { discard_my_data, tentative }
            }
            Errand::Disconnect => Command::Disconnect,
            Errand::Primary { force } => Command::Primary { force },
            Errand::Secondary | Errand::SecondaryWhileOpen => Command::Secondary,
            Errand::Verify { volume, part, repair, from } => Command::Verify {
                volume,
                start_bytes: part.map(|(start, _)| start * 4096),
                stop_bytes: part.map(|(_, stop)| stop * 4096),
                repair: repair.then_some(Repair { from: from.map(|n| NodeId(n as u8)) }),
            },
            Errand::Invalidate { reset_bitmap } => Command::Invalidate { reset_bitmap },
            Errand::InvalidateRemote { reset_bitmap } => Command::InvalidateRemote { reset_bitmap },
            Errand::NewCurrentUuid { clear_bitmap } => Command::NewCurrentUuid { clear_bitmap },
            Errand::Resize { assume_peer_has_space, assume_clean, blocks, volume } => {
                Command::Resize(Resize {
                    size_bytes: blocks.map(|blocks| blocks * BLOCK_BYTES),
                    volume,
                    assume_peer_has_space,
                    assume_clean,
                })
            }
            Errand::PauseSync => Command::PauseSync,
            Errand::ResumeSync => Command::ResumeSync,
            Errand::Outdate => Command::Outdate,
            Errand::SuspendIo => Command::SuspendIo,
            Errand::ResumeIo => Command::ResumeIo,
            Errand::SetPolicy { new, .. } => {
                self.adopt_policy(n, new);
                self.nodes[n].no_data.tell(self.plan.on_no_data);
                Command::SetOptions {
                    options: Box::new(self.configured_options(n)),
                    handlers: self.plan.handlers.configured.clone(),
                }
            }
            Errand::SetOptions => Command::SetOptions {
                options: Box::new(self.other_options(n)),
                handlers: self.plan.handlers.configured.clone(),
            },
        })
    }

    fn other_options(&mut self, n: usize) -> Options {
        let options = self.configured_options(n);
        let congestion = draw_congestion(&mut self.prng);
        let on_no_data = [OnNoData::IoError, OnNoData::SuspendIo][self.prng.below(2) as usize];
        self.nodes[n].no_data.tell(on_no_data);
        Options {
            resync: draw_resync(&mut self.prng),
            congestion: self.possible(congestion),
            max_epoch_size: self.prng.between(1, 40) as u32,
            on_no_data,
            ..options
        }
    }

    fn attach_command(&mut self, n: usize) -> Result<Command, Violation> {
        match self.open_metadata(n) {
            Ok(mut metadata) => {
                if self.plan.undo_logs {
                    metadata.undo = Some(self.load_undo_log(n, &metadata));
                }
                self.nodes[n].disk_in_use = true;
                Ok(Command::Attach { metadata: Box::new(metadata) })
            }
            Err(e) => Err(Violation::new("K7", format!("node {n} cannot read its metadata any more: {e}"))),
        }
    }
}
