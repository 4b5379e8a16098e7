//! Golden texts of `events2`, by the scenarios of drbd-utils' own tests.

use insta::assert_snapshot;
use tandem_control::ResourceStatus;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::{PeerStatus, ResyncProgress, Stretch};
use tandem_core::units::NodeId;

use super::*;
use crate::fixture;

const PLAIN: Detail = Detail { statistics: false, full: false, diff: false, colours: Colours(false) };
const STATISTICS: Detail = Detail { statistics: true, ..PLAIN };
const DIFF: Detail = Detail { diff: true, ..PLAIN };

fn views(statuses: &[ResourceStatus]) -> Vec<ResourceView> {
    statuses.iter().map(ResourceView::new).collect()
}

fn said(old: &[ResourceStatus], new: &[ResourceStatus], detail: Detail) -> String {
    changes(&views(old), &views(new), "create", detail).join("\n")
}

/// Secondary, without disk and connection.
fn fresh() -> ResourceStatus {
    let mut status = fixture::connected();
    status.engine.role = Role::Secondary;
    status.engine.disk = DiskState::Diskless;
    fixture::disconnect(&mut status, ConnectionState::StandAlone);
    status
}

/// The same with its disk, and connected.
fn healthy() -> ResourceStatus {
    let mut status = fixture::connected();
    status.engine.role = Role::Secondary;
    status
}

#[test]
fn resource_exists() {
    let lines = changes(&[], &views(&[fixture::connected()]), "exists", PLAIN).join("\n");
    assert_snapshot!(lines, @r"
    exists resource name:r0 role:Primary suspended:no force-io-failures:no may_promote:no promotion_score:10102
    exists connection name:r0 peer-node-id:1 conn-name:bravo connection:Connected role:Secondary
    exists device name:r0 volume:0 minor:0 backing_dev:/dev/null disk:UpToDate client:no open:no quorum:yes
    exists peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Established peer-disk:UpToDate peer-client:no resync-suspended:no
    exists path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789 established:yes
    ");
    assert_eq!(said(&[fixture::connected()], &[fixture::connected()], PLAIN), "");
}

#[test]
fn all_create_change() {
    assert_snapshot!(said(&[], &[fresh()], PLAIN), @r"
    create resource name:r0 role:Secondary suspended:no force-io-failures:no may_promote:no promotion_score:0
    create connection name:r0 peer-node-id:1 conn-name:bravo connection:StandAlone role:Unknown
    create device name:r0 volume:0 minor:0 backing_dev:none disk:Diskless client:no open:no quorum:yes
    create peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Off peer-disk:DUnknown peer-client:no resync-suspended:no
    create path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789 established:no
    ");
    assert_snapshot!(said(&[fresh()], &[healthy()], PLAIN), @r"
    change resource name:r0 may_promote:yes promotion_score:10102
    change connection name:r0 peer-node-id:1 conn-name:bravo connection:Connected role:Secondary
    change device name:r0 volume:0 minor:0 backing_dev:/dev/null disk:UpToDate client:no open:no quorum:yes
    change peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Established peer-disk:UpToDate peer-client:no
    change path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789 established:yes
    ");
    let mut opened = fixture::connected();
    opened.engine.openers.push("nbd client".into());
    opened.engine.suspended.user = true;
    assert_snapshot!(said(&[healthy()], &[opened], PLAIN), @r"
    change resource name:r0 role:Primary suspended:user may_promote:no promotion_score:10102
    change device name:r0 volume:0 minor:0 backing_dev:/dev/null disk:UpToDate client:no open:yes quorum:yes
    ");
}

#[test]
fn all_create_change_with_the_states_before() {
    assert_snapshot!(said(&[], &[fresh()], DIFF), @r"
    create resource name:r0 role:UNKNOWN->Secondary suspended:UNKNOWN->no force-io-failures:UNKNOWN->no may_promote:UNKNOWN->no promotion_score:0->0
    create connection name:r0 peer-node-id:1 conn-name:bravo connection:UNKNOWN->StandAlone role:UNKNOWN->Unknown
    create device name:r0 volume:0 minor:0 backing_dev:UNKNOWN->none disk:UNKNOWN->Diskless client:UNKNOWN->no open:UNKNOWN->no quorum:UNKNOWN->yes
    create peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:UNKNOWN->Off peer-disk:UNKNOWN->DUnknown peer-client:UNKNOWN->no resync-suspended:UNKNOWN->no
    create path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789 established:UNKNOWN->no
    ");
    let mut opened = healthy();
    opened.engine.openers.push("nbd client".into());
    assert_snapshot!(said(&[fresh()], &[opened], DIFF), @r"
    change resource name:r0 may_promote:no->yes promotion_score:0->10102
    change connection name:r0 peer-node-id:1 conn-name:bravo connection:StandAlone->Connected role:Unknown->Secondary
    change device name:r0 volume:0 minor:0 backing_dev:none->/dev/null disk:Diskless->UpToDate client:no open:no->yes quorum:yes
    change peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Off->Established peer-disk:DUnknown->UpToDate peer-client:no
    change path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789 established:no->yes
    ");
}

#[test]
fn all_create_change_with_everything_about_what_changes() {
    let full = Detail { full: true, ..PLAIN };
    let mut paused = healthy();
    paused.engine.peers[0].resync_suspended.user = true;
    assert_snapshot!(said(&[healthy()], &[paused], full), @"change peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Established peer-disk:UpToDate peer-client:no resync-suspended:user received:0 sent:0 out-of-sync:0 pending:0 unacked:0");
    assert_snapshot!(said(&[healthy()], &[fixture::connected()], full), @"change resource name:r0 role:Primary suspended:no force-io-failures:no write-ordering:flush may_promote:no promotion_score:10102");
}

#[test]
fn all_create_change_in_colour() {
    let colours = Detail { colours: Colours(true), ..PLAIN };
    let text = said(&[], &[fixture::connected()], colours).replace('\x1b', "^[");
    assert_snapshot!(text, @r"
    create resource name:r0 role:^[[1;36mPrimary^[[0m suspended:no force-io-failures:no may_promote:no promotion_score:10102
    create connection name:r0 peer-node-id:1 conn-name:bravo connection:Connected role:Secondary
    create device name:r0 volume:0 minor:0 backing_dev:/dev/null disk:^[[1;32mUpToDate^[[0m client:no open:no quorum:yes
    create peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Established peer-disk:^[[32mUpToDate^[[0m peer-client:no resync-suspended:no
    create path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789 established:yes
    ");
}

#[test]
fn all_create_destroy() {
    assert_snapshot!(said(&[fresh()], &[], PLAIN), @r"
    destroy path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789
    destroy peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0
    destroy connection name:r0 peer-node-id:1 conn-name:bravo
    destroy device name:r0 volume:0
    destroy resource name:r0
    ");
}

#[test]
fn device_create_destroy() {
    let one = fixture::connected();
    let two = fixture::two_volumes();
    assert_snapshot!(said(std::slice::from_ref(&one), std::slice::from_ref(&two), PLAIN), @r"
    change resource name:r0 may_promote:no promotion_score:10202
    create device name:r0 volume:1 minor:1 backing_dev:/dev/null disk:UpToDate client:no open:no quorum:yes
    create peer-device name:r0 peer-node-id:1 conn-name:bravo volume:1 replication:Established peer-disk:UpToDate peer-client:no resync-suspended:no
    ");
    assert_snapshot!(said(&[two], &[one], PLAIN), @r"
    change resource name:r0 may_promote:no promotion_score:10102
    destroy peer-device name:r0 peer-node-id:1 conn-name:bravo volume:1
    destroy device name:r0 volume:1
    ");
}

#[test]
fn a_peer_that_is_no_longer_configured() {
    let mut alone = healthy();
    alone.engine.peers.clear();
    alone.spec.peers.clear();
    assert_snapshot!(said(&[healthy()], &[alone], PLAIN), @r"
    change resource name:r0 may_promote:yes promotion_score:10101
    destroy path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789
    destroy peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0
    destroy connection name:r0 peer-node-id:1 conn-name:bravo
    ");
}

#[test]
fn all_create_helper() {
    let known = views(&[fixture::connected()]);
    let event =
        |handler, peer, wait_status| HelperEvent { resource: "r0".into(), peer, handler, wait_status };
    let bravo = Some(NodeId(1));
    let lines = [
        helper(&event(Handler::BeforeResyncSource, bravo, None), &known),
        helper(&event(Handler::BeforeResyncSource, bravo, Some(0)), &known),
        helper(&event(Handler::FencePeer, bravo, Some(7 << 8)), &known),
        helper(&event(Handler::QuorumLost, None, None), &known),
        helper(&event(Handler::SplitBrain, bravo, None), &[]),
        helper(&event(Handler::SplitBrain, bravo, None), &views(&[fixture::two_volumes()])),
    ];
    assert_snapshot!(lines.join("\n"), @r"
    call helper name:r0 peer-node-id:1 conn-name:bravo volume:0 minor:0 helper:before-resync-source
    response helper name:r0 peer-node-id:1 conn-name:bravo volume:0 minor:0 helper:before-resync-source status:0
    response helper name:r0 peer-node-id:1 conn-name:bravo helper:fence-peer status:1792
    call helper name:r0 volume:0 minor:0 helper:quorum-lost
    call helper name:r0 peer-node-id:1 helper:split-brain
    call helper name:r0 peer-node-id:1 conn-name:bravo helper:split-brain
    ");
}

/// A source of a resync of which so many KiB are left.
fn syncing(left_kib: u64) -> ResourceStatus {
    let mut status = healthy();
    let peer = &mut status.engine.peers[0];
    peer.replication = ReplicationState::SyncSource;
    peer.disk = DiskState::Inconsistent;
    peer.sent_bytes = (4000 - left_kib) << 10;
    peer.out_of_sync_bytes = left_kib << 10;
    peer.resync = Some(ResyncProgress {
        total_bytes: 4000 << 10,
        left_bytes: left_kib << 10,
        latest: Stretch { ms: 1000, bytes: 250 << 10 },
        ..ResyncProgress::default()
    });
    status
}

#[test]
fn sync() {
    assert_snapshot!(said(&[healthy()], &[syncing(2500)], PLAIN), @r"
    change resource name:r0 may_promote:yes promotion_score:10101
    change peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:SyncSource peer-disk:Inconsistent peer-client:no done:37.50
    ");
    assert_snapshot!(said(&[syncing(2500)], &[syncing(1000)], PLAIN), @"change peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 done:75.00");
    assert_snapshot!(said(&[syncing(1000)], &[healthy()], PLAIN), @r"
    change resource name:r0 may_promote:yes promotion_score:10102
    change peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Established peer-disk:UpToDate peer-client:no
    ");
    assert_snapshot!(said(&[syncing(2500)], &[syncing(1000)], STATISTICS), @"change peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 done:75.00 received:0 sent:3000 out-of-sync:1000 pending:0 unacked:0 dbdt1:0.24 eta:4");
}

#[test]
fn statistics() {
    assert_snapshot!(said(&[], &[healthy()], STATISTICS), @r"
    create resource name:r0 role:Secondary suspended:no force-io-failures:no write-ordering:flush may_promote:yes promotion_score:10102
    create connection name:r0 peer-node-id:1 conn-name:bravo connection:Connected role:Secondary congested:no ap-in-flight:0 rs-in-flight:0
    create device name:r0 volume:0 minor:0 backing_dev:/dev/null disk:UpToDate client:no open:no quorum:yes size:1024 read:0 written:0 al-writes:0 bm-writes:0 upper-pending:0 lower-pending:0 al-suspended:no blocked:no
    create peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Established peer-disk:UpToDate peer-client:no resync-suspended:no received:0 sent:0 out-of-sync:0 pending:0 unacked:0
    create path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:127.0.0.1:7788 peer:ipv4:127.0.0.1:7789 established:yes
    ");
    let mut written = healthy();
    written.engine.disk_written_bytes = 4096;
    written.engine.peers[0].in_flight_bytes = 4096;
    written.engine.peers[0].sent_bytes = 4096;
    assert_eq!(said(&[healthy()], std::slice::from_ref(&written), PLAIN), "");
    assert_snapshot!(said(&[healthy()], &[written], STATISTICS), @r"
    change connection name:r0 peer-node-id:1 conn-name:bravo ap-in-flight:8 rs-in-flight:0
    change device name:r0 volume:0 minor:0 size:1024 read:0 written:4 al-writes:0 bm-writes:0 upper-pending:0 lower-pending:0
    change peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 received:0 sent:4 out-of-sync:0 pending:0 unacked:0
    ");
}

/// What is said of promotion: `yes 10102`.
fn promotion(change: impl FnOnce(&mut ResourceStatus)) -> String {
    let mut status = healthy();
    change(&mut status);
    let lines = said(&[], &[status], PLAIN);
    let resource = lines.lines().next().unwrap_or_default();
    resource.split_once(" may_promote:").unwrap_or_default().1.replace(" promotion_score:", " ")
}

#[test]
fn promotion_score_and_may_promote() {
    assert_eq!(promotion(|_| ()), "yes 10102");
    assert_eq!(promotion(|s| s.engine.role = Role::Primary), "no 10102");
    assert_eq!(promotion(|s| s.engine.peers[0].role = Role::Primary), "no 10102");
    assert_eq!(promotion(|s| s.engine.quorum = false), "no 0");
    assert_eq!(promotion(|s| fixture::disconnect(s, ConnectionState::Connecting)), "yes 10101");
    let disk = |disk| promotion(move |s: &mut ResourceStatus| s.engine.disk = disk);
    assert_eq!(disk(DiskState::Inconsistent), "yes 10001");
    assert_eq!(disk(DiskState::Consistent), "yes 10001");
    assert_eq!(disk(DiskState::Outdated), "yes 1");
    assert_eq!(disk(DiskState::Diskless), "yes 1");
    assert_eq!(promotion(|s| *s = fresh()), "no 0");
    let outdated_alone = |s: &mut ResourceStatus| {
        fixture::disconnect(s, ConnectionState::Connecting);
        s.engine.disk = DiskState::Outdated;
    };
    assert_eq!(promotion(outdated_alone), "no 0");
    assert_eq!(promotion(|s| *s = fixture::two_volumes()), "no 10202");
    let many = |s: &mut ResourceStatus| {
        let peer = s.engine.peers[0].clone();
        let others = (2..120).map(|n| PeerStatus { id: NodeId(n), name: format!("n{n}"), ..peer.clone() });
        s.engine.peers.extend(others);
    };
    assert_eq!(promotion(many), "yes 10199");
}

/// Whoever knows one state and is told the changes knows the other: nothing is left to say.
#[test]
fn nothing_is_said_twice() {
    let states = [fresh(), healthy(), syncing(100), fixture::connected(), fixture::two_volumes()];
    for old in &states {
        for new in &states {
            let same = views(std::slice::from_ref(old)) == views(std::slice::from_ref(new));
            let said = said(std::slice::from_ref(old), std::slice::from_ref(new), STATISTICS);
            assert_eq!(said.is_empty(), same, "{said}");
        }
    }
}

#[test]
fn that_requests_have_to_wait_is_said_once_with_the_counters() {
    let mut frozen = healthy();
    frozen.engine.suspended.user = true;
    let device = "change device name:r0 volume:0 minor:0 size:1024 read:0 written:0 al-writes:0 bm-writes:0 \
                  upper-pending:0 lower-pending:0";
    let resource = "change resource name:r0 suspended:";
    let before = [healthy()];
    let waits = said(&before, &[frozen.clone()], STATISTICS);
    assert_eq!(waits, format!("{resource}user\n{device} blocked:upper"));
    let goes_on = said(&[frozen.clone()], &before, STATISTICS);
    assert_eq!(goes_on, format!("{resource}no\n{device} blocked:no"));
    assert_eq!(said(&before, &[frozen.clone()], PLAIN), format!("{resource}user"));
    let mut written = frozen.clone();
    written.engine.disk_written_bytes = 1024;
    let counted = said(&[frozen], &[written], Detail { full: true, ..STATISTICS });
    assert!(counted.contains("written:1 ") && !counted.contains("blocked"), "{counted}");
}
