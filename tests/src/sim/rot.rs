//! Silent damage: a disk changes a sector by itself, and nobody is told. No engine is expected to notice, until it is
//! asked to replace the copy: from then on the damage is a difference like any other.

use tandem_core::state::DiskState;

use super::errand::Errand;
use super::faults::Kind;
use super::oracle::undamaged;
use super::world::{DATA_BYTES, Event, World};

const SECTORS_PER_BLOCK: u64 = 8;

/// Damage that the engines know of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condemned {
    pub(super) sector: usize,
    pub(super) token: u64,
}

impl World {
    /// The node's disk damages a few sectors.
    pub(super) fn rot(&mut self, n: usize) {
        self.rot_before(n, DATA_BYTES / 512);
    }

    /// The same; often enough the sectors are the last ones before this one.
    pub(super) fn rot_before(&mut self, n: usize, end: u64) {
        let first = if self.prng.chance(1, 4) { end - end.min(SECTORS_PER_BLOCK) } else { 0 };
        for _ in 0..self.prng.between(1, 4) {
            let sector = self.prng.between(first, end - 1) as usize;
            let found = self.nodes[n].disk.tokens()[sector];
            if undamaged(found) == found
                && let Some(token) = self.oracle.rotted(sector, found)
            {
                self.nodes[n].disk.rot(sector, token);
                self.damage(sector);
                if let Some((_, then)) = self.nodes[n].snapshot.as_mut() {
                    then[sector] = token;
                }
                if let Some((_, then)) = self.nodes[n].image.as_mut() {
                    // Until it is saved, damage is part of the image.
                    then[sector] = undamaged(then[sector]);
                }
                self.trace(Some(n), "rots", || format!("sector {sector} (block {})", sector / 8));
            }
        }
    }

    /// The node whose copy the command gives up.
    pub(super) fn given_up_by(n: usize, errand: Errand) -> Option<usize> {
        match errand {
            Errand::Invalidate { .. } => Some(n),
            Errand::InvalidateRemote { .. } => Some(1 - n),
            _ => None,
        }
    }

    /// The other copy has everything that this one has.
    pub(super) fn may_give_up(&self, n: usize) -> bool {
        let good = self.nodes[1 - n].status.as_ref().is_some_and(|s| s.disk == DiskState::UpToDate);
        self.in_sync || good && self.oracle.is_stale(n) && !self.oracle.is_stale(1 - n)
    }

    /// A command that gives up all of the node's copy has been carried out: no damage may be forgotten.
    pub(super) fn gave_up(&mut self, n: usize) {
        let tokens = [0, 1].map(|n| self.nodes[n].disk.tokens());
        for (sector, &token) in tokens[n].iter().enumerate() {
            if token != undamaged(token) && tokens[1 - n][sector] != token {
                self.condemned.push(Condemned { sector, token });
            }
        }
        if self.healing.is_none() && self.prng.chance(1, 3) {
            let delay = self.prng.below(2_000);
            self.at(delay, Event::Strike { kind: Kind::ProcessCrash, node: n });
        }
    }

    /// The sectors where known damage makes the copies differ.
    pub(super) fn known_damage(&self) -> impl Iterator<Item = usize> + '_ {
        let tokens = [0, 1].map(|n| self.nodes[n].disk.tokens());
        let differs = move |c: &&Condemned| {
            let found = tokens.map(|t| t[c.sector]);
            found[0] != found[1] && found.contains(&c.token)
        };
        self.condemned.iter().filter(differs).map(|c| c.sector)
    }
}
