//! What goes on while the service is up: the addresses are announced again and again, the former server's clients are woken
//! until they have come, and those who are here are written down. A process of its own, so that it lives whoever promoted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tandem_control::output::errln;
use tandem_core::state::Role;

use super::{Scene, address, clients, server};
use crate::config::Service;
use crate::net::connections::{Connection, to_text};
use crate::plan::{Step, Trouble, Turn, all, trouble};
use crate::system::process::Process;
use crate::system::program::{program, start};
use crate::system::{filesystem, logs};
use crate::tandem;

/// A switch may have missed the announcement; and UCARP on a node that is elected in vain, as it hears nobody, announces the
/// address for itself each time.
const INTERVAL: Duration = Duration::from_secs(1);
/// A client that was woken may have answered the former server, as long as that had the address, too.
const WAKING_LIMIT: Duration = Duration::from_secs(60);
/// It does nothing that takes longer, unless the volume hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts the process.
pub(super) struct Keep(pub(super) Arc<Scene>);

impl Step for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn intention(&self) -> String {
        "every second, announce the addresses, wake clients that have not come, and save their list".into()
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
    let volume = volume(scene)?;
    let mut kept = Kept { former: clients::saved(&scene.service)?, began: Instant::now(), saved: None };
    let mut said = None;
    loop {
        // First, too: the addresses have just been announced and the clients woken, who are to have the processors and the
        // disk for themselves.
        thread::sleep(INTERVAL);
        // Best effort: an overlong log harms nobody yet.
        let _ = scene.here.folder().and_then(|folder| logs::bound_all(&folder));
        // Never into the folder under the mount.
        if self::volume(scene)? != volume {
            return Ok(());
        }
        // The interface may be down for a while, or the volume full.
        let trouble = kept.tend(scene).err().map(|trouble| trouble.message);
        if let Some(text) = trouble.as_ref().filter(|_| said != trouble) {
            errln!("{text}");
        }
        said = trouble;
    }
}

/// What is known of the clients.
struct Kept {
    /// Those of whoever served before.
    former: Vec<Connection>,
    began: Instant,
    /// What the list holds.
    saved: Option<Vec<Connection>>,
}

impl Kept {
    /// Does all of it once. The first trouble is told, and nothing waits for it to be mended.
    fn tend(&mut self, scene: &Scene) -> Result<(), Trouble> {
        let service = &scene.service;
        let present = clients::connections(service)?;
        let mut missing = self.former.clone();
        missing.retain(|one| self.began.elapsed() < WAKING_LIMIT && !present.contains(one));
        let called = match serves(scene) && address::all_here(service)? {
            true => all([address::announce(service), clients::tickle(&missing)].into_iter()),
            false => Ok(()),
        };
        called.and(self.save(service, [present, missing].concat())).and(server::save_mounts(service))
    }

    fn save(&mut self, service: &Service, clients: Vec<Connection>) -> Result<(), Trouble> {
        if self.saved.as_ref() != Some(&clients) {
            filesystem::replace(&clients::list(service), to_text(&clients).as_bytes())
                .map_err(trouble("saving the clients"))?;
            self.saved = Some(clients);
        }
        Ok(())
    }
}

/// Whether clients are served here: a Primary that waits for its peer to be fenced may have been replaced.
pub(super) fn serves(scene: &Scene) -> bool {
    let status = tandem::find_status(&scene.here, &scene.service.resource).ok().flatten();
    status.is_some_and(|s| s.engine.role == Role::Primary && !s.engine.suspended.fencing)
}

fn volume(scene: &Scene) -> Result<u64, Trouble> {
    let state = &scene.service.state;
    fs::metadata(state).map(|folder| folder.dev()).map_err(trouble(state.display()))
}
