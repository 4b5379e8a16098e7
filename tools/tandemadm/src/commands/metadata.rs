//! Commands that work on a disk's metadata.

use std::fs::File;
use std::io::Read;

use tandem_control::{Action, ResourceSpec};
use tandem_core::metadata::{self, LoadError, MetaIo, Placement, Superblock};

use super::follow::{Begun, Follow, Following};
use crate::create_md;
use crate::device::{Access, Target};
use crate::failure::Failure;
use crate::gi_text;
use crate::output::{errln, out, outln};
use crate::session::Session;

/// What is said of a disk with metadata that is not at its end.
const GROWN: &str = "Found tandem meta-data where the disk ended before it grew: 'tandemadm up' finds it there and moves it to the \
                     end. Overwriting it forgets which blocks the peers lack: a full resync follows.";

pub(crate) fn create_md(session: &Session, specs: &[ResourceSpec], max_peers: Option<u8>, force: bool) -> u8 {
    session.for_each("create-md", specs, |spec| {
        let max_peers = max_peers.unwrap_or_else(|| u8::try_from(spec.peers.len()).unwrap_or(u8::MAX).max(1));
        if session.dry_run {
            outln!("create-md {} --max-peers {max_peers}", describe(spec));
            return Ok(());
        }
        let mut target = Target::open_all(spec, Access::Exclusive)?;
        let old_end = target.data.use_all()?;
        target.more_data.iter_mut().try_for_each(|other| other.use_all().map(drop))?;
        if old_end.is_some() {
            errln!("{}: {GROWN}\n", spec.name);
        }
        let layout = create_md::plan(&mut target, spec, max_peers)?;
        let objections = create_md::objections(&mut target, spec, max_peers, &layout)?;
        objections.iter().for_each(|objection| errln!("{}: {objection}\n", spec.name));
        let question = objections.first().map(create_md::Objection::question);
        if let (Some(question), false) = (question.or(old_end.map(|_| create_md::OVERWRITE)), force) {
            session.confirm(question)?;
        }
        target.data.forget_last_place()?;
        let geometry = create_md::create(session.bars, &mut target, spec, max_peers, random_id()?, layout)?;
        old_end.map_or(Ok(()), |end| target.data.wipe_metadata_before(end))?;
        let alike = create_md::indistinguishable(&target, spec);
        if !alike.is_empty() {
            let numbers: Vec<String> = alike.iter().map(u16::to_string).collect();
            errln!(
                "{}: the disks of volumes {} are equally large, and with an external 'meta-disk' there is no room on them for a \
                 mark: name them by what is theirs for ever (/dev/disk/by-id), for if two are swapped nothing can tell.",
                spec.name,
                numbers.join(", ")
            );
        }
        out!("{}", create_md::success_text(&geometry));
        Ok(())
    })
}

pub(crate) fn wipe_md(session: &Session, specs: &[ResourceSpec], force: bool) -> u8 {
    session.for_each("wipe-md", specs, |spec| {
        if session.dry_run {
            outln!("wipe-md {}", describe(spec));
            return Ok(());
        }
        let mut target = Target::open(spec, Access::Exclusive)?;
        let placement = target.placement();
        match metadata::probe(target.metadata_device(), placement) {
            Err(LoadError::NotFound) => {
                outln!("There is no tandem meta data to wipe out.");
                return Ok(());
            }
            Err(LoadError::Io(error)) => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        if !force {
            session.confirm("Do you really want to wipe out the tandem meta-data?")?;
        }
        metadata::wipe(target.metadata_device(), placement)?;
        target.data.forget_last_place()?;
        outln!("Wiping meta data...\ntandem meta data block successfully wiped out.");
        Ok(())
    })
}

/// Through the daemon if the resource is up, else on the disk.
pub(crate) fn outdate(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("outdate", specs, |spec| {
        act_or_edit(session, spec, "outdate", Action::Outdate, |target, placement| {
            match metadata::outdate(target.metadata_device(), placement)? {
                true => Ok(()),
                false => Err(Failure::Inconsistent),
            }
        })
    })
}

/// Through the daemon if the resource is up, else on the disk.
pub(crate) fn invalidate(
    session: &Session,
    specs: &[ResourceSpec],
    reset_bitmap: bool,
    source: Option<u8>,
    following: Following,
) -> u8 {
    let mut follow = Follow::new(session, following, Begun::Resync);
    let code = session.for_each("invalidate", specs, |spec| {
        if source.is_some_and(|id| spec.peers.iter().all(|peer| peer.id.0 != id)) {
            let text = format!("{}: Failure: (171) Invalid peer-node-id", spec.name);
            return Err(Failure::Config(text, 10));
        }
        let action = Action::Invalidate { reset_bitmap };
        let mut on_disk = false;
        act_or_edit(session, spec, "invalidate", action, |target, placement| {
            on_disk = true;
            let backing_bytes = target.data.size_bytes();
            let mut shown = target.shown(session, &format!("{}: invalidate", spec.name));
            Ok(metadata::invalidate(&mut shown, placement, backing_bytes, spec.node.id)?)
        })?;
        if !on_disk {
            follow.add(spec);
        }
        Ok(())
    });
    code.max(follow.to_the_end("invalidate"))
}

fn act_or_edit(
    session: &Session,
    spec: &ResourceSpec,
    word: &str,
    action: Action,
    edit: impl FnOnce(&mut Target, Placement) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if session.find_status(&spec.name)?.is_some() {
        return session.act(&spec.name, action);
    }
    if session.dry_run {
        outln!("{word} {}", describe(spec));
        return Ok(());
    }
    let mut target = Target::open(spec, Access::Exclusive)?;
    let placement = target.placement();
    edit(&mut target, placement)
}

pub(crate) fn adopt(session: &Session, specs: &[ResourceSpec], force: bool) -> u8 {
    session.for_each("adopt-md", specs, |spec| {
        if session.dry_run {
            outln!("adopt-md {}", describe(spec));
            return Ok(());
        }
        let mut target = Target::open(spec, Access::Exclusive)?;
        let placement = target.placement();
        if !force {
            session.confirm(
                "Was all of this disk copied from the peer after 'new-current-uuid --clear-bitmap' was run there?",
            )?;
        }
        metadata::adopt(target.metadata_device(), placement, spec.node.id)?;
        outln!("The copy belongs to this node now; it is Inconsistent until the peer has sent what changed since.");
        Ok(())
    })
}

pub(crate) fn show_gi(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("show-gi", specs, |spec| {
        let superblock = read(spec)?;
        out!("{}", gi_text::show_gi(spec, &superblock, session.find_status(&spec.name)?.as_ref()));
        Ok(())
    })
}

pub(crate) fn get_gi(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("get-gi", specs, |spec| {
        let superblock = read(spec)?;
        out!("{}", gi_text::get_gi(spec, &superblock, session.find_status(&spec.name)?.as_ref()));
        Ok(())
    })
}

/// From the disk, whether the daemon runs or not: it keeps the superblock there up to date.
fn read(spec: &ResourceSpec) -> Result<Superblock, Failure> {
    let mut target = Target::open(spec, Access::Look)?;
    let placement = target.placement();
    Ok(metadata::probe(target.metadata_device(), placement)?)
}

pub(super) fn describe(spec: &ResourceSpec) -> String {
    let placement = if spec.volume.meta_disk.is_some() { Placement::External } else { Placement::Internal };
    let metadata = spec.volume.meta_disk.as_ref().unwrap_or(&spec.volume.disk);
    let disks: Vec<String> = spec.volumes().map(|volume| volume.disk.display().to_string()).collect();
    format!("{} for {} ({placement:?})", metadata.display(), disks.join(", "))
}

pub(super) fn random_id() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|e| Failure::System("reading /dev/urandom", e))?;
    Ok(u64::from_le_bytes(bytes))
}
