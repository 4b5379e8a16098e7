//! A client of a resource's device: one request at a time, on the daemon's Unix socket.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tandem_core::units::ByteRange;
use tandem_nbd::constants::{
    CMD_FLUSH, CMD_READ, CMD_WRITE, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, GREETING_BYTES, OPT_GO,
    OPTION_MAGIC, OPTION_REPLY_MAGIC, REP_ACK, REP_ERR_UNSUP, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC,
};

/// The lowest number of a reply to an option that says no.
const FIRST_ERROR: u32 = REP_ERR_UNSUP - 1;

/// An open device.
#[derive(Debug)]
pub struct Device {
    stream: UnixStream,
    cookie: u64,
}

impl Device {
    /// Opens the resource's device; it must be Primary here.
    pub fn open(socket: &Path, resource: &str) -> Result<Device> {
        let mut device = Device { stream: UnixStream::connect(socket)?, cookie: 0 };
        device.take(GREETING_BYTES)?;
        let flags = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        let mut hello = flags.to_be_bytes().to_vec();
        hello.extend(OPTION_MAGIC.to_be_bytes());
        hello.extend(OPT_GO.to_be_bytes());
        // The name with its length, and that no particular information is asked for.
        hello.extend((resource.len() as u32 + 6).to_be_bytes());
        hello.extend((resource.len() as u32).to_be_bytes());
        hello.extend(resource.as_bytes());
        hello.extend(0u16.to_be_bytes());
        device.stream.write_all(&hello)?;
        loop {
            device.expect(&OPTION_REPLY_MAGIC.to_be_bytes())?;
            device.expect(&OPT_GO.to_be_bytes())?;
            let kind = device.number()?;
            let length = device.number()? as usize;
            let data = device.take(length)?;
            match kind {
                REP_ACK => return Ok(device),
                FIRST_ERROR.. => return Err(Error::other(String::from_utf8_lossy(&data).into_owned())),
                _ => (),
            }
        }
    }

    /// Reads a range.
    pub fn read(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        self.request(CMD_READ, range, &[])?;
        self.take(range.length as usize)
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
        let mut header = REQUEST_MAGIC.to_be_bytes().to_vec();
        header.extend(0u16.to_be_bytes());
        header.extend(command.to_be_bytes());
        header.extend(self.cookie.to_be_bytes());
        header.extend(range.offset.to_be_bytes());
        header.extend((range.length as u32).to_be_bytes());
        self.stream.write_all(&header)?;
        self.stream.write_all(data)?;
        self.expect(&SIMPLE_REPLY_MAGIC.to_be_bytes())?;
        let error = self.number()?;
        self.expect(&self.cookie.to_be_bytes())?;
        match error {
            0 => Ok(()),
            number => Err(Error::from_raw_os_error(number as i32)),
        }
    }

    fn expect(&mut self, wanted: &[u8]) -> Result<()> {
        match self.take(wanted.len())? == wanted {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::InvalidData, "tandemd's NBD server is out of step")),
        }
    }

    fn number(&mut self) -> Result<u32> {
        let mut number = [0; 4];
        self.stream.read_exact(&mut number)?;
        Ok(u32::from_be_bytes(number))
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
