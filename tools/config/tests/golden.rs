//! What the operator reads of every bad fixture, to the letter: file, line, column, the line itself, a caret, advice.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write;
use std::path::Path;

use support::{Tandem, fixtures};
use tandem_config::Config;

#[test]
fn errors_are_worded_as_they_were() {
    let mut text = String::new();
    for fixture in fixtures().iter().filter(|fixture| fixture.tandem == Tandem::Refuses) {
        // Where the repository lies is of no importance.
        std::env::set_current_dir(fixture.path.parent().unwrap()).unwrap();
        let error = Config::load(fixture.path.file_name().map(Path::new)).unwrap_err().to_string();
        let _ = writeln!(text, "== {}\n{}\n", fixture.name, error.trim_end());
    }
    insta::assert_snapshot!(text);
}
