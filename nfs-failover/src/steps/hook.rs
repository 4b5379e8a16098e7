//! The administrator's programs, at the place of the server or beside it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Scene;
use crate::plan::{Step, Trouble, Turn};
use crate::system::mounts;
use crate::system::program::{program, run};

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
        format!("run {}", shown(self.0.service.hooks.start.as_deref()))
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let Some(check) = &self.0.service.hooks.check else { return Ok(None) };
        Ok(hook(&self.0, Some(check), CHECK_LIMIT).is_ok().then(|| format!("{} is content", check.display())))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        hook(&self.0, self.0.service.hooks.start.as_deref(), turn.left())
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        hook(&self.0, self.0.service.hooks.stop.as_deref(), turn.left()).map(|_| ())
    }
}

struct Stop(Arc<Scene>);

impl Step for Stop {
    fn name(&self) -> &'static str {
        "hook"
    }

    fn intention(&self) -> String {
        format!("run {}", shown(self.0.service.hooks.stop.as_deref()))
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
        hook(&self.0, self.0.service.hooks.stop.as_deref(), turn.left())
    }
}

/// Runs a hook with what it may want to know.
fn hook(scene: &Scene, path: Option<&Path>, limit: Duration) -> Result<String, Trouble> {
    let Some(path) = path else { return Ok(String::new()) };
    let mut command = program(path, &[&scene.service.name]);
    command.env("NFS_FAILOVER_SERVICE", &scene.service.name);
    command.env("NFS_FAILOVER_RESOURCE", &scene.service.resource);
    command.env("NFS_FAILOVER_MOUNT", &scene.service.mount.point);
    run(command, limit)?;
    Ok(path.display().to_string())
}

fn shown(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}
