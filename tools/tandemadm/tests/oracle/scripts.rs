//! What scripts ask for, and the elements of the XML: of every fixture the same as drbdadm's.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::fixtures::{Drbdadm, Fixture, Tandem, fixtures};

const NODE: &str = "alpha";
const VERBS: &[&[&str]] = &[
    &["sh-resources"],
    &["sh-resource", "all"],
    &["sh-dev", "all"],
    &["sh-minor", "all"],
    &["sh-ll-dev", "all"],
    &["sh-md-dev", "all"],
    &["sh-md-idx", "all"],
    &["sh-ip", "all"],
    &["sh-mod-parms"],
    &["sh-nop"],
];
/// drbdadm leaves these away: options of volumes, options of `global`.
const OURS_ALONE: &[&str] = &["host/volume/section", "global/option", "global/udev-always-use-vnr"];
/// drbdadm connects twice what is both in a mesh and in a connection.
const TWICE: &[&str] = &["mesh-and-connection", "mesh-twice"];
/// drbdadm spells addresses as they are written, does not close the element of a template, keeps the proxy's words in
/// `common`, and counts the devices of what is not run here.
const OTHERWISE: &[&str] =
    &["ipv6-spelled-out", "proxy-in-common", "template", "template-behind", "volumes-beyond"];

fn run(program: &str, fixture: &Fixture, arguments: &[&str]) -> (bool, String) {
    of_file(program, &fixture.path, arguments)
}

fn of_file(program: &str, file: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.arg("-c").arg(file).args(arguments);
    let output = command.env("__DRBD_NODE__", NODE).env("TANDEM_NODE", NODE).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn both(fixture: &Fixture, arguments: &[&str]) -> [(bool, String); 2] {
    ["drbdadm", env!("CARGO_BIN_EXE_tandemadm")].map(|program| run(program, fixture, arguments))
}

/// Those that both understand. Which floating host is local depends on the machine.
fn understood() -> impl Iterator<Item = Fixture> {
    let local = |f: &Fixture| !["floating", "floating-node-ids"].contains(&f.name.as_str());
    fixtures()
        .into_iter()
        .filter(|f| {
            f.drbdadm == Drbdadm::Accepts
                && f.tandem != Tandem::Refuses
                && f.compare
                && ![TWICE, OTHERWISE].concat().contains(&f.name.as_str())
        })
        .filter(local)
}

#[test]
#[ignore = "needs drbd-utils"]
fn scripts_get_the_answers_that_drbdadm_gives() {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for fixture in understood() {
        for arguments in VERBS {
            let [theirs, ours] = both(&fixture, arguments);
            compared += 1;
            if theirs != ours {
                wrong.push(format!("{} {arguments:?}: drbdadm {theirs:?}, tandemadm {ours:?}", fixture.name));
            }
        }
    }
    println!("{compared} answers compared");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The tree of files that `import` tries, and what the package itself installs.
#[test]
#[ignore = "needs drbd-utils"]
fn a_whole_tree_is_what_it_is_for_drbdadm() {
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/debian/drbd.conf");
    for file in [tree, "/etc/drbd.conf"] {
        for arguments in VERBS.iter().filter(|verb| file == tree || verb.len() == 1) {
            let [theirs, ours] = ["drbdadm", env!("CARGO_BIN_EXE_tandemadm")]
                .map(|program| of_file(program, file.as_ref(), arguments));
            assert_eq!(theirs, ours, "{file} {arguments:?}");
        }
    }
}

/// The paths of the elements of an XML document, with the names of their attributes. A connection's only path may stand
/// in an element of its own.
fn elements(xml: &str) -> BTreeSet<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut found = BTreeSet::new();
    for tag in xml.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        if tag.starts_with('/') {
            open.pop();
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        let names = attributes.split("=\"").filter_map(|part| part.rsplit(' ').next());
        let count = attributes.matches("=\"").count();
        let names: Vec<&str> = names.take(count).collect();
        open.push(name);
        if name != "path" {
            found.insert(format!("{}[{}]", open.join("/").replace("/path", ""), names.join(",")));
        }
        if tag.ends_with('/') {
            open.pop();
        }
    }
    found
}

#[test]
#[ignore = "needs drbd-utils"]
fn the_xml_has_the_elements_that_drbdadm_writes() {
    let mut wrong = Vec::new();
    for fixture in understood().filter(|fixture| fixture.name != "proxy") {
        let [theirs, ours] = both(&fixture, &["dump-xml"]).map(|(_, xml)| elements(&xml));
        let surplus =
            ours.difference(&theirs).filter(|path| !OURS_ALONE.iter().any(|own| path.contains(own)));
        let different: Vec<&String> = theirs.difference(&ours).chain(surplus).collect();
        if !different.is_empty() {
            wrong.push(format!("{}: {different:?}", fixture.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
