//! What may happen to two nodes. Everything ends before the next thing begins.

use super::pair::Point;

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A client of this node writes.
    Write(usize),
    /// A client of this node reads.
    Read(usize),
    /// A client of this node flushes.
    Flush(usize),
    /// The node is promoted.
    Promote(usize),
    /// The node is promoted, whatever its data is worth.
    Force(usize),
    /// The node is demoted.
    Demote(usize),
    /// The administrator disconnects the node.
    Disconnect(usize),
    /// The node's disk is detached.
    Detach(usize),
    /// And attached again.
    Attach(usize),
    /// The node's process dies and comes back with its disk, alone.
    Crash(usize),
    /// The node dies while it writes.
    CrashInFlight {
        /// Which.
        node: usize,
        /// The write reached its own disk.
        here: bool,
        /// The write reached its peer.
        there: bool,
    },
    /// The link is cut.
    Cut,
    /// The link is cut while the node writes; the write completes without the peer.
    CutInFlight {
        /// Which.
        node: usize,
        /// The write reached its peer.
        there: bool,
    },
    /// Both connect, and whatever follows runs to its end.
    Connect,
    /// Both connect; this node's data is given up.
    Discard(usize),
    /// This node asks what would happen if both connected, and it gave its data up.
    Ask(usize),
    /// Both connect, and the link is cut in the middle of what follows.
    ConnectUntil(Point),
}

impl Event {
    /// Everything that may happen.
    pub fn all() -> Vec<Event> {
        let mut all = vec![Event::Cut, Event::Connect];
        for n in 0..2 {
            all.extend([
                Event::Write(n),
                Event::Read(n),
                Event::Flush(n),
                Event::Promote(n),
                Event::Force(n),
                Event::Demote(n),
                Event::Disconnect(n),
                Event::Detach(n),
                Event::Attach(n),
                Event::Crash(n),
                Event::Discard(n),
                Event::Ask(n),
                Event::ConnectUntil(Point::Handshake(n)),
                Event::ConnectUntil(Point::BitmapEnd(n)),
            ]);
            for (here, there) in [(true, false), (false, true), (true, true)] {
                all.push(Event::CrashInFlight { node: n, here, there });
            }
            all.extend([true, false].map(|there| Event::CutInFlight { node: n, there }));
        }
        let points = [Point::Data(1), Point::Data(2), Point::Written, Point::Done];
        all.extend(points.map(Event::ConnectUntil));
        all
    }
}
