//! Lines of items, broken at the terminal's width where drbdsetup breaks them: the indentation does not count.

use crate::colours::columns;

/// A text under way.
#[derive(Debug)]
pub(crate) struct Wrapped {
    text: String,
    width: usize,
    /// Columns that the items of this line take, less one; `None` at its beginning.
    taken: Option<usize>,
}

impl Wrapped {
    pub(crate) fn new(width: usize) -> Wrapped {
        Wrapped { text: String::new(), width, taken: None }
    }

    /// Another item of the line; if it begins one, behind this many blanks.
    pub(crate) fn put(&mut self, indent: usize, item: &str) {
        let width = columns(item);
        match self.taken {
            Some(taken) if taken == 0 || taken + 1 + width <= self.width => {
                self.text.push(' ');
                self.text.push_str(item);
                self.taken = Some(taken + 1 + width);
            }
            Some(_) => {
                self.end_line();
                self.put(indent, item);
            }
            None => {
                self.text.extend(std::iter::repeat_n(' ', indent));
                self.text.push_str(item);
                self.taken = Some(width.saturating_sub(1));
            }
        }
    }

    pub(crate) fn put_all(&mut self, indent: usize, items: impl IntoIterator<Item = String>) {
        items.into_iter().for_each(|item| self.put(indent, &item));
    }

    pub(crate) fn end_line(&mut self) {
        self.text.push('\n');
        self.taken = None;
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}
