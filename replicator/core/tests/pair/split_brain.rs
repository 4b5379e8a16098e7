//! Split brain: found, told, and resolved by the administrator or by policy (drbd9-tests: split-brain,
//! revert-older-data).

use tandem_core::Input;
use tandem_core::config::{Options, Protocol, ResyncOptions, RrConflict};
use tandem_core::divergence::Divergence;
use tandem_core::handler::Handler;
use tandem_core::io::{Command, Resize};
use tandem_core::split_brain::{AfterSplitBrain, NoPrimary, OnePrimary, Outcome, TwoPrimaries};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::{ByteRange, NodeId};
use tandem_core::wire::Message;

use crate::harness::{DISK_BYTES, Pair};
use crate::primary;

/// In sync once, and apart now: alpha is Primary. With these options, but for what slows a resync down.
fn apart(options: Options) -> Pair {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    let handlers = [Handler::InitialSplitBrain, Handler::SplitBrain, Handler::PriLostAfterSb];
    let mut pair = Pair::with_handlers(&Options { resync, ..options }, &handlers);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    for n in [0, 1] {
        pair.command(n, Command::Disconnect).unwrap();
    }
    pair
}

/// Both have gone on: alpha, which was Primary, has written block 1; bravo blocks 2 and 3. Both are Secondary now.
fn diverged(after_split_brain: AfterSplitBrain) -> Pair {
    let mut pair = apart(Options { after_split_brain, ..Options::default() });
    primary(&mut pair, 1);
    pair.write(0, 4096, 1);
    pair.write(1, 2 * 4096, 2);
    pair.write(1, 3 * 4096, 3);
    for n in [0, 1] {
        pair.command(n, Command::Secondary).unwrap();
    }
    pair
}

fn meet(pair: &mut Pair) {
    for n in [0, 1] {
        pair.command(n, Command::Connect).unwrap();
    }
}

fn reason(pair: &Pair, n: usize) -> String {
    let status = pair.nodes[n].engine.status(pair.now);
    assert_eq!(status.peers[0].connection, ConnectionState::StandAlone);
    status.peers[0].standalone_reason.clone().unwrap()
}

/// The first bytes of blocks 1 to 3.
fn blocks(pair: &Pair, n: usize) -> [u8; 3] {
    [1, 2, 3].map(|block| pair.nodes[n].disk.0[block * 4096])
}

fn no_primary(no_primary: NoPrimary) -> AfterSplitBrain {
    AfterSplitBrain { no_primary, ..AfterSplitBrain::default() }
}

/// Simulator: seed 14903 B. Once the bitmaps have met, both count what either has written: the loser must remember that it
/// is one.
#[test]
fn a_decision_by_policy_stands_when_the_resync_breaks_off() {
    for by_changes in [NoPrimary::DiscardLeastChanges, NoPrimary::DiscardZeroChanges] {
        for crashes in [false, true] {
            let mut pair = diverged(no_primary(by_changes));
            // Both have written: that policy leaves it to the administrator.
            let discard_my_data = by_changes == NoPrimary::DiscardZeroChanges;
            pair.hold = Some(|m| matches!(m, Message::BitmapEnd));
            pair.command(0, Command::ConnectWith { discard_my_data, tentative: false }).unwrap();
            pair.command(1, Command::Connect).unwrap();
            pair.drop_held();
            pair.link_is_down = true;
            pair.cut();
            pair.settle();
            assert_eq!(pair.nodes[0].engine.status(pair.now).disk, DiskState::Outdated);
            if crashes {
                pair.crash(0);
                pair.attach(0).unwrap();
                pair.command(0, Command::Connect).unwrap();
            }
            pair.heal();
            pair.assert_in_sync();
            assert_eq!(blocks(&pair, 0), [0, 2, 3], "{by_changes:?}");
        }
    }
}

#[test]
fn both_sides_name_the_last_common_generation_and_what_each_has_written() {
    let mut pair = diverged(AfterSplitBrain::default());
    meet(&mut pair);
    let here =
        ["at most 4 KiB here (Secondary), 8 KiB on bravo", "at most 8 KiB here (Secondary), 4 KiB on alpha"];
    let common = |reason: &str| reason.split("generation ").nth(1).unwrap()[..16].to_owned();
    for n in [0, 1] {
        let reason = reason(&pair, n);
        assert!(reason.contains("Split-Brain detected but unresolved, dropping connection!"), "{reason}");
        assert!(reason.contains(here[n]), "{reason}");
        assert!(reason.contains("tandemadm connect --discard-my-data r0"), "{reason}");
    }
    assert_eq!(common(&reason(&pair, 0)), common(&reason(&pair, 1)));
    assert_eq!(pair.running(0), [Handler::InitialSplitBrain, Handler::SplitBrain]);
}

fn divergence(pair: &Pair, n: usize) -> Divergence {
    pair.nodes[n].engine.divergences(pair.now, 0).remove(0)
}

fn range(block: u64, blocks: u64) -> ByteRange {
    ByteRange::new(block * 4096, blocks * 4096)
}

#[test]
fn both_sides_know_what_either_has_written_and_who_was_primary() {
    let mut pair = diverged(AfterSplitBrain::default());
    meet(&mut pair);
    let [alpha, bravo] = [0, 1].map(|n| divergence(&pair, n));
    let [at_alpha, at_bravo] = [&alpha, &bravo].map(|d| d.meeting.clone().unwrap());
    assert!(at_alpha.complete && at_bravo.complete && at_alpha.bitmaps_tell);
    assert_eq!(at_alpha.common, at_bravo.common);
    assert_eq!((at_alpha.outcome, at_bravo.outcome), (Outcome::Unresolved, Outcome::Unresolved));
    assert_eq!((&at_alpha.there, &at_bravo.there), (&bravo.here, &alpha.here));
    assert_eq!([&alpha.here.ranges, &bravo.here.ranges], [&vec![range(1, 1)], &vec![range(2, 2)]]);
    assert_eq!(alpha.differing(), Some(vec![range(1, 3)]));
    assert_eq!([alpha.here.stayed_primary, bravo.here.stayed_primary], [true, false]);
}

/// Both have larger disks, and alpha has grown its volume while it was alone.
fn grown_apart(bytes: usize) -> Pair {
    let mut pair = diverged(AfterSplitBrain::default());
    pair.command(0, Command::Primary { force: false }).unwrap();
    (0..2).for_each(|n| pair.nodes[n].disk.0.resize(bytes, n as u8));
    let alone = Resize { assume_peer_has_space: true, ..Resize::default() };
    pair.command(0, Command::Resize(alone)).unwrap();
    pair.write(0, pair.nodes[0].engine.size_bytes() - 4096, 1);
    pair.command(0, Command::Secondary).unwrap();
    pair
}

/// A page of bits is not enough for the volume of one of them.
#[test]
fn a_side_that_has_grown_tells_of_more_blocks_than_the_other_has() {
    let mut pair = grown_apart(160 << 20);
    meet(&mut pair);
    let [alpha, bravo] = [0, 1].map(|n| divergence(&pair, n));
    for (n, known) in [&alpha, &bravo].into_iter().enumerate() {
        assert!(reason(&pair, n).contains("Split-Brain detected"), "{}", reason(&pair, n));
        assert!(known.meeting.as_ref().unwrap().complete);
        assert_eq!(known.volume_bytes, pair.nodes[n].engine.size_bytes());
    }
    // What bravo does not have it cannot lose.
    let differing = [alpha.differing(), bravo.differing()].map(Option::unwrap);
    assert_eq!(differing[0].last().unwrap().end(), alpha.volume_bytes);
    assert_eq!(differing[1], [range(1, 3)]);
}

#[test]
fn a_side_that_has_grown_wins_or_loses_and_both_are_as_large() {
    for loser in [0, 1] {
        let mut pair = grown_apart(DISK_BYTES + (256 << 10));
        let grown = pair.nodes[0].engine.size_bytes();
        meet(&mut pair);
        let winner = blocks(&pair, 1 - loser);
        pair.command(loser, Command::ConnectWith { discard_my_data: true, tentative: false }).unwrap();
        pair.command(1 - loser, Command::Connect).unwrap();
        pair.assert_in_sync();
        assert_eq!((blocks(&pair, loser), pair.nodes[1].engine.size_bytes()), (winner, grown));
    }
}

/// Whoever has found a split brain stands alone, whether it has heard all of the other or not.
#[test]
fn a_link_that_breaks_while_they_tell_leaves_both_alone() {
    for cut_at in [
        |m: &Message| matches!(m, Message::BitmapChunk { .. }),
        |m: &Message| matches!(m, Message::BitmapEnd),
        |m: &Message| matches!(m, Message::Refuse { .. }),
    ] {
        let mut pair = diverged(AfterSplitBrain::default());
        pair.cut_at = Some(cut_at);
        meet(&mut pair);
        for n in [0, 1] {
            assert!(reason(&pair, n).contains("Split-Brain detected"), "{}", reason(&pair, n));
            let complete = divergence(&pair, n).meeting.unwrap().complete;
            assert!(complete || divergence(&pair, n).differing().is_none());
        }
    }
}

#[test]
fn after_a_restart_only_the_own_side_is_known_and_after_the_end_nothing() {
    let mut pair = diverged(AfterSplitBrain::default());
    meet(&mut pair);
    pair.crash(0);
    pair.attach(0).unwrap();
    let alpha = divergence(&pair, 0);
    assert_eq!((alpha.meeting.clone(), &alpha.here.ranges), (None, &vec![range(1, 1)]));
    assert_ne!(alpha.here.parted_at, 0);
    pair.command(0, Command::ConnectWith { discard_my_data: true, tentative: false }).unwrap();
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    for n in [0, 1] {
        let known = divergence(&pair, n);
        assert_eq!((known.meeting, known.here.parted_at, known.here.changed_bytes), (None, 0, 0));
    }
}

#[test]
fn who_discards_its_data_receives_the_other_sides_alone() {
    for loser in [0, 1] {
        let mut pair = diverged(AfterSplitBrain::default());
        meet(&mut pair);
        let winner = blocks(&pair, 1 - loser);
        pair.command(loser, Command::ConnectWith { discard_my_data: true, tentative: false }).unwrap();
        pair.command(1 - loser, Command::Connect).unwrap();
        pair.assert_in_sync();
        assert_eq!(blocks(&pair, loser), winner);
        let received = pair.nodes[loser].engine.status(pair.now).peers[0].received_bytes;
        assert!(received <= 3 * 4096, "{received}");
    }
}

/// Once the loser has begun to take the winner's data, nothing else can come of it.
#[test]
fn an_interrupted_discard_goes_on_without_being_asked_again() {
    let mut pair = diverged(AfterSplitBrain::default());
    pair.cut_at = Some(|m| matches!(m, Message::ResyncWritten { .. }));
    pair.command(0, Command::ConnectWith { discard_my_data: true, tentative: false }).unwrap();
    pair.command(1, Command::Connect).unwrap();
    pair.crash(0);
    pair.attach(0).unwrap();
    pair.command(0, Command::Connect).unwrap();
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(blocks(&pair, 0), [0, 2, 3]);
}

#[test]
fn both_discarding_and_a_primary_discarding_are_refused() {
    let mut pair = diverged(AfterSplitBrain::default());
    for n in [0, 1] {
        pair.command(n, Command::ConnectWith { discard_my_data: true, tentative: false }).unwrap();
    }
    assert!(reason(&pair, 0).contains("incompatible discard-my-data settings"));
    assert_eq!([blocks(&pair, 0), blocks(&pair, 1)], [[1, 0, 0], [0, 2, 3]]);
    primary(&mut pair, 0);
    let refused =
        pair.command(0, Command::ConnectWith { discard_my_data: true, tentative: false }).unwrap_err();
    assert_eq!(refused.to_string(), "Failure: (123) --discard-my-data not allowed when primary.");
    assert_eq!(refused.exit_code(), 10);
}

/// DRBD's revert-older-data: without a split brain, the newer side may be given up too.
#[test]
fn newer_data_can_be_given_up_for_older() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 4096, 1);
    pair.command(0, Command::Disconnect).unwrap();
    pair.write(0, 4096, 9);
    pair.command(0, Command::Secondary).unwrap();
    pair.command(0, Command::ConnectWith { discard_my_data: true, tentative: false }).unwrap();
    pair.assert_in_sync();
    assert_eq!(blocks(&pair, 0)[0], 1);
}

#[test]
fn a_tentative_connection_answers_and_changes_nothing() {
    let mut pair = diverged(AfterSplitBrain::default());
    pair.command(1, Command::Connect).unwrap();
    let ask = |pair: &mut Pair, discard_my_data| {
        pair.command(0, Command::ConnectWith { discard_my_data, tentative: true }).unwrap();
        reason(pair, 0)
    };
    let answer = ask(&mut pair, false);
    assert!(answer.starts_with("dry-run connect: Would be refused: Split-Brain detected"), "{answer}");
    let answer = ask(&mut pair, true);
    let expected = "dry-run connect: Would become SyncTarget, doing a bitmap based resync of at most 12 KiB.";
    assert_eq!(answer, expected);
    assert_eq!([blocks(&pair, 0), blocks(&pair, 1)], [[1, 0, 0], [0, 2, 3]]);
    let peer = pair.nodes[1].engine.status(pair.now);
    assert_eq!((peer.disk, peer.peers[0].connection), (DiskState::UpToDate, ConnectionState::Connecting));
    pair.command(0, Command::ConnectWith { discard_my_data: true, tentative: false }).unwrap();
    pair.assert_in_sync();
    assert_eq!(blocks(&pair, 0), [0, 2, 3]);
}

#[test]
fn policies_without_a_primary() {
    // Who wins: alpha stayed Primary and wrote less.
    let cases = [
        (NoPrimary::DiscardYoungerPrimary, 0),
        (NoPrimary::DiscardOlderPrimary, 1),
        (NoPrimary::DiscardLeastChanges, 1),
        (NoPrimary::DiscardNode(NodeId(0)), 1),
        (NoPrimary::DiscardNode(NodeId(1)), 0),
    ];
    for (policy, winner) in cases {
        let mut pair = diverged(no_primary(policy));
        let kept = blocks(&pair, winner);
        meet(&mut pair);
        pair.assert_in_sync();
        assert_eq!(blocks(&pair, 1 - winner), kept, "{policy:?}");
    }
    let mut pair = diverged(no_primary(NoPrimary::DiscardZeroChanges));
    meet(&mut pair);
    assert!(reason(&pair, 1).contains("Split-Brain"), "both have written");
}

/// A node that crashed counts whole extents of its activity log. It may have written less than it seems, but not more.
#[test]
fn after_a_crash_the_count_of_changes_is_a_bound() {
    // Blocks that bravo writes, and who wins. Alpha has written one, and counts an extent of four.
    for (blocks_written, winner) in [(2, None), (5, Some(1))] {
        let after_split_brain = no_primary(NoPrimary::DiscardLeastChanges);
        let mut pair = apart(Options { after_split_brain, ..Options::default() });
        primary(&mut pair, 1);
        pair.write(0, 4096, 1);
        (0..blocks_written).for_each(|block| pair.write(1, (8 + block) * 4096, 2));
        pair.command(1, Command::Secondary).unwrap();
        pair.crash(0);
        pair.attach(0).unwrap();
        let alpha = divergence(&pair, 0).here;
        assert_eq!((alpha.changed_bytes, alpha.overcounted), (4 * 4096, true));
        meet(&mut pair);
        match winner {
            Some(_) => {
                pair.assert_in_sync();
                assert_eq!([0, 1].map(|n| pair.nodes[n].disk.0[8 * 4096]), [2, 2]);
                assert!(!divergence(&pair, 0).here.overcounted);
            }
            None => assert!(reason(&pair, 1).contains("Split-Brain")),
        }
    }
}

#[test]
fn policies_with_one_primary() {
    let policies =
        |no_primary, one_primary| AfterSplitBrain { no_primary, one_primary, ..AfterSplitBrain::default() };
    let least = NoPrimary::DiscardLeastChanges;
    // The Primary, the policies, and who wins. Bravo has written more.
    let cases = [
        (0, policies(NoPrimary::Disconnect, OnePrimary::DiscardSecondary), Some(0)),
        (1, policies(least, OnePrimary::DiscardSecondary), Some(1)),
        (0, policies(least, OnePrimary::Consensus), None),
        (1, policies(least, OnePrimary::Consensus), Some(1)),
        (0, policies(least, OnePrimary::CallPriLostAfterSb), Some(1)),
        (0, policies(least, OnePrimary::ViolentlyAs0p), Some(1)),
        (1, policies(least, OnePrimary::ViolentlyAs0p), Some(1)),
        (1, policies(least, OnePrimary::CallPriLostAfterSb), Some(1)),
        (1, policies(least, OnePrimary::Disconnect), None),
    ];
    for (role, policy, winner) in cases {
        let mut pair = diverged(policy);
        primary(&mut pair, role);
        let kept = winner.map(|winner| blocks(&pair, winner));
        meet(&mut pair);
        match kept {
            Some(kept) => {
                pair.assert_in_sync();
                assert_eq!([blocks(&pair, 0), blocks(&pair, 1)], [kept; 2], "{policy:?}");
            }
            None => assert!(reason(&pair, role).contains("Split-Brain"), "{policy:?}"),
        }
    }
}

/// Both are Primary; bravo has written more, and the policies make alpha give up.
fn two_primaries(two_primaries: TwoPrimaries) -> Pair {
    let policy = AfterSplitBrain {
        no_primary: NoPrimary::DiscardLeastChanges,
        two_primaries,
        ..AfterSplitBrain::default()
    };
    let mut pair = diverged(policy);
    primary(&mut pair, 0);
    primary(&mut pair, 1);
    pair
}

#[test]
fn a_primary_that_should_give_up_and_is_in_use_is_told_so() {
    let mut pair = two_primaries(TwoPrimaries::CallPriLostAfterSb);
    pair.nodes[0].engine.open("a client".into()).unwrap();
    meet(&mut pair);
    assert!(reason(&pair, 0).contains("This node should give up its data, and is Primary."));
    assert!(reason(&pair, 1).contains("The peer should give up its data, and is Primary."));
    assert!(pair.running(0).contains(&Handler::PriLostAfterSb));
    assert!(!pair.running(1).contains(&Handler::PriLostAfterSb));
    assert_eq!([blocks(&pair, 0), blocks(&pair, 1)], [[1, 0, 0], [0, 2, 3]]);
}

#[test]
fn a_primary_that_should_give_up_and_is_not_in_use_steps_down() {
    let mut pair = two_primaries(TwoPrimaries::CallPriLostAfterSb);
    meet(&mut pair);
    pair.assert_in_sync();
    assert_eq!([blocks(&pair, 0), blocks(&pair, 1)], [[0, 2, 3]; 2]);
    let roles = [0, 1].map(|n| pair.nodes[n].engine.status(pair.now).role);
    assert_eq!(roles, [Role::Secondary, Role::Primary]);
    assert!(!pair.running(0).contains(&Handler::PriLostAfterSb));
}

/// Where it is told to be violent, the clients are cut off first: under none of them does the data change.
#[test]
fn violence_cuts_the_clients_off_and_then_overwrites() {
    let mut pair = two_primaries(TwoPrimaries::ViolentlyAs0p);
    pair.nodes[0].engine.open("a client".into()).unwrap();
    meet(&mut pair);
    assert_eq!(pair.clients_dropped, [true, false]);
    assert_eq!(pair.nodes[0].engine.status(pair.now).role, Role::Primary);
    assert_eq!([blocks(&pair, 0), blocks(&pair, 1)], [[1, 0, 0], [0, 2, 3]]);
    let refused = pair.nodes[0].engine.open("another".into()).unwrap_err();
    assert!(refused.contains("stepping down"), "{refused}");
    pair.nodes[0].engine.close("a client");
    assert_eq!(pair.nodes[0].engine.deadline(), Some(pair.now));
    pair.feed(0, Input::Tick);
    pair.assert_in_sync();
    assert_eq!([blocks(&pair, 0), blocks(&pair, 1)], [[0, 2, 3]; 2]);
}

/// The other went on, was made Secondary, and meets a Primary that has not.
fn primary_with_old_data(rr_conflict: RrConflict) -> Pair {
    let mut pair = apart(Options { rr_conflict, ..Options::default() });
    pair.write(0, 4096, 7);
    pair.command(0, Command::Secondary).unwrap();
    primary(&mut pair, 1);
    meet(&mut pair);
    pair
}

/// DRBD's two-primaries-reject: rr-conflict says what becomes of it.
#[test]
fn a_primary_that_would_be_the_target_stands_alone_retries_or_is_made_to_step_down() {
    for stands_alone in [RrConflict::Disconnect, RrConflict::AutoDiscard] {
        let pair = primary_with_old_data(stands_alone);
        assert_eq!(reason(&pair, 1), "I shall become SyncTarget, but I am primary!");
    }
    let mut pair = primary_with_old_data(RrConflict::RetryConnect);
    let peer = |pair: &Pair| pair.nodes[1].engine.status(pair.now).peers[0].clone();
    let connection = |pair: &Pair| peer(pair).connection;
    assert_eq!(connection(&pair), ConnectionState::Unconnected);
    assert!(
        peer(&pair).standalone_reason.is_some_and(|reason| reason.starts_with("I shall become SyncTarget"))
    );
    let before = pair.now;
    pair.command(1, Command::Secondary).unwrap();
    pair.run_until(|pair| connection(pair) == ConnectionState::Connected);
    pair.assert_in_sync();
    assert!(pair.now.ms_since(before) <= 1000);
    assert_eq!(blocks(&pair, 1)[0], 7);

    let pair = primary_with_old_data(RrConflict::Violently);
    pair.assert_in_sync();
    assert_eq!(blocks(&pair, 1)[0], 7);
    assert_eq!(pair.nodes[1].engine.status(pair.now).role, Role::Secondary);
}

#[test]
fn who_waits_to_retry_can_be_disconnected() {
    let mut pair = primary_with_old_data(RrConflict::RetryConnect);
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!(pair.nodes[1].engine.status(pair.now).peers[0].connection, ConnectionState::StandAlone);
    assert_eq!(pair.nodes[1].engine.deadline(), None);
}

#[test]
fn peers_with_other_policies_are_refused_by_the_options_name() {
    let mut pair = diverged(AfterSplitBrain::default());
    pair.options.after_split_brain = no_primary(NoPrimary::DiscardZeroChanges);
    pair.crash(1);
    pair.attach(1).unwrap();
    meet(&mut pair);
    let text = "incompatible after-sb-0pri settings: after-sb-0pri is disconnect here and discard-zero-changes on bravo;";
    assert!(reason(&pair, 0).contains(text), "{}", reason(&pair, 0));
}
