//! The kernel's nbd driver under a mounted ext4 while `tandemd` is restarted and killed below it: a program that
//! appends and calls fsync must see nothing but waiting.

use super::lab::Lab;
use super::machine::Machine;
use super::tandem::Tandem;
use super::writer::Writer;
use crate::process::Result;
use crate::steps::Steps;

const DISK_BYTES: u64 = 256 << 20;
const RESTARTS: u32 = 10;
const FILE: &str = "/mnt/log";

/// Plays it.
pub(super) fn run() -> Result<()> {
    let lab = Lab::prepare("nbd")?;
    let mut steps = Steps::default();
    let (mut n1, mut n2) = (lab.machine(1, DISK_BYTES)?, lab.machine(2, DISK_BYTES)?);
    Tandem.prepare_device(&lab)?;
    steps.run("two machines boot", || lab.boot(&mut [&mut n1, &mut n2]))?;
    steps.run("metadata, connection, primary, ext4", || {
        Tandem.install_device(&mut n1)?;
        Tandem.install_device(&mut n2)?;
        Tandem.create_device(&mut n1, &mut n2)?;
        let script = "tandemadm primary r0; mkfs.ext4 -q /dev/drbd0; mount /dev/drbd0 /mnt
            ls -l /dev/drbd0 /dev/drbd/by-res/r0/; findmnt /mnt";
        print!("{}", n1.sh(script)?);
        Ok(())
    })?;
    let writer = Writer::start(&mut n1, FILE, "")?;
    writer.wait_for_progress(&mut n1)?;
    for number in 1..=RESTARTS {
        let signal = if number % 2 == 1 { "TERM" } else { "KILL" };
        steps.run(&format!("restart {number}, SIG{signal}: appends again"), || {
            restart(&mut n1, signal)?;
            writer.wait_for_progress(&mut n1)
        })?;
    }
    steps.run("all that was acknowledged is there", || {
        writer.stop_well(&mut n1)?;
        let written = writer.judge(&mut n1)?;
        println!("{} appends, the longest wait was {:?}", written.acknowledged, written.stall);
        Ok(())
    })?;
    steps.run("no I/O error, fsck finds nothing", || check(&mut n1))?;
    steps.run("both disks are the same", || same_disks(&mut n1, &mut n2))?;
    steps.print();
    Ok(())
}

/// Ends tandemd and starts it as an administrator does.
fn restart(node: &mut Machine, signal: &str) -> Result<()> {
    let script = format!(
        "pid=$(cat /run/tandem/tandemd.pid); kill -{signal} $pid
        while [ -e /proc/$pid ]; do sleep 0.02; done
        tandemadm up r0"
    );
    node.sh(&script).map(drop)
}

/// The kernel has seen no error, and the file system is clean.
fn check(node: &mut Machine) -> Result<()> {
    let script = "umount /mnt; e2fsck -fn /dev/drbd0; dmesg >/tmp/dmesg
        ! grep -iE 'I/O error|EXT4-fs.*(error|warning)|remount|journal.*abort' /tmp/dmesg";
    node.sh(script).map(drop)
}

fn same_disks(n1: &mut Machine, n2: &mut Machine) -> Result<()> {
    let bytes: u64 = n1.sh("blockdev --getsize64 /dev/drbd0")?.trim().parse()?;
    n1.sh("tandemadm secondary r0; tandemadm down r0")?;
    n2.sh("tandemadm down r0")?;
    let digest = format!("head -c {bytes} /dev/vdb | sha256sum");
    match n1.sh(&digest)? == n2.sh(&digest)? {
        true => Ok(()),
        false => Err("they differ".into()),
    }
}
