//! What the two nodes' services say to each other, over TCP, each having proven that it knows the shared secret.
//!
//! Never a permission: only tandemd's role change is. A node that was elected asks the other to step back, and waits a
//! while; if the other says nothing, tandemd decides.

mod settings;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::config::{Secret, Service};
use crate::health::{Phase, Replica, ServiceView};
use crate::service::is_own;
use crate::sockets;
pub(crate) use settings::{Settings, differences, settings};
use tandem_control::output::errln;

/// The peer is one; it may ask several things in a row.
const MAX_CONNECTIONS: usize = 16;
/// Between two questions of a conversation.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);

/// What one asks of the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// How are you?
    State,
    /// I was elected: if you serve, step back.
    DemotePlease,
    /// The operator wants you to serve.
    PromotePlease,
    /// A drill: kill your NFS server, if you serve.
    KillServer,
    /// Could the service be moved to you, and is it the same with you?
    Check,
}

/// The answer to all of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerState {
    /// The service there.
    pub view: ServiceView,
    /// The replica there; `None` if tandemd there does not answer.
    pub replica: Option<Replica>,
    /// What was asked for besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
}

/// What a node finds out about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// What its service was started with.
    pub settings: Settings,
    /// Why the service cannot be moved to it.
    pub complaints: Vec<String>,
}

impl PeerState {
    /// Nothing of the service is there any more.
    pub fn is_down(&self) -> bool {
        self.view.phase == Phase::Down && self.view.must_fence.is_none()
    }
}

/// A conversation with the peer's service.
#[derive(Debug)]
pub struct Peer(Channel);

impl Peer {
    /// Connects to the first peer of the service that answers; each answer has to come within `limit`.
    pub fn connect(service: &Service, limit: Duration) -> io::Result<Peer> {
        let Some(secret) = &service.shared_secret else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no peer is configured"));
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no other node's `peer` is configured");
        for address in service.peers.iter().filter(|peer| !is_own(peer.ip())) {
            match Channel::connect(*address, secret, &purpose(&service.name), limit) {
                Ok(channel) => return Ok(Peer(channel)),
                Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        Err(last)
    }

    #[cfg(test)]
    pub(crate) fn over(channel: Channel) -> Peer {
        Peer(channel)
    }

    /// Asks one thing.
    pub fn ask(&mut self, ask: Ask) -> io::Result<PeerState> {
        self.0.send(&ask)?;
        self.0.receive()
    }
}

/// Answers the peer until the process ends.
pub(crate) fn listen(
    listener: TcpListener,
    secret: Secret,
    service: &str,
    answer: impl Fn(Ask) -> PeerState + Send + Sync + 'static,
) -> io::Result<()> {
    let purpose = purpose(service);
    sockets::serve(listener, "peer", MAX_CONNECTIONS, move |stream| {
        let from = stream.peer_addr().ok();
        let result = Channel::accept(stream, &secret, &purpose, QUESTION_LIMIT)
            .and_then(|channel| converse(channel, &answer));
        match result.map_err(|e| (e.kind(), e)) {
            Ok(()) | Err((io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset, _)) => {}
            Err((_, error)) => errln!("a conversation with {}: {error}", shown(from)),
        }
    })
}

fn converse(mut channel: Channel, answer: &impl Fn(Ask) -> PeerState) -> io::Result<()> {
    loop {
        let ask = channel.receive()?;
        channel.send(&answer(ask))?;
    }
}

fn purpose(service: &str) -> String {
    format!("peer {service}")
}

fn shown(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "somebody".into(), |a| a.to_string())
}
