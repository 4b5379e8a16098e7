//! How good a candidate for Primary a node is, as DRBD's events say it (drbdsetup(8), events2).

use tandem_core::state::{DiskState, Role};

use crate::ResourceStatus;

/// Each part of a score has two digits.
const MOST: u32 = 99;

/// Whether a node may be promoted, and whether it rather than another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promotion {
    /// Nobody that can be seen is Primary, and good data can be reached.
    pub may_promote: bool,
    /// 10000 for a disk of its own, 100 for each volume whose data is good here, 1 for each node that has good data.
    pub score: u32,
}

impl ResourceStatus {
    /// What speaks for this node.
    pub fn promotion(&self) -> Promotion {
        let engine = &self.engine;
        let peers = || engine.peers.iter();
        let good_here = engine.disk == DiskState::UpToDate;
        let replicas = usize::from(good_here) + peers().filter(|p| p.disk == DiskState::UpToDate).count();
        if replicas == 0 || !engine.quorum {
            return Promotion::default();
        }
        let has_disk =
            matches!(engine.disk, DiskState::UpToDate | DiskState::Consistent | DiskState::Inconsistent);
        let good_volumes = if good_here { self.spec.volumes().count() } else { 0 };
        let part = |count: usize| u32::try_from(count).unwrap_or(MOST).min(MOST);
        Promotion {
            may_promote: engine.role != Role::Primary && peers().all(|p| p.role != Role::Primary),
            score: u32::from(has_disk) * 10_000 + part(good_volumes) * 100 + part(replicas),
        }
    }
}
