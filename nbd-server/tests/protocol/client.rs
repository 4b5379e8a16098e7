//! A client's half: writes options and requests, reads replies; and the server's catalog.

use bytes::{Buf, BufMut, BytesMut};
use tandem_nbd::constants::*;
use tandem_nbd::*;

pub(crate) const SIZE_BYTES: u64 = 64 << 20;
pub(crate) const SECONDARY: &str =
    "r1 is Secondary here; bravo is Primary: connect there, or promote this node";

/// Names that can be opened; `r1` is listed but refused.
pub(crate) struct Catalog(pub(crate) &'static [&'static str]);

impl ExportCatalog for Catalog {
    fn list(&self) -> Vec<ExportSummary> {
        let summary =
            |name: &&str| ExportSummary { name: (*name).to_owned(), description: "disk of A".to_owned() };
        self.0.iter().map(summary).collect()
    }

    fn open(&self, name: &str) -> Result<ExportInfo, OpenError> {
        match name {
            _ if !self.0.contains(&name) => Err(OpenError::Unknown),
            "r1" => Err(OpenError::Refused(SECONDARY.to_owned())),
            _ => Ok(ExportInfo { name: name.to_owned(), ..export() }),
        }
    }
}

pub(crate) const BOTH: Catalog = Catalog(&["r0", "r1"]);

pub(crate) fn export() -> ExportInfo {
    ExportInfo {
        name: "r0".to_owned(),
        description: "disk of A".to_owned(),
        size_bytes: SIZE_BYTES,
        flags: TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::SEND_TRIM
            | TransmissionFlags::SEND_WRITE_ZEROES
            | TransmissionFlags::CAN_MULTI_CONN,
        block_size: BlockSize::default(),
    }
}

/// An option with a truthful length.
pub(crate) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = option_header(number, data.len() as u32);
    bytes.extend_from_slice(data);
    bytes
}

pub(crate) fn option_header(number: u32, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u64(OPTION_MAGIC);
    bytes.put_u32(number);
    bytes.put_u32(length);
    bytes
}

/// INFO or GO.
pub(crate) fn go(number: u32, name: &[u8], infos: &[u16]) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_u32(name.len() as u32);
    data.put_slice(name);
    data.put_u16(infos.len() as u16);
    infos.iter().for_each(|info| data.put_u16(*info));
    option(number, &data)
}

pub(crate) fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(REQUEST_MAGIC);
    bytes.put_u16(flags);
    bytes.put_u16(command);
    bytes.put_u64(cookie);
    bytes.put_u64(offset);
    bytes.put_u32(length);
    bytes
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OptionReply {
    pub(crate) option: u32,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

impl OptionReply {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.data).unwrap()
    }
}

pub(crate) fn replies(mut bytes: &[u8]) -> Vec<OptionReply> {
    let mut replies = Vec::new();
    while bytes.has_remaining() {
        assert_eq!(bytes.get_u64(), OPTION_REPLY_MAGIC);
        let (option, kind, length) = (bytes.get_u32(), bytes.get_u32(), bytes.get_u32());
        replies.push(OptionReply { option, kind, data: bytes.copy_to_bytes(length as usize).to_vec() });
    }
    replies
}

/// One handshake, with the client's flags already sent.
pub(crate) struct Handshake {
    pub(crate) negotiation: Negotiation,
    pub(crate) input: BytesMut,
    catalog: Catalog,
}

impl Handshake {
    pub(crate) fn new(flags: u32, catalog: Catalog) -> Handshake {
        let input = BytesMut::from(&flags.to_be_bytes()[..]);
        Handshake { negotiation: Negotiation::new(), input, catalog }
    }

    /// Sends bytes; returns the server's bytes and what it does next.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> (Vec<u8>, Step) {
        self.input.extend_from_slice(bytes);
        let mut sent = Vec::new();
        loop {
            let mut out = BytesMut::new();
            let step = self.negotiation.receive(&mut self.input, &self.catalog, &mut out);
            sent.extend_from_slice(&out);
            if step != Step::SendFirst {
                return (sent, step);
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> (Vec<OptionReply>, Step) {
        let (sent, step) = self.send_raw(bytes);
        (replies(&sent), step)
    }

    /// Sends an option that must be refused with `kind` and leave the session usable; returns the text.
    pub(crate) fn refused(&mut self, bytes: &[u8], kind: u32) -> String {
        let (replies, step) = self.send(bytes);
        assert_eq!(step, Step::NeedMore);
        assert_eq!(replies.iter().map(|reply| reply.kind).collect::<Vec<_>>(), [kind]);
        self.usable();
        replies[0].text().to_owned()
    }

    /// LIST still works, so the server is in step.
    pub(crate) fn usable(&mut self) {
        let (replies, step) = self.send(&option(OPT_LIST, b""));
        assert_eq!((replies.last().unwrap().kind, step), (REP_ACK, Step::NeedMore));
    }

    pub(crate) fn closed(&mut self, bytes: &[u8]) -> CloseReason {
        let (_, step) = self.send(bytes);
        let Step::Close { reason } = step else { panic!("{step:?}") };
        reason
    }
}
