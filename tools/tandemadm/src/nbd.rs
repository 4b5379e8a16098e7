//! A client of a resource's device: one request at a time, on the daemon's Unix socket.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tandem_core::units::ByteRange;
use tandem_nbd::RequestHeader;
use tandem_nbd::client::{self, ReplyHeader};
use tandem_nbd::constants::{CMD_FLUSH, CMD_READ, CMD_WRITE, SIMPLE_REPLY_BYTES};

/// An open device.
#[derive(Debug)]
pub struct Device {
    stream: UnixStream,
    cookie: u64,
}

impl Device {
    /// Opens the resource's device; it must be Primary here.
    pub fn open(socket: &Path, resource: &str) -> Result<Device> {
        let mut stream = UnixStream::connect(socket)?;
        client::open(&mut stream, resource)?;
        Ok(Device { stream, cookie: 0 })
    }

    /// Reads a range.
    pub fn read(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        self.request(CMD_READ, range, &[])?;
        let mut bytes = vec![0; range.length as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.request(CMD_WRITE, ByteRange::new(offset, data.len() as u64), data)
    }

    /// Makes what was written durable, here and on every connected peer.
    pub fn flush(&mut self) -> Result<()> {
        self.request(CMD_FLUSH, ByteRange::new(0, 0), &[])
    }

    /// Sends a request and reads its reply, all but a read's data.
    fn request(&mut self, command: u16, range: ByteRange, data: &[u8]) -> Result<()> {
        self.cookie += 1;
        let (offset, length) = (range.offset, range.length as u32);
        let header = RequestHeader { flags: 0, command, cookie: self.cookie, offset, length };
        self.stream.write_all(&header.encode())?;
        self.stream.write_all(data)?;
        let mut reply = [0; SIMPLE_REPLY_BYTES];
        self.stream.read_exact(&mut reply)?;
        match ReplyHeader::parse(&reply) {
            Ok(ReplyHeader { cookie, error: 0 }) if cookie == self.cookie => Ok(()),
            Ok(ReplyHeader { cookie, error }) if cookie == self.cookie => {
                Err(Error::from_raw_os_error(error as i32))
            }
            _ => Err(Error::new(ErrorKind::InvalidData, "tandemd's NBD server is out of step")),
        }
    }
}
