//! What goes on while the service is up: the address is announced again, for switches that missed it, and the clients are
//! written down. A process of its own, so that it lives whoever promoted, and demotion ends it first.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{PROGRAM_LIMIT, Scene, address, clients};
use crate::net::connections::to_text;
use crate::plan::{Step, Trouble, Turn, trouble};
use crate::system::filesystem;
use crate::system::process::Process;
use crate::system::program::{program, start};

/// When the address is announced again, in seconds.
const ANNOUNCEMENTS_S: [u64; 3] = [2, 10, 30];
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// It does nothing that takes longer, unless the volume hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts the process.
pub(super) struct Keep(pub(super) Arc<Scene>);

impl Step for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn intention(&self) -> String {
        "announce the addresses again after 2, 10 and 30 s, and save the list of clients every second".into()
    }

    fn limit(&self) -> Duration {
        PROGRAM_LIMIT
    }

    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(keeper(&self.0).map(|process| format!("process {}", process.pid())))
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        let own = std::env::current_exe().map_err(trouble("finding this program"))?;
        let name = &self.0.service.name;
        let mut command = program::<&str>(own, &[]);
        command.arg("--config-file").arg(&self.0.here.config_file).args(["keep", name]);
        let process = start(command, &self.0.here.file(name, "keep.log"))?;
        process.save(&self.0.here.file(name, "keep.pid"))?;
        Ok(format!("process {}", process.pid()))
    }

    fn undo(&self, _turn: &Turn) -> Result<(), Trouble> {
        keeper(&self.0).map_or(Ok(()), |process| process.stop(PATIENCE))
    }
}

/// Ends the process.
pub(super) struct Release(pub(super) Arc<Scene>);

impl Step for Release {
    fn name(&self) -> &'static str {
        "release"
    }

    fn intention(&self) -> String {
        "stop saving the list of clients".into()
    }

    fn limit(&self) -> Duration {
        PROGRAM_LIMIT
    }

    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(keeper(&self.0).is_none().then(|| "not running".into()))
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        keeper(&self.0).map_or(Ok(()), |process| process.stop(PATIENCE)).map(|()| "stopped".into())
    }
}

fn keeper(scene: &Scene) -> Option<Process> {
    Process::saved(&scene.here.file(&scene.service.name, "keep.pid"))
}

/// What the process does until it is ended, or its volume is gone.
pub fn keep(scene: &Scene) -> Result<(), Trouble> {
    let service = &scene.service;
    let volume = volume(scene)?;
    let began = Instant::now();
    let mut due = ANNOUNCEMENTS_S.map(Duration::from_secs).into_iter().peekable();
    let mut saved = None;
    loop {
        if due.next_if(|at| began.elapsed() >= *at).is_some() {
            address::announce(service)?;
        }
        let connections = clients::connections(service)?;
        // Never into the folder under the mount.
        if self::volume(scene)? != volume {
            return Ok(());
        }
        if saved.as_ref() != Some(&connections) {
            let text = to_text(&connections);
            filesystem::replace(&clients::list(service), text.as_bytes())
                .map_err(trouble("saving the clients"))?;
            saved = Some(connections);
        }
        thread::sleep(SAVE_INTERVAL);
    }
}

fn volume(scene: &Scene) -> Result<u64, Trouble> {
    let state = &scene.service.state;
    fs::metadata(state).map(|folder| folder.dev()).map_err(trouble(state.display()))
}
