//! Several clients that write, flush and read back until they are stopped or their server dies.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::history::{BLOCK_BYTES, History, content, version_of};
use crate::nbd_client::{NbdClient, NbdError};
use crate::node::Node;
use crate::random::Random;
use crate::wait;

/// Clients at a time: each has its own connection and its own regions of the device.
const CLIENTS: u64 = 4;
/// Blocks of a region; regions are dealt out to the clients in turn.
const REGION_BLOCKS: u64 = 64;
/// Longest write.
const MAX_WRITE_BLOCKS: u64 = 16;

/// Clients at work.
pub(crate) struct Workload {
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), NbdError>>>,
}

impl Workload {
    /// Starts writing to the node's export.
    pub(crate) fn start(node: &Node, history: &Arc<History>, random: &mut Random) -> Workload {
        let stop = Arc::new(AtomicBool::new(false));
        let operations = Arc::new(AtomicU64::new(0));
        let clients = (0..CLIENTS).map(|number| {
            let connection =
                node.client().unwrap_or_else(|e| panic!("{} refuses a client: {e:?}", node.name));
            let mut client = Client {
                number,
                connection,
                history: Arc::clone(history),
                random: Random::new(random.next()),
            };
            let (stop, operations) = (Arc::clone(&stop), Arc::clone(&operations));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.step()?;
                    operations.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let clients = clients.collect();
        Workload { stop, operations, clients }
    }

    /// Waits until this many more operations are done; panics if the clients stop making progress.
    pub(crate) fn wait_for_operations(&self, count: u64) {
        let target = self.operations.load(Ordering::Relaxed) + count;
        wait::until("the clients make progress", || self.operations.load(Ordering::Relaxed) >= target);
    }

    /// Stops the clients, none of which may have seen an error.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for result in self.join() {
            result.unwrap();
        }
    }

    /// Waits until every client has lost its connection.
    pub(crate) fn wait_for_loss(self) {
        for result in self.join() {
            assert!(
                matches!(result, Err(NbdError::Io(_))),
                "the server died, the client ended with {result:?}"
            );
        }
    }

    fn join(self) -> Vec<Result<(), NbdError>> {
        self.clients.into_iter().map(|client| client.join().unwrap()).collect()
    }
}

struct Client {
    number: u64,
    connection: NbdClient,
    history: Arc<History>,
    random: Random,
}

impl Client {
    /// One operation: mostly a write, now and then a flush or a look at what was written.
    fn step(&mut self) -> Result<(), NbdError> {
        let blocks = self.own_blocks();
        match self.random.below(16) {
            0 => self.flush(),
            1..3 => self.look(blocks.start),
            _ => self.write(blocks),
        }
    }

    fn write(&mut self, blocks: Range<u64>) -> Result<(), NbdError> {
        let version = self.history.issue(blocks.clone());
        let data: Vec<u8> = blocks.clone().flat_map(|block| content(block, version)).collect();
        let fua = self.random.one_in(8);
        self.connection.write(blocks.start * BLOCK_BYTES as u64, &data, fua)?;
        self.history.complete(blocks, fua);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), NbdError> {
        let issued = self.history.issue_flush();
        self.connection.flush()?;
        self.history.complete_flush(issued);
        Ok(())
    }

    fn look(&mut self, block: u64) -> Result<(), NbdError> {
        let bytes = self.connection.read(block * BLOCK_BYTES as u64, BLOCK_BYTES)?;
        assert_eq!(version_of(block, &bytes), Ok(self.history.newest(block)), "block {block} read back");
        Ok(())
    }

    fn own_blocks(&mut self) -> Range<u64> {
        let own_regions = self.history.len() / REGION_BLOCKS / CLIENTS;
        let region = self.random.below(own_regions) * CLIENTS + self.number;
        let length = 1 + self.random.below(MAX_WRITE_BLOCKS);
        let start = region * REGION_BLOCKS + self.random.below(REGION_BLOCKS - length);
        start..start + length
    }
}

/// The version of every block of the history, as a client of this node reads it.
pub(crate) fn read_versions(node: &Node, history: &History) -> Result<Vec<u64>, String> {
    let mut client = node.client().map_err(|e| format!("{} refuses a client: {e:?}", node.name))?;
    let mut versions = Vec::new();
    for first in (0..history.len()).step_by(REGION_BLOCKS as usize) {
        let bytes = client
            .read(first * BLOCK_BYTES as u64, REGION_BLOCKS as usize * BLOCK_BYTES)
            .map_err(|e| format!("reading block {first} on {}: {e:?}", node.name))?;
        for (block, bytes) in (first..).zip(bytes.chunks(BLOCK_BYTES)) {
            versions.push(version_of(block, bytes)?);
        }
    }
    Ok(versions)
}
