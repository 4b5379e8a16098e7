//! The addresses of this machine.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::plan::{Trouble, trouble};

/// Every address with the interface that carries it.
pub fn addresses() -> Result<Vec<(String, IpAddr)>, Trouble> {
    let entries = getifaddrs().map_err(trouble("looking for this machine's addresses"))?;
    Ok(entries
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|one| IpAddr::V4(one.ip()));
            let v6 = || address.as_sockaddr_in6().map(|one| IpAddr::V6(one.ip()));
            Some((entry.interface_name, v4.or_else(v6)?))
        })
        .collect())
}
