//! Programs of others against an export: nbdinfo, nbdcopy, qemu-io, qemu-img, fio, and the crate nbd.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tandem_core::config::Protocol;

use crate::nbd_client::NbdClient;
use crate::node::{Node, Outcome, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::random::Random;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_a() {
    every_client(Protocol::A);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_b() {
    every_client(Protocol::B);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_c() {
    every_client(Protocol::C);
}

fn every_client(protocol: Protocol) {
    let pair = Pair::synced(Setup { protocol, ..Setup::default() });
    let size = nbdinfo(&pair);
    let image = pair.folder().join("image");
    let mut random = Random::new(42);
    // The second half is a hole: nbdcopy sends zeroes for it.
    fs::write(&image, random.bytes(size as usize / 2)).unwrap();
    fs::File::options().write(true).open(&image).unwrap().set_len(size).unwrap();
    nbdcopy(&pair, &image);
    qemu(&pair, &image);
    fio(&pair);
    old_style_client(&pair.alpha, size);
    settle(&pair);
    pair.assert_identical();
}

/// Returns the size of the export.
fn nbdinfo(pair: &Pair) -> u64 {
    let uri = pair.alpha.uri();
    let info: Value = serde_json::from_str(&program("nbdinfo", &["--json", &uri]).stdout).unwrap();
    let export = &info["exports"][0];
    for flag in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn"] {
        assert_eq!(export[flag], true, "{flag}: {info:#}");
    }
    assert_eq!(export["is_read_only"], false, "{info:#}");
    for key in ["block_size_minimum", "block_size_preferred", "block_size_maximum"] {
        assert!(!export[key].is_null(), "{key} is not advertised: {info:#}");
    }
    let listed = NbdClient::list(&pair.bravo.run.nbd_socket()).unwrap();
    assert_eq!(listed, [RESOURCE], "a Secondary's export is not listed");
    let opened = Outcome::of(command("nbdinfo", &[&pair.bravo.uri()]));
    assert_ne!(opened.code, Some(0), "a Secondary's export was opened");
    export["export-size"].as_u64().unwrap()
}

fn nbdcopy(pair: &Pair, image: &Path) {
    let (uri, image) = (pair.alpha.uri(), image.to_str().unwrap());
    let back = format!("{image}.back");
    program("nbdcopy", &["--flush", "--connections=4", "--requests=64", image, &uri]);
    program("nbdcopy", &["--connections=4", &uri, &back]);
    program("cmp", &[image, &back]);
}

fn qemu(pair: &Pair, image: &Path) {
    let (uri, image) = (pair.alpha.uri(), image.to_str().unwrap());
    program("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &uri]);
    let commands = [
        "write -P 0xab 4k 64k",
        "read -P 0xab 4k 64k",
        "write -f -P 5 1M 4k",
        "read -P 5 1M 4k",
        "write -z 8k 4k",
        "read -P 0 8k 4k",
        "discard 4M 1M",
        "read -P 0 4M 1M",
        "write -P 7 512 512",
        "read -P 7 512 512",
        "flush",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(commands.iter().flat_map(|command| ["-c", *command]));
    arguments.push(&uri);
    let outcome = program("qemu-io", &arguments);
    assert!(!outcome.stdout.contains("failed"), "{outcome:?}");
    program("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "16", image, &uri]);
    program("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &uri]);
}

fn fio(pair: &Pair) {
    let uri = format!("--uri={}", pair.alpha.uri());
    for (rw, bs, depth) in
        [("randwrite", "--bs=4k", "32"), ("randrw", "--bsrange=512-128k", "16"), ("write", "--bs=1M", "4")]
    {
        let (rw, depth) = (format!("--rw={rw}"), format!("--iodepth={depth}"));
        let verify = ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--fsync=64"];
        let mut arguments =
            vec!["--name=verify", "--ioengine=nbd", &uri, &rw, bs, &depth, "--size=16M", "--group_reporting"];
        arguments.extend(verify);
        program("fio", &arguments);
    }
    // Several connections at a time, each on its own part.
    let arguments =
        ["--name=jobs", "--ioengine=nbd", &uri, "--rw=randwrite", "--bs=4k", "--iodepth=16", "--numjobs=4"];
    let parts =
        ["--size=4M", "--offset_increment=4M", "--verify=crc32c", "--verify_fatal=1", "--group_reporting"];
    program("fio", &[&arguments[..], &parts[..]].concat());
}

/// The crate nbd speaks EXPORT_NAME and nothing newer.
fn old_style_client(node: &Node, size: u64) {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut stream = UnixStream::connect(node.run.nbd_socket()).unwrap();
    let export = nbd::client::handshake(&mut stream, RESOURCE.as_bytes()).unwrap();
    assert_eq!(export.size, size);
    let mut client = nbd::client::NbdClient::new(&mut stream, &export);
    client.seek(SeekFrom::Start(12288)).unwrap();
    client.write_all(&[0x5a; 4096]).unwrap();
    client.flush().unwrap();
    let mut bytes = [0; 4096];
    client.seek(SeekFrom::Start(12288)).unwrap();
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [0x5a; 4096]);
}

/// Protocol A completes before the peer has written: waits until it has.
fn settle(pair: &Pair) {
    crate::wait::until("nothing is under way", || {
        pair.nodes().iter().all(|node| {
            node.status().is_some_and(|s| {
                s.peers.iter().all(|p| p.pending == 0 && p.unacked == 0) && s.local_pending == 0
            })
        })
    });
}

fn program(name: &str, arguments: &[&str]) -> Outcome {
    Outcome::of(command(name, arguments)).ok()
}

fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(std::env::temp_dir());
    command
}
