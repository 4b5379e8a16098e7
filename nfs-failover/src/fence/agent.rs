//! A fence agent kills the peer: any command of the fence-agents package. It must reboot the peer or switch it off, not
//! merely cut it off from something.

use std::process::{Command, Stdio};

use super::met::must_have_met;
use super::{Broken, Context, Verdict};

pub(super) fn kill(command: &str, context: &Context) -> Result<Verdict, Broken> {
    must_have_met(context)?;
    let status = Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::null()).status();
    match status.map_err(|e| Broken(format!("{command}: {e}")))? {
        status if status.success() => Ok(Verdict::Fenced),
        status => Err(Broken(format!("the fence agent has failed: {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::mark_met;
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
