//! Tandem with `nfs-failover`.

use std::time::Duration;

use super::lab::Lab;
use super::machine::Machine;
use super::stack::{LOG, Stack};
use crate::process::Result;

const CONFIGURATION: &str = include_str!("../../../../packaging/tandem.conf");
const COMMON: &str = include_str!("../../../../packaging/tandem.d/global_common.conf");
const RESOURCE: &str = include_str!("guest/tandem/r0.res");
const SERVICE: &str = include_str!("guest/tandem/nfs-failover.conf");
const VIP_UP: &str = include_str!("../../../../packaging/ucarp/vip-up");
const VIP_DOWN: &str = include_str!("../../../../packaging/ucarp/vip-down");
const LIMIT: Duration = Duration::from_secs(180);
const RESYNC_LIMIT: Duration = Duration::from_secs(180);

/// Starts the service, which says in [`LOG`] what it does. The shell knows the time without a program.
pub(super) const SERVE: &str = "{ nfs-failover serve 2>&1 | while IFS= read -r line; do echo \"$EPOCHREALTIME $line\"; done; } \\
    </dev/null >>/run/failover.log 2>&1 &";

/// The stack.
pub(super) struct Tandem;

impl Tandem {
    /// Offers the replicated device's configuration.
    pub(super) fn prepare_device(&self, lab: &Lab) -> Result<()> {
        lab.offer("tandem/tandem.conf", CONFIGURATION)?;
        lab.offer("tandem/tandem.d/global_common.conf", COMMON)?;
        lab.offer("tandem/tandem.d/r0.res", RESOURCE)
    }

    /// Installs that and our programs.
    pub(super) fn install_device(&self, node: &mut Machine) -> Result<()> {
        node.sh("modprobe -a nbd fuse loop; install -m 755 /host/bin/* /usr/local/sbin/; cp -r /host/etc/tandem/* /etc/").map(drop)
    }

    /// Makes both disks one device, equal and UpToDate without a sync; both are Secondary.
    pub(super) fn create_device(&self, one: &mut Machine, other: &mut Machine) -> Result<()> {
        for node in [&mut *one, &mut *other] {
            node.sh("tandemadm create-md r0; tandemadm up r0")?;
        }
        // On a host with much else to do they may lose each other again at once.
        let without_sync =
            "{ tandemadm cstate r0 | grep -qx Connected && tandemadm new-current-uuid --clear-bitmap r0; }";
        one.wait_until("connected, and equal without a sync", without_sync, LIMIT, STATUS)?;
        self.wait_until_equal(one)
    }
}

impl Stack for Tandem {
    fn name(&self) -> &'static str {
        "Tandem"
    }

    fn prepare(&self, lab: &Lab) -> Result<()> {
        self.prepare_device(lab)?;
        lab.offer("tandem/tandem/nfs-failover.conf", SERVICE)?;
        lab.offer("vip/vip-up", VIP_UP)?;
        lab.offer("vip/vip-down", VIP_DOWN)
    }

    fn install(&self, node: &mut Machine) -> Result<()> {
        self.install_device(node)?;
        node.sh(&format!("install -m 755 /host/etc/vip/* /usr/local/sbin/\n{SERVE}"))?;
        node.wait_until(
            "nfs-failover is ready",
            &format!("grep -q keeps {LOG}"),
            LIMIT,
            &format!("cat {LOG}"),
        )
    }

    fn create(&self, one: &mut Machine, other: &mut Machine) -> Result<()> {
        self.create_device(one, other)?;
        one.sh("tandemadm primary r0; mkfs.ext4 -q /dev/drbd0; tandemadm secondary r0").map(drop)
    }

    fn start(&self, node: &mut Machine) -> Result<()> {
        node.sh("tandemadm up r0").map(drop)
    }

    fn wait_until_equal(&self, node: &mut Machine) -> Result<()> {
        let equal = "tandemadm dstate r0 | grep -qx UpToDate/UpToDate";
        node.wait_until("both disks are UpToDate", equal, RESYNC_LIMIT, STATUS)
    }
}

/// Says how things are.
pub(super) const STATUS: &str = "tandemadm status; tail -n 30 /run/tandem/tandemd.log";
