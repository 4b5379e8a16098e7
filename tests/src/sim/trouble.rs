//! Disks that fail, and clocks that go wrong.
//!
//! A disk fails one operation (a read, a write of data or of metadata, a flush), or every one from some moment on; or
//! it answers nothing for a long time. A failed write may have landed in part. A failed flush loses, sector by sector,
//! what it should have made durable, and the next flush succeeds; reads see what was lost until the device is closed.
//! A disk that failed is attached again by the administrator, as it is, or, if the other node's is good, a new one is.

use tandem_core::config::OnIoError;
use tandem_core::io::{self, Device, DiskError, DiskOp, DiskOpKind, Input};
use tandem_core::state::{DiskState, ReplicationState, Role};
use tandem_core::units::{DiskOpId, Timestamp};

use super::faults::Kind;
use super::link::Micros;
use super::oracle::Violation;
use super::world::{Event, World};

/// What is wrong with a node's disk.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// The next operation of this kind fails.
    once: Option<Kind>,
    /// Every operation fails.
    pub(super) dead: bool,
    /// No operation ends before.
    hangs_until: Micros,
    /// It is to be replaced by a new one when nobody uses it.
    replace: bool,
}

/// A node's clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Microseconds before the world's time.
    ahead: i64,
    /// It stands still at this time.
    stopped: Option<u64>,
}

impl Clock {
    pub(super) fn read(&self, now: Micros) -> Timestamp {
        Timestamp(self.stopped.unwrap_or_else(|| now.saturating_add_signed(self.ahead)))
    }
}

impl World {
    // Disks.

    /// The disk begins to fail in this way.
    pub(super) fn trouble(&mut self, kind: Kind, n: usize) {
        let longest = [5_000, 100_000, 400_000][self.prng.below(3) as usize];
        let delay = self.prng.below(longest);
        let trouble = &mut self.nodes[n].trouble;
        match kind {
            Kind::DyingDisk if !trouble.dead => {
                trouble.dead = true;
                self.counts.note(kind);
                self.at(delay, Event::Repaired { node: n });
            }
            Kind::DyingDisk => {}
            Kind::HungDisk => {
                trouble.hangs_until = self.now + delay;
                self.counts.note(kind);
            }
            once => trouble.once = Some(once),
        }
        self.trace(Some(n), "trouble", || format!("{kind:?}"));
    }

    /// A dead disk works again.
    pub(super) fn repair(&mut self, n: usize) {
        self.trace(Some(n), "repaired", String::new);
        let replace = self.prng.chance(1, 3);
        self.nodes[n].trouble = Trouble { replace, ..Trouble::default() };
    }

    /// A disk operation is due to end.
    pub(super) fn disk_due(&mut self, n: usize, id: DiskOpId) -> Result<(), Violation> {
        let until = self.nodes[n].trouble.hangs_until;
        if until > self.now {
            let (delay, incarnation) = (until - self.now + self.prng.below(500), self.nodes[n].incarnation);
            self.at(delay, Event::DiskDone { node: n, incarnation, op: id });
            return Ok(());
        }
        let Some(op) = self.nodes[n].disk.in_flight_op(id) else { return Ok(()) };
        let result = match self.fault_of(n, &op) {
            None => {
                self.trace(Some(n), "disk done", || format!("#{}", id.0));
                self.nodes[n].disk.finish(id)
            }
            Some(kind) => {
                self.counts.note(kind);
                let dead = self.nodes[n].trouble.dead;
                self.nodes[n].undo_failed |= op.device == Device::Undo;
                self.note_cache(n);
                let cache_lost = self.nodes[n].disk.fail(id, dead, &mut self.prng);
                self.trace(Some(n), "disk error", || format!("#{} {kind:?} cache lost: {cache_lost}", id.0));
                if op.device != Device::Undo {
                    let told = kind == Kind::ReadError || kind == Kind::WriteError && !self.holders(n)[1 - n];
                    let told = told && self.plan.on_io_error == OnIoError::PassOn;
                    self.nodes[n].errors_to_pass_on += u32::from(told);
                    self.oracle.disk_failed(n, cache_lost);
                    // What it sends once it is back is something else.
                    self.sync_source = None;
                }
                self.strike_the_other(n);
                None
            }
        };
        let result = result.ok_or_else(|| DiskError("Input/output error (os error 5)".into()));
        self.feed(n, Input::DiskDone { id, result })?;
        self.nodes[n].cache_was_empty = None;
        Ok(())
    }

    /// A Primary that works through its peer: a good moment for the peer to lose what its disk has not yet made durable.
    fn strike_the_other(&mut self, n: usize) {
        let primary = self.role(n) == Some(Role::Primary) && self.holders(n)[1 - n];
        if primary && self.healing.is_none() && self.prng.chance(1, 4) {
            let delay = self.prng.below(6_000);
            self.at(delay, Event::Strike { kind: Kind::PowerLoss, node: 1 - n });
        }
    }

    /// A Primary has just become the source of a resync: a good moment for its disk to fail.
    pub(super) fn trouble_for_source(&mut self, n: usize) {
        let status = self.nodes[n].status.as_ref();
        let source = status.is_some_and(|s| {
            s.role == Role::Primary && s.peers[0].replication == ReplicationState::WFBitMapS
        });
        if source && self.plan.ambush && self.healing.is_none() && !self.split && self.prng.chance(1, 8) {
            let kind = if self.prng.chance(1, 2) { Kind::WriteError } else { Kind::ReadError };
            self.trouble(kind, n);
        }
    }

    /// An engine gives its disk up, for being slow, or by force: nobody finishes what is on its way to it.
    pub(super) fn disk_given_up(&mut self, n: usize, event: &io::Event) {
        if let io::Event::Disk { new: DiskState::Failed, .. } = event {
            if self.is_finishing(n) && self.disk_is_consistent(n) {
                // It has written down that it is complete, and could not say so any more.
                self.oracle.finished_unseen(n);
            }
            self.oracle.disk_failed(n, false);
            self.note_lost_copy(n);
        }
    }

    fn fault_of(&mut self, n: usize, op: &DiskOp) -> Option<Kind> {
        let kind = match (op.device, &op.kind) {
            (Device::Data, DiskOpKind::Read(_)) => Kind::ReadError,
            (_, DiskOpKind::Flush) => Kind::FlushError,
            (Device::Data, _) => Kind::WriteError,
            (Device::Meta, _) => Kind::MetadataError,
            (Device::Undo, _) => return self.prng.chance(1, 400).then_some(Kind::WriteError),
        };
        let once = self.nodes[n].trouble.once.take_if(|once| *once == kind).is_some();
        (once || self.nodes[n].trouble.dead).then_some(kind)
    }

    /// The administrator may attach the disk; a new one, if that was decided and the other node's data is good.
    pub(super) fn disk_is_ready(&mut self, n: usize) -> bool {
        if self.nodes[n].trouble.dead || self.nodes[n].trouble.hangs_until > self.now {
            return false;
        }
        if std::mem::take(&mut self.nodes[n].trouble.replace) && self.disk_may_be_replaced(n) {
            self.replace_disk(n);
        }
        true
    }

    pub(super) fn disk_may_be_replaced(&self, n: usize) -> bool {
        let other = &self.nodes[1 - n];
        let good = other.status.as_ref().is_some_and(|s| s.disk == DiskState::UpToDate) && !other.mixed;
        good && self.oracle.has_begun() && !self.oracle.is_stale(1 - n) && !self.split
    }

    pub(super) fn replace_disk(&mut self, n: usize) {
        self.counts.note(Kind::NewDisk);
        self.trace(Some(n), "new disk", String::new);
        self.nodes[n].disk = self.nodes[n].disk.successor();
        let device_id = self.prng.next_u64();
        let created = self.create_metadata(n, device_id);
        assert!(created.is_ok(), "the simulated disk takes no metadata");
        let node = &mut self.nodes[n];
        node.bits = None;
        node.snapshot = None;
        node.mixed = false;
        self.reliance = None;
        self.oracle.disk_replaced(n);
    }

    // Clocks.

    /// The clock jumps ahead, or stands still for a while.
    pub(super) fn disturb_clock(&mut self, kind: Kind, n: usize) -> Result<(), Violation> {
        self.counts.note(kind);
        self.trace(Some(n), "clock", || format!("{kind:?}"));
        let longest = [50_000, 500_000, 100_000_000][self.prng.below(3) as usize];
        let time = self.prng.below(longest);
        let now = self.now;
        let clock = &mut self.nodes[n].clock;
        match (kind, clock.stopped) {
            (Kind::ClockJump, _) => {
                clock.ahead += time as i64;
                clock.stopped = clock.stopped.map(|at| at + time);
                return self.feed(n, Input::Tick);
            }
            (_, None) => {
                clock.stopped = Some(clock.read(now).0);
                self.at(time.min(500_000), Event::ClockRuns { node: n });
            }
            (_, Some(_)) => {}
        }
        Ok(())
    }

    /// The clock goes on from where it stood.
    pub(super) fn clock_runs(&mut self, n: usize) {
        let now = self.now as i64;
        let clock = &mut self.nodes[n].clock;
        if let Some(at) = clock.stopped.take() {
            clock.ahead = at as i64 - now;
        }
    }

    /// Everything works again.
    pub(super) fn end_troubles(&mut self) {
        for n in 0..2 {
            self.repair(n);
            self.clock_runs(n);
        }
    }
}
