//! The kernel's NFS server, with its helpers: `nfsdcld` remembers NFSv4 clients and `rpc.statd` NFSv3 locks, both on the
//! volume; `rpc.mountd` answers what the kernel asks.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use super::super::{PROGRAM_LIMIT, notify};
use super::helpers::{NOTIFIER, STATD, any_runs, helper, start_helper, stop_helpers};
use super::{LOCKD_PORT, PORT, STOP_PATIENCE, Scene, await_answer, end_of, ensure_portmapper, scope};
use super::{exports, foreign, listener, rmtab};
use crate::config::Service;
use crate::net::rpc;
use crate::plan::{Cancel, Trouble, Turn, trouble};
use crate::system::program::{program, run};
use crate::system::{filesystem, mounts, within};

const NFSD_FOLDER: &str = "/proc/fs/nfsd";
const PIPES_FOLDER: &str = "/run/rpc_pipefs";
const THREADS_FILE: &str = "/proc/fs/nfsd/threads";
const GRACE_FILE: &str = "/proc/fs/nfsd/nfsv4gracetime";
const LEASE_FILE: &str = "/proc/fs/nfsd/nfsv4leasetime";
const VERSIONS_FILE: &str = "/proc/fs/nfsd/versions";
const LISTENERS_FILE: &str = "/proc/fs/nfsd/portlist";
/// As the kernel lists one.
const LISTENER: &str = "tcp 2049";
const ANY_PORT: u16 = 0;
const LOCK_GRACE_FILE: &str = "/proc/sys/fs/nfs/nlm_grace_period";
const LOCK_PORT_FILES: [&str; 2] = ["/proc/sys/fs/nfs/nlm_tcpport", "/proc/sys/fs/nfs/nlm_udpport"];
const THREADS: &str = "8";
/// Fixed ports, so that they can be closed and opened.
const MOUNTD_PORT: u16 = 20048;
/// Answers what the kernel and NFSv3 clients ask.
const MOUNTD: &str = "mountd";
/// Remembers which NFSv4 clients have opens and locks.
pub(super) const TRACKER: &str = "nfsdcld";
/// The same for the sake of trying it.
const REHEARSAL: &str = "rehearsal";
/// Programs that keep their state on the volume, and go with it. `rpc.mountd` knows nothing without exports, and stays.
const HELPERS: &[&str] = &[TRACKER, STATD, NOTIFIER];
/// The kernel ends threads and opens at once; writing back may take its time.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Whether it has threads, these are ours, and nothing is missing.
pub(super) fn runs(scene: &Scene) -> bool {
    has_threads() && is_whole(scene)
}

/// Whether what starts it was not killed before it had come to its end.
fn is_whole(scene: &Scene) -> bool {
    let families = listener::sockets(ANY_PORT).map_or(1, |sockets| sockets.len());
    foreign::is_started(scene) && listeners() >= families
}

/// Whether somebody else has started it anew. The kernel is asked last: it does not answer while threads that hang are ended.
pub(super) fn is_replaced(scene: &Scene) -> bool {
    foreign::is_replaced(scene) && has_threads()
}

/// Has exported again what somebody else has taken back; what that has changed.
pub(super) fn tend(scene: &Scene) -> Result<Vec<String>, Trouble> {
    // No plan waits for these: they hang if the volume does.
    exports::ensure(scene, |arguments| run(program("exportfs", arguments), PROGRAM_LIMIT))
}

/// Whether a demotion has to end something: also what somebody else has started, if it is of use to nobody.
pub(super) fn is_to_end(scene: &Scene) -> bool {
    any_runs(scene, HELPERS) || has_threads() && foreign::served(scene).is_none()
}

fn has_threads() -> bool {
    fs::read_to_string(THREADS_FILE).is_ok_and(|threads| threads.trim() != "0")
}

/// What does not depend on the volume: a node that waits for its turn has it ready.
pub(super) fn prepare(scene: &Scene) -> Result<(), Trouble> {
    if !Path::new(NFSD_FOLDER).exists() {
        // Built in, it is no module.
        let _ = run(program("modprobe", &["nfsd"]), PROGRAM_LIMIT);
    }
    mount_once("nfsd", NFSD_FOLDER)?;
    mount_once("rpc_pipefs", PIPES_FOLDER)?;
    ensure_portmapper()?;
    start_helper(scene, MOUNTD, "rpc.mountd", &["-F", "-p", &MOUNTD_PORT.to_string()])?;
    export(scene).map(drop)
}

/// Has `rpc.mountd` know what is exported now, if it runs; what that has changed.
pub(super) fn apply_exports(scene: &Scene) -> Result<Vec<String>, Trouble> {
    match helper(scene, MOUNTD) {
        Some(_) => export(scene),
        None => Ok(Vec::new()),
    }
}

/// Tells `rpc.mountd` what is exported, which is so only while the volume is mounted: `mp`.
fn export(scene: &Scene) -> Result<Vec<String>, Trouble> {
    exports::ensure(scene, |arguments| scene.run(program("exportfs", arguments), "", PROGRAM_LIMIT))
}

/// What the kernel has been told of exports and clients is asked for anew.
fn forget_told() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() + 1;
    for cache in ["auth.unix.ip", "auth.unix.gid", "nfsd.fh", "nfsd.export"] {
        // Who was never asked remembers nothing.
        let _ = fs::write(format!("/proc/net/rpc/{cache}/flush"), format!("{now}\n"));
    }
}

pub(super) fn start(scene: &Scene, turn: &Turn) -> Result<String, Trouble> {
    let service = &scene.service;
    prepare(scene)?;
    make_room(scene)?;
    let state = |folder: &str| service.state.join(folder).to_string_lossy().into_owned();
    start_helper(scene, TRACKER, TRACKER, &["-F", "-p", PIPES_FOLDER, "-s", &state("nfsdcld")])?;
    forget_told();
    await_client_tracking(scene, TRACKER, turn)?;
    rmtab::restore(service)?;
    if !is_whole(scene) {
        foreign::note_begun(scene)?;
    }
    start_threads(service)?;
    await_answer(scene, None, &scene.here.file(&service.name, "mountd.log"), turn)?;
    foreign::note_started(scene)?;
    Ok(format!("{THREADS} threads answer"))
}

/// A server that somebody else has started makes room, or it stays. What a start that was killed has left goes: it may listen
/// to one family of addresses alone.
fn make_room(scene: &Scene) -> Result<(), Trouble> {
    if has_threads()
        && let Some(folder) = foreign::served(scene)
    {
        return Err(foreign::refusal(&folder));
    }
    if is_up() && !is_whole(scene) {
        end_threads(STOP_LIMIT)?;
    }
    foreign::end_trackers(helper(scene, TRACKER))
}

/// The kernel looks for `nfsdcld` for one second when its threads start, and remembers clients elsewhere if it does not find
/// it: then their opens and locks would stay behind on this node.
fn await_client_tracking(scene: &Scene, name: &str, turn: &Turn) -> Result<(), Trouble> {
    let tracker = helper(scene, name);
    let ended = || tracker.is_none_or(|tracker| !tracker.is_running());
    // It has read its database and waits for the kernel.
    let waits = || tracker.is_some_and(|tracker| tracker.has_open("anon_inode:inotify"));
    let looked = turn.until(|| (waits() || ended()).then_some(()));
    match looked.is_some() && !ended() {
        true => Ok(()),
        false => {
            let log = scene.here.file(&scene.service.name, &format!("{name}.log"));
            Err(Trouble::new(format!("{TRACKER} does not run; its log ends with: {}", end_of(&log))))
        }
    }
}

/// Tries what a promotion will need.
pub(super) fn rehearse(scene: &Scene) -> Result<(), Trouble> {
    let listed = ask_for_exports();
    rehearse_client_tracking(scene).and(listed)
}

/// `rpc.mountd` reads the exports when it is asked for something for the first time.
fn ask_for_exports() -> Result<(), Trouble> {
    let mountd = SocketAddr::from((Ipv4Addr::LOCALHOST, MOUNTD_PORT));
    let mut said = Ok(());
    Turn::new(PROGRAM_LIMIT, Cancel::default()).until(|| {
        said = match rpc::exports(mountd, PROGRAM_LIMIT) {
            // One for NFSv4 alone does not tell.
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(()),
            said => said,
        };
        said.is_ok().then_some(())
    });
    said.map_err(trouble(format_args!("asking rpc.mountd on {mountd}")))
}

/// Starts `nfsdcld` once far from the kernel and the volume, and ends it: that it cannot be started is not found out by a
/// promotion, and none waits until it is read from the disk.
fn rehearse_client_tracking(scene: &Scene) -> Result<(), Trouble> {
    let folder = scene.here.file(&scene.service.name, REHEARSAL);
    if folder.exists() {
        return Ok(());
    }
    let (pipes, state) = (folder.join("pipes"), folder.join("state"));
    for folder in [&pipes.join("nfsd"), &state] {
        fs::create_dir_all(folder).map_err(trouble(folder.display()))?;
    }
    let (pipes, state) = (pipes.to_string_lossy(), state.to_string_lossy());
    start_helper(scene, REHEARSAL, TRACKER, &["-F", "-p", &pipes, "-s", &state])?;
    let turn = Turn::new(PROGRAM_LIMIT, Cancel::default());
    let came = await_client_tracking(scene, REHEARSAL, &turn);
    helper(scene, REHEARSAL).map_or(Ok(()), |process| process.stop(STOP_PATIENCE))?;
    came
}

/// What `rpc.nfsd` would do. Times and versions are taken only before there is a listener, the listener only once.
fn start_threads(service: &Service) -> Result<(), Trouble> {
    let (grace, lease) = (service.grace_s.to_string(), service.lease_s.to_string());
    // A kernel without NFSv3 has none of these.
    let ports = LOCK_PORT_FILES.map(|file| (file, LOCKD_PORT.to_string()));
    for (file, word) in [(LOCK_GRACE_FILE, grace.clone())].into_iter().chain(ports) {
        if Path::new(file).exists() {
            tell(file, &word)?;
        }
    }
    if listeners() == 0 {
        tell(GRACE_FILE, &grace)?;
        tell(LEASE_FILE, &lease)?;
        // A kernel without this version refuses to be told so.
        let _ = tell(VERSIONS_FILE, "-2");
        let sockets = listener::sockets(PORT).map_err(trouble(format_args!("listening at port {PORT}")))?;
        sockets.iter().try_for_each(|socket| tell(LISTENERS_FILE, &socket.as_raw_fd().to_string()))?;
    }
    // The kernel takes the server's scope from the name of the host on which its threads are started: this is that host, for
    // the moment.
    let scope = scope(service);
    let starter = thread::spawn(move || {
        let named = unshare(CloneFlags::CLONE_NEWUTS).and_then(|()| sethostname(&scope));
        named.map_err(trouble("cannot name the server"))?;
        tell(THREADS_FILE, THREADS)
    });
    starter.join().unwrap_or_else(|_| Err(Trouble::new("starting the threads has panicked")))
}

/// How many sockets it listens on: one for each family.
fn listeners() -> usize {
    let listed = fs::read_to_string(LISTENERS_FILE).unwrap_or_default();
    listed.lines().filter(|line| *line == LISTENER).count()
}

/// Whether there is something to end: one without threads listens all the same.
fn is_up() -> bool {
    has_threads() || listeners() > 0
}

/// The kernel takes what is written as one word.
fn tell(file: &str, word: &str) -> Result<(), Trouble> {
    fs::write(file, format!("{word}\n")).map_err(trouble(format_args!("writing '{word}' to {file}")))
}

/// Threads of the kernel's die of nothing else.
pub(super) fn kill() -> Result<(), Trouble> {
    end_threads(STOP_LIMIT)
}

fn end_threads(limit: Duration) -> Result<(), Trouble> {
    let hangs = || Trouble::new(format!("the NFS threads do not end within {:.1} s", limit.as_secs_f64()));
    within(limit, || tell(THREADS_FILE, "0")).ok_or_else(hangs)?
}

pub(super) fn stop(scene: &Scene, turn: &Turn) -> Result<String, Trouble> {
    notify::keep_noted(&scene.service.state);
    // Without threads there are no opens and no locks.
    let stopped = match is_up() && foreign::served(scene).is_none() {
        true => end_threads(STOP_LIMIT.min(turn.left())),
        false => Ok(()),
    };
    if stopped.is_ok() {
        foreign::forget_ours(scene);
    }
    exports::take_back(scene, |arguments| run(program("exportfs", arguments), PROGRAM_LIMIT));
    forget_told();
    stop_helpers(scene, HELPERS)?;
    stopped.map(|()| "stopped".into())
}

fn mount_once(kind: &str, folder: &str) -> Result<(), Trouble> {
    if mounts::at(folder.as_ref())?.is_some() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(trouble(format_args!("the kernel has no {kind}")))?;
    filesystem::mount(Path::new(kind), Path::new(folder), kind, "").map_err(trouble(folder))
}
