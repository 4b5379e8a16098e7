//! What is wrong with a configuration, shown with the line it is wrong in.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::source::Span;

/// Messages of one severity kept per run: enough to see a pattern, and a bound on what a broken file can cost.
const MAX_MESSAGES: usize = 100;
/// Longer lines are not shown beside the message, only named: no terminal helps to read them.
const MAX_SHOWN_LINE_BYTES: usize = 2000;
/// Longer words are cut in messages.
const MAX_QUOTED_CHARS: usize = 60;

/// Whether a message stops the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is usable.
    Warning,
    /// The configuration is refused.
    Error,
}

/// One message about the configuration. Its `Display` shows file, line, column and the line with a caret.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong: what was expected and what was found.
    pub message: String,
    /// Where; `None` if there is no line to show (the main file cannot be read).
    pub span: Option<Span>,
    /// Short text beside the caret; may be empty.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// A second place that explains the first, such as an earlier definition.
    pub related: Option<(Span, String)>,
    /// A statement was taken for a part of another: that it is missing is no mistake of its own.
    pub(crate) swallows: bool,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: &Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Some(span.clone()), message.into())
    }

    /// A warning at a place.
    pub fn warning(span: &Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Some(span.clone()), message.into())
    }

    /// An error at a place, or of the configuration as a whole.
    pub fn error_at(span: Option<&Span>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span.cloned(), message.into())
    }

    fn new(severity: Severity, span: Option<Span>, message: String) -> Self {
        Self { severity, message, span, label: String::new(), help: None, related: None, swallows: false }
    }

    /// Writes this beside the caret.
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// Says what to do about it.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Shows a second place.
    pub fn related(self, span: &Span, label: impl Into<String>) -> Self {
        Self { related: Some((span.clone(), label.into())), ..self }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.severity {
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        };
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        if let Some(span) = &self.span {
            group = show(group, span, AnnotationKind::Primary, &self.label);
        }
        if let Some((span, label)) = &self.related {
            group = show(group, span, AnnotationKind::Context, label);
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

fn show<'a>(group: Group<'a>, span: &'a Span, kind: AnnotationKind, label: &'a str) -> Group<'a> {
    let path = span.path().to_string_lossy();
    let line = span.line_text();
    if line.len() > MAX_SHOWN_LINE_BYTES {
        return group.element(Origin::path(path).line(span.line()).char_column(span.column()));
    }
    let mut annotation = kind.span(span.range_in_line());
    if !label.is_empty() {
        annotation = annotation.label(label);
    }
    group.element(Snippet::source(line).line_start(span.line()).path(path).annotation(annotation))
}

/// A word of the input for use inside a message: in backticks, without control characters, not too long.
pub fn quote(word: &str) -> String {
    let shown: String = word.chars().take(MAX_QUOTED_CHARS).flat_map(printable).collect();
    let dots = if word.chars().nth(MAX_QUOTED_CHARS).is_some() { "..." } else { "" };
    format!("`{shown}{dots}`")
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// Collects the messages of one run.
#[derive(Debug, Default)]
pub struct Diagnostics {
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) warnings: Vec<Diagnostic>,
    /// Errors beyond [`MAX_MESSAGES`].
    pub(crate) suppressed: usize,
}

impl Diagnostics {
    /// Keeps a message, once: what `common` says wrong is not repeated for every resource.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let severity = diagnostic.severity;
        let kept = match severity {
            Severity::Warning => &mut self.warnings,
            Severity::Error => &mut self.errors,
        };
        if kept.contains(&diagnostic) {
            return;
        }
        if kept.len() < MAX_MESSAGES {
            kept.push(diagnostic);
        } else if severity == Severity::Error {
            self.suppressed += 1;
        }
    }

    /// Whether the configuration is unusable.
    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// These messages, unless there are errors among them: then the configuration goes no further than this stage.
    pub fn usable(self, stage: Stage) -> Result<Self, ConfigError> {
        if self.has_errors() { Err(ConfigError::new(stage, self)) } else { Ok(self) }
    }

    /// The warnings.
    pub fn into_warnings(self) -> Vec<Diagnostic> {
        self.warnings
    }
}

/// How far the configuration came. DRBD's tools exit with 20 after the first and with 10 after the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A file that the command line names could not be read.
    File,
    /// An included file could not be read, or one is not of the grammar.
    Syntax,
    /// The grammar holds, but what is said cannot be used.
    Check,
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError {
    /// How far the configuration came.
    pub stage: Stage,
    /// At least one error, in the order of the files.
    pub errors: Vec<Diagnostic>,
    /// The warnings found on the way.
    pub warnings: Vec<Diagnostic>,
    /// Number of further errors that were found but not kept.
    pub suppressed: usize,
}

impl ConfigError {
    fn new(stage: Stage, found: Diagnostics) -> Self {
        // What no file says has no place.
        let unread = found.errors.iter().any(|error| error.span.is_none());
        let stage = if unread { Stage::File } else { stage };
        Self { stage, errors: found.errors, warnings: found.warnings, suppressed: found.suppressed }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n\n" };
            write!(f, "{separator}{error}")?;
        }
        match self.suppressed {
            0 => Ok(()),
            more => write!(f, "\n\nand {more} more errors"),
        }
    }
}
