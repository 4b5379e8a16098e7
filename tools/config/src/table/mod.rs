//! The definitions of all options, those of DRBD 8.4 and 9 and Tandem's own, in the order of help and dump.
//!
//! Whatever promises safety that this version does not give is refused, never ignored.

mod disk;
mod net;
mod node;
mod resource;

use std::sync::LazyLock;

use crate::options::{AmongVolumes, Kind, OptionDef, Section, Support, Takes, Unit};

/// Every option that is known, grouped by section.
pub static OPTIONS: LazyLock<Vec<OptionDef>> = LazyLock::new(|| {
    let sections: [&[OptionDef]; 8] = [
        node::TOP,
        node::GLOBAL,
        net::NET,
        disk::DISK,
        disk::PEER_DEVICE,
        resource::OPTIONS,
        resource::STARTUP,
        resource::HANDLERS,
    ];
    sections.concat()
});

/// Texts have this much room where DRBD's formats do not say otherwise.
const MAX_TEXT_BYTES: usize = 4096;

const BUFFERS: &str = "buffers are sized by the daemon";

const fn option(
    name: &'static str,
    sections: &'static [Section],
    kind: Kind,
    help: &'static str,
) -> OptionDef {
    OptionDef {
        name,
        formerly: None,
        sections,
        kind,
        support: Support::Supported,
        since: Some("8.0"),
        takes: Takes::AtOnce,
        among_volumes: AmongVolumes::Alike,
        help,
        more: "",
    }
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
    option(name, at, Kind::Text { max_bytes: MAX_TEXT_BYTES }, help)
}
