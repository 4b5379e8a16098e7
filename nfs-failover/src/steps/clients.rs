//! The clients' connections: saved on the volume while they last, so that the next server can make them come back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Scene, block};
use crate::config::Service;
use crate::net::connections::{self, Connection, established, read, to_text};
use crate::net::destroy::destroy;
use crate::net::link::tickle_all;
use crate::plan::{Step, Trouble, Turn, all, trouble};
use crate::system::{filesystem, mounts};

/// On a volume that hangs, nobody waits for the list.
const SAVE_LIMIT: Duration = Duration::from_secs(2);

const LOOKING: &str = "looking for the clients' connections";

/// Where the list lies.
pub(super) fn list(service: &Service) -> PathBuf {
    service.state.join("clients")
}

/// The connections to the service.
pub(super) fn connections(service: &Service) -> Result<Vec<Connection>, Trouble> {
    established(&block::addresses(service), block::ports(service)).map_err(trouble(LOOKING))
}

/// Makes the clients of the node that served before come back.
pub(super) struct Tickle(pub(super) Arc<Scene>);

impl Step for Tickle {
    fn name(&self) -> &'static str {
        "tickle"
    }

    fn intention(&self) -> String {
        "make the saved clients connect at once".into()
    }

    fn optional(&self) -> bool {
        true
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        let saved = saved(&self.0.service)?;
        tickle(&saved)?;
        Ok(format!("{} connections", saved.len()))
    }
}

/// The connections that were saved last.
pub(super) fn saved(service: &Service) -> Result<Vec<Connection>, Trouble> {
    let mut saved = read(&list(service)).map_err(trouble("reading the list of clients"))?;
    saved.retain(|one| service.vips.iter().any(|vip| vip.address == one.server.ip()));
    Ok(saved)
}

/// Makes clients whose connections are not known here connect again. One that cannot be reached keeps nobody else from it.
pub(super) fn tickle(connections: &[Connection]) -> Result<(), Trouble> {
    all(connections.iter().map(|one| {
        let woken = tickle_all(one.server, &[one.client]).map(drop);
        woken.map_err(trouble(format_args!("waking {}", one.client)))
    }))
}

/// Saves the list for the last time.
pub(super) struct Save(pub(super) Arc<Scene>);

impl Step for Save {
    fn name(&self) -> &'static str {
        "clients"
    }

    fn intention(&self) -> String {
        format!("save the list of clients in {}", list(&self.0.service).display())
    }

    fn limit(&self) -> Duration {
        SAVE_LIMIT
    }

    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(mounts::at(&self.0.service.mount.point)?.is_none().then(|| "not mounted".into()))
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        let service = &self.0.service;
        // A run that was killed may have stopped the server already.
        let mut clients = [saved(service)?, connections(service)?].concat();
        clients.sort();
        clients.dedup();
        // What unmounts the volume next writes it to the disk; should that never come, what was saved before is there.
        filesystem::put(&list(service), to_text(&clients).as_bytes())
            .map_err(trouble("saving the clients"))?;
        Ok(format!("{} connections", clients.len()))
    }
}

/// Drops what is left of the server's connections: if the service comes back, a client may come from the same port, and
/// an old end of its connection must not be there to meet it.
pub(super) struct Drop(pub(super) Arc<Scene>);

impl Step for Drop {
    fn name(&self) -> &'static str {
        "sockets"
    }

    fn intention(&self) -> String {
        "drop what is left of the clients' connections".into()
    }

    fn optional(&self) -> bool {
        true
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        // Looking for them takes the kernel its time: it is done once.
        Ok(format!("{} dropped", drop_sockets(&self.0.service, turn)?))
    }
}

/// Drops the service's connections; how many there were. Clients are told so, unless their ports are blocked.
pub(super) fn drop_sockets(service: &Service, turn: &Turn) -> Result<usize, Trouble> {
    let left = connections::of(&block::addresses(service)).map_err(trouble(LOOKING))?;
    destroy(&left, turn.left()).map_err(trouble("dropping the clients' connections"))?;
    Ok(left.len())
}
