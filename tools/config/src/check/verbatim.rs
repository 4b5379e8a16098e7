//! Statements that are kept as they stand.

use crate::model::Verbatim;
use crate::source::Span;
use crate::tree::{Statement, Word};

/// Keeps what a `proxy` section says, and where the first one stands that says something.
pub(super) fn proxy(statement: &Statement, kept: &mut Vec<Verbatim>, first: &mut Option<Span>) {
    kept.extend(body(statement));
    if !kept.is_empty() {
        first.get_or_insert_with(|| statement.span().clone());
    }
}

/// What stands in a section.
fn body(statement: &Statement) -> Vec<Verbatim> {
    statement.body.iter().flatten().map(keep).collect()
}

/// A whole statement.
pub(super) fn keep(statement: &Statement) -> Verbatim {
    of(&statement.keyword, &statement.arguments, statement.body.as_deref())
}

/// Words, and perhaps what stands in braces behind them.
pub(super) fn of(first: &Word, others: &[Word], body: Option<&[Statement]>) -> Verbatim {
    let words = std::iter::once(first).chain(others);
    Verbatim {
        words: words.map(|Word { text, .. }| text.clone()).collect(),
        body: body.map(|body| body.iter().map(keep).collect()),
    }
}
