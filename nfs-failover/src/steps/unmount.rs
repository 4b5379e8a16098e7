//! The volume is given up: the ladder for everything that can hold it. Never lazily: a volume that is unmounted lazily is
//! still written to.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Scene;
use crate::plan::{Cancel, Step, Trouble, Turn};
use crate::system::filesystem::{self, Unmount as Ended};
use crate::system::mounts::{self, Mounted};
use crate::system::shut_down::shut_down;
use crate::system::users;

const LIMIT: Duration = Duration::from_secs(60);
/// To write back what is dirty.
const SYNC_LIMIT: Duration = Duration::from_secs(15);
/// One attempt to unmount: everything has been written back before.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(5);
/// For those who use the volume, to end when they are asked to.
const TERM_PATIENCE: Duration = Duration::from_secs(2);
/// For those who are killed, to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(2);

/// Unmounts the volume, whatever it takes.
pub(super) struct Unmount(pub(super) Arc<Scene>);

impl Step for Unmount {
    fn name(&self) -> &'static str {
        "unmount"
    }

    fn intention(&self) -> String {
        format!("unmount {}, ending whoever uses it", self.0.service.mount.point.display())
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(mounts::at(&self.0.service.mount.point)?.is_none().then(|| "not mounted".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        unmount(&self.0, turn)
    }
}

/// Unmounts everything at and inside of the mount; says how far up the ladder that led.
pub(super) fn unmount(scene: &Scene, _turn: &Turn) -> Result<String, Trouble> {
    let point = &scene.service.mount.point;
    let mut how = "not mounted".to_owned();
    while let Some(mounted) = mounts::at(point)? {
        for inner in mounts::inside(point)? {
            climb(&inner)?;
        }
        how = climb(&mounted)?;
    }
    Ok(how)
}

/// One mount, from the gentlest means to the roughest.
fn climb(mounted: &Mounted) -> Result<String, Trouble> {
    let point = &mounted.point;
    // What hangs is found out here, and the gentle means are of no use then.
    let healthy = filesystem::sync(point, SYNC_LIMIT).is_ok();
    if healthy {
        match filesystem::unmount(point, UNMOUNT_LIMIT) {
            Ended::Done => return Ok("unmounted".into()),
            Ended::Busy => {
                let names: Vec<String> = users::of(mounted.device).into_iter().map(users::shown).collect();
                if end_users(mounted, Signal::SIGTERM, TERM_PATIENCE) {
                    return Ok(format!("unmounted, after asking {} to end", names.join(", ")));
                }
                if end_users(mounted, Signal::SIGKILL, KILL_PATIENCE) {
                    return Ok(format!("unmounted, after killing {}", names.join(", ")));
                }
            }
            Ended::Hangs | Ended::Failed(_) => {}
        }
    }
    if shut_down(point, SHUT_DOWN_LIMIT).is_ok() && end_users(mounted, Signal::SIGKILL, KILL_PATIENCE) {
        return Ok("unmounted, after shutting the filesystem down".into());
    }
    Err(Trouble::stuck(format!(
        "{} cannot be unmounted: {}",
        point.display(),
        obstacle(point, mounted.device)
    )))
}

/// Sends everybody a signal and unmounts as soon as they are gone.
fn end_users(mounted: &Mounted, signal: Signal, patience: Duration) -> bool {
    let attempt = || {
        for user in users::of(mounted.device) {
            // It may be gone by now.
            let _ = user.signal(signal);
        }
        (filesystem::unmount(&mounted.point, UNMOUNT_LIMIT) == Ended::Done).then_some(())
    };
    Turn::new(patience, Cancel::default()).until(attempt).is_some()
}

fn obstacle(point: &Path, device: (u64, u64)) -> String {
    let names: Vec<String> = users::of(device).into_iter().map(users::shown).collect();
    match (names.is_empty(), filesystem::unmount(point, UNMOUNT_LIMIT)) {
        (false, _) => format!("in use by {}", names.join(", ")),
        (true, Ended::Hangs) => "the kernel waits for the device".into(),
        (true, Ended::Failed(error)) => error,
        (true, _) => "something in the kernel holds it".into(),
    }
}
