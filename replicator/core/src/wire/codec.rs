//! Frames: a header of fixed size, a short body, and at most one payload.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic `TNDM` |
//! | 4..6 | kind of message |
//! | 6..8 | zero |
//! | 8..12 | body length in bytes |
//! | 12..16 | payload length in bytes |
//! | 16..20 | crc32 of the payload, 0 if there is none |
//! | 20..24 | crc32 of the first 20 bytes and the body |
//!
//! Integers are little-endian. The header tells how much to read, so that a driver can receive the payload straight
//! into an aligned buffer. The checksum of the payload was computed where the data entered the other node.

mod body;
mod terms;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{Handshake, Message, Preamble};
use crate::authentication::{HmacAlgorithm, MAX_CODE_BYTES};
use crate::config::Protocol;
use crate::generation::{Generations, HISTORY_SLOTS};
use crate::io::Payload;
use crate::layout::{Layout, VolumeSize};
use crate::state::{DiskState, Role};
use crate::units::{ByteRange, Epoch, WriteSeq};
use body::Body;
use terms::{put_settings, put_terms, take_settings, take_terms};

/// Length of the fixed header.
pub const FRAME_HEADER_BYTES: usize = 24;
/// Longest body: a refusal's sentence is the longest there is.
pub const MAX_BODY_BYTES: u32 = 4096;
/// Longest payload: the largest request of an NBD client.
pub const MAX_PAYLOAD_BYTES: u32 = 32 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"TNDM");

/// Why a frame was refused. Each means that the connection cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FrameError {
    /// Not our protocol.
    #[error("not a Tandem frame (magic {0:#010x}); something else talks to this port")]
    Magic(u32),
    /// The header or the body was damaged.
    #[error("checksum of a frame header does not match: the data was damaged on the way")]
    HeaderChecksum,
    /// The payload was damaged.
    #[error("Digest integrity check FAILED: checksum of a payload of {0} bytes does not match")]
    PayloadChecksum(usize),
    /// Longer than any frame may be.
    #[error("frame too large: body of {body} and payload of {payload} bytes")]
    TooLarge {
        /// Claimed length of the body.
        body: u32,
        /// Claimed length of the payload.
        payload: u32,
    },
    /// A kind this version does not know.
    #[error("unknown kind of frame {0}; the peer may run a newer release")]
    Kind(u16),
    /// The body does not fit its kind.
    #[error("malformed frame of kind {0}")]
    Malformed(u16),
}

/// The fixed part of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    kind: u16,
    /// Length of the body in bytes.
    pub body_bytes: u32,
    /// Length of the payload in bytes.
    pub payload_bytes: u32,
    payload_crc32: u32,
    crc32: u32,
    start_crc32: u32,
}

impl FrameHeader {
    /// Reads the fixed header. Its checksum covers the body too and is checked by [`decode`].
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, FrameError> {
        let mut b = &bytes[..];
        let magic = b.get_u32_le();
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let kind = b.get_u16_le();
        b.advance(2);
        let header = FrameHeader {
            kind,
            body_bytes: b.get_u32_le(),
            payload_bytes: b.get_u32_le(),
            payload_crc32: b.get_u32_le(),
            crc32: b.get_u32_le(),
            start_crc32: crc32fast::hash(&bytes[..20]),
        };
        if header.body_bytes > MAX_BODY_BYTES || header.payload_bytes > MAX_PAYLOAD_BYTES {
            return Err(FrameError::TooLarge { body: header.body_bytes, payload: header.payload_bytes });
        }
        Ok(header)
    }
}

/// Appends the message's header and body to `out`; the payload, if there is one, must follow them on the stream.
pub fn encode(message: &Message, out: &mut BytesMut) {
    let start = out.len();
    out.put_bytes(0, FRAME_HEADER_BYTES);
    let kind = put_body(message, out);
    let body_bytes = out.len() - start - FRAME_HEADER_BYTES;
    debug_assert!(body_bytes <= MAX_BODY_BYTES as usize);
    let payload = message.payload();
    let mut header = &mut out[start..start + FRAME_HEADER_BYTES];
    header.put_u32_le(MAGIC);
    header.put_u16_le(kind);
    header.put_u16_le(0);
    header.put_u32_le(body_bytes as u32);
    header.put_u32_le(payload.map_or(0, |p| p.data.len() as u32));
    header.put_u32_le(payload.map_or(0, |p| p.crc32));
    let mut crc = crc32fast::Hasher::new();
    crc.update(&out[start..start + 20]);
    crc.update(&out[start + FRAME_HEADER_BYTES..]);
    let crc = crc.finalize();
    out[start + 20..start + 24].copy_from_slice(&crc.to_le_bytes());
}

/// Makes a message of a frame whose three parts have arrived. Checks both checksums.
pub fn decode(header: &FrameHeader, body: &[u8], payload: Bytes) -> Result<Message, FrameError> {
    let mut crc = crc32fast::Hasher::new_with_initial_len(header.start_crc32, 20);
    crc.update(body);
    if crc.finalize() != header.crc32 {
        return Err(FrameError::HeaderChecksum);
    }
    if !payload.is_empty() && crc32fast::hash(&payload) != header.payload_crc32 {
        return Err(FrameError::PayloadChecksum(payload.len()));
    }
    let payload = Payload { crc32: header.payload_crc32, data: payload };
    let mut body = Body { bytes: body };
    let message = take_body(header.kind, &mut body, payload);
    message.filter(|_| body.bytes.is_empty()).ok_or(if (1..=KINDS).contains(&header.kind) {
        FrameError::Malformed(header.kind)
    } else {
        FrameError::Kind(header.kind)
    })
}

const KINDS: u16 = 43;

fn put_body(message: &Message, out: &mut BytesMut) -> u16 {
    match message {
        Message::Preamble(p) => {
            out.put_u16_le(p.version_min);
            out.put_u16_le(p.version_max);
            out.put_u8(p.stream as u8);
            out.put_u64_le(p.session);
            out.put_u8(p.from.0);
            out.put_u8(p.to.0);
            put_text(&p.resource, out);
            put_text(&p.node_name, out);
            1
        }
        Message::Refuse { reason } => {
            put_text(reason, out);
            2
        }
        Message::Challenge { algorithm, challenge } => {
            out.put_u8(*algorithm as u8);
            out.put_slice(challenge);
            42
        }
        Message::Proof { stream, code } => {
            out.put_u8(*stream as u8);
            out.put_slice(code);
            43
        }
        Message::Options { terms, settings, tentative } => {
            put_terms(terms, out);
            out.put_u8(u8::from(*tentative));
            put_settings(settings, out);
            3
        }
        Message::Handshake(h) => {
            put_handshake(h, out);
            4
        }
        Message::BitmapChunk { chunk, .. } => {
            out.put_u64_le(*chunk);
            5
        }
        Message::BitmapEnd => 6,
        Message::State { role, disk } => {
            out.put_u8(*role as u8);
            out.put_u8(*disk as u8);
            7
        }
        Message::PromoteRequest { id } => {
            out.put_u64_le(*id);
            8
        }
        Message::PromoteReply { id, granted } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(*granted));
            9
        }
        Message::Goodbye { outdated } => {
            out.put_u8(u8::from(*outdated));
            10
        }
        Message::OutdateRequest => 32,
        Message::Write { seq, offset, wants, .. } => {
            out.put_u64_le(seq.0);
            out.put_u64_le(*offset);
            out.put_u8(wants.letter() as u8);
            11
        }
        Message::Zero { seq, range, wants, unmap } => {
            out.put_u64_le(seq.0);
            put_range(*range, out);
            out.put_u8(wants.letter() as u8);
            out.put_u8(u8::from(*unmap));
            12
        }
        Message::Barrier { epoch, writes, flush } => {
            out.put_u64_le(epoch.0);
            out.put_u32_le(*writes);
            out.put_u8(u8::from(*flush));
            13
        }
        Message::ResyncRequest { range } => {
            put_range(*range, out);
            14
        }
        Message::ResyncData { offset, .. } => {
            out.put_u64_le(*offset);
            15
        }
        Message::ResyncZeroes { range } => {
            put_range(*range, out);
            16
        }
        Message::ResyncWritten { range, written } => {
            put_range(*range, out);
            out.put_u8((*written).into());
            17
        }
        Message::ResyncDone => 18,
        Message::ResyncReady => 39,
        Message::ResyncCompare { range, algorithm, .. } => {
            put_range(*range, out);
            out.put_u8(*algorithm as u8);
            30
        }
        Message::ResyncInSync { range } => {
            put_range(*range, out);
            31
        }
        Message::SyncPause { paused } => {
            out.put_u8(u8::from(*paused));
            27
        }
        Message::ReadRequest { id, range } => {
            out.put_u64_le(*id);
            put_range(*range, out);
            19
        }
        Message::ReadReply { id, payload } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(payload.is_some()));
            20
        }
        Message::Ping => 21,
        Message::PingAck => 22,
        Message::Behind { id, round } => {
            out.put_u64_le(*id);
            out.put_u32_le(*round);
            28
        }
        Message::BehindAck { id } => {
            out.put_u64_le(*id);
            29
        }
        Message::ReceiveAck { seq } => put_ack(0, *seq, out),
        Message::WriteAck { seq } => put_ack(1, *seq, out),
        Message::NegativeAck { seq, disk_stays } => put_ack(2 + u8::from(*disk_stays), *seq, out),
        Message::BarrierAck { epoch, writes } => {
            out.put_u64_le(epoch.0);
            out.put_u32_le(*writes);
            24
        }
        Message::InvalidateRequest { id, remote, reset_bitmap } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(*remote));
            out.put_u8(u8::from(*reset_bitmap));
            25
        }
        Message::InvalidateReply { id, granted } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(*granted));
            26
        }
        Message::VerifyStart { id, algorithm, ranges } => {
            out.put_u64_le(*id);
            out.put_u8(*algorithm as u8);
            put_ranges(ranges, out);
            33
        }
        Message::VerifyReply { id, granted } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(*granted));
            34
        }
        Message::VerifyRequest { id, range } => {
            out.put_u64_le(*id);
            put_range(*range, out);
            35
        }
        Message::VerifyDigests { id, range, seen, algorithm, .. } => {
            out.put_u64_le(*id);
            put_range(*range, out);
            out.put_u64_le(*seen);
            out.put_u8(*algorithm as u8);
            36
        }
        Message::VerifyResult { id, range, compared, differing } => {
            out.put_u64_le(*id);
            put_range(*range, out);
            out.put_u8(u8::from(*compared));
            out.put_u64_le(*differing);
            37
        }
        Message::VerifyEnd { id, complete } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(*complete));
            38
        }
        Message::ResizeRequest { id, assume_clean } => {
            out.put_u64_le(*id);
            out.put_u8(u8::from(*assume_clean));
            40
        }
        Message::ResizeReply { id, room_bytes, rooms } => {
            out.put_u64_le(*id);
            out.put_u64_le(*room_bytes);
            put_rooms(rooms, out);
            41
        }
    }
}

fn take_body(kind: u16, b: &mut Body<'_>, payload: Payload) -> Option<Message> {
    let carries_payload = matches!(kind, 5 | 11 | 15 | 20 | 30 | 36);
    if !carries_payload && !payload.is_empty() {
        return None;
    }
    Some(match kind {
        1 => Message::Preamble(Preamble {
            version_min: b.u16()?,
            version_max: b.u16()?,
            stream: b.stream()?,
            session: b.u64()?,
            from: b.node()?,
            to: b.node()?,
            resource: b.text()?,
            node_name: b.text()?,
        }),
        2 => Message::Refuse { reason: b.text()? },
        3 => Message::Options { terms: take_terms(b)?, tentative: b.flag()?, settings: take_settings(b)? },
        4 => Message::Handshake(take_handshake(b)?),
        5 => Message::BitmapChunk { chunk: b.u64()?, words: payload },
        6 => Message::BitmapEnd,
        7 => Message::State { role: Role::from_u8(b.u8()?)?, disk: DiskState::from_u8(b.u8()?)? },
        8 => Message::PromoteRequest { id: b.u64()? },
        9 => Message::PromoteReply { id: b.u64()?, granted: b.flag()? },
        10 => Message::Goodbye { outdated: b.flag()? },
        11 => Message::Write {
            seq: WriteSeq(b.u64()?),
            offset: b.u64()?,
            wants: Protocol::from_letter(b.u8()?)?,
            payload: Some(payload).filter(|p| !p.is_empty())?,
        },
        12 => Message::Zero {
            seq: WriteSeq(b.u64()?),
            range: b.range()?,
            wants: Protocol::from_letter(b.u8()?)?,
            unmap: b.flag()?,
        },
        13 => Message::Barrier { epoch: Epoch(b.u64()?), writes: b.u32()?, flush: b.flag()? },
        14 => Message::ResyncRequest { range: b.range()? },
        15 => Message::ResyncData { offset: b.u64()?, payload: Some(payload).filter(|p| !p.is_empty())? },
        16 => Message::ResyncZeroes { range: b.range()? },
        17 => Message::ResyncWritten { range: b.range()?, written: b.flag()? },
        18 => Message::ResyncDone,
        19 => Message::ReadRequest { id: b.u64()?, range: b.range()? },
        20 => {
            let (id, found) = (b.u64()?, b.flag()?);
            if found == payload.is_empty() {
                return None;
            }
            Message::ReadReply { id, payload: found.then_some(payload) }
        }
        21 => Message::Ping,
        22 => Message::PingAck,
        23 => {
            let which = b.u8()?;
            let seq = WriteSeq(b.u64()?);
            match which {
                0 => Message::ReceiveAck { seq },
                1 => Message::WriteAck { seq },
                2 | 3 => Message::NegativeAck { seq, disk_stays: which == 3 },
                _ => return None,
            }
        }
        24 => Message::BarrierAck { epoch: Epoch(b.u64()?), writes: b.u32()? },
        25 => Message::InvalidateRequest { id: b.u64()?, remote: b.flag()?, reset_bitmap: b.flag()? },
        26 => Message::InvalidateReply { id: b.u64()?, granted: b.flag()? },
        27 => Message::SyncPause { paused: b.flag()? },
        28 => Message::Behind { id: b.u64()?, round: b.u32()? },
        29 => Message::BehindAck { id: b.u64()? },
        30 => Message::ResyncCompare {
            range: b.range()?,
            algorithm: b.algorithm()?,
            digests: Some(payload).filter(|p| !p.is_empty())?,
        },
        31 => Message::ResyncInSync { range: b.range()? },
        32 => Message::OutdateRequest,
        33 => Message::VerifyStart { id: b.u64()?, algorithm: b.algorithm()?, ranges: b.ranges()? },
        34 => Message::VerifyReply { id: b.u64()?, granted: b.flag()? },
        35 => Message::VerifyRequest { id: b.u64()?, range: b.range()? },
        36 => Message::VerifyDigests {
            id: b.u64()?,
            range: b.range()?,
            seen: b.u64()?,
            algorithm: b.algorithm()?,
            digests: Some(payload).filter(|p| !p.is_empty())?,
        },
        37 => Message::VerifyResult {
            id: b.u64()?,
            range: b.range()?,
            compared: b.flag()?,
            differing: b.u64()?,
        },
        38 => Message::VerifyEnd { id: b.u64()?, complete: b.flag()? },
        39 => Message::ResyncReady,
        40 => Message::ResizeRequest { id: b.u64()?, assume_clean: b.flag()? },
        41 => Message::ResizeReply { id: b.u64()?, room_bytes: b.u64()?, rooms: take_rooms(b)? },
        42 => Message::Challenge { algorithm: HmacAlgorithm::from_u8(b.u8()?)?, challenge: b.take()? },
        43 => Message::Proof { stream: b.stream()?, code: b.rest(MAX_CODE_BYTES)?.to_vec() },
        _ => return None,
    })
}

fn put_ack(which: u8, seq: WriteSeq, out: &mut BytesMut) -> u16 {
    out.put_u8(which);
    out.put_u64_le(seq.0);
    23
}

fn put_handshake(h: &Handshake, out: &mut BytesMut) {
    out.put_u32_le(h.round);
    out.put_u8(h.role as u8);
    out.put_u8(h.disk as u8);
    out.put_u64_le(h.disk_bytes);
    out.put_u64_le(h.growable_bytes);
    out.put_u64_le(h.agreed_bytes);
    out.put_u64_le(h.generations.current);
    for id in h.generations.history {
        out.put_u64_le(id);
    }
    out.put_u64_le(h.bitmap_id);
    out.put_u64_le(h.resync_id);
    out.put_u64_le(h.dirty_blocks);
    out.put_u8(u8::from(h.overcounted));
    out.put_u8(u8::from(h.crashed_primary));
    out.put_u8(u8::from(h.discard_my_data));
    out.put_u8(u8::from(h.gave_up));
    out.put_u8(u8::from(h.failed));
    out.put_u8(u8::from(h.held_open));
    out.put_u64_le(h.attachment);
    out.put_u8(u8::from(h.relied_on.is_some()));
    out.put_u64_le(h.relied_on.unwrap_or(0));
    out.put_u64_le(h.begins);
    let pieces = h.layout.pieces();
    out.put_u8(pieces.len() as u8);
    out.put_u8(h.layout.slot_bytes().ilog2() as u8);
    for piece in pieces {
        out.put_u16_le(piece.number);
        out.put_u64_le(piece.bytes);
    }
    put_rooms(&h.rooms, out);
    put_rooms(&h.growable_rooms, out);
}

fn take_handshake(b: &mut Body<'_>) -> Option<Handshake> {
    Some(Handshake {
        round: b.u32()?,
        role: Role::from_u8(b.u8()?)?,
        disk: DiskState::from_u8(b.u8()?)?,
        disk_bytes: b.u64()?,
        growable_bytes: b.u64()?,
        agreed_bytes: b.u64()?,
        generations: {
            let current = b.u64()?;
            let mut history = [0; HISTORY_SLOTS];
            for id in &mut history {
                *id = b.u64()?;
            }
            Generations { current, history }
        },
        bitmap_id: b.u64()?,
        resync_id: b.u64()?,
        dirty_blocks: b.u64()?,
        overcounted: b.flag()?,
        crashed_primary: b.flag()?,
        discard_my_data: b.flag()?,
        gave_up: b.flag()?,
        failed: b.flag()?,
        held_open: b.flag()?,
        attachment: b.u64()?,
        relied_on: {
            let (present, attachment) = (b.flag()?, b.u64()?);
            present.then_some(attachment)
        },
        begins: b.u64()?,
        layout: take_layout(b)?,
        rooms: take_rooms(b)?,
        growable_rooms: take_rooms(b)?,
    })
}

fn put_rooms(rooms: &[u64], out: &mut BytesMut) {
    out.put_u8(rooms.len() as u8);
    rooms.iter().for_each(|room| out.put_u64_le(*room));
}

fn take_rooms(b: &mut Body<'_>) -> Option<Vec<u64>> {
    let count = b.u8()?;
    (0..count).map(|_| b.u64()).collect()
}

fn take_layout(b: &mut Body<'_>) -> Option<Layout> {
    let (count, slots) = (b.u8()?, b.u8()?);
    let slot_bytes = 1u64.checked_shl(slots.into())?;
    let pieces = (0..count).map(|_| Some(VolumeSize { number: b.u16()?, bytes: b.u64()? }));
    Layout::of_pieces(pieces.collect::<Option<_>>()?, slot_bytes).ok()
}

fn put_ranges(ranges: &[ByteRange], out: &mut BytesMut) {
    out.put_u8(ranges.len() as u8);
    ranges.iter().for_each(|range| put_range(*range, out));
}

fn put_range(range: ByteRange, out: &mut BytesMut) {
    out.put_u64_le(range.offset);
    out.put_u64_le(range.length);
}

/// Longest text: a reason is cut rather than refused.
const MAX_TEXT_BYTES: usize = 1024;

fn put_text(text: &str, out: &mut BytesMut) {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_u16_le(end as u16);
    out.put_slice(&text.as_bytes()[..end]);
}
