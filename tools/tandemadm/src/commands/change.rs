//! Commands that change a resource's state.

use tandem_control::{Action, ClientError, NodeSpec, Request, ResourceSpec, ResourceStatus};
use tandem_core::io::Repair;
use tandem_core::refusal::{CommandError, INVALID_REQUEST, StateChangeRefusal};
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::status::Status;
use tandem_core::units::NodeId;

use super::follow::{Begun, Follow, Following};
use super::known::require_volume;
use super::peers::refusal;
use crate::cli::Verify;
use crate::daemon_start;
use crate::failure::Failure;
use crate::output::{errln, outln};
use crate::quorum;
use crate::session::Session;

pub(crate) fn act(session: &Session, word: &str, specs: &[ResourceSpec], action: Action) -> u8 {
    session.for_each(word, specs, |spec| session.act(&spec.name, action))
}

/// The first resync of two fresh copies, without a service that begins. Whatever else the copies are, nobody's data is overwritten.
pub(crate) fn force_resync(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("new-current-uuid", specs, |spec| {
        if !session.dry_run {
            check_fresh(&session.require_status(&spec.name)?)?;
        }
        session.act(&spec.name, Action::Primary { force: true })?;
        session.act(&spec.name, Action::Secondary { force: false })
    })
}

fn check_fresh(status: &ResourceStatus) -> Result<(), Failure> {
    let Status { resource, disk, generations, peers, .. } = &status.engine;
    let [peer] = peers.as_slice() else { return Ok(()) };
    if peer.connection != ConnectionState::Connected {
        let refused = CommandError::from(StateChangeRefusal::NeedConnection);
        return Err(Failure::Config(format!("{resource}: {refused}"), 11));
    }
    if generations.is_fresh() && [*disk, peer.disk] == [DiskState::Inconsistent; 2] {
        return Ok(());
    }
    let why = format!(
        "--force-resync is for copies that never held data: the local disk is {disk}, that of {} is {}",
        peer.name, peer.disk
    );
    Err(refusal(resource, INVALID_REQUEST, &why))
}

/// With `tentative`, prints what each peer answered.
pub(crate) fn connect(
    session: &Session,
    specs: &[ResourceSpec],
    discard_my_data: bool,
    tentative: bool,
) -> u8 {
    session.for_each("connect", specs, |spec| {
        session.act(&spec.name, Action::Connect { discard_my_data, tentative })?;
        if tentative && !session.dry_run {
            for peer in session.require_status(&spec.name)?.engine.peers {
                let answer = peer.standalone_reason.unwrap_or_default();
                outln!("{}: {}: {answer}", spec.name, peer.name);
            }
        }
        Ok(())
    })
}

/// Each resource, or the one of its volumes whose number stands with it.
pub(crate) fn verify(session: &Session, chosen: Vec<(ResourceSpec, Option<u16>)>, options: &Verify) -> u8 {
    let (specs, numbers): (Vec<ResourceSpec>, Vec<Option<u16>>) = chosen.into_iter().unzip();
    let mut numbers = numbers.into_iter();
    let mut follow = Follow::new(session, options.following, Begun::Verify { repair: options.repair });
    let code = session.for_each("verify", &specs, |spec| {
        let volume = numbers.next().flatten();
        let Verify { start: start_bytes, stop: stop_bytes, .. } = *options;
        if volume.is_none() && !spec.more_volumes.is_empty() && start_bytes.or(stop_bytes).is_some() {
            let text = format!("--start and --stop count within a volume: name it, as {}/0.", spec.name);
            return Err(Failure::Config(text, 1));
        }
        if volume.is_some() && !session.dry_run {
            require_volume(&session.require_status(&spec.name)?, volume)?;
        }
        let from = match &options.from {
            Some(name) => Some(node_named(spec, name)?),
            None => None,
        };
        let repair = options.repair.then_some(Repair { from });
        session.act(&spec.name, Action::Verify { volume, start_bytes, stop_bytes, repair })?;
        follow.add(spec);
        Ok(())
    });
    code.max(follow.to_the_end("verify"))
}

/// The peer's copy is given up.
pub(crate) fn invalidate_remote(
    session: &Session,
    specs: &[ResourceSpec],
    reset_bitmap: bool,
    following: Following,
) -> u8 {
    let mut follow = Follow::new(session, following, Begun::Resync);
    let code = session.for_each("invalidate-remote", specs, |spec| {
        session.act(&spec.name, Action::InvalidateRemote { reset_bitmap })?;
        follow.add(spec);
        Ok(())
    });
    code.max(follow.to_the_end("invalidate-remote"))
}

fn node_named(spec: &ResourceSpec, name: &str) -> Result<NodeId, Failure> {
    let named = nodes(spec).find(|node| node.name == name).map(|node| node.id);
    named.ok_or_else(|| no_node(spec, name))
}

/// A name that is wrong, and those that are right.
pub(super) fn no_node(spec: &ResourceSpec, name: &str) -> Failure {
    let known: Vec<&str> = nodes(spec).map(|node| node.name.as_str()).collect();
    Failure::Config(format!("{name} is no node of resource {}: it has {}", spec.name, known.join(", ")), 10)
}

fn nodes(spec: &ResourceSpec) -> impl Iterator<Item = &NodeSpec> {
    std::iter::once(&spec.node).chain(&spec.peers)
}

/// The only command that starts the daemon.
pub(crate) fn up(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("up", specs, |spec| bring_up(session, spec))
}

pub(super) fn bring_up(session: &Session, spec: &ResourceSpec) -> Result<(), Failure> {
    if let Some(note) = quorum::note(spec) {
        errln!("{note}");
    }
    if !session.dry_run {
        daemon_start::ensure_running(&session.run)?;
    }
    session.change(&Request::Up { spec: spec.clone() })
}

/// What is not up is down already: where no daemon runs, every resource.
pub(crate) fn down(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("down", specs, |spec| match session.act(&spec.name, Action::Down) {
        Err(Failure::Client(ClientError::NotRunning(_))) => Ok(()),
        Err(Failure::Refused(_)) if session.find_status(&spec.name)?.is_none() => Ok(()),
        result => result,
    })
}
