//! Raw sockets: the only place that has them. They need root.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recvfrom,
    sendto, socket,
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::packet::{Mac, NEIGHBOUR_ADVERTISEMENT, announcements, owner, question, tickle};

/// Longer than anything that matters here.
const FRAME_BYTES: usize = 128;

/// Kinds of frames.
const ETHERNET_ARP: u16 = 0x0806;
const ETHERNET_IPV6: u16 = 0x86dd;

/// The Ethernet behind an interface, for one address. Only frames that may say who has an address of its family arrive: on a
/// busy interface all the others would leave no room for them.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    mac: Mac,
    interface: LinkAddr,
}

impl Link {
    /// Opens an interface for what concerns an address.
    pub fn open(interface: &str, of: IpAddr) -> io::Result<Self> {
        let address = link_address(interface)?;
        let mac = address
            .addr()
            .ok_or_else(|| io::Error::new(ErrorKind::Unsupported, "the interface has no Ethernet address"))?;
        let kind = if of.is_ipv4() { ETHERNET_ARP } else { ETHERNET_IPV6 };
        let protocol = Protocol::from(i32::from(kind.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
        if of.is_ipv6() {
            socket.attach_filter(&neighbours_only())?;
        }
        // Nor is it bound: to take it from all interfaces to one, the kernel waits until no packet is on its way to it.
        Ok(Self { socket: socket.into(), mac, interface: address })
    }

    /// Says to everybody that the address is here now.
    pub fn announce(&self, address: IpAddr) -> io::Result<()> {
        announcements(address, self.mac).iter().try_for_each(|frame| self.send(frame))
    }

    /// Asks who has the address; the answers are read with [`Link::other_owner`].
    pub fn ask(&self, address: IpAddr) -> io::Result<()> {
        self.send(&question(address, self.mac))
    }

    /// Who else has said by now that it has the address.
    pub fn other_owner(&self, address: IpAddr) -> io::Result<Option<Mac>> {
        let mut frame = [0; FRAME_BYTES];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame) {
                Ok((_, from)) if from.is_none_or(|from| from.ifindex() != self.interface.ifindex()) => {}
                Ok((length, _)) => match owner(&frame[..length.min(FRAME_BYTES)], address) {
                    Some(mac) if mac != self.mac => return Ok(Some(mac)),
                    _ => {}
                },
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.interface, MsgFlags::empty())?;
        Ok(())
    }
}

/// A program for the kernel: of IPv6's frames, neighbour advertisements.
fn neighbours_only() -> [SockFilter; 6] {
    // BPF's words: load a byte, skip unless equal, return how much of the frame is passed on.
    const LOAD: u16 = 0x30;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NEXT_HEADER_AT: u32 = 14 + 6;
    const MESSAGE_AT: u32 = 14 + 40;
    const ICMPV6: u32 = 58;
    [
        SockFilter::new(LOAD, 0, 0, NEXT_HEADER_AT),
        SockFilter::new(EQUAL, 0, 3, ICMPV6),
        SockFilter::new(LOAD, 0, 0, MESSAGE_AT),
        SockFilter::new(EQUAL, 0, 1, NEIGHBOUR_ADVERTISEMENT.into()),
        SockFilter::new(RETURN, 0, 0, FRAME_BYTES as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn link_address(interface: &str) -> io::Result<LinkAddr> {
    let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    entries
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("there is no interface {interface}")))
}

/// Makes clients come back at once; `server` is the address and port that they were connected to.
pub fn tickle_all(server: SocketAddr, clients: &[SocketAddr]) -> io::Result<usize> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let mut sent = 0;
    for client in clients {
        let Some(packet) = tickle(server, *client) else { continue };
        // The destination's port is in the packet; the kernel wants none.
        match client {
            SocketAddr::V4(to) => {
                let to = SockaddrIn::from(std::net::SocketAddrV4::new(*to.ip(), 0));
                sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty())?;
            }
            SocketAddr::V6(to) => {
                let to = SockaddrIn6::from(std::net::SocketAddrV6::new(*to.ip(), 0, 0, to.scope_id()));
                sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty())?;
            }
        }
        sent += 1;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn an_answer_is_heard_on_a_busy_interface() {
        if !geteuid().is_root() {
            return eprintln!("needs root");
        }
        let other: Mac = [0x02, 0, 0, 0, 0, 0x0b];
        let sink = UdpSocket::bind("[::]:0").unwrap();
        let port = sink.local_addr().unwrap().port();
        for (address, sender) in [("192.0.2.1", "127.0.0.1"), ("2001:db8::1", "::1")] {
            let (address, sender): (IpAddr, IpAddr) = (address.parse().unwrap(), sender.parse().unwrap());
            let link = Link::open("lo", address).unwrap();
            let Ok(noise) = UdpSocket::bind((sender, 0)) else { continue };
            // More than a socket has room for.
            (0..3000).for_each(|_| drop(noise.send_to(&[0; 1000], (sender, port))));
            assert_eq!(link.other_owner(address).unwrap(), None);
            (0..3000).for_each(|_| drop(noise.send_to(&[0; 1000], (sender, port))));
            link.send(&announcements(address, other)[0]).unwrap();
            assert_eq!(link.other_owner(address).unwrap(), Some(other), "{address}");
        }
    }
}
