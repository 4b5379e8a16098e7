//! Which of the paths to a peer is taken.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tandem_control::{PathSpec, ResourceSpec};
use tandem_core::units::NodeId;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::too_slow;

/// For the connection to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A path on which nobody answers must not keep us from the next one for longer.
const HEAD_START: Duration = Duration::from_millis(300);
/// What ends before this was no success.
const SOON: Duration = Duration::from_secs(20);

/// The paths that were taken last, and when.
#[derive(Default)]
pub(super) struct Taken(HashMap<NodeId, (PathSpec, Instant)>);

impl Taken {
    /// This one is taken now.
    pub(super) fn note(&mut self, path: PathSpec) {
        self.0.insert(path.peer, (path, Instant::now()));
    }

    /// All paths to a peer, in the order in which to try them: the one that was taken last is the first one, or the last
    /// one if it did not carry for long.
    pub(super) fn in_order(&self, spec: &ResourceSpec, peer: NodeId, now: Instant) -> VecDeque<PathSpec> {
        let mut paths: VecDeque<PathSpec> = spec.paths_to(peer).copied().collect();
        let Some((last, since)) = self.0.get(&peer) else { return paths };
        if let Some(last) = paths.iter().position(|path| path == last).and_then(|at| paths.remove(at)) {
            match now.saturating_duration_since(*since) < SOON {
                true => paths.push_back(last),
                false => paths.push_front(last),
            }
        }
        paths
    }
}

/// Connects over the first path on which the peer answers; each has a head start over the next one.
pub(super) async fn reach(mut paths: VecDeque<PathSpec>) -> io::Result<(PathSpec, TcpStream)> {
    let mut attempts = JoinSet::new();
    let mut last_error = io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no path to it");
    loop {
        if let Some(path) = paths.pop_front() {
            attempts.spawn_local(async move { (path, dial(&path).await) });
        }
        let patience = if paths.is_empty() { CONNECT_LIMIT * 2 } else { HEAD_START };
        match timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok((path, Ok(stream))))) => return Ok((path, stream)),
            Ok(Some(Ok((_, Err(error))))) => last_error = error,
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => return Err(last_error),
        }
    }
}

/// Connects from this node's end of the path, so that the peer can tell who calls.
pub(super) async fn dial(path: &PathSpec) -> io::Result<TcpStream> {
    let PathSpec { local, remote, .. } = path;
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !local.ip().is_unspecified() && local.is_ipv4() == remote.is_ipv4() {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    timeout(CONNECT_LIMIT, socket.connect(*remote)).await.map_err(too_slow)?
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::proc_drbd::tests::resource;

    fn path(port: u16) -> PathSpec {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        PathSpec { peer: NodeId(2), local: at(0), remote: at(port) }
    }

    #[test]
    fn a_path_that_carried_for_long_is_the_first_choice_and_one_that_did_not_is_the_last() {
        let mut spec = resource(0, Vec::new()).spec;
        spec.paths = [1, 2, 3].map(path).into();
        let ports = |taken: &Taken, now| {
            let order = taken.in_order(&spec, NodeId(2), now);
            order.iter().map(|path| path.remote.port()).collect::<Vec<_>>()
        };
        let mut taken = Taken::default();
        let now = Instant::now();
        assert_eq!(ports(&taken, now), [1, 2, 3]);
        taken.note(path(2));
        assert_eq!(ports(&taken, now), [1, 3, 2]);
        assert_eq!(ports(&taken, now + SOON * 2), [2, 1, 3]);
        taken.note(path(9));
        assert_eq!(ports(&taken, now + SOON * 2), [1, 2, 3]);
    }

    #[test]
    fn the_first_path_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap().port();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let reach = |paths: &[PathSpec]| {
            let paths = paths.iter().copied().collect();
            tokio::task::LocalSet::new().block_on(&runtime, reach(paths))
        };
        let (taken, _) = reach(&[path(nobody), path(there)]).unwrap();
        assert_eq!(taken, path(there));
        let refused = reach(&[path(nobody)]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(reach(&[]).unwrap_err().to_string(), "there is no path to it");
    }
}
