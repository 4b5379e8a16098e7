//! tandemadm under the name `drbdsetup`: what that would be asked, in our words. Its arguments are numbers of minors,
//! peers and volumes in the order that a command has for them. It is about what is up, whatever a configuration says.

use std::ffi::OsString;

use crate::address::Address;
use crate::failure::Failure;

/// What names a minor among the names of resources.
pub(crate) const MINOR: &str = "minor-";

/// What an argument of drbdsetup's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Argument {
    Resource,
    /// One, or all; it may be left out.
    AnyResource,
    Minor,
    PeerId,
    Volume,
    /// An end of a path, which is an option with us.
    Local,
    Remote,
}

use Argument::{AnyResource, Local, Minor, PeerId, Remote, Resource, Volume};

/// Its commands that have a counterpart.
const COMMANDS: [(&str, &str, &[Argument]); 39] = [
    ("status", "status", &[AnyResource]),
    ("events2", "events2", &[AnyResource]),
    ("show", "show", &[AnyResource]),
    ("role", "role", &[Resource]),
    ("cstate", "cstate", &[Resource, PeerId]),
    ("dstate", "dstate", &[Minor]),
    ("primary", "primary", &[Resource]),
    ("secondary", "secondary", &[Resource]),
    ("down", "down", &[AnyResource]),
    ("detach", "detach", &[Minor]),
    ("outdate", "outdate", &[Minor]),
    ("invalidate", "invalidate", &[Minor]),
    ("resize", "resize", &[Minor]),
    ("check-resize", "check-resize", &[Minor]),
    ("del-minor", "del-minor", &[Minor]),
    ("suspend-io", "suspend-io", &[Minor]),
    ("resume-io", "resume-io", &[Minor]),
    ("new-current-uuid", "new-current-uuid", &[Minor]),
    ("connect", "connect", &[Resource, PeerId]),
    ("disconnect", "disconnect", &[Resource, PeerId]),
    ("del-peer", "del-peer", &[Resource, PeerId]),
    ("del-path", "del-path", &[Resource, PeerId, Local, Remote]),
    ("forget-peer", "forget-peer", &[Resource, PeerId]),
    ("resource-options", "resource-options", &[Resource]),
    ("net-options", "net-options", &[Resource, PeerId]),
    ("disk-options", "disk-options", &[Minor]),
    ("peer-device-options", "peer-device-options", &[Resource, PeerId, Volume]),
    ("invalidate-remote", "invalidate-remote", &[Resource, PeerId, Volume]),
    ("verify", "verify", &[Resource, PeerId, Volume]),
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

/// Its options that may have a value, `yes` or `no`, and have none with us.
const FLAGS: [&str; 7] = [
    "force",
    "clear-bitmap",
    "force-resync",
    "discard-my-data",
    "tentative",
    "assume-peer-has-space",
    "assume-clean",
];

/// A command line of drbdsetup's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Its command.
    pub command: String,
    /// The same command line for tandemadm.
    pub line: Vec<OsString>,
}

/// What is asked of tandemadm; or why there is nothing.
pub fn as_tandemadm(line: Vec<OsString>) -> Result<Asked, String> {
    let mut words = line.into_iter();
    let program = words.next().unwrap_or_default();
    let mut rest: Vec<OsString> = words.collect();
    let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    let is_help = |word: &OsString| word == "help" || is_option(word);
    // Once, the object stood before the command.
    if let [first, second, ..] = rest.as_mut_slice()
        && !is_help(first)
        && find(first).is_none()
        && find(second).is_some()
    {
        std::mem::swap(first, second);
    }
    if rest.is_empty() {
        return Err("drbdsetup: which command?".into());
    }
    let first = rest.remove(0);
    let command = first.to_string_lossy().into_owned();
    if is_help(&first) {
        return Ok(Asked { command, line: [program, "--help".into()].to_vec() });
    }
    let Some((_, ours, arguments)) = find(&first) else {
        return Err(format!(
            "drbdsetup: {command}: unknown command, or one that hands a kernel module its configuration. tandemd has it \
             from 'tandemadm up' and 'tandemadm adjust'; 'tandemadm help' lists what it can be asked."
        ));
    };
    let mut taken = Vec::new();
    for argument in *arguments {
        match rest.iter().position(|word| !is_option(word)) {
            // What stands behind an option may be its value.
            Some(at) if at == 0 || arguments == &[AnyResource] => taken.push((*argument, rest.remove(at))),
            _ if *argument == AnyResource => (),
            _ => return Err(format!("drbdsetup: {command}: {} is missing", argument.describe())),
        }
    }
    if command == "down" && taken.is_empty() {
        taken.push((AnyResource, "all".into()));
    }
    let translated = |word: OsString| {
        let ours = OPTIONS.iter().find(|(theirs, _)| word == *theirs).map(|(_, ours)| OsString::from(ours));
        ours.unwrap_or(word)
    };
    let shows = arguments == &[AnyResource];
    rest.retain(|word| !is_flag(word, "=no"));
    rest.iter_mut().filter(|word| is_flag(word, "=yes")).for_each(|word| {
        let bare = word.to_string_lossy().trim_end_matches("=yes").to_owned();
        *word = bare.into();
    });
    let rest = rest.into_iter().map(|word| if shows { translated(word) } else { word });
    let ends = taken.iter().filter_map(|(argument, word)| {
        let mut option = OsString::from(argument.option()?);
        option.push(word);
        Some(option)
    });
    let line = [program, ours.into()].into_iter().chain(address(&taken)).chain(ends).chain(rest).collect();
    Ok(Asked { command, line })
}

fn find(word: &OsString) -> Option<&'static (&'static str, &'static str, &'static [Argument])> {
    COMMANDS.iter().find(|(theirs, ..)| word == *theirs)
}

/// The word is one of the flags, with this value.
fn is_flag(word: &OsString, value: &str) -> bool {
    let word = word.to_string_lossy();
    let name = word.strip_suffix(value).and_then(|word| word.strip_prefix("--"));
    name.is_some_and(|name| FLAGS.contains(&name))
}

/// `RES`, `RES:PEER`, `RES:PEER/VOL` or `minor-N`.
fn address(taken: &[(Argument, OsString)]) -> Option<OsString> {
    let ((first, word), more) = taken.split_first()?;
    if *first == Minor {
        let word = word.to_string_lossy();
        let number = word.trim_start_matches("/dev/drbd").trim_start_matches(MINOR);
        return Some(format!("{MINOR}{number}").into());
    }
    let mut name = word.clone();
    for (argument, word) in more.iter().filter(|(argument, _)| argument.option().is_none()) {
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
            Local => "the local address",
            Remote => "the remote address",
        }
    }

    fn option(self) -> Option<&'static str> {
        match self {
            Local => Some("--local="),
            Remote => Some("--remote="),
            _ => None,
        }
    }
}

/// What is so already where nothing is up.
const UNDOING: [&str; 4] = ["down", "secondary", "disconnect", "detach"];

/// Without the daemon, as without the kernel module, there is nothing up; and that is no failure.
pub(crate) fn needs_no_daemon(command: &str) -> bool {
    command == "status" || UNDOING.contains(&command)
}

/// Nothing of this name is up: a failure, in drbdsetup's words, unless that is just what is wanted.
pub(crate) fn missing(command: &str, name: &str, nothing_is_up: bool) -> Result<(), Failure> {
    if command == "down" || nothing_is_up && UNDOING.contains(&command) {
        return Ok(());
    }
    let minor = name.strip_prefix(MINOR);
    let what = match command {
        "status" => "No such resource",
        "role" => "Unknown resource",
        "cstate" => "No such connection",
        "dstate" => "No such device",
        "show-gi" | "get-gi" => "No such peer device",
        _ if minor.is_some() => "Failure: (127) Device minor not allocated",
        _ => "Failure: (158) Unknown resource",
    };
    Err(Failure::Config(format!("{}: {what}", minor.unwrap_or(Address::parse(name).resource)), 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(line: &str) -> Result<String, String> {
        let asked = as_tandemadm(line.split(' ').map(OsString::from).collect())?;
        Ok(asked.line.iter().skip(1).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn commands_are_translated() {
        for (theirs, same) in [
            ("status --json", "status --json"),
            ("status -v -s r0", "status r0 -v --statistics"),
            ("status all -c", "status all --color"),
            ("events2", "events2"),
            ("events2 --now r0", "events2 r0 --now"),
            ("role r0", "role r0"),
            ("cstate r0 1", "cstate r0:1"),
            ("dstate 7", "dstate minor-7"),
            ("primary r0 --force", "primary r0 --force"),
            ("primary r0 --force=yes", "primary r0 --force"),
            ("connect r0 1 --discard-my-data=no --tentative=yes", "connect r0:1 --tentative"),
            ("/dev/drbd7 dstate", "dstate minor-7"),
            ("down", "down all"),
            ("new-current-uuid 0 --clear-bitmap", "new-current-uuid minor-0 --clear-bitmap"),
            ("net-options r0 1 --ping-int=5", "net-options r0:1 --ping-int=5"),
            (
                "del-path r0 1 ipv4:10.0.0.1:7788 ipv4:10.0.0.2:7788",
                "del-path r0:1 --local=ipv4:10.0.0.1:7788 --remote=ipv4:10.0.0.2:7788",
            ),
            ("pause-sync r0 1 0", "pause-sync r0:1/0"),
            ("wait-connect-resource r0 -t 5", "wait-connect r0 -t 5"),
            ("wait-sync-volume r0 1 0 --wfc-timeout=5", "wait-sync r0:1/0 --wfc-timeout=5"),
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
