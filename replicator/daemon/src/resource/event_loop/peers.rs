//! The connections to the peers: how the engine learns of them, of what they say, and of their end.

use std::os::fd::OwnedFd;

use tandem_control::PathSpec;
use tandem_core::Input;
use tandem_core::state::ConnectionState;
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
        if attempt == Attempt::Theirs
            && let Some(&old) = self.current.get(&peer)
        {
            // It would not connect if it had not lost the old connection; we have not noticed yet.
            let reason = "the peer has connected anew".into();
            self.lose(old, Loss { how: ConnectionState::BrokenPipe, reason });
        }
        let Some(&wanted) = self.wanted.get(&peer) else { return };
        if attempt != Attempt::Theirs && attempt != Attempt::Ours(wanted) {
            return;
        }
        let challenge = match entropy::draw_bytes() {
            Ok(challenge) => challenge,
            Err(error) => {
                tracing::error!(peer = peer.0, "cannot connect without random numbers: {error}");
                return;
            }
        };
        self.wanted.remove(&peer);
        let id = self.number();
        self.peers.insert(id, PeerConn::new(path, data, control));
        self.current.insert(peer, id);
        // Its disk may have grown, and ours too.
        self.measure_disk();
        self.feed(Input::PeerConnected { peer, challenge });
    }

    pub(super) fn take_messages(&mut self, id: u64, stream: Stream) {
        while let Some(conn) = self.peers.get_mut(&id) {
            let peer = conn.peer();
            match conn.next_message(stream, &self.pool) {
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
        }
    }
}
