//! What makes two machines one NFS server: a replicated device, and the hooks of the program that elects who has the
//! address.

use std::time::Duration;

use super::lab::Lab;
use super::machine::Machine;
use crate::process::Result;

/// The address that clients know.
pub(super) const VIP: &str = "10.77.0.9";
/// A stack serves within this time after it was told to.
pub(super) const SERVE_LIMIT: Duration = Duration::from_secs(60);
/// A shell condition: this machine has the clients' address.
const HAS_VIP: &str = "ip -4 -o address show dev eth0 | grep -q ' 10.77.0.9/'";

/// What clients mount.
pub(super) const EXPORT: &str = "/srv/nfs";
/// The elector's up and down hook.
const HOOKS: [&str; 2] = ["/usr/local/sbin/vip-up", "/usr/local/sbin/vip-down"];
/// The file in which the hooks say what they do.
pub(super) const LOG: &str = "/run/failover.log";

/// One such pair; its parts in the order in which they are called.
pub(super) trait Stack {
    /// For tables.
    fn name(&self) -> &'static str;

    /// Offers files to the machines.
    fn prepare(&self, lab: &Lab) -> Result<()>;

    /// Installs them; after every boot.
    fn install(&self, node: &mut Machine) -> Result<()>;

    /// Makes the device of both and an ext4 on it; both are Secondary and equal at the end.
    fn create(&self, one: &mut Machine, other: &mut Machine) -> Result<()>;

    /// Starts what the pair runs beside the elector; after every boot.
    fn start(&self, node: &mut Machine) -> Result<()>;

    /// Waits until both copies are the same.
    fn wait_until_equal(&self, node: &mut Machine) -> Result<()>;
}

/// Starts UCARP, the same for every stack. A smaller skew is a better claim.
pub(super) fn start_ucarp(node: &mut Machine, skew: u8) -> Result<()> {
    let [up, down] = HOOKS;
    let ucarp = format!(
        "setsid ucarp -i eth0 -s {} -v 77 -p laboratory -a {VIP} -b 1 -k {skew} -r 2 -z -u {up} -d {down} \
         </dev/null >/run/ucarp.log 2>&1 &",
        node.address()
    );
    node.sh(&ucarp).map(drop)
}

/// Waits until the machine has the clients' address.
pub(super) fn wait_until_serving(node: &mut Machine) -> Result<()> {
    let report = format!("cat {LOG} /run/ucarp.log; dmesg | tail -20");
    node.wait_until("it has the clients' address", HAS_VIP, SERVE_LIMIT, &report)
}
