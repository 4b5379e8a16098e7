//! An interface's addresses: added and taken away by the messages of linux/if_addr.h.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

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

/// Takes it away.
pub fn remove(address: IpAddr, prefix: u8, interface: &str, limit: Duration) -> io::Result<()> {
    change(DELETE_ADDRESS, 0, (address, prefix, interface), 0, named(address), limit)
}

fn named(address: IpAddr) -> Attributes {
    let octets = match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Attributes::default().bytes(LOCAL, &octets).bytes(ADDRESS, &octets)
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
    use crate::system::interfaces;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    #[ignore = "needs root and ip"]
    fn an_address_comes_and_goes() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(status.success());
        for (address, prefix) in [("10.0.0.9", 24), ("fd00::9", 64)] {
            let address: IpAddr = address.parse().unwrap();
            let is_there =
                || interfaces::addresses().unwrap().iter().any(|(name, one)| name == "lo" && *one == address);
            add(address, prefix, "lo", LIMIT).unwrap();
            assert!(is_there());
            let output =
                Command::new("ip").args(["address", "show", "to", &address.to_string()]).output().unwrap();
            let shown = String::from_utf8(output.stdout).unwrap();
            assert!(shown.contains(&format!("{address}/{prefix}")), "{shown}");
            assert!(address.is_ipv4() || shown.contains("nodad") && shown.contains("deprecated"), "{shown}");
            remove(address, prefix, "lo", LIMIT).unwrap();
            assert!(!is_there());
            assert!(remove(address, prefix, "lo", LIMIT).is_err());
        }
    }
}
