//! Two nodes as their operator sees them: what is typed reaches real engines as tandemd would have it.

use clap::Parser;
use tandem_control::{PathSpec, ResourceSpec, ResourceStatus};
use tandem_core::Input;
use tandem_core::config::{Options, ResyncOptions};
use tandem_core::io::{ClientOp, Command as Order, Repair};
use tandem_core::metadata::{self, ActivityLogState, Placement};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::{ByteRange, NodeId, RequestId};

use super::harness::Pair;
use crate::cli::{Cli, Command, Invalidation, NewGeneration, SplitBrain, YesNo};
use crate::diagnosis::{Absent, Finding, OnDisk, of_absent, of_resource};
use crate::fixture;

pub(super) const NAMES: [&str; 2] = ["alpha", "bravo"];
pub(super) const BLOCK: u64 = 4096;
/// Time enough for every attempt to meet.
pub(super) const REST_MS: u64 = 15_000;

pub(super) struct World {
    pub(super) pair: Pair,
    /// The machine runs.
    pub(super) on: [bool; 2],
    /// tandemd has the resource.
    up: [bool; 2],
    /// What was acknowledged: the block and what it holds, and the only node that has it, if the other never heard of it.
    promised: Vec<(u64, u8, Option<usize>)>,
    /// Requests that wait.
    waiting: Vec<RequestId>,
    /// The kernel has the device open there, though tandemd was started anew since.
    pub(super) device_open: Option<usize>,
    /// What the operator will write into both configurations.
    pub(super) configured: Options,
}

impl World {
    /// alpha is Primary, both disks are UpToDate, and block 1 holds 1.
    pub(super) fn synced(options: Options) -> World {
        let mut world = World::fresh(options);
        world.types(0, "tandemadm primary --force r0");
        world.pair.assert_in_sync();
        world.write(0, 1, 1, None);
        world
    }

    /// Both are up for the first time.
    pub(super) fn fresh(options: Options) -> World {
        let mut world = World::not_up(options);
        for n in [0, 1] {
            world.types(n, "tandemadm up r0");
        }
        world
    }

    /// Both disks have fresh metadata.
    pub(super) fn not_up(options: Options) -> World {
        let resync = ResyncOptions { min_bytes_per_s: 0, ..options.resync };
        let options = Options { resync, ..options };
        let pair = Pair::with_options(&options);
        World {
            pair,
            on: [true; 2],
            up: [false; 2],
            promised: Vec::new(),
            waiting: Vec::new(),
            device_open: None,
            configured: options,
        }
    }

    /// What `status` is made of, if the resource is up.
    pub(super) fn status(&self, n: usize) -> Option<ResourceStatus> {
        let mut engine = self.pair.nodes[n].engine.status(self.pair.now);
        if self.device_open == Some(n) {
            engine.openers.push("mount of /srv".into());
        }
        (self.up[n] && self.on[n]).then(|| {
            let spec = self.spec(n);
            ResourceStatus { used_paths: spec.paths.clone(), spec, engine, disk_failure: None }
        })
    }

    fn spec(&self, n: usize) -> ResourceSpec {
        let mut spec = fixture::spec();
        if n == 1 {
            std::mem::swap(&mut spec.node, &mut spec.peers[0]);
            let PathSpec { peer, local, remote } = &mut spec.paths[0];
            *peer = spec.peers[0].id;
            std::mem::swap(local, remote);
        }
        spec.options = self.pair.options.clone();
        spec
    }

    /// What is remarked there.
    pub(super) fn findings(&mut self, n: usize) -> Vec<Finding> {
        if !self.on[n] {
            return Vec::new();
        }
        if let Some(status) = self.status(n) {
            return of_resource(&status);
        }
        let disk = &mut self.pair.nodes[n].disk;
        let on_disk = match metadata::probe(disk, Placement::Internal) {
            Ok(superblock) => match superblock.activity_log {
                ActivityLogState::Closed if !superblock.flags.primary => OnDisk::Closed,
                _ => OnDisk::Unclean { as_primary: superblock.flags.primary },
            },
            Err(_) => OnDisk::NoMetadata,
        };
        of_absent(&Absent::NotUp { spec: &self.spec(n), on_disk: &on_disk })
    }

    pub(super) fn codes(&mut self, n: usize) -> Vec<&'static str> {
        self.findings(n).iter().map(|finding| finding.trouble.code).collect()
    }
}

/// What happens to them.
impl World {
    /// A write that is acknowledged. `only` is the node that has it.
    pub(super) fn write(&mut self, n: usize, block: u64, byte: u8, only: Option<usize>) {
        self.pair.write(n, block * BLOCK, byte);
        self.promised.push((block, byte, only));
    }

    /// A write that waits, and must not fail.
    pub(super) fn write_that_waits(&mut self, n: usize, block: u64, byte: u8) {
        let id = self.pair.begin_write(n, block * BLOCK, byte);
        assert!(!self.pair.completed(id), "it does not wait");
        self.waiting.push(id);
        self.promised.push((block, byte, None));
    }

    /// The link between them breaks.
    pub(super) fn part(&mut self) {
        self.pair.link_is_down = true;
        self.pair.cut();
        self.pair.settle();
    }

    /// Both were told to leave, and are told to meet.
    pub(super) fn meet_again(&mut self) {
        for n in [0, 1] {
            self.types(n, "tandemadm connect r0");
        }
        self.rest();
    }

    /// Nobody expects what only this node had.
    pub(super) fn give_up(&mut self, node: usize) {
        self.promised.retain(|(.., only)| *only != Some(node));
    }

    /// Nobody expects anything.
    pub(super) fn give_up_all(&mut self) {
        self.promised.clear();
    }

    /// It works again.
    pub(super) fn meet(&mut self) {
        self.pair.heal();
        self.rest();
    }

    /// tandemd ends without a word.
    pub(super) fn crash(&mut self, n: usize) {
        self.pair.crash(n);
        self.up[n] = false;
    }

    /// The machine is off, for good.
    pub(super) fn dies(&mut self, n: usize) {
        self.crash(n);
        self.on[n] = false;
    }

    /// Another disk, without metadata.
    pub(super) fn empty_disk(&mut self, n: usize) -> Vec<u8> {
        let disk = &mut self.pair.nodes[n].disk.0;
        let length = disk.len();
        std::mem::replace(disk, vec![0; length])
    }

    /// Whatever is due soon happens.
    pub(super) fn rest(&mut self) {
        let until = self.pair.now.plus_ms(REST_MS);
        for _ in 0..10_000 {
            let due = self.pair.nodes.iter().filter_map(|node| node.engine.deadline()).min();
            match due {
                Some(due) if due <= until => {
                    self.pair.now = self.pair.now.max(due);
                    self.pair.feed(0, Input::Tick);
                    self.pair.feed(1, Input::Tick);
                }
                _ => {
                    self.pair.now = self.pair.now.max(until);
                    return;
                }
            }
        }
        panic!("it never rests");
    }
}

/// What the operator does.
impl World {
    /// Types a line that must succeed.
    pub(super) fn types(&mut self, n: usize, line: &str) {
        self.tries(n, line).unwrap_or_else(|error| panic!("{}: {line}: {error}", NAMES[n]));
    }

    /// Types a line that takes its time.
    pub(super) fn begins(&mut self, n: usize, line: &str) {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let id = self.pair.begin_command(n, order(cli.command));
        assert!(!matches!(self.pair.ended(id), Some(Err(_))));
    }

    /// Types a line; what follows `&&` only if what stands before succeeds.
    pub(super) fn tries(&mut self, n: usize, line: &str) -> Result<(), String> {
        if !self.on[n] {
            return Err("the machine is off".into());
        }
        for command in line.split(" && ") {
            // Who has the device open is asked for, and stopped.
            if command.starts_with("fuser") {
                for opener in self.pair.nodes[n].engine.status(self.pair.now).openers {
                    self.pair.nodes[n].engine.close(&opener);
                }
                self.pair.settle();
            }
            if command.starts_with("tandemadm ") {
                let cli = Cli::try_parse_from(command.split(' ')).map_err(|error| error.to_string())?;
                self.obey(n, cli.command)?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, n: usize, command: Command) -> Result<(), String> {
        match command {
            Command::Up(_) => {
                self.up[n] = true;
                self.attach_unless(n)?;
                self.connect_unless(n)
            }
            Command::CreateMd { .. } => self.create_md(n),
            _ if looks(&command) => Ok(()),
            _ if !self.up[n] => Err("No such resource".into()),
            Command::Down(_) => self.down(n),
            Command::Adjust(_) => self.adjust(n),
            Command::Attach(_) => self.pair.attach(n).map_err(|error| error.to_string()),
            Command::SplitBrain(SplitBrain::Resolve(resolve)) => {
                self.resolve(n, resolve.keep.as_deref().unwrap_or_default())
            }
            Command::Secondary { force: false, .. } => self.secondary(n),
            other => self.give(n, order(other)),
        }
    }

    fn give(&mut self, n: usize, order: Order) -> Result<(), String> {
        let id = self.pair.begin_command(n, order);
        self.pair.ended(id).ok_or("it does not end")?.map_err(|error| error.to_string())
    }

    fn engine(&self, n: usize) -> tandem_core::status::Status {
        self.pair.nodes[n].engine.status(self.pair.now)
    }

    fn connection(&self, n: usize) -> ConnectionState {
        self.engine(n).peers[0].connection
    }

    fn attach_unless(&mut self, n: usize) -> Result<(), String> {
        match self.engine(n).disk {
            DiskState::Diskless => self.pair.attach(n).map_err(|error| error.to_string()),
            _ => Ok(()),
        }
    }

    fn connect_unless(&mut self, n: usize) -> Result<(), String> {
        match self.connection(n) {
            ConnectionState::StandAlone => self.give(n, Order::Connect),
            _ => Ok(()),
        }
    }

    fn secondary(&mut self, n: usize) -> Result<(), String> {
        match self.engine(n).openers.as_slice() {
            [] => self.give(n, Order::Secondary),
            openers => Err(format!("Device is held open by {}", openers.join(", "))),
        }
    }

    fn down(&mut self, n: usize) -> Result<(), String> {
        self.secondary(n)?;
        if self.connection(n) != ConnectionState::StandAlone {
            self.give(n, Order::Disconnect)?;
        }
        if self.engine(n).disk != DiskState::Diskless {
            self.give(n, Order::Detach)?;
        }
        self.crash(n);
        Ok(())
    }

    /// The options only.
    fn adjust(&mut self, n: usize) -> Result<(), String> {
        if self.connection(n) != ConnectionState::StandAlone {
            self.give(n, Order::Disconnect)?;
        }
        let options = Box::new(self.configured.clone());
        self.give(n, Order::SetOptions { options, handlers: Default::default() })?;
        self.attach_unless(n)?;
        self.connect_unless(n)
    }

    /// On the disk, which nobody uses.
    fn create_md(&mut self, n: usize) -> Result<(), String> {
        if self.up[n] && self.engine(n).disk != DiskState::Diskless {
            return Err("the disk is in use".into());
        }
        let disk = &mut self.pair.nodes[n].disk;
        let bytes = disk.0.len() as u64;
        let device_id = 0xD15C + n as u64;
        metadata::create(disk, Placement::Internal, bytes, 1, device_id).map_err(|e| e.to_string())?;
        Ok(())
    }

    fn resolve(&mut self, n: usize, keep: &str) -> Result<(), String> {
        if keep == NAMES[n] {
            return match self.connection(n) {
                ConnectionState::Connected => Err("there is no split brain".into()),
                _ => self.connect_unless(n),
            };
        }
        if self.engine(n).role == Role::Primary {
            return Err("its data is in use".into());
        }
        if self.connection(n) != ConnectionState::StandAlone {
            return Err("it is connected, or about to be".into());
        }
        self.give(n, Order::ConnectWith { discard_my_data: true, tentative: true })?;
        let answer = self.engine(n).peers[0].standalone_reason.clone().unwrap_or_default();
        if !answer.contains("Would become SyncTarget") {
            return Err(answer);
        }
        self.give(n, Order::ConnectWith { discard_my_data: true, tentative: false })
    }
}

/// It changes nothing.
fn looks(command: &Command) -> bool {
    matches!(
        command,
        Command::Status { .. }
            | Command::Doctor { .. }
            | Command::Dump(_)
            | Command::Role(_)
            | Command::ShowGi(_)
            | Command::WaitSync { .. }
            | Command::WaitConnect(_)
            | Command::SplitBrain(SplitBrain::Show { .. })
    )
}

/// What the engine is told.
fn order(command: Command) -> Order {
    match command {
        Command::Connect { discard_my_data: false, tentative: false, .. } => Order::Connect,
        Command::Disconnect { force: false, .. } => Order::Disconnect,
        Command::Detach { force: false, .. } => Order::Detach,
        Command::Primary { force, .. } => Order::Primary { force },
        Command::NewCurrentUuid(NewGeneration { clear_bitmap, force_resync: false, .. }) => {
            Order::NewCurrentUuid { clear_bitmap }
        }
        Command::Invalidate { invalidation: Invalidation { reset_bitmap, .. }, .. } => {
            Order::Invalidate { reset_bitmap: reset_bitmap == YesNo::Yes }
        }
        Command::Outdate(_) => Order::Outdate,
        Command::PauseSync(_) => Order::PauseSync,
        Command::ResumeSync(_) => Order::ResumeSync,
        Command::SuspendIo(_) => Order::SuspendIo,
        Command::ResumeIo(_) => Order::ResumeIo,
        Command::Verify(verify) => Order::Verify {
            volume: None,
            start_bytes: verify.start,
            stop_bytes: verify.stop,
            repair: verify.repair.then(|| Repair {
                from: verify
                    .from
                    .and_then(|name| NAMES.iter().position(|one| *one == name))
                    .map(|n| NodeId(n as u8)),
            }),
        },
        other => panic!("this world does not know {other:?}"),
    }
}

/// What came of it.
impl World {
    /// Every write that was acknowledged is there, but for what only the node had whose data was given up; and what waited is
    /// answered. The node that is Primary is asked, or one that can become it.
    pub(super) fn assert_nothing_is_lost(&mut self, given_up: Option<usize>) {
        for id in std::mem::take(&mut self.waiting) {
            let answer = self.pair.answered(id);
            assert!(matches!(answer, Some(Ok(_))), "a request that waited: {answer:?}");
        }
        let serves =
            |world: &World, n: usize| world.status(n).is_some_and(|s| s.engine.role == Role::Primary);
        let primary = [0, 1].into_iter().find(|n| serves(self, *n));
        let primary = primary
            .or_else(|| {
                [0, 1]
                    .into_iter()
                    .find(|n| self.up[*n] && self.give(*n, Order::Primary { force: false }).is_ok())
            })
            .expect("nobody can serve");
        for (block, byte, only) in self.promised.clone() {
            if only.is_none_or(|only| Some(only) != given_up) {
                let read = self.pair.client(primary, ClientOp::Read(ByteRange::new(block * BLOCK, BLOCK)));
                let read = read.unwrap_or_else(|error| panic!("block {block}: {error:?}"))[0];
                assert_eq!(read, byte, "block {block} of {}", NAMES[primary]);
            }
        }
    }
}
