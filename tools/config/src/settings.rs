//! Options that are set at one level.

use std::collections::BTreeMap;

use crate::options::{self, OPTIONS, OptionDef, Section, Value};

/// Options that are set, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<usize, Value>);

impl Settings {
    /// The value of an option, if it is set.
    pub fn get(&self, section: Section, name: &str) -> Option<&Value> {
        options::find(section, name).and_then(|(index, _)| self.0.get(&index))
    }

    /// The value of an option, or its default if it has one.
    pub fn effective(&self, section: Section, name: &str) -> Option<Value> {
        let (index, definition) = options::find(section, name)?;
        self.0.get(&index).cloned().or_else(|| definition.kind.default_value())
    }

    /// All options that are set, with their definitions.
    pub fn iter(&self) -> impl Iterator<Item = (&'static OptionDef, &Value)> {
        self.0.iter().filter_map(|(&index, value)| OPTIONS.get(index).map(|definition| (definition, value)))
    }

    /// What holds at an inner level: its own options, and these where it has none.
    pub fn overlaid(&self, inner: &Self) -> Self {
        let mut merged = self.clone();
        merged.0.extend(inner.0.iter().map(|(&option, value)| (option, value.clone())));
        merged
    }

    /// What an outer level does not say already.
    pub fn without(&self, outer: &Self) -> Self {
        let said = |option: &usize, value: &Value| outer.0.get(option) == Some(value);
        let own = self.0.iter().filter(|(option, value)| !said(option, value));
        Self(own.map(|(&option, value)| (option, value.clone())).collect())
    }

    /// The word, or the first of its choices, that an option of the table has.
    pub(crate) fn word(&self, section: Section, name: &str) -> String {
        match self.effective(section, name) {
            Some(Value::Text(word)) => word,
            _ => String::new(),
        }
    }

    /// The word of an option, if it is set to anything but `none`.
    pub(crate) fn chosen(&self, section: Section, name: &str) -> Option<String> {
        Some(self.word(section, name)).filter(|word| !word.is_empty() && word != "none")
    }

    /// Whether an option that is a flag holds.
    pub(crate) fn flag(&self, section: Section, name: &str) -> bool {
        self.effective(section, name) == Some(Value::Flag(true))
    }

    /// The value or default of a numeric option of the table, in its unit.
    pub(crate) fn number(&self, section: Section, name: &str) -> u64 {
        match self.effective(section, name) {
            Some(Value::Number(number)) => number,
            other => {
                debug_assert!(false, "{name} is not a number of the table: {other:?}");
                0
            }
        }
    }
}

impl FromIterator<(usize, Value)> for Settings {
    fn from_iter<I: IntoIterator<Item = (usize, Value)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
