//! A promotion judges the data that it finds; what it found becomes the truth, once a client is told of it.

use tandem_core::config::{Protocol, WriteOrdering};

use super::cut::Cut;
use super::{Oracle, Promise, Version, Violation, show};
use crate::sim::disk::SimDisk;

impl Oracle {
    /// The node has been promoted and serves `disk`, the disk of node `holder`; `in_sync` with its peer. Judges the
    /// data, and goes on from there.
    pub fn promoted(
        &mut self,
        node: usize,
        holder: usize,
        in_sync: bool,
        disks: [&SimDisk; 2],
    ) -> Result<(), Violation> {
        let failover = self.primary_died && self.primary != Some(holder) && !in_sync;
        let mut cut = Cut::default();
        let mut chosen = Vec::with_capacity(self.sectors.len());
        for (sector, &found) in disks[holder].tokens().iter().enumerate() {
            let version = self.judge(sector, found, holder, in_sync, failover)?;
            self.extend_cut(&mut cut, sector, found);
            chosen.push(version);
        }
        // Without any order, a survivor that died too may have lost an earlier write and kept a later one.
        let cut_is_promised = self.ordering != WriteOrdering::None || self.died[holder].is_none();
        if failover && cut_is_promised {
            cut.judge(holder)?;
        }
        let at = self.now();
        self.reign = Some(self.plan_reign(at, &chosen, holder, in_sync, disks));
        self.primary = Some(node);
        self.reigns = true;
        self.followed = in_sync;
        self.primary_died = false;
        if !in_sync {
            self.stale[1 - holder] = true;
        }
        Ok(())
    }

    /// The version that the sector holds, if it may: the latest that fits.
    fn judge(
        &self,
        sector: usize,
        found: u64,
        holder: usize,
        in_sync: bool,
        failover: bool,
    ) -> Result<Version, Violation> {
        let versions = &self.sectors[sector];
        let must = |x: &Version| {
            let w = &self.writes[x.write as usize];
            let promised =
                w.promise[holder] > Promise::None || in_sync && w.promise[1 - holder] > Promise::None;
            !x.void && (promised || failover && w.barrier_acked[holder])
        };
        let mut broken = None;
        for v in versions.iter().rev().filter(|v| v.token == found && !v.void) {
            match versions.iter().find(|x| must(x) && self.supersedes(x, v)) {
                None => return Ok(*v),
                Some(x) => broken = Some(*x),
            }
        }
        let checker = match broken.map(|x| &self.writes[x.write as usize]) {
            None => "K11",
            Some(w) if w.promise[holder] == Promise::Durable => "K2",
            Some(w) if failover && w.promise[holder] == Promise::None => "K3",
            Some(_) if failover && self.protocol == Protocol::B => "K4",
            Some(_) if failover => "K1",
            Some(_) => "K7",
        };
        let missing =
            broken.map_or("a version that may not come back".into(), |x| format!("w{} is missing", x.write));
        let text = format!(
            "sector {sector} of node {holder} holds {}: {missing}; {}",
            show(found),
            self.describe(sector)
        );
        Err(Violation::new(checker, text))
    }

    /// True if `x` was submitted after `v` had completed.
    pub(super) fn supersedes(&self, x: &Version, v: &Version) -> bool {
        let completed = self.writes[v.write as usize].completed;
        completed.is_some_and(|c| c.max(v.settled) < self.writes[x.write as usize].submitted)
    }

    /// What was found is the truth, once somebody is told of it; what is missing is void, unless a cache or an
    /// operation in flight may yet bring it.
    fn plan_reign(
        &self,
        at: u64,
        chosen: &[Version],
        holder: usize,
        in_sync: bool,
        disks: [&SimDisk; 2],
    ) -> Reign {
        let mut fates = Vec::new();
        for (sector, choice) in chosen.iter().enumerate() {
            for (i, v) in self.sectors[sector].iter().enumerate() {
                let lurks = |n: usize| disks[n].may_hold(sector, v.token);
                let fate = if v.write == choice.write {
                    Fate::Present
                } else if v.void || self.supersedes(choice, v) {
                    continue;
                } else if lurks(holder) || in_sync && lurks(1 - holder) {
                    Fate::MayCome
                } else {
                    Fate::Missing
                };
                fates.push((sector, i, fate));
            }
        }
        Reign { at, fates, holder, in_sync }
    }

    /// A client was told something by the Primary: from now on this is the history.
    pub(super) fn settle_reign(&mut self) {
        let Some(Reign { at, fates, holder, in_sync }) = self.reign.take() else { return };
        for (sector, i, fate) in fates {
            let version = &mut self.sectors[sector][i];
            let write = &mut self.writes[version.write as usize];
            match fate {
                Fate::Missing => version.void = true,
                Fate::MayCome => {
                    write.completed.get_or_insert(at);
                }
                Fate::Present => {
                    version.settled = at;
                    write.completed.get_or_insert(at);
                    write.promise[holder] = write.promise[holder].max(Promise::Cache);
                    if in_sync && self.protocol == Protocol::C {
                        write.promise[1 - holder] = write.promise[1 - holder].max(Promise::Cache);
                    }
                }
            }
        }
        // What it lacked when it was promoted is void now.
        self.missed[holder] = false;
        // Unless it has caught up since the promotion.
        if !in_sync && self.stale[1 - holder] && !self.finished[1 - holder] {
            self.missed[1 - holder] = true;
        }
    }

    pub(super) fn describe(&self, sector: usize) -> String {
        let versions = self.sectors[sector].iter().rev().take(6).map(|v| {
            let w = &self.writes[v.write as usize];
            let completed = w.completed.map_or("-".into(), |c| c.to_string());
            let void = if v.void { " void" } else { "" };
            let acked = if w.barrier_acked == [false; 2] { "" } else { " barrier-acked" };
            let zero = if v.token == 0 { "=zeroes" } else { "" };
            format!(
                "w{}{zero} ({}) {}..{completed} {:?}{acked}{void}",
                v.write, w.range, w.submitted, w.promise
            )
        });
        format!("versions, latest first: {}", versions.collect::<Vec<_>>().join("; "))
    }
}

/// What a promotion makes of every version, from the moment that a client is told something.
#[derive(Debug)]
pub(super) struct Reign {
    /// When it began.
    at: u64,
    pub(super) fates: Vec<(usize, usize, Fate)>,
    holder: usize,
    in_sync: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It was found.
    Present,
    /// It was not found, but the disk may yet bring it without being asked.
    MayCome,
    /// It was not found.
    Missing,
}
