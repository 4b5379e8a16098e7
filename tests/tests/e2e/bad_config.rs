//! Configurations that are wrong in many ways: each is refused with file, line and column, and the running pair does
//! not notice.

use std::fs;

use crate::node::{Node, Outcome, RESOURCE};
use crate::pair::{Pair, Setup};

/// What is wrong, a text in the good file and its replacement, and the line that must be named.
const MISTAKES: &[(&str, &str, &str, u32)] = &[
    ("no semicolon", "protocol C;", "protocol C", 2),
    ("unknown protocol", "protocol C;", "protocol D;", 2),
    ("protocol without a value", "protocol C;", "protocol;", 2),
    ("two values", "protocol C;", "protocol C C;", 2),
    ("protocol twice", "protocol C;", "protocol C; protocol A;", 2),
    ("unknown word", "protocol C;", "protokol C;", 2),
    ("stray semicolon", "protocol C;", "protocol C;;", 2),
    ("unknown section", "net {", "nett {", 3),
    ("unknown option", "ping-int 10;", "pong-int 10;", 4),
    ("no number", "ping-int 10;", "ping-int ten;", 4),
    ("number too big", "ping-int 10;", "ping-int 99999999;", 4),
    ("negative number", "ping-int 10;", "ping-int -1;", 4),
    ("number with a wrong suffix", "ping-int 10;", "ping-int 10Q;", 4),
    ("overflow", "ping-int 10;", "ping-int 99999999999999999999999;", 4),
    ("string not closed", "ping-int 10;", "ping-int \"10;", 4),
    ("control character", "ping-int 10;", "ping-int \u{1}10;", 4),
    ("section where an option belongs", "ping-int 10;", "ping-int { }", 4),
    ("brace too many", "  }\n  on alpha {", "  }\n}\n  on alpha {", 19),
    ("host without a name", "on alpha {", "on {", 6),
    ("host twice", "on bravo {", "on alpha {", 12),
    ("address without a port", "127.0.0.1:7789", "127.0.0.1", 9),
    ("port out of range", "127.0.0.1:7789", "127.0.0.1:77890", 9),
    ("no address at all", "127.0.0.1:7789", "somewhere:7789", 9),
    ("both hosts with one address", "127.0.0.2:7789", "127.0.0.1:7789", 15),
    ("disk without a path", "disk /tmp/a;", "disk;", 8),
    ("relative disk", "disk /tmp/a;", "disk a;", 8),
    ("disk twice", "disk /tmp/a;", "disk /tmp/a; disk /tmp/b;", 8),
    ("device that is none", "device /dev/drbd0;", "device drbd;", 7),
    ("meta-disk of nonsense", "meta-disk internal;", "meta-disk perhaps;", 10),
    ("no disk", "    disk /tmp/a;\n", "", 6),
    ("no address", "    address 127.0.0.1:7789;\n", "", 6),
    ("only one host", "  on bravo {", "}\nresource r1 {\n  on bravo {", 1),
    ("resource twice", "resource r0 {", "resource r0 { }\nresource r0 {", 2),
    ("resource without a name", "resource r0 {", "resource {", 1),
    ("name with a slash", "resource r0 {", "resource r/0 {", 1),
    ("include that is not there", "resource r0 {", "include \"/no/such/file\";\nresource r0 {", 1),
    ("file cut short", "    meta-disk internal;\n  }\n}\n", "", 15),
];

const GOOD: &str = "resource r0 {
  protocol C;
  net {
    ping-int 10;
  }
  on alpha {
    device /dev/drbd0;
    disk /tmp/a;
    address 127.0.0.1:7789;
    meta-disk internal;
  }
  on bravo {
    device /dev/drbd0;
    disk /tmp/b;
    address 127.0.0.2:7789;
    meta-disk internal;
  }
}
";

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn every_mistake_is_refused_and_shown() {
    let pair = Pair::synced(Setup::default());
    let pid = pair.alpha.pid();
    assert_eq!(with_config(&pair, GOOD, &["dump"]).code, Some(0), "the good file is refused");
    let mut wrong = Vec::new();
    for (what, good, bad, line) in MISTAKES {
        assert!(GOOD.contains(good), "{what}");
        // The last occurrence for what ends the file, the first otherwise.
        let text = if *what == "file cut short" {
            GOOD.strip_suffix(good).unwrap().to_owned()
        } else {
            GOOD.replacen(good, bad, 1)
        };
        let outcome = with_config(&pair, &text, &["up", RESOURCE]);
        let shown = outcome.stderr.contains(&format!("bad.res:{line}:"));
        if outcome.code != Some(10) || !shown {
            wrong.push(format!(
                "{what}: expected a refusal at line {line}: {:?}\n{}",
                outcome.code, outcome.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MISTAKES.len(), wrong.join("\n"));
    assert_eq!(pair.alpha.pid(), pid);
    assert!(pair.is_healed());
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn several_mistakes_are_shown_together() {
    let pair = Pair::new(Setup::default());
    let text = GOOD.replace("ping-int 10;", "ping-int ten;").replace("127.0.0.2:7789", "127.0.0.2");
    let outcome = with_config(&pair, &text, &["dump"]);
    assert!(outcome.stderr.contains("bad.res:4:") && outcome.stderr.contains("bad.res:15:"), "{outcome:?}");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_file_or_a_host_that_is_missing_is_named() {
    let pair = Pair::new(Setup::default());
    let outcome = adm(&pair.alpha, "/no/such/file.res", &["dump"]);
    assert!(outcome.code != Some(0) && outcome.stderr.contains("/no/such/file.res"), "{outcome:?}");
    let outcome = with_config(&pair, &GOOD.replace("on alpha", "on elsewhere"), &["up", RESOURCE]);
    outcome.refused(1, "'r0' not defined in your config (for this host).");
}

fn with_config(pair: &Pair, text: &str, arguments: &[&str]) -> Outcome {
    let path = pair.folder().join("bad.res");
    fs::write(&path, text).unwrap();
    adm(&pair.alpha, path.to_str().unwrap(), arguments)
}

fn adm(node: &Node, config: &str, arguments: &[&str]) -> Outcome {
    let mut command = node.command(&crate::node::binary("tandemadm"));
    command.args(["-c", config]).args(arguments);
    Outcome::of(command)
}
