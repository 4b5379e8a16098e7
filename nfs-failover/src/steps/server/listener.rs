//! Where the kernel's server listens. It makes sockets by itself where it is told to, but tells the portmapper, which NFSv3
//! clients ask, only of those that it is handed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind,
    listen, setsockopt, socket,
};

const BACKLOG: i32 = 64;

/// Listens at this port on all addresses, once for each family that this machine has.
pub(super) fn sockets(port: u16) -> io::Result<Vec<OwnedFd>> {
    let v4 = on(AddressFamily::Inet, &SockaddrIn::new(0, 0, 0, 0, port))?;
    let any = std::net::SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, port, 0, 0);
    match on(AddressFamily::Inet6, &SockaddrIn6::from(any)) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => Ok(vec![v4]),
        Err(error) => Err(error.into()),
    }
}

fn on(family: AddressFamily, address: &dyn SockaddrLike) -> nix::Result<OwnedFd> {
    let listener = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    setsockopt(&listener, ReuseAddr, &true)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&listener, Ipv6V6Only, &true)?;
    }
    bind(listener.as_raw_fd(), address)?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_families_listen_at_one_port() {
        // Somebody else may take it in between.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let (port, listeners) =
            (0..10).map(|_| free()).find_map(|port| Some((port, sockets(port).ok()?))).unwrap();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        assert!(!listeners.is_empty() && sockets(port).is_err(), "it is taken");
    }
}
