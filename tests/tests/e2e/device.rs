//! The block device of the Primary: it comes and goes with the role, and a file system lives on it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tandem_core::state::Role;

use crate::node::{Node, Outcome, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

const HELD_OPEN: &str = "State change failed: (-12) Device is held open by someone";

/// Two nodes that share this machine's /dev, each with a device name of its own.
fn pair_with_devices() -> (Pair, [PathBuf; 2]) {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = |node| PathBuf::from(format!("/dev/tandem-test-{}-{number}-{node}", std::process::id()));
    let devices = [name("alpha"), name("bravo")];
    let pair = Pair::synced(Setup { devices: Some(devices.clone()), ..Setup::default() });
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
    demote(alpha, &on_alpha);

    bravo.adm(&["primary", RESOURCE]).ok();
    let mounted = Mounted::new(&on_bravo, pair.folder());
    assert_eq!(fs::read(mounted.point.join("file")).unwrap(), b"acknowledged");
    drop(mounted);
    run("e2fsck", &["-fn", text(&on_bravo)]);
    demote(bravo, &on_bravo);
    pair.assert_identical();
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

fn demote(node: &Node, device: &Path) {
    node.adm(&["secondary", RESOURCE]).ok();
    assert_eq!(node.role(), Role::Secondary);
    assert!(fs::symlink_metadata(device).is_err(), "{} is still there", device.display());
    assert!(fs::symlink_metadata("/dev/drbd/by-res/r0/0").is_err());
}

/// A file system on a device, until it is dropped.
struct Mounted {
    point: PathBuf,
}

impl Mounted {
    fn new(device: &Path, folder: &Path) -> Mounted {
        let point = folder.join("mnt");
        fs::create_dir_all(&point).unwrap();
        run("mount", &["-t", "ext4", text(device), text(&point)]);
        Mounted { point }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = outcome("umount", &[text(&self.point)]);
        if std::thread::panicking() {
            outcome("umount", &["-l", text(&self.point)]);
        } else {
            unmounted.ok();
        }
    }
}

fn size_bytes(device: &Path) -> u64 {
    run("blockdev", &["--getsize64", text(device)]).stdout.trim().parse().unwrap()
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> Outcome {
    outcome(program, args).ok()
}

fn outcome(program: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(program);
    command.args(args);
    Outcome::of(command)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
