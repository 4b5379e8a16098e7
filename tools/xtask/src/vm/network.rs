//! The machines' network: one bridge in a network namespace that this process and its children live in and nothing
//! else does. It has no way out, and it is gone when the last of them ends.

use std::net::Ipv4Addr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::process::{Result, run};

const BRIDGE: &str = "lab";
/// Length of the network's prefix.
pub(super) const PREFIX: u8 = 24;
/// This process's own address on the bridge.
pub(super) const HOST: Ipv4Addr = address(254);

/// The address of the machine with this number.
pub(super) const fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// The bridge.
pub(super) struct Network(());

impl Network {
    /// Leaves the host's network for a new one. Call it from the main thread before any other is started.
    pub(super) fn enter() -> Result<Network> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("cannot have a network of its own: {e}"))?;
        ip(&format!("link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0"))?;
        ip(&format!("address add {HOST}/{PREFIX} dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        ip("link set lo up")?;
        Ok(Network(()))
    }

    /// Makes a socket on the bridge for a machine's cable.
    pub(super) fn plug(&self, cable: &str) -> Result<()> {
        ip(&format!("tuntap add {cable} mode tap"))?;
        ip(&format!("link set {cable} master {BRIDGE}"))?;
        self.mend(cable)
    }

    /// Cuts a cable; the machine's own end of it stays up.
    pub(super) fn cut(&self, cable: &str) -> Result<()> {
        ip(&format!("link set {cable} down"))
    }

    /// Mends a cable.
    pub(super) fn mend(&self, cable: &str) -> Result<()> {
        ip(&format!("link set {cable} up"))
    }
}

fn ip(words: &str) -> Result<()> {
    run(Command::new("ip").args(words.split(' ')))
}
