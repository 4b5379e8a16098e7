//! Ports that are closed: tables of nftables with one rule for each address, protocol and port, by the messages of
//! linux/netfilter/nf_tables.h. What a batch of them changes is changed as one.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::sys::socket::SockProtocol;
use tandem_netlink::{APPEND, Attributes, CREATE, Message};

use super::netlink::ask;

/// Before the administrator's own rules.
const PRIORITY: i32 = -150;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// nftables among those that filter packets.
const SUBSYSTEM: u8 = 10;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// Both IPv4 and IPv6.
const FAMILY_INET: u8 = 1;

const POLICY_ACCEPT: u32 = 1;
const VERDICT_DROP: u32 = 0;
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const KEY_FAMILY: u32 = 15;
const KEY_PROTOCOL: u32 = 16;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
/// TCP and UDP, which have their ports at the same place.
const PROTOCOLS: [u8; 2] = [6, 17];
const PORT_BYTES: u32 = 2;

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To the addresses.
    In,
    /// From them.
    Out,
}

impl Way {
    fn chain(self) -> &'static str {
        match self {
            Way::In => "input",
            Way::Out => "output",
        }
    }

    /// The kernel's number of the place where they are met.
    fn hook(self) -> u32 {
        match self {
            Way::In => 1,
            Way::Out => 3,
        }
    }

    /// Where in the packet our own address and our own port are.
    fn offsets(self, address: IpAddr) -> (u32, u32) {
        match (self, address) {
            (Way::In, IpAddr::V4(_)) => (16, 2),
            (Way::In, IpAddr::V6(_)) => (24, 2),
            (Way::Out, IpAddr::V4(_)) => (12, 0),
            (Way::Out, IpAddr::V6(_)) => (8, 0),
        }
    }
}

/// Closes these ports, or all of them if there is none, on these addresses, and opens what the table has closed before.
pub fn close(
    table: &str,
    ways: &[Way],
    addresses: &[IpAddr],
    ports: &[u16],
    limit: Duration,
) -> io::Result<()> {
    change(&closing(table, ways, addresses, ports), limit)
}

/// Whether [`close`] and [`open`] would work: both in one, so that nothing is closed for a moment, whatever happens.
pub fn rehearse(
    table: &str,
    ways: &[Way],
    addresses: &[IpAddr],
    ports: &[u16],
    limit: Duration,
) -> io::Result<()> {
    let mut messages = closing(table, ways, addresses, ports);
    messages.extend(removal(table));
    change(&messages, limit)
}

fn closing(table: &str, ways: &[Way], addresses: &[IpAddr], ports: &[u16]) -> Vec<Message> {
    let mut messages = removal(table);
    messages.push(new_table(table));
    for way in ways {
        messages.push(new_chain(table, *way));
        for address in addresses {
            for protocol in PROTOCOLS {
                let rule = |port| new_rule(table, *way, *address, protocol, port);
                match ports {
                    [] => messages.push(rule(None)),
                    ports => messages.extend(ports.iter().map(|port| rule(Some(*port)))),
                }
            }
        }
    }
    messages
}

/// Opens what the table has closed, if there is such a table.
pub fn open(table: &str, limit: Duration) -> io::Result<()> {
    change(&removal(table), limit)
}

fn change(messages: &[Message], limit: Duration) -> io::Result<()> {
    let end = |kind| Message::new(kind, 0, &[0, 0, 0, SUBSYSTEM], Attributes::default());
    ask(SockProtocol::NetlinkNetFilter, messages, Some([end(BATCH_BEGIN), end(BATCH_END)]), limit)
}

fn message(kind: u16, flags: u16, attributes: Attributes) -> Message {
    Message::new(u16::from(SUBSYSTEM) << 8 | kind, flags, &[FAMILY_INET, 0, 0, 0], attributes)
}

fn new_table(table: &str) -> Message {
    message(NEW_TABLE, CREATE, Attributes::default().text(1, table))
}

/// Works whether the table is there or not.
fn removal(table: &str) -> Vec<Message> {
    vec![new_table(table), message(DELETE_TABLE, 0, Attributes::default().text(1, table))]
}

fn new_chain(table: &str, way: Way) -> Message {
    let hook = Attributes::default().u32_be(1, way.hook()).u32_be(2, PRIORITY as u32);
    let chain = Attributes::default().text(1, table).text(3, way.chain()).nested(4, hook);
    message(NEW_CHAIN, CREATE, chain.u32_be(5, POLICY_ACCEPT).text(7, "filter"))
}

/// Drops what has this address, protocol and port at our end.
fn new_rule(table: &str, way: Way, address: IpAddr, protocol: u8, port: Option<u16>) -> Message {
    let (family, octets) = match address {
        IpAddr::V4(ip) => (FAMILY_IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILY_IPV6, ip.octets().to_vec()),
    };
    let (address_at, port_at) = way.offsets(address);
    let mut expressions = vec![
        meta(KEY_FAMILY),
        equals(&[family]),
        payload(BASE_NETWORK, address_at, octets.len() as u32),
        equals(&octets),
        meta(KEY_PROTOCOL),
        equals(&[protocol]),
    ];
    if let Some(port) = port {
        expressions.push(payload(BASE_TRANSPORT, port_at, PORT_BYTES));
        expressions.push(equals(&port.to_be_bytes()));
    }
    expressions.push(drop_it());
    let list = expressions.into_iter().fold(Attributes::default(), |list, one| list.nested(1, one));
    let rule = Attributes::default().text(1, table).text(2, way.chain()).nested(4, list);
    message(NEW_RULE, CREATE | APPEND, rule)
}

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(1, name).nested(2, data)
}

/// Loads something that is known of the packet.
fn meta(key: u32) -> Attributes {
    expression("meta", Attributes::default().u32_be(1, REGISTER).u32_be(2, key))
}

/// Loads a piece of the packet.
fn payload(base: u32, offset: u32, length: u32) -> Attributes {
    let place = Attributes::default().u32_be(1, REGISTER).u32_be(2, base);
    expression("payload", place.u32_be(3, offset).u32_be(4, length))
}

/// Goes on only if this was loaded.
fn equals(value: &[u8]) -> Attributes {
    const EQUAL: u32 = 0;
    let value = Attributes::default().bytes(1, value);
    expression("cmp", Attributes::default().u32_be(1, REGISTER).u32_be(2, EQUAL).nested(3, value))
}

fn drop_it() -> Attributes {
    let verdict = Attributes::default().nested(2, Attributes::default().u32_be(1, VERDICT_DROP));
    expression("immediate", Attributes::default().u32_be(1, REGISTER_VERDICT).nested(2, verdict))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// As `nft` shows them; in a network of our own.
    #[test]
    #[ignore = "needs root and nft"]
    fn nft_shows_what_is_closed() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let shown = || {
            let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        open("t", LIMIT).unwrap();
        let addresses = ["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        close("t", &[Way::In, Way::Out], &addresses, &[111, 2049], LIMIT).unwrap();
        for rule in [
            "table inet t {",
            "type filter hook input priority mangle; policy accept;",
            "ip daddr 10.0.0.9 tcp dport 111 drop",
            "ip daddr 10.0.0.9 udp dport 2049 drop",
            "ip6 daddr fd00::9 tcp dport 2049 drop",
            "type filter hook output priority mangle; policy accept;",
            "ip saddr 10.0.0.9 tcp sport 2049 drop",
            "ip6 saddr fd00::9 udp sport 111 drop",
        ] {
            assert!(shown().contains(rule), "{rule} in {}", shown());
        }
        close("t", &[Way::In], &addresses[..1], &[], LIMIT).unwrap();
        let all = shown();
        assert!(all.contains("ip daddr 10.0.0.9 meta l4proto tcp drop") && !all.contains("output"), "{all}");
        rehearse("u", &[Way::In, Way::Out], &addresses, &[111, 2049], LIMIT).unwrap();
        assert_eq!(shown(), all);
        open("t", LIMIT).unwrap();
        open("t", LIMIT).unwrap();
        assert_eq!(shown(), "");
    }
}
