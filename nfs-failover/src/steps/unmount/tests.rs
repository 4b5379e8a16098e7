//! The ladder in a made-up world, where each rung is the one that helps.

use std::cell::{Cell, RefCell};
use std::path::Path;

use super::*;
use crate::config::Config;
use crate::here::Here;

/// A mount that comes off as soon as one rung has been climbed.
struct Fake {
    frees: Option<&'static str>,
    sync_hangs: bool,
    /// What an attempt to unmount comes to until then.
    attempt: Ended,
    device_can_fail: bool,
    holders: &'static [&'static str],
    is_free: Cell<bool>,
    climbed: RefCell<Vec<&'static str>>,
}

impl Fake {
    fn new(frees: Option<&'static str>) -> Fake {
        Fake {
            frees,
            sync_hangs: false,
            attempt: Ended::Busy,
            device_can_fail: true,
            holders: &[],
            is_free: Cell::new(false),
            climbed: RefCell::default(),
        }
    }

    fn climb(&self, rung: &'static str) {
        if self.climbed.borrow().last() != Some(&rung) {
            self.climbed.borrow_mut().push(rung);
        }
        self.is_free.set(self.is_free.get() || self.frees == Some(rung));
    }
}

impl Rungs for Fake {
    fn point(&self) -> String {
        "/srv/nfs".into()
    }

    fn sync(&self) -> bool {
        self.climb("sync");
        !self.sync_hangs
    }

    fn unmount(&self) -> Ended {
        if self.is_free.get() { Ended::Done } else { self.attempt.clone() }
    }

    fn users(&self) -> Vec<String> {
        if self.attempt == Ended::Busy { vec!["bash (7)".into()] } else { Vec::new() }
    }

    fn holders(&self) -> Vec<String> {
        self.holders.iter().map(|holder| (*holder).to_owned()).collect()
    }

    fn signal(&self, signal: Signal) {
        self.climb(signal.as_str());
    }

    fn shut_down(&self) -> Result<(), Trouble> {
        self.climb("shut down");
        Ok(())
    }

    fn fail_device(&self) -> Result<(), Trouble> {
        self.climb("fail");
        match self.device_can_fail {
            true => Ok(()),
            false => Err(Trouble::new("not running")),
        }
    }
}

#[test]
fn no_rung_is_climbed_that_is_not_needed() {
    for (frees, said, climbed) in [
        ("sync", "unmounted", 1),
        ("SIGTERM", "unmounted, after asking bash (7) to end", 2),
        ("SIGKILL", "unmounted, after killing bash (7)", 3),
        ("shut down", "unmounted, after shutting the filesystem down", 5),
        ("fail", "unmounted, after failing every request to its device", 7),
    ] {
        let fake = Fake::new(Some(frees));
        assert_eq!(climb(&fake).unwrap(), said);
        let all = ["sync", "SIGTERM", "SIGKILL", "shut down", "SIGKILL", "fail", "SIGKILL"];
        assert_eq!(*fake.climbed.borrow(), all[..climbed], "{frees}");
    }
}

#[test]
fn who_hangs_is_not_asked_politely() {
    let fake = Fake { sync_hangs: true, attempt: Ended::Hangs, ..Fake::new(Some("fail")) };
    assert_eq!(climb(&fake).unwrap(), "unmounted, after failing every request to its device");
    assert_eq!(*fake.climbed.borrow(), ["sync", "shut down", "SIGKILL", "fail", "SIGKILL"]);
}

#[test]
fn at_the_end_of_the_ladder_somebody_must_fence() {
    let trouble = climb(&Fake { attempt: Ended::Hangs, ..Fake::new(None) }).unwrap_err();
    assert!(trouble.stuck && trouble.message.contains("the kernel waits for the device"), "{trouble}");
    let trouble = climb(&Fake { device_can_fail: false, ..Fake::new(None) }).unwrap_err();
    let why =
        "/srv/nfs cannot be unmounted: in use by bash (7); its device cannot be made to fail: not running";
    assert_eq!((trouble.message.as_str(), trouble.stuck), (why, true));
    let swap = &["the swap file /srv/nfs/swap (swapoff /srv/nfs/swap)"];
    let trouble =
        climb(&Fake { attempt: Ended::Failed("busy".into()), holders: swap, ..Fake::new(None) }).unwrap_err();
    assert!(
        trouble.message.ends_with("in use by the swap file /srv/nfs/swap (swapoff /srv/nfs/swap)"),
        "{trouble}"
    );
}

/// A node without tandemd, in a folder of its own.
fn scene(folder: &Path) -> Arc<Scene> {
    let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server none; vip 10.0.0.100/24 dev eth0; }";
    let service = Config::parse(Path::new("nfs-failover.conf"), text).unwrap().services.remove(0);
    let tandem = tandem_control::RuntimeDir::new(folder);
    Scene::new(service, Here { tandem, config_file: "nfs-failover.conf".into() }, None)
}

fn with_folder(test: impl FnOnce(&Path)) {
    let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
    test(&folder);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn of_another_filesystem_inside_only_who_uses_it_there_is_ended() {
    with_folder(|folder| {
        let scene = scene(folder);
        // As if the filesystem of the temporary folder, which everybody uses, were mounted there, too.
        let dev = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(folder).unwrap());
        let device = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
        let mounted = Mounted {
            id: 2,
            parent: 1,
            point: folder.to_owned(),
            device,
            source: "/dev/root".into(),
            is_read_only: false,
        };
        let inner = Real { scene: &scene, mounted: &mounted, is_volume: false };
        let mut child = std::process::Command::new("sleep").arg("600").current_dir(folder).spawn().unwrap();
        let mut other =
            std::process::Command::new("sleep").arg("600").current_dir(std::env::temp_dir()).spawn().unwrap();
        inner.signal(Signal::SIGKILL);
        child.wait().unwrap();
        assert_eq!(other.try_wait().unwrap(), None, "it stands elsewhere on the same filesystem");
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(inner.shut_down().is_err() && inner.fail_device().is_err());
    });
}

#[test]
fn the_volume_is_known_by_what_was_noted_and_nothing_else_is_taken_for_it() {
    with_folder(|folder| {
        let scene = scene(folder);
        let note =
            |text: &str| std::fs::write(scene.here.folder().unwrap().join("nfs.mounted"), text).unwrap();
        let mounted = |point: &str, device| Mounted {
            id: 2,
            parent: 1,
            point: point.into(),
            device,
            source: "/dev/sda1".into(),
            is_read_only: false,
        };
        // The kernel has no such devices, and counts none of them.
        let (volume, other) = ((7, 1003), (7, 10031));
        let number = |all: &[Mounted]| mount::number(&scene, all);
        let unknown = number(&[mounted("/srv/nfs", volume)]).unwrap_err().message;
        assert!(unknown.contains("/dev/sda1 is mounted on /srv/nfs; whether it is r0: "), "{unknown}");
        assert_eq!(number(&[mounted("/mnt", volume)]), Ok(None), "nobody knows, and nobody has to");
        note("7:1003 /dev/sda1");
        assert_eq!(number(&[mounted("/srv/nfs", volume)]), Ok(Some(volume)));
        assert_eq!(number(&[mounted("/mnt", other), mounted("/export", volume)]), Ok(Some(volume)));
        assert!(number(&[mounted("/srv/nfs", other)]).is_err());
        note("7:1003 17");
        assert!(number(&[mounted("/srv/nfs", volume)]).is_err(), "another has the number by now");
        let step = Unmount(Arc::clone(&scene));
        assert_eq!(step.check(), Ok(None));
        assert_eq!(step.act(&Turn::new(LIMIT, Cancel::default())), Ok("not mounted".into()));
        assert_eq!(step.check(), Ok(Some("not mounted".into())), "what is noted goes with it");
    });
}
