//! A random number, and the fixtures: configurations whose first lines say what becomes of them.
//!
//! ```text
//! # What it is.
//! # drbdadm: accepts | accepts (8.4) | refuses
//! # tandem: runs | parses | refuses       (parses: `dump` prints it and `up` refuses it)
//! # says: a part of the message           (for parses and refuses)
//! # because: why the two differ
//! # compare: no                           (drbdadm's dump loses something)
//! ```

// Not every test needs all of it.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use tandem_config::Config;

/// What DRBD's tools make of a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drbdadm {
    Accepts,
    /// The one of 8.4 accepts it.
    Accepts84,
    Refuses,
}

/// What Tandem makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tandem {
    Runs,
    Parses,
    Refuses,
}

/// One configuration.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) drbdadm: Drbdadm,
    pub(crate) tandem: Tandem,
    pub(crate) says: Vec<String>,
    pub(crate) because: Option<String>,
    pub(crate) compare: bool,
}

/// All fixtures, by name.
pub(crate) fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/tests/fixtures");
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Fixture {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let header: Vec<(&str, &str)> = text
        .lines()
        .map_while(|line| line.strip_prefix("# "))
        .skip(1)
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line}")))
        .collect();
    let value = |key: &str| header.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    let all = |key| header.iter().filter(move |(k, _)| *k == key).map(|(_, value)| (*value).to_owned());
    let drbdadm = match value("drbdadm") {
        Some("accepts") => Drbdadm::Accepts,
        Some("accepts (8.4)") => Drbdadm::Accepts84,
        Some("refuses") => Drbdadm::Refuses,
        other => panic!("{name}: drbdadm: {other:?}"),
    };
    let tandem = match value("tandem") {
        Some("runs") => Tandem::Runs,
        Some("parses") => Tandem::Parses,
        Some("refuses") => Tandem::Refuses,
        other => panic!("{name}: tandem: {other:?}"),
    };
    let because = value("because").map(str::to_owned);
    let compare = value("compare") != Some("no");
    Fixture { path: path.to_owned(), name, drbdadm, tandem, says: all("says").collect(), because, compare }
}

impl Fixture {
    /// Tandem's understanding of it; panics if it has none.
    pub(crate) fn config(&self) -> Config {
        Config::load(Some(&self.path)).unwrap_or_else(|error| panic!("{}:\n{error}", self.name))
    }
}

/// Marsaglia's xorshift: the same cases in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below the limit, and 0 if that is 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}
