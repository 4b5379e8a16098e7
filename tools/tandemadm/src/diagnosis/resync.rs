//! T4xx: copies that are not equal yet, or not any more.

use tandem_control::ResourceStatus;
use tandem_core::state::{ConnectionState, ReplicationState, Role};
use tandem_core::status::PeerStatus;

use super::{Condition, Page, Place, Severity, Sign, Trouble};
use crate::progress;

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        code: "T401",
        name: "a resync is under way",
        severity: Severity::Degraded,
        condition: Condition::Peer(under_way),
        page: Page {
            happened: "The nodes have met, and the copy that lacks something is being brought up to date.",
            data: "The target's copy is of no use by itself until the resync has ended. The source has everything; clients go on.",
            look: "    tandemadm wait-sync r0\n    tandemadm status r0",
            act: "Wait. If it is too slow, or too fast for your clients: c-min-rate, c-max-rate and resync-rate in 'disk {}'; 'tandemadm options \
                  disk' explains them.",
            avoid: "Do not take the source down. Do not promote the target by force.",
        },
    },
    Trouble {
        code: "T402",
        name: "resyncs are paused",
        severity: Severity::Degraded,
        condition: Condition::Peer(paused),
        page: Page {
            happened: "Resyncs with this peer wait: because of 'tandemadm pause-sync' here (user) or on the peer (peer), or because another \
                       resource's comes first (dependency: 'resync-after').",
            data: "A copy that lacks something stays as it is. Writes of clients are replicated all the same.",
            look: "    tandemadm status r0\nsays who pauses, on both nodes.",
            act: "Where it was paused:\n    tandemadm resume-sync r0\nFor another resource there is nothing to do but wait for its resync.",
            avoid: "Do not forget it: while a copy is incomplete there is only one.",
        },
    },
    Trouble {
        code: "T403",
        name: "a resync is stalled",
        severity: Severity::Degraded,
        condition: Condition::Peer(|status, peer| {
            let stalled = peer.resync.as_ref().is_some_and(|resync| resync.stalled);
            let again = format!("tandemadm disconnect {0} && tandemadm connect {0}", status.spec.name);
            let why = "no progress for three minutes: the link, one of the disks or a handler hangs";
            let target = match peer.replication.is_target() {
                true => Place::Here,
                false => Place::On(peer.name.clone()),
            };
            let sign = Sign::new(why).here("dmesg | tail -n 30").case("then", target, again);
            (stalled && !is_paused(peer)).then_some(sign)
        }),
        page: Page {
            happened: "The resync has made no progress for three minutes.",
            data: "The target's copy is of no use by itself. The source has everything.",
            look: "    dmesg | tail -n 30\n    tail -n 50 /run/tandem/tandemd.log\non both nodes: does a disk hang, does the link lose packets, does a \
                   before-resync-target handler still run?",
            act: "Remove the cause. Connecting anew goes on where it was:\n    tandemadm disconnect r0\n    tandemadm connect r0",
            avoid: "Do not run invalidate: it begins from zero.",
        },
    },
    Trouble {
        code: "T404",
        name: "blocks are out of sync",
        severity: Severity::Degraded,
        condition: Condition::Peer(out_of_sync),
        page: Page {
            happened: "The nodes are connected, both copies count as UpToDate, and blocks are marked that differ: an online verify has found them.",
            data: "Clients are served from the Primary's disk. If that copy is the right one, nothing is lost; which is right Tandem cannot know. \
                   The cause is outside: somebody wrote to a backing disk, a disk or memory that flips bits, a controller that loses writes.",
            look: "Which blocks?\n    grep -i 'out of sync' /run/tandem/tandemd.log\n    smartctl -a /dev/sdb",
            act: "Let the Primary's copy count and repair the other:\n    tandemadm verify --repair r0\nWithout a Primary, name the node whose copy is \
                  right:\n    tandemadm verify --repair --from node1 r0\nThen verify again, and find the cause.",
            avoid: "Do not mount the backing disk on either node, not even read-only: ext4 and others replay their journal.",
        },
    },
    Trouble {
        code: "T405",
        name: "the peer cannot keep up",
        severity: Severity::Degraded,
        condition: Condition::Peer(|status, peer| {
            let (slow, why) = match peer.replication {
                ReplicationState::Ahead => {
                    (peer.name.as_str(), "this node is ahead: writes are marked, and not sent for now")
                }
                ReplicationState::Behind => (
                    status.spec.node.name.as_str(),
                    "this node is behind: the Primary does not send its writes for now",
                ),
                _ => return None,
            };
            let sign = Sign::new(format!("{why}; {slow} could not keep up"));
            Some(sign.here(format!("tandemadm wait-sync {}", status.spec.name)))
        }),
        page: Page {
            happened: "With 'on-congestion pull-ahead' the Primary goes on without a peer whose link or disk is too slow, and brings it up to date \
                       when the congestion is over.",
            data: "The Primary has everything. The peer has a consistent, older copy until the resync begins, and an inconsistent one during it.",
            look: "    tandemadm status r0",
            act: "Wait; it ends by itself. If it happens often, the link or the peer's disk is too slow for what is written: see congestion-fill, \
                  congestion-extents and sndbuf-size with 'tandemadm options net'.",
            avoid: "Do not count on the peer's copy for the last writes while this lasts.",
        },
    },
];

fn is_paused(peer: &PeerStatus) -> bool {
    let by = peer.resync_suspended;
    by.user || by.peer || by.dependency
}

fn under_way(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let stalled = peer.resync.as_ref().is_some_and(|resync| resync.stalled);
    if is_paused(peer) || stalled {
        return None;
    }
    let (from, to) = match peer.replication {
        ReplicationState::SyncSource | ReplicationState::WFBitMapS | ReplicationState::PausedSyncS => {
            (&status.spec.node.name, &peer.name)
        }
        ReplicationState::SyncTarget | ReplicationState::WFBitMapT | ReplicationState::PausedSyncT => {
            (&peer.name, &status.spec.node.name)
        }
        _ => return None,
    };
    let progress = progress::of_peer(peer).map_or(String::new(), |progress| format!(": {progress}"));
    let sign = Sign::new(format!("{from} sends {to} what it lacks{progress}"));
    Some(sign.here(format!("tandemadm wait-sync {}", status.spec.name)))
}

fn paused(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let (resource, by) = (&status.spec.name, peer.resync_suspended);
    let resume = format!("tandemadm resume-sync {resource}");
    let first = status.spec.resync_after.as_deref().unwrap_or("all");
    let reasons = [
        (by.user, "'tandemadm pause-sync' was run here".to_owned(), Place::Here, resume.clone()),
        (by.peer, format!("{} pauses them", peer.name), Place::On(peer.name.clone()), resume),
        (
            by.dependency,
            format!("{first}'s resync comes first"),
            Place::Here,
            format!("tandemadm wait-sync {first}"),
        ),
    ];
    let set: Vec<_> = reasons.into_iter().filter(|(set, ..)| *set).collect();
    let why: Vec<&str> = set.iter().map(|(_, why, ..)| why.as_str()).collect();
    let sign = Sign::new(why.join("; "));
    let sign = set.iter().fold(sign, |sign, (_, _, place, command)| match place {
        Place::Here => sign.here(command),
        Place::On(node) => sign.on(node, command),
    });
    is_paused(peer).then_some(sign)
}

fn out_of_sync(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let settled = peer.replication == ReplicationState::Established || peer.replication.is_verify();
    let both =
        [status.engine.disk, peer.disk].iter().all(|disk| *disk == tandem_core::state::DiskState::UpToDate);
    if peer.connection != ConnectionState::Connected || !settled || !both || peer.out_of_sync_bytes == 0 {
        return None;
    }
    let resource = &status.spec.name;
    let sign = Sign::new(format!("{} KiB differ between the copies, or may", peer.out_of_sync_bytes / 1024));
    if [status.engine.role, peer.role].contains(&Role::Primary) {
        return Some(sign.here(format!("tandemadm verify --repair {resource}")));
    }
    let [own, other] = [&status.spec.node.name, &peer.name].map(|node| {
        (format!("if {node}'s copy is right"), format!("tandemadm verify --repair --from {node} {resource}"))
    });
    Some(sign.case(own.0, Place::Here, own.1).case(other.0, Place::Here, other.1))
}
