//! `net {}`: how two nodes are connected.

use super::{BUFFERS, choice, flag, number, option, text};
use crate::options::{Kind, OptionDef, Section, Unit};

const AT_NET: &[Section] = &[Section::Net];
const AT_NET_OR_DISK: &[Section] = &[Section::Net, Section::Disk];
const AT_NET_OR_RESOURCE: &[Section] = &[Section::Net, Section::Resource];
const AT_NET_OR_SYNCER: &[Section] = &[Section::Net, Section::Syncer];

/// DRBD's longest secret.
const MAX_SECRET_BYTES: usize = 63;
/// The digests that tandem-core has, after the word for none.
const DIGESTS: &[&str] =
    &["none", "sha256", "sha1", "md5", "sha224", "sha384", "sha512", "crc32c", "crc32", "xxhash64"];
const DIGEST_REASON: &str = "there is no such digest here";
const DIGEST_INSTEAD: &str =
    "write `sha256`, or `sha1` where it is the faster one; `crc32c` is fine for `verify-alg`";
const IMPLEMENTATIONS: &str = "The name of an implementation, as crc32c-intel, stands for the digest.";
const SOCKETS: &str = "sockets are tuned by the operating system and the daemon";
/// The digests that tandem-core makes codes with.
const HMACS: &[&str] = &["none", "sha256", "sha1", "md5", "sha224", "sha384", "sha512"];
const HMAC_REASON: &str = "codes are not made with it";
const HMAC_INSTEAD: &str = "write `sha256`";
const NO_TLS_INSTEAD: &str = "remove it, and let the link run through WireGuard or another VPN; `cram-hmac-alg` and \
                              `shared-secret` keep strangers out, and encrypt nothing";
const NO_TLS: &str = "the replication link is not encrypted, and the option would promise that it is";
const NO_RDMA: &str = "there is no RDMA";

pub(super) const NET: &[OptionDef] = &[
    choice(
        "protocol",
        AT_NET_OR_RESOURCE,
        &["C", "A", "B"],
        "A write completes: A with the local write, B when the peer has received it, C when the peer has written it",
    )
    .with_connection()
    .more("Only C loses nothing that was acknowledged when the primary is lost. Until DRBD 8.3 it stood directly in the resource."),
    number("timeout", AT_NET, Unit::Tenths, (60, 1, 600), "The peer must answer within this time")
        .more("Must be less than connect-int and ping-int."),
    number("ping-int", AT_NET, Unit::Seconds, (10, 1, 120), "An idle connection is probed this often"),
    number("ping-timeout", AT_NET, Unit::Tenths, (5, 1, 300), "A probe must be answered within this time")
        .more("How soon a peer that hangs is noticed: raise it where the network or the machines stall for longer."),
    number("connect-int", AT_NET, Unit::Seconds, (10, 1, 120), "Connecting is tried again this often"),
    number(
        "ko-count",
        AT_NET,
        Unit::Count,
        (7, 0, 200),
        "A peer that does not finish a write within this many timeouts is dropped; 0: never",
    )
    .more("It answers probes and yet its disk does not finish: without this, clients of the primary wait as long as it does."),
    number("max-epoch-size", AT_NET, Unit::Count, (2048, 1, 20_000), "Most writes between two barriers"),
    choice(
        "fencing",
        AT_NET_OR_DISK,
        &["dont-care", "resource-only", "resource-and-stonith"],
        "A lost peer must be fenced by the fence-peer handler; with stonith, requests wait until it is",
    )
    .more("In DRBD 8 it stood in disk. resource-and-stonith needs protocol B or C."),
    choice(
        "after-sb-0pri",
        AT_NET,
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
    .with_connection()
    .more("Everything but disconnect and discard-zero-changes throws away writes that were acknowledged."),
    choice(
        "after-sb-1pri",
        AT_NET,
        &["disconnect", "consensus", "violently-as0p", "discard-secondary", "call-pri-lost-after-sb"],
        "Who gives up its data after a split brain with one primary left",
    )
    .with_connection(),
    choice(
        "after-sb-2pri",
        AT_NET,
        &["disconnect", "violently-as0p", "call-pri-lost-after-sb"],
        "What is done after a split brain with two primaries",
    )
    .with_connection(),
    flag(
        "always-asbp",
        AT_NET,
        false,
        "Apply the after-sb policies also where the bitmaps do not tell, with a full resync",
    )
    .with_connection(),
    choice(
        "rr-conflict",
        AT_NET,
        &["disconnect", "retry-connect", "auto-discard", "violently", "call-pri-lost"],
        "When the primary would have to be the target of a resync",
    ),
    flag("allow-two-primaries", AT_NET, false, "Both nodes may be primary").refused(
        &["no"],
        "only one node may be primary",
        "remove it; for live migration, demote before promoting",
    ),
    option("cram-hmac-alg", AT_NET, Kind::Digest, "Digest with which peers prove to each other that they know shared-secret")
        .refused(HMACS, HMAC_REASON, HMAC_INSTEAD)
        .more("It is looked at when they connect: a change on both nodes leaves the connection alone. It keeps out who has the peer's address and not the secret; nothing is encrypted, and whoever can change what travels between the nodes can still do so."),
    option(
        "shared-secret",
        AT_NET,
        Kind::Text { max_bytes: MAX_SECRET_BYTES },
        "Secret that both nodes know; without cram-hmac-alg nobody asks for it",
    )
    .more("It is looked at when they connect. No message, log or `show` has it; `dump` has."),
    flag("tls", AT_NET, false, "Encrypt the connection").since("9.2.6").refused(&["no"], NO_TLS, NO_TLS_INSTEAD),
    text("tls-keyring", AT_NET, "Kernel keyring for TLS").since("9.2.6").refused(&[], NO_TLS, NO_TLS_INSTEAD),
    text("tls-privkey", AT_NET, "Private key for TLS").since("9.2.6").refused(&[], NO_TLS, NO_TLS_INSTEAD),
    text("tls-certificate", AT_NET, "Certificate for TLS").since("9.2.6").refused(&[], NO_TLS, NO_TLS_INSTEAD),
    text("transport", AT_NET, "How peers are connected: tcp, rdma or lb-tcp").since("9.0").fixed().refused(
        &["tcp"],
        "peers are connected by TCP only",
        "use `tcp`",
    ),
    choice(
        "on-congestion",
        AT_NET,
        &["block", "pull-ahead", "disconnect"],
        "When the peer cannot keep up: writes wait, or go on without it (protocol A) until it is resynced",
    )
    .since("8.3.10"),
    flag("discard-my-data", AT_NET, false, "Lose the local changes after a split brain").fixed().refused(
        &["no"],
        "in the file it would discard data at every connect",
        "use `connect --discard-my-data` once, on the node that loses",
    ),
    flag("tentative", AT_NET, false, "Only report what the handshake would decide").since("9.0").fixed().refused(
        &["no"],
        "in the file it would keep the peers from ever connecting",
        "remove it",
    ),
    text("data-integrity-alg", AT_NET, "Digest over every replicated block").ignored("always on, with CRC-32"),
    option("verify-alg", AT_NET_OR_SYNCER, Kind::Digest, "Digest for online verify")
        .refused(DIGESTS, DIGEST_REASON, DIGEST_INSTEAD)
        .more(IMPLEMENTATIONS),
    option(
        "csums-alg",
        AT_NET_OR_SYNCER,
        Kind::Digest,
        "Digest for resync by checksums: only the blocks that differ are sent",
    )
    .refused(DIGESTS, DIGEST_REASON, DIGEST_INSTEAD)
    .more("Blocks of one digest count as equal, and stay as they are: a weak digest may leave a difference."),
    flag("csums-after-crash-only", AT_NET, false, "Resync by checksums only after a primary has crashed")
        .since("8.4.5"),
    number("socket-check-timeout", AT_NET, Unit::Tenths, (0, 0, 300), "Check of accepted sockets")
        .since("8.4.5")
        .ignored("`ping-timeout` is used"),
    number("max-buffers", AT_NET, Unit::Count, (2048, 32, 131_072), "Pages for received data").ignored(BUFFERS),
    number("unplug-watermark", AT_NET, Unit::Count, (128, 1, 131_072), "When the disk is kicked").ignored(BUFFERS),
    number(
        "sndbuf-size",
        AT_NET,
        Unit::Bytes,
        (0, 0, 128 << 20),
        "Most that the peer may be sent and has not confirmed; writes wait beyond it; 0: 64 MiB",
    ),
    number("rcvbuf-size", AT_NET, Unit::Bytes, (0, 0, 128 << 20), "Receive buffer of a socket").ignored(SOCKETS),
    flag("tcp-cork", AT_NET, true, "Collect small packets").ignored(SOCKETS),
    flag("use-rle", AT_NET_OR_SYNCER, true, "Compress bitmaps on the wire").ignored("the wire format has no compression"),
    number(
        "congestion-fill",
        AT_NET,
        Unit::Sectors,
        (0, 0, 20 << 20),
        "The peer cannot keep up when it has not confirmed this much; 0: when sndbuf-size is reached",
    )
    .since("8.3.10"),
    number(
        "congestion-extents",
        AT_NET,
        Unit::Count,
        (1237, 67, 65_534),
        "The peer cannot keep up, either, when it keeps this many extents of the activity log hot",
    )
    .since("8.3.10"),
    flag("allow-remote-read", AT_NET, true, "Reads may be served by this peer")
        .since("9.0.19")
        .ignored("reads are local while the local disk is usable"),
    flag("load-balance-paths", AT_NET, false, "Use all paths at once")
        .since("9.2.6")
        .ignored("one path of a connection is used at a time"),
    number("rdma-ctrl-rcvbuf-size", AT_NET, Unit::Bytes, (0, 0, 128 << 20), "RDMA buffer").since("9.2.6").ignored(NO_RDMA),
    number("rdma-ctrl-sndbuf-size", AT_NET, Unit::Bytes, (0, 0, 128 << 20), "RDMA buffer").since("9.2.6").ignored(NO_RDMA),
];
