//! The kernel's NFS server of one node: started by promotions that are killed at every file they write to, and then, under a
//! client, configured otherwise, robbed of its exports, and started anew by somebody else.

use std::time::Duration;

use super::lab::Lab;
use super::machine::Machine;
use super::stack::{EXPORT, LOG, Stack, VIP};
use super::tandem::{SERVE, Tandem};
use super::writer::Writer;
use crate::process::Result;
use crate::steps::Steps;

const DISK_BYTES: u64 = 128 << 20;
/// Any disk at all for the client, which has no use for it.
const NO_DISK_BYTES: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(300);
/// A promotion comes to what it is killed at within this time.
const SECONDS: u32 = 120;
/// What a promotion writes to, and which time: it listens to each family of addresses by itself.
const WRITES: &[(&str, u32)] = &[("nfsv4gracetime", 1), ("portlist", 1), ("portlist", 2), ("threads", 1)];
/// A condition: threads run, IPv4 and IPv6 are listened to, and both are answered.
const WHOLE: &str =
    "[ $(cat /proc/fs/nfsd/threads) = 8 ] && [ $(grep -cx 'tcp 2049' /proc/fs/nfsd/portlist) = 2 ] &&
    rpcinfo -T tcp 127.0.0.1 nfs 4 && rpcinfo -T tcp6 ::1 nfs 4";
/// A condition: nothing of it is left.
const GONE: &str = "[ $(cat /proc/fs/nfsd/threads) = 0 ] && [ -z \"$(cat /proc/fs/nfsd/portlist)\" ] && ! mountpoint -q /srv/nfs";
const LOOK: &str =
    "tail -n 40 /run/failover.log; head -n 20 /proc/fs/nfsd/threads /proc/fs/nfsd/portlist /var/lib/nfs/etab";
/// Where a service finds what it is told.
const CONFIGURATION: &str = "/etc/tandem/nfs-failover.conf";
/// Ends the service, and nothing that it has started.
const END: &str =
    "pkill -xf 'nfs-failover serve'; while pgrep -xf 'nfs-failover serve' >/dev/null; do sleep 0.1; done";
/// As Debian's unit is started anew, where nothing else is exported.
const RESTART: &str = "rpc.nfsd 0; exportfs -au; exportfs -f; exportfs -r; rpc.nfsd 3";

/// Plays it.
pub(super) fn run() -> Result<()> {
    let lab = Lab::prepare("server")?;
    let mut steps = Steps::default();
    Tandem.prepare(&lab)?;
    let (mut n1, mut n2) = (lab.machine(1, DISK_BYTES)?, lab.machine(2, DISK_BYTES)?);
    let mut client = lab.machine(3, NO_DISK_BYTES)?;
    steps.run("three machines boot", || lab.boot(&mut [&mut n1, &mut n2, &mut client]))?;
    steps.run("metadata, connection, ext4", || {
        Tandem.install(&mut n1)?;
        Tandem.install(&mut n2)?;
        Tandem.create(&mut n1, &mut n2)
    })?;
    steps.run("killed at each write that starts it", || {
        // The promotions are the operator's own.
        n1.sh(END)?;
        WRITES.iter().try_for_each(|(file, time)| kill_at(&mut n1, file, *time))?;
        n1.sh(SERVE).map(drop)
    })?;
    steps.run("n1 serves", || {
        // Once the service is there to be asked.
        n1.wait_until(
            "it is promoted",
            "nfs-failover promote nfs && pgrep -xf 'nfs-failover serve'",
            LIMIT,
            LOOK,
        )
    })?;
    steps.run("a client mounts", || mount(&mut client))?;
    let writer = Writer::start(&mut client, "/mnt/records", "")?;
    writer.wait_for_progress(&mut client)?;
    steps.run("it is configured otherwise: what was exported is not any more", || {
        n1.sh(&format!(
            "pkill -x nfs-failover; sed -i s,10.77.0.0/24,10.77.0.0/25, {CONFIGURATION}\n{SERVE}"
        ))?;
        expect_exported(&mut n1, "10.77.0.0/25")?;
        n1.wait_until("nobody else may use it", "! grep -q 10.77.0.0/24 /var/lib/nfs/etab", LIMIT, LOOK)?;
        writer.wait_for_progress(&mut client)
    })?;
    // Up to here it saw no error.
    writer.stop_well(&mut client)?;
    let written = writer.judge(&mut client)?;
    println!("{} records acknowledged and there", written.acknowledged);
    steps.run("what is exported is taken back: it is exported anew", || {
        n1.sh("exportfs -au; exportfs -f")?;
        expect_exported(&mut n1, "10.77.0.0/25")?;
        expect_written(&mut client)
    })?;
    steps.run("somebody starts it anew: the service steps down", || {
        n1.sh(RESTART)?;
        let down = format!("grep -q 'not fit to serve: somebody else has started' {LOG} && {GONE}");
        n1.wait_until("it is down", &down, LIMIT, LOOK)?;
        let status = n1.sh("nfs-failover status")?;
        print!("{status}");
        match status.contains("somebody else has started") {
            true => Ok(()),
            false => Err("status does not say why".into()),
        }
    })?;
    steps.run("n2 serves", || {
        n2.sh_within(LIMIT, &format!("nfs-failover promote nfs || {{ {LOOK}; exit 1; }}"))?;
        expect_written(&mut client)
    })?;
    steps.print();
    Ok(())
}

/// Has a promotion killed as it writes to this file for the nth time, and run again.
fn kill_at(node: &mut Machine, file: &str, time: u32) -> Result<()> {
    // It would follow what the promotion leaves running for as long as that runs.
    let killed = format!(
        "strace -f -o /run/strace -P /proc/fs/nfsd/{file} -e trace=write -e inject=write:signal=KILL:when={time} \\
             nfs-failover promote nfs </dev/null >/run/promote.log 2>&1 &
         until grep -q 'killed by SIGKILL' /run/strace && ! pgrep -x nfs-failover >/dev/null; do
             if [ $SECONDS -ge {SECONDS} ]; then cat /run/promote.log /run/strace; exit 1; fi
             sleep 0.1
         done
         pkill -KILL -x strace || true; while pgrep -x strace >/dev/null; do sleep 0.1; done
         echo \"killed at {file}, {time}: $(cat /proc/fs/nfsd/threads) threads, $(wc -l </proc/fs/nfsd/portlist) listeners\"
         nfs-failover promote nfs | grep ' server '"
    );
    print!("{}", node.sh_within(LIMIT, &killed)?);
    node.wait_until("nothing of it is missing", WHOLE, LIMIT, LOOK)?;
    node.sh_within(LIMIT, "nfs-failover demote nfs")?;
    node.wait_until("nothing of it is left", GONE, LIMIT, LOOK)
}

fn expect_exported(node: &mut Machine, host: &str) -> Result<()> {
    // A tab is between them.
    let condition = format!("grep -q '^{EXPORT}.{host}(' /var/lib/nfs/etab");
    node.wait_until("it is exported", &condition, LIMIT, LOOK)
}

/// The client may have met errors before.
fn expect_written(client: &mut Machine) -> Result<()> {
    let write = "dd if=/dev/zero of=/mnt/probe bs=4k count=1 conv=fsync status=none";
    client.wait_until("the client writes", write, LIMIT, "mount")
}

fn mount(client: &mut Machine) -> Result<()> {
    let options = "vers=4.2,hard,timeo=10,retrans=2";
    let script = format!("modprobe nfsv4; mount -t nfs4 -o {options} {VIP}:{EXPORT} /mnt");
    client.sh_within(LIMIT, &script).map(drop)
}
