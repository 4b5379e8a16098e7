//! Golden texts of the status file.

use std::collections::BTreeMap;

use tandem_control::{BlockDeviceSpec, DeviceDriver, HandlersSpec, NodeSpec, ResourceSpec, VolumeSpec};
use tandem_core::config::{Options, Protocol};
use tandem_core::generation::{Generations, HISTORY_SLOTS};
use tandem_core::status::{ResyncSuspended, Status, Suspended};
use tandem_core::units::NodeId;

use super::*;

const HEAD: &str =
    concat!("version: 8.4.11 (api:1/proto:86-101)\nsrcversion: Tandem-", env!("CARGO_PKG_VERSION"), "\n");

fn node(id: u8, name: &str) -> NodeSpec {
    NodeSpec { id: NodeId(id), name: name.into() }
}

pub(crate) fn peer() -> PeerStatus {
    PeerStatus {
        id: NodeId(2),
        name: "bravo".into(),
        connection: ConnectionState::Connected,
        replication: ReplicationState::Established,
        role: Role::Secondary,
        disk: DiskState::UpToDate,
        standalone_reason: None,
        differing_options: Vec::new(),
        sent_bytes: 1 << 30,
        received_bytes: 0,
        pending: 0,
        unacked: 0,
        congested: false,
        in_flight_bytes: 0,
        resync_in_flight_bytes: 0,
        out_of_sync_bytes: 0,
        resync_suspended: ResyncSuspended::default(),
        resync: None,
        volumes: Vec::new(),
    }
}

pub(crate) fn resource(minor: u32, peers: Vec<PeerStatus>) -> ResourceStatus {
    ResourceStatus {
        used_paths: Vec::new(),
        disk_failure: None,
        spec: ResourceSpec {
            name: format!("r{minor}"),
            node: node(1, "alpha"),
            peers: vec![node(2, "bravo")],
            paths: Vec::new(),
            volume: VolumeSpec {
                number: 0,
                minor,
                device: format!("/dev/drbd{minor}").into(),
                disk: "/dev/vg/r".into(),
                meta_disk: None,
                size_bytes: None,
            },
            more_volumes: Vec::new(),
            undo_log: None,
            options: Options::default(),
            handlers: HandlersSpec {
                commands: BTreeMap::new(),
                limit_ms: 60_000,
                config_file: "/etc/tandem.conf".into(),
            },
            resync_after: None,
            connect_interval_ms: 10_000,
            nbd_listen: None,
            block_device: BlockDeviceSpec { driver: DeviceDriver::None, away_limit_ms: 0 },
        },
        engine: Status {
            resource: format!("r{minor}"),
            node: NodeId(1),
            role: Role::Primary,
            disk: DiskState::UpToDate,
            protocol: Protocol::C,
            write_ordering: 'f',
            size_bytes: 1 << 30,
            volumes: Vec::new(),
            pieces: Vec::new(),
            disk_read_bytes: 2128 << 10,
            disk_written_bytes: 1 << 30,
            bitmap_writes: 0,
            activity_log_writes: 64,
            activity_log_suspended: false,
            local_pending: 0,
            client_pending: 0,
            epochs: 0,
            suspended: Suspended::default(),
            quorum: true,
            openers: Vec::new(),
            generations: Generations { current: 1, history: [0; HISTORY_SLOTS] },
            peers,
        },
    }
}

fn rendered(resources: &[ResourceStatus]) -> String {
    let text = render(resources);
    text.strip_prefix(HEAD).unwrap_or_else(|| panic!("header of {text}")).to_owned()
}

#[test]
fn a_healthy_pair() {
    assert_eq!(
        rendered(&[resource(0, vec![peer()])]),
        " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n    \
         ns:1048576 nr:0 dw:1048576 dr:2128 al:64 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n"
    );
}

#[test]
fn a_paused_resync_says_by_whom_and_shows_no_progress() {
    let mut paused = peer();
    paused.replication = ReplicationState::PausedSyncT;
    paused.resync_suspended = ResyncSuspended { user: true, peer: false, dependency: true };
    let text = rendered(&[resource(0, vec![paused])]);
    assert!(
        text.starts_with(" 0: cs:PausedSyncT ro:Primary/Secondary ds:UpToDate/UpToDate C ra-u--\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn the_sync_source_of_a_users_report() {
    let mut status = resource(0, vec![peer()]);
    status.engine.disk_written_bytes = 0;
    status.engine.disk_read_bytes = 180_441_216 << 10;
    status.engine.activity_log_writes = 16;
    let peer = &mut status.engine.peers[0];
    peer.replication = ReplicationState::SyncSource;
    peer.disk = DiskState::Inconsistent;
    peer.sent_bytes = 180_441_216 << 10;
    peer.out_of_sync_bytes = 794_704_668 << 10;
    peer.resync = Some(ResyncProgress {
        total_bytes: 952_288 << 20,
        left_bytes: 776_076 << 20,
        elapsed_ms: 4_000_000,
        recent_bytes_per_s: 40_480 << 10,
        average_bytes_per_s: 45_110 << 10,
        ..ResyncProgress::default()
    });
    assert_eq!(
        rendered(&[status]),
        " 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n    \
         ns:180441216 nr:0 dw:0 dr:180441216 al:16 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:794704668\n\
         \t[==>.................] sync'ed: 18.6% (776076/952288)M\n\
         \tfinish: 5:27:11 speed: 40,480 (45,110) K/sec\n"
    );
}

#[test]
fn a_small_resync_counts_in_kib_and_says_when_it_stalls() {
    let mut status = resource(0, vec![peer()]);
    status.engine.peers[0].replication = ReplicationState::SyncTarget;
    status.engine.peers[0].resync = Some(ResyncProgress {
        total_bytes: 1 << 30,
        left_bytes: 838_860 << 10,
        elapsed_ms: 1000,
        recent_bytes_per_s: 0,
        average_bytes_per_s: 31_104 << 10,
        want_bytes_per_s: 40_960 << 10,
        stalled: true,
        ..ResyncProgress::default()
    });
    let text = rendered(&[status]);
    assert!(text.contains("\t[===>................] sync'ed: 20.1% (838860/1048576)K\n"), "{text}");
    assert!(text.ends_with("\tfinish: 0:00:26 speed: 0 (31,104) want: 40,960 K/sec (stalled)\n"), "{text}");
}

#[test]
fn a_verify_and_a_missing_activity_log_are_told() {
    let mut status = resource(0, vec![peer()]);
    status.engine.activity_log_suspended = true;
    status.engine.peers[0].replication = ReplicationState::VerifyS;
    status.engine.peers[0].resync = Some(ResyncProgress {
        total_bytes: 1 << 20,
        left_bytes: 512 << 10,
        recent_bytes_per_s: 256 << 10,
        average_bytes_per_s: 256 << 10,
        ..ResyncProgress::default()
    });
    let text = rendered(&[status]);
    assert!(
        text.starts_with(" 0: cs:VerifyS ro:Primary/Secondary ds:UpToDate/UpToDate C r----s\n"),
        "{text}"
    );
    assert!(text.contains("\t[=========>..........] verified: 50.0% (512/1024)K\n"), "{text}");
    assert!(text.ends_with("\tfinish: 0:00:02 speed: 256 (256) want: 0 K/sec\n"), "{text}");
}

#[test]
fn the_bar_is_whole_at_both_ends() {
    let progress = |left_bytes| {
        let mut text = String::new();
        let progress = ResyncProgress {
            total_bytes: 1 << 20,
            left_bytes,

            elapsed_ms: 0,
            recent_bytes_per_s: 0,
            average_bytes_per_s: 0,
            ..ResyncProgress::default()
        };
        put_progress(&mut text, &progress, ReplicationState::SyncSource).unwrap();
        text
    };
    assert!(progress(1 << 20).starts_with("\t[>....................] sync'ed:  0.0% (1024/1024)K\n"));
    assert!(progress(0).starts_with("\t[===================>] sync'ed:100.0% (0/1024)K\n"));
}

#[test]
fn waiting_standing_alone_and_not_configured() {
    let mut waiting = resource(0, vec![peer()]);
    let unseen = |connection| PeerStatus {
        connection,
        replication: ReplicationState::Off,
        role: Role::Unknown,
        disk: DiskState::DUnknown,
        ..peer()
    };
    waiting.engine.peers = vec![unseen(ConnectionState::Connecting)];
    let text = rendered(&[waiting]);
    assert!(
        text.starts_with(" 0: cs:WFConnection ro:Primary/Unknown ds:UpToDate/DUnknown C r-----\n"),
        "{text}"
    );

    let mut alone = resource(0, vec![unseen(ConnectionState::StandAlone)]);
    let text = rendered(&[alone.clone()]);
    assert!(
        text.starts_with(" 0: cs:StandAlone ro:Primary/Unknown ds:UpToDate/DUnknown   r-----\n"),
        "{text}"
    );

    alone.engine.role = Role::Secondary;
    alone.engine.disk = DiskState::Diskless;
    assert_eq!(rendered(&[alone]), " 0: cs:Unconfigured\n");
}

#[test]
fn minors_ascend_with_a_blank_line_at_gaps() {
    let text = rendered(&[resource(12, vec![peer()]), resource(0, vec![peer()]), resource(1, vec![peer()])]);
    let starts: Vec<&str> = text.lines().map(|line| line.get(..4).unwrap_or(line)).collect();
    assert_eq!(starts, [" 0: ", "    ", " 1: ", "    ", "", "12: ", "    "]);
}

#[test]
fn the_worst_peer_is_shown() {
    let lost = PeerStatus { connection: ConnectionState::Connecting, disk: DiskState::DUnknown, ..peer() };
    assert!(rendered(&[resource(0, vec![peer(), lost])]).contains("cs:WFConnection"));
}

#[test]
fn counters_wrap_as_the_kernels_do() {
    let mut status = resource(0, vec![peer()]);
    status.engine.disk_written_bytes = (1 << 42) + 4096;
    assert!(rendered(&[status]).contains(" dw:4 "));
}

#[test]
fn a_line_for_each_volume() {
    let mut status = resource(3, vec![peer()]);
    let other = VolumeSpec { number: 1, minor: 1, ..status.spec.volume.clone() };
    status.spec.more_volumes.push(other);
    let volume = |written: u64| VolumeStatus { disk_written_bytes: written << 10, ..VolumeStatus::default() };
    status.engine.volumes = vec![volume(5), volume(6)];
    let on_peer = |sent: u64| PeerVolumeStatus { sent_bytes: sent << 10, ..PeerVolumeStatus::default() };
    status.engine.peers[0].volumes = vec![on_peer(7), on_peer(8)];
    assert_eq!(
        rendered(&[status]),
        "\n 1: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n    \
         ns:8 nr:0 dw:6 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n\n \
         3: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n    \
         ns:7 nr:0 dw:5 dr:0 al:64 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n"
    );
}
