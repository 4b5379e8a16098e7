//! What concerns the node: the top level and `global`.

use super::{choice, flag, number, option, text};
use crate::options::{Kind, OptionDef, Section, Unit};

const AT_TOP: &[Section] = &[Section::Top];
const AT_GLOBAL: &[Section] = &[Section::Global];

const NO_MODULE: &str = "there is no kernel module to adjust";
const NO_PHONE: &str = "Tandem never reports to anybody";
const NO_COMMAND: &str = "no kernel command is waited for";

const fn module(name: &'static str, help: &'static str) -> OptionDef {
    text(name, AT_TOP, help).since("9.0").ignored(NO_MODULE)
}

pub(super) const TOP: &[OptionDef] = &[
    module("require-drbd-module-version-eq", "Only with this kernel module"),
    module("require-drbd-module-version-ne", "Not with this kernel module"),
    module("require-drbd-module-version-gt", "Only with a newer kernel module"),
    module("require-drbd-module-version-ge", "Only with this kernel module or newer"),
    module("require-drbd-module-version-lt", "Only with an older kernel module"),
    module("require-drbd-module-version-le", "Only with this kernel module or older"),
];

pub(super) const GLOBAL: &[OptionDef] = &[
    option(
        "nbd-listen",
        AT_GLOBAL,
        Kind::Address,
        "Address at which devices are exported over NBD; default: none",
    )
    .own()
    .more("Every resource that is Primary is an export of its own name. Anybody who reaches the address may read and write."),
    choice(
        "device-driver",
        AT_GLOBAL,
        &["auto", "nbd", "fuse", "none"],
        "What makes the block device of a primary; none: clients speak NBD",
    )
    .own()
    .fixed()
    .more("auto takes the kernel's NBD driver where there is one, and otherwise a FUSE file behind a loop device."),
    number(
        "device-timeout",
        AT_GLOBAL,
        Unit::Seconds,
        (600, 0, 86_400),
        "Requests to the block device wait this long for a daemon that has gone, then all fail; 0: for ever",
    )
    .own()
    .fixed(),
    choice("usage-count", AT_GLOBAL, &["no", "yes", "ask"], "Take part in DRBD's count of users")
        .ignored(NO_PHONE),
    number(
        "dialog-refresh",
        AT_GLOBAL,
        Unit::Seconds,
        (1, 0, 600),
        "How often `wait-con-int` redraws its countdown; 0: never",
    ),
    number("minor-count", AT_GLOBAL, Unit::Count, (32, 1, (1 << 20) - 1), "Number of devices").ignored(NO_MODULE),
    flag(
        "disable-ip-verification",
        AT_GLOBAL,
        false,
        "Do not check that a resource's address belongs to this host",
    )
    .more("For addresses that come to this host only later. Without it, `up` warns of an address that no interface has."),
    flag("udev-always-use-vnr", AT_GLOBAL, false, "Volume numbers in the names of links")
        .since("8.4")
        .ignored("no udev links are made"),
    number("cmd-timeout-short", AT_GLOBAL, Unit::Seconds, (5, 0, 900), "Limit for quick commands")
        .since("8.4")
        .ignored(NO_COMMAND),
    number("cmd-timeout-medium", AT_GLOBAL, Unit::Seconds, (121, 0, 900), "Limit for usual commands")
        .since("8.4")
        .ignored(NO_COMMAND),
    number("cmd-timeout-long", AT_GLOBAL, Unit::Seconds, (600, 0, 900), "Limit for long commands")
        .since("8.4")
        .ignored(NO_COMMAND),
];
