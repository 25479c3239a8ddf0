//! Configuration files: YAML with the line of every node, read section by section, with all that is
//! wrong found in one go and a suggestion for near misses.
//!
//! [`file`] loads one; [`section`] is what the features read their keys with.

pub mod file;
mod load_context;
pub mod section;
pub(crate) mod suggestion;
pub mod yaml;

pub use load_context::{Environment, LoadContext, open_to_others};
pub use section::{FlagOrSection, Names, Section};
