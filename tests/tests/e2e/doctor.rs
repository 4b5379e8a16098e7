//! `doctor` on a real pair: all is well with what lies between the nodes, or it says what is not.

use std::process::Command;

use serde_json::Value;

use crate::cable::Cut;
use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};

/// What was found of the resource, and what the program ended with.
fn examine(node: &Node) -> (Vec<Value>, i32) {
    let outcome = node.adm(&["doctor", "--json", RESOURCE]);
    let found: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap();
    (found, outcome.code.unwrap())
}

/// Of each finding of this check, how good it is and what was seen.
fn of<'a>(found: &'a [Value], check: &str) -> Vec<(&'a str, &'a str)> {
    let text = |finding: &'a Value, key: &str| finding[key].as_str().unwrap_or_default();
    let of_check =
        found.iter().filter(|finding| finding["check"] == check && finding["resource"] == RESOURCE);
    of_check.map(|finding| (text(finding, "level"), text(finding, "what"))).collect()
}

#[track_caller]
fn assert_says(found: &[Value], check: &str, level: &str, part: &str) {
    let said = of(found, check);
    assert!(said.iter().any(|(is, what)| *is == level && what.contains(part)), "{check}: {said:#?}");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_healthy_pair_is_well_and_what_is_wrong_is_named() {
    let pair = Pair::synced(Setup { own_networks: true, net: "ping-int 1; timeout 9;", ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    for (node, peer) in [(alpha, "bravo"), (bravo, "alpha")] {
        let (found, code) = examine(node);
        for check in ["port", "network", "mtu", "clock", "settings", "loss"] {
            let said = of(&found, check);
            assert!(!said.is_empty() && said.iter().all(|(level, _)| *level == "ok"), "{check}: {said:#?}");
        }
        assert_says(&found, "mtu", "ok", &format!("packets of 1500 bytes reach {peer} in one piece"));
        assert_says(&found, "clock", "ok", &format!("{peer}'s clock is "));
        // The machine may lack something; then the end says so.
        let worst = found.iter().map(|finding| match finding["level"].as_str() {
            Some("ok") => 0,
            Some("warn") => 1,
            _ => 2,
        });
        assert_eq!(Some(code), worst.max(), "{found:#?}");
    }
    assert!(!bravo.log().contains("closed a connection"), "{}", bravo.log());

    let set_mtu = |mtu: &'static str| {
        pair.cable().run_at(1, move || {
            let set = Command::new("ip").args(["link", "set", "dev", "eth0", "mtu", mtu]).status();
            assert!(set.unwrap().success());
        });
    };
    set_mtu("1300");
    let (found, code) = examine(alpha);
    assert_says(&found, "mtu", "bad", "packets of 1500 bytes to bravo vanish");
    assert_eq!(code, 2);
    set_mtu("1500");

    // A firewall is told from a machine that is off.
    pair.cable().cut(Cut::Port { port: alpha.address.port() });
    let (found, code) = examine(alpha);
    assert_says(&found, "network", "bad", "though the machine answers");
    assert_eq!(code, 2);
    pair.cable().mend();

    bravo.adm(&["down", RESOURCE]).ok();
    let (found, code) = examine(alpha);
    assert_says(&found, "network", "bad", "bravo is not reached at ");
    assert_eq!(code, 2);
}
