//! The configuration is edited while the pair is up: `adjust` changes what differs and nothing else; single options change by
//! their own commands.

use std::fs;

use tandem_core::config::Protocol;
use tandem_core::state::ConnectionState;
use tandem_core::status::Status;

use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup, free_port};
use crate::wait;

const NET: &str = "timeout 60; ping-int 10;";

fn pair() -> Pair {
    Pair::synced(Setup { net: NET, ..Setup::default() })
}

fn edit(pair: &Pair, old: &str, new: &str) {
    let text = fs::read_to_string(&pair.alpha.config).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(&pair.alpha.config, text.replace(old, new)).unwrap();
}

/// What `adjust` would do.
fn plan(node: &Node) -> String {
    node.adm(&["adjust", "--dry-run", RESOURCE]).ok().stdout
}

/// Nothing is left to do, and doing it does nothing.
fn assert_adjusted(node: &Node) {
    assert_eq!(plan(node), "");
    let said = node.adm(&["adjust", RESOURCE]).ok();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
}

fn status(node: &Node) -> Status {
    node.status().unwrap()
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn options_change_under_a_client_that_writes() {
    let pair = pair();
    let Pair { alpha, bravo, .. } = &pair;
    assert_adjusted(alpha);
    let mut client = alpha.client().unwrap();
    client.write(0, &[1; 4096], false).unwrap();
    edit(&pair, NET, "timeout 50; ping-int 7; max-epoch-size 5; verify-alg sha1;");
    let planned = plan(alpha);
    assert!(planned.contains("-net ping-int 10\n+net ping-int 7\n"), "{planned}");
    assert!(planned.contains("tandemadm net-options r0 --timeout=50 "), "{planned}");
    assert!(planned.contains(" --ping-int=7 "), "{planned}");
    assert!(!planned.contains("disconnect") && !planned.contains("detach"), "{planned}");
    alpha.adm(&["adjust", RESOURCE]).ok();
    assert_adjusted(alpha);
    client.write(4096, &[2; 4096], false).unwrap();
    // Single ones, until the next adjust. What is wrong is refused as in the file, and changes nothing.
    alpha.adm(&["peer-device-options", RESOURCE, "--c-max-rate=1M"]).ok();
    alpha.adm(&["disk-options", RESOURCE, "--on-io-error=pass_on", "--disk-flushes=no"]).ok();
    assert_eq!(status(alpha).write_ordering, 'd');
    alpha.adm(&["resource-options", RESOURCE, "--on-no-quorum=io-error"]).ok();
    alpha.adm(&["net-options", RESOURCE, "--ping-int=0"]).refused(10, "a number from 1 to 120");
    alpha.adm(&["net-options", RESOURCE, "--pingint=5"]).refused(1, "did you mean '--ping-int'?");
    alpha.adm(&["net-options", RESOURCE, "--on-congestion=pull-ahead"]).refused(10, "pull-ahead");
    alpha.adm(&["disk-options", RESOURCE, "--size=1M"]).refused(10, "'tandemadm down r0'");
    let why = "changes with the next attach only: al-extents; 'detach' first, or use 'adjust'";
    alpha.adm(&["disk-options", RESOURCE, "--al-extents=67"]).refused(10, why);
    let text = "r0: Failure: (151) Need to be StandAlone";
    alpha.adm(&["net-options", RESOURCE, "--protocol=A"]).refused(10, text);
    alpha.adm(&["net-options", "nosuch", "--ping-int=5"]).refused(1, "not defined");
    let planned = plan(alpha);
    for line in ["-disk on-io-error pass_on\n+disk on-io-error detach\n", "+disk c-max-rate 0\n"] {
        assert!(planned.contains(line), "{planned}");
    }
    alpha.adm(&["peer-device-options", RESOURCE, "--set-defaults"]).ok();
    // Without an option, what the configuration says.
    alpha.adm(&["disk-options", RESOURCE]).ok();
    alpha.adm(&["resource-options", RESOURCE]).ok();
    assert_adjusted(alpha);
    client.write(8192, &[3; 4096], true).unwrap();
    assert!(pair.is_healed(), "the connection was never touched");
    bravo.adm(&["net-options", RESOURCE]).ok();
    assert_adjusted(bravo);
    pair.assert_identical();
}

/// What both must have alike is changed on one node after the other; the client of the Primary never notices.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_protocol_and_the_addresses_change() {
    let pair = pair();
    let Pair { alpha, bravo, .. } = &pair;
    let mut client = alpha.client().unwrap();
    client.write(0, &[1; 4096], false).unwrap();
    edit(&pair, "protocol C;", "protocol A;");
    let first = alpha.adm(&["adjust", RESOURCE]).ok();
    assert!(first.stderr.contains("run 'tandemadm adjust r0' on bravo"), "{first:?}");
    client.write(4096, &[2; 4096], false).unwrap();
    bravo.adm(&["adjust", RESOURCE]).ok();
    alpha.adm(&["adjust", RESOURCE]).ok();
    pair.wait_healed();
    assert_eq!(status(alpha).protocol, Protocol::A);
    let (old, new) = (alpha.address.port(), free_port());
    edit(&pair, &format!(":{old};"), &format!(":{new};"));
    for node in pair.nodes() {
        node.adm(&["adjust", RESOURCE]).ok();
    }
    pair.wait_healed();
    for node in pair.nodes() {
        assert_adjusted(node);
    }
    std::net::TcpListener::bind(alpha.address).expect("the old address is free");
    std::net::TcpListener::bind((alpha.address.ip(), new)).expect_err("somebody listens at the new one");
    client.write(8192, &[3; 4096], true).unwrap();
    pair.wait_healed();
    pair.assert_identical();
}

/// A Secondary opens its disk anew for what needs that; a Primary is not touched, and says what it takes.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn what_was_taken_away_comes_back_and_what_cannot_change_is_named() {
    let pair = pair();
    let Pair { alpha, bravo, .. } = &pair;
    edit(&pair, "meta-disk internal;", "meta-disk internal; disk { al-extents 67; }");
    edit(&pair, "/dev/drbd0 minor 0", "/dev/drbd1 minor 1");
    let left = "r0: volume 0 device: changes when the resource is brought up only: 'tandemadm down r0'";
    assert!(plan(bravo).contains("tandemadm detach r0\ntandemadm disk-options r0 --al-extents=67\n"));
    bravo.adm(&["adjust", RESOURCE]).refused(10, left);
    pair.wait_healed();
    alpha.adm(&["adjust", RESOURCE]).refused(10, "disk al-extents: changes with the next attach only");
    assert!(pair.is_healed());
    edit(&pair, "/dev/drbd1 minor 1", "/dev/drbd0 minor 0");
    assert_adjusted(bravo);
    bravo.adm(&["disconnect", RESOURCE]).ok();
    bravo.adm(&["detach", RESOURCE]).ok();
    assert_eq!(plan(bravo), "tandemadm attach r0\ntandemadm connect r0\n");
    wait::until("alpha has noticed", || alpha.connection() != Some(ConnectionState::Connected));
    bravo.adm(&["adjust", RESOURCE]).ok();
    pair.wait_healed();
    bravo.adm(&["down", RESOURCE]).ok();
    assert_eq!(plan(bravo), "tandemadm up r0\n");
    bravo.adm(&["adjust", "all"]).ok();
    pair.wait_healed();
    assert_adjusted(bravo);
    edit(&pair, "protocol C;", "protocol X;");
    bravo.adm(&["adjust", RESOURCE]).refused(10, "`A`");
}

/// What a peer lacks is remembered while the resource does not know it, and nobody's requests notice.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_peer_and_its_path_are_taken_away_and_come_back() {
    let pair = pair();
    let Pair { alpha, bravo, .. } = &pair;
    let mut client = alpha.client().unwrap();
    let last = "Can not delete last path, use disconnect first!";
    alpha.adm(&["del-path", "r0:bravo"]).refused(10, last);
    alpha.adm(&["new-peer", "r0:bravo"]).refused(10, "Connection for peer node id 1 already exists");
    alpha.adm(&["new-path", "r0:bravo"]).refused(10, "r0: Failure: (174) Already exists");
    alpha.adm(&["del-peer", "r0:charlie"]).refused(1, "'charlie' is no peer of r0");
    assert!(pair.is_healed());
    alpha.adm(&["del-peer", "r0:bravo"]).ok();
    assert_eq!(status(alpha).peers, []);
    let shown = alpha.adm(&["show", RESOURCE]).ok().stdout;
    assert!(shown.contains("minor 0;") && !shown.contains("connection"), "{shown}");
    alpha.adm(&["connect", RESOURCE]).refused(11, "(-13) Have no net/connection configuration");
    alpha.adm(&["del-path", "r0:bravo"]).refused(10, "unknown connection");
    client.write(4096, &[2; 8192], true).unwrap();
    alpha.adm(&["new-peer", "r0:bravo"]).ok();
    alpha.adm(&["connect", RESOURCE]).refused(10, "connection endpoint(s) missing");
    alpha.adm(&["new-path", "r0:1"]).ok();
    alpha.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    assert_adjusted(alpha);
    // The same by adjust, and from the other side.
    for node in [bravo, alpha] {
        node.adm(&["del-peer", RESOURCE]).ok();
        client.write(1 << 20, &[3; 4096], true).unwrap();
        assert!(plan(node).contains("# tandemd is told: peer"), "{}", plan(node));
        node.adm(&["adjust", RESOURCE]).ok();
        pair.wait_healed();
        assert_adjusted(node);
    }
    pair.assert_identical();
    let json = alpha.adm(&["show", "--json", "--show-defaults"]).ok().stdout;
    assert!(json.contains("\"ping-int\": 10") && json.contains("\"_cstate\": \"Connected\""), "{json}");
}
