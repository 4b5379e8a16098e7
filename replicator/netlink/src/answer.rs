//! What the kernel says to requests.

use nix::errno::Errno;

use crate::message::HEADER_BYTES;

/// The kind of message that acknowledges, or says why not.
const KIND_ERROR: u16 = 2;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Something.
    Data(Vec<u8>),
    /// That it is done, or why it is not.
    End(Result<(), Errno>),
}

/// The answers in a datagram, each behind the number of its request; `None` if it makes no sense.
pub(crate) fn answers(mut datagram: &[u8]) -> Option<Vec<(u32, Answer)>> {
    let mut found = Vec::new();
    while !datagram.is_empty() {
        let header = datagram.get(..HEADER_BYTES)?;
        let length = number(header)? as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = number(&header[8..])?;
        let body = datagram.get(HEADER_BYTES..length)?;
        let answer = match kind {
            KIND_ERROR => Answer::End(match number(body)?.cast_signed() {
                0 => Ok(()),
                code => Err(Errno::from_raw(-code)),
            }),
            _ => Answer::Data(body.to_vec()),
        };
        found.push((sequence, answer));
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        #[rustfmt::skip]
        let datagram = [
            // An event, which nobody has asked for.
            28, 0, 0, 0,  0x1c, 0,  0, 0,  0, 0, 0, 0,  0, 0, 0, 0,  4, 1, 0, 0,  8, 0, 1, 0,  5, 0, 0, 0,
            20, 0, 0, 0,  2, 0,  0, 0,  7, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
            20, 0, 0, 0,  2, 0,  0, 0,  8, 0, 0, 0,  0, 0, 0, 0,  0xf0, 0xff, 0xff, 0xff,
        ];
        let event = Answer::Data(vec![4, 1, 0, 0, 8, 0, 1, 0, 5, 0, 0, 0]);
        let ends = [(7, Answer::End(Ok(()))), (8, Answer::End(Err(Errno::EBUSY)))];
        assert_eq!(answers(&datagram), Some([vec![(0, event)], ends.to_vec()].concat()));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(answers(&[1, 2, 3]), None);
        assert_eq!(answers(&[0; 20]), None, "shorter than its header");
        let longer = [200, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(answers(&longer), None, "longer than it is");
        let no_code = [18, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(answers(&no_code), None, "too short for a code");
    }
}
