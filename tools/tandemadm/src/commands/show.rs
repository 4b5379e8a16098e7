//! Commands that show a resource's state.

use tandem_control::ResourceSpec;
use tandem_core::metadata;

use crate::device::{Access, Target};
use crate::failure::Failure;
use crate::gi_text;
use crate::output::{out, outln};
use crate::session::Session;
use crate::status_json;
use crate::status_text;

/// Every resource that is up, whatever the configuration says.
pub(crate) fn status_of_all(session: &Session, json: bool) -> Result<u8, Failure> {
    let all = session.status(None)?;
    match all.as_slice() {
        all if json => out!("{}", status_json::resources(all)),
        [] => out!("{}", status_text::NONE_CONFIGURED),
        all => all.iter().for_each(|status| out!("{}", status_text::resource(status))),
    }
    Ok(0)
}

pub(crate) fn status(session: &Session, specs: &[ResourceSpec], json: bool) -> u8 {
    let mut found = Vec::new();
    let code = session.for_each("status", specs, |spec| {
        found.push(session.require_status(&spec.name)?);
        Ok(())
    });
    match json {
        true => out!("{}", status_json::resources(&found)),
        false => found.iter().for_each(|status| out!("{}", status_text::resource(status))),
    }
    code
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

/// The own disk's state and the peers'; of a resource that is not up, what the metadata says of the own disk.
pub(crate) fn dstate(session: &Session, specs: &[ResourceSpec]) -> u8 {
    session.for_each("dstate", specs, |spec| {
        match session.find_status(&spec.name)? {
            Some(status) => {
                let peers = status.engine.peers.iter().map(|peer| peer.disk);
                let states: Vec<&str> =
                    std::iter::once(status.engine.disk).chain(peers).map(|d| d.as_str()).collect();
                // A line for each volume: they are as their resource is.
                status.spec.volumes().for_each(|_| outln!("{}", states.join("/")));
            }
            None => {
                let mut target = Target::open(spec, Access::Look)?;
                let placement = target.placement();
                let state = gi_text::disk_state(&metadata::probe(target.metadata_device(), placement)?);
                spec.volumes().for_each(|_| outln!("{state}"));
            }
        }
        Ok(())
    })
}
