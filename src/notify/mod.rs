//! From an event to a delivered message: route, outbox, courier, channels.

pub mod channel;
pub mod courier;
pub mod delivery_log;
pub mod notifier;
pub mod outbox;
pub mod routing;
pub mod settings;
pub mod text;
mod worker;
