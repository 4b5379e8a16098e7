//! Beginning an online verify: the peer must agree, since one node can be in one state with the other only.

use super::{CurrentCommand, Heard, Question, Stage, failure};
use crate::digest::DigestAlgorithm;
use crate::engine::Engine;
use crate::engine::peer::Peer;
use crate::engine::verify::Walk;
use crate::io::Repair;
use crate::refusal::{NO_DISK, StateChangeRefusal};
use crate::state::{DiskState, ReplicationState, Role};
use crate::units::{BLOCK_BYTES, ByteRange, CommandId, NodeId};
use crate::wire::Message;

/// What to verify.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Only this volume, from whose beginning start and stop count.
    pub(super) volume: Option<u16>,
    /// From here; from where the last one of all volumes ended early, if not given.
    pub(super) start_bytes: Option<u64>,
    /// To here; to the end, if not given.
    pub(super) stop_bytes: Option<u64>,
    pub(super) repair: Option<Repair>,
    pub(super) question: Option<Question>,
}

type Refusal = (StateChangeRefusal, Vec<String>);

impl Engine {
    pub(super) fn progress_verify_command(&mut self, id: CommandId) {
        if self.peers.iter().any(Peer::is_negotiating) {
            return;
        }
        let Some(CurrentCommand { stage: Stage::Verifying(wish), .. }) = self.current_command else { return };
        if !self.disk.is_usable() {
            return self.finish_command(id, Err(failure(NO_DISK)));
        }
        let heard = match self.heard(wish.question) {
            Heard::Waiting => return,
            Heard::Refused(refusal) => return self.refuse_command(id, refusal, Vec::new()),
            heard => heard,
        };
        let (peer, algorithm, ranges) = match self.may_verify(&wish) {
            Ok(plan) => plan,
            Err((refusal, detail)) => {
                self.withdraw_verify(wish.question);
                return self.refuse_command(id, refusal, detail);
            }
        };
        match (heard, wish.question) {
            (Heard::Yes, Some(question)) => {
                let resumes = wish.volume.is_none();
                let walk = Walk::new(&ranges, resumes, wish.repair, self.now);
                self.begin_verify(peer, question.id, algorithm, ranges, Some(walk));
                self.finish_command(id, Ok(()));
            }
            _ => {
                let question = self.ask(peer);
                self.begin(id, Stage::Verifying(Wish { question: Some(question), ..wish }));
                self.send(peer, Message::VerifyStart { id: question.id, algorithm, ranges });
            }
        }
    }

    fn may_verify(&self, wish: &Wish) -> Result<(NodeId, DigestAlgorithm, Vec<ByteRange>), Refusal> {
        let Some(peer) = self.peers.iter().find(|p| p.is_connected()) else {
            return Err((StateChangeRefusal::NeedConnection, Vec::new()));
        };
        let Some(algorithm) = self.config.options.verify_algorithm else {
            let text = "set 'verify-alg sha256;' in net {} on both nodes, and run 'tandemadm adjust'";
            return Err((StateChangeRefusal::NoVerifyAlgorithm, vec![text.into()]));
        };
        self.may_verify_with(peer)?;
        if let Some(repair) = wish.repair {
            self.may_repair(peer, repair)?;
        }
        Ok((peer.id(), algorithm, self.ranges_to_verify(peer, wish)?))
    }

    fn may_verify_with(&self, peer: &Peer) -> Result<(), Refusal> {
        let name = &peer.config.name;
        if peer.lost_disk() {
            return Err((StateChangeRefusal::NoRemoteDisk, vec![format!("{name} is {}", peer.disk)]));
        }
        if peer.replication != ReplicationState::Established || peer.pulling_ahead.is_some() {
            let text = format!("replication with {name} is in state {}", peer.replication);
            return Err((StateChangeRefusal::ResyncRunning, vec![text]));
        }
        if [self.disk.state, peer.disk] != [DiskState::UpToDate; 2] {
            let text = format!("the local disk is {}, that of {name} is {}", self.disk.state, peer.disk);
            return Err((StateChangeRefusal::NoUpToDateDisk, vec![text]));
        }
        Ok(())
    }

    /// Which copy is right must be known before: the Primary's, or the one that the operator names.
    fn may_repair(&self, peer: &Peer, repair: Repair) -> Result<(), Refusal> {
        let primary = match (self.role == Role::Primary, peer.role == Role::Primary) {
            (true, _) => Some(self.config.node),
            (_, true) => Some(peer.id()),
            _ => None,
        };
        let text = match (primary, repair.from) {
            (None, None) => "neither node is Primary: say with --from NODE whose copy is right",
            (Some(primary), Some(from)) if primary != from => {
                "the other node is Primary: its data is in use and is what a repair takes"
            }
            _ => return Ok(()),
        };
        Err((StateChangeRefusal::NoUpToDateDisk, vec![text.into()]))
    }

    /// Whole blocks, but for the volume's end.
    fn ranges_to_verify(&self, peer: &Peer, wish: &Wish) -> Result<Vec<ByteRange>, Refusal> {
        let one = match wish.volume.filter(|_| !self.layout().is_single()) {
            None => None,
            Some(number) => Some(self.volume_to_verify(number)?),
        };
        let size = one.map_or(self.size_bytes(), |(_, bytes)| bytes);
        let resumed_at = if wish.volume.is_some() { 0 } else { peer.verify_from_bytes };
        let start = wish.start_bytes.unwrap_or(resumed_at) / BLOCK_BYTES * BLOCK_BYTES;
        let stop = wish.stop_bytes.map_or(size, |stop| stop.next_multiple_of(BLOCK_BYTES).min(size));
        if start >= stop {
            let text = format!("there is nothing to verify from byte {start} to byte {stop}");
            return Err((StateChangeRefusal::InTransientState, vec![text]));
        }
        let range = ByteRange::new(start, stop - start);
        Ok(one.map_or(vec![range], |(index, _)| self.layout().in_space(index, range)))
    }

    /// Counted from 0, and its size.
    fn volume_to_verify(&self, number: u16) -> Result<(usize, u64), Refusal> {
        let mut volumes = self.layout().volumes().iter().enumerate();
        let found = volumes.find(|(_, volume)| volume.number == number);
        found.map(|(index, volume)| (index, volume.bytes)).ok_or_else(|| {
            let text = format!("volume {number} is not one of those that the meta-data was created for");
            (StateChangeRefusal::InTransientState, vec![text])
        })
    }

    /// The peer would verify with us.
    pub(in crate::engine) fn verify_start_requested(
        &mut self,
        id: NodeId,
        question: u64,
        algorithm: DigestAlgorithm,
        ranges: Vec<ByteRange>,
    ) -> Result<(), String> {
        let fits = |range: &ByteRange| range.offset.is_multiple_of(BLOCK_BYTES) && self.lies_inside(*range);
        if let Some(range) = ranges.iter().find(|range| !fits(range)) {
            return Err(format!("a verify of {range}"));
        }
        let stage = self.current_command.as_ref().map(|c| &c.stage);
        let busy = matches!(stage, Some(Stage::Invalidating(_) | Stage::Verifying(_))) || self.disk.leaving;
        let ready = |p: &&Peer| p.is_connected() && !p.in_round && self.may_verify_with(p).is_ok();
        let granted = !busy && self.disk.is_usable() && self.peer(id).filter(ready).is_some();
        self.send(id, Message::VerifyReply { id: question, granted });
        if granted {
            self.begin_verify(id, question, algorithm, ranges, None);
        }
        Ok(())
    }

    pub(in crate::engine) fn verify_start_answered(
        &mut self,
        id: NodeId,
        question: u64,
        granted: bool,
    ) -> Result<(), String> {
        if let Some(CurrentCommand { stage: Stage::Verifying(wish), .. }) = self.current_command.as_mut()
            && let Some(asked) = wish.question.as_mut().filter(|q| q.is(id, question))
        {
            asked.answer = Some(granted);
        } else if granted {
            self.send(id, Message::VerifyEnd { id: question, complete: false });
        }
        Ok(())
    }

    fn withdraw_verify(&mut self, question: Option<Question>) {
        if let Some(Question { peer, id, .. }) = question {
            self.send(peer, Message::VerifyEnd { id, complete: false });
        }
    }
}
