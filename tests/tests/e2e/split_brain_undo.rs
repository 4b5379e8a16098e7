//! A split brain under ext4, resolved, and the decision undone: at every step each node's device holds exactly what one of the
//! two sides had.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount, umount};
use tandem_core::state::ConnectionState;

use crate::node::{Node, Outcome, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

const IMAGE_BYTES: u64 = 8 << 20;
const BLOCK: usize = 4096;

/// Both went on with a filesystem of their own; both are Secondary and stand alone.
struct Split {
    pair: Pair,
    /// What alpha had, and what bravo had.
    images: [Vec<u8>; 2],
}

impl Split {
    fn new() -> Split {
        let pair = Pair::synced(Setup::default());
        let common = pair.folder().join("common.ext4");
        File::create(&common).unwrap().set_len(IMAGE_BYTES).unwrap();
        program("mkfs.ext4", &["-q", "-F", &common.to_string_lossy()]);
        put(&pair, &common, "before", b"from before the split brain");
        write_changes(&pair.alpha, &vec![0; IMAGE_BYTES as usize], &fs::read(&common).unwrap());
        pair.wait_healed();
        for node in pair.nodes() {
            node.adm(&["disconnect", RESOURCE]).ok();
        }
        pair.bravo.adm(&["primary", RESOURCE]).ok();
        let images = pair.nodes().map(|node| {
            let own = pair.folder().join(format!("{}.ext4", node.name));
            fs::copy(&common, &own).unwrap();
            put(&pair, &own, node.name, &vec![node.name.as_bytes()[0]; 100_000]);
            let image = fs::read(&own).unwrap();
            write_changes(node, &fs::read(&common).unwrap(), &image);
            image
        });
        for node in pair.nodes() {
            wait::until("it steps down", || node.adm(&["secondary", RESOURCE]).code == Some(0));
            node.adm(&["connect", RESOURCE]).ok();
        }
        let alone = |node: &&Node| node.connection() == Some(ConnectionState::StandAlone);
        wait::until("both stand alone", || pair.nodes().iter().all(alone));
        Split { pair, images }
    }

    /// Bravo's data is kept; what alpha gives up is in the file.
    fn resolve_for_bravo(&self, file: &Path) {
        let Pair { alpha, bravo, .. } = &self.pair;
        let said = resolve(bravo, &["--keep", "bravo"]).ok().stdout;
        assert!(said.contains("tandemadm split-brain resolve r0 --keep bravo --save FILE"), "{said}");
        resolve(alpha, &["--keep", "bravo", "--save", &file.to_string_lossy()]).ok();
        self.pair.wait_healed();
    }

    /// Both devices hold what this side had, down to the last byte.
    #[track_caller]
    fn assert_both_hold(&self, side: usize) {
        self.pair.assert_identical();
        self.assert_holds(0, side);
    }

    #[track_caller]
    fn assert_each_holds_its_own(&self) {
        self.assert_holds(0, 0);
        self.assert_holds(1, 1);
    }

    #[track_caller]
    fn assert_holds(&self, node: usize, side: usize) {
        let now = self.pair.nodes()[node].disk_bytes(IMAGE_BYTES);
        assert!(now == self.images[side], "node {node} does not hold what node {side} had");
        let copy = self.pair.folder().join("copy.ext4");
        fs::write(&copy, now).unwrap();
        program("e2fsck", &["-fn", &copy.to_string_lossy()]);
        let name = self.pair.nodes()[side].name;
        assert_eq!(get(&copy, "before"), b"from before the split brain");
        assert_eq!(get(&copy, name), vec![name.as_bytes()[0]; 100_000]);
    }

    fn file(&self) -> PathBuf {
        self.pair.folder().join("given-up")
    }
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_decision_is_asked_for_made_and_undone() {
    let split = Split::new();
    let Pair { alpha, bravo, .. } = &split.pair;
    let file = split.file();
    resolve(bravo, &["--keep", "bravo"]).ok();
    let said =
        resolve(alpha, &["--keep", "bravo", "--dry-run", "--save", &file.to_string_lossy()]).ok().stdout;
    assert!(said.contains("nothing was changed") && !file.exists(), "{said}");
    split.assert_each_holds_its_own();
    split.resolve_for_bravo(&file);
    split.assert_both_hold(1);

    // It was the wrong one. On alpha, and what is overwritten now is saved as well.
    let forth = split.pair.folder().join("forth");
    let [back, forth] = [file.to_string_lossy(), forth.to_string_lossy()];
    resolve(alpha, &["--restore", &back]).refused(11, "run 'tandemadm primary r0' first");
    alpha.adm(&["primary", RESOURCE]).ok();
    let said = resolve(alpha, &["--restore", &back, "--dry-run"]).ok().stdout;
    assert!(said.contains("nothing was changed"), "{said}");
    split.assert_both_hold(1);
    resolve(alpha, &["--restore", &back, "--save", &forth]).ok();
    split.assert_both_hold(0);
    resolve(alpha, &["--restore", &forth]).ok();
    split.assert_both_hold(1);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn nothing_is_restored_from_what_is_damaged_or_where_it_does_not_belong() {
    let split = Split::new();
    let Pair { alpha, bravo, .. } = &split.pair;
    let file = split.file();
    let path = file.to_string_lossy();
    // Nothing is changed before the file is good.
    resolve(bravo, &["--keep", "bravo"]).ok();
    resolve(alpha, &["--keep", "bravo", "--save", "/dev/full"]).refused(20, "exists already");
    resolve(alpha, &["--keep", "bravo", "--save", "/nowhere/file"]).refused(20, "creating /nowhere/file");
    let full = SmallDisk::new(split.pair.folder());
    let saved = full.0.join("file");
    resolve(alpha, &["--keep", "bravo", "--save", &saved.to_string_lossy()])
        .refused(20, "nothing was changed")
        .refused(20, "No space left on device");
    assert!(!saved.exists());
    drop(full);
    resolve(alpha, &["--keep", "charlie"]).refused(10, "charlie is no node of resource r0");
    split.assert_each_holds_its_own();
    split.resolve_for_bravo(&file);
    alpha.adm(&["primary", RESOURCE]).ok();

    let whole = fs::read(&file).unwrap();
    File::options().write(true).open(&file).unwrap().write_all_at(&[0xff; 8], 6000).unwrap();
    resolve(alpha, &["--restore", &path]).refused(20, "is damaged at byte 4096");
    fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    resolve(alpha, &["--restore", &path]).refused(20, "it ends too early");
    fs::write(&file, &whole).unwrap();
    let client = alpha.client().unwrap();
    resolve(alpha, &["--restore", &path]).refused(11, "the device is in use");
    split.assert_both_hold(1);
    drop(client);
    wait::until("the client is gone", || alpha.status().is_some_and(|s| s.openers.is_empty()));
    resolve(alpha, &["--keep", "bravo"]).refused(11, "alpha is Primary");
    resolve(bravo, &["--keep", "bravo"]).refused(11, "there is no split brain");
    resolve(alpha, &["--restore", &path]).ok();
    split.assert_both_hold(0);
}

/// A filesystem that has no room for what is given up.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(folder: &Path) -> SmallDisk {
        let path = folder.join("small");
        fs::create_dir(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        SmallDisk(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Where it fails, the test's folder cannot be removed, and says so.
        let _ = umount(&self.0);
    }
}

fn resolve(node: &Node, args: &[&str]) -> Outcome {
    node.adm(&[&["split-brain", "resolve", RESOURCE], args].concat())
}

/// Writes the blocks in which the images differ through the node's device.
fn write_changes(node: &Node, old: &[u8], new: &[u8]) {
    let mut client = node.client().unwrap();
    for (i, (old, new)) in old.chunks(BLOCK).zip(new.chunks(BLOCK)).enumerate() {
        if old != new {
            client.write((i * BLOCK) as u64, new, false).unwrap();
        }
    }
    client.flush().unwrap();
}

fn put(pair: &Pair, image: &Path, name: &str, content: &[u8]) {
    let source = pair.folder().join("content");
    fs::write(&source, content).unwrap();
    let request = format!("write {} {name}", source.display());
    program("debugfs", &["-w", "-R", &request, &image.to_string_lossy()]);
}

fn get(image: &Path, name: &str) -> Vec<u8> {
    let mut debugfs = Command::new("debugfs");
    debugfs.args(["-R", &format!("cat {name}")]).arg(image);
    debugfs.output().unwrap().stdout
}

fn program(name: &str, args: &[&str]) {
    let mut command = Command::new(name);
    command.args(args);
    Outcome::of(command).ok();
}
