//! The handshake: fixed newstyle negotiation (spec, *Newstyle negotiation* and *Option types*).

use bytes::{Buf, BufMut, BytesMut};
use thiserror::Error;

use crate::constants::*;
use crate::export::{ExportCatalog, ExportInfo, OpenError};

/// One client's handshake. It keeps nothing of the client's bytes: an incomplete option stays in the input, which
/// therefore never needs room for more than a header and [`MAX_OPTION_BYTES`].
#[derive(Debug, Default)]
pub struct Negotiation {
    state: State,
    /// Both sides agreed to omit the padding of the EXPORT_NAME answer.
    no_zeroes: bool,
    /// The client understands option replies.
    fixed_newstyle: bool,
    options_seen: u32,
}

/// What the driver does next, always after sending what was written to `out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Receive more, then call again.
    NeedMore,
    /// Enough replies wait in `out`: send and empty it, then call again with the same input.
    SendFirst,
    /// The client chose this export. What is left of the input are requests already.
    Transmit {
        /// What the client was promised.
        export: ExportInfo,
    },
    /// End the connection.
    Close {
        /// For the log.
        reason: CloseReason,
    },
}

/// Why a handshake ended without an export.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// The client said goodbye.
    #[error("the client ended the handshake")]
    Aborted,
    /// The client set flags that this server never offered.
    #[error(
        "the client set unknown handshake flags {0:#x}: it is not an NBD client, or too new for this server"
    )]
    UnknownClientFlags(u32),
    /// An option did not start with `IHAVEOPT`.
    #[error("option magic is {0:#x}: the client is out of step or not an NBD client")]
    BadOptionMagic(u64),
    /// An option other than EXPORT_NAME from a client that did not ask for fixed newstyle.
    #[error(
        "option {0} needs fixed newstyle negotiation, which the client did not ask for: use a newer client"
    )]
    FixedNewstyleNeeded(u32),
    /// More than [`MAX_SKIPPED_OPTION_BYTES`] announced.
    #[error("option {option} announces {length} bytes, more than any client has reason to send")]
    OptionTooLong {
        /// The option's number.
        option: u32,
        /// Announced bytes.
        length: u32,
    },
    /// More than [`MAX_OPTIONS`].
    #[error("more than {MAX_OPTIONS} options in one handshake")]
    TooManyOptions,
    /// EXPORT_NAME cannot report an error, so a refused export ends the session.
    #[error("export refused: {0}")]
    ExportRefused(String),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    ClientFlags,
    Options,
    /// An option too big to buffer, of which `left` bytes are still to be dropped.
    Skipping {
        option: u32,
        left: usize,
    },
    Over(Step),
}

impl Negotiation {
    /// A handshake whose greeting was not sent yet.
    pub fn new() -> Negotiation {
        Negotiation::default()
    }

    /// What the server sends first.
    pub fn greeting() -> [u8; GREETING_BYTES] {
        let mut greeting = [0; GREETING_BYTES];
        let mut fields = &mut greeting[..];
        fields.put_u64(NBD_MAGIC);
        fields.put_u64(OPTION_MAGIC);
        fields.put_u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        greeting
    }

    /// Consumes all complete options of `input` and appends the answers to `out`. Once it has returned
    /// [`Step::Transmit`] or [`Step::Close`] it consumes nothing more and repeats itself.
    pub fn receive(&mut self, input: &mut BytesMut, catalog: &dyn ExportCatalog, out: &mut BytesMut) -> Step {
        loop {
            if out.len() >= MAX_WAITING_REPLY_BYTES {
                return Step::SendFirst;
            }
            let step = match &mut self.state {
                State::ClientFlags => self.client_flags(input),
                State::Options => self.next_option(input, catalog, out),
                State::Skipping { option, left } => {
                    let dropped = input.len().min(*left);
                    input.advance(dropped);
                    *left -= dropped;
                    match *left {
                        0 => {
                            let text = format!("options are limited to {MAX_OPTION_BYTES} bytes");
                            put_refusal(out, *option, &Refusal { reply: REP_ERR_TOO_BIG, text });
                            self.state = State::Options;
                            None
                        }
                        _ => Some(Step::NeedMore),
                    }
                }
                State::Over(step) => return step.clone(),
            };
            match step {
                None => continue,
                Some(end @ (Step::Transmit { .. } | Step::Close { .. })) => self.state = State::Over(end),
                Some(wait) => return wait,
            }
        }
    }

    /// Spec, *Client flags*: a server MUST drop a client that sets a flag it did not offer.
    fn client_flags(&mut self, input: &mut BytesMut) -> Option<Step> {
        let Ok(flags) = peek(input).try_get_u32() else { return Some(Step::NeedMore) };
        input.advance(4);
        if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
            return close(CloseReason::UnknownClientFlags(flags));
        }
        self.fixed_newstyle = flags & u32::from(FLAG_FIXED_NEWSTYLE) != 0;
        self.no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
        self.state = State::Options;
        None
    }

    /// Takes one option off the input, whole or not at all. Its length is judged before its data is waited for.
    fn next_option(
        &mut self,
        input: &mut BytesMut,
        catalog: &dyn ExportCatalog,
        out: &mut BytesMut,
    ) -> Option<Step> {
        if input.len() < OPTION_HEADER_BYTES {
            return Some(Step::NeedMore);
        }
        let mut header = peek(input);
        let (magic, option, length) = (header.get_u64(), header.get_u32(), header.get_u32());
        if magic != OPTION_MAGIC {
            return close(CloseReason::BadOptionMagic(magic));
        }
        if !self.fixed_newstyle && option != OPT_EXPORT_NAME {
            return close(CloseReason::FixedNewstyleNeeded(option));
        }
        if self.options_seen == MAX_OPTIONS {
            return close(CloseReason::TooManyOptions);
        }
        let skippable = option != OPT_EXPORT_NAME && length <= MAX_SKIPPED_OPTION_BYTES;
        if length > MAX_OPTION_BYTES && !skippable {
            return close(CloseReason::OptionTooLong { option, length });
        }
        if length > MAX_OPTION_BYTES {
            input.advance(OPTION_HEADER_BYTES);
            self.options_seen += 1;
            self.state = State::Skipping { option, left: length as usize };
            return None;
        }
        if header.len() < length as usize {
            return Some(Step::NeedMore);
        }
        input.advance(OPTION_HEADER_BYTES);
        self.options_seen += 1;
        let data = input.split_to(length as usize);
        self.answer(option, &data, catalog, out)
    }

    fn answer(
        &self,
        option: u32,
        data: &[u8],
        catalog: &dyn ExportCatalog,
        out: &mut BytesMut,
    ) -> Option<Step> {
        match option {
            OPT_EXPORT_NAME => Some(self.export_name(data, catalog, out)),
            OPT_ABORT => {
                // Spec, *Option types*: ABORT MUST be acknowledged.
                put_reply(out, option, REP_ACK, &[]);
                close(CloseReason::Aborted)
            }
            OPT_LIST => list(data, catalog, out),
            OPT_INFO | OPT_GO => info_or_go(option, data, catalog, out),
            // Spec, *Option types*: an option that is not implemented MUST get ERR_UNSUP, and no more than that.
            _ => {
                put_refusal(out, option, &Refusal { reply: REP_ERR_UNSUP, text: unsupported(option) });
                None
            }
        }
    }

    /// Spec, *Option types*, EXPORT_NAME: the server MUST end the session if the export cannot be had; the answer
    /// has no reply header, and 124 zeroes follow unless both sides agreed to omit them.
    fn export_name(&self, data: &[u8], catalog: &dyn ExportCatalog, out: &mut BytesMut) -> Step {
        match parse_name(data).and_then(|name| open(catalog, name)) {
            Ok(export) => {
                out.put_u64(export.size_bytes);
                out.put_u16(export.flags.bits());
                if !self.no_zeroes {
                    out.put_bytes(0, EXPORT_NAME_PADDING_BYTES);
                }
                Step::Transmit { export }
            }
            Err(refusal) => Step::Close { reason: CloseReason::ExportRefused(refusal.text) },
        }
    }
}

/// Spec, *Option types*, LIST: one SERVER reply per export, then ACK; data is not allowed.
fn list(data: &[u8], catalog: &dyn ExportCatalog, out: &mut BytesMut) -> Option<Step> {
    if !data.is_empty() {
        put_refusal(out, OPT_LIST, &Refusal::invalid("LIST takes no data"));
        return None;
    }
    for export in catalog.list() {
        let name_length = (export.name.len() as u32).to_be_bytes();
        let description = limited(&export.description);
        put_reply(out, OPT_LIST, REP_SERVER, &[&name_length, export.name.as_bytes(), description.as_bytes()]);
    }
    put_reply(out, OPT_LIST, REP_ACK, &[]);
    None
}

/// Spec, *Option types*, INFO and GO: the same answers to both, the export's size and flags always among them.
/// The block sizes are sent unasked too, because requests are held to them either way.
fn info_or_go(option: u32, data: &[u8], catalog: &dyn ExportCatalog, out: &mut BytesMut) -> Option<Step> {
    let answer = InfoRequest::parse(data).and_then(|wanted| Ok((open(catalog, wanted.name)?, wanted)));
    match answer {
        Ok((export, wanted)) => {
            put_infos(out, option, &export, &wanted);
            put_reply(out, option, REP_ACK, &[]);
            (option == OPT_GO).then_some(Step::Transmit { export })
        }
        Err(refusal) => {
            put_refusal(out, option, &refusal);
            None
        }
    }
}

fn put_infos(out: &mut BytesMut, option: u32, export: &ExportInfo, wanted: &InfoRequest<'_>) {
    let size = export.size_bytes.to_be_bytes();
    let flags = export.flags.bits().to_be_bytes();
    put_reply(out, option, REP_INFO, &[&INFO_EXPORT.to_be_bytes(), &size, &flags]);

    let sizes = [export.block_size.minimum(), export.block_size.preferred(), export.block_size.maximum()];
    let [minimum, preferred, maximum] = sizes.map(u32::to_be_bytes);
    put_reply(out, option, REP_INFO, &[&INFO_BLOCK_SIZE.to_be_bytes(), &minimum, &preferred, &maximum]);

    if wanted.has_name {
        put_reply(out, option, REP_INFO, &[&INFO_NAME.to_be_bytes(), export.name.as_bytes()]);
    }
    if wanted.has_description {
        let description = limited(&export.description);
        put_reply(out, option, REP_INFO, &[&INFO_DESCRIPTION.to_be_bytes(), description.as_bytes()]);
    }
}

/// The data of INFO and GO: name length, name, count of information requests, the requests.
struct InfoRequest<'a> {
    name: &'a str,
    has_name: bool,
    has_description: bool,
}

impl<'a> InfoRequest<'a> {
    fn parse(mut data: &'a [u8]) -> Result<InfoRequest<'a>, Refusal> {
        let short = |_| Refusal::invalid("the option is shorter than its fields");
        let name_length = data.try_get_u32().map_err(short)? as usize;
        let Some((name, mut data)) = data.split_at_checked(name_length) else {
            return Err(Refusal::invalid("the export name is longer than the option"));
        };
        let count = data.try_get_u16().map_err(short)?;
        if data.len() != usize::from(count) * 2 {
            return Err(Refusal::invalid(
                "the count of information requests does not match the option's length",
            ));
        }
        // Spec, *Option types*, INFO: kinds of information that the server does not know are ignored.
        let asks = |kind: u16| data.chunks_exact(2).any(|asked| asked == kind.to_be_bytes());
        Ok(InfoRequest {
            name: parse_name(name)?,
            has_name: asks(INFO_NAME),
            has_description: asks(INFO_DESCRIPTION),
        })
    }
}

/// Spec, *Values*: strings are UTF-8 without NUL, of at most 4096 bytes.
fn parse_name(name: &[u8]) -> Result<&str, Refusal> {
    if name.len() > MAX_STRING_BYTES {
        let text = format!("export names are limited to {MAX_STRING_BYTES} bytes");
        return Err(Refusal { reply: REP_ERR_TOO_BIG, text });
    }
    match str::from_utf8(name) {
        Ok(name) if !name.contains('\0') => Ok(name),
        _ => Err(Refusal::invalid("the export name is not UTF-8 text")),
    }
}

/// Looks an export up; the empty name means the only one (spec, *Option types*: it is the default export).
fn open(catalog: &dyn ExportCatalog, name: &str) -> Result<ExportInfo, Refusal> {
    if !name.is_empty() {
        return open_named(catalog, name);
    }
    match catalog.list().as_slice() {
        [only] => open_named(catalog, &only.name),
        _ => Err(Refusal {
            reply: REP_ERR_UNKNOWN,
            text: format!("name an export; {}", known_exports(catalog)),
        }),
    }
}

fn open_named(catalog: &dyn ExportCatalog, name: &str) -> Result<ExportInfo, Refusal> {
    catalog.open(name).map_err(|error| match error {
        OpenError::Unknown => Refusal {
            reply: REP_ERR_UNKNOWN,
            text: format!("no export {name:?}; {}", known_exports(catalog)),
        },
        OpenError::Refused(text) => Refusal { reply: REP_ERR_POLICY, text },
    })
}

fn known_exports(catalog: &dyn ExportCatalog) -> String {
    let names: Vec<String> = catalog.list().into_iter().map(|export| export.name).collect();
    match names.is_empty() {
        true => "this server exports nothing now".to_owned(),
        false => format!("this server exports {}", names.join(", ")),
    }
}

fn unsupported(option: u32) -> String {
    match option {
        OPT_STARTTLS => "this server does not speak TLS: use a tunnel".to_owned(),
        OPT_STRUCTURED_REPLY => "this server sends simple replies".to_owned(),
        OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => "this server has no metadata contexts".to_owned(),
        OPT_EXTENDED_HEADERS => "this server uses compact headers".to_owned(),
        _ => format!("option {option} is unknown to this server"),
    }
}

/// An error reply; the client may go on with another option.
struct Refusal {
    reply: u32,
    text: String,
}

impl Refusal {
    fn invalid(text: &str) -> Refusal {
        Refusal { reply: REP_ERR_INVALID, text: text.to_owned() }
    }
}

fn put_refusal(out: &mut BytesMut, option: u32, refusal: &Refusal) {
    put_reply(out, option, refusal.reply, &[limited(&refusal.text).as_bytes()]);
}

fn put_reply(out: &mut BytesMut, option: u32, reply: u32, parts: &[&[u8]]) {
    out.put_u64(OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(reply);
    out.put_u32(parts.iter().map(|part| part.len() as u32).sum());
    for part in parts {
        out.put_slice(part);
    }
}

/// The part of a text that the protocol can carry.
fn limited(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_STRING_BYTES)).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

fn peek(input: &BytesMut) -> &[u8] {
    input
}

fn close(reason: CloseReason) -> Option<Step> {
    Some(Step::Close { reason })
}
