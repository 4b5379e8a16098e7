//! The clients' connections, as the kernel lists them, and as they are saved on the volume for the other node.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

const ESTABLISHED: &str = "01";

/// A client's end of a connection and the server's, both without IPv4 mapped into IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Connection {
    /// The address and port that the client knows.
    pub server: SocketAddr,
    /// The client's.
    pub client: SocketAddr,
}

/// The established connections to one of these addresses, sorted; `ports` empty means any.
pub fn established(addresses: &[IpAddr], ports: &[u16]) -> io::Result<Vec<Connection>> {
    let mut found: Vec<Connection> = sockets()?
        .into_iter()
        .filter(|(one, is_established)| {
            let is_wanted = ports.is_empty() || ports.contains(&one.server.port());
            *is_established && is_wanted && addresses.contains(&one.server.ip())
        })
        .map(|(one, _)| one)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Every socket that has one of these addresses, be it only about to go.
pub fn of(addresses: &[IpAddr]) -> io::Result<Vec<Connection>> {
    let all = sockets()?.into_iter().map(|(one, _)| one);
    Ok(all.filter(|one| addresses.contains(&one.server.ip())).collect())
}

/// The ends of every TCP socket, and whether they are connected.
fn sockets() -> io::Result<Vec<(Connection, bool)>> {
    let mut found = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(connection)),
            // Without IPv6 there is no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn connection(line: &str) -> Option<(Connection, bool)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (server, client, state) = (fields.next()?, fields.next()?, fields.next()?);
    Some((Connection { server: end(server)?, client: end(client)? }, state == ESTABLISHED))
}

/// An address as the kernel prints it: words of 32 bits in the machine's order, in hexadecimal.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words = address
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> =
        words.collect::<Option<Vec<u32>>>()?.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// One line for each connection: the server's end and the client's.
pub fn to_text(connections: &[Connection]) -> String {
    connections.iter().map(|one| format!("{} {}\n", one.server, one.client)).collect()
}

/// Reads what was saved; lines that make no sense are passed over, for they cost a client only its retransmission time.
pub fn read(path: &Path) -> io::Result<Vec<Connection>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let parse = |line: &str| {
        let (server, client) = line.split_once(' ')?;
        Some(Connection { server: server.parse().ok()?, client: client.parse().ok()? })
    };
    Ok(text.lines().filter_map(parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_and_mapped_addresses_unmapped() {
        let v4 =
            "   0: 6400630A:0801 3200630A:02BC 01 00000000:00000000 00:00000000 00000000     0        0 1";
        let v6 = "   1: 0000000000000000FFFF00006400630A:0801 0000000000000000FFFF00003200630A:02BC 01 0 0 0";
        let expected = Connection {
            server: "10.99.0.100:2049".parse().unwrap(),
            client: "10.99.0.50:700".parse().unwrap(),
        };
        assert_eq!(connection(v4), Some((expected, true)));
        assert_eq!(connection(v6), Some((expected, true)));
        assert_eq!(connection(&v4.replace(" 01 ", " 06 ")), Some((expected, false)));
        assert_eq!(connection("nonsense"), None);
        let real = "   2: 000000FD000000000000000000010000:0801 000000FD000000000000000050000000:02BC 01 0";
        assert!(connection(real).unwrap().0.server.is_ipv6());
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let path = std::env::temp_dir().join(format!("nfs-failover-{}.clients", std::process::id()));
        assert!(read(&path).unwrap().is_empty());
        let one = Connection {
            server: "[fd00::1]:2049".parse().unwrap(),
            client: "[fd00::2]:700".parse().unwrap(),
        };
        fs::write(&path, to_text(&[one]) + "half a li").unwrap();
        assert_eq!(read(&path).unwrap(), [one]);
        fs::remove_file(path).unwrap();
    }
}
