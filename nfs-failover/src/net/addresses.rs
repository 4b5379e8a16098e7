//! An interface's addresses: added and taken away by the messages of linux/if_addr.h.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockProtocol;
use tandem_netlink::{Attributes, CREATE, Message};

use super::netlink::ask;

const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
/// The kernel does not look whether somebody else has it.
const FLAG_NO_SEARCH: u8 = 2;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const LIFE: u16 = 6;
const FOR_EVER: u32 = u32::MAX;

/// Adds an address. The kernel's own search for duplicates would hold an IPv6 address back for a second. And it would take
/// the newest for whatever this node says of itself, to its peer, too: only one that is not preferred is left alone.
pub fn add(address: IpAddr, prefix: u8, interface: &str, limit: Duration) -> io::Result<()> {
    let flags = if address.is_ipv6() { FLAG_NO_SEARCH } else { 0 };
    let attributes = match address {
        IpAddr::V4(_) => named(address),
        IpAddr::V6(_) => {
            let life: Vec<u8> = [0, FOR_EVER, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
            named(address).bytes(LIFE, &life)
        }
    };
    change(NEW_ADDRESS, CREATE, (address, prefix, interface), flags, attributes, limit)
}

/// Takes it away. That it has gone meanwhile is fine: with a network's first address go its others, unless the kernel is told
/// to keep them (`promote_secondaries`), and so they do with their interface.
pub fn remove(address: IpAddr, prefix: u8, interface: &str, limit: Duration) -> io::Result<()> {
    let attributes = match address {
        // By itself it stands for whatever other end and prefix it has.
        IpAddr::V4(_) => Attributes::default().bytes(LOCAL, &octets(address)),
        IpAddr::V6(_) => named(address),
    };
    let removed = change(DELETE_ADDRESS, 0, (address, prefix, interface), 0, attributes, limit);
    removed.or_else(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(()),
        _ => Err(error),
    })
}

fn named(address: IpAddr) -> Attributes {
    let octets = octets(address);
    Attributes::default().bytes(LOCAL, &octets).bytes(ADDRESS, &octets)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn change(
    kind: u16,
    how: u16,
    (address, prefix, interface): (IpAddr, u8, &str),
    flags: u8,
    attributes: Attributes,
    limit: Duration,
) -> io::Result<()> {
    let family = if address.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 };
    let index = if_nametoindex(interface)?;
    let beginning = [&[family, prefix, flags, 0], &index.to_ne_bytes()[..]].concat();
    ask(SockProtocol::NetlinkRoute, &[Message::new(kind, how, &beginning, attributes)], None, limit)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::system::interfaces::{self, Carried};

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    #[ignore = "needs root and ip"]
    fn an_address_comes_and_goes() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(status.success());
        for (address, prefix) in [("10.0.0.9", 24), ("fd00::9", 64)] {
            let address: IpAddr = address.parse().unwrap();
            let is_there = || {
                let carried = Carried { interface: "lo".into(), address, prefix };
                interfaces::addresses().unwrap().contains(&carried)
            };
            add(address, prefix, "lo", LIMIT).unwrap();
            assert!(is_there());
            let output =
                Command::new("ip").args(["address", "show", "to", &address.to_string()]).output().unwrap();
            let shown = String::from_utf8(output.stdout).unwrap();
            assert!(shown.contains(&format!("{address}/{prefix}")), "{shown}");
            assert!(address.is_ipv4() || shown.contains("nodad") && shown.contains("deprecated"), "{shown}");
            remove(address, prefix, "lo", LIMIT).unwrap();
            assert!(!is_there());
            remove(address, prefix, "lo", LIMIT).unwrap();
            remove(address, prefix, "eth77", LIMIT).unwrap();
        }
    }
}
