//! An NFSv3 client holds a lock while the service is moved, and again while the power of the node that serves is cut: it is
//! told by the next server, takes the lock there, and another client is refused it.

use std::time::Duration;

use super::lab::Lab;
use super::machine::Machine;
use super::stack::{EXPORT, LOG, Stack, VIP};
use super::tandem::Tandem;
use super::writer::Writer;
use crate::process::Result;
use crate::steps::Steps;

const DISK_BYTES: u64 = 128 << 20;
/// Any disk at all for the clients, which have no use for it.
const NO_DISK_BYTES: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(300);
/// What the holder has locked.
const LOCKED: &str = "/mnt/locked";
/// What its kernel and `rpc.statd` have to say of it.
const STATE: &str = "/srv/nfs/.nfs-state/statd";
/// As `guest/tandem/nfs-failover.conf` has them, in seconds.
const TIMES: &str = "for file in /proc/fs/nfsd/nfsv4gracetime /proc/fs/nfsd/nfsv4leasetime /proc/sys/fs/nfs/nlm_grace_period; do
        echo $file: $(cat $file); [ $(cat $file) = 10 ]
    done";
/// A condition: NFSv3 clients find everything, and a firewall would have to let through no other ports.
const PORTS: &str =
    "[ \"$(rpcinfo -p | awk 'NR > 1 { print $4 }' | sort -nu | xargs)\" = '111 662 2049 20048 32803' ]";

/// As Debian's unit starts it, with an export of its own and other times.
const OTHER_SERVER: &str =
    "mountpoint -q /proc/fs/nfsd || { modprobe nfsd; mount -t nfsd nfsd /proc/fs/nfsd; }
    nfsdcld; exportfs -o ro,no_subtree_check,fsid=9 '*:/mnt'; rpc.nfsd 3";

/// Plays it.
pub(super) fn run() -> Result<()> {
    let lab = Lab::prepare("locks")?;
    let mut steps = Steps::default();
    Tandem.prepare(&lab)?;
    let (mut n1, mut n2) = (lab.machine(1, DISK_BYTES)?, lab.machine(2, DISK_BYTES)?);
    let (mut holder, mut other) = (lab.machine(3, NO_DISK_BYTES)?, lab.machine(4, NO_DISK_BYTES)?);
    steps.run("four machines boot", || lab.boot(&mut [&mut n1, &mut n2, &mut holder, &mut other]))?;
    steps.run("metadata, connection, ext4", || {
        Tandem.install(&mut n1)?;
        Tandem.install(&mut n2)?;
        Tandem.create(&mut n1, &mut n2)
    })?;
    steps.run("n1 serves", || promote(&mut n1))?;
    steps.run("two clients mount by NFSv3", || {
        mount(&mut holder)?;
        mount(&mut other)
    })?;
    let locked = Writer::start(&mut holder, LOCKED, "--lock")?;
    steps.run("one has a lock, the other is refused it", || {
        locked.wait_for_progress(&mut holder)?;
        expect(&mut other, "refused")?;
        n1.sh(&format!("ls {STATE}/sm | grep -x {}", holder.address())).map(drop)
    })?;
    steps.run("the service is moved to n2, where another server is in the way", || {
        n2.sh(OTHER_SERVER)?;
        n1.sh_within(LIMIT, "nfs-failover demote nfs")?;
        let refused = n2.sh_within(LIMIT, "nfs-failover promote nfs && exit 1; cat /proc/fs/nfsd/threads")?;
        print!("{refused}");
        match refused.contains("exports /mnt, which is not this service's") && refused.ends_with("\n3\n") {
            true => n2.sh("exportfs -u '*:/mnt'").map(drop),
            false => Err(format!("somebody else's server was to be left alone: {refused}").into()),
        }
    })?;
    steps.run("it exports nothing any more, and makes room", || promote(&mut n2))?;
    steps.run("the lock is held there", || {
        locked.wait_for_progress(&mut holder)?;
        expect(&mut other, "refused")
    })?;
    steps.run("the power of n2 is cut, n1 serves", || {
        Tandem.wait_until_equal(&mut n2)?;
        n2.cut_power()?;
        promote(&mut n1)
    })?;
    steps.run("the lock is held there", || {
        locked.wait_for_progress(&mut holder)?;
        expect(&mut other, "refused")
    })?;
    steps.run("it is given up, and the other has it", || {
        locked.stop_well(&mut holder)?;
        expect(&mut other, "granted")
    })?;
    locked.judge(&mut holder)?;
    steps.print();
    Ok(())
}

/// Has a node serve, with the times and ports that are configured.
fn promote(node: &mut Machine) -> Result<()> {
    let promoted = node.sh_within(LIMIT, &format!("nfs-failover promote nfs || {{ cat {LOG}; exit 1; }}"))?;
    print!("{promoted}{}", node.sh(&format!("{TIMES}\ngrep ' notify ' {LOG} | tail -1; ls -C {STATE}/*"))?);
    node.wait_until("it is found at the usual ports", PORTS, LIMIT, "rpcinfo -p")
}

fn mount(client: &mut Machine) -> Result<()> {
    let options = "vers=3,proto=tcp,mountproto=tcp,hard,timeo=10,retrans=2";
    let script = format!("modprobe nfsv3; rpcbind; rpc.statd; mount -t nfs -o {options} {VIP}:{EXPORT} /mnt");
    client.sh_within(LIMIT, &script).map(drop)
}

/// Whether a client that asks for the lock, once the grace is over, is refused or granted it.
fn expect(client: &mut Machine, answer: &str) -> Result<()> {
    // Another status is another trouble.
    let script = format!(
        "flock -n -E 42 {LOCKED} true && echo granted || case $? in 42) echo refused;; *) echo failed;; esac"
    );
    let said = client.sh_within(LIMIT, &script)?;
    match said.trim() == answer {
        true => Ok(()),
        false => Err(format!("the other client was to be {answer}: {said}").into()),
    }
}
