//! A resource with two volumes: one connection, one role, one order of writes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::Value;
use tandem_core::config::Protocol;
use tandem_core::state::{ConnectionState, DiskState, Role};

use crate::device::{HELD_OPEN, device_names};
use crate::disk_faults::{LoopDevice, SmallFileSystem};
use crate::nbd_client::{NbdClient, NbdError};
use crate::node::{Node, Outcome, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

const BLOCK: usize = 4096;
/// Odd enough for a pad behind volume 0.
const SIZES: [[u64; 2]; 2] = [[32 << 20; 2], [10 << 20; 2]];
const DATA: &str = "r0/0";
const LOG: &str = "r0/1";
/// Blocks of data that the writer goes round in.
const ROUND: u64 = 64;

fn setup(protocol: Protocol) -> Setup {
    Setup { protocol, disk_bytes: SIZES[0], second_disk_bytes: Some(SIZES[1]), ..Setup::default() }
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn both_volumes_are_served_and_shown() {
    let pair = Pair::synced(setup(Protocol::C));
    let Pair { alpha, bravo, .. } = &pair;
    assert_eq!(NbdClient::list(&alpha.run.nbd_socket()).unwrap(), [DATA, LOG]);
    let refused = alpha.client_of(RESOURCE).err();
    assert!(matches!(refused, Some(NbdError::Refused(_))), "{refused:?}");
    for (uri, jobs) in alpha.uris().iter().zip(["--size=16M", "--size=8M"]) {
        qemu_io(uri, &["write -P 0xab 4k 64k", "read -P 0xab 4k 64k", "write -z 8k 4k", "read -P 0 8k 4k"]);
        fio(uri, jobs);
    }
    assert_eq!(
        alpha.adm(&["status", RESOURCE]).ok().stdout,
        "r0 role:Primary\n  volume:0 disk:UpToDate open:no\n  volume:1 disk:UpToDate open:no\n  \
         bravo role:Secondary\n    volume:0 peer-disk:UpToDate\n    volume:1 peer-disk:UpToDate\n\n"
    );
    assert_eq!(bravo.adm(&["dstate", RESOURCE]).ok().stdout, "UpToDate/UpToDate\n".repeat(2));
    shows_each_volumes_numbers(alpha);
    let minors = fs::read_to_string(alpha.run.proc_drbd()).unwrap();
    for minor in [" 0: cs:Connected ro:Primary/Secondary", " 1: cs:Connected ro:Primary/Secondary"] {
        assert!(minors.contains(minor), "{minors}");
    }
    assert_eq!(alpha.adm(&["sh-dev", RESOURCE]).ok().stdout, "/dev/drbd0\n/dev/drbd0-1\n");
    assert_eq!(alpha.adm(&["sh-minor", "r0/1"]).ok().stdout, "1\n");
    alpha.adm(&["detach", "r0/1"]).refused(1, "acts on all of them; name 'r0'");
    alpha.adm(&["sh-dev", "r0/2"]).refused(1, "has no volume 2");
    let opener = alpha.client_of(LOG).unwrap();
    wait::until("the opener is known", || alpha.status().is_some_and(|s| !s.volumes[1].openers.is_empty()));
    let status = alpha.adm(&["status", RESOURCE]).ok().stdout;
    assert!(status.contains("volume:0 disk:UpToDate open:no\n  volume:1 disk:UpToDate open:yes"), "{status}");
    alpha.adm(&["secondary", RESOURCE]).refused(11, "State change failed: (-12)");
    drop(opener);
    wait::until("it is gone", || alpha.status().is_some_and(|s| s.openers.is_empty()));
    alpha.adm(&["secondary", RESOURCE]).ok();
    pair.assert_identical();
}

fn shows_each_volumes_numbers(node: &Node) {
    let json: Value = serde_json::from_str(&node.adm(&["status", "--json", RESOURCE]).ok().stdout).unwrap();
    let devices = json[0]["devices"].as_array().unwrap();
    let sizes: Vec<u64> = devices.iter().map(|d| d["size"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = node.volume_sizes().iter().map(|bytes| bytes / 1024).collect();
    assert_eq!(sizes, expected);
    assert!(sizes[0] < 32 << 10 && sizes[1] < 10 << 10, "no room is left for metadata: {sizes:?}");
    let peer_devices = json[0]["connections"][0]["peer_devices"].as_array().unwrap();
    for (device, (peer_device, least_kib)) in devices.iter().zip(peer_devices.iter().zip([16 << 10, 8 << 10]))
    {
        for (value, key) in [(device, "written"), (peer_device, "sent")] {
            let kib = value[key].as_u64().unwrap();
            assert!((least_kib..least_kib * 4).contains(&kib), "{key}: {kib} KiB in {json:#}");
        }
    }
}

fn qemu_io(uri: &str, commands: &[&str]) {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "raw"]).args(commands.iter().flat_map(|one| ["-c", one])).arg(uri);
    let outcome = Outcome::of(command).ok();
    assert!(!outcome.stdout.contains("failed"), "{outcome:?}");
}

fn fio(uri: &str, size: &str) {
    let mut command = Command::new("fio");
    command.args(["--name=verify", "--ioengine=nbd", &format!("--uri={uri}"), "--rw=randwrite", "--bs=4k"]);
    command.args([
        "--iodepth=16",
        size,
        "--verify=crc32c",
        "--verify_fatal=1",
        "--fsync=64",
        "--group_reporting",
    ]);
    command.current_dir(std::env::temp_dir());
    Outcome::of(command).ok();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_log_is_never_behind_the_data_protocol_a() {
    the_log_is_never_behind_the_data(Protocol::A);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_log_is_never_behind_the_data_protocol_c() {
    the_log_is_never_behind_the_data(Protocol::C);
}

/// A writer appends a number to the log on one volume, and when that is done writes it among the data on the other. The
/// Primary is killed; whatever the other node has, it is a moment of that history, on both volumes the same one.
fn the_log_is_never_behind_the_data(protocol: Protocol) {
    let pair = Pair::synced(setup(protocol));
    let mut primary = &pair.alpha;
    let mut first = 1;
    for round in 0..3 {
        let before = written(primary);
        let writer = Writer::new(primary, first, round == 1);
        let writing = thread::spawn(move || writer.write_until_lost());
        wait::until("the writer makes progress", || written(primary) >= before + 300 * BLOCK as u64);
        primary.kill();
        let acknowledged = writing.join().unwrap();
        let survivor = pair.other(primary);
        survivor.promote();
        let last = check(survivor, first);
        println!("  round {round}: {acknowledged} were acknowledged, {last} were found");
        assert!(protocol == Protocol::A || last >= acknowledged, "{last} of {acknowledged} were found");
        assert!(acknowledged >= first, "nothing was written");
        primary.adm(&["up", RESOURCE]).ok();
        pair.wait_healed();
        assert_eq!(check(survivor, first), last);
        (primary, first) = (survivor, last + 1);
    }
    wait::until("nobody has a device open", || primary.status().is_some_and(|s| s.openers.is_empty()));
    pair.assert_identical();
}

/// Bytes of data.
fn written(node: &Node) -> u64 {
    node.status().map_or(0, |status| status.volumes[0].disk_written_bytes)
}

struct Writer {
    data: NbdClient,
    log: NbdClient,
    next: u64,
    flushes: bool,
}

impl Writer {
    fn new(node: &Node, next: u64, flushes: bool) -> Writer {
        let open = |export| node.client_of(export).unwrap_or_else(|e| panic!("{export}: {e:?}"));
        Writer { data: open(DATA), log: open(LOG), next, flushes }
    }

    /// The last number that is known to be on both volumes.
    fn write_until_lost(mut self) -> u64 {
        while self.step().is_ok() {
            self.next += 1;
        }
        self.next - 1
    }

    fn step(&mut self) -> Result<(), NbdError> {
        let block = numbered(self.next);
        self.log.write(self.next * BLOCK as u64 % log_bytes(&self.log), &block, false)?;
        if self.flushes {
            self.log.flush()?;
        }
        self.data.write(self.next % ROUND * BLOCK as u64, &block, false)
    }
}

fn numbered(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK / 8)
}

/// Whole blocks.
fn log_bytes(log: &NbdClient) -> u64 {
    log.size / BLOCK as u64 * BLOCK as u64
}

/// The last number of the data. All before it, and none behind it, are in the data; and the log has all of them.
fn check(node: &Node, first: u64) -> u64 {
    let open = |export| node.client_of(export).unwrap_or_else(|e| panic!("{export}: {e:?}"));
    let (mut data, mut log) = (open(DATA), open(LOG));
    let number_at = |client: &mut NbdClient, offset: u64| {
        let block = client.read(offset, BLOCK).unwrap();
        let number = u64::from_le_bytes(*block.first_chunk().unwrap());
        assert_eq!(block, numbered(number), "a torn block at {offset}");
        number
    };
    let found: BTreeMap<u64, u64> =
        (0..ROUND).map(|slot| (slot, number_at(&mut data, slot * BLOCK as u64))).collect();
    let last = *found.values().max().unwrap();
    for (slot, number) in found {
        // The last one written to this slot before the moment that is found.
        let expected = (last.saturating_sub(ROUND - 1)..=last).find(|n| n % ROUND == slot).unwrap_or(0);
        assert_eq!(number, expected, "slot {slot}, the last being {last}");
    }
    let log_bytes = log_bytes(&log);
    let kept = log_bytes / BLOCK as u64;
    for number in first.max((last + 2).saturating_sub(kept))..=last {
        let logged = number_at(&mut log, number * BLOCK as u64 % log_bytes);
        assert_eq!(logged, number, "the data is at {last}, and the log lacks {number}");
    }
    last
}

/// A disk that fails takes those of the other volumes along: the resource goes on with the peer's.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_second_disk_of_a_primary_fails() {
    let full = SmallFileSystem::with(6 << 20);
    let device = LoopDevice::over(full.sparse_file(SIZES[1][0]));
    let pair = Pair::synced(Setup { alpha_second_disk: Some(device.path.clone()), ..setup(Protocol::C) });
    let Pair { alpha, bravo, .. } = &pair;
    let (mut data, mut log) = (alpha.client_of(DATA).unwrap(), alpha.client_of(LOG).unwrap());
    data.write(0, &[7; BLOCK], true).unwrap();
    let blocks = log.size / (64 << 10);
    for block in 0..blocks {
        log.write(block * (64 << 10), &vec![block as u8 | 1; 64 << 10], false).unwrap();
    }
    log.flush().unwrap();
    wait::until("the disks are given up", || alpha.disk_state() == DiskState::Diskless);
    assert_eq!(
        alpha.adm(&["status", RESOURCE]).ok().stdout,
        "r0 role:Primary\n  volume:0 disk:Diskless client:no open:yes\n  volume:1 disk:Diskless client:no open:yes\n  \
         bravo role:Secondary\n    volume:0 peer-disk:UpToDate\n    volume:1 peer-disk:UpToDate\n\n"
    );
    assert_eq!((alpha.role(), bravo.disk_state()), (Role::Primary, DiskState::UpToDate));
    assert_eq!(data.read(0, BLOCK).unwrap(), [7; BLOCK], "read from the peer");
    for block in 0..blocks {
        assert_eq!(log.read(block * (64 << 10), 64 << 10).unwrap(), vec![block as u8 | 1; 64 << 10]);
    }
    data.write(BLOCK as u64, &[8; BLOCK], true).unwrap();
    drop((data, log));
    wait::until("the clients are gone", || alpha.status().is_some_and(|s| s.openers.is_empty()));
    alpha.adm(&["secondary", RESOURCE]).ok();
    bravo.adm(&["primary", RESOURCE]).ok();
    assert_eq!(bravo.client_of(DATA).unwrap().read(BLOCK as u64, BLOCK).unwrap(), [8; BLOCK]);
}

/// One of the volumes is compared, and what differs is told as its own.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_volume_is_verified() {
    let pair = Pair::synced(Setup { net: "verify-alg sha256;", ..setup(Protocol::C) });
    let Pair { alpha, bravo, .. } = &pair;
    alpha.client_of(LOG).unwrap().write(64 * BLOCK as u64, &[1; BLOCK], true).unwrap();
    wait::until("nobody has it open", || alpha.status().is_some_and(|s| s.openers.is_empty()));
    for disk in bravo.disks() {
        let file = File::options().write(true).open(disk).unwrap();
        file.write_all_at(b"rotten", 64 * BLOCK as u64).unwrap();
    }
    alpha.adm(&["verify", "--start=0", RESOURCE]).refused(1, "--start and --stop count within a volume");
    alpha.adm(&["verify", LOG]).ok();
    wait::until("the verify has ended", || {
        alpha.log().contains("Online verify found 1 4k block out of sync!")
    });
    assert!(alpha.log().contains("volume 1: Out of sync: start=512, size=8 (sectors)"), "{}", alpha.log());
    let out_of_sync = alpha.status().unwrap().peers[0].volumes.iter().map(|v| v.out_of_sync_bytes).collect();
    let out_of_sync: Vec<u64> = out_of_sync;
    assert_eq!(out_of_sync, [0, BLOCK as u64]);
}

/// All devices are there, or none; and they outlive the daemon.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_devices_come_and_go_together() {
    let devices = device_names();
    let second = devices.each_ref().map(|first| PathBuf::from(format!("{}-1", first.display())));
    let pair = Pair::synced(Setup { devices: Some(devices.clone()), ..setup(Protocol::C) });
    let Pair { alpha, bravo, .. } = &pair;
    let [on_alpha, on_bravo] = [0, 1].map(|node| [devices[node].as_path(), second[node].as_path()]);
    for (number, device) in on_alpha.into_iter().enumerate() {
        let by_resource = format!("/dev/drbd/by-res/r0/{number}");
        assert_eq!(fs::canonicalize(by_resource).unwrap(), fs::canonicalize(device).unwrap());
        write_to(device, number as u8 + 1);
    }
    let held = File::open(on_alpha[1]).unwrap();
    let refused = alpha.adm(&["secondary", RESOURCE]).refused(11, HELD_OPEN);
    assert!(refused.stderr.contains(&format!("(pid {})", std::process::id())), "{refused:?}");
    assert!(on_alpha[0].exists() && on_alpha[1].exists(), "a device is gone");
    let status = alpha.adm(&["status", RESOURCE]).ok().stdout;
    assert!(status.contains("volume:0 disk:UpToDate open:no\n  volume:1 disk:UpToDate open:yes"), "{status}");

    alpha.kill();
    alpha.adm(&["up", RESOURCE]).ok();
    wait::until("alpha goes on as Primary", || alpha.role() == Role::Primary && pair.is_healed());
    wait::until("both devices are there", || on_alpha.iter().all(|device| device.exists()));
    let mut block = [0; BLOCK];
    held.read_exact_at(&mut block, 0).unwrap();
    assert_eq!(block, [2; BLOCK]);
    drop(held);
    let demoted = || alpha.adm(&["secondary", RESOURCE]).code == Some(0);
    wait::until("nobody has a device open", demoted);
    assert!(on_alpha.iter().all(|device| fs::symlink_metadata(device).is_err()), "a device is left");
    bravo.adm(&["primary", RESOURCE]).ok();
    for (number, device) in on_bravo.into_iter().enumerate() {
        File::open(device).unwrap().read_exact_at(&mut block, 0).unwrap();
        assert_eq!(block, [number as u8 + 1; BLOCK]);
    }
    wait::until("bravo steps down", || bravo.adm(&["secondary", RESOURCE]).code == Some(0));
    pair.assert_identical();
}

fn write_to(device: &Path, byte: u8) {
    let file = File::options().write(true).open(device).unwrap();
    file.write_all_at(&[byte; BLOCK], 0).unwrap();
    file.sync_all().unwrap();
}

/// Nodes whose volumes differ do not connect, and say what to do.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn volumes_that_differ_are_refused() {
    let pair = Pair::new(Setup { second_disk_bytes: Some([10 << 20, 12 << 20]), ..setup(Protocol::C) });
    pair.create_md();
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    let refused = || pair.nodes().iter().all(|node| node.connection() == Some(ConnectionState::StandAlone));
    wait::until("both stand alone", refused);
    let reason = pair.alpha.peer().unwrap().standalone_reason.unwrap();
    for part in ["volume 1 has ", " bytes here, ", " bytes on the peer", "volume 1 { disk { size "] {
        assert!(reason.contains(part), "{part} in {reason}");
    }
    // The larger one is made as large as the smaller one.
    let smaller = pair.alpha.volume_sizes()[1];
    let config = fs::read_to_string(&pair.bravo.config).unwrap();
    let sized = config.replace("minor 1;", &format!("minor 1; disk {{ size {}k; }}", smaller / 1024));
    fs::write(&pair.bravo.config, sized).unwrap();
    pair.bravo.adm(&["down", RESOURCE]).ok();
    pair.bravo.adm(&["create-md", "--force", RESOURCE]).ok();
    pair.bravo.adm(&["up", RESOURCE]).ok();
    pair.alpha.adm(&["connect", RESOURCE]).ok();
    pair.alpha.adm(&["primary", "--force", RESOURCE]).ok();
    pair.wait_healed();
    assert_eq!(pair.bravo.volume_sizes(), pair.alpha.volume_sizes());
}

/// What was made for other volumes is not attached.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn metadata_of_other_volumes_is_refused() {
    let pair = Pair::new(setup(Protocol::C));
    pair.create_md();
    let alpha = &pair.alpha;
    let two = fs::read_to_string(&alpha.config).unwrap();
    let three = two.replace("volume 1 {", "volume 2 {");
    fs::write(&alpha.config, three).unwrap();
    let refused = alpha.adm(&["up", RESOURCE]).refused(10, "the meta-data was created for volumes 0, 1");
    assert!(refused.stderr.contains("(116)"), "{refused:?}");
    alpha.adm(&["down", RESOURCE]).ok();
    fs::write(&alpha.config, two).unwrap();
    // A disk in its place, blank and as large: what the bitmap marks would not be all that it lacks.
    let second = alpha.disks().nth(1).unwrap();
    let (old, aside) = (fs::metadata(second).unwrap().len(), second.with_extension("aside"));
    fs::rename(second, &aside).unwrap();
    File::create(second).unwrap().set_len(old).unwrap();
    let refused = alpha.adm(&["up", RESOURCE]).refused(10, "the disk of volume 1 is not the one");
    assert!(refused.stderr.contains("(116)"), "{refused:?}");
    alpha.adm(&["down", RESOURCE]).ok();
    fs::rename(&aside, second).unwrap();
    alpha.adm(&["up", RESOURCE]).ok();
    alpha.adm(&["down", RESOURCE]).ok();
    File::options().write(true).open(alpha.disks().nth(1).unwrap()).unwrap().set_len(8 << 20).unwrap();
    let refused = alpha.adm(&["up", RESOURCE]).refused(10, "the disk of volume 1 has room for");
    assert!(refused.stderr.contains("(111)"), "{refused:?}");
}
