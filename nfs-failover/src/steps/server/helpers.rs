//! Programs that a server needs beside it, and that it is left with when whoever started them has ended.

use std::time::Duration;

use super::{STOP_PATIENCE, Scene};
use crate::plan::Trouble;
use crate::system::process::Process;
use crate::system::program::{program, start as start_program};

/// Notes who has NFSv3 locks.
pub(super) const STATD: &str = "statd";
/// Tells them to take these again.
pub(super) const NOTIFIER: &str = "sm-notify";
/// What has to do with NFSv3 locks keeps its state on the volume, and goes with it.
pub(super) const LOCK_HELPERS: &[&str] = &[STATD, NOTIFIER];
/// So that it can be closed and opened.
const STATD_PORT: &str = "662";
const STATD_PROGRAM: &str = "rpc.statd";
/// Where any `rpc.statd` notes which process it is, and refuses to be the second.
const STATD_PID_FILE: &str = "/run/rpc.statd.pid";
const STATD_PATIENCE: Duration = Duration::from_millis(500);

/// Whether `rpc.statd` runs, which knows whom to tell that NFSv3 locks are to be taken again.
pub(in crate::steps) fn watches_locks(scene: &Scene) -> bool {
    helper(scene, STATD).is_some()
}

/// Starts it.
pub(in crate::steps) fn watch_locks(scene: &Scene) -> Result<(), Trouble> {
    if watches_locks(scene) {
        return Ok(());
    }
    end_other_statd()?;
    let state = scene.service.state.join("statd");
    let arguments = ["-F", "-L", "-p", STATD_PORT, "-P", &state.to_string_lossy()];
    start_helper(scene, STATD, STATD_PROGRAM, &arguments)
}

/// There is one on a machine, and what somebody else's notes does not move with the volume: Debian starts one with its
/// NFS servers.
fn end_other_statd() -> Result<(), Trouble> {
    let noted = std::fs::read_to_string(STATD_PID_FILE).ok().and_then(|text| text.trim().parse().ok());
    let other = noted.and_then(Process::of).filter(|process| process.is_called(STATD_PROGRAM));
    other.map_or(Ok(()), |other| other.stop(STATD_PATIENCE))
}

/// Whether one of these names runs.
pub(super) fn any_runs(scene: &Scene, names: &[&str]) -> bool {
    names.iter().any(|name| helper(scene, name).is_some())
}

pub(super) fn helper(scene: &Scene, name: &str) -> Option<Process> {
    Process::saved(&scene.here.file(&scene.service.name, &format!("{name}.pid")))
}

/// Ends those of these names that run.
pub(super) fn stop_helpers(scene: &Scene, names: &[&str]) -> Result<(), Trouble> {
    names.iter().filter_map(|name| helper(scene, name)).try_for_each(|process| process.stop(STOP_PATIENCE))
}

/// Starts a program that stays, if it does not run. It is known again by `name`.
pub(in crate::steps) fn start_helper(
    scene: &Scene,
    name: &str,
    command: &str,
    arguments: &[&str],
) -> Result<(), Trouble> {
    if helper(scene, name).is_some() {
        return Ok(());
    }
    let file = |what: &str| scene.here.file(&scene.service.name, &format!("{name}.{what}"));
    start_program(program(command, arguments), &file("log"))?.save(&file("pid"))
}
