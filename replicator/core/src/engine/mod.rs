//! The engine (stub).
use crate::config::EngineConfig;
use crate::io::{Input, Output};
use crate::status::Status;
use crate::units::{ByteRange, NodeId, Timestamp};

/// One resource on one node.
pub struct Engine {}

impl Engine {
    /// An engine that has no disk and no connection. `entropy` seeds the generation identifiers: draw it afresh from
    /// the operating system at every start.
    pub fn new(_config: EngineConfig, _entropy: u64, _now: Timestamp) -> Self {
        Engine {}
    }
    /// Feeds one input. Drain [`Engine::poll_output`] before sleeping.
    pub fn handle(&mut self, _now: Timestamp, _input: Input) {}
    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Timestamp> {
        None
    }
    /// A client opens the device. Refused unless Primary, with a sentence for the client's operator.
    pub fn open(&mut self, _client: String) -> Result<(), String> {
        Ok(())
    }
    /// A client that [`Engine::open`] admitted has gone; its requests have been completed or dropped by the driver.
    pub fn close(&mut self, _client: &str) {}
    /// A snapshot for the operator.
    pub fn status(&self, _now: Timestamp) -> Status {
        unimplemented!()
    }
    /// For checkers: every range that may differ from the peer's copy right now: bits set and writes in flight.
    pub fn may_differ(&self, _peer: NodeId) -> Vec<ByteRange> {
        Vec::new()
    }
    /// Bytes of the volume, once a disk was attached or a peer told; 0 before.
    pub fn size_bytes(&self) -> u64 {
        0
    }
}
