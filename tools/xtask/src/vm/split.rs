//! Both sides go on when their link is cut, and meet again: both say so, one command decides, and what it overwrote can
//! be had back.

use std::time::Duration;

use super::lab::Lab;
use super::machine::Machine;
use super::tandem::{STATUS, Tandem};
use crate::process::Result;
use crate::steps::Steps;

const DISK_BYTES: u64 = 128 << 20;
const LIMIT: Duration = Duration::from_secs(60);
/// Where the given-up blocks are kept on n2.
const SAVED: &str = "/root/r0.given-up";

/// Plays it.
pub(super) fn run() -> Result<()> {
    let lab = Lab::prepare("split")?;
    let mut steps = Steps::default();
    let (mut n1, mut n2) = (lab.machine(1, DISK_BYTES)?, lab.machine(2, DISK_BYTES)?);
    Tandem.prepare_device(&lab)?;
    steps.run("two machines boot", || lab.boot(&mut [&mut n1, &mut n2]))?;
    steps.run("metadata, connection, ext4", || {
        Tandem.install_device(&mut n1)?;
        Tandem.install_device(&mut n2)?;
        Tandem.create_device(&mut n1, &mut n2)?;
        n1.sh("tandemadm primary r0; mkfs.ext4 -q /dev/drbd0")?;
        write_on(&mut n1, "before")
    })?;
    steps.run("the link is cut, both are Primary", || {
        lab.network.cut(&n1.cable())?;
        for node in [&mut n1, &mut n2] {
            node.wait_until("alone", "! tandemadm cstate r0 | grep -qx Connected", LIMIT, STATUS)?;
        }
        n2.sh("tandemadm primary r0")?;
        write_on(&mut n1, "by-n1")?;
        write_on(&mut n2, "by-n2")
    })?;
    steps.run("the link is mended: both say what has happened", || {
        lab.network.mend(&n1.cable())?;
        for node in [&mut n1, &mut n2] {
            let said =
                "tandemadm cstate r0 | grep -qx StandAlone && tandemadm status --why r0 | grep -qi split";
            node.wait_until("StandAlone, and why", said, LIMIT, STATUS)?;
            println!("[{}]$ tandemadm status --why r0", node.name());
            print!("{}", node.sh("tandemadm status --why r0")?);
        }
        print!("{}", n1.sh("tandemadm split-brain show r0")?);
        Ok(())
    })?;
    steps.run("n1's data is kept, n2's saved", || {
        n2.sh("tandemadm secondary r0")?;
        n1.sh("tandemadm split-brain resolve r0 --keep n1")?;
        print!("{}", n2.sh(&format!("tandemadm split-brain resolve r0 --keep n1 --save {SAVED}"))?);
        n2.sh("tandemadm wait-sync -t 60 r0")?;
        n1.sh("tandemadm secondary r0")?;
        n2.sh("tandemadm primary r0")?;
        must_hold(&mut n2, &["before", "by-n1"], "by-n2")
    })?;
    steps.run("what n2 had is back, on both", || {
        let restore =
            format!("tandemadm split-brain resolve r0 --restore {SAVED} --save /root/r0.taken-back");
        print!("{}", n2.sh(&restore)?);
        must_hold(&mut n2, &["before", "by-n2"], "by-n1")?;
        n2.sh("tandemadm secondary r0")?;
        n1.sh("tandemadm primary r0")?;
        must_hold(&mut n1, &["before", "by-n2"], "by-n1")
    })?;
    steps.print();
    Ok(())
}

fn write_on(node: &mut Machine, file: &str) -> Result<()> {
    let script = format!("mount /dev/drbd0 /mnt; echo {file} >/mnt/{file}; umount /mnt");
    node.sh(&script).map(drop)
}

/// Looks into a clean file system.
fn must_hold(node: &mut Machine, files: &[&str], missing: &str) -> Result<()> {
    let reads: String = files.iter().map(|file| format!("[ \"$(cat /mnt/{file})\" = {file} ]\n")).collect();
    let script =
        format!("e2fsck -fn /dev/drbd0; mount /dev/drbd0 /mnt\n{reads}[ ! -e /mnt/{missing} ]\numount /mnt");
    node.sh(&script).map(drop)
}
