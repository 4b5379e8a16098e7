//! Every verb on a real pair: in which state it is used, what it says, what it ends with. One pair lives through the table.

use std::collections::BTreeSet;
use std::fs;

use clap::{Command, CommandFactory};
use tandem_core::config::Protocol;
use tandem_core::state::{ConnectionState, DiskState};

use crate::pair::{Pair, Setup};
use crate::wait;

/// What happens next.
enum Turn {
    /// A command on alpha (0) or bravo (1), its exit code, and a part of what it says. `DUMP` is a file with alpha's
    /// metadata, `FOLDER` the pair's.
    Row(usize, &'static str, i32, &'static str),
    /// The state in which what follows is asked.
    Until(&'static str, fn(&Pair) -> bool),
}

use Turn::{Row, Until};

const A: usize = 0;
const B: usize = 1;

const TABLE: &[&[Turn]] =
    &[WITHOUT_DAEMON, FIRST_CONTACT, UP_TO_DATE, RESYNC, APART, DISK, SPLIT, SCRIPTS, THE_END];

/// No daemon runs: on the metadata, or not at all.
const WITHOUT_DAEMON: &[Turn] = &[
    Row(A, "status", 0, "# No currently configured DRBD found."),
    Row(A, "status r0", 10, "r0: No such resource"),
    Row(A, "role r0", 10, "r0: No such resource"),
    Row(A, "cstate r0", 10, "r0: No such resource"),
    Row(A, "wait-connect r0", 10, "r0: No such resource"),
    Row(A, "wait-sync r0", 10, "r0: No such resource"),
    Row(A, "wait-con-int", 10, "r0: No such resource"),
    Row(A, "primary r0", 20, "tandemd is not running"),
    Row(A, "split-brain show r0", 10, "r0: No such resource"),
    Row(A, "doctor nosuch", 1, "'nosuch' not defined in your config"),
    Row(A, "up all nosuch", 1, "'nosuch' not defined in your config"),
    Row(A, "events2 nosuch", 1, "'nosuch' not defined in your config"),
    Row(A, "events2 --now r0", 0, "exists -"),
    Row(A, "down r0", 0, ""),
    Row(A, "dstate r0", 1, "No valid meta-data signature found."),
    Row(A, "get-gi r0", 1, "No valid meta-data signature found."),
    Row(A, "show-gi r0", 1, "No valid meta-data signature found."),
    Row(A, "outdate r0", 1, "No valid meta-data signature found."),
    Row(A, "invalidate r0", 1, "No valid meta-data signature found."),
    Row(A, "apply-al r0", 1, "No valid meta-data signature found."),
    Row(A, "forget-peer r0", 1, "No valid meta-data signature found."),
    Row(A, "adopt-md --force r0", 1, "No valid meta-data signature found."),
    Row(A, "dump-md r0", 1, "No valid meta data found"),
    Row(A, "wipe-md r0", 0, "There is no tandem meta data to wipe out."),
    Row(A, "create-md r0", 0, "New tandem meta data block successfully created."),
    Row(A, "create-md r0", 1, "Operation cancelled."),
    Row(B, "create-md --max-peers 2 r0", 0, "initializing bitmap"),
    Row(A, "dstate r0", 0, "Inconsistent"),
    Row(A, "get-gi r0", 0, "0000000000000004:0000000000000000:"),
    Row(A, "show-gi r0", 0, "Secondary, Inconsistent, not up"),
    Row(A, "outdate r0", 5, "Device is inconsistent."),
    Row(A, "set-gi r0 6", 1, "set GI to  0000000000000006:"),
    Row(A, "set-gi --force r0 xyz", 10, "'xyz': C:B:H0:H1"),
    Row(A, "new-minor r0", 10, "r0: No such resource"),
    Row(A, "check-resize r0", 0, ""),
    Row(A, "invalidate r0", 0, ""),
    Row(A, "apply-al r0", 0, ""),
    Row(A, "forget-peer r0:bravo", 0, "knows nothing of bravo"),
    Row(A, "dump-md r0", 0, "version \"tandem1\";"),
    Row(A, "restore-md r0 DUMP", 1, "Operation cancelled."),
    Row(A, "restore-md --force r0 DUMP", 0, "Successfully restored meta data"),
    Row(A, "adopt-md r0", 1, "Operation cancelled."),
    Row(A, "resync-undo r0", 10, "resync-undo"),
    Row(B, "wipe-md --force r0", 0, "successfully wiped out"),
    Row(B, "up r0", 10, "(119) No valid meta-data signature found."),
    Row(B, "create-md --force r0", 0, "successfully created"),
];

/// Two fresh disks: nobody has good data.
const FIRST_CONTACT: &[Turn] = &[
    Row(B, "up r0", 0, ""),
    Row(A, "up r0", 0, "tandemd started"),
    Row(A, "wait-connect -t 30 r0", 0, ""),
    Row(A, "wait-con-int --wfc-timeout=30", 0, ""),
    Row(A, "primary r0", 17, "r0: State change failed: (-2) Need access to UpToDate data"),
    Row(A, "create-md --force r0", 20, "is in use"),
    Row(A, "wipe-md --force r0", 20, "is in use"),
    Row(A, "apply-al r0", 20, "is in use"),
    Row(A, "forget-peer r0", 10, "r0: Failure: (162) Invalid configuration request"),
    Row(A, "outdate r0", 11, "r0: State change failed: (-6)"),
    Row(A, "new-current-uuid --force-resync --clear-bitmap r0", 1, "cannot be used with"),
    Row(A, "new-current-uuid --clear-bitmap r0", 0, ""),
    Until("both are UpToDate", Pair::is_healed),
    Row(A, "new-current-uuid --force-resync r0", 10, "the local disk is UpToDate, that of bravo is UpToDate"),
    Row(A, "wait-sync -t 30 r0", 0, ""),
];

/// Both copies are good, alpha is Primary.
const UP_TO_DATE: &[Turn] = &[
    Row(A, "primary r0", 0, ""),
    Row(A, "primary r0", 0, ""),
    Row(B, "primary r0", 11, "r0: State change failed: (-1) Multiple primaries not allowed by config"),
    Row(B, "primary --force r0", 11, "(-1)"),
    Row(A, "role r0", 0, "Primary"),
    Row(A, "cstate r0:bravo", 0, "Connected"),
    Row(A, "dstate r0/0", 0, "UpToDate/UpToDate"),
    Row(A, "status r0", 0, "r0 role:Primary"),
    Row(A, "status -x", 0, "# All is well: r0."),
    Row(A, "events2 --now r0", 0, "exists -"),
    Row(A, "status --json", 0, "\"disk-state\": \"UpToDate\""),
    Row(A, "get-gi r0", 0, ":1:1:0:0:"),
    Row(A, "show-gi r0", 0, "the data as it is now"),
    Row(A, "dump-md r0", 0, "# Output might be stale, since minor 0 is attached"),
    Row(A, "up r0", 0, ""),
    Row(A, "top --once", 0, ""),
    Row(A, "show r0", 0, "resource \"r0\" {"),
    Row(A, "new-peer r0:bravo", 10, "Connection for peer node id 1 already exists"),
    Row(A, "new-path r0:bravo", 10, "r0: Failure: (174) Already exists"),
    Row(A, "del-path r0:bravo", 10, "r0: Failure: (162) Invalid configuration request"),
    Row(A, "del-peer r0:charlie", 1, "'charlie' is no peer of r0 in your config"),
    Row(A, "resize nosuch", 1, "'nosuch' not defined in your config"),
    Row(A, "adjust r0", 0, ""),
    Row(A, "adjust-with-progress r0", 0, "[\n]"),
    Row(A, "new-resource r0", 10, "r0: Failure: (174) Already exists"),
    Row(A, "new-minor r0", 0, ""),
    Row(A, "del-minor r0", 10, "(160) Minor still configured (down it first)"),
    Row(A, "set-gi --force r0 6", 20, "is in use"),
    Row(A, "net-options r0 --ping-int=7", 0, ""),
    Row(A, "net-options r0 --ping-int=0", 10, "`ping-int` is out of range"),
    Row(A, "disk-options r0 --al-extents=67", 10, "(124) Device is attached to a disk"),
    Row(A, "peer-device-options r0 --c-min-rate=1M", 0, ""),
    Row(A, "resource-options r0 --no-such-option=1", 1, "there is no option '--no-such-option'"),
    Row(A, "-d adjust r0", 0, "ping-int"),
    Row(A, "adjust all", 0, ""),
    Row(A, "attach r0", 10, "(124)"),
    Row(A, "connect r0", 10, "(125)"),
    Row(A, "outdate r0", 17, "(-2) Need access to UpToDate data"),
    Row(B, "outdate r0", 11, "(-6) Refusing to be Outdated while Connected"),
    Row(A, "invalidate r0", 11, "r0: State change failed"),
    Row(A, "new-current-uuid r0", 10, "r0: Failure: (151) Need to be StandAlone"),
    Row(A, "split-brain show r0", 0, ""),
    Row(A, "split-brain resolve r0 --keep alpha", 11, ""),
    Row(A, "suspend-io r0", 0, ""),
    Row(A, "status r0", 0, "suspended:user"),
    Row(A, "resume-io r0", 0, ""),
    Row(A, "pause-sync r0", 0, ""),
    Row(A, "pause-sync r0", 10, "(134) Sync-pause flag is already set"),
    Row(A, "resume-sync r0", 0, ""),
    Row(A, "resume-sync r0", 10, "(135) Sync-pause flag is already cleared"),
    Row(A, "secondary r0", 0, ""),
    Row(A, "secondary --force r0", 0, ""),
    Row(B, "-- --overwrite-data-of-peer primary r0", 0, ""),
    Row(B, "secondary r0", 0, ""),
    Row(A, "primary r0", 0, ""),
];

/// What makes data flow.
const RESYNC: &[Turn] = &[
    Row(A, "verify r0:bravo/0", 0, ""),
    Row(A, "wait-sync -t 30 r0", 0, ""),
    Row(A, "verify --start 0 --stop 1M r0", 0, ""),
    Row(A, "wait-sync -t 30 r0", 0, ""),
    Row(B, "invalidate --reset-bitmap=no r0", 0, ""),
    Row(A, "wait-sync -t 30 r0", 0, ""),
    Row(B, "invalidate --sync-from-peer-node-id=0 r0:alpha", 0, ""),
    Until("bravo has everything anew", Pair::is_healed),
    Row(A, "invalidate-remote r0", 0, ""),
    Until("bravo has everything anew", Pair::is_healed),
    Row(A, "wait-sync --progress -t 30 r0", 0, ""),
];

/// Bravo has left.
const APART: &[Turn] = &[
    Row(B, "disconnect r0:alpha", 0, ""),
    Row(B, "disconnect r0", 0, ""),
    Row(B, "disconnect --force r0", 0, ""),
    Until("alpha has noticed", |pair| pair.alpha.connection() != Some(ConnectionState::Connected)),
    Row(B, "dstate r0", 0, "Outdated/DUnknown"),
    Row(B, "primary r0", 17, "(-2) Need access to UpToDate data"),
    Row(B, "status -x r0", 1, "T102 disconnected"),
    Row(B, "wait-connect r0", 5, "StandAlone, not waiting any longer"),
    Row(A, "wait-connect -t 1 r0", 5, "r0: timeout"),
    Row(A, "wait-con-int -t 1", 5, "r0: timeout"),
    Row(A, "verify r0", 11, "(-15)"),
    Row(A, "invalidate-remote r0", 11, "r0: State change failed: (-"),
    Row(A, "invalidate r0", 17, "(-2) Need access to UpToDate data"),
    Row(B, "connect --tentative r0", 0, "r0: alpha: "),
    Row(B, "connect r0", 0, ""),
    Until("they are together again", Pair::is_healed),
];

/// Bravo's disk goes and comes back.
const DISK: &[Turn] = &[
    Row(B, "detach r0/0", 0, ""),
    Until("it is gone", |pair| pair.bravo.disk_state() == DiskState::Diskless),
    Row(B, "outdate r0", 11, "r0: State change failed: (-"),
    Row(B, "dump-md r0", 0, "version"),
    Row(A, "verify r0", 11, "r0: State change failed: (-"),
    Row(A, "invalidate-remote r0", 11, "(-5) Can not resync without remote disk"),
    Row(B, "attach minor-0", 0, ""),
    Until("it is there again", Pair::is_healed),
    Row(B, "detach --force r0", 0, ""),
    Row(B, "attach r0", 0, ""),
    Until("it is there again", Pair::is_healed),
];

/// Both go on alone, and bravo gives its data up.
const SPLIT: &[Turn] = &[
    Row(A, "disconnect r0", 0, ""),
    Until("bravo has noticed", |pair| pair.bravo.connection() != Some(ConnectionState::Connected)),
    Row(A, "new-current-uuid r0", 0, ""),
    Row(B, "disconnect r0", 0, ""),
    Row(B, "primary r0", 0, ""),
    Row(B, "new-current-uuid r0", 0, ""),
    Row(B, "secondary r0", 0, ""),
    Row(A, "connect r0", 0, ""),
    Row(B, "connect r0", 0, ""),
    Until("they have met", |pair| {
        pair.nodes().iter().all(|node| node.connection() == Some(ConnectionState::StandAlone))
    }),
    Row(A, "split-brain show --json r0", 0, "{"),
    Row(A, "-d split-brain resolve r0 --keep alpha", 0, ""),
    Row(B, "split-brain resolve r0 --keep nobody", 10, "nobody"),
    Row(A, "connect --discard-my-data r0", 10, "(123) --discard-my-data not allowed when primary."),
    Row(A, "split-brain resolve r0 --keep alpha", 0, ""),
    Row(B, "-- --discard-my-data connect r0", 0, ""),
    Until("they are one again", Pair::is_healed),
];

/// What needs no resource, or only its configuration.
const SCRIPTS: &[Turn] = &[
    Row(A, "dump r0", 0, "resource r0"),
    Row(A, "dump-xml r0", 0, "<resource name=\"r0\""),
    Row(A, "explain T101", 0, "T101"),
    Row(A, "explain T999", 1, "T999"),
    Row(A, "options verify-alg", 0, "verify-alg"),
    Row(A, "hidden-commands", 0, "sh-minor"),
    Row(A, "completion bash", 0, "complete "),
    Row(A, "man FOLDER/man", 0, ""),
    Row(A, "syncer r0", 1, "'disk { }'"),
    Row(A, "sh-resources", 0, "r0"),
    Row(A, "sh-resource r0", 0, "r0"),
    Row(A, "sh-dev r0", 0, "/dev/drbd0"),
    Row(A, "sh-minor r0", 0, "0"),
    Row(A, "sh-ll-dev r0", 0, "alpha.img"),
    Row(A, "sh-md-dev r0", 0, "alpha.img"),
    Row(A, "sh-md-idx r0", 0, "internal"),
    Row(A, "sh-ip r0", 0, "127.0.0.1"),
    Row(A, "sh-udev r0", 0, "SYMLINK=drbd/by-res/r0/0"),
    Row(A, "sh-lr-of r0", 1, "stacked resources are not supported"),
    Row(A, "sh-mod-parms", 0, "minor_count=32"),
    Row(A, "sh-nop", 0, ""),
    Row(A, "sh-exec-detached /bin/true", 0, ""),
];

/// Down again: the metadata tells what was.
const THE_END: &[Turn] = &[
    Row(A, "down r0", 0, ""),
    Row(A, "down r0", 0, ""),
    Row(A, "dstate r0", 0, "Consistent"),
    Row(A, "outdate r0", 0, ""),
    Row(A, "dstate r0", 0, "Outdated"),
    Row(A, "new-resource r0", 0, ""),
    Row(A, "status r0", 0, "r0 role:Secondary\n  disk:Diskless"),
    Row(A, "new-minor r0/0", 0, ""),
    Row(A, "connect r0", 11, "(-13) Have no net/connection configuration"),
    Row(A, "attach r0", 0, ""),
    Row(A, "new-peer r0:bravo", 0, ""),
    Row(A, "connect r0", 10, "connection endpoint(s) missing"),
    Row(A, "new-path r0:bravo", 0, ""),
    Row(A, "connect r0", 0, ""),
    Row(A, "wait-connect -t 30 r0", 0, ""),
    Row(A, "disconnect r0", 0, ""),
    Row(A, "detach r0", 0, ""),
    Row(A, "del-minor r0", 0, "'tandemadm down r0'"),
    Row(A, "down r0", 0, ""),
    Row(A, "forget-peer r0:1", 0, ""),
    Row(B, "down all", 0, ""),
    Row(B, "wipe-md --force r0", 0, "successfully wiped out"),
];

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn every_verb_ends_as_it_should_on_a_real_pair() {
    let setup = Setup { protocol: Protocol::C, net: "verify-alg sha1;", ..Setup::default() };
    let pair = Pair::new(Setup { disk_bytes: [8 << 20; 2], ..setup });
    let [dump, folder] = ["dump", "."].map(|name| pair.folder().join(name).display().to_string());
    let mut wrong = Vec::new();
    for turn in TABLE.iter().copied().flatten() {
        match turn {
            // The rows before may tell why.
            Until(what, holds) if !wait::holds_within(wait::LIMIT, || holds(&pair)) => {
                wrong.push(format!("not within {} s: {what}", wait::LIMIT.as_secs()));
                break;
            }
            Until(..) => {}
            Row(node, line, code, says) => {
                let node = pair.nodes()[*node];
                let line = line.replace("DUMP", &dump).replace("FOLDER", &folder);
                let outcome = node.adm(&line.split(' ').collect::<Vec<_>>());
                let said = outcome.stdout.contains(says) || outcome.stderr.contains(says);
                if outcome.code != Some(*code) || !said {
                    wrong.push(format!(
                        "{}: {line}: expected {code}, {says:?}: {:?} {:?} {:?}",
                        node.name, outcome.code, outcome.stdout, outcome.stderr
                    ));
                }
                if line == "dump-md r0" && outcome.code == Some(0) {
                    fs::write(&dump, outcome.stdout).unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_verb_has_a_row() {
    let mut verbs = BTreeSet::new();
    collect("", &tandemadm::cli::Cli::command(), &mut verbs);
    let rows = TABLE.iter().copied().flatten().filter_map(|turn| match turn {
        Row(_, line, ..) => Some(*line),
        Until(..) => None,
    });
    // Options may stand before the verb.
    let words = |line: &'static str| line.split(' ').skip_while(|word| word.starts_with('-'));
    let lines: Vec<String> =
        rows.map(|line| words(line).fold(String::new(), |all, word| all + word + " ")).collect();
    let without: Vec<&String> =
        verbs.iter().filter(|verb| !lines.iter().any(|line| line.starts_with(&format!("{verb} ")))).collect();
    assert!(without.is_empty(), "verbs that are not tried on a real pair: {without:?}");
}

/// A verb of verbs counts as each of them.
fn collect(before: &str, command: &Command, verbs: &mut BTreeSet<String>) {
    for one in command.get_subcommands() {
        let name = format!("{before}{}", one.get_name());
        match one.has_subcommands() {
            true => collect(&format!("{name} "), one, verbs),
            false => drop(verbs.insert(name)),
        }
    }
}
