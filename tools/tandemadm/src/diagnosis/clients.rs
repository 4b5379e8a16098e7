//! T3xx: clients that wait or fail, and devices that are in the way.

use tandem_control::ResourceStatus;
use tandem_core::config::OnNoQuorum;
use tandem_core::parting;
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::status::PeerStatus;

use super::reason::{Kind, Reason};
use super::{Condition, Page, Place, Severity, Sign, Trouble};

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        code: "T301",
        name: "no good data",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(no_good_data),
        page: Page {
            happened: "This node is Primary, its own copy is not UpToDate, and no peer with an UpToDate one is connected: the disk here failed or \
                       is being resynced, and the peer was lost.",
            data: "Clients' requests cannot be served: they fail, or wait with 'on-no-data-accessible suspend-io'. What was completed is on the disk that was lost or on the peer, wherever it is.",
            look: "    tandemadm status r0\nhere and on the peer.",
            act: "Bring back the peer; there:\n    tandemadm up r0\nRequests that wait go on by themselves. The disk here can be attached as soon as it is connected. If the peer is lost for good, \
                  what was written since the disk here was given up is lost with it. Requests that wait are let go, and fail, with\n    tandemadm resume-io r0\nStop the application, then on this node:\n    tandemadm \
                  secondary r0\n    tandemadm attach r0\n    tandemadm primary --force r0\nand check the file system before anybody uses it.",
            avoid: "Do not restart the application on another node before you know which copy is the newest. Do not force while a \
                    better one may come back.",
        },
    },
    Trouble {
        code: "T302",
        name: "suspended by hand",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(|status| {
            let sign = Sign::new("'tandemadm suspend-io' was run: clients' requests wait");
            let resume = format!("tandemadm resume-io {}", status.spec.name);
            status.engine.suspended.user.then(|| match status.engine.suspended.fencing {
                false => sign.here(resume),
                // It lets what waits for fencing go on, too.
                true => sign.case(certainly_off(status), Place::Here, resume),
            })
        }),
        page: Page {
            happened: "Somebody, or a script that makes snapshots, ran 'tandemadm suspend-io', and not yet 'resume-io'.",
            data: "Nothing is lost: requests wait, for as long as it takes. Applications seem to hang.",
            look: "    tandemadm status r0\n    ps -ef | grep suspend",
            act: "    tandemadm resume-io r0",
            avoid: "Do not kill the application because it hangs: that is what was asked for. Do not run resume-io while requests wait for \
                    fencing, too (T303), and the peer may be alive: a split brain comes of it.",
        },
    },
    Trouble {
        code: "T303",
        name: "waiting for fencing",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(|status| {
            let resource = &status.spec.name;
            let lost = lost_peers(status);
            let sign =
                Sign::new(format!("clients' requests wait until {} is fenced or back", lost.join(", ")));
            let sign = lost.iter().fold(sign, |sign, peer| sign.on(peer, format!("tandemadm up {resource}")));
            let resume = format!("tandemadm resume-io {resource}");
            status.engine.suspended.fencing.then(|| sign.case(certainly_off(status), Place::Here, resume))
        }),
        page: Page {
            happened: "The peer was lost, 'fencing resource-and-stonith' is configured, and the handler fence-peer has not succeeded: it is not \
                       configured, it failed, or it still runs.",
            data: "Nothing is lost: requests wait, so that no write is completed that the peer could contradict.",
            look: "How did the handler end?\n    tail -n 50 /run/tandem/tandemd.log\n    tandemadm dump r0",
            act: "Bring the peer back ('tandemadm up r0' there): requests go on once they have met. Or make certain that it is off, then\n    \
                  tandemadm resume-io r0\nCorrect the handler, so that it succeeds the next time.",
            avoid: "Do not run resume-io while the peer may be alive and promoted: a split brain comes of it.",
        },
    },
    Trouble {
        code: "T304",
        name: "waiting for quorum",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(|status| {
            let why = "too few nodes are reached: clients' requests wait for quorum";
            status.engine.suspended.quorum.then(|| reach(status, Sign::new(why)))
        }),
        page: Page {
            happened: "'quorum' or 'quorum-minimum-redundancy' requires more nodes than this one reaches, and 'on-no-quorum' is suspend-io.",
            data: "Nothing is lost: requests wait until there is quorum again.",
            look: "    tandemadm status r0\n    tandemadm dump r0",
            act: "Bring the other node back; on it:\n    tandemadm up r0\nRequests go on by themselves. If it is lost for good, take its part out of the \
                  configuration, or set 'quorum off;', and run\n    tandemadm adjust r0",
            avoid: "Do not switch quorum off while the other node may be alive and serve.",
        },
    },
    Trouble {
        code: "T305",
        name: "no quorum",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(|status| {
            let primary = status.engine.role == Role::Primary;
            let why = match (primary, status.spec.options.quorum.on_loss) {
                (true, OnNoQuorum::IoError) => "too few nodes are reached: clients' requests fail",
                (true, OnNoQuorum::SuspendIo) => "too few nodes are reached: what clients ask next will wait",
                (false, _) => "too few nodes are reached: this node cannot be promoted",
            };
            let lacks = !status.engine.quorum && !status.engine.suspended.quorum;
            lacks.then(|| reach(status, Sign::new(why)))
        }),
        page: Page {
            happened: "'quorum' or 'quorum-minimum-redundancy' requires more nodes than this one reaches.",
            data: "Nothing is lost. With 'on-no-quorum io-error' a Primary's clients get errors; a Secondary is not promoted, so that it cannot go on \
                   beside another.",
            look: "    tandemadm status r0\n    tandemadm dump r0",
            act: "Bring the other node back; on it:\n    tandemadm up r0",
            avoid: "Do not switch quorum off while the other node may be alive and serve.",
        },
    },
    Trouble {
        code: "T306",
        name: "a client waits, and nobody is Primary",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(waits_for_a_primary),
        page: Page {
            happened: "The device is open here, and this node is Secondary, as is the other as far as is known: tandemd was started anew under a \
                       mounted file system, or the node was demoted by force.",
            data: "Requests wait for this node to become Primary again, until device-timeout; then they fail.",
            look: "Who has it open?\n    fuser -vm /dev/drbd0\n    tandemadm status r0\nand whether the other node is, or was, Primary meanwhile.",
            act: "If the other node has not been Primary meanwhile:\n    tandemadm primary r0\nOtherwise stop what uses the device here and unmount it; it \
                  has old data in its caches. 'tandemadm secondary --force r0' lets its requests fail, if it hangs.",
            avoid: "Do not promote this node under a mounted file system if the other node has written: what the kernel has cached is not what is on \
                    the disk any more.",
        },
    },
    Trouble {
        code: "T307",
        name: "an open device refuses the demotion",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(held_open),
        page: Page {
            happened: "This node has to become Secondary, and cannot: somebody has the device open. Either 'tandemadm secondary' was refused (Device is \
                       held open by someone), or after a split brain, or with older data, this node should give way.",
            data: "Nothing was changed. What the clients write from now on may be what is given up later.",
            look: "    fuser -vm /dev/drbd0\n    lsblk\n    tandemadm status r0",
            act: "Stop the application, unmount, take LVM or multipath off it, then:\n    tandemadm secondary r0\nand where nodes stand alone:\n    \
                  tandemadm connect r0\nor, after a split brain, what T101 says. If what uses it hangs and cannot be stopped, every request fails at once with:\n    tandemadm secondary --force r0",
            avoid: "Do not use --force where an orderly unmount is possible: what was written last and not acknowledged may be lost.",
        },
    },
];

fn lost_peers(status: &ResourceStatus) -> Vec<String> {
    let lost = status.engine.peers.iter().filter(|peer| peer.connection != ConnectionState::Connected);
    lost.map(|peer| peer.name.clone()).collect()
}

fn reach(status: &ResourceStatus, sign: Sign) -> Sign {
    let up = format!("tandemadm up {}", status.spec.name);
    match lost_peers(status).as_slice() {
        // All are there: those who are have no good data.
        [] => sign.here(format!("tandemadm wait-sync {}", status.spec.name)),
        lost => lost.iter().fold(sign, |sign, peer| sign.on(peer, &up)),
    }
}

fn no_good_data(status: &ResourceStatus) -> Option<Sign> {
    let engine = &status.engine;
    let good =
        |peer: &PeerStatus| peer.connection == ConnectionState::Connected && peer.disk == DiskState::UpToDate;
    if engine.role != Role::Primary || engine.disk == DiskState::UpToDate || engine.peers.iter().any(good) {
        return None;
    }
    let resource = &status.spec.name;
    let waits = engine.suspended.no_data;
    let sign = Sign::new(format!(
        "the disk is {}, and no peer has UpToDate data: clients' requests {}",
        engine.disk,
        if waits { "wait for one" } else { "fail" }
    ));
    let lost = lost_peers(status);
    let sign = lost.iter().fold(sign, |sign, peer| sign.on(peer, format!("tandemadm up {resource}")));
    let gone = engine.disk <= DiskState::Failed;
    let sign = match gone && !lost.is_empty() {
        true => sign.here(format!("tandemadm wait-connect {resource} && tandemadm attach {resource}")),
        false => sign,
    };
    Some(match gone {
        // With no good peer it is refused on a Primary.
        true => ["resume-io", "secondary", "attach", "primary --force"][usize::from(!waits)..].iter().fold(
            sign,
            |sign, verb| {
                let lost = "if no better copy comes back, the application stopped";
                sign.case(lost, Place::Here, format!("tandemadm {verb} {resource}"))
            },
        ),
        false => sign,
    })
}

fn certainly_off(status: &ResourceStatus) -> String {
    format!("only if it is certain that {} is off", lost_peers(status).join(", "))
}

fn waits_for_a_primary(status: &ResourceStatus) -> Option<Sign> {
    let engine = &status.engine;
    let elsewhere = engine.peers.iter().any(|peer| peer.role == Role::Primary);
    if engine.role != Role::Secondary || engine.openers.is_empty() || elsewhere {
        return None;
    }
    let why = format!("the device is open ({}), and this node is Secondary", engine.openers.join(", "));
    let lost = lost_peers(status);
    let (resource, primary) = (&status.spec.name, format!("tandemadm primary {}", status.spec.name));
    let sign =
        lost.iter().fold(Sign::new(why), |sign, peer| sign.on(peer, format!("tandemadm role {resource}")));
    Some(match lost.is_empty() {
        true => sign.here(primary),
        false => sign.case(
            format!("only if {} is not Primary and was not meanwhile", lost.join(", ")),
            Place::Here,
            primary,
        ),
    })
}

fn held_open(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let engine = &status.engine;
    let reason = Reason::of(peer)?;
    let here = match reason.kind {
        Kind::PrimaryInTheWay => reason.means_here(parting::I_AM_PRIMARY, parting::PEER_IS_PRIMARY)?,
        // "This node should give up its data", or "The peer should".
        Kind::SplitBrain => {
            reason.means_here("This node should give up its data", "The peer should give up its data")?
        }
        _ => false,
    };
    if !here || engine.role != Role::Primary || engine.openers.is_empty() {
        return None;
    }
    let (resource, winner) = (&status.spec.name, &peer.name);
    let why = format!("{winner}'s data wins, and the device is open here ({})", engine.openers.join(", "));
    let sign = Sign::new(why)
        .here(format!("fuser -vm {}", status.spec.volume.device.display()))
        .here(format!("tandemadm secondary {resource}"));
    let connect = format!("tandemadm connect {resource}");
    let keep = format!("tandemadm split-brain resolve {resource} --keep {winner}");
    Some(match reason.kind {
        Kind::SplitBrain => {
            let save = format!("{keep} --save /root/{resource}.given-up");
            sign.on(winner, keep).here(save)
        }
        _ => sign.here(&connect).on(winner, connect),
    })
}
