//! `doctor`: looks at what lies under the resources.

use crate::config::Config;
use crate::doctor::{self, Part};
use crate::failure::Failure;
use crate::output::out;
use crate::session::Session;

/// Of the resources named, or all; returns 0, 1 or 2.
pub(crate) fn doctor(session: &Session, names: &[String], json: bool) -> Result<u8, Failure> {
    let specs = Config::load(&session.files)?.specs(names)?;
    let up = session.status(None)?;
    let mut parts: Vec<Part> = vec![doctor::examine_machine(&session.run, &specs)];
    for spec in &specs {
        let status = up.iter().find(|status| status.engine.resource == spec.name);
        parts.push(doctor::examine_resource(spec, status));
    }
    out!("{}", if json { doctor::json(&parts) } else { doctor::text(&parts) });
    Ok(doctor::worst(&parts) as u8)
}
