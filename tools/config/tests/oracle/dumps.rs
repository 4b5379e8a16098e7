//! The fixtures: both accept or both refuse, and both dumps describe the same resources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Drbdadm, Fixture, Tandem, fixtures};
use tandem_config::{Config, Resource};

const NODE: &str = "alpha";

/// What `drbdadm dump` says of a file: its dump, or its complaints.
fn drbdadm(program: &Path, file: &Path) -> Result<String, String> {
    let output = Command::new(program)
        .arg("-c")
        .arg(file)
        .arg("dump")
        .env("__DRBD_NODE__", NODE)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// The program of the version that the fixture is written for.
fn program(fixture: &Fixture) -> PathBuf {
    match fixture.drbdadm {
        Drbdadm::Accepts84 => "/usr/lib/drbd/drbdadm-84".into(),
        _ => "drbdadm".into(),
    }
}

/// Whether the two describe the same resources, option by option. drbdadm leaves some options of `global` out.
fn same(theirs: &Config, ours: &Config, fixture: &Fixture) -> bool {
    let surplus = theirs.global.settings.without(&ours.global.settings);
    theirs.common == ours.common
        && numbered(theirs, fixture) == numbered(ours, fixture)
        && (surplus.iter().next().is_none() || fixture.drbdadm == Drbdadm::Accepts84)
}

/// The resources. Where the file gives no node-ids, drbdadm derives them from a hash of the addresses, and they do not
/// count.
fn numbered(config: &Config, fixture: &Fixture) -> Vec<Resource> {
    let given = fs::read_to_string(&fixture.path).unwrap().contains("node-id");
    let mut resources = config.resources.clone();
    for host in resources.iter_mut().flat_map(|resource| &mut resource.hosts).filter(|_| !given) {
        host.node_id = 0;
    }
    resources
}

fn compare(fixture: &Fixture) -> Result<(), String> {
    let theirs = drbdadm(&program(fixture), &fixture.path);
    if theirs.is_ok() != (fixture.drbdadm != Drbdadm::Refuses) {
        return Err(format!("drbdadm: {theirs:?}"));
    }
    let (Ok(theirs), true) = (theirs, fixture.tandem != Tandem::Refuses && fixture.compare) else {
        return Ok(());
    };
    let config = fixture.config();
    let understood = |text: &str, what: &str| {
        let parsed = Config::parse(Path::new(what), text).map_err(|error| format!("{text}\n{error}"))?;
        match same(&parsed, &config, fixture) {
            true => Ok(()),
            false => Err(format!("{what} means something else:\n{text}\nours:\n{}", config.dump(NODE))),
        }
    };
    understood(&theirs, "drbdadm's dump")?;
    if fixture.drbdadm == Drbdadm::Accepts84 {
        return Ok(());
    }
    let ours = std::env::temp_dir().join(format!("tandem-oracle-{}-{}", std::process::id(), fixture.name));
    fs::write(&ours, config.dump(NODE)).unwrap();
    let back = drbdadm(Path::new("drbdadm"), &ours);
    fs::remove_file(&ours).unwrap();
    let back = back.map_err(|error| format!("drbdadm refuses our dump: {error}\n{}", config.dump(NODE)))?;
    understood(&back, "drbdadm's dump of our dump")
}

#[test]
#[ignore = "needs drbd-utils"]
fn drbdadm_and_tandem_understand_the_same() {
    let fixtures = fixtures();
    let wrong: Vec<String> = fixtures
        .iter()
        .filter_map(|fixture| compare(fixture).err().map(|error| format!("== {}\n{error}", fixture.name)))
        .collect();
    let count = |what: &dyn Fn(&Fixture) -> bool| fixtures.iter().filter(|fixture| what(fixture)).count();
    println!(
        "{} configurations: {} understood by both, {} refused by both, {} on purpose by Tandem alone, {} by drbdadm alone",
        fixtures.len(),
        count(&|f| f.drbdadm != Drbdadm::Refuses && f.tandem != Tandem::Refuses),
        count(&|f| f.drbdadm == Drbdadm::Refuses && f.tandem == Tandem::Refuses),
        count(&|f| f.drbdadm != Drbdadm::Refuses && f.tandem == Tandem::Refuses),
        count(&|f| f.drbdadm == Drbdadm::Refuses && f.tandem != Tandem::Refuses),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
