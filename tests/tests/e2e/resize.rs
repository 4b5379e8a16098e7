//! Disks that grow: while nobody uses them, and under a mounted file system.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use tandem_core::state::DiskState;

use crate::device::{Mounted, outcome, pair_with_devices, run, size_bytes, text};
use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

const OLD: u64 = 32 << 20;
const NEW: u64 = 64 << 20;
/// Blocks that a writer goes round in.
const ROUND: u64 = 64;
/// What the metadata of one peer takes, at most.
const METADATA: u64 = 64 << 10;

fn grow_disk(node: &Node) {
    OpenOptions::new().write(true).open(&node.disk).unwrap().set_len(NEW).unwrap();
}

fn volume_bytes(node: &Node) -> u64 {
    node.status().unwrap().size_bytes
}

/// Meta-data lies at the end of the disk; the disk ends elsewhere when the node comes back.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_disk_that_has_grown_while_the_resource_was_down_keeps_its_metadata() {
    let pair = Pair::synced(Setup::default());
    let Pair { alpha, bravo, .. } = &pair;
    let before = volume_bytes(bravo);
    bravo.adm(&["down", RESOURCE]).ok();
    alpha.client().unwrap().write(4096, &[7; 4096], true).unwrap();
    grow_disk(bravo);
    let looked = bravo.adm(&["dump-md", RESOURCE]).ok();
    assert!(looked.stdout.contains(&format!("backing-bytes {OLD};")), "{looked:?}");
    let refused = bravo.adm(&["create-md", RESOURCE]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("where the disk ended before it grew"), "{refused:?}");
    bravo.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
    assert_eq!([volume_bytes(alpha), volume_bytes(bravo)], [before; 2], "the volume grows by command only");
    pair.assert_identical();
    bravo.adm(&["down", RESOURCE]).ok();
    let looked = bravo.adm(&["dump-md", RESOURCE]).ok();
    assert!(looked.stdout.contains(&format!("backing-bytes {NEW};")), "{looked:?}");
    bravo.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
}

/// The exercise: both disks grow, `resize`, `resize2fs`, and nobody has unmounted anything.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_mounted_file_system_grows() {
    let (pair, [on_alpha, _]) = pair_with_devices();
    let Pair { alpha, bravo, .. } = &pair;
    run("mkfs.ext4", &["-q", text(&on_alpha)]);
    let mounted = Mounted::new(&on_alpha, pair.folder());
    let path = mounted.point.join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(&[1; 100_000]).unwrap();
    file.sync_all().unwrap();
    let mut client = alpha.client().unwrap();

    let refused = alpha.adm(&["resize", "--size", "48M", RESOURCE]).refused(10, "(111) Low.dev. smaller");
    assert!(refused.stderr.contains("grow it first"), "{refused:?}");
    alpha
        .adm(&["resize", "--size", "8M", RESOURCE])
        .refused(10, "(170) Implicit device shrinking not allowed");
    pair.nodes().into_iter().for_each(grow_disk);
    alpha.adm(&["resize", RESOURCE]).ok();
    let grown = volume_bytes(alpha);
    assert!((NEW - METADATA..NEW).contains(&grown), "{grown}");
    assert_eq!(size_bytes(&on_alpha), grown, "the device grows with the volume");
    // In a container the kernel may let nobody resize a mounted file system.
    let resized = outcome("resize2fs", &[text(&on_alpha)]);
    let permitted = !resized.stderr.contains("ermi");
    assert!(resized.code == Some(0) || !permitted, "{resized:?}");
    let more = if permitted { 40 << 20 } else { 4 << 20 };
    file.write_all(&vec![2; more]).unwrap();
    file.sync_all().unwrap();
    // Who stayed connected may use what is new.
    client.write(grown - 4096, &[3; 4096], false).unwrap();
    drop((file, client));
    pair.wait_healed();
    assert_eq!(volume_bytes(bravo), grown);
    drop(mounted);
    run("e2fsck", &["-fn", text(&on_alpha)]);
    pair.assert_identical();

    pair.restart();
    assert_eq!([volume_bytes(alpha), volume_bytes(bravo)], [grown; 2]);
    alpha.promote();
    let mounted = Mounted::new(&on_alpha, pair.folder());
    let content = fs::read(mounted.point.join("file")).unwrap();
    assert!(content.len() == 100_000 + more && content[100_000..].iter().all(|byte| *byte == 2));
    drop(mounted);
    alpha.adm(&["secondary", RESOURCE]).ok();
}

/// The peer is away, and learns of the new size when it comes; until its disk has grown it is refused.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_peer_that_was_away_learns_the_new_size() {
    let pair = Pair::synced(Setup::default());
    let Pair { alpha, bravo, .. } = &pair;
    bravo.adm(&["disconnect", RESOURCE]).ok();
    grow_disk(alpha);
    let refused = alpha.adm(&["resize", RESOURCE]).refused(11, "(-15) State change requires a connection");
    assert!(refused.stderr.contains("--assume-peer-has-space"), "{refused:?}");
    alpha.adm(&["resize", "--assume-peer-has-space", RESOURCE]).ok();
    let grown = volume_bytes(alpha);
    alpha.client().unwrap().write(grown - 4096, &[9; 4096], true).unwrap();
    bravo.adm(&["connect", RESOURCE]).ok();
    let reason = || bravo.peer().and_then(|peer| peer.standalone_reason).unwrap_or_default();
    wait::until("the small disk is refused", || reason().contains("disk size is too small!"));
    grow_disk(bravo);
    for node in pair.nodes() {
        node.adm(&["connect", RESOURCE]).ok();
    }
    pair.wait_healed();
    assert_eq!((volume_bytes(bravo), bravo.disk_state()), (grown, DiskState::UpToDate));
    pair.assert_identical();
}

/// Writes a log to one volume and, behind it, what the log says to the other, until it is told to end. Returns how often.
fn log_and_data(node: &Node, ends: &AtomicBool) -> u64 {
    let (mut data, mut log) = (node.client_of("r0/0").unwrap(), node.client_of("r0/1").unwrap());
    let mut number = 0u64;
    while !ends.load(Ordering::Relaxed) {
        number += 1;
        let block: Vec<u8> = number.to_le_bytes().repeat(512);
        for client in [&mut log, &mut data] {
            client.write(number % ROUND * 4096, &block, number.is_multiple_of(8)).unwrap();
        }
    }
    number
}

/// Whatever becomes of the test, its writer ends.
struct EndsWithThis<'a>(&'a AtomicBool);

impl Drop for EndsWithThis<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn volume_of(node: &Node, number: usize) -> u64 {
    node.volume_sizes().get(number).copied().unwrap_or(0)
}

/// Volumes that share one space of blocks: each grows while both are written to, twice.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn two_volumes_grow_in_turns() {
    let setup =
        Setup { disk_bytes: [OLD; 2], second_disk_bytes: Some([OLD / 2 + 8192; 2]), ..Setup::default() };
    let pair = Pair::synced(setup);
    let Pair { alpha, bravo, .. } = &pair;
    let ends = AtomicBool::new(false);
    let mut sizes = alpha.volume_sizes();
    alpha.adm(&["resize", "--size", "64M", RESOURCE]).refused(10, "a size is one volume's: name it");
    let written = std::thread::scope(|scope| {
        let _ends = EndsWithThis(&ends);
        let writer = scope.spawn(|| log_and_data(alpha, &ends));
        for (round, number) in [(1u8, 1), (2, 0), (3, 1), (4, 0)] {
            let export = format!("{RESOURCE}/{number}");
            let mut early = alpha.client_of(&export).unwrap();
            for node in pair.nodes() {
                let disk = node.disks().nth(number).unwrap();
                let bytes = fs::metadata(disk).unwrap().len() + (6 << 20);
                OpenOptions::new().write(true).open(disk).unwrap().set_len(bytes).unwrap();
            }
            // What the last one has grown by is being sent.
            pair.wait_healed();
            let other = volume_of(alpha, 1 - number);
            alpha.adm(&["resize", &export]).ok();
            let (old, grown) = (sizes[number], volume_of(alpha, number));
            assert!(grown > old + (5 << 20), "{old} bytes became {grown}");
            assert_eq!(volume_of(alpha, 1 - number), other, "only the one that was named");
            wait::until("the other node shows the size", || volume_of(bravo, number) == grown);
            // What was there ends and what is new begins in different places of the space; and whoever was connected may.
            early.write(old - 4096, &[round; 8192], true).unwrap();
            assert_eq!(early.read(old - 4096, 8192).unwrap(), [round; 8192]);
            early.write(grown - 4096, &[round; 4096], false).unwrap();
            assert_eq!(alpha.client_of(&export).unwrap().size, grown);
            sizes[number] = grown;
        }
        ends.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    pair.wait_healed();
    pair.assert_identical();

    pair.restart();
    assert_eq!([alpha.volume_sizes(), bravo.volume_sizes()], [sizes.clone(), sizes.clone()]);
    bravo.promote();
    for (number, last) in [(0, 4u8), (1, 3)] {
        let mut client = bravo.client_of(&format!("{RESOURCE}/{number}")).unwrap();
        assert_eq!(client.read(sizes[number] - 4096, 4096).unwrap(), [last; 4096]);
        let block = client.read(written % ROUND * 4096, 4096).unwrap();
        assert_eq!(block[..8], written.to_le_bytes(), "volume {number}");
    }
    pair.assert_identical();
}
