//! How a service is moved in earnest: the plans of [`crate::steps`], carried out on this node.

use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use super::{Found, Mover, Outcome, monitor};
use crate::carry_out::{Way, carry_out, refused};
use crate::check::complaints_here;
use crate::config::{Config, Service};
use crate::here::{Here, Standing, State};
use crate::peer::{Ask, Checked, Peer, settings};
use crate::plan::{Cancel, Ending, FileJournal, Trouble, Turn, trouble};
use crate::steps::{self, Scene};
use crate::tandem;
use tandem_control::output::{errln, outln};

/// The peer is asked, and may think about it.
const PEER_LIMIT: Duration = Duration::from_secs(5);

/// A plan that is under way is waited for before exports are changed; then it is tried again by hand.
const BUSY_LIMIT: Duration = Duration::from_secs(30);

/// The plans of one service.
pub struct Plans {
    scene: RwLock<Arc<Scene>>,
    /// Held by whoever works with the scene for long.
    busy: Mutex<()>,
}

impl Plans {
    /// Of this service on this node.
    pub fn new(service: Service, here: Here) -> Plans {
        Plans { scene: RwLock::new(scene(service, here)), busy: Mutex::default() }
    }

    fn scene(&self) -> Arc<Scene> {
        Arc::clone(&self.scene.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// As the configuration has it now.
    fn read_again(&self) -> Result<Arc<Scene>, Trouble> {
        let Scene { here, service, .. } = &*self.scene();
        let config = Config::load(&here.config_file).map_err(trouble("nothing is changed"))?;
        let fresh =
            config.services.into_iter().find(|fresh| fresh.name == service.name).ok_or_else(|| {
                Trouble::new(format!("there is no service {} in the configuration any more", service.name))
            })?;
        expect_same_but_exports(service, &fresh)?;
        Ok(scene(fresh, here.clone()))
    }
}

/// All else is made anew when it is promoted, or read when the service starts.
fn expect_same_but_exports(old: &Service, new: &Service) -> Result<(), Trouble> {
    let but_exports = |service: &Service| Service { exports: Vec::new(), ..service.clone() };
    if but_exports(old) == but_exports(new) {
        return Ok(());
    }
    let [old, new] = [old, new].map(|service| settings(&but_exports(service)));
    let changed: Vec<&str> =
        old.keys().filter(|keyword| old.get(*keyword) != new.get(*keyword)).map(String::as_str).collect();
    let changed = match changed.is_empty() {
        true => "what is this node's own, as an interface or `peer`,".to_owned(),
        false => format!("`{}`", changed.join("`, `")),
    };
    Err(Trouble::new(format!(
        "nothing is changed: besides exports {changed} was changed, which counts once nfs-failover is restarted; \
         what is up stays up meanwhile. Then reload again"
    )))
}

/// A scene whose peer can be asked, if one is configured.
pub(crate) fn scene(service: Service, here: Here) -> Arc<Scene> {
    let has_peer = service.shared_secret.is_some() && !service.peers.is_empty();
    let peer = has_peer.then(|| Arc::new(OtherNode(service.clone())) as Arc<dyn steps::Peer>);
    Scene::new(service, here, peer)
}

/// What is wrong with a service that was promoted here and has not stepped down, as far as one look tells.
pub(crate) fn broken(service: &Service, here: &Here) -> Option<String> {
    let plans = Plans::new(service.clone(), here.clone());
    let status = tandem::find_status(here, &service.resource).ok().flatten();
    monitor::look_once(status.as_ref(), || plans.server_answers()).or_else(|| plans.hidden_trouble())
}

impl Found {
    /// By what was noted last, and whether a plan's journal is open.
    pub(super) fn of(standing: Standing, is_unfinished: bool) -> Found {
        match standing.state {
            State::MustFence => Found::MustFence(standing.why.unwrap_or_default()),
            State::Demoting | State::Failed => Found::Leaving,
            State::Promoting => Found::Halfway,
            _ if is_unfinished => Found::Halfway,
            State::Primary => Found::Up,
            State::Secondary => Found::Down,
        }
    }
}

impl Mover for Plans {
    fn run(&self, which: Way, cancel: &Cancel) -> Outcome {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let scene = self.scene();
        let report = match carry_out(&scene, which, cancel, &mut |line| outln!("{line}")) {
            Ok(report) => report,
            Err(trouble) => {
                refused(&scene, which, &trouble);
                return Outcome::Refused(trouble.message);
            }
        };
        let why = || report.why.clone().unwrap_or_default();
        match report.ending {
            Ending::Done => Outcome::Done,
            Ending::Failed => Outcome::Failed(why()),
            Ending::Halfway => Outcome::Halfway(why()),
            Ending::Cancelled => Outcome::Cancelled,
            Ending::MustFence => Outcome::Stuck(why()),
        }
    }

    fn found(&self) -> Found {
        let Scene { here, service, .. } = &*self.scene();
        let journal = FileJournal::unfinished(&here.file(&service.name, "journal"));
        Found::of(here.standing(&service.name), !matches!(journal, Ok(None)))
    }

    fn prepare(&self) {
        let Scene { here, service, .. } = &*self.scene();
        // Whoever moves the service at this moment has it ready anyway.
        let Ok(_lock) = here.lock(&service.name, Duration::ZERO) else { return };
        if let Err(trouble) = steps::prepare(&self.scene()) {
            errln!("{}: a promotion will try again: {trouble}", service.name);
        }
    }

    fn server_answers(&self) -> bool {
        let service = &self.scene().service;
        let server = !service.is_nfs() || steps::answers(service).is_ok();
        server && steps::is_content(service)
    }

    fn tend_server(&self) -> bool {
        let scene = self.scene();
        // A plan sees to it, or the exports are changed at this moment; or whoever has started the server anew has taken all of
        // them back.
        if self.busy.try_lock().is_err() || steps::replaced(&scene).is_some() {
            return true;
        }
        let name = &scene.service.name;
        match steps::tend_server(&scene) {
            Ok(changed) => {
                changed.iter().for_each(|change| outln!("{name}: {change}"));
                true
            }
            Err(trouble) => {
                errln!("{name}: what is configured is not exported any more: {trouble}");
                false
            }
        }
    }

    fn hidden_trouble(&self) -> Option<String> {
        let scene = self.scene();
        let read_only = steps::takes_no_writes(&scene).then_some(
            "the filesystem takes no writes any more: the kernel's log says why; see that it is checked (fsck)",
        );
        read_only.or_else(|| steps::replaced(&scene)).map(str::to_owned)
    }

    fn tend(&self) -> Option<String> {
        steps::tend(&self.scene()).err().map(|trouble| trouble.message)
    }

    fn check(&self) -> Option<Checked> {
        let Scene { here, service, .. } = &*self.scene();
        Some(Checked { settings: settings(service), complaints: complaints_here(service, here) })
    }

    fn yield_role(&self) {
        let Scene { here, service, .. } = &*self.scene();
        // Whoever has the lock gives the role up, or needs it.
        let Ok(_lock) = here.lock(&service.name, Duration::ZERO) else { return };
        match steps::yield_role(&self.scene()) {
            None => {}
            Some(Ok(said)) => outln!("{}: the other node was elected; {said}", service.name),
            Some(Err(trouble)) => errln!("{}: {trouble}", service.name),
        }
    }

    fn reload(&self) -> Result<Vec<String>, Trouble> {
        let free = Turn::new(BUSY_LIMIT, Cancel::default()).until(|| match self.busy.try_lock() {
            Ok(free) => Some(free),
            Err(TryLockError::Poisoned(free)) => Some(free.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        let _busy = free.ok_or_else(|| Trouble::new("a plan of this service is under way: try again"))?;
        let fresh = self.read_again()?;
        let Scene { here, service, .. } = &*fresh;
        let lock = here.lock(&service.name, BUSY_LIMIT);
        let lock = lock.map_err(trouble("another plan of this service is under way: try again"))?;
        fresh.set_lock(Some(lock.try_clone().map_err(trouble("the lock"))?));
        let changed = steps::apply_exports(&fresh);
        fresh.set_lock(None);
        let changed = changed?;
        *self.scene.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(changed)
    }

    fn kill_server(&self) {
        let Scene { here, service, .. } = &*self.scene();
        if let Err(trouble) = steps::kill_server(service, here) {
            errln!("{}: the server cannot be killed: {trouble}", service.name);
        }
    }
}

/// The other node's service.
struct OtherNode(Service);

impl steps::Peer for OtherNode {
    fn please_demote(&self) -> Result<(), String> {
        let ask = || Peer::connect(&self.0, PEER_LIMIT)?.ask(Ask::DemotePlease);
        ask().map(drop).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exports_may_change_under_a_service() {
        let service = |text: &str| {
            let text = format!(
                "service nfs {{ resource r0; mount /srv/nfs {{ fstype ext4; }} server ganesha; vip 10.0.0.100/24 dev eth0; \
                 {text} }}"
            );
            Config::parse("nfs-failover.conf".as_ref(), &text).unwrap().services.remove(0)
        };
        let old = service("export \"/srv/nfs/a *(ro)\"; grace 20;");
        let compared = |text: &str| expect_same_but_exports(&old, &service(text));
        compared("export \"/srv/nfs/b *(ro)\"; export \"/srv/nfs/a *(ro)\"; grace 20;").unwrap();
        let refused = compared("export \"/srv/nfs/b *(ro)\"; grace 30; decider ucarp;").unwrap_err().message;
        assert!(refused.contains("besides exports `decider`, `grace` was changed"), "{refused}");
        let refused =
            compared("export \"/srv/nfs/a *(ro)\"; grace 20; on-stuck reboot;").unwrap_err().message;
        assert!(refused.contains("this node's own"), "{refused}");
    }
}
