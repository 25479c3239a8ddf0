//! Configuration files: YAML with the line of every node, read section by section. All problems are
//! reported at once, with suggestions for misspelled names.
//!
//! [`mod@file`] loads one, with those that it includes; the features read their keys with [`section`].

pub mod file;
mod include;
mod load_context;
pub mod section;
mod sources;
pub(crate) mod suggestion;
mod text_file;
pub mod yaml;

pub use load_context::{Environment, LoadContext, open_to_others, trim_secret};
pub use section::{FlagOrSection, NameSet, Section};
