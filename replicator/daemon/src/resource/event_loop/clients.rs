//! The NBD clients: who is let in, what they ask for, and when they are gone.

use bytes::Bytes;
use tandem_core::Input;
use tandem_core::io::{ClientError, ClientOp};
use tandem_core::units::RequestId;

use super::{EventLoop, PendingRequest};
use crate::resource::mailbox::Clients;
use crate::resource::nbd_conn::{NbdClient, NbdConn};
use crate::resource::pieces::{Whole, in_space};

impl EventLoop {
    /// A device sends again on a new connection what was not answered on the old one. What comes from that one late must
    /// not overwrite what is written afterwards: it is dropped, and what has been taken in ends first.
    pub(super) fn admit_device(&mut self, client: NbdClient) {
        self.pool.reserve();
        let volume = client.volume;
        self.nbd.values_mut().filter(|conn| conn.is_device_of(volume)).for_each(NbdConn::abort);
        self.waiting_devices.retain(|waiting| waiting.volume != volume);
        self.waiting_devices.push(client);
    }

    pub(super) fn admit_waiting_devices(&mut self) {
        if self.waiting_devices.is_empty() {
            return;
        }
        self.drop_finished_clients();
        let (still, free): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting_devices)
            .into_iter()
            .partition(|client| self.nbd.values().any(|conn| conn.is_device_of(client.volume)));
        self.waiting_devices = still;
        free.into_iter().for_each(|client| self.admit(client));
    }

    pub(super) fn admit(&mut self, client: NbdClient) {
        let opened = match self.admits_clients {
            true => self.engine.open(client.name.clone()),
            false => Err("the daemon is stopping".into()),
        };
        match opened {
            Ok(()) => {
                tracing::info!(resource = self.spec.name, client = client.name, "NBD client connected");
                let id = self.number();
                self.nbd.insert(id, NbdConn::new(client));
                // What it was promised may have grown while it came.
                self.tell_clients_their_size();
                self.changed = true;
            }
            Err(reason) => {
                tracing::warn!(resource = self.spec.name, client = client.name, "refused: {reason}")
            }
        }
    }

    /// Hands clients' requests to the engine, as many as their limits allow.
    pub(super) fn take_requests(&mut self) {
        let ids: Vec<u64> = self.nbd.keys().copied().collect();
        for id in ids {
            while let Some(request) = self.nbd.get_mut(&id).and_then(|conn| conn.next_request(&self.pool)) {
                let pending = PendingRequest {
                    conn: id,
                    cookie: request.cookie,
                    is_read: request.is_read,
                    cost_bytes: request.cost_bytes,
                    part_of: None,
                };
                match self.engine.layout().is_single() {
                    true => self.give_request(pending, request.op),
                    false => self.give_request_to_volume(pending, request.volume, request.op),
                }
            }
        }
    }

    fn give_request(&mut self, pending: PendingRequest, op: ClientOp) {
        let id = RequestId(self.requests.insert(pending) as u64);
        self.feed(Input::Client { id, op });
    }

    /// The engine takes requests for one piece of a volume.
    fn give_request_to_volume(&mut self, pending: PendingRequest, volume: usize, op: ClientOp) {
        let parts = in_space(op, self.engine.layout(), volume);
        let whole = match parts.len() {
            0 => return self.answer(&pending, Err(ClientError::OutOfRange)),
            1 => None,
            several => Some(self.wholes.insert(Whole::of(several))),
        };
        for (part, op) in parts.into_iter().enumerate() {
            self.give_request(PendingRequest { part_of: whole.map(|whole| (whole, part)), ..pending }, op);
        }
    }

    pub(super) fn answer(&mut self, request: &PendingRequest, result: Result<Bytes, ClientError>) {
        if let Some(conn) = self.nbd.get_mut(&request.conn) {
            conn.complete(request.cookie, request.is_read, request.cost_bytes, result);
        }
    }

    /// What a client is told when one of its requests has ended, or a part of it; nothing before the last has.
    pub(super) fn whole_result(
        &mut self,
        request: &PendingRequest,
        result: Result<Bytes, ClientError>,
    ) -> Option<Result<Bytes, ClientError>> {
        let Some((whole, part)) = request.part_of else { return Some(result) };
        if !self.wholes.get_mut(whole)?.part_ended(part, result) {
            return None;
        }
        self.wholes.take(whole).map(Whole::into_result)
    }

    pub(super) fn drop_finished_clients(&mut self) {
        let finished: Vec<u64> =
            self.nbd.iter().filter(|(_, conn)| conn.is_finished()).map(|(id, _)| *id).collect();
        for id in finished {
            if let Some(conn) = self.nbd.remove(&id) {
                tracing::info!(resource = self.spec.name, client = conn.name(), "NBD client gone");
                self.engine.close(conn.name());
                self.changed = true;
            }
        }
        let nbd = &self.nbd;
        let are_gone = |which: Clients| !nbd.values().any(|conn| which.contains(conn));
        for (_, stopped) in self.clients_stopped.extract_if(.., |(which, _)| are_gone(*which)) {
            // Whoever waited may have given up.
            let _ = stopped.send(());
        }
    }

    /// A volume may have grown under its clients; who knows may use it.
    pub(super) fn tell_clients_their_size(&mut self) {
        let export = self.links.export.get();
        for conn in self.nbd.values_mut() {
            conn.grow_to(export.volume_bytes(conn.volume()));
        }
    }
}

impl Clients {
    pub(super) fn contains(self, conn: &NbdConn) -> bool {
        self != Clients::Device || conn.is_device()
    }
}
