//! What this version runs: volumes that are replicated between two nodes.

use std::net::SocketAddr;

use crate::diagnostic::{ConfigError, Diagnostics, Stage};
use crate::effective::{DiskOptions, NetOptions};
use crate::model::{Connection, Host, NotDefined, PathEnd, Resource, Volume};
use crate::settings::Settings;

/// A resource of two nodes, seen from one of them.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// This node.
    pub local: &'a Host,
    /// Its first volume.
    pub volume: &'a Volume,
    /// The others, by ascending number.
    pub more_volumes: &'a [Volume],
    /// The other node.
    pub peer: &'a Host,
    resource: &'a Resource,
    connection: &'a Connection,
}

/// Why a resource cannot be run here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CannotRun {
    /// This node is none of its hosts.
    #[error(transparent)]
    NotDefined(#[from] NotDefined),
    /// It asks for what this version does not do.
    #[error(transparent)]
    NotSupported(#[from] ConfigError),
}

impl Resource {
    /// Whether this version can run the resource; the error says everything that keeps it from doing so.
    pub fn runnable(&self) -> Result<(), ConfigError> {
        let mut found = Diagnostics::default();
        self.obstacles.iter().for_each(|obstacle| found.push(obstacle.clone()));
        found.usable(Stage::Check).map(drop)
    }

    /// The resource as this version runs it on `node`.
    pub fn pair(&self, node: &str) -> Result<Pair<'_>, CannotRun> {
        let not_here = || NotDefined { name: self.name.clone() };
        let local = self.local(node).ok_or_else(not_here)?;
        self.runnable()?;
        // Without obstacles, all of this is there.
        let connection = self.connections.first().ok_or_else(not_here)?;
        let [_, there] = ends(connection.paths.first().ok_or_else(not_here)?, local, self);
        let (volume, more_volumes) = local.volumes.split_first().ok_or_else(not_here)?;
        Ok(Pair {
            local,
            volume,
            more_volumes,
            peer: self.hosts.get(there.host).ok_or_else(not_here)?,
            resource: self,
            connection,
        })
    }

    /// Every option that holds for a connection.
    pub fn connection_settings(&self, connection: &Connection) -> Settings {
        self.settings.overlaid(&connection.settings)
    }
}

/// This node's end of a path, and the other one.
fn ends<'a>([one, other]: &'a [PathEnd; 2], local: &Host, resource: &Resource) -> [&'a PathEnd; 2] {
    let is_local = resource.hosts.get(one.host).is_some_and(|host| std::ptr::eq(host, local));
    if is_local { [one, other] } else { [other, one] }
}

impl Pair<'_> {
    /// Every way between the two: this node's address, and the other one's.
    pub fn paths(&self) -> impl Iterator<Item = [SocketAddr; 2]> {
        let paths = self.connection.paths.iter().map(|path| ends(path, self.local, self.resource));
        paths.map(|ends| ends.map(|end| end.address.socket))
    }

    /// How the two are connected.
    pub fn net(&self) -> NetOptions {
        NetOptions::from(&self.resource.connection_settings(self.connection))
    }

    /// What holds for all volumes on this node. Without obstacles they differ in what the most careful one decides, and in
    /// what is each one's own: that is the first one's.
    pub fn disk_of_all(&self) -> DiskOptions {
        let others = self.more_volumes.iter().map(|volume| self.disk(volume));
        others.fold(self.disk(self.volume), |all, other| DiskOptions {
            disk_flushes: all.disk_flushes || other.disk_flushes,
            disk_drain: all.disk_drain || other.disk_drain,
            al_extents: all.al_extents.max(other.al_extents),
            al_updates: all.al_updates || other.al_updates,
            ..all
        })
    }

    /// What holds for a volume on this node: the more special place wins, that of the connection last.
    pub fn disk(&self, volume: &Volume) -> DiskOptions {
        let of_volume = self.connection.volumes.iter().find(|(number, _)| *number == volume.number);
        let on_host = self.resource.settings.overlaid(&volume.settings);
        let connected = on_host.overlaid(&self.connection.settings);
        DiskOptions::from(&of_volume.map_or(connected.clone(), |(_, own)| connected.overlaid(own)))
    }
}
