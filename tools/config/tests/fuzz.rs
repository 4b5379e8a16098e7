//! No input makes the parser, the checks or the messages panic.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use tandem_config::{Config, OPTIONS};

const CASES: usize = 20_000;

const SEEDS: &[&str] = &[
    "resource r0 { protocol C; on node1 { device /dev/drbd0; disk /dev/sdb1; address 192.168.100.101:7789;\n\
     meta-disk internal; } on node2 { device /dev/drbd0; disk /dev/sdb1; address 192.168.100.102:7789;\n\
     meta-disk internal; } }",
    "global { nbd-listen [::1]:10809; usage-count ask; }\ncommon { net { timeout 60; ping-int 10; sndbuf-size 1M; } }\n\
     skip resource x { } resource \"a b\" { disk { no-disk-flushes; al-extents 67; } options { quorum off; }\n\
     volume 0 { device /dev/x minor 3; disk \"/dev/\\\"q\\\\\"; disk { c-max-rate 4s; } } # ü€😀\n\
     on a b { node-id 3; address ipv6 [fd00::1]:1; meta-disk /dev/m; } on c { address ipv6 [fd00::2]:2; } }",
];

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

/// Marsaglia's xorshift: the same cases in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

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

#[test]
fn mutated_examples_never_panic_and_what_passes_survives_a_dump() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut accepted = 0;
    for case in 0..CASES {
        let mut text: Vec<char> = SEEDS[case % SEEDS.len()].chars().collect();
        for _ in 0..=random.below(4) {
            mutate(&mut text, &mut random);
        }
        let text: String = text.into_iter().collect();
        match Config::parse(Path::new("fuzz.conf"), &text) {
            Ok(config) => {
                accepted += 1;
                let dumped = config.dump("node1");
                let again = Config::parse(Path::new("dump.conf"), &dumped)
                    .unwrap_or_else(|error| panic!("case {case}:\n{text}\n{dumped}\n{error}"));
                assert_eq!(again, config, "case {case}:\n{text}\n{dumped}");
                config
                    .warnings
                    .iter()
                    .for_each(|warning| assert!(warning.to_string().contains("fuzz.conf:")));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(
        accepted > CASES / 100,
        "only {accepted} of {CASES} cases were accepted: the mutations are too wild"
    );
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
