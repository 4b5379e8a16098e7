//! `doctor`: looks at what lies under the resources.

use crate::bar;
use crate::config::Config;
use crate::doctor::{self, Part};
use crate::failure::Failure;
use crate::output::out;
use crate::session::Session;

/// Of the resources named, or all; returns 0, 1 or 2.
pub(crate) fn doctor(session: &Session, names: &[String], json: bool) -> Result<u8, Failure> {
    let specs = Config::load(&session.files)?.specs(names)?;
    let up = session.status(None)?;
    let machine = || doctor::examine_machine(&session.run, &specs);
    let mut parts: Vec<Part> = vec![bar::waiting(session.bars, "looking at this machine", machine)];
    for spec in &specs {
        let status = up.iter().find(|status| status.engine.resource == spec.name);
        let what = format!("{}: trying its disks and the ways to its peers", spec.name);
        parts.push(bar::waiting(session.bars, &what, || doctor::examine_resource(spec, status)));
    }
    out!("{}", if json { doctor::json(&parts) } else { doctor::text(&parts) });
    Ok(doctor::worst(&parts) as u8)
}
