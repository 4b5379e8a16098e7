//! `resync-after`: resources whose disks share a spindle or a link resync one after the other.

use tandem_control::ResourceStatus;
use tandem_core::state::ReplicationState;

use crate::daemon::Daemon;

/// Tells each resource whether its resync must wait, if that is not what it believes.
pub(crate) fn keep(daemon: &Daemon, all: &[ResourceStatus]) {
    for status in all.iter().filter(|status| !status.engine.peers.is_empty()) {
        let waits = status.engine.peers.iter().any(|peer| peer.resync_suspended.dependency);
        let must_wait = comes_later(status, all);
        if waits != must_wait
            && let Ok(entry) = daemon.entry(&status.spec.name)
        {
            entry.resource.resync_must_wait(must_wait);
        }
    }
}

/// True if a resource that comes before this one, or before that, has a resync to do. The configuration has no circle;
/// what is up may be of several configurations, so the way is no longer than there are resources.
fn comes_later(status: &ResourceStatus, all: &[ResourceStatus]) -> bool {
    let mut before = status.spec.resync_after.as_deref();
    for _ in all {
        let Some(ancestor) = before.and_then(|name| all.iter().find(|s| s.spec.name == name)) else {
            return false;
        };
        if ancestor.spec.name != status.spec.name && has_resync(ancestor) {
            return true;
        }
        before = ancestor.spec.resync_after.as_deref();
    }
    false
}

/// Under way, or paused.
fn has_resync(status: &ResourceStatus) -> bool {
    status.engine.peers.iter().any(|peer| {
        let state = peer.replication;
        let beginning = matches!(state, ReplicationState::WFBitMapS | ReplicationState::WFBitMapT);
        beginning || state.is_source() || state.is_target()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc_drbd::tests::{peer, resource};

    fn named(name: &str, after: Option<&str>, state: ReplicationState) -> ResourceStatus {
        let mut status = resource(0, vec![peer()]);
        status.spec.name = name.into();
        status.spec.resync_after = after.map(String::from);
        status.engine.peers[0].replication = state;
        status
    }

    #[test]
    fn whoever_comes_later_waits_for_all_before_it() {
        use ReplicationState::{Established, PausedSyncS, SyncTarget};
        let later = |all: &[ResourceStatus]| all.iter().map(|s| comes_later(s, all)).collect::<Vec<_>>();
        let chain = |a, b, c| [named("a", None, a), named("b", Some("a"), b), named("c", Some("b"), c)];
        assert_eq!(later(&chain(SyncTarget, SyncTarget, SyncTarget)), [false, true, true]);
        assert_eq!(later(&chain(Established, PausedSyncS, SyncTarget)), [false, false, true]);
        assert_eq!(later(&chain(Established, Established, SyncTarget)), [false; 3]);
        assert_eq!(later(&[named("x", Some("not-up"), SyncTarget)]), [false]);
    }

    #[test]
    fn a_circle_of_two_configurations_is_left() {
        let all = [
            named("a", Some("b"), ReplicationState::Established),
            named("b", Some("a"), ReplicationState::Established),
        ];
        assert!(!comes_later(&all[0], &all));
    }
}
