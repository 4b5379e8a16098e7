//! Disks that fail under a running pair: the file system below is full, the device returns EIO.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use tandem_core::state::{DiskState, Role};

use crate::handlers::Scripts;
use crate::history::History;
use crate::nbd_client::{NbdClient, NbdError};
use crate::node::{Outcome, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::wait;
use crate::workload::Workload;

const DISK_BYTES: u64 = 32 << 20;
const CHUNK_BYTES: usize = 64 << 10;
const PAGE_BYTES: usize = 4096;

/// A sparse file on a file system that has no room for it: ENOSPC.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn full_file_system_of_a_connected_primary() {
    let full = SmallFileSystem::new();
    // The initial sync reads alpha's holes and writes bravo's disk: alpha's stays sparse.
    let pair = synced(full.sparse_file(DISK_BYTES));
    let mut client = pair.alpha.client().unwrap();
    write_all(&mut client);
    survives_on_the_peer(&pair, client);
}

/// A device that cannot be written any more: EIO.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn write_errors_of_a_connected_primary() {
    let full = SmallFileSystem::new();
    let device = LoopDevice::over(full.sparse_file(DISK_BYTES));
    let pair = synced(device.path.clone());
    let mut client = pair.alpha.client().unwrap();
    write_all(&mut client);
    survives_on_the_peer(&pair, client);
}

/// A device that loses its second half: reading it gives EIO.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn read_errors_of_a_connected_primary() {
    let roomy = SmallFileSystem::roomy();
    let device = LoopDevice::over(roomy.sparse_file(DISK_BYTES));
    let pair = synced(device.path.clone());
    let mut client = pair.alpha.client().unwrap();
    write_all(&mut client);
    device.truncate(8 << 20);
    survives_on_the_peer(&pair, client);
}

/// Alone, the disk's failure cannot be hidden: the client learns of it, and what was flushed before is still there.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn write_errors_of_a_lonely_primary() {
    let full = SmallFileSystem::new();
    let device = LoopDevice::over(full.sparse_file(DISK_BYTES));
    let pair = synced(device.path.clone());
    pair.bravo.adm(&["down", RESOURCE]).ok();
    let mut client = pair.alpha.client().unwrap();
    // Single pages: a longer write that finds room for its beginning only is a success to the loop driver.
    let mut completed = 0;
    let refused = loop {
        match client.write(completed * PAGE_BYTES as u64, &[completed as u8 | 1; PAGE_BYTES], true) {
            Ok(()) => completed += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, NbdError::Request(5)), "expected EIO: {refused:?}");
    assert!(completed > 0);
    wait::until("the disk is given up", || pair.alpha.disk_state() == DiskState::Diskless);
    let disk = fs::read(&device.path).unwrap();
    for (page, number) in disk.chunks(PAGE_BYTES).zip(0..completed) {
        assert_eq!(page, [number as u8 | 1; PAGE_BYTES], "page {number} of {completed}, completed with FUA");
    }
}

/// A write that a failing disk refuses must not be acknowledged by a secondary: the pair goes on without that disk.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn write_errors_of_a_secondary() {
    let full = SmallFileSystem::new();
    let device = LoopDevice::over(full.sparse_file(DISK_BYTES));
    let pair = synced(device.path.clone());
    pair.alpha.adm(&["secondary", RESOURCE]).ok();
    pair.bravo.adm(&["primary", RESOURCE]).ok();
    let mut client = pair.bravo.client().unwrap();
    write_all(&mut client);
    read_all(&mut client);
    wait::until("alpha's disk is given up", || pair.alpha.disk_state() == DiskState::Diskless);
    wait::until("bravo knows", || pair.bravo.peer().is_some_and(|p| p.disk == DiskState::Diskless));
    assert_eq!(pair.bravo.disk_state(), DiskState::UpToDate);
    assert!(pair.bravo.peer().unwrap().out_of_sync_bytes > 0, "the blocks that alpha lacks are not marked");
}

/// The disk comes and goes under its clients, who notice nothing.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn detach_and_attach_under_the_clients_of_a_primary() {
    let pair = Pair::synced(Setup::default());
    let history = Arc::new(History::new(2048));
    let workload = Workload::start(&pair.alpha, &history, &mut Random::new(1));
    for round in 0..6 {
        workload.wait_for_operations(100);
        let force: &[&str] = if round % 3 == 2 { &["--force"] } else { &[] };
        pair.alpha.adm(&[&["detach"], force, &[RESOURCE]].concat()).ok();
        wait::until("the disk is gone", || pair.alpha.disk_state() == DiskState::Diskless);
        workload.wait_for_operations(100);
        pair.bravo.adm(&["detach", RESOURCE]).refused(17, "Need access to UpToDate data");
        pair.alpha.adm(&["attach", RESOURCE]).ok();
        workload.wait_for_operations(100);
        pair.wait_healed();
    }
    workload.stop();
    assert_eq!(pair.alpha.role(), Role::Primary);
    pair.alpha.adm(&["secondary", RESOURCE]).ok();
    pair.assert_identical();
}

/// What has begun on a disk that is given up has still to end: who attaches it at once waits for that.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_disk_that_is_given_up_is_attached_again_at_once() {
    let pair = Pair::synced(Setup::default());
    let history = Arc::new(History::new(2048));
    let workload = Workload::start(&pair.alpha, &history, &mut Random::new(1));
    for _ in 0..20 {
        workload.wait_for_operations(100);
        pair.bravo.adm(&["detach", "--force", RESOURCE]).ok();
        pair.bravo.adm(&["attach", RESOURCE]).ok();
        pair.wait_healed();
    }
    workload.stop();
    pair.assert_identical();
}

/// A Primary without a disk loses its peer for a while: its clients wait, until it is back, or the role is taken by force.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn clients_wait_for_the_last_copy() {
    let pair = Pair::synced(Setup {
        net: "timeout 15; ping-int 2;",
        statements: "options { on-no-data-accessible suspend-io; }".into(),
        ..Setup::default()
    });
    let history = Arc::new(History::new(2048));
    let workload = Workload::start(&pair.alpha, &history, &mut Random::new(1));
    pair.alpha.adm(&["detach", RESOURCE]).ok();
    let bravo = pair.bravo.pid().unwrap();
    let is_frozen = || pair.alpha.status().is_some_and(|s| s.suspended.no_data);
    workload.wait_for_operations(100);
    kill(bravo, Signal::SIGSTOP).unwrap();
    wait::until("alpha waits for data", is_frozen);
    assert!(pair.alpha.adm(&["status", RESOURCE]).stdout.contains("suspended:no-data"));
    kill(bravo, Signal::SIGCONT).unwrap();
    workload.wait_for_operations(100);
    workload.stop();
    kill(bravo, Signal::SIGSTOP).unwrap();
    wait::until("alpha waits for data", is_frozen);
    let mut client = pair.alpha.client().unwrap();
    let reader = std::thread::spawn(move || client.read(0, 4096).is_err());
    wait::until("a client waits", || pair.alpha.status().is_some_and(|s| s.client_pending == 1));
    pair.alpha.adm(&["secondary", "--force", RESOURCE]).ok();
    assert!(reader.join().unwrap(), "what cannot be read was read");
    kill(bravo, Signal::SIGCONT).unwrap();
    pair.wait_healed();
    assert_eq!(pair.alpha.role(), Role::Secondary);
    pair.assert_identical();
}

/// A device that cannot be written any more, under a policy that passes errors on: beside a good peer it is given up.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn write_errors_that_are_not_passed_on() {
    let full = SmallFileSystem::new();
    let device = LoopDevice::over(full.sparse_file(DISK_BYTES));
    let pair = passing_on(&device);
    let mut client = pair.alpha.client().unwrap();
    write_all(&mut client);
    survives_on_the_peer(&pair, client);
}

/// Alone, the disk is kept, and the client learns of the error.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn write_errors_that_are_passed_on() {
    let full = SmallFileSystem::new();
    let device = LoopDevice::over(full.sparse_file(DISK_BYTES));
    let pair = passing_on(&device);
    pair.bravo.adm(&["down", RESOURCE]).ok();
    let mut client = pair.alpha.client().unwrap();
    // Single pages: a longer write that finds room for its beginning only is a success to the loop driver.
    let page = |number: u64| [number as u8 | 1; PAGE_BYTES];
    let mut write = |number: u64| client.write(number * PAGE_BYTES as u64, &page(number), false);
    let full_at = (0..DISK_BYTES / PAGE_BYTES as u64).find(|number| write(*number).is_err());
    let completed = full_at.expect("there is room for everything");
    assert!(matches!(write(completed), Err(NbdError::Request(5))), "the client is not told again");
    for number in 0..completed {
        let found = client.read(number * PAGE_BYTES as u64, PAGE_BYTES).unwrap();
        assert_eq!(found, page(number), "page {number} of {completed}");
    }
    assert_eq!((pair.alpha.disk_state(), pair.alpha.role()), (DiskState::UpToDate, Role::Primary));
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_handler_is_called_for_write_errors() {
    let full = SmallFileSystem::new();
    let device = LoopDevice::over(full.sparse_file(DISK_BYTES));
    let statements = "disk { on-io-error call-local-io-error; }".to_owned();
    let setup = Setup { alpha_disk: Some(device.path.clone()), statements, ..Setup::default() };
    let scripts = Scripts::with(&["local-io-error"], setup);
    scripts.write("alpha", "local-io-error", "echo $DRBD_RESOURCE >> $0.out");
    scripts.pair.bring_up();
    let mut client = scripts.pair.alpha.client().unwrap();
    write_all(&mut client);
    survives_on_the_peer(&scripts.pair, client);
    wait::until("the handler has run", || scripts.written("alpha", "local-io-error") == "r0\n");
}

fn passing_on(device: &LoopDevice) -> Pair {
    let statements = "disk { on-io-error pass_on; }".to_owned();
    Pair::synced(Setup { alpha_disk: Some(device.path.clone()), statements, ..Setup::default() })
}

fn synced(alpha_disk: PathBuf) -> Pair {
    Pair::synced(Setup { alpha_disk: Some(alpha_disk), ..Setup::default() })
}

/// The client sees no error, all its data is on the peer, and the disk is given up loudly.
fn survives_on_the_peer(pair: &Pair, mut client: NbdClient) {
    read_all(&mut client);
    assert_eq!(pair.alpha.role(), Role::Primary);
    wait::until("the disk is given up", || pair.alpha.disk_state() == DiskState::Diskless);
    assert_eq!(pair.bravo.disk_state(), DiskState::UpToDate);
    let log = pair.alpha.log().to_lowercase();
    assert!(log.contains("error") || log.contains("failed"), "the log says nothing of it");
    let trouble = pair.alpha.adm(&["status", "-x", RESOURCE]).stdout;
    assert!(trouble.contains("the disk is Diskless: a "), "nor why: {trouble}");
    drop(client);
    wait::until("the client's end is noticed", || pair.alpha.status().is_some_and(|s| s.openers.is_empty()));
    pair.alpha.adm(&["secondary", RESOURCE]).ok();
    pair.bravo.adm(&["primary", RESOURCE]).ok();
    read_all(&mut pair.bravo.client().unwrap());
}

fn write_all(client: &mut NbdClient) {
    for (number, offset) in chunks(client.size) {
        client.write(offset, &chunk(number), false).unwrap_or_else(|e| panic!("write at {offset}: {e:?}"));
    }
    client.flush().unwrap();
}

fn read_all(client: &mut NbdClient) {
    for (number, offset) in chunks(client.size) {
        assert_eq!(client.read(offset, CHUNK_BYTES).unwrap(), chunk(number), "read at {offset}");
    }
}

fn chunks(size: u64) -> impl Iterator<Item = (u8, u64)> {
    (0..size / CHUNK_BYTES as u64).map(|i| (i as u8 | 1, i * CHUNK_BYTES as u64))
}

fn chunk(number: u8) -> Vec<u8> {
    vec![number; CHUNK_BYTES]
}

/// A loop device over a file; detached when it is dropped.
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
    file: PathBuf,
}

impl LoopDevice {
    pub(crate) fn over(file: PathBuf) -> LoopDevice {
        let path = run("losetup", &["--find", "--show", "--direct-io=off", file.to_str().unwrap()]);
        LoopDevice { path: path.trim().into(), file }
    }

    /// From now on, what lies behind the end cannot be read: EIO.
    fn truncate(&self, bytes: u64) {
        File::options().write(true).open(&self.file).unwrap().set_len(bytes).unwrap();
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // If somebody still has it open, the kernel detaches it when the last user is gone.
        run("losetup", &["--detach", self.path.to_str().unwrap()]);
    }
}

/// A tmpfs of its own; unmounted when it is dropped.
pub(crate) struct SmallFileSystem {
    mount_point: PathBuf,
}

impl SmallFileSystem {
    /// One that is full before half of a disk is written.
    fn new() -> SmallFileSystem {
        SmallFileSystem::with(12 << 20)
    }

    /// One that has room for everything.
    fn roomy() -> SmallFileSystem {
        SmallFileSystem::with(2 * DISK_BYTES)
    }

    pub(crate) fn with(bytes: u64) -> SmallFileSystem {
        let mount_point = nix::unistd::mkdtemp(&std::env::temp_dir().join("tandem-disk-XXXXXX")).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", mount_point.to_str().unwrap()],
        );
        SmallFileSystem { mount_point }
    }

    pub(crate) fn sparse_file(&self, bytes: u64) -> PathBuf {
        let path = self.mount_point.join("disk");
        File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        unmount(&self.mount_point);
    }
}

/// The daemon that holds the file is being killed when this runs: that may take a moment.
fn unmount(mount_point: &Path) {
    let gone = wait::holds_within(wait::LIMIT, || {
        Command::new("umount")
            .arg(mount_point)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    });
    if gone {
        let _ = fs::remove_dir(mount_point);
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    Outcome::of(command).ok().stdout
}
