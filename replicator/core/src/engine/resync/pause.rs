//! Pauses: by the administrator here, by the peer, and by `resync-after` while another resource's resync comes first.
//!
//! A paused target asks for nothing; what is under way ends. Each side tells the other whether it wants a pause.

use crate::engine::Engine;
use crate::engine::peer::Peer;
use crate::refusal::{PAUSE_IS_CLEAR, PAUSE_IS_DEPENDENCY, PAUSE_IS_PEERS, PAUSE_IS_SET};
use crate::state::ReplicationState;
use crate::status::ResyncSuspended;
use crate::units::NodeId;
use crate::wire::Message;

/// Why this node wants resyncs to wait.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::engine) struct OwnPause {
    user: bool,
    dependency: bool,
}

/// What both sides know of each other's pauses, of this connection.
#[derive(Clone, Default, Debug)]
pub(in crate::engine) struct PeerPause {
    /// The peer wants a pause.
    theirs: bool,
    /// The last word that the peer has of ours.
    told: bool,
}

impl Engine {
    // Commands and other resources.

    pub(in crate::engine) fn pause_sync(&mut self) -> Result<(), (u16, &'static str)> {
        if std::mem::replace(&mut self.resync_pause.user, true) { Err(PAUSE_IS_SET) } else { Ok(()) }
    }

    pub(in crate::engine) fn resume_sync(&mut self) -> Result<(), (u16, &'static str)> {
        if std::mem::take(&mut self.resync_pause.user) {
            return Ok(());
        }
        Err(match self.resync_pause.dependency {
            true => PAUSE_IS_DEPENDENCY,
            false if self.peers.iter().any(|p| p.pause.theirs) => PAUSE_IS_PEERS,
            false => PAUSE_IS_CLEAR,
        })
    }

    /// The resync of another resource comes first, or no longer.
    pub(in crate::engine) fn resync_must_wait(&mut self, wait: bool) {
        self.resync_pause.dependency = wait;
    }

    pub(in crate::engine) fn sync_pause_received(&mut self, id: NodeId, paused: bool) -> Result<(), String> {
        if let Some(peer) = self.peer_mut(id) {
            peer.pause.theirs = paused;
        }
        Ok(())
    }

    // What follows.

    /// Tells the peer what we want, and shows what comes of both sides' wishes.
    pub(super) fn progress_pause(&mut self, id: NodeId) {
        let OwnPause { user, dependency } = self.resync_pause;
        let ours = user || dependency;
        let Some(peer) = self.peer_mut(id).filter(|p| p.is_connected()) else { return };
        if std::mem::replace(&mut peer.pause.told, ours) != ours {
            self.send(id, Message::SyncPause { paused: ours });
        }
        let Some(peer) = self.peer(id) else { return };
        let paused = self.is_paused(peer);
        let state = match peer.replication {
            ReplicationState::SyncSource if paused => ReplicationState::PausedSyncS,
            ReplicationState::SyncTarget if paused => ReplicationState::PausedSyncT,
            ReplicationState::PausedSyncS if !paused => ReplicationState::SyncSource,
            ReplicationState::PausedSyncT if !paused => ReplicationState::SyncTarget,
            unchanged => unchanged,
        };
        let now = self.now;
        if let Some(progress) = self.peer_mut(id).and_then(|p| p.progress.as_mut()) {
            progress.note_pause(now, paused);
        }
        self.set_replication(id, state);
    }

    pub(super) fn is_paused(&self, peer: &Peer) -> bool {
        self.resync_pause != OwnPause::default() || peer.pause.theirs
    }

    /// Why resyncs with the peer are paused.
    pub(in crate::engine) fn resync_suspended(&self, peer: &Peer) -> ResyncSuspended {
        let OwnPause { user, dependency } = self.resync_pause;
        ResyncSuspended { user, peer: peer.pause.theirs, dependency }
    }
}
