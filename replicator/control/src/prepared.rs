//! Resources that are made piece by piece, in the order in which drbdsetup is called: the daemon keeps what has been said of one
//! until it is whole, and shows it as DRBD shows a resource whose disks and peers are not in use yet.

use std::path::PathBuf;

use crate::{NodeSpec, ResourceSpec, VolumeSpec};

impl VolumeSpec {
    /// One that has no disk yet.
    pub fn without_disk(number: u16, minor: u32) -> VolumeSpec {
        let device = format!("/dev/drbd{minor}").into();
        VolumeSpec { number, minor, device, disk: PathBuf::new(), meta_disk: None, size_bytes: None }
    }

    /// What stands for the first volume where there is none yet.
    fn absent() -> VolumeSpec {
        VolumeSpec { device: PathBuf::new(), ..VolumeSpec::without_disk(0, 0) }
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.device.as_os_str().is_empty()
    }

    /// It is known which disk it has.
    pub fn has_disk(&self) -> bool {
        !self.disk.as_os_str().is_empty()
    }
}

impl ResourceSpec {
    /// From now on it has these volumes, or none.
    pub fn set_volumes(&mut self, mut volumes: Vec<VolumeSpec>) {
        volumes.sort_by_key(|volume| volume.number);
        let mut volumes = volumes.into_iter();
        self.volume = volumes.next().unwrap_or_else(VolumeSpec::absent);
        self.more_volumes = volumes.collect();
    }

    /// Everything is known that it takes to run it: the disk of each volume, the peers, and how they are reached.
    pub fn is_whole(&self) -> bool {
        let has_volumes = !self.volume.is_absent() && self.volumes().all(VolumeSpec::has_disk);
        let is_reached = |peer: &NodeSpec| self.paths_to(peer.id).next().is_some();
        has_volumes && !self.peers.is_empty() && self.peers.iter().all(is_reached)
    }
}
