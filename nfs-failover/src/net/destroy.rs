//! Connections that are ended from outside, by the messages of linux/sock_diag.h, as `ss -K` does.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::socket::SockProtocol;
use tandem_netlink::{Attributes, Message};

use super::connections::Connection;
use super::netlink::ask;

const DESTROY: u16 = 21;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const TCP: u8 = 6;
const ANY_STATE: u32 = u32::MAX;
/// For each address, however long it is.
const ADDRESS_BYTES: usize = 16;
/// A message has to fit into what the kernel keeps for a socket, and so have the answers to all that it asks for.
const AT_ONCE: usize = 100;
/// Whichever socket has these addresses and ports.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Ends them: the other ends are told, unless something keeps it from them. Who has gone by itself has gone. However many
/// they are, each is tried; the first refusal is what is told.
pub fn destroy(connections: &[Connection], limit: Duration) -> io::Result<()> {
    let until = Instant::now() + limit;
    let some_at_a_time = connections.chunks(AT_ONCE).map(|some| {
        let requests: Vec<Message> = some.iter().map(request).collect();
        let left = until.saturating_duration_since(Instant::now());
        // Refused or not, the kernel takes each of them.
        match ask(SockProtocol::NetlinkSockDiag, &requests, None, left) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    });
    // All of them first, and then what became of them.
    let results: Vec<io::Result<()>> = some_at_a_time.collect();
    results.into_iter().collect()
}

fn request(one: &Connection) -> Message {
    let family = if one.server.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 };
    let any_interface = 0u32;
    let beginning = [
        &[family, TCP, 0, 0][..],
        &ANY_STATE.to_ne_bytes(),
        &one.server.port().to_be_bytes(),
        &one.client.port().to_be_bytes(),
        &octets(one.server),
        &octets(one.client),
        &any_interface.to_ne_bytes(),
        &NO_COOKIE,
    ];
    Message::new(DESTROY, 0, &beginning.concat(), Attributes::default())
}

fn octets(end: SocketAddr) -> [u8; ADDRESS_BYTES] {
    let mut octets = [0; ADDRESS_BYTES];
    match end.ip() {
        IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => octets = ip.octets(),
    }
    octets
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use nix::unistd::geteuid;

    use super::super::connections::of;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Also what came by IPv4 to a socket of IPv6.
    #[test]
    fn the_other_end_hears_of_it() {
        if !geteuid().is_root() {
            return eprintln!("needs root");
        }
        for (listening, known) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")]
        {
            let listener = TcpListener::bind(listening).unwrap();
            let known = SocketAddr::new(known.parse().unwrap(), listener.local_addr().unwrap().port());
            let mut client = TcpStream::connect(known).unwrap();
            let (_server, _) = listener.accept().unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            let mut ends = of(&[known.ip()]).unwrap();
            ends.retain(|one| one.server == known && one.client == client.local_addr().unwrap());
            assert_eq!(ends.len(), 1, "{listening}");
            destroy(&ends, LIMIT).unwrap();
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{listening}");
            destroy(&ends, LIMIT).unwrap();
        }
    }

    /// More than fit into one message, and none of them is there any more but the last.
    #[test]
    fn however_many_they_are_each_is_ended() {
        if !geteuid().is_root() {
            return eprintln!("needs root");
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(server).unwrap();
        let (_server, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let gone = (1..5000).map(|port| (Ipv4Addr::new(192, 0, 2, 1), port).into());
        let ends: Vec<Connection> =
            gone.chain([client.local_addr().unwrap()]).map(|client| Connection { server, client }).collect();
        destroy(&ends, LIMIT).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
