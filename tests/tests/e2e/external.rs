//! Three volumes, each with a meta-disk of its own: the first one's holds the metadata of all, and the whole of every disk is
//! data.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// Of the volumes' disks, by number.
const SIZES: [u64; 3] = [16 * MIB, 12 * MIB, 9 * MIB];
const META_BYTES: u64 = MIB;

fn disk(pair: &Pair, node: &Node, number: usize) -> PathBuf {
    pair.folder().join(format!("{}-{number}", node.name))
}

fn meta_disk(pair: &Pair, node: &Node, number: usize) -> PathBuf {
    pair.folder().join(format!("{}-{number}.meta", node.name))
}

fn set_length(path: PathBuf, bytes: u64) {
    File::options().create(true).truncate(false).write(true).open(path).unwrap().set_len(bytes).unwrap();
}

fn pair() -> Pair {
    let pair = Pair::new(Setup::default());
    let mut text =
        format!("global {{ device-driver none; }}\nresource {RESOURCE} {{ net {{ verify-alg sha1; }}\n");
    for node in pair.nodes() {
        writeln!(text, "  on {} {{ address {};", node.name, node.address).unwrap();
        for (number, bytes) in SIZES.into_iter().enumerate() {
            let (disk, meta) = (disk(&pair, node, number), meta_disk(&pair, node, number));
            let (disk_name, meta_name) = (disk.display(), meta.display());
            writeln!(
                text,
                "    volume {number} {{ device minor {number}; disk {disk_name}; meta-disk {meta_name}; }}"
            )
            .unwrap();
            set_length(disk, bytes);
            set_length(meta, META_BYTES);
        }
        text.push_str("  }\n");
    }
    fs::write(&pair.alpha.config, text + "}\n").unwrap();
    pair
}

fn sizes(node: &Node) -> Vec<u64> {
    node.status().map_or(Vec::new(), |status| status.volumes.iter().map(|volume| volume.size_bytes).collect())
}

fn write(node: &Node, number: usize, offset: u64, byte: u8) {
    let mut client = node.client_of(&format!("{RESOURCE}/{number}")).unwrap();
    client.write(offset, &[byte; BLOCK], true).unwrap();
}

/// The disk of bravo's volume changes a block by itself.
fn rot(pair: &Pair, number: usize, offset: u64) {
    let disk = File::options().write(true).open(disk(pair, &pair.bravo, number)).unwrap();
    disk.write_all_at(b"rotten", offset).unwrap();
}

fn assert_identical(pair: &Pair, sizes: &[u64]) {
    for (number, bytes) in sizes.iter().enumerate() {
        let [a, b] = pair.nodes().map(|node| fs::read(disk(pair, node, number)).unwrap());
        assert_eq!(a.len() as u64, *bytes, "all of volume {number}'s disk is data");
        assert!(a == b, "the copies of volume {number} differ");
    }
}

fn up(pair: &Pair) {
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    pair.wait_healed();
}

/// From `create-md` to `restore-md`: the volumes grow in turns, so that their pieces lie apart.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn three_volumes_with_external_metadata() {
    let pair = pair();
    let Pair { alpha, bravo, .. } = &pair;
    pair.bring_up();
    assert_eq!(sizes(alpha), SIZES);
    for (number, bytes) in SIZES.into_iter().enumerate() {
        write(alpha, number, bytes - BLOCK as u64, number as u8 + 1);
    }
    let grown = one_after_the_other_grows(&pair);
    only_the_pieces_of_one_are_verified(&pair);
    for node in pair.nodes() {
        node.kill();
    }
    up(&pair);
    assert_eq!([sizes(alpha), sizes(bravo)], [grown.clone(), grown.clone()]);
    bravo.promote();
    write(bravo, 2, 0, 9);
    wait::until("nobody has a device open", || bravo.adm(&["down", RESOURCE]).code == Some(0));
    alpha.adm(&["down", RESOURCE]).ok();
    assert_identical(&pair, &grown);
    on_the_metadata_alone(&pair);
    up(&pair);
    assert_eq!(sizes(alpha), grown);
    for node in pair.nodes() {
        node.adm(&["down", RESOURCE]).ok();
    }
    assert_identical(&pair, &grown);
    let others = [1, 2].map(|number| fs::read(meta_disk(&pair, alpha, number)).unwrap());
    assert!(others.iter().flatten().all(|byte| *byte == 0), "the first one's holds the metadata of all");
}

fn one_after_the_other_grows(pair: &Pair) -> Vec<u64> {
    let Pair { alpha, bravo, .. } = pair;
    let mut expected = SIZES.to_vec();
    for (number, byte) in [(1, 5), (0, 6), (1, 7)] {
        expected[number] += 6 * MIB;
        for node in pair.nodes() {
            set_length(disk(pair, node, number), expected[number]);
        }
        alpha.adm(&["resize", &format!("{RESOURCE}/{number}")]).ok();
        assert_eq!(sizes(alpha), expected);
        pair.wait_healed();
        assert_eq!(sizes(bravo), expected);
        write(alpha, number, expected[number] - BLOCK as u64, byte);
    }
    expected
}

/// What volume 0 has grown by lies between the two pieces of volume 1.
fn only_the_pieces_of_one_are_verified(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    for (number, offset) in [(0, SIZES[0] + MIB), (1, 0), (1, SIZES[1] + 7 * MIB), (2, 0)] {
        rot(pair, number, offset);
    }
    let marked = |node: &Node| -> Vec<u64> {
        node.peer().unwrap().volumes.iter().map(|volume| volume.out_of_sync_bytes / BLOCK as u64).collect()
    };
    let verify = |line: &[&str], blocks: u64| {
        let before = alpha.log().len();
        alpha.adm(line).ok();
        let done = format!("Online verify found {blocks} 4k block out of sync!");
        wait::until("the verify has ended", || alpha.log()[before..].contains(&done));
    };
    verify(&["verify", "--start=18M", "r0/1"], 1);
    assert_eq!(marked(alpha), [0, 1, 0], "behind the first piece");
    verify(&["verify", "r0/1"], 2);
    assert_eq!(marked(alpha), [0, 2, 0]);
    verify(&["verify", "--repair", RESOURCE], 4);
    wait::until("what was found is repaired", || pair.is_healed());
    assert_eq!([marked(alpha), marked(bravo)], [[0; 3]; 2]);
}

/// Both nodes are down.
fn on_the_metadata_alone(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    let dumped = alpha.adm(&["dump-md", RESOURCE]).ok().stdout;
    for line in ["meta-disk external;", "volume 2 size-bytes 9437184;"] {
        assert!(dumped.contains(line), "{dumped}");
    }
    let file = pair.folder().join("dump").display().to_string();
    fs::write(&file, &dumped).unwrap();
    alpha.adm(&["create-md", "--force", RESOURCE]).ok();
    assert_eq!(alpha.adm(&["dstate", "r0/2"]).ok().stdout, "Inconsistent\n");
    alpha.adm(&["restore-md", "--force", RESOURCE, &file]).ok();
    assert_eq!(alpha.adm(&["dump-md", RESOURCE]).ok().stdout, dumped);
    for (line, states) in [("outdate r0", "Outdated\n"), ("invalidate r0", "Inconsistent\n")] {
        bravo.adm(&line.split(' ').collect::<Vec<_>>()).ok();
        assert_eq!(bravo.adm(&["dstate", RESOURCE]).ok().stdout, states.repeat(3));
    }
    bravo.adm(&["outdate", RESOURCE]).refused(5, "Device is inconsistent.");
    assert!(bravo.adm(&["get-gi", "r0/1"]).ok().stdout.contains(":0:0:0:0:1:"));
    bravo.adm(&["apply-al", RESOURCE]).ok();
}
