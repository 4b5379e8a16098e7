//! NFS-Ganesha: a process of our own with a configuration of our own.

use std::fmt::Write;
use std::fs;

use nix::sys::signal::Signal;

use super::{LOCKD_PORT, STOP_PATIENCE, Scene, await_answer, ensure_portmapper};
use crate::config::{Client, Service, Squash};
use crate::here::Here;
use crate::plan::{Trouble, Turn, trouble};
use crate::system::process::Process;
use crate::system::program::{program, start as start_program};

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

/// Both nodes give clients the same handles: numbers of exports are part of them.
fn configuration(service: &Service) -> String {
    let mut text = format!(
        "NFS_CORE_PARAM {{\n  Protocols = 3, 4;\n  NFS_Port = 2049;\n  MNT_Port = {MOUNTD_PORT};\n  \
         NLM_Port = {LOCKD_PORT};\n  Enable_NLM = false;\n  Enable_RQUOTA = false;\n  mount_path_pseudo = true;\n}}\n\
         NFSV4 {{\n  Grace_Period = {};\n  Lease_Lifetime = {};\n  RecoveryBackend = fs;\n  RecoveryRoot = {};\n  \
         Minor_Versions = 0, 1, 2;\n  Allow_Numeric_Owners = true;\n  Only_Numeric_Owners = true;\n}}\n\
         LOG {{ Default_Log_Level = EVENT; }}\n",
        service.grace_s,
        service.lease_s,
        quoted(&service.state.join("ganesha").to_string_lossy()),
    );
    for (index, export) in service.exports.iter().enumerate() {
        let path = quoted(&export.path.to_string_lossy());
        let _ = writeln!(
            text,
            "EXPORT {{\n  Export_Id = {};\n  Path = {path};\n  Pseudo = {path};\n  Protocols = 3, 4;\n  \
             Access_Type = None;\n  FSAL {{ Name = VFS; }}",
            index + 1
        );
        for client in &export.clients {
            let _ = writeln!(text, "  CLIENT {{ {} }}", client_options(client));
        }
        text.push_str("}\n");
    }
    text
}

fn client_options(client: &Client) -> String {
    let access = if client.may_write() { "RW" } else { "RO" };
    let squash = match client.squash() {
        Squash::None => "No_root_squash",
        Squash::Root => "Root_squash",
        Squash::All => "All_squash",
    };
    let mut text = format!("Clients = {}; Access_Type = {access}; Squash = {squash};", client.host);
    for (ours, theirs) in [("anonuid", "Anonymous_Uid"), ("anongid", "Anonymous_Gid")] {
        if let Some(number) = client.value(ours) {
            let _ = write!(text, " {theirs} = {number};");
        }
    }
    let security = client.value("sec").unwrap_or("sys").replace(':', ", ");
    let _ = write!(text, " SecType = {security}; PrivilegedPort = {};", !client.has("insecure"));
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}
