//! `show`: what runs, whatever the configuration says.

use crate::cli::Show;
use crate::failure::Failure;
use crate::output::{errln, out};
use crate::session::Session;
use crate::status_text::NONE_CONFIGURED;
use crate::{running_json, running_text};

pub(crate) fn show(session: &Session, show: &Show) -> Result<u8, Failure> {
    let mut found = Vec::new();
    let mut worst = 0;
    let (all, named): (Vec<&String>, Vec<&String>) = show.names.iter().partition(|name| *name == "all");
    for name in &named {
        match session.require_status(name) {
            Ok(status) => found.push(status),
            Err(failure) => {
                errln!("{failure}");
                worst = worst.max(failure.exit_code());
            }
        }
    }
    if named.is_empty() || !all.is_empty() {
        found = session.status(None)?;
    }
    match (show.json, found.is_empty() && worst == 0) {
        (true, _) => out!("{}", running_json::resources(&found, show.show_defaults)),
        (false, true) => out!("{NONE_CONFIGURED}"),
        (false, false) => {
            found.iter().for_each(|status| out!("{}", running_text::resource(status, show.show_defaults)));
        }
    }
    Ok(worst)
}
