//! The NBD driver's generic netlink family (linux/nbd-netlink.h).

use std::io::{self, Error};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use tandem_netlink::{Attributes, Message, Socket};

/// For the kernel to answer: a device may have to be made.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A message of a family begins with its command, the family's version and two bytes of nothing.
const GENERIC_HEADER_BYTES: usize = 4;
const FAMILY_VERSION: u8 = 1;

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
pub(super) const SOCKETS: u16 = 7;
pub(super) const DEAD_LIMIT_S: u16 = 8;
pub(super) const BACKEND: u16 = 10;
const SOCKET_ITEM: u16 = 1;
const SOCKET_FD: u16 = 1;

/// The way to the driver.
pub(super) struct Driver {
    socket: Socket,
    family: u16,
}

impl Driver {
    /// Fails with `ENOENT` if the kernel has no such driver.
    pub(super) fn open() -> io::Result<Driver> {
        let socket = Socket::open(SockProtocol::NetlinkGeneric, ANSWER_LIMIT)?;
        let mut driver = Driver { socket, family: CONTROL_FAMILY };
        let found = driver.ask(GET_FAMILY, Attributes::default().text(FAMILY_NAME, "nbd"))?;
        driver.family = found.get_u16(FAMILY_ID).ok_or(Errno::ENOENT)?;
        Ok(driver)
    }

    /// Asks one thing; what is said besides that it is done.
    pub(super) fn ask(&mut self, command: u8, attributes: Attributes) -> io::Result<Attributes> {
        let said = self.socket.ask(&[request(self.family, command, attributes)], None)?;
        let Some(last) = said.last() else { return Ok(Attributes::default()) };
        let attributes = last.get(GENERIC_HEADER_BYTES..).map(Attributes::from_bytes);
        attributes.ok_or_else(|| Error::other("the kernel's answer is too short"))
    }
}

fn request(family: u16, command: u8, attributes: Attributes) -> Message {
    Message::new(family, 0, &[command, FAMILY_VERSION, 0, 0], attributes)
}

/// The value of [`SOCKETS`]: a connection for the driver to use.
pub(super) fn one_socket(stream: &impl AsRawFd) -> Attributes {
    let fd = Attributes::default().u32(SOCKET_FD, stream.as_raw_fd() as u32);
    Attributes::default().nested(SOCKET_ITEM, fd)
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use tandem_netlink::ACKNOWLEDGE;

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
        let device = Attributes::default().u32(INDEX, 3).u64(SIZE_BYTES, 1 << 20);
        let attributes = device.nested(SOCKETS, one_socket(&Fd)).text(BACKEND, "r0");
        #[rustfmt::skip]
        let expected = [
            64, 0, 0, 0,  0x1c, 0,  5, 0,  7, 0, 0, 0,  0, 0, 0, 0, // length, family, flags, sequence, port
            CONNECT, 1, 0, 0,
            8, 0, 1, 0,  3, 0, 0, 0,
            12, 0, 2, 0,  0, 0, 16, 0, 0, 0, 0, 0,
            16, 0, 7, 0x80,  12, 0, 1, 0x80,  8, 0, 1, 0,  9, 0, 0, 0,
            7, 0, 10, 0,  b'r', b'0', 0, 0, // padded
        ];
        assert_eq!(request(0x1c, CONNECT, attributes).bytes(7, ACKNOWLEDGE), expected);
    }
}
