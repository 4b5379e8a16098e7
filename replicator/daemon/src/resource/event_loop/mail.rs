//! What the main thread says.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tandem_control::STEP_LIMIT;
use tandem_core::Input;
use tandem_core::generation::PRIMARY_BIT;
use tandem_core::io::Command;
use tandem_core::refusal::HAS_DISK;
use tandem_core::state::DiskState;
use tandem_core::status::Status;
use tandem_core::units::CommandId;

use super::{Effect, EventLoop, PendingCommand, Tag};
use crate::failure::Failure;
use crate::resource::backing;
use crate::resource::mailbox::{Clients, CommandReply, Mail, Reign, Snapshot};
use crate::resource::nbd_conn::NbdConn;
use crate::resource::ring::Operation;

/// For requests to a disk that is given up: one that hangs is not waited for.
const LET_GO_LIMIT: Duration = Duration::from_secs(5);

impl EventLoop {
    pub(super) fn await_mail(&mut self) {
        let wait = Operation::Wait { event: self.links.bell.clone(), value: Box::new([0; 8]) };
        self.ring.push(Tag::Mail, wait);
    }

    pub(super) fn take_mail(&mut self) {
        loop {
            match self.links.mail.try_recv() {
                Ok(mail) => self.open(mail),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.exit = true;
                    break;
                }
            }
        }
        if !self.exit {
            self.await_mail();
        }
    }

    fn open(&mut self, mail: Mail) {
        match mail {
            Mail::Attach(reply) => self.attach(reply),
            Mail::Command(command, reply) => self.command(command, Effect::Nothing, reply),
            Mail::Change(spec, reply) => self.change(spec, reply),
            Mail::Nbd(client) if client.is_device => self.admit_device(client),
            Mail::Nbd(client) => self.admit(client),
            Mail::PeerConnected { path, attempt, data, control } => {
                self.peer_connected(path, attempt, data, control);
            }
            Mail::PeerRefused { peer, reason } => {
                if self.wanted.contains_key(&peer) {
                    self.feed(Input::PeerRefused { peer, reason });
                }
            }
            Mail::HandlerDone { id, outcome } => self.feed(Input::HandlerDone { id, outcome }),
            Mail::Status(reply) => {
                let _ = reply.send(self.snapshot());
            }
            Mail::Reign(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(Reign {
                    generation: self.engine.status(self.now()).generations.current & !PRIMARY_BIT,
                    alone: self.engine.had_gone_on_alone(),
                    others_wrote: self.others_wrote,
                });
            }
            Mail::Divergences(from_bytes, reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.engine.divergences(self.now(), from_bytes));
            }
            Mail::ResyncMustWait(wait) => self.feed(Input::ResyncMustWait(wait)),
            Mail::StopClients(which, stopped) => {
                self.admits_clients &= which != Clients::All;
                self.waiting_devices.clear();
                self.nbd.values_mut().filter(|conn| which.contains(conn)).for_each(NbdConn::abort);
                self.clients_stopped.push((which, stopped));
            }
            Mail::Exit => self.exit = true,
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            engine: self.status(),
            used_paths: self.used_paths(),
            disk_failure: self.disk_failure.clone(),
        }
    }

    /// The engine counts the device's keeper among the clients that hold the device open: whether it does, the main
    /// thread finds out.
    fn status(&self) -> Status {
        let mut status = self.engine.status(self.now());
        let is_keeper = |name: &str| self.nbd.values().any(|conn| conn.is_device() && conn.name() == name);
        status.openers.retain(|name| !is_keeper(name));
        for conn in self.nbd.values().filter(|conn| !conn.is_device()) {
            if let Some(volume) = status.volumes.get_mut(conn.volume()) {
                volume.openers.push(conn.name().to_owned());
            }
        }
        status
    }

    pub(super) fn command(&mut self, command: Command, effect: Effect, reply: CommandReply) {
        let id = CommandId(self.number());
        let mut limit = Instant::now() + STEP_LIMIT;
        if matches!(command, Command::Primary { .. }) {
            // It may wait for fence-peer.
            limit += Duration::from_millis(self.spec.handlers.limit_ms);
        }
        self.commands.insert(id, PendingCommand { reply, limit, effect });
        self.feed(Input::Command { id, command });
    }

    fn attach(&mut self, reply: CommandReply) {
        match self.is_letting_go() && self.waiting_attach.is_none() {
            true => self.waiting_attach = Some((Instant::now() + LET_GO_LIMIT, reply)),
            false => self.attach_now(reply),
        }
    }

    /// The disk is given up already: what has begun on it has still to end.
    fn is_letting_go(&self) -> bool {
        let is_attaching =
            || self.commands.values().any(|command| matches!(command.effect, Effect::Attaches));
        self.disks.is_some()
            && matches!(self.engine.status(self.now()).disk, DiskState::Failed | DiskState::Diskless)
            && !is_attaching()
    }

    /// Grants the attach that waits when the disk is free, or refuses it when it has waited for too long.
    pub(super) fn serve_waiting_attach(&mut self) {
        let is_free = self.disks.is_none();
        let is_due = |(limit, _): &mut (Instant, CommandReply)| is_free || *limit <= Instant::now();
        if let Some((_, reply)) = self.waiting_attach.take_if(is_due) {
            self.attach_now(reply);
        }
    }

    fn attach_now(&mut self, reply: CommandReply) {
        let opened = match &self.disks {
            Some(_) => Err(Failure::numbered(HAS_DISK.0, HAS_DISK.1)),
            None => {
                let attached = backing::attach(&self.spec, &self.links.last_seen, &self.pool);
                self.disk_failure = attached.as_ref().err().map(Failure::in_one_line);
                attached
            }
        };
        match opened {
            Ok((disks, metadata)) => {
                self.disks = Some(disks);
                self.command(Command::Attach { metadata: Box::new(metadata) }, Effect::Attaches, reply);
            }
            Err(failure) => {
                let _ = reply.send(Err(failure));
            }
        }
    }
}
