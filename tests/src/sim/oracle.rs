//! What may be read, what must survive: every version of every sector, and the promises made about it.
//!
//! The oracle sees all: what clients asked and were told, what both disks hold, who died how. It never looks into an
//! engine to learn what is right.
//!
//! Each write carries, for each node, the strongest promise that the protocol has made about it there ([`Promise`]);
//! deaths take promises back. When a node is promoted, its data is judged against the promises, and then becomes the
//! truth from which the next history goes on: what is missing and may be missing is *void* and must never come back.

mod cut;
mod judgement;
mod losses;

use tandem_core::config::{Protocol, WriteOrdering};
use tandem_core::units::ByteRange;

use judgement::Reign;

use super::disk::{SimDisk, sectors};

/// A rule was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which checker found it: K1 to K11 of the reference, or `panic`.
    pub checker: &'static str,
    /// What was found.
    pub message: String,
}

impl Violation {
    /// A broken rule.
    pub fn new(checker: &'static str, message: String) -> Self {
        Violation { checker, message }
    }
}

/// How surely a node has a write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Promise {
    /// It may lack it.
    None,
    /// Its process has it in memory.
    Process,
    /// Its disk has completed it.
    Cache,
    /// A client's FLUSH or FUA covers it.
    Durable,
}

/// A client's write, or the data that was there at the beginning (number 0).
#[derive(Debug)]
struct Write {
    range: ByteRange,
    submitted: u64,
    completed: Option<u64>,
    promise: [Promise; 2],
    /// The node has acknowledged the barrier behind it.
    barrier_acked: [bool; 2],
}

/// What a write made of one sector.
#[derive(Clone, Copy, Debug)]
struct Version {
    write: u32,
    token: u64,
    void: bool,
    /// When it was found in place by a promotion; 0 if never.
    settled: u64,
}

/// The oracle.
#[derive(Debug)]
pub struct Oracle {
    protocol: Protocol,
    ordering: WriteOrdering,
    clock: u64,
    writes: Vec<Write>,
    sectors: Vec<Vec<Version>>,
    /// The node may lack completed writes, or will soon: promoting it could lose them.
    stale: [bool; 2],
    /// Writes have completed without the node: the other has newer data, and knows.
    missed: [bool; 2],
    /// The node has given its copy up, perhaps not yet on disk; whether it had missed writes before.
    gave_up: [Option<bool>; 2],
    /// The node's disk has failed since both copies were last in sync.
    disk_failed: [bool; 2],
    /// The node calls itself complete, and its source, which may not know yet, still sends it all writes.
    finished: [bool; 2],
    /// The Primary, being Ahead, has completed writes that it did not send: until a resync has ended, the data is old.
    behind: [bool; 2],
    /// How the node died since both copies were last in sync: `Some(true)` by a power loss.
    died: [Option<bool>; 2],
    /// The node that was promoted last, unless it was demoted in good order; and whether it still is Primary.
    primary: Option<usize>,
    reigns: bool,
    /// The other node has been in sync with it since, and gets its writes.
    followed: bool,
    /// The history as it goes on, if a client comes to see it.
    reign: Option<Reign>,
    /// The Primary died as such, and the nodes have not been in sync since.
    primary_died: bool,
    /// When the present connection was made.
    connected_at: u64,
}

/// Where a write's token tells its number: the low bits hold the sector.
const SECTOR_BITS: u32 = 16;

/// The token that write `number` puts into `sector`.
pub fn token(number: u32, sector: usize) -> u64 {
    u64::from(number) << SECTOR_BITS | sector as u64
}

/// The number of the write that made this token.
pub fn write_of(token: u64) -> u32 {
    (token >> SECTOR_BITS) as u32
}

/// Tokens of damaged sectors bear a mark here.
const ROT_SHIFT: u32 = 56;

/// What a sector held before it was damaged.
pub fn undamaged(token: u64) -> u64 {
    token & ((1 << ROT_SHIFT) - 1)
}

fn show(token: u64) -> String {
    match write_of(token) {
        _ if undamaged(token) != token => format!("rotten {}", show(undamaged(token))),
        0 if token == 0 => "zeroes".into(),
        0 => format!("initial:{token:#x}"),
        n => format!("w{n}@{}", token & ((1 << SECTOR_BITS) - 1)),
    }
}

impl Oracle {
    /// Nothing is known yet; see [`Oracle::begin`].
    pub fn new(protocol: Protocol, ordering: WriteOrdering, sectors: usize) -> Self {
        Oracle {
            protocol,
            ordering,
            clock: 0,
            writes: Vec::new(),
            sectors: vec![Vec::new(); sectors],
            stale: [true; 2],
            missed: [true; 2],
            gave_up: [None; 2],
            disk_failed: [false; 2],
            finished: [false; 2],
            behind: [false; 2],
            died: [None; 2],
            primary: None,
            reigns: false,
            followed: false,
            reign: None,
            primary_died: false,
            connected_at: 0,
        }
    }

    /// The administrator has declared this node's data to be the data.
    pub fn begin(&mut self, node: usize, disk: &SimDisk) {
        let mut promise = [Promise::None; 2];
        promise[node] = Promise::Durable;
        self.begin_with(promise, disk);
        self.stale = [node != 0, node != 1];
        self.missed = self.stale;
        self.primary = Some(node);
        self.reigns = true;
        self.followed = false;
    }

    /// The administrator has declared both nodes' data, which is the same, to be the data.
    pub fn begin_together(&mut self, disk: &SimDisk) {
        self.begin_with([Promise::Durable; 2], disk);
        self.stale = [false; 2];
        self.missed = [false; 2];
    }

    fn begin_with(&mut self, promise: [Promise; 2], disk: &SimDisk) {
        let range = ByteRange::new(0, disk.layout().data_bytes);
        let base = Write { range, submitted: 0, completed: Some(0), promise, barrier_acked: [false; 2] };
        self.writes = vec![base];
        for (versions, &token) in self.sectors.iter_mut().zip(disk.tokens()) {
            *versions = vec![Version { write: 0, token, void: false, settled: 0 }];
        }
    }

    /// Clients see a larger volume. Nobody has written to what is new: it holds what is on either disk.
    pub fn grown(&mut self, disks: [&SimDisk; 2]) {
        let first = self.sectors.len();
        for (&here, &there) in disks[0].tokens()[first..].iter().zip(&disks[1].tokens()[first..]) {
            let version = |token| Version { write: 0, token, void: false, settled: 0 };
            let versions =
                if here == there { vec![version(here)] } else { vec![version(there), version(here)] };
            self.sectors.push(versions);
        }
    }

    /// True once there is data to speak of.
    pub fn has_begun(&self) -> bool {
        !self.writes.is_empty()
    }

    /// True if promoting the node loses completed writes.
    pub fn is_stale(&self, node: usize) -> bool {
        self.stale[node]
    }

    /// A write that completed without this node, that it lacks, and that the other has. Where both have lost power, what no
    /// flush has covered may be gone, whoever goes on.
    pub fn missed_write(&self, node: usize, disks: [&SimDisk; 2]) -> Option<u32> {
        let (here, there) = (disks[node].tokens(), disks[1 - node].tokens());
        let may_be_gone = |write: &Write| self.died == [Some(true); 2] && write.promise == [Promise::None; 2];
        let lacks = |(sector, versions): (usize, &Vec<Version>)| {
            let found = self.newest_found(sector, here[sector])?;
            let other = versions.iter().find(|v| v.token == there[sector] && !v.void)?;
            let write = &self.writes[other.write as usize];
            let counts = write.completed.is_some() && !may_be_gone(write);
            (counts && self.supersedes(other, found)).then_some(other.write)
        };
        self.missed[node].then(|| self.sectors.iter().enumerate().find_map(lacks)).flatten()
    }

    /// The version that a sector holds; of several that look alike, as zeroes do, the one that completed last, or has not.
    fn newest_found(&self, sector: usize, found: u64) -> Option<&Version> {
        let alike = self.sectors[sector].iter().filter(|v| v.token == found && !v.void);
        alike.max_by_key(|v| self.writes[v.write as usize].completed.map_or(u64::MAX, |c| c.max(v.settled)))
    }

    /// The moment, for comparing with later ones.
    pub fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    // What clients do.

    /// A client submits a write; its number.
    pub fn write_submitted(&mut self, range: ByteRange, zeroes: bool) -> u32 {
        let number = self.writes.len() as u32;
        let submitted = self.now();
        let write = Write {
            range,
            submitted,
            completed: None,
            promise: [Promise::None; 2],
            barrier_acked: [false; 2],
        };
        self.writes.push(write);
        for sector in sectors(range) {
            let token = if zeroes { 0 } else { token(number, sector) };
            self.sectors[sector].push(Version { write: number, token, void: false, settled: 0 });
        }
        number
    }

    /// The write completed on `primary`; `holders` are the nodes whose copies the Primary counts as UpToDate.
    pub fn write_completed(
        &mut self,
        number: u32,
        fua: bool,
        primary: usize,
        holders: [bool; 2],
    ) -> Result<(), Violation> {
        if holders == [false; 2] {
            let text = format!("w{number} completed although no UpToDate copy could be reached");
            return Err(Violation::new("K7", text));
        }
        self.settle_reign();
        let completed = self.now();
        let protocol = self.protocol;
        let write = &mut self.writes[number as usize];
        write.completed = Some(completed);
        for (node, holds) in holders.into_iter().enumerate() {
            let remote = node != primary;
            self.missed[node] |= !holds && !self.finished[node];
            self.gave_up[node].take_if(|_| !holds);
            let promise = match (protocol, self.died[node].filter(|_| remote)) {
                _ if !holds => Promise::None,
                (Protocol::A, _) if remote => Promise::None,
                _ if fua => Promise::Durable,
                // It has died after it acknowledged the write, and the Primary does not know yet.
                (_, Some(true)) | (Protocol::B, Some(false)) => Promise::None,
                (Protocol::B, None) if remote => Promise::Process,
                _ => Promise::Cache,
            };
            write.promise[node] = write.promise[node].max(promise);
        }
        Ok(())
    }

    /// A flush that was submitted at `since` completed on `primary`.
    pub fn flush_completed(&mut self, since: u64, primary: usize, holders: [bool; 2]) {
        self.settle_reign();
        let protocol = self.protocol;
        for write in self.writes.iter_mut().filter(|w| w.completed.is_some_and(|c| c < since)) {
            for (node, holds) in holders.into_iter().enumerate() {
                let covered = node == primary || protocol != Protocol::A;
                if holds && covered && write.promise[node] >= Promise::Process {
                    write.promise[node] = Promise::Durable;
                }
            }
        }
    }

    /// What a read that was submitted at `since` returned for one sector.
    pub fn read_completed(&mut self, since: u64, sector: usize, found: u64) -> Result<(), Violation> {
        self.settle_reign();
        let versions = &self.sectors[sector];
        let visible =
            |x: &&Version| !x.void && self.writes[x.write as usize].completed.is_some_and(|c| c < since);
        let superseded = |v: &Version| versions.iter().filter(visible).any(|x| self.supersedes(x, v));
        if versions.iter().any(|v| v.token == found && !v.void && !superseded(v)) {
            return Ok(());
        }
        let text = format!("sector {sector} was read as {}; {}", show(found), self.describe(sector));
        Err(Violation::new("K7", text))
    }

    // What happens to nodes.

    /// A disk damages the sector, which holds `found`: the token that it holds now. A damaged version may be found
    /// wherever the version itself may. `None` if it cannot be told which version that is.
    pub fn rotted(&mut self, sector: usize, found: u64) -> Option<u64> {
        let versions = &mut self.sectors[sector];
        let marks = versions.iter().filter(|v| undamaged(v.token) != v.token).count() as u64 + 1;
        let mut same = versions.iter().filter(|v| v.token == found && !v.void);
        let version = same.next().copied().filter(|_| same.next().is_none() && found != 0 && marks < 255)?;
        let token = undamaged(found) | marks << ROT_SHIFT;
        versions.push(Version { token, ..version });
        Some(token)
    }

    /// The node has given up its copy.
    pub fn invalidated(&mut self, node: usize) {
        self.stale[node] = true;
        self.gave_up[node] = Some(self.missed[node]);
        self.missed[node] = true;
        self.finished[node] = false;
        for write in &mut self.writes {
            write.promise[node] = Promise::None;
            write.barrier_acked[node] = false;
        }
    }

    /// The node has died before its disk said that the copy was given up.
    pub fn kept(&mut self, node: usize) {
        if let Some(missed) = self.gave_up[node].take() {
            self.missed[node] = missed;
        }
    }

    /// A connection was made.
    pub fn connected(&mut self) {
        self.connected_at = self.now();
    }

    /// The node has acknowledged the barrier behind these writes.
    pub fn barrier_acked(&mut self, node: usize, writes: &[u32]) {
        for number in writes {
            if let Some(write) = self.writes.get_mut(*number as usize) {
                write.barrier_acked[node] = true;
            }
        }
    }

    /// Data goes on, or may, without the node.
    pub fn left_behind(&mut self, node: usize) {
        self.stale[node] = true;
    }

    /// The Primary is Ahead of this node, and has completed writes and marked some.
    pub fn pulled_ahead_of(&mut self, node: usize) {
        self.behind[node] = true;
    }

    /// The node has noted the end of a resync, although nobody saw it.
    pub fn caught_up(&mut self, node: usize) {
        self.behind[node] = false;
    }

    /// True if the node must not call its data UpToDate.
    pub fn is_behind(&self, node: usize) -> bool {
        self.behind[node]
    }

    /// The node was demoted in good order; `in_sync` with its peer.
    pub fn demoted(&mut self, node: usize, in_sync: bool) {
        if in_sync {
            for write in &mut self.writes {
                let here = write.promise[node].min(Promise::Cache);
                write.promise[1 - node] = write.promise[1 - node].max(here);
            }
        }
        if self.primary == Some(node) {
            self.primary = None;
        }
    }

    /// The node receives what it lacks: what it has from now on is its source's, with all that the source has lost.
    pub fn resync_began(&mut self, target: usize) {
        self.followed = false;
        self.writes.iter_mut().for_each(|w| w.barrier_acked[target] = false);
        if self.primary != Some(target) {
            self.primary_died = false;
        }
        // After protocol A, or if data has gone on without it, that is the only way.
        if self.protocol == Protocol::A || self.stale[target] {
            for write in &mut self.writes {
                write.promise[target] = write.promise[target].min(write.promise[1 - target]);
            }
        }
    }

    /// The target calls itself complete; its source may not know yet.
    pub fn target_finished(&mut self, target: usize) {
        self.missed[target] = false;
        self.finished[target] = true;
        self.behind[target] = false;
    }

    /// The node's disk calls itself complete, and has failed before the node could: what was sent to it and is not there is
    /// what a node that dies has lost.
    pub fn finished_unseen(&mut self, target: usize) {
        self.missed[target] = false;
        self.behind[target] = false;
    }

    /// The Primary goes on without this node, and knows.
    pub fn parted(&mut self, node: usize) {
        self.finished[node] = false;
    }

    /// Both nodes call both copies UpToDate and agree that they are in sync; `source` sent what the other lacked.
    pub fn in_sync(&mut self, source: Option<usize>) {
        self.stale = [false; 2];
        self.missed = [false; 2];
        self.gave_up = [None; 2];
        self.finished = [false; 2];
        self.behind = [false; 2];
        self.died = [None; 2];
        self.disk_failed = [false; 2];
        self.primary_died = false;
        self.followed = true;
        let Some(source) = source else { return };
        let target = 1 - source;
        for write in self.writes.iter_mut().filter(|w| w.completed.is_some()) {
            let settled = write.completed.is_some_and(|c| c < self.connected_at);
            let gained = match (write.promise[source], self.protocol) {
                (Promise::None, _) => Promise::None,
                (Promise::Durable, _) if settled => Promise::Durable,
                (_, Protocol::C) => Promise::Cache,
                _ if settled => Promise::Cache,
                (_, Protocol::B) => Promise::Process,
                (_, Protocol::A) => Promise::None,
            };
            write.promise[target] = match self.protocol {
                // A crashed Primary is the source: what it lost, unflushed, the other may lose as well.
                Protocol::A => gained,
                Protocol::B | Protocol::C => write.promise[target].max(gained),
            };
        }
    }
}
