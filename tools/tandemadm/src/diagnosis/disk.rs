//! T2xx: disks whose data is not the newest, or that are not there.

use std::path::PathBuf;

use tandem_control::ResourceStatus;
use tandem_core::metadata::LoadError;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::PeerStatus;

use super::reason::{Kind, Reason};
use super::{Condition, Page, Place, Severity, Sign, Trouble, listing};

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        code: "T201",
        name: "never synced",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(|status| {
            let resource = &status.spec.name;
            let fresh = status.engine.disk == DiskState::Inconsistent && status.engine.generations.is_fresh();
            (fresh && !is_target(status)).then(|| {
                let why = "the meta-data is new, and nobody has said whose data counts";
                let force = format!("tandemadm primary --force {resource}");
                let connected = |p: &PeerStatus| p.connection == ConnectionState::Connected;
                if !status.engine.peers.iter().all(connected) {
                    // This may be a new disk in the place of one whose data is there.
                    let sign = reach_peers(status, why);
                    return sign.case("only if no other node has ever had data", Place::Here, force);
                }
                Sign::new(why).case("if this node's data counts", Place::Here, force).case(
                    "if both disks are empty",
                    Place::Here,
                    format!("tandemadm new-current-uuid --clear-bitmap {resource}"),
                )
            })
        }),
        page: Page {
            happened: "create-md was run, and the resource is up for the first time. Tandem does not know which disk has the data that counts.",
            data: "Whatever is on the disk is still there, on both nodes.",
            look: "    tandemadm show-gi r0\n    tandemadm status r0",
            act: "On the node whose data counts, with both nodes connected:\n    tandemadm primary --force r0\n    tandemadm wait-sync r0\nThe other \
                  node's disk is overwritten. If both disks are empty, nothing need be sent:\n    tandemadm new-current-uuid --clear-bitmap r0",
            avoid: "Do not run 'primary --force' on the node with the empty disk: the data on the other would be overwritten.",
        },
    },
    Trouble {
        code: "T202",
        name: "an Inconsistent copy",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(inconsistent),
        page: Page {
            happened: "This node was receiving a resync, or its copy was given up with 'invalidate', and the node that has the data is not \
                       there to finish it.",
            data: "The copy here is a mixture of old and new blocks, and of no use by itself. The data is on the other node.",
            look: "    tandemadm status r0\nHere and on the other node: is it up, is it UpToDate?",
            act: "Bring the other node back, or connect to it:\n    tandemadm connect r0\nThe resync goes on where it was. If that node is lost for \
                  good and an undo log was kept ('disk { resync-undo FILE; }'), its older, consistent version can be had back:\n    tandemadm \
                  down r0\n    tandemadm resync-undo r0\n    tandemadm up r0",
            avoid: "Do not run 'primary --force' while there is hope for the other node: a mixture would become the truth, and the good copy \
                    would be overwritten with it.",
        },
    },
    Trouble {
        code: "T203",
        name: "an Outdated copy",
        severity: Severity::Degraded,
        condition: Condition::Resource(|status| {
            let outdated = status.engine.disk == DiskState::Outdated && !is_target(status);
            (outdated && !is_refused(status)).then(|| {
                reach_peers(status, "the copy here is consistent and known to be older than another one")
            })
        }),
        page: Page {
            happened: "This node left a Primary that went on, or was outdated by fencing or with 'tandemadm outdate'; or a resync was undone.",
            data: "The copy here is a consistent point in time, and old. The newest data is on the other node.",
            look: "    tandemadm show-gi r0\n    tandemadm status r0\non the other node.",
            act: "Connect to the node that has newer data; the resync follows by itself:\n    tandemadm connect r0\nIf that node is lost for good, and \
                  old data is better than none:\n    tandemadm primary --force r0",
            avoid: "Do not force while the other node may come back: what was written there since would be a split brain's loser.",
        },
    },
    Trouble {
        code: "T204",
        name: "not known whether the data is the newest",
        severity: Severity::Degraded,
        condition: Condition::Resource(|status| {
            let unsure = matches!(
                status.engine.disk,
                DiskState::Consistent | DiskState::Attaching | DiskState::Negotiating
            );
            let why = format!(
                "the disk is {}: the other node may have newer data, and has to be asked",
                status.engine.disk
            );
            (unsure && !is_refused(status)).then(|| reach_peers(status, &why))
        }),
        page: Page {
            happened: "The disk was attached while the other node cannot be asked, or that node was lost with fencing configured, or the \
                       conversation is under way.",
            data: "The copy is consistent. It may be the newest or not.",
            look: "    tandemadm status r0\non both nodes.",
            act: "Let them meet:\n    tandemadm connect r0\nIf the other node is certainly off and was not Primary after this one was lost to it, \
                  'tandemadm primary r0' runs the fence-peer handler and goes on.",
            avoid: "Do not force unless you know where the newest data is.",
        },
    },
    Trouble {
        code: "T205",
        name: "no disk here",
        severity: Severity::Degraded,
        condition: Condition::Resource(no_disk),
        page: Page {
            happened: "The disk had an I/O error, took longer than disk-timeout, or was given up with 'tandemadm detach'; or it could not be \
                       attached, since it is not there, cannot be opened, or has no meta-data of this node: then 'up' went no further. A \
                       Primary goes on through its peer.",
            data: "The peer has the data. There is no second copy until a disk is attached again and resynced.",
            look: "    tandemadm status --why r0\nhas the reason.\n    dmesg | tail -n 30\n    smartctl -a /dev/sdb\n    tail -n 50 /run/tandem/tandemd.log",
            act: "If the disk is sound after all, what it lacks is resynced:\n    tandemadm attach r0\nIf it was replaced:\n    tandemadm create-md \
                  r0\n    tandemadm attach r0\nand all of it is had from the peer. Where the node is StandAlone, 'tandemadm up r0' attaches and \
                  connects.",
            avoid: "Do not take the peer down, or disconnect it, while this node has no disk: it has the only copy.",
        },
    },
    Trouble {
        code: "T206",
        name: "no disk on the peer",
        severity: Severity::Degraded,
        condition: Condition::Peer(|status, peer| {
            let gone = matches!(peer.disk, DiskState::Diskless | DiskState::Failed);
            let why = format!("{}'s disk is {}: it failed, or was detached there", peer.name, peer.disk);
            let attach = format!("tandemadm attach {}", status.spec.name);
            gone.then(|| Sign::new(why).on(&peer.name, "dmesg | tail -n 30").on(&peer.name, attach))
        }),
        page: Page {
            happened: "The peer's disk had an I/O error, or was given up with 'tandemadm detach'.",
            data: "This node has the data, if its own disk is UpToDate. There is no second copy.",
            look: "On the peer:\n    dmesg | tail -n 30\n    tail -n 50 /run/tandem/tandemd.log",
            act: "On the peer, once its disk is sound or replaced (then after create-md):\n    tandemadm attach r0",
            avoid: "Do not take this node down: it has the only copy.",
        },
    },
    Trouble {
        code: "T207",
        name: "the peer's copy is not UpToDate",
        severity: Severity::Degraded,
        condition: Condition::Peer(peer_is_old),
        page: Page {
            happened: "The peer is connected, its copy is known to be old or incomplete, and no resync to it is under way.",
            data: "This node's copy counts. There is no second one that is as good.",
            look: "    tandemadm status r0\non the peer: why does its copy not count? A resync may wait for another resource.",
            act: "If no resync begins, connect anew, on the peer:\n    tandemadm disconnect r0\n    tandemadm connect r0\nor have all of it anew \
                  there:\n    tandemadm invalidate r0",
            avoid: "Do not promote the peer.",
        },
    },
];

/// What is here is being replaced, or will be after a pause.
fn is_target(status: &ResourceStatus) -> bool {
    let receives = |peer: &PeerStatus| {
        peer.replication.is_target()
            || matches!(peer.replication, ReplicationState::WFBitMapT | ReplicationState::Behind)
    };
    status.engine.peers.iter().any(receives)
}

/// Another trouble says why the nodes do not talk, and what to do first.
fn is_refused(status: &ResourceStatus) -> bool {
    status.engine.peers.iter().filter_map(Reason::of).any(|reason| reason.kind != Kind::Answer)
}

fn inconsistent(status: &ResourceStatus) -> Option<Sign> {
    let engine = &status.engine;
    let waits = is_target(status) || is_refused(status) || engine.generations.is_fresh();
    if engine.disk != DiskState::Inconsistent || waits {
        return None;
    }
    let sign =
        reach_peers(status, "the copy here is a mixture of old and new blocks, and nobody sends the rest");
    let undo =
        || format!("tandemadm down {0} && tandemadm resync-undo {0} && tandemadm up {0}", status.spec.name);
    Some(match status.spec.undo_log {
        Some(_) => sign.case("if the other node is lost for good", Place::Here, undo()),
        None => sign,
    })
}

fn peer_is_old(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let served = peer.replication.is_source()
        || peer.replication.is_target()
        || matches!(peer.replication, ReplicationState::WFBitMapS | ReplicationState::WFBitMapT)
        || matches!(peer.replication, ReplicationState::Ahead | ReplicationState::Behind);
    let old = (DiskState::Attaching..DiskState::UpToDate).contains(&peer.disk)
        && !matches!(peer.disk, DiskState::Diskless | DiskState::Failed);
    let fresh = status.engine.generations.is_fresh();
    // Where this node's does not count either, another trouble says what to do.
    let counts = status.engine.disk == DiskState::UpToDate;
    if peer.connection != ConnectionState::Connected || served || !old || fresh || !counts {
        return None;
    }
    let again = format!("tandemadm disconnect {0} && tandemadm connect {0}", status.spec.name);
    Some(
        Sign::new(format!("{}'s copy is {}, and no resync is under way", peer.name, peer.disk))
            .on(&peer.name, again),
    )
}

/// Commands that let this node meet those who may have better data.
fn reach_peers(status: &ResourceStatus, why: &str) -> Sign {
    let resource = &status.spec.name;
    let mut sign = Sign::new(why);
    for peer in &status.engine.peers {
        sign = match peer.connection {
            ConnectionState::StandAlone => sign.here(format!("tandemadm connect {resource}")),
            ConnectionState::Connected => sign.on(&peer.name, format!("tandemadm status {resource}")),
            _ => sign.on(&peer.name, format!("tandemadm up {resource}")),
        };
    }
    sign
}

fn no_disk(status: &ResourceStatus) -> Option<Sign> {
    let gone = matches!(status.engine.disk, DiskState::Diskless | DiskState::Failed);
    if !gone || status.engine.role == Role::Unknown {
        return None;
    }
    let resource = &status.spec.name;
    let disks: Vec<&PathBuf> = status.spec.volumes().map(|volume| &volume.disk).collect();
    let named = disks.iter().map(|disk| disk.display().to_string()).collect::<Vec<_>>().join(" or ");
    let failure = status.disk_failure.as_deref();
    let why = failure.map_or_else(|| format!("{named} failed, or was detached"), str::to_owned);
    let sign = Sign::new(format!("the disk is {}: {why}", status.engine.disk));
    let sign = match failure {
        Some(why) if LoadError::NotFound.to_string().starts_with(why) => {
            sign.here(listing("-f", &disks)).case(
                "only on a new disk, or if the other node has the data",
                Place::Here,
                format!("tandemadm create-md {resource}"),
            )
        }
        Some(why) if why.contains("create-md --force") => {
            sign.here(format!("tandemadm dump {resource}")).case(
                "only if all that is on this disk may be overwritten",
                Place::Here,
                format!("tandemadm create-md --force {resource}"),
            )
        }
        _ => sign.here(listing("-f", &disks)).here("dmesg | tail -n 30"),
    };
    let again = if ended_up(status) { "up" } else { "attach" };
    Some(sign.here(format!("tandemadm {again} {resource}")))
}

/// `up` came as far as the disk, and did not connect.
pub(super) fn ended_up(status: &ResourceStatus) -> bool {
    let alone = |peer: &PeerStatus| {
        peer.connection == ConnectionState::StandAlone && peer.standalone_reason.is_none()
    };
    let engine = &status.engine;
    status.disk_failure.is_some()
        && engine.disk == DiskState::Diskless
        && engine.role == Role::Secondary
        && engine.peers.iter().all(alone)
}
