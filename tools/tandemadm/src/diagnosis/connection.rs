//! T1xx: peers that are not connected.

use std::path::PathBuf;

use tandem_control::ResourceStatus;
use tandem_core::parting;
use tandem_core::state::{ConnectionState, Role};
use tandem_core::status::PeerStatus;

use super::reason::{Kind, Reason};
use super::{Condition, Page, Place, Severity, Sign, Trouble, disk, listing};

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        code: "T101",
        name: "split brain",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(split_brain),
        page: Page {
            happened: "The nodes lost each other, and both have been Primary since: each has written something that the other has not. \
                       When they met again they noticed, and both stand alone.",
            data: "There are two versions. Nothing was overwritten, and nothing will be until you decide. What is written from now on is \
                   in one of them only. Whichever version you give up, what was written to it since the nodes parted is lost, unless you \
                   save it.",
            look: "What each side has written since, where, and who was Primary when:\n    tandemadm split-brain show r0\nIf you cannot \
                   tell from that, look at the data: promote one side that is not in use, mount its device read-only.",
            act: "Decide whose data is kept, say node1's. First on node1:\n    tandemadm split-brain resolve r0 --keep node1\nThen on the \
                  other node, once nothing uses its data there:\n    tandemadm secondary r0\n    tandemadm split-brain resolve r0 --keep \
                  node1 --save /root/r0.given-up\n--save keeps what is about to be overwritten in a file, from which --restore can put it \
                  back. To have it noticed at once the next time, configure the handler split-brain; to not let it happen, fencing or quorum.",
            avoid: "Do not run 'primary --force' or create-md: neither resolves it. Do not let clients go on writing on both sides; the more \
                    they write, the more is lost.",
        },
    },
    Trouble {
        code: "T102",
        name: "disconnected",
        severity: Severity::Degraded,
        condition: Condition::Peer(stand_alone),
        page: Page {
            happened: "The connection is StandAlone: somebody ran 'tandemadm disconnect', or asked with 'connect --tentative', and no attempt \
                       to connect is made.",
            data: "Both copies are safe. What is written on a Primary is marked for the other node, and sent when it is connected again. \
                   If this node is Secondary, its copy grows old.",
            look: "    tandemadm cstate r0\n    tandemadm show-gi r0",
            act: "    tandemadm connect r0\non each node that stands alone.",
            avoid: "Do not promote the node whose copy is old: that is how a split brain begins.",
        },
    },
    Trouble {
        code: "T103",
        name: "the peer is not reached",
        severity: Severity::Degraded,
        condition: Condition::Peer(not_reached),
        page: Page {
            happened: "This node tries to connect, and the peer does not answer, or the connection has just been lost: the peer is down, its \
                       resource is not up, the network between them is cut, or a firewall drops the replication port.",
            data: "The copy here is safe. A Primary goes on and marks what the peer lacks, unless fencing or quorum says otherwise. There is no \
                   second copy that is as good until the peer is back.",
            look: "From here, whether the peer's address and port answer:\n    tandemadm doctor r0\nOn the peer:\n    tandemadm status r0\n    \
                   tail -n 50 /run/tandem/tandemd.log",
            act: "On the peer:\n    tandemadm up r0\nThey connect by themselves as soon as they can; the resync follows by itself. If the peer is \
                  StandAlone, 'tandemadm connect r0' there.",
            avoid: "Do not make the other node Primary while this one may be: nobody can tell them apart, and a split brain comes of it. Do not \
                    change the addresses on one node only.",
        },
    },
    Trouble {
        code: "T104",
        name: "unrelated data",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(|status, peer| {
            let (resource, node, other) = (&status.spec.name, &status.spec.node.name, &peer.name);
            let remake = format!(
                "tandemadm down {resource} && tandemadm create-md {resource} && tandemadm up {resource}"
            );
            let connect = format!("tandemadm connect {resource}");
            let sign = refused(peer, Kind::Unrelated)?;
            let sign = sign.here(format!("tandemadm show-gi {resource}"));
            Some(
                sign.case(format!("if {node}'s data is kept"), Place::On(other.clone()), remake.clone())
                    .here(&connect)
                    .case(format!("if {other}'s data is kept"), Place::Here, remake)
                    .on(other, connect),
            )
        }),
        page: Page {
            happened: "Both copies have a history, and no generation in common: they never belonged together, or the meta-data of one was made \
                       anew after both had been used. The nodes refuse to talk.",
            data: "Nothing was overwritten. Each node has the data that it had.",
            look: "    tandemadm show-gi r0\non both nodes, and whether the configuration names the right disks:\n    tandemadm dump r0",
            act: "If it is the wrong disk, correct the configuration. Otherwise decide whose data is kept; on the other node, all of whose data \
                  is then overwritten:\n    tandemadm down r0\n    tandemadm create-md r0\n    tandemadm up r0\nThen connect the node that is \
                  kept:\n    tandemadm connect r0",
            avoid: "Do not run create-md on both nodes: then nobody knows whose data counts.",
        },
    },
    Trouble {
        code: "T105",
        name: "the disks do not fit",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(disks_do_not_fit),
        page: Page {
            happened: "A disk is smaller than the data, or the volumes of the two nodes are not the same: a disk was replaced by a smaller one, \
                       or its configuration differs.",
            data: "Nothing was overwritten. The node with the room goes on alone.",
            look: "    lsblk -b\n    tandemadm dump r0\non both nodes. The meta-data lies on the disk as well, with 'meta-disk internal'.",
            act: "Give the smaller disk more room (lvextend, a larger disk), or correct the configuration; then, where it is StandAlone:\n    \
                  tandemadm connect r0\nA disk that was replaced needs 'tandemadm create-md r0' first.",
            avoid: "Do not shrink the other node's disk: what lies behind the end is lost.",
        },
    },
    Trouble {
        code: "T106",
        name: "the peer's identity is not proved",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(|status, peer| {
            Some(compare_configurations(refused(peer, Kind::Authentication)?, status, peer))
        }),
        page: Page {
            happened: "The nodes do not have the same secret, or only one of them asks for it; or somebody else has the peer's address.",
            data: "Both copies are safe, and nothing was sent.",
            look: "    tandemadm dump r0\non both nodes: shared-secret and cram-hmac-alg in 'net {}' must be equal.",
            act: "Make the configuration files equal, then on both nodes, while clients go on:\n    tandemadm adjust r0",
            avoid: "Do not take the secret out to be done with it: whoever has the peer's address could then be the peer.",
        },
    },
    Trouble {
        code: "T107",
        name: "the configurations differ",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(|status, peer| {
            Some(compare_configurations(refused(peer, Kind::Configuration)?, status, peer))
        }),
        page: Page {
            happened: "An option that must be equal on both nodes is not (the protocol, after-sb-*), or the nodes are numbered differently, or \
                       an address belongs to another resource.",
            data: "Both copies are safe, and nothing was sent.",
            look: "    tandemadm dump r0\non both nodes; the reason names the first option that differs.",
            act: "Make the configuration files equal, then on both nodes, on the one that serves last:\n    tandemadm adjust r0\nClients go on. \
                  What cannot change while the resource is up it names.",
            avoid: "Do not edit one node's file only.",
        },
    },
    Trouble {
        code: "T108",
        name: "the releases differ",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(|_, peer| {
            let sign = refused(peer, Kind::Releases)?;
            Some(sign.here("tandemadm --version").on(&peer.name, "tandemadm --version"))
        }),
        page: Page {
            happened: "The two nodes run releases of Tandem that have no protocol in common.",
            data: "Both copies are safe, and nothing was sent.",
            look: "    tandemadm --version\non both nodes.",
            act: "Install the same release on both, restart tandemd, first on the Secondary:\n    tandemadm up r0",
            avoid: "Do not go back to an older release than the one that last wrote the meta-data.",
        },
    },
    Trouble {
        code: "T109",
        name: "a Primary is in the way",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(primary_in_the_way),
        page: Page {
            happened: "The nodes met, and the data of one that is Primary would have to be replaced by the other's, which is newer. Data under \
                       a running client is never overwritten.",
            data: "The Primary works on an old version; the other node's is newer. Nothing was overwritten. What was written on the \
                   Primary meanwhile is lost once the newer data replaces it.",
            look: "    tandemadm show-gi r0\non both nodes.",
            act: "Stop what uses the device on the Primary (unmount it), then there:\n    tandemadm secondary r0\n    tandemadm connect r0\n\
                  and promote the node with the newer data.",
            avoid: "Do not force anything while the application runs: it has read the old data.",
        },
    },
    Trouble {
        code: "T110",
        name: "both nodes are Primary",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(|status, peer| {
            let resource = &status.spec.name;
            let connect = format!("tandemadm connect {resource}");
            let secondary = format!("tandemadm secondary {resource} && {connect}");
            let sign = refused(peer, Kind::BothPrimary)?;
            let [own, other] =
                [&status.spec.node.name, &peer.name].map(|node| format!("if {node} goes on serving"));
            let sign = sign.case(own, Place::On(peer.name.clone()), &secondary).here(&connect);
            Some(sign.case(other, Place::Here, &secondary).on(&peer.name, connect))
        }),
        page: Page {
            happened: "Both nodes are Primary, and their copies agree so far. Only one may be.",
            data: "Nothing is lost yet. From the first write on either side on they differ.",
            look: "    tandemadm status r0\non both nodes: which one has the device open?",
            act: "On the node that shall not serve:\n    tandemadm secondary r0\n    tandemadm connect r0\nand on the other 'tandemadm connect r0' \
                  if it is StandAlone.",
            avoid: "Do not start the application on the second node.",
        },
    },
    Trouble {
        code: "T111",
        name: "neither copy is whole",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(|status, peer| {
            let sign = refused(peer, Kind::NoSource)?;
            let [force, connect] =
                ["primary --force", "connect"].map(|verb| format!("tandemadm {verb} {}", status.spec.name));
            let undo = format!(
                "tandemadm down {0} && tandemadm resync-undo {0} && tandemadm up {0}",
                status.spec.name
            );
            let sign = match status.spec.undo_log {
                Some(_) => sign
                    .case("if this node was the target of a resync that broke off", Place::Here, undo)
                    .on(&peer.name, &connect),
                None => sign,
            };
            let better = |node: &str| format!("if {node}'s data is the better");
            Some(
                sign.case(better(&status.spec.node.name), Place::Here, &force)
                    .here(&connect)
                    .on(&peer.name, &connect)
                    .case(better(&peer.name), Place::On(peer.name.clone()), force)
                    .on(&peer.name, &connect)
                    .here(connect),
            )
        }),
        page: Page {
            happened: "Both disks are Inconsistent: each was the target of a resync that did not end, so each holds a mixture of old and new \
                       blocks.",
            data: "Neither copy can be trusted as it is. A third copy, a backup or an undo log is what you want.",
            look: "    tandemadm show-gi r0\n    tandemadm dstate r0\non both nodes: who was the target of which resync?",
            act: "With 'disk { resync-undo FILE; }' configured, on the node that was the target last:\n    tandemadm down r0\n    tandemadm \
                  resync-undo r0\n    tandemadm up r0\nOtherwise decide which copy is the better, make a copy of that disk, and there:\n    \
                  tandemadm primary --force r0\nCheck the file system or the database before anybody uses it. Then, on both nodes, where \
                  they stand alone:\n    tandemadm connect r0\nand the other copy is overwritten.",
            avoid: "Do not force before you have a copy of both disks: it cannot be undone.",
        },
    },
    Trouble {
        code: "T112",
        name: "the peer lacks what clients have seen",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(|status, peer| {
            let sign = refused(peer, Kind::DataNotThere)?;
            let verb = |verb: &str| format!("tandemadm {verb} {}", status.spec.name);
            let (own, other) = (Place::Here, Place::On(peer.name.clone()));
            let (primary, other) = match status.engine.role {
                Role::Primary => (own, other),
                _ => (other, own),
            };
            let when = "once the application is stopped, and the best disk that is left is in its place";
            let connect = verb("connect");
            let sign =
                sign.case(when, primary.clone(), verb("secondary")).case(when, primary.clone(), &connect);
            Some(sign.case(when, other, connect).case(when, primary, verb("attach")))
        }),
        page: Page {
            happened: "A Primary that has no disk works through its peer's copy. The peer came back with a copy of which nobody can say that it is \
                       the one that clients have worked with: it was restarted, or crashed, or has another disk.",
            data: "The Primary's clients may have seen newer data than the peer has, and could not be told that it has changed. If the peer has its \
                   former disk, everything that was made durable (flush, fsync) is on it. If it has another, the Primary's own disk is the best \
                   that is left: it lacks what was written since it was given up.",
            look: "    tandemadm show-gi r0\non both nodes.",
            act: "If the peer's former disk can be had, put it back. Stop the application and unmount; then on the Primary:\n    tandemadm secondary \
                  r0\n    tandemadm connect r0\non the peer, if it stands alone, connect as well; and on the first again\n    tandemadm attach \
                  r0\nThe copy that is older is brought up to date. If no copy is UpToDate then, 'tandemadm primary --force r0' where the better \
                  one is. Check the file system before anybody uses it.",
            avoid: "Do not promote the peer while the application still runs.",
        },
    },
    Trouble {
        code: "T113",
        name: "the connection was refused",
        severity: Severity::NeedsHand,
        condition: Condition::Peer(|status, peer| {
            let sign = refused(peer, Kind::Other).filter(|_| status.engine.role != Role::Unknown)?;
            Some(sign.here(format!("tandemadm connect {}", status.spec.name)))
        }),
        page: Page {
            happened: "One of the nodes does not talk to the other, for the reason that is given; a handler that failed is one. It stands alone \
                       until somebody says connect.",
            data: "Both copies are safe. What is written on a Primary is marked, and sent later.",
            look: "    tail -n 50 /run/tandem/tandemd.log\non both nodes.",
            act: "Remove the cause, then on each node that is StandAlone:\n    tandemadm connect r0",
            avoid: "Do not connect again and again without having read the reason.",
        },
    },
    Trouble {
        code: "T114",
        name: "the resource's thread has ended",
        severity: Severity::NeedsHand,
        condition: Condition::Resource(|status| {
            let resource = &status.spec.name;
            let sign = Sign::new("the thread in tandemd that drove it is gone; its clients' requests fail");
            let ended = status.engine.role == Role::Unknown;
            ended.then(|| {
                sign.here(format!("tandemadm down {resource}")).here(format!("tandemadm up {resource}"))
            })
        }),
        page: Page {
            happened: "A check inside tandemd failed, and it stopped this resource rather than go on with a state that cannot be. The others \
                       are not concerned.",
            data: "It is as after a crash of this node: nothing that was completed is lost, and the activity log says what may differ.",
            look: "    tail -n 100 /run/tandem/tandemd.log",
            act: "    tandemadm down r0\n    tandemadm up r0\nPlease report it, with the log.",
            avoid: "Do not write to the backing disk.",
        },
    },
];

/// The reason, if it is of this kind, as a sign without commands.
fn refused(peer: &PeerStatus, kind: Kind) -> Option<Sign> {
    let reason = Reason::of(peer).filter(|reason| reason.kind == kind)?;
    Some(Sign::new(reason.told(peer)))
}

fn split_brain(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let reason = Reason::of(peer).filter(|reason| reason.kind == Kind::SplitBrain)?;
    let (resource, own, other) = (&status.spec.name, &status.spec.node.name, &peer.name);
    let keeps = |keep: &str| format!("tandemadm split-brain resolve {resource} --keep {keep}");
    let gives_up = |keep: &str| format!("{} --save /root/{resource}.given-up", keeps(keep));
    let secondary = format!("tandemadm secondary {resource}");
    let stakes = stakes(&reason).map_or(String::new(), |stakes| format!(" ({stakes})"));
    let sign = Sign::new(format!(
        "both nodes have gone on without each other{stakes}; nothing changes until you decide"
    ));
    let sign = sign
        .here(format!("tandemadm split-brain show {resource}"))
        .case(format!("to keep {own}'s data"), Place::Here, keeps(own))
        .on(other, &secondary)
        .on(other, gives_up(own))
        .case(format!("to keep {other}'s data"), Place::On(other.clone()), keeps(other));
    let sign = if status.engine.role == Role::Primary { sign.here(secondary) } else { sign };
    Some(sign.here(gives_up(other)))
}

/// Who has written how much since, if the words are ours: the peer's "here" is not.
fn stakes(reason: &Reason) -> Option<&str> {
    let (_, told) = reason.text.split_once("written since: ")?;
    told.split_once(". ").map(|(stakes, _)| stakes).filter(|_| !reason.by_peer)
}

fn stand_alone(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let reason = Reason::of(peer);
    let silent = reason.as_ref().is_none_or(|reason| reason.kind == Kind::Answer);
    if peer.connection != ConnectionState::StandAlone || !silent || status.engine.role == Role::Unknown {
        return None;
    }
    if disk::ended_up(status) {
        return None;
    }
    let answer = reason.map_or(String::new(), |reason| format!(" ({})", reason.text));
    let why = format!(
        "it was disconnected, and nobody tries to connect to {} at {}{answer}",
        peer.name,
        address(status, peer)
    );
    Some(Sign::new(why).here(format!("tandemadm connect {}", status.spec.name)))
}

fn not_reached(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let trying = !matches!(peer.connection, ConnectionState::Connected | ConnectionState::StandAlone);
    if !trying || Reason::of(peer).is_some() {
        return None;
    }
    let (resource, name) = (&status.spec.name, &peer.name);
    let sign =
        Sign::new(format!("{name} does not answer at {} ({})", address(status, peer), peer.connection));
    Some(sign.on(name, format!("tandemadm up {resource}")).case(
        "if it is up there",
        Place::Here,
        format!("tandemadm doctor {resource}"),
    ))
}

fn disks_do_not_fit(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let reason = Reason::of(peer).filter(|reason| reason.kind == Kind::Sizes)?;
    let sign = Sign::new(reason.told(peer));
    let disks: Vec<&PathBuf> = status.spec.volumes().map(|volume| &volume.disk).collect();
    let connect = format!("tandemadm connect {}", status.spec.name);
    Some(match reason.means_here(parting::LOCAL_TOO_SMALL, parting::PEER_TOO_SMALL) {
        Some(true) => sign
            .here(listing("-b", &disks))
            .case("once there is more room", Place::Here, connect.clone())
            .on(&peer.name, connect),
        Some(false) => sign
            .on(&peer.name, format!("tandemadm dump {}", status.spec.name))
            .case("once there is more room", Place::On(peer.name.clone()), connect.clone())
            .here(connect),
        None => compare_configurations(sign, status, peer),
    })
}

fn primary_in_the_way(status: &ResourceStatus, peer: &PeerStatus) -> Option<Sign> {
    let reason = Reason::of(peer).filter(|reason| reason.kind == Kind::PrimaryInTheWay)?;
    let here = reason.means_here(parting::I_AM_PRIMARY, parting::PEER_IS_PRIMARY)?;
    let (primary, other) =
        if here { (&status.spec.node.name, &peer.name) } else { (&peer.name, &status.spec.node.name) };
    let [secondary, connect] =
        ["secondary", "connect"].map(|verb| format!("tandemadm {verb} {}", status.spec.name));
    let sign = Sign::new(format!("{primary} is Primary with older data than {other} has"));
    Some(match here {
        true => sign.here(secondary).here(&connect).on(other, connect),
        false => sign.on(primary, secondary).on(primary, &connect).here(connect),
    })
}

fn compare_configurations(sign: Sign, status: &ResourceStatus, peer: &PeerStatus) -> Sign {
    let resource = &status.spec.name;
    let adjust = format!("tandemadm adjust {resource}");
    sign.here(format!("tandemadm dump {resource}"))
        .on(&peer.name, format!("tandemadm dump {resource}"))
        .case("once they are equal", Place::On(peer.name.clone()), &adjust)
        .here(&adjust)
}

/// Where the peer should be.
fn address(status: &ResourceStatus, peer: &PeerStatus) -> String {
    let paths = status.spec.paths_to(peer.id).map(|path| path.remote.to_string()).collect::<Vec<_>>();
    if paths.is_empty() { "an unknown address".to_owned() } else { paths.join(" or ") }
}
