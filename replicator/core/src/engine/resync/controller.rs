//! How fast a resync may go: a value that knows nothing but times and numbers of bytes.
//!
//! Two limits. The **window** bounds what the target has asked for and not written: as much as the link and both disks
//! keep moving, plus a queue of `c-delay-target`, so that an idle link is full and a client's write that comes now does
//! not wait longer than that. It is moved towards its goal every 100 ms, by a part that depends on `c-plan-ahead`. The
//! **pace** bounds bytes per second: `c-max-rate` always, `c-min-rate` while clients are at work.
//!
//! The target limits what it asks for, the source what it reads: either may be the one whose clients are at work.

use std::collections::VecDeque;

use super::REQUEST_BYTES;
use crate::config::ResyncOptions;
use crate::units::{BLOCK_BYTES, Timestamp};

/// Bytes a target may have asked for and not written: bounds the memory on both sides.
pub(super) const MAX_WINDOW_BYTES: u64 = 16 << 20;
/// Enough to fill a local network at once, and little enough not to choke a slow one.
const FIRST_WINDOW_BYTES: u64 = 4 << 20;
/// The window moves this often. A paced request is cut so that several fit into this time.
const STEP_MS: u64 = 100;

/// The target's side.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Controller {
    window_bytes: u64,
    pace: Pace,
    /// When what was asked for, and how much of it has not been answered; the sum is `outstanding_bytes`.
    asked: VecDeque<(Timestamp, u64)>,
    outstanding_bytes: u64,
    /// The shortest time from a request to its end: what an idle link takes.
    shortest_us: u64,
    step_began: Timestamp,
    answered_in_step_bytes: u64,
}

/// Whether the target may ask for more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::engine) enum Turn {
    /// Now, for at most this many bytes.
    Now(u64),
    /// At this time.
    At(Timestamp),
    /// When something that was asked for is written.
    WhenAnswered,
}

impl Controller {
    pub(in crate::engine) fn new(now: Timestamp) -> Self {
        Controller {
            window_bytes: FIRST_WINDOW_BYTES,
            pace: Pace::default(),
            asked: VecDeque::new(),
            outstanding_bytes: 0,
            shortest_us: u64::MAX,
            step_began: now,
            answered_in_step_bytes: 0,
        }
    }

    /// What the target may do at `now`. With nothing under way there is always a time at which it may ask.
    pub(in crate::engine) fn turn(
        &self,
        options: &ResyncOptions,
        now: Timestamp,
        clients_active: bool,
    ) -> Turn {
        let piece = piece_bytes(target_limit(options, clients_active));
        if self.outstanding_bytes > 0 && self.outstanding_bytes + piece > self.window_bytes {
            return Turn::WhenAnswered;
        }
        match self.pace.free_at {
            at if at > now => Turn::At(at),
            _ => Turn::Now(piece),
        }
    }

    /// The target has asked for this much.
    pub(in crate::engine) fn asked(
        &mut self,
        options: &ResyncOptions,
        now: Timestamp,
        clients_active: bool,
        bytes: u64,
    ) {
        self.pace.spend(now, bytes, target_limit(options, clients_active));
        self.asked.push_back((now, bytes));
        self.outstanding_bytes += bytes;
    }

    /// Something that was asked for has ended. What overtook an older request counts for that one.
    pub(in crate::engine) fn answered(&mut self, options: &ResyncOptions, now: Timestamp, bytes: u64) {
        self.outstanding_bytes = self.outstanding_bytes.saturating_sub(bytes);
        self.answered_in_step_bytes += bytes;
        let mut left = bytes;
        while let Some((asked_at, waiting)) = self.asked.front_mut().filter(|_| left > 0) {
            let part = left.min(*waiting);
            left -= part;
            *waiting -= part;
            if *waiting == 0 {
                self.shortest_us = self.shortest_us.min(now.0.saturating_sub(asked_at.0));
                self.asked.pop_front();
            }
        }
        let elapsed_us = now.0.saturating_sub(self.step_began.0);
        if elapsed_us >= STEP_MS * 1000 {
            self.move_window(options, elapsed_us);
            self.step_began = now;
            self.answered_in_step_bytes = 0;
        }
    }

    /// What the window lets through if every request takes as long as on an idle link and waits as long as it may, or the
    /// pace, if that is less; 0 while nothing is known.
    pub(super) fn wanted_bytes_per_s(&self, options: &ResyncOptions, clients_active: bool) -> u64 {
        let round_us = self.shortest_us.saturating_add(options.delay_target_ms.saturating_mul(1000)).max(1);
        let by_window = u128::from(self.window_bytes) * 1_000_000 / u128::from(round_us);
        let by_window = (self.shortest_us < u64::MAX).then_some(by_window.min(u128::from(u64::MAX)) as u64);
        [by_window, target_limit(options, clients_active)].into_iter().flatten().min().unwrap_or(0)
    }

    /// Bytes asked for and not written.
    pub(super) fn outstanding_bytes(&self) -> u64 {
        self.outstanding_bytes
    }

    /// Requests asked for and not written.
    pub(super) fn outstanding(&self) -> u64 {
        self.asked.len() as u64
    }

    fn move_window(&mut self, options: &ResyncOptions, elapsed_us: u64) {
        let goal = match options.fill_target_bytes {
            // What moves in the time that a request takes at best, and in the time that it may wait besides.
            0 if self.shortest_us < u64::MAX => {
                let us = u128::from(self.shortest_us) + u128::from(options.delay_target_ms) * 1000;
                let goal = u128::from(self.answered_in_step_bytes) * us / u128::from(elapsed_us);
                goal.min(u128::from(MAX_WINDOW_BYTES)) as u64
            }
            0 => self.window_bytes,
            fill => fill,
        };
        let goal = goal.clamp(REQUEST_BYTES, MAX_WINDOW_BYTES);
        let steps = (options.plan_ahead_ms / STEP_MS).max(1);
        if goal > self.window_bytes {
            self.window_bytes += (goal - self.window_bytes).div_ceil(steps);
        } else {
            self.window_bytes -= (self.window_bytes - goal).div_ceil(steps);
        }
    }
}

/// Spreads work over time. What was not used of the last step may be caught up.
#[derive(Clone, Default, Debug)]
pub(super) struct Pace {
    free_at: Timestamp,
}

impl Pace {
    /// More may be done from this time on.
    pub(super) fn free_at(&self) -> Timestamp {
        self.free_at
    }

    /// Notes that `bytes` are done under a limit, if there is one.
    pub(super) fn spend(&mut self, now: Timestamp, bytes: u64, limit_bytes_per_s: Option<u64>) {
        let Some(rate) = limit_bytes_per_s else { return };
        let took_us = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
        let from = self.free_at.max(Timestamp(now.0.saturating_sub(STEP_MS * 1000)));
        self.free_at = Timestamp(from.0.saturating_add(took_us.min(u128::from(u64::MAX)) as u64));
    }
}

/// What the source may read per second, if there is a limit.
pub(super) fn source_limit(options: &ResyncOptions, clients_active: bool) -> Option<u64> {
    Some(options.min_bytes_per_s).filter(|rate| clients_active && *rate > 0)
}

fn target_limit(options: &ResyncOptions, clients_active: bool) -> Option<u64> {
    let ceiling = match options.plan_ahead_ms {
        0 => Some(options.fixed_bytes_per_s),
        _ => Some(options.max_bytes_per_s).filter(|rate| *rate > 0),
    };
    [ceiling, source_limit(options, clients_active)].into_iter().flatten().min()
}

/// Bytes of a request: small enough that a slow pace is an even one.
fn piece_bytes(limit_bytes_per_s: Option<u64>) -> u64 {
    let even =
        limit_bytes_per_s.map_or(REQUEST_BYTES, |rate| rate * STEP_MS / 1000 / BLOCK_BYTES * BLOCK_BYTES);
    even.clamp(BLOCK_BYTES, REQUEST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that carries `bytes_per_s` after `delay_us`, and a target that asks as its controller allows.
    struct Link {
        controller: Controller,
        options: ResyncOptions,
        now: Timestamp,
        bytes_per_s: u64,
        delay_us: u64,
        free_at: u64,
        under_way: VecDeque<(u64, u64)>,
        moved_bytes: u64,
        longest_us: u64,
    }

    impl Link {
        fn new(bytes_per_s: u64, delay_us: u64, options: ResyncOptions) -> Link {
            let now = Timestamp(1_000_000);
            Link {
                controller: Controller::new(now),
                options,
                now,
                bytes_per_s,
                delay_us,
                free_at: 0,
                under_way: VecDeque::new(),
                moved_bytes: 0,
                longest_us: 0,
            }
        }

        /// Bytes per second over the time.
        fn run(&mut self, ms: u64, clients_active: bool) -> u64 {
            let end = self.now.plus_ms(ms);
            (self.moved_bytes, self.longest_us) = (0, 0);
            while self.now < end {
                let wake = match self.controller.turn(&self.options, self.now, clients_active) {
                    Turn::Now(bytes) => {
                        self.controller.asked(&self.options, self.now, clients_active, bytes);
                        let begin = self.free_at.max(self.now.0);
                        self.free_at = begin + bytes * 1_000_000 / self.bytes_per_s;
                        self.under_way.push_back((self.free_at + self.delay_us, bytes));
                        self.longest_us = self.longest_us.max(self.free_at + self.delay_us - self.now.0);
                        continue;
                    }
                    Turn::At(at) => Some(at.0),
                    Turn::WhenAnswered => None,
                };
                let answer = self.under_way.front().map(|(at, _)| *at);
                let next = wake.into_iter().chain(answer).min().expect("stalled");
                assert!(next > self.now.0 || answer == Some(next), "spins at {next}");
                self.now = Timestamp(next.max(self.now.0));
                while let Some((_, bytes)) = self.under_way.pop_front_if(|(at, _)| *at <= self.now.0) {
                    self.controller.answered(&self.options, self.now, bytes);
                    self.moved_bytes += bytes;
                }
            }
            self.moved_bytes * 1000 / ms
        }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn an_idle_link_is_filled_whatever_its_speed_and_length() {
        for bytes_per_s in [MIB, 12 * MIB, 118 * MIB, 1180 * MIB] {
            for delay_us in [200, 10_000] {
                let mut link = Link::new(bytes_per_s, delay_us, ResyncOptions::default());
                link.run(4_000, false);
                let rate = link.run(4_000, false);
                assert!(rate * 100 >= bytes_per_s * 90, "{rate} of {bytes_per_s} at {delay_us} us");
            }
        }
    }

    #[test]
    fn a_request_waits_no_longer_than_the_delay_target_asks() {
        let mut link = Link::new(40 * MIB, 1_000, ResyncOptions::default());
        link.run(6_000, false);
        link.run(2_000, false);
        // The queue, the request itself, and what the link takes.
        assert!(link.longest_us < 150_000, "{}", link.longest_us);
    }

    #[test]
    fn clients_at_work_slow_it_down_and_their_end_speeds_it_up() {
        let options = ResyncOptions { min_bytes_per_s: 5 * MIB, ..ResyncOptions::default() };
        let mut link = Link::new(100 * MIB, 500, options);
        link.run(3_000, false);
        link.run(500, true);
        let slow = link.run(3_000, true);
        assert!(slow.abs_diff(5 * MIB) < MIB / 2, "{slow}");
        link.run(1_000, false);
        assert!(link.run(1_000, false) > 90 * MIB);
    }

    #[test]
    fn without_a_floor_clients_do_not_matter() {
        let options = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
        let mut link = Link::new(100 * MIB, 500, options);
        link.run(3_000, true);
        assert!(link.run(1_000, true) > 90 * MIB);
    }

    #[test]
    fn a_limit_holds_and_is_even() {
        for rate in [1024, 250 * 1024, 10 * MIB] {
            let options = ResyncOptions { max_bytes_per_s: rate, ..ResyncOptions::default() };
            let mut link = Link::new(1000 * MIB, 100, options);
            link.run(10_000, false);
            let reached = link.run(40_000, false);
            assert!(reached.abs_diff(rate) * 100 <= rate * 10, "{reached}, not {rate}");
        }
    }

    #[test]
    fn without_a_plan_the_rate_is_fixed() {
        let options = ResyncOptions {
            plan_ahead_ms: 0,
            fixed_bytes_per_s: 2 * MIB,
            max_bytes_per_s: 0,
            ..ResyncOptions::default()
        };
        let mut link = Link::new(1000 * MIB, 100, options);
        link.run(2_000, false);
        assert!(link.run(10_000, false).abs_diff(2 * MIB) < MIB / 8);
    }

    #[test]
    fn the_fill_target_is_what_is_under_way() {
        let options = ResyncOptions { fill_target_bytes: 2 * MIB, ..ResyncOptions::default() };
        let mut link = Link::new(10 * MIB, 100, options);
        link.run(60_000, false);
        assert_eq!(link.controller.window_bytes, 2 * MIB);
    }
}
