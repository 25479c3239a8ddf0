//! What is said when the daemon opens.

use log::{error, info};

use crate::clock::Now;
use crate::config::Config;
use crate::event::{Event, EventKind};
use crate::notify::courier::Courier;
use crate::store::Change;
use crate::store::Opened;
use crate::version::VERSION;

/// Tells people what became of the store while it was opened.
pub fn report(courier: &Courier, opened: Opened, now: Now) {
    let kind = match opened {
        Opened::Ready => return,
        Opened::MovedAside { why, to } => EventKind::StoreMovedAside { why, to },
        Opened::Refused { why } => {
            error!("the state cannot be written: {why}");
            EventKind::StoreRefuses { why }
        }
    };
    let events = vec![Event::new(now.wall, kind)];
    courier.commit(Change { events, ..Change::default() });
}

/// Says where it is ready to hear and to be asked.
pub fn announce(config: &Config, hosts: usize, udp: &str, tcp: &str) {
    info!(
        "hbd {} is ready: heartbeats on UDP {udp}, HTTP on {tcp}, {hosts} hosts, state in {}",
        VERSION,
        config.state_dir.display()
    );
}
