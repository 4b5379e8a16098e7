//! Statements that may stand once.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::source::Span;
use crate::tree::Statement;

/// A statement that may stand once: whether it did, and its value if that was good.
#[derive(Clone, Debug)]
pub(super) struct Slot<T> {
    pub(super) span: Option<Span>,
    pub(super) value: Option<T>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { span: None, value: None }
    }
}

impl<T: Clone> Slot<T> {
    pub(super) fn fill(&mut self, statement: &Statement, value: Option<T>, diagnostics: &mut Diagnostics) {
        if let Some(earlier) = &self.span {
            let error = Diagnostic::error(statement.span(), format!("duplicate `{}`", statement.name()));
            diagnostics.push(error.related(earlier, "it is first set here"));
            return;
        }
        *self = Self { span: Some(statement.span().clone()), value };
    }

    pub(super) fn overlay(&mut self, over: &Self) {
        if over.span.is_some() {
            *self = over.clone();
        }
    }

    /// Whether the statement stood there, with a good value or not.
    pub(super) fn stands(&self) -> bool {
        self.span.is_some()
    }
}
