//! Commands that change a resource's state.

use tandem_control::{Action, ClientError, Request, ResourceSpec};

use crate::daemon_start;
use crate::failure::Failure;
use crate::output::outln;
use crate::session::Session;

pub(crate) fn act(session: &Session, word: &str, specs: &[ResourceSpec], action: Action) -> u8 {
    session.for_each(word, specs, |spec| session.act(&spec.name, action))
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

/// The only command that starts the daemon.
pub(crate) fn up(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("up", specs, |spec| {
        if !session.dry_run {
            daemon_start::ensure_running(&session.run)?;
        }
        session.change(&Request::Up { spec: spec.clone() })
    })
}

/// What is not up is down already: where no daemon runs, every resource.
pub(crate) fn down(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("down", specs, |spec| match session.act(&spec.name, Action::Down) {
        Err(Failure::Client(ClientError::NotRunning(_))) => Ok(()),
        Err(Failure::Refused(_)) if session.find_status(&spec.name)?.is_none() => Ok(()),
        result => result,
    })
}
