//! The peer outdates its own disk: no fence device is needed, but another path to the peer. If the peer cannot be
//! reached, only a node whose data is UpToDate goes on: a Secondary never takes over from a dead Primary by this alone.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Broken, Context, Verdict, retry};

/// Neither asks nor waits for long.
pub(super) const DEFAULT_COMMAND: &str = "ssh -o BatchMode=yes -o ConnectTimeout=5 root@%a";
/// For a peer that has not noticed yet that the connection is gone.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);
const NOTICE_PAUSE: Duration = Duration::from_millis(500);

/// Exit code of ssh itself, when it could not do what it was told.
const SSH_FAILED: i32 = 255;
/// DRBD's exit codes of `outdate`.
const LOWER_THAN_OUTDATED: i32 = 5;
const REFUSED: i32 = 11;
const NEEDS_UP_TO_DATE: i32 = 17;

pub(super) fn outdate(command: &str, context: &Context) -> Result<Verdict, Broken> {
    let words: Vec<String> = command
        .split_whitespace()
        .map(|word| word.replace("%a", &context.peer_address).replace("%n", &context.peer))
        .chain(["tandemadm".into(), "outdate".into(), context.resource.clone()])
        .collect();
    let attempt = || match run(&words) {
        Ok(REFUSED) => None,
        result => Some(result.and_then(verdict)),
    };
    retry(NOTICE_LIMIT, NOTICE_PAUSE, attempt).unwrap_or_else(|| {
        Err(Broken("the peer refuses to be Outdated: it says that it is connected, or in transition".into()))
    })
}

fn run(words: &[String]) -> Result<i32, Broken> {
    let (program, arguments) = words.split_first().ok_or_else(|| Broken("--ssh-command is empty".into()))?;
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status();
    let status = status.map_err(|e| Broken(format!("{program}: {e}")))?;
    status.code().ok_or_else(|| Broken(format!("{program}: {status}")))
}

fn verdict(code: i32) -> Result<Verdict, Broken> {
    match code {
        0 => Ok(Verdict::Outdated),
        LOWER_THAN_OUTDATED => Ok(Verdict::Inconsistent),
        NEEDS_UP_TO_DATE => Ok(Verdict::PeerServes),
        SSH_FAILED => Ok(Verdict::Unreachable),
        code => Err(Broken(format!("`tandemadm outdate` on the peer ended with exit code {code}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;

    #[test]
    fn exit_codes_of_the_peer_are_understood() {
        let context = context(&[]).unwrap();
        for (code, expected) in [
            (0, Ok(Verdict::Outdated)),
            (5, Ok(Verdict::Inconsistent)),
            (17, Ok(Verdict::PeerServes)),
            (255, Ok(Verdict::Unreachable)),
            (127, Err(())),
        ] {
            let folder = std::env::temp_dir().join(format!("tandem-ssh-{}-{code}", std::process::id()));
            std::fs::write(
                &folder,
                format!("[ \"$*\" = '10.0.0.2 bravo tandemadm outdate r0' ] && exit {code}\nexit 1"),
            )
            .unwrap();
            let result = outdate(&format!("sh {} %a %n", folder.display()), &context);
            std::fs::remove_file(&folder).unwrap();
            assert_eq!(result.map_err(drop), expected, "exit code {code}");
        }
        assert!(outdate("", &context).is_err());
        assert!(outdate("/nonexistent/ssh", &context).is_err());
    }
}
