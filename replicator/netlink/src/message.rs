//! One request, and how it is written.

use crate::attributes::Attributes;

/// Make what is not there.
pub const CREATE: u16 = 0x400;
/// Behind what is there.
pub const APPEND: u16 = 0x800;
const REQUEST: u16 = 1;
/// Say that it is done.
pub const ACKNOWLEDGE: u16 = 4;
pub(crate) const HEADER_BYTES: usize = 16;

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A message that begins with these bytes.
    pub fn new(kind: u16, flags: u16, beginning: &[u8], attributes: Attributes) -> Self {
        Self { kind, flags, body: [beginning, attributes.as_bytes()].concat() }
    }

    /// As the kernel reads it, with a number by which it answers and more flags.
    pub fn bytes(&self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = (HEADER_BYTES + self.body.len()) as u32;
        let kind = [self.kind.to_ne_bytes(), (self.flags | REQUEST | flags).to_ne_bytes()].concat();
        // The socket's number is for the kernel to know.
        [&length.to_ne_bytes()[..], &kind, &sequence.to_ne_bytes(), &[0; 4], &self.body].concat()
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_built_as_the_kernel_reads_it() {
        let inner = Attributes::default().u32_be(2, 1);
        let attributes = Attributes::default().text(1, "ab").nested(4, inner);
        let message = Message::new(0x0a00, CREATE, &[1, 0, 0, 0], attributes);
        #[rustfmt::skip]
        let expected = [
            40, 0, 0, 0,  0, 0x0a,  5, 4,  7, 0, 0, 0,  0, 0, 0, 0, // length, kind, flags, sequence, port
            1, 0, 0, 0,
            7, 0, 1, 0,  b'a', b'b', 0, 0, // padded
            12, 0, 4, 0x80,  8, 0, 2, 0,  0, 0, 0, 1,
        ];
        assert_eq!(message.bytes(7, ACKNOWLEDGE), expected);
    }
}
