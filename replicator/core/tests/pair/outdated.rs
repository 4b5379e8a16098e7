//! A peer that was known to be outdated comes back, and nothing comes of it: who has gone on without it still does.

use tandem_core::config::{Fencing, OnNoQuorum, Options, Protocol, Quorum, Votes};
use tandem_core::handler::Handler::FencePeer;
use tandem_core::handler::HandlerOutcome::Exited;
use tandem_core::io::{Command, Device};
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::wire::Message;

use crate::harness::{DISK_BYTES, Pair};
use crate::scene::{PROMOTE, connections, peer, start_again, status};

const STANDALONE: ConnectionState = ConnectionState::StandAlone;

fn quorum() -> Options {
    let quorum = Quorum { votes: Votes::Majority, on_loss: OnNoQuorum::SuspendIo, ..Quorum::default() };
    Options { quorum, ..Options::default() }
}

fn fencing() -> Options {
    Options { fencing: Fencing::ResourceAndStonith, ..Options::default() }
}

/// Node 1 has left in good order; node 0, Primary, has gone on without it.
fn left_alone(options: &Options) -> Pair {
    let mut pair = Pair::with_handlers(options, &[FencePeer]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 4096, 2);
    assert_eq!(peer(&pair, 0).disk, DiskState::Outdated);
    pair
}

/// The link is cut and stays so.
fn part(pair: &mut Pair) {
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
}

fn expect_to_go_on(pair: &mut Pair, byte: u8) {
    assert!(!status(pair, 0).suspended.any() && status(pair, 0).quorum);
    assert_eq!((peer(pair, 0).disk, pair.running(0)), (DiskState::Outdated, vec![]));
    pair.write(0, 4096, byte);
}

#[test]
fn the_peer_is_lost_before_it_was_told_anything() {
    for options in [quorum(), fencing()] {
        let mut pair = left_alone(&options);
        pair.slow_disk = Some((0, Device::Meta));
        pair.command(1, Command::Connect).unwrap();
        part(&mut pair);
        while pair.finish_slow() > 0 {}
        pair.slow_disk = None;
        expect_to_go_on(&mut pair, 3);
        pair.heal();
        pair.assert_in_sync();
    }
}

/// What it has made of our handshake is not known: it could count as UpToDate.
#[test]
fn the_peer_is_lost_with_our_handshake() {
    let mut pair = left_alone(&quorum());
    pair.slow_disk = Some((0, Device::Meta));
    pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
    pair.command(1, Command::Connect).unwrap();
    while pair.finish_slow() > 0 {}
    pair.slow_disk = None;
    pair.drop_held();
    part(&mut pair);
    assert_eq!(status(&pair, 0).suspended.to_string(), "quorum");
    pair.heal();
    pair.assert_in_sync();
}

#[test]
fn the_peer_was_renewed_and_is_lost() {
    for options in [quorum(), fencing()] {
        let mut pair = left_alone(&options);
        pair.command(1, Command::Connect).unwrap();
        pair.assert_in_sync();
        part(&mut pair);
        assert!(status(&pair, 0).suspended.any());
    }
}

/// Both come to the same refusal, of the disks.
#[test]
fn the_peer_is_refused_for_its_disk() {
    for options in [quorum(), fencing()] {
        let mut pair = left_alone(&options);
        pair.crash(1);
        pair.replace_disk(1, DISK_BYTES / 2, 1);
        start_again(&mut pair, 1);
        assert_eq!(connections(&pair), [STANDALONE; 2]);
        expect_to_go_on(&mut pair, 3);
    }
}

/// Both come to the same refusal, of the options.
#[test]
fn the_peer_is_refused_for_its_options() {
    let mut pair = left_alone(&quorum());
    pair.options.protocol = Protocol::A;
    pair.crash(1);
    start_again(&mut pair, 1);
    assert_eq!(connections(&pair), [STANDALONE; 2]);
    expect_to_go_on(&mut pair, 3);
}

#[test]
fn the_peer_comes_without_a_disk() {
    for options in [quorum(), fencing()] {
        let mut pair = left_alone(&options);
        pair.crash(1);
        pair.command(1, Command::Connect).unwrap();
        assert_eq!(peer(&pair, 0).disk, DiskState::Diskless);
        part(&mut pair);
        expect_to_go_on(&mut pair, 3);
        pair.heal();
        pair.attach(1).unwrap();
        pair.assert_in_sync();
        part(&mut pair);
        assert!(status(&pair, 0).suspended.any());
    }
}

/// It was made Primary by force: it is outdated no longer, whoever refuses it.
#[test]
fn the_peer_has_gone_on_as_well() {
    let mut pair = left_alone(&fencing());
    let promotion = pair.begin_command(1, Command::Primary { force: true });
    pair.end_handler(1, FencePeer, Exited(7));
    assert_eq!(pair.ended(promotion), Some(Ok(())));
    pair.write(1, 8192, 5);
    pair.command(1, Command::Connect).unwrap();
    assert_eq!(connections(&pair), [STANDALONE; 2]);
    assert_eq!(peer(&pair, 0).disk, DiskState::DUnknown);
}

/// The pause comes before the target has asked for anything; what the Primary waits for is that it has noted that it is one.
#[test]
fn a_paused_resync_freezes_nobody() {
    let mut both = fencing();
    both.quorum = quorum().quorum;
    for options in [quorum(), fencing(), both] {
        for pausing in 0..2 {
            let mut pair = Pair::with_handlers(&options, &[FencePeer]);
            pair.up();
            pair.command(0, Command::Primary { force: true }).unwrap();
            pair.write(0, 0, 1);
            pair.cut_at = Some(|m| matches!(m, Message::WriteAck { .. }));
            let write = pair.begin_write(0, 4096, 2);
            pair.command(pausing, Command::PauseSync).unwrap();
            assert!(status(&pair, 0).suspended.any() && !pair.completed(write));
            pair.heal();
            assert!(peer(&pair, 0).replication.is_source(), "{}", peer(&pair, 0).replication);
            assert!(!status(&pair, 0).suspended.any() && pair.completed(write));
            pair.write(0, 8192, 3);
            pair.command(pausing, Command::ResumeSync).unwrap();
            pair.assert_in_sync();
        }
    }
}

/// As with fencing: who gives its disk up while a Primary goes on has old data when it comes back.
#[test]
fn with_quorum_a_disk_that_is_given_up_is_outdated() {
    let mut pair = Pair::with_options(&quorum());
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Detach).unwrap();
    pair.write(0, 0, 1);
    pair.link_is_down = true;
    pair.crash(1);
    pair.attach(1).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated);
    pair.command(1, PROMOTE).unwrap_err();
    pair.command(1, Command::Connect).unwrap();
    pair.heal();
    pair.assert_in_sync();
}
