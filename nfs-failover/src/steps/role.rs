//! May this node serve, and its role.

use std::sync::Arc;
use std::time::Duration;

use tandem_control::{Action, ResourceSpec};
use tandem_core::handler::Handler;
use tandem_core::state::{ConnectionState, DiskState, Role};

use super::Scene;
use crate::plan::{Step, Trouble, Turn};
use crate::tandem;

/// To become Primary, apart from the time that fencing the peer may take.
const PRIMARY_LIMIT: Duration = Duration::from_secs(60);
const SECONDARY_LIMIT: Duration = Duration::from_secs(20);
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// For a peer that was asked to demote: longer than a demotion that has to kill the volume's users.
const DEMOTION_LIMIT: Duration = Duration::from_secs(15);
/// Then tandemd is asked again, which finds out whether the peer is still alive.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Whether this node's data is worth serving.
pub(super) struct Permission(pub(super) Arc<Scene>);

impl Step for Permission {
    fn name(&self) -> &'static str {
        "permission"
    }

    fn intention(&self) -> String {
        format!("see that {} is up here and its disk UpToDate", self.0.service.resource)
    }

    fn limit(&self) -> Duration {
        STATUS_LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let engine = tandem::status(&self.0.here, &self.0.service.resource)?.engine;
        let resource = &engine.resource;
        if engine.role == Role::Primary {
            return Ok(Some("Primary".into()));
        }
        let alone = engine.peers.iter().filter(|peer| peer.connection == ConnectionState::StandAlone);
        let split = alone.filter_map(|peer| peer.standalone_reason.as_ref()).next();
        if let Some(reason) = split {
            let advice = format!("resolve it first: tandemadm status {resource}");
            return Err(Trouble::new(format!("{resource} is StandAlone: {reason}; {advice}")));
        }
        match engine.disk {
            // Whether Consistent is enough is for tandemd to say, which may fence the peer.
            DiskState::UpToDate | DiskState::Consistent => Ok(Some(engine.disk.to_string())),
            disk => Err(Trouble::new(format!("{resource}'s disk is {disk} here: the other node's is newer"))),
        }
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        Ok(String::new())
    }
}

/// Becomes Primary: the only permission there is.
pub(super) struct Primary(pub(super) Arc<Scene>);

impl Step for Primary {
    fn name(&self) -> &'static str {
        "primary"
    }

    fn intention(&self) -> String {
        format!("make {} Primary, once the other node has demoted", self.0.service.resource)
    }

    /// What tandemd still waits for when this is over comes true behind the back of whoever gave it up.
    fn limit(&self) -> Duration {
        let status = tandem::find_status(&self.0.here, &self.0.service.resource).ok().flatten();
        PRIMARY_LIMIT + status.map_or(Duration::ZERO, |status| fencing_limit(&status.spec))
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let engine = tandem::status(&self.0.here, &self.0.service.resource)?.engine;
        Ok((engine.role == Role::Primary).then(|| "Primary".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let scene = &self.0;
        let resource = &scene.service.resource;
        let patience = Turn::new(DEMOTION_LIMIT, turn.cancel().clone());
        let mut asked = None;
        loop {
            let primary = Action::Primary { force: false };
            match tandem::act(&scene.here, resource, primary, turn.left()) {
                Ok(()) => return Ok(format!("{resource} is Primary")),
                Err(refusal) if !refusal.is_second_primary() => return Err(refusal.into()),
                Err(_) => expect_equal(scene)?,
            }
            let answer = asked.get_or_insert_with(|| ask_to_demote(scene));
            let soon = Turn::new(RETRY_INTERVAL.min(patience.left()), turn.cancel().clone());
            if soon.until(|| (!peer_is_primary(scene)).then_some(())).is_none() && patience.left().is_zero() {
                let why = answer.as_ref().err().map(|why| format!(" ({why})")).unwrap_or_default();
                return Err(Trouble::new(format!("the other node is Primary and remains so{why}")));
            }
            if turn.is_cancelled() {
                return Err(Trouble::new("cancelled: somebody wants something else by now"));
            }
        }
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        demote(&self.0, turn)
    }
}

/// How long fencing the peer may take.
fn fencing_limit(spec: &ResourceSpec) -> Duration {
    match spec.handlers.commands.contains_key(&Handler::FencePeer) {
        true => Duration::from_millis(spec.handlers.limit_ms),
        false => Duration::ZERO,
    }
}

/// Who lags behind a Primary does not ask it to step back.
fn expect_equal(scene: &Scene) -> Result<(), Trouble> {
    let engine = tandem::status(&scene.here, &scene.service.resource)?.engine;
    match engine.disk {
        DiskState::UpToDate => Ok(()),
        disk => Err(Trouble::new(format!("the other node is Primary, and the disk here is {disk}"))),
    }
}

fn ask_to_demote(scene: &Scene) -> Result<(), String> {
    match &scene.peer {
        Some(peer) => peer.please_demote(),
        None => Err("it cannot be asked: no `peer` is configured".into()),
    }
}

/// Whether a peer is connected and Primary.
fn peer_is_primary(scene: &Scene) -> bool {
    tandem::find_status(&scene.here, &scene.service.resource)
        .ok()
        .flatten()
        .is_some_and(|status| status.engine.peers.iter().any(|peer| peer.role == Role::Primary))
}

/// Gives up a role that this node can do nothing with: requests wait until the peer is fenced, which may be never, and whatever
/// touches the volume waits with them. None of them was acknowledged, and what was, the peer has.
pub(super) struct Abandon(pub(super) Arc<Scene>);

impl Step for Abandon {
    fn name(&self) -> &'static str {
        "abandon"
    }

    fn intention(&self) -> String {
        let resource = &self.0.service.resource;
        format!("if requests to {resource} wait for the peer to be fenced, have them fail: secondary --force")
    }

    fn limit(&self) -> Duration {
        SECONDARY_LIMIT
    }

    /// Whatever hangs then, the unmounting ends.
    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok((!is_frozen(&self.0)?).then(|| "not frozen".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let (here, resource) = (&self.0.here, &self.0.service.resource);
        tandem::act(here, resource, Action::Secondary { force: true }, turn.left())?;
        Ok(format!("every request to {resource} fails"))
    }
}

/// Whether requests wait until the peer is fenced.
pub(super) fn is_frozen(scene: &Scene) -> Result<bool, Trouble> {
    let status = tandem::find_status(&scene.here, &scene.service.resource)?;
    Ok(status.is_some_and(|status| status.engine.suspended.fencing))
}

/// Becomes Secondary; the device goes.
pub(super) struct Secondary(pub(super) Arc<Scene>);

impl Step for Secondary {
    fn name(&self) -> &'static str {
        "secondary"
    }

    fn intention(&self) -> String {
        format!("make {} Secondary", self.0.service.resource)
    }

    fn limit(&self) -> Duration {
        SECONDARY_LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(match tandem::find_status(&self.0.here, &self.0.service.resource)? {
            None => Some("not up".into()),
            Some(status) => (status.engine.role != Role::Primary).then(|| "Secondary".into()),
        })
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        demote(&self.0, turn).map(|()| format!("{} is Secondary", self.0.service.resource))
    }
}

fn demote(scene: &Scene, turn: &Turn) -> Result<(), Trouble> {
    tandem::act(&scene.here, &scene.service.resource, Action::Secondary { force: false }, turn.left())
        .map_err(|refusal| Trouble::stuck(refusal.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_waits_for_as_long_as_fencing_may_take() {
        let mut spec = crate::health::samples::secondary().spec;
        spec.handlers.limit_ms = 300_000;
        assert_eq!(fencing_limit(&spec), Duration::ZERO);
        spec.handlers.commands.insert(Handler::FencePeer, "fence_ipmilan".into());
        assert_eq!(fencing_limit(&spec), Duration::from_secs(300));
    }
}
