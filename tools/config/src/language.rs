//! The language without the words of drbd.conf, for other files of the same grammar: statements with their places, the
//! usual complaints about their shape, and what they are collected in.

pub use crate::diagnostic::{Diagnostics, quote};
pub use crate::load::{load, load_text};
pub use crate::spelling::nearest;
pub use crate::tree::{Statement, Word};
pub use crate::value::{address, plain_number};

use crate::diagnostic::Diagnostic;

/// Reports a section that stands a second time.
pub fn only_one<'a>(
    statement: &'a Statement,
    first: &mut Option<&'a Statement>,
    diagnostics: &mut Diagnostics,
) {
    match first {
        None => *first = Some(statement),
        Some(first) => {
            let error =
                Diagnostic::error(statement.span(), format!("duplicate `{}` section", statement.name()));
            diagnostics.push(error.related(first.span(), "it first stands here"));
        }
    }
}

/// The statements of a section that has a keyword, no name, and a body.
pub fn section_body<'a>(statement: &'a Statement, diagnostics: &mut Diagnostics) -> Option<&'a [Statement]> {
    if let Some(word) = statement.arguments.first() {
        let message = format!("expected `{{` behind `{}`, found {}", statement.name(), quote(&word.text));
        diagnostics.push(Diagnostic::error(&word.span, message));
        return None;
    }
    body(statement, diagnostics)
}

/// The statements of a section.
pub fn body<'a>(statement: &'a Statement, diagnostics: &mut Diagnostics) -> Option<&'a [Statement]> {
    if statement.body.is_none() {
        let message = format!("expected `{{` behind `{}`, found `;`", statement.name());
        diagnostics.push(Diagnostic::error(&statement.end, message));
    }
    statement.body.as_deref()
}

/// The words behind the keyword of a statement that ends in `;`, if there are `min` to `max` of them.
pub fn words<'a>(
    statement: &'a Statement,
    expected: &str,
    count: std::ops::RangeInclusive<usize>,
    diagnostics: &mut Diagnostics,
) -> Option<&'a [Word]> {
    let found = statement.arguments.as_slice();
    if let Some(excess) = found.get(*count.end()) {
        let error = missing_semicolon(statement, *count.start()).unwrap_or_else(|| {
            let message = format!("expected `;`, found {}", quote(excess.span.shown_text()));
            Diagnostic::error(&excess.span, message)
        });
        diagnostics.push(error);
        return None;
    }
    if found.len() < *count.start() {
        let message =
            format!("expected {expected} behind `{}`, found {}", statement.name(), end_mark(statement));
        diagnostics.push(Diagnostic::error(&statement.end, message));
        return None;
    }
    if statement.body.is_some() {
        let error = missing_semicolon(statement, *count.start());
        diagnostics
            .push(error.unwrap_or_else(|| Diagnostic::error(&statement.end, "expected `;`, found `{`")));
        return None;
    }
    Some(found)
}

/// Words that go on in a later line most often lack the `;` of the line before. The first `min` words may do so.
pub(crate) fn missing_semicolon(statement: &Statement, min: usize) -> Option<Diagnostic> {
    let before = std::iter::once(&statement.keyword).chain(&statement.arguments);
    let (before, after) = before
        .zip(&statement.arguments)
        .skip(min)
        .find(|(before, after)| before.span.line() != after.span.line())?;
    let [before_text, after_text] = [before, after].map(|word| quote(word.span.shown_text()));
    let message = format!("expected `;` behind {before_text}, found {after_text}");
    let error = Diagnostic::error(&before.span.after(), message).label("`;` is missing here");
    Some(Diagnostic { swallows: true, ..error })
}

pub(crate) fn end_mark(statement: &Statement) -> &'static str {
    if statement.body.is_some() { "`{`" } else { "`;`" }
}
