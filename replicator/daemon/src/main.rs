//! tandemd: keeps replicated block devices and exports them over NBD.
//!
//! The main thread answers administrators, shakes hands with NBD clients and peers and keeps the status file. Each
//! resource has a thread of its own, where one io_uring drives its engine, its disks and its sockets.

mod connector;
mod control_server;
mod daemon;
mod device;
mod devices;
mod entropy;
mod event_log;
mod failure;
mod handlers;
mod handshake;
mod log_limit;
mod man;
mod nbd_listener;
mod openers;
mod proc_drbd;
mod resource;
mod resync_order;
mod run_dir;
mod slab;
mod sockets;
mod spare;
mod status_file;
mod watchers;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sd_notify::NotifyState;
use tandem_control::RuntimeDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_local;
use tracing::{error, info};

use daemon::Daemon;
use run_dir::{RunDir, RunDirError};

/// The Tandem daemon: replicates block devices between nodes and exports them over NBD.
///
/// It stays in the foreground and logs to standard error; TANDEM_LOG sets what (default: info).
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Folder for the sockets, the pid file and the status file [default: $TANDEM_RUN_DIR or /run/tandem]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Write the manual page below this folder, and end
    #[arg(long, hide = true, value_name = "FOLDER")]
    man: Option<PathBuf>,
}

fn main() -> ExitCode {
    tandem_device::files::close_inherited();
    let options = Options::parse();
    if let Some(folder) = options.man {
        return man::write(&folder);
    }
    tandem_device::log::start();
    let dir = options.run_dir.map_or_else(RuntimeDir::from_env, RuntimeDir::new);
    match start(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Leaves the folder that it was started in: a daemon must not keep a file system from being unmounted.
fn start(dir: &RuntimeDir) -> Result<(), StartError> {
    let dir = RuntimeDir::new(std::path::absolute(dir.path()).map_err(StartError::Folder)?);
    let run_dir = RunDir::acquire(dir)?;
    std::env::set_current_dir("/").map_err(StartError::Folder)?;
    tandem_device::memory::protect();
    tokio_uring::start(run(&run_dir))
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error("the folder it was started in, or /, cannot be entered: {0}")]
    Folder(io::Error),
    #[error("signals cannot be caught: {0}")]
    Signals(#[from] io::Error),
}

async fn run(run_dir: &RunDir) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let paths = run_dir.paths();
    let daemon = Daemon::new(paths.clone());
    let nbd = spawn_local(nbd_listener::serve_unix(daemon.clone(), run_dir::bind(&paths.nbd_socket())?));
    let status = spawn_local(status_file::keep(daemon.clone(), paths.proc_drbd()));
    // The control socket comes last: who can connect to it finds everything in place.
    let control = spawn_local(control_server::serve(daemon.clone(), run_dir::bind(&paths.control_socket())?));
    info!(run_dir = %paths.path().display(), "tandemd {} is ready", env!("CARGO_PKG_VERSION"));
    notify(NotifyState::Ready);

    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
    }
    notify(NotifyState::Stopping);
    control.abort();
    nbd.abort();
    daemon.shut_down().await;
    status.abort();
    Ok(())
}

fn notify(state: NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        error!("systemd could not be told: {e}");
    }
}
