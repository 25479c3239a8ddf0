//! Several hbd as one service: one of them leads, and all of them hear. A Redis holds the state, the
//! lease that says who leads, and the token that every change of the state is checked against.

pub mod connection;
pub mod keys;
pub mod script;
pub mod settings;
mod table_rows;
pub mod tables;
pub mod token;
