//! Raw sockets: the only place that has them. They need root.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind, recv,
    send, sendto, socket,
};

use super::packet::{Mac, announcements, owner, question, tickle};

/// Longer than anything that matters here.
const FRAME_BYTES: usize = 128;

/// The Ethernet behind an interface.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    mac: Mac,
}

impl Link {
    /// Opens an interface.
    pub fn open(interface: &str) -> io::Result<Self> {
        let address = link_address(interface)?;
        let mac = address
            .addr()
            .ok_or_else(|| io::Error::new(ErrorKind::Unsupported, "the interface has no Ethernet address"))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self { socket, mac })
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
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => match owner(&frame[..length.min(FRAME_BYTES)], address) {
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
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
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
