//! A node that was killed comes back without knowing what it has missed; if it may then have the other one killed, its old
//! data goes on. So a node has its peer killed only if it has met it since it was booted: the service notes that in the
//! runtime folder, which does not survive a boot.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Broken, Context};

/// Refuses on a node that may have old data.
pub(super) fn must_have_met(context: &Context) -> Result<(), Broken> {
    let mark = met_mark(&context.run, &context.resource, &context.peer);
    match mark.exists() {
        true => Ok(()),
        false => Err(Broken(format!(
            "this node has not met {} since it was booted and may have old data: it does not shoot ({} is missing; \
             'nfs-failover serve' makes it when both are connected and UpToDate)",
            context.peer,
            mark.display()
        ))),
    }
}

/// Notes that both nodes have met since this one was booted.
pub(crate) fn mark_met(run: &Path, resource: &str, peer: &str) -> io::Result<()> {
    let mark = met_mark(run, resource, peer);
    if mark.exists() {
        return Ok(());
    }
    mark.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::create(mark).map(drop)
}

/// The file that says so.
fn met_mark(run: &Path, resource: &str, peer: &str) -> PathBuf {
    run.join("met").join(format!("{resource}-{peer}"))
}
