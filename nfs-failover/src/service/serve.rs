//! `nfs-failover serve`: puts the world around the keepers, and runs until it is ended.
//!
//! Ending it changes nothing: what is up stays up, and the next one finds it so.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use tandem_control::output::{errln, outln};
use tandem_control::{ResourceStatus, RuntimeDir, ask};
use tandem_core::state::{ConnectionState, DiskState};
use thiserror::Error;

use super::control::{self, Reply, Request};
use super::decider::Telling;
use super::keeper::{self, Handle, Mover};
use super::machine::{Found, Input};
use super::mailbox::Mailbox;
use super::monitor::Monitor;
use super::{Wish, Word};
use crate::config::{Config, Service};
use crate::fence;
use crate::health::{self, Phase, Replica, ServiceView, Snapshot};
use crate::here::make_folder;
use crate::peer::{self, PeerState};
use crate::sockets;
use crate::system::interfaces;

/// How often tandemd is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often the server is asked.
const SERVER_INTERVAL: Duration = Duration::from_secs(1);
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// Programs on this machine that speak to the service at once.
const MAX_CONNECTIONS: usize = 64;

/// Why the service cannot run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// One is enough.
    #[error("nfs-failover is already running: it holds {0}")]
    Running(PathBuf),
    /// A socket or file is not to be had.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// A service that runs, until the process ends.
#[derive(Debug)]
pub struct Served {
    _lock: Flock<File>,
    /// Where health endpoints listen, by service.
    pub health: Vec<(String, SocketAddr)>,
    /// Where the peer finds this node, by service.
    pub peers: Vec<(String, SocketAddr)>,
}

/// What every thread sees.
struct World {
    services: Vec<Kept>,
    resources: RwLock<Result<Vec<ResourceStatus>, String>>,
    run: PathBuf,
    tandem: RuntimeDir,
}

struct Kept {
    service: Service,
    handle: Handle,
    mover: Arc<dyn Mover>,
}

/// Serves every service of the configuration; `mover` says how each is moved. Returns once everything listens.
pub fn serve(
    config: &Config,
    tandem: RuntimeDir,
    run: &Path,
    mover: impl Fn(&Service) -> Arc<dyn Mover>,
) -> Result<Served, ServeError> {
    let lock = lock(run)?;
    let keep = |service: &Service| {
        let telling = Telling::new(service, run);
        let view = ServiceView {
            name: service.name.clone(),
            resource: service.resource.clone(),
            ..ServiceView::default()
        };
        let mover = mover(service);
        let found = mover.found();
        // Whatever an earlier service has said.
        let word = match &found {
            Found::MustFence(why) => Word::Unfit(why.clone()),
            Found::Up | Found::Down | Found::Halfway | Found::Leaving => Word::Fit,
        };
        telling.tell(&word, false).map_err(failed("telling whoever elects"))?;
        let mailbox = Mailbox::new(run, &service.name);
        let handle = keeper::start(view, found, Arc::clone(&mover), mailbox, telling);
        Ok(Kept { service: service.clone(), handle, mover })
    };
    let services: Result<Vec<Kept>, ServeError> = config.services.iter().map(keep).collect();
    let resources = RwLock::new(Err("tandemd was not asked yet".into()));
    let world = Arc::new(World { services: services?, resources, run: run.to_owned(), tandem });
    listen_for_programs(&world)?;
    let health = listen_for_health(&world)?;
    let peers = listen_for_peers(&world)?;
    let looking = Arc::clone(&world);
    thread::spawn(move || looking.look_at_tandemd());
    for index in 0..world.services.len() {
        let watching = Arc::clone(&world);
        thread::spawn(move || watching.watch(index));
    }
    Ok(Served { _lock: lock, health, peers })
}

fn lock(run: &Path) -> Result<Flock<File>, ServeError> {
    make_folder(run).map_err(failed(run.display()))?;
    let path = run.join("serve.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed(path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| ServeError::Running(path))
}

fn failed(what: impl ToString) -> impl FnOnce(io::Error) -> ServeError {
    let what = what.to_string();
    move |error| ServeError::Io(what, error)
}

fn listen_for_programs(world: &Arc<World>) -> Result<(), ServeError> {
    let path = control::socket(&world.run);
    let listen = || {
        // The lock is held: whoever made it is gone.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let world = Arc::clone(world);
        sockets::serve(listener, "control", MAX_CONNECTIONS, move |stream| {
            // Whoever hangs up does not want to know.
            let _ = control::answer(&stream, |request| world.answer(request));
        })
    };
    listen().map_err(failed(path.display()))
}

fn listen_for_health(world: &Arc<World>) -> Result<Vec<(String, SocketAddr)>, ServeError> {
    let mut bound = Vec::new();
    for kept in &world.services {
        let Some(address) = kept.service.health else { continue };
        let (own, name) = (Arc::clone(world), kept.service.name.clone());
        let service = name.clone();
        let at = health::http::serve(address, move |question| {
            let snapshot = if health::wants_all(question) { own.full_snapshot() } else { own.snapshot() };
            health::answer(&snapshot, &service, question)
        });
        bound.push((name, at.map_err(failed(format!("the health endpoint on {address}")))?));
    }
    Ok(bound)
}

fn listen_for_peers(world: &Arc<World>) -> Result<Vec<(String, SocketAddr)>, ServeError> {
    let mut bound = Vec::new();
    for (index, kept) in world.services.iter().enumerate() {
        let (Some(address), Some(secret)) = (own_address(&kept.service.peers), &kept.service.shared_secret)
        else {
            continue;
        };
        let listen = || {
            let listener = TcpListener::bind(address)?;
            let at = listener.local_addr()?;
            let (own, secret, name) = (Arc::clone(world), secret.clone(), kept.service.name.clone());
            let answer = move |ask: peer::Ask| own.answer_peer(index, ask);
            peer::listen(listener, secret, &name, answer)?;
            Ok(at)
        };
        bound
            .push((kept.service.name.clone(), listen().map_err(failed(format!("the peer's on {address}")))?));
    }
    Ok(bound)
}

/// The one of the addresses that is this machine's, or its port on every address.
fn own_address(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    addresses.iter().copied().find(|a| is_own(a.ip())).or_else(|| {
        addresses.first().map(|peer| match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, peer.port()).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, peer.port()).into(),
        })
    })
}

/// Whether an address is this machine's.
pub(crate) fn is_own(address: IpAddr) -> bool {
    // That one could be bound to would prove nothing: the kernel may be told to let any be bound to (ip_nonlocal_bind).
    address.is_loopback()
        || interfaces::addresses().is_ok_and(|own| own.iter().any(|one| one.address == address))
}

impl World {
    fn snapshot(&self) -> Snapshot {
        let services = self.services.iter().map(|kept| kept.handle.view()).collect();
        Snapshot {
            services,
            resources: self.resources.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Of this moment, with what nobody looks for all the time.
    fn full_snapshot(&self) -> Snapshot {
        let request = tandem_control::Request::Status { resource: None };
        Snapshot { resources: self.ask_tandemd(&request), ..self.snapshot() }
    }

    fn find(&self, service: &str) -> Result<&Kept, Reply> {
        let kept = self.services.iter().find(|kept| kept.service.name == service);
        let unknown = || Reply {
            error: Some(format!("there is no service {service}; if it is new, restart nfs-failover")),
            ..Reply::default()
        };
        kept.ok_or_else(unknown)
    }

    fn answer(&self, request: Request) -> Reply {
        let done = |kept: &Kept| Reply { services: vec![kept.handle.view()], ..Reply::default() };
        let result = match request {
            Request::Ring { service } => self.find(&service).map(|kept| {
                kept.handle.ring();
                done(kept)
            }),
            Request::Change { service, wish, limit_ms } => self.find(&service).map(|kept| {
                match kept.handle.by_hand(wish, Duration::from_millis(limit_ms)) {
                    Some(view) => Reply { services: vec![view], ..Reply::default() },
                    None => Reply {
                        error: Some(format!("{service} is not {wish} yet; see its log")),
                        ..done(kept)
                    },
                }
            }),
            Request::Clear { service } => self.find(&service).map(|kept| {
                kept.handle.send(Input::Cleared);
                done(kept)
            }),
            Request::Reload { service } => self.find(&service).map(|kept| match kept.mover.reload() {
                Ok(changed) => Reply { changed, ..done(kept) },
                Err(trouble) => Reply { error: Some(trouble.message), ..done(kept) },
            }),
            Request::Lost { resource, reason } => {
                for kept in self.services.iter().filter(|kept| kept.service.resource == resource) {
                    if kept.handle.view().phase != Phase::Down {
                        kept.handle.send(Input::Trouble(reason.clone()));
                    }
                }
                Ok(Reply::default())
            }
            Request::Views => Ok(Reply { services: self.snapshot().services, ..Reply::default() }),
        };
        result.unwrap_or_else(|refusal| refusal)
    }

    fn answer_peer(&self, index: usize, ask: peer::Ask) -> PeerState {
        let kept = &self.services[index];
        match ask {
            // A tandemd that was started anew may be Primary for a service that has gone down meanwhile.
            peer::Ask::DemotePlease if kept.handle.view().phase == Phase::Down => kept.mover.yield_role(),
            peer::Ask::DemotePlease => kept.handle.send(Input::Yield),
            peer::Ask::PromotePlease => {
                // Whoever asks looks how it goes.
                kept.handle.by_hand(Wish::Up, Duration::ZERO);
            }
            peer::Ask::KillServer => {
                if kept.handle.view().phase == Phase::Up {
                    outln!("{}: a drill on the other node kills the server", kept.service.name);
                    kept.mover.kill_server();
                }
            }
            peer::Ask::State | peer::Ask::Check => {}
        }
        let checked = (ask == peer::Ask::Check).then(|| kept.mover.check()).flatten();
        // Of this moment: somebody waits for the role.
        let status = self.look();
        let of = |all: &Vec<ResourceStatus>| {
            all.iter().find(|s| s.engine.resource == kept.service.resource).map(Replica::of)
        };
        PeerState { view: kept.handle.view(), replica: status.as_ref().ok().and_then(of), checked }
    }

    fn look(&self) -> Result<Vec<ResourceStatus>, String> {
        self.ask_tandemd(&tandem_control::Request::BriefStatus { resource: None })
    }

    fn ask_tandemd(&self, request: &tandem_control::Request) -> Result<Vec<ResourceStatus>, String> {
        match ask(&self.tandem.control_socket(), request, STATUS_LIMIT) {
            Ok(reply) => Ok(reply.status),
            Err(error) => Err(error.to_string()),
        }
    }

    fn look_at_tandemd(&self) {
        loop {
            let seen = self.look();
            if let Ok(resources) = &seen {
                resources.iter().for_each(|status| self.mark_met(status));
            }
            *self.resources.write().unwrap_or_else(PoisonError::into_inner) = seen;
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Notes that both nodes have met since this one was booted: only then may it shoot.
    fn mark_met(&self, status: &ResourceStatus) {
        let engine = &status.engine;
        let met = |p: &&tandem_core::status::PeerStatus| {
            p.connection == ConnectionState::Connected && p.disk == DiskState::UpToDate
        };
        for peer in engine.peers.iter().filter(met).filter(|_| engine.disk == DiskState::UpToDate) {
            if let Err(error) = fence::mark_met(&self.run, &engine.resource, &peer.name) {
                errln!("noting that {} has been met: {error}", peer.name);
            }
        }
    }

    /// Watches a service that is up.
    fn watch(&self, index: usize) {
        let Kept { service, handle, mover } = &self.services[index];
        let began = Instant::now();
        let mut monitor = Monitor::default();
        let mut asked: Option<Instant> = None;
        loop {
            thread::sleep(LOOK_INTERVAL);
            if handle.view().phase != Phase::Up {
                (monitor, asked) = (Monitor::default(), None);
                continue;
            }
            let is_due = asked.is_none_or(|at| at.elapsed() >= SERVER_INTERVAL);
            let server = is_due.then(|| {
                // A server that hangs takes its time to be found out.
                asked = Some(Instant::now());
                let answers = mover.server_answers() && mover.tend_server();
                handle.note_server(answers);
                answers
            });
            let snapshot = self.snapshot();
            let now_ms = began.elapsed().as_millis() as u64;
            let trouble = monitor.look(now_ms, snapshot.resource(&service.resource), server);
            let trouble = trouble.or_else(|| mover.hidden_trouble());
            let trouble = trouble.or_else(|| is_due.then(|| mover.tend())?);
            if let Some(trouble) = trouble.filter(|_| handle.view().phase == Phase::Up) {
                handle.send(Input::Trouble(trouble));
                monitor = Monitor::default();
            }
        }
    }
}
