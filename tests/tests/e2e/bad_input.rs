//! Garbage on every socket of a running pair: the daemons live on, clients and peers are not disturbed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tandem_control::{MAX_LINE_BYTES, Request};
use tandem_core::state::ConnectionState;

use crate::history::History;
use crate::node::Node;
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::tcp::connect_from;
use crate::wait;
use crate::workload::Workload;

/// Connections that say nothing, held open during the whole test.
const SILENT: usize = 50;
/// Random inputs on each socket.
const RANDOM_INPUTS: usize = 50;

trait Conversation: Read + Write {}
impl<T: Read + Write> Conversation for T {}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn peer_port() {
    let mut inputs = vec![
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(),
        frame_header(1, u32::MAX, 0),
        frame_header(1, 0, u32::MAX),
        frame_header(1, 4096, 32 << 20),
        frame_header(9999, 0, 0),
        frame_header(11, 16, 0),
        b"TNDM".to_vec(),
        vec![0; 1 << 20],
    ];
    inputs.push(frame_header(1, 100, 0)[..20].to_vec());
    bombard("peer port, from a peer", &inputs, |pair, node| {
        Box::new(connect_from(pair.other(node).address, node.address))
    });
    bombard("peer port, from elsewhere", &inputs, |_, node| {
        Box::new(TcpStream::connect_timeout(&node.address, wait::LIMIT).unwrap())
    });
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn nbd_socket() {
    let option = |flags: u32, option: u32, length: u32, data: &[u8]| {
        let mut bytes = flags.to_be_bytes().to_vec();
        bytes.extend_from_slice(b"IHAVEOPT");
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(data);
        bytes
    };
    let opened = |request: &[u8]| {
        let mut bytes = option(3, 7, 8, b"\0\0\0\x02r0\0\0");
        bytes.extend_from_slice(request);
        bytes
    };
    let request = |magic: u32, command: u16, offset: u64, length: u32| {
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend_from_slice(&0u16.to_be_bytes());
        bytes.extend_from_slice(&command.to_be_bytes());
        bytes.extend_from_slice(&1u64.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes
    };
    const MAGIC: u32 = 0x2560_9513;
    let inputs = [
        option(0xffff_ffff, 7, 0, b""),
        option(3, 7, u32::MAX, b""),
        option(3, 7, 8, b"\xff\xff\xff\xffr0\0\0"),
        option(3, 7, 8, b"\0\0\0\x02r0\xff\xff"),
        option(3, 7, 5006, &[&5000u32.to_be_bytes()[..], &[b'x'; 5002]].concat()),
        option(3, 1, u32::MAX, b"name"),
        option(3, 0xdead_beef, 4, b"data"),
        option(3, 5, 0, b""),
        b"\0\0\0\x03IHAVEOPS".to_vec(),
        opened(&request(0xdead_beef, 0, 0, 512)),
        opened(&request(MAGIC, 99, 0, 512)),
        opened(&request(MAGIC, 0, u64::MAX - 511, 512)),
        opened(&request(MAGIC, 0, 0, u32::MAX)),
        opened(&request(MAGIC, 0, 1, 511)),
        opened(&request(MAGIC, 1, u64::MAX, 0)),
        // The payload that should follow never comes, or only in part.
        opened(&request(MAGIC, 1, 16 << 20, u32::MAX)),
        opened(&[&request(MAGIC, 1, 16 << 20, 65536)[..], &[1; 1000]].concat()),
        // Replies that nobody reads.
        opened(&request(MAGIC, 0, 0, 1 << 20).repeat(1000)),
    ];
    bombard("NBD socket", &inputs, |_, node| Box::new(UnixStream::connect(node.run.nbd_socket()).unwrap()));
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn control_socket() {
    let request = |resource: &str| {
        let mut line = serde_json::to_vec(&Request::Status { resource: Some(resource.into()) }).unwrap();
        line.push(b'\n');
        line
    };
    let inputs = [
        b"\n".to_vec(),
        b"{}\n".to_vec(),
        b"null\n".to_vec(),
        b"{\"request\":\"explode\"}\n".to_vec(),
        b"{\"request\":\"act\",\"resource\":\"r0\"}\n".to_vec(),
        b"{\"request\":\"act\",\"resource\":\"r0\",\"action\":\"explode\"}\n".to_vec(),
        b"{\"request\":\"up\",\"spec\":{}}\n".to_vec(),
        b"{\"request\":\"sta".to_vec(),
        [b"[".repeat(1 << 20), b"\n".to_vec()].concat(),
        vec![b' '; MAX_LINE_BYTES + 2],
        vec![b'\n'; 1 << 20],
        b"\xff\xfe\n".to_vec(),
        request("nosuch"),
        request(&"x".repeat(1 << 20)),
        request("r0").repeat(1000),
    ];
    bombard("control socket", &inputs, |_, node| {
        Box::new(UnixStream::connect(node.run.control_socket()).unwrap())
    });
}

/// While clients write, sends every input, and random ones, to both nodes' sockets; nothing may happen to the pair.
fn bombard(what: &str, inputs: &[Vec<u8>], connect: impl Fn(&Pair, &Node) -> Box<dyn Conversation>) {
    let pair = Pair::synced(Setup::default());
    let mut random = Random::from_env(what);
    let history = Arc::new(History::new(2048));
    let pids = pair.nodes().map(Node::pid);
    let clients = Workload::start(&pair.alpha, &history, &mut random);
    let silent: Vec<_> =
        pair.nodes().iter().flat_map(|node| (0..SILENT).map(|_| connect(&pair, node))).collect();
    let noise: Vec<Vec<u8>> = (0..RANDOM_INPUTS)
        .map(|_| {
            let length = random.below(9000) as usize;
            random.bytes(length)
        })
        .collect();
    for node in pair.nodes() {
        for input in inputs.iter().chain(&noise) {
            // The other side may hang up at any point.
            let mut conversation = connect(&pair, node);
            let _ = conversation.write_all(input);
            let _ = conversation.flush();
        }
        clients.wait_for_operations(20);
    }
    clients.stop();
    drop(silent);
    assert_eq!(pair.nodes().map(Node::pid), pids, "a daemon died");
    assert!(pair.is_healed(), "the connection was lost");
    assert!(pair.nodes().iter().all(|n| n.connection() == Some(ConnectionState::Connected)));
    let found = crate::workload::read_versions(&pair.alpha, &history).unwrap();
    history.check_nothing_lost(&found).unwrap();
    pair.assert_identical();
    memory_is_bounded(&pair);
}

fn memory_is_bounded(pair: &Pair) {
    for node in pair.nodes() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid().unwrap())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 512 << 10, "{}: {line}", node.name);
    }
}

/// A peer that was promised nothing gets a refusal or the end of the connection, and soon.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn garbage_is_answered_by_hanging_up() {
    let pair = Pair::synced(Setup::default());
    let mut stream = connect_from(pair.bravo.address, pair.alpha.address);
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nAccept: everything there is, please\r\n\r\n").unwrap();
    let mut answer = [0; 4096];
    wait::until("the daemon hangs up", || match stream.read(&mut answer) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    });
    wait::until("the log says so", || pair.alpha.log().contains("not a Tandem frame"));
}

/// A frame's first 24 bytes as `tandem_core::wire` lays them out, checksums left zero.
fn frame_header(kind: u16, body_bytes: u32, payload_bytes: u32) -> Vec<u8> {
    let mut bytes = b"TNDM".to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&body_bytes.to_le_bytes());
    bytes.extend_from_slice(&payload_bytes.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes
}
