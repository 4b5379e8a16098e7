//! Source files and places in them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The option whose value is nobody else's business.
const SECRET_KEYWORD: &str = "shared-secret";

/// One configuration file as it was read.
pub(crate) struct SourceFile {
    path: PathBuf,
    text: String,
    /// The text as messages may show it: of the same length, without secrets.
    shown: String,
    /// Byte offset of the first character of each line; never empty.
    line_starts: Vec<usize>,
}

impl SourceFile {
    pub(crate) fn new(path: PathBuf, text: String) -> Arc<Self> {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let shown = without_secrets(&text);
        Arc::new(Self { path, text, shown, line_starts })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// A range of bytes in one file. Keeps the file alive, so a message can be shown long after the parse.
#[derive(Clone)]
pub struct Span {
    file: Arc<SourceFile>,
    start: usize,
    end: usize,
}

impl Span {
    pub(crate) fn new(file: &Arc<SourceFile>, range: std::ops::Range<usize>) -> Self {
        Self { file: Arc::clone(file), start: range.start, end: range.end }
    }

    /// The empty span just behind this one.
    pub(crate) fn after(&self) -> Self {
        Self { start: self.end, ..self.clone() }
    }

    pub(crate) fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    /// How many bytes of its line stand before the span.
    pub(crate) fn indent(&self) -> usize {
        self.start - self.line_start()
    }

    /// The file the span lies in, as it was named when it was opened.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The line the span starts in, counted from 1.
    pub fn line(&self) -> usize {
        self.file.line_starts.partition_point(|&start| start <= self.start)
    }

    /// The column the span starts in, counted in characters from 1.
    pub fn column(&self) -> usize {
        self.file.text.get(self.line_start()..self.start).map_or(1, |before| before.chars().count() + 1)
    }

    /// What the span covers, as a message may show it.
    pub(crate) fn shown_text(&self) -> &str {
        self.file.shown.get(self.start..self.end).unwrap_or_default().trim_matches('"')
    }

    /// The text of the line the span starts in, as a message may show it, without its line end.
    pub(crate) fn line_text(&self) -> &str {
        let rest = self.file.shown.get(self.line_start()..).unwrap_or_default();
        rest.split('\n').next().unwrap_or_default().trim_end_matches('\r')
    }

    /// The part of the span that lies in its first line, in bytes of [`Span::line_text`].
    pub(crate) fn range_in_line(&self) -> std::ops::Range<usize> {
        let length = self.line_text().len();
        let start = (self.start - self.line_start()).min(length);
        start..(self.end - self.line_start()).clamp(start, length)
    }

    fn line_start(&self) -> usize {
        self.file.line_starts.get(self.line() - 1).copied().unwrap_or(0)
    }
}

/// The text with `*` for every byte of a secret: what is wrong with a configuration is often shown to others. A file that
/// cannot be parsed must not give it away either, so that this looks at characters only: from the keyword on, everything
/// up to the `;` or, once there was something, up to the end of the line.
fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SECRET_KEYWORD) {
        let (before, behind) = rest.split_at(at + SECRET_KEYWORD.len());
        shown.push_str(before);
        rest = &behind[mask_secret(behind, &mut shown)..];
    }
    shown + rest
}

/// Masks the words at the beginning of `text`; returns how many bytes of it they take.
fn mask_secret(text: &str, shown: &mut String) -> usize {
    let (mut quoted, mut masked, mut escaped) = (false, false, false);
    for (at, c) in text.char_indices() {
        let ends = (c == ';' && !quoted) || (c == '\n' && masked);
        if ends {
            return at;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && !escaped;
        if c.is_whitespace() || c == '"' {
            shown.push(c);
        } else {
            masked = true;
            shown.extend(std::iter::repeat_n('*', c.len_utf8()));
        }
    }
    text.len()
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.start == other.start && self.end == other.end
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path().display(), self.line(), self.column())
    }
}
