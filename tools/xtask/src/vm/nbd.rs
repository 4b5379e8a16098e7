//! The kernel's nbd driver under a mounted ext4 while `tandemd` is restarted and killed below it: a program that
//! appends and calls fsync must see nothing but waiting. Then a mount that is stuck is freed, and a
//! mounted device grows. Both nodes are on one machine.

use std::time::Duration;

use super::lab::Lab;
use super::machine::Machine;
use super::tandem::STATUS;
use super::writer::Writer;
use crate::process::Result;
use crate::steps::Steps;

const DISK_BYTES: u64 = 128 << 20;
const CONFIGURATION: &str = include_str!("guest/nbd/r0.res");
const GROW: &str = include_str!("guest/nbd/grow.sh");
const FILE: &str = "/mnt/log";
/// A file for the writer that is to fail.
const STUCK_FILE: &str = "/mnt/stuck";
/// Makes a command speak of the other node.
const N2: &str = "TANDEM_NODE=n2 TANDEM_RUN_DIR=/run/n2";
/// Everything within this time, on a host that has much else to do.
const LIMIT: Duration = Duration::from_secs(300);

/// Plays it, with so many restarts.
pub(super) fn run(restarts: u32) -> Result<()> {
    let lab = Lab::prepare("nbd")?;
    let mut steps = Steps::default();
    let mut node = lab.machine(1, DISK_BYTES)?;
    lab.offer("tandem/tandem.conf", CONFIGURATION)?;
    steps.run("a machine boots", || lab.boot(&mut [&mut node]))?;
    steps.run("metadata, connection, primary, ext4", || create(&mut node))?;
    let writer = Writer::start(&mut node, FILE, "")?;
    writer.wait_for_progress(&mut node)?;
    steps.run("a demotion is refused and names who has it open", || refuse(&mut node))?;
    for number in 1..=restarts {
        let signal = if number % 2 == 1 { "TERM" } else { "KILL" };
        steps.run(&format!("restart {number}, SIG{signal}: appends again"), || {
            restart(&mut node, signal)?;
            writer.wait_for_progress(&mut node)
        })?;
    }
    steps.run("all that was acknowledged is there", || {
        writer.stop_well(&mut node)?;
        let written = writer.judge(&mut node)?;
        println!("{} appends, the longest wait was {:?}", written.acknowledged, written.stall);
        Ok(())
    })?;
    steps.run("no I/O error, fsck finds nothing", || check(&mut node))?;
    steps.run("a stuck mount is freed by force", || force(&mut node))?;
    steps.run("both disks are the same", || same_disks(&mut node))?;
    steps.run("a mounted device grows", || grow(&mut node))?;
    steps.print();
    Ok(())
}

/// Both nodes, equal; the file system is mounted on n1.
fn create(node: &mut Machine) -> Result<()> {
    let script = format!(
        "modprobe -a nbd fuse loop; install -m 755 /host/bin/* /usr/local/sbin/; cp -r /host/etc/tandem/* /etc/
        truncate -s {DISK_BYTES} /root/n2.disk
        tandemadm create-md r0; {N2} tandemadm create-md r0; tandemadm up r0; {N2} tandemadm up r0"
    );
    node.sh_within(LIMIT, &script)?;
    wait_for(node, "connected", "tandemadm cstate r0 | grep -qx Connected")?;
    node.sh_within(LIMIT, "tandemadm new-current-uuid --clear-bitmap r0")?;
    wait_until_equal(node)?;
    let script = "tandemadm primary r0; mkfs.ext4 -q /dev/drbd0; mount /dev/drbd0 /mnt
        ls -l /dev/drbd0 /dev/drbd/by-res/r0/; findmnt /mnt; [ \"$(readlink -f /dev/drbd0)\" = /dev/nbd0 ]";
    print!("{}", node.sh_within(LIMIT, script)?);
    Ok(())
}

fn refuse(node: &mut Machine) -> Result<()> {
    let script = "code=0; tandemadm secondary r0 || code=$?
        [ $code = 11 ]; tandemadm role r0; tandemadm secondary r0 2>&1 | grep -q 'mounted on /mnt'";
    print!("{}", node.sh_within(LIMIT, script)?);
    Ok(())
}

/// Ends tandemd and starts it as systemd and an administrator do.
fn restart(node: &mut Machine, signal: &str) -> Result<()> {
    let script = format!(
        "pid=$(cat /run/tandem/tandemd.pid); kill -{signal} $pid
        while [ -e /proc/$pid ]; do sleep 0.02; done
        tandemadm up r0"
    );
    node.sh_within(LIMIT, &script).map(drop)
}

fn check(node: &mut Machine) -> Result<()> {
    node.sh_within(LIMIT, "umount /mnt; e2fsck -fn /dev/drbd0")?;
    no_errors(node)
}

/// The kernel has seen no error since the last look.
fn no_errors(node: &mut Machine) -> Result<()> {
    let script = "dmesg -c >/tmp/dmesg
        ! grep -iE 'I/O error|EXT4-fs.*(error|warning)|remount|journal.*abort' /tmp/dmesg";
    node.sh_within(LIMIT, script).map(drop)
}

/// The other node is gone, and with fencing every request waits for ever.
fn force(node: &mut Machine) -> Result<()> {
    node.sh_within(LIMIT, "mount /dev/drbd0 /mnt")?;
    let writer = Writer::start(node, STUCK_FILE, "")?;
    writer.wait_for_progress(node)?;
    node.sh_within(LIMIT, "kill -KILL $(cat /run/n2/tandemd.pid)")?;
    wait_for(node, "requests wait", "tandemadm status r0 | grep -q suspended:fencing")?;
    node.sh_within(LIMIT, "tandemadm secondary --force r0")?;
    let reply = writer.stop(node)?;
    print!("{}", reply.text);
    if reply.status == 0 {
        return Err("the writer has not noticed".into());
    }
    node.sh_within(LIMIT, "umount /mnt")?;
    wait_for(node, "the device is gone", "[ ! -L /dev/drbd0 ]")?;
    node.sh_within(LIMIT, &format!("{N2} tandemadm up r0"))?;
    wait_for(node, "connected", "tandemadm cstate r0 | grep -qx Connected")?;
    wait_until_equal(node)?;
    let script = "tandemadm primary r0; mount /dev/drbd0 /mnt; umount /mnt; e2fsck -fn /dev/drbd0; tandemadm secondary r0
        dmesg -C";
    print!("{}", node.sh_within(LIMIT, script)?);
    Ok(())
}

fn same_disks(node: &mut Machine) -> Result<()> {
    let bytes = "tandemadm primary r0; blockdev --getsize64 /dev/drbd0; tandemadm secondary r0";
    let bytes: u64 = node.sh_within(LIMIT, bytes)?.trim().parse()?;
    node.sh_within(LIMIT, &format!("tandemadm down r0; {N2} tandemadm down r0"))?;
    let same = format!("cmp -n {bytes} /dev/vdb /root/n2.disk");
    node.sh_within(LIMIT, &same).map(drop)
}

/// As the keeper is asked to, on a resource of its own.
fn grow(node: &mut Machine) -> Result<()> {
    print!("{}", node.sh_within(LIMIT, GROW)?);
    no_errors(node)
}

fn wait_until_equal(node: &mut Machine) -> Result<()> {
    wait_for(node, "both disks are UpToDate", "tandemadm dstate r0 | grep -qx UpToDate/UpToDate")
}

fn wait_for(node: &mut Machine, what: &str, condition: &str) -> Result<()> {
    node.wait_until(what, condition, LIMIT, STATUS)
}
