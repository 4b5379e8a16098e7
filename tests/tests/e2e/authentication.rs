//! Peers that must know the secret: `cram-hmac-alg` and `shared-secret`.

use std::fs;

use tandem_core::state::ConnectionState;

use crate::cable::Cut;
use crate::node::RESOURCE;
use crate::pair::{Pair, Setup};
use crate::wait;

const NET: &str = "cram-hmac-alg sha1; shared-secret \"Raspberry Jam\";";
const WRONG: &str = "cram-hmac-alg sha1; shared-secret \"Strawberry Jam\";";

/// It is not waited for until bravo has found out that the old connection is dead.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_peer_that_died_unnoticed_takes_its_place_again() {
    let net = "cram-hmac-alg sha1; shared-secret \"Raspberry Jam\"; ping-int 120;";
    let pair = Pair::synced(Setup { net, own_networks: true, ..Setup::default() });
    pair.cable().cut(Cut::Silent);
    pair.alpha.kill();
    pair.cable().mend();
    pair.alpha.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_node_with_another_secret_is_kept_out_until_both_are_equal() {
    let mut pair = Pair::synced(Setup { net: NET, ..Setup::default() });
    pair.alpha.client().unwrap().write(0, &[1; 4096], true).unwrap();
    // bravo comes back with another secret.
    let (right, other) = (pair.bravo.config.clone(), pair.folder().join("other.res"));
    fs::write(&other, fs::read_to_string(&right).unwrap().replace(NET, WRONG)).unwrap();
    pair.bravo.config.clone_from(&other);
    pair.bravo.adm(&["down", RESOURCE]).ok();
    pair.bravo.adm(&["up", RESOURCE]).ok();
    for node in pair.nodes() {
        wait::until("both stand alone", || node.connection() == Some(ConnectionState::StandAlone));
        let why = node.adm(&["status", "--why", RESOURCE]).ok().stdout;
        assert!(why.contains("Authentication of peer failed: shared-secret is not the same here"), "{why}");
        assert!(why.contains("# T106"), "{why}");
    }
    pair.alpha.client().unwrap().write(4096, &[2; 4096], true).unwrap();
    // What changes is not shown, and counts when they connect.
    fs::copy(&right, &other).unwrap();
    let planned = pair.bravo.adm(&["adjust", "--dry-run", RESOURCE]).ok().stdout;
    assert!(planned.contains("+net shared-secret (not shown)"), "{planned}");
    for node in pair.nodes() {
        node.adm(&["adjust", RESOURCE]).ok();
    }
    pair.wait_healed();
    // A secret may change while the nodes are connected; they meet with the new one.
    fs::write(&right, fs::read_to_string(&right).unwrap().replace(NET, WRONG)).unwrap();
    pair.bravo.config = right;
    for node in pair.nodes() {
        node.adm(&["adjust", RESOURCE]).ok();
        assert_eq!(node.connection(), Some(ConnectionState::Connected));
    }
    pair.bravo.adm(&["disconnect", RESOURCE]).ok();
    pair.bravo.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
    for node in pair.nodes() {
        let said = [
            node.log(),
            node.adm(&["status", "--verbose", "--statistics", RESOURCE]).ok().stdout,
            node.adm(&["status", "--json", RESOURCE]).ok().stdout,
            node.adm(&["show", "--show-defaults", RESOURCE]).ok().stdout,
            planned.clone(),
        ];
        assert!(!said.concat().contains("berry"), "{said:?}");
    }
}
