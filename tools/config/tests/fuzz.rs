//! No input makes the parser, the checks or the messages panic, and none makes them hang.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use support::{Random, fixtures};
use tandem_config::{Config, OPTIONS};

const CASES: usize = 5000;
/// Says how long `cargo xtask fuzz-config` goes on.
const MINUTES_VARIABLE: &str = "TANDEM_FUZZ_MINUTES";
/// A case takes some milliseconds.
const HANG: Duration = Duration::from_secs(30);

const PIECES: &[&str] = &[
    "{",
    "}",
    ";",
    "\"",
    "\\",
    "#",
    "\n",
    "\t",
    " ",
    "\0",
    "\r\n",
    "ü",
    "\u{feff}",
    "\u{202e}",
    "😀",
    "no-",
    "skip ",
    "include \"nowhere\";",
    "99999999999999999999",
    "-1",
    "K",
    "s",
    "volume 0 {",
    "disk {",
    "on x {",
    "net {",
    "\u{7f}",
    "{{{{{{{{{{{{",
    "minor",
    "[",
    "]",
    ":",
    "/",
    "meta-disk x[0]",
];

fn mutate(text: &mut Vec<char>, random: &mut Random) {
    let at = random.below(text.len() + 1);
    let end = (at + random.below(12)).min(text.len());
    match random.below(6) {
        0 => drop(text.drain(at..end)),
        1 => {
            let piece: Vec<char> = PIECES[random.below(PIECES.len())].chars().collect();
            text.splice(at..at, piece);
        }
        2 => {
            let name: Vec<char> = OPTIONS[random.below(OPTIONS.len())].name.chars().chain([' ']).collect();
            text.splice(at..at, name);
        }
        3 => {
            let copy = text[at..end].to_vec();
            let to = random.below(text.len() + 1);
            text.splice(to..to, copy);
        }
        4 if at < end => text[at] = char::from_u32(random.below(0x250) as u32).unwrap_or('x'),
        _ => text.truncate(text.len() - random.below(3).min(text.len())),
    }
}

/// One mutation of the fixtures: some of the time the head of one and the tail of another.
fn case(seeds: &[Vec<char>], random: &mut Random) -> String {
    let mut text = seeds[random.below(seeds.len())].clone();
    if random.below(4) == 0 {
        let other = &seeds[random.below(seeds.len())];
        text.truncate(random.below(text.len() + 1));
        text.extend(&other[random.below(other.len() + 1)..]);
    }
    for _ in 0..=random.below(4) {
        mutate(&mut text, random);
    }
    text.into_iter().collect()
}

/// Whether the text is accepted. Panics if something is wrong with what comes of it.
fn check(text: &str) -> bool {
    let config = match Config::parse(Path::new("fuzz.conf"), text) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let dumped = config.dump("node1");
    let again =
        Config::parse(Path::new("dump.conf"), &dumped).unwrap_or_else(|error| panic!("{dumped}\n{error}"));
    assert_eq!(again, config, "{dumped}");
    config.warnings.iter().for_each(|warning| assert!(warning.to_string().contains("fuzz.conf:")));
    for resource in &config.resources {
        match resource.runnable() {
            Ok(()) => drop(resource.pair(&resource.hosts[0].name())),
            Err(error) => assert!(error.to_string().contains("fuzz.conf:")),
        }
    }
    true
}

/// Cases until the time is over; returns how many there were, and how many of them were accepted.
fn fuzz(seed: u64, mut more: impl FnMut(usize) -> bool) -> (usize, usize) {
    let texts = fixtures().into_iter().map(|fixture| fs::read_to_string(fixture.path).unwrap());
    let seeds: Vec<Vec<char>> = texts.map(|text| text.chars().collect()).collect();
    let mut random = Random(seed);
    let (mut cases, mut accepted) = (0, 0);
    let (begin, watched) = channel::<String>();
    let watchdog = std::thread::spawn(move || watch(&watched));
    while more(cases) {
        let text = case(&seeds, &mut random);
        begin.send(text.clone()).unwrap();
        let checked = std::panic::catch_unwind(|| check(&text));
        accepted += usize::from(checked.unwrap_or_else(|_| panic!("seed {seed:#x}, case {cases}:\n{text}")));
        cases += 1;
    }
    drop(begin);
    watchdog.join().unwrap();
    (cases, accepted)
}

/// Ends the process if a case does not end.
fn watch(begun: &std::sync::mpsc::Receiver<String>) {
    let mut text = String::new();
    loop {
        match begun.recv_timeout(HANG) {
            Ok(next) => text = next,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("this does not end:\n{text}");
                std::process::abort();
            }
        }
    }
}

#[test]
fn mutated_fixtures_never_panic_and_what_passes_survives_a_dump() {
    let (cases, accepted) = fuzz(0x9E37_79B9_7F4A_7C15, |cases| cases < CASES);
    assert!(
        accepted > cases / 100,
        "only {accepted} of {cases} cases were accepted: the mutations are too wild"
    );
}

#[test]
#[ignore = "takes minutes: cargo xtask fuzz-config"]
fn for_minutes() {
    let minutes: u64 = std::env::var(MINUTES_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    println!("seed {seed:#x}, {minutes} minutes");
    let (cases, accepted) = fuzz(seed, |_| Instant::now() < end);
    println!("{cases} configurations, {accepted} of them accepted, no panic, none that hung");
}

#[test]
fn large_hostile_inputs_are_answered_quickly() {
    let before = cpu_time();
    for text in [
        "{".repeat(1 << 20),
        "a{".repeat(1 << 19),
        "a;".repeat(1 << 19),
        "resource r{".repeat(90_000),
        "global{usage-count no;}".repeat(40_000),
        "resource a{}".repeat(80_000),
        format!("resource r {{ {} }}", "net{ping-int 10;}".repeat(60_000)),
        format!("resource r {{ on {} {{ }} }}", (0..20_000).map(|i| format!(" h{i}")).collect::<String>()),
        "x".repeat(1 << 20),
        "\"".repeat(1 << 20),
    ] {
        let error = Config::parse(Path::new("large.conf"), &text).unwrap_err().to_string();
        assert!(!error.is_empty() && error.len() < 1 << 20, "{} bytes of message", error.len());
    }
    let taken = cpu_time() - before;
    assert!(taken.as_secs() < 60, "{taken:?}");
}

/// What this thread has had of a processor: how busy the machine is besides says nothing of us.
fn cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}
