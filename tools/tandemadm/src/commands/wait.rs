//! Commands that wait for a state.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tandem_control::{ResourceSpec, ResourceStatus};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};
use tandem_core::status::PeerStatus;

use super::countdown::Countdown;
use super::waiting::Waiting;
use crate::bar::{Bar, Bars};
use crate::failure::Failure;
use crate::output::outln;
use crate::progress::{self, clock};
use crate::session::Session;
use crate::status_text::standalone_reason;

pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What the operator sees meanwhile.
pub(super) trait Watched {
    /// Called at every look; the error ends the wait.
    fn look(&mut self, waiting: &Waiting, status: &ResourceStatus) -> Result<(), Failure>;
    /// What is written next begins a line of its own.
    fn end(&mut self);
}

pub(crate) fn connect(session: &Session, waiting: &[Waiting]) -> u8 {
    each(session, "wait-connect", waiting, &mut Bar::new(session.bars), is_connected)
}

pub(crate) fn sync(session: &Session, waiting: &[Waiting], progress: bool) -> u8 {
    each(session, "wait-sync", waiting, &mut Bar::new(session.bars.with(progress)), is_in_sync)
}

/// For all resources, with a countdown if somebody looks at it.
pub(crate) fn at_boot(session: &Session, waiting: &[Waiting], refresh: Duration) -> u8 {
    let somebody = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let (mut countdown, mut nothing) = (None, Bar::new(Bars::Never));
    let watched: &mut dyn Watched = match somebody && !session.dry_run && !waiting.is_empty() {
        true => countdown.insert(Countdown::begin(waiting, refresh)),
        false => &mut nothing,
    };
    each(session, "wait-con-int", waiting, watched, is_connected)
}

/// The time of all begins now, as if they were waited for at the same time.
fn each(
    session: &Session,
    word: &str,
    waiting: &[Waiting],
    watched: &mut dyn Watched,
    holds: impl Fn(&ResourceStatus) -> bool,
) -> u8 {
    let begun = Instant::now();
    let specs: Vec<ResourceSpec> = waiting.iter().map(|one| one.spec.clone()).collect();
    let mut turns = waiting.iter();
    session.for_each(word, &specs, |_| {
        let Some(one) = turns.next() else { return Ok(()) };
        let result = until(session, one, begun, watched, &holds);
        watched.end();
        result
    })
}

fn until(
    session: &Session,
    waiting: &Waiting,
    begun: Instant,
    watched: &mut dyn Watched,
    holds: impl Fn(&ResourceStatus) -> bool,
) -> Result<(), Failure> {
    let name = &waiting.spec.name;
    if session.dry_run {
        outln!("wait for {name}, {}", waiting.limit());
        return Ok(());
    }
    // What no clock can tell is for ever, too.
    let limit = Some(Duration::from_secs(waiting.limit_s)).filter(|limit| !limit.is_zero());
    let deadline = limit.and_then(|limit| begun.checked_add(limit));
    loop {
        let status = session.require_status(name)?;
        let peers = &status.engine.peers;
        if holds(&status) {
            return Ok(());
        }
        if let Some(peer) = peers.iter().find(|peer| peer.connection == ConnectionState::StandAlone)
            && !waiting.after_split_brain
        {
            let reason = standalone_reason(peer).map_or(String::new(), |reason| format!(": {reason}"));
            return Err(Failure::WaitStandAlone(name.clone(), reason));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let text = format!("{} ({})", describe(peers), waiting.limit());
            return Err(Failure::WaitTimeout(name.clone(), text));
        }
        watched.look(waiting, &status)?;
        std::thread::sleep(POLL_INTERVAL);
    }
}

impl Watched for Bar {
    fn look(&mut self, waiting: &Waiting, status: &ResourceStatus) -> Result<(), Failure> {
        let engine = &status.engine;
        self.draw(|elapsed| match progress::line(&engine.resource, &engine.peers) {
            Some(line) => line,
            None => {
                let of =
                    if waiting.limit_s == 0 { "".into() } else { format!(" of {}", clock(waiting.limit_s)) };
                let elapsed = clock(elapsed.as_secs());
                format!("{}: waiting, {}, {elapsed}{of}", engine.resource, describe(&engine.peers))
            }
        });
        Ok(())
    }

    fn end(&mut self) {
        self.leave();
    }
}

fn is_connected(status: &ResourceStatus) -> bool {
    status.engine.peers.iter().all(|peer| peer.connection == ConnectionState::Connected)
}

/// Nothing flows to a node without a disk: then there is nothing to wait for either.
pub(super) fn is_in_sync(status: &ResourceStatus) -> bool {
    let settled = |peer: &PeerStatus| match peer.replication {
        ReplicationState::Established => true,
        ReplicationState::Off => [status.engine.disk, peer.disk].contains(&DiskState::Diskless),
        _ => false,
    };
    is_connected(status) && status.engine.peers.iter().all(settled)
}

pub(super) fn describe(peers: &[PeerStatus]) -> String {
    let states =
        peers.iter().map(|peer| format!("{} is {}, {}", peer.name, peer.connection, peer.replication));
    states.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn in_sync_is_connected_and_established() {
        let mut status = fixture::connected();
        assert!(is_in_sync(&status));
        for state in [ReplicationState::SyncSource, ReplicationState::WFBitMapT, ReplicationState::Off] {
            status.engine.peers[0].replication = state;
            assert!(!is_in_sync(&status), "{state}");
        }
        status.engine.peers[0].disk = DiskState::Diskless;
        assert!(is_in_sync(&status));
        fixture::disconnect(&mut status, ConnectionState::Connecting);
        assert!(!is_in_sync(&status));
    }
}
