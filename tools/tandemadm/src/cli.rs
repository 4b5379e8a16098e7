//! The command line: one definition per command and option, from which come parsing, help and completion.

mod live;
mod low_level;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use clap_complete::ArgValueCompleter;
pub use live::{Changes, NewGeneration, PathNames, PeerNames, Show};
pub use low_level::{LowLevel, SetGi};

use crate::commands::{Following, ResizeOptions};
use crate::completion::{self, Shell};

/// Administers Tandem's replicated resources, in drbdadm's words.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(
    name = "tandemadm",
    version,
    propagate_version = true,
    max_term_width = 100,
    infer_long_args = true
)]
#[command(after_help = "Exit codes: 0 done, 1 usage or unknown resource, 5 timeout, 10 failure or invalid \
    configuration, 11 refused, 17 refused for want of UpToDate data, 20 tandemd, a disk or the configuration's file \
    cannot be used, 40 meta-data would cut off a filesystem.\n\nRES is a resource, `all`, RES/VOLUME, RES:PEER, \
    RES:PEER/VOLUME or minor-N. Options may also stand behind `--`, as in `-- --discard-my-data connect r0`.")]
pub struct Cli {
    /// Configuration file; `-` for the standard input.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Print what would be asked of tandemd or done to a disk, and do nothing.
    #[arg(short, long, global = true)]
    pub dry_run: bool,
    /// Say on stderr what is asked of tandemd, and do it; of `status`, show what goes without saying, too.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Check this file as if it belonged to the configuration; with dump and sh-nop only.
    #[arg(short = 't', long, value_name = "FILE")]
    pub config_to_test: Option<PathBuf>,
    /// Leave this file out where it is included: with --config-to-test, which takes its place.
    #[arg(short = 'E', long, global = true, value_name = "FILE")]
    pub config_to_exclude: Option<PathBuf>,
    /// Draw no progress bars on a terminal, and do not stay to watch what goes on by itself.
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Stacked resources are refused.
    #[arg(short = 'S', long, global = true, hide = true)]
    pub stacked: bool,
    /// There is no other program behind this one.
    #[arg(short = 's', long, global = true, hide = true, value_name = "FILE")]
    pub drbdsetup: Option<PathBuf>,
    /// There is no other program behind this one.
    #[arg(short = 'm', long, global = true, hide = true, value_name = "FILE")]
    pub drbdmeta: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which resources.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Names {
    /// Resources, or `all`.
    #[arg(required = true, value_name = "RES|all", add = ArgValueCompleter::new(completion::names))]
    pub names: Vec<String>,
}

/// Which resources; all of them if none is named.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct OptionalNames {
    /// Resources; all if none is named.
    #[arg(value_name = "RES|all", add = ArgValueCompleter::new(completion::names))]
    pub names: Vec<String>,
}

/// What `status` shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct StatusOptions {
    /// Counters, too; with --verbose all of them, with -vv how the times of a resync came about.
    #[arg(long)]
    pub statistics: bool,
    /// As JSON, with drbdsetup's keys.
    #[arg(short, long)]
    pub json: bool,
    /// Colours: on a terminal, if nothing is said.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true,
        default_value_t = When::Auto, default_missing_value = "always")]
    pub color: When,
}

/// What `events2` prints.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct EventOptions {
    /// Only the state as it is now.
    #[arg(short, long)]
    pub now: bool,
    /// Read stdin: an `n` asks for the state anew, anything else ends the program.
    #[arg(short, long)]
    pub poll: bool,
    /// Begin every line with the time.
    #[arg(short = 'T', long)]
    pub timestamps: bool,
    /// Counters, too.
    #[arg(long)]
    pub statistics: bool,
    /// The state before each change as well.
    #[arg(short = 'i', long)]
    pub diff: bool,
    /// Everything about what has changed, counters included.
    #[arg(short, long)]
    pub full: bool,
    /// Colours: on a terminal, if nothing is said.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true,
        default_value_t = When::Auto, default_missing_value = "always")]
    pub color: When,
}

/// When there are colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum When {
    /// If the reader is a terminal.
    #[default]
    Auto,
    /// Even if it is none.
    Always,
    /// Never.
    Never,
}

/// How long to wait, and for which resources.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct WaitOptions {
    /// Resources to wait for.
    #[command(flatten)]
    pub names: Names,
    /// How long.
    #[command(flatten)]
    pub limits: WaitLimits,
}

/// How long to wait, instead of what `startup {}` says; 0 waits for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Args)]
pub struct WaitLimits {
    /// Give up after this time with exit code 5; 0 waits for ever. Without it, what `startup {}` says.
    #[arg(short = 't', long, value_name = "SECONDS")]
    pub wfc_timeout: Option<u64>,
    /// The same if this node was alone already when it went down, which its meta-data tells.
    #[arg(long, value_name = "SECONDS")]
    pub degr_wfc_timeout: Option<u64>,
    /// The same if all peers were outdated then.
    #[arg(long, value_name = "SECONDS")]
    pub outdated_wfc_timeout: Option<u64>,
    /// Wait on although a peer is StandAlone, as after a split brain.
    #[arg(long, value_enum, value_name = "YES|NO", num_args = 0..=1, require_equals = true,
        default_missing_value = "yes")]
    pub wait_after_sb: Option<YesNo>,
}

/// What to compare, and what to do with what is found.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Verify {
    /// The resources.
    #[command(flatten)]
    pub names: Names,
    /// Begin here: a sector, or with a suffix k, M, G or s; otherwise where the last verify was interrupted, or at 0.
    #[arg(long, value_name = "POS", value_parser = position)]
    pub start: Option<u64>,
    /// Stop here, instead of at the end.
    #[arg(long, value_name = "POS", value_parser = position)]
    pub stop: Option<u64>,
    /// Resync what is found at once: from the Primary, or from the node named with --from.
    #[arg(long)]
    pub repair: bool,
    /// The node whose copy is right, where neither is Primary.
    #[arg(long, value_name = "NODE", requires = "repair", add = ArgValueCompleter::new(completion::nodes))]
    pub from: Option<String>,
    /// Whether it is watched.
    #[command(flatten)]
    pub following: Following,
}

/// A position on a device in bytes. A plain number counts sectors, as for drbdadm.
pub(crate) fn position(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_bytes: u64 = match &text[digits.len()..] {
        "" | "s" | "S" => 512,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return Err("a number of sectors, or a number with k, M, G or s".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    number.checked_mul(unit_bytes).ok_or_else(|| "too large".to_owned())
}

/// Whose copy, and how much of it.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Invalidation {
    /// The resources.
    #[command(flatten)]
    pub names: Names,
    /// With `no`, only what is marked as out of sync, by an online verify for instance.
    #[arg(long, value_enum, value_name = "YES|NO", default_value_t = YesNo::Yes)]
    pub reset_bitmap: YesNo,
    /// Whether the resync is watched.
    #[command(flatten)]
    pub following: Following,
}

/// drbdadm's way to say true and false.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum YesNo {
    /// True.
    Yes,
    /// False.
    No,
}

/// What to do about a split brain.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum SplitBrain {
    /// Show, per node, the last common generation, what was written since, and who was Primary when.
    Show {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// As JSON, with every range.
        #[arg(long)]
        json: bool,
    },
    /// Decide whose data is kept, or put back what a decision has overwritten.
    Resolve(Resolve),
}

/// How a split brain is decided, or a decision undone.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Resolve {
    /// The resource.
    #[arg(value_name = "RES", add = ArgValueCompleter::new(completion::names))]
    pub name: String,
    /// The node whose data is kept. On this node, it waits for the other; on the other, that one's data is given up. With
    /// `--dry-run`, says what would happen.
    #[arg(long, value_name = "NODE", required_unless_present = "restore", conflicts_with = "restore")]
    #[arg(add = ArgValueCompleter::new(completion::nodes))]
    pub keep: Option<String>,
    /// First write what will be overwritten to this file.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Write what was saved in this file back, through the device, on the primary.
    #[arg(long, value_name = "FILE")]
    pub restore: Option<PathBuf>,
}

/// What `status` looks at, and how often.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Attention {
    /// Only what is not as it should be, with why and the next command; also of resources that are not up. Exits 0 if all is well,
    /// 1 if something is degraded, 2 if something needs a hand. With --json, a list of what was found.
    #[arg(short = 'x', long)]
    pub exceptions: bool,
    /// Say why, and what to do next, even if stdout is no terminal: in lines that begin with `#`.
    #[arg(long)]
    pub why: bool,
    /// Look again every so many seconds, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
}

/// One command.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Command {
    /// Write fresh meta-data to a resource's disk.
    CreateMd {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// Peers that the meta-data has room for; by default as many as the configuration has.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=31))]
        max_peers: Option<u8>,
        /// Overwrite what is there without asking.
        #[arg(long)]
        force: bool,
    },
    /// Make a resource's meta-data unrecognisable.
    WipeMd {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// Do not ask.
        #[arg(long)]
        force: bool,
    },
    /// Print a resource's meta-data as a text that restore-md reads.
    DumpMd(Names),
    /// Write meta-data back that dump-md printed.
    RestoreMd {
        /// The resource.
        #[arg(value_name = "RES", add = ArgValueCompleter::new(completion::names))]
        name: String,
        /// What dump-md printed.
        file: PathBuf,
        /// Overwrite what is there without asking.
        #[arg(long)]
        force: bool,
    },
    /// Mark in the bitmap what the activity log says may differ, and empty the log; attaching does the same.
    ApplyAl(Names),
    /// Forget what is known of a peer that will not come back, in the meta-data of a resource that is down.
    ForgetPeer {
        /// The resources, and of each one peer, by its name or node id, or all.
        #[arg(required = true, value_name = "RES[:PEER]|all", add = ArgValueCompleter::new(completion::names))]
        names: Vec<String>,
    },
    /// Bring a resource up: start tandemd if it does not run, attach the disk, connect to the peers.
    Up(Names),
    /// Bring a resource that is up in line with the configuration: only what differs is changed. With `--dry-run`, print it.
    Adjust(Names),
    /// Change options of `net {}` of a resource that is up; without any, to those of the configuration.
    NetOptions(Changes),
    /// Change options of `disk {}` that are not about resync.
    DiskOptions(Changes),
    /// Change options of `disk {}` that are about resync.
    PeerDeviceOptions(Changes),
    /// Change options of `options {}`.
    ResourceOptions(Changes),
    /// Let a resource that is up know a peer of the configuration that was taken from it; `new-path` and `connect` follow.
    NewPeer(PeerNames),
    /// Leave a peer and know it no more. What it lacks is remembered until it is there again.
    DelPeer(PeerNames),
    /// Reach a peer by the paths that the configuration has, or by one more.
    NewPath(PathNames),
    /// Do not reach a peer by these paths any more; for the last one it must be disconnected.
    DelPath(PathNames),
    /// Take a resource down: Secondary, disconnected, detached, forgotten.
    Down(Names),
    /// Take the disk into use.
    Attach(Names),
    /// Give the disk up.
    Detach {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// At once: whatever is under way on a disk that hangs, and although it may be the last good copy.
        #[arg(long)]
        force: bool,
    },
    /// Connect to the peers.
    Connect {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// Give up what this node has written and its peer has not: the peer's data wins.
        #[arg(long)]
        discard_my_data: bool,
        /// Print what would happen, and change nothing.
        #[arg(long)]
        tentative: bool,
    },
    /// Disconnect from the peers.
    Disconnect {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// Also from the peer that a Primary without good data works through: its clients' requests fail, or wait.
        #[arg(long)]
        force: bool,
    },
    /// Become Primary.
    Primary {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// Consider the local data UpToDate, whatever it is: other copies that are newer are lost.
        #[arg(short, long, alias = "overwrite-data-of-peer", short_alias = 'o')]
        force: bool,
    },
    /// Become Secondary. Refused while somebody has the device open.
    Secondary {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// Although the device is open: every request fails at once, those that wait too, so that a stuck file system can be
        /// unmounted. What was written last and not acknowledged may be lost.
        #[arg(long)]
        force: bool,
    },
    /// Compare the copies while they are in use, and mark the blocks that differ.
    Verify(Verify),
    /// Give up the local copy: Inconsistent, and all of it had anew from the peer; without the daemon, on the disk.
    Invalidate {
        /// What.
        #[command(flatten)]
        invalidation: Invalidation,
        /// The node that sends its copy; it must be a peer.
        #[arg(long, value_name = "NODE-ID")]
        sync_from_peer_node_id: Option<u8>,
    },
    /// Give up the peer's copy and send it all of the local one.
    InvalidateRemote(Invalidation),
    /// Begin a new generation: alone, before the disk is copied to the peer by other means, and after it; or on two fresh
    /// disks, with --clear-bitmap.
    NewCurrentUuid(NewGeneration),
    /// Take a copy of the peer's disk into use that was made after `new-current-uuid` and brought here.
    AdoptMd {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// Do not ask.
        #[arg(long)]
        force: bool,
    },
    /// Put back what an interrupted resync has overwritten: the copy is Outdated again, as it was before. For a target whose
    /// source is lost; needs `disk { resync-undo FILE; }`, and the resource to be down.
    ResyncUndo {
        /// The resources.
        #[command(flatten)]
        names: Names,
        /// Do not ask.
        #[arg(long)]
        force: bool,
    },
    /// Grow a volume while it is in use, when the disks of both nodes have grown: what is new is sent by the Primary, and the
    /// device grows with it.
    Resize(ResizeOptions),
    /// Let resyncs wait, from this side, until `resume-sync` or the next start of the daemon.
    PauseSync(Names),
    /// Let paused resyncs go on.
    ResumeSync(Names),
    /// Consider the local data old; without the daemon, on the disk.
    Outdate(Names),
    /// Let clients' requests wait until `resume-io`; returns when those under way are done, here and on the peers.
    SuspendIo(Names),
    /// Let clients' requests go on, even if they wait for a peer to be fenced.
    ResumeIo(Names),
    /// Show roles, disks and connections.
    Status {
        /// The resources; all that are up if none is named.
        #[command(flatten)]
        names: OptionalNames,
        /// What to show of them, and how.
        #[command(flatten)]
        options: StatusOptions,
        /// What is looked at, and how often.
        #[command(flatten)]
        attention: Attention,
    },
    /// Look at what lies under the resources: whether disks flush, how far the peers are and how large packets may be, whether both
    /// nodes have chosen alike, what losing one of them would do. Exits 0 if all is well, 1 if something is worth a look, 2 if
    /// something is to be mended.
    Doctor {
        /// The resources; all if none is named.
        #[command(flatten)]
        names: OptionalNames,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show all resources on the whole screen, every second anew: roles, disks, peers, what is in flight, resyncs, throughput.
    Top {
        /// Print one frame as text, and end.
        #[arg(long)]
        once: bool,
    },
    /// Explain what `status` remarks: what happened, what it means, what to do.
    Explain {
        /// Its code, as T101; without, all are listed.
        #[arg(value_name = "CODE", add = ArgValueCompleter::new(completion::codes))]
        code: Option<String>,
        /// All pages, as docs/troubles.md has them.
        #[arg(long, hide = true)]
        markdown: bool,
    },
    /// Print the state of the resources, and then every change, in drbdsetup's words.
    #[command(name = "events2")]
    Events2 {
        /// The resource; all if none is named.
        #[arg(value_name = "RES|all", add = ArgValueCompleter::new(completion::names))]
        name: Option<String>,
        /// What to print, and how.
        #[command(flatten)]
        options: EventOptions,
    },
    /// Show resources as they run, with all that they were told, as drbdsetup does.
    Show(Show),
    /// Show this node's role.
    Role(Names),
    /// Show the state of each connection.
    Cstate(Names),
    /// Show the state of the own disk and of the peers'.
    Dstate(Names),
    /// Print the configuration as it was understood.
    Dump(OptionalNames),
    /// Print it as XML, with drbdadm's elements.
    DumpXml(OptionalNames),
    /// Explain the options of the configuration: their values, what they do, what this version makes of them.
    Options {
        /// A section, as `net`, or an option; all if none is named.
        #[arg(value_name = "SECTION|OPTION", add = ArgValueCompleter::new(completion::options))]
        about: Option<String>,
    },
    /// Wait at boot, for all resources, until the peers are connected: as long as `startup {}` says. On a terminal with a
    /// countdown that `yes` ends.
    WaitConInt(WaitLimits),
    /// Wait until the peers are connected.
    WaitConnect(WaitOptions),
    /// Wait until the peers are connected and no resync is under way.
    WaitSync {
        /// How long, and for what.
        #[command(flatten)]
        wait: WaitOptions,
        /// Draw a progress bar on stderr even if it is no terminal.
        #[arg(long)]
        progress: bool,
    },
    /// Show what both sides of a split brain have written, and undo one side's part.
    #[command(subcommand)]
    SplitBrain(SplitBrain),
    /// Explain the generation identifiers of a resource's data.
    ShowGi(Names),
    /// Print the generation identifiers on one line per peer.
    GetGi(Names),
    /// Print what a shell has to load to complete commands, options and names of resources, peers and nodes.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder; pages go into `man5` and `man8` in it.
        folder: PathBuf,
    },
    /// Show the commands that are for scripts.
    HiddenCommands,
    /// What scripts ask for.
    #[command(flatten)]
    Script(Script),
    /// What other verbs are made of.
    #[command(flatten)]
    LowLevel(LowLevel),
    /// What drbdadm had before 8.4.
    #[command(hide = true)]
    Syncer(OptionalNames),
    /// Become PROGRAM in a session of its own.
    #[command(hide = true)]
    ShExecDetached {
        /// What to run.
        program: PathBuf,
    },
}

/// What scripts ask of the configuration, one answer a line. RES/VOLUME and minor-N name one volume.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Script {
    /// Print the names of all resources.
    #[command(hide = true)]
    ShResources,
    /// Print the names of the resources.
    #[command(hide = true)]
    ShResource(Names),
    /// Print the devices' names.
    #[command(hide = true)]
    ShDev(Names),
    /// Print the devices' minor numbers.
    #[command(hide = true)]
    ShMinor(Names),
    /// Print the backing disks' names.
    #[command(hide = true)]
    ShLlDev(Names),
    /// Print the names of the devices that the metadata lies on.
    #[command(hide = true)]
    ShMdDev(Names),
    /// Print where on them it lies: `internal`, `flexible` or the number of a slot.
    #[command(hide = true)]
    ShMdIdx(Names),
    /// Print this node's IP address of every path and volume.
    #[command(hide = true)]
    ShIp(Names),
    /// Print what udev names the devices.
    #[command(hide = true)]
    ShUdev(Names),
    /// Print the lower resource of a stacked one.
    #[command(hide = true)]
    ShLrOf(Names),
    /// Print the kernel module's parameters.
    #[command(hide = true)]
    ShModParms,
    /// Print nothing, and fail if the configuration is not good.
    #[command(hide = true)]
    ShNop,
}

#[cfg(test)]
mod tests;
