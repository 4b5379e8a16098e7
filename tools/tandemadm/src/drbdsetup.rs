//! tandemadm under the name `drbdsetup`: what that would be asked, in our words. Its arguments are numbers of minors,
//! peers and volumes in the order that a command has for them. It is about what is up, whatever a configuration says.

use std::collections::VecDeque;
use std::ffi::OsString;

use tandem_config::{Kind, OPTIONS as SETTINGS, OptionDef};

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
    /// What it is called.
    Said(&'static str),
}

use Argument::{AnyResource, Minor, PeerId, Resource, Said, Volume};

const LOCAL: Argument = Said("the local address");
const REMOTE: Argument = Said("the remote address");

/// Its commands that have a counterpart.
const COMMANDS: [(&str, &str, &[Argument]); 32] = [
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
    ("suspend-io", "suspend-io", &[Minor]),
    ("resume-io", "resume-io", &[Minor]),
    ("new-current-uuid", "new-current-uuid", &[Minor]),
    ("connect", "connect", &[Resource, PeerId]),
    ("disconnect", "disconnect", &[Resource, PeerId]),
    ("forget-peer", "forget-peer", &[Resource, PeerId]),
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

/// Its commands of which a resource is made and changed piece by piece.
const PIECES: [(&str, &[Argument]); 13] = [
    ("new-resource", &[Resource, Said("the node id")]),
    ("del-resource", &[Resource]),
    ("resource-options", &[Resource]),
    ("new-minor", &[Resource, Minor, Volume]),
    ("del-minor", &[Minor]),
    ("new-peer", &[Resource, PeerId]),
    ("del-peer", &[Resource, PeerId]),
    ("net-options", &[Resource, PeerId]),
    ("new-path", &[Resource, PeerId, LOCAL, REMOTE]),
    ("del-path", &[Resource, PeerId, LOCAL, REMOTE]),
    ("peer-device-options", &[Resource, PeerId, Volume]),
    ("attach", &[Minor, Said("the disk"), Said("the meta-data's disk"), Said("internal or flexible")]),
    ("disk-options", &[Minor]),
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

/// Its options besides settings that have a value.
const VALUED: [&str; 10] = [
    "wfc-timeout",
    "degr-wfc-timeout",
    "outdated-wfc-timeout",
    "start",
    "stop",
    "size",
    "al-stripes",
    "al-stripe-size-kB",
    "sync-from-peer-node-id",
    "_name",
];
const VALUED_LETTERS: [&str; 3] = ["-t", "-d", "-o"];

/// A command line of drbdsetup's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Something that tandemadm can be asked, too.
    Same {
        /// Its command.
        command: String,
        /// The same command line for tandemadm.
        line: Vec<OsString>,
    },
    /// A piece of a resource.
    Piece(Piece),
}

/// A command that makes, changes or takes away a piece of a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The command.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// All that stands behind them.
    pub options: Vec<String>,
}

/// What is asked of tandemadm; or why there is nothing.
pub fn as_tandemadm(line: Vec<OsString>) -> Result<Asked, String> {
    let mut words = line.into_iter();
    let program = words.next().unwrap_or_default();
    let mut rest: Vec<OsString> = words.collect();
    let is_help = |word: &OsString| word == "help" || is_option(word);
    // Once, the object stood before the command.
    if let [first, second, ..] = rest.as_mut_slice()
        && !is_help(first)
        && arguments_of(first).is_none()
        && arguments_of(second).is_some()
    {
        std::mem::swap(first, second);
    }
    if rest.is_empty() {
        return Err("drbdsetup: which command?".into());
    }
    let first = rest.remove(0);
    let command = first.to_string_lossy().into_owned();
    if is_help(&first) {
        return Ok(Asked::Same { command, line: [program, "--help".into()].to_vec() });
    }
    let Some(arguments) = arguments_of(&first) else {
        return Err(format!(
            "drbdsetup: {command}: unknown command, or one that only a kernel module can be asked. 'tandemadm help' lists \
             what tandemd can be asked."
        ));
    };
    let (mut words, options) = without_options(rest);
    // As drbdadm calls it, which knows better than to name one.
    if command == "outdate" && words.len() > 1 {
        words.pop_front();
    }
    let taken = take(&command, arguments, &mut words)?;
    let rest: Vec<OsString> = words.into_iter().chain(options).collect();
    let Some((_, ours, _)) = find(&first) else {
        let text = |word: OsString| word.to_string_lossy().into_owned();
        let arguments = taken.into_iter().map(|(_, word)| text(word)).collect();
        return Ok(Asked::Piece(Piece { command, arguments, options: rest.into_iter().map(text).collect() }));
    };
    let line = [program, ours.into()]
        .into_iter()
        .chain(address(&taken))
        .chain(translated(arguments, rest))
        .collect();
    Ok(Asked::Same { command, line })
}

fn is_option(word: &OsString) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// The words that are arguments, and the options, each with its value: they stand in any order, as getopt has it.
fn without_options(line: Vec<OsString>) -> (VecDeque<OsString>, Vec<OsString>) {
    let (mut arguments, mut options) = (VecDeque::new(), Vec::new());
    let mut line = line.into_iter();
    while let Some(mut word) = line.next() {
        if !is_option(&word) {
            arguments.push_back(word);
        } else if let Some(value) = takes_next(&word.to_string_lossy()).then(|| line.next()).flatten() {
            if !word.as_encoded_bytes().starts_with(b"--") {
                options.push(std::mem::replace(&mut word, value));
            } else {
                word.push("=");
                word.push(value);
            }
            options.push(word);
        } else {
            options.push(word);
        }
    }
    (arguments, options)
}

/// The option's value is the next word.
fn takes_next(word: &str) -> bool {
    let Some(name) = word.strip_prefix("--") else { return VALUED_LETTERS.contains(&word) };
    let is_valued = |option: &&OptionDef| !matches!(option.kind, Kind::Flag { .. });
    let settings = SETTINGS.iter().filter(is_valued).map(|option| option.name);
    let is_meant = |option: &str| option == name || name.len() > 1 && option.starts_with(name);
    !FLAGS.contains(&name) && VALUED.into_iter().chain(settings).any(is_meant)
}

fn take(
    command: &str,
    arguments: &[Argument],
    words: &mut VecDeque<OsString>,
) -> Result<Vec<(Argument, OsString)>, String> {
    let mut taken = Vec::new();
    for argument in arguments {
        match words.pop_front() {
            Some(word) => taken.push((*argument, word)),
            None if *argument == AnyResource => (),
            None => return Err(format!("drbdsetup: {command}: {} is missing", argument.describe())),
        }
    }
    if command == "down" && taken.is_empty() {
        taken.push((AnyResource, "all".into()));
    }
    Ok(taken)
}

/// The options as tandemadm has them.
fn translated(arguments: &[Argument], mut rest: Vec<OsString>) -> Vec<OsString> {
    let translated = |word: OsString| {
        let ours = OPTIONS.iter().find(|(theirs, _)| word == *theirs).map(|(_, ours)| OsString::from(ours));
        ours.unwrap_or(word)
    };
    let shows = arguments == [AnyResource];
    rest.retain(|word| !is_flag(word, "=no"));
    rest.iter_mut().filter(|word| is_flag(word, "=yes")).for_each(|word| {
        let bare = word.to_string_lossy().trim_end_matches("=yes").to_owned();
        *word = bare.into();
    });
    rest.into_iter().map(|word| if shows { translated(word) } else { word }).collect()
}

fn arguments_of(word: &OsString) -> Option<&'static [Argument]> {
    let of_piece = || PIECES.iter().find(|(theirs, _)| word == *theirs).map(|(_, arguments)| *arguments);
    find(word).map(|(.., arguments)| *arguments).or_else(of_piece)
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
        return Some(format!("{MINOR}{}", minor_number(&word.to_string_lossy())).into());
    }
    let mut name = word.clone();
    for (argument, word) in more {
        name.push(if *argument == Volume { "/" } else { ":" });
        name.push(word);
    }
    Some(name)
}

/// A minor may be called by its device's name.
pub(crate) fn minor_number(word: &str) -> &str {
    word.trim_start_matches("/dev/drbd").trim_start_matches(MINOR)
}

impl Argument {
    fn describe(self) -> &'static str {
        match self {
            Resource | AnyResource => "the resource",
            Minor => "the minor number",
            PeerId => "the peer's node id",
            Volume => "the volume's number",
            Said(what) => what,
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
        match as_tandemadm(line.split(' ').map(OsString::from).collect())? {
            Asked::Same { line, .. } => {
                Ok(line.iter().skip(1).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
            }
            Asked::Piece(Piece { command, arguments, options }) => {
                Ok(format!("{command} [{}] [{}]", arguments.join(" "), options.join(" ")))
            }
        }
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
            ("net-options r0 1 --ping-int=5", "net-options [r0 1] [--ping-int=5]"),
            ("del-minor 7", "del-minor [7] []"),
            (
                "attach 7 /dev/sda /dev/sda internal --on-io-error=detach",
                "attach [7 /dev/sda /dev/sda internal] [--on-io-error=detach]",
            ),
            ("outdate r0 7", "outdate minor-7"),
            ("pause-sync r0 1 0", "pause-sync r0:1/0"),
            ("wait-connect-resource r0 -t 5", "wait-connect r0 -t 5"),
            ("wait-sync-volume r0 1 0 --wfc-timeout=5", "wait-sync r0:1/0 --wfc-timeout=5"),
            // As drbd-utils' units call it.
            ("secondary --force=yes r0", "secondary r0 --force"),
            ("wait-connect-resource -t 5 r0", "wait-connect r0 -t 5"),
            (
                "resource-options --on-no-quorum io-error --on-no-data io-error r0",
                "resource-options [r0] [--on-no-quorum=io-error --on-no-data=io-error]",
            ),
            ("help status", "--help"),
        ] {
            assert_eq!(ours(&format!("drbdsetup {theirs}")).as_deref(), Ok(same), "{theirs}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (theirs, part) in [
            ("drbdsetup", "which command"),
            ("drbdsetup new-resource r0", "the node id is missing"),
            ("drbdsetup new-path r0 1 ipv4:10.0.0.1:7788", "the remote address is missing"),
            ("drbdsetup rename-resource r0 r1", "unknown command"),
            ("drbdsetup dstate", "the minor number is missing"),
            ("drbdsetup cstate r0", "the peer's node id is missing"),
            ("drbdsetup role --x", "the resource is missing"),
        ] {
            let error = ours(theirs).expect_err(theirs);
            assert!(error.contains(part), "{error}");
        }
    }
}
