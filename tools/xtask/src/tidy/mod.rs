//! The rules of the house that no compiler checks. Each is a function from a file to complaints.

mod code;
mod scenarios;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::process::Result;
use crate::repo;

/// Longest Rust file, in lines that hold code; a longer one is asking to be two rooms.
const MAX_CODE_LINES: usize = 600;
/// Longest ARCHITECTURE.md: it must stay one page.
const MAX_ARCHITECTURE_LINES: usize = 120;
/// Files in which trailing white space matters.
const TEXT_EXTENSIONS: &[&str] = &["rs", "md", "toml", "sh", "res", "conf", "yml", "service"];
/// Words that promise what is not there. Split, so that this file does not hold them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("todo", "!"),
    concat!("dbg", "!"),
];
/// What must be absent from the core: I/O, clocks, randomness, threads, async.
const CORE: &str = "replicator/core/src";
const ABSENT_FROM_CORE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::time",
    "Instant::now",
    "SystemTime",
    "tokio",
    "async",
    "await",
    "unsafe",
    "rand",
    "getrandom",
];
/// The only modules that may hold `unsafe` code, each with its invariant written above it.
const UNSAFE_ALLOWED: &[&str] = &[
    "nfs-failover/src/system/shut_down.rs",
    "replicator/daemon/src/resource/ring.rs",
    "replicator/device/src/sys.rs",
];

/// Prints the complaints; any is an error.
pub(crate) fn report() -> Result<()> {
    let complaints = check()?;
    for complaint in &complaints {
        println!("{complaint}");
    }
    match complaints.len() {
        0 => Ok(()),
        n => Err(format!("tidy: {n} complaints").into()),
    }
}

/// Every complaint about every file of the repository.
fn check() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in repo::files(false)? {
        let Ok(text) = std::fs::read_to_string(repo::root().join(&path)) else { continue };
        complaints.extend(complaints_about(&path, &text));
        let read = |path: &Path| std::fs::read_to_string(repo::root().join(path)).ok();
        let about_tests = match path.to_str() {
            Some(scenarios::TABLE) => scenarios::complaints(&text, read),
            Some(scenarios::FAILURES) => scenarios::complaints_about_failures(&text, read),
            _ => Vec::new(),
        };
        let mut found = Complaints { path: &path, list: Vec::new() };
        about_tests.iter().for_each(|(line, what)| found.line(*line, what));
        complaints.extend(found.list);
    }
    Ok(complaints)
}

fn complaints_about(path: &Path, text: &str) -> Vec<String> {
    let mut found = Complaints { path, list: Vec::new() };
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if TEXT_EXTENSIONS.contains(&extension) {
        trailing_space(text, &mut found);
    }
    match extension {
        "rs" => rust(path, text, &mut found),
        "md" => markdown(path, text, &mut found),
        _ => {}
    }
    found.list
}

struct Complaints<'a> {
    path: &'a Path,
    list: Vec<String>,
}

impl Complaints<'_> {
    fn file(&mut self, what: &str) {
        self.list.push(format!("{}: {what}", self.path.display()));
    }

    fn line(&mut self, index: usize, what: &str) {
        let mut complaint = String::new();
        let _ = write!(complaint, "{}:{}: {what}", self.path.display(), index + 1);
        self.list.push(complaint);
    }
}

fn trailing_space(text: &str, found: &mut Complaints<'_>) {
    for (index, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            found.line(index, "trailing white space");
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        found.file("the last line does not end");
    }
}

fn rust(path: &Path, text: &str, found: &mut Complaints<'_>) {
    if text.lines().find(|line| !line.starts_with("#!")).is_none_or(|line| !line.starts_with("//!")) {
        found.file("does not begin with a //! line that says what it is");
    }
    for (index, line) in text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|w| code::has_word(line, w)) {
            found.line(index, &format!("{word}: finish it or leave it out"));
        }
    }
    let code = code::without_comments_and_strings(text);
    let code_lines = code.lines().filter(|l| !l.trim().is_empty()).count();
    if code_lines > MAX_CODE_LINES {
        found.file(&format!("{code_lines} lines of code, more than {MAX_CODE_LINES}: make it two files"));
    }
    let is_core = path.starts_with(CORE);
    let may_be_unsafe = UNSAFE_ALLOWED.iter().any(|allowed| path.starts_with(allowed));
    for (index, line) in code.lines().enumerate() {
        for word in ABSENT_FROM_CORE.iter().filter(|w| is_core && code::has_word(line, w)) {
            found.line(index, &format!("{word} must be absent from the core"));
        }
        if !is_core && !may_be_unsafe && code::has_word(line, "unsafe") {
            found.line(index, "unsafe code outside the modules that tools/xtask/src/tidy names");
        }
    }
}

fn markdown(path: &Path, text: &str, found: &mut Complaints<'_>) {
    if path == Path::new("ARCHITECTURE.md") && text.lines().count() > MAX_ARCHITECTURE_LINES {
        found.file(&format!("longer than {MAX_ARCHITECTURE_LINES} lines: it must stay one page"));
    }
    let mut in_fence = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        let links = if in_fence { Vec::new() } else { local_links(line) };
        for link in links {
            let target: PathBuf = repo::root().join(path.parent().unwrap_or(Path::new(""))).join(link);
            if !target.exists() {
                found.line(index, &format!("link to {link}, which is not there"));
            }
            if path.starts_with("docs") && link.starts_with("../packaging/") {
                found.line(
                    index,
                    &format!("link to {link}, which the packages install elsewhere: name the place"),
                );
            }
        }
    }
}

/// The targets of `[text](target)` that are files: without anchors, without addresses.
fn local_links(line: &str) -> Vec<&str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let files = targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:"));
    files.filter_map(|t| t.split('#').next()).filter(|t| !t.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let complaints = check().unwrap();
        assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    }

    fn about(path: &str, text: &str) -> String {
        complaints_about(Path::new(path), text).join("\n")
    }

    #[test]
    fn every_rule_can_complain() {
        let core = |code: &str| about("replicator/core/src/a.rs", &format!("//! A.\n{code}\n"));
        assert_eq!(core("use std::collections::HashMap; // std::fs is absent, and async too"), "");
        assert!(core("use std::fs;").contains("a.rs:2: std::fs must be absent"));
        assert!(core("async fn a() {}").contains("async must be absent"));
        assert!(core("let n = rand::random();").contains("rand must be absent"));
        assert_eq!(core("let operand = 1; let brand = \"unsafe async\";"), "");
        assert!(about("tests/src/a.rs", "//! A.\nunsafe {}\n").contains("a.rs:2: unsafe"));
        assert_eq!(about("tests/src/a.rs", "//! A.\n#![deny(unsafe_code)]\n"), "");
        assert!(about("a.rs", "fn a() {}\n").contains("does not begin with"));
        let unfinished = format!("//! A.\n// {}: later\n", UNFINISHED[0]);
        assert!(about("a.rs", &unfinished).contains("finish it"));
        let long = format!("//! A.\n{}", "a();\n".repeat(MAX_CODE_LINES + 1));
        assert!(about("a.rs", &long).contains("make it two files"));
        assert_eq!(about("a.rs", &format!("//! A.\n{}", "// a\n\n".repeat(MAX_CODE_LINES))), "");
        assert!(about("a.toml", "a = 1 \n").contains("a.toml:1: trailing"));
        assert!(about("a.md", "a").contains("does not end"));
        assert!(about("ARCHITECTURE.md", &"a\n".repeat(121)).contains("one page"));
    }

    #[test]
    fn links_are_followed() {
        assert!(
            about("docs/a.md", "see [b](no-such-file.md)\n").contains("docs/a.md:1: link to no-such-file.md")
        );
        assert_eq!(
            about("docs/a.md", "see [c](../Cargo.toml#top), [d](#here), [e](https://example.org/x)\n"),
            ""
        );
        assert_eq!(about("docs/a.md", "```\n[b](no-such-file.md)\n```\n"), "");
        let installed = about("docs/a.md", "[the hook](../packaging/hooks/postgresql)\n");
        assert!(installed.contains("install elsewhere"), "{installed}");
    }
}
