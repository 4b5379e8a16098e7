//! Which files a pattern names, by glob(7).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The files that a pattern names, sorted. `*`, `?` and `[a-z]` match within one path component, and no leading dot; `\`
/// takes the meaning of the next character away. A pattern without them names one file, which must exist; a pattern with
/// them may match none.
pub(crate) fn expand(pattern: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
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
    name.as_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

fn matching_entries(folder: &Path, pattern: &OsStr) -> io::Result<Vec<PathBuf>> {
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !listed.is_dir() {
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
        b'\\' if pattern.len() > 1 => (pattern.get(1) == Some(&byte)).then_some(2),
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
    let mut end = 0;
    while inside.get(end) != Some(&b']') || end == 0 {
        end += inside.get(end..).and_then(named_class).map_or(1, |(length, _)| length);
        inside.get(end)?;
    }
    Some((inside.get(..end)?, negated))
}

fn in_class(mut inside: &[u8], byte: u8) -> bool {
    while let [first, rest @ ..] = inside {
        if let Some((length, contains)) = named_class(inside) {
            if contains(&byte) {
                return true;
            }
            inside = inside.get(length..).unwrap_or_default();
            continue;
        }
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

/// Whether a byte belongs to a class.
type Contains = fn(&u8) -> bool;

/// `[:digit:]` and its like, of POSIX: how long it is, and what belongs to it.
fn named_class(text: &[u8]) -> Option<(usize, Contains)> {
    let classes: [(&str, Contains); 9] = [
        ("[:alnum:]", u8::is_ascii_alphanumeric),
        ("[:alpha:]", u8::is_ascii_alphabetic),
        ("[:blank:]", |byte| matches!(byte, b' ' | b'\t')),
        ("[:digit:]", u8::is_ascii_digit),
        ("[:lower:]", u8::is_ascii_lowercase),
        ("[:punct:]", u8::is_ascii_punctuation),
        ("[:space:]", u8::is_ascii_whitespace),
        ("[:upper:]", u8::is_ascii_uppercase),
        ("[:xdigit:]", u8::is_ascii_hexdigit),
    ];
    let found = classes.into_iter().find(|(name, _)| text.starts_with(name.as_bytes()))?;
    Some((found.0.len(), found.1))
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
            ("r[[:digit:]].res", "r2.res", true),
            ("r[[:digit:]].res", "ra.res", false),
            ("r[![:digit:]x].res", "ra.res", true),
            ("r[![:digit:]x].res", "rx.res", false),
            ("r[[:upper:][:digit:]_]", "r_", true),
            ("r\\*.res", "r*.res", true),
            ("r\\*.res", "rx.res", false),
            ("[a", "[a", true),
            ("[a", "a", false),
        ] {
            assert_eq!(matches_pattern(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
