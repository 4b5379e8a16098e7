//! `options {}`, `startup {}` and `handlers {}`: the resource as a whole.

use super::{BUFFERS, choice, flag, number, option, text};
use crate::options::{Kind, OptionDef, Section, Unit};

const AT_OPTIONS: &[Section] = &[Section::Options];
const AT_OPTIONS_OR_SYNCER: &[Section] = &[Section::Options, Section::Syncer];
const AT_STARTUP: &[Section] = &[Section::Startup];
const AT_HANDLERS: &[Section] = &[Section::Handlers];

const THIRD_NODE: &str = "it concerns three and more nodes";
const NO_AUTO_PROMOTE: &str = "opening the device never changes the role";
const WHO_OPENS: &str = "opening the device never changes the role; `tandemadm primary`, nfs-failover or the cluster manager \
                         promotes";
const WHO_BOOTS: &str = "nothing is promoted at boot by itself; `tandemadm primary`, nfs-failover or the cluster manager promotes";
/// A votes' count, or what stands for one.
const VOTES: Kind = Kind::ChoiceOrCount { words: &["off", "majority", "all"], min: 1, max: 32 };
/// 68 years: DRBD has no limit.
const MAX_WAIT_S: u64 = 1 << 31;
const WHO_WAITS: &str = "`wait-con-int`, `wait-connect` and `wait-sync` do, so that a unit that comes after one of them at boot \
                         does too. Nothing is promoted by itself.";

const fn handler(name: &'static str, help: &'static str) -> OptionDef {
    text(name, AT_HANDLERS, help)
}

const fn wait(name: &'static str, help: &'static str) -> OptionDef {
    number(name, AT_STARTUP, Unit::Seconds, (0, 0, MAX_WAIT_S), help).more(WHO_WAITS)
}

pub(super) const OPTIONS: &[OptionDef] = &[
    flag("auto-promote", AT_OPTIONS, false, "Opening the device makes this node primary")
        .since("9.0")
        .ignored_unless(&["no"], WHO_OPENS),
    number("auto-promote-timeout", AT_OPTIONS, Unit::Tenths, (20, 0, 600), "Wait for a promotion")
        .since("9.0")
        .ignored(NO_AUTO_PROMOTE),
    option("quorum", AT_OPTIONS, VOTES, "Nodes that must be connected for requests to go on")
        .since("9.0.7")
        .more("A peer that is gone without a word counts against it. One that has left in good order, or was fenced, does not."),
    option("quorum-minimum-redundancy", AT_OPTIONS, VOTES, "Of these, nodes with an UpToDate disk")
        .since("9.0.10"),
    choice("on-no-quorum", AT_OPTIONS, &["suspend-io", "io-error"], "Requests without quorum")
        .since("9.0.8"),
    choice(
        "on-no-data-accessible",
        AT_OPTIONS_OR_SYNCER,
        &["io-error", "suspend-io"],
        "Requests without any usable data",
    )
    .since("8.3.9")
    .more(
        "With suspend-io they wait for a peer with the data that the clients have seen: bring it back, or let them fail with \
         `tandemadm resume-io`.",
    ),
    choice(
        "on-suspended-primary-outdated",
        AT_OPTIONS,
        &["disconnect", "force-secondary"],
        "When a suspended primary finds its data outdated",
    )
    .since("9.1.7")
    .refused(&["disconnect"], "a primary never gives up its role by itself for that", "use `disconnect`"),
    number("peer-ack-window", AT_OPTIONS, Unit::Sectors, (4096, 2048, 204_800), "Peer acks by amount")
        .since("9.0")
        .ignored(THIRD_NODE),
    number("peer-ack-delay", AT_OPTIONS, Unit::Milliseconds, (100, 1, 10_000), "Peer acks by time")
        .since("9.0")
        .ignored(THIRD_NODE),
    number("twopc-timeout", AT_OPTIONS, Unit::Tenths, (300, 50, 600), "Limit of a cluster-wide change")
        .since("9.0")
        .ignored(THIRD_NODE),
    number("twopc-retry-timeout", AT_OPTIONS, Unit::Tenths, (1, 1, 50), "Retry of a cluster-wide change")
        .since("9.0")
        .ignored(THIRD_NODE),
    text("cpu-mask", AT_OPTIONS_OR_SYNCER, "CPUs for DRBD's threads")
        .ignored("set the CPUs of the daemon's service"),
    number("max-io-depth", AT_OPTIONS, Unit::Count, (8000, 4, (1 << 32) - 1), "Requests in flight")
        .since("9.0")
        .ignored(BUFFERS),
    flag("explicit-drbd8-compat", AT_OPTIONS, false, "Speak DRBD 8's protocol")
        .since("9.3")
        .ignored("Tandem has its own protocol"),
    number(
        "handler-timeout",
        AT_OPTIONS,
        Unit::Seconds,
        (120, 1, 3600),
        "A handler that takes longer is killed",
    )
    .own(),
];

pub(super) const STARTUP: &[OptionDef] = &[
    wait("wfc-timeout", "Wait this long for the peers at boot; 0: for ever"),
    wait("degr-wfc-timeout", "The same for a node that was alone already when it went down"),
    wait("outdated-wfc-timeout", "The same if the peers are known to be outdated: none was promoted since"),
    flag("wait-after-sb", AT_STARTUP, false, "Wait on after a split brain, until it is resolved")
        .more(WHO_WAITS),
    flag("stacked-timeouts", AT_STARTUP, false, "Time limits of stacked resources")
        .ignored("there are no stacked resources"),
    option("become-primary-on", AT_STARTUP, Kind::Words, "Promote these hosts at boot").ignored(WHO_BOOTS),
];

pub(super) const HANDLERS: &[OptionDef] = &[
    handler("fence-peer", "Fence a lost peer")
        .formerly("outdate-peer")
        .more("Run where fencing says so. Its exit code tells what became of the peer, as with DRBD: 3 inconsistent, 4 outdated, \
               5 down, 6 primary, 7 fenced off."),
    handler("unfence-peer", "A fenced peer is up to date again").since("9.0"),
    handler("initial-split-brain", "Split brain detected"),
    handler("split-brain", "Split brain detected and not resolved"),
    handler("before-resync-target", "A resync to this node starts"),
    handler("before-resync-source", "A resync from this node starts"),
    handler("after-resync-target", "A resync to this node is done"),
    handler("out-of-sync", "Online verify found differences"),
    handler("local-io-error", "The backing device failed"),
    handler("pri-on-incon-degr", "Primary without usable data"),
    handler("pri-lost", "Primary that must become a resync target"),
    handler("pri-lost-after-sb", "Primary that lost a split brain"),
    handler("quorum-lost", "Primary that lost quorum").since("9.0"),
    handler("disconnected", "The peer is gone").since("9.0").refused(
        &[],
        "it is not run",
        "use `fence-peer`, or watch the state with `tandemadm status`",
    ),
];
