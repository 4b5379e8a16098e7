//! What this version runs: volumes that are replicated between two nodes.

use std::net::SocketAddr;

use crate::diagnostic::{ConfigError, Diagnostics, Stage};
use crate::effective::{DiskOptions, NetOptions};
use crate::model::{Connection, Host, NotDefined, Resource, Volume};
use crate::settings::Settings;

/// A resource of two nodes, seen from one of them.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// This node.
    pub local: &'a Host,
    /// Where it listens.
    pub local_address: SocketAddr,
    /// Its first volume.
    pub volume: &'a Volume,
    /// The others, by ascending number.
    pub more_volumes: &'a [Volume],
    /// The other node.
    pub peer: &'a Host,
    /// Where that one listens.
    pub peer_address: SocketAddr,
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
        let path = connection.paths.first().ok_or_else(not_here)?;
        let is_local = |host: usize| self.hosts.get(host).is_some_and(|host| std::ptr::eq(host, local));
        let [here, there] = if is_local(path[0].host) { [&path[0], &path[1]] } else { [&path[1], &path[0]] };
        let (volume, more_volumes) = local.volumes.split_first().ok_or_else(not_here)?;
        Ok(Pair {
            local,
            local_address: here.address.socket,
            volume,
            more_volumes,
            peer: self.hosts.get(there.host).ok_or_else(not_here)?,
            peer_address: there.address.socket,
            resource: self,
            connection,
        })
    }

    /// Every option that holds for a connection.
    pub fn connection_settings(&self, connection: &Connection) -> Settings {
        self.settings.overlaid(&connection.settings)
    }
}

impl Pair<'_> {
    /// How the two are connected.
    pub fn net(&self) -> NetOptions {
        NetOptions::from(&self.resource.connection_settings(self.connection))
    }

    /// What holds for a volume on this node: the more special place wins, that of the connection last.
    pub fn disk(&self, volume: &Volume) -> DiskOptions {
        let of_volume = self.connection.volumes.iter().find(|(number, _)| *number == volume.number);
        let on_host = self.resource.settings.overlaid(&volume.settings);
        let connected = on_host.overlaid(&self.connection.settings);
        DiskOptions::from(&of_volume.map_or(connected.clone(), |(_, own)| connected.overlaid(own)))
    }
}
