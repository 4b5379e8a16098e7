//! Reading the text: all of it is checked, and nothing may be missing.

use std::iter::Peekable;
use std::ops::RangeInclusive;

use tandem_core::bitmap::Bitmap;
use tandem_core::generation::{Generations, HISTORY_SLOTS};
use tandem_core::layout::{Layout, SLOT_BYTES, VolumeSize};
use tandem_core::metadata::{ActivityLogState, Flags, MAX_PEERS, PeerSlot, Placement, Superblock};
use tandem_core::units::{BLOCK_BYTES, ByteRange, NodeId};
use thiserror::Error;

use super::{Image, NO_NODE, UNCLEAN, VERSION};

const MAX_NODE_ID: u64 = 31;
const BLOCKS_PER_WORD: u64 = 64;

/// Why a text is no dump that can be restored.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("Parse error in line {line}: {text}")]
pub struct ParseError {
    /// Where.
    pub line: usize,
    /// What is wrong.
    pub text: String,
}

/// Reads what [`super::dump`] wrote, for a disk of this size.
pub fn parse(text: &str, disk_bytes: u64) -> Result<Image, ParseError> {
    let mut reader = Reader::new(text);
    let image = reader.image(disk_bytes)?;
    match reader.next() {
        None => Ok(image),
        Some(token) => Err(reader.error(format!("nothing more expected, got '{token}'"))),
    }
}

/// The words of the text, and the signs between them.
struct Reader<'a> {
    tokens: Peekable<Box<dyn Iterator<Item = (usize, &'a str)> + 'a>>,
    /// Of the one that was read last, from 1.
    line: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let numbered = text.lines().zip(1..);
        let tokens = numbered.flat_map(|(line, number)| words(line).into_iter().map(move |w| (number, w)));
        let tokens: Box<dyn Iterator<Item = (usize, &'a str)> + 'a> = Box::new(tokens);
        Reader { tokens: tokens.peekable(), line: 1 }
    }

    fn image(&mut self, disk_bytes: u64) -> Result<Image, ParseError> {
        let superblock = self.superblock()?;
        let volume_bytes = self.number("bm-covers-bytes", 1..=disk_bytes)?;
        let layout = &superblock.layout;
        if !layout.is_single() && layout.space_bytes() != volume_bytes {
            let text = format!(
                "the bitmaps cover {volume_bytes} bytes, the volumes take {}: edit both or none",
                layout.space_bytes()
            );
            return Err(self.error(text));
        }
        if superblock.agreed_bytes != 0 && superblock.agreed_bytes != volume_bytes {
            let text = format!(
                "the bitmaps cover {volume_bytes} bytes, the size is {}: edit both or none",
                superblock.agreed_bytes
            );
            return Err(self.error(text));
        }
        let slots = 0..superblock.peers.len();
        let bitmaps = slots.map(|slot| self.bitmap(slot, volume_bytes)).collect::<Result<_, _>>()?;
        Ok(Image { superblock, volume_bytes, bitmaps })
    }

    fn superblock(&mut self) -> Result<Superblock, ParseError> {
        self.version()?;
        let max_peers = self.number("max-peers", 1..=u64::from(MAX_PEERS))?;
        let placement = self.placement()?;
        let node = self.node_id()?;
        let current = self.id("current-uuid")?;
        let flags = self.device_flags()?;
        let peers = (0..max_peers).map(|slot| self.peer(slot)).collect::<Result<_, _>>()?;
        let history = self.history()?;
        let agreed_bytes = self.number("la-size-bytes", 0..=u64::MAX)?;
        let backing_bytes = self.number("backing-bytes", 0..=u64::MAX)?;
        self.number("bm-byte-per-bit", BLOCK_BYTES..=BLOCK_BYTES)?;
        Ok(Superblock {
            agreed_bytes,
            backing_bytes,
            device_id: self.id("device-uuid")?,
            undo_id: self.id("undo-log")?,
            sequence: self.number("sequence", 0..=u64::MAX)?,
            layout: self.layout()?,
            room_behind_first: self.room_behind_first()?,
            flags,
            node,
            placement,
            activity_log: ActivityLogState::Closed,
            generations: Generations { current, history },
            peers,
        })
    }

    fn layout(&mut self) -> Result<Layout, ParseError> {
        let mut volumes = Vec::new();
        while self.peek() == Some("volume") {
            self.next();
            // No more than 65535.
            let number = self.plain_number(0..=u64::from(u16::MAX))? as u16;
            volumes.push(VolumeSize { number, bytes: self.number("size-bytes", 1..=u64::MAX)? });
        }
        Layout::of_pieces(volumes, SLOT_BYTES).map_err(|error| self.error(error.to_string()))
    }

    fn room_behind_first(&mut self) -> Result<u64, ParseError> {
        if self.peek() == Some("bm-room-behind-first") {
            return self.number("bm-room-behind-first", 0..=u64::MAX);
        }
        Ok(0)
    }

    fn version(&mut self) -> Result<(), ParseError> {
        self.expect("version")?;
        if self.next().map(|word| word.trim_matches('"')) != Some(VERSION) {
            return Err(self.error(format!("this release restores version \"{VERSION}\" only")));
        }
        self.sign(";")?;
        if self.peek() == Some(UNCLEAN) {
            let text = "this is a dump of unclean meta-data, which lacks what its activity log says: it is not restored. Run \
                        'tandemadm apply-al' on the disk that it was made of, and dump it again";
            self.next();
            return Err(self.error(text));
        }
        Ok(())
    }

    fn placement(&mut self) -> Result<Placement, ParseError> {
        self.expect("meta-disk")?;
        let placement = match self.next() {
            Some("internal") => Placement::Internal,
            Some("external") => Placement::External,
            other => return Err(self.unexpected("'internal' or 'external'", other)),
        };
        self.sign(";").map(|()| placement)
    }

    fn node_id(&mut self) -> Result<Option<NodeId>, ParseError> {
        self.expect("node-id")?;
        let node = match self.peek() {
            Some(NO_NODE) => self.next().and(None),
            // No more than 31.
            _ => Some(NodeId(self.plain_number(0..=MAX_NODE_ID)? as u8)),
        };
        self.sign(";").map(|()| node)
    }

    fn device_flags(&mut self) -> Result<Flags, ParseError> {
        let mut flags = Flags::default();
        self.flags(|word| {
            Some(match word {
                "consistent" => &mut flags.consistent,
                "was-up-to-date" => &mut flags.up_to_date,
                "crashed-primary" => &mut flags.crashed_primary,
                "failed-under-primary" => &mut flags.failed,
                _ => return None,
            })
            .map(|flag| *flag = true)
        })?;
        Ok(flags)
    }

    fn peer(&mut self, slot: u64) -> Result<PeerSlot, ParseError> {
        self.place("peer", slot)?;
        let mut peer = PeerSlot {
            node: self.node_id()?,
            bitmap_id: self.id("bitmap-uuid")?,
            resync_id: self.id("resync-uuid")?,
            outdated: false,
            fenced: false,
            gave_up: false,
            overcounted: false,
        };
        self.flags(|word| {
            Some(match word {
                "outdated" => &mut peer.outdated,
                "fenced" => &mut peer.fenced,
                "gave-up" => &mut peer.gave_up,
                "overcounted" => &mut peer.overcounted,
                _ => return None,
            })
            .map(|flag| *flag = true)
        })?;
        self.sign("}").map(|()| peer)
    }

    fn history(&mut self) -> Result<[u64; HISTORY_SLOTS], ParseError> {
        self.expect("history-uuids")?;
        self.sign("{")?;
        let mut history = [0; HISTORY_SLOTS];
        for id in &mut history {
            *id = self.hex()?;
            self.sign(";")?;
        }
        self.sign("}").map(|()| history)
    }

    fn bitmap(&mut self, slot: usize, volume_bytes: u64) -> Result<Bitmap, ParseError> {
        self.place("bitmap", slot as u64)?;
        let mut bitmap = Bitmap::new(volume_bytes);
        let words = bitmap.blocks().div_ceil(BLOCKS_PER_WORD);
        let mut first = 0;
        while self.peek().is_some_and(|word| word != "}") {
            let count = match self.peek() {
                Some(word) if !word.starts_with("0x") => {
                    let count = self.plain_number(1..=u64::MAX)?;
                    self.expect("times")?;
                    count
                }
                _ => 1,
            };
            let word = self.hex()?;
            if count > words - first {
                return Err(self.error(format!("the bitmap has more than {words} words of 64 blocks")));
            }
            if !mark(&mut bitmap, first, count, word) {
                return Err(self.error("the bitmap marks what lies behind the volume's end"));
            }
            self.sign(";")?;
            first += count;
        }
        self.sign("}")?;
        if first < words {
            return Err(self.error(format!("the bitmap has {first} words of 64 blocks, {words} are needed")));
        }
        bitmap.mark_written();
        Ok(bitmap)
    }

    // The pieces.

    fn flags(&mut self, mut set: impl FnMut(&str) -> Option<()>) -> Result<(), ParseError> {
        self.expect("flags")?;
        while let Some(word) = self.peek().filter(|word| *word != ";") {
            self.next();
            set(word).ok_or_else(|| self.error(format!("no such flag: '{word}'")))?;
        }
        self.sign(";")
    }

    /// `name[slot] {`
    fn place(&mut self, name: &'static str, slot: u64) -> Result<(), ParseError> {
        self.expect(name)?;
        self.sign("[")?;
        self.plain_number(slot..=slot)?;
        self.sign("]")?;
        self.sign("{")
    }

    fn number(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Result<u64, ParseError> {
        self.expect(name)?;
        let number = self.plain_number(range)?;
        self.sign(";").map(|()| number)
    }

    fn id(&mut self, name: &'static str) -> Result<u64, ParseError> {
        self.expect(name)?;
        let id = self.hex()?;
        self.sign(";").map(|()| id)
    }

    fn plain_number(&mut self, range: RangeInclusive<u64>) -> Result<u64, ParseError> {
        let word = self.next();
        let number = word.and_then(|word| word.parse().ok()).filter(|number| range.contains(number));
        number.ok_or_else(|| {
            self.unexpected(&format!("a number from {} to {}", range.start(), range.end()), word)
        })
    }

    fn hex(&mut self) -> Result<u64, ParseError> {
        let word = self.next();
        let digits = word.and_then(|word| word.strip_prefix("0x")).filter(|digits| !digits.starts_with('+'));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.ok_or_else(|| self.unexpected("a number of the form 0x...", word))
    }

    fn expect(&mut self, keyword: &'static str) -> Result<(), ParseError> {
        match self.next() {
            Some(word) if word == keyword => Ok(()),
            other => Err(self.unexpected(&format!("keyword '{keyword}'"), other)),
        }
    }

    fn sign(&mut self, sign: &'static str) -> Result<(), ParseError> {
        match self.next() {
            Some(word) if word == sign => Ok(()),
            other => Err(self.unexpected(&format!("'{sign}'"), other)),
        }
    }

    fn peek(&mut self) -> Option<&'a str> {
        self.tokens.peek().map(|(_, word)| *word)
    }

    fn next(&mut self) -> Option<&'a str> {
        let (line, word) = self.tokens.next()?;
        self.line = line;
        Some(word)
    }

    fn unexpected(&self, expected: &str, got: Option<&str>) -> ParseError {
        let got = got.map_or_else(|| "the end".to_owned(), |word| format!("'{word}'"));
        self.error(format!("{expected} expected, got {got}"))
    }

    fn error(&self, text: impl Into<String>) -> ParseError {
        ParseError { line: self.line, text: text.into() }
    }
}

/// The words of a line and the signs between them, without the comment.
fn words(line: &str) -> Vec<&str> {
    let mut rest = line.split('#').next().unwrap_or("").trim_start();
    let mut words = Vec::new();
    let is_sign = |c: char| matches!(c, '{' | '}' | '[' | ']' | ';');
    while !rest.is_empty() {
        let length = match rest.starts_with(is_sign) {
            true => 1,
            false => rest.find(|c: char| is_sign(c) || c.is_whitespace()).unwrap_or(rest.len()),
        };
        let (word, more) = rest.split_at(length);
        words.push(word);
        rest = more.trim_start();
    }
    words
}

/// Sets the bits of `count` equal words. False if one stands for no block.
fn mark(bitmap: &mut Bitmap, first: u64, count: u64, word: u64) -> bool {
    let mut set = |from: u64, blocks: u64| {
        bitmap.set_range(ByteRange::new(from * BLOCK_BYTES, blocks * BLOCK_BYTES));
        from + blocks <= bitmap.blocks()
    };
    match word {
        0 => true,
        u64::MAX => set(first * BLOCKS_PER_WORD, count * BLOCKS_PER_WORD),
        _ => (first..first + count).all(|index| {
            let bits = (0..BLOCKS_PER_WORD).filter(|bit| word >> bit & 1 == 1);
            bits.into_iter().all(|bit| set(index * BLOCKS_PER_WORD + bit, 1))
        }),
    }
}
