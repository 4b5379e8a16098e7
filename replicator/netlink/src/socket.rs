//! The socket over which the kernel is asked.

use std::io::{self, Error};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::answer::{Answer, answers};
use crate::message::{ACKNOWLEDGE, Message};

/// Larger than any answer: it repeats the header of what it is about, or all of it.
const ANSWER_BYTES: usize = 16 << 10;

/// The way to one of the kernel's subsystems.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    /// Of the last request.
    sequence: u32,
}

impl Socket {
    /// Nothing is waited for longer than this.
    pub fn open(protocol: SockProtocol, limit: Duration) -> io::Result<Socket> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        let limit_ms = limit.as_millis().clamp(1, i32::MAX as u128) as i64;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(limit_ms))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Socket { socket, sequence: 0 })
    }

    /// Sends them as one, and waits until the last of those that are `asked` for is done, or one is refused: what is said to
    /// them besides. `around` stand before and behind them, and are not answered unless they are refused.
    pub fn ask(&mut self, asked: &[Message], around: Option<[Message; 2]>) -> io::Result<Vec<Vec<u8>>> {
        let first = self.sequence + 1;
        self.sequence += asked.len() as u32;
        let datagram = together(asked, first, around);
        send(self.socket.as_raw_fd(), &datagram, MsgFlags::empty())?;
        let mut hearing = Hearing { requests: first..=self.sequence, said: Vec::new() };
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if hearing.hear(&buffer[..length])? {
                return Ok(hearing.said);
            }
        }
    }
}

/// One datagram of all of them.
fn together(asked: &[Message], first: u32, around: Option<[Message; 2]>) -> Vec<u8> {
    let [before, behind] = around.map_or([None, None], |around| around.map(Some));
    let numbered = asked.iter().enumerate().map(|(at, message)| {
        let is_last = at + 1 == asked.len();
        message.bytes(first + at as u32, if is_last { ACKNOWLEDGE } else { 0 })
    });
    let not_answered = |message: Option<Message>| message.map(|message| message.bytes(0, 0));
    not_answered(before).into_iter().chain(numbered).chain(not_answered(behind)).flatten().collect()
}

/// What comes of a datagram.
struct Hearing {
    requests: RangeInclusive<u32>,
    said: Vec<Vec<u8>>,
}

impl Hearing {
    /// Whether the last request is done; the first refusal is an error.
    fn hear(&mut self, datagram: &[u8]) -> io::Result<bool> {
        let answers = answers(datagram);
        for (number, answer) in
            answers.ok_or_else(|| Error::other("the kernel's netlink message makes no sense"))?
        {
            let is_ours = self.requests.contains(&number);
            match answer {
                Answer::Data(said) if is_ours => self.said.push(said),
                Answer::End(Ok(())) if number == *self.requests.end() => return Ok(true),
                Answer::End(Err(refusal)) if is_ours || number == 0 => return Err(refusal.into()),
                _ => {}
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::attributes::Attributes;

    fn hear(datagram: &[u8]) -> Result<bool, Option<i32>> {
        let mut hearing = Hearing { requests: 1..=2, said: Vec::new() };
        hearing.hear(datagram).map_err(|error| error.raw_os_error())
    }

    #[test]
    fn the_first_refusal_counts() {
        let answer = |sequence: u8, code: i32| {
            let code = code.to_ne_bytes();
            [&[20, 0, 0, 0, 2, 0, 0, 0, sequence, 0, 0, 0, 0, 0, 0, 0], &code[..]].concat()
        };
        let refused = Err(Some(Errno::EEXIST as i32));
        assert_eq!(hear(&answer(1, 0)), Ok(false));
        assert_eq!(hear(&[answer(1, 0), answer(2, 0)].concat()), Ok(true));
        assert_eq!(hear(&[answer(1, -17), answer(2, 0)].concat()), refused);
        assert_eq!(hear(&answer(0, -17)), refused, "what stands around the requests");
        assert_eq!(hear(&answer(3, -17)), Ok(false), "what was asked before");
        assert_eq!(hear(&[1, 2, 3]), Err(None));
    }

    #[test]
    fn only_the_last_request_is_acknowledged() {
        let message = |kind| Message::new(kind, 0, &[], Attributes::default());
        let numbers: Vec<[u8; 3]> = together(&[message(7), message(8)], 4, Some([message(1), message(2)]))
            .chunks(16)
            .map(|header| [header[4], header[6], header[8]])
            .collect();
        assert_eq!(numbers, [[1, 1, 0], [7, 1, 4], [8, 5, 5], [2, 1, 0]]);
    }

    #[test]
    fn the_kernel_answers() {
        // Who asks for an interface that cannot be is refused.
        const GET_LINK: u16 = 18;
        let nobody = Message::new(GET_LINK, 0, &[0; 16], Attributes::default());
        let mut socket = Socket::open(SockProtocol::NetlinkRoute, Duration::from_secs(30)).unwrap();
        let refused = socket.ask(&[nobody], None).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EINVAL as i32));
    }
}
