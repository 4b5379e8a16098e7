//! DRBD 8.4 with the scripts that one writes for it by hand: what Tandem is measured beside.

use std::time::Duration;

use super::lab::Lab;
use super::machine::Machine;
use super::stack::Stack;
use crate::process::Result;

const RESOURCE: &str = include_str!("guest/drbd/r0.res");
const VIP_UP: &str = include_str!("guest/drbd/vip-up.sh");
const VIP_DOWN: &str = include_str!("guest/drbd/vip-down.sh");
const LIMIT: Duration = Duration::from_secs(60);
const RESYNC_LIMIT: Duration = Duration::from_secs(180);

/// The stack.
pub(super) struct Drbd;

impl Stack for Drbd {
    fn name(&self) -> &'static str {
        "DRBD 8.4"
    }

    fn prepare(&self, lab: &Lab) -> Result<()> {
        lab.offer("drbd/r0.res", RESOURCE)?;
        lab.offer("drbd/vip-up", VIP_UP)?;
        lab.offer("drbd/vip-down", VIP_DOWN)
    }

    fn install(&self, node: &mut Machine) -> Result<()> {
        let script = "cp /host/etc/drbd/r0.res /etc/drbd.d/
            install -m 755 /host/etc/drbd/vip-* /usr/local/sbin/
            modprobe -a drbd nfsd";
        node.sh(script).map(drop)
    }

    fn create(&self, one: &mut Machine, other: &mut Machine) -> Result<()> {
        for node in [&mut *one, &mut *other] {
            node.sh("drbdadm create-md --force r0")?;
            self.start(node)?;
        }
        one.wait_until("connected", "drbdadm cstate r0 | grep -qx Connected", LIMIT, "cat /proc/drbd")?;
        one.sh("drbdadm -- --clear-bitmap new-current-uuid r0")?;
        self.wait_until_equal(one)?;
        one.sh("drbdadm primary r0; mkfs.ext4 -q /dev/drbd0; drbdadm secondary r0").map(drop)
    }

    fn start(&self, node: &mut Machine) -> Result<()> {
        node.sh("drbdadm up r0").map(drop)
    }

    fn wait_until_equal(&self, node: &mut Machine) -> Result<()> {
        let equal = "drbdadm dstate r0 | grep -qx UpToDate/UpToDate";
        node.wait_until("both disks are UpToDate", equal, RESYNC_LIMIT, "cat /proc/drbd; dmesg | tail")
    }
}
