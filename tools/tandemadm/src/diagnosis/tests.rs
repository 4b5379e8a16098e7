//! Every trouble in the states in which it is there, and none where all is well.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser;
use tandem_core::config::OnNoQuorum;
use tandem_core::generation::JUST_CREATED;
use tandem_core::parting;
use tandem_core::split_brain::SPLIT_BRAIN;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};

use super::*;
use crate::cli::Cli;
use crate::fixture;

/// The codes that must be found, and the state in which they are.
struct Case {
    codes: &'static [&'static str],
    what: &'static str,
    findings: Vec<Finding>,
}

fn up(codes: &'static [&'static str], what: &'static str, change: impl FnOnce(&mut ResourceStatus)) -> Case {
    let mut status = fixture::connected();
    change(&mut status);
    Case { codes, what, findings: of_resource(&status) }
}

fn absent(codes: &'static [&'static str], what: &'static str, absent: &Absent<'_>) -> Case {
    Case { codes, what, findings: of_absent(absent) }
}

fn not_up(code: &'static [&'static str], what: &'static str, on_disk: OnDisk) -> Case {
    absent(code, what, &Absent::NotUp { spec: &fixture::spec(), on_disk: &on_disk })
}

fn refused(codes: &'static [&'static str], what: &'static str, reason: &str) -> Case {
    up(codes, what, |status| refuse(status, reason))
}

fn refuse(status: &mut ResourceStatus, reason: &str) {
    fixture::disconnect(status, ConnectionState::StandAlone);
    status.engine.peers[0].standalone_reason = Some(reason.to_owned());
}

fn absent_cases() -> Vec<Case> {
    vec![
        absent(&["T001"], "no daemon", &Absent::NoDaemon { socket: Path::new("/run/tandem/control.sock") }),
        absent(
            &["T002"],
            "a mute daemon",
            &Absent::Mute {
                error: "tandemd ended the conversation".into(),
                next: "tail -n 50 /run/tandem/tandemd.log".into(),
            },
        ),
        absent(&["T003"], "no configuration", &Absent::NoConfig { error: "r0.res:3: unknown option".into() }),
        not_up(&["T004"], "down", OnDisk::Closed),
        not_up(&["T005"], "crashed", OnDisk::Unclean { as_primary: true }),
        not_up(&["T006"], "no meta-data", OnDisk::NoMetadata),
        not_up(&["T007"], "no disk", OnDisk::Unreadable("open(/dev/null) failed: No such device".into())),
    ]
}

fn connection_cases() -> Vec<Case> {
    let stakes = format!(
        "{SPLIT_BRAIN} Last common generation 0000000000000042; written since: at most 4 KiB here (Primary), 8 KiB on bravo \
         (Secondary). Decide"
    );
    let by_peer = |reason: &str| format!("{}{reason}", parting::PEER_REFUSES);
    vec![
        refused(&["T101"], "a split brain", &stakes),
        up(&["T101"], "a split brain that the peer tells of, on a Secondary", |status| {
            refuse(status, &by_peer(&stakes));
            status.engine.role = Role::Secondary;
        }),
        up(&["T102"], "disconnected", |status| fixture::disconnect(status, ConnectionState::StandAlone)),
        refused(&["T102"], "asked", "dry-run connect: No resync, would become Connected immediately."),
        up(&["T103"], "a lost peer", |status| fixture::disconnect(status, ConnectionState::Connecting)),
        refused(&["T104"], "unrelated data", parting::UNRELATED),
        refused(&["T105"], "a small disk", &format!("{} It has room for 1 bytes", parting::LOCAL_TOO_SMALL)),
        refused(&["T105"], "the peer's small disk", &by_peer(parting::LOCAL_TOO_SMALL)),
        refused(
            &["T105"],
            "other volumes",
            &format!("{}: the meta-data here is for", parting::VOLUMES_DIFFER),
        ),
        refused(&["T106"], "another secret", "Authentication of peer failed"),
        refused(
            &["T107"],
            "other options",
            &format!("incompatible protocol settings: {}", parting::TERMS_DIFFER),
        ),
        refused(&["T108"], "other releases", parting::RELEASES_DIFFER),
        refused(&["T109"], "older data here", parting::I_AM_PRIMARY),
        refused(&["T109"], "the same, in the peer's words", &by_peer(parting::PEER_IS_PRIMARY)),
        up(&["T109"], "older data there", |status| {
            refuse(status, parting::PEER_IS_PRIMARY);
            status.engine.role = Role::Secondary;
        }),
        refused(&["T110"], "two Primaries", parting::BOTH_PRIMARY),
        up(&["T111"], "two mixtures", |status| {
            refuse(status, parting::NO_SOURCE);
            status.spec.undo_log = Some("/var/lib/tandem/r0.undo".into());
            (status.engine.disk, status.engine.role) = (DiskState::Inconsistent, Role::Secondary);
        }),
        up(&["T112", "T301", "T205"], "a diskless Primary meets another copy", |status| {
            refuse(status, parting::DATA_NOT_THERE);
            status.engine.disk = DiskState::Diskless;
        }),
        refused(&["T113"], "a handler", "the handler before-resync-target failed"),
        up(&["T114"], "a thread that ended", |status| {
            refuse(status, "the resource's thread has ended");
            (status.engine.role, status.engine.disk) = (Role::Unknown, DiskState::Failed);
        }),
    ]
}

fn disk_cases() -> Vec<Case> {
    vec![
        up(&["T201"], "fresh", |status| {
            status.engine.generations.current = JUST_CREATED;
            (status.engine.disk, status.engine.role) = (DiskState::Inconsistent, Role::Secondary);
            status.engine.peers[0].disk = DiskState::Inconsistent;
        }),
        up(&["T202", "T103"], "a target without its source", |status| {
            fixture::disconnect(status, ConnectionState::Connecting);
            status.spec.undo_log = Some("/var/lib/tandem/r0.undo".into());
            (status.engine.disk, status.engine.role) = (DiskState::Inconsistent, Role::Secondary);
        }),
        up(&["T102", "T203"], "outdated", |status| {
            fixture::disconnect(status, ConnectionState::StandAlone);
            (status.engine.disk, status.engine.role) = (DiskState::Outdated, Role::Secondary);
        }),
        up(&["T103", "T204"], "started alone", |status| {
            fixture::disconnect(status, ConnectionState::Connecting);
            (status.engine.disk, status.engine.role) = (DiskState::Consistent, Role::Secondary);
        }),
        up(&["T205"], "a failed disk", |status| status.engine.disk = DiskState::Diskless),
        up(&["T205"], "a disk that could not be attached", |status| {
            fixture::disconnect(status, ConnectionState::StandAlone);
            (status.engine.role, status.engine.disk) = (Role::Secondary, DiskState::Diskless);
            status.disk_failure =
                Some("Can not open backing device: /dev/sdb1: No such file or directory".into());
        }),
        up(&["T205"], "a disk without meta-data", |status| {
            fixture::disconnect(status, ConnectionState::StandAlone);
            (status.engine.role, status.engine.disk) = (Role::Secondary, DiskState::Diskless);
            status.disk_failure = Some("No valid meta-data signature found".into());
        }),
        up(&["T205"], "another node's disk", |status| {
            (status.engine.role, status.engine.disk) = (Role::Secondary, DiskState::Diskless);
            status.disk_failure =
                Some("the meta-data belongs to node 0: if it may be overwritten, run 'tandemadm create-md --force'".into());
        }),
        up(&["T206"], "the peer's failed disk", |status| status.engine.peers[0].disk = DiskState::Failed),
        up(&["T207"], "an old peer", |status| status.engine.peers[0].disk = DiskState::Outdated),
    ]
}

fn client_cases() -> Vec<Case> {
    let lost = |status: &mut ResourceStatus| fixture::disconnect(status, ConnectionState::Connecting);
    vec![
        up(&["T301", "T103", "T205"], "a failed disk, and no peer", |status| {
            lost(status);
            status.engine.disk = DiskState::Diskless;
        }),
        up(&["T302"], "suspended by hand", |status| status.engine.suspended.user = true),
        up(&["T303", "T103"], "fencing", |status| {
            lost(status);
            status.engine.suspended.fencing = true;
        }),
        up(&["T304", "T103"], "quorum", |status| {
            lost(status);
            (status.engine.suspended.quorum, status.engine.quorum) = (true, false);
        }),
        up(&["T305", "T103"], "quorum, and errors", |status| {
            lost(status);
            status.engine.quorum = false;
            status.spec.options.quorum.on_loss = OnNoQuorum::IoError;
        }),
        up(&["T306", "T103"], "a mounted device after a restart", |status| {
            lost(status);
            status.engine.role = Role::Secondary;
            status.engine.openers.push("mount of /srv".into());
        }),
        up(&["T109", "T307"], "a loser under its clients", |status| {
            refuse(status, parting::I_AM_PRIMARY);
            status.engine.openers.push("mount of /srv".into());
        }),
        up(&["T101", "T307"], "a client came before the demotion", |status| {
            refuse(status, &format!("{SPLIT_BRAIN} {}", parting::JUST_OPENED));
            status.engine.openers.push("qemu".into());
        }),
    ]
}

fn resync_cases() -> Vec<Case> {
    let source = |status: &mut ResourceStatus| {
        let peer = &mut status.engine.peers[0];
        (peer.replication, peer.disk) = (ReplicationState::SyncSource, DiskState::Inconsistent);
        peer.resync = Some(fixture::resync(1000, 625));
    };
    vec![
        up(&["T401"], "a source", source),
        up(&["T401"], "a target that serves through its source", |status| {
            status.engine.disk = DiskState::Inconsistent;
            status.engine.peers[0].replication = ReplicationState::SyncTarget;
        }),
        up(&["T402"], "paused by everybody", |status| {
            source(status);
            status.spec.resync_after = Some("r7".into());
            let by = &mut status.engine.peers[0].resync_suspended;
            (by.user, by.peer, by.dependency) = (true, true, true);
            status.engine.peers[0].replication = ReplicationState::PausedSyncS;
        }),
        up(&["T403"], "stalled", |status| {
            source(status);
            status.engine.peers[0].resync.as_mut().unwrap().stalled = true;
        }),
        up(&["T404"], "a verify found something", |status| {
            status.engine.peers[0].out_of_sync_bytes = 8192;
        }),
        up(&["T404"], "the same without a Primary", |status| {
            status.engine.role = Role::Secondary;
            status.engine.peers[0].out_of_sync_bytes = 8192;
        }),
        up(&["T405"], "ahead", |status| {
            let peer = &mut status.engine.peers[0];
            (peer.replication, peer.disk) = (ReplicationState::Ahead, DiskState::Consistent);
        }),
    ]
}

fn cases() -> Vec<Case> {
    [absent_cases(), connection_cases(), disk_cases(), client_cases(), resync_cases()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_state_has_its_codes_and_every_code_its_state() {
    let mut reached = BTreeSet::new();
    for Case { codes, what, findings } in cases() {
        let found: Vec<&str> = findings.iter().map(|finding| finding.trouble.code).collect();
        assert_eq!(found, codes, "{what}");
        reached.extend(found);
    }
    let known: BTreeSet<&str> = all().map(|trouble| trouble.code).collect();
    assert_eq!(reached, known);
}

#[test]
fn remarks_name_what_is_and_what_to_do() {
    let of_case = |case: Case| {
        let remarks: String = case.findings.iter().map(Finding::remark).collect();
        format!("{}\n{remarks}", case.what)
    };
    insta::assert_snapshot!(cases().into_iter().map(of_case).collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_command_that_is_named_is_one() {
    let named: Vec<String> = cases()
        .into_iter()
        .flat_map(|case| case.findings)
        .flat_map(|f| f.sign.next)
        .map(|s| s.command)
        .collect();
    let in_pages = all().flat_map(|trouble| [trouble.page.look, trouble.page.act]).flat_map(str::lines);
    let in_pages = in_pages.filter(|line| line.starts_with("    ")).map(|line| line.trim().to_owned());
    for command in named.into_iter().chain(in_pages).flat_map(|line| parts(&line)) {
        if command.starts_with("tandemadm ") {
            let parsed = Cli::try_parse_from(command.split(' '));
            // It is how `--version` ends.
            let fine = parsed.as_ref().err().is_none_or(|error| !error.use_stderr());
            assert!(fine, "{command}: {parsed:?}");
        }
    }
}

fn parts(line: &str) -> Vec<String> {
    line.split(" && ").map(str::to_owned).collect()
}

#[test]
fn every_finding_says_what_to_do_next() {
    for case in cases() {
        for finding in case.findings {
            assert!(!finding.sign.next.is_empty(), "{}: {}", case.what, finding.trouble.code);
            assert!(!finding.sign.why.contains('\n'), "{}", finding.sign.why);
        }
    }
}

#[test]
fn healthy_states_give_none() {
    for role in [Role::Primary, Role::Secondary] {
        for replication in
            [ReplicationState::Established, ReplicationState::VerifyS, ReplicationState::VerifyT]
        {
            let mut status = fixture::connected();
            status.engine.role = role;
            if role == Role::Secondary {
                status.engine.peers[0].role = Role::Primary;
            }
            status.engine.peers[0].replication = replication;
            assert!(of_resource(&status).is_empty(), "{role} {replication}: {:?}", of_resource(&status));
        }
    }
    let mut used = fixture::two_volumes();
    used.engine.openers.push("mount".into());
    assert!(of_resource(&used).is_empty());
}

/// Whatever else is shown, something is remarked.
#[test]
fn no_other_state_passes_for_healthy() {
    let healthy = |status: &ResourceStatus| {
        let peer = &status.engine.peers[0];
        let idle = [ReplicationState::Established, ReplicationState::Off].contains(&peer.replication);
        let replication = idle || peer.replication.is_verify();
        let disks = [status.engine.disk, peer.disk] == [DiskState::UpToDate; 2];
        peer.connection == ConnectionState::Connected && replication && disks
    };
    let mut seen = 0;
    for &connection in ConnectionState::ALL {
        for &replication in ReplicationState::ALL {
            for &disk in DiskState::ALL.iter().filter(|disk| **disk != DiskState::DUnknown) {
                for &peer_disk in DiskState::ALL {
                    let mut status = fixture::connected();
                    status.engine.disk = disk;
                    let peer = &mut status.engine.peers[0];
                    (peer.connection, peer.replication, peer.disk) = (connection, replication, peer_disk);
                    if !healthy(&status) {
                        seen += 1;
                        let state = (connection, replication, disk, peer_disk);
                        assert!(!of_resource(&status).is_empty(), "{state:?}");
                    }
                }
            }
        }
    }
    assert!(seen > 5000, "{seen}");
}

#[test]
fn codes_are_in_order_and_pages_complete() {
    let codes: Vec<&str> = all().map(|trouble| trouble.code).collect();
    assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
    for Trouble { code, name, page, .. } in all() {
        for text in [name, page.happened, page.data, page.look, page.act, page.avoid] {
            assert!(!text.trim().is_empty() && !text.contains("  \n"), "{code}");
        }
    }
    assert_eq!(find("t101").map(|trouble| trouble.name), Some("split brain"));
    assert!(find("T999").is_none());
}

#[test]
fn the_pages_are_readable() {
    insta::assert_snapshot!(page::text(find("T101").unwrap()));
    insta::assert_snapshot!(page::list());
}

#[test]
fn the_document_is_what_the_definitions_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/troubles.md");
    let written = std::fs::read_to_string(path).unwrap();
    assert!(written == page::markdown(), "run: tandemadm explain --markdown > docs/troubles.md");
}
