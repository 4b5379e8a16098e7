//! `status -x` on a real pair: it says what is amiss, and what it names as the next command helps.

use serde_json::Value;

use crate::cable::Cut;
use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::split_brain::{blocks, diverged};
use crate::wait;

fn look(node: &Node) -> (i32, String) {
    let outcome = node.adm(&["status", "-x"]);
    (outcome.code.unwrap_or(-1), outcome.stdout)
}

fn wait_for(node: &Node, code: i32, trouble: &str) {
    wait::until("status -x says so", || {
        let (found, text) = look(node);
        found == code && text.contains(trouble)
    });
}

/// Runs a command as it was named, on the node where it was named for.
fn run(pair: &Pair, asked: &Node, step: &Value) {
    let node = match step["node"].as_str() {
        None => asked,
        Some(name) => pair.nodes().into_iter().find(|node| node.name == name).unwrap(),
    };
    // What is saved stays with the pair.
    let folder = format!("{}/", pair.folder().display());
    let command = step["command"].as_str().unwrap().replace("/root/", &folder);
    node.adm(&command.split(' ').skip(1).collect::<Vec<_>>()).ok();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_lost_peer_is_degraded_and_a_lost_daemon_needs_a_hand() {
    let pair = Pair::synced(Setup { own_networks: true, net: "ping-int 1; timeout 9;", ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    for node in pair.nodes() {
        assert_eq!(look(node), (0, "# All is well: r0.\n".to_owned()));
    }
    pair.cable().cut(Cut::Silent);
    wait_for(alpha, 1, "T103");
    let (_, text) = look(alpha);
    assert!(
        text.contains("#   next, on bravo: tandemadm up r0\n") && text.contains("# Degraded: r0."),
        "{text}"
    );
    // What scripts read has no remarks, unless they ask.
    assert!(!alpha.adm(&["status", RESOURCE]).ok().stdout.contains('#'));
    assert!(alpha.adm(&["status", "--why", RESOURCE]).ok().stdout.contains("# T103"));
    pair.cable().mend();
    wait_for(alpha, 0, "All is well");
    bravo.kill();
    wait_for(bravo, 2, "T001");
    bravo.adm(&["up", "all"]).ok();
    wait_for(bravo, 0, "All is well");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_split_brain_is_resolved_by_the_commands_that_are_named() {
    let pair = diverged("");
    let Pair { alpha, bravo, .. } = &pair;
    for node in pair.nodes() {
        node.adm(&["connect", RESOURCE]).ok();
    }
    for node in pair.nodes() {
        wait_for(node, 2, "T101");
    }
    let shown = alpha.adm(&["status", "-x", "--json"]);
    assert_eq!(shown.code, Some(2), "{shown:?}");
    let found: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&found[0]["code"], &found[0]["peer"]), (&"T101".into(), &"bravo".into()));
    let steps = found[0]["next"].as_array().unwrap();
    run(&pair, alpha, &steps[0]);
    let decided = steps.iter().skip_while(|step| step["when"] != "to keep bravo's data");
    decided.for_each(|step| run(&pair, alpha, step));
    pair.wait_healed();
    pair.assert_identical();
    assert_eq!(blocks(bravo), [0, 0xbb, 0xbc]);
    assert!(pair.folder().join("r0.given-up").exists());
    wait_for(alpha, 0, "All is well");
    let page = alpha.adm(&["explain", "T101"]).ok().stdout;
    assert!(page.starts_with("T101 split brain"), "{page}");
}
