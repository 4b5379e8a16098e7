//! What this machine is.

use std::net::{IpAddr, UdpSocket};

/// They name the node in place of the host name; the second one does so for DRBD's tools, too.
const NODE_VARIABLES: [&str; 2] = ["TANDEM_NODE", "__DRBD_NODE__"];
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

/// The name by which this node finds itself in `on HOST {}`: what the environment says, else what `uname -n` prints.
pub fn node_name() -> String {
    let mut said = NODE_VARIABLES.into_iter().filter_map(|variable| std::env::var(variable).ok());
    said.find(|name| !name.is_empty())
        .or_else(|| Some(std::fs::read_to_string(HOSTNAME_FILE).ok()?.trim().to_owned()))
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Whether one of this machine's interfaces has the address: the kernel lets a socket be bound to no other.
pub fn has_address(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
