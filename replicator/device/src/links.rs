//! The device's names: the configured one, such as `/dev/drbd0`, and `/dev/drbd/by-res/RES/VOL`.
//!
//! The configured name is a link to a link in the runtime folder, which leads to the kernel's device. So it can be told
//! whose a name is, also when what it led to is gone. What is not ours is never replaced.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where devices are found by resource and volume.
const BY_RESOURCE: &str = "/dev/drbd/by-res";

/// Why a name cannot be made.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Somebody else's.
    #[error(
        "{0} is there and is not Tandem's device of this resource: remove it, or configure another 'device'"
    )]
    Occupied(PathBuf),
    /// Of two resources of one name on one machine, only one can be found by it.
    #[error(
        "{0} leads to the device of another resource of this name on this machine: a second tandemd keeps it"
    )]
    Namesake(PathBuf),
    /// The system would not let us.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// The names of one device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Links {
    /// The link that leads to the kernel's device.
    node: PathBuf,
    /// The configured name.
    device: PathBuf,
    by_resource: PathBuf,
}

impl Links {
    /// `node` is the link in the runtime folder, `device` the configured name.
    pub fn new(node: &Path, device: &Path, resource: &str, volume: u16) -> Links {
        let by_resource = Path::new(BY_RESOURCE).join(resource).join(volume.to_string());
        Links { node: node.to_owned(), device: device.to_owned(), by_resource }
    }

    /// Makes them lead to `target`, in place of what an earlier device of this resource has left.
    pub fn make(&self, target: &Path) -> Result<(), LinkError> {
        self.check()?;
        self.remove();
        for (link, to) in
            [(&self.node, target), (&self.device, &self.node), (&self.by_resource, &self.device)]
        {
            let failed = |e| LinkError::Io(link.clone(), e);
            if let Some(folder) = link.parent() {
                fs::create_dir_all(folder).map_err(failed)?;
            }
            symlink(to, link).map_err(|e| match e.kind() {
                ErrorKind::AlreadyExists => LinkError::Occupied(link.clone()),
                _ => failed(e),
            })?;
        }
        Ok(())
    }

    /// Fails if a name is somebody else's.
    pub fn check(&self) -> Result<(), LinkError> {
        for (link, to) in [(&self.device, &self.node), (&self.by_resource, &self.device)] {
            match fs::read_link(link) {
                Ok(found) if found == *to => (),
                Err(e) if e.kind() == ErrorKind::NotFound => (),
                Ok(_) if *link == self.by_resource && link.exists() => {
                    return Err(LinkError::Namesake(link.clone()));
                }
                // The folder is ours: what leads nowhere is left of a device that had another name.
                Ok(_) if *link == self.by_resource => {
                    fs::remove_file(link).map_err(|e| LinkError::Io(link.clone(), e))?;
                }
                _ => return Err(LinkError::Occupied(link.clone())),
            }
        }
        Ok(())
    }

    /// Removes those that are ours.
    pub fn remove(&self) {
        for (link, to) in [(&self.by_resource, &self.device), (&self.device, &self.node)] {
            if fs::read_link(link).is_ok_and(|found| found == *to)
                && let Err(error) = fs::remove_file(link)
            {
                tracing::warn!("{} cannot be removed: {error}", link.display());
            }
        }
        // Mostly it is not there.
        let _ = fs::remove_file(&self.node);
        // Others' devices may be in there.
        let _ = self.by_resource.parent().map(fs::remove_dir);
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::mkdtemp;

    use super::*;

    #[test]
    fn names_come_and_go_and_others_are_left_alone() {
        let folder = mkdtemp(&std::env::temp_dir().join("tandem-links-XXXXXX")).unwrap();
        let (node, device, by_resource) = (folder.join("r0.dev"), folder.join("drbd0"), folder.join("r0/0"));
        let links = Links { node, device: device.clone(), by_resource: by_resource.clone() };
        links.make(Path::new("/dev/null")).unwrap();
        assert_eq!(fs::canonicalize(&by_resource).unwrap(), Path::new("/dev/null"));
        // What a keeper that was killed has left is in nobody's way.
        links.make(Path::new("/dev/zero")).unwrap();
        assert_eq!(fs::canonicalize(&device).unwrap(), Path::new("/dev/zero"));
        links.remove();
        assert!(fs::symlink_metadata(&device).is_err() && fs::symlink_metadata(&by_resource).is_err());

        fs::write(&device, "somebody's data").unwrap();
        let refused = links.make(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(refused.contains("drbd0 is there and is not Tandem's"), "{refused}");
        links.remove();
        assert_eq!(fs::read(&device).unwrap(), b"somebody's data");
        fs::remove_file(&device).unwrap();
        symlink("/dev/null", &device).unwrap();
        assert!(links.check().is_err(), "another's link");
        fs::remove_file(&device).unwrap();
        fs::create_dir_all(by_resource.parent().unwrap()).unwrap();
        symlink("/dev/null", &by_resource).unwrap();
        let refused = links.check().unwrap_err().to_string();
        assert!(refused.contains("another resource of this name"), "{refused}");
        fs::remove_file(&by_resource).unwrap();
        symlink("/no/such", &by_resource).unwrap();
        links.check().unwrap();
        assert!(fs::symlink_metadata(&by_resource).is_err(), "it led nowhere");
        fs::remove_dir_all(folder).unwrap();
    }
}
