//! Maps and sets from iterators, without the code of a sort for each type.

/// Collects by insertion.
pub trait InsertAll: Iterator + Sized {
    /// What `collect` gives, for a `BTreeMap` or a `BTreeSet`. That one sorts all elements first: sooner
    /// done for many thousands, and 4 kB of code for each type of element.
    fn insert_all<C: Default + Extend<Self::Item>>(self) -> C {
        let mut all = C::default();
        all.extend(self);
        all
    }
}

impl<I: Iterator> InsertAll for I {}
