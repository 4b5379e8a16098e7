//! The addresses of this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::plan::{Trouble, trouble};

/// An address of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Carried {
    /// The interface that carries it.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
}

/// Every one.
pub fn addresses() -> Result<Vec<Carried>, Trouble> {
    let entries = getifaddrs().map_err(trouble("looking for this machine's addresses"))?;
    Ok(entries
        .filter_map(|entry| {
            let address = ip(&entry.address?)?;
            let mask = entry.netmask.as_ref().and_then(ip);
            // Who added it may have put a label in the place of the name, which is then what comes before the colon.
            let interface = entry.interface_name.split(':').next()?.to_owned();
            Some(Carried { interface, address, prefix: prefix(mask.unwrap_or(all_bits(address))) })
        })
        .collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|one| IpAddr::V4(one.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|one| IpAddr::V6(one.ip())))
}

fn prefix(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    ones as u8
}

fn all_bits(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
    }
}
