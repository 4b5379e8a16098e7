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
use tandem_control::output::errln;

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
        if !mounted.is_of(&device) {
            let (other, point) = (mounted.source.display(), point.display());
            return Err(Trouble::new(format!(
                "{other} is mounted on {point}: that is not the volume; unmount it"
            )));
        }
        if mounted.is_read_only {
            let advice =
                "the kernel's log may say why; nfs-failover demote unmounts it, then have it checked (fsck)";
            let (device, point) = (device.display(), point.display());
            return Err(Trouble::new(format!(
                "{device} is mounted on {point} and takes no writes: {advice}"
            )));
        }
        // What a promotion has mounted was looked at then.
        if !is_noted_as(&self.0, &mounted) {
            expect_uuid(&self.0, &device)?;
            note(&self.0, &mounted)?;
        }
        Ok(Some(format!("{} is mounted", device.display())))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let mount = &self.0.service.mount;
        let device = device::found(&self.0)?;
        let uuid = expect_uuid(&self.0, &device)?;
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
        keep_uuid(&self.0, uuid.as_deref());
        Ok(format!("{} on {}", device.display(), mount.point.display()))
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        unmount::unmount(&self.0, turn).map(|_| ())
    }
}

/// The number of the volume's device among these mounts, if it is one of them, wherever: as was noted when it was mounted, for
/// the device may be gone and tandemd unable to say; or as its device says.
pub(super) fn number(scene: &Scene, all: &[Mounted]) -> Result<Option<(u64, u64)>, Trouble> {
    if let Some(volume) = all.iter().find(|one| is_noted_as(scene, one)) {
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

fn is_noted_as(scene: &Scene, mounted: &Mounted) -> bool {
    fs::read_to_string(noted(scene)).is_ok_and(|noted| noted == shown(mounted))
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

/// Sees that the filesystem is the one that is configured, or else the one that this node has served before; its UUID.
fn expect_uuid(scene: &Scene, device: &Path) -> Result<Option<String>, Trouble> {
    let found = filesystem::uuid(device).map_err(trouble(device.display()))?;
    expect(scene, device, found.as_deref()).map(|()| found)
}

fn expect(scene: &Scene, device: &Path, found: Option<&str>) -> Result<(), Trouble> {
    let path = kept_uuid(scene);
    let configured = scene.service.mount.uuid.clone().map(|uuid| (uuid, "as configured".to_owned()));
    let served = || {
        // A note that a power cut has emptied says nothing.
        let before = fs::read_to_string(&path).ok()?.trim().to_owned();
        if before.is_empty() {
            return None;
        }
        let advice = format!(
            "which was served here before; if you have made a new one in its place, remove {} on both nodes",
            path.display()
        );
        Some((before, advice))
    };
    match configured.or_else(served) {
        Some((expected, why)) if found != Some(expected.as_str()) => {
            let (device, found) = (device.display(), found.unwrap_or("none that is known"));
            Err(Trouble::new(format!("the filesystem on {device} is {found}, expected {expected}, {why}")))
        }
        _ => Ok(()),
    }
}

/// Notes what is served, for the next time. Clients wait: that it is on the disk is not waited for.
fn keep_uuid(scene: &Scene, uuid: Option<&str>) {
    let (path, Some(uuid)) = (kept_uuid(scene), uuid) else { return };
    if fs::read_to_string(&path).is_ok_and(|kept| kept.trim() == uuid) {
        return;
    }
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = folder.and_then(|()| filesystem::put(&path, format!("{uuid}\n").as_bytes())) {
        // Who serves does not fail for it.
        errln!("noting which filesystem is served: {}: {error}", path.display());
    }
}

fn kept_uuid(scene: &Scene) -> PathBuf {
    scene.here.kept(&scene.service.name, "uuid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::here::Here;

    /// A node of its own folder; `mount` is what stands there about the filesystem besides.
    fn scene(folder: &Path, mount: &str) -> Arc<Scene> {
        let text = format!(
            "service nfs {{ resource r0; mount /srv/nfs {{ fstype ext4; {mount} }} server none; \
             vip 10.0.0.100/24 dev eth0; }}"
        );
        let service = Config::parse(Path::new("nfs.conf"), &text).unwrap().services.remove(0);
        let tandem = tandem_control::RuntimeDir::new(folder);
        Scene::new(service, Here { tandem, config_file: "nfs.conf".into() }, None)
    }

    #[test]
    fn only_the_filesystem_that_was_served_before_is_mounted_unless_another_is_configured() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
        let [old, new] = ["00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"];
        let (any, configured) = (scene(&folder, ""), scene(&folder, &format!("uuid {new};")));
        let refusal =
            |scene: &Scene, found| expect(scene, Path::new("/dev/drbd0"), found).err().map(|one| one.message);
        assert_eq!(refusal(&any, Some(new)), None, "none was served yet");
        assert_eq!(refusal(&any, None), None);
        keep_uuid(&any, Some(""));
        assert_eq!(refusal(&any, Some(new)), None, "the note is empty");
        keep_uuid(&any, None);
        keep_uuid(&any, Some(old));
        assert_eq!(refusal(&any, Some(old)), None);
        let why = refusal(&any, Some(new)).unwrap();
        let kept = kept_uuid(&any);
        let wanted = format!(
            "expected {old}, which was served here before; if you have made a new one in its place, remove {}",
            kept.display()
        );
        assert!(
            why.starts_with(&format!("the filesystem on /dev/drbd0 is {new}, ")) && why.contains(&wanted),
            "{why}"
        );
        assert!(refusal(&any, None).is_some(), "it was overwritten");
        // What the administrator says counts, and is what is served from then on.
        assert_eq!(refusal(&configured, Some(new)), None);
        assert!(refusal(&configured, Some(old)).unwrap().ends_with("as configured"));
        keep_uuid(&configured, Some(new));
        assert_eq!(refusal(&any, Some(new)), None);
        fs::remove_file(kept).unwrap();
        assert_eq!(refusal(&any, Some(old)), None, "removed, as it was told");
        fs::remove_dir_all(folder).unwrap();
    }
}
