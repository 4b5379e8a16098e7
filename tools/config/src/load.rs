//! Reads the main file and what it includes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::source::{SourceFile, Span};
use crate::tree::{Statement, parse};

/// Ten thousand resources are a few MiB; a larger file is a mistake (a disk image, a log).
pub(crate) const MAX_FILE_BYTES: u64 = 8 << 20;
/// Files read in one run: bounds what includes that fan out can cost.
const MAX_FILES: usize = 16_384;
/// All of their text.
const MAX_TOTAL_BYTES: usize = 64 << 20;
/// Includes inside includes.
const MAX_INCLUDE_DEPTH: usize = 16;

/// All top-level statements of the file and of its includes, in order.
pub fn load(path: &Path, diagnostics: &mut Diagnostics) -> Vec<Statement> {
    let mut loader = Loader { diagnostics, open: Vec::new(), files: 0, bytes: 0 };
    loader.file(path, None)
}

/// As [`load`], of a text that stands for the file `path`.
pub fn load_text(path: &Path, text: &str, diagnostics: &mut Diagnostics) -> Vec<Statement> {
    let mut loader = Loader { diagnostics, open: Vec::new(), files: 0, bytes: 0 };
    if text.len() as u64 > MAX_FILE_BYTES {
        loader.unreadable(path, None, &too_large());
        return Vec::new();
    }
    loader.text(path, text.to_owned())
}

struct Loader<'d> {
    diagnostics: &'d mut Diagnostics,
    /// The files being read, outermost first, by their canonical paths.
    open: Vec<PathBuf>,
    files: usize,
    /// What was read so far.
    bytes: usize,
}

impl Loader<'_> {
    fn file(&mut self, path: &Path, from: Option<&Span>) -> Vec<Statement> {
        if let Err(reason) = self.enter(path) {
            self.unreadable(path, from, &reason);
            return Vec::new();
        }
        let statements = match read(path) {
            Ok(text) => self.text(path, text),
            Err(reason) => {
                self.unreadable(path, from, &reason);
                Vec::new()
            }
        };
        self.open.pop();
        statements
    }

    /// Notes that `path` is being read, unless a limit forbids it.
    fn enter(&mut self, path: &Path) -> Result<(), String> {
        let canonical = fs::canonicalize(path).map_err(|error| error.to_string())?;
        if self.open.contains(&canonical) {
            let chain: Vec<_> =
                self.open.iter().chain([&canonical]).map(|p| p.display().to_string()).collect();
            return Err(format!("it includes itself: {}", chain.join(" -> ")));
        }
        if self.open.len() > MAX_INCLUDE_DEPTH {
            return Err(format!("includes are nested deeper than {MAX_INCLUDE_DEPTH} levels"));
        }
        if self.files >= MAX_FILES {
            return Err(format!("more than {MAX_FILES} files are included"));
        }
        if self.bytes > MAX_TOTAL_BYTES {
            return Err(format!("more than {} MiB are included", MAX_TOTAL_BYTES >> 20));
        }
        self.files += 1;
        self.open.push(canonical);
        Ok(())
    }

    fn text(&mut self, path: &Path, text: String) -> Vec<Statement> {
        self.bytes += text.len();
        let file = SourceFile::new(path.to_owned(), text);
        let mut all = Vec::new();
        for statement in parse(&file, self.diagnostics) {
            if statement.name() == "include" {
                all.extend(self.include(path, &statement));
            } else {
                all.push(statement);
            }
        }
        all
    }

    fn include(&mut self, includer: &Path, statement: &Statement) -> Vec<Statement> {
        let [pattern] = statement.arguments.as_slice() else {
            let message =
                format!("expected one file name behind `include`, found {}", statement.arguments.len());
            self.diagnostics.push(Diagnostic::error(statement.span(), message));
            return Vec::new();
        };
        if statement.body.is_some() {
            self.diagnostics.push(Diagnostic::error(&statement.end, "expected `;`, found `{`"));
            return Vec::new();
        }
        let folder = includer.parent().unwrap_or(Path::new(""));
        match expand(&folder.join(&pattern.text)) {
            Ok(paths) => paths.iter().flat_map(|path| self.file(path, Some(&pattern.span))).collect(),
            Err((path, reason)) => {
                self.unreadable(&path, Some(&pattern.span), &reason.to_string());
                Vec::new()
            }
        }
    }

    fn unreadable(&mut self, path: &Path, from: Option<&Span>, reason: &str) {
        let message = format!("cannot read {}: {reason}", quote(&path.to_string_lossy()));
        let error = Diagnostic::error_at(from, message);
        self.diagnostics.push(match from {
            Some(_) => error,
            // Nobody but the command line has named it.
            None => error.help("`-c FILE` names another"),
        });
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}; run it as root"),
        _ => error.to_string(),
    })?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|&&byte| byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8 text (byte {valid} of the file)")
    })
}

fn too_large() -> String {
    format!("it is larger than {} KiB, the limit for a configuration file", MAX_FILE_BYTES >> 10)
}

/// The files that a pattern names, sorted. `*`, `?` and `[a-z]` match within one path component, and no leading dot. A
/// pattern without them names one file, which must exist; a pattern with them may match none.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut found = vec![PathBuf::new()];
    let mut wild = false;
    for component in pattern.components() {
        let Component::Normal(name) = component else {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        };
        if !is_wild(name) {
            found.iter_mut().for_each(|path| path.push(name));
            // Behind a wildcard, a folder without that entry is no match rather than an error.
            found.retain(|path| !wild || path.exists());
            continue;
        }
        wild = true;
        let mut matches = Vec::new();
        for folder in found {
            matches.extend(matching_entries(&folder, name).map_err(|error| (folder, error))?);
        }
        matches.sort();
        found = matches;
    }
    Ok(found)
}

fn is_wild(name: &OsStr) -> bool {
    name.as_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

fn matching_entries(folder: &Path, pattern: &OsStr) -> io::Result<Vec<PathBuf>> {
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !listed.is_dir() && listed.exists() {
        return Ok(Vec::new());
    }
    let mut matches = Vec::new();
    for entry in fs::read_dir(listed)? {
        let name = entry?.file_name();
        let hidden = name.as_bytes().starts_with(b".") && !pattern.as_bytes().starts_with(b".");
        if !hidden && matches_pattern(pattern.as_bytes(), name.as_bytes()) {
            matches.push(folder.join(name));
        }
    }
    Ok(matches)
}

/// `*` stands for any bytes, `?` for one, brackets for one of those in them. Remembers only the last star, so the cost is
/// at most the product of lengths.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while let Some(&byte) = name.get(n) {
        let rest = pattern.get(p..).unwrap_or_default();
        if rest.first() == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(length) = one_matches(rest, byte) {
            p += length;
            n += 1;
        } else {
            let Some((star_p, star_n)) = star else { return false };
            star = Some((star_p, star_n + 1));
            p = star_p + 1;
            n = star_n + 1;
        }
    }
    pattern.iter().skip(p).all(|&byte| byte == b'*')
}

/// The length of what stands for one byte at the beginning of the pattern, if it stands for this one.
fn one_matches(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match class(pattern) {
            Some((inside, negated)) => {
                let length = inside.len() + if negated { 3 } else { 2 };
                (in_class(inside, byte) != negated).then_some(length)
            }
            // A bracket that is not closed stands for itself.
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// What stands between the brackets, and whether everything else is meant. A `]` at the beginning is one of the bytes.
fn class(pattern: &[u8]) -> Option<(&[u8], bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let inside = pattern.get(if negated { 2 } else { 1 }..)?;
    let close = inside.iter().skip(1).position(|&byte| byte == b']')? + 1;
    Some((&inside[..close], negated))
}

fn in_class(mut inside: &[u8], byte: u8) -> bool {
    while let [first, rest @ ..] = inside {
        let (last, rest) = match rest {
            [b'-', last, rest @ ..] => (last, rest),
            _ => (first, rest),
        };
        if (first..=last).contains(&&byte) {
            return true;
        }
        inside = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn wildcards_match_within_a_name() {
        for (pattern, name, expected) in [
            ("*.res", "r0.res", true),
            ("*.res", "r0.res.bak", false),
            ("r?.res", "r0.res", true),
            ("r?.res", "r.res", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("*", "", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("r[0-3].res", "r2.res", true),
            ("r[0-3].res", "r4.res", false),
            ("r[!0-3]*", "r4.res", true),
            ("r[^0-3]*", "r3.res", false),
            ("[]x-]a", "]a", true),
            ("[]x-]a", "-a", true),
            ("[]x-]a", "ya", false),
            ("*[ab]", "xxab", true),
            ("[a", "[a", true),
            ("[a", "a", false),
        ] {
            assert_eq!(matches_pattern(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
