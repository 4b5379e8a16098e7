//! Source files and places in them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One configuration file as it was read.
pub(crate) struct SourceFile {
    path: PathBuf,
    text: String,
    /// Byte offset of the first character of each line; never empty.
    line_starts: Vec<usize>,
}

impl SourceFile {
    pub(crate) fn new(path: PathBuf, text: String) -> Arc<Self> {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Arc::new(Self { path, text, line_starts })
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

    /// The text of the line the span starts in, without its line end.
    pub(crate) fn line_text(&self) -> &str {
        let rest = self.file.text.get(self.line_start()..).unwrap_or_default();
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
