//! Tandem's configuration: the language of drbd.conf, parsed, checked and dumped.
//!
//! [`Config::load`] reads a file and everything it includes. Either the configuration is usable, with warnings about
//! what has no effect, or the error lists everything that is wrong, each with file, line, column and the line itself.
//! What the grammar knows and this version cannot do is understood and dumped, and [`Resource::runnable`] says why it
//! is not run: nothing that promises safety is ever ignored silently. All options stand in one table, [`OPTIONS`],
//! which parsing, checking, dump and [`help`] share.
//!
//! The grammar: a file is statements; a statement is words that end in `;` or in a `{}` body of statements. `#` starts
//! a comment, `"` quotes a word, `skip` before a section makes it as if it were not there, and `include "glob";` at the
//! top level stands for the files it names, relative to the including file and sorted; each file is read once.

mod check;
mod diagnostic;
mod dump;
mod dump_xml;
mod effective;
mod glob;
mod here;
pub mod language;
mod lexer;
mod load;
mod model;
mod options;
mod pair;
mod settings;
mod source;
mod spelling;
mod table;
mod tree;
mod value;

use std::path::Path;

pub use check::{WORDS, WordDef};
pub use diagnostic::{ConfigError, Diagnostic, Severity, Stage};
pub use effective::{
    DiskOptions, Fencing, NetOptions, OnCongestion, Protocol, ResyncOptions, StartupOptions,
};
pub use here::{has_address, node_name};
pub use load::Sources;
pub use model::{
    Address, Config, Connection, Family, Global, Host, HostKind, MetaDisk, NotDefined, PathEnd, Resource,
    Verbatim, Volume,
};
pub use options::{
    AmongVolumes, Kind, OPTIONS, OptionDef, Section, Support, Takes, Unit, Value, help, help_about,
};
pub use pair::{CannotRun, Pair};
pub use settings::Settings;
pub use source::Span;

use diagnostic::Diagnostics;

/// Where the configuration lies unless something else is asked for.
pub const DEFAULT_PATH: &str = "/etc/tandem.conf";

impl Config {
    /// Reads and checks a configuration file (default: [`DEFAULT_PATH`]) with its includes.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_all(Sources::file(path.unwrap_or(Path::new(DEFAULT_PATH))))
    }

    /// Checks a text as if it were the file `path`; includes are relative to that.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::load_all(Sources { text: Some(text), ..Sources::file(path) })
    }

    /// Reads and checks several files together.
    pub fn load_all(sources: Sources<'_>) -> Result<Self, ConfigError> {
        let mut found = Diagnostics::default();
        let statements = load::load_all(sources, &mut found);
        let mut found = found.usable(Stage::Syntax)?;
        let config = check::check(&statements, &mut found);
        Ok(Self { warnings: found.usable(Stage::Check)?.into_warnings(), ..config })
    }
}
