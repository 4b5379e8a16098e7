//! Values by small reusable numbers.

/// A set of values, each named by a number that is free again once the value is taken.
pub(crate) struct Slab<T> {
    values: Vec<Option<T>>,
    vacant: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { values: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Adds a value; returns its number.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        match self.vacant.pop() {
            Some(slot) => {
                self.values[slot] = Some(value);
                slot
            }
            None => {
                self.values.push(Some(value));
                self.values.len() - 1
            }
        }
    }

    /// Takes the value out, if the number names one.
    pub(crate) fn take(&mut self, slot: usize) -> Option<T> {
        let value = self.values.get_mut(slot)?.take()?;
        self.vacant.push(slot);
        Some(value)
    }

    /// The value, if the number names one.
    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.values.get_mut(slot)?.as_mut()
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len() - self.vacant.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_but_name_one_value() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert("a"), slab.insert("b"));
        assert_eq!(slab.take(a), Some("a"));
        assert_eq!((slab.take(a), slab.take(99)), (None, None));
        assert_eq!(slab.insert("c"), a);
        assert_eq!((slab.get_mut(b).copied(), slab.get_mut(99)), (Some("b"), None));
        assert_eq!((slab.len(), slab.take(b)), (2, Some("b")));
    }
}
