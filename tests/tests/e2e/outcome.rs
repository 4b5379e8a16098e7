//! What a program ended with, and the programs under test.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a command ended with.
pub(crate) struct Outcome {
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { line, code, stdout, stderr } = self;
        write!(f, "{line}\nexit status {code:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

impl Outcome {
    pub(crate) fn of(mut command: Command) -> Outcome {
        let line = format!("{command:?}");
        let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{line}: {e}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome { line, code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Exit status 0, or a panic with everything that was said.
    #[track_caller]
    pub(crate) fn ok(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// This exit status, and this text on standard error.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, text: &str) -> Outcome {
        assert_eq!(self.code, Some(code), "expected exit status {code} and '{text}': {self:?}");
        assert!(self.stderr.contains(text), "expected '{text}': {self:?}");
        self
    }
}

/// A binary under test.
pub(crate) fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("TANDEM_BIN_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: cargo build --release", path.display());
    path
}
