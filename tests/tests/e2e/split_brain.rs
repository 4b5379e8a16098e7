//! A split brain between real daemons: both say what is at stake, and the administrator decides.

use tandem_core::state::{ConnectionState, Role};

use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

/// Both were Primary without the other, and have written: alpha one block, bravo two. Both are Secondary now.
pub(crate) fn diverged(net: &'static str) -> Pair {
    let pair = Pair::synced(Setup { net, ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    alpha.adm(&["disconnect", RESOURCE]).ok();
    bravo.adm(&["disconnect", RESOURCE]).ok();
    bravo.adm(&["primary", RESOURCE]).ok();
    write(alpha, 0, 0xaa);
    write(bravo, 4096, 0xbb);
    write(bravo, 8192, 0xbc);
    for node in pair.nodes() {
        wait::until("it steps down", || node.adm(&["secondary", RESOURCE]).code == Some(0));
    }
    pair
}

fn write(node: &Node, offset: u64, byte: u8) {
    let mut client = node.client().unwrap();
    client.write(offset, &[byte; 4096], true).unwrap();
}

fn reason(node: &Node) -> String {
    node.peer().and_then(|peer| peer.standalone_reason).unwrap_or_default()
}

pub(crate) fn blocks(node: &Node) -> [u8; 3] {
    let bytes = node.disk_bytes(12288);
    [bytes[0], bytes[4096], bytes[8192]]
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_administrator_asks_and_then_discards_one_sides_data() {
    let pair = diverged("");
    let Pair { alpha, bravo, .. } = &pair;
    for node in pair.nodes() {
        node.adm(&["connect", RESOURCE]).ok();
    }
    wait::until("both stand alone", || {
        pair.nodes().iter().all(|node| {
            node.connection() == Some(ConnectionState::StandAlone) && reason(node).contains("Split-Brain")
        })
    });
    assert!(reason(alpha).contains("at most 4 KiB here (Secondary), 8 KiB on bravo"), "{}", reason(alpha));
    assert!(bravo.adm(&["status", "--why", RESOURCE]).ok().stdout.contains("# T101 split brain (alpha)"));
    let shown = alpha.adm(&["split-brain", "show", RESOURCE]).ok().stdout;
    for part in
        ["was Primary when they parted", "4 KiB (4096 bytes), in 1 range", "8 KiB (8192 bytes), in 1 range"]
    {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let json = bravo.adm(&["split-brain", "show", "--json", RESOURCE]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let peer = &json[0]["peers"][0];
    assert_eq!(peer["there"]["ranges"], serde_json::json!([{ "offset": 0, "length": 4096 }]));
    assert_eq!(peer["here"]["ranges"], serde_json::json!([{ "offset": 4096, "length": 8192 }]));
    bravo.adm(&["connect", RESOURCE]).ok();
    let asked = alpha.adm(&["connect", "--tentative", "--discard-my-data", RESOURCE]).ok().stdout;
    let expected = "r0: bravo: dry-run connect: Would become SyncTarget, doing a bitmap based resync of at most 12 KiB.\n";
    assert_eq!(asked, expected);
    assert_eq!([blocks(alpha), blocks(bravo)], [[0xaa, 0, 0], [0, 0xbb, 0xbc]]);
    alpha.adm(&["connect", "--discard-my-data", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
    assert_eq!(blocks(alpha), [0, 0xbb, 0xbc]);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_policy_decides() {
    let pair = diverged("after-sb-0pri discard-node-bravo;");
    for node in pair.nodes() {
        node.adm(&["connect", RESOURCE]).ok();
    }
    pair.wait_healed();
    pair.assert_identical();
    assert_eq!(blocks(&pair.bravo), [0xaa, 0, 0]);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn violence_cuts_a_client_off_before_its_data_is_overwritten() {
    let pair = diverged("after-sb-0pri discard-node-alpha; after-sb-1pri violently-as0p;");
    let Pair { alpha, bravo, .. } = &pair;
    alpha.adm(&["primary", RESOURCE]).ok();
    let mut client = alpha.client().unwrap();
    assert_eq!(client.read(0, 4096).unwrap(), [0xaa; 4096]);
    for node in [bravo, alpha] {
        node.adm(&["connect", RESOURCE]).ok();
    }
    pair.wait_healed();
    assert!(client.read(0, 4096).is_err());
    pair.assert_identical();
    assert_eq!((alpha.role(), blocks(alpha)), (Role::Secondary, [0, 0xbb, 0xbc]));
    alpha.adm(&["primary", RESOURCE]).ok();
    assert_eq!(alpha.client().unwrap().read(0, 4096).unwrap(), [0; 4096]);
}
