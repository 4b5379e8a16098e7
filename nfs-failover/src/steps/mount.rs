//! The filesystem of the volume at its place.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Scene, device, unmount};
use crate::plan::{Step, Trouble, Turn, trouble};
use crate::system::program::program;
use crate::system::{filesystem, mounts};

/// A journal may have to be replayed.
const LIMIT: Duration = Duration::from_secs(120);

/// Mounts it, sees that it is the right one, and writes to it.
pub(super) struct Mount(pub(super) Arc<Scene>);

impl Step for Mount {
    fn name(&self) -> &'static str {
        "mount"
    }

    fn intention(&self) -> String {
        let mount = &self.0.service.mount;
        format!(
            "mount -t {} -o {} on {}, and write to it",
            mount.fstype,
            mount.options,
            mount.point.display()
        )
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let point = &self.0.service.mount.point;
        let Some(mounted) = mounts::at(point)? else { return Ok(None) };
        let device = device::path(&self.0)?;
        match mounted.is_of(&device) {
            true => Ok(Some(format!("{} is mounted", device.display()))),
            false => {
                let other = mounted.source.display();
                let point = point.display();
                Err(Trouble::new(format!(
                    "{other} is mounted on {point}: that is not the volume; unmount it"
                )))
            }
        }
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let mount = &self.0.service.mount;
        let device = device::path(&self.0)?;
        expect_uuid(&device, mount.uuid.as_deref())?;
        fs::create_dir_all(&mount.point).map_err(trouble(mount.point.display()))?;
        let arguments = ["-t".as_ref(), mount.fstype.as_ref(), "-o".as_ref(), mount.options.as_ref()];
        let mut command = program::<&std::ffi::OsStr>("mount", &arguments);
        command.arg(&device).arg(&mount.point);
        self.0.run(command, "", turn.left())?;
        if self.check()?.is_none() {
            return Err(Trouble::new(format!("nothing is mounted on {} after all", mount.point.display())));
        }
        let state = &self.0.service.state;
        fs::create_dir_all(state).map_err(trouble(state.display()))?;
        let probe = state.join("probe");
        filesystem::replace(&probe, b"written by nfs-failover at each promotion\n")
            .map_err(trouble("the filesystem takes no writes"))?;
        Ok(format!("{} on {}", device.display(), mount.point.display()))
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        unmount::unmount(&self.0, turn).map(|_| ())
    }
}

fn expect_uuid(device: &Path, expected: Option<&str>) -> Result<(), Trouble> {
    let Some(expected) = expected else { return Ok(()) };
    let found = filesystem::uuid(device).map_err(trouble(device.display()))?;
    match found.as_deref() == Some(expected) {
        true => Ok(()),
        false => {
            let found = found.unwrap_or_else(|| "none that is known".into());
            Err(Trouble::new(format!(
                "the filesystem on {} is {found}, expected {expected}",
                device.display()
            )))
        }
    }
}
