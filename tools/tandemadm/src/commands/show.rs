//! Commands that show a resource's state.

use tandem_control::{ResourceSpec, ResourceStatus};
use tandem_core::metadata;

use super::known::require_volume;
use crate::cli::StatusOptions;
use crate::device::{Access, Target};
use crate::diagnosis::{self, Finding};
use crate::failure::Failure;
use crate::gi_text;
use crate::output::outln;
use crate::session::Session;
use crate::status_json;
use crate::status_text::{self, Look};
use crate::terminal;

/// How `status` is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// With drbdsetup's keys.
    Json,
    /// As DRBD prints it.
    Plain(Look),
    /// The same, with why and what to do in lines of comment.
    Remarks(Look),
}

/// Every resource that is up, whatever the configuration says; and the exit code.
pub(crate) fn status_of_all(session: &Session, format: Format) -> Result<(String, u8), Failure> {
    let all = session.status(None)?;
    let none = all.is_empty() && format != Format::Json;
    Ok((if none { status_text::NONE_CONFIGURED.to_owned() } else { text(&all, format) }, 0))
}

pub(crate) fn status(session: &Session, specs: &[ResourceSpec], format: Format) -> (String, u8) {
    let mut found = Vec::new();
    let code = session.for_each("status", specs, |spec| {
        found.push(session.require_status(&spec.name)?);
        Ok(())
    });
    (text(&found, format), code)
}

fn text(all: &[ResourceStatus], format: Format) -> String {
    match format {
        Format::Json => status_json::resources(all),
        Format::Plain(look) => all.iter().map(|status| status_text::resource(status, &look)).collect(),
        Format::Remarks(look) => {
            all.iter().map(|status| with_remarks(status, &diagnosis::of_resource(status), &look)).collect()
        }
    }
}

/// One resource, its empty line at the end included.
pub(crate) fn with_remarks(status: &ResourceStatus, findings: &[Finding], look: &Look) -> String {
    let mut text = status_text::resource(status, look);
    text.pop();
    text.extend(findings.iter().map(Finding::remark));
    text.push('\n');
    text
}

/// How the reader wants to see it.
pub(crate) fn look(session: &Session, options: &StatusOptions) -> Look {
    Look {
        verbose: session.verbose,
        statistics: options.statistics,
        colours: terminal::colours(options.color),
        is_terminal: terminal::is_reader(),
        columns: terminal::columns(),
    }
}

/// The own role only, as DRBD 9 prints it.
pub(crate) fn role(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("role", specs, |spec| {
        outln!("{}", session.require_status(&spec.name)?.engine.role);
        Ok(())
    })
}

/// A line for each connection.
pub(crate) fn cstate(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("cstate", specs, |spec| {
        let status = session.require_status(&spec.name)?;
        status.engine.peers.iter().for_each(|peer| outln!("{}", peer.connection));
        Ok(())
    })
}

/// A line for each volume that is meant: the own disk's state and the peers'; of a resource that is not up, what the metadata says of the own disk.
pub(crate) fn dstate(session: &Session, chosen: Vec<(ResourceSpec, Option<u16>)>) -> u8 {
    let (specs, numbers): (Vec<ResourceSpec>, Vec<Option<u16>>) = chosen.into_iter().unzip();
    let mut numbers = numbers.into_iter();
    session.for_each("dstate", &specs, |spec| {
        let number = numbers.next().flatten();
        let volumes = number.map_or(spec.volumes().count(), |_| 1);
        match session.find_status(&spec.name)? {
            Some(status) => {
                require_volume(&status, number)?;
                let peers = status.engine.peers.iter().map(|peer| peer.disk);
                let states: Vec<&str> =
                    std::iter::once(status.engine.disk).chain(peers).map(|d| d.as_str()).collect();
                // The volumes are as their resource is.
                (0..volumes).for_each(|_| outln!("{}", states.join("/")));
            }
            None => {
                let mut target = Target::open(spec, Access::Look)?;
                let placement = target.placement();
                let state = gi_text::disk_state(&metadata::probe(target.metadata_device(), placement)?);
                (0..volumes).for_each(|_| outln!("{state}"));
            }
        }
        Ok(())
    })
}
