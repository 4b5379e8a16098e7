//! Negotiation: abuse cases h01 to h22 and the answers to well-formed options.

use tandem_nbd::constants::*;
use tandem_nbd::*;

use crate::client::*;

fn handshake() -> Handshake {
    Handshake::new(3, BOTH)
}

#[test]
fn greeting_is_fixed_newstyle() {
    assert_eq!(&Negotiation::greeting(), b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn h01_unknown_client_flags_close() {
    assert_eq!(Handshake::new(0xff, BOTH).closed(b""), CloseReason::UnknownClientFlags(0xff));
}

#[test]
fn h02_without_fixed_newstyle_only_export_name_is_accepted() {
    let closed = Handshake::new(0, BOTH).closed(&go(OPT_GO, b"r0", &[]));
    assert_eq!(closed, CloseReason::FixedNewstyleNeeded(OPT_GO));
    let (sent, step) = Handshake::new(0, BOTH).send_raw(&option(OPT_EXPORT_NAME, b"r0"));
    assert_eq!((sent.len(), step), (8 + 2 + 124, Step::Transmit { export: export() }));
    assert_eq!(sent[..8], SIZE_BYTES.to_be_bytes());
    assert!(sent[10..].iter().all(|byte| *byte == 0));
}

#[test]
fn export_name_without_zeroes() {
    let (sent, step) = handshake().send_raw(&option(OPT_EXPORT_NAME, b"r0"));
    assert_eq!((sent.len(), step), (10, Step::Transmit { export: export() }));
    assert_eq!(sent[8..], export().flags.bits().to_be_bytes());
}

#[test]
fn h03_bad_option_magic_closes_and_stays_closed() {
    let mut handshake = handshake();
    assert_eq!(handshake.closed(&[1; 16]), CloseReason::BadOptionMagic(0x0101_0101_0101_0101));
    let left = handshake.input.len();
    assert_eq!(handshake.closed(b""), CloseReason::BadOptionMagic(0x0101_0101_0101_0101));
    assert_eq!(handshake.input.len(), left);
}

#[test]
fn unknown_and_unsupported_options_are_refused_in_step() {
    // h04 (unknown with data), h15 to h19 (structured replies, metadata contexts), h20 (TLS).
    for number in [0, 4, 77, u32::MAX] {
        assert!(handshake().refused(&option(number, &[b'x'; 100]), REP_ERR_UNSUP).contains("unknown"));
    }
    for number in [
        OPT_STARTTLS,
        OPT_STRUCTURED_REPLY,
        OPT_LIST_META_CONTEXT,
        OPT_SET_META_CONTEXT,
        OPT_EXTENDED_HEADERS,
    ] {
        let mut handshake = handshake();
        assert!(!handshake.refused(&option(number, b""), REP_ERR_UNSUP).contains("unknown"));
        handshake.refused(&option(number, b"\xff\xff\xff\xff"), REP_ERR_UNSUP);
    }
}

#[test]
fn h05_option_of_4_gib_closes_before_its_data() {
    let expected = CloseReason::OptionTooLong { option: 77, length: u32::MAX };
    assert_eq!(handshake().closed(&option_header(77, u32::MAX)), expected);
    let length = MAX_SKIPPED_OPTION_BYTES + 1;
    assert_eq!(
        handshake().closed(&option_header(OPT_GO, length)),
        CloseReason::OptionTooLong { option: OPT_GO, length }
    );
    // EXPORT_NAME cannot report an error: nothing to skip for.
    let length = MAX_OPTION_BYTES + 1;
    let closed = handshake().closed(&option_header(OPT_EXPORT_NAME, length));
    assert_eq!(closed, CloseReason::OptionTooLong { option: OPT_EXPORT_NAME, length });
}

#[test]
fn h06_option_of_1_mib_is_skipped_without_being_buffered() {
    let mut handshake = handshake();
    assert_eq!(handshake.send(&option_header(77, 1 << 20)), (vec![], Step::NeedMore));
    for _ in 0..15 {
        assert_eq!(handshake.send(&[b'y'; 1 << 16]), (vec![], Step::NeedMore));
        assert!(handshake.input.is_empty());
    }
    handshake.refused(&[b'y'; 1 << 16], REP_ERR_TOO_BIG);
}

#[test]
fn longest_option_is_answered() {
    handshake().refused(&option(77, &[0; MAX_OPTION_BYTES as usize]), REP_ERR_UNSUP);
}

#[test]
fn h07_list_with_data() {
    handshake().refused(&option(OPT_LIST, b"zz"), REP_ERR_INVALID);
}

#[test]
fn list_names_and_describes() {
    let (replies, step) = handshake().send(&option(OPT_LIST, b""));
    let data: Vec<&[u8]> = replies.iter().map(|reply| &reply.data[..]).collect();
    assert_eq!(data, [&b"\0\0\0\x02r0disk of A"[..], &b"\0\0\0\x02r1disk of A"[..], b""]);
    assert_eq!(replies.iter().map(|reply| reply.kind).collect::<Vec<_>>(), [REP_SERVER, REP_SERVER, REP_ACK]);
    assert!(replies.iter().all(|reply| reply.option == OPT_LIST));
    assert_eq!(step, Step::NeedMore);
}

#[test]
fn malformed_go_is_refused_in_step() {
    // h08: the name is longer than the option; h09: no room for a length; h10: the count lies; h13: not text.
    let lying_name = option(OPT_GO, b"\xff\xff\xff\xf0e\0\0");
    let short = option(OPT_GO, b"ab");
    let no_count = option(OPT_GO, b"\0\0\0\x02r0");
    let lying_count = option(OPT_GO, b"\0\0\0\x02r0\xff\xff");
    let trailing = option(OPT_GO, b"\0\0\0\x02r0\0\0zz");
    let binary = go(OPT_GO, b"\xff\xfe\0x", &[]);
    let nul = go(OPT_INFO, b"r0\0", &[]);
    for bytes in [lying_name, short, no_count, lying_count, trailing, binary, nul] {
        handshake().refused(&bytes, REP_ERR_INVALID);
    }
    // h11
    handshake().refused(&go(OPT_GO, &[b'n'; 5000], &[]), REP_ERR_TOO_BIG);
}

#[test]
fn h12_unknown_export_names_the_known_ones() {
    for number in [OPT_INFO, OPT_GO] {
        let text = handshake().refused(&go(number, b"nope", &[]), REP_ERR_UNKNOWN);
        assert_eq!(text, r#"no export "nope"; this server exports r0, r1"#);
    }
    let nothing = Handshake::new(3, Catalog(&[])).refused(&go(OPT_GO, b"r0", &[]), REP_ERR_UNKNOWN);
    assert!(nothing.contains("exports nothing"));
}

#[test]
fn refused_export_says_what_to_do() {
    for number in [OPT_INFO, OPT_GO] {
        assert_eq!(handshake().refused(&go(number, b"r1", &[]), REP_ERR_POLICY), SECONDARY);
    }
    let closed = handshake().closed(&option(OPT_EXPORT_NAME, b"r1"));
    assert_eq!(closed, CloseReason::ExportRefused(SECONDARY.to_owned()));
}

#[test]
fn h14_unknown_export_by_export_name_closes_without_an_answer() {
    for name in [&b"nope"[..], b"\xff", &[b'n'; 5000]] {
        let (sent, step) = handshake().send_raw(&option(OPT_EXPORT_NAME, name));
        assert!(sent.is_empty());
        assert!(matches!(step, Step::Close { reason: CloseReason::ExportRefused(_) }), "{step:?}");
    }
}

#[test]
fn empty_name_is_the_only_export() {
    let (_, step) = Handshake::new(3, Catalog(&["r0"])).send(&go(OPT_GO, b"", &[]));
    assert_eq!(step, Step::Transmit { export: export() });
    let (_, step) = Handshake::new(3, Catalog(&["r0"])).send_raw(&option(OPT_EXPORT_NAME, b""));
    assert_eq!(step, Step::Transmit { export: export() });
    handshake().refused(&go(OPT_GO, b"", &[]), REP_ERR_UNKNOWN);
    Handshake::new(3, Catalog(&["r1"])).refused(&go(OPT_GO, b"", &[]), REP_ERR_POLICY);
}

#[test]
fn info_and_go_agree() {
    let wanted = [INFO_DESCRIPTION, INFO_BLOCK_SIZE, 999, INFO_NAME, INFO_NAME];
    let (info, info_step) = handshake().send(&go(OPT_INFO, b"r0", &wanted));
    let (go, go_step) = handshake().send(&go(OPT_GO, b"r0", &wanted));
    assert_eq!((info_step, go_step), (Step::NeedMore, Step::Transmit { export: export() }));

    let contents = |replies: &[OptionReply]| -> Vec<(u32, Vec<u8>)> {
        replies.iter().map(|reply| (reply.kind, reply.data.clone())).collect()
    };
    assert_eq!(contents(&info), contents(&go));
    let flags = export().flags.bits().to_be_bytes();
    let expected = [
        (REP_INFO, [&[0, 0], &SIZE_BYTES.to_be_bytes()[..], &flags].concat()),
        (REP_INFO, b"\0\x03\0\0\x02\0\0\0\x10\0\x02\0\0\0".to_vec()),
        (REP_INFO, b"\0\x01r0".to_vec()),
        (REP_INFO, b"\0\x02disk of A".to_vec()),
        (REP_ACK, vec![]),
    ];
    assert_eq!(contents(&info), expected);
    assert!(
        info.iter().all(|reply| reply.option == OPT_INFO) && go.iter().all(|reply| reply.option == OPT_GO)
    );
}

#[test]
fn h21_thousands_of_options_but_not_for_ever() {
    let mut handshake = handshake();
    for _ in 0..MAX_OPTIONS {
        assert_eq!(handshake.send(&option(77, b"")).0[0].kind, REP_ERR_UNSUP);
    }
    assert_eq!(handshake.closed(&option(77, b"")), CloseReason::TooManyOptions);
}

#[test]
fn h22_abort_is_acknowledged() {
    let (replies, step) = handshake().send(&option(OPT_ABORT, b""));
    assert_eq!(replies, [OptionReply { option: OPT_ABORT, kind: REP_ACK, data: vec![] }]);
    assert_eq!(step, Step::Close { reason: CloseReason::Aborted });
}

#[test]
fn replies_do_not_pile_up() {
    let mut negotiation = Negotiation::new();
    let (mut input, mut out) = (bytes::BytesMut::new(), bytes::BytesMut::new());
    input.extend_from_slice(&3u32.to_be_bytes());
    input.extend_from_slice(&option(OPT_LIST, b"").repeat(4000));
    let (mut lists, mut step) = (0, Step::SendFirst);
    while step == Step::SendFirst {
        step = negotiation.receive(&mut input, &BOTH, &mut out);
        assert!(out.len() < MAX_WAITING_REPLY_BYTES + 1000);
        lists += replies(&out).iter().filter(|reply| reply.kind == REP_ACK).count();
        out.clear();
    }
    assert_eq!((lists, step), (4000, Step::NeedMore));
}

#[test]
fn long_texts_are_cut_at_a_character() {
    struct Talkative;
    impl ExportCatalog for Talkative {
        fn list(&self) -> Vec<ExportSummary> {
            vec![]
        }
        fn open(&self, _: &str) -> Result<ExportInfo, OpenError> {
            Err(OpenError::Refused("é".repeat(5000) + "x"))
        }
    }
    let mut input = bytes::BytesMut::from(&[&3u32.to_be_bytes()[..], &go(OPT_GO, b"r0", &[])].concat()[..]);
    let mut out = bytes::BytesMut::new();
    assert_eq!(Negotiation::new().receive(&mut input, &Talkative, &mut out), Step::NeedMore);
    assert_eq!(replies(&out)[0].text(), "é".repeat(2048));
}
