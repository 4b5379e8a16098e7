//! `disk {}`: the backing device, and the resync of it.

use super::{choice, flag, number, text};
use crate::options::{OptionDef, Section, Unit};

const AT_DISK: &[Section] = &[Section::Disk];
const AT_DISK_OR_SYNCER: &[Section] = &[Section::Disk, Section::Syncer];
const AT_RESYNC: &[Section] = &[Section::Disk, Section::PeerDevice, Section::Syncer];
const AT_PEER_DEVICE: &[Section] = &[Section::Disk, Section::PeerDevice];

/// The largest device, in sectors: 1 PiB.
const MAX_SECTORS: u64 = 1 << 41;
const ZEROES: &str = "zeroes always travel as such, and leave holes where the disk can have them";
const IO_LIMITS: &str = "the limits of the backing device are found by the daemon";
const LOCAL_READS: &str = "reads are local while the local disk is usable";

pub(super) const DISK: &[OptionDef] = &[
    choice(
        "on-io-error",
        AT_DISK,
        &["detach", "pass_on", "call-local-io-error"],
        "After an error of the backing device",
    )
    .more("detach: this node goes on with its peer's disk. pass_on: clients see the error, and the block is resynced later."),
    flag(
        "disk-flushes",
        AT_DISK,
        true,
        "Flush the backing device to order writes; `no` waits for completion only and needs a cache with battery",
    )
    .most_careful(),
    number(
        "al-extents",
        AT_DISK_OR_SYNCER,
        Unit::Count,
        (1237, 7, 65_536),
        "Extents of 4 MiB that may be hot at once: a primary that crashed is resynced where its hot extents are",
    )
    .with_attach()
    .most_careful()
    .more("More than 6433 count as 6433, as in DRBD: the log on the disk has room for no more. Less than 67 count as 67."),
    flag(
        "al-updates",
        AT_DISK,
        true,
        "Keep the activity log; without it a primary that crashed is resynced in full",
    )
    .since("8.4")
    .with_attach()
    .most_careful(),
    flag("disk-barrier", AT_DISK, false, "Order writes by barriers")
        .ignored("flushes order writes; no kernel has barriers any more"),
    flag(
        "disk-drain",
        AT_DISK,
        true,
        "Without flushes, wait for completion to order writes; `no` needs storage that keeps every order it is given",
    )
    .with_connection()
    .most_careful(),
    flag("md-flushes", AT_DISK, true, "Flush the metadata device").ignored("metadata is always flushed"),
    number("disk-timeout", AT_DISK, Unit::Tenths, (0, 0, 6000), "Detach a disk that does not answer; 0: never")
        .since("8.3.12")
        .more("In the kernel it is dangerous, as a late answer overwrites memory that others use; here it is not."),
    choice(
        "read-balancing",
        AT_DISK,
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
    .since("8.4.1")
    .ignored(LOCAL_READS),
    text("resync-after", AT_DISK_OR_SYNCER, "Resync only while the resource of this name has no resync to do")
        .formerly("after")
        .more("For resources whose backing devices lie on the same disks. RES/VOLUME is understood, too."),
    text(
        "resync-undo",
        AT_DISK,
        "File that keeps what a resync overwrites here, so that it can be undone if its source is lost",
    )
    .own()
    .with_attach(),
    number("rs-discard-granularity", AT_DISK, Unit::Bytes, (0, 0, 1 << 20), "Resync zeroes as discards")
        .since("8.4.7")
        .ignored(ZEROES),
    flag("discard-zeroes-if-aligned", AT_DISK, true, "Aligned discards zero").since("8.4.7").ignored(IO_LIMITS),
    flag("disable-write-same", AT_DISK, false, "Do not offer write-same").since("8.4.7").ignored(IO_LIMITS),
    number("size", AT_DISK, Unit::Sectors, (0, 0, MAX_SECTORS), "Use only this much of the backing device")
        .fixed()
        .of_volume()
        .more("Of several volumes each must be as large on both nodes; it counts when `create-md` is run."),
    number("block-size", AT_DISK, Unit::Bytes, (512, 512, 4096), "Logical block size")
        .since("9.3")
        .fixed()
        .ignored(IO_LIMITS),
    number("max-bio-size", AT_DISK, Unit::Bytes, (1 << 20, 512, 1 << 20), "Largest request")
        .since("9.0")
        .fixed()
        .ignored(IO_LIMITS),
    number("max-bio-bvecs", AT_DISK, Unit::Count, (0, 0, 128), "Segments of a request").fixed().ignored(IO_LIMITS),
    number("discard-granularity", AT_DISK, Unit::Bytes, (0, 0, 128 << 20), "Granularity of discards")
        .since("9.2")
        .fixed()
        .ignored(IO_LIMITS),
];

pub(super) const PEER_DEVICE: &[OptionDef] = &[
    number(
        "resync-rate",
        AT_RESYNC,
        Unit::KibPerSecond,
        (250, 1, 8 << 20),
        "Speed of resync if `c-plan-ahead` is 0",
    )
    .formerly("rate"),
    number(
        "c-plan-ahead",
        AT_RESYNC,
        Unit::Tenths,
        (20, 0, 300),
        "What a resync has in flight is corrected over this time; 0: `resync-rate` always",
    )
    .since("8.3.9"),
    number(
        "c-delay-target",
        AT_RESYNC,
        Unit::Tenths,
        (1, 1, 100),
        "How long a resync may fill queues for, if `c-fill-target` is 0; DRBD's default is 10",
    )
    .since("8.3.9"),
    number(
        "c-fill-target",
        AT_RESYNC,
        Unit::Sectors,
        (0, 0, 1 << 20),
        "What a resync keeps in flight; 0: as much as the link carries; DRBD's default is 100",
    )
    .since("8.3.9"),
    number(
        "c-max-rate",
        AT_RESYNC,
        Unit::KibPerSecond,
        (0, 0, 4 << 20),
        "Upper limit of resync; 0: none; DRBD's default is 102400",
    )
    .since("8.3.9"),
    number(
        "c-min-rate",
        AT_RESYNC,
        Unit::KibPerSecond,
        (10_240, 0, 4 << 20),
        "Resync speed while clients are at work; 0: as if there were none; DRBD's default is 250",
    )
    .since("8.3.9"),
    flag("bitmap", AT_PEER_DEVICE, true, "Keep a bitmap of blocks that differ").since("9.0").fixed().refused(
        &["yes"],
        "the bitmap is what makes a resync correct",
        "remove it",
    ),
    flag("resync-without-replication", AT_PEER_DEVICE, true, "Replicate less during resync")
        .since("9.3")
        .ignored("the safe choice is always made"),
    flag("peer-tiebreaker", AT_PEER_DEVICE, true, "A diskless peer counts for quorum")
        .since("9.3.1")
        .ignored("it concerns three and more nodes"),
];
