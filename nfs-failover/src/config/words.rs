//! What may be said in the configuration: one table for reading and for the manual page.

/// A statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// Its keyword.
    pub name: &'static str,
    /// What stands behind it.
    pub value: &'static str,
    /// What it means, what is right, and what holds without it.
    pub help: &'static str,
    /// Whether it may be said several times.
    pub repeated: bool,
}

const fn word(name: &'static str, value: &'static str, help: &'static str) -> Word {
    Word { name, value, help, repeated: false }
}

const fn repeated(name: &'static str, value: &'static str, help: &'static str) -> Word {
    Word { repeated: true, ..word(name, value, help) }
}

/// In `service NAME {}`.
pub const IN_SERVICE: &[Word] = &[
    word(
        "resource",
        "RES",
        "The replicated resource, of `tandem.conf`, whose device holds the file system. Required.",
    ),
    word("mount", "FOLDER { ... }", "Where and how the file system is mounted. Required."),
    word(
        "server",
        "kernel|ganesha|none",
        "What serves it: the kernel's NFS server, NFS-Ganesha, or the hooks alone. Required.",
    ),
    word(
        "state",
        "FOLDER",
        "Folder on the volume for what must move with it: NFSv4's recovery, statd's files, the list of clients. Default: \
         `.nfs-state` in the mounted folder.",
    ),
    repeated(
        "export",
        "\"FOLDER CLIENT(OPTIONS)...\"",
        "What is exported and to whom, as in exports(5). Required unless `server none`. `nfs-failover reload` has a running \
         server follow a change.",
    ),
    repeated(
        "vip",
        "ADDRESS/BITS dev INTERFACE",
        "An address that clients know. It comes last at promotion and goes early at demotion. At least one.",
    ),
    repeated(
        "port",
        "PORT",
        "A port that is closed on the addresses until the service is ready. Default: all of TCP and UDP.",
    ),
    word(
        "grace",
        "SECONDS",
        "For how long clients may reclaim their locks after a move: 1 to 180, default 15.",
    ),
    word(
        "lease",
        "SECONDS",
        "For how long the state of a client of NFSv4 lives without renewal: 1 to 120, default 15.",
    ),
    word(
        "nfs3-locks",
        "yes|no",
        "Whether NFS-Ganesha has the locks of NFSv3, noted on the volume by `rpc.statd`, so that clients take them again after a \
         move. With them each move waits for the whole `grace` before NFSv4 clients open anything new, if anybody had \
         something open or locked. Default: `no`.",
    ),
    word("health", "IP:PORT", "Where health checks and metrics are answered. Default: nowhere."),
    word(
        "peer",
        "IP:PORT [IP:PORT]",
        "Where the other node's service is reached; or both nodes', so that the file can be the same on both.",
    ),
    word(
        "shared-secret",
        "TEXT",
        "What the two nodes' services know each other by: at least eight characters.",
    ),
    word(
        "on-stuck",
        "none|reboot",
        "What is done when this node cannot give the volume up: say that it must be fenced (the default), or reboot at once.",
    ),
    word(
        "hooks",
        "{ ... }",
        "Programs of yours at the place of the server, called as `PROGRAM SERVICE start|stop|check`.",
    ),
    word(
        "decider",
        "ucarp|keepalived|pacemaker|none",
        "Who elects the node that serves. Default: `none`, the operator.",
    ),
];

/// In `mount FOLDER {}`.
pub const IN_MOUNT: &[Word] = &[
    word("fstype", "TYPE", "The file system's type. Default: `auto`."),
    word("options", "OPTIONS", "As `mount -o` takes them. Default: `noatime`."),
    word(
        "uuid",
        "UUID",
        "Only the file system of this UUID is mounted. Default: the one that this node has served before.",
    ),
];

/// In `hooks {}`.
pub const IN_HOOKS: &[Word] = &[
    word("start", "PROGRAM", "Starts what lives on the volume; it works when the program ends."),
    word("stop", "PROGRAM", "Stops it; it is gone when the program ends."),
    word("check", "PROGRAM", "Ends with 0 while it works."),
];

pub(super) fn names(words: &'static [Word]) -> Vec<&'static str> {
    words.iter().map(|word| word.name).collect()
}
