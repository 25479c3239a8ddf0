//! From an event to a delivered message: route, outbox, courier, channels.

pub mod channel;
pub mod courier;
pub mod direct;
pub mod equipment;
pub mod history;
pub mod line;
pub mod outbox;
mod rate;
pub mod route;
pub mod settings;
mod tally;
pub mod text;
mod worker;
