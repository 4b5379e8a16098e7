//! Commands that change a resource's state.

use tandem_control::{Action, ClientError, Request, ResourceSpec};

use crate::daemon_start;
use crate::failure::Failure;
use crate::session::Session;

pub(crate) fn act(session: &Session, word: &str, specs: &[ResourceSpec], action: Action) -> u8 {
    session.for_each(word, specs, |spec| session.act(&spec.name, action))
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
