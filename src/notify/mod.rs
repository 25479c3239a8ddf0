//! From an event to a delivered message: route, outbox, courier, channels.

pub mod channel;
pub mod text;
