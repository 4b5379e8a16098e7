//! What is made of what was measured.

use std::io;
use std::path::Path;
use std::time::Duration;

use tandem_control::DeviceDriver;
use tandem_core::config::{Fencing, OnNoQuorum, Protocol, Votes};
use tandem_core::handler::Handler;
use tandem_core::state::DiskState;

use tandem_control::clock::Answer;

use super::clock::Offset;
use super::flush::Flushes;
use super::network::{Arrival, Usage, Way};
use super::*;
use crate::fixture;

fn part(findings: Vec<Finding>) -> Vec<Part> {
    vec![Part { resource: Some("r0".into()), findings }]
}

fn flushes(flush: Duration) -> Flushes {
    Flushes {
        place: "/srv".into(),
        is_memory: false,
        rotates: None,
        has_volatile_cache: None,
        write: Some(Duration::from_micros(9)),
        flush,
    }
}

#[test]
fn flushes_are_judged() {
    let device = |has_volatile_cache, micros| Flushes {
        place: "/dev/sdb1".into(),
        has_volatile_cache,
        write: None,
        ..flushes(Duration::from_micros(micros))
    };
    let all = [
        flushes(Duration::from_micros(1250)),
        Flushes { rotates: Some(true), ..flushes(Duration::from_micros(3)) },
        flushes(Duration::from_millis(80)),
        Flushes { is_memory: true, ..flushes(Duration::from_micros(1)) },
        device(Some(false), 1),
        device(Some(true), 1),
        device(Some(true), 900),
    ];
    insta::assert_snapshot!(text(&part(all.iter().map(flush::judge).collect())));
}

#[test]
fn the_way_to_the_peer_is_judged() {
    let way = |round_trip: Result<u64, &str>, whole, usage| Way {
        peer: "bravo".into(),
        address: ([192, 168, 100, 102], 7789).into(),
        mtu: round_trip.is_ok().then_some(9000),
        round_trip: round_trip.map(Duration::from_micros).map_err(str::to_owned),
        whole,
        usage,
    };
    let ways = [
        way(Ok(180), Arrival::Arrived, Usage::Carries),
        way(Ok(20_000), Arrival::Unknown, Usage::Carries),
        way(Ok(180), Arrival::Lost, Usage::Idle),
        way(Err("no answer in time"), Arrival::Unknown, Usage::Idle),
        way(Err("timed out"), Arrival::Arrived, Usage::Idle),
        way(Ok(180), Arrival::Arrived, Usage::Idle),
        way(Ok(190), Arrival::Arrived, Usage::StandsBy),
        way(Ok(190), Arrival::Arrived, Usage::Down),
    ];
    let findings = ways.iter().flat_map(|way| network::judge(way, "r0")).collect();
    insta::assert_snapshot!(text(&part(findings)));
}

#[test]
fn the_clocks_are_compared_within_half_a_round_trip() {
    let asked = |there_us: u64, back_us: u64, ahead_us: i64| {
        let left = 1_000_000_000_u64;
        let received_us = (left + there_us).wrapping_add_signed(ahead_us);
        let sent_us = received_us + 30;
        Offset::of(left, Answer { received_us, sent_us }, left + there_us + 30 + back_us)
    };
    assert_eq!(asked(100, 100, 0), Offset { ahead_us: 0, within_us: 100 });
    assert_eq!(asked(100, 100, -5_000_000), Offset { ahead_us: -5_000_000, within_us: 100 });
    for (there, back, ahead) in [(0, 900, 70), (900, 0, 70), (1, 0, -3), (0, 0, 0), (12, 431, 99_000_000)] {
        let Offset { ahead_us, within_us } = asked(there, back, ahead);
        assert!(ahead_us.abs_diff(ahead) <= within_us, "{there} {back} {ahead}: {ahead_us} {within_us}");
    }
    // A clock that was set meanwhile is no reason to panic.
    Offset::of(9, Answer { received_us: 7, sent_us: 5 }, 3);
    let judged = |ahead_us, within_us| clock::judge("bravo", Some(Offset { ahead_us, within_us }));
    insta::assert_snapshot!(text(&part(vec![
        judged(12, 90),
        judged(-250_400, 90),
        judged(1_000_200, 300),
        judged(-3_200_000, 90),
        judged(7_200_000_000, 90),
        clock::judge("bravo", None),
    ])));
}

#[test]
fn the_port_is_judged() {
    let spec = fixture::spec();
    let address = spec.paths[0].local;
    let judge = |listened: io::Result<()>, is_up| network::judge_port(&listened, address, &spec, is_up);
    let failed = |kind: io::ErrorKind| Err(kind.into());
    insta::assert_snapshot!(text(&part(vec![
        judge(failed(io::ErrorKind::AddrInUse), true),
        judge(failed(io::ErrorKind::AddrInUse), false),
        judge(Ok(()), true),
        judge(Ok(()), false),
        judge(failed(io::ErrorKind::AddrNotAvailable), false),
        judge(failed(io::ErrorKind::PermissionDenied), false),
    ])));
}

#[test]
fn settings_are_compared() {
    let spec = fixture::spec();
    let mut status = fixture::connected();
    assert_eq!(worst(&part(settings::examine(&spec, Some(&status)))), Level::Ok);
    status.engine.peers[0].differing_options = vec!["quorum is all here and off on bravo".into()];
    status.spec.connect_interval_ms += 1;
    let findings = [settings::examine(&spec, Some(&status)), settings::examine(&spec, None)].concat();
    insta::assert_snapshot!(text(&part(findings)));
}

#[test]
fn losses_follow_from_the_policies() {
    let mut spec = fixture::spec();
    let mut all = losses::examine(&spec, None);
    assert!(all.iter().all(|finding| finding.level == Level::Ok));
    for fencing in [Fencing::ResourceOnly, Fencing::ResourceAndStonith] {
        spec.options.fencing = fencing;
        all.extend(losses::examine(&spec, None));
    }
    spec.handlers.commands.insert(Handler::FencePeer, "/bin/true".into());
    spec.options.protocol = Protocol::A;
    all.extend(losses::examine(&spec, None));
    (spec.options.fencing, spec.options.quorum.votes) = (Fencing::DontCare, Votes::Majority);
    all.extend(losses::examine(&spec, None));
    spec.options.quorum.on_loss = OnNoQuorum::IoError;
    all.extend(losses::examine(&spec, None));
    let mut status = fixture::connected();
    assert_eq!(losses::examine(&spec, Some(&status)), losses::examine(&spec, None));
    status.engine.disk = DiskState::Inconsistent;
    all.extend(losses::examine(&spec, Some(&status)));
    insta::assert_snapshot!(text(&part(all)));
}

#[test]
fn the_machine_is_judged() {
    let limits = "Limit Soft Limit Hard Limit Units\nMax locked memory         8388608    8388608    bytes\n";
    insta::assert_snapshot!(text(&part(vec![
        machine::judge_kernel("6.12.43-amd64"),
        machine::judge_kernel("5.10.0-33"),
        machine::judge_io_uring("2"),
        machine::judge_io_uring(""),
        machine::judge_daemon(Some(Path::new("/usr/sbin/tandemd")), Some(env!("CARGO_PKG_VERSION"))),
        machine::judge_daemon(Some(Path::new("/usr/sbin/tandemd (deleted)")), None),
        machine::judge_daemon(None, Some("9.9.9")),
        machine::judge_memory(limits, "CapEff:\t000001ffffffffff\n"),
        machine::judge_memory(limits, "CapEff:\t0000000000000000\n"),
        machine::judge_devices(DeviceDriver::Auto, false, true),
        machine::judge_devices(DeviceDriver::Auto, false, false),
        machine::judge_devices(DeviceDriver::Nbd, true, false),
        machine::judge_devices(DeviceDriver::Fuse, true, false),
        machine::judge_devices(DeviceDriver::None, false, false),
        machine::judge_clock(Some(true)),
        machine::judge_clock(Some(false)),
        machine::judge_clock(None),
    ])));
}

#[test]
fn programs_read_every_finding() {
    let findings =
        vec![Finding::ok("kernel", "Linux 6.12"), Finding::bad("port", "taken").todo("who is it?")];
    insta::assert_snapshot!(json(&part(findings)));
}

#[test]
fn a_folder_is_tried_and_left_as_it_was() {
    let folder = std::env::temp_dir().join(format!("tandem-doctor-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let mut spec = fixture::spec();
    spec.volume.disk = folder.join("disk.img");
    std::fs::write(&spec.volume.disk, [7; 8192]).unwrap();
    let findings = flush::examine(&spec);
    assert!(findings.len() == 1 && findings[0].what.contains("a flush takes"), "{findings:?}");
    assert_eq!(std::fs::read(&spec.volume.disk).unwrap(), [7; 8192]);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}
