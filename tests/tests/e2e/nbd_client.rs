//! A small NBD client: fixed newstyle, GO, simple replies, one request at a time. It shares no code with the server.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::wait;

const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Fixed newstyle, and no zeroes after EXPORT_NAME.
const CLIENT_FLAGS: u32 = 3;
const OPT_LIST: u32 = 3;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const CMD_FLAG_FUA: u16 = 1;
const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_FLUSH: u16 = 3;
const CMD_WRITE_ZEROES: u16 = 6;

/// Why something did not happen.
pub(crate) enum NbdError {
    /// The connection broke.
    Io(io::Error),
    /// The export cannot be opened; the server's text.
    Refused(String),
    /// The server answered a request with this error number.
    Request(u32),
}

impl fmt::Debug for NbdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NbdError::Io(error) => write!(f, "connection lost: {error}"),
            NbdError::Refused(text) => write!(f, "export refused: {text}"),
            NbdError::Request(number) => write!(f, "request failed with error {number}"),
        }
    }
}

impl From<io::Error> for NbdError {
    fn from(error: io::Error) -> Self {
        NbdError::Io(error)
    }
}

/// One connection to one export.
pub(crate) struct NbdClient {
    stream: UnixStream,
    cookie: u64,
    /// Size of the export in bytes.
    pub(crate) size: u64,
}

impl NbdClient {
    /// Connects and opens an export.
    pub(crate) fn connect(socket: &Path, export: &str) -> Result<NbdClient, NbdError> {
        let mut client = NbdClient::greet(socket)?;
        client.go(export)?;
        Ok(client)
    }

    /// The opened connection, for requests that this client would not make.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// The names of all exports.
    pub(crate) fn list(socket: &Path) -> Result<Vec<String>, NbdError> {
        let mut client = NbdClient::greet(socket)?;
        client.send_option(OPT_LIST, &[])?;
        let mut names = Vec::new();
        loop {
            match client.option_reply(OPT_LIST)? {
                (REP_SERVER, data) => {
                    let (length, rest) = data.split_first_chunk().unwrap();
                    let name = &rest[..u32::from_be_bytes(*length) as usize];
                    names.push(String::from_utf8_lossy(name).into_owned());
                }
                (REP_ACK, _) => return Ok(names),
                (kind, _) => panic!("unknown reply {kind} to LIST"),
            }
        }
    }

    fn greet(socket: &Path) -> Result<NbdClient, NbdError> {
        let stream = UnixStream::connect(socket)?;
        // A request that hangs is a failure too.
        stream.set_read_timeout(Some(wait::LIMIT))?;
        let mut client = NbdClient { stream, cookie: 0, size: 0 };
        let greeting: [u8; 18] = client.take()?;
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        client.stream.write_all(&CLIENT_FLAGS.to_be_bytes())?;
        Ok(client)
    }

    /// Reads.
    pub(crate) fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, NbdError> {
        self.request(CMD_READ, 0, offset, length as u32, &[])?;
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    /// Writes; with `fua`, durably.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> Result<(), NbdError> {
        let flags = if fua { CMD_FLAG_FUA } else { 0 };
        self.request(CMD_WRITE, flags, offset, data.len() as u32, data)
    }

    /// Makes a range read as zeroes.
    pub(crate) fn zero(&mut self, offset: u64, length: u32) -> Result<(), NbdError> {
        self.request(CMD_WRITE_ZEROES, 0, offset, length, &[])
    }

    /// Makes every completed write durable.
    pub(crate) fn flush(&mut self) -> Result<(), NbdError> {
        self.request(CMD_FLUSH, 0, 0, 0, &[])
    }

    fn go(&mut self, export: &str) -> Result<(), NbdError> {
        let mut data = (export.len() as u32).to_be_bytes().to_vec();
        data.extend_from_slice(export.as_bytes());
        // No particular information is asked for; the size comes anyway.
        data.extend_from_slice(&0u16.to_be_bytes());
        self.send_option(OPT_GO, &data)?;
        loop {
            match self.option_reply(OPT_GO)? {
                (REP_ACK, _) => return Ok(()),
                (REP_INFO, data) => self.note_info(&data),
                (kind, _) => panic!("unknown reply {kind} to GO"),
            }
        }
    }

    fn send_option(&mut self, option: u32, data: &[u8]) -> Result<(), NbdError> {
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(data);
        Ok(self.stream.write_all(&bytes)?)
    }

    /// The next reply to an option; an error's text is the error.
    fn option_reply(&mut self, option: u32) -> Result<(u32, Vec<u8>), NbdError> {
        assert_eq!(u64::from_be_bytes(self.take()?), OPTION_REPLY_MAGIC);
        assert_eq!(u32::from_be_bytes(self.take()?), option);
        let kind = u32::from_be_bytes(self.take()?);
        let mut data = vec![0; u32::from_be_bytes(self.take()?) as usize];
        self.stream.read_exact(&mut data)?;
        match kind & REP_ERROR {
            0 => Ok((kind, data)),
            _ => Err(NbdError::Refused(String::from_utf8_lossy(&data).into_owned())),
        }
    }

    /// Information 0 is the export's size and flags.
    fn note_info(&mut self, data: &[u8]) {
        if let [0, 0, size @ ..] = data {
            self.size = u64::from_be_bytes(*size.first_chunk().unwrap());
        }
    }

    /// Sends a request and reads its reply, all but a read's data.
    fn request(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> Result<(), NbdError> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        request.extend_from_slice(&flags.to_be_bytes());
        request.extend_from_slice(&command.to_be_bytes());
        request.extend_from_slice(&self.cookie.to_be_bytes());
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&length.to_be_bytes());
        request.extend_from_slice(data);
        self.stream.write_all(&request)?;
        assert_eq!(u32::from_be_bytes(self.take()?), SIMPLE_REPLY_MAGIC);
        let error = u32::from_be_bytes(self.take()?);
        assert_eq!(u64::from_be_bytes(self.take()?), self.cookie, "the reply is for another request");
        if error == 0 { Ok(()) } else { Err(NbdError::Request(error)) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], NbdError> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
