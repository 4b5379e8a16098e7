//! The ways to the peers. A connection uses one of them at a time, and goes over another when that one fails.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tandem_core::units::NodeId;

use crate::ResourceSpec;

/// A way to a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PathSpec {
    /// Whom it leads to.
    pub peer: NodeId,
    /// This node's end: where it listens, and where it connects from.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

impl PathSpec {
    /// What it is called among the [differences](crate::Difference).
    pub fn what(&self) -> String {
        format!("path {self}")
    }
}

impl fmt::Display for PathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.local, self.remote)
    }
}

impl ResourceSpec {
    /// The ways to a peer, in the configuration's order.
    pub fn paths_to(&self, peer: NodeId) -> impl Iterator<Item = &PathSpec> {
        self.paths.iter().filter(move |path| path.peer == peer)
    }

    /// The addresses of this node, each once.
    pub fn own_addresses(&self) -> BTreeSet<SocketAddr> {
        self.paths.iter().map(|path| path.local).collect()
    }
}
