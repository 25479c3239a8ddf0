//! Notification: from an event to a delivered message.
//!
//! An event becomes deliveries ([`routing`], [`outbox`]), unless something holds it back ([`calm`]), in one transaction ([`courier`]); workers
//! make the attempts through the [`channel`]s, and the outbox decides what each result means.

pub mod calm;
pub mod channel;
pub mod courier;
pub mod delivery_log;
pub mod notifier;
pub mod outbox;
pub mod routing;
pub mod settings;
pub mod summary_times;
pub mod text;
mod worker;
