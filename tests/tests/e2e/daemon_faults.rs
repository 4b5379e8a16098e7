//! What a daemon must not be kept from by others: a peer that hangs, clients that misbehave, strangers at the door.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem_core::state::Role;

use crate::nbd_client::NbdClient;
use crate::node::{Node, RESOURCE, binary};
use crate::pair::{Pair, Setup};
use crate::tcp::connect_from;
use crate::wait;

/// A peer that is silent is left after about five seconds, not after the 42 of ko-count.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn sigterm_behind_a_peer_that_hangs() {
    let pair = Pair::synced(Setup { net: "ping-int 120;", ..Setup::default() });
    let mut client = pair.alpha.client().unwrap();
    client.write(0, &[1; 4096], true).unwrap();
    let bravo = pair.bravo.pid().unwrap();
    kill(bravo, Signal::SIGSTOP).unwrap();
    let writer = std::thread::spawn(move || client.write(4096, &[2; 4096], false).is_ok());
    wait::until("the write waits for bravo", || pair.alpha.status().is_some_and(|s| s.client_pending == 1));
    let start = Instant::now();
    kill(pair.alpha.pid().unwrap(), Signal::SIGTERM).unwrap();
    wait::until("alpha has ended", || pair.alpha.pid().is_none());
    assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    assert!(!pair.alpha.log().contains("treats it as crashed"), "it ended without closing its metadata");
    writer.join().unwrap();
    kill(bravo, Signal::SIGCONT).unwrap();
    pair.alpha.adm(&["up", RESOURCE]).ok();
    pair.alpha.promote();
    pair.wait_healed();
    assert_eq!(pair.alpha.client().unwrap().read(0, 4096).unwrap(), [1; 4096]);
}

/// Whoever read the log may be gone, and its disk may be full: that is no reason to take the data away.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_log_that_cannot_be_written_ends_no_daemon() {
    let pair = Pair::new(Setup::default());
    pair.create_md();
    let alpha = &pair.alpha;
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut daemon = alpha.command(&binary("tandemd")).stderr(full).spawn().unwrap();
    wait::until("tandemd answers", || UnixStream::connect(alpha.run.control_socket()).is_ok());
    alpha.adm(&["up", RESOURCE]).ok();
    alpha.adm(&["primary", "--force", RESOURCE]).ok();
    assert_eq!(alpha.role(), Role::Primary);
    assert_eq!(alpha.pid(), Some(Pid::from_raw(daemon.id() as i32)));
    alpha.adm(&["down", RESOURCE]).ok();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// Clients that ask and do not read, or break the rules with replies outstanding, lose the device soon.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn clients_that_do_not_read_do_not_hold_the_device_open() {
    let pair = Pair::synced(Setup::default());
    // Open connections all the while: that they are closed is for the daemon to see to.
    let mut held = Vec::new();
    for last_words in [&request(0xdead_beef, 0)[..], &request(MAGIC, CMD_DISCONNECT)[..]] {
        let mut stream = opened(&pair.alpha);
        stream.write_all(&request(MAGIC, CMD_READ).repeat(8)).unwrap();
        stream.write_all(last_words).unwrap();
        held.push(stream);
    }
    let mut silent = opened(&pair.alpha);
    silent.write_all(&request(MAGIC, CMD_READ).repeat(8)).unwrap();
    silent.shutdown(std::net::Shutdown::Write).unwrap();
    held.push(silent);
    wait::until("the device is closed", || pair.alpha.status().is_some_and(|s| s.openers.is_empty()));
    pair.alpha.adm(&["secondary", RESOURCE]).ok();
    assert_eq!(pair.alpha.role(), Role::Secondary);
    drop(held);
}

/// Strangers at the TCP ports take no client's place, and cost the log a few lines.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn strangers_neither_shut_clients_out_nor_fill_the_log() {
    let mut pair = Pair::new(Setup::default());
    let nbd_port = crate::pair::free_port();
    let config = pair.folder().join("listening.res");
    let text = std::fs::read_to_string(&pair.alpha.config).unwrap();
    std::fs::write(
        &config,
        text.replacen("global {", &format!("global {{ nbd-listen 127.0.0.1:{nbd_port};"), 1),
    )
    .unwrap();
    pair.alpha.config = config;
    pair.alpha.adm(&["create-md", RESOURCE]).ok();
    pair.alpha.adm(&["up", RESOURCE]).ok();
    pair.alpha.adm(&["primary", "--force", RESOURCE]).ok();

    let silent: Vec<TcpStream> =
        (0..400).map(|_| TcpStream::connect(("127.0.0.1", nbd_port)).unwrap()).collect();
    let mut client = pair.alpha.client().unwrap();
    client.write(0, &[1; 4096], true).unwrap();
    drop(silent);

    let before = pair.alpha.log().lines().count();
    for _ in 0..1000 {
        knock(TcpStream::connect(pair.alpha.address).unwrap());
        knock(connect_from(pair.bravo.address, pair.alpha.address));
        knock(TcpStream::connect(("127.0.0.1", nbd_port)).unwrap());
    }
    client.write(0, &[2; 4096], true).unwrap();
    let lines = pair.alpha.log().lines().count() - before;
    assert!(lines < 100, "3000 connections made {lines} lines");
    assert!(lines > 0, "nothing was said at all");
}

/// It holds no file system that it does not serve, and its files are where they were asked for.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn it_leaves_the_folder_it_was_started_in() {
    let pair = Pair::new(Setup::default());
    pair.create_md();
    let mut up = pair.alpha.command(&binary("tandemadm"));
    up.arg("-c").arg(&pair.alpha.config).args(["up", RESOURCE]);
    up.current_dir(pair.folder()).env("TANDEM_RUN_DIR", "./alpha");
    assert!(up.status().unwrap().success());
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", pair.alpha.pid().unwrap())).unwrap();
    assert_eq!(cwd, std::path::Path::new("/"));
    assert!(pair.alpha.status().is_some());
    kill(pair.alpha.pid().unwrap(), Signal::SIGTERM).unwrap();
    wait::until("the daemon has ended", || pair.alpha.pid().is_none());
}

/// Says nothing of use, and waits until the other side hangs up.
fn knock(mut stream: TcpStream) {
    stream.set_read_timeout(Some(wait::LIMIT)).unwrap();
    // It may hang up at any point.
    let _ = stream.write_all(&[b'x'; 64]);
    let _ = stream.read_to_end(&mut Vec::new());
}

const MAGIC: u32 = 0x2560_9513;
const CMD_READ: u16 = 0;
const CMD_DISCONNECT: u16 = 2;

/// A request about the device's first megabyte.
fn request(magic: u32, command: u16) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend_from_slice(&0u16.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&1u64.to_be_bytes());
    bytes.extend_from_slice(&0u64.to_be_bytes());
    bytes.extend_from_slice(&(1u32 << 20).to_be_bytes());
    bytes
}

/// A connection that has opened the export.
fn opened(node: &Node) -> UnixStream {
    NbdClient::connect(&node.run.nbd_socket(), RESOURCE).unwrap().into_stream()
}
