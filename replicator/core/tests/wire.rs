//! Frames: every kind survives the way, damage is noticed, garbage never panics, docs/wire.md names every kind.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tandem_core::authentication::HmacAlgorithm;
use tandem_core::config::{Options, Protocol, Terms};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::generation::{Generations, HISTORY_SLOTS};
use tandem_core::io::Payload;
use tandem_core::layout::{Layout, VolumeSize};
use tandem_core::split_brain::{AfterSplitBrain, NoPrimary, OnePrimary, TwoPrimaries};
use tandem_core::state::{DiskState, Role};
use tandem_core::units::{ByteRange, Epoch, NodeId, WriteSeq};
use tandem_core::wire::{
    FRAME_HEADER_BYTES, FrameError, FrameHeader, Handshake, MAX_BODY_BYTES, MAX_PAYLOAD_BYTES, Message,
    Preamble, Stream, decode, encode,
};

fn one_of_each() -> Vec<Message> {
    let payload = Payload::new(Bytes::from(vec![7; 512]));
    let (seq, range) = (WriteSeq(9), ByteRange::new(4096, 8192));
    let mut history = [0; HISTORY_SLOTS];
    history[3] = 99;
    vec![
        Message::Preamble(Preamble {
            version_min: 1,
            version_max: 2,
            stream: Stream::Control,
            session: 3,
            from: NodeId(0),
            to: NodeId(1),
            resource: "r0".into(),
            node_name: "alpha".into(),
        }),
        Message::Refuse { reason: "no".into() },
        Message::Challenge { algorithm: HmacAlgorithm::Sha384, challenge: [5; 32] },
        Message::Proof { stream: Stream::Control, code: vec![6; 64] },
        options(NoPrimary::DiscardLeastChanges, true),
        options(NoPrimary::DiscardNode(NodeId(7)), false),
        Message::Handshake(Handshake {
            round: 1,
            role: Role::Primary,
            disk: DiskState::UpToDate,
            disk_bytes: 1,
            growable_bytes: 2,
            agreed_bytes: 2,
            generations: Generations { current: 3, history },
            bitmap_id: 4,
            resync_id: 5,
            dirty_blocks: 6,
            crashed_primary: true,
            discard_my_data: true,
            overcounted: true,
            gave_up: true,
            failed: true,
            held_open: true,
            attachment: 11,
            relied_on: Some(12),
            begins: 13,
            layout: Layout::new(vec![
                VolumeSize { number: 1, bytes: 4096 },
                VolumeSize { number: 65_534, bytes: 8192 },
            ])
            .unwrap(),
            rooms: vec![4096, 8192],
            growable_rooms: vec![4096, 1 << 40],
        }),
        Message::BitmapChunk { chunk: 1, words: Payload::new(Bytes::from(vec![1; 4096])) },
        Message::BitmapChunk { chunk: 2, words: Payload::new(Bytes::new()) },
        Message::BitmapEnd,
        Message::State { role: Role::Secondary, disk: DiskState::Failed },
        Message::PromoteRequest { id: 7 },
        Message::PromoteReply { id: 7, granted: true },
        Message::Goodbye { outdated: true },
        Message::OutdateRequest,
        Message::Write { seq, offset: 512, wants: Protocol::B, payload: payload.clone() },
        Message::Zero { seq, range, wants: Protocol::C, unmap: true },
        Message::Barrier { epoch: Epoch(5), writes: 6, flush: true },
        Message::ResyncReady,
        Message::ResyncRequest { range },
        Message::ResyncData { offset: 0, payload: payload.clone() },
        Message::ResyncZeroes { range },
        Message::ResyncWritten { range, written: true },
        Message::ResyncWritten { range, written: false },
        Message::ResyncDone,
        Message::ResyncCompare { range, algorithm: DigestAlgorithm::Sha1, digests: payload.clone() },
        Message::ResyncInSync { range },
        Message::SyncPause { paused: true },
        Message::ReadRequest { id: 1, range },
        Message::ReadReply { id: 1, payload: Some(payload.clone()) },
        Message::ReadReply { id: 2, payload: None },
        Message::Ping,
        Message::PingAck,
        Message::ReceiveAck { seq },
        Message::WriteAck { seq },
        Message::NegativeAck { seq, disk_stays: false },
        Message::NegativeAck { seq, disk_stays: true },
        Message::BarrierAck { epoch: Epoch(5), writes: 6 },
        Message::InvalidateRequest { id: 8, remote: true, reset_bitmap: false },
        Message::InvalidateReply { id: 8, granted: true },
        Message::Behind { id: 3, round: 1 },
        Message::BehindAck { id: 3 },
        Message::VerifyStart { id: 9, algorithm: DigestAlgorithm::Sha1, ranges: vec![range] },
        Message::VerifyReply { id: 9, granted: true },
        Message::VerifyRequest { id: 10, range },
        Message::VerifyDigests {
            id: 10,
            range,
            seen: 3,
            algorithm: DigestAlgorithm::Sha256,
            digests: payload.clone(),
        },
        Message::VerifyResult { id: 10, range, compared: true, differing: 5 },
        Message::VerifyEnd { id: 9, complete: true },
        Message::ResizeRequest { id: 11, assume_clean: true },
        Message::ResizeReply { id: 11, room_bytes: 1 << 40, rooms: vec![1, 2] },
    ]
}

fn frame(message: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(message, &mut out);
    out.extend_from_slice(message.payload().map_or(&[], |p| &p.data[..]));
    out.to_vec()
}

fn read(bytes: &[u8]) -> Result<Message, FrameError> {
    let header = FrameHeader::parse(bytes[..FRAME_HEADER_BYTES].try_into().unwrap())?;
    let body_end = FRAME_HEADER_BYTES + header.body_bytes as usize;
    let end = body_end + header.payload_bytes as usize;
    if bytes.len() < end {
        return Err(FrameError::TooLarge { body: header.body_bytes, payload: header.payload_bytes });
    }
    decode(&header, &bytes[FRAME_HEADER_BYTES..body_end], Bytes::copy_from_slice(&bytes[body_end..end]))
}

#[test]
fn every_message_survives_the_way() {
    for message in one_of_each() {
        assert_eq!(read(&frame(&message)).as_ref(), Ok(&message));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for message in one_of_each() {
        let good = frame(&message);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit} of {message:?}");
        }
    }
}

#[test]
fn oversized_frames_are_refused_before_anything_is_received() {
    let mut bytes = frame(&Message::Ping);
    bytes[8..12].copy_from_slice(&(MAX_BODY_BYTES + 1).to_le_bytes());
    assert!(matches!(read(&bytes), Err(FrameError::TooLarge { .. })));
    let mut bytes = frame(&Message::Ping);
    bytes[12..16].copy_from_slice(&(MAX_PAYLOAD_BYTES + 1).to_le_bytes());
    assert!(matches!(read(&bytes), Err(FrameError::TooLarge { .. })));
}

#[test]
fn long_reasons_are_cut_at_a_character() {
    let reason = "ä".repeat(5000);
    match read(&frame(&Message::Refuse { reason: reason.clone() })) {
        Ok(Message::Refuse { reason: cut }) => assert!(!cut.is_empty() && reason.starts_with(&cut)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_version_is_refused_with_both_ranges() {
    let ours = match &one_of_each()[0] {
        Message::Preamble(p) => p.clone(),
        _ => unreachable!(),
    };
    let theirs = Preamble { version_min: 3, version_max: 4, from: NodeId(1), to: NodeId(0), ..ours.clone() };
    let reason = ours.accept(&theirs).unwrap_err();
    assert!(reason.contains("speaks 1 to 2") && reason.contains("speaks 3 to 4"), "{reason}");
    assert!(ours.accept(&Preamble { from: NodeId(1), to: NodeId(0), ..ours.clone() }).is_ok());
    assert!(ours.accept(&Preamble { resource: "other".into(), ..theirs.clone() }).is_err());
}

#[test]
fn the_document_names_every_message() {
    let document = include_str!("../../../docs/wire.md");
    for message in one_of_each() {
        let debug = format!("{message:?}");
        let name: String = debug.chars().take_while(|c| c.is_alphanumeric()).collect();
        let bytes = frame(&message);
        let kind = u16::from_le_bytes([bytes[4], bytes[5]]);
        assert!(
            document.contains(&format!("| {kind} | {name} |")),
            "docs/wire.md lacks the row of {name}, {kind}"
        );
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), FRAME_HEADER_BYTES..200), ours in any::<bool>()) {
        if ours {
            bytes[..4].copy_from_slice(b"TNDM");
            bytes[8..16].copy_from_slice(&[8, 0, 0, 0, 0, 0, 0, 0]);
        }
        prop_assert!(read(&bytes).is_err());
    }
}

fn options(no_primary: NoPrimary, tentative: bool) -> Message {
    let after_split_brain = AfterSplitBrain {
        no_primary,
        one_primary: OnePrimary::Consensus,
        two_primaries: TwoPrimaries::CallPriLostAfterSb,
        always: true,
    };
    let settings = Options { after_split_brain, ..Options::default() }.settings();
    Message::Options { terms: Terms { protocol: Protocol::B, after_split_brain }, settings, tentative }
}
