//! The states that the troubles are about.

use tandem_core::config::{
    CongestionOptions, Fencing, OnCongestion, OnNoData, OnNoQuorum, Options, Protocol, Quorum, Votes,
};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::split_brain::{AfterSplitBrain, NoPrimary, TwoPrimaries};
use tandem_core::wire::Message;

use super::harness::DISK_BYTES;
use super::world::{BLOCK, REST_MS, World};

/// A trouble as one node sees it.
pub(super) struct Scene {
    pub(super) code: &'static str,
    pub(super) what: &'static str,
    /// Where the status is asked for.
    pub(super) asked: usize,
    pub(super) world: fn() -> World,
    /// What the words of the case say that happens before its commands.
    pub(super) meanwhile: fn(&mut World, &str),
}

/// The others, and what tries them.
pub(super) const ELSEWHERE: &[(&str, &str)] = &[
    ("T001", "e2e attention: the daemon is killed"),
    ("T002", "there is no command but to look"),
    ("T003", "there is no command but to look"),
    ("T007", "the operator brings a disk back; then it is T004 or T006"),
    ("T106", "as T107: no secret is compared yet"),
    ("T108", "the operator installs a release; then it is T102"),
    ("T113", "core pair handlers: a handler that failed, and connect"),
    ("T114", "e2e daemon_faults: as after a crash"),
];

const ALPHA: usize = 0;
const BRAVO: usize = 1;

fn nothing(_: &mut World, _: &str) {}

fn scene(code: &'static str, what: &'static str, asked: usize, world: fn() -> World) -> Scene {
    Scene { code, what, asked, world, meanwhile: nothing }
}

fn meanwhile(scene: Scene, meanwhile: fn(&mut World, &str)) -> Scene {
    Scene { meanwhile, ..scene }
}

pub(super) fn scenes() -> Vec<Scene> {
    [not_up(), apart(), refused(), disks(), clients(), resyncs()].into_iter().flatten().collect()
}

fn synced() -> World {
    World::synced(Options::default())
}

fn not_up() -> Vec<Scene> {
    vec![
        scene("T004", "taken down", BRAVO, || {
            let mut world = synced();
            world.types(BRAVO, "tandemadm down r0");
            world.write(ALPHA, 2, 2, None);
            world
        }),
        scene("T005", "crashed as Primary", ALPHA, || {
            let mut world = synced();
            world.crash(ALPHA);
            world
        }),
        scene("T006", "a new disk in the place of another", BRAVO, || {
            let mut world = synced();
            world.types(BRAVO, "tandemadm down r0");
            world.empty_disk(BRAVO);
            world
        }),
    ]
}

/// Both have gone on: block 2 is alpha's, block 3 bravo's.
fn diverged(options: Options) -> World {
    let mut world = World::synced(options);
    world.part();
    world.write(ALPHA, 2, 2, Some(ALPHA));
    world.types(BRAVO, "tandemadm primary r0");
    world.write(BRAVO, 3, 3, Some(BRAVO));
    world
}

fn split_brain() -> World {
    let mut world = diverged(Options::default());
    world.meet();
    world
}

fn split_brain_of_a_secondary() -> World {
    let mut world = diverged(Options::default());
    world.types(BRAVO, "tandemadm secondary r0");
    world.meet();
    world
}

fn disconnected() -> World {
    let mut world = synced();
    world.types(ALPHA, "tandemadm disconnect r0");
    world.write(ALPHA, 2, 2, None);
    world
}

fn left() -> World {
    let mut world = synced();
    world.types(BRAVO, "tandemadm disconnect r0");
    world.write(ALPHA, 2, 2, None);
    world
}

fn apart() -> Vec<Scene> {
    vec![
        scene("T101", "two Primaries", ALPHA, split_brain),
        scene("T101", "two Primaries", BRAVO, split_brain),
        scene("T101", "a Primary and a Secondary", ALPHA, split_brain_of_a_secondary),
        scene("T101", "a Primary and a Secondary", BRAVO, split_brain_of_a_secondary),
        scene("T102", "left by the Primary", ALPHA, disconnected),
        scene("T102", "left by the Secondary", BRAVO, left),
        scene("T103", "the other has left", ALPHA, left),
        scene("T103", "the other has left", BRAVO, disconnected),
        scene("T103", "the other is down", ALPHA, || {
            let mut world = synced();
            world.types(BRAVO, "tandemadm down r0");
            world.write(ALPHA, 2, 2, None);
            world
        }),
    ]
}

fn unrelated() -> World {
    let mut world = World::not_up(Options::default());
    world.part();
    for n in [ALPHA, BRAVO] {
        world.types(n, "tandemadm up r0 && tandemadm primary --force r0");
        world.write(n, 1 + n as u64, 1 + n as u8, Some(n));
    }
    world.types(BRAVO, "tandemadm secondary r0");
    world.meet();
    world
}

/// bravo's disk has been replaced by a smaller one.
fn too_small() -> World {
    let mut world = synced();
    world.write(ALPHA, 120, 9, None);
    world.types(BRAVO, "tandemadm down r0");
    world.pair.replace_disk(BRAVO, DISK_BYTES / 4, 1);
    world.types(BRAVO, "tandemadm up r0");
    world.rest();
    world
}

fn more_room(world: &mut World, _: &str) {
    world.pair.nodes[BRAVO].disk.0.resize(DISK_BYTES, 0);
}

/// bravo was configured otherwise while it was down; alpha serves.
fn otherwise() -> World {
    let mut world = synced();
    world.pair.nodes[ALPHA].engine.open("mount of /srv".into()).unwrap();
    world.types(BRAVO, "tandemadm down r0");
    world.pair.options.protocol = Protocol::A;
    world.crash(BRAVO);
    world.types(BRAVO, "tandemadm up r0");
    world.write(ALPHA, 2, 2, None);
    world
}

/// Who was Primary is, with less than the other.
fn old_primary() -> World {
    let mut world = synced();
    for n in [ALPHA, BRAVO] {
        world.types(n, "tandemadm disconnect r0");
    }
    world.write(ALPHA, 2, 2, None);
    world.types(ALPHA, "tandemadm secondary r0");
    world.types(BRAVO, "tandemadm primary r0");
    world.meet_again();
    world
}

fn both_primary() -> World {
    let mut world = World::fresh(Options::default());
    world.types(ALPHA, "tandemadm primary --force r0");
    world.types(ALPHA, "tandemadm secondary r0");
    for n in [ALPHA, BRAVO] {
        world.types(n, "tandemadm down r0");
    }
    world.part();
    for n in [ALPHA, BRAVO] {
        world.types(n, "tandemadm up r0 && tandemadm primary r0");
    }
    world.meet();
    world
}

fn two_mixtures() -> World {
    let mut world = synced();
    world.types(ALPHA, "tandemadm secondary r0");
    world.part();
    for n in [ALPHA, BRAVO] {
        world.types(n, "tandemadm invalidate r0");
    }
    world.meet();
    world
}

/// alpha is Primary without a disk, and what it wrote is on bravo.
fn diskless() -> World {
    diskless_with(Options::default())
}

fn diskless_with(options: Options) -> World {
    let mut world = World::synced(options);
    world.types(ALPHA, "tandemadm detach r0");
    world.write(ALPHA, 2, 2, Some(BRAVO));
    world
}

/// It is not certain that bravo still has what it told alpha's clients.
fn crashed_under_a_diskless_primary() -> World {
    let mut world = diskless();
    world.crash(BRAVO);
    world.types(BRAVO, "tandemadm up r0");
    world.rest();
    world
}

fn refused() -> Vec<Scene> {
    let equal: fn(&mut World, &str) = |world, _| world.pair.options = world.configured.clone();
    vec![
        scene("T104", "two histories", ALPHA, unrelated),
        scene("T104", "two histories", BRAVO, unrelated),
        meanwhile(scene("T105", "the other's", ALPHA, too_small), more_room),
        meanwhile(scene("T105", "its own", BRAVO, too_small), more_room),
        meanwhile(scene("T107", "a serving Primary", ALPHA, otherwise), equal),
        meanwhile(scene("T107", "the other serves", BRAVO, otherwise), equal),
        scene("T109", "the other", ALPHA, old_primary),
        scene("T109", "this node", BRAVO, old_primary),
        scene("T110", "never written", ALPHA, both_primary),
        scene("T110", "never written", BRAVO, both_primary),
        scene("T111", "both given up", ALPHA, two_mixtures),
        scene("T112", "the other has crashed", ALPHA, crashed_under_a_diskless_primary),
        scene("T112", "this node has crashed", BRAVO, crashed_under_a_diskless_primary),
    ]
}

fn fresh() -> World {
    World::fresh(Options::default())
}

/// bravo has a new disk and is up without alpha.
fn new_disk_alone() -> World {
    let mut world = synced();
    for n in [BRAVO, ALPHA] {
        world.types(n, "tandemadm down r0");
    }
    world.empty_disk(BRAVO);
    world.types(BRAVO, "tandemadm create-md r0 && tandemadm up r0");
    world
}

/// bravo has lost its source, and stands alone.
fn half_a_target() -> World {
    let mut world = synced();
    world.pair.hold = Some(|message| matches!(message, Message::ResyncRequest { .. }));
    world.types(BRAVO, "tandemadm invalidate r0");
    world.part();
    world.pair.drop_held();
    world.write(ALPHA, 2, 2, None);
    world.types(BRAVO, "tandemadm disconnect r0");
    world.pair.link_is_down = false;
    world
}

fn fenced() -> Options {
    Options { fencing: Fencing::ResourceAndStonith, ..Options::default() }
}

fn disks() -> Vec<Scene> {
    vec![
        scene("T201", "connected", ALPHA, fresh),
        meanwhile(
            scene("T201", "a new disk, and the other is down", BRAVO, new_disk_alone),
            |world, case| {
                if case.contains("no other node has ever had data") {
                    world.dies(ALPHA);
                    world.give_up_all();
                }
            },
        ),
        scene("T202", "a target without its source", BRAVO, half_a_target),
        scene("T203", "it has left", BRAVO, left),
        scene("T204", "up alone", BRAVO, || {
            let mut world = World::synced(fenced());
            world.types(ALPHA, "tandemadm secondary r0");
            world.crash(ALPHA);
            world.crash(BRAVO);
            world.types(BRAVO, "tandemadm up r0");
            world
        }),
        scene("T205", "of a Primary", ALPHA, diskless),
        scene("T205", "of a Secondary", BRAVO, || {
            let mut world = synced();
            world.types(BRAVO, "tandemadm detach r0");
            world.write(ALPHA, 2, 2, None);
            world
        }),
        scene("T206", "of a Primary", BRAVO, diskless),
        meanwhile(
            scene("T207", "the other was given up, and they do not come to an agreement", ALPHA, || {
                let mut world = synced();
                world.pair.hold = Some(|message| matches!(message, Message::Handshake(_)));
                world.begins(BRAVO, "tandemadm invalidate r0");
                world
            }),
            lost_on_the_way,
        ),
    ]
}

fn quorum(on_loss: OnNoQuorum) -> Options {
    Options { quorum: Quorum { votes: Votes::Majority, on_loss, ..Quorum::default() }, ..Options::default() }
}

/// bravo has crashed, and a write waits.
fn waiting(options: Options) -> World {
    let mut world = World::synced(options);
    world.crash(BRAVO);
    world.write_that_waits(ALPHA, 2, 2);
    world
}

fn lost_for_good(world: &mut World, case: &str) {
    if case.contains("off") {
        world.dies(BRAVO);
    }
}

/// alpha's data has to give way, and is in use.
fn in_the_way() -> World {
    let mut world = synced();
    for n in [ALPHA, BRAVO] {
        world.types(n, "tandemadm disconnect r0");
    }
    world.types(BRAVO, "tandemadm primary r0");
    world.write(BRAVO, 2, 2, None);
    world.types(BRAVO, "tandemadm secondary r0");
    world.pair.nodes[ALPHA].engine.open("mount of /srv".into()).unwrap();
    world.meet_again();
    world
}

fn loses_by_policy() -> World {
    let after_split_brain = AfterSplitBrain {
        no_primary: NoPrimary::DiscardLeastChanges,
        two_primaries: TwoPrimaries::CallPriLostAfterSb,
        ..AfterSplitBrain::default()
    };
    let mut world = diverged(Options { after_split_brain, ..Options::default() });
    world.write(BRAVO, 4, 4, Some(BRAVO));
    world.pair.nodes[ALPHA].engine.open("mount of /srv".into()).unwrap();
    world.meet();
    world
}

fn clients() -> Vec<Scene> {
    vec![
        meanwhile(
            scene("T301", "the other is not reached", ALPHA, || {
                let mut world = diskless();
                world.part();
                world
            }),
            |world, case| match case.contains("no better copy comes back") {
                true => {
                    world.dies(BRAVO);
                    // What only it had is lost with it.
                    world.give_up(BRAVO);
                }
                false => world.meet(),
            },
        ),
        meanwhile(
            scene("T301", "the other has a new disk", ALPHA, || {
                let mut world = diskless();
                world.crash(BRAVO);
                world.empty_disk(BRAVO);
                world.types(BRAVO, "tandemadm create-md r0 && tandemadm up r0");
                world
            }),
            |world, _| world.give_up(BRAVO),
        ),
        meanwhile(
            scene("T301", "the other is not reached, and clients wait", ALPHA, || {
                let on_no_data = OnNoData::SuspendIo;
                let mut world = diskless_with(Options { on_no_data, ..Options::default() });
                world.part();
                world
            }),
            |world, case| match case.contains("no better copy comes back") {
                true => {
                    world.dies(BRAVO);
                    world.give_up(BRAVO);
                }
                false => world.meet(),
            },
        ),
        scene("T302", "connected", ALPHA, || {
            let mut world = synced();
            world.types(ALPHA, "tandemadm suspend-io r0");
            world.write_that_waits(ALPHA, 2, 2);
            world
        }),
        meanwhile(scene("T303", "the other has crashed", ALPHA, || waiting(fenced())), lost_for_good),
        meanwhile(
            scene("T304", "the other has crashed", ALPHA, || waiting(quorum(OnNoQuorum::SuspendIo))),
            lost_for_good,
        ),
        scene("T305", "a Secondary alone", BRAVO, || {
            let mut world = World::synced(quorum(OnNoQuorum::SuspendIo));
            world.crash(ALPHA);
            world
        }),
        scene("T306", "tandemd was started anew under a mounted file system", ALPHA, || {
            let mut world = synced();
            world.crash(ALPHA);
            world.types(ALPHA, "tandemadm up r0");
            world.device_open = Some(ALPHA);
            world
        }),
        scene("T307", "older data", ALPHA, in_the_way),
        meanwhile(
            scene("T307", "a split brain that a policy has decided", ALPHA, loses_by_policy),
            |world, _| world.give_up(ALPHA),
        ),
    ]
}

fn verified() -> World {
    let options = Options { verify_algorithm: Some(DigestAlgorithm::Sha256), ..Options::default() };
    let mut world = World::synced(options);
    world.pair.nodes[BRAVO].disk.0[5 * BLOCK as usize] ^= 1;
    world.types(ALPHA, "tandemadm verify r0");
    world
}

fn paused(n: usize) -> World {
    let mut world = synced();
    world.types(n, "tandemadm pause-sync r0");
    world.types(BRAVO, "tandemadm disconnect r0");
    world.write(ALPHA, 2, 2, None);
    world.types(BRAVO, "tandemadm connect r0");
    world
}

fn held() -> World {
    let mut world = left();
    world.pair.hold = Some(|message| matches!(message, Message::ResyncRequest { .. }));
    world.types(BRAVO, "tandemadm connect r0");
    world
}

fn let_go(world: &mut World, _: &str) {
    world.pair.deliver();
}

fn lost_on_the_way(world: &mut World, _: &str) {
    world.pair.drop_held();
}

fn congested() -> World {
    let congestion = CongestionOptions {
        policy: OnCongestion::PullAhead,
        fill_bytes: 8192,
        extents: 1237,
        send_buffer_bytes: 8192,
    };
    let mut world = World::synced(Options { protocol: Protocol::A, congestion, ..Options::default() });
    world.pair.hold = Some(|message| matches!(message, Message::BarrierAck { .. }));
    for block in 2..6 {
        world.write(ALPHA, block, 7, None);
    }
    world
}

fn resyncs() -> Vec<Scene> {
    vec![
        meanwhile(scene("T401", "a source", ALPHA, held), let_go),
        meanwhile(scene("T401", "a target", BRAVO, held), let_go),
        scene("T402", "here", ALPHA, || paused(ALPHA)),
        scene("T402", "on the other", ALPHA, || paused(BRAVO)),
        meanwhile(
            scene("T403", "a source", ALPHA, || {
                let mut world = held();
                (0..200_000 / REST_MS).for_each(|_| world.rest());
                world
            }),
            lost_on_the_way,
        ),
        scene("T404", "with a Primary", ALPHA, verified),
        scene("T404", "without", ALPHA, || {
            let mut world = verified();
            world.types(ALPHA, "tandemadm secondary r0");
            world
        }),
        meanwhile(scene("T405", "ahead", ALPHA, congested), let_go),
        meanwhile(scene("T405", "behind", BRAVO, congested), let_go),
    ]
}
