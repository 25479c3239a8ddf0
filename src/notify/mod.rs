//! From an event to a delivered message: route, outbox, courier, channels.

pub mod channel;
pub mod courier;
pub mod direct;
pub mod history;
pub mod line;
pub mod outbox;
pub mod route;
pub mod settings;
pub mod text;
