//! A tree of files as DRBD's users on Debian have it, `drbd.conf` and `drbd.d`, works as it stands.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::Ran;
use tandem_config::Config;
use tandem_control::{Request, ResourceSpec};
use tandem_core::authentication::HmacAlgorithm;
use tandem_core::config::{Fencing, OnCongestion, Protocol, WriteOrdering};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::handler::Handler;

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debian")
}

/// In the tree's own folder, which the included files must not depend on.
fn adm(arguments: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandemadm"));
    command.args(["-c", "drbd.conf"]).args(arguments.split(' ')).current_dir(tree());
    Ran::from(command.env("TANDEM_NODE", "alpha").env("TANDEM_RUN_DIR", "/nonexistent").output().unwrap())
}

fn specs() -> Vec<ResourceSpec> {
    let printed = adm("--dry-run up all").expect(0, &[]).stdout.clone();
    let spec = |line: &str| match serde_json::from_str(line.strip_prefix("tandemd <- ").unwrap()).unwrap() {
        Request::Up { spec } => spec,
        other => panic!("{other:?}"),
    };
    printed.lines().map(spec).collect()
}

#[test]
fn its_resources_are_found_and_nothing_else() {
    assert_eq!(adm("sh-nop").expect(0, &[]).stdout, "");
    assert_eq!(adm("sh-resources").stdout, "database\nmail\nwww\n");
    assert_eq!(adm("sh-dev all").stdout, "/dev/drbd10\n/dev/drbd11\n/dev/drbd5\n/dev/drbd0\n");
    adm("role decommissioned").expect(1, &["'decommissioned' not defined"]);
    adm("role witness").expect(1, &["'witness' not defined"]);
}

#[test]
fn what_is_common_holds_unless_a_resource_says_otherwise() {
    let [database, mail, www] = <[ResourceSpec; 3]>::try_from(specs()).unwrap();
    let protocols = [&database, &mail, &www].map(|spec| spec.options.protocol);
    assert_eq!(protocols, [Protocol::C, Protocol::A, Protocol::B]);
    assert_eq!([&database, &mail, &www].map(|spec| spec.options.al_extents), [1237, 1237, 257]);
    assert_eq!([&database, &mail, &www].map(|spec| spec.options.ping_timeout_ms), [1000, 500, 500]);
    for spec in [&database, &mail, &www] {
        assert_eq!(spec.options.fencing, Fencing::ResourceOnly);
        assert_eq!(spec.options.verify_algorithm, Some(DigestAlgorithm::Crc32c));
        let authentication = spec.options.authentication.as_ref().unwrap();
        assert_eq!(
            (authentication.algorithm, authentication.secret.reveal()),
            (HmacAlgorithm::Sha1, "(not shown)")
        );
        assert_eq!(spec.handlers.commands.len(), 6);
        assert_eq!(spec.handlers.commands[&Handler::FencePeer], "/usr/lib/drbd/crm-fence-peer.9.sh");
    }
    assert_eq!((database.volume.minor, database.more_volumes[0].minor), (10, 11));
    assert_eq!(database.more_volumes[0].size_bytes, Some(8 << 30));
    assert_eq!(mail.options.congestion.policy, OnCongestion::PullAhead);
    assert_eq!(mail.options.write_ordering, WriteOrdering::Drain);
    assert_eq!(mail.resync_after.as_deref(), Some("database"));
    assert_eq!(www.options.resync.fixed_bytes_per_s, 30 << 20);
    assert_eq!(www.volume.meta_disk.as_deref(), Some(Path::new("/dev/vg0/www-md")));
    let limits = "wait for database, for ever: wfc-timeout is 0\nwait for mail, 120 s: wfc-timeout\n\
                  wait for www, 120 s: wfc-timeout\n";
    assert_eq!(adm("-d wait-con-int").expect(0, &[]).stdout, limits);
}

#[test]
fn what_has_no_effect_is_named_with_its_place() {
    let ran = adm("--dry-run up all");
    for (option, place) in [("cpu-mask", "global_common.conf:"), ("tcp-cork", "mail.res:5:")] {
        ran.expect(0, &[&format!("warning: `{option}` has no effect in this version"), place]);
    }
}

#[test]
fn its_dump_means_the_same() {
    let dumped = adm("dump").expect(0, &[r#""Raspberry Jam; or \"Marmalade\"";"#]).stdout.clone();
    let again = Config::parse("dumped".as_ref(), &dumped).unwrap_or_else(|error| panic!("{error}"));
    assert!(again == Config::load(Some(&tree().join("drbd.conf"))).unwrap(), "{dumped}");
}
