//! Two networks between the nodes: replication goes over one, and over the other when that one fails.

use std::fs;

use serde_json::Value;
use tandem_core::state::ConnectionState;

use crate::cable::Cut;
use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

const PORTS: [u16; 2] = [7001, 7002];

/// Without its braces, so that a path more or less is a matter of replacing one by nothing.
fn path(pair: &Pair, number: usize) -> String {
    let ends = [("alpha", 0), ("bravo", 1)].map(|(name, end)| {
        let address = if number == 0 { pair.cable().address(end) } else { pair.cable().second_address(end) };
        format!("host {name} address {address}:{};", PORTS[number])
    });
    format!("path {{ {} }}", ends.concat())
}

/// What is written between the braces of the connection.
fn configure(pair: &Pair, paths: &[usize]) {
    let text = fs::read_to_string(&pair.alpha.config).unwrap();
    let (before, behind) = text.split_once("connection {").unwrap();
    let (_, behind) = behind.split_once("# end\n").unwrap();
    let inside: String = paths.iter().map(|number| path(pair, *number)).collect();
    fs::write(&pair.alpha.config, format!("{before}connection {{ {inside} }} # end\n{behind}")).unwrap();
}

/// Both nodes up with both paths, connected over the first one.
fn pair(net: &'static str) -> Pair {
    let pair = Pair::new(Setup {
        net,
        statements: "connection { } # end\n".into(),
        own_networks: true,
        ..Setup::default()
    });
    configure(&pair, &[0, 1]);
    pair.bring_up();
    pair
}

/// The paths that a node says it has, by their numbers, and whether they are established.
fn paths(node: &Node) -> Vec<(usize, bool)> {
    let said = node.adm(&["status", "--json", RESOURCE]).ok().stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    let paths = said[0]["connections"][0]["paths"].as_array().unwrap();
    let number = |path: &Value| PORTS.iter().position(|port| path["this_host"]["port"] == *port).unwrap();
    paths.iter().map(|path| (number(path), path["established"].as_bool().unwrap())).collect()
}

/// The one that is used.
fn used(node: &Node) -> Option<usize> {
    let resource = node.resource()?;
    let [path] = resource.used_paths.as_slice() else { return None };
    let is_connected = resource.engine.peers[0].connection == ConnectionState::Connected;
    PORTS.iter().position(|port| path.local.port() == *port).filter(|_| is_connected)
}

/// How often the accepting node was connected to.
fn meetings(pair: &Pair) -> usize {
    pair.bravo.log().matches("accepted").count()
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn paths_are_cut_by_turns_and_writes_go_on() {
    let pair = pair("timeout 9; ping-int 1; ping-timeout 10;");
    let Pair { alpha, bravo, .. } = &pair;
    let mut client = alpha.client().unwrap();
    for round in 0..3u8 {
        let mut cut = 0;
        wait::until("both show the path that is used, and the other one", || {
            let Some(now) = used(alpha) else { return false };
            cut = now;
            pair.nodes().iter().all(|node| paths(node) == [(0, cut == 0), (1, cut == 1)])
        });
        pair.cable().cut(Cut::Port { port: PORTS[cut] });
        client.write(u64::from(round) * 8192, &[round + 1; 8192], true).unwrap();
        wait::until("they meet over the other path", || {
            pair.nodes().iter().all(|node| used(node).is_some_and(|used| used != cut))
        });
        client.write(1 << 20, &[round + 1; 4096], true).unwrap();
        pair.wait_healed();
    }
    let (one, other) = (pair.cable().address(1), pair.cable().second_address(1));
    let shown = bravo.adm(&["show", RESOURCE]).ok().stdout;
    for end in [format!("{one}:7001"), format!("{other}:7002")] {
        assert!(shown.contains(&format!("_this_host ipv4 {end};")), "{shown}");
    }
    let told = bravo.adm(&["events2", "--now", RESOURCE]).ok().stdout;
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("exists path ")).collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert_eq!(lines.iter().filter(|line| line.ends_with("established:yes")).count(), 1, "{told}");
    pair.cable().mend();
    pair.assert_identical();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn paths_come_and_go_beside_the_one_that_is_used() {
    let pair = pair("ping-timeout 200;");
    let Pair { alpha, bravo, .. } = &pair;
    let met = meetings(&pair);
    let first = used(alpha).unwrap();
    let second = 1 - first;
    let end = |node: usize| match second {
        0 => pair.cable().address(node),
        _ => pair.cable().second_address(node),
    };
    let ends = [0, 1].map(|node| format!("{}:{}", end(node), PORTS[second]));
    let one = ["r0:bravo", "--local", ends[0].as_str(), "--remote", ends[1].as_str()];
    alpha.adm(&[&["del-path"], one.as_slice()].concat()).ok();
    assert_eq!(paths(alpha), [(first, true)]);
    alpha.adm(&[&["del-path"], one.as_slice()].concat()).refused(10, "unknown path");
    alpha.adm(&["del-path", "r0:bravo"]).refused(10, "Can not delete last path, use disconnect first!");
    alpha.adm(&[&["new-path"], one.as_slice()].concat()).ok();
    alpha.adm(&["new-path", "r0:bravo"]).refused(10, "r0: Failure: (174) Already exists");
    configure(&pair, &[first]);
    for node in pair.nodes() {
        node.adm(&["adjust", RESOURCE]).ok();
        assert_eq!(paths(node), [(first, true)]);
    }
    configure(&pair, &[0, 1]);
    for node in pair.nodes() {
        node.adm(&["adjust", RESOURCE]).ok();
        assert_eq!(node.adm(&["adjust", "--dry-run", RESOURCE]).ok().stdout, "");
    }
    assert_eq!((meetings(&pair), used(bravo)), (met, Some(first)));
    // The one that is used goes with the connection.
    configure(&pair, &[second]);
    for node in pair.nodes() {
        node.adm(&["adjust", RESOURCE]).ok();
    }
    wait::until("they meet over the other path", || pair.nodes().iter().all(|n| used(n) == Some(second)));
    pair.wait_healed();
}
