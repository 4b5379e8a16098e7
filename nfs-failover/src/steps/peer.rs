//! The other node gives the service up first.

use std::sync::Arc;
use std::time::Duration;

use super::{Scene, role};
use crate::plan::{Step, Trouble, Turn};

/// Longer than a demotion that has to kill the volume's users.
const LIMIT: Duration = Duration::from_secs(15);

/// Asks the other node to give the service up, and waits until it is Secondary.
pub(super) struct AwaitDemotion(pub(super) Arc<Scene>);

impl Step for AwaitDemotion {
    fn name(&self) -> &'static str {
        "peer"
    }

    fn intention(&self) -> String {
        "if the other node is Primary, ask it to demote, and wait for that".into()
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok((!role::peer_is_primary(&self.0)).then(|| "not Primary, or not connected".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let asked = match &self.0.peer {
            Some(peer) => peer.please_demote(),
            None => Err("it cannot be asked: no `peer` is configured".into()),
        };
        match turn.until(|| (!role::peer_is_primary(&self.0)).then_some(())) {
            Some(()) => Ok("it has demoted".into()),
            None => {
                let why = asked.err().map(|why| format!(" ({why})")).unwrap_or_default();
                Err(Trouble::new(format!("the other node is Primary and remains so{why}")))
            }
        }
    }
}
