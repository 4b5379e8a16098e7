//! Peers that cannot be joined: another wire version, another configuration, a disk too small.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use bytes::BytesMut;
use tandem_core::config::Protocol;
use tandem_core::state::ConnectionState;
use tandem_core::units::NodeId;
use tandem_core::wire::{
    FRAME_HEADER_BYTES, FrameHeader, Message, Preamble, Stream, VERSION_MAX, VERSION_MIN, decode, encode,
};

use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::tcp::connect_from;
use crate::wait;

const FUTURE: u16 = 999;

/// A node of the future connects: it is told why not, and so is our operator.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn newer_peer_connects() {
    let pair = alpha_alone();
    let mut stream = connect_from(pair.bravo.address, pair.alpha.address);
    send(&mut stream, &future_preamble(Stream::Data));
    let reason = refusal(&mut stream);
    assert!(reason.contains("incompatible wire protocol versions"), "{reason}");
    assert!(reason.contains("999"), "{reason}");
    operator_learns(&pair.alpha, "incompatible wire protocol versions");
    alpha_still_serves(&pair);
}

/// We connect to a node of the future, and it answers with its own version.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn newer_peer_answers() {
    let pair = alpha_alone();
    let listener = TcpListener::bind(pair.bravo.address).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let stream_wanted = match receive(&mut stream) {
        Message::Preamble(preamble) => preamble.stream,
        other => panic!("the first frame is {other:?}"),
    };
    send(&mut stream, &future_preamble(stream_wanted));
    operator_learns(&pair.alpha, "incompatible wire protocol versions");
    alpha_still_serves(&pair);
}

/// A peer is taken away while it introduces itself: it is not told to give up, for it may be a peer again soon.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn peer_taken_away_in_the_handshake() {
    let pair = alpha_alone();
    // Two, for the second shows when the first has been let in.
    let [mut first, mut second] = [(); 2].map(|()| connect_from(pair.bravo.address, pair.alpha.address));
    send(&mut second, &Message::Refuse { reason: String::new() });
    operator_learns(&pair.alpha, "did not start with a preamble");
    pair.alpha.adm(&["del-peer", RESOURCE]).ok();
    send(&mut first, &future_preamble(Stream::Data));
    let mut rest = Vec::new();
    first.set_read_timeout(Some(wait::LIMIT)).unwrap();
    first.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "a refusal ends the attempts of a peer for good: {rest:?}");
    operator_learns(&pair.alpha, "closed a connection from an address that is no peer's");
}

/// Somebody at alpha's address connects to bravo, to which alpha is connected. It does not know the secret: nobody notices.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn impostor_beside_the_peer() {
    let net = "cram-hmac-alg sha1; shared-secret \"Raspberry Jam\"; ping-timeout 200;";
    let pair = Pair::synced(Setup { net, ..Setup::default() });
    let mut streams = [Stream::Data, Stream::Control].map(|kind| {
        let mut stream = connect_from(pair.alpha.address, pair.bravo.address);
        stream.set_read_timeout(Some(wait::LIMIT)).unwrap();
        send(
            &mut stream,
            &Message::Preamble(Preamble {
                version_min: VERSION_MIN,
                version_max: VERSION_MAX,
                stream: kind,
                session: 1,
                from: NodeId(0),
                to: NodeId(1),
                resource: RESOURCE.into(),
                node_name: "alpha".into(),
            }),
        );
        stream
    });
    assert!(streams.iter_mut().all(|stream| matches!(receive(stream), Message::Preamble(_))));
    assert!(matches!(receive(&mut streams[0]), Message::Challenge { .. }));
    let goodbye = Message::Goodbye { outdated: true };
    send(&mut streams[goodbye.stream() as usize], &goodbye);
    let sent_away = "sent somebody at the peer's address away";
    wait::until("it is sent away", || pair.bravo.log().contains(sent_away));
    let connected = Some(ConnectionState::Connected);
    assert!(pair.nodes().iter().all(|node| node.connection() == connected));
    pair.alpha.client().unwrap().write(0, &[1; 4096], true).unwrap();
    pair.wait_healed();
    assert!(!pair.bravo.log().contains("connected anew"), "{}", pair.bravo.log());
    pair.assert_identical();
}

/// Both nodes' files must agree on the protocol.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn other_protocol_is_refused() {
    let mut pair = Pair::new(Setup { protocol: Protocol::C, ..Setup::default() });
    pair.create_md();
    let other = pair.folder().join("other.res");
    let text = std::fs::read_to_string(&pair.bravo.config).unwrap().replace("protocol C", "protocol A");
    std::fs::write(&other, text).unwrap();
    pair.bravo.config = other;
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    for node in pair.nodes() {
        operator_learns(node, "protocol");
        wait::until("the connection is given up", || node.connection() == Some(ConnectionState::StandAlone));
    }
}

/// A peer whose disk cannot hold what is on ours.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn smaller_disk_is_refused() {
    let pair = Pair::new(Setup { disk_bytes: [32 << 20, 16 << 20], ..Setup::default() });
    pair.create_md();
    pair.alpha.adm(&["up", RESOURCE]).ok();
    pair.alpha.adm(&["primary", "--force", RESOURCE]).ok();
    let mut client = pair.alpha.client().unwrap();
    let last = client.size - 4096;
    client.write(last, &[1; 4096], true).unwrap();
    pair.bravo.adm(&["up", RESOURCE]).ok();
    operator_learns(&pair.alpha, "The peer's disk size is too small!");
    assert_eq!(client.read(last, 4096).unwrap(), [1; 4096], "nothing was cut off");
    let status = pair.alpha.adm(&["status", "--why", RESOURCE]).ok().stdout;
    assert!(status.contains("too small"), "the status does not say why there is no connection: {status}");
}

fn alpha_alone() -> Pair {
    let pair = Pair::new(Setup::default());
    pair.create_md();
    pair.alpha.adm(&["up", RESOURCE]).ok();
    pair.alpha.adm(&["primary", "--force", RESOURCE]).ok();
    pair
}

fn alpha_still_serves(pair: &Pair) {
    let mut client = pair.alpha.client().unwrap();
    client.write(4096, &[2; 4096], true).unwrap();
    assert_eq!(client.read(4096, 4096).unwrap(), [2; 4096]);
}

/// In the status or in the log.
fn operator_learns(node: &Node, text: &str) {
    wait::until(&format!("{}'s operator reads '{text}'", node.name), || {
        let reason = node.peer().and_then(|p| p.standalone_reason).unwrap_or_default();
        reason.contains(text) || node.log().contains(text)
    });
}

fn future_preamble(stream: Stream) -> Message {
    Message::Preamble(Preamble {
        version_min: FUTURE,
        version_max: FUTURE,
        stream,
        session: 1,
        from: NodeId(1),
        to: NodeId(0),
        resource: RESOURCE.into(),
        node_name: "bravo".into(),
    })
}

fn send(stream: &mut TcpStream, message: &Message) {
    let mut frame = BytesMut::new();
    encode(message, &mut frame);
    stream.write_all(&frame).unwrap();
}

/// The sentence of the refusal; frames before it are skipped.
fn refusal(stream: &mut TcpStream) -> String {
    loop {
        if let Message::Refuse { reason } = receive(stream) {
            return reason;
        }
    }
}

fn receive(stream: &mut TcpStream) -> Message {
    stream.set_read_timeout(Some(wait::LIMIT)).unwrap();
    let mut header = [0; FRAME_HEADER_BYTES];
    let from: SocketAddr = stream.peer_addr().unwrap();
    stream.read_exact(&mut header).unwrap_or_else(|e| panic!("{from} hung up without a word: {e}"));
    let header = FrameHeader::parse(&header).unwrap();
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body).unwrap();
    let mut payload = vec![0; header.payload_bytes as usize];
    stream.read_exact(&mut payload).unwrap();
    decode(&header, &body, payload.into()).unwrap()
}
