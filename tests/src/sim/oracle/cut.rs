//! K3: the data of a node that follows a Primary is a causal cut: nothing present depends on something missing.
//!
//! A write depends on every write that had completed when it was submitted. So it is enough to compare two moments: the
//! latest submission of a write that is present, and the earliest completion of one that is missing. Writes that overlap
//! count as missing only where what was found is certainly older, and as present from the oldest that fits.

use tandem_core::config::WriteOrdering;

use super::{Oracle, Violation};
use crate::sim::disk::SimDisk;

impl Oracle {
    /// The node that gets every write of the Primary, or did until one of them died: until it is promoted or becomes a
    /// target, its disk holds a causal cut at every moment, whatever becomes of it. `None` without any write ordering.
    pub fn follower(&self) -> Option<usize> {
        let follows = self.followed && (self.reigns || self.primary_died) && self.reign.is_none();
        self.primary.filter(|_| follows && self.ordering != WriteOrdering::None).map(|p| 1 - p)
    }

    /// K3, before anybody is promoted: nothing present depends on something missing.
    pub fn check_cut(&self, node: usize, disk: &SimDisk) -> Result<(), Violation> {
        let mut cut = Cut::default();
        for (sector, &found) in disk.tokens().iter().enumerate() {
            self.extend_cut(&mut cut, sector, found);
        }
        cut.judge(node)
    }

    pub(super) fn extend_cut(&self, cut: &mut Cut, sector: usize, found: u64) {
        let Some(latest) = self.newest_found(sector, found) else { return };
        let versions = self.sectors[sector].iter().filter(|v| !v.void);
        let oldest = versions.clone().find(|v| v.token == found).unwrap_or(latest);
        let present = self.writes[oldest.write as usize].submitted;
        if present > cut.present.0 {
            cut.present = (present, oldest.write);
            cut.sectors.0 = sector;
        }
        for missing in versions.filter(|x| self.supersedes(x, latest)) {
            let completed = self.writes[missing.write as usize].completed.unwrap_or(u64::MAX);
            if completed < cut.missing.0 {
                cut.missing = (completed, missing.write);
                cut.sectors.1 = sector;
            }
        }
    }
}

/// The newest write that is present and the oldest that is not, by times of submission and completion.
pub(super) struct Cut {
    present: (u64, u32),
    missing: (u64, u32),
    sectors: (usize, usize),
}

impl Default for Cut {
    fn default() -> Self {
        Cut { present: (0, 0), missing: (u64::MAX, 0), sectors: (0, 0) }
    }
}

impl Cut {
    pub(super) fn judge(&self, node: usize) -> Result<(), Violation> {
        if self.present.0 <= self.missing.0 {
            return Ok(());
        }
        let text = format!(
            "no causal cut on node {node}: w{} (sector {}) is present, w{} (sector {}) is not, yet it completed before w{} was submitted",
            self.present.1, self.sectors.0, self.missing.1, self.sectors.1, self.present.1
        );
        Err(Violation::new("K3", text))
    }
}
