//! docs/drbd-scenarios.md and docs/failure-modes.md: every test that they name is there.

use std::path::{Path, PathBuf};

/// The table of DRBD's scenarios.
pub(super) const TABLE: &str = "docs/drbd-scenarios.md";
/// The tables of what can go wrong.
pub(super) const FAILURES: &str = "docs/failure-modes.md";
/// Scenarios of DRBD's that must be played at least.
const MIN_SCENARIOS: usize = 60;
/// Where the tests of a first word live.
const FOLDERS: [(&str, &str); 5] = [
    ("pair", "replicator/core/tests/pair"),
    ("e2e", "tests/tests/e2e"),
    ("ha", "tests/tests/ha"),
    ("daemon", "replicator/daemon/src"),
    ("nfs", "nfs-failover/src"),
];

/// What is wrong with the table; `read` gives the text of a file of the repository.
pub(super) fn complaints(text: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut played = 0;
    for (index, line) in text.lines().enumerate() {
        let Some(tests) = row(line) else { continue };
        played += 1;
        if tests.is_empty() {
            found.push((index, "the scenario has no test".into()));
        }
        for test in tests.into_iter().filter(|test| !exists(test, &read)) {
            found.push((index, format!("the test {test} is not there")));
        }
    }
    if played < MIN_SCENARIOS {
        found.push((0, format!("{played} scenarios, fewer than {MIN_SCENARIOS}")));
    }
    found
}

/// What is wrong with the tables of failures: each row names tests that are there, or says that there is none.
pub(super) fn complaints_about_failures(
    text: &str,
    read: impl Fn(&Path) -> Option<String>,
) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [event, .., shown] = cells.as_slice() else { continue };
        if !line.starts_with("| ") || *event == "| event" {
            continue;
        }
        let tests = named(shown);
        if cells.len() != 5 {
            found.push((index, format!("{} cells, not 5", cells.len())));
        } else if tests.is_empty() && !shown.contains("no test") {
            found.push((index, "the row names no test and does not say so".into()));
        }
        found.extend(
            tests
                .into_iter()
                .filter(|test| !exists(test, &read))
                .map(|test| (index, format!("the test {test} is not there"))),
        );
    }
    found
}

/// The tests that a row of the table names, if the line is one that tells of a scenario.
fn row(line: &str) -> Option<Vec<&str>> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
    let [name, _, ours] = cells.as_slice() else { return None };
    if name.starts_with("**") || ours.starts_with("ours") {
        return None;
    }
    Some(named(ours))
}

/// Whatever is quoted and looks like a path of a test.
fn named(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).filter(|text| text.contains("::")).collect()
}

/// `pair::roles::outdate` is the function `outdate` in `roles.rs` or `roles/mod.rs`, `pair::outdate` in `main.rs`.
fn exists(test: &str, read: impl Fn(&Path) -> Option<String>) -> bool {
    let words: Vec<&str> = test.split("::").collect();
    let [first, modules @ .., function] = words.as_slice() else { return false };
    let Some((_, folder)) = FOLDERS.iter().find(|(word, _)| word == first) else { return false };
    let mut path = PathBuf::from(folder);
    path.extend(if modules.is_empty() { &["main"][..] } else { modules });
    [path.with_extension("rs"), path.join("mod.rs")].iter().filter_map(|path| read(path)).any(|text| {
        let text: String = text.lines().flat_map(|line| [line.trim_start(), "\n"]).collect();
        text.contains(&format!("#[test]\nfn {function}(")) || with_reason(&text, function)
    })
}

/// An end-to-end test says between the two lines why plain `cargo test` passes it by.
fn with_reason(text: &str, function: &str) -> bool {
    text.split("#[test]\n#[ignore").skip(1).any(|rest| {
        rest.split_once('\n').is_some_and(|(_, next)| next.starts_with(&format!("fn {function}(")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_not_there_is_noticed() {
        let read = |path: &Path| match path.to_str() {
            Some("replicator/core/tests/pair/roles.rs") => {
                Some("#[test]\nfn outdate() {}\nfn helper() {}\n".into())
            }
            Some("tests/tests/e2e/torture.rs") => {
                Some("#[test]\n#[ignore = \"why\"]\nfn protocol_a() {}\n".into())
            }
            _ => None,
        };
        for good in ["pair::roles::outdate", "e2e::torture::protocol_a"] {
            assert!(exists(good, read), "{good}");
        }
        for bad in [
            "pair::roles::helper",
            "pair::outdate",
            "pair::gone::outdate",
            "other::roles::outdate",
            "outdate",
        ] {
            assert!(!exists(bad, read), "{bad}");
        }
        let rows = "| event | a | b | c | shown by |\n|---|---|---|---|---|\n| x | a | b | c | `pair::roles::outdate` |\n\
                    | y | a | b | c | no test yet |\n| z | a | b | c | hope |\n| v | a | b | c | `pair::roles::v` |\n\
                    | w | a | no test |\n";
        let lines: Vec<usize> = complaints_about_failures(rows, read).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 6]);
        let text = "| DRBD's test | what must hold | ours |\n|---|---|---|\n| **roles** | | |\n\
                    | outdate | it knows | `pair::roles::outdate` |\n| b | c | `pair::roles::b` |\n| d | e | f |\n";
        let found = complaints(text, read);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 0], "{found:?}");
        assert!(found[2].1.starts_with("3 scenarios"));
    }
}
