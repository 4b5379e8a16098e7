//! A client of a resource's devices: one request at a time, on the daemon's Unix socket.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tandem_control::ResourceStatus;
use tandem_core::layout::Layout;
use tandem_core::units::ByteRange;
use tandem_nbd::RequestHeader;
use tandem_nbd::client::{self, ReplyHeader};
use tandem_nbd::constants::{CMD_FLUSH, CMD_READ, CMD_WRITE, SIMPLE_REPLY_BYTES};

/// The devices of a resource, open, as its space of blocks.
#[derive(Debug)]
pub struct Space {
    layout: Layout,
    /// One per volume, by ascending number.
    devices: Vec<Device>,
}

impl Space {
    /// Opens the devices of all volumes; the resource must be Primary here.
    pub fn open(socket: &Path, status: &ResourceStatus) -> Result<Space> {
        let spec = &status.spec;
        let open = |volume| Device::open(socket, &spec.export_name(volume));
        let devices = spec.volumes().map(open).collect::<Result<_>>()?;
        Ok(Space { layout: status.layout(), devices })
    }

    /// How many devices it has open.
    pub fn count(&self) -> usize {
        self.devices.len()
    }

    /// Reads a range; pads between volumes are zeroes.
    pub fn read(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        let mut bytes = vec![0; range.length as usize];
        for part in self.layout.parts(range) {
            let (device, from) = (&mut self.devices[part.index], (part.offset - range.offset) as usize);
            let read = device.read(part.range)?;
            bytes[from..from + read.len()].copy_from_slice(&read);
        }
        Ok(bytes)
    }

    /// Writes at `offset`; pads between volumes are passed over.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        for part in self.layout.parts(ByteRange::new(offset, data.len() as u64)) {
            let from = (part.offset - offset) as usize;
            let data = &data[from..from + part.range.length as usize];
            self.devices[part.index].write(part.range.offset, data)?;
        }
        Ok(())
    }

    /// Makes what was written durable, here and on every connected peer: one flush covers all volumes.
    pub fn flush(&mut self) -> Result<()> {
        self.devices.iter_mut().take(1).try_for_each(Device::flush)
    }
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    stream: UnixStream,
    cookie: u64,
}

impl Device {
    /// Opens the device of this export; its resource must be Primary here.
    pub fn open(socket: &Path, export: &str) -> Result<Device> {
        let mut stream = UnixStream::connect(socket)?;
        client::open(&mut stream, export)?;
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
