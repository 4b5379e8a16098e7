//! The kernel has one NFS server, and somebody else may have started it: Debian does when its package is installed. That one
//! has neither our times nor our list of clients, so that it is not taken for ours.
//!
//! Ours is known by a note that is made before its threads are started, and does not outlive the machine any more than these
//! do. Another one that exports nothing is of use to nobody, and makes room; one that does is left alone.

use std::fs;
use std::path::{Path, PathBuf};

use super::kernel::{EXPORTED_FILE, TRACKER};
use super::{STOP_PATIENCE, Scene};
use crate::config::{Client, Export, Service};
use crate::plan::{Trouble, trouble};
use crate::system::process::{self, Process};

/// What `exportfs` has noted.
pub(super) struct Exported(String);

impl Exported {
    /// Of this machine.
    pub(super) fn read() -> Exported {
        Exported(fs::read_to_string(EXPORTED_FILE).unwrap_or_default())
    }

    /// Whether one of ours is among it, with these options and maybe others.
    pub(super) fn has(&self, export: &Export, client: &Client, options: &str) -> bool {
        let beginning = format!("{}\t{}(", export.path.display(), client.host);
        let line = self.0.lines().find_map(|line| line.strip_prefix(&beginning)?.strip_suffix(')'));
        let words: Vec<&str> = line.unwrap_or_default().split(',').collect();
        line.is_some() && options.split(',').all(|option| words.contains(&option))
    }

    /// What was exported of this service's volume and is not to be any more: folders and who could use them.
    pub(super) fn gone(&self, service: &Service) -> Vec<(&str, &str)> {
        let of_volume = format!("mountpoint={}", service.mount.point.display());
        let is_wanted = |path: &str, host: &str| {
            let same = service.exports.iter().filter(|export| export.path == Path::new(path));
            same.flat_map(|export| &export.clients).any(|client| client.host == host)
        };
        let lines = self.0.lines().filter_map(|line| {
            let (path, client) = line.split_once('\t')?;
            let (host, options) = client.strip_suffix(')')?.split_once('(')?;
            let is_ours = options.split(',').any(|option| option == of_volume);
            (is_ours && !is_wanted(path, host)).then_some((path, host))
        });
        lines.collect()
    }

    /// A folder among it that none of ours are.
    fn other(&self, ours: &[Export]) -> Option<&str> {
        let folders = self.0.lines().filter_map(|line| line.split('\t').next());
        folders
            .filter(|folder| !folder.is_empty())
            .find(|folder| !ours.iter().any(|export| export.path == Path::new(folder)))
    }
}

/// Notes that the threads are ours.
pub(super) fn note_ours(scene: &Scene) -> Result<(), Trouble> {
    let note = note(scene);
    fs::write(&note, "the kernel's NFS server was started for this service\n")
        .map_err(trouble(note.display()))
}

/// They have ended.
pub(super) fn forget_ours(scene: &Scene) {
    // None may ever have been started.
    let _ = fs::remove_file(note(scene));
}

/// Whether the threads, if there are any, are ours.
pub(super) fn is_ours(scene: &Scene) -> bool {
    note(scene).exists()
}

fn note(scene: &Scene) -> PathBuf {
    scene.here.file(&scene.service.name, "nfsd")
}

/// A folder that somebody else has the kernel's server export, while it is not ours.
pub(super) fn served(scene: &Scene) -> Option<String> {
    let exported = Exported::read();
    exported.other(&scene.service.exports).filter(|_| !is_ours(scene)).map(str::to_owned)
}

/// Ends others that would keep the clients' list, of which the kernel tells one or the other, as it happens.
pub(super) fn end_trackers(own: Option<Process>) -> Result<(), Trouble> {
    let others = process::named(TRACKER).into_iter().filter(|other| Some(*other) != own);
    others.into_iter().try_for_each(|other| other.stop(STOP_PATIENCE))
}

/// Why the service cannot be had beside it.
pub(super) fn refusal(folder: &str) -> Trouble {
    Trouble::new(format!(
        "the kernel's NFS server already runs on this node and exports {folder}, which is not this service's; there is one \
         server, and its times and its list of clients move with the volume: take {folder} out of /etc/exports and \
         'systemctl disable --now nfs-server', or export it by this service"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const KNOWN: &str = "/srv/nfs/data\t10.0.0.0/24(rw,sync,wdelay,no_subtree_check,fsid=7,mountpoint=/srv/nfs,sec=sys)\n\
                         /srv/nfs/data\tfd00::/64(ro,sync)\n";

    fn ours(exports: &str) -> Vec<Export> {
        let text = format!(
            "service nfs {{ resource r0; mount /srv/nfs {{ fstype ext4; }} server kernel; export \"{exports}\"; \
             vip 10.0.0.100/24 dev eth0; }}"
        );
        Config::parse("nfs-failover.conf".as_ref(), &text).unwrap().services[0].exports.clone()
    }

    #[test]
    fn an_export_is_there_only_as_it_is_to_be() {
        let exported = Exported(KNOWN.into());
        let has = |export: &str, options: &str| {
            let exports = ours(export);
            exported.has(&exports[0], &exports[0].clients[0], options)
        };
        assert!(has(
            "/srv/nfs/data 10.0.0.0/24(rw,sync)",
            "rw,sync,no_subtree_check,fsid=7,mountpoint=/srv/nfs"
        ));
        assert!(has("/srv/nfs/data fd00::/64(ro)", "ro,sync"));
        // Of another time, for somebody else, of something else.
        assert!(!has("/srv/nfs/data 10.0.0.0/24(rw,sync)", "rw,sync,fsid=70"));
        assert!(!has("/srv/nfs/data 10.0.0.0/24(rw,sync)", "rw,sync,fsid=7,no_root_squash"));
        assert!(!has("/srv/nfs/data 10.0.0.0/2(rw,sync)", "rw"));
        assert!(!has("/srv/nfs/dat 10.0.0.0/24(rw,sync)", "rw"));
        assert!(!Exported(String::new()).has(
            &ours("/srv/nfs/data *(rw)")[0],
            &ours("/srv/nfs/data *(rw)")[0].clients[0],
            "rw"
        ));
    }

    #[test]
    fn what_is_not_exported_any_more_is_known_by_the_volume() {
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server kernel; \
            export \"/srv/nfs/data 10.0.0.0/24(rw)\"; vip 10.0.0.100/24 dev eth0; }";
        let config = Config::parse("nfs-failover.conf".as_ref(), text).unwrap();
        let known = format!(
            "{KNOWN}/srv/nfs/data\t10.0.1.0/24(rw,mountpoint=/srv/nfs)\n/srv/nfs/old\t*(ro,mountpoint=/srv/nfs,sec=sys)\n\
             /srv/nfs2/data\t*(ro,mountpoint=/srv/nfs2)\n"
        );
        let gone = [("/srv/nfs/data", "10.0.1.0/24"), ("/srv/nfs/old", "*")];
        assert_eq!(Exported(known).gone(&config.services[0]), gone);
        assert!(Exported(KNOWN.into()).gone(&config.services[0]).is_empty());
    }

    #[test]
    fn what_somebody_else_exports_is_named() {
        let ours = ours("/srv/nfs/data 10.0.0.0/24(rw,sync)");
        assert_eq!(Exported(KNOWN.into()).other(&ours), None);
        assert_eq!(Exported(String::new()).other(&ours), None);
        assert_eq!(Exported(format!("{KNOWN}/home\t*(ro)\n")).other(&ours), Some("/home"));
        assert!(refusal("/home").message.contains("exports /home"));
    }
}
