//! The plan's text, and that nothing is left once it is carried out.

use insta::assert_snapshot;
use tandem_control::ResourceStatus;
use tandem_core::authentication::{Authentication, HmacAlgorithm, Secret};
use tandem_core::config::{OnNoQuorum, Protocol};
use tandem_core::handler::Handler;
use tandem_core::units::NodeId;

use super::*;
use crate::fixture;

/// What a resource that was as the fixture has it, and is like this now, shall become.
fn plan(status: &ResourceStatus, change: impl FnOnce(&mut ResourceSpec)) -> Plan {
    let mut wanted = fixture::spec();
    change(&mut wanted);
    Plan::new(status, &wanted)
}

fn secondary() -> ResourceStatus {
    let mut status = fixture::connected();
    status.engine.role = Role::Secondary;
    status
}

fn change_of_every_kind(spec: &mut ResourceSpec) {
    spec.options.ping_interval_ms = 5000;
    spec.options.quorum.on_loss = OnNoQuorum::IoError;
    spec.options.protocol = Protocol::A;
    spec.options.al_extents = 67;
    spec.options.resync.max_bytes_per_s = 1 << 20;
    spec.connect_interval_ms = 20_000;
    spec.handlers.commands.insert(Handler::SplitBrain, "/bin/tell root".into());
    spec.resync_after = Some("r1".into());
    spec.paths[0].remote.set_port(7790);
    spec.volume.disk = "/dev/sdb1".into();
    spec.volume.size_bytes = Some(1 << 20);
}

#[test]
fn what_is_as_it_shall_be_needs_nothing() {
    let plan = plan(&fixture::connected(), |_| ());
    assert_eq!((plan.to_string(), plan.steps, plan.becomes), (String::new(), vec![], fixture::spec()));
}

#[test]
fn a_secondary_leaves_its_disk_and_its_peer_for_what_needs_that() {
    let plan = plan(&secondary(), change_of_every_kind);
    assert_snapshot!(plan.to_string(), @r"
    --- r0 as it is
    +++ r0 as it is configured
    -net protocol C
    +net protocol A
    -net ping-int 10
    +net ping-int 5
    -disk al-extents 1237
    +disk al-extents 67
    -disk c-max-rate 0
    +disk c-max-rate 1024
    -options on-no-quorum suspend-io
    +options on-no-quorum io-error
    -net connect-int 10
    +net connect-int 20
    -path 127.0.0.1:7788 127.0.0.1:7789 to bravo
    -volume 0 disk /dev/null
    +volume 0 disk /dev/sdb1
    +path 127.0.0.1:7788 127.0.0.1:7790 to bravo
    +handler split-brain /bin/tell root
    +disk resync-after r1
    +volume 0 size 2048s
    tandemadm detach r0
    tandemadm disconnect r0
    tandemadm resource-options r0 --on-no-quorum=io-error
    tandemadm net-options r0 --protocol=A --connect-int=20 --ping-int=5
    tandemadm disk-options r0 --al-extents=67
    tandemadm peer-device-options r0 --c-max-rate=1024
    # tandemd is told: path 127.0.0.1:7788 127.0.0.1:7789, volume 0 disk, path 127.0.0.1:7788 127.0.0.1:7790, handler split-brain, disk resync-after
    tandemadm attach r0
    tandemadm connect r0
    # r0: volume 0 size: changes when the resource is brought up only: 'tandemadm down r0', then 'tandemadm up r0'
    ");
    assert_snapshot!(plan.note().unwrap(), @"r0: protocol must be the same on both nodes: run 'tandemadm adjust r0' on bravo, then here again");
}

#[test]
fn a_primary_keeps_its_disk() {
    let plan = plan(&fixture::connected(), change_of_every_kind);
    assert_snapshot!(plan.to_string(), @r"
    --- r0 as it is
    +++ r0 as it is configured
    -net protocol C
    +net protocol A
    -net ping-int 10
    +net ping-int 5
    -disk al-extents 1237
    +disk al-extents 67
    -disk c-max-rate 0
    +disk c-max-rate 1024
    -options on-no-quorum suspend-io
    +options on-no-quorum io-error
    -net connect-int 10
    +net connect-int 20
    -path 127.0.0.1:7788 127.0.0.1:7789 to bravo
    -volume 0 disk /dev/null
    +volume 0 disk /dev/sdb1
    +path 127.0.0.1:7788 127.0.0.1:7790 to bravo
    +handler split-brain /bin/tell root
    +disk resync-after r1
    +volume 0 size 2048s
    tandemadm disconnect r0
    tandemadm resource-options r0 --on-no-quorum=io-error
    tandemadm net-options r0 --protocol=A --connect-int=20 --ping-int=5
    tandemadm peer-device-options r0 --c-max-rate=1024
    # tandemd is told: path 127.0.0.1:7788 127.0.0.1:7789, path 127.0.0.1:7788 127.0.0.1:7790, handler split-brain, disk resync-after
    tandemadm connect r0
    # r0: volume 0 size: changes when the resource is brought up only: 'tandemadm down r0', then 'tandemadm up r0'
    # r0: disk al-extents, volume 0 disk: changes with the next attach only, and this node is Primary: 'tandemadm secondary r0', or 'tandemadm detach r0' while the peer is UpToDate, then 'tandemadm adjust r0'
    ");
}

#[test]
fn options_that_count_at_once_disturb_nobody() {
    let plan = plan(&fixture::connected(), |spec| {
        spec.options.ko_count = 3;
        spec.options.on_io_error = tandem_core::config::OnIoError::PassOn;
    });
    assert_snapshot!(plan.to_string(), @r"
    --- r0 as it is
    +++ r0 as it is configured
    -net ko-count 7
    +net ko-count 3
    -disk on-io-error detach
    +disk on-io-error pass_on
    tandemadm net-options r0 --ko-count=3
    tandemadm disk-options r0 --on-io-error=pass_on
    ");
    assert_eq!((plan.steps.as_slice(), plan.note()), (&[Step::Change][..], None));
}

/// A path comes and goes beside the one that is used; that one goes with the connection.
#[test]
fn a_connection_stays_while_its_path_does() {
    let mut status = fixture::connected();
    let first = status.spec.paths[0];
    let second = PathSpec { local: "10.0.0.1:7788".parse().unwrap(), ..first };
    let added = plan(&status, |spec| spec.paths.push(second));
    assert_snapshot!(added.to_string(), @r"
    --- r0 as it is
    +++ r0 as it is configured
    +path 10.0.0.1:7788 127.0.0.1:7789 to bravo
    # tandemd is told: path 10.0.0.1:7788 127.0.0.1:7789
    ");
    assert_eq!(
        (added.steps.as_slice(), added.becomes.paths.as_slice()),
        (&[Step::Change][..], &[first, second][..])
    );
    status.spec = added.becomes;
    let used = plan(&status, |spec| spec.paths = vec![second]);
    assert_eq!(used.steps, [Step::Disconnect, Step::Change, Step::Connect]);
    assert_eq!(used.becomes.paths, [second]);
    status.used_paths = vec![second];
    let unused = plan(&status, |spec| spec.paths = vec![second]);
    assert_eq!((unused.steps, unused.becomes.paths), (vec![Step::Change], vec![second]));
}

/// Whoever is left in the middle of a resync is of no use, and a Primary may have to wait for it.
#[test]
fn a_resync_is_not_interrupted() {
    let mut status = fixture::connected();
    status.engine.peers[0].replication = ReplicationState::SyncSource;
    let plan = plan(&status, |spec| {
        spec.options.protocol = Protocol::A;
        spec.options.ko_count = 3;
        spec.paths[0].local.set_port(7790);
    });
    assert_eq!(plan.steps, [Step::Change]);
    assert_eq!(plan.becomes.paths.len(), 2);
    let left = plan.left_to_do().join("; ");
    assert!(left.contains("net protocol") && left.contains("'tandemadm wait-sync r0'"), "{left}");
    assert!(!left.contains("ko-count"), "{left}");
}

#[test]
fn what_was_taken_away_comes_back() {
    let mut status = fixture::connected();
    fixture::disconnect(&mut status, ConnectionState::StandAlone);
    status.engine.disk = DiskState::Diskless;
    assert_snapshot!(plan(&status, |_| ()).to_string(), @r"
    tandemadm attach r0
    tandemadm connect r0
    ");
    // Where nothing is at stake it begins anew.
    status.engine.role = Role::Secondary;
    assert_snapshot!(plan(&status, |spec| spec.node.id = NodeId(7)).to_string(), @r"
    --- r0 as it is
    +++ r0 as it is configured
    -this node is alpha node-id 0
    +this node is alpha node-id 7
    tandemadm up r0
    ");
}

#[test]
fn volumes_come_and_go_with_the_resource() {
    let plan = plan(&secondary(), |spec| {
        let more = VolumeSpec { number: 1, minor: 1, device: "/dev/drbd1".into(), ..spec.volume.clone() };
        spec.more_volumes.push(more);
    });
    assert_snapshot!(plan.to_string(), @r"
    --- r0 as it is
    +++ r0 as it is configured
    +volume 1 device /dev/drbd1 minor 1
    +volume 1 disk /dev/null
    +volume 1 meta-disk internal
    # r0: volume 1 device, volume 1 disk, volume 1 meta-disk: changes when the resource is brought up only: 'tandemadm down r0', then 'tandemadm up r0'
    ");
}

/// What a plan comes to is what the daemon is left with: the next one has no steps, and is left with the same.
#[test]
fn a_second_adjust_does_nothing() {
    for first in [secondary(), fixture::connected()] {
        let done = plan(&first, change_of_every_kind);
        let after = ResourceStatus { spec: done.becomes.clone(), ..first };
        let again = plan(&after, change_of_every_kind);
        assert_eq!((again.steps, again.later), (vec![], done.later));
    }
}

#[test]
fn a_secret_that_changes_is_not_shown_and_leaves_the_connection_alone() {
    let plan = plan(&fixture::connected(), |spec| {
        let secret = Secret::new("Raspberry Jam");
        spec.options.authentication = Some(Authentication { algorithm: HmacAlgorithm::Sha1, secret });
    });
    assert_snapshot!(plan.to_string(), @r"
    --- r0 as it is
    +++ r0 as it is configured
    -net cram-hmac-alg none
    +net cram-hmac-alg sha1
    -net shared-secret none
    +net shared-secret (not shown)
    tandemadm net-options r0 --cram-hmac-alg=sha1
    # tandemd is told: shared-secret
    ");
}
