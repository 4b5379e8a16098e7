//! Roles that change, also at a bad moment: named after the tests of DRBD's suite that they follow.

use tandem_core::config::Protocol;
use tandem_core::io::{ClientError, ClientOp, Command};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

use crate::scene::{PROMOTE, PROTOCOLS, connections, peer, read, roles, start_again, status, synced};

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
        let write = pair.begin_write(0, 4096, 2);
        let demotion = pair.begin_command(0, Command::Secondary);
        pair.deliver();
        assert!(pair.answered(write).unwrap().is_ok());
        pair.ended(demotion).unwrap().unwrap();
        pair.assert_in_sync();
        assert_eq!(peer(&pair, 1).role, Role::Secondary);
        assert_eq!((pair.nodes[1].disk.0[0], pair.nodes[1].disk.0[4096]), (1, 2));
    }
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
