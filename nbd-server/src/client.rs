//! The client's half, as far as Tandem's own programs need it: a handshake on a blocking stream, and the two headers of
//! the transmission phase.

use std::io::{self, Error, ErrorKind, Read, Write};

use bytes::{Buf, BufMut};

use crate::constants::*;
use crate::export::TransmissionFlags;
use crate::request::{BadMagic, RequestHeader};

/// The lowest number of a reply to an option that says no.
const FIRST_ERROR: u32 = REP_ERR_UNSUP - 1;
/// Bytes of a reply's header: magic, option, kind, length.
const OPTION_REPLY_HEADER_BYTES: usize = 20;
/// Bytes of the reply that says how large an export is: which information, size, flags.
const INFO_EXPORT_BYTES: usize = 12;

/// What the server said of the export that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Size in bytes.
    pub size_bytes: u64,
    /// What may be asked for.
    pub flags: TransmissionFlags,
}

/// Chooses the export `name`. A refusal is an error with the server's words.
pub fn open(stream: &mut (impl Read + Write), name: &str) -> io::Result<Opened> {
    ask(stream, OPT_GO, name)
}

/// Asks about the export `name`, and does not choose it.
pub fn look(stream: &mut (impl Read + Write), name: &str) -> io::Result<Opened> {
    ask(stream, OPT_INFO, name)
}

fn ask(stream: &mut (impl Read + Write), option: u32, name: &str) -> io::Result<Opened> {
    let mut greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeting)?;
    let mut fields = &greeting[..];
    if fields.get_u64() != NBD_MAGIC || fields.get_u64() != OPTION_MAGIC {
        return Err(out_of_step());
    }
    stream.write_all(&hello(option, name))?;
    let mut opened = None;
    loop {
        let (kind, data) = option_reply(stream, option)?;
        match kind {
            REP_ACK => return opened.ok_or_else(out_of_step),
            REP_INFO => opened = info_export(&data).or(opened),
            FIRST_ERROR.. => return Err(Error::other(String::from_utf8_lossy(&data).into_owned())),
            _ => (),
        }
    }
}

/// The client's flags, and INFO or GO without a wish for particular information.
fn hello(option: u32, name: &str) -> Vec<u8> {
    let mut hello = Vec::new();
    hello.put_u32(u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
    hello.put_u64(OPTION_MAGIC);
    hello.put_u32(option);
    hello.put_u32(name.len() as u32 + 6);
    hello.put_u32(name.len() as u32);
    hello.put_slice(name.as_bytes());
    hello.put_u16(0);
    hello
}

fn option_reply(stream: &mut impl Read, asked: u32) -> io::Result<(u32, Vec<u8>)> {
    let mut header = [0; OPTION_REPLY_HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let mut fields = &header[..];
    let (magic, option, kind, length) =
        (fields.get_u64(), fields.get_u32(), fields.get_u32(), fields.get_u32());
    if magic != OPTION_REPLY_MAGIC || option != asked || length > MAX_OPTION_BYTES {
        return Err(out_of_step());
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data)?;
    Ok((kind, data))
}

fn info_export(mut data: &[u8]) -> Option<Opened> {
    (data.len() == INFO_EXPORT_BYTES && data.get_u16() == INFO_EXPORT)
        .then(|| Opened { size_bytes: data.get_u64(), flags: TransmissionFlags::from_bits(data.get_u16()) })
}

impl RequestHeader {
    /// As sent.
    pub fn encode(&self) -> [u8; REQUEST_HEADER_BYTES] {
        let mut header = [0; REQUEST_HEADER_BYTES];
        let mut fields = &mut header[..];
        fields.put_u32(REQUEST_MAGIC);
        fields.put_u16(self.flags);
        fields.put_u16(self.command);
        fields.put_u64(self.cookie);
        fields.put_u64(self.offset);
        fields.put_u32(self.length);
        header
    }
}

/// The header of a simple reply; after a successful read the bytes read follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's.
    pub cookie: u64,
    /// 0, or an errno.
    pub error: u32,
}

impl ReplyHeader {
    /// Decodes what [`crate::simple_reply_header`] encodes.
    pub fn parse(header: &[u8; SIMPLE_REPLY_BYTES]) -> Result<ReplyHeader, BadMagic> {
        let mut fields = &header[..];
        match fields.get_u32() {
            SIMPLE_REPLY_MAGIC => Ok(ReplyHeader { error: fields.get_u32(), cookie: fields.get_u64() }),
            other => Err(BadMagic(other)),
        }
    }
}

fn out_of_step() -> Error {
    Error::new(ErrorKind::InvalidData, "what answers is no NBD server, or out of step")
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::*;

    /// A server's handshake as a stream.
    struct Server {
        negotiation: Negotiation,
        input: BytesMut,
        out: BytesMut,
    }

    struct Catalog;

    impl ExportCatalog for Catalog {
        fn list(&self) -> Vec<ExportSummary> {
            Vec::new()
        }

        fn open(&self, name: &str) -> Result<ExportInfo, OpenError> {
            match name {
                "r0" => Ok(ExportInfo {
                    name: name.into(),
                    description: String::new(),
                    size_bytes: 5 << 40,
                    flags: TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_FUA,
                    block_size: BlockSize::default(),
                }),
                _ => Err(OpenError::Refused("it is Secondary here".into())),
            }
        }
    }

    impl Read for Server {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            (&mut self.out).reader().read(buffer)
        }
    }

    impl Write for Server {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.input.extend_from_slice(data);
            self.negotiation.receive(&mut self.input, &Catalog, &mut self.out);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn server() -> Server {
        let out = BytesMut::from(&Negotiation::greeting()[..]);
        Server { negotiation: Negotiation::new(), input: BytesMut::new(), out }
    }

    #[test]
    fn the_own_server_opens_and_refuses() {
        let flags = TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_FUA;
        assert_eq!(open(&mut server(), "r0").unwrap(), Opened { size_bytes: 5 << 40, flags });
        assert_eq!(look(&mut server(), "r0").unwrap().size_bytes, 5 << 40);
        assert_eq!(open(&mut server(), "r1").unwrap_err().to_string(), "it is Secondary here");
    }

    #[test]
    fn what_is_no_server_is_refused() {
        let mut stream = server();
        stream.out = BytesMut::from(&[7; 64][..]);
        assert_eq!(open(&mut stream, "r0").unwrap_err().kind(), ErrorKind::InvalidData);
        stream.out = BytesMut::from(&Negotiation::greeting()[..5]);
        assert_eq!(open(&mut stream, "r0").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn headers_are_what_the_server_reads_and_writes() {
        let header = RequestHeader { flags: 1, command: CMD_WRITE, cookie: 7, offset: 1 << 40, length: 512 };
        assert_eq!(RequestHeader::parse(&header.encode()), Ok(header));
        let reply = ReplyHeader::parse(&simple_reply_header(9, Err(Errno::Enospc)));
        assert_eq!(reply, Ok(ReplyHeader { cookie: 9, error: 28 }));
        assert!(ReplyHeader::parse(&[0; SIMPLE_REPLY_BYTES]).is_err());
    }
}
