//! A fence agent kills the peer: any command of the fence-agents package, or `stonith_admin`.
//!
//! A node that was killed comes back without knowing what it has missed; if it may then kill the other one, its old data
//! goes on. So a node shoots only if it has met its peer since it was booted: the service notes that in the runtime
//! folder, which does not survive a boot. The agent must therefore reboot the peer or switch it off, not merely cut it
//! off from something.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Broken, Context, Verdict};

pub(super) fn kill(command: &str, context: &Context) -> Result<Verdict, Broken> {
    let mark = met_mark(&context.run, &context.resource, &context.peer);
    if !mark.exists() {
        return Err(Broken(format!(
            "this node has not met {} since it was booted and may have old data: it does not shoot ({} is missing; \
             'nfs-failover serve' makes it when both are connected and UpToDate)",
            context.peer,
            mark.display()
        )));
    }
    let status = Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::null()).status();
    match status.map_err(|e| Broken(format!("{command}: {e}")))? {
        status if status.success() => Ok(Verdict::Fenced),
        status => Err(Broken(format!("the fence agent has failed: {status}"))),
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

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;

    #[test]
    fn only_a_node_that_has_met_its_peer_shoots() {
        let mut context = context(&[]).unwrap();
        context.run = std::env::temp_dir().join(format!("tandem-agent-{}", std::process::id()));
        assert!(kill("exit 0", &context).unwrap_err().0.contains("has not met bravo"));
        mark_met(&context.run, "r0", "bravo").unwrap();
        mark_met(&context.run, "r0", "bravo").unwrap();
        assert_eq!(kill("exit 0", &context), Ok(Verdict::Fenced));
        assert!(kill("exit 1", &context).is_err());
        fs::remove_dir_all(&context.run).unwrap();
    }
}
