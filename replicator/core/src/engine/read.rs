//! Reads of the clients on the Primary: from the local disk if its data is good, else from a peer whose data is.

use bytes::Bytes;

use super::Engine;
use super::client::Request;
use super::disk::DiskWork;
use super::peer::Peer;
use crate::io::{ClientError, Device, DiskOpKind, Output, Payload};
use crate::units::{ByteRange, NodeId, RequestId, Timestamp};
use crate::wire::Message;

/// A read under way.
#[derive(Clone, Debug)]
pub(super) struct ClientRead {
    id: RequestId,
    range: ByteRange,
    /// The peer that was asked and when, `None` for the local disk.
    peer: Option<(NodeId, Timestamp)>,
}

impl ClientRead {
    pub(super) fn offset(&self) -> u64 {
        self.range.offset
    }
}

impl Engine {
    pub(super) fn client_read(&mut self, id: RequestId, range: ByteRange) {
        let key = self.key();
        self.reads.insert(key, ClientRead { id, range, peer: None });
        self.start_client_read(key);
    }

    /// Local if the data is good here, at least in this range, else from a peer whose data is.
    fn start_client_read(&mut self, key: u64) {
        let Some(range) = self.reads.get(&key).map(|r| r.range) else { return };
        if self.has_good_disk() || self.is_synced_here(range) {
            return self.start_disk_op(Device::Data, DiskOpKind::Read(range), DiskWork::ClientRead { key });
        }
        self.ask_peer_for_read(key, self.good_peer());
    }

    fn ask_peer_for_read(&mut self, key: u64, peer: Option<NodeId>) {
        let now = self.now;
        let Some(range) = self.reads.get(&key).map(|r| r.range) else { return };
        match (peer, self.reads.get_mut(&key)) {
            (Some(peer), Some(read)) => {
                read.peer = Some((peer, now));
                self.send(peer, Message::ReadRequest { id: key, range });
            }
            (_, read) => {
                let id = read.map(|read| read.id);
                self.reads.remove(&key);
                id.into_iter().for_each(|id| self.put_back_or_fail(key, id, Request::Read(range)));
            }
        }
    }

    /// A failed local read is tried again where good data is left.
    pub(super) fn client_read_done(&mut self, key: u64, data: Option<Bytes>) {
        match data {
            Some(data) => self.finish_client_read(key, Ok(data)),
            None if self.has_good_disk() => self.ask_peer_for_read(key, self.twin_of_read(key)),
            None => self.ask_peer_for_read(key, self.good_peer()),
        }
    }

    /// A peer that has, in this range, what the local disk should have.
    fn twin_of_read(&self, key: u64) -> Option<NodeId> {
        let (range, metadata) = (self.reads.get(&key)?.range, self.disk.metadata.as_ref()?);
        let differs = |p: &Peer| metadata.bitmaps[p.slot].marks(range);
        self.peers.iter().find(|p| p.has_good_data() && p.replicates() && !differs(p)).map(Peer::id)
    }

    pub(super) fn read_answered(
        &mut self,
        peer: NodeId,
        key: u64,
        payload: Option<Payload>,
    ) -> Result<(), String> {
        let Some(read) = self.reads.get(&key).filter(|r| r.asked() == Some(peer)) else { return Ok(()) };
        match payload {
            Some(p) if p.len() != read.range.length => {
                Err("a read was answered with the wrong length".into())
            }
            Some(p) => {
                let volume = self.layout().index_at(read.range.offset);
                if let Some(peer) = self.peer_mut(peer) {
                    peer.received.add(volume, p.len());
                }
                self.finish_client_read(key, Ok(p.data));
                Ok(())
            }
            // If its data is no longer good, it has said so before: perhaps the read may wait for a copy.
            None => {
                self.ask_peer_for_read(key, None);
                Ok(())
            }
        }
    }

    /// The peer that was asked is gone.
    pub(super) fn retry_reads_of(&mut self, peer: NodeId) {
        let keys: Vec<u64> =
            self.reads.iter().filter(|(_, r)| r.asked() == Some(peer)).map(|(k, _)| *k).collect();
        for key in keys {
            if let Some(read) = self.reads.get_mut(&key) {
                read.peer = None;
            }
            self.start_client_read(key);
        }
    }

    /// When the oldest read that waits for this peer was sent.
    pub(super) fn oldest_read_of(&self, peer: NodeId) -> Option<Timestamp> {
        self.reads.values().filter(|r| r.asked() == Some(peer)).filter_map(|r| r.peer).map(|(_, at)| at).min()
    }

    fn finish_client_read(&mut self, key: u64, result: Result<Bytes, ClientError>) {
        if let Some(read) = self.reads.remove(&key) {
            self.outputs.push_back(Output::Complete { id: read.id, result });
        }
    }

    /// A peer that the data can be had from.
    pub(super) fn good_peer(&self) -> Option<NodeId> {
        self.peers.iter().find(|p| p.has_good_data()).map(|p| p.id())
    }
}

impl ClientRead {
    fn asked(&self) -> Option<NodeId> {
        self.peer.map(|(peer, _)| peer)
    }
}
