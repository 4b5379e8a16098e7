//! Runs the administrator's handlers: `sh -c COMMAND` with DRBD's environment, apart from every resource's thread.
//!
//! A handler has a process group of its own; one that passes its time limit is killed with all it has started.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tandem_control::{NodeSpec, ResourceSpec, VolumeSpec};
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::status::Status;
use tandem_core::units::{HandlerId, NodeId};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::resource::Mailbox;

/// For what a handler has printed to be read once it has ended; whoever it has left in the background prints in vain.
const OUTPUT_LIMIT: Duration = Duration::from_secs(1);
/// The daemon is never killed for want of memory; a handler is nothing special, nor is anything that it starts. Where that may not
/// be changed, the daemon is nothing special either.
const KILLABLE: &str = "{ echo 0 >/proc/self/oom_score_adj; } 2>/dev/null; ";
/// Longest line of a handler's output that is logged in one piece.
const MAX_LINE_BYTES: usize = 4096;

/// A handler that the engine wants run.
#[derive(Debug)]
pub(crate) struct Run {
    id: HandlerId,
    handler: Handler,
    command: String,
    environment: Vec<(String, String)>,
    limit: Duration,
}

impl Run {
    /// What the configuration says of the handler; `None` if it says nothing.
    pub(crate) fn new(
        id: HandlerId,
        handler: Handler,
        peer: Option<NodeId>,
        spec: &ResourceSpec,
        status: &Status,
    ) -> Option<Run> {
        Some(Run {
            id,
            handler,
            command: spec.handlers.commands.get(&handler)?.clone(),
            environment: environment(spec, status, peer),
            limit: Duration::from_millis(spec.handlers.limit_ms),
        })
    }
}

/// Runs what comes until the resource's thread has ended; handlers that run then go on.
pub(crate) async fn serve(resource: String, mailbox: Mailbox, mut runs: UnboundedReceiver<Run>) {
    while let Some(run) = runs.recv().await {
        let (resource, mailbox) = (resource.clone(), mailbox.clone());
        tokio::task::spawn_local(async move {
            let outcome = carry_out(&resource, &run).await;
            mailbox.handler_done(run.id, outcome);
        });
    }
}

async fn carry_out(resource: &str, run: &Run) -> HandlerOutcome {
    let handler = run.handler.name();
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{KILLABLE}{}", run.command))
        .envs(run.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            error!(resource, handler, "/bin/sh cannot be started: {error}");
            return HandlerOutcome::NotStarted;
        }
    };
    let output = [
        child.stdout.take().map(|out| log_lines(resource, run.handler, out)),
        child.stderr.take().map(|err| log_lines(resource, run.handler, err)),
    ];
    let outcome = wait(&mut child, run, resource).await;
    for reader in output.into_iter().flatten() {
        let abort = reader.abort_handle();
        if timeout(OUTPUT_LIMIT, reader).await.is_err() {
            abort.abort();
        }
    }
    outcome
}

async fn wait(child: &mut Child, run: &Run, resource: &str) -> HandlerOutcome {
    use std::os::unix::process::ExitStatusExt;

    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let handler = run.handler.name();
    match timeout(run.limit, child.wait()).await {
        Ok(Ok(status)) => {
            let signalled = || status.signal().map_or(u8::MAX, |signal| 128 | signal as u8);
            HandlerOutcome::Exited(status.code().map_or_else(signalled, |code| code as u8))
        }
        Ok(Err(error)) => {
            error!(resource, handler, "cannot be waited for: {error}");
            HandlerOutcome::NotStarted
        }
        Err(_) => {
            let killed = group.map(|group| killpg(group, Signal::SIGKILL));
            if let Some(Err(error)) = killed {
                warn!(resource, handler, "cannot be killed: {error}");
            }
            // The kernel delivers; what hangs in it must not keep the resource.
            let _ = timeout(OUTPUT_LIMIT, child.wait()).await;
            HandlerOutcome::TimedOut
        }
    }
}

fn log_lines(resource: &str, handler: Handler, output: impl AsyncRead + Unpin + 'static) -> JoinHandle<()> {
    let resource = resource.to_owned();
    tokio::task::spawn_local(async move {
        let mut output = BufReader::with_capacity(MAX_LINE_BYTES, output);
        while let Ok(bytes @ [_, ..]) = output.fill_buf().await {
            let line_bytes = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
            let line = String::from_utf8_lossy(&bytes[..line_bytes]).trim_end().to_owned();
            info!(resource, handler = handler.name(), "{line}");
            output.consume(line_bytes);
        }
    })
}

/// What DRBD tells its handlers. What concerns a peer is there if the event does, or if there is only one.
fn environment(spec: &ResourceSpec, status: &Status, peer: Option<NodeId>) -> Vec<(String, String)> {
    let nodes = || std::iter::once(&spec.node).chain(&spec.peers);
    let mut environment = Environment(Vec::new());
    environment.set("DRBD_RESOURCE", &spec.name);
    environment.set("DRBD_CONF", spec.handlers.config_file.display());
    environment.set("DRBD_MY_NODE_ID", spec.node.id);
    // Of several volumes, all: what happens to one happens to the resource.
    let list = |of: fn(&VolumeSpec) -> String| spec.volumes().map(of).collect::<Vec<_>>().join(" ");
    let disks = list(|volume| volume.disk.display().to_string());
    environment.set("DRBD_VOLUME", list(|volume| volume.number.to_string()));
    environment.set("DRBD_MINOR", list(|volume| volume.minor.to_string()));
    environment.set("DRBD_BACKING_DEV", &disks);
    environment.set("DRBD_LL_DISK", &disks);
    for volume in spec.volumes() {
        environment.set(&format!("DRBD_MINOR_{}", volume.number), volume.minor);
        environment.set(&format!("DRBD_BACKING_DEV_{}", volume.number), volume.disk.display());
    }
    environment.set("UP_TO_DATE_NODES", format!("0x{:08X}", up_to_date_nodes(status)));
    let names: Vec<&str> = spec.peers.iter().map(|peer| peer.name.as_str()).collect();
    environment.set("DRBD_PEERS", names.join(" "));
    for node in nodes() {
        environment.set(&format!("DRBD_NODE_ID_{}", node.id), &node.name);
    }
    let only = || spec.peers.first().filter(|_| spec.peers.len() == 1);
    let about = peer.and_then(|id| spec.peers.iter().find(|peer| peer.id == id)).or_else(only);
    if let Some(peer) = about {
        set_peer(&mut environment, spec, peer, status);
    }
    environment.0
}

fn set_peer(environment: &mut Environment, spec: &ResourceSpec, peer: &NodeSpec, status: &Status) {
    let known = status.peers.iter().find(|p| p.id == peer.id);
    environment.set("DRBD_PEER", &peer.name);
    environment.set("DRBD_PEER_NODE_ID", peer.id);
    // Of several paths, the first.
    if let Some(path) = spec.paths_to(peer.id).next() {
        environment.set_address("DRBD_MY", path.local);
        environment.set_address("DRBD_PEER", path.remote);
    }
    environment.set("DRBD_CSTATE", known.map_or(ConnectionState::StandAlone, |p| p.connection));
}

struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string()));
    }

    fn set_address(&mut self, whose: &str, address: SocketAddr) {
        self.set(&format!("{whose}_ADDRESS"), address.ip());
        self.set(&format!("{whose}_AF"), if address.is_ipv4() { "ipv4" } else { "ipv6" });
    }
}

/// A bit for each node whose disk is known to be UpToDate.
fn up_to_date_nodes(status: &Status) -> u32 {
    let peers = status.peers.iter().map(|peer| (peer.id, peer.disk));
    let good = std::iter::once((status.node, status.disk)).chain(peers);
    good.filter(|(_, disk)| *disk == DiskState::UpToDate).fold(0, |mask, (node, _)| mask | 1 << node.0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_handler_may_be_killed_for_want_of_memory_although_the_daemon_is_spared() {
        let own = "/proc/self/oom_score_adj";
        let run = Run {
            id: HandlerId(1),
            handler: Handler::FencePeer,
            command: "test $(cat /proc/self/oom_score_adj)-$TOLD = 0-a || exit 5; exit 7".into(),
            environment: vec![("TOLD".into(), "a".into())],
            limit: Duration::from_secs(60),
        };
        let before = fs::read_to_string(own).unwrap();
        // As root may; others may only be killed sooner.
        fs::write(own, "-500").or_else(|_| fs::write(own, "500")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = tokio::task::LocalSet::new().block_on(&runtime, carry_out("r0", &run));
        fs::write(own, before).unwrap();
        assert_eq!(outcome, HandlerOutcome::Exited(7));
    }
}
