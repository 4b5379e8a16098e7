//! The primary loses its power while a client appends to files over NFSv4.2; it comes back and is brought up to date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::drbd::Drbd;
use super::lab::Lab;
use super::machine::Machine;
use super::stack::{EXPORT, LOG, Stack, VIP, start_ucarp, wait_until_serving};
use super::tandem::Tandem;
use super::writer::{Writer, Written};
use crate::process::Result;
use crate::steps::{Steps, print_beside};

/// Small: after a crash, DRBD resyncs all that its activity log names, and mkfs has touched the whole disk.
const DISK_BYTES: u64 = 256 << 20;
/// Any disk at all for the client, which has no use for it.
const NO_DISK_BYTES: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);
/// The client appends for this long before the cut.
const BESIDE_SECONDS: u32 = 3;
/// The file that the client has locked.
const LOCKED: &str = "/mnt/locked";
/// The row that is compared.
const STALL: &str = "client: longest wait for an acknowledgement";

/// What came of a story.
struct Outcome {
    steps: Steps,
    /// Whether the client's lock outlived the primary.
    lock_held: bool,
}

/// DRBD alone.
pub(super) fn run_baseline() -> Result<()> {
    let outcome = play(&Lab::prepare("drbd-baseline")?, &Drbd)?;
    outcome.steps.print();
    println!("\nThe client's lock was {}.", held(outcome.lock_held));
    Ok(())
}

/// DRBD unless Tandem is to be alone, then Tandem, on the same host and with the same settings of UCARP.
pub(super) fn run_tandem(alone: bool) -> Result<()> {
    let drbd = match alone {
        true => None,
        false => Some(play(&Lab::prepare("ha-nfs-drbd")?, &Drbd)?),
    };
    let tandem = play(&Lab::prepare("ha-nfs-tandem")?, &Tandem)?;
    match drbd {
        Some(drbd) => {
            print_beside(&[(Drbd.name(), &drbd.steps), (Tandem.name(), &tandem.steps)]);
            println!("\nThe client's lock was {} over DRBD.", held(drbd.lock_held));
            let stall = |outcome: &Outcome| outcome.steps.took(STALL).unwrap_or_default().as_secs_f64();
            println!("Tandem's wait is {:.2} of DRBD's.", stall(&tandem) / stall(&drbd));
        }
        None => tandem.steps.print(),
    }
    println!("The client's lock was {} over Tandem.", held(tandem.lock_held));
    match tandem.lock_held {
        true => Ok(()),
        false => Err("the client's lock was lost".into()),
    }
}

fn held(is_held: bool) -> &'static str {
    if is_held { "held" } else { "lost" }
}

/// The story. A record that was acknowledged and is not there, or not in order, ends it with an error.
fn play(lab: &Lab, stack: &dyn Stack) -> Result<Outcome> {
    let mut steps = Steps::default();
    println!("\n==== {}", stack.name());
    stack.prepare(lab)?;
    let (mut n1, mut n2) = (lab.machine(1, DISK_BYTES)?, lab.machine(2, DISK_BYTES)?);
    let mut client = lab.machine(3, NO_DISK_BYTES)?;
    steps.run("three machines boot", || lab.boot(&mut [&mut n1, &mut n2, &mut client]))?;
    steps.run("metadata, connection, ext4", || {
        stack.install(&mut n1)?;
        stack.install(&mut n2)?;
        stack.create(&mut n1, &mut n2)
    })?;
    steps.run("UCARP on n1: it serves", || {
        start_ucarp(&mut n1, 0)?;
        wait_until_serving(&mut n1)
    })?;
    start_ucarp(&mut n2, 50)?;
    steps.run("client: mount", || mount(&mut client))?;
    steps.run("client: 32 MiB and fsync", || write_bulk(&mut client))?;
    let plain = Writer::start(&mut client, "/mnt/plain", "")?;
    let locked = Writer::start(&mut client, LOCKED, "--lock")?;
    client.sh(&format!("sleep {BESIDE_SECONDS}"))?;

    let cut = SystemTime::now().duration_since(UNIX_EPOCH)?;
    steps.run("power cut: n2 has the address", || {
        n1.cut_power()?;
        wait_until_serving(&mut n2)
    })?;
    steps.run("client: appends are acknowledged again", || plain.wait_for_progress(&mut client))?;
    let log = n2.sh(&format!("cat {LOG}"))?;
    steps.run("client: the 32 MiB are what they were", || {
        client.sh("echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /tmp/bulk.sum").map(drop)
    })?;
    steps.run("n1 boots again", || lab.boot(&mut [&mut n1]))?;
    steps.run("n1 is brought up to date", || {
        stack.install(&mut n1)?;
        stack.start(&mut n1)?;
        stack.wait_until_equal(&mut n1)
    })?;

    let lock_refused = lock_is_refused(&mut n1)?;
    plain.stop_well(&mut client)?;
    let held_on = locked.stop(&mut client)?;
    print!("{}", held_on.text);
    locked.judge(&mut client)?;
    let written = plain.judge(&mut client)?;
    let kernel = n2.sh("dmesg | grep -E 'NFSD|EXT4' || true")?;
    print_stall(stack.name(), &written, cut, &log, &kernel);
    steps.note(STALL, written.stall);
    Ok(Outcome { steps, lock_held: lock_refused && held_on.status == 0 })
}

/// Prints what the client's wait consists of, each part with its distance from the last acknowledgement before the cut.
fn print_stall(name: &str, written: &Written, cut: Duration, log: &str, kernel: &str) {
    println!("\n{name}: what the client waited for, in seconds since the last acknowledgement");
    let print = |at: Duration, what: &str| {
        println!("{:+8.3} {what}", at.as_secs_f64() - written.stall_began.as_secs_f64());
    };
    print(cut, "the power is cut");
    let lines = log.lines().filter_map(|line| {
        let (at, what) = line.split_once(' ')?;
        Some((Duration::try_from_secs_f64(at.parse().ok()?).ok()?, what))
    });
    lines.filter(|(at, _)| *at > cut).for_each(|(at, what)| print(at, what));
    print(written.stall_began + written.stall, "the next acknowledgement");
    println!("n2's kernel, in seconds since it was booted:\n{kernel}");
}

fn mount(client: &mut Machine) -> Result<()> {
    let options = "vers=4.2,hard,timeo=10,retrans=2";
    let script = format!("modprobe nfsv4; mount -t nfs4 -o {options} {VIP}:{EXPORT} /mnt");
    client.sh_within(LIMIT, &script).map(drop)
}

fn write_bulk(client: &mut Machine) -> Result<()> {
    let script = "dd if=/dev/urandom of=/mnt/bulk bs=1M count=32 conv=fsync status=none
        sha256sum /mnt/bulk >/tmp/bulk.sum";
    client.sh_within(LIMIT, script).map(drop)
}

/// Whether another client is refused the lock that the first one holds.
fn lock_is_refused(other: &mut Machine) -> Result<bool> {
    mount(other)?;
    let reply = other.sh(&format!("flock -n {LOCKED} true && echo granted || echo refused; umount /mnt"))?;
    Ok(reply.trim() == "refused")
}
