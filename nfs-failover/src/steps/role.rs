//! May this node serve, and its role.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tandem_control::{Action, ResourceSpec};
use tandem_core::handler::Handler;
use tandem_core::state::{ConnectionState, DiskState, Role};

use super::Scene;
use crate::plan::{Cancel, Step, Trouble, Turn};
use crate::tandem;

/// To become Primary, apart from the time that fencing the peer may take.
const PRIMARY_LIMIT: Duration = Duration::from_secs(60);
const SECONDARY_LIMIT: Duration = Duration::from_secs(20);
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks whether a tandemd that was killed is back.
const AWAY_INTERVAL: Duration = Duration::from_millis(20);
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
        let status = tandem::status(&self.0.here, &self.0.service.resource)?;
        self.0.found().fencing_limit = Some(fencing_limit(&status.spec));
        let engine = status.engine;
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
        let known = self.0.found().fencing_limit;
        let ask = || {
            let status = tandem::find_status(&self.0.here, &self.0.service.resource).ok().flatten();
            status.map_or(Duration::ZERO, |status| fencing_limit(&status.spec))
        };
        PRIMARY_LIMIT + known.unwrap_or_else(ask)
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
        demote(&self.0, turn).map(drop)
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
        format!(
            "if requests to {resource} wait for the peer to be fenced, or for quorum, have them fail: secondary --force"
        )
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

/// Whether requests wait until the peer is fenced, or quorum is back.
pub(super) fn is_frozen(scene: &Scene) -> Result<bool, Trouble> {
    let status = tandem::find_status(&scene.here, &scene.service.resource)?;
    Ok(status.is_some_and(|status| status.engine.suspended.fencing || status.engine.suspended.quorum))
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
        // Whether it is away for good is for the act to find out.
        Ok(matches!(role(&self.0), Ok(Some(Role::Secondary))).then(|| "Secondary".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        demote(&self.0, turn)
    }
}

/// Gives the role up if nobody uses it, and says so: nothing is served here, and the other node has asked for it.
pub fn yield_role(scene: &Scene) -> Option<Result<String, Trouble>> {
    matches!(role(scene), Ok(Some(Role::Primary)))
        .then(|| demote(scene, &Turn::new(SECONDARY_LIMIT, Cancel::default())))
}

/// Says what this node is then. A `tandemd` that was killed is waited for: where it has left a device, it comes back as
/// Primary. Until it does, nobody writes.
fn demote(scene: &Scene, turn: &Turn) -> Result<String, Trouble> {
    let resource = &scene.service.resource;
    let secondary = Action::Secondary { force: false };
    let look = || match role(scene) {
        Ok(None) if !tandem::has_device(&scene.here, resource) => Some(Ok("not up".into())),
        Err(_) | Ok(None) => None,
        Ok(Some(Role::Primary)) => match tandem::act(&scene.here, resource, secondary, turn.left()) {
            Ok(()) => Some(Ok(format!("{resource} is Secondary"))),
            Err(refusal) if refusal.away => None,
            Err(refusal) => Some(Err(Trouble::stuck(refusal.message))),
        },
        Ok(Some(_)) => Some(Ok(format!("{resource} is Secondary"))),
    };
    let demoted = turn.until(|| {
        let demoted = look();
        if demoted.is_none() {
            thread::sleep(AWAY_INTERVAL.min(turn.left()));
        }
        demoted
    });
    demoted.unwrap_or_else(|| match role(scene) {
        // It is there, and does not answer.
        Err(trouble) => Err(Trouble::stuck(trouble.message)),
        Ok(_) => {
            Ok("tandemd has not come back; if it does as Primary, the peer has to ask for the role".into())
        }
    })
}

/// What this node is; `None` while nobody knows.
fn role(scene: &Scene) -> Result<Option<Role>, Trouble> {
    let status = tandem::find_status(&scene.here, &scene.service.resource)?;
    Ok(status.map(|status| status.engine.role))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;

    use tandem_control::{Reply, Request, RuntimeDir};

    use super::*;
    use crate::config::Config;
    use crate::health::samples;
    use crate::here::Here;

    /// A node of its own folder, with resource r0.
    struct Node {
        scene: Arc<Scene>,
        run: PathBuf,
        is_primary: Arc<AtomicBool>,
    }

    impl Node {
        fn new(name: &str) -> Node {
            let run = std::env::temp_dir().join(format!("nfs-role-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&run);
            let tandem = RuntimeDir::new(&run);
            std::fs::create_dir_all(tandem.devices()).unwrap();
            let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server none; \
                        state /srv/nfs/.state; vip 10.0.0.100/24 dev eth0; }";
            let config = Config::parse("nfs.conf".as_ref(), text).unwrap();
            let here = Here { tandem, config_file: "nfs.conf".into() };
            Node {
                scene: Scene::new(config.services[0].clone(), here, None),
                run,
                is_primary: Arc::default(),
            }
        }

        /// The process that keeps the device.
        fn keeper(&self) -> UnixListener {
            UnixListener::bind(self.scene.here.tandem.devices().join("r0-0.sock")).unwrap()
        }

        /// A tandemd that is Primary, and gives the role up when it is told to.
        fn start_tandemd(&self) {
            self.is_primary.store(true, Ordering::Release);
            let listener = UnixListener::bind(self.scene.here.tandem.control_socket()).unwrap();
            let is_primary = Arc::clone(&self.is_primary);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = BufReader::new(stream.unwrap());
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    let mut reply = Reply::default();
                    match serde_json::from_str(&line).unwrap() {
                        Request::Act { .. } => is_primary.store(false, Ordering::Release),
                        _ if is_primary.load(Ordering::Acquire) => reply.status.push(samples::primary()),
                        _ => reply.status.push(samples::secondary()),
                    }
                    let text = serde_json::to_string(&reply).unwrap() + "\n";
                    stream.get_mut().write_all(text.as_bytes()).unwrap();
                }
            });
        }

        fn run<T: Send + 'static>(
            &self,
            what: impl FnOnce(&Arc<Scene>, &Turn) -> T + Send + 'static,
        ) -> JoinHandle<T> {
            let scene = Arc::clone(&self.scene);
            thread::spawn(move || what(&scene, &Turn::new(Duration::from_secs(60), Cancel::default())))
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.run);
        }
    }

    #[test]
    fn a_demotion_waits_for_a_tandemd_that_has_left_a_device() {
        let node = Node::new("left");
        let keeper = node.keeper();
        assert_eq!(Secondary(Arc::clone(&node.scene)).check(), Ok(None));
        let demotion = node.run(|scene, turn| demote(scene, turn));
        // It has looked, and found nobody.
        keeper.accept().unwrap();
        node.start_tandemd();
        thread::spawn(move || keeper.incoming().for_each(drop));
        assert_eq!(demotion.join().unwrap().unwrap(), "r0 is Secondary");
        assert!(!node.is_primary.load(Ordering::Acquire));
    }

    #[test]
    fn a_promotion_is_taken_back_once_the_tandemd_that_was_killed_is_there_again() {
        let node = Node::new("undo");
        let keeper = node.keeper();
        let undone = node.run(|scene, turn| Primary(Arc::clone(scene)).undo(turn));
        keeper.accept().unwrap();
        node.start_tandemd();
        thread::spawn(move || keeper.incoming().for_each(drop));
        assert_eq!(undone.join().unwrap(), Ok(()));
        assert!(!node.is_primary.load(Ordering::Acquire));
    }

    #[test]
    fn nobody_waits_for_a_tandemd_that_has_left_nothing() {
        let node = Node::new("nothing");
        assert_eq!(node.run(|scene, turn| demote(scene, turn)).join().unwrap().unwrap(), "not up");
        // A socket that nobody listens on.
        drop(node.keeper());
        assert_eq!(node.run(|scene, turn| demote(scene, turn)).join().unwrap().unwrap(), "not up");
    }

    #[test]
    fn an_elected_peer_gets_a_role_that_nobody_uses() {
        let node = Node::new("yield");
        assert!(yield_role(&node.scene).is_none());
        node.start_tandemd();
        assert_eq!(yield_role(&node.scene).unwrap().unwrap(), "r0 is Secondary");
        assert!(yield_role(&node.scene).is_none());
    }

    #[test]
    fn a_promotion_waits_for_as_long_as_fencing_may_take() {
        let mut spec = samples::secondary().spec;
        spec.handlers.limit_ms = 300_000;
        assert_eq!(fencing_limit(&spec), Duration::ZERO);
        spec.handlers.commands.insert(Handler::FencePeer, "fence_ipmilan".into());
        assert_eq!(fencing_limit(&spec), Duration::from_secs(300));
    }
}
