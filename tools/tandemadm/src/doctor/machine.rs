//! What the machine has, whatever the resources are.

use std::fs;
use std::path::Path;
use std::process::Command;

use tandem_control::{DeviceDriver, ResourceSpec, RuntimeDir};

use super::Finding;

/// The oldest kernel with all of io_uring that tandemd uses.
const KERNEL: (u32, u32) = (5, 15);
/// CAP_IPC_LOCK.
const MAY_LOCK: u32 = 14;
/// What a keeper of a device locks, with room to spare.
const LOCKED_BYTES: u64 = 64 << 20;

pub(super) fn examine(run: &RuntimeDir, specs: &[ResourceSpec]) -> Vec<Finding> {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let release = text("/proc/sys/kernel/osrelease");
    let mut findings =
        vec![judge_kernel(release.trim()), judge_io_uring(text("/proc/sys/kernel/io_uring_disabled").trim())];
    let pid = fs::read_to_string(run.pid_file()).ok().map(|pid| pid.trim().to_owned());
    let process = pid.map(|pid| format!("/proc/{pid}")).filter(|process| Path::new(process).exists());
    findings.push(match &process {
        None => Finding::bad("daemon", "tandemd does not run").todo("tandemadm up all"),
        Some(process) => judge_daemon(
            fs::read_link(format!("{process}/exe")).ok().as_deref(),
            version_of(&format!("{process}/exe")).as_deref(),
        ),
    });
    if let Some(process) = process {
        findings.push(judge_memory(&text(&format!("{process}/limits")), &text(&format!("{process}/status"))));
    }
    let mut drivers: Vec<DeviceDriver> = Vec::new();
    for driver in specs.iter().map(|spec| spec.block_device.driver) {
        if !drivers.contains(&driver) {
            drivers.push(driver);
            findings.push(judge_devices(driver, has_nbd(release.trim()), has_fuse()));
        }
    }
    findings.push(judge_clock(synchronized()));
    findings
}

pub(super) fn judge_kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version >= KERNEL {
        true => Finding::ok("kernel", format!("Linux {release}")),
        false => Finding::bad("kernel", format!("Linux {release} is older than {}.{}", KERNEL.0, KERNEL.1))
            .todo("tandemd needs io_uring as newer kernels have it"),
    }
}

pub(super) fn judge_io_uring(disabled: &str) -> Finding {
    match disabled {
        "2" => Finding::bad("io_uring", "io_uring is switched off").todo("sysctl kernel.io_uring_disabled=0"),
        "1" => Finding::ok("io_uring", "io_uring is for privileged programs only, as tandemd is"),
        _ => Finding::ok("io_uring", "io_uring is there"),
    }
}

/// `exe` is what the daemon runs, `version` what that says of itself.
pub(super) fn judge_daemon(exe: Option<&Path>, version: Option<&str>) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let replaced = exe.is_some_and(|exe| exe.to_string_lossy().ends_with(" (deleted)"));
    match version {
        _ if replaced => Finding::warn("daemon", "tandemd was replaced on disk since it was started")
            .todo("restart it: clients' requests wait meanwhile"),
        Some(version) if version != own => {
            Finding::warn("daemon", format!("tandemd is {version}, tandemadm is {own}"))
                .todo("install the same release of both, and restart tandemd")
        }
        Some(version) => Finding::ok("daemon", format!("tandemd runs; it is {version}, as tandemadm is")),
        None => Finding::ok("daemon", "tandemd runs"),
    }
}

/// Of the daemon's `/proc/PID/limits` and `/proc/PID/status`.
pub(super) fn judge_memory(limits: &str, status: &str) -> Finding {
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let limit = limit.and_then(|rest| rest.split_whitespace().next()).unwrap_or("unlimited");
    match limit.parse::<u64>() {
        _ if capabilities.is_some_and(|set| set >> MAY_LOCK & 1 == 1) => {
            Finding::ok("memory", "tandemd may lock as much memory as it needs")
        }
        Ok(bytes) if bytes < LOCKED_BYTES => {
            Finding::warn("memory", format!("tandemd may lock {} KiB of memory", bytes / 1024))
                .todo("a device may be slow while memory is short: LimitMEMLOCK=infinity in tandemd's unit")
        }
        _ => Finding::ok("memory", format!("tandemd may lock memory: {limit}")),
    }
}

pub(super) fn judge_devices(driver: DeviceDriver, nbd: bool, fuse: bool) -> Finding {
    let check = "device";
    let bad = |what: &str, todo: &str| Finding::bad(check, what).todo(todo);
    match driver {
        DeviceDriver::None => Finding::ok(check, "no block devices are made: clients speak NBD"),
        DeviceDriver::Nbd if !nbd => bad("the kernel has no NBD driver", "modprobe nbd"),
        DeviceDriver::Fuse if !fuse => {
            bad("there is no /dev/fuse, or no /dev/loop-control", "modprobe fuse loop")
        }
        DeviceDriver::Auto if !nbd && !fuse => {
            bad("neither the NBD driver nor FUSE with loop devices is there", "modprobe nbd")
        }
        DeviceDriver::Nbd | DeviceDriver::Auto if nbd => {
            Finding::ok(check, "block devices are made with the kernel's NBD driver")
        }
        _ => Finding::ok(check, "block devices are made with FUSE and loop devices"),
    }
}

/// Whether somebody keeps it right; how far it is from each peer's is measured on the way there.
pub(super) fn judge_clock(synchronized: Option<bool>) -> Finding {
    match synchronized {
        Some(true) => Finding::ok("clock", "the clock is kept right from the network"),
        Some(false) => {
            Finding::warn("clock", "nobody keeps the clock right: the logs of both nodes cannot be compared")
                .todo("timedatectl set-ntp true")
        }
        None => {
            Finding::ok("clock", "whether the clock is kept right cannot be told: there is no timedatectl")
        }
    }
}

fn version_of(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(1).map(str::to_owned)
}

fn has_nbd(release: &str) -> bool {
    let modules =
        |file: &str| fs::read_to_string(format!("/lib/modules/{release}/{file}")).unwrap_or_default();
    Path::new("/sys/module/nbd").exists()
        || Path::new("/dev/nbd0").exists()
        || ["modules.dep", "modules.builtin"].iter().any(|file| modules(file).contains("/nbd.ko"))
}

fn has_fuse() -> bool {
    ["/dev/fuse", "/dev/loop-control"].iter().all(|path| Path::new(path).exists())
}

fn synchronized() -> Option<bool> {
    let arguments = ["show", "--property=NTPSynchronized", "--value"];
    let output = Command::new("timedatectl").args(arguments).output().ok().filter(|o| o.status.success())?;
    Some(output.stdout.starts_with(b"yes"))
}
