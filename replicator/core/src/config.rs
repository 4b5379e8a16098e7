//! What the engine is told of its resource.

use serde::{Deserialize, Serialize};

use crate::units::NodeId;

/// When a write completes to the client (DESIGN.md, section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Protocol {
    /// Local write done and handed to the send queue.
    A,
    /// Local write done and received by the peer.
    B,
    /// Local write done and written by the peer.
    C,
}

impl Protocol {
    /// The letter of the configuration file.
    pub const fn letter(self) -> char {
        match self {
            Protocol::A => 'A',
            Protocol::B => 'B',
            Protocol::C => 'C',
        }
    }

    /// The protocol with this letter.
    pub const fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'A' => Some(Protocol::A),
            b'B' => Some(Protocol::B),
            b'C' => Some(Protocol::C),
            _ => None,
        }
    }
}

/// How the secondary keeps epochs apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteOrdering {
    /// Wait for the epoch's writes, then flush the disk.
    Flush,
    /// Wait for the epoch's writes; flush only when the primary's client asks for durability.
    Drain,
}

/// One peer of the resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerConfig {
    /// Its number.
    pub id: NodeId,
    /// Its name in the configuration.
    pub name: String,
}

/// The resource as this node sees it.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The resource's name; both sides must agree.
    pub resource: String,
    /// This node.
    pub node: NodeId,
    /// This node's name.
    pub node_name: String,
    /// The other nodes.
    pub peers: Vec<PeerConfig>,
    /// What the administrator has chosen.
    pub options: Options,
}

/// What the configuration file lets the administrator choose; the defaults are DRBD's unless their line says
/// otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Replication protocol.
    pub protocol: Protocol,
    /// How this node, as a secondary, keeps epochs apart.
    pub write_ordering: WriteOrdering,
    /// A peer must answer a request within `timeout_ms * ko_count`.
    pub timeout_ms: u64,
    /// Idle time after which a heartbeat is sent.
    pub ping_interval_ms: u64,
    /// A heartbeat must be answered within this time.
    pub ping_timeout_ms: u64,
    /// Times `timeout_ms` until a peer that does not finish a request is dropped; 0 for never.
    pub ko_count: u32,
    /// Writes in an epoch.
    pub max_epoch_size: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            protocol: Protocol::C,
            write_ordering: WriteOrdering::Flush,
            timeout_ms: 6000,
            ping_interval_ms: 10_000,
            ping_timeout_ms: 500,
            ko_count: 7,
            max_epoch_size: 2048,
        }
    }
}
