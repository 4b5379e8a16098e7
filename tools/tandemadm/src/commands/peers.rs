//! `new-peer`, `del-peer`: whom a resource that is up knows. The metadata keeps its room for a peer that was taken away: what it lacks
//! is remembered until it is there again.

use tandem_config::Section;
use tandem_control::{Action, NodeSpec, Request, ResourceSpec, ResourceStatus};
use tandem_core::refusal::INVALID_REQUEST;
use tandem_core::state::ConnectionState;

use super::known::Known;
use crate::address::Address;
use crate::failure::Failure;
use crate::session::{CalledAs, Session};
use crate::settings;

/// What is done to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// It is known, with the connection's options, and not reached yet.
    NewPeer,
    /// It is left, and not known any more.
    DelPeer,
}

/// Each `RES`, `RES:PEER` or `all` in turn.
pub(crate) fn change(session: &Session, word: &str, names: &[String], change: Change) -> Result<u8, Failure> {
    each(session, word, names, |status, configured, peer| {
        if change == Change::DelPeer && is_connected(status, peer) {
            session.act(&configured.name, Action::Disconnect)?;
        }
        let becomes = change.applied(status, configured, peer)?;
        session.change(&Request::Change { spec: Box::new(becomes) })
    })
}

/// Takes a step for each peer that is meant: of a resource as it is, and as it is configured.
pub(super) fn each(
    session: &Session,
    word: &str,
    names: &[String],
    mut step: impl FnMut(&ResourceStatus, &ResourceSpec, &NodeSpec) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let known = Known::of(session)?;
    let mut worst = 0;
    for name in names {
        let address = Address::parse(name);
        let specs = known.specs(&[address.resource.to_owned()])?;
        worst = worst.max(session.for_each(word, &specs, |spec| {
            let status = session.require_status(&spec.name)?;
            let unknown = |failure| match session.called {
                CalledAs::Drbdsetup(_) => refusal(&spec.name, INVALID_REQUEST, "unknown connection"),
                _ => failure,
            };
            named(spec, address.peer)
                .map_err(unknown)?
                .into_iter()
                .try_for_each(|peer| step(&status, spec, peer))
        }));
    }
    Ok(worst)
}

/// The peer of this name or number, or all.
pub(super) fn named<'a>(spec: &'a ResourceSpec, name: Option<&str>) -> Result<Vec<&'a NodeSpec>, Failure> {
    let is_meant =
        |peer: &&NodeSpec| name.is_none_or(|name| name == peer.name || name == peer.id.to_string());
    let found: Vec<&NodeSpec> = spec.peers.iter().filter(is_meant).collect();
    match (found.is_empty(), name) {
        (true, Some(name)) => {
            Err(Failure::Config(format!("'{name}' is no peer of {} in your config", spec.name), 1))
        }
        _ => Ok(found),
    }
}

pub(super) fn is_connected(status: &ResourceStatus, peer: &NodeSpec) -> bool {
    let of_peer = status.engine.peers.iter().find(|one| one.id == peer.id);
    of_peer.is_some_and(|peer| peer.connection != ConnectionState::StandAlone)
}

impl Change {
    /// The resource with this done to it; the configuration says what the peer is like.
    pub(super) fn applied(
        self,
        status: &ResourceStatus,
        configured: &ResourceSpec,
        peer: &NodeSpec,
    ) -> Result<ResourceSpec, Failure> {
        let mut spec = status.spec.clone();
        let refused = |number, why| Err(refusal(&spec.name, number, why));
        let is_known = spec.peers.iter().any(|one| one.id == peer.id);
        match self {
            Change::NewPeer if is_known => {
                let why = format!("Connection for peer node id {} already exists", peer.id);
                return refused(INVALID_REQUEST, &why);
            }
            Change::DelPeer if !is_known => return refused(INVALID_REQUEST, "unknown connection"),
            Change::NewPeer => {
                spec.peers.push(peer.clone());
                let mut all = settings::of(&spec);
                let from_file = settings::of(configured);
                all.retain(|setting| setting.section != Section::Net);
                all.extend(from_file.into_iter().filter(|setting| setting.section == Section::Net));
                return Ok(settings::applied(&spec, &all)?.0);
            }
            Change::DelPeer => {
                spec.peers.retain(|one| one.id != peer.id);
                spec.paths.retain(|path| path.peer != peer.id);
            }
        }
        Ok(spec)
    }
}

/// As the kernel module refuses it.
pub(crate) fn refusal(resource: &str, (number, text): (u16, &str), why: &str) -> Failure {
    let mut said = format!("{resource}: Failure: ({number}) {text}");
    if !why.is_empty() {
        said += &crate::failure::additional_info(&[why.to_owned()]);
    }
    Failure::Config(said, 10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixture;

    fn standing_alone() -> ResourceStatus {
        let mut status = fixture::connected();
        fixture::disconnect(&mut status, ConnectionState::StandAlone);
        status
    }

    #[test]
    fn a_peer_comes_and_goes() {
        let mut status = standing_alone();
        let file = fixture::spec();
        let bravo = &file.peers[0];
        let mut step = |change: Change| {
            let spec = change.applied(&status, &file, bravo)?;
            status.spec = spec.clone();
            Ok::<_, Failure>(spec)
        };
        let text = |failed: Result<ResourceSpec, Failure>| failed.unwrap_err().to_string();
        assert!(text(step(Change::NewPeer)).contains("(162) Invalid configuration request"));
        let without = step(Change::DelPeer).unwrap();
        assert!(without.peers.is_empty() && without.paths.is_empty());
        assert!(text(step(Change::DelPeer)).ends_with("unknown connection"));
        assert_eq!(step(Change::NewPeer).unwrap(), ResourceSpec { paths: Vec::new(), ..file.clone() });
    }

    #[test]
    fn peers_are_named_as_in_the_configuration_or_by_number() {
        let spec = fixture::spec();
        for name in [None, Some("bravo"), Some("1")] {
            assert_eq!(named(&spec, name).unwrap(), [&spec.peers[0]]);
        }
        assert_eq!(named(&spec, Some("charlie")).unwrap_err().exit_code(), 1);
    }
}
