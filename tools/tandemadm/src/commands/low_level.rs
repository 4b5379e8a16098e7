//! What other verbs are made of, one by one.

use tandem_control::{NodeSpec, Request, ResourceSpec, VolumeSpec};
use tandem_core::metadata;
use tandem_core::refusal::{INVALID_REQUEST, MINOR_CONFIGURED};
use tandem_core::state::DiskState;

use super::known::Known;
use super::peers::{self, refusal};
use super::{adjust, metadata as on_disk, runnable};
use crate::address::Address;
use crate::cli::{LowLevel, SetGi};
use crate::daemon_start;
use crate::device::Target;
use crate::failure::Failure;
use crate::output::{errln, outln};
use crate::session::Session;
use crate::{gi_set, gi_text};

/// Returns the exit code.
pub(crate) fn run(session: &Session, command: &LowLevel) -> Result<u8, Failure> {
    match command {
        LowLevel::AdjustWithProgress(names) => {
            let (specs, code) = runnable(session, names)?;
            Ok(adjust::with_progress(session, &specs).max(code))
        }
        LowLevel::NewResource(names) => {
            let specs = Known::of(session)?.specs(&names.names)?;
            Ok(session.for_each("new-resource", &specs, |spec| new_resource(session, spec)))
        }
        LowLevel::NewMinor(names) => each_volume(session, "new-minor", &names.names, new_minor),
        LowLevel::DelMinor(names) => each_volume(session, "del-minor", &names.names, del_minor),
        LowLevel::CheckResize(names) => Known::of(session)?.specs_with_volume(&names.names).map(|_| 0),
        LowLevel::SetGi(options) => set_gi(session, options),
    }
}

fn new_resource(session: &Session, spec: &ResourceSpec) -> Result<(), Failure> {
    if !session.dry_run {
        daemon_start::ensure_running(&session.run)?;
    }
    session.change(&Request::New { spec: Box::new(spec.clone()) })
}

/// Each resource, with the number of the volume that is meant, if it is one of several.
fn each_volume(
    session: &Session,
    word: &str,
    names: &[String],
    step: impl Fn(&Session, &ResourceSpec, Option<u16>) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let chosen = Known::of(session)?.specs_with_volume(names)?;
    let (specs, numbers): (Vec<ResourceSpec>, Vec<Option<u16>>) = chosen.into_iter().unzip();
    let mut numbers = numbers.into_iter();
    Ok(session.for_each(word, &specs, |spec| step(session, spec, numbers.next().flatten())))
}

fn new_minor(session: &Session, spec: &ResourceSpec, number: Option<u16>) -> Result<(), Failure> {
    let running = session.require_status(&spec.name)?.spec;
    let is_meant = |volume: &&VolumeSpec| number.is_none_or(|number| number == volume.number);
    let is_there = |volume: &VolumeSpec| {
        running.volumes().any(|one| (one.number, one.minor) == (volume.number, volume.minor))
    };
    match spec.volumes().filter(is_meant).find(|volume| !is_there(volume)) {
        None => Ok(()),
        Some(volume) => {
            let why = format!(
                "volume {} is not one of those that {1} was made with: run 'tandemadm down {1}', then 'tandemadm up {1}'",
                volume.number, spec.name
            );
            Err(refusal(&spec.name, INVALID_REQUEST, &why))
        }
    }
}

fn del_minor(session: &Session, spec: &ResourceSpec, number: Option<u16>) -> Result<(), Failure> {
    let status = session.require_status(&spec.name)?;
    if status.engine.disk != DiskState::Diskless {
        let minor = status.spec.volumes().find(|volume| number.is_none_or(|number| number == volume.number));
        let name = minor.map_or(spec.name.clone(), |volume| volume.minor.to_string());
        return Err(refusal(&name, MINOR_CONFIGURED, ""));
    }
    errln!("{0}: volumes go with their resource: 'tandemadm down {0}'", spec.name);
    Ok(())
}

/// On the disk of a resource that is down.
fn set_gi(session: &Session, options: &SetGi) -> Result<u8, Failure> {
    let address = Address::parse(&options.name);
    let specs = Known::of(session)?.specs(&[address.resource.to_owned()])?;
    Ok(session.for_each("set-gi", &specs, |spec| {
        let named = peers::named(spec, address.peer)?;
        let [peer] = named.as_slice() else {
            return Err(Failure::Usage(format!("{0}: name one peer: {0}:PEER", spec.name)));
        };
        write_gi(session, spec, peer, options)
    }))
}

fn write_gi(session: &Session, spec: &ResourceSpec, peer: &NodeSpec, options: &SetGi) -> Result<(), Failure> {
    let mut target = Target::open(spec, super::md_image::access(session))?;
    let placement = target.placement();
    let old = metadata::probe(target.metadata_device(), placement)?;
    let refused = |why| Failure::Config(format!("{}: {why}", spec.name), 10);
    let new = gi_set::changed(&old, peer, &options.identifiers).map_err(refused)?;
    let text = |superblock| gi_text::line(superblock, peer.id, None);
    outln!("previously {}\nset GI to  {}", text(&old), text(&new));
    if session.dry_run {
        outln!("set-gi {}", on_disk::describe(spec));
        return Ok(());
    }
    if !options.force {
        session.confirm("Write new GI to disk?")?;
    }
    Ok(metadata::replace(target.metadata_device(), placement, new)?)
}
