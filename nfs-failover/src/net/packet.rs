//! Packets that no socket of the kernel's builds: who has the address, this node has it now, and the acknowledgement that
//! makes a waiting client come back. Pure functions from values to bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An Ethernet address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// Of all IPv6 nodes on the link.
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// The kind of ICMPv6 message in which a node says that it has an address.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The advertisement replaces what the receiver knows.
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_MAC: u8 = 2;
/// A neighbour's packet has not been forwarded: its hop limit is still this.
const HOP_LIMIT: u8 = 255;
const TCP_ACK: u8 = 0x10;
const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;

/// Says to everybody on the link that the address is here: as a request and as a reply, since some listen only to one;
/// for IPv6, an unsolicited neighbour advertisement.
pub fn announcements(address: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(ip) => vec![arp(ARP_REQUEST, mac, ip, [0; 6], ip), arp(ARP_REPLY, mac, ip, BROADCAST, ip)],
        IpAddr::V6(ip) => vec![advertisement(ip, mac)],
    }
}

/// Asks who has the address, without claiming it.
pub fn question(address: IpAddr, mac: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => arp(ARP_REQUEST, mac, Ipv4Addr::UNSPECIFIED, [0; 6], ip),
        IpAddr::V6(ip) => solicitation(ip, mac),
    }
}

/// Who says in this frame that it has the address.
pub fn owner(frame: &[u8], address: IpAddr) -> Option<Mac> {
    let rest = frame.get(ETHERNET_BYTES..)?;
    let kind = frame.get(12..14)?;
    match address {
        IpAddr::V4(ip) => {
            let says = kind == TYPE_ARP && rest.get(14..18)? == ip.octets();
            says.then(|| rest.get(8..14)?.try_into().ok()).flatten()
        }
        IpAddr::V6(ip) => {
            let message = rest.get(IPV6_BYTES..)?;
            let says = kind == TYPE_IPV6
                && *rest.get(6)? == PROTOCOL_ICMPV6
                && *rest.get(7)? == HOP_LIMIT
                && *message.first()? == NEIGHBOUR_ADVERTISEMENT
                && message.get(8..24)? == ip.octets();
            says.then(|| frame.get(6..12)?.try_into().ok()).flatten()
        }
    }
}

fn arp(operation: u8, mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &mac, &TYPE_ARP].concat();
    // Ethernet, IPv4, and the lengths of their addresses.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend(target_mac);
    frame.extend(target.octets());
    frame
}

fn advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, FLAG_OVERRIDE, 0, 0, 0];
    message.extend(ip.octets());
    message.extend([OPTION_TARGET_MAC, 1]);
    message.extend(mac);
    neighbour(ALL_NODES, mac, ip, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), message)
}

fn solicitation(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let [.., a, b, c] = ip.octets();
    let low = u16::from_be_bytes([b, c]);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low);
    let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(ip.octets());
    neighbour([0x33, 0x33, 0xff, a, b, c], mac, Ipv6Addr::UNSPECIFIED, group, message)
}

fn neighbour(to: Mac, from: Mac, source: Ipv6Addr, destination: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&[&pseudo_header6(source, destination, PROTOCOL_ICMPV6, message.len()), &message]);
    message[2..4].copy_from_slice(&sum);
    let mut frame = [&to[..], &from, &TYPE_IPV6].concat();
    frame.extend(header6(source, destination, PROTOCOL_ICMPV6, message.len()));
    frame.extend(message);
    frame
}

/// An acknowledgement of nothing from the server's end of a connection that is gone. The client answers what it believes,
/// the kernel here knows no such connection and resets it, and the client connects anew at once instead of after its
/// next retransmission. `None` if the ends are of different families.
pub fn tickle(server: SocketAddr, client: SocketAddr) -> Option<Vec<u8>> {
    let mut segment = Vec::with_capacity(20);
    segment.extend(server.port().to_be_bytes());
    segment.extend(client.port().to_be_bytes());
    segment.extend([0; 8]);
    // Twenty bytes of header, a window that is not closed, no checksum yet.
    segment.extend([5 << 4, TCP_ACK, 0x04, 0xd2, 0, 0, 0, 0]);
    let (header, sum) = match (server.ip(), client.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut pseudo = [from.octets(), to.octets()].concat();
            pseudo.extend([0, PROTOCOL_TCP, 0, segment.len() as u8]);
            (header4(from, to, PROTOCOL_TCP, segment.len()), checksum(&[&pseudo, &segment]))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let pseudo = pseudo_header6(from, to, PROTOCOL_TCP, segment.len());
            (header6(from, to, PROTOCOL_TCP, segment.len()), checksum(&[&pseudo, &segment]))
        }
        _ => return None,
    };
    segment[16..18].copy_from_slice(&sum);
    Some([header, segment].concat())
}

fn header4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: usize) -> Vec<u8> {
    let length = (20 + payload as u16).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    header
}

fn header6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: usize) -> Vec<u8> {
    let length = (payload as u16).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, length[0], length[1], protocol, HOP_LIMIT];
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

fn pseudo_header6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: usize) -> Vec<u8> {
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend((payload as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    pseudo
}

/// The Internet checksum of some parts, each of an even number of bytes.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [0x02, 0, 0, 0, 0, 0x0a];
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 100));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 0x100));

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_address_is_announced_to_all_as_request_and_as_reply() {
        let frames = announcements(V4, MAC);
        assert_eq!(
            hex(&frames[0]),
            "ffffffffffff02000000000a0806000108000604000102000000000a0a6300640000000000000a630064"
        );
        assert_eq!(
            hex(&frames[1]),
            "ffffffffffff02000000000a0806000108000604000202000000000a0a630064ffffffffffff0a630064"
        );
    }

    #[test]
    fn a_neighbour_advertisement_overrides_what_is_known() {
        let frames = announcements(V6, MAC);
        assert_eq!(frames.len(), 1);
        assert_eq!(
            hex(&frames[0]),
            "33330000000102000000000a86dd6000000000203afffd000099000000000000000000000100\
             ff0200000000000000000000000000018800576220000000fd000099000000000000000000000100\
             020102000000000a"
        );
        assert_eq!(sum_of_icmp(&frames[0]), [0, 0]);
    }

    /// Over a message that holds its checksum, the checksum is zero.
    fn sum_of_icmp(frame: &[u8]) -> [u8; 2] {
        let message = &frame[ETHERNET_BYTES + IPV6_BYTES..];
        let addresses = &frame[ETHERNET_BYTES + 8..ETHERNET_BYTES + IPV6_BYTES];
        checksum(&[addresses, &(message.len() as u32).to_be_bytes(), &[0, 0, 0, PROTOCOL_ICMPV6], message])
    }

    #[test]
    fn the_question_claims_nothing() {
        assert_eq!(
            hex(&question(V4, MAC)),
            "ffffffffffff02000000000a0806000108000604000102000000000a000000000000000000000a630064"
        );
        let frame = question(V6, MAC);
        assert_eq!(hex(&frame[..6]), "3333ff000100");
        assert_eq!(hex(&frame[38..54]), "ff0200000000000000000001ff000100");
        assert_eq!(sum_of_icmp(&frame), [0, 0]);
    }

    #[test]
    fn the_owner_is_whoever_says_so() {
        let other: Mac = [0x02, 0, 0, 0, 0, 0x0b];
        for address in [V4, V6] {
            for frame in announcements(address, other) {
                assert_eq!(owner(&frame, address), Some(other));
                assert_eq!(owner(&frame[..frame.len().min(30)], address), None);
            }
            assert_eq!(owner(&question(address, other), address), None);
        }
        assert_eq!(owner(&announcements(V4, other)[0], "10.99.0.101".parse().unwrap()), None);
        assert_eq!(owner(&[], V4), None);
    }

    #[test]
    fn a_tickle_is_a_bare_acknowledgement() {
        let packet = tickle("10.99.0.100:2049".parse().unwrap(), "10.99.0.50:700".parse().unwrap()).unwrap();
        assert_eq!(
            hex(&packet),
            "4500002800000000400665750a6300640a630032080102bc0000000000000000501004d28aea0000"
        );
    }

    #[test]
    fn a_tickle_of_ipv6_has_its_sum_too() {
        let packet =
            tickle("[fd00:99::100]:2049".parse().unwrap(), "[fd00:99::50]:700".parse().unwrap()).unwrap();
        assert_eq!(packet.len(), 60);
        assert_eq!(hex(&packet[40..]), "080102bc0000000000000000501004d2a3c20000");
        assert_eq!(tickle("10.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()), None);
    }
}
