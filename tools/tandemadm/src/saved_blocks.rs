//! What the loser of a split brain gives up, in a file (docs/saved-blocks.md).
//!
//! Little-endian. A header of 4096 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic `TANDEMSV` |
//! | 8..12 | version, 1 |
//! | 12..16 | crc32 of the 4096 bytes with this field zero |
//! | 16..24 | the volume's size in bytes |
//! | 24..32 | last common generation |
//! | 32..40 | generation of the saved data |
//! | 40..48 | generation of the data that was kept |
//! | 48..56 | number of pieces |
//! | 56..64 | bytes of data in all pieces |
//! | 64 | node whose data this is |
//! | 65 | node whose data was kept |
//! | 66..68 | length of the resource's name |
//! | 68..3064 | the resource's name, zeroes |
//! | 3064..3072 | number of pieces that the volumes consist of, 0 if there is one volume |
//! | 3072..4096 | 128 of them of 8 bytes, as in the superblock (docs/on-disk.md): size in blocks of 4 KiB (6), volume (2) |
//!
//! Then the pieces, in ascending order, without overlap, at most 1 MiB each: offset on the volume (8 bytes), length (4), crc32 of
//! both and the data (4), data. Nothing follows the last.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tandem_core::layout::{Layout, MAX_PIECES, SLOT_BYTES, VolumeSize};
use tandem_core::units::{BLOCK_BYTES, ByteRange, NodeId};
use thiserror::Error;

const MAGIC: [u8; 8] = *b"TANDEMSV";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 4096;
const CRC: std::ops::Range<usize> = 12..16;
const NAME: usize = 68;
const VOLUME_COUNT: usize = 3064;
const VOLUMES: usize = 3072;
const VOLUME_BYTES: usize = 8;
const _: () = assert!(VOLUMES + MAX_PIECES * VOLUME_BYTES == HEADER_BYTES);
const PIECE_HEADER_BYTES: usize = 16;
/// Longest piece.
const PIECE_BYTES: u64 = 1 << 20;

/// What the file says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The resource's name.
    pub resource: String,
    /// The volume's size in bytes.
    pub volume_bytes: u64,
    /// The volumes, if there are several.
    pub layout: Layout,
    /// The last generation that both copies have been through.
    pub common: u64,
    /// The generation of the saved data.
    pub generation: u64,
    /// The generation of the data that was kept.
    pub kept_generation: u64,
    /// Whose data this is.
    pub node: NodeId,
    /// Whose data was kept.
    pub kept_node: NodeId,
    /// Number of pieces.
    pub pieces: u64,
    /// Bytes of data in all pieces.
    pub data_bytes: u64,
}

/// What is wrong with a file of saved blocks.
#[derive(Debug, Error)]
pub enum SavedError {
    /// The system call failed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// It is there already.
    #[error("{0} exists already, and is not overwritten: it may hold what another decision gave up")]
    Exists(PathBuf),
    /// It is something else.
    #[error("{0} is not a file of saved blocks")]
    Foreign(PathBuf),
    /// It comes from a newer release.
    #[error("{0} was written by a newer release (version {1}): use that release to restore it")]
    Newer(PathBuf, u32),
    /// It is not what was written.
    #[error("{path} is damaged at byte {at}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The disk holds something else than was just read from it.
    #[error(
        "what was saved in {0} is not what the disk holds: is somebody writing to it? Nothing was changed"
    )]
    Differs(PathBuf),
}

/// The pieces that these ranges are saved in.
pub fn pieces(ranges: &[ByteRange]) -> impl Iterator<Item = ByteRange> {
    ranges.iter().flat_map(|range| {
        let starts = (range.offset..range.end()).step_by(PIECE_BYTES as usize);
        starts.map(|at| ByteRange::new(at, (range.end() - at).min(PIECE_BYTES)))
    })
}

/// Writes a file of these ranges of what `read` reads, makes it durable, reads it back and compares it with what `read` reads
/// now. The counts in `header` are filled in. What is not complete is removed.
pub fn save<E: From<SavedError>>(
    path: &Path,
    header: &Header,
    ranges: &[ByteRange],
    mut read: impl FnMut(ByteRange) -> Result<Vec<u8>, E>,
) -> Result<Header, E> {
    let header = Header {
        pieces: pieces(ranges).count() as u64,
        data_bytes: ranges.iter().map(|range| range.length).sum(),
        ..header.clone()
    };
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = options.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => SavedError::Exists(path.to_owned()),
        _ => SavedError::Io { doing: "creating", path: path.to_owned(), source },
    })?;
    let saved = write(path, file, &header, ranges, &mut read).and_then(|()| {
        let same = |range: ByteRange, data: &[u8]| match read(range)? == data {
            true => Ok(()),
            false => Err(SavedError::Differs(path.to_owned()).into()),
        };
        for_each_piece(path, same).map(|_| ())
    });
    match saved {
        Ok(()) => Ok(header),
        Err(error) => {
            // The error says what matters; an incomplete file would only mislead.
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

/// Shows every piece of a file, checked, and returns its header. To check a whole file before anything is done, give it twice.
pub fn for_each_piece<E: From<SavedError>>(
    path: &Path,
    mut show: impl FnMut(ByteRange, &[u8]) -> Result<(), E>,
) -> Result<Header, E> {
    let file = File::open(path).map_err(failed("opening", path))?;
    // What was just written is to come from the disk, not from memory; where that cannot be, it comes from memory.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let mut reader = Reader { path, file: BufReader::new(file), at: 0 };
    let header = reader.header()?;
    let (mut end, mut data_bytes) = (0, 0);
    for _ in 0..header.pieces {
        let at = reader.at;
        let (range, data) = reader.piece()?;
        if range.offset < end || range.end() > header.volume_bytes {
            return Err(reader.damaged(at, "a piece lies where none can be").into());
        }
        (end, data_bytes) = (range.end(), data_bytes + range.length);
        show(range, &data)?;
    }
    match reader.is_at_end()? && data_bytes == header.data_bytes {
        true => Ok(header),
        false => Err(reader.damaged(reader.at, "it does not end where it should").into()),
    }
}

fn write<E: From<SavedError>>(
    path: &Path,
    file: File,
    header: &Header,
    ranges: &[ByteRange],
    read: &mut impl FnMut(ByteRange) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let mut out = BufWriter::new(file);
    out.write_all(&encode(header)).map_err(failed("writing", path))?;
    for range in pieces(ranges) {
        let data = read(range)?;
        let place = place(range);
        let crc = checksum(&place, &data).to_le_bytes();
        for part in [&place[..], &crc, &data] {
            out.write_all(part).map_err(failed("writing", path))?;
        }
    }
    let file = out.into_inner().map_err(|e| failed("writing", path)(e.into_error()))?;
    file.sync_all().map_err(failed("making durable", path))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("making durable the folder of", path))?;
    Ok(())
}

fn encode(header: &Header) -> Vec<u8> {
    let mut b = vec![0; HEADER_BYTES];
    b[0..8].copy_from_slice(&MAGIC);
    b[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let numbers = [
        header.volume_bytes,
        header.common,
        header.generation,
        header.kept_generation,
        header.pieces,
        header.data_bytes,
    ];
    for (field, number) in b[16..64].chunks_exact_mut(8).zip(numbers) {
        field.copy_from_slice(&number.to_le_bytes());
    }
    (b[64], b[65]) = (header.node.0, header.kept_node.0);
    let volumes = header.layout.pieces();
    b[VOLUME_COUNT] = volumes.len() as u8;
    for (field, volume) in b[VOLUMES..].chunks_exact_mut(VOLUME_BYTES).zip(&volumes) {
        // No volume has 2^48 blocks.
        field.copy_from_slice(
            &((volume.bytes / BLOCK_BYTES) | (u64::from(volume.number) << 48)).to_le_bytes(),
        );
    }
    let name = &header.resource.as_bytes()[..header.resource.len().min(VOLUME_COUNT - NAME)];
    b[66..NAME].copy_from_slice(&(name.len() as u16).to_le_bytes());
    b[NAME..NAME + name.len()].copy_from_slice(name);
    let crc = crc32fast::hash(&b);
    b[CRC].copy_from_slice(&crc.to_le_bytes());
    b
}

/// Offset and length, as they stand before a piece.
fn place(range: ByteRange) -> [u8; 12] {
    let mut place = [0; 12];
    place[..8].copy_from_slice(&range.offset.to_le_bytes());
    place[8..].copy_from_slice(&(range.length as u32).to_le_bytes());
    place
}

fn checksum(place: &[u8; 12], data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(place);
    hasher.update(data);
    hasher.finalize()
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> SavedError {
    move |source| SavedError::Io { doing, path: path.to_owned(), source }
}

/// A file that is read from its beginning.
struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    at: u64,
}

impl Reader<'_> {
    fn header(&mut self) -> Result<Header, SavedError> {
        let foreign = || SavedError::Foreign(self.path.to_owned());
        let mut b: [u8; HEADER_BYTES] = match self.take(HEADER_BYTES)?.try_into() {
            Ok(header) => header,
            Err(_) => return Err(foreign()),
        };
        if b[0..8] != MAGIC {
            return Err(foreign());
        }
        let version = u32::from_le_bytes([b[8], b[9], b[10], b[11]]);
        if version > VERSION {
            return Err(SavedError::Newer(self.path.to_owned(), version));
        }
        let crc = [b[12], b[13], b[14], b[15]];
        b[CRC].fill(0);
        let name_bytes = usize::from(u16::from_le_bytes([b[66], b[67]]));
        if crc32fast::hash(&b).to_le_bytes() != crc || name_bytes > VOLUME_COUNT - NAME {
            return Err(self.damaged(0, "the header's checksum does not match"));
        }
        let number_at = |at: usize| {
            let mut n = [0; 8];
            n.copy_from_slice(&b[at..at + 8]);
            u64::from_le_bytes(n)
        };
        let number = |i: usize| number_at(16 + i * 8);
        let volumes = (0..usize::from(b[VOLUME_COUNT]).min(MAX_PIECES)).map(|i| {
            let field = number_at(VOLUMES + i * VOLUME_BYTES);
            VolumeSize { number: (field >> 48) as u16, bytes: (field & ((1 << 48) - 1)) * BLOCK_BYTES }
        });
        let layout = Layout::of_pieces(volumes.collect(), SLOT_BYTES)
            .map_err(|_| self.damaged(VOLUME_COUNT as u64, "its volumes are impossible"))?;
        Ok(Header {
            resource: String::from_utf8_lossy(&b[NAME..NAME + name_bytes]).into_owned(),
            volume_bytes: number(0),
            layout,
            common: number(1),
            generation: number(2),
            kept_generation: number(3),
            pieces: number(4),
            data_bytes: number(5),
            node: NodeId(b[64]),
            kept_node: NodeId(b[65]),
        })
    }

    fn piece(&mut self) -> Result<(ByteRange, Vec<u8>), SavedError> {
        let at = self.at;
        let header = self.take(PIECE_HEADER_BYTES)?;
        let Some((place, crc)) = header.split_first_chunk::<12>().filter(|(_, crc)| crc.len() == 4) else {
            return Err(self.damaged(at, "it ends too early"));
        };
        let (offset, length) = place.split_at(8);
        let offset = u64::from_le_bytes(offset.try_into().unwrap_or_default());
        let length = u64::from(u32::from_le_bytes(length.try_into().unwrap_or_default()));
        if length == 0 || length > PIECE_BYTES {
            return Err(self.damaged(at, "a piece has an impossible length"));
        }
        let data = self.take(length as usize)?;
        if data.len() as u64 != length {
            return Err(self.damaged(at, "it ends too early"));
        }
        if checksum(place, &data).to_le_bytes() != *crc {
            return Err(self.damaged(at, "the checksum of a piece does not match"));
        }
        Ok((ByteRange::new(offset, length), data))
    }

    /// As many bytes; fewer only at the end.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, SavedError> {
        let mut bytes = Vec::with_capacity(length);
        let read = (&mut self.file).take(length as u64).read_to_end(&mut bytes);
        self.at += read.map_err(failed("reading", self.path))? as u64;
        Ok(bytes)
    }

    fn is_at_end(&mut self) -> Result<bool, SavedError> {
        Ok(self.take(1)?.is_empty())
    }

    fn damaged(&self, at: u64, what: &'static str) -> SavedError {
        SavedError::Damaged { path: self.path.to_owned(), at, what }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const VOLUME_BYTES: u64 = 4 << 20;

    fn disk() -> Vec<u8> {
        (0..VOLUME_BYTES).map(|i| (i / 512 * 7 + i % 251) as u8).collect()
    }

    fn ranges() -> Vec<ByteRange> {
        vec![ByteRange::new(4096, 8192), ByteRange::new(1 << 20, (2 << 20) + 4096)]
    }

    fn header() -> Header {
        Header {
            resource: "r0".into(),
            volume_bytes: VOLUME_BYTES,
            layout: Layout::new(
                [(0, 1 << 20), (7, 4096)].map(|(number, bytes)| VolumeSize { number, bytes }).to_vec(),
            )
            .and_then(|layout| layout.grown(0, 3 << 20))
            .unwrap(),
            common: 1,
            generation: 2,
            kept_generation: 3,
            node: NodeId(0),
            kept_node: NodeId(1),
            pieces: 0,
            data_bytes: 0,
        }
    }

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tandem-saved-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn save_disk(path: &Path) -> Result<Header, SavedError> {
        let disk = disk();
        save(path, &header(), &ranges(), |r| Ok(disk[r.offset as usize..r.end() as usize].to_vec()))
    }

    fn read_back(path: &Path) -> Result<Vec<u8>, SavedError> {
        let mut disk = vec![0; VOLUME_BYTES as usize];
        for_each_piece(path, |range, data| {
            disk[range.offset as usize..range.end() as usize].copy_from_slice(data);
            Ok::<(), SavedError>(())
        })?;
        Ok(disk)
    }

    #[test]
    fn what_is_saved_comes_back() {
        let path = path("whole");
        let saved = save_disk(&path).unwrap();
        assert_eq!((saved.pieces, saved.data_bytes), (4, 8192 + (2 << 20) + 4096));
        let (back, disk) = (read_back(&path).unwrap(), disk());
        for range in ranges() {
            let at = range.offset as usize..range.end() as usize;
            assert_eq!(back[at.clone()], disk[at]);
        }
        assert_eq!(back[..4096], [0; 4096]);
        assert_eq!(for_each_piece(&path, |_, _| Ok::<(), SavedError>(())).unwrap(), saved);
        assert!(matches!(save_disk(&path), Err(SavedError::Exists(_))));
        std::fs::remove_file(&path).unwrap();
    }

    /// Whatever byte is wrong, nothing is taken for whole, and the place is named.
    #[test]
    fn damage_is_found_wherever_it_is() {
        let path = path("damaged");
        save_disk(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let second_piece = (HEADER_BYTES + PIECE_HEADER_BYTES + 8192) as u64;
        for (at, named) in [
            (20, 0),
            (4000, 0),
            (HEADER_BYTES as u64 + 3, HEADER_BYTES as u64),
            (HEADER_BYTES as u64 + 9, HEADER_BYTES as u64),
            (second_piece - 1, HEADER_BYTES as u64),
            (second_piece + 14, second_piece),
            (second_piece + 5000, second_piece),
        ] {
            let byte = whole[at as usize];
            file.write_all_at(&[byte ^ 4], at).unwrap();
            match read_back(&path) {
                Err(SavedError::Damaged { at: found, .. }) => assert_eq!(found, named, "byte {at}"),
                other => panic!("byte {at}: {other:?}"),
            }
            file.write_all_at(&[byte], at).unwrap();
        }
        read_back(&path).unwrap();
        for length in [whole.len() - 1, whole.len() - 5000, HEADER_BYTES + 5, HEADER_BYTES] {
            file.set_len(length as u64).unwrap();
            assert!(matches!(read_back(&path), Err(SavedError::Damaged { .. })), "{length} bytes");
            std::fs::write(&path, &whole).unwrap();
        }
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(matches!(read_back(&path), Err(SavedError::Damaged { .. })));
        std::fs::write(&path, b"something else").unwrap();
        assert!(matches!(read_back(&path), Err(SavedError::Foreign(_))));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_disk_that_changes_meanwhile_leaves_no_file() {
        let path = path("changing");
        let mut reads = 0u8;
        let changing = |r: ByteRange| {
            reads += 1;
            Ok::<_, SavedError>(vec![reads; r.length as usize])
        };
        assert!(matches!(save(&path, &header(), &ranges(), changing), Err(SavedError::Differs(_))));
        assert!(!path.exists());
    }

    #[test]
    fn the_document_describes_the_file() {
        let document = include_str!("../../../docs/saved-blocks.md");
        for row in include_str!("saved_blocks.rs").lines().filter_map(|line| line.strip_prefix("//! |")) {
            assert!(document.contains(&format!("|{row}")), "docs/saved-blocks.md lacks: |{row}");
        }
    }
}
