//! What an option is: one definition serves parsing, checking, dump and help. The definitions stand in `table`.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::sync::LazyLock;

pub use crate::table::OPTIONS;

/// A section in which options stand. `Resource` means directly in `resource` or `common`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Outside of every section.
    Top,
    /// `global {}`: the node, not a resource.
    Global,
    /// Directly in `resource {}` or `common {}`.
    Resource,
    /// `net {}`: the connection.
    Net,
    /// `disk {}`: the backing device and resync.
    Disk,
    /// `disk {}` or `peer-device-options {}` of a connection: resync.
    PeerDevice,
    /// `options {}`: the resource as a whole.
    Options,
    /// `startup {}`: what happens at boot.
    Startup,
    /// `handlers {}`: programs run at events.
    Handlers,
    /// `syncer {}`: where DRBD 8.3 had what stands in `disk`, `net` and `options` now.
    Syncer,
}

impl Section {
    /// The sections that dump writes, in the order of help and dump.
    pub const ALL: [Self; 8] = [
        Self::Top,
        Self::Global,
        Self::Resource,
        Self::Net,
        Self::Disk,
        Self::Options,
        Self::Startup,
        Self::Handlers,
    ];

    /// The sections inside of `common` and `resource`, in the order that drbdadm prints them.
    pub(crate) const OF_RESOURCE: [Self; 5] =
        [Self::Options, Self::Net, Self::Disk, Self::Startup, Self::Handlers];

    /// The keyword that opens the section.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Top => "",
            Self::Global => "global",
            Self::Resource => "resource",
            Self::Net => "net",
            Self::Disk => "disk",
            Self::PeerDevice => "peer-device-options",
            Self::Options => "options",
            Self::Startup => "startup",
            Self::Handlers => "handlers",
            Self::Syncer => "syncer",
        }
    }

    /// How messages name it behind `in` or `belongs in`.
    pub(crate) fn place(self) -> String {
        match self {
            Self::Top => "the top level".to_owned(),
            other => format!("`{} {{}}`", other.keyword()),
        }
    }
}

/// What a plain number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count of things; K, M, G, T multiply by powers of 1024.
    Count,
    /// Seconds; no suffix.
    Seconds,
    /// Tenths of a second; no suffix.
    Tenths,
    /// Milliseconds; no suffix.
    Milliseconds,
    /// Bytes; suffixes allowed.
    Bytes,
    /// Sectors of 512 bytes; with a suffix, bytes.
    Sectors,
    /// KiB/s; with a suffix, bytes per second.
    KibPerSecond,
}

impl Unit {
    /// The unit's name behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Seconds => "seconds",
            Self::Tenths => "tenths of a second",
            Self::Milliseconds => "milliseconds",
            Self::Bytes => "bytes",
            Self::Sectors => "sectors of 512 bytes",
            Self::KibPerSecond => "KiB per second",
        }
    }

    /// The bytes of one unit, for units that take size suffixes.
    pub(crate) fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes => Some(1),
            Self::Sectors => Some(512),
            Self::KibPerSecond => Some(1024),
            Self::Count | Self::Seconds | Self::Tenths | Self::Milliseconds => None,
        }
    }
}

/// The values an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `opt;`, `opt yes;`, `opt no;` and DRBD 8's `no-opt;`.
    Flag {
        /// The value if the option is absent.
        default: bool,
    },
    /// A number of units within a range, both ends included.
    Number {
        /// What a number without suffix counts.
        unit: Unit,
        /// The value if the option is absent, in units.
        default: u64,
        /// The smallest value, in units.
        min: u64,
        /// The largest value, in units.
        max: u64,
    },
    /// One of some words; the first is the default.
    Choice(&'static [&'static str]),
    /// One of some words, the first being the default, or a count.
    ChoiceOrCount {
        /// The words.
        words: &'static [&'static str],
        /// The smallest count.
        min: u64,
        /// The largest count.
        max: u64,
    },
    /// A digest by the kernel's name for it, perhaps that of one implementation, as `crc32c-intel`.
    Digest,
    /// Names, one or more.
    Words,
    /// Any text; an empty one is as good as none, but counts in place of an inherited one.
    Text {
        /// The longest that DRBD's formats have room for.
        max_bytes: usize,
    },
    /// `IP:PORT`.
    Address,
}

impl Kind {
    /// What a message says is expected.
    pub fn expected(&self) -> String {
        match self {
            Self::Flag { .. } => "`yes` or `no`".to_owned(),
            Self::Number { unit: Unit::Count, min, max, .. } => format!("a number from {min} to {max}"),
            Self::Number { unit, min, max, .. } => format!("a number from {min} to {max} ({})", unit.name()),
            Self::Choice(words) => list(words),
            Self::ChoiceOrCount { words, min, max } => {
                format!("{} or a number from {min} to {max}", list(words).replace(" or ", ", "))
            }
            Self::Digest => "a digest".to_owned(),
            Self::Text { .. } => "a text".to_owned(),
            Self::Words => "names".to_owned(),
            Self::Address => "IP:PORT".to_owned(),
        }
    }

    /// The words that are values.
    pub fn words(&self) -> &'static [&'static str] {
        match self {
            Self::Choice(words) | Self::ChoiceOrCount { words, .. } => words,
            Self::Flag { .. } => &["yes", "no"],
            Self::Number { .. } | Self::Digest | Self::Words | Self::Text { .. } | Self::Address => &[],
        }
    }

    /// The value if the option is absent; `None` if absence is a value of its own.
    pub fn default_value(&self) -> Option<Value> {
        match self {
            Self::Flag { default } => Some(Value::Flag(*default)),
            Self::Number { default, .. } => Some(Value::Number(*default)),
            Self::Choice(words) | Self::ChoiceOrCount { words, .. } => {
                words.first().map(|word| Value::Text((*word).to_owned()))
            }
            Self::Digest | Self::Words | Self::Text { .. } | Self::Address => None,
        }
    }
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// What this version does with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it says.
    Supported,
    /// Accepted with a warning: nothing is lost if it has no effect.
    Ignored {
        /// Why that is harmless, or what happens instead.
        note: &'static str,
        /// Values that ask for what is done anyway: no word is lost about them.
        anyway: &'static [&'static str],
    },
    /// Refused, because it promises something that this version does not do.
    Refused {
        /// Values that ask for what is done anyway; these are accepted.
        accepted: &'static [&'static str],
        /// Why it is refused.
        reason: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
}

/// When a new value counts for a resource that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// At once.
    AtOnce,
    /// With the next connection.
    WithNextConnection,
    /// With the next attach.
    WithNextAttach,
    /// When the resource is brought up the next time.
    WithNextUp,
}

impl Takes {
    /// How to make it count, as a sentence.
    fn sentence(self) -> &'static str {
        match self {
            Self::AtOnce => "A new value counts at once, with `adjust`.",
            Self::WithNextConnection => {
                "A new value counts with the next connection: `adjust` disconnects, and connects again."
            }
            Self::WithNextAttach => {
                "A new value counts with the next attach: on a secondary, `adjust` detaches, and attaches again."
            }
            Self::WithNextUp => "A new value counts from the next `up` on.",
        }
    }
}

/// What an option of `disk {}` means where the volumes of a resource say different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmongVolumes {
    /// It is each volume's own.
    Own,
    /// All go by the most careful value.
    MostCareful,
    /// They must not: it holds for the resource.
    Alike,
}

impl AmongVolumes {
    fn sentence(self) -> &'static str {
        match self {
            Self::Own => "It is each volume's own.",
            Self::MostCareful => {
                "It holds for all volumes of a resource: if they say different things, the most careful one counts."
            }
            Self::Alike => "It holds for all volumes of a resource: they must have it alike.",
        }
    }
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDef {
    /// The option's keyword.
    pub name: &'static str,
    /// What it was called before; still understood.
    pub formerly: Option<&'static str>,
    /// Where it may stand; dump writes it into the first.
    pub sections: &'static [Section],
    /// Its values.
    pub kind: Kind,
    /// What this version does with it.
    pub support: Support,
    /// The version of DRBD that had it first; none for Tandem's own.
    pub since: Option<&'static str>,
    /// When a new value counts for a resource that is up.
    pub takes: Takes,
    /// What it means where the volumes of a resource say different things.
    pub among_volumes: AmongVolumes,
    /// What it means, in one line.
    pub help: &'static str,
    /// What else there is to know; may be empty.
    pub more: &'static str,
}

impl OptionDef {
    /// The section that dump writes the option into.
    pub fn home(&self) -> Section {
        self.sections.first().copied().unwrap_or(Section::Resource)
    }

    pub(crate) const fn ignored(self, note: &'static str) -> Self {
        self.ignored_unless(&[], note)
    }

    /// Ignored, but that these values ask for what is done anyway.
    pub(crate) const fn ignored_unless(self, anyway: &'static [&'static str], note: &'static str) -> Self {
        Self { support: Support::Ignored { note, anyway }, ..self }
    }

    /// Each volume of a resource has its own.
    pub(crate) const fn of_volume(self) -> Self {
        Self { among_volumes: AmongVolumes::Own, ..self }
    }

    /// Volumes of a resource may say different things: all go by the most careful one.
    pub(crate) const fn most_careful(self) -> Self {
        Self { among_volumes: AmongVolumes::MostCareful, ..self }
    }

    pub(crate) const fn refused(
        self,
        accepted: &'static [&'static str],
        reason: &'static str,
        instead: &'static str,
    ) -> Self {
        Self { support: Support::Refused { accepted, reason, instead }, ..self }
    }

    /// DRBD has it since this version.
    pub(crate) const fn since(self, version: &'static str) -> Self {
        Self { since: Some(version), ..self }
    }

    /// Tandem's own.
    pub(crate) const fn own(self) -> Self {
        Self { since: None, ..self }
    }

    /// A new value counts from the next `up` on.
    pub(crate) const fn fixed(self) -> Self {
        Self { takes: Takes::WithNextUp, ..self }
    }

    /// A new value counts with the next connection.
    pub(crate) const fn with_connection(self) -> Self {
        Self { takes: Takes::WithNextConnection, ..self }
    }

    /// A new value counts with the next attach.
    pub(crate) const fn with_attach(self) -> Self {
        Self { takes: Takes::WithNextAttach, ..self }
    }

    pub(crate) const fn formerly(self, name: &'static str) -> Self {
        Self { formerly: Some(name), ..self }
    }

    pub(crate) const fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    /// The lines of [`help`], with everything that there is to know.
    pub fn long_help(&self) -> String {
        let mut text = self.to_string();
        if !self.more.is_empty() {
            let _ = write!(text, "\n    {}", self.more);
        }
        let origin = match self.since {
            Some(version) => format!("DRBD has it since {version}."),
            None => "DRBD does not have it.".to_owned(),
        };
        let _ = write!(text, "\n    {origin}");
        let has_effect = match self.support {
            Support::Supported => true,
            Support::Ignored { .. } => false,
            // Where only one value is accepted, nothing can change.
            Support::Refused { accepted, .. } => accepted.len() > 1,
        };
        if has_effect {
            let _ = write!(text, " {}", self.takes.sentence());
        }
        if has_effect && matches!(self.home(), Section::Disk | Section::PeerDevice) {
            let _ = write!(text, " {}", self.among_volumes.sentence());
        }
        if let Some(former) = self.formerly {
            let _ = write!(text, " It was called `{former}` before.");
        }
        text
    }
}

impl fmt::Display for OptionDef {
    /// Two or three lines of help.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <{}>", self.name, self.kind.expected().replace('`', ""))?;
        if let Some(default) = self.kind.default_value() {
            write!(f, ", default {default}")?;
        }
        write!(f, "\n    {}.", self.help)?;
        match self.support {
            Support::Supported => Ok(()),
            Support::Ignored { note, .. } => write!(f, "\n    No effect in this version: {note}."),
            Support::Refused { accepted: [], reason, .. } => {
                write!(f, "\n    Not in this version: {reason}.")
            }
            Support::Refused { accepted, reason, .. } => {
                write!(f, "\n    Only {} in this version: {reason}.", list(accepted).replace('`', ""))
            }
        }
    }
}

/// The value of an option. Its `Display` is what dump writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `yes` or `no`.
    Flag(bool),
    /// In the option's unit.
    Number(u64),
    /// A chosen word or a text.
    Text(String),
    /// An address.
    Address(SocketAddr),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(true) => f.write_str("yes"),
            Self::Flag(false) => f.write_str("no"),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(&crate::dump::word(text)),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The options' places in [`OPTIONS`], by section and name.
static INDEX: LazyLock<HashMap<(Section, &str), usize>> = LazyLock::new(|| {
    let mut index = HashMap::new();
    for (place, option) in OPTIONS.iter().enumerate() {
        index.extend(option.sections.iter().map(|&section| ((section, option.name), place)));
        if let Some(former) = option.formerly {
            // What has moved since had its old name in the old section only.
            let moved = option.sections.contains(&Section::Syncer);
            let places = option.sections.iter().filter(|&&section| !moved || section == Section::Syncer);
            index.extend(places.map(|&section| ((section, former), place)));
        }
    }
    index
});

/// Finds an option by the section it stands in, with its place in [`OPTIONS`].
pub(crate) fn find(section: Section, name: &str) -> Option<(usize, &'static OptionDef)> {
    let place = *INDEX.get(&(section, name))?;
    OPTIONS.get(place).map(|option| (place, option))
}

/// What there is to know of a section's options or of one option; the error names what was probably meant.
pub fn help_about(word: &str) -> Result<String, String> {
    if let Some(section) = Section::ALL.into_iter().find(|section| section.keyword() == word) {
        return Ok(help(Some(section)));
    }
    let named = |option: &&OptionDef| option.name == word || option.formerly == Some(word);
    if let Some(option) = OPTIONS.iter().find(named) {
        let sections: Vec<String> =
            option.sections.iter().map(|section| section.place().replace('`', "")).collect();
        return Ok(format!("{}\n    It stands in {}.\n", option.long_help(), sections.join(" or ")));
    }
    let known = OPTIONS.iter().map(|option| option.name).chain(Section::ALL.map(Section::keyword));
    Err(match crate::spelling::nearest(word, known) {
        Some(near) => format!("there is no option or section {word:?}; did you mean `{near}`?"),
        None => format!("there is no option or section {word:?}"),
    })
}

/// The help text of all options, or of one section's.
pub fn help(section: Option<Section>) -> String {
    let mut text = String::new();
    for wanted in Section::ALL.into_iter().filter(|&one| section.is_none_or(|section| section == one)) {
        let _ = writeln!(text, "{}\n", wanted.place().replace('`', ""));
        for option in OPTIONS.iter().filter(|option| option.home() == wanted) {
            let _ = writeln!(text, "{option}\n");
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_section_never_has_two_options_of_one_name() {
        for section in Section::ALL {
            let mut names: Vec<_> =
                OPTIONS.iter().filter(|o| o.sections.contains(&section)).map(|o| o.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{section:?}");
        }
    }

    #[test]
    fn defaults_lie_in_their_ranges_and_accepted_values_are_values() {
        for option in OPTIONS.iter() {
            if let Kind::Number { default, min, max, .. } = option.kind {
                assert!((min..=max).contains(&default), "{}", option.name);
            }
            let (Support::Refused { accepted, .. }, Kind::Choice(words)) = (option.support, option.kind)
            else {
                continue;
            };
            assert!(accepted.iter().all(|value| words.contains(value)), "{}", option.name);
        }
    }

    #[test]
    fn the_table_is_grouped_by_section_in_the_order_of_the_dump() {
        assert!(OPTIONS.is_sorted_by_key(OptionDef::home));
    }

    #[test]
    fn help_about_an_option_says_all_that_is_known_of_it() {
        let text = help_about("al-extents").unwrap();
        for part in [
            "al-extents <a number from 7 to 65536>, default 1237\n",
            "More than 6433 count as 6433",
            "DRBD has it since 8.0. A new value counts with the next attach",
            "It stands in disk {} or syncer {}.\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(help_about("outdate-peer").unwrap().contains("It was called `outdate-peer` before."));
        assert!(help_about("handlers").unwrap().contains("fence-peer"));
        assert!(help_about("al-extends").unwrap_err().contains("did you mean `al-extents`?"));
    }

    #[test]
    fn help_names_every_option_once_with_default_and_support() {
        let text = help(None);
        for option in OPTIONS.iter() {
            assert_eq!(text.matches(&format!("\n{} <", option.name)).count(), 1, "{}", option.name);
        }
        assert!(text.contains("timeout <a number from 1 to 600 (tenths of a second)>, default 60\n"));
        assert!(help(Some(Section::Net)).contains("net {}") && !help(Some(Section::Net)).contains("disk {}"));
    }
}
