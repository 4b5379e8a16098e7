//! What the administrator asks: one command at a time, in order, but for `disconnect`, which may end a wait.
//!
//! A command that cannot go on is looked at again after every input, until it ends well or is refused. Rooms:
//! [`attach`] (the disk), [`connect`] (the peers), [`generation`] (beginning a new one),
//! [`invalidate`] (giving a copy up), [`options`] (what was chosen is changed), [`resize`], [`role`] (Primary and Secondary),
//! [`suspend`] (clients' requests), [`verify`] (comparing the copies).

mod attach;
mod connect;
mod generation;
mod invalidate;
mod options;
mod resize;
mod role;
mod suspend;
mod verify;

use super::Engine;
use crate::io::{Command, Output};
use crate::refusal::{CommandError, METADATA_IO_ERROR, StateChangeRefusal};
use crate::units::{CommandId, NodeId, Timestamp};

use generation::Beginning;
use invalidate::Invalidation;
pub(super) use invalidate::PendingRepair;
use resize::Resizing;
use verify::Wish;

/// The command that nobody has given: to become Secondary, because a policy says so.
const STEP_DOWN: CommandId = CommandId(u64::MAX);

/// The command being carried out.
#[derive(Clone, Debug)]
pub(super) struct CurrentCommand {
    id: CommandId,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Waits for the metadata; [`Then`] ends it.
    Persisting,
    Promoting(Promotion),
    /// A forced promotion waits for the metadata.
    Forcing,
    Demoting,
    /// Waits until the disk says that nobody is Primary.
    Demoted,
    /// Waits until the peers have been asked what would happen.
    Asking,
    Invalidating(Invalidation),
    /// A generation shall begin.
    Beginning(Beginning),
    Suspending,
    /// Peers that were asked to outdate themselves say goodbye.
    Leaving,
    Verifying(Wish),
    Resizing(Resizing),
    /// The disk is there; clients of the Primary end what they do first.
    Attaching,
    Detaching {
        flushing: bool,
    },
}

#[derive(Clone, Debug)]
struct Promotion {
    force: bool,
    /// The question to the peers, once it was asked.
    asked: Option<Asked>,
    refused: bool,
    /// fence-peer was called for.
    fenced: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    /// Its number: the answer to an earlier one says nothing.
    id: u64,
    at: Timestamp,
    /// Connected peers whose word is awaited.
    waiting: Vec<NodeId>,
}

/// A question to the one peer that a command concerns.
#[derive(Clone, Copy, Debug)]
struct Question {
    peer: NodeId,
    /// Its number: the answer to an earlier one says nothing.
    id: u64,
    answer: Option<bool>,
}

impl Question {
    fn is(&self, peer: NodeId, id: u64) -> bool {
        (self.peer, self.id) == (peer, id)
    }
}

/// What has come of a question.
enum Heard {
    NotAsked,
    Waiting,
    Yes,
    Refused(StateChangeRefusal),
}

impl Engine {
    pub(super) fn progress_commands(&mut self) {
        self.disconnect_at_once();
        self.force_detach_at_once();
        self.refuse_outdate_at_once();
        loop {
            match self.current_command.as_ref().map(|c| (c.id, &c.stage)) {
                Some((id, Stage::Promoting(_))) => self.progress_promotion(id),
                Some((id, Stage::Demoting)) => self.progress_demotion(id),
                Some((id, Stage::Invalidating(_))) => self.progress_invalidation(id),
                Some((id, Stage::Beginning(_))) => self.progress_beginning(id),
                Some((id, Stage::Suspending)) => self.progress_suspension(id),
                Some((id, Stage::Leaving)) => self.progress_leaving(id),
                Some((id, Stage::Verifying(_))) => self.progress_verify_command(id),
                Some((id, Stage::Resizing(_))) => self.progress_resize(id),
                Some((id, Stage::Attaching)) => self.progress_attach(id),
                Some((id, Stage::Detaching { flushing: false })) => self.progress_detach(id),
                Some((
                    _,
                    Stage::Persisting
                    | Stage::Demoted
                    | Stage::Forcing
                    | Stage::Asking
                    | Stage::Detaching { flushing: true },
                ))
                | None => {}
            }
            if self.current_command.is_some() {
                return;
            }
            let Some((id, command)) = self.commands.pop_front() else { return };
            self.start_command(id, command);
        }
    }

    /// A peer that does not answer may be what another command waits for.
    fn disconnect_at_once(&mut self) {
        let may_overtake = |command: &Command| match command {
            Command::ForceDisconnect => true,
            Command::Disconnect => self.why_not_disconnect().is_none(),
            _ => false,
        };
        if self.current_command.is_some()
            && let Some(at) = self.commands.iter().position(|(_, c)| may_overtake(c))
            && let Some((id, _)) = self.commands.remove(at)
        {
            for peer in self.peer_ids() {
                self.leave_now(peer);
            }
            self.outputs.push_back(Output::CommandDone { id, result: Ok(()) });
        }
    }

    /// A disk that hangs may be what another command waits for.
    fn force_detach_at_once(&mut self) {
        if self.current_command.is_some()
            && let Some(at) = self.commands.iter().position(|(_, c)| matches!(c, Command::ForceDetach))
            && let Some((id, _)) = self.commands.remove(at)
        {
            self.force_detach(id);
        }
    }

    /// Who fences this node while it is being promoted must not wait for that: each would wait for the other.
    fn refuse_outdate_at_once(&mut self) {
        if matches!(self.current_command, Some(CurrentCommand { stage: Stage::Promoting(_), .. }))
            && let Some(at) = self.commands.iter().position(|(_, c)| matches!(c, Command::Outdate))
            && let Some((id, _)) = self.commands.remove(at)
        {
            self.refuse_command(id, StateChangeRefusal::InTransientState, Vec::new());
        }
    }

    /// A forced promotion waits for the metadata: nothing else may change what the data is worth.
    pub(super) fn is_forcing(&self) -> bool {
        matches!(self.current_command, Some(CurrentCommand { stage: Stage::Forcing, .. }))
    }

    fn start_command(&mut self, id: CommandId, command: Command) {
        match command {
            Command::Attach { metadata } => self.attach(id, *metadata),
            Command::Detach => self.start_detach(id),
            Command::ForceDetach => self.force_detach(id),
            Command::Connect => self.connect(id, false, false),
            Command::ConnectWith { discard_my_data, tentative } => {
                self.connect(id, discard_my_data, tentative)
            }
            Command::Disconnect => self.disconnect(id),
            Command::ForceDisconnect => self.force_disconnect(id),
            Command::Primary { force } => self.start_promotion(id, force),
            Command::Secondary => self.start_demotion(id),
            Command::Invalidate { reset_bitmap } => self.start_invalidation(id, false, reset_bitmap),
            Command::InvalidateRemote { reset_bitmap } => self.start_invalidation(id, true, reset_bitmap),
            Command::NewCurrentUuid { clear_bitmap } => {
                self.begin(id, Stage::Beginning(Beginning::Wanted { clear_bitmap }));
            }
            Command::Verify { volume, start_bytes, stop_bytes, repair } => {
                let wish = Wish { volume, start_bytes, stop_bytes, repair, question: None };
                self.begin(id, Stage::Verifying(wish));
            }
            Command::Resize(wish) => self.begin(id, Stage::Resizing(Resizing::new(wish))),
            Command::PauseSync => {
                let result = self.pause_sync().map_err(failure);
                self.finish_command(id, result);
            }
            Command::ResumeSync => {
                let result = self.resume_sync().map_err(failure);
                self.finish_command(id, result);
            }
            Command::Outdate => self.outdate(id),
            Command::SuspendIo => self.start_suspension(id),
            Command::ResumeIo => self.resume_io(id),
            Command::SetOptions { options, handlers } => self.set_options(id, *options, handlers),
        }
    }

    fn ask(&mut self, peer: NodeId) -> Question {
        Question { peer, id: self.key(), answer: None }
    }

    fn heard(&self, question: Option<Question>) -> Heard {
        let Some(question) = question else { return Heard::NotAsked };
        match question.answer {
            _ if !self.peer(question.peer).is_some_and(|p| p.is_connected()) => {
                Heard::Refused(StateChangeRefusal::NeedConnection)
            }
            None => Heard::Waiting,
            Some(true) => Heard::Yes,
            Some(false) => Heard::Refused(StateChangeRefusal::PeerRefused),
        }
    }

    /// Ends a command that nobody waits for any longer. One that is being written down goes on.
    pub(super) fn cancel_command(&mut self, id: CommandId) {
        if let Some(at) = self.commands.iter().position(|(queued, _)| *queued == id) {
            self.commands.remove(at);
            return self.refuse_command(id, StateChangeRefusal::Timeout, Vec::new());
        }
        let Some(current) = self.current_command.as_ref().filter(|c| c.id == id) else { return };
        let may_end = match current.stage {
            Stage::Promoting(_) | Stage::Demoting | Stage::Leaving | Stage::Asking => true,
            Stage::Invalidating(_) | Stage::Verifying(_) => true,
            Stage::Resizing(resizing) => resizing.may_end(),
            Stage::Suspending => {
                self.user_suspends = false;
                true
            }
            // Once the peers were told that the disk goes, it goes.
            Stage::Detaching { flushing } => {
                let stays = !flushing && !self.disk.leaving;
                if stays {
                    self.stay_attached();
                }
                stays
            }
            Stage::Beginning(beginning) => matches!(beginning, Beginning::Wanted { .. }),
            Stage::Persisting | Stage::Demoted | Stage::Forcing | Stage::Attaching => false,
        };
        if may_end {
            self.stop_asking();
            self.refuse_command(id, StateChangeRefusal::Timeout, Vec::new());
        }
    }

    /// Becomes Secondary without being told to; false while a command is being carried out.
    pub(super) fn begin_own_demotion(&mut self) -> bool {
        let free = self.current_command.is_none();
        if free {
            self.begin(STEP_DOWN, Stage::Demoting);
            self.has_changed = true;
        }
        free
    }

    fn begin(&mut self, id: CommandId, stage: Stage) {
        self.current_command = Some(CurrentCommand { id, stage });
    }

    pub(super) fn finish_command(&mut self, id: CommandId, result: Result<(), CommandError>) {
        if self.current_command.as_ref().is_some_and(|c| c.id == id) {
            self.current_command = None;
        }
        self.has_changed = true;
        if id != STEP_DOWN {
            self.outputs.push_back(Output::CommandDone { id, result });
        }
    }

    fn refuse_command(&mut self, id: CommandId, refusal: StateChangeRefusal, detail: Vec<String>) {
        self.finish_command(id, Err(CommandError::Refused { refusal, detail }));
    }
}

/// The disk failed while the command waited for it.
pub(super) fn disk_lost() -> CommandError {
    let (number, text) = METADATA_IO_ERROR;
    CommandError::Failure { number, text, detail: vec!["the disk was detached; see the daemon's log".into()] }
}

fn failure((number, text): (u16, &'static str)) -> CommandError {
    CommandError::Failure { number, text, detail: Vec::new() }
}
