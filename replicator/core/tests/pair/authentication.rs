//! Peers that must prove who they are.

use tandem_core::authentication::{Authentication, HmacAlgorithm, Secret};
use tandem_core::config::{Options, ResyncOptions};
use tandem_core::handler::Handler;
use tandem_core::io::{Command, Event};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::{CommandId, NodeId, Timestamp};
use tandem_core::wire::{Message, Stream};
use tandem_core::{Engine, Input, Output};

use crate::harness::Pair;
use crate::scene::{connections, peer, start_again};

const PEER: NodeId = NodeId(1);

fn known(algorithm: HmacAlgorithm, secret: &str) -> Option<Authentication> {
    Some(Authentication { algorithm, secret: Secret::new(secret) })
}

/// Time stands still: a resync does not give way to clients.
fn authenticated() -> Options {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    Options { authentication: known(HmacAlgorithm::Sha256, "Raspberry Jam"), resync, ..Options::default() }
}

/// Node 1 comes back, and proves with this.
fn met_again(authentication: Option<Authentication>) -> Pair {
    let mut pair = Pair::with_options(&authenticated());
    pair.up();
    pair.options.authentication = authentication;
    pair.crash(1);
    start_again(&mut pair, 1);
    pair
}

fn reasons(pair: &Pair) -> [String; 2] {
    [0, 1].map(|n| peer(pair, n).standalone_reason.unwrap_or_default())
}

#[test]
fn peers_that_know_the_secret_meet_as_if_there_were_none() {
    for algorithm in HmacAlgorithm::ALL {
        let authentication = known(*algorithm, "Raspberry Jam");
        let mut pair = Pair::with_options(&Options { authentication, ..authenticated() });
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.assert_in_sync();
        pair.write(0, 4096, 7);
        pair.cut();
        pair.settle();
        pair.assert_in_sync();
    }
}

#[test]
fn another_secret_is_told_of_on_both_nodes() {
    let pair = met_again(known(HmacAlgorithm::Sha256, "Raspberry jam"));
    assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
    let reason = "Authentication of peer failed: shared-secret is not the same here and on";
    assert_eq!(reasons(&pair), [format!("{reason} bravo"), format!("{reason} alpha")]);
}

#[test]
fn another_algorithm_is_told_of_on_both_nodes() {
    let pair = met_again(known(HmacAlgorithm::Md5, "Raspberry Jam"));
    assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
    let reason = "Authentication of peer failed: cram-hmac-alg is";
    assert_eq!(
        reasons(&pair),
        [format!("{reason} sha256 here and md5 on bravo"), format!("{reason} md5 here and sha256 on alpha")]
    );
}

#[test]
fn a_node_without_a_secret_is_told_of_on_both_nodes() {
    let pair = met_again(None);
    assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
    let reason = "Authentication of peer failed: cram-hmac-alg and shared-secret are set";
    assert_eq!(
        reasons(&pair),
        [format!("{reason} here and not on bravo"), format!("{reason} on alpha and not here")]
    );
}

#[test]
fn who_only_asks_what_would_happen_is_told_so() {
    let mut pair = met_again(known(HmacAlgorithm::Sha256, "Raspberry jam"));
    pair.command(0, Command::Connect).unwrap();
    let ask = Command::ConnectWith { discard_my_data: false, tentative: true };
    pair.command(1, ask).unwrap();
    assert!(
        reasons(&pair)[1].starts_with("dry-run connect: Would be refused: Authentication of peer failed: ")
    );
}

#[test]
fn a_secret_changes_while_connected_and_counts_from_the_next_connection_on() {
    let mut pair = Pair::with_options(&authenticated());
    pair.up();
    for n in 0..2 {
        let authentication = known(HmacAlgorithm::Sha1, "Blackberry Jam");
        let options = Box::new(Options { authentication, ..authenticated() });
        pair.command(n, Command::SetOptions { options, handlers: Default::default() }).unwrap();
        assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    }
    pair.cut();
    pair.settle();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
}

#[test]
fn a_proof_that_comes_late_on_one_stream_holds_up_what_the_other_brings() {
    let mut pair = Pair::with_options(&authenticated());
    pair.hold = Some(|message| matches!(message, Message::Proof { stream: Stream::Control, .. }));
    pair.up();
    assert_eq!(connections(&pair), [ConnectionState::Connecting; 2]);
    // One of them goes on, as far as it can without the other.
    pair.deliver_first();
    assert_eq!(connections(&pair), [ConnectionState::Connecting; 2]);
    pair.deliver();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
}

#[test]
fn a_proof_may_overtake_the_challenge_on_the_other_stream() {
    let mut pair = Pair::with_options(&authenticated());
    pair.hold = Some(|message| {
        matches!(message, Message::Challenge { .. } | Message::Proof { stream: Stream::Data, .. })
    });
    pair.up();
    pair.deliver_first();
    pair.deliver();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    let wrong = || Message::Proof { stream: Stream::Control, code: vec![0; 32] };
    let met = Met::new().says(wrong());
    assert!(!met.closed);
    assert_eq!(met.says(challenge(2)).ends_up().0, ConnectionState::StandAlone);
    let twice = Met::new().says(wrong()).says(wrong());
    assert_eq!(twice.ends_up().0, ConnectionState::Connecting);
}

#[test]
fn a_node_that_leaves_before_it_is_proved_who_the_peer_is_closes_the_connection() {
    let mut pair = Pair::with_options(&authenticated());
    pair.hold = Some(|message| matches!(message, Message::Proof { .. }));
    pair.up();
    pair.command(0, Command::Disconnect).unwrap();
    assert_eq!(connections(&pair), [ConnectionState::StandAlone, ConnectionState::Connecting]);
    assert_eq!(pair.connections_lost, 1);
    pair.drop_held();
    pair.command(0, Command::Connect).unwrap();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_and_tried_again() {
    let mut pair = Pair::with_options(&authenticated());
    pair.hold = Some(|message| matches!(message, Message::Proof { .. }));
    pair.up();
    pair.run_until(|pair| pair.now >= Timestamp(0).plus_ms(Options::default().timeout_ms));
    assert!(pair.warnings.iter().any(|(_, text)| text == "the peer has not proved in time who it is"));
    pair.drop_held();
    pair.run_until(|pair| connections(pair) == [ConnectionState::Connected; 2]);
}

// A stranger that has the peer's address.

/// A node that a stranger has connected to, and what it has told the stranger.
struct Met {
    engine: Engine,
    told: Vec<Message>,
    closed: bool,
}

impl Met {
    fn new() -> Met {
        let engine = Pair::engine(0, &authenticated(), &[] as &[Handler], 1);
        let mut met = Met { engine, told: Vec::new(), closed: false };
        met.feed(Input::Command { id: CommandId(1), command: Command::Connect });
        met.feed(Input::PeerConnected { peer: PEER, challenge: [1; 32] });
        met
    }

    fn feed(&mut self, input: Input) {
        self.engine.handle(Timestamp(0), input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { message, .. } => self.told.push(message),
                Output::ClosePeer(_) => self.closed = true,
                Output::Event(Event::Connection { new, .. }) => assert_ne!(new, ConnectionState::Connected),
                _ => {}
            }
        }
    }

    fn says(mut self, message: Message) -> Met {
        self.feed(Input::PeerMessage { peer: PEER, message });
        self
    }

    fn ends_up(&self) -> (ConnectionState, String) {
        assert!(self.closed);
        let peer = self.engine.status(Timestamp(0)).peers.remove(0);
        assert_eq!((peer.role, peer.disk), (Role::Unknown, DiskState::DUnknown));
        (peer.connection, peer.standalone_reason.unwrap_or_default())
    }
}

fn challenge(byte: u8) -> Message {
    Message::Challenge { algorithm: HmacAlgorithm::Sha256, challenge: [byte; 32] }
}

#[test]
fn a_challenge_that_is_sent_back_is_not_answered() {
    let met = Met::new();
    let ours = met.told[0].clone();
    assert_eq!(ours, challenge(1));
    let met = met.says(ours);
    assert_eq!(met.told.len(), 1, "{:?}", met.told);
    let (connection, reason) = met.ends_up();
    assert_eq!(connection, ConnectionState::StandAlone);
    assert!(reason.contains("sent back this node's own challenge (a reflection attack)"), "{reason}");
}

#[test]
fn a_proof_that_is_sent_back_proves_nothing() {
    let met = Met::new().says(challenge(2));
    let proofs = met.told[1..].to_vec();
    assert_eq!(proofs.iter().map(Message::stream).collect::<Vec<_>>(), [Stream::Data, Stream::Control]);
    for proof in proofs {
        let met = Met::new().says(challenge(2)).says(proof);
        let (connection, reason) = met.ends_up();
        assert_eq!(connection, ConnectionState::StandAlone);
        assert_eq!(reason, "Authentication of peer failed: shared-secret is not the same here and on bravo");
    }
}

/// Whatever is said before the proofs, even what a peer that leaves or refuses says, is not believed.
#[test]
fn a_stranger_is_not_listened_to() {
    let proof = |stream| Message::Proof { stream, code: vec![0; 32] };
    let before_a_challenge = [
        Message::Goodbye { outdated: true },
        Message::Refuse { reason: "go away".into() },
        Message::State { role: Role::Primary, disk: DiskState::UpToDate },
        Message::OutdateRequest,
        Message::PromoteReply { id: 1, granted: true },
        Message::Ping,
        Message::BehindAck { id: 1 },
        proof(Stream::Data),
    ];
    for message in before_a_challenge {
        let met = Met::new().says(message);
        assert_eq!((met.told.len(), met.ends_up()), (1, (ConnectionState::Connecting, String::new())));
    }
    for message in [challenge(3), Message::Goodbye { outdated: true }, Message::PingAck] {
        let met = Met::new().says(challenge(2)).says(message);
        assert_eq!((met.told.len(), met.ends_up()), (3, (ConnectionState::Connecting, String::new())));
    }
}
