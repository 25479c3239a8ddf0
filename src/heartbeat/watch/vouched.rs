//! Beats that do not come from the network: somebody in this process vouches for them.

use std::net::Ipv4Addr;

use log::warn;

use super::{Watch, host_row};
use crate::clock::Now;
use crate::effect::Effect;
use crate::heartbeat::connection::ALERTMANAGER;
use crate::heartbeat::wire::Beat;

impl Watch {
    /// A sign of life of a configured host that an Alertmanager passed on: a beat over the
    /// connection `alertmanager`.
    pub fn hear_of(&self, host: &str) {
        let beat = Beat {
            host: host.to_owned(),
            connection: Some(ALERTMANAGER.into()),
            ..Beat::default()
        };
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        let from = Ipv4Addr::LOCALHOST.into();
        match inner.fleet.hear_of(&beat.json(), from, Now::read()) {
            Ok(heard) => {
                if heard.wake {
                    self.wake.notify_all();
                }
                if !heard.events.is_empty() || !heard.rows.is_empty() {
                    self.send(Effect {
                        writes: heard.rows.iter().map(host_row).collect(),
                        events: heard.events,
                        forgotten: heard.ended,
                        stored: None,
                    });
                }
            }
            Err(why) => {
                drop(inner);
                warn!("a sign of life of {host} could not be taken: {why}");
            }
        }
    }
}
