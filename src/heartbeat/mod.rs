//! The monitor: datagrams come in, hosts are watched, events go out.
//!
//! The path of a datagram, from the socket to the courier:
//!
//! ```text
//! listener   the UDP thread receives it (or the web server, over HTTP)
//!    │
//!    ▼
//! monitor    parses it (datagram), takes the lock
//!    │
//!    ▼
//! fleet      ingest: authenticates it (auth), finds its host and connection,
//!    │          applies it: host ─▶ connection (state, deadline) ─▶ metric (threshold)
//!    │          deadlines: schedules when the connection is overdue
//!    ▼
//! monitor    sends events and rows (persistence) as one Change, releases the lock
//!    │
//!    ▼
//! courier    stores and notifies; the answer (encode) is sent when the change is stored
//! ```
//!
//! The deadline thread takes the same way from `Fleet::due`; the history reads `uptime` samples, the
//! API the views of `fleet`.

mod auth;
mod blindness;
mod boots;
pub mod clocks;
#[cfg(test)]
mod cluster_tests;
mod connection;
mod counters;
pub mod datagram;
pub mod depends_on;
pub mod encode;
pub mod event_limits;
pub mod fleet;
#[cfg(test)]
mod flood_tests;
mod former_names;
mod goodbye;
mod host;
pub mod host_settings;
mod job;
mod labels;
pub mod last_beats;
pub mod listener;
mod logged_once;
mod loop_clock;
mod metric;
pub mod monitor;
mod packet_info;
pub mod persistence;
#[cfg(test)]
mod property_tests;
mod refused;
pub mod renotify;
pub mod settings;
pub mod standby;
#[cfg(test)]
mod test_fleet;
pub mod threshold;
mod uptime;
