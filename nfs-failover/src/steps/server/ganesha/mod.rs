//! NFS-Ganesha: a process of our own with a configuration of our own. Its exports are changed while it runs.

mod bus;
mod exports;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::sys::signal::Signal;

use super::{LOCKD_PORT, STOP_PATIENCE, Scene, await_answer, ensure_portmapper};
use crate::config::Service;
use crate::here::Here;
use crate::plan::{Trouble, Turn, trouble};
use crate::system::process::Process;
use crate::system::program::{program, start as start_program};
use exports::{blocks, changes};

const PROGRAM: &str = "ganesha.nfsd";
const MOUNTD_PORT: u16 = 20048;

pub(super) fn runs(scene: &Scene) -> bool {
    process(scene).is_some()
}

fn process(scene: &Scene) -> Option<Process> {
    of(&scene.service, &scene.here)
}

fn of(service: &Service, here: &Here) -> Option<Process> {
    Process::saved(&here.file(&service.name, "ganesha.pid"))
}

pub(super) fn kill(service: &Service, here: &Here) -> Result<(), Trouble> {
    let process = of(service, here).ok_or_else(|| Trouble::new(format!("{PROGRAM} does not run")))?;
    process.signal(Signal::SIGKILL)
}

pub(super) fn start(scene: &Scene, turn: &Turn) -> Result<String, Trouble> {
    let name = &scene.service.name;
    if let Some(deaf) = process(scene) {
        deaf.stop(STOP_PATIENCE)?;
    }
    let [config, log, pid, own_pid] = ["ganesha.conf", "ganesha.log", "ganesha.pid", "ganesha.own-pid"]
        .map(|what| scene.here.file(name, what));
    fs::write(&config, configuration(&scene.service)).map_err(trouble(config.display()))?;
    ensure_portmapper()?;
    let mut command = program(PROGRAM, &["-F", "-f"]);
    command.arg(&config).arg("-L").arg(&log).arg("-p").arg(&own_pid);
    let process = start_program(command, &log)?;
    process.save(&pid)?;
    await_answer(scene, Some(process), &log, turn)?;
    Ok(format!("ganesha.nfsd answers, process {}", process.pid()))
}

pub(super) fn stop(scene: &Scene) -> Result<String, Trouble> {
    if let Some(process) = process(scene) {
        process.stop(STOP_PATIENCE)?;
    }
    Ok("stopped".into())
}

/// Has the one that runs, if one does, export what it would be started with; what that has changed. Clients notice nothing
/// of it but what it is about.
pub(super) fn apply_exports(scene: &Scene) -> Result<Vec<String>, Trouble> {
    let Some(process) = process(scene) else { return Ok(Vec::new()) };
    let [config, log] =
        ["ganesha.conf", "ganesha.log"].map(|what| scene.here.file(&scene.service.name, what));
    let known = fs::read_to_string(&config).unwrap_or_default();
    let fresh = config.with_extension("conf.new");
    fs::write(&fresh, configuration(&scene.service)).map_err(trouble(fresh.display()))?;
    let done = || fs::rename(&fresh, &config).map_err(trouble(config.display()));
    let present = match bus::exports() {
        Ok(present) => present,
        Err(unheard) => {
            done()?;
            process.signal(Signal::SIGHUP)?;
            return Ok(vec![format!(
                "{PROGRAM} was told to read its exports again; D-Bus, on which it would say what comes of that, is not to be \
                 had: see {} ({unheard})",
                log.display()
            )]);
        }
    };
    let wanted = blocks(&scene.service.exports);
    let changes = changes(&wanted, &present, &known);
    if !changes.is_empty() {
        // By what each export was made is not known before all of this is done.
        forget(&config)?;
    }
    changes.iter().try_for_each(|change| change.make(&fresh))?;
    done()?;
    Ok(changes.iter().map(ToString::to_string).collect())
}

fn forget(path: &Path) -> Result<(), Trouble> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(trouble(path.display())(error)),
        _ => Ok(()),
    }
}

fn configuration(service: &Service) -> String {
    let text = format!(
        "NFS_CORE_PARAM {{\n  Protocols = 3, 4;\n  NFS_Port = 2049;\n  MNT_Port = {MOUNTD_PORT};\n  \
         NLM_Port = {LOCKD_PORT};\n  Enable_NLM = false;\n  Enable_RQUOTA = false;\n  mount_path_pseudo = true;\n}}\n\
         NFSV4 {{\n  Grace_Period = {};\n  Lease_Lifetime = {};\n  RecoveryBackend = fs;\n  RecoveryRoot = {};\n  \
         Minor_Versions = 0, 1, 2;\n  Allow_Numeric_Owners = true;\n  Only_Numeric_Owners = true;\n}}\n\
         LOG {{ Default_Log_Level = EVENT; }}\n",
        service.grace_s,
        service.lease_s,
        exports::quoted(&service.state.join("ganesha")),
    );
    blocks(&service.exports).into_iter().fold(text, |text, block| text + &block.text)
}
