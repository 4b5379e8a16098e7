//! The messages of the NBD driver's generic netlink family (linux/nbd-netlink.h), and the socket on which they travel.
//! All numbers are the machine's own.

use std::io::{self, Error};
use std::os::fd::{AsRawFd, OwnedFd};

use bytes::{Buf, BufMut};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

/// For the kernel to answer: a device may have to be made.
const ANSWER_LIMIT_S: i64 = 30;
/// Larger than any answer.
const ANSWER_BYTES: usize = 16 << 10;

const MESSAGE_HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;

const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;
/// The type of the message that acknowledges, or says why not.
const TYPE_ERROR: u16 = 2;
const ATTRIBUTE_NESTED: u16 = 1 << 15;

/// The family that knows the numbers of the others (linux/genetlink.h).
const CONTROL_FAMILY: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The driver's commands.
pub(super) const CONNECT: u8 = 1;
pub(super) const DISCONNECT: u8 = 2;
pub(super) const RECONFIGURE: u8 = 3;

/// The driver's attributes.
pub(super) const INDEX: u16 = 1;
pub(super) const SIZE_BYTES: u16 = 2;
pub(super) const BLOCK_BYTES: u16 = 3;
pub(super) const TIMEOUT_S: u16 = 4;
pub(super) const SERVER_FLAGS: u16 = 5;
const SOCKETS: u16 = 7;
pub(super) const DEAD_LIMIT_S: u16 = 8;
pub(super) const BACKEND: u16 = 10;
const SOCKET_ITEM: u16 = 1;
const SOCKET_FD: u16 = 1;

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn u32(self, kind: u16, value: u32) -> Attributes {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn u64(self, kind: u16, value: u64) -> Attributes {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Attributes {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// A connection for the driver to use.
    pub(super) fn socket(self, socket: &impl AsRawFd) -> Attributes {
        let fd = Attributes::default().u32(SOCKET_FD, socket.as_raw_fd() as u32);
        let item = Attributes::default().bytes(SOCKET_ITEM | ATTRIBUTE_NESTED, &fd.0);
        self.bytes(SOCKETS | ATTRIBUTE_NESTED, &item.0)
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Attributes {
        self.0.put_u16_ne((ATTRIBUTE_HEADER_BYTES + value.len()) as u16);
        self.0.put_u16_ne(kind);
        self.0.put_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The value of an attribute, if it is there.
    fn get(&self, wanted: u16) -> Option<&[u8]> {
        let mut rest = &self.0[..];
        while rest.len() >= ATTRIBUTE_HEADER_BYTES {
            let mut header = rest;
            let (length, kind) = (usize::from(header.get_u16_ne()), header.get_u16_ne());
            let value = rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
            if kind & !ATTRIBUTE_NESTED == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }

    /// A number of four bytes.
    pub(super) fn get_u32(&self, wanted: u16) -> Option<u32> {
        self.get(wanted)?.try_into().ok().map(u32::from_ne_bytes)
    }
}

/// A request as sent.
fn request(family: u16, sequence: u32, command: u8, attributes: &Attributes) -> Vec<u8> {
    let mut message = Vec::new();
    message.put_u32_ne((MESSAGE_HEADER_BYTES + GENERIC_HEADER_BYTES + attributes.0.len()) as u32);
    message.put_u16_ne(family);
    message.put_u16_ne(FLAG_REQUEST | FLAG_ACK);
    message.put_u32_ne(sequence);
    message.put_u32_ne(0); // The socket's number is for the kernel to know.
    message.put_u8(command);
    message.put_u8(1); // The family's version.
    message.put_u16_ne(0);
    message.put_slice(&attributes.0);
    message
}

/// What the kernel said.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    /// Something.
    Data(Attributes),
    /// That it is done, or why it is not.
    End(Result<(), Errno>),
}

/// The answers in a datagram that belong to a request; `None` if it makes no sense.
fn answers(mut datagram: &[u8], wanted: u32) -> Option<Vec<Answer>> {
    let mut found = Vec::new();
    while !datagram.is_empty() {
        let (mut header, _) = datagram.split_at_checked(MESSAGE_HEADER_BYTES)?;
        let (length, kind) = (header.get_u32_ne() as usize, header.get_u16_ne());
        header.advance(2);
        let sequence = header.get_u32_ne();
        let mut body = datagram.get(MESSAGE_HEADER_BYTES..length)?;
        if sequence == wanted && kind == TYPE_ERROR {
            let code = (body.len() >= 4).then(|| body.get_i32_ne())?;
            found.push(Answer::End(if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) }));
        } else if sequence == wanted {
            found.push(Answer::Data(Attributes(body.get(GENERIC_HEADER_BYTES..)?.to_vec())));
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

/// The way to the driver.
pub(super) struct Driver {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
}

impl Driver {
    /// Fails with `ENOENT` if the kernel has no such driver.
    pub(super) fn open() -> io::Result<Driver> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(ANSWER_LIMIT_S, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let mut driver = Driver { socket, family: CONTROL_FAMILY, sequence: 0 };
        let found = driver.ask(GET_FAMILY, &Attributes::default().text(FAMILY_NAME, "nbd"))?;
        let number = found.get(FAMILY_ID).and_then(|id| id.try_into().ok()).map(u16::from_ne_bytes);
        driver.family = number.ok_or(Errno::ENOENT)?;
        Ok(driver)
    }

    /// Asks one thing; what is said besides that it is done.
    pub(super) fn ask(&mut self, command: u8, attributes: &Attributes) -> io::Result<Attributes> {
        self.sequence += 1;
        let message = request(self.family, self.sequence, command, attributes);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut said = Attributes::default();
        loop {
            let mut buffer = vec![0; ANSWER_BYTES];
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let answers = answers(&buffer[..length], self.sequence);
            for answer in
                answers.ok_or_else(|| Error::other("the kernel's netlink message makes no sense"))?
            {
                match answer {
                    Answer::Data(attributes) => said = attributes,
                    Answer::End(result) => return result.map(|()| said).map_err(Error::from),
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// Byte by byte as libnl builds them.
    #[test]
    fn a_connection_is_asked_for_in_the_kernels_words() {
        struct Fd;
        impl AsRawFd for Fd {
            fn as_raw_fd(&self) -> i32 {
                9
            }
        }
        let attributes =
            Attributes::default().u32(INDEX, 3).u64(SIZE_BYTES, 1 << 20).socket(&Fd).text(BACKEND, "r0");
        #[rustfmt::skip]
        let expected = [
            64, 0, 0, 0,  0x1c, 0,  5, 0,  7, 0, 0, 0,  0, 0, 0, 0, // length, family, flags, sequence, port
            CONNECT, 1, 0, 0,
            8, 0, 1, 0,  3, 0, 0, 0,
            12, 0, 2, 0,  0, 0, 16, 0, 0, 0, 0, 0,
            16, 0, 7, 0x80,  12, 0, 1, 0x80,  8, 0, 1, 0,  9, 0, 0, 0,
            7, 0, 10, 0,  b'r', b'0', 0, 0, // padded
        ];
        assert_eq!(request(0x1c, 7, CONNECT, &attributes), expected);
    }

    #[test]
    fn answers_are_understood() {
        #[rustfmt::skip]
        let datagram = [
            // Somebody else's: an event.
            28, 0, 0, 0,  0x1c, 0,  0, 0,  0, 0, 0, 0,  0, 0, 0, 0,  4, 1, 0, 0,  8, 0, 1, 0,  5, 0, 0, 0,
            // The number of the device.
            28, 0, 0, 0,  0x1c, 0,  0, 0,  7, 0, 0, 0,  0, 0, 0, 0,  1, 1, 0, 0,  8, 0, 1, 0,  3, 0, 0, 0,
            // Done.
            20, 0, 0, 0,  2, 0,  0, 0,  7, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
        ];
        let found = answers(&datagram, 7).unwrap();
        let [Answer::Data(said), Answer::End(Ok(()))] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((said.get_u32(INDEX), said.get_u32(SIZE_BYTES)), (Some(3), None));
        let mut refused = datagram[56..].to_vec();
        refused[16..20].copy_from_slice(&(-16i32).to_ne_bytes());
        assert_eq!(answers(&refused, 7), Some(vec![Answer::End(Err(Errno::EBUSY))]));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(answers(&[1, 2, 3], 7), None);
        assert_eq!(
            answers(&[200, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], 7),
            None,
            "longer than it is"
        );
        let mut short = [0; 20];
        short[0] = 18;
        assert_eq!(answers(&[&[18, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0], &short[12..]].concat(), 7), None);
        assert_eq!(Attributes(vec![255, 0, 1, 0, 1]).get(1), None);
        assert_eq!(
            Attributes(vec![0, 0, 1, 0, 0, 0, 0, 0]).get(2),
            None,
            "a length of nothing ends the list"
        );
    }
}
