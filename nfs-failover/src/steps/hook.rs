//! The administrator's programs, at the place of the server or beside it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Scene;
use crate::config::{Hooks, Service};
use crate::plan::{Cancel, Step, Trouble, Turn};
use crate::system::mounts;
use crate::system::program::{program, run_hook};

/// A database may have to recover.
const LIMIT: Duration = Duration::from_secs(60);
/// A look must be quick.
const CHECK_LIMIT: Duration = Duration::from_secs(4);

/// The step that starts what lives on the volume, if there is a hook for it.
pub(super) fn start(scene: Arc<Scene>) -> Option<Arc<dyn Step>> {
    scene.service.hooks.start.is_some().then(|| Arc::new(Start(scene)) as Arc<dyn Step>)
}

/// The step that stops it.
pub(super) fn stop(scene: Arc<Scene>) -> Option<Arc<dyn Step>> {
    scene.service.hooks.stop.is_some().then(|| Arc::new(Stop(scene)) as Arc<dyn Step>)
}

struct Start(Arc<Scene>);

impl Step for Start {
    fn name(&self) -> &'static str {
        "hook"
    }

    fn intention(&self) -> String {
        format!("run {}", Hook::Start.shown(&self.0.service))
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let service = &self.0.service;
        let runs = service.hooks.check.is_some() && is_content(service);
        Ok(runs.then(|| format!("{} is content", Hook::Check.shown(service))))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        Hook::Start.run(&self.0.service, turn)
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        Hook::Stop.run(&self.0.service, turn).map(|_| ())
    }
}

struct Stop(Arc<Scene>);

impl Step for Stop {
    fn name(&self) -> &'static str {
        "hook"
    }

    fn intention(&self) -> String {
        format!("run {}", Hook::Stop.shown(&self.0.service))
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    /// What it leaves running, the unmounting ends.
    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(mounts::at(&self.0.service.mount.point)?.is_none().then(|| "not mounted".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        Hook::Stop.run(&self.0.service, turn)
    }
}

/// One of the administrator's programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hook {
    Start,
    Stop,
    Check,
}

impl Hook {
    /// What it is told to do: the same program may be all of them.
    fn word(self) -> &'static str {
        match self {
            Hook::Start => "start",
            Hook::Stop => "stop",
            Hook::Check => "check",
        }
    }

    fn path(self, hooks: &Hooks) -> Option<&Path> {
        match self {
            Hook::Start => hooks.start.as_deref(),
            Hook::Stop => hooks.stop.as_deref(),
            Hook::Check => hooks.check.as_deref(),
        }
    }

    fn shown(self, service: &Service) -> String {
        let path = self.path(&service.hooks).map(|path| path.display().to_string()).unwrap_or_default();
        format!("{path} {} {}", service.name, self.word())
    }

    /// Runs it with what it may want to know.
    fn run(self, service: &Service, turn: &Turn) -> Result<String, Trouble> {
        let Some(path) = self.path(&service.hooks) else { return Ok(String::new()) };
        let mut command = program(path, &[service.name.as_str(), self.word()]);
        command.env("NFS_FAILOVER_SERVICE", &service.name);
        command.env("NFS_FAILOVER_RESOURCE", &service.resource);
        command.env("NFS_FAILOVER_MOUNT", &service.mount.point);
        run_hook(&command, turn)?;
        Ok(self.shown(service))
    }
}

/// Whether the hook that looks is content; without one, it is.
pub fn is_content(service: &Service) -> bool {
    Hook::Check.run(service, &Turn::new(CHECK_LIMIT, Cancel::default())).is_ok()
}
