//! `create-md`: what speaks against writing metadata, and writing it.

use std::fmt;

use tandem_control::ResourceSpec;
use tandem_core::io::DiskError;
use tandem_core::layout::Layout;
use tandem_core::metadata::{
    self, CreateError, Geometry, GeometryError, LoadError, MetaIo, Placement, PlanError, Superblock,
    SuperblockError,
};
use thiserror::Error;

use crate::bar::{Bars, Shown};
use crate::device::{Device, Target};
use crate::signatures::{self, Found};

/// Why no metadata was created.
#[derive(Debug, Error)]
pub enum CreateMdError {
    /// The metadata would lie inside a filesystem: refused whatever is asked, exit code 40.
    #[error(transparent)]
    WouldTruncate(#[from] WouldTruncate),
    /// The layout is impossible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The disk failed while it was looked at.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// Writing failed.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The volumes cannot be so large.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A filesystem that reaches into the place of the metadata.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub struct WouldTruncate {
    /// What it is.
    pub what: &'static str,
    /// Where it ends.
    pub filesystem_bytes: u64,
    /// Where the data would have to end.
    pub data_bytes: u64,
    /// Size of the disk.
    pub backing_bytes: u64,
}

impl fmt::Display for WouldTruncate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Found {}", self.what)?;
        writeln!(f, "    filesystem           {}", amount(self.filesystem_bytes))?;
        writeln!(f, "    left for data        {}", amount(self.data_bytes))?;
        writeln!(f, "    backing device       {}", amount(self.backing_bytes))?;
        writeln!(
            f,
            "Internal meta-data would cut off the filesystem's end and corrupt it. Do one of these first:"
        )?;
        writeln!(f, "   * use external meta-data (meta-disk /dev/...;): nothing on this disk changes")?;
        writeln!(f, "   * shrink the filesystem to at most {} KiB", self.data_bytes / 1024)?;
        writeln!(
            f,
            "   * grow the disk by at least {} KiB",
            missing_kib(self.filesystem_bytes, self.data_bytes)
        )?;
        writeln!(f, "   * if nobody needs the filesystem, erase it (wipefs --all)")?;
        write!(f, "Operation refused.")
    }
}

fn missing_kib(filesystem_bytes: u64, data_bytes: u64) -> u64 {
    filesystem_bytes.saturating_sub(data_bytes).div_ceil(1024)
}

/// What the operator is asked of metadata that is there.
pub const OVERWRITE: &str = "Do you really want to overwrite the existing meta-data?";

/// Something found where metadata is to be written; only the operator knows whether it may go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Objection {
    /// Metadata of Tandem.
    Metadata(Box<Superblock>),
    /// Metadata of Tandem that cannot be read: what is wrong with each copy.
    DamagedMetadata {
        /// Where the copies lie.
        offsets: [u64; 2],
        /// What is wrong with each.
        errors: [SuperblockError; 2],
    },
    /// DRBD's metadata: the name of its format.
    Drbd(&'static str),
    /// Other data.
    Data(Found),
}

impl Objection {
    /// What the operator is asked.
    pub fn question(&self) -> &'static str {
        match self {
            Objection::Metadata(_) | Objection::DamagedMetadata { .. } => OVERWRITE,
            Objection::Drbd(_) | Objection::Data(_) => "Do you want to proceed?",
        }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Objection::Metadata(superblock) => {
                writeln!(f, "Found tandem meta-data:")?;
                writeln!(f, "    device id            {:016X}", superblock.device_id)?;
                writeln!(f, "    current generation   {:016X}", superblock.generations.current)?;
                match superblock.agreed_bytes {
                    0 => writeln!(f, "    size                 never agreed with a peer")?,
                    bytes => writeln!(f, "    size                 {}", amount(bytes))?,
                }
                write!(f, "Overwriting it forgets which blocks the peers lack: a full resync follows.")
            }
            Objection::DamagedMetadata { offsets, errors } => {
                writeln!(f, "Found tandem meta-data that is damaged:")?;
                writeln!(f, "    copy at byte {}: {}", offsets[0], errors[0])?;
                writeln!(f, "    copy at byte {}: {}", offsets[1], errors[1])?;
                write!(f, "Overwriting it is right if a peer has good data: a full resync follows.")
            }
            Objection::Drbd(format) => {
                writeln!(f, "Found DRBD meta-data ({format}). DRBD must not use this disk any more.\n")?;
                write!(f, " ==> This might destroy existing data! <==")
            }
            Objection::Data(found) => {
                match found.size_bytes {
                    Some(bytes) => writeln!(f, "Found {} of {}\n", found.what, amount(bytes))?,
                    None => writeln!(f, "Found {}\n", found.what)?,
                }
                write!(f, " ==> This might destroy existing data! <==")
            }
        }
    }
}

fn amount(bytes: u64) -> String {
    format!("{bytes} bytes ({} KiB)", bytes / 1024)
}

/// Where the volumes will lie, with metadata for `max_peers`.
pub fn plan(target: &mut Target, spec: &ResourceSpec, max_peers: u8) -> Result<Layout, CreateMdError> {
    let disks = target.volume_disks(spec);
    Ok(metadata::plan(target.metadata_device().size_bytes(), max_peers, &disks)?)
}

/// What speaks against writing metadata with `max_peers` slots: what cannot be is an error, what the operator may
/// decide is in the list.
pub fn objections(
    target: &mut Target,
    spec: &ResourceSpec,
    max_peers: u8,
    layout: &Layout,
) -> Result<Vec<Objection>, CreateMdError> {
    let placement = target.placement();
    let backing_bytes = target.data.size_bytes();
    let meta = target.metadata_device();
    let others_bytes = layout.bytes_behind_first();
    let mut geometry =
        Geometry::for_new(placement, backing_bytes, meta.size_bytes(), max_peers, others_bytes)?;
    geometry.data_bytes = layout.volumes().first().map_or(geometry.data_bytes, |first| first.bytes);
    let mut list = look_at(meta, placement, &geometry, backing_bytes)?;
    let others = target.more_data.iter_mut().zip(&spec.more_volumes).zip(layout.volumes().iter().skip(1));
    for ((disk, volume), size) in others {
        if volume.meta_disk.is_none() {
            let backing_bytes = disk.size_bytes();
            let mut geometry = Geometry::new(Placement::Internal, backing_bytes, backing_bytes, max_peers)?;
            geometry.data_bytes = size.bytes;
            list.extend(look_at(disk, Placement::Internal, &geometry, backing_bytes)?);
        }
    }
    Ok(list)
}

fn look_at(
    meta: &mut Device,
    placement: Placement,
    geometry: &Geometry,
    backing_bytes: u64,
) -> Result<Vec<Objection>, CreateMdError> {
    let mut list = Vec::new();
    match metadata::probe(meta, placement) {
        Ok(superblock) => list.push(Objection::Metadata(Box::new(superblock))),
        Err(LoadError::Damaged { offsets, errors }) => {
            list.push(Objection::DamagedMetadata { offsets, errors })
        }
        Err(LoadError::Io(error)) => return Err(error.into()),
        Err(_) => {}
    }
    if let Some(format) = signatures::drbd_metadata(meta, geometry.superblock_offsets[0])? {
        list.push(Objection::Drbd(format));
    }
    let known = !list.is_empty();
    match signatures::find(meta)? {
        Some(found) if placement == Placement::Internal => {
            refuse_to_cut(&found, geometry, backing_bytes)?;
            // Behind metadata lies the replicated data: that it is there is no surprise.
            if !known {
                list.push(Objection::Data(found));
            }
        }
        Some(found) if !known => list.push(Objection::Data(found)),
        _ => {}
    }
    Ok(list)
}

fn refuse_to_cut(found: &Found, geometry: &Geometry, backing_bytes: u64) -> Result<(), WouldTruncate> {
    match found.size_bytes {
        Some(filesystem_bytes) if filesystem_bytes > geometry.data_bytes => Err(WouldTruncate {
            what: found.what,
            filesystem_bytes,
            data_bytes: geometry.data_bytes,
            backing_bytes,
        }),
        _ => Ok(()),
    }
}

/// Writes fresh metadata over whatever is there, durably. On the other volumes' disks nobody shall find any: they are no
/// resources of their own.
pub fn create(
    bars: Bars,
    target: &mut Target,
    spec: &ResourceSpec,
    max_peers: u8,
    device_id: u64,
    layout: Layout,
) -> Result<Geometry, CreateMdError> {
    let placement = target.placement();
    let backing_bytes = target.data.size_bytes();
    for (disk, number) in target.stamped(spec) {
        metadata::wipe(disk, Placement::Internal)?;
        metadata::stamp(disk, device_id, number)?;
    }
    let meta = target.metadata_device();
    let others_bytes = layout.bytes_behind_first();
    let geometry = Geometry::for_new(placement, backing_bytes, meta.size_bytes(), max_peers, others_bytes)?;
    let mut shown = Shown::new(meta, bars, format!("{}: create-md", spec.name), geometry.bitmap_bytes);
    Ok(metadata::create_for_volumes(&mut shown, placement, backing_bytes, max_peers, device_id, layout)?)
}

/// The volumes whose disks nobody can tell apart: all of the disk is data, so that there is no room for a mark, and each is as
/// large as another.
pub fn indistinguishable(target: &Target, spec: &ResourceSpec) -> Vec<u16> {
    let unmarked: Vec<(u16, u64)> = target
        .volume_disks(spec)
        .into_iter()
        .filter(|disk| disk.placement == Placement::External)
        .map(|disk| (disk.number, disk.backing_bytes))
        .collect();
    let alike = |bytes: u64| unmarked.iter().filter(|(_, other)| *other == bytes).count() > 1;
    unmarked.iter().filter(|(_, bytes)| alike(*bytes)).map(|(number, _)| *number).collect()
}

/// The lines that a script waits for.
pub fn success_text(geometry: &Geometry) -> String {
    format!(
        "initializing activity log\ninitializing bitmap ({} KB) to all zero\nWriting meta data...\n\
         New tandem meta data block successfully created.\n",
        geometry.bitmap_bytes.div_ceil(1024)
    )
}
