//! Commands on all of a disk's metadata: dumped, restored, its log applied, a peer forgotten.

use std::path::Path;

use tandem_control::{NodeSpec, ResourceSpec};
use tandem_core::layout::SLOT_BYTES;
use tandem_core::metadata::{self, LoadError, MetaIo, Superblock};
use tandem_core::units::NodeId;

use super::metadata::{describe, random_id};
use crate::create_md::{self, Objection};
use crate::device::{Access, OpenError, Target};
use crate::failure::Failure;
use crate::md_text::{self, Image};
use crate::output::{errln, out, outln};
use crate::session::Session;

/// Of a resource that is up what was written last; otherwise nobody attaches the disk meanwhile.
pub(crate) fn dump_md(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("dump-md", specs, |spec| {
        if session.dry_run {
            outln!("dump-md {}", describe(spec));
            return Ok(());
        }
        let access = match session.find_status(&spec.name)? {
            Some(_) => {
                errln!("# Output might be stale, since minor {} is attached", spec.volume.minor);
                Access::Look
            }
            None => Access::LookAlone,
        };
        let mut target = Target::open(spec, access)?;
        let (placement, backing_bytes) = (target.placement(), target.data.size_bytes());
        let device = target.metadata_device();
        // Whosever it is.
        let owner = metadata::probe(device, placement).map_err(not_found)?.node.unwrap_or(spec.node.id);
        let mut shown = target.shown(session, &format!("{}: dump-md", spec.name));
        let loaded = metadata::load(&mut shown, placement, backing_bytes, owner)?;
        drop(shown);
        if !loaded.is_clean() {
            errln!("Found meta data is \"unclean\", please apply-al first");
        }
        out!("{}", md_text::dump(&Image::from(loaded), &spec.node.name, &spec.name));
        Ok(())
    })
}

fn not_found(error: LoadError) -> Failure {
    match error {
        LoadError::NotFound => Failure::Config("No valid meta data found".into(), 1),
        error => error.into(),
    }
}

pub(crate) fn restore_md(session: &Session, specs: &[ResourceSpec], file: &Path, force: bool) -> u8 {
    session.for_each("restore-md", specs, |spec| {
        let text = std::fs::read_to_string(file)
            .map_err(|source| OpenError::Io { path: file.to_owned(), source })?;
        let mut target = Target::open_all(spec, access(session))?;
        let disks = target.volume_disks(spec);
        let room_bytes = disks.iter().map(|disk| disk.backing_bytes + SLOT_BYTES).sum();
        let image = md_text::parse(&text, room_bytes)
            .map_err(|error| Failure::Config(format!("{}: {error}", file.display()), 10))?;
        check_owner(spec, &image)?;
        let placement = target.placement();
        let stale = metadata::staleness(target.metadata_device(), placement, &image.superblock)?;
        if let Some(stale) = stale.as_ref().filter(|stale| !stale.may_be_restored()) {
            let text = format!(
                "{stale}. If what the disk holds may be overwritten, 'tandemadm create-md --force {0}' makes it new, and the peer's \
                 data follows",
                spec.name
            );
            return Err(Failure::Config(text, 10));
        }
        if session.dry_run {
            outln!("restore-md {} from {}", describe(spec), file.display());
            return Ok(());
        }
        let max_peers = image.superblock.peers.len() as u8;
        let objections = create_md::objections(&mut target, spec, max_peers, &image.superblock.layout)?;
        objections.iter().for_each(|objection| errln!("{}: {}\n", spec.name, restore_text(objection)));
        stale.iter().for_each(|stale| errln!("{}: {stale}\n", spec.name));
        if !force {
            session.confirm(match stale {
                Some(_) => "Do you really want to restore an older dump, and have every block sent anew?",
                None => "Do you really want to restore the meta-data from the dump?",
            })?;
        }
        let Image { superblock, volume_bytes, bitmaps } = image;
        restamp(&mut target, spec, &superblock)?;
        let mut shown = target.shown(session, &format!("{}: restore-md", spec.name));
        metadata::restore(&mut shown, &disks, volume_bytes, superblock, bitmaps)?;
        drop(shown);
        outln!("Successfully restored meta data");
        Ok(())
    })
}

/// What was found in the metadata's place, as far as it matters for a dump, which has its own bitmaps.
fn restore_text(objection: &Objection) -> String {
    match objection {
        Objection::Metadata(superblock) => format!(
            "Found tandem meta-data with device id {:016X}, current generation {:016X}, sequence {}; the dump takes its place.",
            superblock.device_id, superblock.generations.current, superblock.sequence
        ),
        Objection::DamagedMetadata { .. } | Objection::Drbd(_) | Objection::Data(_) => objection.to_string(),
    }
}

/// The other volumes' disks must be those that the dump knows, or those of the fresh metadata that it takes the place of; then
/// they belong to the dump's.
fn restamp(target: &mut Target, spec: &ResourceSpec, dumped: &Superblock) -> Result<(), Failure> {
    let placement = target.placement();
    let now = metadata::probe(target.metadata_device(), placement).map_or(0, |now| now.device_id);
    for (disk, number) in target.stamped(spec) {
        if metadata::check_stamp(disk, dumped.device_id, number).is_err() {
            metadata::check_stamp(disk, now, number)?;
            metadata::stamp(disk, dumped.device_id, number)?;
        }
    }
    Ok(())
}

fn check_owner(spec: &ResourceSpec, image: &Image) -> Result<(), Failure> {
    match image.superblock.node {
        Some(node) if node != spec.node.id => {
            let text = format!(
                "the dump is of node {node}'s disk, this is node {}: what its bitmaps mark is not what is marked here",
                spec.node.id
            );
            Err(Failure::Config(text, 10))
        }
        _ => Ok(()),
    }
}

pub(crate) fn apply_al(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("apply-al", specs, |spec| {
        let mut target = Target::open(spec, access(session))?;
        if session.dry_run {
            outln!("apply-al {}", describe(spec));
            return Ok(());
        }
        let (placement, backing_bytes) = (target.placement(), target.data.size_bytes());
        let mut shown = target.shown(session, &format!("{}: apply-al", spec.name));
        let applied = metadata::apply_log(&mut shown, placement, backing_bytes, spec.node.id)?;
        drop(shown);
        if let Some(bytes) = applied {
            errln!("Marked additional {} KB as out-of-sync based on AL.", bytes / 1024);
        }
        Ok(())
    })
}

/// A resource and the peers that are to be forgotten, with what the operator calls them.
pub(crate) struct Forgotten {
    pub(crate) spec: ResourceSpec,
    pub(crate) peers: Vec<(NodeId, String)>,
}

impl Forgotten {
    /// `peer` is a name of the configuration or, for a node that is not in it any more, a node id; all peers if not given.
    pub(crate) fn new(spec: ResourceSpec, peer: Option<&str>) -> Result<Self, Failure> {
        let named = |node: &NodeSpec| (node.id, node.name.clone());
        let Some(peer) = peer else {
            let peers = spec.peers.iter().map(named).collect();
            return Ok(Forgotten { spec, peers });
        };
        let by_name = spec.peers.iter().find(|node| node.name == peer).map(named);
        let by_id = || {
            let id = peer.parse().ok().filter(|id| *id <= 31 && *id != spec.node.id.0)?;
            Some((NodeId(id), format!("node {id}")))
        };
        match by_name.or_else(by_id) {
            Some(found) => Ok(Forgotten { spec, peers: vec![found] }),
            None => Err(Failure::Config(format!("{peer} is no peer of resource {}.", spec.name), 10)),
        }
    }
}

/// Only a resource that is down has a peer that it does not use.
pub(crate) fn forget_peer(session: &Session, wanted: &Forgotten) -> u8 {
    let Forgotten { spec, peers } = wanted;
    session.for_each("forget-peer", std::slice::from_ref(spec), |spec| {
        if session.find_status(&spec.name)?.is_some() {
            let text = format!(
                "{0}: Failure: (162) Invalid configuration request\nadditional info:\nits peers are in use: run 'tandemadm down \
                 {0}' first",
                spec.name
            );
            return Err(Failure::Config(text, 10));
        }
        let mut target = Target::open(spec, access(session))?;
        let (placement, backing_bytes) = (target.placement(), target.data.size_bytes());
        for (peer, name) in peers {
            if session.dry_run {
                outln!("forget-peer {name} in {}", describe(spec));
                continue;
            }
            let mut shown = target.shown(session, &format!("{}: forget-peer", spec.name));
            let random = random_id()?;
            let known =
                metadata::forget_peer(&mut shown, placement, backing_bytes, spec.node.id, *peer, random)?;
            drop(shown);
            if !known {
                outln!("{}: the meta-data knows nothing of {name}", spec.name);
            }
        }
        Ok(())
    })
}

/// Nothing is locked for a look at what would be done.
pub(super) fn access(session: &Session) -> Access {
    if session.dry_run { Access::Look } else { Access::Exclusive }
}
