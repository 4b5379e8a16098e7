//! The ports on the addresses stay closed until the service is ready: a client that is refused waits for seconds, one
//! that hears nothing sends again at once.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Scene, address, clients, role};
use crate::config::Service;
use crate::plan::{Step, Trouble, Turn};
use crate::system::mounts;
use crate::system::program::program;

/// Portmapper, NFS, mountd, lockd, statd, at the ports that are customary where they are fixed.
const NFS_PORTS: &[u16] = &[111, 662, 2049, 20048, 32803];
/// Where packets are dropped, and by which of their ends: those that come, and those that go.
const HOOKS: &[(&str, &str, &str)] = &[("input", "daddr", "dport"), ("output", "saddr", "sport")];
/// Before the administrator's own rules.
const PRIORITY: i32 = -150;

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
        nft(&self.0, &closing(&self.0.service, HOOKS), turn).map(|()| "ports closed".into())
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        nft(&self.0, &opening(&self.0.service), turn)
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
        let mut said = "ports closed";
        if role::is_frozen(&self.0)? {
            // They wait for answers that will never come, and would for long: the other node may not know of them.
            nft(&self.0, &closing(&self.0.service, &HOOKS[..1]), turn)?;
            clients::drop_sockets(&self.0.service, turn)?;
            said = "ports closed, and the clients sent away";
        }
        nft(&self.0, &closing(&self.0.service, HOOKS), turn).map(|()| said.into())
    }
}

/// Opens the ports.
pub(super) struct Unblock(pub(super) Arc<Scene>);

impl Step for Unblock {
    fn name(&self) -> &'static str {
        "unblock"
    }

    fn intention(&self) -> String {
        "open the ports".into()
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        nft(&self.0, &opening(&self.0.service), turn).map(|()| "ports open".into())
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        nft(&self.0, &closing(&self.0.service, HOOKS), turn)
    }
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

fn closing(service: &Service, hooks: &[(&str, &str, &str)]) -> String {
    let mut rules = opening(service);
    let _ = writeln!(rules, "table inet {} {{", table(service));
    for (hook, address_end, port_end) in hooks {
        let _ =
            writeln!(rules, " chain {hook} {{ type filter hook {hook} priority {PRIORITY}; policy accept;");
        for vip in &service.vips {
            let family = if matches!(vip.address, IpAddr::V4(_)) { "ip" } else { "ip6" };
            let _ = write!(rules, "  {family} {address_end} {} meta l4proto {{ tcp, udp }}", vip.address);
            let ports: Vec<String> = ports(service).iter().map(u16::to_string).collect();
            if !ports.is_empty() {
                let _ = write!(rules, " th {port_end} {{ {} }}", ports.join(", "));
            }
            rules.push_str(" drop\n");
        }
        rules.push_str(" }\n");
    }
    rules + "}\n"
}

/// Works whether the table is there or not.
fn opening(service: &Service) -> String {
    let table = table(service);
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

fn nft(scene: &Scene, rules: &str, turn: &Turn) -> Result<(), Trouble> {
    scene.run(program("nft", &["-f", "-"]), rules, turn.left())
}
