//! Words, numbers and bytes as remote procedure calls have them.

/// What is sent.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) bytes: Vec<u8>,
    /// How many of NFSv4's operations are in it.
    pub(crate) operations: u32,
}

impl Arguments {
    /// Begins one of these.
    pub(crate) fn operation(&mut self, number: u32) -> &mut Self {
        self.operations += 1;
        self.word(number)
    }

    pub(crate) fn word(&mut self, word: u32) -> &mut Self {
        self.fixed(&word.to_be_bytes())
    }

    pub(crate) fn long(&mut self, long: u64) -> &mut Self {
        self.fixed(&long.to_be_bytes())
    }

    pub(crate) fn opaque(&mut self, bytes: &[u8]) -> &mut Self {
        self.word(bytes.len() as u32).fixed(bytes)
    }

    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }
}

/// What came of it.
pub(crate) struct Results {
    bytes: Vec<u8>,
    at: usize,
}

impl Results {
    /// In an answer.
    pub(crate) fn new(bytes: Vec<u8>) -> Results {
        Results { bytes, at: 0 }
    }

    pub(crate) fn word(&mut self) -> u32 {
        u32::from_be_bytes(self.fixed())
    }

    pub(crate) fn long(&mut self) -> u64 {
        u64::from_be_bytes(self.fixed())
    }

    pub(crate) fn opaque(&mut self) -> Vec<u8> {
        let length = self.word() as usize;
        let bytes = self.bytes[self.at..self.at + length].to_vec();
        self.at += length.next_multiple_of(4);
        bytes
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.bytes[self.at..self.at + N].try_into().unwrap();
        self.at += N;
        bytes
    }

    pub(crate) fn skip(&mut self, words: usize) {
        self.at += 4 * words;
    }
}
