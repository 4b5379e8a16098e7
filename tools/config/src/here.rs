//! What this machine is.

use std::net::{IpAddr, UdpSocket};

/// Names the node in place of the host name, as `__DRBD_NODE__` does for DRBD's tools.
const NODE_VARIABLE: &str = "TANDEM_NODE";
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

/// The name by which this node finds itself in `on HOST {}`: the environment's `TANDEM_NODE`, else what `uname -n`
/// prints.
pub fn node_name() -> String {
    std::env::var(NODE_VARIABLE)
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| Some(std::fs::read_to_string(HOSTNAME_FILE).ok()?.trim().to_owned()))
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Whether one of this machine's interfaces has the address: the kernel lets a socket be bound to no other.
pub fn has_address(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
