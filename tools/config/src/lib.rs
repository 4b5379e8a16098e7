//! Tandem's configuration: the language of drbd.conf, parsed, checked and dumped.
//!
//! [`Config::load`] reads a file and everything it includes. Either the configuration is usable, with warnings about
//! what has no effect, or the error lists everything that is wrong, each with file, line, column and the line itself.
//! Nothing that promises safety is ever ignored silently: an option that this version cannot honour is refused with
//! the reason. All options stand in one table, [`OPTIONS`], which parsing, checking, dump and [`help`] share.
//!
//! The grammar: a file is statements; a statement is words that end in `;` or in a `{}` body of statements. `#` starts
//! a comment, `"` quotes a word, `skip` before a statement makes it as if it were not there, and `include "glob";` at
//! the top level stands for the files it names, relative to the including file and sorted.

mod check;
mod diagnostic;
mod dump;
pub mod language;
mod lexer;
mod load;
mod model;
mod options;
mod source;
mod table;
mod tree;
mod value;

use std::path::Path;

pub use diagnostic::{ConfigError, Diagnostic, Severity, Stage};
pub use model::{
    Config, DiskOptions, Fencing, Global, Host, MetaDisk, NetOptions, NotDefined, OnCongestion, Protocol,
    Resource, Settings, Volume,
};
pub use options::{Kind, OPTIONS, OptionDef, Section, Support, Unit, Value, help};
pub use source::Span;

use diagnostic::Diagnostics;
use tree::Statement;

/// Where the configuration lies unless something else is asked for.
pub const DEFAULT_PATH: &str = "/etc/tandem.conf";

/// Names the node in place of the host name, as `__DRBD_NODE__` does for DRBD's tools.
const NODE_VARIABLE: &str = "TANDEM_NODE";
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

impl Config {
    /// Reads and checks a configuration file (default: [`DEFAULT_PATH`]) with its includes.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut found = Diagnostics::default();
        let statements = load::load(path.unwrap_or(Path::new(DEFAULT_PATH)), &mut found);
        Self::check(&statements, found)
    }

    /// Checks a text as if it were the file `path`; includes are relative to that.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut found = Diagnostics::default();
        let statements = load::load_text(path, text, &mut found);
        Self::check(&statements, found)
    }

    fn check(statements: &[Statement], found: Diagnostics) -> Result<Self, ConfigError> {
        let mut found = found.usable(Stage::Syntax)?;
        let (global, resources) = check::check(statements, &mut found);
        Ok(Self { resources, global, warnings: found.usable(Stage::Check)?.into_warnings() })
    }
}

/// The name by which this node finds itself in `on HOST {}`: the environment's `TANDEM_NODE`, else what `uname -n`
/// prints.
pub fn node_name() -> String {
    std::env::var(NODE_VARIABLE)
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| Some(std::fs::read_to_string(HOSTNAME_FILE).ok()?.trim().to_owned()))
        .unwrap_or_else(|| "localhost".to_owned())
}
