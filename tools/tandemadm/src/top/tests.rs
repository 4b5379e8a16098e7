//! What is on the screen in each state, and what the keys do.

use tandem_core::state::{ConnectionState, DiskState, ReplicationState};

use super::*;
use crate::fixture;
use crate::top::model::{Mode, Rates};

fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(model, frame)).unwrap();
    terminal.backend().to_string()
}

/// r0 is well, r1 sends a resync, r2 has lost its peer.
fn model() -> Model {
    let named = |name: &str| {
        let mut status = fixture::connected();
        status.spec.name = name.into();
        status.engine.resource = name.into();
        status
    };
    let (mut first, mut second, mut third) = (named("r0"), named("r1"), named("r2"));
    let peer = &mut second.engine.peers[0];
    (peer.replication, peer.disk) = (ReplicationState::SyncSource, DiskState::Inconsistent);
    let mut resync = fixture::resync(8 << 30, 5 << 30);
    resync.recent_bytes_per_s = 123_456 << 10;
    peer.resync = Some(resync);
    fixture::disconnect(&mut third, ConnectionState::Connecting);
    let mut model = Model::default();
    model.see(1000, Ok(vec![first.clone(), second.clone(), third.clone()]));
    first.engine.disk_written_bytes = 3 << 20;
    first.engine.peers[0].sent_bytes = 2 << 20;
    (first.engine.peers[0].pending, first.engine.peers[0].in_flight_bytes) = (3, 12 << 10);
    model.see(3000, Ok(vec![first, second, third]));
    model
}

#[test]
fn the_list_shows_who_lags_and_what_is_amiss() {
    insta::assert_snapshot!(screen(&model(), 150, 12));
}

/// What has no column there stands below.
#[test]
fn lag_and_throughput_are_to_be_seen_in_80_columns() {
    insta::assert_snapshot!(screen(&model(), 80, 14));
}

#[test]
fn the_details_say_what_to_do() {
    let mut model = model();
    for key in [Key::Down, Key::Down, Key::Down, Key::Enter] {
        assert!(!model.press(key));
    }
    assert_eq!((model.selected, model.mode), (2, Mode::Details));
    insta::assert_snapshot!(screen(&model, 110, 24));
    model.press(Key::Back);
    assert_eq!(model.mode, Mode::List);
}

#[test]
fn a_small_screen_follows_what_is_selected() {
    let mut model = model();
    model.press(Key::Down);
    model.press(Key::Down);
    insta::assert_snapshot!(screen(&model, 60, 6));
}

#[test]
fn help_is_a_key_away() {
    let mut model = model();
    model.press(Key::Help);
    insta::assert_snapshot!(screen(&model, 80, 14));
    model.press(Key::Help);
    assert_eq!(model.mode, Mode::List);
    assert!(model.press(Key::Quit));
}

#[test]
fn a_daemon_that_is_away_is_said_and_what_was_seen_stays() {
    let mut model = model();
    model.see(4000, Err("tandemd is not running (no answer on /run/tandem/control.sock)".into()));
    insta::assert_snapshot!(screen(&model, 110, 6));
    assert_eq!(model.resources.len(), 3);
    let again: Vec<_> = model.resources.iter().map(|row| row.status.clone()).collect();
    model.see(5000, Ok(again.clone()));
    // Its counters began anew: one look is not enough.
    assert_eq!((model.away.as_deref(), model.resources[0].rates), (None, None));
    model.see(6000, Ok(again));
    assert_eq!(model.resources[0].rates, Some(Rates::default()));
    model.see(7000, Ok(Vec::new()));
    assert_eq!(model.selected, 0);
}
