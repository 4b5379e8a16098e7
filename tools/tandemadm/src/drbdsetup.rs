//! tandemadm under the name `drbdsetup`: what that would be asked, in our words. Its arguments are numbers of minors,
//! peers and volumes in the order that a command has for them.

use std::ffi::OsString;

/// What an argument of drbdsetup's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Argument {
    Resource,
    /// One, or all; it may be left out.
    AnyResource,
    Minor,
    PeerId,
    Volume,
}

use Argument::{AnyResource, Minor, PeerId, Resource, Volume};

/// Its commands that have a counterpart.
const COMMANDS: [(&str, &str, &[Argument]); 30] = [
    ("status", "status", &[AnyResource]),
    ("events2", "events2", &[AnyResource]),
    ("show", "show", &[AnyResource]),
    ("role", "role", &[Resource]),
    ("cstate", "cstate", &[Resource, PeerId]),
    ("dstate", "dstate", &[Minor]),
    ("primary", "primary", &[Resource]),
    ("secondary", "secondary", &[Resource]),
    ("down", "down", &[Resource]),
    ("detach", "detach", &[Minor]),
    ("outdate", "outdate", &[Minor]),
    ("invalidate", "invalidate", &[Minor]),
    ("resize", "resize", &[Minor]),
    ("suspend-io", "suspend-io", &[Minor]),
    ("resume-io", "resume-io", &[Minor]),
    ("new-current-uuid", "new-current-uuid", &[Minor]),
    ("connect", "connect", &[Resource, PeerId]),
    ("disconnect", "disconnect", &[Resource, PeerId]),
    ("forget-peer", "forget-peer", &[Resource, PeerId]),
    ("invalidate-remote", "invalidate-remote", &[Resource, PeerId, Volume]),
    ("pause-sync", "pause-sync", &[Resource, PeerId, Volume]),
    ("resume-sync", "resume-sync", &[Resource, PeerId, Volume]),
    ("show-gi", "show-gi", &[Resource, PeerId, Volume]),
    ("get-gi", "get-gi", &[Resource, PeerId, Volume]),
    ("wait-connect-resource", "wait-connect", &[Resource]),
    ("wait-connect-connection", "wait-connect", &[Resource, PeerId]),
    ("wait-connect-volume", "wait-connect", &[Resource, PeerId, Volume]),
    ("wait-sync-resource", "wait-sync", &[Resource]),
    ("wait-sync-connection", "wait-sync", &[Resource, PeerId]),
    ("wait-sync-volume", "wait-sync", &[Resource, PeerId, Volume]),
];

/// Its short options that mean something else with us.
const OPTIONS: [(&str, &str); 2] = [("-s", "--statistics"), ("-c", "--color")];

/// The same command line for tandemadm; or why there is none.
pub fn as_tandemadm(line: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let mut words = line.into_iter();
    let program = words.next().unwrap_or_default();
    let Some(command) = words.next() else { return Err("drbdsetup: which command?".into()) };
    let command = command.to_string_lossy().into_owned();
    if command.starts_with('-') || command == "help" {
        return Ok([program, "--help".into()].to_vec());
    }
    let Some((_, ours, arguments)) = COMMANDS.iter().find(|(theirs, ..)| *theirs == command) else {
        return Err(format!(
            "drbdsetup: {command}: unknown command, or one that hands a kernel module its configuration. tandemd has it \
             from 'tandemadm up' and 'tandemadm adjust'; 'tandemadm help' lists what it can be asked."
        ));
    };
    let mut rest: Vec<OsString> = words.collect();
    let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    let mut taken = Vec::new();
    for argument in *arguments {
        match rest.iter().position(|word| !is_option(word)) {
            // What stands behind an option may be its value.
            Some(at) if at == 0 || arguments == &[AnyResource] => taken.push((*argument, rest.remove(at))),
            _ if *argument == AnyResource => (),
            _ => return Err(format!("drbdsetup: {command}: {} is missing", argument.describe())),
        }
    }
    let translated = |word: OsString| {
        let ours = OPTIONS.iter().find(|(theirs, _)| word == *theirs).map(|(_, ours)| OsString::from(ours));
        ours.unwrap_or(word)
    };
    let shows = arguments == &[AnyResource];
    let rest = rest.into_iter().map(|word| if shows { translated(word) } else { word });
    Ok([program, ours.into()].into_iter().chain(rest).chain(address(&taken)).collect())
}

/// `RES`, `RES:PEER`, `RES:PEER/VOL` or `minor-N`.
fn address(taken: &[(Argument, OsString)]) -> Option<OsString> {
    let (first, more) = taken.split_first()?;
    let mut name = OsString::from(if first.0 == Minor { "minor-" } else { "" });
    name.push(&first.1);
    for (argument, word) in more {
        name.push(if *argument == Volume { "/" } else { ":" });
        name.push(word);
    }
    Some(name)
}

impl Argument {
    fn describe(self) -> &'static str {
        match self {
            Resource | AnyResource => "the resource",
            Minor => "the minor number",
            PeerId => "the peer's node id",
            Volume => "the volume's number",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(line: &str) -> Result<String, String> {
        let words = as_tandemadm(line.split(' ').map(OsString::from).collect())?;
        Ok(words.iter().skip(1).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn commands_are_translated() {
        for (theirs, same) in [
            ("status --json", "status --json"),
            ("status -v -s r0", "status -v --statistics r0"),
            ("status all -c", "status --color all"),
            ("events2", "events2"),
            ("events2 --now r0", "events2 --now r0"),
            ("role r0", "role r0"),
            ("cstate r0 1", "cstate r0:1"),
            ("dstate 7", "dstate minor-7"),
            ("primary r0 --force", "primary --force r0"),
            ("new-current-uuid 0 --clear-bitmap", "new-current-uuid --clear-bitmap minor-0"),
            ("pause-sync r0 1 0", "pause-sync r0:1/0"),
            ("wait-connect-resource r0 -t 5", "wait-connect -t 5 r0"),
            ("wait-sync-volume r0 1 0 --wfc-timeout=5", "wait-sync --wfc-timeout=5 r0:1/0"),
            ("help status", "--help"),
        ] {
            assert_eq!(ours(&format!("drbdsetup {theirs}")).as_deref(), Ok(same), "{theirs}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (theirs, part) in [
            ("drbdsetup", "which command"),
            ("drbdsetup new-resource r0 0", "tandemadm up"),
            ("drbdsetup dstate", "the minor number is missing"),
            ("drbdsetup cstate r0", "the peer's node id is missing"),
            ("drbdsetup role --x r0", "the resource is missing"),
        ] {
            let error = ours(theirs).expect_err(theirs);
            assert!(error.contains(part), "{error}");
        }
    }
}
