//! What the configuration says about hosts, in the form in which 100,000 of them share it. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::heartbeat::connection::{ALERTMANAGER, LOCAL, Promise};
use crate::heartbeat::keys::Keys;
use crate::heartbeat::settings::{HostSettings, Settings, UnknownHosts};
use crate::heartbeat::threshold::{Rule, ThresholdSet};
use crate::secret::Secret;

/// Everything that the fleet wants to know from the configuration.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The section `heartbeat`.
    pub settings: Settings,
    /// The section `hosts`.
    pub hosts: BTreeMap<String, HostSettings>,
    /// All threshold sets, the built-in ones included, with `extends` resolved.
    pub threshold_sets: BTreeMap<String, ThresholdSet>,
    /// How often an alert that goes on is repeated; none or zero: never.
    pub renotify_interval: Option<Duration>,
    /// The channels of hosts that name none.
    pub default_channels: Vec<String>,
    /// The hosts whose signs of life an Alertmanager passes on, and what it promises.
    pub signs: BTreeMap<String, Promise>,
    /// The host that the daemon's own machine is, and how often it is heard.
    pub own: Option<(String, Promise)>,
}

/// What goes for the whole fleet.
#[derive(Debug)]
pub struct Common {
    /// The keys of hosts that have none of their own.
    pub keys: Option<Keys>,
    /// The interval of hosts that say nothing.
    pub interval: Duration,
    /// The grace of hosts that have none of their own.
    pub grace: Option<Duration>,
    /// How far the time of a signed datagram may be off.
    pub clock_skew: Duration,
    /// How many unknown hosts are taken in; none when they are ignored.
    pub most_strangers: Option<usize>,
    /// When a watched host that was never heard is reported; zero: never.
    pub new_timeout: Duration,
    /// How often an alert that goes on is repeated.
    pub renotify: Option<Duration>,
}

/// What goes for a host. Hosts with equal settings and no key of their own share one.
#[derive(Debug, Default)]
pub struct Profile {
    /// Whether it stands in the configuration.
    pub configured: bool,
    /// Whether its heartbeat events are notified.
    pub watch: bool,
    /// Its own keys.
    pub keys: Option<Keys>,
    /// Overrides what the host says.
    pub interval: Option<Duration>,
    /// Overrides the common grace.
    pub grace: Option<Duration>,
    /// Its channels.
    pub channels: Vec<String>,
    /// Whether its name in the DNS follows its address.
    pub dyndns: bool,
    /// What goes for its connection `alertmanager`, before all else; none when it has none.
    pub sign: Option<Promise>,
    /// What goes likewise for its connection `local`: the daemon's own machine has one.
    pub own: Option<Promise>,
    set: Option<Arc<Compiled>>,
}

/// A threshold set whose rules are shared by the metrics under them.
#[derive(Debug, Default)]
struct Compiled {
    set: ThresholdSet,
    rules: BTreeMap<String, Arc<Rule>>,
}

impl Profile {
    /// What goes for a connection whose beats somebody in this process vouches for.
    pub fn vouched(&self, connection: &str) -> Option<Promise> {
        match connection {
            ALERTMANAGER => self.sign,
            LOCAL => self.own,
            _ => None,
        }
    }

    /// The rule of a metric.
    pub fn rule(&self, path: &str) -> Option<Arc<Rule>> {
        let compiled = self.set.as_deref()?;
        let (pattern, _) = compiled.set.rule(path)?;
        compiled.rules.get(pattern).cloned()
    }
}

impl Common {
    /// From the configuration.
    pub fn new(rules: &Rules) -> Common {
        let settings = &rules.settings;
        Common {
            keys: keys(&settings.key, &settings.previous_key),
            interval: settings.interval,
            grace: settings.grace,
            clock_skew: settings.clock_skew,
            most_strangers: match settings.unknown_hosts {
                UnknownHosts::Ignore => None,
                UnknownHosts::Accept => Some(settings.max_unknown_hosts),
            },
            new_timeout: settings.new_timeout,
            renotify: rules.renotify_interval,
        }
    }
}

/// The profiles of all configured hosts, in the order of their names.
pub fn profiles(rules: &Rules) -> Vec<(String, Arc<Profile>)> {
    let sets: BTreeMap<&str, Arc<Compiled>> = rules
        .threshold_sets
        .iter()
        .map(|(name, set)| (name.as_str(), Arc::new(compiled(set))))
        .collect();
    let mut shared: Vec<(&HostSettings, Arc<Profile>)> = Vec::new();
    let mut profiles = Vec::with_capacity(rules.hosts.len());
    for (name, settings) in &rules.hosts {
        let sign = rules.signs.get(name).copied();
        let own = rules.own.as_ref().filter(|(own, _)| own == name).map(|(_, promise)| *promise);
        let same = |profile: &Profile| profile.sign == sign && profile.own == own;
        let known = shared.iter().find(|(known, profile)| *known == settings && same(profile));
        let profile = match known {
            Some((_, profile)) => profile.clone(),
            None => {
                let set = sets.get(settings.threshold_config.as_str()).cloned();
                let profile = profile(settings, set, &rules.default_channels);
                let profile = Arc::new(Profile { sign, own, ..profile });
                if settings.key.is_none() && shared.len() < 64 {
                    shared.push((settings, profile.clone()));
                }
                profile
            }
        };
        profiles.push((name.clone(), profile));
    }
    profiles
}

fn profile(
    settings: &HostSettings,
    set: Option<Arc<Compiled>>,
    default_channels: &[String],
) -> Profile {
    let channels = settings.notification_channels.as_deref().unwrap_or(default_channels);
    Profile {
        configured: true,
        watch: settings.watch,
        keys: keys(&settings.key, &settings.previous_key),
        interval: settings.interval,
        grace: settings.grace,
        channels: channels.to_vec(),
        dyndns: settings.dyndns,
        sign: None,
        own: None,
        set,
    }
}

fn keys(current: &Option<Secret>, previous: &Option<Secret>) -> Option<Keys> {
    current.as_ref().map(|current| Keys::new(current, previous.as_ref()))
}

fn compiled(set: &ThresholdSet) -> Compiled {
    let rules =
        set.rules.iter().map(|(pattern, rule)| (pattern.clone(), Arc::new(*rule))).collect();
    Compiled { set: set.clone(), rules }
}

/// Names of connections and paths of metrics: the same few for all hosts, kept once.
#[derive(Debug, Default)]
pub struct Names {
    known: HashSet<Arc<str>>,
    /// How many were in use when it was tidied last.
    used: usize,
}

/// So few names are not worth tidying.
const LEAST_NAMES: usize = 1024;

impl Names {
    /// The one copy of `name`.
    pub fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.known.insert(name.clone());
        // A host may send other paths with every beat: they must not fill the memory.
        if self.known.len() > 2 * self.used.max(LEAST_NAMES) {
            self.tidy();
        }
        name
    }

    /// Forgets the names that nobody uses any more.
    pub fn tidy(&mut self) {
        self.known.retain(|name| Arc::strong_count(name) > 1);
        self.used = self.known.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_uses_any_more_were_kept_for_ever() {
        let mut names = Names::default();
        let used: Vec<_> = (0..100).map(|n| names.intern(&format!("used{n}"))).collect();
        for n in 0..100_000 {
            names.intern(&format!("veth{n}"));
        }
        assert!(names.known.len() <= 2 * 1024, "{}", names.known.len());
        assert!(used.iter().all(|name| Arc::ptr_eq(&names.intern(name), name)));
    }
}
