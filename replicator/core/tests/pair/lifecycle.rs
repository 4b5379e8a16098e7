//! Connecting and leaving, roles that change, restarts: named after the tests of DRBD's suite that they follow.

use tandem_core::config::{Options, Protocol};
use tandem_core::io::{ClientError, ClientOp, Command, Payload};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::{PeerStatus, Status};
use tandem_core::units::{ByteRange, RequestId};
use tandem_core::wire::Message;

use crate::harness::{DISK_BYTES, Pair};

const PROTOCOLS: [Protocol; 3] = [Protocol::A, Protocol::B, Protocol::C];
const PROMOTE: Command = Command::Primary { force: false };

fn status(pair: &Pair, n: usize) -> Status {
    pair.nodes[n].engine.status(pair.now)
}

fn peer(pair: &Pair, n: usize) -> PeerStatus {
    status(pair, n).peers.remove(0)
}

fn roles(pair: &Pair) -> [Role; 2] {
    [status(pair, 0).role, status(pair, 1).role]
}

fn connections(pair: &Pair) -> [ConnectionState; 2] {
    [peer(pair, 0).connection, peer(pair, 1).connection]
}

/// Node 0 is Primary, both disks are UpToDate.
fn synced(protocol: Protocol) -> Pair {
    let mut pair = Pair::new(protocol);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
    pair
}

fn read(pair: &mut Pair, n: usize, offset: u64) -> u8 {
    pair.client(n, ClientOp::Read(ByteRange::new(offset, 4096))).unwrap()[0]
}

fn begin_write(pair: &mut Pair, n: usize, offset: u64, byte: u8) -> RequestId {
    let payload = Payload::new(vec![byte; 4096].into());
    pair.begin_client(n, ClientOp::Write { offset, payload, fua: false })
}

fn start_again(pair: &mut Pair, n: usize) {
    pair.attach(n).unwrap();
    pair.command(n, Command::Connect).unwrap();
}

#[test]
fn connect() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.write(0, 0, 1);
        pair.client(0, ClientOp::Flush).unwrap();
        pair.assert_in_sync();
        assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
        assert_eq!((peer(&pair, 1).role, peer(&pair, 0).role), (Role::Primary, Role::Secondary));
    }
}

#[test]
fn add_connect_delete() {
    let mut pair = synced(Protocol::C);
    for n in [0, 1, 0, 1] {
        pair.command(n, Command::Disconnect).unwrap();
        let refused = pair.command(n, Command::Disconnect).unwrap_err();
        assert_eq!(refused.to_string(), "State change failed: (-9) Can not disconnect a StandAlone device");
        pair.command(n, Command::Connect).unwrap();
        let refused = pair.command(n, Command::Connect).unwrap_err();
        assert_eq!(refused.to_string(), "Failure: (125) Device has a net-config (use disconnect first)");
        pair.assert_in_sync();
    }
}

#[test]
fn connect_no_volumes() {
    let mut pair = Pair::new(Protocol::C);
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    for n in 0..2 {
        assert_eq!(status(&pair, n).disk, DiskState::Diskless);
        assert_eq!(pair.command(n, PROMOTE).unwrap_err().exit_code(), 17);
        pair.command(n, Command::Secondary).unwrap();
    }
    pair.command(0, Command::Disconnect).unwrap();
    assert_eq!(peer(&pair, 0).connection, ConnectionState::StandAlone);
    assert_eq!(peer(&pair, 1).connection, ConnectionState::Connecting);
}

/// The link breaks at every step of coming together; nothing of the attempt lingers.
#[test]
fn connect_abort() {
    let steps: [fn(&Message) -> bool; 9] = [
        |m| matches!(m, Message::Options { .. }),
        |m| matches!(m, Message::Handshake(_)),
        |m| matches!(m, Message::BitmapChunk { .. }),
        |m| matches!(m, Message::BitmapEnd),
        |m| matches!(m, Message::ResyncRequest { .. }),
        |m| matches!(m, Message::ResyncData { .. }),
        |m| matches!(m, Message::ResyncWritten { .. }),
        |m| matches!(m, Message::ResyncDone),
        |m| matches!(m, Message::State { .. }),
    ];
    let mut pair = synced(Protocol::C);
    for (step, cut) in steps.into_iter().enumerate() {
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 4096 * step as u64, step as u8 + 1);
        pair.cut_at = Some(cut);
        pair.command(1, Command::Connect).unwrap();
        if pair.cut_at.take().is_none() {
            assert_eq!(connections(&pair), [ConnectionState::Connecting; 2], "step {step}");
        }
        pair.heal();
        pair.assert_in_sync();
        pair.write(0, 4096 * 20, step as u8);
        pair.assert_in_sync();
    }
}

/// The administrator changes his mind while the nodes are introducing themselves.
#[test]
fn del_path_during_connect() {
    let mut pair = synced(Protocol::C);
    for n in 0..2 {
        pair.command(0, Command::Disconnect).unwrap();
        pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
        pair.command(0, Command::Connect).unwrap();
        pair.command(n, Command::Disconnect).unwrap();
        assert_eq!(peer(&pair, n).connection, ConnectionState::StandAlone);
        pair.drop_held();
        pair.command(n, Command::Connect).unwrap();
        pair.assert_in_sync();
    }
}

/// Both leave at the same time; both learn of the other's leave too late.
#[test]
fn concurrent_disconnect() {
    let mut pair = synced(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::Goodbye));
    let leaving = [0, 1].map(|n| pair.begin_command(n, Command::Disconnect));
    pair.drop_held();
    for id in leaving {
        if let Some(Err(refused)) = pair.ended(id) {
            assert!(refused.to_string().contains("(-9)"), "{refused}");
        }
    }
    assert!(connections(&pair).contains(&ConnectionState::StandAlone));
    for n in 0..2 {
        // One of them may only have lost the other.
        let _ = pair.command(n, Command::Connect);
    }
    pair.assert_in_sync();
}

/// Connecting, leaving and promoting in every order that eight steps of a fixed dice give.
#[test]
fn stress_connect_and_2pc() {
    let mut dice: u32 = 1;
    let mut pair = synced(Protocol::C);
    for _ in 0..400 {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let n = (dice >> 16) as usize % 2;
        match (dice >> 20) % 5 {
            0 => drop(pair.command(n, Command::Disconnect)),
            1 => drop(pair.command(n, Command::Connect)),
            2 if connections(&pair) == [ConnectionState::Connected; 2] => drop(pair.command(n, PROMOTE)),
            3 => drop(pair.command(n, Command::Secondary)),
            _ => {
                if roles(&pair)[n] == Role::Primary {
                    pair.write(n, 4096 * u64::from(dice >> 24 & 15), dice as u8);
                }
            }
        }
        assert_ne!(roles(&pair), [Role::Primary; 2]);
    }
    for n in 0..2 {
        let _ = pair.command(n, Command::Connect);
    }
    pair.assert_in_sync();
}

/// The role goes to and fro in three ways; each time the data is there.
#[test]
fn switch_primaries() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        let mut primary = 0;
        for round in 0..12_u8 {
            pair.write(primary, 0, round);
            let next = 1 - primary;
            match round % 3 {
                0 => {
                    pair.command(primary, Command::Secondary).unwrap();
                    pair.command(next, PROMOTE).unwrap();
                }
                1 => {
                    pair.command(primary, Command::Secondary).unwrap();
                    pair.command(primary, Command::Disconnect).unwrap();
                    pair.command(next, PROMOTE).unwrap();
                    pair.command(primary, Command::Connect).unwrap();
                }
                _ => {
                    pair.crash(primary);
                    pair.command(next, PROMOTE).unwrap();
                    start_again(&mut pair, primary);
                }
            }
            primary = next;
            pair.assert_in_sync();
            assert_eq!(read(&mut pair, primary, 0), round);
        }
    }
}

/// Both ask at the same moment: not both get it, and one that asks again does.
#[test]
fn concurrent_promote() {
    let mut pair = synced(Protocol::C);
    pair.command(0, Command::Secondary).unwrap();
    pair.hold = Some(|m| matches!(m, Message::PromoteRequest { .. }));
    let asked = [0, 1].map(|n| pair.begin_command(n, PROMOTE));
    pair.deliver();
    let ended = asked.map(|id| pair.ended(id));
    assert!(ended.iter().all(Option::is_some), "somebody waits for ever: {ended:?}");
    assert_ne!(roles(&pair), [Role::Primary; 2]);
    if roles(&pair) == [Role::Secondary; 2] {
        pair.command(1, PROMOTE).unwrap();
    }
    pair.assert_in_sync();
}

/// Who asks while the old Primary is being demoted is refused, and gets it when that is over.
#[test]
fn concurrent_promote_demote() {
    let mut pair = synced(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::BarrierAck { .. }));
    pair.write(0, 0, 1);
    let demotion = pair.begin_command(0, Command::Secondary);
    assert!(pair.ended(demotion).is_none());
    let refused = pair.command(1, PROMOTE).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-1) Multiple primaries not allowed by config");
    pair.deliver();
    pair.ended(demotion).unwrap().unwrap();
    pair.command(1, PROMOTE).unwrap();
    assert_eq!(read(&mut pair, 1, 0), 1);
}

/// A promotion during the handshake ends before or after it; the nodes agree on who is Primary.
#[test]
fn promote_while_connecting() {
    for n in 0..2 {
        let mut pair = synced(Protocol::C);
        pair.command(0, Command::Secondary).unwrap();
        pair.command(0, Command::Disconnect).unwrap();
        pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
        pair.command(0, Command::Connect).unwrap();
        let asked = pair.begin_command(n, PROMOTE);
        pair.deliver();
        pair.ended(asked).expect("the promotion has ended").unwrap();
        pair.assert_in_sync();
        assert_eq!((roles(&pair)[n], peer(&pair, 1 - n).role), (Role::Primary, Role::Primary));
    }
}

/// Two Primaries meet, though nobody has written: both stand alone and say why.
#[test]
fn two_primaries_reject() {
    let mut pair = synced(Protocol::C);
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
    pair.command(1, PROMOTE).unwrap();
    pair.write(0, 0, 1);
    pair.write(1, 4096, 2);
    pair.heal();
    assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
    assert_eq!(roles(&pair), [Role::Primary; 2]);
    for n in 0..2 {
        assert!(peer(&pair, n).standalone_reason.is_some());
    }
    assert_eq!((read(&mut pair, 0, 0), read(&mut pair, 1, 4096)), (1, 2));
}

/// One that left a Primary knows that it is Outdated; only force makes it Primary.
#[test]
fn outdate() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!((status(&pair, 1).disk, peer(&pair, 0).disk), (DiskState::Outdated, DiskState::Outdated));
    pair.write(0, 0, 1);
    assert_eq!(pair.command(1, PROMOTE).unwrap_err().exit_code(), 17);
    pair.crash(1);
    pair.attach(1).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated, "it has forgotten");
    assert_eq!(pair.command(1, PROMOTE).unwrap_err().exit_code(), 17);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
}

/// Nobody reads or writes where the device is not Primary.
#[test]
fn a_secondary_serves_nobody() {
    let mut pair = synced(Protocol::C);
    let range = ByteRange::new(0, 4096);
    assert_eq!(pair.client(1, ClientOp::Read(range)), Err(ClientError::NotPrimary));
    let zero = ClientOp::Zero { range, unmap: true, fua: false };
    assert_eq!(pair.client(1, zero), Err(ClientError::NotPrimary));
    assert!(pair.nodes[1].engine.open("mount (pid 1)".into()).is_err());
}

/// The disk comes and goes while the nodes stay connected.
#[test]
fn toggle_disk() {
    let mut pair = synced(Protocol::C);
    for round in 1..=10_u8 {
        pair.command(1, Command::Detach).unwrap();
        assert_eq!((status(&pair, 1).disk, peer(&pair, 0).disk), (DiskState::Diskless, DiskState::Diskless));
        pair.write(0, 4096 * u64::from(round), round);
        pair.attach(1).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[4096 * usize::from(round)], round);
    }
}

/// A disk that is known to be old is attached while the nodes are connected.
#[test]
fn attach_while_connected_not_uptodate() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    pair.command(1, Command::Detach).unwrap();
    pair.write(0, 0, 1);
    pair.command(1, Command::Connect).unwrap();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    pair.write(0, 4096, 2);
    pair.attach(1).unwrap();
    pair.assert_in_sync();
    assert_eq!((pair.nodes[1].disk.0[0], pair.nodes[1].disk.0[4096]), (1, 2));
}

/// Everybody goes down and comes up in both orders; the data stays, nothing is resynced.
#[test]
fn down_and_up() {
    for first in 0..2 {
        let mut pair = synced(Protocol::C);
        pair.write(0, 0, 7);
        pair.command(0, Command::Secondary).unwrap();
        for n in [first, 1 - first] {
            // The other one's leave may have been enough.
            let _ = pair.command(n, Command::Disconnect);
            pair.command(n, Command::Detach).unwrap();
            pair.crash(n);
        }
        for n in [1 - first, first] {
            start_again(&mut pair, n);
        }
        pair.assert_in_sync();
        assert_eq!([peer(&pair, 0).received_bytes, peer(&pair, 1).received_bytes], [0, 0]);
        pair.command(1, PROMOTE).unwrap();
        assert_eq!(read(&mut pair, 1, 0), 7);
    }
}

/// The nodes lose power together and come back one after the other, in both orders.
#[test]
fn both_crash() {
    for protocol in PROTOCOLS {
        for first in 0..2 {
            let mut pair = synced(protocol);
            pair.write(0, 0, 1);
            pair.client(0, ClientOp::Flush).unwrap();
            pair.crash(0);
            pair.crash(1);
            start_again(&mut pair, first);
            start_again(&mut pair, 1 - first);
            pair.assert_in_sync();
            pair.command(first, PROMOTE).unwrap();
            assert_eq!(read(&mut pair, first, 0), 1);
        }
    }
}

/// A Primary that wrote nothing dies, and its successor too: no split brain comes of it.
#[test]
fn lost_primary_after_no_writes() {
    let mut pair = synced(Protocol::C);
    pair.crash(0);
    pair.command(1, PROMOTE).unwrap();
    pair.crash(1);
    start_again(&mut pair, 0);
    start_again(&mut pair, 1);
    pair.assert_in_sync();
}

/// A Primary's crash under load costs what was in flight, in either direction.
#[test]
fn resync_after_primary_crash() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.cut_at = Some(|m| matches!(m, Message::Write { .. }));
        pair.write(0, 0, 1);
        pair.crash(0);
        start_again(&mut pair, 0);
        pair.heal();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[0], 1, "the only copy of a completed write is at the old Primary");
    }
}

/// A fresh disk in the place of the old one is filled in full.
#[test]
fn recreate_node() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 4096 * 5, 5);
    pair.crash(1);
    pair.write(0, 4096 * 6, 6);
    pair.replace_disk(1, DISK_BYTES, 1);
    start_again(&mut pair, 1);
    pair.assert_in_sync();
    assert_eq!((pair.nodes[1].disk.0[4096 * 5], pair.nodes[1].disk.0[4096 * 6]), (5, 6));
}

/// Two disks that were made at the same time by two administrators are not taken for copies of each other.
#[test]
fn day0_uuid_diskful_primary() {
    let mut pair = Pair::new(Protocol::C);
    for n in 0..2 {
        pair.nodes[n].disk.0[..4096].fill(n as u8 + 1);
        pair.attach(n).unwrap();
        pair.command(n, Command::Primary { force: true }).unwrap();
        pair.write(n, 8192, n as u8);
        pair.command(n, Command::Secondary).unwrap();
    }
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
    assert_eq!((pair.nodes[0].disk.0[0], pair.nodes[1].disk.0[0]), (1, 2), "somebody's data is gone");
}

/// Data that was there before Tandem reaches the peer.
#[test]
fn pre_existing_data() {
    let mut pair = Pair::new(Protocol::C);
    pair.nodes[1].disk.0[4096..8192].fill(9);
    pair.attach(1).unwrap();
    pair.command(1, Command::Primary { force: true }).unwrap();
    pair.attach(0).unwrap();
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    pair.assert_in_sync();
    assert_eq!(pair.nodes[0].disk.0[4096], 9);
}

/// The source dies in the middle: its target is of no use to anybody, and is completed when the source returns.
#[test]
fn resync_interrupted_by_the_source() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    (0..40).for_each(|block| pair.write(0, 4096 * block, 1));
    pair.cut_at = Some(|m| matches!(m, Message::ResyncData { .. }));
    pair.command(1, Command::Connect).unwrap();
    pair.crash(0);
    assert_eq!(status(&pair, 1).disk, DiskState::Inconsistent);
    let refused = pair.command(1, PROMOTE).unwrap_err();
    assert_eq!(refused.exit_code(), 17);
    start_again(&mut pair, 0);
    pair.heal();
    pair.assert_in_sync();
}

/// The target dies in the middle: only what it lacks is sent again.
#[test]
fn resync_interrupted_by_the_target() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    (0..40).for_each(|block| pair.write(0, 4096 * block, 1));
    pair.cut_at = Some(|m| matches!(m, Message::ResyncDone));
    pair.command(1, Command::Connect).unwrap();
    pair.crash(1);
    start_again(&mut pair, 1);
    pair.heal();
    pair.assert_in_sync();
    let sent = peer(&pair, 1).received_bytes;
    assert!(sent <= 4096 * 40, "{sent} bytes were sent for 40 blocks");
}

/// Writing the same block again and again while the peer is away costs one block.
#[test]
fn resync_without_replication() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    (0..100).for_each(|version| pair.write(0, 4096 * 3, version));
    let received = peer(&pair, 1).received_bytes;
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(peer(&pair, 1).received_bytes - received, 4096);
}

/// What is zero is not sent as data.
#[test]
fn resync_discard() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 4096, 1);
    pair.command(1, Command::Disconnect).unwrap();
    let range = ByteRange::new(0, 64 << 10);
    pair.client(0, ClientOp::Zero { range, unmap: true, fua: false }).unwrap();
    let received = peer(&pair, 1).received_bytes;
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!((peer(&pair, 1).received_bytes - received, pair.nodes[1].disk.0[4096]), (0, 0));
}

/// A write to a block whose resync data is under way: the newest content wins on both nodes.
#[test]
fn write_during_resync() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 0, 1);
        pair.hold = Some(|m| matches!(m, Message::ResyncData { .. } | Message::Write { .. }));
        pair.command(1, Command::Connect).unwrap();
        let write = begin_write(&mut pair, 0, 0, 2);
        pair.deliver();
        assert!(pair.answered(write).unwrap().is_ok());
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[0], 2);
    }
}

/// Writes at the very end of a resync leave no block behind.
#[test]
fn brief_resync_oos() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        for round in 0..5_u8 {
            pair.command(1, Command::Disconnect).unwrap();
            pair.write(0, 0, round);
            pair.hold = Some(|m| matches!(m, Message::ResyncWritten { .. } | Message::ResyncDone));
            pair.command(1, Command::Connect).unwrap();
            let writes = [0, 4096].map(|offset| begin_write(&mut pair, 0, offset, round + 100));
            pair.deliver();
            assert!(writes.into_iter().all(|write| pair.answered(write).is_some()));
            pair.assert_in_sync();
        }
    }
}

/// The link breaks when nothing is left to be sent but the word that it is over: nothing is sent again.
#[test]
fn resync_missed_end_no_bits() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 1);
    pair.cut_at = Some(|m| matches!(m, Message::ResyncDone));
    pair.command(1, Command::Connect).unwrap();
    let received = peer(&pair, 1).received_bytes;
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(peer(&pair, 1).received_bytes, received);
    assert_eq!(peer(&pair, 0).replication, ReplicationState::Established);
}

/// The source of a resync becomes the target of the next.
#[test]
fn resync_source_becomes_target() {
    let mut pair = synced(Protocol::C);
    for round in 1..=4_u8 {
        let source = usize::from(round % 2);
        if roles(&pair)[source] == Role::Secondary {
            pair.command(1 - source, Command::Secondary).unwrap();
            pair.command(source, PROMOTE).unwrap();
        }
        pair.command(1 - source, Command::Disconnect).unwrap();
        pair.write(source, 4096 * u64::from(round), round);
        pair.command(1 - source, Command::Connect).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1 - source].disk.0[4096 * usize::from(round)], round);
    }
}

/// More writes than an epoch takes, all unanswered at once: every one of them completes.
#[test]
fn process_wakeup() {
    for protocol in PROTOCOLS {
        let mut pair = Pair::with_options(&Options { protocol, max_epoch_size: 20, ..Options::default() });
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.hold = Some(|m| {
            matches!(m, Message::WriteAck { .. } | Message::ReceiveAck { .. } | Message::BarrierAck { .. })
        });
        let writes: Vec<RequestId> =
            (0..300).map(|i| begin_write(&mut pair, 0, 4096 * (i % 100), i as u8)).collect();
        pair.deliver();
        assert!(writes.into_iter().all(|write| pair.answered(write).is_some_and(|done| done.is_ok())));
        pair.client(0, ClientOp::Flush).unwrap();
        pair.assert_in_sync();
    }
}

/// A role that changes between a node's handshake and the other's: both end with one view of it.
#[test]
fn uuid_send_receive_race() {
    for n in 0..2 {
        let mut pair = synced(Protocol::C);
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 0, 1);
        pair.command(0, Command::Disconnect).unwrap();
        pair.hold = Some(|m| matches!(m, Message::Handshake(_) | Message::State { .. }));
        for node in [n, 1 - n] {
            pair.command(node, Command::Connect).unwrap();
        }
        let write = begin_write(&mut pair, 0, 4096, 2);
        let demotion = pair.begin_command(0, Command::Secondary);
        pair.deliver();
        assert!(pair.answered(write).unwrap().is_ok());
        pair.ended(demotion).unwrap().unwrap();
        pair.assert_in_sync();
        assert_eq!(peer(&pair, 1).role, Role::Secondary);
        assert_eq!((pair.nodes[1].disk.0[0], pair.nodes[1].disk.0[4096]), (1, 2));
    }
}

/// Both get their disks at the same moment while they are connected.
#[test]
fn attach_concurrent() {
    for newest in 0..2 {
        let mut pair = synced(Protocol::C);
        if newest == 1 {
            pair.command(0, Command::Secondary).unwrap();
            pair.command(1, PROMOTE).unwrap();
        }
        pair.command(1 - newest, Command::Disconnect).unwrap();
        pair.write(newest, 0, 3);
        pair.crash(0);
        pair.crash(1);
        for n in 0..2 {
            pair.command(n, Command::Connect).unwrap();
        }
        pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
        for n in 0..2 {
            pair.attach(n).unwrap();
        }
        pair.deliver();
        pair.assert_in_sync();
        assert_eq!((pair.nodes[0].disk.0[0], pair.nodes[1].disk.0[0]), (3, 3));
    }
}

/// Again and again the link breaks in the middle of the same resync.
#[test]
fn resync_multiple_interrupt() {
    let steps: [fn(&Message) -> bool; 4] = [
        |m| matches!(m, Message::ResyncData { .. }),
        |m| matches!(m, Message::BitmapEnd),
        |m| matches!(m, Message::ResyncWritten { .. }),
        |m| matches!(m, Message::ResyncDone),
    ];
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    (0..100).for_each(|block| pair.write(0, 4096 * block, 1));
    pair.link_is_down = true;
    pair.command(1, Command::Connect).unwrap();
    for round in 0..12_u8 {
        pair.cut_at = Some(steps[usize::from(round) % steps.len()]);
        pair.heal();
        assert!(pair.link_is_down, "round {round} was not interrupted");
        pair.write(0, 4096 * u64::from(round), round + 2);
    }
    pair.heal();
    pair.assert_in_sync();
}

/// A target is nobody's source: it is refused the role while it lacks something, and gets it when it is complete.
#[test]
fn resync_target_promote() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 1);
    pair.command(0, Command::Secondary).unwrap();
    pair.hold = Some(|m| matches!(m, Message::ResyncData { .. }));
    pair.command(1, Command::Connect).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Inconsistent);
    let early = pair.begin_command(1, PROMOTE);
    if pair.ended(early).is_some_and(|promoted| promoted.is_ok()) {
        // Through the source it has good data, and shows nothing else.
        let read = pair.begin_client(1, ClientOp::Read(ByteRange::new(0, 4096)));
        pair.deliver();
        assert_eq!(pair.answered(read).unwrap().unwrap()[0], 1);
    } else {
        pair.deliver();
        let _ = pair.command(1, PROMOTE);
    }
    assert_eq!(roles(&pair)[1], Role::Primary);
    pair.assert_in_sync();
    assert_eq!(read(&mut pair, 1, 0), 1);
}
