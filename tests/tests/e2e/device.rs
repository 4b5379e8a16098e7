//! The block device of the Primary: it comes and goes with the role, and a file system lives on it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use tandem_core::state::{ConnectionState, Role};

use crate::node::{Node, Outcome, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

pub(crate) const HELD_OPEN: &str = "State change failed: (-12) Device is held open by someone";

/// A block near the device's end, which a small file system does not use.
const UNUSED: u64 = 30 << 20;

/// Two nodes that share this machine's /dev, each with a device name of its own.
pub(crate) fn pair_with_devices() -> (Pair, [PathBuf; 2]) {
    pair_with(Setup::default())
}

fn pair_with(setup: Setup) -> (Pair, [PathBuf; 2]) {
    let devices = device_names();
    let pair = Pair::synced(Setup { devices: Some(devices.clone()), ..setup });
    (pair, devices)
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn it_comes_and_goes_with_the_role_and_keeps_a_file_system() {
    let (pair, [on_alpha, on_bravo]) = pair_with_devices();
    let Pair { alpha, bravo, .. } = &pair;
    assert_eq!(size_bytes(&on_alpha), alpha.status().unwrap().size_bytes);
    assert_eq!(fs::canonicalize("/dev/drbd/by-res/r0/0").unwrap(), fs::canonicalize(&on_alpha).unwrap());
    assert!(!on_bravo.exists(), "a Secondary has a device");
    assert!(alpha.adm(&["status", RESOURCE]).ok().stdout.contains("open:no"));
    run("mkfs.ext4", &["-q", text(&on_alpha)]);
    let mounted = Mounted::new(&on_alpha, pair.folder());
    let mut file = File::create(mounted.point.join("file")).unwrap();
    file.write_all(b"acknowledged").unwrap();
    file.sync_all().unwrap();
    drop(file);

    let refused = alpha.adm(&["secondary", RESOURCE]).refused(11, HELD_OPEN);
    let opener = format!("opened by the file system mounted on {}", mounted.point.display());
    assert!(refused.stderr.contains(&opener), "{refused:?}");
    alpha.adm(&["down", RESOURCE]).refused(11, HELD_OPEN);
    assert!(alpha.adm(&["status", RESOURCE]).ok().stdout.contains("open:yes"));
    drop(mounted);
    let held = File::open(&on_alpha).unwrap();
    let refused = alpha.adm(&["secondary", RESOURCE]).refused(11, HELD_OPEN);
    assert!(refused.stderr.contains(&format!("(pid {})", std::process::id())), "{refused:?}");
    drop(held);
    is_not_given_up_under_a_lazily_unmounted_file_system(&pair, &on_alpha);
    demote(alpha, &on_alpha);

    bravo.adm(&["primary", RESOURCE]).ok();
    let mounted = Mounted::new(&on_bravo, pair.folder());
    assert_eq!(fs::read(mounted.point.join("file")).unwrap(), b"acknowledged and more");
    drop(mounted);
    run("e2fsck", &["-fn", text(&on_bravo)]);
    demote(bravo, &on_bravo);
    pair.assert_identical();
}

/// No table has it any more, and it is written to.
fn is_not_given_up_under_a_lazily_unmounted_file_system(Pair { alpha, .. }: &Pair, device: &Path) {
    let point = alpha.run.path().join("lazy");
    fs::create_dir(&point).unwrap();
    run("mount", &["-t", "ext4", text(device), text(&point)]);
    let mut file = File::options().append(true).open(point.join("file")).unwrap();
    run("umount", &["-l", text(&point)]);
    let refused = alpha.adm(&["secondary", RESOURCE]).refused(11, HELD_OPEN);
    let named = format!("(pid {}), on a file system that was unmounted lazily", std::process::id());
    assert!(refused.stderr.contains(&named), "{refused:?}");
    file.write_all(b" and more").unwrap();
    drop(file);
    wait::until("it is gone with its last file", || alpha.adm(&["secondary", RESOURCE]).code == Some(0));
    alpha.promote();
}

pub(crate) fn device_names() -> [PathBuf; 2] {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    ["alpha", "bravo"].map(|node| format!("/dev/tandem-test-{}-{number}-{node}", std::process::id()).into())
}

/// What is not ours is left alone, and the promotion undone.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_name_that_is_taken_is_never_replaced() {
    let (pair, [on_alpha, _]) = pair_with_devices();
    let alpha = &pair.alpha;
    demote(alpha, &on_alpha);
    fs::write(&on_alpha, "somebody's").unwrap();
    let refused = alpha.adm(&["primary", RESOURCE]).refused(10, "is there and is not Tandem's device");
    assert!(refused.stderr.contains("r0 is Secondary again"), "{refused:?}");
    assert_eq!(alpha.role(), Role::Secondary);
    assert_eq!(fs::read(&on_alpha).unwrap(), b"somebody's");
    fs::remove_file(&on_alpha).unwrap();
    alpha.adm(&["primary", RESOURCE]).ok();
    demote(alpha, &on_alpha);
}

/// Also when it fails late, while the keeper has the volume open.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_promotion_whose_device_cannot_be_made_leaves_a_secondary() {
    let [on_alpha, _] = device_names();
    // A place in which nobody can make anything.
    let nowhere = PathBuf::from("/sys/tandem-test/drbd0");
    let pair = Pair::synced(Setup { devices: Some([on_alpha.clone(), nowhere]), ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    demote(alpha, &on_alpha);
    for _ in 0..3 {
        let refused = bravo.adm(&["primary", RESOURCE]).refused(10, "/sys/tandem-test");
        assert!(refused.stderr.contains("r0 is Secondary again"), "{refused:?}");
        assert_eq!(bravo.role(), Role::Secondary);
    }
    alpha.adm(&["primary", RESOURCE]).ok();
    demote(alpha, &on_alpha);
}

/// A keeper that was killed leaves no name behind, and another takes its place.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_killed_keeper_leaves_nothing_behind() {
    let (pair, [on_alpha, _]) = pair_with_devices();
    let alpha = &pair.alpha;
    let first = fs::canonicalize(&on_alpha).unwrap();
    let pid = fs::read_to_string(alpha.run.devices().join("r0-0.pid")).unwrap();
    run("kill", &["-9", pid.trim()]);
    wait::until("the name is gone", || fs::symlink_metadata(&on_alpha).is_err());
    let name = first.file_name().unwrap().to_str().unwrap();
    let backing = format!("/sys/block/{name}/loop/backing_file");
    wait::until("the loop device is free", || !Path::new(&backing).exists());
    alpha.adm(&["primary", RESOURCE]).ok();
    run("mkfs.ext4", &["-q", text(&on_alpha)]);
    run("e2fsck", &["-fn", text(&on_alpha)]);
    demote(alpha, &on_alpha);
}

/// Killed or stopped, it is brought up again: whoever writes only waits.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_daemon_restarts_under_a_mounted_file_system() {
    let (pair, [on_alpha, _]) = pair_with_devices();
    let Pair { alpha, bravo, .. } = &pair;
    run("mkfs.ext4", &["-q", text(&on_alpha)]);
    let mounted = Mounted::new(&on_alpha, pair.folder());
    let writer = Writer::new(&mounted);
    for round in 0..10 {
        writer.wait_for_records(20);
        match round % 2 {
            0 => alpha.kill(),
            _ => terminate(alpha),
        }
        alpha.adm(&["up", RESOURCE]).ok();
        writer.wait_for_records(1);
    }
    // Without its peer, which cannot say that it is not Primary, but had been left before.
    bravo.kill();
    wait::until("the loss is noticed", || alpha.connection() != Some(ConnectionState::Connected));
    writer.wait_for_records(20);
    alpha.kill();
    alpha.adm(&["up", RESOURCE]).ok();
    writer.wait_for_records(20);
    bravo.adm(&["up", RESOURCE]).ok();
    writer.end_well();
    drop(mounted);
    run("e2fsck", &["-fn", text(&on_alpha)]);
    demote(alpha, &on_alpha);
    pair.wait_healed();
    pair.assert_identical();
}

/// What has the old data in memory must not write it back.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn an_open_device_does_not_go_on_with_data_that_others_have_changed() {
    let devices @ [on_alpha, _] = &device_names();
    let mut pair = Pair::new(Setup { devices: Some(devices.clone()), ..Setup::default() });
    // Two devices of one resource cannot be on one machine.
    let config =
        fs::read_to_string(&pair.bravo.config).unwrap().replace("device-driver auto", "device-driver none");
    pair.bravo.config = pair.folder().join("bravo.res");
    fs::write(&pair.bravo.config, config).unwrap();
    pair.bring_up();
    let Pair { alpha, bravo, .. } = &pair;
    run("mkfs.ext4", &["-q", text(on_alpha)]);
    let mounted = Mounted::new(on_alpha, pair.folder());
    let writer = Writer::new(&mounted);
    writer.wait_for_records(20);
    alpha.kill();
    bravo.promote();
    bravo.client().unwrap().write(UNUSED, &[7; 4096], true).unwrap();
    alpha.adm(&["up", RESOURCE]).ok();
    writer.end_badly();
    drop(mounted);
    wait::until("the device is gone", || fs::symlink_metadata(on_alpha).is_err());
    pair.wait_healed();
    bravo.adm(&["secondary", RESOURCE]).ok();
    wait::until("the old device is closed", || alpha.adm(&["primary", RESOURCE]).code == Some(0));
    assert_eq!(alpha.client().unwrap().read(UNUSED, 4096).unwrap(), [7; 4096]);
    drop(Mounted::new(on_alpha, pair.folder()));
    run("e2fsck", &["-fn", text(on_alpha)]);
    wait::until("the client is gone", || alpha.adm(&["secondary", RESOURCE]).code == Some(0));
}

/// With the peer gone and all requests frozen.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn force_frees_a_file_system_that_is_stuck() {
    let handlers = "handlers { fence-peer \"exit 1\"; }".to_owned();
    let net = "fencing resource-and-stonith;";
    let (pair, [on_alpha, on_bravo]) = pair_with(Setup { net, statements: handlers, ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    run("mkfs.ext4", &["-q", text(&on_alpha)]);
    let mounted = Mounted::new(&on_alpha, pair.folder());
    let writer = Writer::new(&mounted);
    writer.wait_for_records(20);
    bravo.kill();
    wait::until("requests are frozen", || alpha.status().is_some_and(|s| s.suspended.fencing));
    alpha.adm(&["secondary", RESOURCE]).refused(11, HELD_OPEN);
    let start = Instant::now();
    alpha.adm(&["secondary", "--force", RESOURCE]).ok();
    writer.end_badly();
    drop(mounted);
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    assert_eq!(alpha.role(), Role::Secondary);
    wait::until("the device is gone", || fs::symlink_metadata(&on_alpha).is_err());

    bravo.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
    bravo.adm(&["primary", RESOURCE]).ok();
    let mounted = Mounted::new(&on_bravo, pair.folder());
    drop(mounted);
    run("e2fsck", &["-fn", text(&on_bravo)]);
    demote(bravo, &on_bravo);
    pair.assert_identical();
}

fn terminate(node: &Node) {
    kill(node.pid().unwrap(), Signal::SIGTERM).unwrap();
    wait::until("the daemon has ended", || node.pid().is_none());
}

/// Writes records, each made durable before the next.
struct Writer {
    records: Arc<AtomicU32>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    fn new(mounted: &Mounted) -> Writer {
        let (records, ends) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let file = File::create(mounted.point.join("records")).unwrap();
        let (counting, ending) = (records.clone(), ends.clone());
        let thread = thread::spawn(move || {
            while !ending.load(Ordering::Relaxed) {
                let number = counting.load(Ordering::Relaxed);
                file.write_all_at(&[number as u8; 4096], u64::from(number % 512) * 4096)?;
                file.sync_all()?;
                counting.store(number + 1, Ordering::Relaxed);
            }
            Ok(())
        });
        Writer { records, ends, thread }
    }

    /// Waits until so many more are durable.
    #[track_caller]
    fn wait_for_records(&self, more: u32) {
        let wanted = self.records.load(Ordering::Relaxed) + more;
        wait::until("records are written", || {
            assert!(!self.thread.is_finished(), "an error has reached the file system");
            self.records.load(Ordering::Relaxed) >= wanted
        });
    }

    fn end_well(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap();
    }

    fn end_badly(self) {
        wait::until("the requests fail", || self.thread.is_finished());
        self.thread.join().unwrap().unwrap_err();
    }
}

pub(crate) fn demote(node: &Node, device: &Path) {
    node.adm(&["secondary", RESOURCE]).ok();
    assert_eq!(node.role(), Role::Secondary);
    assert!(fs::symlink_metadata(device).is_err(), "{} is still there", device.display());
    assert!(fs::symlink_metadata("/dev/drbd/by-res/r0/0").is_err());
}

/// A file system on a device, until it is dropped.
pub(crate) struct Mounted {
    pub(crate) point: PathBuf,
}

impl Mounted {
    pub(crate) fn new(device: &Path, folder: &Path) -> Mounted {
        let point = folder.join("mnt");
        fs::create_dir_all(&point).unwrap();
        run("mount", &["-t", "ext4", text(device), text(&point)]);
        Mounted { point }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = outcome("umount", &[text(&self.point)]);
        if thread::panicking() {
            outcome("umount", &["-l", text(&self.point)]);
        } else {
            unmounted.ok();
        }
    }
}

pub(crate) fn size_bytes(device: &Path) -> u64 {
    run("blockdev", &["--getsize64", text(device)]).stdout.trim().parse().unwrap()
}

#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> Outcome {
    outcome(program, args).ok()
}

pub(crate) fn outcome(program: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(program);
    command.args(args);
    Outcome::of(command)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
