//! The steps of promote and demote, each in the file of what it is about, and the two plans in their order.
//!
//! The order is what keeps the data safe and the clients patient. Up: nothing is mounted before `tandemd` has made this
//! node Primary; nothing is exported before the right filesystem is mounted; the address comes last, and the ports on it
//! open only when the server answers. Down: the same in reverse, the address first.

mod address;
mod block;
mod clients;
mod device;
mod folders;
mod hook;
mod keep;
mod mount;
mod notify;
mod role;
mod server;
mod unmount;
mod upkeep;

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Service;
use crate::here::Here;
use crate::plan::{Plan, SMALL_LIMIT, Step, Trouble, trouble};
use crate::system::mounts;
use crate::system::program::run_with;

pub use hook::is_content;
pub use keep::keep;
pub use mount::takes_no_writes;
pub use role::yield_role;
pub use server::{answers, kill as kill_server, replaced, tend as tend_server};
pub use upkeep::tend;

/// How long a small program may take.
const PROGRAM_LIMIT: Duration = SMALL_LIMIT;

/// The other node's service.
pub trait Peer: Send + Sync {
    /// Asks it to give the service up. That it agrees is no permission; that it became Secondary shows.
    fn please_demote(&self) -> Result<(), String>;
}

/// What a plan has found out once, and nothing changes before it ends.
#[derive(Clone, Debug, Default)]
struct Found {
    /// The volume's device.
    device: Option<PathBuf>,
    /// How long fencing the peer may take.
    fencing_limit: Option<Duration>,
}

/// What all steps work with.
pub struct Scene {
    /// What moves.
    pub service: Service,
    /// This node.
    pub here: Here,
    /// The other node, if it can be asked.
    pub peer: Option<Arc<dyn Peer>>,
    /// The lock of the plan under way.
    lock: Mutex<Option<File>>,
    /// What the plan under way has found out.
    found: Mutex<Found>,
    /// Where answers to the question arrive, who has the addresses.
    question: Mutex<Option<address::Question>>,
}

impl Scene {
    /// A scene.
    pub fn new(service: Service, here: Here, peer: Option<Arc<dyn Peer>>) -> Arc<Self> {
        Arc::new(Self {
            service,
            here,
            peer,
            lock: Mutex::default(),
            found: Mutex::default(),
            question: Mutex::default(),
        })
    }

    /// Remembers the lock of the plan under way, or that there is none any more.
    pub(crate) fn set_lock(&self, lock: Option<File>) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        *self.found() = Found::default();
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a program that changes this machine. It keeps the plan's lock as long as it runs: if this process is killed,
    /// whoever comes next waits for it, instead of seeing its work done behind the back.
    fn run(&self, mut command: Command, input: &str, limit: Duration) -> Result<(), Trouble> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = lock.as_ref() {
            command.stdout(lock.try_clone().map_err(trouble("the lock"))?);
        }
        drop(lock);
        run_with(command, input, limit)
    }
}

/// Has ready what does not depend on the volume.
pub fn prepare(scene: &Scene) -> Result<(), Trouble> {
    block::prepare(&scene.service)?;
    server::prepare(scene)
}

/// Has a server that runs export what this service says; what that has changed. Nothing is changed, and nobody sees that a
/// promotion would fail, if a folder of it is not on the volume.
pub fn apply_exports(scene: &Arc<Scene>) -> Result<Vec<String>, Trouble> {
    if mounts::at(&scene.service.mount.point)?.is_some() {
        folders::expect(&scene.service)?;
    }
    server::apply_exports(scene)
}

/// Makes this node the server.
pub fn promote(scene: &Arc<Scene>) -> Plan {
    let scene = || Arc::clone(scene);
    let steps: Vec<Option<Arc<dyn Step>>> = vec![
        Some(Arc::new(role::Permission(scene()))),
        Some(Arc::new(block::Block(scene()))),
        Some(Arc::new(role::Primary(scene()))),
        Some(Arc::new(address::Ask(scene()))),
        Some(Arc::new(device::Device(scene()))),
        Some(Arc::new(mount::Mount(scene()))),
        Some(Arc::new(folders::Folders(scene()))),
        server::start(scene()),
        hook::start(scene()),
        Some(Arc::new(address::Add(scene()))),
        notify::notify(scene()),
        Some(Arc::new(block::Unblock { scene: scene(), is_vital: true })),
        Some(Arc::new(clients::Tickle(scene()))),
        notify::watch(scene()),
        Some(Arc::new(keep::Keep(scene()))),
    ];
    let service = scene().service.name.clone();
    Plan { name: "promote", service, steps: steps.into_iter().flatten().collect(), undo_on_failure: true }
}

/// Makes this node a clean secondary, whatever is up. Only what keeps it from that ends the plan: a node that is left with the
/// volume or an address has to be fenced.
pub fn demote(scene: &Arc<Scene>) -> Plan {
    let scene = || Arc::clone(scene);
    let steps: Vec<Option<Arc<dyn Step>>> = vec![
        Some(Arc::new(block::BlockForDemotion(scene()))),
        // Before anything that touches the volume, which may hang.
        Some(Arc::new(address::Remove(scene()))),
        // Now that no client hears of it.
        Some(Arc::new(role::Abandon(scene()))),
        Some(Arc::new(keep::Release(scene()))),
        Some(Arc::new(clients::Save(scene()))),
        hook::stop(scene()),
        server::stop(scene()),
        Some(Arc::new(unmount::Unmount(scene()))),
        Some(Arc::new(role::Secondary(scene()))),
        Some(Arc::new(clients::Drop(scene()))),
        Some(Arc::new(address::Withdraw(scene()))),
        Some(Arc::new(block::Unblock { scene: scene(), is_vital: false })),
    ];
    let service = scene().service.name.clone();
    Plan { name: "demote", service, steps: steps.into_iter().flatten().collect(), undo_on_failure: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn only_the_volume_and_the_address_end_a_demotion_before_its_time() {
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server ganesha; \
                    state /srv/nfs/.state; export \"/srv/nfs/data 10.0.0.0/24(rw,sync)\"; \
                    hooks { stop /bin/true; } vip 10.0.0.100/24 dev eth0; }";
        let service = Config::parse("nfs.conf".as_ref(), text).unwrap().services.remove(0);
        let tandem = tandem_control::RuntimeDir::new("/no/such");
        let scene = Scene::new(service, Here { tandem, config_file: "nfs.conf".into() }, None);
        let vital: Vec<&str> =
            demote(&scene).steps.iter().filter(|step| !step.optional()).map(|step| step.name()).collect();
        assert_eq!(vital, ["unmount", "secondary", "withdraw"]);
    }
}
