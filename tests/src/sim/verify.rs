//! Online verify, watched: what it reports was damaged, and what is damaged all the time it reports.

use std::collections::BTreeSet;

use tandem_core::io::Event;
use tandem_core::state::{ReplicationState, Role};

use super::disk::sectors;
use super::errand::Errand;
use super::faults::Kind;
use super::oracle::{Violation, undamaged};
use super::rot::Condemned;
use super::script::Step;
use super::world::{self, DATA_BYTES, World};

const SECTORS_PER_BLOCK: usize = 8;

/// The verify under way, or the last one.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Sectors that differed when it began, and what both held.
    at_start: Vec<(usize, [u64; 2])>,
    /// Blocks that differed when it began, or were damaged since.
    damaged: BTreeSet<usize>,
    /// What each node has reported.
    reported: [BTreeSet<usize>; 2],
    /// What was reported and has not been resynced.
    open: BTreeSet<usize>,
    /// The command asked for a repair, by this node's copy if nobody is Primary.
    wish: Option<Option<usize>>,
    /// A repair follows; whose copy is right.
    repair: Option<usize>,
}

impl World {
    /// An engine says something.
    pub(super) fn watch(&mut self, n: usize, event: &Event) -> Result<(), Violation> {
        match event {
            Event::Replication { new: ReplicationState::VerifyS, .. } => self.verify_begins(n),
            Event::OutOfSync { range, .. } => {
                for block in sectors(*range).step_by(SECTORS_PER_BLOCK).map(|s| s / SECTORS_PER_BLOCK) {
                    if !self.watch.damaged.contains(&block) && !self.split {
                        let text = format!("node {n} reports block {block}, which was never damaged");
                        return Err(Violation::new("verify", text));
                    }
                    self.watch.reported[n].insert(block);
                    self.watch.open.insert(block);
                }
            }
            Event::Verified { ranges, blocks, .. } => {
                let walker = self.nodes[n]
                    .status
                    .as_ref()
                    .is_some_and(|s| s.peers[0].replication == ReplicationState::VerifyS);
                if walker && !self.split {
                    let covered = |s: usize| ranges.iter().any(|range| sectors(*range).contains(&s));
                    self.verify_ends(n, covered, *blocks)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A disk rots, or not, and the copies are compared, perhaps while roles change.
    pub(super) fn verify_script(&mut self, primary: Option<usize>) -> Option<Vec<Step>> {
        if !self.in_sync && self.prng.chance(7, 8) {
            return None;
        }
        let (walker, rotten) = (self.prng.node(), self.prng.node());
        let blocks = DATA_BYTES / 4096;
        let start = self.prng.below(blocks);
        let part = self.prng.chance(1, 4).then(|| (start, self.prng.between(start + 1, blocks)));
        if self.met && self.prng.chance(3, 4) {
            self.rot_before(rotten, part.map_or(blocks, |(_, end)| end) * SECTORS_PER_BLOCK as u64);
        }
        let one = self.plan.two_volumes && part.is_none() && self.prng.chance(1, 4);
        let volume = one.then(|| u16::from(self.prng.chance(1, 2)));
        let verify = |from: Option<usize>| {
            Step::Do(walker, Errand::Verify { volume, part, repair: from.is_some(), from })
        };
        let repair = self.prng.chance(1, 2);
        let Some(p) = primary else { return Some(vec![verify(Some(1 - rotten).filter(|_| repair))]) };
        let demotion = [Step::Quiesce(p), Step::Do(p, Errand::Secondary)];
        let promotion = |n| Step::Start(n, Errand::Primary { force: false });
        let other = self.prng.node();
        let pause = Step::Pause(self.prng.below(10_000));
        let moment = Step::Pause(self.prng.below(1_000));
        Some(match self.prng.below(4) {
            0 => [&demotion[..], &[verify(Some(1 - rotten).filter(|_| repair)), pause]].concat(),
            1 => [&[demotion[0], verify(None)], &demotion[1..], &[promotion(other)]].concat(),
            2 => [&demotion[..], &[promotion(1 - walker), moment, verify(None)]].concat(),
            _ => vec![verify(Some(p).filter(|_| repair))],
        })
    }

    fn verify_begins(&mut self, n: usize) {
        let [a, b] = [0, 1].map(|n| self.nodes[n].disk.tokens());
        let damage = |(s, (a, b)): (usize, (&u64, &u64))| (a != b).then_some((s, [*a, *b]));
        let at_start: Vec<_> = a.iter().zip(b).enumerate().filter_map(damage).collect();
        // Writes in flight make the copies differ as well; they are no damage.
        let rotten = |found: &[u64; 2]| found.iter().any(|t| *t != undamaged(*t));
        self.watch.at_start = at_start.into_iter().filter(|(_, found)| rotten(found)).collect();
        self.watch.damaged = self.watch.at_start.iter().map(|(s, _)| s / SECTORS_PER_BLOCK).collect();
        self.watch.reported = Default::default();
        self.watch.repair = None;
        self.watch.wish = match self.nodes[n].errand {
            Some((_, Errand::Verify { repair: true, from, .. }, _)) => Some(from),
            _ => None,
        };
    }

    fn verify_ends(
        &mut self,
        n: usize,
        covered: impl Fn(usize) -> bool,
        blocks: u64,
    ) -> Result<(), Violation> {
        self.counts.verifies += 1;
        self.counts.blocks_found += blocks;
        let tokens = [0, 1].map(|n| self.nodes[n].disk.tokens());
        for &(sector, then) in &self.watch.at_start {
            let block = sector / SECTORS_PER_BLOCK;
            let still = tokens.map(|t| t[sector]) == then;
            if still && covered(sector) && !self.watch.reported[n].contains(&block) {
                let text = format!("the verify on node {n} has missed block {block}, which is damaged");
                return Err(Violation::new("verify", text));
            }
            if still && covered(sector) {
                let damaged = then.into_iter().filter(|t| *t != undamaged(*t));
                self.condemned.extend(damaged.map(|token| Condemned { sector, token }));
            }
        }
        let primary = (0..2).find(|n| self.role(*n) == Some(Role::Primary));
        let wish = self.watch.wish.take().filter(|_| !self.watch.open.is_empty());
        self.watch.repair = wish.and_then(|from| primary.or(from));
        if blocks > 0 && self.healing.is_none() && self.prng.chance(1, 4) {
            let delay = self.prng.below(1_000);
            self.at(delay, world::Event::Strike { kind: Kind::DoubleDeath, node: n });
        }
        Ok(())
    }

    /// A sector has been damaged.
    pub(super) fn damage(&mut self, sector: usize) {
        self.watch.damaged.insert(sector / SECTORS_PER_BLOCK);
    }

    /// The node has given up its copy, or a part of it.
    pub(super) fn check_repair(&mut self, n: usize) -> Result<(), Violation> {
        let asked = (0..2).any(|m| {
            let errand = self.nodes[m].errand.map(|e| e.1);
            errand.is_some_and(|e| World::given_up_by(m, e).is_some())
        });
        if self.watch.repair.take() == Some(n) && !asked {
            let text = format!("a repair replaces the copy of node {n}, which was to be kept");
            return Err(Violation::new("verify", text));
        }
        Ok(())
    }

    /// Everything was resynced.
    pub(super) fn nothing_is_open(&mut self) {
        self.watch.open.clear();
        self.watch.repair = None;
    }

    /// Bytes that a verify has found to differ and nobody has repaired.
    pub(super) fn open_bytes(&self) -> u64 {
        self.watch.open.len() as u64 * 4096
    }

    /// At rest: damage that is left is looked for and repaired.
    pub(super) fn inspect(&mut self) -> Result<(), Violation> {
        let primary = (0..2).find(|n| self.role(*n) == Some(Role::Primary));
        let from = primary.unwrap_or_else(|| self.prng.node());
        let n = self.prng.node();
        self.send_errand(n, Errand::Verify { volume: None, part: None, repair: true, from: Some(from) })
    }
}
