//! Connections from an address of choice: a daemon listens only to its peers' addresses.

use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

/// Connects to `to` as if from the host with the address of `from`.
pub(crate) fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let ipv4 = |address, port| match address {
        SocketAddr::V4(v4) => SockaddrIn::from(SocketAddrV4::new(*v4.ip(), port)),
        SocketAddr::V6(v6) => panic!("{v6}: the tests use IPv4"),
    };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &ipv4(from, 0)).unwrap();
    connect(socket.as_raw_fd(), &ipv4(to, to.port())).unwrap();
    TcpStream::from(socket)
}
