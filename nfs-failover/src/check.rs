//! What has to be there before a service can be moved: programs, interfaces, hooks, ports, on both nodes, and the same
//! configuration.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tandem_control::ResourceSpec;
use tandem_core::config::Fencing;
use tandem_core::handler::Handler;

use crate::config::{Decider, Server, Service};
use crate::here::{Here, State};
use crate::net::link::Link;
use crate::peer::{Ask, Checked, Peer, PeerState, Settings, differences, settings};
use crate::service;
use crate::system::program::find;
use crate::tandem;

const NFS_PORT: u16 = 2049;
/// The other node looks at itself first.
const PEER_LIMIT: Duration = Duration::from_secs(5);

/// What every service needs.
const PROGRAMS: &[&str] = &["nft", "mount"];
const GANESHA_PROGRAMS: &[&str] = &["ganesha.nfsd", "rpcbind"];
const KERNEL_PROGRAMS: &[&str] = &["exportfs", "rpc.mountd", "nfsdcld", "rpc.statd", "sm-notify", "rpcbind"];

/// What is wrong, each with what to do about it; nothing if the service can be moved to and fro.
pub(crate) fn complaints(service: &Service, here: &Here) -> Vec<String> {
    let mut found = complaints_here(service, here);
    if service.shared_secret.is_some() {
        match Peer::connect(service, PEER_LIMIT).and_then(|mut peer| peer.ask(Ask::Check)) {
            Ok(PeerState { checked: Some(there), .. }) => {
                found.extend(complaints_about(&settings(service), there))
            }
            // It looks at nothing.
            Ok(PeerState { checked: None, .. }) => {}
            Err(error) => {
                found.push(format!("the other node's 'nfs-failover serve' does not answer: {error}"))
            }
        }
    }
    found
}

/// What is not wrong, and dangerous all the same.
pub(crate) fn warnings(service: &Service, here: &Here) -> Vec<String> {
    let status = tandem::find_status(here, &service.resource).ok().flatten();
    let missing = service::missing_decider(service).map(|missing| format!("warning: {missing}"));
    missing.into_iter().chain(status.and_then(|status| not_fenced(service, &status.spec))).collect()
}

/// A node that is elected because it hears nobody is not told from the only one that is left.
fn not_fenced(service: &Service, spec: &ResourceSpec) -> Option<String> {
    let fences =
        spec.options.fencing != Fencing::DontCare && spec.handlers.commands.contains_key(&Handler::FencePeer);
    let is_kept_apart = fences || spec.options.quorum.is_needed();
    (service.decider != Decider::None && !is_kept_apart).then(|| {
        format!(
            "warning: if the nodes lose each other, each may be elected and serve: set 'net {{ fencing resource-and-stonith; }}' \
             and a fence-peer handler for {}, a witness on a third machine being the least",
            spec.name
        )
    })
}

/// What is wrong with the other node.
fn complaints_about(ours: &Settings, there: Checked) -> Vec<String> {
    let differ = differences(ours, &there.settings).into_iter();
    let differ = differ.map(|difference| {
        let how = match difference.starts_with("`export`") {
            true => "'nfs-failover reload'",
            false => "restart nfs-failover",
        };
        format!("{difference}: make it the same in both files, and {how} where it was changed")
    });
    differ
        .chain(there.complaints.into_iter().map(|complaint| format!("on the other node: {complaint}")))
        .collect()
}

/// What is wrong with this node.
pub(crate) fn complaints_here(service: &Service, here: &Here) -> Vec<String> {
    let mut found = missing_programs(service.server, |name| find(name).is_some());
    let hooks = [&service.hooks.start, &service.hooks.stop, &service.hooks.check];
    found.extend(hooks.into_iter().flatten().filter_map(|path| bad_hook(path)));
    for vip in &service.vips {
        if let Err(error) = Link::open(&vip.interface, vip.address) {
            found.push(format!("{}: {error}: {vip} cannot be announced", vip.interface));
        }
    }
    match tandem::find_status(here, &service.resource) {
        Ok(Some(status)) => found.extend(bad_fencing(&status.spec)),
        Ok(None) => found.push(format!("{0} is not up here: tandemadm up {0}", service.resource)),
        Err(trouble) => found.push(trouble.message),
    }
    if service.is_nfs() && here.standing(&service.name).state == State::Secondary && port_is_taken() {
        found.push(format!("port {NFS_PORT} is taken: stop and disable the NFS server that is not ours"));
    }
    found
}

/// Without it a Primary writes on before it is granted its claim, which the other node may have.
fn bad_fencing(spec: &ResourceSpec) -> Option<String> {
    let handler = spec.handlers.commands.get(&Handler::FencePeer)?;
    let claims = ["witness", "pacemaker"].into_iter().find(|via| handler.contains(&format!("--via {via}")));
    claims.filter(|_| spec.options.fencing != Fencing::ResourceAndStonith).map(|via| {
        format!(
            "{}: fence-peer --via {via} needs 'net {{ fencing resource-and-stonith; }}': both nodes may go on",
            spec.name
        )
    })
}

fn missing_programs(server: Server, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let (programs, package) = match server {
        Server::Ganesha => (GANESHA_PROGRAMS, "nfs-ganesha nfs-ganesha-vfs rpcbind"),
        Server::Kernel => (KERNEL_PROGRAMS, "nfs-kernel-server nfs-common rpcbind"),
        Server::None => (&[][..], ""),
    };
    let needed = PROGRAMS.iter().map(|name| (name, "nftables iproute2 mount"));
    let needed = needed.chain(programs.iter().map(|name| (name, package)));
    needed
        .filter(|(name, _)| !is_there(name))
        .map(|(name, packages)| format!("{name} is missing: apt-get install {packages}"))
        .collect()
}

fn bad_hook(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => None,
        Ok(_) => Some(format!("{} is no program: chmod +x", path.display())),
        Err(error) => Some(format!("{}: {error}", path.display())),
    }
}

fn port_is_taken() -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, NFS_PORT)).is_ok()
}

#[cfg(test)]
mod tests {
    use tandem_core::config::Votes;

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        assert!(missing_programs(Server::Kernel, |_| true).is_empty());
        assert!(missing_programs(Server::None, |name| PROGRAMS.contains(&name)).is_empty());
        let missing = missing_programs(Server::Ganesha, |name| name != "ganesha.nfsd");
        assert_eq!(missing, ["ganesha.nfsd is missing: apt-get install nfs-ganesha nfs-ganesha-vfs rpcbind"]);
    }

    #[test]
    fn the_other_node_is_checked_too() {
        let of = |grace: &str| Settings::from([("grace".into(), grace.into())]);
        let there = Checked { settings: of("20"), complaints: vec!["nft is missing".into()] };
        let found = complaints_about(&of("10"), there);
        assert!(found[0].starts_with("`grace` is '10' here and '20' on the other node: make it the same"));
        assert_eq!(found[1..], ["on the other node: nft is missing"]);
        assert!(complaints_about(&of("1"), Checked { settings: of("1"), complaints: Vec::new() }).is_empty());
    }

    #[test]
    fn who_claims_needs_a_primary_that_waits() {
        let mut spec = crate::health::samples::secondary().spec;
        let by = |spec: &mut ResourceSpec, command: &str| {
            spec.handlers.commands.insert(Handler::FencePeer, format!("nfs-failover fence-peer {command}"));
        };
        assert_eq!(bad_fencing(&spec), None);
        by(&mut spec, "--via ssh --via witness --witness-folder /mnt");
        for (fencing, is_bad) in
            [(Fencing::DontCare, true), (Fencing::ResourceOnly, true), (Fencing::ResourceAndStonith, false)]
        {
            spec.options.fencing = fencing;
            assert_eq!(bad_fencing(&spec).is_some(), is_bad, "{fencing:?}");
        }
        spec.options.fencing = Fencing::ResourceOnly;
        by(&mut spec, "--via pacemaker");
        assert!(bad_fencing(&spec).is_some());
        by(&mut spec, "--via ssh");
        assert_eq!(bad_fencing(&spec), None);
    }

    #[test]
    fn a_decider_without_fencing_or_quorum_is_warned_of() {
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server none; state /srv/nfs/.state; \
                    vip 10.0.0.100/24 dev eth0; }";
        let mut service = Config::parse("nfs.conf".as_ref(), text).unwrap().services[0].clone();
        let mut spec = crate::health::samples::secondary().spec;
        assert_eq!(not_fenced(&service, &spec), None, "an operator knows");
        service.decider = Decider::Ucarp;
        assert!(not_fenced(&service, &spec).unwrap().contains("fencing resource-and-stonith"));
        spec.options.quorum.votes = Votes::Majority;
        assert_eq!(not_fenced(&service, &spec), None);
        spec.options.quorum.votes = Votes::Off;
        spec.handlers.commands.insert(Handler::FencePeer, "fence_ipmilan".into());
        assert!(not_fenced(&service, &spec).is_some(), "nobody runs it");
        spec.options.fencing = Fencing::ResourceAndStonith;
        assert_eq!(not_fenced(&service, &spec), None);
    }

    #[test]
    fn a_hook_is_a_program() {
        assert_eq!(bad_hook(Path::new("/bin/sh")), None);
        assert!(bad_hook(Path::new("/etc/passwd")).unwrap().contains("chmod +x"));
        assert!(bad_hook(Path::new("/no/such")).is_some());
    }
}
