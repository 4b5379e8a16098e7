//! Commands that do not end at once: given up, answered late.

use tandem_core::Input;
use tandem_core::config::Protocol;
use tandem_core::io::Command;
use tandem_core::state::{DiskState, Role};
use tandem_core::units::Timestamp;
use tandem_core::wire::Message;

use crate::harness::Pair;

fn role(pair: &Pair, n: usize) -> Role {
    pair.nodes[n].engine.status(pair.now).role
}

/// A pair without a Primary, and a promotion of node 0 whose answer is kept back.
fn asking() -> (Pair, tandem_core::units::CommandId) {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(0, Command::Secondary).unwrap();
    pair.hold = Some(|m| matches!(m, Message::PromoteReply { .. }));
    let asked = pair.begin_command(0, Command::Primary { force: false });
    (pair, asked)
}

#[test]
fn the_answer_to_an_earlier_question_says_nothing() {
    let (mut pair, first) = asking();
    pair.feed(0, Input::CancelCommand { id: first });
    let refused = pair.ended(first).unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-23) Timeout in operation");
    let second = pair.begin_command(0, Command::Primary { force: false });
    pair.deliver_first();
    assert!(pair.ended(second).is_none());
    assert_eq!(role(&pair, 0), Role::Secondary);
    pair.deliver();
    pair.ended(second).unwrap().unwrap();
    assert_eq!(role(&pair, 0), Role::Primary);
}

#[test]
fn a_promotion_that_is_never_answered_ends() {
    let (mut pair, asked) = asking();
    let deadline = (0..100).find_map(|_| {
        pair.now = pair.nodes[0].engine.deadline()?;
        pair.feed(0, Input::Tick);
        pair.ended(asked)
    });
    assert_eq!(deadline.unwrap().unwrap_err().exit_code(), 11);
    assert!(pair.now >= Timestamp(0).plus_ms(30_000) && pair.now < Timestamp(0).plus_ms(40_000));
    pair.deliver();
    assert_eq!(role(&pair, 0), Role::Secondary);
}

#[test]
fn a_demotion_that_is_given_up_leaves_a_primary_that_serves() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.hold = Some(|m| matches!(m, Message::BarrierAck { .. }));
    pair.write(0, 0, 1);
    let demotion = pair.begin_command(0, Command::Secondary);
    assert!(pair.ended(demotion).is_none());
    pair.feed(0, Input::CancelCommand { id: demotion });
    pair.ended(demotion).unwrap().unwrap_err();
    pair.write(0, 4096, 2);
    pair.deliver();
    pair.assert_in_sync();
    assert_eq!((role(&pair, 0), pair.nodes[1].disk.0[4096]), (Role::Primary, 2));
}

#[test]
fn a_command_that_waits_for_its_turn_can_be_given_up() {
    let (mut pair, first) = asking();
    let second = pair.begin_command(0, Command::Detach);
    pair.feed(0, Input::CancelCommand { id: second });
    pair.ended(second).unwrap().unwrap_err();
    pair.deliver();
    pair.ended(first).unwrap().unwrap();
    assert_eq!(pair.nodes[0].engine.status(pair.now).disk, DiskState::UpToDate);
}
