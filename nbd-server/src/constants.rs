//! The numbers of the protocol (spec, *Values*) and this server's limits, each with its reason.

/// First eight bytes of every server greeting: `NBDMAGIC`.
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of a newstyle greeting, and of every option a client sends: `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Magic of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Magic of a request in the transmission phase.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic of a simple reply in the transmission phase.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// Bytes of the greeting: two magics and the handshake flags.
pub const GREETING_BYTES: usize = 18;
/// Bytes of an option's header: magic, option, length.
pub const OPTION_HEADER_BYTES: usize = 16;
/// Bytes of a request's header: magic, flags, command, cookie, offset, length.
pub const REQUEST_HEADER_BYTES: usize = 28;
/// Bytes of a simple reply's header: magic, error, cookie.
pub const SIMPLE_REPLY_BYTES: usize = 16;
/// Zero bytes that end the answer to `OPT_EXPORT_NAME` unless both sides agreed to omit them.
pub const EXPORT_NAME_PADDING_BYTES: usize = 124;

/// Handshake flag, server and client alike: fixed newstyle, which allows options other than EXPORT_NAME.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag, server and client alike: omit the 124 zeroes after `OPT_EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 1 << 1;

/// Choose an export and enter transmission, without any way to report an error.
pub const OPT_EXPORT_NAME: u32 = 1;
/// End the session.
pub const OPT_ABORT: u32 = 2;
/// List the exports.
pub const OPT_LIST: u32 = 3;
/// Upgrade to TLS.
pub const OPT_STARTTLS: u32 = 5;
/// Describe an export.
pub const OPT_INFO: u32 = 6;
/// Describe an export and enter transmission.
pub const OPT_GO: u32 = 7;
/// Ask for structured replies.
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// List metadata contexts.
pub const OPT_LIST_META_CONTEXT: u32 = 9;
/// Select metadata contexts.
pub const OPT_SET_META_CONTEXT: u32 = 10;
/// Ask for 64-bit headers.
pub const OPT_EXTENDED_HEADERS: u32 = 11;

/// Option accepted, or the end of a list of replies.
pub const REP_ACK: u32 = 1;
/// One export of a list.
pub const REP_SERVER: u32 = 2;
/// One piece of information about an export.
pub const REP_INFO: u32 = 3;
/// Error: the server does not know the option.
pub const REP_ERR_UNSUP: u32 = (1 << 31) + 1;
/// Error: known and well-formed, but not allowed here or now.
pub const REP_ERR_POLICY: u32 = (1 << 31) + 2;
/// Error: malformed.
pub const REP_ERR_INVALID: u32 = (1 << 31) + 3;
/// Error: no such export.
pub const REP_ERR_UNKNOWN: u32 = (1 << 31) + 6;
/// Error: the option is too large to be processed.
pub const REP_ERR_TOO_BIG: u32 = (1 << 31) + 9;

/// Size and transmission flags.
pub const INFO_EXPORT: u16 = 0;
/// Canonical name.
pub const INFO_NAME: u16 = 1;
/// Description for humans.
pub const INFO_DESCRIPTION: u16 = 2;
/// Minimum, preferred and maximum block size.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Read bytes.
pub const CMD_READ: u16 = 0;
/// Write bytes; the only request with a payload.
pub const CMD_WRITE: u16 = 1;
/// End the session; no reply.
pub const CMD_DISC: u16 = 2;
/// Make acknowledged writes durable.
pub const CMD_FLUSH: u16 = 3;
/// Forget a range.
pub const CMD_TRIM: u16 = 4;
/// Write zeroes without sending them.
pub const CMD_WRITE_ZEROES: u16 = 6;

/// Command flag: durable before the reply.
pub const CMD_FLAG_FUA: u16 = 1 << 0;
/// Command flag of WRITE_ZEROES: keep the range allocated.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;

/// Longest string the protocol allows (spec, *Values*): names, descriptions and error texts.
pub const MAX_STRING_BYTES: usize = 4096;
/// Longest option that is buffered: a 4096-byte name with thousands of information requests fits 16 times.
pub const MAX_OPTION_BYTES: u32 = 64 * 1024;
/// Longest option that is skipped to stay in step; whoever sends more is not a client but an attacker.
pub const MAX_SKIPPED_OPTION_BYTES: u32 = 1024 * 1024;
/// Options per session: twice what the most talkative client tests send, yet an end to an endless handshake.
pub const MAX_OPTIONS: u32 = 4096;
/// Once this much waits it is sent before more options are answered: 16-byte LISTs must not buy megabytes.
pub const MAX_WAITING_REPLY_BYTES: usize = 256 * 1024;
/// Largest read or write: what clients may assume without negotiation (spec, *Block size constraints*).
pub const MAX_PAYLOAD_BYTES: u32 = 32 * 1024 * 1024;
/// Largest payload of a refused write that is read and dropped to stay in step; beyond it the session ends.
pub const MAX_DISCARDED_PAYLOAD_BYTES: u32 = 64 * 1024 * 1024;
/// Largest minimum block size that the protocol allows (spec, *Block size constraints*).
pub const MAX_MINIMUM_BLOCK_BYTES: u32 = 64 * 1024;
