//! What both sides of a split brain have written, and what becomes of it.

use serde_json::Value;
use tandem_control::ResourceSpec;

use crate::output::{out, outln};
use crate::session::Session;
use crate::{divergence_json, divergence_text};

pub(crate) fn show(session: &Session, specs: &[ResourceSpec], json: bool) -> u8 {
    let mut all = Vec::new();
    let code = session.for_each("split-brain show", specs, |spec| {
        let divergences = session.divergences(&spec.name)?;
        match json {
            true => all.push(divergence_json::resource(spec, &divergences)),
            false => out!("{}", divergence_text::show(spec, &divergences)),
        }
        Ok(())
    });
    if json {
        outln!("{:#}", Value::Array(all));
    }
    code
}
