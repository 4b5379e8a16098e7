//! How far the peer's clock is from this one's: asked of its tandemd, and reckoned as NTP does. The way there and the way back
//! are each at most the whole round trip, so that half of it bounds the error.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tandem_control::clock::{ANSWER_BYTES, Answer, QUESTION, now_us};

use super::Finding;
use super::network::dial;

const CHECK: &str = "clock";
const ROUNDS: usize = 5;
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// What happened first, nobody can tell any more from the logs of both nodes.
const FAR_US: u64 = 1_000_000;

/// Where the peer's clock stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Offset {
    /// Ahead of this node's, or behind it.
    pub(super) ahead_us: i64,
    /// By which that may be wrong.
    pub(super) within_us: u64,
}

impl Offset {
    /// A question that left and whose answer came at these times of this clock.
    pub(super) fn of(left_us: u64, answer: Answer, came_us: u64) -> Offset {
        let there = answer.received_us.wrapping_sub(left_us) as i64;
        let back = answer.sent_us.wrapping_sub(came_us) as i64;
        let took_there_us = answer.sent_us.saturating_sub(answer.received_us);
        let round_trip_us = came_us.saturating_sub(left_us).saturating_sub(took_there_us);
        Offset { ahead_us: i64::midpoint(there, back), within_us: round_trip_us.div_ceil(2) }
    }
}

/// The best of some rounds; nothing if it does not answer.
pub(super) fn measure(own: SocketAddr, peer: SocketAddr) -> Option<Offset> {
    let rounds = (0..ROUNDS).map_while(|_| ask(own, peer).ok());
    rounds.min_by_key(|offset| offset.within_us)
}

fn ask(own: SocketAddr, peer: SocketAddr) -> io::Result<Offset> {
    let (_, mut stream) = dial(own, peer)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let left_us = now_us();
    stream.write_all(&QUESTION)?;
    let mut answer = [0; ANSWER_BYTES];
    stream.read_exact(&mut answer)?;
    Ok(Offset::of(left_us, Answer::decode(answer), now_us()))
}

pub(super) fn judge(peer: &str, offset: Option<Offset>) -> Finding {
    let Some(Offset { ahead_us, within_us }) = offset else {
        return Finding::ok(
            CHECK,
            format!("how far {peer}'s clock is from this one's is not answered there"),
        );
    };
    let side = if ahead_us < 0 { "behind" } else { "ahead of" };
    let off_us = ahead_us.unsigned_abs();
    let what =
        format!("{peer}'s clock is {} {side} this node's, give or take {}", words(off_us), words(within_us));
    match off_us.saturating_sub(within_us) > FAR_US {
        true => Finding::warn(CHECK, format!("{what}: the logs of both nodes cannot be compared"))
            .todo("on the node whose clock is wrong: timedatectl set-ntp true"),
        false => Finding::ok(CHECK, what),
    }
}

fn words(us: u64) -> String {
    match us {
        0..10_000_000 => format!("{}.{:03} ms", us / 1000, us % 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}
