//! Beats that this process makes itself: alerts that are heartbeats, and its own machine.

use std::collections::BTreeMap;

use log::warn;

use super::Monitor;
use crate::btree::InsertAll;
use crate::clock::Now;
use crate::heartbeat::datagram::{Datagram, DatagramMetrics, MAX_METRICS, ODD_METRICS, Rejection};
use crate::heartbeat::fleet::change_of;
use crate::heartbeat::settings::{ALERTMANAGER, LOCAL};

impl Monitor {
    /// A heartbeat of a configured host that came as an alert of an Alertmanager: a beat over the
    /// connection `alertmanager`.
    pub fn ingest_alert_heartbeat(&self, host: &str) {
        let beat = Datagram::beat(host, ALERTMANAGER);
        if let Err(rejection) = self.ingest_internal(&beat, Now::read()) {
            warn!("a sign of life of {host} could not be taken: {rejection}");
        }
    }

    /// An alert that counts as a heartbeat of a configured host no longer fires: the host is overdue
    /// soon, unless it fires again.
    pub fn resolve_alert_heartbeat(&self, host: &str) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let ingested = state.fleet.resolve_alert_heartbeat(host, Now::read());
        if ingested.rearm {
            self.rearm.notify_all();
        }
        if let Some(change) = change_of(ingested) {
            self.send_change(change);
        }
    }

    /// What the daemon's own machine, the host `host`, says about itself: a beat over the connection
    /// `local`. The boot is that of the kernel that is running. Of two metrics of one path the last
    /// one counts.
    ///
    /// # Errors
    /// When the configuration has no such host, when a path or a value breaks the limits of
    /// datagrams, or when there are more metrics than are kept of a host: the others were ingested.
    pub fn ingest_local(
        &self,
        host: &str,
        metrics: &[(String, f64)],
        texts: &[(String, String)],
        now: Now,
    ) -> Result<(), Rejection> {
        let kept = metrics.iter().take(MAX_METRICS).map(|(path, value)| (path.as_str(), *value));
        let by_path: BTreeMap<&str, f64> = kept.insert_all();
        let boot_id = Some(self.kernel_boot.as_str()).filter(|id| !id.is_empty());
        let beat = Datagram {
            boot_id: boot_id.map(Into::into),
            metrics: DatagramMetrics::from_pairs(by_path).beside_texts(texts),
            ..Datagram::beat(host, LOCAL)
        };
        self.ingest_internal(&beat, now)?;
        if beat.metrics.left_out().0 > 0 {
            return Err(Rejection::BadField(ODD_METRICS));
        }
        if metrics.len() > MAX_METRICS { Err(Rejection::TooManyMetrics) } else { Ok(()) }
    }

    fn ingest_internal(&self, beat: &Datagram, now: Now) -> Result<(), Rejection> {
        beat.check()?;
        let mut state = self.lock();
        if state.closed {
            return Ok(());
        }
        let ingested = state.fleet.ingest_internal(beat, now)?;
        if ingested.rearm {
            self.rearm.notify_all();
        }
        if let Some(change) = change_of(ingested) {
            self.send_change(change);
        }
        Ok(())
    }
}
