//! `status -x` on a real pair: it says what is amiss, and what it names as the next command helps.

use nix::sys::signal::{Signal, kill};
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

/// What `status -x` finds on this node, as programs read it.
fn findings(node: &Node) -> Vec<Value> {
    serde_json::from_str(&node.adm(&["status", "-x", "--json"]).stdout).unwrap()
}

fn codes(found: &[Value]) -> Vec<&str> {
    found.iter().map(|one| one["code"].as_str().unwrap()).collect()
}

/// What is said of a disk that `up` could not attach is what is the matter, and what is named brings it up.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_disk_that_cannot_be_attached_is_named_with_its_reason() {
    let pair = Pair::synced(Setup::default());
    let Pair { alpha, bravo, .. } = &pair;
    let aside = pair.folder().join("aside");
    let follow = |found: &Value, from: usize| {
        found["next"].as_array().unwrap()[from..].iter().for_each(|step| run(&pair, bravo, step));
        pair.wait_healed();
    };

    bravo.adm(&["down", RESOURCE]).ok();
    std::fs::rename(&bravo.disk, &aside).unwrap();
    bravo.adm(&["up", RESOURCE]).refused(10, "No such file or directory");
    let found = findings(bravo);
    assert_eq!(codes(&found), ["T205"], "{found:#?}");
    let why = found[0]["why"].as_str().unwrap();
    assert!(why.contains("Can not open backing device") && why.contains("No such file"), "{why}");
    std::fs::rename(&aside, &bravo.disk).unwrap();
    let steps = found[0]["next"].as_array().unwrap().len();
    follow(&found[0], steps - 1);

    bravo.adm(&["down", RESOURCE]).ok();
    bravo.adm(&["wipe-md", "--force", RESOURCE]).ok();
    bravo.adm(&["up", RESOURCE]).refused(10, "No valid meta-data signature found");
    let found = findings(bravo);
    assert_eq!(codes(&found), ["T205"], "{found:#?}");
    assert!(found[0]["why"].as_str().unwrap().contains("No valid meta-data"), "{found:#?}");
    let create = &found[0]["next"][1];
    assert_eq!(create["command"], format!("tandemadm create-md {RESOURCE}"), "{found:#?}");
    // It asks, for there is data on the disk.
    bravo.adm(&["create-md", "--force", RESOURCE]).ok();
    follow(&found[0], 2);

    bravo.adm(&["down", RESOURCE]).ok();
    std::fs::copy(&alpha.disk, &bravo.disk).unwrap();
    bravo.adm(&["up", RESOURCE]).refused(10, "the meta-data belongs to node 0");
    let found = findings(bravo);
    assert_eq!(codes(&found), ["T205"], "{found:#?}");
    assert!(found[0]["why"].as_str().unwrap().contains("belongs to node 0"), "{found:#?}");
    follow(&found[0], 1);
    assert_eq!(look(bravo), (0, "# All is well: r0.\n".to_owned()));
}

/// A daemon that was stopped is told from one that hangs, on both nodes.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_stopped_daemon_and_an_unusable_configuration_are_named() {
    let pair = Pair::synced(Setup { net: "ping-int 1; timeout 9;", ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    let pid = bravo.pid().unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_for(alpha, 1, "T103");
    let said = alpha.adm(&["doctor", RESOURCE]).stdout;
    assert!(said.contains("accepts connections at") && said.contains("says nothing"), "{said}");
    let found = findings(bravo);
    assert_eq!(codes(&found), ["T002"], "{found:#?}");
    assert!(found[0]["why"].as_str().unwrap().contains("was stopped"), "{found:#?}");
    assert_eq!(found[0]["next"][0]["command"], format!("kill -CONT {pid}"));
    kill(pid, Signal::SIGCONT).unwrap();
    pair.wait_healed();

    let config = std::fs::read_to_string(&bravo.config).unwrap();
    std::fs::write(&bravo.config, config.replace("protocol C;", "protocol C;\n  protocol A;")).unwrap();
    let found = findings(bravo);
    let place = format!("{}:4:3: error: duplicate option `protocol`", bravo.config.display());
    assert_eq!((codes(&found), found[0]["why"].as_str()), (vec!["T003"], Some(place.as_str())));
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
