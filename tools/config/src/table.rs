//! The definitions of all options, those of DRBD 8.4 and 9 and Tandem's own, in the order of help and dump.
//!
//! Whatever promises safety that this version does not give is refused, never ignored.

use crate::options::{Kind, OptionDef, Section, Support, Unit};

const GLOBAL: &[Section] = &[Section::Global];
const RESOURCE: &[Section] = &[Section::Resource];
const NET: &[Section] = &[Section::Net];
const NET_OR_DISK: &[Section] = &[Section::Net, Section::Disk];
const NET_OR_RESOURCE: &[Section] = &[Section::Net, Section::Resource];
const DISK: &[Section] = &[Section::Disk];
const OPTIONS_: &[Section] = &[Section::Options];
const STARTUP: &[Section] = &[Section::Startup];
const HANDLERS: &[Section] = &[Section::Handlers];

const fn option(
    name: &'static str,
    sections: &'static [Section],
    kind: Kind,
    help: &'static str,
) -> OptionDef {
    OptionDef { name, sections, kind, support: Support::Supported, help }
}

const fn flag(name: &'static str, at: &'static [Section], default: bool, help: &'static str) -> OptionDef {
    option(name, at, Kind::Flag { default }, help)
}

const fn number(
    name: &'static str,
    at: &'static [Section],
    unit: Unit,
    (default, min, max): (u64, u64, u64),
    help: &'static str,
) -> OptionDef {
    option(name, at, Kind::Number { unit, default, min, max }, help)
}

const fn choice(
    name: &'static str,
    at: &'static [Section],
    words: &'static [&'static str],
    help: &'static str,
) -> OptionDef {
    option(name, at, Kind::Choice(words), help)
}

const fn text(name: &'static str, at: &'static [Section], help: &'static str) -> OptionDef {
    option(name, at, Kind::Text, help)
}

const fn handler(name: &'static str, help: &'static str) -> OptionDef {
    text(name, HANDLERS, help)
}

/// The largest number of bytes that any size option takes.
const MAX_BYTES: u64 = 1 << 50;

const NO_MODULE: &str = "there is no kernel module to adjust";
const NO_PHONE: &str = "Tandem never reports to anybody";
const NO_COMMAND: &str = "no kernel command is waited for";
const BUFFERS: &str = "buffers are sized by the daemon";
const SOCKETS: &str = "sockets are tuned by the operating system and the daemon";
const ZEROES: &str = "zeroes always travel as such, and leave holes where the disk can have them";
/// The digests that tandem-core has, after the word for none.
const DIGESTS: &[&str] = &["none", "sha256", "sha1"];
const SAFER: &str = "the safe choice is always made";
const QUORUM: &str = "quorum needs three nodes and this version supports two";
const NO_AUTH: &str = "peers are not authenticated, and the option would promise that they are";
const NO_AUTH_INSTEAD: &str =
    "remove it, and keep the replication link private (own network, VPN or firewall)";
const NO_TLS: &str = "the replication link is not encrypted, and the option would promise that it is";
const NO_STACK: &str = "stacked resources are not supported";
const NO_WAIT: &str = "nothing is promoted at boot by itself, so nothing waits; use `tandemadm wait-connect`";
const THIRD_NODE: &str = "it concerns three and more nodes";
const IO_LIMITS: &str = "the limits of the backing device are found by the daemon";

/// Every option that is known, grouped by section.
pub static OPTIONS: &[OptionDef] = &[
    // global
    option("nbd-listen", GLOBAL, Kind::Address, "Address at which devices are exported over NBD; default: none")
        .supported(),
    choice("device-driver", GLOBAL, &["auto", "nbd", "fuse", "none"], "What makes the block device of a primary; none: clients speak NBD")
        .supported(),
    number(
        "device-timeout",
        GLOBAL,
        Unit::Seconds,
        (600, 0, 86_400),
        "Requests to the block device wait this long for a daemon that has gone, then all fail; 0: for ever",
    )
    .supported(),
    choice("usage-count", GLOBAL, &["no", "yes", "ask"], "Take part in DRBD's count of users").ignored(NO_PHONE),
    number("dialog-refresh", GLOBAL, Unit::Seconds, (1, 0, 600), "Refresh of the countdown at boot").ignored(NO_WAIT),
    number("minor-count", GLOBAL, Unit::Count, (32, 1, 255), "Number of devices").ignored(NO_MODULE),
    flag("disable-ip-verification", GLOBAL, false, "Do not check that the address belongs to this host")
        .ignored("the address is checked when the daemon binds to it"),
    flag("udev-always-use-vnr", GLOBAL, false, "Volume numbers in the names of links").ignored("no udev links are made"),
    number("cmd-timeout-short", GLOBAL, Unit::Seconds, (5, 0, 900), "Limit for quick commands").ignored(NO_COMMAND),
    number("cmd-timeout-medium", GLOBAL, Unit::Seconds, (121, 0, 900), "Limit for usual commands").ignored(NO_COMMAND),
    number("cmd-timeout-long", GLOBAL, Unit::Seconds, (600, 0, 900), "Limit for long commands").ignored(NO_COMMAND),
    // resource, common
    text("require-drbd-module-version-eq", RESOURCE, "Only with this kernel module").ignored(NO_MODULE),
    text("require-drbd-module-version-ne", RESOURCE, "Not with this kernel module").ignored(NO_MODULE),
    text("require-drbd-module-version-gt", RESOURCE, "Only with a newer kernel module").ignored(NO_MODULE),
    text("require-drbd-module-version-ge", RESOURCE, "Only with this kernel module or newer").ignored(NO_MODULE),
    text("require-drbd-module-version-lt", RESOURCE, "Only with an older kernel module").ignored(NO_MODULE),
    text("require-drbd-module-version-le", RESOURCE, "Only with this kernel module or older").ignored(NO_MODULE),
    // net
    choice(
        "protocol",
        NET_OR_RESOURCE,
        &["C", "A", "B"],
        "A write completes: A with the local write, B when the peer has received it, C when the peer has written it",
    )
    .supported(),
    number("timeout", NET, Unit::Tenths, (60, 1, 600), "The peer must answer within this time").supported(),
    number("ping-int", NET, Unit::Seconds, (10, 1, 120), "An idle connection is probed this often").supported(),
    number("ping-timeout", NET, Unit::Tenths, (5, 1, 300), "A probe must be answered within this time").supported(),
    number("connect-int", NET, Unit::Seconds, (10, 1, 120), "Connecting is tried again this often").supported(),
    number(
        "ko-count",
        NET,
        Unit::Count,
        (7, 0, 200),
        "A peer that does not finish a write within this many timeouts is dropped; 0: never",
    )
    .supported(),
    number("max-epoch-size", NET, Unit::Count, (2048, 1, 20_000), "Most writes between two barriers").supported(),
    choice(
        "fencing",
        NET_OR_DISK,
        &["dont-care", "resource-only", "resource-and-stonith"],
        "A lost peer must be fenced by the fence-peer handler; with stonith, requests wait until it is",
    )
    .supported(),
    choice(
        "after-sb-0pri",
        NET,
        &[
            "disconnect",
            "discard-younger-primary",
            "discard-older-primary",
            "discard-zero-changes",
            "discard-least-changes",
            "discard-local",
            "discard-remote",
            "discard-node-NAME",
        ],
        "Who gives up its data after a split brain with no primary left",
    )
    .supported(),
    choice(
        "after-sb-1pri",
        NET,
        &["disconnect", "consensus", "violently-as0p", "discard-secondary", "call-pri-lost-after-sb"],
        "Who gives up its data after a split brain with one primary left",
    )
    .supported(),
    choice(
        "after-sb-2pri",
        NET,
        &["disconnect", "violently-as0p", "call-pri-lost-after-sb"],
        "What is done after a split brain with two primaries",
    )
    .supported(),
    flag(
        "always-asbp",
        NET,
        false,
        "Apply the after-sb policies also where the bitmaps do not tell, with a full resync",
    )
    .supported(),
    choice(
        "rr-conflict",
        NET,
        &["disconnect", "retry-connect", "auto-discard", "violently", "call-pri-lost"],
        "When the primary would have to be the target of a resync",
    )
    .supported(),
    flag("allow-two-primaries", NET, false, "Both nodes may be primary").refused(
        &["no"],
        "only one node may be primary",
        "remove it; for live migration, demote before promoting",
    ),
    text("cram-hmac-alg", NET, "Digest with which peers prove that they know the secret").refused(
        &[],
        NO_AUTH,
        NO_AUTH_INSTEAD,
    ),
    text("shared-secret", NET, "Secret with which peers authenticate each other").refused(&[], NO_AUTH, NO_AUTH_INSTEAD),
    flag("tls", NET, false, "Encrypt the connection").refused(&["no"], NO_TLS, NO_AUTH_INSTEAD),
    text("tls-keyring", NET, "Kernel keyring for TLS").refused(&[], NO_TLS, NO_AUTH_INSTEAD),
    text("tls-privkey", NET, "Private key for TLS").refused(&[], NO_TLS, NO_AUTH_INSTEAD),
    text("tls-certificate", NET, "Certificate for TLS").refused(&[], NO_TLS, NO_AUTH_INSTEAD),
    choice("transport", NET, &["tcp", "rdma", "lb-tcp"], "How peers are connected").refused(
        &["tcp"],
        "peers are connected by TCP only",
        "use `tcp`",
    ),
    choice(
        "on-congestion",
        NET,
        &["block", "pull-ahead", "disconnect"],
        "When the peer cannot keep up: writes wait, or go on without it (protocol A) until it is resynced",
    )
    .supported(),
    flag("discard-my-data", NET, false, "Lose the local changes after a split brain").refused(
        &["no"],
        "in the file it would discard data at every connect",
        "use `connect --discard-my-data` once, on the node that loses",
    ),
    flag("tentative", NET, false, "Only report what the handshake would decide").refused(
        &["no"],
        "in the file it would keep the peers from ever connecting",
        "remove it",
    ),
    text("data-integrity-alg", NET, "Digest over every replicated block").ignored("always on, with CRC-32"),
    choice("verify-alg", NET, DIGESTS, "Digest for online verify").supported(),
    choice("csums-alg", NET, DIGESTS, "Digest for resync by checksums: only the blocks that differ are sent").supported(),
    flag("csums-after-crash-only", NET, false, "Resync by checksums only after a primary has crashed").supported(),
    number("socket-check-timeout", NET, Unit::Tenths, (0, 0, 300), "Check of accepted sockets")
        .ignored("`ping-timeout` is used"),
    number("max-buffers", NET, Unit::Count, (2048, 32, 131_072), "Pages for received data").ignored(BUFFERS),
    number("unplug-watermark", NET, Unit::Count, (128, 1, 131_072), "When the disk is kicked").ignored(BUFFERS),
    number(
        "sndbuf-size",
        NET,
        Unit::Bytes,
        (0, 0, 128 << 20),
        "Most that the peer may be sent and has not confirmed; writes wait beyond it; 0: 64 MiB",
    )
    .supported(),
    number("rcvbuf-size", NET, Unit::Bytes, (0, 0, 128 << 20), "Receive buffer of a socket").ignored(SOCKETS),
    flag("tcp-cork", NET, true, "Collect small packets").ignored(SOCKETS),
    flag("use-rle", NET, true, "Compress bitmaps on the wire").ignored("the wire format has no compression"),
    number(
        "congestion-fill",
        NET,
        Unit::Sectors,
        (0, 0, 20 << 20),
        "The peer cannot keep up when it has not confirmed this much; 0: when sndbuf-size is reached",
    )
    .supported(),
    number(
        "congestion-extents",
        NET,
        Unit::Count,
        (1237, 67, 65_534),
        "The peer cannot keep up, either, when it keeps this many extents of the activity log hot",
    )
    .supported(),
    flag("allow-remote-read", NET, true, "Reads may be served by this peer")
        .ignored("reads are local while the local disk is usable"),
    flag("load-balance-paths", NET, false, "Use all paths at once").ignored("a connection has one path"),
    number("rdma-ctrl-rcvbuf-size", NET, Unit::Bytes, (0, 0, 128 << 20), "RDMA buffer").ignored("there is no RDMA"),
    number("rdma-ctrl-sndbuf-size", NET, Unit::Bytes, (0, 0, 128 << 20), "RDMA buffer").ignored("there is no RDMA"),
    // disk
    choice("on-io-error", DISK, &["detach", "pass_on", "call-local-io-error"], "After an error of the backing device")
        .supported(),
    flag(
        "disk-flushes",
        DISK,
        true,
        "Flush the backing device to order writes; `no` waits for completion only and needs a cache with battery",
    )
    .supported(),
    number(
        "al-extents",
        DISK,
        Unit::Count,
        // What DRBD makes of any larger number.
        (1237, 67, 6433),
        "Extents of 4 MiB that may be hot at once: a primary that crashed is resynced where its hot extents are",
    )
    .supported(),
    flag("al-updates", DISK, true, "Keep the activity log; without it a primary that crashed is resynced in full")
        .supported(),
    flag("disk-barrier", DISK, false, "Order writes by barriers").ignored("flushes order writes; no kernel has barriers any more"),
    flag(
        "disk-drain",
        DISK,
        true,
        "Without flushes, wait for completion to order writes; `no` needs storage that keeps every order it is given",
    )
    .supported(),
    flag("md-flushes", DISK, true, "Flush the metadata device").ignored("metadata is always flushed"),
    number("disk-timeout", DISK, Unit::Tenths, (0, 0, 6000), "Detach a disk that does not answer; 0: never").supported(),
    choice(
        "read-balancing",
        DISK,
        &[
            "prefer-local",
            "prefer-remote",
            "round-robin",
            "least-pending",
            "when-congested-remote",
            "32K-striping",
            "64K-striping",
            "128K-striping",
            "256K-striping",
            "512K-striping",
            "1M-striping",
        ],
        "Which replica serves reads",
    )
    .ignored("reads are local while the local disk is usable"),
    text("resync-after", DISK, "Resync only while the resource of this name has no resync to do").supported(),
    text("resync-undo", DISK, "File that keeps what a resync overwrites here, so that it can be undone if its source is lost")
        .supported(),
    number("rs-discard-granularity", DISK, Unit::Bytes, (0, 0, 1 << 20), "Resync zeroes as discards").ignored(ZEROES),
    flag("discard-zeroes-if-aligned", DISK, true, "Aligned discards zero").ignored(IO_LIMITS),
    flag("disable-write-same", DISK, false, "Do not offer write-same").ignored(IO_LIMITS),
    number("size", DISK, Unit::Bytes, (0, 0, MAX_BYTES), "Use only this much of the backing device").refused(
        &[],
        "the whole backing device is used",
        "make the backing device (partition, logical volume) of the wanted size",
    ),
    flag("bitmap", DISK, true, "Keep a bitmap of blocks that differ").refused(
        &["yes"],
        "the bitmap is what makes a resync correct",
        "remove it",
    ),
    number("block-size", DISK, Unit::Bytes, (512, 512, 4096), "Logical block size").ignored(IO_LIMITS),
    number("max-bio-size", DISK, Unit::Bytes, (1 << 20, 512, 1 << 20), "Largest request").ignored(IO_LIMITS),
    number("max-bio-bvecs", DISK, Unit::Count, (0, 0, 128), "Segments of a request").ignored(IO_LIMITS),
    number("discard-granularity", DISK, Unit::Bytes, (0, 0, 128 << 20), "Granularity of discards").ignored(IO_LIMITS),
    number("resync-rate", DISK, Unit::KibPerSecond, (250, 1, 4 << 20), "Speed of resync if `c-plan-ahead` is 0")
        .supported(),
    number(
        "c-plan-ahead",
        DISK,
        Unit::Tenths,
        (20, 0, 300),
        "What a resync has in flight is corrected over this time; 0: `resync-rate` always",
    )
    .supported(),
    number(
        "c-delay-target",
        DISK,
        Unit::Tenths,
        (1, 1, 100),
        "How long a resync may fill queues for, if `c-fill-target` is 0; DRBD's default is 10",
    )
    .supported(),
    number(
        "c-fill-target",
        DISK,
        Unit::Sectors,
        (0, 0, 1 << 20),
        "What a resync keeps in flight; 0: as much as the link carries; DRBD's default is 100",
    )
    .supported(),
    number(
        "c-max-rate",
        DISK,
        Unit::KibPerSecond,
        (0, 0, 4 << 20),
        "Upper limit of resync; 0: none; DRBD's default is 102400",
    )
    .supported(),
    number(
        "c-min-rate",
        DISK,
        Unit::KibPerSecond,
        (10_240, 0, 4 << 20),
        "Resync speed while clients are at work; 0: as if there were none; DRBD's default is 250",
    )
    .supported(),
    flag("resync-without-replication", DISK, true, "Replicate less during resync").ignored(SAFER),
    flag("peer-tiebreaker", DISK, true, "A diskless peer counts for quorum").ignored(THIRD_NODE),
    // options
    flag("auto-promote", OPTIONS_, false, "Opening the device makes this node primary").refused(
        &["no"],
        "opening the device never changes the role",
        "remove it, and promote with `tandemadm primary` or the failover helper",
    ),
    number("auto-promote-timeout", OPTIONS_, Unit::Tenths, (20, 0, 600), "Wait for a promotion")
        .ignored("opening the device never changes the role"),
    text("quorum", OPTIONS_, "off, majority, all or a number of nodes").refused(
        &["off"],
        QUORUM,
        "use `off`, and let the cluster manager fence the peer",
    ),
    text("quorum-minimum-redundancy", OPTIONS_, "off, majority, all or a number of nodes").refused(
        &["off"],
        QUORUM,
        "use `off`",
    ),
    choice("on-no-quorum", OPTIONS_, &["suspend-io", "io-error"], "Requests without quorum").ignored(QUORUM),
    choice("on-no-data-accessible", OPTIONS_, &["io-error", "suspend-io"], "Requests without any usable data").refused(
        &["io-error"],
        "requests fail when no usable data is reachable; they are not held back",
        "use `io-error`",
    ),
    choice(
        "on-suspended-primary-outdated",
        OPTIONS_,
        &["disconnect", "force-secondary"],
        "When a suspended primary finds its data outdated",
    )
    .refused(&["disconnect"], QUORUM, "use `disconnect`"),
    number("peer-ack-window", OPTIONS_, Unit::Sectors, (4096, 0, 1 << 20), "Peer acks by amount").ignored(THIRD_NODE),
    number("peer-ack-delay", OPTIONS_, Unit::Milliseconds, (100, 1, 10_000), "Peer acks by time").ignored(THIRD_NODE),
    number("twopc-timeout", OPTIONS_, Unit::Tenths, (300, 50, 6000), "Limit of a cluster-wide change")
        .ignored(THIRD_NODE),
    number("twopc-retry-timeout", OPTIONS_, Unit::Tenths, (1, 1, 50), "Retry of a cluster-wide change")
        .ignored(THIRD_NODE),
    text("cpu-mask", OPTIONS_, "CPUs for DRBD's threads").ignored("set the CPUs of the daemon's service"),
    number("max-io-depth", OPTIONS_, Unit::Count, (8000, 4, 1 << 32), "Requests in flight").ignored(BUFFERS),
    flag("explicit-drbd8-compat", OPTIONS_, false, "Speak DRBD 8's protocol").ignored("Tandem has its own protocol"),
    number("handler-timeout", OPTIONS_, Unit::Seconds, (120, 1, 3600), "A handler that takes longer is killed").supported(),
    // startup
    number("wfc-timeout", STARTUP, Unit::Seconds, (0, 0, 1 << 31), "Wait for the peer at boot").ignored(NO_WAIT),
    number("degr-wfc-timeout", STARTUP, Unit::Seconds, (0, 0, 1 << 31), "The same, if alone before").ignored(NO_WAIT),
    number("outdated-wfc-timeout", STARTUP, Unit::Seconds, (0, 0, 1 << 31), "The same, if the peer is outdated")
        .ignored(NO_WAIT),
    flag("wait-after-sb", STARTUP, false, "Wait even after a split brain").ignored(NO_WAIT),
    flag("stacked-timeouts", STARTUP, false, "Time limits of stacked resources").refused(
        &["no"],
        NO_STACK,
        "remove it",
    ),
    text("become-primary-on", STARTUP, "Promote this host at boot").refused(
        &[],
        "nothing is promoted at boot by itself",
        "remove it, and promote with the failover helper or the cluster manager",
    ),
    // handlers
    handler("fence-peer", "Fence a lost peer"),
    handler("unfence-peer", "A fenced peer is up to date again"),
    handler("outdate-peer", "Old name of fence-peer").refused(&[], "it is the old name of `fence-peer`", "write `fence-peer`"),
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
    handler("quorum-lost", "Quorum is lost").refused(&[], QUORUM, "remove it"),
    handler("disconnected", "The peer is gone").refused(
        &[],
        "it is not run",
        "use `fence-peer`, or watch the state with `tandemadm status`",
    ),
];
