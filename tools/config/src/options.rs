//! What an option is: one definition serves parsing, checking, dump and help. The definitions stand in `table`.

use std::fmt::{self, Write};
use std::net::SocketAddr;

pub use crate::table::OPTIONS;

/// A section in which options stand. `Resource` means directly in `resource` or `common`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `global {}`: the node, not a resource.
    Global,
    /// Directly in `resource {}` or `common {}`.
    Resource,
    /// `net {}`: the connection.
    Net,
    /// `disk {}`: the backing device and resync.
    Disk,
    /// `options {}`: the resource as a whole.
    Options,
    /// `startup {}`: what happens at boot.
    Startup,
    /// `handlers {}`: programs run at events.
    Handlers,
}

impl Section {
    /// All sections, in the order of help and dump.
    pub const ALL: [Self; 7] =
        [Self::Global, Self::Resource, Self::Net, Self::Disk, Self::Options, Self::Startup, Self::Handlers];

    /// The keyword that opens the section.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Resource => "resource",
            Self::Net => "net",
            Self::Disk => "disk",
            Self::Options => "options",
            Self::Startup => "startup",
            Self::Handlers => "handlers",
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
    /// Any text that is not empty.
    Text,
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
            Self::Text => "a text".to_owned(),
            Self::Address => "IP:PORT".to_owned(),
        }
    }

    /// The value if the option is absent; `None` if absence is a value of its own.
    pub fn default_value(&self) -> Option<Value> {
        match self {
            Self::Flag { default } => Some(Value::Flag(*default)),
            Self::Number { default, .. } => Some(Value::Number(*default)),
            Self::Choice(words) => words.first().map(|word| Value::Text((*word).to_owned())),
            Self::Text | Self::Address => None,
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

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDef {
    /// The option's keyword.
    pub name: &'static str,
    /// Where it may stand; dump writes it into the first.
    pub sections: &'static [Section],
    /// Its values.
    pub kind: Kind,
    /// What this version does with it.
    pub support: Support,
    /// What it means, in one line.
    pub help: &'static str,
}

impl OptionDef {
    /// The section that dump writes the option into.
    pub fn home(&self) -> Section {
        self.sections.first().copied().unwrap_or(Section::Resource)
    }

    pub(crate) const fn supported(self) -> Self {
        Self { support: Support::Supported, ..self }
    }

    pub(crate) const fn ignored(self, note: &'static str) -> Self {
        Self { support: Support::Ignored { note }, ..self }
    }

    pub(crate) const fn refused(
        self,
        accepted: &'static [&'static str],
        reason: &'static str,
        instead: &'static str,
    ) -> Self {
        Self { support: Support::Refused { accepted, reason, instead }, ..self }
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
            Support::Ignored { note } => write!(f, "\n    No effect in this version: {note}."),
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

/// Finds an option by the section it stands in, with its place in [`OPTIONS`].
pub(crate) fn find(section: Section, name: &str) -> Option<(usize, &'static OptionDef)> {
    OPTIONS.iter().enumerate().find(|(_, option)| option.name == name && option.sections.contains(&section))
}

/// The help text of all options, or of one section's.
pub fn help(section: Option<Section>) -> String {
    let mut text = String::new();
    for wanted in Section::ALL.into_iter().filter(|&one| section.is_none_or(|section| section == one)) {
        let _ = writeln!(text, "{} {{}}\n", wanted.keyword());
        for option in OPTIONS.iter().filter(|option| option.home() == wanted) {
            let _ = writeln!(text, "{option}\n");
        }
    }
    text
}

/// The closest of some names to a misspelt one, if one is close.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = match name.chars().count() {
        0..=2 => return None,
        3..=5 => 1,
        6..=40 => 2,
        _ => return None,
    };
    candidates
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    rows[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                replaced.min(swapped).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
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
        for option in OPTIONS {
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
    fn help_names_every_option_once_with_default_and_support() {
        let text = help(None);
        for option in OPTIONS {
            assert_eq!(text.matches(&format!("\n{} <", option.name)).count(), 1, "{}", option.name);
        }
        assert!(text.contains("timeout <a number from 1 to 600 (tenths of a second)>, default 60\n"));
        assert!(help(Some(Section::Net)).contains("net {}") && !help(Some(Section::Net)).contains("disk {}"));
    }

    #[test]
    fn near_misses_are_found_and_strangers_are_not() {
        let names = ["ping-int", "ping-timeout", "timeout"];
        for (word, expected) in [
            ("ping-itn", Some("ping-int")),
            ("pingint", Some("ping-int")),
            ("timout", Some("timeout")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), expected, "{word}");
        }
    }
}
