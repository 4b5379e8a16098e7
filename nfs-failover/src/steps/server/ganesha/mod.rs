//! NFS-Ganesha: a process of our own with a configuration of our own. Its exports are changed while it runs.

mod bus;
mod exports;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::sys::signal::Signal;

use super::super::notify;
use super::helpers::{LOCK_HELPERS, any_runs, stop_helpers, watch_locks};
use super::{LOCKD_PORT, STOP_PATIENCE, Scene, await_answer, ensure_portmapper, scope};
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
    let is_unknown = !knows_anybody(&scene.service);
    fs::write(&config, configuration(&scene.service, is_unknown)).map_err(trouble(config.display()))?;
    ensure_portmapper()?;
    if scene.service.nfs3_locks {
        notify::keep_noted(&scene.service.state);
        watch_locks(scene)?;
    }
    let mut command = program(PROGRAM, &["-F", "-f"]);
    command.arg(&config).arg("-L").arg(&log).arg("-p").arg(&own_pid);
    let process = start_program(command, &log)?;
    process.save(&pid)?;
    await_answer(scene, Some(process), &log, turn)?;
    Ok(format!("ganesha.nfsd answers, process {}", process.pid()))
}

pub(super) fn stop(scene: &Scene) -> Result<String, Trouble> {
    if let Some(process) = process(scene) {
        // With such locks it takes many seconds to end: it waits for answers that it does not read any more.
        if scene.service.nfs3_locks && notify::keep_noted(&scene.service.state) {
            process.signal(Signal::SIGKILL)?;
        }
        process.stop(STOP_PATIENCE)?;
    }
    stop_helpers(scene, LOCK_HELPERS)?;
    Ok("stopped".into())
}

/// Whether a demotion has to end something.
pub(super) fn is_to_end(scene: &Scene) -> bool {
    runs(scene) || any_runs(scene, LOCK_HELPERS)
}

/// Whether anybody had something open or locked at the server before this one, and may want it again.
fn knows_anybody(service: &Service) -> bool {
    let recovery = service.state.join("ganesha");
    // As it was, and as it was before a server that did not outlive its grace; the clients of each of its nodes.
    let nodes = ["v4recov", "v4old"].iter().flat_map(|folder| fs::read_dir(recovery.join(folder)));
    let has_clients = nodes.flatten().flatten().any(|node| notify::has_any(&node.path()));
    has_clients || notify::knows_anybody(&service.state)
}

/// Has the one that runs, if one does, export what it would be started with; what that has changed. Clients notice nothing
/// of it but what it is about.
pub(super) fn apply_exports(scene: &Scene) -> Result<Vec<String>, Trouble> {
    let Some(process) = process(scene) else { return Ok(Vec::new()) };
    let [config, log] =
        ["ganesha.conf", "ganesha.log"].map(|what| scene.here.file(&scene.service.name, what));
    let known = fs::read_to_string(&config).unwrap_or_default();
    let fresh = config.with_extension("conf.new");
    fs::write(&fresh, configuration(&scene.service, false)).map_err(trouble(fresh.display()))?;
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

/// Who has the locks of NFSv3 waits for the whole grace, whoever was there: not if that was nobody.
fn configuration(service: &Service, is_unknown: bool) -> String {
    let scope = scope(service);
    let (locks, graceless) = (service.nfs3_locks, service.nfs3_locks && is_unknown);
    let text = format!(
        "NFS_CORE_PARAM {{\n  Protocols = 3, 4;\n  NFS_Port = 2049;\n  MNT_Port = {MOUNTD_PORT};\n  \
         NLM_Port = {LOCKD_PORT};\n  Enable_NLM = {locks};\n  Enable_RQUOTA = false;\n  mount_path_pseudo = true;\n}}\n\
         NFSV4 {{\n  Graceless = {graceless};\n  Grace_Period = {};\n  Lease_Lifetime = {};\n  \
         RecoveryBackend = fs;\n  RecoveryRoot = {};\n  Server_Scope = \"{scope}\";\n  Server_Owner = \"{scope}\";\n  \
         Minor_Versions = 0, 1, 2;\n  Allow_Numeric_Owners = true;\n  Only_Numeric_Owners = true;\n}}\n\
         LOG {{ Default_Log_Level = EVENT; }}\n",
        service.grace_s,
        service.lease_s,
        exports::quoted(&service.state.join("ganesha")),
    );
    blocks(&service.exports).into_iter().fold(text, |text, block| text + &block.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn service(text: &str) -> Service {
        let text = format!(
            "service nfs {{ resource r0; mount /srv/nfs {{ fstype ext4; }} server ganesha; \
             export \"/srv/nfs/data *(ro)\"; vip 10.0.0.100/24 dev eth0; {text} }}"
        );
        Config::parse("nfs-failover.conf".as_ref(), &text).unwrap().services.remove(0)
    }

    #[test]
    fn who_had_something_open_or_locked_is_waited_for() {
        let state = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-known-XXXXXX")).unwrap();
        let service = Service { state: state.clone(), ..service("nfs3-locks yes;") };
        assert!(!knows_anybody(&service), "it was never mounted");
        let folders = ["ganesha/v4recov/node0", "ganesha/v4old/node0", "statd/sm", "statd/sm.bak"];
        for folder in folders {
            fs::create_dir_all(state.join(folder)).unwrap();
        }
        assert!(!knows_anybody(&service));
        for folder in folders {
            let client = state.join(folder).join("10.0.0.7");
            fs::create_dir(&client).unwrap();
            assert!(knows_anybody(&service), "{folder}");
            fs::remove_dir(client).unwrap();
        }
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn only_with_locks_of_nfs3_the_grace_has_to_be_left_out() {
        for (text, is_unknown, locks, graceless) in [
            ("", true, false, false),
            ("nfs3-locks no;", false, false, false),
            ("nfs3-locks yes;", true, true, true),
            ("nfs3-locks yes;", false, true, false),
        ] {
            let said = configuration(&service(text), is_unknown);
            let expected = [format!("Enable_NLM = {locks};"), format!("Graceless = {graceless};")];
            assert!(expected.iter().all(|line| said.contains(line)), "{said}");
        }
    }
}
