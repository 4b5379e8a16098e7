//! Golden texts of `status`.

use insta::assert_snapshot;
use tandem_core::state::Role;
use tandem_core::status::{PeerStatus, ResyncProgress, ResyncSuspended, Stretch, VerifyPosition};
use tandem_core::units::NodeId;

use super::*;
use crate::fixture;

/// As a script sees it.
fn plain(status: &ResourceStatus) -> String {
    resource(status, &Look::default())
}

#[test]
fn a_healthy_primary() {
    let mut status = fixture::connected();
    status.engine.openers.push("nbd client".into());
    let golden =
        "r0 role:Primary\n  disk:UpToDate open:yes\n  bravo role:Secondary\n    peer-disk:UpToDate\n\n";
    assert_eq!(plain(&status), golden);
}

#[test]
fn a_resync_shows_how_far_it_is() {
    let mut status = fixture::connected();
    let peer = &mut status.engine.peers[0];
    peer.replication = ReplicationState::SyncSource;
    peer.disk = DiskState::Inconsistent;
    peer.resync = Some(fixture::resync(1000, 625));
    assert!(plain(&status).ends_with("    replication:SyncSource peer-disk:Inconsistent done:37.50\n\n"));
    status.engine.peers[0].resync = Some(fixture::resync(1_000_000, 1));
    assert!(plain(&status).contains(" done:99.99\n"));
    status.engine.peers[0].resync = Some(fixture::resync(0, 0));
    assert!(plain(&status).contains(" done:100.00\n"));
    status.engine.peers[0].resync_suspended = ResyncSuspended { user: true, peer: true, dependency: false };
    assert!(plain(&status).ends_with(" done:100.00\n        resync-suspended:user,peer\n\n"));
}

#[test]
fn a_lost_peer_shows_its_connection_only() {
    let mut status = fixture::connected();
    fixture::disconnect(&mut status, ConnectionState::Connecting);
    status.engine.peers[0].disk = DiskState::Outdated;
    let golden = "r0 role:Primary\n  disk:UpToDate open:no\n  bravo connection:Connecting\n\n";
    assert_eq!(plain(&status), golden);
    let look = Look { statistics: true, ..Look::default() };
    let text = resource(&status, &look);
    assert!(
        text.ends_with(
            "  bravo connection:Connecting\n    peer-disk:Outdated\n        received:0 sent:0\n\n"
        )
    );
}

#[test]
fn why_a_peer_stands_alone_is_not_for_scripts() {
    let mut status = fixture::connected();
    fixture::disconnect(&mut status, ConnectionState::StandAlone);
    status.engine.peers[0].standalone_reason = Some("Split-Brain detected but unresolved".into());
    assert_snapshot!(plain(&status), @r"
    r0 role:Primary
      disk:UpToDate open:no
      bravo connection:StandAlone
    ");
}

#[test]
fn several_volumes_have_a_line_each_and_their_own_progress() {
    let mut status = fixture::two_volumes();
    status.engine.volumes[1].openers.push("nbd client".into());
    let peer = &mut status.engine.peers[0];
    peer.replication = ReplicationState::SyncSource;
    peer.disk = DiskState::Inconsistent;
    peer.resync = Some(fixture::resync(1000, 500));
    peer.volumes[0].resync = Some(fixture::resync(800, 500));
    peer.volumes[1].resync = Some(fixture::resync(200, 0));
    assert_snapshot!(plain(&status), @r"
    r0 role:Primary
      volume:0 disk:UpToDate open:no
      volume:1 disk:UpToDate open:yes
      bravo role:Secondary
        volume:0 replication:SyncSource peer-disk:Inconsistent done:37.50
        volume:1 replication:SyncSource peer-disk:Inconsistent done:100.00
    ");
}

#[test]
fn peers_stand_in_the_order_of_their_names() {
    let mut status = fixture::connected();
    let lost = PeerStatus {
        id: NodeId(2),
        name: "anton".into(),
        connection: ConnectionState::Connecting,
        replication: ReplicationState::Off,
        role: Role::Unknown,
        disk: DiskState::DUnknown,
        ..status.engine.peers[0].clone()
    };
    status.engine.peers.push(lost);
    assert_snapshot!(plain(&status), @r"
    r0 role:Primary
      disk:UpToDate open:no
      anton connection:Connecting
      bravo role:Secondary
        peer-disk:UpToDate
    ");
}

#[test]
fn diskless_nodes_and_other_volumes_are_named() {
    let mut status = fixture::connected();
    status.spec.volume.number = 3;
    status.engine.disk = DiskState::Diskless;
    status.engine.peers[0].disk = DiskState::Diskless;
    assert_snapshot!(plain(&status), @r"
    r0 role:Primary
      volume:3 disk:Diskless client:no open:no
      bravo role:Secondary
        volume:3 peer-disk:Diskless peer-client:no
    ");
    let seen = resource(&status, &Look { is_terminal: true, ..Look::default() });
    assert!(!seen.contains("client"), "{seen}");
}

#[test]
fn what_is_not_as_usual_is_said() {
    let mut status = fixture::connected();
    status.engine.suspended.user = true;
    status.engine.suspended.quorum = true;
    status.engine.quorum = false;
    status.engine.peers[0].congested = true;
    status.engine.peers[0].in_flight_bytes = 4096;
    assert_snapshot!(plain(&status), @r"
    r0 role:Primary suspended:user,quorum
      disk:UpToDate quorum:no open:no blocked:upper
      bravo role:Secondary congested:yes ap-in-flight:8 rs-in-flight:0
        peer-disk:UpToDate
    ");
}

#[test]
fn verbose_says_what_goes_without_saying() {
    let look = Look { verbose: 1, ..Look::default() };
    assert_snapshot!(resource(&fixture::connected(), &look), @r"
    r0 node-id:0 role:Primary suspended:no force-io-failures:no
      volume:0 minor:0 disk:UpToDate backing_dev:/dev/null quorum:yes open:no
          blocked:no
      bravo node-id:1 connection:Connected role:Secondary tls:no congested:no
          ap-in-flight:0 rs-in-flight:0
        volume:0 replication:Established peer-disk:UpToDate resync-suspended:no
    ");
}

/// A resync that has been going on for a while.
fn syncing() -> ResourceStatus {
    let mut status = fixture::connected();
    let engine = &mut status.engine;
    (engine.disk_read_bytes, engine.disk_written_bytes) = (10 << 10, 15 << 10);
    (engine.activity_log_writes, engine.bitmap_writes) = (40, 50);
    (engine.client_pending, engine.local_pending) = (60, 70);
    let peer = &mut engine.peers[0];
    peer.replication = ReplicationState::SyncSource;
    peer.disk = DiskState::Inconsistent;
    (peer.received_bytes, peer.sent_bytes) = (5 << 10, 10 << 10);
    (peer.pending, peer.unacked, peer.out_of_sync_bytes) = (30, 40, 2500 << 10);
    peer.resync = Some(ResyncProgress {
        total_bytes: 4000 << 10,
        left_bytes: 2500 << 10,
        equal_bytes: 8 << 10,
        elapsed_ms: 7000,
        paused_ms: 1000,
        recent: Stretch { ms: 5000, bytes: 1 << 20 },
        latest: Stretch { ms: 1000, bytes: 250 << 10 },
        want_bytes_per_s: 2 << 20,
        ..ResyncProgress::default()
    });
    status
}

#[test]
fn statistics_are_lines_of_their_own() {
    let look = Look { statistics: true, ..Look::default() };
    assert_snapshot!(resource(&syncing(), &look), @r"
    r0 role:Primary
      disk:UpToDate open:no
          read:10 written:15
      bravo role:Secondary
        replication:SyncSource peer-disk:Inconsistent done:37.50
            received:5 sent:10 out-of-sync:2500
    ");
    let look = Look { verbose: 1, ..look };
    assert_snapshot!(resource(&syncing(), &look), @r"
    r0 node-id:0 role:Primary suspended:no force-io-failures:no
        write-ordering:flush
      volume:0 minor:0 disk:UpToDate backing_dev:/dev/null quorum:yes open:no
          size:1024 read:10 written:15 al-writes:40 bm-writes:50 upper-pending:60
          lower-pending:70 al-suspended:no blocked:no
      bravo node-id:1 connection:Connected role:Secondary tls:no congested:no
          ap-in-flight:0 rs-in-flight:0
        volume:0 replication:SyncSource peer-disk:Inconsistent done:37.50
            resync-suspended:no
            received:5 sent:10 out-of-sync:2500 pending:30 unacked:40 dbdt1:0.24 eta:10
    ");
}

#[test]
fn twice_verbose_says_how_the_times_came_about() {
    let look = Look { verbose: 2, statistics: true, columns: 400, ..Look::default() };
    let counters = |status: &ResourceStatus| {
        let text = resource(status, &look);
        let line = text.lines().find(|line| line.contains("rs-total")).unwrap_or_default();
        line.trim().replacen(" unacked:40 ", " unacked:40\n", 1).replacen(" want", "\nwant", 1)
    };
    assert_snapshot!(counters(&syncing()), @r"
    received:5 sent:10 out-of-sync:2500 pending:30 unacked:40
    rs-total:8000 rs-dt-start-ms:7000 rs-paused-ms:1000 rs-dt0-ms:5000 rs-db0-sectors:2048 rs-dt1-ms:1000 rs-db1-sectors:500 rs-failed:0 rs-same-csum:16
    want:2.00 dbdt:0.24 dbdt0:0.20 dbdt1:0.24 eta:10
    ");
    let mut verifying = syncing();
    let peer = &mut verifying.engine.peers[0];
    peer.replication = ReplicationState::VerifyS;
    let position = VerifyPosition { start_bytes: 4096, stop_bytes: 1 << 20, reached_bytes: 8192 };
    let latest = Stretch { ms: 1000, bytes: 0 };
    peer.resync = peer.resync.map(|resync| ResyncProgress { verify: Some(position), latest, ..resync });
    assert_snapshot!(counters(&verifying), @r"
    received:5 sent:10 out-of-sync:2500 pending:30 unacked:40
    rs-total:8000 rs-dt-start-ms:7000 rs-paused-ms:1000 rs-dt0-ms:5000 rs-db0-sectors:2048 rs-dt1-ms:1000 rs-db1-sectors:0 ov-start-sector:8 ov-stop-sector:2048 ov-position:16 ov-left:5000 ov-skipped:0
    want:2.00 dbdt:0.24 dbdt0:0.20 dbdt1:0.00 eta:nan
    ");
}

#[test]
fn a_terminal_shows_colours() {
    let mut status = fixture::connected();
    status.engine.quorum = false;
    let look = Look { colours: Colours(true), ..Look::default() };
    let seen = |status: &ResourceStatus| resource(status, &look).replace('\x1b', "^[");
    assert_snapshot!(seen(&status), @r"
    r0 role:^[[1;36mPrimary^[[0m
      disk:^[[1;32mUpToDate^[[0m quorum:^[[1;31mno^[[0m open:no
      bravo role:Secondary
        peer-disk:^[[32mUpToDate^[[0m
    ");
    let peer = &mut status.engine.peers[0];
    (peer.role, peer.disk) = (Role::Primary, DiskState::DUnknown);
    status.engine.role = Role::Unknown;
    status.engine.disk = DiskState::Consistent;
    status.engine.peers[0].replication = ReplicationState::SyncTarget;
    assert_snapshot!(seen(&status), @r"
    r0 role:^[[1mUnknown^[[0m
      disk:^[[1mConsistent^[[0m quorum:^[[1;31mno^[[0m open:no
      bravo role:^[[36mPrimary^[[0m
        replication:^[[1;31mSyncTarget^[[0m peer-disk:DUnknown
    ");
    fixture::disconnect(&mut status, ConnectionState::Connecting);
    assert!(seen(&status).contains("\n  bravo connection:^[[1;31mConnecting^[[0m\n"));
}

#[test]
fn colours_take_no_room() {
    let look = Look { verbose: 1, statistics: true, ..Look::default() };
    let coloured = Look { colours: Colours(true), ..look };
    let lines = |look: &Look| resource(&syncing(), look).lines().count();
    assert_eq!(lines(&look), lines(&coloured));
}
