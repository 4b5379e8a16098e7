//! `cargo xtask test`: every test, one after the other, and one line of counts at the end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::packages;
use crate::process::{self, Result, shown};
use crate::repo;
use crate::sandbox::Sandbox;

/// Seeds per protocol that the simulator runs.
const SEEDS: &str = "34000";
const SIMULATOR_APART: &str = "--exclude=tandem-tests";
/// Before the place of a panic; what is said of it stands on the next line.
const PANICKED: &str = "panicked at ";
const DENY: [&str; 3] = ["--", "-D", "warnings"];

/// Runs every test, the later ones even if an earlier one fails. The last line printed is `N passed, N failed`.
pub(crate) fn run() -> Result<()> {
    packages::ensure(packages::TEST)?;
    packages::ensure(packages::HIGH_AVAILABILITY)?;
    let release = repo::release_dir()?;
    // The tests take their daemons down themselves, unless they are interrupted.
    let sandbox = Sandbox::new()?;
    let mut suite = Suite::default();
    suite.step("rustfmt", repo::cargo().args(["fmt", "--all", "--check"]));
    // The simulator apart: it switches the core's seeded bugs on, and cargo would switch them on for every member
    // that is built in the same breath.
    suite.step("clippy", lint().args(["--workspace", SIMULATOR_APART]).args(DENY));
    suite.step("clippy, simulator", lint().args(["-p", "tandem-tests"]).args(DENY));
    suite.step("unit, doc and tidy tests", unit_tests().args(["--workspace", SIMULATOR_APART]));
    suite.step("unit tests, simulator", unit_tests().args(["-p", "tandem-tests"]));
    suite.step(
        "simulator, every protocol",
        &mut simulator(&["--seeds", SEEDS, "--protocol", "all"].map(String::from)),
    );
    suite.step(
        "simulator, seeded bugs",
        &mut simulator(&["--mutations", "--briefly", "--seeds", "3000"].map(String::from)),
    );
    suite.step("every short history", &mut histories(&[]));
    suite.step("every short history, seeded bugs", &mut histories(&["--mutations"]));
    suite.step("oracle: Debian's drbd-utils; shells", &mut oracle());
    suite.step("build as shipped", &mut repo::release_build());
    suite.step("Debian packages", &mut debian_packages(&release));
    suite.step("end to end: real daemons, real clients", &mut end_to_end("e2e", "", &release, &sandbox));
    suite.step("high availability: hosts, NFS", &mut end_to_end("ha", "", &release, &sandbox));
    drop(sandbox);
    suite.finish()
}

/// Runs the end-to-end tests whose names contain `filter`, with this in their environment.
pub(crate) fn run_end_to_end(filter: &str, variable: &str, value: u64) -> Result<()> {
    packages::ensure(packages::TEST)?;
    repo::build_release()?;
    let sandbox = Sandbox::new()?;
    process::run(end_to_end("e2e", filter, &repo::release_dir()?, &sandbox).env(variable, value.to_string()))
}

fn end_to_end(test: &str, filter: &str, binaries: &Path, sandbox: &Sandbox) -> Command {
    let mut cargo = repo::cargo();
    cargo
        .args(["test", "-p", "tandem-tests", "--test", test, filter, "--"])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env("TANDEM_BIN_DIR", binaries)
        .env("TMPDIR", sandbox.path());
    cargo
}

/// They are built, installed into a folder, tried and removed.
fn debian_packages(binaries: &Path) -> Command {
    let mut cargo = repo::cargo();
    cargo.args(["test", "-p", "xtask", "deb::", "--", "--ignored"]).env("TANDEM_BIN_DIR", binaries);
    cargo
}

/// What DRBD's own tools say of the same configurations, and shells of the same command lines.
fn oracle() -> Command {
    let mut cargo = repo::cargo();
    cargo
        .args([
            "test",
            "-p",
            "tandem-config",
            "-p",
            "tandemadm",
            "--test",
            "oracle",
            "--test",
            "shells",
            "--",
        ])
        .args(["--ignored", "--nocapture"]);
    cargo
}

/// Mutated configurations, for minutes.
pub(crate) fn config_fuzzer(minutes: u64) -> Command {
    let mut cargo = repo::cargo();
    cargo
        .args(["test", "--profile", "sim", "-p", "tandem-config", "--test", "fuzz", "for_minutes", "--"])
        .args(["--ignored", "--nocapture"])
        .env("TANDEM_FUZZ_MINUTES", minutes.to_string());
    cargo
}

fn lint() -> Command {
    let mut cargo = repo::cargo();
    cargo.args(["clippy", "--all-targets"]);
    cargo
}

fn unit_tests() -> Command {
    let mut cargo = repo::cargo();
    cargo.args(["test", "--no-fail-fast"]);
    cargo
}

/// The simulator with these arguments, built optimised and with every assertion.
pub(crate) fn simulator(args: &[String]) -> Command {
    let mut sim = repo::cargo();
    sim.args(["run", "--quiet", "--profile", "sim", "-p", "tandem-tests", "--bin", "sim", "--"]).args(args);
    sim
}

/// The enumeration of short histories.
fn histories(args: &[&str]) -> Command {
    let mut histories = repo::cargo();
    histories
        .args(["run", "--quiet", "--profile", "sim", "-p", "tandem-tests", "--bin", "histories", "--"])
        .args(args);
    histories
}

#[derive(Default)]
struct Suite {
    steps: Vec<Step>,
}

struct Step {
    title: &'static str,
    took: Duration,
    seen: Seen,
}

/// What a step has printed.
#[derive(Default, PartialEq, Eq, Debug)]
struct Seen {
    counts: Counts,
    /// Who panicked, where, and the first line of what was said.
    panics: Vec<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl Suite {
    /// Runs one step. Its counts are those that it prints; a step that prints none counts as one.
    fn step(&mut self, title: &'static str, command: &mut Command) {
        println!("\n== {title}: {}", shown(command));
        let start = Instant::now();
        let (succeeded, mut seen) = run_and_look(command).unwrap_or_else(|error| {
            println!("cannot run {}: {error}", shown(command));
            (false, Seen::default())
        });
        match succeeded {
            true if seen.counts == Counts::default() => seen.counts.passed = 1,
            false if seen.counts.failed == 0 => seen.counts.failed = 1,
            _ => {}
        }
        self.steps.push(Step { title, took: start.elapsed(), seen });
    }

    fn finish(self) -> Result<()> {
        println!("\n{:<42} {:>8} {:>8} {:>8}", "step", "seconds", "passed", "failed");
        let mut all = Counts::default();
        for Step { title, took, seen: Seen { counts, .. } } in &self.steps {
            println!("{title:<42} {:>8.1} {:>8} {:>8}", took.as_secs_f64(), counts.passed, counts.failed);
            all += *counts;
        }
        // Whoever reads only the last line must find the counts there: what failed is said before.
        for Step { title, seen, .. } in self.steps.iter().filter(|step| step.seen.counts.failed > 0) {
            println!("failed: {title}");
            seen.panics.iter().for_each(|panic| println!("  {panic}"));
        }
        println!("{} passed, {} failed", all.passed, all.failed);
        io::stdout().flush()?;
        if all.failed > 0 {
            std::process::exit(1);
        }
        Ok(())
    }
}

/// Runs a command, hands on what it prints as it comes, and looks for what counts in it.
fn run_and_look(command: &mut Command) -> io::Result<(bool, Seen)> {
    let (output, input) = io::pipe()?;
    let child = command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input).spawn();
    // The output ends when nobody can write to it any more, this command included.
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let mut child = child?;
    let seen = look_and_print(output);
    Ok((child.wait()?.success(), seen))
}

fn look_and_print(output: impl Read) -> Seen {
    let mut seen = Seen::default();
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    let mut panicked = false;
    while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        seen.counts += counts_in(&text).unwrap_or_default();
        if std::mem::replace(&mut panicked, text.contains(PANICKED))
            && let Some(panic) = seen.panics.last_mut()
        {
            panic.push_str(&format!(" {}", text.trim_end()));
        }
        if panicked {
            seen.panics.push(text.trim().to_owned());
        }
        line.clear();
    }
    seen
}

/// The counts in `test result: ok. 3 passed; 0 failed; ...` as cargo prints it, or in a plain `3 passed, 0 failed`.
fn counts_in(line: &str) -> Option<Counts> {
    let (before, after) = line.split_once(" passed")?;
    let passed = before.rsplit([' ', '\r']).next()?.parse().ok()?;
    let failed = after.strip_prefix([';', ','])?.trim_start().split_once(" failed")?.0.parse().ok()?;
    Some(Counts { passed, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_in_both_notations() {
        let counts = |passed, failed| Some(Counts { passed, failed });
        let cargo = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s";
        assert_eq!(counts_in(cargo), counts(12, 3));
        assert_eq!(counts_in("test kill_rounds ... 54 passed, 0 failed\n"), counts(54, 0));
        assert_eq!(counts_in("20 passed, 0 failed"), counts(20, 0));
        assert_eq!(counts_in("time passed, nothing failed"), None);
        assert_eq!(counts_in("12 passed"), None);
    }

    #[test]
    fn a_step_without_counts_counts_as_one() {
        let mut suite = Suite::default();
        suite.step("good", &mut Command::new("true"));
        suite.step("bad", &mut Command::new("false"));
        suite.step("counting", Command::new("echo").arg("3 passed, 2 failed"));
        suite.step("missing", &mut Command::new("/no/such/program"));
        let counts: Vec<_> =
            suite.steps.iter().map(|s| (s.seen.counts.passed, s.seen.counts.failed)).collect();
        assert_eq!(counts, [(1, 0), (0, 1), (3, 2), (0, 1)]);
    }

    #[test]
    fn panics_are_kept_with_their_first_line() {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            "echo 1 passed, 1 failed; echo \"thread 'a::b' panicked at a.rs:1:2:\nlate\nmore\" >&2",
        ]);
        let (succeeded, seen) = run_and_look(&mut shell).unwrap();
        assert_eq!((succeeded, seen.counts), (true, Counts { passed: 1, failed: 1 }));
        assert_eq!(seen.panics, ["thread 'a::b' panicked at a.rs:1:2: late"]);
    }
}
