//! Whole sessions: however the bytes arrive, whatever they are.

use bytes::{Buf, BytesMut};
use proptest::prelude::*;
use tandem_nbd::constants::*;
use tandem_nbd::*;

use crate::client::*;

/// A server without disks: remembers what it sent and what it was told to do.
struct Server {
    negotiation: Negotiation,
    chosen: Option<ExportInfo>,
    receiver: Receiver,
    input: BytesMut,
    sent: Vec<u8>,
    events: Vec<Event>,
    payload: Vec<u8>,
    closed: Option<CloseReason>,
}

/// What must not depend on how the bytes arrive: sent, events, payloads, and how the handshake ended.
type Outcome = (Vec<u8>, Vec<Event>, Vec<u8>, Option<CloseReason>, Option<ExportInfo>);

impl Server {
    fn new() -> Server {
        Server {
            negotiation: Negotiation::new(),
            chosen: None,
            receiver: Receiver::new(),
            input: BytesMut::new(),
            sent: Vec::new(),
            events: Vec::new(),
            payload: Vec::new(),
            closed: None,
        }
    }

    fn over(&self) -> bool {
        let last = self.events.last();
        self.closed.is_some()
            || matches!(last, Some(Event::Close(_)))
            || matches!(last, Some(Event::Request(Request { command: Command::Disconnect, .. })))
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.over() {
            return;
        }
        self.input.extend_from_slice(bytes);
        if self.chosen.is_none() {
            self.negotiate();
        }
        if let Some(export) = self.chosen.clone() {
            self.transmit(&export);
        }
    }

    fn negotiate(&mut self) {
        loop {
            let mut out = BytesMut::new();
            let step = self.negotiation.receive(&mut self.input, &BOTH, &mut out);
            assert!(out.len() < MAX_WAITING_REPLY_BYTES + 10_000);
            self.sent.extend_from_slice(&out);
            match step {
                Step::SendFirst => continue,
                Step::NeedMore => {
                    assert!(self.input.len() < OPTION_HEADER_BYTES + MAX_OPTION_BYTES as usize);
                    return;
                }
                Step::Transmit { export } => return self.chosen = Some(export),
                Step::Close { reason } => return self.closed = Some(reason),
            }
        }
    }

    fn transmit(&mut self, export: &ExportInfo) {
        while !self.over() {
            // Alternates between the two ways a payload can come in.
            let mut target = vec![0; (self.receiver.payload_left() as usize).min(self.input.len())];
            let taken = self.receiver.take_payload(&mut self.input, &mut target[..]);
            self.payload.extend_from_slice(&target[..taken]);
            match self.receiver.next(&mut self.input, export) {
                Event::NeedMore => return assert!(self.input.len() < REQUEST_HEADER_BYTES),
                Event::Payload { .. } => return assert!(self.input.is_empty()),
                event => self.record(event, export),
            }
        }
    }

    fn record(&mut self, event: Event, export: &ExportInfo) {
        self.events.push(event);
        match event {
            Event::Request(request) => assert_executable(request.command, export),
            Event::Reject { cookie, errno } => self.sent.extend(simple_reply_header(cookie, Err(errno))),
            _ => {}
        }
        let straight = (self.receiver.payload_left() as usize).min(self.input.len()) / 2;
        self.payload.extend_from_slice(&self.input[..straight]);
        self.input.advance(straight);
        self.receiver.payload_received(straight);
    }

    fn result(self) -> Outcome {
        (self.sent, self.events, self.payload, self.closed, self.chosen)
    }
}

/// What [`Command`] promises.
fn assert_executable(command: Command, export: &ExportInfo) {
    let (offset, length, limit) = match command {
        Command::Read { offset, length } => (offset, length, export.block_size.maximum()),
        Command::Write { offset, length, .. } => (offset, length, export.block_size.maximum()),
        Command::Trim { offset, length, .. } => (offset, length, u32::MAX),
        Command::WriteZeroes { offset, length, .. } => (offset, length, u32::MAX),
        Command::Flush | Command::Nothing | Command::Disconnect => return,
    };
    assert!(length > 0 && length <= limit);
    assert!(offset % 512 == 0 && length % 512 == 0);
    assert!(offset.checked_add(length.into()).unwrap() <= export.size_bytes);
}

fn run<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Server {
    let mut server = Server::new();
    chunks.into_iter().for_each(|chunk| server.receive(chunk));
    server
}

/// A well-behaved but talkative client, from its flags to its goodbye.
fn session() -> Vec<u8> {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    bytes.extend(option(OPT_STRUCTURED_REPLY, b""));
    bytes.extend(option(OPT_LIST, b""));
    bytes.extend(option(77, &vec![b'y'; MAX_OPTION_BYTES as usize + 5]));
    bytes.extend(go(OPT_INFO, b"nope", &[INFO_BLOCK_SIZE]));
    bytes.extend(go(OPT_GO, b"r1", &[]));
    bytes.extend(go(OPT_GO, b"r0", &[INFO_BLOCK_SIZE, INFO_NAME]));
    bytes.extend(request(0, CMD_READ, 1, 0, 4096));
    bytes.extend(request(CMD_FLAG_FUA, CMD_WRITE, 2, 8192, 1024));
    bytes.extend([b'a'; 1024]);
    bytes.extend(request(0, CMD_WRITE, 3, SIZE_BYTES, 2048));
    bytes.extend([b'b'; 2048]);
    bytes.extend(request(0, CMD_WRITE, 4, 512, 512));
    bytes.extend([b'c'; 512]);
    bytes.extend(request(0, CMD_FLUSH, 5, 0, 0));
    bytes.extend(request(0, CMD_DISC, 6, 0, 0));
    bytes
}

#[test]
fn pipelined_session_is_understood() {
    let server = run([&session()[..]]);
    let request = |cookie, command| Event::Request(Request { cookie, command });
    let expected = [
        request(1, Command::Read { offset: 0, length: 4096 }),
        request(2, Command::Write { offset: 8192, length: 1024, fua: true }),
        Event::Reject { cookie: 3, errno: Errno::Enospc },
        request(4, Command::Write { offset: 512, length: 512, fua: false }),
        request(5, Command::Flush),
        request(6, Command::Disconnect),
    ];
    assert_eq!(server.events, expected);
    assert_eq!(server.payload, [[b'a'; 1024].to_vec(), [b'c'; 512].to_vec()].concat());
    assert_eq!(server.chosen, Some(export()));
}

#[test]
fn byte_by_byte_is_the_same() {
    let session = session();
    assert!(run(session.chunks(1)).result() == run([&session[..]]).result());
}

#[test]
fn pipelined_read_behind_go_stays_in_the_input() {
    let read = request(0, CMD_READ, 1, 0, 512);
    let mut handshake = Handshake::new(3, BOTH);
    let (_, step) = handshake.send(&[go(OPT_GO, b"r0", &[]), read.clone()].concat());
    assert_eq!(step, Step::Transmit { export: export() });
    assert_eq!(handshake.input, read);
    let (nothing, again) = handshake.send_raw(b"");
    assert_eq!((nothing.len(), again), (0, step));
    assert_eq!(handshake.input, read);
}

fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just("r0"), Just("r1"), Just(""), Just("nope")];
    let infos = prop::collection::vec(0u16..6, 0..4);
    prop_oneof![
        3 => (0u32..13, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, data)| option(n, &data)),
        1 => Just(option(OPT_LIST, b"")),
        1 => (name, infos).prop_map(|(name, infos)| go(OPT_INFO, name.as_bytes(), &infos)),
        1 => (0u32..13, 0u32..200_000).prop_map(|(n, length)| {
            [option_header(n, length), vec![0; length.min(100_000) as usize]].concat()
        }),
    ]
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![4 => Just(0), 2 => Just(CMD_FLAG_FUA), 1 => 0u16..32];
    let offset = prop_oneof![
        (0u64..200).prop_map(|sector| sector * 512),
        any::<u64>(),
        (0u64..9).prop_map(|n| SIZE_BYTES - n * 512)
    ];
    let length = prop_oneof![(0u32..9).prop_map(|sectors| sectors * 512), 0u32..5000];
    (flags, 0u16..9, any::<u64>(), offset, length).prop_map(|(flags, command, cookie, offset, length)| {
        let payload = if command == CMD_WRITE { length as usize } else { 0 };
        [request(flags, command, cookie, offset, length), vec![0x25; payload]].concat()
    })
}

/// A session of plausible but often wrong options and requests.
fn any_session() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![6 => Just(3u32), 1 => 0u32..8];
    let options = prop::collection::vec(any_option(), 0..6);
    let requests = prop::collection::vec(any_request(), 0..12);
    (flags, options, requests).prop_map(|(flags, options, requests)| {
        let start = [flags.to_be_bytes().to_vec(), options.concat(), go(OPT_GO, b"r0", &[])].concat();
        [start, requests.concat()].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn splits_make_no_difference(bytes in any_session(), sizes in prop::collection::vec(1usize..3000, 1..40)) {
        let (mut rest, mut chunks) = (&bytes[..], Vec::new());
        for size in sizes.iter().cycle() {
            let (chunk, behind) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(run(chunks).result() == run([&bytes[..]]).result());
    }

    /// Refused or not, every request leaves the connection in step, so that the last one is understood.
    #[test]
    fn requests_never_lose_step(mut requests in prop::collection::vec(any_request(), 0..20)) {
        requests.retain(|request| request[6..8] != CMD_DISC.to_be_bytes());
        let mut bytes = [3u32.to_be_bytes().to_vec(), go(OPT_GO, b"r0", &[])].concat();
        bytes.extend(requests.concat());
        bytes.extend(request(0, CMD_DISC, 0xd15c, 0, 0));
        let goodbye = Request { cookie: 0xd15c, command: Command::Disconnect };
        let last = run([&bytes[..]]).events.last().copied();
        prop_assert_eq!(last, Some(Event::Request(goodbye)));
    }

    /// The server's own assertions hold: bounded input, bounded output, executable commands, no panic.
    #[test]
    fn garbage_is_survived(garbage in prop::collection::vec(any::<u8>(), 0..5000), magics in any::<bool>()) {
        let prefix = if magics { [3u32.to_be_bytes().to_vec(), go(OPT_GO, b"r0", &[])].concat() } else { vec![] };
        run([&prefix[..], &garbage]);
        let behind_magic = [request(0, CMD_WRITE, 1, 0, 512), garbage].concat();
        run([&prefix[..], &behind_magic]);
    }

    /// Correct magics with arbitrary fields, and one flipped byte anywhere in a good session.
    #[test]
    fn near_misses_are_survived(
        fields in any::<(u16, u16, u64, u64, u32)>(),
        options in prop::collection::vec((0u32..13, any::<u32>()), 1..4),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let prefix = [3u32.to_be_bytes().to_vec(), go(OPT_GO, b"r0", &[])].concat();
        let (flags, command, cookie, offset, length) = fields;
        run([&prefix[..], &request(flags, command, cookie, offset, length), &[0; 4096]]);
        let headers: Vec<u8> = options.iter().flat_map(|(n, length)| option_header(*n, *length)).collect();
        run([&prefix[..4], &headers, &[0; 4096]]);
        let mut session = session();
        let at = at.index(session.len());
        session[at] ^= flip;
        run(session.chunks(700));
    }
}
