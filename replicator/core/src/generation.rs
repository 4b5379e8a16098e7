//! Generation identifiers: whose data is newer (reference/drbd.md, B6 and B8).

use serde::{Deserialize, Serialize};

/// Identifiers of former generations that are remembered.
pub const HISTORY_SLOTS: usize = 32;
/// The current identifier of metadata that has never seen data.
pub const JUST_CREATED: u64 = 4;

/// The generations of one node's data, without the per-peer bitmap identifiers. 0 is "none".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Generations {
    /// The generation of the data now.
    pub current: u64,
    /// Former generations, the latest first.
    pub history: [u64; HISTORY_SLOTS],
}
