//! The clients: what they ask, and that the answers are right.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use tandem_core::Engine;
use tandem_core::io::{ClientError, ClientOp, Input, Payload};
use tandem_core::state::{ConnectionState, ReplicationState};
use tandem_core::status::Status;
use tandem_core::units::{ByteRange, RequestId, SECTOR_BYTES};

use super::disk::{put_sector, sectors, token_at};
use super::link::Micros;
use super::oracle::{Violation, token};
use super::report;
use super::world::{DATA_BYTES, Event, World};

const BLOCK: u64 = 4096;

/// A client that has the device open on one node.
#[derive(Debug, Default)]
pub(super) struct Client {
    requests: BTreeMap<u64, Request>,
    /// It submits nothing more and goes when everything has completed.
    pub(super) leaving: bool,
}

#[derive(Debug)]
struct Request {
    what: What,
    range: ByteRange,
    /// When, in the oracle's time and in the world's.
    since: u64,
    at: Micros,
}

/// A request that an engine has ended.
#[derive(Debug)]
pub(super) struct Completion {
    node: usize,
    id: RequestId,
    result: Result<Bytes, ClientError>,
    /// As [`World::has_peer_until_now`] says.
    with_peer: bool,
    /// As [`World::is_served_until_now`] says.
    served: bool,
}

#[derive(Debug)]
enum What {
    /// In two pieces of the space: the engine must refuse it.
    Misplaced,
    Read,
    Write {
        number: u32,
        fua: bool,
    },
    Flush,
}

impl Client {
    /// Number of requests that have not completed.
    pub(super) fn pending(&self) -> usize {
        self.requests.len()
    }

    /// When the oldest request was submitted.
    pub(super) fn oldest(&self) -> Option<Micros> {
        self.requests.values().map(|r| r.at).min()
    }

    fn overlaps(&self, range: ByteRange) -> bool {
        self.requests.values().any(|r| matches!(r.what, What::Write { .. }) && r.range.overlaps(range))
    }
}

impl World {
    /// The client on a node submits what it may, and comes again.
    pub(super) fn submit(&mut self, n: usize) -> Result<(), Violation> {
        let Some(client) = self.nodes[n].client.as_ref() else { return Ok(()) };
        if client.leaving || self.requests_left == 0 {
            let incarnation = self.nodes[n].incarnation;
            self.at(5_000, Event::Submit { node: n, incarnation });
            return Ok(());
        }
        let room = self.plan.workload.depth.saturating_sub(client.pending()) as u64;
        let burst = self.prng.between(1, 4).min(room).min(self.requests_left);
        for _ in 0..burst {
            self.submit_one(n)?;
        }
        let pause = self.prng.between(1, self.plan.workload.pause);
        let incarnation = self.nodes[n].incarnation;
        self.at(pause, Event::Submit { node: n, incarnation });
        Ok(())
    }

    fn submit_one(&mut self, n: usize) -> Result<(), Violation> {
        let misplaced = self.draw_misplaced(n);
        let range = misplaced.unwrap_or_else(|| self.draw_range(n));
        let kind = self.prng.weighted(&self.plan.workload.mix);
        let fua = self.prng.chance(self.plan.workload.fua, 100);
        let Some(client) = self.nodes[n].client.as_ref() else { return Ok(()) };
        if kind < 2 && !self.plan.workload.overlaps && client.overlaps(range) {
            return Ok(());
        }
        self.requests_left -= 1;
        let since = self.oracle.now();
        let (what, op) = match kind {
            _ if misplaced.is_some() => {
                let read = self.prng.chance(1, 2);
                let zero = ClientOp::Zero { range, unmap: false, fua };
                (What::Misplaced, if read { ClientOp::Read(range) } else { zero })
            }
            0 => {
                let number = self.oracle.write_submitted(range, false);
                let payload = Payload::new(content(number, range));
                (What::Write { number, fua }, ClientOp::Write { offset: range.offset, payload, fua })
            }
            1 => {
                let number = self.oracle.write_submitted(range, true);
                (What::Write { number, fua }, ClientOp::Zero { range, unmap: self.prng.chance(1, 2), fua })
            }
            2 => (What::Read, ClientOp::Read(range)),
            _ => (What::Flush, ClientOp::Flush),
        };
        self.next_id += 1;
        let id = self.next_id;
        self.trace(Some(n), "request", || format!("#{id} {}", report::show_request(&op)));
        if let Some(client) = self.nodes[n].client.as_mut() {
            client.requests.insert(id, Request { what, range, since, at: self.now });
        }
        self.feed(n, Input::Client { id: RequestId(id), op })
    }

    /// Now and then a client asks for blocks on both sides of the end of a piece.
    fn draw_misplaced(&mut self, n: usize) -> Option<ByteRange> {
        if !self.plan.two_volumes || !self.prng.chance(1, 64) {
            return None;
        }
        let size = self.nodes[n].engine.as_ref().map_or(DATA_BYTES, Engine::shown_bytes);
        let from = self.prng.below(size / BLOCK) * BLOCK;
        let slot_end = self.nodes[n].engine.as_ref().map(|e| e.layout().slot_end(from))?;
        (slot_end < size).then(|| ByteRange::new(slot_end - BLOCK, 2 * BLOCK))
    }

    /// A client's request is for one piece of a volume.
    fn draw_range(&mut self, n: usize) -> ByteRange {
        let range = self.draw_in_space(n);
        let slot_end = self.nodes[n].engine.as_ref().map_or(u64::MAX, |e| e.layout().slot_end(range.offset));
        ByteRange::new(range.offset, range.end().min(slot_end) - range.offset)
    }

    fn draw_in_space(&mut self, n: usize) -> ByteRange {
        let size = self.nodes[n].engine.as_ref().map_or(DATA_BYTES, Engine::shown_bytes);
        let w = &self.plan.workload;
        let blocks = if self.prng.chance(w.heat, 100) { w.hot_blocks } else { size / BLOCK };
        let block = self.prng.below(blocks);
        if self.prng.chance(1, 2) {
            let count = self.prng.between(1, w.max_blocks).min(size / BLOCK - block);
            return ByteRange::new(block * BLOCK, count * BLOCK);
        }
        let sector = block * 8 + self.prng.below(8);
        let count = self.prng.between(1, 16).min(size / SECTOR_BYTES - sector);
        ByteRange::new(sector * SECTOR_BYTES, count * SECTOR_BYTES)
    }

    /// An engine has ended a request.
    pub(super) fn note_completion(&mut self, node: usize, id: RequestId, result: Result<Bytes, ClientError>) {
        let with_peer = self.has_peer_until_now(node);
        let served = self.is_served_until_now(node);
        self.completions.insert(0, Completion { node, id, result, with_peer, served });
    }

    /// A request has ended.
    pub(super) fn completed(&mut self, completion: Completion) -> Result<(), Violation> {
        let Completion { node: n, id, result, with_peer, served } = completion;
        let holders = self.holders(n);
        let request = self.nodes[n].client.as_mut().and_then(|c| c.requests.remove(&id.0));
        let Some(Request { what, range, since, .. }) = request else {
            return Err(Violation::new(
                "contract",
                format!("node {n} completes request {} twice, or none", id.0),
            ));
        };
        self.trace(Some(n), "complete", || format!("#{} {:?}", id.0, result.as_ref().map(Bytes::len)));
        let data = match result {
            Err(ClientError::OutOfRange) if matches!(what, What::Misplaced) => return Ok(()),
            Ok(_) if matches!(what, What::Misplaced) => {
                let text = format!("node {n} does what is asked of two pieces at once, {range}");
                return Err(Violation::new("layout", text));
            }
            Ok(data) => data,
            Err(error) => {
                self.counts.requests_lost += 1;
                return self.failed(n, error, served);
            }
        };
        if !matches!(what, What::Read) {
            self.check_suspended(n, with_peer, served)?;
        }
        if matches!(what, What::Write { .. }) && !with_peer {
            self.check_fenced_completion(n)?;
        }
        self.counts.requests += 1;
        let alone = self.connection(n) != Some(ConnectionState::Connected);
        self.served_alone[n] += u64::from(alone && matches!(what, What::Write { .. }));
        match what {
            _ if self.split => Ok(()),
            What::Misplaced => Ok(()),
            What::Write { number, fua } => {
                let status = self.nodes[n].status.as_ref();
                let ahead = |s: &Status| {
                    s.peers[0].replication == ReplicationState::Ahead && s.peers[0].out_of_sync_bytes > 0
                };
                if status.is_some_and(ahead) {
                    self.oracle.pulled_ahead_of(1 - n);
                }
                self.oracle.write_completed(number, fua, n, holders)
            }
            What::Flush => {
                self.oracle.flush_completed(since, n, holders);
                Ok(())
            }
            What::Read => {
                if data.len() as u64 != range.length {
                    return Err(Violation::new(
                        "contract",
                        format!("a read of {range} gave {} bytes", data.len()),
                    ));
                }
                sectors(range)
                    .enumerate()
                    .try_for_each(|(i, sector)| self.oracle.read_completed(since, sector, token_at(&data, i)))
            }
        }
    }

    /// An error is right only where no good copy can be reached, and clients are not to wait for one.
    fn failed(&mut self, n: usize, error: ClientError, served: bool) -> Result<(), Violation> {
        let (before, after) = (self.nodes[n].holders_before, self.holders(n));
        let reachable = (0..2).any(|holder| before[holder] && after[holder]);
        if error == ClientError::Io && self.may_fail(n, served) {
            return Ok(());
        }
        let waits = self.nodes[n].no_data.must_wait();
        let passed_on = self.nodes.iter_mut().find(|n| n.errors_to_pass_on > 0);
        if let (true, ClientError::Io, Some(node)) = (reachable || waits, error, passed_on) {
            node.errors_to_pass_on -= 1;
            return Ok(());
        }
        if error != ClientError::Io || reachable || waits {
            let text = format!("a request on node {n} failed with {error:?}: {}", self.describe());
            return Err(Violation::new("K10", text));
        }
        Ok(())
    }

    /// Asks the client to go; true once it is gone.
    pub(super) fn see_client_off(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        let Some(client) = node.client.as_mut() else { return true };
        client.leaving = true;
        if client.pending() > 0 {
            return false;
        }
        self.drop_client(n);
        true
    }

    /// The client is gone.
    pub(super) fn drop_client(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.client = None;
        if let Some(engine) = node.engine.as_mut() {
            engine.close("client");
        }
    }
}

fn content(number: u32, range: ByteRange) -> Bytes {
    let mut bytes = BytesMut::with_capacity(range.length as usize);
    for sector in sectors(range) {
        put_sector(&mut bytes, token(number, sector));
    }
    bytes.freeze()
}
