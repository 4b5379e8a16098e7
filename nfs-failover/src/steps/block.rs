//! The ports on the addresses stay closed until the service is ready: a client that is refused waits for seconds, one
//! that hears nothing sends again at once.

use std::net::IpAddr;
use std::sync::Arc;

use super::{PROGRAM_LIMIT, Scene, address, clients, role};
use crate::config::Service;
use crate::net::closed::{self, Way};
use crate::plan::{Step, Trouble, Turn, trouble};
use crate::system::mounts;

/// Portmapper, NFS, mountd, lockd, statd, at the ports that are customary where they are fixed.
const NFS_PORTS: &[u16] = &[111, 662, 2049, 20048, 32803];
/// What comes, and what goes.
const BOTH: &[Way] = &[Way::In, Way::Out];

/// Has the kernel's modules loaded, by a rehearsal. The service's own table stays as it is.
pub(super) fn prepare(service: &Service) -> Result<(), Trouble> {
    let probe = format!("{}-probe", table(service));
    let rehearsed = closed::rehearse(&probe, BOTH, &addresses(service), ports(service), PROGRAM_LIMIT);
    rehearsed.map_err(trouble("nftables"))
}

/// Closes the ports.
pub(super) struct Block(pub(super) Arc<Scene>);

impl Step for Block {
    fn name(&self) -> &'static str {
        "block"
    }

    fn intention(&self) -> String {
        format!("drop what clients send, until all is ready: nft table inet {}", table(&self.0.service))
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        // With the address here the service may be in use.
        Ok(address::all_here(&self.0.service)?.then(|| "the addresses are here".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        close(&self.0.service, BOTH, turn).map(|()| "ports closed".into())
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        open(&self.0.service, turn)
    }
}

/// Closes the ports under a service that is in use.
pub(super) struct BlockForDemotion(pub(super) Arc<Scene>);

impl Step for BlockForDemotion {
    fn name(&self) -> &'static str {
        "block"
    }

    fn intention(&self) -> String {
        format!(
            "drop what clients send and what the dying server says: nft table inet {}",
            table(&self.0.service)
        )
    }

    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let service = &self.0.service;
        let is_down = !address::any_here(service)? && mounts::at(&service.mount.point)?.is_none();
        Ok(is_down.then(|| "nothing is up".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        // Before tandemd is asked, which may hang.
        close(&self.0.service, BOTH, turn)?;
        if !role::is_frozen(&self.0)? {
            return Ok("ports closed".into());
        }
        let sent_away = send_away(&self.0.service, turn);
        close(&self.0.service, BOTH, turn)?;
        sent_away.map(|()| "ports closed, and the clients sent away".into())
    }
}

/// Ends the connections of clients that wait for answers that will never come, and would for long: the other node may not
/// know of them.
fn send_away(service: &Service, turn: &Turn) -> Result<(), Trouble> {
    close(service, &[Way::In], turn)?;
    clients::drop_sockets(service, turn).map(drop)
}

/// Opens the ports.
pub(super) struct Unblock {
    pub(super) scene: Arc<Scene>,
    /// Somebody is to be served here.
    pub(super) is_vital: bool,
}

impl Step for Unblock {
    fn name(&self) -> &'static str {
        "unblock"
    }

    fn intention(&self) -> String {
        "open the ports".into()
    }

    fn optional(&self) -> bool {
        !self.is_vital
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        open(&self.scene.service, turn).map(|()| "ports open".into())
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        close(&self.scene.service, BOTH, turn)
    }
}

/// What clients know it by.
pub(super) fn addresses(service: &Service) -> Vec<IpAddr> {
    service.vips.iter().map(|vip| vip.address).collect()
}

fn table(service: &Service) -> String {
    format!("nfs-failover-{}", service.name)
}

/// The ports that a service is reached at; empty means all.
pub(super) fn ports(service: &Service) -> &[u16] {
    match service.ports.as_slice() {
        [] if service.is_nfs() => NFS_PORTS,
        ports => ports,
    }
}

fn close(service: &Service, ways: &[Way], turn: &Turn) -> Result<(), Trouble> {
    let closed = closed::close(&table(service), ways, &addresses(service), ports(service), turn.left());
    closed.map_err(trouble(format_args!("closing ports by nftables, table inet {}", table(service))))
}

fn open(service: &Service, turn: &Turn) -> Result<(), Trouble> {
    let opened = closed::open(&table(service), turn.left());
    opened.map_err(trouble(format_args!("opening ports by nftables, table inet {}", table(service))))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::time::Duration;

    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::{geteuid, mkdtemp};
    use tandem_control::RuntimeDir;

    use super::*;
    use crate::config::Config;
    use crate::here::Here;
    use crate::plan::Cancel;
    use crate::system::program::find;

    /// In a network of our own.
    #[test]
    fn the_ports_are_closed_although_tandemd_does_not_say_whether_clients_wait_in_vain() {
        if !geteuid().is_root() || find("nft").is_none() {
            return eprintln!("needs root and nft");
        }
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let run = mkdtemp(&std::env::temp_dir().join("nfs-block-XXXXXX")).unwrap();
        let here = Here { tandem: RuntimeDir::new(&run), config_file: "nfs.conf".into() };
        let tandemd = UnixListener::bind(here.tandem.control_socket()).unwrap();
        let (tell, was_closed) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in tandemd.incoming().flatten() {
                tell.send(is_closed()).unwrap();
                let _ = stream.read(&mut [0; 512]).and_then(|_| stream.write_all(b"nonsense\n"));
            }
        });
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server none; \
                    state /srv/nfs/.state; vip 10.0.0.100/24 dev eth0; }";
        let service = Config::parse("nfs.conf".as_ref(), text).unwrap().services[0].clone();
        let step = BlockForDemotion(Scene::new(service, here, None));
        let failed = step.act(&Turn::new(Duration::from_secs(30), Cancel::default())).unwrap_err();
        assert!(failed.message.contains("tandemd"), "{failed}");
        assert!(
            is_closed() && was_closed.recv().unwrap(),
            "by the time that tandemd is asked, too, which may hang"
        );
        std::fs::remove_dir_all(run).unwrap();
    }

    fn is_closed() -> bool {
        let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        let rules = String::from_utf8(output.stdout).unwrap();
        rules.contains("chain input") && rules.contains("chain output")
    }
}
