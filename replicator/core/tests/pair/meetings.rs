//! What goes wrong around a handshake: words that overtake each other, and what changes while it is under way.

use tandem_core::config::Protocol;
use tandem_core::io::{ClientOp, Command};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

use crate::scene::{PROTOCOLS, connections, peer, status, synced};

/// Both nodes lose their disks at once, and each hears of the other's loss when it has already said what it knows.
#[test]
fn both_disks_are_lost_before_a_handshake() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.write(0, 0, 1);
        pair.command(0, Command::Secondary).unwrap();
        pair.hold = Some(|m| matches!(m, Message::State { .. } | Message::Handshake(_)));
        for n in [1, 0] {
            pair.command(n, Command::ForceDetach).unwrap();
        }
        pair.deliver_first();
        pair.attach(1).unwrap();
        pair.attach(0).unwrap();
        pair.deliver();
        pair.assert_in_sync();
    }
}

/// The target's disk fails as soon as it is UpToDate, and the ack that says so overtakes both words.
#[test]
fn an_ack_that_overtakes_the_word_on_the_disk_is_the_last_word() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 0, 1);
        pair.hold = Some(|m| {
            matches!(
                m,
                Message::State { disk: DiskState::UpToDate | DiskState::Failed | DiskState::Diskless, .. }
                    | Message::ResyncDone
            )
        });
        pair.command(1, Command::Connect).unwrap();
        pair.disk_fails[1] = true;
        pair.begin_write(0, 4096, 2);
        for _ in 0..2 {
            assert_eq!(peer(&pair, 0).disk, DiskState::Failed);
            pair.deliver_first();
        }
        pair.deliver();
        assert_eq!(peer(&pair, 0).disk, DiskState::Diskless);
        pair.disk_fails[1] = false;
        pair.attach(1).unwrap();
        pair.assert_in_sync();
    }
}

/// Simulator: seed 42895 C. A peer that was about to be renewed when the Primary's disk failed has been sent a write, and
/// still lacks what came before.
#[test]
fn a_diskless_primary_does_not_rely_on_a_peer_that_was_to_be_its_target() {
    let mut pair = synced(Protocol::C);
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
    pair.write(0, 4096, 7);
    pair.hold = Some(|m| match m {
        Message::Handshake(h) => h.role == Role::Primary,
        Message::BitmapChunk { .. } | Message::BitmapEnd | Message::Write { .. } => true,
        Message::State { .. } | Message::Barrier { .. } => true,
        _ => false,
    });
    pair.heal();
    assert_eq!(peer(&pair, 0).replication, ReplicationState::WFBitMapS);
    pair.disk_fails[0] = true;
    let failed = pair.begin_write(0, 8192, 8);
    assert!(pair.answered(failed).is_some_and(|r| r.is_err()));
    pair.drop_held();
    pair.cut();
    pair.settle();
    assert_eq!(connections(&pair)[0], ConnectionState::StandAlone);
    assert!(pair.client(0, ClientOp::Read(ByteRange::new(4096, 4096))).is_err());
}

/// Simulator: seed 53844 A. The target is complete, and the Primary has not heard of it; what was sent since is lost.
#[test]
fn a_diskless_primary_does_not_rely_on_a_target_that_lacks_what_it_was_sent() {
    let mut pair = synced(Protocol::A);
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 4096, 7);
    pair.hold = Some(|m| match m {
        Message::State { disk, .. } => *disk == DiskState::UpToDate,
        Message::ResyncDone | Message::Write { .. } | Message::Barrier { .. } => true,
        _ => false,
    });
    pair.command(1, Command::Connect).unwrap();
    assert_eq!((peer(&pair, 0).disk, status(&pair, 1).disk), (DiskState::Inconsistent, DiskState::UpToDate));
    pair.write(0, 8192, 8);
    pair.command(0, Command::ForceDetach).unwrap();
    pair.drop_held();
    pair.cut();
    pair.settle();
    assert_eq!(connections(&pair)[0], ConnectionState::StandAlone);
}
