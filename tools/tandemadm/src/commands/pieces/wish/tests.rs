#![allow(clippy::unwrap_used)]
//! What drbdadm passes, line by line.

use std::ffi::OsString;

use tandem_core::config::Votes;
use tandem_core::digest::DigestAlgorithm;

use super::*;
use crate::drbdsetup::Asked as Line;
use crate::fixture;

/// What `drbdadm -d up` prints for a resource with two volumes, drbdmeta's lines apart.
const UP: [&str; 9] = [
    "new-resource r0 0 --quorum=majority",
    "new-minor r0 700 0",
    "new-minor r0 701 1",
    "new-peer r0 1 --_name=bravo --after-sb-0pri=discard-zero-changes --shared-secret=s3\u{a0}c\"ret --cram-hmac-alg=sha256 \
     --verify-alg=crc32c --protocol=C",
    "new-path r0 1 ipv4:10.0.0.1:7789 ipv4:10.0.0.2:7789",
    "peer-device-options r0 1 0 --set-defaults --c-max-rate=200M --resync-rate=10M",
    "peer-device-options r0 1 1 --set-defaults --c-max-rate=200M --resync-rate=10M",
    "attach 700 /dev/sda /dev/sda internal --al-extents=1999 --on-io-error=pass_on",
    "attach 701 /dev/sdb /dev/sdc flexible --al-extents=1999 --on-io-error=pass_on --size=2048s",
];

/// All that is known, Diskless and StandAlone.
#[derive(Default)]
struct World(Vec<ResourceStatus>);

impl World {
    fn wish(&self, line: &str) -> Result<Wish, Failure> {
        let words = std::iter::once("drbdsetup").chain(line.split(' ')).map(OsString::from);
        match drbdsetup::as_tandemadm(words.collect()) {
            Ok(Line::Piece(piece)) => Wish::new(&piece, &self.0),
            other => panic!("{line}: {other:?}"),
        }
    }

    /// As the daemon does.
    fn does(&mut self, line: &str) -> Wish {
        let wish = self.wish(line).unwrap_or_else(|failure| panic!("{line}: {failure}"));
        if let Some(was) = &wish.was {
            self.0.retain(|status| status.spec != *was);
        }
        if let Some(spec) = wish.becomes.clone() {
            let mut status = fixture::connected();
            fixture::disconnect(&mut status, ConnectionState::StandAlone);
            (status.engine.disk, status.engine.role) = (DiskState::Diskless, Role::Secondary);
            self.0.push(ResourceStatus { spec, ..status });
        }
        wish
    }

    fn refuses(&self, line: &str, text: &str) {
        let failure = self.wish(line).expect_err(line).to_string();
        assert!(failure.contains(text), "{line}: {failure}");
    }

    fn only(&self) -> &ResourceSpec {
        assert_eq!(self.0.len(), 1);
        &self.0[0].spec
    }
}

fn up() -> World {
    let mut world = World::default();
    UP.iter().for_each(|line| drop(world.does(line)));
    world
}

#[test]
fn a_resource_is_whole_with_the_last_disk() {
    let mut world = World::default();
    for line in UP {
        assert!(world.0.iter().all(|status| !status.spec.is_whole()), "before {line}");
        assert_eq!(world.does(line).attaches, line.starts_with("attach 701"), "{line}");
    }
    let spec = world.only();
    assert!(spec.is_whole());
    assert_eq!((spec.name.as_str(), spec.node.id), ("r0", NodeId(0)));
    assert_eq!(spec.peers, [NodeSpec { id: NodeId(1), name: "bravo".into() }]);
    let [local, remote] = ["10.0.0.1:7789", "10.0.0.2:7789"].map(|address| address.parse().unwrap());
    assert_eq!(spec.paths, [PathSpec { peer: NodeId(1), local, remote }]);
    let volumes: Vec<_> =
        spec.volumes().map(|v| (v.number, v.minor, v.disk.to_str().unwrap(), v.size_bytes)).collect();
    assert_eq!(volumes, [(0, 700, "/dev/sda", None), (1, 701, "/dev/sdb", Some(1 << 20))]);
    assert_eq!(spec.more_volumes[0].meta_disk, Some("/dev/sdc".into()));
    assert_eq!(spec.volume.device, PathBuf::from("/dev/drbd700"));
    let o = &spec.options;
    assert_eq!((o.quorum.votes, o.verify_algorithm), (Votes::Majority, Some(DigestAlgorithm::Crc32c)));
    assert_eq!(o.authentication.as_ref().unwrap().secret.reveal(), "s3\u{a0}c\"ret");
    assert_eq!((o.al_extents, o.resync.max_bytes_per_s), (1999, 200 << 20));
    assert!(spec.handlers.commands.is_empty(), "nobody's handlers are called");
}

#[test]
fn what_is_there_already_is_no_failure_where_the_kernel_module_says_so() {
    let world = up();
    for line in ["new-resource r0 0", "new-minor r0 700 0"] {
        assert_eq!(world.wish(line).unwrap(), Wish::default(), "{line}");
    }
}

#[test]
fn refusals_have_the_kernel_modules_numbers() {
    let mut world = up();
    for (line, text) in [
        ("new-minor r1 9 0", "r1: Failure: (158) Unknown resource"),
        ("new-minor r0 700 2", "minor exists as different volume"),
        ("new-minor r0 9 1", "9: Failure: (161) Minor or volume exists already (delete it first)"),
        ("del-minor 9", "9: Failure: (127) Device minor not allocated"),
        ("del-resource r0", "r0: Failure: (159) Resource still in use (delete all minors first)"),
        ("new-peer r0 1 --_name=bravo", "Connection for peer node id 1 already exists"),
        ("new-peer r0 0", "r0: Failure: (171) Invalid peer-node-id"),
        ("del-peer r0 2", "unknown connection"),
        ("net-options r0 2", "unknown connection"),
        ("new-path r0 1 ipv4:10.0.0.1:7789 ipv4:10.0.0.2:7789", "r0: Failure: (174) Already exists"),
        ("del-path r0 1 ipv4:10.0.0.1:7789 ipv4:10.0.0.3:7789", "unknown path"),
        ("disk-options 700 --resync-after=9", "(132) The resync-after minor number is invalid"),
        ("net-options r0 1 --ping-int=0", "`ping-int` is out of range"),
        ("net-options r0 1 --pink-int=1", "did you mean '--ping-int'?"),
        ("attach 700 /dev/sda /dev/sdb 0", "not supported"),
        ("attach 700 /dev/sda /dev/sdb internal", "internal meta-data lies on /dev/sda"),
        ("new-minor r0 x 2", "x: not the number of a minor"),
        ("new-peer r0 32", "a number from 0 to 31"),
    ] {
        world.refuses(line, text);
    }
    world.0[0].engine.disk = DiskState::UpToDate;
    world.refuses("del-minor 700", "700: Failure: (160) Minor still configured (down it first)");
    world
        .refuses("attach 700 /dev/sdx /dev/sdx internal", "700: Failure: (124) Device is attached to a disk");
    // With the other volume's.
    assert_eq!(world.wish("attach 700 /dev/sda /dev/sda internal").unwrap(), Wish::default());
    World::default().refuses("new-resource r\"0 0", "cannot be the name of a resource");
}

#[test]
fn pieces_are_taken_away_in_any_order() {
    let mut world = up();
    world.does("del-path r0 1 ipv4:10.0.0.1:7789 ipv4:10.0.0.2:7789");
    assert!(world.only().paths.is_empty());
    world.does("del-peer r0 1");
    world.does("del-minor 700");
    assert_eq!(world.only().volume.minor, 701);
    world.does("del-minor 701");
    assert_eq!(world.only().volumes().count(), 0);
    world.does("del-resource r0");
    assert!(world.0.is_empty());
}

#[test]
fn nothing_is_attached_before_its_peer_is_known() {
    let mut world = World::default();
    world.does("new-resource r0 0");
    world.does("new-minor r0 700 0");
    let attach = "attach 700 /dev/sda /dev/sda internal";
    world.refuses(attach, "new-peer and new-path come before attach");
    world.does("new-peer r0 1");
    assert_eq!(world.only().peers[0].name, "node-1");
    world.refuses(attach, "new-peer and new-path come before attach");
    world.does("new-path r0 1 ipv6:[::1]:7789 ipv6:[::2]:7789");
    assert!(world.does(attach).attaches);
}
