//! Configuration files: YAML with the line of every node, read section by section. All problems are
//! reported at once, with suggestions for misspelled names.
//!
//! [`mod@file`] loads one; the features read their keys with [`section`].

pub mod file;
mod load_context;
pub mod section;
pub(crate) mod suggestion;
pub mod yaml;

pub use load_context::{Environment, LoadContext, open_to_others, trim_secret};
pub use section::{FlagOrSection, NameSet, Section};
