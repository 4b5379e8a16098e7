//! Statements that are kept as they stand.

use crate::model::Verbatim;
use crate::tree::{Statement, Word};

/// What stands in a section.
pub(super) fn body(statement: &Statement) -> Vec<Verbatim> {
    statement.body.iter().flatten().map(keep).collect()
}

/// A whole statement.
pub(super) fn keep(statement: &Statement) -> Verbatim {
    let words = std::iter::once(&statement.keyword).chain(&statement.arguments);
    Verbatim {
        words: words.map(|Word { text, .. }| text.clone()).collect(),
        body: statement.body.is_some().then(|| body(statement)),
    }
}
