//! Attributes: values, each with its length and its kind in front and padded to four bytes.

const HEADER_BYTES: usize = 4;
/// A flag of the kind: the value consists of attributes.
const NESTED: u16 = 1 << 15;

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Those that somebody else has put together.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// One more.
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (HEADER_BYTES + value.len()) as u16;
        self.0.extend([length.to_ne_bytes(), kind.to_ne_bytes()].concat());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A word, which ends with a zero.
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// A number in the machine's order.
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in the machine's order.
    pub fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in the network's order.
    pub fn u32_be(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes of its own.
    pub fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// The value of an attribute, if it is there.
    pub fn get(&self, wanted: u16) -> Option<&[u8]> {
        let mut rest = &self.0[..];
        while let [l0, l1, k0, k1, ..] = *rest {
            let (length, kind) = (usize::from(u16::from_ne_bytes([l0, l1])), u16::from_ne_bytes([k0, k1]));
            let value = rest.get(HEADER_BYTES..length)?;
            if kind & !NESTED == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }

    /// A number of two bytes.
    pub fn get_u16(&self, wanted: u16) -> Option<u16> {
        self.get(wanted)?.try_into().ok().map(u16::from_ne_bytes)
    }

    /// A number of four bytes.
    pub fn get_u32(&self, wanted: u16) -> Option<u32> {
        self.get(wanted)?.try_into().ok().map(u32::from_ne_bytes)
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_found() {
        let said = Attributes::default().text(1, "ab").u32(2, 7).nested(3, Attributes::default().u64(1, 9));
        assert_eq!((said.get(1), said.get_u32(2)), (Some(&b"ab\0"[..]), Some(7)));
        assert_eq!(said.get(3).map(Attributes::from_bytes), Some(Attributes::default().u64(1, 9)));
        assert_eq!((said.get(4), said.get_u16(2)), (None, None));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Attributes(vec![255, 0, 1, 0, 1]).get(1), None, "longer than it is");
        assert_eq!(
            Attributes(vec![0, 0, 1, 0, 0, 0, 0, 0]).get(2),
            None,
            "a length of nothing ends the list"
        );
    }
}
