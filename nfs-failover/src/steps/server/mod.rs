//! The NFS server.

mod exports;
mod foreign;
mod ganesha;
mod helpers;
mod kernel;
mod listener;
mod rmtab;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Scene;
use crate::config::{Server, Service};
use crate::here::Here;
use crate::net::rpc;
use crate::plan::{Step, Trouble, Turn, trouble};
use crate::system::process::Process;
use crate::system::program::{program, run};
pub(super) use helpers::{start_helper, watch_locks, watches_locks};
pub(super) use rmtab::save as save_mounts;

/// What the servers keep on the volume.
pub(super) const STATE_FOLDERS: &[&str] = &["ganesha", "nfsdcld", "statd/sm", "statd/sm.bak"];

const PORT: u16 = 2049;
/// So that it can be closed and opened.
const LOCKD_PORT: u16 = 32803;
/// Both servers speak it.
const VERSION: u32 = 4;
const PORTMAPPER: &str = "rpcbind";
const PORTMAPPER_SOCKET: &str = "/run/rpcbind.sock";
const PORTMAPPER_LIMIT: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// A server that does not answer at once on its own machine does not serve.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Then it is killed: to its clients a crash, which they are made for.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// What is shown of a server's log.
const SHOWN_LOG_BYTES: usize = 600;

/// Whether the NFS server of this machine answers.
pub fn answers(_service: &Service) -> Result<(), Trouble> {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    rpc::answers(server, VERSION, ANSWER_LIMIT).map_err(trouble(format_args!("NFS on {server}")))
}

/// Sees to it that clients find at the server what is configured, which others may have taken back; what that has changed.
pub fn tend(scene: &Scene) -> Result<Vec<String>, Trouble> {
    match scene.service.server {
        Server::Kernel => kernel::tend(scene),
        Server::Ganesha | Server::None => Ok(Vec::new()),
    }
}

/// Why the server that runs is not the one that was started, if it is not: it answers all the same.
pub fn replaced(scene: &Scene) -> Option<&'static str> {
    (scene.service.server == Server::Kernel && kernel::is_replaced(scene)).then_some(
        "somebody else has started the kernel's NFS server anew, without this service's times, list of clients and exports: \
         systemctl disable --now nfs-server",
    )
}

/// Kills it, as if it had died: a drill.
pub fn kill(service: &Service, here: &Here) -> Result<(), Trouble> {
    match service.server {
        Server::Ganesha => ganesha::kill(service, here),
        Server::Kernel => kernel::kill(),
        Server::None => Err(Trouble::new("this service has no NFS server")),
    }
}

/// Has ready what does not depend on the volume.
pub(super) fn prepare(scene: &Scene) -> Result<(), Trouble> {
    match scene.service.server {
        Server::Ganesha => ensure_portmapper(),
        Server::Kernel => kernel::prepare(scene).and_then(|()| kernel::rehearse(scene)),
        Server::None => Ok(()),
    }
}

/// Has a server that runs export what the configuration says; what that has changed.
pub(super) fn apply_exports(scene: &Scene) -> Result<Vec<String>, Trouble> {
    match scene.service.server {
        Server::Ganesha => ganesha::apply_exports(scene),
        Server::Kernel => kernel::apply_exports(scene),
        Server::None => Ok(Vec::new()),
    }
}

/// The step that starts it, if there is one.
pub(super) fn start(scene: Arc<Scene>) -> Option<Arc<dyn Step>> {
    scene.service.is_nfs().then(|| Arc::new(Start(scene)) as Arc<dyn Step>)
}

/// The step that stops it.
pub(super) fn stop(scene: Arc<Scene>) -> Option<Arc<dyn Step>> {
    scene.service.is_nfs().then(|| Arc::new(Stop(scene)) as Arc<dyn Step>)
}

struct Start(Arc<Scene>);

impl Step for Start {
    fn name(&self) -> &'static str {
        "server"
    }

    fn intention(&self) -> String {
        match self.0.service.server {
            Server::Ganesha => "start ganesha.nfsd, until it answers".into(),
            _ => "export to the kernel's server and start it, until it answers".into(),
        }
    }

    fn limit(&self) -> Duration {
        START_LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let runs = match self.0.service.server {
            Server::Ganesha => ganesha::runs(&self.0),
            _ => kernel::runs(&self.0),
        };
        Ok((runs && answers(&self.0.service).is_ok()).then(|| "answers".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        match self.0.service.server {
            Server::Ganesha => ganesha::start(&self.0, turn),
            _ => kernel::start(&self.0, turn),
        }
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        stop_any(&self.0, turn).map(|_| ())
    }
}

struct Stop(Arc<Scene>);

impl Step for Stop {
    fn name(&self) -> &'static str {
        "server"
    }

    fn intention(&self) -> String {
        match self.0.service.server {
            Server::Ganesha => "stop ganesha.nfsd".into(),
            _ => "stop the kernel's server and take the exports back".into(),
        }
    }

    fn limit(&self) -> Duration {
        STOP_LIMIT
    }

    /// What it leaves running, the unmounting ends.
    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let runs = match self.0.service.server {
            Server::Ganesha => ganesha::is_to_end(&self.0),
            _ => kernel::is_to_end(&self.0),
        };
        Ok((!runs).then(|| "not running".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        stop_any(&self.0, turn)
    }
}

fn stop_any(scene: &Scene, turn: &Turn) -> Result<String, Trouble> {
    match scene.service.server {
        Server::Ganesha => ganesha::stop(scene),
        _ => kernel::stop(scene, turn),
    }
}

/// Clients that see the same scope take both nodes for one server, and reclaim.
fn scope(service: &Service) -> String {
    service.vips.first().map_or_else(|| service.name.clone(), |vip| vip.address.to_string())
}

/// NFSv3 clients ask it for the ports, and the kernel's server does not start without it.
fn ensure_portmapper() -> Result<(), Trouble> {
    if UnixStream::connect(PORTMAPPER_SOCKET).is_ok() {
        return Ok(());
    }
    run(program(PORTMAPPER, &["-w"]), PORTMAPPER_LIMIT).map_err(trouble(format_args!(
        "{PORTMAPPER} does not run and cannot be started, without which NFSv3 clients find no server: \
         apt-get install rpcbind, systemctl start rpcbind"
    )))
}

/// Waits until the server answers, as long as its process runs.
fn await_answer(scene: &Scene, process: Option<Process>, log: &Path, turn: &Turn) -> Result<(), Trouble> {
    let mut last = Ok(());
    let ended = || process.is_some_and(|process| !process.is_running());
    let answered = turn.until(|| {
        last = answers(&scene.service);
        (last.is_ok() || ended()).then_some(())
    });
    match (answered, last) {
        (Some(()), Ok(())) => Ok(()),
        (Some(()), Err(_)) => {
            Err(Trouble::new(format!("it ended by itself; its log ends with: {}", end_of(log))))
        }
        (None, last) => {
            let why = last.err().map(|trouble| trouble.message).unwrap_or_default();
            Err(Trouble::new(format!("it does not answer: {why}; its log ends with: {}", end_of(log))))
        }
    }
}

fn end_of(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let end = bytes.get(bytes.len().saturating_sub(SHOWN_LOG_BYTES)..).unwrap_or_default();
    String::from_utf8_lossy(end).trim().to_owned()
}
