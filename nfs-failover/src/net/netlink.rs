//! Requests to the kernel: messages of a header, what each kind begins with, and attributes. What the kernel takes is there
//! at once, and no program is started for it. The header's numbers are the machine's own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Make what is not there.
pub const CREATE: u16 = 0x400;
/// Behind what is there.
pub const APPEND: u16 = 0x800;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const NESTED: u16 = 1 << 15;
/// The kind of message that acknowledges, or says why not.
const KIND_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// An answer repeats the header of what it is about, or all of it.
const ANSWER_BYTES: usize = 16 << 10;

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A message that begins with these bytes.
    pub fn new(kind: u16, flags: u16, beginning: &[u8], attributes: Attributes) -> Self {
        Self { kind, flags, body: [beginning, &attributes.0].concat() }
    }

    fn bytes(&self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = (HEADER_BYTES + self.body.len()) as u32;
        let kind = [self.kind.to_ne_bytes(), (self.flags | REQUEST | flags).to_ne_bytes()].concat();
        // The socket's number is for the kernel to know.
        [&length.to_ne_bytes()[..], &kind, &sequence.to_ne_bytes(), &[0; 4], &self.body].concat()
    }
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// One more.
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (ATTRIBUTE_HEADER_BYTES + value.len()) as u16;
        self.0.extend([length.to_ne_bytes(), kind.to_ne_bytes()].concat());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A word, which ends with a zero.
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// A number in the network's order.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes of its own.
    pub fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Sends them as one, and waits until the last of those that are `asked` for is done. `around` stand before and behind
/// them, and are not answered.
pub fn ask(
    protocol: SockProtocol,
    asked: &[Message],
    around: Option<[Message; 2]>,
    limit: Duration,
) -> io::Result<()> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let limit_ms = limit.as_millis().clamp(1, i32::MAX as u128) as i64;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(limit_ms))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let last = asked.len();
    let mut datagram = Vec::new();
    let [before, behind] = around.map_or([None, None], |around| around.map(Some));
    before.iter().for_each(|message| datagram.extend(message.bytes(0, 0)));
    for (message, sequence) in asked.iter().zip(1..) {
        let flags = if sequence == last { ACKNOWLEDGE } else { 0 };
        datagram.extend(message.bytes(sequence as u32, flags));
    }
    behind.iter().for_each(|message| datagram.extend(message.bytes(0, 0)));
    send(socket.as_raw_fd(), &datagram, MsgFlags::empty())?;
    let answered = hear(&socket, last as u32);
    // Before the kernel closes a socket by which rules were deleted, it waits until no packet is looked at that has met them.
    let _ = thread::Builder::new().spawn(move || drop(socket));
    answered
}

fn hear(socket: &OwnedFd, last: u32) -> io::Result<()> {
    let mut answer = vec![0; ANSWER_BYTES];
    loop {
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if let Some(result) = outcome(&answer[..length.min(ANSWER_BYTES)], last) {
            return Ok(result?);
        }
    }
}

/// The first refusal in a datagram, or that the last request is done.
fn outcome(mut datagram: &[u8], last: u32) -> Option<Result<(), Errno>> {
    while let Some(header) = datagram.get(..HEADER_BYTES) {
        let number = |at: usize| header[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
        let (length, sequence) = (number(0) as usize, number(8));
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let code = datagram.get(HEADER_BYTES..HEADER_BYTES + 4)?;
        let code = code.try_into().map_or(0, i32::from_ne_bytes);
        match (kind == KIND_ERROR, code) {
            (true, 0) if sequence == last => return Some(Ok(())),
            (true, code) if code != 0 => return Some(Err(Errno::from_raw(-code))),
            _ => {}
        }
        datagram = datagram.get(length.max(HEADER_BYTES).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_built_as_the_kernel_reads_it() {
        let inner = Attributes::default().number(2, 1);
        let attributes = Attributes::default().text(1, "ab").nested(4, inner);
        let message = Message::new(0x0a00, CREATE, &[1, 0, 0, 0], attributes);
        #[rustfmt::skip]
        let expected = [
            40, 0, 0, 0,  0, 0x0a,  5, 4,  7, 0, 0, 0,  0, 0, 0, 0, // length, kind, flags, sequence, port
            1, 0, 0, 0,
            7, 0, 1, 0,  b'a', b'b', 0, 0, // padded
            12, 0, 4, 0x80,  8, 0, 2, 0,  0, 0, 0, 1,
        ];
        assert_eq!(message.bytes(7, ACKNOWLEDGE), expected);
    }

    #[test]
    fn the_first_refusal_counts() {
        let answer = |sequence: u8, code: i32| {
            let code = code.to_ne_bytes();
            [&[20, 0, 0, 0, 2, 0, 0, 0, sequence, 0, 0, 0, 0, 0, 0, 0], &code[..]].concat()
        };
        assert_eq!(outcome(&answer(1, 0), 2), None);
        assert_eq!(outcome(&[answer(1, 0), answer(2, 0)].concat(), 2), Some(Ok(())));
        assert_eq!(outcome(&[answer(1, -17), answer(2, 0)].concat(), 2), Some(Err(Errno::EEXIST)));
        assert_eq!(outcome(&[1, 2, 3], 2), None);
        assert_eq!(outcome(&[0; 20], 0), None);
    }

    #[test]
    fn the_kernel_answers() {
        // Who asks for an interface that cannot be is refused.
        const GET_LINK: u16 = 18;
        let nobody = Message::new(GET_LINK, 0, &[0; 16], Attributes::default());
        let refused = ask(SockProtocol::NetlinkRoute, &[nobody], None, Duration::from_secs(30)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EINVAL as i32));
    }
}
