//! The network between the two nodes: one connection at a time, two streams in each direction.
//!
//! Each stream keeps its order; nothing is kept between them. What is lost is always the rest of a stream: a message
//! arrives only if everything before it on its stream did.

use tandem_core::wire::Stream;

/// Microseconds of virtual time.
pub type Micros = u64;

/// One end of a connection, as its node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The node will hear of the connection at this time.
    Opening(Micros),
    /// The node knows of it.
    Open,
    /// The node has left it, or died.
    Closed,
}

/// A connection. Directions and ends are numbered by the node that sends or owns.
#[derive(Debug)]
pub struct Session {
    /// Its number, never used again.
    pub id: u64,
    /// Both ends.
    pub ends: [End; 2],
    /// When the last message of each direction and stream arrives.
    last_arrival: [[Micros; 2]; 2],
    /// Messages of a direction and stream that would arrive later are lost.
    lost_after: [[Micros; 2]; 2],
}

/// The network.
#[derive(Debug, Default)]
pub struct Link {
    /// No new connection can be made.
    pub down: bool,
    /// Which nodes try to connect.
    pub wanted: [bool; 2],
    /// An attempt is under way.
    pub attempt_pending: bool,
    /// The connection.
    pub session: Option<Session>,
    sessions: u64,
}

impl Link {
    /// True if both nodes try, nothing is in the way, and no attempt is under way.
    pub fn may_attempt(&self) -> bool {
        !self.down && !self.attempt_pending && self.session.is_none() && self.wanted == [true, true]
    }

    /// Establishes a connection of which the nodes hear at the times given; its number.
    pub fn establish(&mut self, opens_at: [Micros; 2]) -> u64 {
        self.sessions += 1;
        self.session = Some(Session {
            id: self.sessions,
            ends: opens_at.map(End::Opening),
            last_arrival: [[0; 2]; 2],
            lost_after: [[Micros::MAX; 2]; 2],
        });
        self.sessions
    }

    /// The session, if it is the one of this number.
    pub fn session(&mut self, id: u64) -> Option<&mut Session> {
        self.session.as_mut().filter(|s| s.id == id)
    }

    /// The node's end of the connection, if it is open: the connection's number.
    pub fn open_end(&self, node: usize) -> Option<u64> {
        self.session.as_ref().filter(|s| s.ends[node] == End::Open).map(|s| s.id)
    }

    /// Forgets a connection that both nodes have left.
    pub fn collect(&mut self) {
        if self.session.as_ref().is_some_and(|s| s.ends == [End::Closed; 2]) {
            self.session = None;
        }
    }
}

impl Session {
    /// When a message that is sent at `now` and takes `delay` arrives; never before those sent earlier on its stream.
    pub fn arrival(&mut self, from: usize, stream: Stream, now: Micros, delay: Micros) -> Micros {
        let opening = match self.ends[1 - from] {
            End::Opening(at) => at + 1,
            _ => 0,
        };
        let last = &mut self.last_arrival[from][stream as usize];
        *last = (now + delay).max(*last).max(opening);
        *last
    }

    /// True if a message that arrives now at `to` gets through.
    pub fn delivers(&self, to: usize, stream: Stream, now: Micros) -> bool {
        self.ends[to] == End::Open && now <= self.lost_after[1 - to][stream as usize]
    }

    /// Loses what `from` has sent on each stream and would arrive after the times given, and all it will send.
    pub fn lose_after(&mut self, from: usize, cutoff: [Micros; 2]) {
        for (lost, cutoff) in self.lost_after[from].iter_mut().zip(cutoff) {
            *lost = (*lost).min(cutoff);
        }
    }

    /// When the last message of `from` that gets through has arrived.
    pub fn quiet_after(&self, from: usize) -> Micros {
        let streams = self.last_arrival[from].iter().zip(&self.lost_after[from]);
        streams.map(|(last, lost)| *last.min(lost)).max().unwrap_or(0)
    }

    /// True if messages from this node are being lost.
    pub fn is_cut(&self, from: usize) -> bool {
        self.lost_after[from].iter().any(|t| *t != Micros::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let mut link = Link::default();
        link.establish([0, 50]);
        link.session.take().unwrap()
    }

    #[test]
    fn a_stream_keeps_its_order_and_waits_for_the_receiver() {
        let mut s = session();
        assert_eq!(s.arrival(0, Stream::Data, 10, 5), 51);
        s.ends[1] = End::Open;
        assert_eq!(s.arrival(0, Stream::Data, 60, 100), 160);
        assert_eq!(s.arrival(0, Stream::Data, 61, 5), 160);
        assert_eq!(s.arrival(0, Stream::Control, 61, 5), 66);
    }

    #[test]
    fn a_cut_loses_the_rest_of_each_stream() {
        let mut s = session();
        s.ends = [End::Open; 2];
        s.lose_after(0, [100, 200]);
        s.lose_after(0, [150, 150]);
        assert!(s.delivers(1, Stream::Data, 100) && !s.delivers(1, Stream::Data, 101));
        assert!(s.delivers(1, Stream::Control, 150) && !s.delivers(1, Stream::Control, 151));
        assert!(s.delivers(0, Stream::Data, 1000) && s.is_cut(0) && !s.is_cut(1));
    }
}
