//! `new-path` and `del-path`: the ways to a peer that a resource that is up knows. A connection stays while its path does; without
//! it, it is made anew over another one.

use tandem_control::{Action, NodeSpec, PathSpec, Request, ResourceSpec, ResourceStatus};
use tandem_core::refusal::{ALREADY_EXISTS, INVALID_REQUEST};

use super::peers::{each, is_connected, refusal};
use crate::cli::PathNames;
use crate::failure::Failure;
use crate::session::Session;

/// What is done to paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// The peer is reached by them, too.
    Add,
    /// The peer is not reached by them any more.
    Remove,
}

/// Each `RES`, `RES:PEER` or `all` in turn.
pub(crate) fn change(
    session: &Session,
    word: &str,
    names: &PathNames,
    change: Change,
) -> Result<u8, Failure> {
    each(session, word, &names.names, |status, configured, peer| {
        let one =
            names.local.zip(names.remote).map(|(local, remote)| PathSpec { peer: peer.id, local, remote });
        let meant = one.map_or_else(|| configured.paths_to(peer.id).copied().collect(), |one| vec![one]);
        let becomes = change.applied(status, configured, peer, &meant)?;
        let is_cut = is_cut(status, &becomes);
        if is_cut {
            session.act(&becomes.name, Action::Disconnect)?;
        }
        let (name, request) = (becomes.name.clone(), Request::Change { spec: Box::new(becomes) });
        let changed = session.change(&request);
        if is_cut {
            session.act(&name, Action::Connect { discard_my_data: false, tentative: false })?;
        }
        changed
    })
}

/// A path in use is none of the resource's any more.
pub(super) fn is_cut(status: &ResourceStatus, becomes: &ResourceSpec) -> bool {
    status.used_paths.iter().any(|path| !becomes.paths.contains(path))
}

impl Change {
    /// The resource with this done to it.
    pub(super) fn applied(
        self,
        status: &ResourceStatus,
        configured: &ResourceSpec,
        peer: &NodeSpec,
        meant: &[PathSpec],
    ) -> Result<ResourceSpec, Failure> {
        let mut spec = status.spec.clone();
        let refused = |number, why| Err(refusal(&status.spec.name, number, why));
        if !spec.peers.iter().any(|one| one.id == peer.id) {
            return refused(INVALID_REQUEST, "unknown connection");
        }
        let is_known = |path: &&PathSpec| status.spec.paths.contains(path);
        match self {
            Change::Add if meant.iter().all(|path| is_known(&path)) => return refused(ALREADY_EXISTS, ""),
            Change::Remove if !meant.iter().any(|path| is_known(&path)) => {
                return refused(INVALID_REQUEST, "unknown path");
            }
            Change::Add => {
                spec.paths.extend(meant.iter().filter(|path| !is_known(path)));
                // The configuration's come first, in its order: that is the order in which they are tried.
                let place = |path: &PathSpec| configured.paths.iter().position(|known| known == path);
                spec.paths.sort_by_key(|path| place(path).unwrap_or(usize::MAX));
            }
            Change::Remove => {
                spec.paths.retain(|path| !meant.contains(path));
                if spec.paths_to(peer.id).next().is_none() && is_connected(status, peer) {
                    return refused(INVALID_REQUEST, "Can not delete last path, use disconnect first!");
                }
            }
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tandem_core::state::ConnectionState;

    use super::*;
    use crate::fixture;

    fn another(spec: &ResourceSpec) -> PathSpec {
        PathSpec { local: "10.0.0.1:7788".parse().unwrap(), ..spec.paths[0] }
    }

    fn applied(change: Change, status: &ResourceStatus, meant: &[PathSpec]) -> Result<ResourceSpec, String> {
        let mut configured = fixture::spec();
        configured.paths.push(another(&configured));
        let applied = change.applied(status, &configured, &configured.peers[0], meant);
        applied.map_err(|failure| failure.to_string())
    }

    #[test]
    fn paths_come_and_go_and_the_last_one_stays_while_it_is_used() {
        let mut status = fixture::connected();
        let first = status.spec.paths[0];
        let second = another(&status.spec);
        let last = applied(Change::Remove, &status, &[first]).unwrap_err();
        assert!(last.ends_with("Can not delete last path, use disconnect first!"));
        assert_eq!(applied(Change::Add, &status, &[first]).unwrap_err(), "r0: Failure: (174) Already exists");
        assert!(applied(Change::Remove, &status, &[second]).unwrap_err().ends_with("unknown path"));
        status.spec = applied(Change::Add, &status, &[first, second]).unwrap();
        assert_eq!(status.spec.paths, [first, second]);
        assert!(applied(Change::Remove, &status, &[first, second]).is_err());
        status.spec = applied(Change::Remove, &status, &[first]).unwrap();
        assert_eq!(status.spec.paths, [second]);
        // It takes its place again.
        status.spec = applied(Change::Add, &status, &[first]).unwrap();
        assert_eq!(status.spec.paths, [first, second]);
        fixture::disconnect(&mut status, ConnectionState::StandAlone);
        assert_eq!(applied(Change::Remove, &status, &[first, second]).unwrap().paths, []);
        status.spec.peers.clear();
        assert!(applied(Change::Add, &status, &[first]).unwrap_err().ends_with("unknown connection"));
    }
}
