//! The connections to the peers: how the engine learns of them, of what they say, and of their end.

use std::os::fd::OwnedFd;
use std::time::Instant;

use tandem_control::PathSpec;
use tandem_core::Input;
use tandem_core::io::{NewcomerAct, NewcomerEvent};
use tandem_core::units::NodeId;
use tandem_core::wire::Stream;

use super::EventLoop;
use crate::entropy;
use crate::resource::mailbox::Attempt;
use crate::resource::peer_conn::{Loss, PeerConn};

impl EventLoop {
    pub(super) fn peer_connected(
        &mut self,
        path: PathSpec,
        attempt: Attempt,
        data: OwnedFd,
        control: OwnedFd,
    ) {
        let peer = path.peer;
        // It would not connect if it had not lost the connection that stands; or it is not the peer.
        let is_newcomer = attempt == Attempt::Theirs && self.current.contains_key(&peer);
        if !is_newcomer {
            let Some(&wanted) = self.wanted.get(&peer) else { return };
            if attempt != Attempt::Theirs && attempt != Attempt::Ours(wanted) {
                return;
            }
        }
        let challenge = match entropy::draw_bytes() {
            Ok(challenge) => challenge,
            Err(error) => {
                tracing::error!(peer = peer.0, "cannot connect without random numbers: {error}");
                return;
            }
        };
        let id = self.number();
        self.peers.insert(id, PeerConn::new(path, data, control));
        // Its disk may have grown, and ours too.
        self.measure_disk();
        if is_newcomer {
            if let Some(older) = self.newcomers.insert(peer, id).and_then(|id| self.peers.get_mut(&id)) {
                older.abort();
            }
            return self.feed(Input::Newcomer { peer, event: NewcomerEvent::Connected { challenge } });
        }
        self.wanted.remove(&peer);
        self.current.insert(peer, id);
        self.feed(Input::PeerConnected { peer, challenge });
    }

    /// What is to be done about somebody who wants the place of the connection that stands.
    pub(super) fn act_on_newcomer(&mut self, peer: NodeId, act: NewcomerAct) {
        let newcomer = match act {
            NewcomerAct::Send { .. } => self.newcomers.get(&peer).copied(),
            NewcomerAct::Close | NewcomerAct::Admit => self.newcomers.remove(&peer),
        };
        let Some(id) = newcomer else { return };
        match act {
            NewcomerAct::Send { stream, message } => {
                if let Some(conn) = self.peers.get_mut(&id) {
                    conn.send(stream, &message);
                }
            }
            NewcomerAct::Close => {
                if let Some(conn) = self.peers.get_mut(&id) {
                    conn.close(Instant::now());
                }
            }
            NewcomerAct::Admit => {
                self.wanted.remove(&peer);
                if let Some(old) = self.current.insert(peer, id).and_then(|old| self.peers.get_mut(&old)) {
                    old.abort();
                }
                self.changed = true;
            }
        }
    }

    pub(super) fn take_messages(&mut self, id: u64, stream: Stream) {
        while let Some(conn) = self.peers.get_mut(&id) {
            let peer = conn.peer();
            match conn.next_message(stream, &self.pool) {
                Ok(Some(message)) if self.newcomers.get(&peer) == Some(&id) => {
                    self.feed(Input::Newcomer { peer, event: NewcomerEvent::Says(message) });
                }
                Ok(Some(message)) => self.feed(Input::PeerMessage { peer, message }),
                Ok(None) => break,
                Err(loss) => self.lose(id, loss),
            }
        }
    }

    /// The paths that connections go over.
    pub(super) fn used_paths(&self) -> Vec<PathSpec> {
        self.current.values().filter_map(|id| Some(self.peers.get(id)?.path())).collect()
    }

    /// Ends a connection and tells the engine, if it still knows it.
    pub(super) fn lose(&mut self, id: u64, loss: Loss) {
        let Some(conn) = self.peers.get_mut(&id) else { return };
        conn.abort();
        let peer = conn.peer();
        if self.current.get(&peer) == Some(&id) {
            self.current.remove(&peer);
            self.feed(Input::PeerGone { peer, how: loss.how, reason: loss.reason });
        } else if self.newcomers.get(&peer) == Some(&id) {
            self.newcomers.remove(&peer);
            self.feed(Input::Newcomer { peer, event: NewcomerEvent::Gone });
        }
    }
}
