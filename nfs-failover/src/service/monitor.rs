//! When a service that is up must not stay up: a value that is shown what was seen and says why, if so.

use tandem_control::ResourceStatus;
use tandem_core::state::{DiskState, Role};

/// A daemon that is started anew finds its way back within this; the kernel holds requests meanwhile.
const AWAY_LIMIT_MS: u64 = 30_000;
/// Requests wait for fencing for no longer than a handler may take, and somewhat more.
const FROZEN_LIMIT_MS: u64 = 150_000;
/// Who has gone on alone may meet the other in vain and waits again until that is fenced, which it is at once. Who has been
/// replaced waits on.
const REFUSED_LIMIT_MS: u64 = 2_000;
/// A server that does not answer so often in a row is dead.
const DEAF_LIMIT: u32 = 3;

/// What has been wrong, and since when.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Monitor {
    not_primary_since_ms: Option<u64>,
    frozen_since_ms: Option<u64>,
    without_quorum_since_ms: Option<u64>,
    deaf: u32,
}

impl Monitor {
    /// Looks at a service that is up. `server` is `None` when it was not asked this time.
    pub(crate) fn look(
        &mut self,
        now_ms: u64,
        status: Option<&ResourceStatus>,
        server: Option<bool>,
    ) -> Option<String> {
        let is_primary = status.is_some_and(|s| s.engine.role == Role::Primary);
        let away_ms = lasting(&mut self.not_primary_since_ms, !is_primary, now_ms);
        let is_frozen = status.is_some_and(|s| s.engine.suspended.fencing || s.engine.suspended.quorum);
        let frozen_ms = lasting(&mut self.frozen_since_ms, is_frozen, now_ms);
        let has_quorum = status.is_none_or(|s| s.engine.quorum);
        let without_quorum_ms = lasting(&mut self.without_quorum_since_ms, is_primary && !has_quorum, now_ms);
        match server {
            // Who waits for the volume cannot answer.
            Some(false) if is_primary && !is_frozen && has_quorum => self.deaf += 1,
            Some(_) => self.deaf = 0,
            None => {}
        }
        if let Some(disk) = status.map(|s| s.engine.disk).filter(|disk| is_lost(*disk)) {
            return Some(format!("the disk is {disk}"));
        }
        if self.deaf >= DEAF_LIMIT {
            return Some(format!("the server has not answered {} times in a row", self.deaf));
        }
        if away_ms.is_some_and(|ms| ms >= AWAY_LIMIT_MS) {
            return Some(format!("this node has not been Primary for {} s", AWAY_LIMIT_MS / 1000));
        }
        let refused = status.and_then(|s| s.engine.peers.iter().find_map(|p| p.standalone_reason.as_ref()));
        if let Some(reason) = refused.filter(|_| frozen_ms.is_some_and(|ms| ms >= REFUSED_LIMIT_MS)) {
            return Some(format!("requests wait for a peer that does not talk to this node: {reason}"));
        }
        match without_quorum_ms {
            // Clients are told of errors that they would not see if they had to wait. What works through its peer's disk serves.
            Some(_) if !is_frozen && status.is_some_and(|s| s.engine.disk == DiskState::UpToDate) => {
                return Some("quorum is lost, and requests fail".into());
            }
            Some(ms) if ms >= FROZEN_LIMIT_MS => return Some("quorum is lost, and was not regained".into()),
            _ => {}
        }
        if frozen_ms.is_some_and(|ms| ms >= FROZEN_LIMIT_MS) {
            return Some("the peer could not be fenced: requests have waited too long".into());
        }
        None
    }
}

/// What one look tells of a service that is up; its server is asked again where it does not answer.
pub(super) fn look_once(status: Option<&ResourceStatus>, answers: impl Fn() -> bool) -> Option<String> {
    let mut monitor = Monitor::default();
    for _ in 0..DEAF_LIMIT {
        let answer = answers();
        let trouble = monitor.look(0, status, Some(answer));
        if trouble.is_some() || answer {
            return trouble;
        }
    }
    None
}

/// A Primary may go on with its peer's disk, but who has one of their own serves better. Inconsistent is not lost: it is
/// being made good while the peer's is used.
fn is_lost(disk: DiskState) -> bool {
    matches!(disk, DiskState::Diskless | DiskState::Failed | DiskState::Outdated)
}

/// For how long something has been so.
fn lasting(since_ms: &mut Option<u64>, is_so: bool, now_ms: u64) -> Option<u64> {
    *since_ms = is_so.then(|| since_ms.unwrap_or(now_ms));
    since_ms.map(|since| now_ms.saturating_sub(since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::samples::{primary, secondary};

    #[test]
    fn a_primary_that_serves_is_left_alone() {
        let mut monitor = Monitor::default();
        for now_ms in (0..1_000_000).step_by(10_000) {
            assert_eq!(monitor.look(now_ms, Some(&primary()), Some(true)), None);
        }
    }

    #[test]
    fn a_lost_disk_counts_at_once() {
        for (disk, lost) in [
            (DiskState::Diskless, true),
            (DiskState::Failed, true),
            (DiskState::Outdated, true),
            (DiskState::Inconsistent, false),
            (DiskState::Consistent, false),
        ] {
            let mut status = primary();
            status.engine.disk = disk;
            assert_eq!(Monitor::default().look(0, Some(&status), None).is_some(), lost, "{disk}");
        }
    }

    #[test]
    fn one_look_asks_a_server_again_that_does_not_answer() {
        let asked = std::cell::Cell::new(0);
        let from = |answers_at: u32| {
            asked.set(0);
            look_once(Some(&primary()), || {
                asked.set(asked.get() + 1);
                asked.get() >= answers_at
            })
        };
        assert_eq!((from(1), asked.get()), (None, 1));
        assert_eq!((from(DEAF_LIMIT), asked.get()), (None, DEAF_LIMIT));
        assert!(from(DEAF_LIMIT + 1).is_some_and(|trouble| trouble.contains("has not answered")));
        let mut lost = primary();
        lost.engine.disk = DiskState::Failed;
        assert!(look_once(Some(&lost), || true).is_some_and(|trouble| trouble.contains("disk")));
        let mut waiting = primary();
        waiting.engine.suspended.fencing = true;
        assert_eq!(look_once(Some(&waiting), || false), None, "who waits does not answer");
    }

    #[test]
    fn a_daemon_may_be_away_for_a_while() {
        let mut monitor = Monitor::default();
        assert_eq!(monitor.look(0, None, None), None);
        assert_eq!(monitor.look(AWAY_LIMIT_MS - 1, Some(&secondary()), None), None);
        assert_eq!(monitor.look(AWAY_LIMIT_MS, Some(&primary()), None), None);
        assert_eq!(monitor.look(AWAY_LIMIT_MS + 1, None, None), None);
        assert!(monitor.look(2 * AWAY_LIMIT_MS + 1, None, None).is_some());
    }

    #[test]
    fn frozen_requests_count_when_fencing_takes_too_long() {
        let (mut monitor, mut frozen) = (Monitor::default(), primary());
        frozen.engine.suspended.fencing = true;
        assert_eq!(monitor.look(0, Some(&frozen), None), None);
        assert_eq!(monitor.look(FROZEN_LIMIT_MS - 1, Some(&frozen), None), None);
        assert!(monitor.look(FROZEN_LIMIT_MS, Some(&frozen), None).is_some());
    }

    #[test]
    fn a_primary_that_has_lost_quorum_steps_down_after_a_while() {
        let (mut monitor, mut alone) = (Monitor::default(), primary());
        (alone.engine.quorum, alone.engine.suspended.quorum) = (false, true);
        // Who waits does not answer.
        assert_eq!(monitor.look(0, Some(&alone), Some(false)), None);
        assert_eq!(monitor.look(FROZEN_LIMIT_MS - 1, Some(&primary()), None), None, "regained");
        assert_eq!(monitor.look(FROZEN_LIMIT_MS, Some(&alone), None), None);
        let trouble = monitor.look(2 * FROZEN_LIMIT_MS, Some(&alone), None);
        assert!(trouble.is_some_and(|trouble| trouble.contains("quorum")));
    }

    #[test]
    fn a_primary_whose_requests_fail_without_quorum_steps_down_at_once() {
        let mut failing = primary();
        failing.engine.quorum = false;
        let trouble = Monitor::default().look(0, Some(&failing), None);
        assert!(trouble.is_some_and(|trouble| trouble.contains("requests fail")));
        let mut secondary = secondary();
        secondary.engine.quorum = false;
        assert_eq!(Monitor::default().look(0, Some(&secondary), None), None);
    }

    #[test]
    fn a_server_is_dead_when_it_is_deaf_again_and_again() {
        let mut monitor = Monitor::default();
        let mut ask = |answer| monitor.look(0, Some(&primary()), answer).is_some();
        assert_eq!([Some(false), None, Some(false), Some(true)].map(&mut ask), [false; 4]);
        assert_eq!([Some(false), Some(false), None, Some(false)].map(&mut ask), [false, false, false, true]);
    }

    #[test]
    fn who_waits_for_a_peer_that_has_gone_on_steps_down_soon() {
        let (mut monitor, mut serves) = (Monitor::default(), primary());
        let reason = "I shall become SyncTarget, but I am primary!";
        serves.engine.peers[0].standalone_reason = Some(reason.into());
        assert_eq!(monitor.look(0, Some(&serves), None), None);
        serves.engine.suspended.fencing = true;
        assert_eq!(monitor.look(1, Some(&serves), None), None);
        // Whoever has gone on itself has the other fenced again by then.
        assert_eq!(monitor.look(REFUSED_LIMIT_MS, Some(&primary()), None), None);
        assert_eq!(monitor.look(REFUSED_LIMIT_MS + 1, Some(&serves), None), None);
        let trouble = monitor.look(2 * REFUSED_LIMIT_MS + 1, Some(&serves), None);
        assert!(trouble.is_some_and(|trouble| trouble.ends_with(reason)));
    }

    #[test]
    fn a_server_that_waits_for_the_volume_is_not_dead() {
        let (mut monitor, mut frozen) = (Monitor::default(), primary());
        frozen.engine.suspended.fencing = true;
        for status in [Some(&frozen), Some(&secondary()), None] {
            for _ in 0..=DEAF_LIMIT {
                assert_eq!(monitor.look(0, status, Some(false)), None);
            }
        }
    }
}
