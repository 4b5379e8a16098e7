//! The load: fio's NBD engine.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{Result, run as run_program};

/// One way to load an export.
pub(crate) struct Workload {
    /// Its name in the table.
    pub(crate) name: &'static str,
    pattern: &'static str,
    block: &'static str,
    depth: &'static str,
    extra: &'static [&'static str],
    /// What is counted.
    pub(crate) unit: Unit,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Thousands of requests per second.
    Kiops,
    /// Mebibytes per second.
    MibPerSecond,
}

/// Everything that is measured.
pub(crate) const WORKLOADS: &[Workload] = &[
    small("4k randwrite QD32", "randwrite", "32", &[]),
    small("4k randread QD32", "randread", "32", &[]),
    small("4k randwrite QD1", "randwrite", "1", &[]),
    small("4k randread QD1", "randread", "1", &[]),
    small("4k write + flush QD1", "randwrite", "1", &["--fsync=1"]),
    large("1M write QD8", "write"),
    large("1M read QD8", "read"),
];

const fn small(
    name: &'static str,
    pattern: &'static str,
    depth: &'static str,
    extra: &'static [&'static str],
) -> Workload {
    Workload { name, pattern, block: "4k", depth, extra, unit: Unit::Kiops }
}

const fn large(name: &'static str, pattern: &'static str) -> Workload {
    Workload { name, pattern, block: "1M", depth: "8", extra: &[], unit: Unit::MibPerSecond }
}

/// The workload of this name.
pub(crate) fn workload(name: &str) -> Result<&'static Workload> {
    WORKLOADS.iter().find(|w| w.name == name).ok_or_else(|| format!("there is no workload {name}").into())
}

/// Loads the first bytes of the export for some seconds; returns the rate in the workload's unit.
pub(crate) fn run(workload: &Workload, uri: &str, bytes: u64, seconds: u32, folder: &Path) -> Result<f64> {
    let (size, seconds) = (format!("--size={bytes}"), format!("--runtime={seconds}"));
    let report = fio(workload, uri, &[&size, "--time_based", &seconds], folder)?;
    let side = if workload.pattern.ends_with("read") { "read" } else { "write" };
    let job = &report["jobs"][0][side];
    let (value, divisor) = match workload.unit {
        Unit::Kiops => (&job["iops"], 1e3),
        Unit::MibPerSecond => (&job["bw_bytes"], f64::from(1 << 20)),
    };
    value.as_f64().map(|v| v / divisor).ok_or_else(|| "fio's report holds no rate".into())
}

/// Loads the export with this many small writes all over it.
pub(crate) fn scatter(uri: &str, writes: u32, size_bytes: u64, folder: &Path) -> Result<()> {
    let (writes, size) = (format!("--number_ios={writes}"), format!("--size={size_bytes}"));
    fio(&WORKLOADS[0], uri, &[&writes, &size], folder).map(drop)
}

fn fio(workload: &Workload, uri: &str, extent: &[&str], folder: &Path) -> Result<Value> {
    let report = folder.join("fio.json");
    run_fio(workload, uri, extent, &report)?;
    Ok(serde_json::from_str(&std::fs::read_to_string(report)?)?)
}

fn run_fio(workload: &Workload, uri: &str, extent: &[&str], report: &Path) -> Result<()> {
    let mut fio = Command::new("fio");
    fio.args(["--name=bench", "--ioengine=nbd", "--norandommap", "--output-format=json"]);
    fio.arg(format!("--uri={uri}")).arg(format!("--output={}", report.display()));
    fio.arg(format!("--rw={}", workload.pattern)).arg(format!("--bs={}", workload.block));
    fio.arg(format!("--iodepth={}", workload.depth)).args(workload.extra).args(extent);
    run_program(&mut fio).map(drop)
}
