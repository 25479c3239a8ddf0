//! Beats that do not come from the network: somebody in this process vouches for them.

use std::net::Ipv4Addr;

use log::warn;

use super::Watch;
use crate::clock::Now;
use crate::heartbeat::connection::{ALERTMANAGER, LOCAL};
use crate::heartbeat::datagram::MAX_BYTES;
use crate::heartbeat::metrics::MAX_METRICS;
use crate::heartbeat::rejection::Rejection;
use crate::heartbeat::wire::Beat;

/// What a metric takes in a beat besides its path, and all the rest of a beat, at most.
const METRIC_BYTES: usize = 64;
const BEAT_BYTES: usize = 512;

impl Watch {
    /// A sign of life of a configured host that an Alertmanager passed on: a beat over the
    /// connection `alertmanager`.
    pub fn hear_of(&self, host: &str) {
        let beat = Beat {
            host: host.to_owned(),
            connection: Some(ALERTMANAGER.into()),
            ..Beat::default()
        };
        if let Err(why) = self.hear_vouched(&beat, Now::read()) {
            warn!("a sign of life of {host} could not be taken: {why}");
        }
    }

    /// What the daemon's own machine, the host `host`, says about itself: a beat over the connection
    /// `local`. The boot is that of the kernel that is running.
    ///
    /// # Errors
    /// When the configuration has no such host, when a path is none, or when there are more metrics
    /// than are kept of a host: the first ones were taken.
    pub fn hear_own(
        &self,
        host: &str,
        metrics: &[(String, f64)],
        now: Now,
    ) -> Result<(), Rejection> {
        let beat = || Beat {
            host: host.to_owned(),
            connection: Some(LOCAL.into()),
            boot_id: Some(self.kernel_boot.clone()).filter(|id| !id.is_empty()),
            ..Beat::default()
        };
        let (mut part, mut bytes) = (beat(), BEAT_BYTES);
        for (path, value) in metrics.iter().take(MAX_METRICS) {
            bytes += path.len() + METRIC_BYTES;
            if bytes > MAX_BYTES {
                self.hear_vouched(&std::mem::replace(&mut part, beat()), now)?;
                bytes = BEAT_BYTES + path.len() + METRIC_BYTES;
            }
            part.metrics.insert(path.clone(), *value);
        }
        self.hear_vouched(&part, now)?;
        if metrics.len() > MAX_METRICS { Err(Rejection::TooManyMetrics) } else { Ok(()) }
    }

    fn hear_vouched(&self, beat: &Beat, now: Now) -> Result<(), Rejection> {
        let mut inner = self.lock();
        if inner.closed {
            return Ok(());
        }
        let heard = inner.fleet.hear_of(&beat.json(), Ipv4Addr::LOCALHOST.into(), now)?;
        if heard.wake {
            self.wake.notify_all();
        }
        if let Some(effect) = heard.effect() {
            self.send(effect);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::event::Incident;
    use crate::heartbeat::fleet::{Fleet, Promise};
    use crate::heartbeat::play::{MINUTE, Play, SECOND, rules};
    use crate::view::State;

    const PROMISE: Promise = Promise { interval: Duration::from_secs(10), grace: MINUTE };

    fn own(play: &mut Play, boot: &str) {
        let beat = Beat {
            host: "web1".into(),
            connection: Some(LOCAL.into()),
            boot_id: Some(boot.into()),
            ..Beat::default()
        };
        let heard = play.fleet.hear_of(&beat.json(), Ipv4Addr::LOCALHOST.into(), play.now).unwrap();
        play.note(heard.events);
    }

    fn play() -> Play {
        let mut rules = rules();
        rules.own = Some(("web1".into(), PROMISE));
        Play::with(rules)
    }

    #[test]
    fn all_figures_of_this_machine_are_heard_however_many() {
        let rules = play().rules;
        let now = Now::read();
        let fleet = Fleet::restore(rules, Vec::new(), None, now, "boot");
        let watch = Watch::new(fleet, "boot".into(), Arc::new(|_| ()), Box::new(|| false));
        let path = |n: usize| format!("disk_monitor.{}{n}.percent", "a".repeat(150));
        let metrics: Vec<_> = (0..300).map(|n| (path(n), n as f64)).collect();
        watch.hear_own("web1", &metrics, now).unwrap();
        let view = watch.view("web1").unwrap();
        assert_eq!((view.state, view.metrics.len()), (State::Up, 300));
        assert_eq!(view.connections[0].name, LOCAL);
        let more: Vec<_> = (0..600).map(|n| (format!("m{n}"), 0.0)).collect();
        assert_eq!(watch.hear_own("web1", &more, now), Err(Rejection::TooManyMetrics));
        let kept = watch.view("web1").unwrap().metrics;
        assert_eq!(kept.iter().filter(|metric| metric.path.starts_with('m')).count(), 512);
        assert_eq!(watch.hear_own("web2", &metrics, now), Err(Rejection::UnknownHost));
    }

    #[test]
    fn this_machine_needs_no_key_and_nobody_else_may_do_without() {
        let mut play = play();
        play.rules.settings.key = Some(crate::secret::Secret::new("k"));
        play.fleet.reconfigure(play.rules.clone(), play.now);
        own(&mut play, "a");
        let forged = br#"{"host":"web1","connection":"local"}"#;
        assert_eq!(play.try_hear(forged), Err(Rejection::Unsigned));
    }

    #[test]
    fn a_boot_of_this_machine_is_told_once_and_is_announced_when_the_daemon_was_stopped() {
        for (stopped, level) in [(true, "info"), (false, "warning")] {
            let mut play = play();
            own(&mut play, "a");
            play.wait(10 * SECOND);
            assert!(play.told().is_empty(), "its first start is no boot");
            if stopped {
                play.fleet.leave();
            }
            play.reboot_after(5 * MINUTE);
            own(&mut play, "b");
            play.wait(SECOND);
            own(&mut play, "b");
            assert_eq!(play.told(), [format!("{level} web1 booted")]);
        }
        let mut play = play();
        own(&mut play, "a");
        play.fleet.leave();
        play.restart_after(SECOND);
        own(&mut play, "a");
        assert!(play.told().is_empty(), "an upgrade of hbd is nothing");
        play.reboot_after(MINUTE);
        own(&mut play, "b");
        assert_eq!(play.told(), ["warning web1 booted"], "it was started since: a power cut");
    }

    #[test]
    fn a_collector_that_hangs_is_overdue() {
        let mut play = play();
        own(&mut play, "a");
        assert!(play.wait(70 * SECOND - Duration::from_millis(1)).told().is_empty());
        assert_eq!(play.wait(SECOND).told(), ["critical web1 local overdue"]);
    }

    #[test]
    fn an_agent_that_is_switched_off_is_forgotten_and_not_overdue() {
        for (reload, overdue) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut play = play();
            own(&mut play, "a");
            play.beat("web1").hear(r#"{"host":"web1","metrics":{"m":1}}"#);
            play.wait(if overdue { 2 * MINUTE } else { SECOND }).told();
            play.rules.own = None;
            let due = if reload {
                play.fleet.reconfigure(play.rules.clone(), play.now)
            } else {
                let (rows, mark) = (play.rows(), play.mark());
                let (rules, now) = (play.rules.clone(), play.now);
                play.fleet = Fleet::restore(rules, rows, Some(mark), now, &play.kernel);
                play.fleet.due(now)
            };
            let trouble = Incident::Connection { host: "web1".into(), connection: LOCAL.into() };
            assert_eq!(due.ended.contains(&trouble), overdue, "{reload} {overdue}");
            let view = play.fleet.view("web1").unwrap();
            assert_eq!(view.connections.len(), 1);
            // What the other connection brought is still expected of that one.
            let moved_up =
                play.fleet.hosts[0].gauges.iter().all(|gauge| gauge.presence.over() == 0);
            assert!(moved_up, "{reload} {overdue}");
            play.hear(r#"{"host":"web1","metrics":{"m":1}}"#).told();
            assert_eq!(play.wait(MINUTE).told(), ["critical web1 ipv4 overdue"]);
        }
    }
}
