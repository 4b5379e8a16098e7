//! The filesystem of the volume at its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Scene, device, unmount};
use crate::plan::{Step, Trouble, Turn, trouble};
use crate::system::mounts::Mounted;
use crate::system::program::{find, program};
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
        let device = device::found(&self.0)?;
        expect_uuid(&device, mount.uuid.as_deref())?;
        fs::create_dir_all(&mount.point).map_err(trouble(mount.point.display()))?;
        match find(&format!("mount.{}", mount.fstype)) {
            None => {
                let mounted = filesystem::mount(&device, &mount.point, &mount.fstype, &mount.options);
                mounted.map_err(trouble(format_args!(
                    "cannot mount {} as {}; the kernel's log may say more",
                    device.display(),
                    mount.fstype
                )))?;
            }
            // It wants more than the kernel's call.
            Some(_) => {
                let options = ["-t".as_ref(), mount.fstype.as_ref(), "-o".as_ref(), mount.options.as_ref()];
                let mut command = program::<&std::ffi::OsStr>("mount", &options);
                command.arg(&device).arg(&mount.point);
                self.0.run(command, "", turn.left())?;
            }
        }
        let Some(mounted) = mounts::at(&mount.point)?.filter(|mounted| mounted.is_of(&device)) else {
            let point = mount.point.display();
            return Err(Trouble::new(format!("{} is not mounted on {point} after all", device.display())));
        };
        note(&self.0, &mounted)?;
        let state = &self.0.service.state;
        fs::create_dir_all(state).map_err(trouble(state.display()))?;
        let probe = state.join("probe");
        filesystem::write_through(&probe, b"written by nfs-failover at each promotion\n")
            .map_err(trouble("the filesystem takes no writes"))?;
        Ok(format!("{} on {}", device.display(), mount.point.display()))
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        unmount::unmount(&self.0, turn).map(|_| ())
    }
}

/// The number of the volume's device among these mounts, if it is one of them, wherever: as was noted when it was mounted, for
/// the device may be gone and tandemd unable to say; or as its device says.
pub(super) fn number(scene: &Scene, all: &[Mounted]) -> Result<Option<(u64, u64)>, Trouble> {
    let noted = fs::read_to_string(noted(scene)).ok();
    if let Some(volume) = all.iter().find(|one| noted.as_ref() == Some(&shown(one))) {
        return Ok(Some(volume.device));
    }
    let point = &scene.service.mount.point;
    match (device::path(scene), all.iter().rfind(|one| one.point == *point)) {
        (Ok(device), _) => Ok(all.iter().find(|one| one.is_of(&device)).map(|one| one.device)),
        (Err(_), None) => Ok(None),
        (Err(trouble), Some(other)) => {
            let (source, point, resource) =
                (other.source.display(), point.display(), &scene.service.resource);
            Err(Trouble::new(format!("{source} is mounted on {point}; whether it is {resource}: {trouble}")))
        }
    }
}

/// Whether the volume is mounted and takes no writes: a filesystem that meets errors makes itself so (`errors=remount-ro`), and
/// its server goes on answering.
pub fn takes_no_writes(scene: &Scene) -> bool {
    mounts::at(&scene.service.mount.point).is_ok_and(|mounted| mounted.is_some_and(|one| one.is_read_only))
}

fn note(scene: &Scene, mounted: &Mounted) -> Result<(), Trouble> {
    let path = noted(scene);
    fs::write(&path, shown(mounted)).map_err(trouble(path.display()))
}

/// Whether it was noted that it is mounted.
pub(super) fn is_noted(scene: &Scene) -> bool {
    noted(scene).exists()
}

/// It is not mounted any more: others will have the device's number.
pub(super) fn forget(scene: &Scene) {
    // What is left there tells its device from others.
    let _ = fs::remove_file(noted(scene));
}

fn noted(scene: &Scene) -> PathBuf {
    scene.here.file(&scene.service.name, "mounted")
}

/// The device's number and how many the kernel had made when it made this one; its name if the kernel does not count them.
fn shown(mounted: &Mounted) -> String {
    let (major, minor) = mounted.device;
    let made = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/diskseq"));
    let which = made.map_or_else(|_| mounted.source.display().to_string(), |made| made.trim().to_owned());
    format!("{major}:{minor} {which}")
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
