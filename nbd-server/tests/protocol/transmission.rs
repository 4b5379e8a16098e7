//! Requests: abuse cases t01 to t21 as far as they need no socket.

use tandem_nbd::constants::*;
use tandem_nbd::*;

use crate::client::*;

const COOKIE: u64 = 7;

/// The events of a client's bytes, with payloads taken as they come.
fn events(bytes: &[u8], export: &ExportInfo) -> Vec<Event> {
    let (mut receiver, mut input, mut events) = (Receiver::new(), bytes, Vec::new());
    loop {
        let event = receiver.next(&mut input, export);
        events.push(event);
        receiver.take_payload(&mut input, &mut vec![0; receiver.payload_left() as usize]);
        if matches!(event, Event::NeedMore | Event::Payload { .. } | Event::Close(_))
            || matches!(event, Event::Request(Request { command: Command::Disconnect, .. }))
        {
            return events;
        }
    }
}

/// What becomes of one request (with its payload), which must leave the connection in step.
fn outcome_on(
    export: &ExportInfo,
    flags: u16,
    command: u16,
    offset: u64,
    length: u32,
) -> Result<Command, Errno> {
    let mut bytes = request(flags, command, COOKIE, offset, length);
    if command == CMD_WRITE {
        bytes.resize(bytes.len() + length as usize, b'w');
    }
    bytes.extend(request(0, CMD_READ, 99, 0, 512));
    let events = events(&bytes, export);
    let read = Request { cookie: 99, command: Command::Read { offset: 0, length: 512 } };
    assert_eq!(events[1..], [Event::Request(read), Event::NeedMore]);
    match events[0] {
        Event::Request(Request { cookie: COOKIE, command }) => Ok(command),
        Event::Reject { cookie: COOKIE, errno } => Err(errno),
        other => panic!("{other:?}"),
    }
}

fn outcome(flags: u16, command: u16, offset: u64, length: u32) -> Result<Command, Errno> {
    outcome_on(&export(), flags, command, offset, length)
}

fn with_flags(flags: TransmissionFlags) -> ExportInfo {
    ExportInfo { flags, ..export() }
}

#[test]
fn t01_bad_magic_closes() {
    let mut bytes = request(0, CMD_READ, 7, 0, 512);
    bytes[0] = 0xde;
    assert_eq!(events(&bytes, &export()), [Event::Close(Violation::BadMagic(0xde60_9513))]);
}

#[test]
fn unknown_commands_and_flags() {
    // t02, t16 (BLOCK_STATUS), CACHE, RESIZE.
    for command in [5, 7, 8, 99, u16::MAX] {
        assert_eq!(outcome(0, command, 0, 0), Err(Errno::Einval));
    }
    // t03, t18 (DF), REQ_ONE, FAST_ZERO; NO_HOLE where it does not belong.
    for flags in [0x8000, 1 << 2, 1 << 3, 1 << 4, CMD_FLAG_NO_HOLE] {
        assert_eq!(outcome(flags, CMD_READ, 0, 512), Err(Errno::Einval));
        assert_eq!(outcome(flags, CMD_WRITE, 0, 512), Err(Errno::Einval));
    }
    assert_eq!(outcome(1 << 4, CMD_WRITE_ZEROES, 0, 512), Err(Errno::Einval));
}

#[test]
fn ranges_end_at_the_end() {
    let last = SIZE_BYTES - 512;
    assert_eq!(outcome(0, CMD_READ, last, 512), Ok(Command::Read { offset: last, length: 512 }));
    assert_eq!(
        outcome(0, CMD_WRITE, last, 512),
        Ok(Command::Write { offset: last, length: 512, fua: false })
    );
    // t04, t05, t07, t08, t14: one sector past the end, and around the end of the numbers.
    for (offset, length) in [(last, 1024), (SIZE_BYTES, 4096), (u64::MAX - 511, 1024), (u64::MAX, 512)] {
        assert_eq!(outcome(0, CMD_READ, offset, length), Err(Errno::Einval));
        assert_eq!(outcome(0, CMD_TRIM, offset, length), Err(Errno::Einval));
        assert_eq!(outcome(0, CMD_WRITE, offset, length), Err(Errno::Enospc));
        assert_eq!(outcome(0, CMD_WRITE_ZEROES, offset, length), Err(Errno::Enospc));
    }
}

#[test]
fn unaligned_requests() {
    for command in [CMD_READ, CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES] {
        for (offset, length) in [(1, 512), (512, 513), (256, 256)] {
            assert_eq!(outcome(0, command, offset, length), Err(Errno::Einval));
        }
    }
}

#[test]
fn payload_limits() {
    let maximum = 32 << 20;
    assert_eq!(outcome(0, CMD_READ, 0, maximum), Ok(Command::Read { offset: 0, length: maximum }));
    assert_eq!(
        outcome(0, CMD_WRITE, 0, maximum),
        Ok(Command::Write { offset: 0, length: maximum, fua: false })
    );
    assert_eq!(
        outcome(0, CMD_TRIM, 0, 64 << 20),
        Ok(Command::Trim { offset: 0, length: 64 << 20, fua: false })
    );
    // t06, t10
    assert_eq!(outcome(0, CMD_READ, 0, maximum + 512), Err(Errno::Einval));
    assert_eq!(outcome(0, CMD_READ, 0, u32::MAX), Err(Errno::Einval));
    assert_eq!(outcome(0, CMD_WRITE, 0, 48 << 20), Err(Errno::Einval));
    assert_eq!(outcome(0, CMD_WRITE, 0, 64 << 20), Err(Errno::Einval));
    // t09
    for length in [(64 << 20) + 1, u32::MAX] {
        let closed = Event::Close(Violation::PayloadTooLong(length));
        assert_eq!(events(&request(0, CMD_WRITE, 7, 0, length), &export()), [closed]);
    }
}

#[test]
fn empty_ranges_do_nothing() {
    // t11, t12, t13
    for command in [CMD_READ, CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES] {
        assert_eq!(outcome(0, command, SIZE_BYTES, 0), Ok(Command::Nothing));
    }
}

#[test]
fn flush_has_no_range() {
    assert_eq!(outcome(0, CMD_FLUSH, 0, 0), Ok(Command::Flush));
    // t15
    assert_eq!(outcome(0, CMD_FLUSH, 4096, 4096), Err(Errno::Einval));
    assert_eq!(outcome(0, CMD_FLUSH, 0, 4096), Err(Errno::Einval));
}

#[test]
fn fua_is_accepted_on_every_command_where_offered() {
    // t17
    let fua = CMD_FLAG_FUA;
    assert_eq!(outcome(fua, CMD_READ, 0, 512), Ok(Command::Read { offset: 0, length: 512 }));
    assert_eq!(outcome(fua, CMD_FLUSH, 0, 0), Ok(Command::Flush));
    assert_eq!(outcome(fua, CMD_WRITE, 0, 512), Ok(Command::Write { offset: 0, length: 512, fua: true }));
    assert_eq!(outcome(fua, CMD_TRIM, 0, 512), Ok(Command::Trim { offset: 0, length: 512, fua: true }));
    let zeroes = Command::WriteZeroes { offset: 0, length: 512, fua: true, no_hole: true };
    assert_eq!(outcome(fua | CMD_FLAG_NO_HOLE, CMD_WRITE_ZEROES, 0, 512), Ok(zeroes));
    let without = with_flags(TransmissionFlags::HAS_FLAGS);
    assert_eq!(outcome_on(&without, fua, CMD_WRITE, 0, 512), Err(Errno::Einval));
}

#[test]
fn only_what_is_offered() {
    let bare = with_flags(TransmissionFlags::HAS_FLAGS);
    for (command, length) in [(CMD_FLUSH, 0), (CMD_TRIM, 512), (CMD_WRITE_ZEROES, 512)] {
        assert_eq!(outcome_on(&bare, 0, command, 0, length), Err(Errno::Einval));
    }
    let read_only = with_flags(export().flags | TransmissionFlags::READ_ONLY);
    for command in [CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES] {
        assert_eq!(outcome_on(&read_only, 0, command, 0, 512), Err(Errno::Eperm));
    }
    assert_eq!(outcome_on(&read_only, 0, CMD_FLUSH, 0, 0), Ok(Command::Flush));
}

#[test]
fn t20_disconnect_follows_what_is_in_flight_and_ends_the_stream() {
    let mut bytes = request(0, CMD_READ, 0, 0, 65536).repeat(64);
    bytes.extend(request(0, CMD_DISC, 1, 5, 6));
    bytes.extend(request(0, CMD_READ, 2, 0, 512));
    let events = events(&bytes, &export());
    assert_eq!(events.len(), 65);
    assert_eq!(events[64], Event::Request(Request { cookie: 1, command: Command::Disconnect }));
}

#[test]
fn nothing_is_read_behind_a_disconnect() {
    let bytes = [request(0, CMD_DISC, 1, 0, 0), request(0, CMD_READ, 2, 0, 512)].concat();
    let (mut receiver, mut input) = (Receiver::new(), &bytes[..]);
    let goodbye = Event::Request(Request { cookie: 1, command: Command::Disconnect });
    assert_eq!(receiver.next(&mut input, &export()), goodbye);
    assert_eq!(receiver.next(&mut input, &export()), goodbye);
    assert_eq!(input.len(), REQUEST_HEADER_BYTES);
}

#[test]
fn t21_write_is_not_complete_before_its_payload() {
    let mut bytes = request(0, CMD_WRITE, COOKIE, 8192, 4096);
    bytes.extend([b'Q'; 2048]);
    let (mut receiver, mut input, mut target) = (Receiver::new(), &bytes[..], [0; 4096]);
    let write = Command::Write { offset: 8192, length: 4096, fua: false };
    assert_eq!(
        receiver.next(&mut input, &export()),
        Event::Request(Request { cookie: COOKIE, command: write })
    );
    assert_eq!(receiver.take_payload(&mut input, &mut target), 2048);
    assert_eq!(receiver.next(&mut input, &export()), Event::Payload { left: 2048 });
    receiver.payload_received(2048);
    assert_eq!(receiver.next(&mut input, &export()), Event::NeedMore);
}

#[test]
#[should_panic(expected = "only 0 were missing")]
fn payload_beyond_the_end_is_a_driver_bug() {
    Receiver::new().payload_received(1);
}

#[test]
fn reply_header_layout() {
    assert_eq!(&simple_reply_header(0x0102, Ok(())), b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\x01\x02");
    assert_eq!(simple_reply_header(1, Err(Errno::Eshutdown))[4..8], 108u32.to_be_bytes());
}

#[test]
fn block_sizes_are_valid_or_refused() {
    assert!(BlockSize::new(1, 512, 512).is_ok());
    assert!(BlockSize::new(65536, 65536, 32 << 20).is_ok());
    let bad = [
        (0, 4096, 4096),
        (3, 4096, 4098),
        (1 << 17, 1 << 17, 1 << 17),
        (512, 256, 4096),
        (4096, 512, 4096),
        (512, 4096, 2048),
        (512, 4096, 4097),
        (512, 4096, (32 << 20) + 512),
    ];
    for (minimum, preferred, maximum) in bad {
        assert!(BlockSize::new(minimum, preferred, maximum).is_err(), "{minimum} {preferred} {maximum}");
    }
}
