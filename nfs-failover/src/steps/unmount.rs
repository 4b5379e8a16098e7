//! The volume is given up: the ladder for everything that can hold it. Never lazily: a volume that is unmounted lazily is
//! still written to.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Scene, mount};
use crate::plan::{Cancel, Step, Trouble, Turn};
use crate::system::filesystem::{self, Unmount as Ended};
use crate::system::holders;
use crate::system::mounts::{self, Mounted};
use crate::system::process::Process;
use crate::system::shut_down::shut_down;
use crate::system::users;
use crate::tandem;

const UNMOUNTED: &str = "unmounted";
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
/// tandemd tries to do it in good order first.
const FAIL_LIMIT: Duration = Duration::from_secs(15);

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
        let (scene, all) = (&self.0, mounts::all()?);
        if mount::number(scene, &all)?.is_some() || mount::is_noted(scene) {
            return Ok(None);
        }
        let other = all.iter().rfind(|one| one.point == scene.service.mount.point);
        let left_alone = |other: &Mounted| {
            format!("{} is mounted there: not the volume, and left alone", other.source.display())
        };
        Ok(Some(other.map_or_else(|| "not mounted".into(), left_alone)))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        unmount(&self.0, turn)
    }
}

/// Unmounts the volume wherever it is mounted, with everything inside of it; says how far up the ladder that led.
pub(super) fn unmount(scene: &Scene, turn: &Turn) -> Result<String, Trouble> {
    let mut how = "not mounted".to_owned();
    let mut all = mounts::all()?;
    if let Some(volume) = mount::number(scene, &all)? {
        while let Some(mounted) = mounts::outermost(&all, volume) {
            let said = climb(&Real { scene, mounted, is_volume: mounted.device == volume })?;
            // The volume's users end with the first of its mounts.
            if said != UNMOUNTED || how == "not mounted" {
                how = said;
            }
            let left = mounts::all()?;
            if left.iter().any(|one| one.id == mounted.id) {
                return Err(Trouble::stuck(format!(
                    "{} is mounted and cannot be reached: something is mounted over a folder on the way to it",
                    mounted.point.display()
                )));
            }
            // Nobody waits any more: what is mounted there from now on is none of this demotion's.
            if turn.left().is_zero() {
                let point = mounted.point.display();
                return Err(Trouble::stuck(format!("{point} and others are not unmounted in time")));
            }
            all = left;
        }
    }
    mount::forget(scene);
    Ok(how)
}

/// What the ladder is made of.
trait Rungs {
    /// The folder, for the operator.
    fn point(&self) -> String;
    /// Writes everything back; whether that worked.
    fn sync(&self) -> bool;
    /// Tries to unmount it.
    fn unmount(&self) -> Ended;
    /// Who uses it.
    fn users(&self) -> Vec<String>;
    /// What holds it besides, of which nothing is ended.
    fn holders(&self) -> Vec<String>;
    /// Sends all of them a signal.
    fn signal(&self, signal: Signal);
    /// Every access fails from now on; what is under way may still hang.
    fn shut_down(&self) -> Result<(), Trouble>;
    /// Every request to the device fails, those that hang too.
    fn fail_device(&self) -> Result<(), Trouble>;
}

/// One mount, from the gentlest means to the roughest.
fn climb(rungs: &dyn Rungs) -> Result<String, Trouble> {
    // What hangs is found out here, and the gentle means are of no use then.
    let healthy = rungs.sync();
    if healthy {
        match rungs.unmount() {
            Ended::Done => return Ok(UNMOUNTED.into()),
            Ended::Busy => {
                let names = rungs.users().join(", ");
                if end_users(rungs, Signal::SIGTERM, TERM_PATIENCE) {
                    return Ok(format!("unmounted, after asking {names} to end"));
                }
                if end_users(rungs, Signal::SIGKILL, KILL_PATIENCE) {
                    return Ok(format!("unmounted, after killing {names}"));
                }
            }
            Ended::Hangs | Ended::Failed(_) => {}
        }
    }
    if rungs.shut_down().is_ok() && end_users(rungs, Signal::SIGKILL, KILL_PATIENCE) {
        return Ok("unmounted, after shutting the filesystem down".into());
    }
    let failed = rungs.fail_device();
    if failed.is_ok() && end_users(rungs, Signal::SIGKILL, KILL_PATIENCE) {
        return Ok("unmounted, after failing every request to its device".into());
    }
    let but = failed.err().map(|why| format!("; its device cannot be made to fail: {why}"));
    let (point, obstacle, but) = (rungs.point(), obstacle(rungs), but.unwrap_or_default());
    Err(Trouble::stuck(format!("{point} cannot be unmounted: {obstacle}{but}")))
}

/// Sends everybody a signal and unmounts as soon as they are gone.
fn end_users(rungs: &dyn Rungs, signal: Signal, patience: Duration) -> bool {
    let attempt = || {
        rungs.signal(signal);
        (rungs.unmount() == Ended::Done).then_some(())
    };
    Turn::new(patience, Cancel::default()).until(attempt).is_some()
}

fn obstacle(rungs: &dyn Rungs) -> String {
    let names = [rungs.users(), rungs.holders()].concat();
    match (names.is_empty(), rungs.unmount()) {
        (false, _) => format!("in use by {}", names.join(", ")),
        (true, Ended::Hangs) => "the kernel waits for the device, or it is mounted elsewhere, too".into(),
        (true, Ended::Failed(error)) => error,
        (true, _) => "something in the kernel holds it".into(),
    }
}

/// The rungs of a mount on this machine.
struct Real<'a> {
    scene: &'a Scene,
    mounted: &'a Mounted,
    /// Not of another filesystem that is mounted inside of it, whose users elsewhere are none of our business.
    is_volume: bool,
}

impl Rungs for Real<'_> {
    fn point(&self) -> String {
        self.mounted.point.display().to_string()
    }

    fn sync(&self) -> bool {
        !self.is_volume || filesystem::sync(&self.mounted.point, SYNC_LIMIT).is_ok()
    }

    fn unmount(&self) -> Ended {
        match filesystem::unmount(&self.mounted.point, UNMOUNT_LIMIT) {
            // The kernel takes it out of sight before it has written back what it must.
            Ended::Done if self.is_out_of_sight() && !self.is_let_go() => Ended::Hangs,
            ended => ended,
        }
    }

    fn users(&self) -> Vec<String> {
        self.processes().into_iter().map(users::shown).collect()
    }

    fn holders(&self) -> Vec<String> {
        holders::of(&mounts::of(self.mounted.device).unwrap_or_default())
    }

    fn signal(&self, signal: Signal) {
        for user in self.processes() {
            // It may be gone by now.
            let _ = user.signal(signal);
        }
    }

    fn shut_down(&self) -> Result<(), Trouble> {
        self.expect_volume()?;
        shut_down(&self.mounted.point, self.mounted.device, SHUT_DOWN_LIMIT)
    }

    fn fail_device(&self) -> Result<(), Trouble> {
        self.expect_volume()?;
        let resource = &self.scene.service.resource;
        tandem::fail_device(&self.scene.here, resource, FAIL_LIMIT)
    }
}

impl Real<'_> {
    fn processes(&self) -> Vec<Process> {
        match self.is_volume {
            true => users::of(self.mounted.device),
            false => users::below(&self.mounted.point),
        }
    }

    fn expect_volume(&self) -> Result<(), Trouble> {
        let resource = &self.scene.service.resource;
        self.is_volume.then_some(()).ok_or_else(|| Trouble::new(format!("it is not {resource}'s")))
    }

    fn is_out_of_sight(&self) -> bool {
        mounts::of(self.mounted.device).is_ok_and(|left| left.is_empty())
    }

    fn is_let_go(&self) -> bool {
        mounts::number(&self.mounted.source).is_none()
            || filesystem::is_let_go(&self.mounted.source, UNMOUNT_LIMIT)
    }
}
