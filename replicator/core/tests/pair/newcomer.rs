//! Somebody connects from the peer's address while a connection with the peer stands.

use tandem_core::authentication::{Authentication, Claim, HmacAlgorithm, Secret};
use tandem_core::config::Options;
use tandem_core::handler::Handler;
use tandem_core::io::{Command, Event, NewcomerAct, NewcomerEvent};
use tandem_core::state::ConnectionState;
use tandem_core::units::{CommandId, NodeId, Timestamp};
use tandem_core::wire::{Message, Stream};
use tandem_core::{Engine, Input, Output};

use crate::harness::Pair;

const PEER: NodeId = NodeId(1);
const US: NodeId = NodeId(0);
/// Our challenges: to the peer, and to the newcomer.
const FIRST: [u8; 32] = [1; 32];
const SECOND: [u8; 32] = [2; 32];

fn known() -> Authentication {
    Authentication { algorithm: HmacAlgorithm::Sha256, secret: Secret::new("Raspberry Jam") }
}

/// All that somebody says who knows the secret, and was challenged with this.
fn introduction(answered: [u8; 32]) -> Vec<Message> {
    let own = [9; 32];
    let proof = |stream| {
        let claim =
            Claim { resource: "r0", stream, prover: PEER, verifier: US, own: &own, answered: &answered };
        Message::Proof { stream, code: known().prove(&claim) }
    };
    vec![
        Message::Challenge { algorithm: HmacAlgorithm::Sha256, challenge: own },
        proof(Stream::Data),
        proof(Stream::Control),
    ]
}

/// A node that is connected to its peer, and what it does.
struct Node {
    engine: Engine,
    now: Timestamp,
    /// To whoever has the connection.
    told: Vec<Message>,
    acts: Vec<NewcomerAct>,
    states: Vec<ConnectionState>,
    closed: bool,
}

impl Node {
    fn connected(authentication: Option<Authentication>) -> Node {
        let options = Options { authentication: authentication.clone(), ..Options::default() };
        let engine = Pair::engine(0, &options, &[] as &[Handler], 1);
        let mut node = Node {
            engine,
            now: Timestamp(0),
            told: Vec::new(),
            acts: Vec::new(),
            states: Vec::new(),
            closed: false,
        };
        node.feed(Input::Command { id: CommandId(1), command: Command::Connect });
        node.feed(Input::PeerConnected { peer: PEER, challenge: FIRST });
        if authentication.is_some() {
            introduction(FIRST)
                .into_iter()
                .for_each(|message| node.feed(Input::PeerMessage { peer: PEER, message }));
        }
        assert!(node.offers_session());
        node.states.clear();
        node
    }

    fn feed(&mut self, input: Input) {
        self.engine.handle(self.now, input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { message, .. } => self.told.push(message),
                Output::Newcomer { act, .. } => self.acts.push(act),
                Output::ClosePeer(_) => self.closed = true,
                Output::Event(Event::Connection { new, .. }) => self.states.push(new),
                _ => {}
            }
        }
    }

    fn newcomer(&mut self, event: NewcomerEvent) {
        self.feed(Input::Newcomer { peer: PEER, event });
    }

    fn somebody_comes(&mut self) {
        self.newcomer(NewcomerEvent::Connected { challenge: SECOND });
    }

    /// Who has the connection is taken for the peer, since the last time that this was asked.
    fn offers_session(&mut self) -> bool {
        std::mem::take(&mut self.told).iter().any(|message| matches!(message, Message::Options { .. }))
    }

    /// The connection has not noticed anything.
    #[track_caller]
    fn assert_undisturbed(&mut self) {
        assert!(!self.closed && self.states.is_empty() && self.told.is_empty(), "{:?}", self.states);
        assert!(!self.acts.contains(&NewcomerAct::Admit));
        self.feed(Input::PeerMessage { peer: PEER, message: Message::Ping });
        assert_eq!(self.told, [Message::PingAck]);
    }
}

#[test]
fn who_does_not_know_the_secret_is_sent_away_and_the_connection_stays() {
    let wrong = Message::Proof { stream: Stream::Data, code: vec![7; 32] };
    let challenge = introduction(SECOND).remove(0);
    // A proof for another connection, a wrong one, our own challenge, another algorithm, and no manners.
    for says in [
        introduction(FIRST),
        vec![challenge.clone(), wrong],
        vec![Message::Challenge { algorithm: HmacAlgorithm::Sha256, challenge: SECOND }],
        vec![Message::Challenge { algorithm: HmacAlgorithm::Md5, challenge: [9; 32] }],
        vec![challenge, Message::Goodbye { outdated: true }],
    ] {
        let mut node = Node::connected(Some(known()));
        node.somebody_comes();
        says.into_iter().for_each(|message| node.newcomer(NewcomerEvent::Says(message)));
        assert_eq!(node.acts.last(), Some(&NewcomerAct::Close));
        node.assert_undisturbed();
    }
}

#[test]
fn who_says_nothing_is_sent_away_in_time_and_who_goes_is_forgotten() {
    let mut node = Node::connected(Some(known()));
    node.somebody_comes();
    node.newcomer(NewcomerEvent::Gone);
    node.assert_undisturbed();
    node.told.clear();
    node.somebody_comes();
    node.now = Timestamp(0).plus_ms(Options::default().timeout_ms);
    node.feed(Input::Tick);
    assert_eq!(node.acts.last(), Some(&NewcomerAct::Close));
    node.assert_undisturbed();
}

#[test]
fn who_knows_the_secret_takes_the_place_of_the_connection() {
    let mut node = Node::connected(Some(known()));
    node.somebody_comes();
    introduction(SECOND).into_iter().for_each(|message| node.newcomer(NewcomerEvent::Says(message)));
    assert_eq!(node.acts.last(), Some(&NewcomerAct::Admit));
    assert!(node.offers_session() && !node.closed);
    assert!(node.states.contains(&ConnectionState::BrokenPipe));
}

/// The peer was there again before its old connection was found dead: it goes on where it is.
#[test]
fn whoever_is_about_to_prove_who_it_is_goes_on_when_the_connection_breaks() {
    let mut node = Node::connected(Some(known()));
    node.somebody_comes();
    let mut says = introduction(SECOND).into_iter();
    node.newcomer(NewcomerEvent::Says(says.next().unwrap()));
    node.told.clear();
    let (how, reason) = (ConnectionState::BrokenPipe, "the connection broke".into());
    node.feed(Input::PeerGone { peer: PEER, how, reason });
    assert_eq!(node.acts.last(), Some(&NewcomerAct::Admit));
    assert!(!node.offers_session());
    says.for_each(|message| node.feed(Input::PeerMessage { peer: PEER, message }));
    assert!(node.offers_session() && !node.closed);
}

#[test]
fn whoever_is_about_to_prove_who_it_is_goes_when_the_peer_is_left() {
    let mut node = Node::connected(Some(known()));
    node.somebody_comes();
    node.feed(Input::Command { id: CommandId(2), command: Command::Disconnect });
    assert!(node.closed && node.acts.contains(&NewcomerAct::Close));
    assert_eq!(node.states.last(), Some(&ConnectionState::StandAlone));
}

#[test]
fn without_a_secret_whoever_comes_is_the_peer() {
    let mut node = Node::connected(None);
    node.somebody_comes();
    assert_eq!(node.acts, [NewcomerAct::Admit]);
    assert!(node.offers_session() && !node.closed);
}
