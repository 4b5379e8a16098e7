//! The primary loses its power while a client appends to files over NFSv4.2; it comes back and is brought up to date.

use std::time::Duration;

use serde_json::Value;

use super::channel::Reply;
use super::drbd::Drbd;
use super::lab::Lab;
use super::machine::Machine;
use super::stack::{Stack, VIP, start_ucarp, wait_until_serving};
use crate::process::Result;
use crate::steps::Steps;

/// Small: after a crash, DRBD resyncs all that its activity log names, and mkfs has touched the whole disk.
const DISK_BYTES: u64 = 256 << 20;
/// Any disk at all for the client, which has no use for it.
const NO_DISK_BYTES: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);
/// The client appends for this long before the cut.
const BESIDE_SECONDS: u32 = 3;
/// The client's files.
const PLAIN: &str = "plain";
const LOCKED: &str = "locked";
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
    println!("\nThe client's lock was {}.", if outcome.lock_held { "held" } else { "lost" });
    Ok(())
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
        start_ucarp(stack, &mut n1, 0)?;
        wait_until_serving(stack, &mut n1)
    })?;
    start_ucarp(stack, &mut n2, 50)?;
    steps.run("client: mount", || mount(stack, &mut client))?;
    steps.run("client: 32 MiB and fsync", || write_bulk(&mut client))?;
    let plain = client.begin(&append(PLAIN, ""))?;
    let locked = client.begin(&append(LOCKED, "--lock"))?;
    client.sh(&format!("sleep {BESIDE_SECONDS}"))?;

    steps.run("power cut: n2 has the address", || {
        n1.cut_power()?;
        wait_until_serving(stack, &mut n2)
    })?;
    steps.run("client: appends are acknowledged again", || wait_for_progress(&mut client))?;
    println!("n2, {}:\n{}", stack.log(), n2.sh(&format!("cat {}", stack.log()))?);
    steps.run("client: the 32 MiB are what they were", || {
        client.sh("echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /tmp/bulk.sum").map(drop)
    })?;
    steps.run("n1 boots again", || lab.boot(&mut [&mut n1]))?;
    steps.run("n1 is brought up to date", || {
        stack.install(&mut n1)?;
        stack.start(&mut n1)?;
        stack.wait_until_equal(&mut n1)
    })?;

    let lock_refused = lock_is_refused(stack, &mut n1)?;
    client.sh(&format!("touch /tmp/{PLAIN}.stop /tmp/{LOCKED}.stop"))?;
    must_have_ended_well(PLAIN, &client.finish(&plain, LIMIT)?)?;
    let locked = client.finish(&locked, LIMIT)?;
    print!("{}", locked.text);
    let stall_ms = acknowledged_are_there(&mut client, PLAIN)?;
    acknowledged_are_there(&mut client, LOCKED)?;
    steps.note(STALL, Duration::from_millis(stall_ms));
    Ok(Outcome { steps, lock_held: lock_refused && locked.status == 0 })
}

fn mount(stack: &dyn Stack, client: &mut Machine) -> Result<()> {
    let options = "vers=4.2,hard,timeo=10,retrans=2";
    let script = format!("modprobe nfsv4; mount -t nfs4 -o {options} {VIP}:{} /mnt", stack.export());
    client.sh_within(LIMIT, &script).map(drop)
}

fn write_bulk(client: &mut Machine) -> Result<()> {
    let script = "dd if=/dev/urandom of=/mnt/bulk bs=1M count=32 conv=fsync status=none
        sha256sum /mnt/bulk >/tmp/bulk.sum";
    client.sh_within(LIMIT, script).map(drop)
}

/// The script of a writer that runs until it is told to stop.
fn append(name: &str, options: &str) -> String {
    format!("/host/bin/xtask load append {options} /mnt/{name} /tmp/{name}.log")
}

fn wait_for_progress(client: &mut Machine) -> Result<()> {
    let script = format!(
        "lines() {{ wc -l </tmp/{PLAIN}.log; }}
        before=$(lines); until [ \"$(lines)\" -gt $((before + 3)) ]; do sleep 0.05; done"
    );
    client.sh_within(LIMIT, &script).map(drop)
}

/// Whether another client is refused the lock that the first one holds.
fn lock_is_refused(stack: &dyn Stack, other: &mut Machine) -> Result<bool> {
    mount(stack, other)?;
    let reply =
        other.sh(&format!("flock -n /mnt/{LOCKED} true && echo granted || echo refused; umount /mnt"))?;
    Ok(reply.trim() == "refused")
}

fn must_have_ended_well(name: &str, writer: &Reply) -> Result<()> {
    match writer.status {
        0 => Ok(()),
        status => Err(format!("the writer of {name}: exit status {status}: {}", writer.text).into()),
    }
}

/// Compares a file with its writer's log; returns the longest wait in milliseconds.
fn acknowledged_are_there(client: &mut Machine, name: &str) -> Result<u64> {
    let script =
        format!("echo 3 >/proc/sys/vm/drop_caches; /host/bin/xtask load check /mnt/{name} /tmp/{name}.log");
    let found = client.sh(&script)?;
    print!("{name}: {found}");
    let found: Value = serde_json::from_str(&found)?;
    Ok(found["stall_ms"].as_u64().unwrap_or_default())
}
