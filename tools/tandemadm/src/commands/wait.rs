//! Commands that wait for a state.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use tandem_control::{ResourceSpec, ResourceStatus};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};
use tandem_core::status::PeerStatus;

use crate::failure::Failure;
use crate::output::{errln, outln};
use crate::progress;
use crate::session::Session;
use crate::status_text::standalone_reason;

pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) fn connect(session: &Session, specs: &[ResourceSpec], timeout_s: u64) -> u8 {
    let deadline = deadline(timeout_s);
    session.for_each("wait-connect", specs, |spec| until(session, spec, deadline, false, is_connected))
}

pub(crate) fn sync(session: &Session, specs: &[ResourceSpec], timeout_s: u64, progress: bool) -> u8 {
    let deadline = deadline(timeout_s);
    let bar = progress || std::io::stderr().is_terminal();
    session.for_each("wait-sync", specs, |spec| until(session, spec, deadline, bar, is_in_sync))
}

/// One for all resources, as if they were waited for at the same time; 0 is never, and so is what no clock can tell.
fn deadline(timeout_s: u64) -> Option<Instant> {
    match timeout_s {
        0 => None,
        seconds => Instant::now().checked_add(Duration::from_secs(seconds)),
    }
}

fn until(
    session: &Session,
    spec: &ResourceSpec,
    deadline: Option<Instant>,
    bar: bool,
    holds: impl Fn(&ResourceStatus) -> bool,
) -> Result<(), Failure> {
    if session.dry_run {
        outln!("wait for {}", spec.name);
        return Ok(());
    }
    let mut drawn = false;
    let result = loop {
        let status = session.require_status(&spec.name)?;
        if let Some(line) = progress::line(&spec.name, &status.engine.peers).filter(|_| bar) {
            draw(&line);
            drawn = true;
        }
        if holds(&status) {
            break Ok(());
        }
        if let Some(peer) =
            status.engine.peers.iter().find(|peer| peer.connection == ConnectionState::StandAlone)
        {
            let reason = standalone_reason(peer).map_or(String::new(), |reason| format!(": {reason}"));
            break Err(Failure::WaitStandAlone(spec.name.clone(), reason));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break Err(Failure::WaitTimeout(spec.name.clone(), describe(&status.engine.peers)));
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    if drawn {
        errln!("");
    }
    result
}

fn is_connected(status: &ResourceStatus) -> bool {
    status.engine.peers.iter().all(|peer| peer.connection == ConnectionState::Connected)
}

/// Nothing flows to a node without a disk: then there is nothing to wait for either.
fn is_in_sync(status: &ResourceStatus) -> bool {
    let settled = |peer: &PeerStatus| match peer.replication {
        ReplicationState::Established => true,
        ReplicationState::Off => [status.engine.disk, peer.disk].contains(&DiskState::Diskless),
        _ => false,
    };
    is_connected(status) && status.engine.peers.iter().all(settled)
}

fn describe(peers: &[PeerStatus]) -> String {
    let states =
        peers.iter().map(|peer| format!("{} is {}, {}", peer.name, peer.connection, peer.replication));
    states.collect::<Vec<_>>().join("; ")
}

/// Redraws the line; a stderr that is gone is no reason to stop waiting.
fn draw(line: &str) {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "\r{line}\x1b[K");
    let _ = stderr.flush();
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
