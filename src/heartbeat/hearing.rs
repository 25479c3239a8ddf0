//! What a datagram must bring to be believed, and where it is applied. Pure.

use std::net::IpAddr;

use crate::clock::Now;
use crate::heartbeat::datagram::{self, Datagram, Kind, MAX_BYTES, Rejection};
use crate::heartbeat::fleet::{Fleet, Heard};
use crate::heartbeat::gauge;
use crate::heartbeat::host::{Host, MAX_CONNECTIONS};
use crate::heartbeat::metrics::MAX_METRICS;
use crate::heartbeat::wire;

impl Fleet {
    /// Takes a datagram in, as it came from the network.
    ///
    /// A host that is known to have a key is never believed without a signature, and a signature
    /// that no key is known for is not believed either: the sender thinks that it is checked.
    pub fn hear(&mut self, bytes: &[u8], from: IpAddr, now: Now) -> Result<Heard, Rejection> {
        if bytes.len() > MAX_BYTES {
            return Err(Rejection::TooLong);
        }
        let (signature, json) = datagram::split(bytes);
        let datagram = datagram::parse(json)?;
        let known = self.index.get(&*datagram.host).copied();
        let connection = datagram.connection.as_deref().unwrap_or(family(from));
        let key = self.authenticate(known, connection, &datagram, signature, json, now)?;
        let time = datagram.time.map(|time| time.text);
        let ack = if datagram.ack { wire::ack(time, now.wall, key, bytes.len()) } else { None };
        let before = self.deadlines.next();
        let (host, place) = self.admit(known, connection, &datagram, now)?;
        let mut heard = self.apply(host, place, &datagram, from, now);
        heard.ack = ack;
        heard.wake = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        Ok(heard)
    }

    /// Takes in a beat that somebody else vouches for, whatever keys there are: an alert that is a
    /// sign of life.
    ///
    /// # Errors
    /// When the host is not known, or has too many connections.
    pub fn hear_of(&mut self, json: &[u8], from: IpAddr, now: Now) -> Result<Heard, Rejection> {
        let datagram = datagram::parse(json)?;
        let known = self.index.get(&*datagram.host).copied();
        if known.is_none() {
            return Err(Rejection::UnknownHost);
        }
        let before = self.deadlines.next();
        let connection = datagram.connection.as_deref().unwrap_or(family(from));
        let (host, place) = self.admit(known, connection, &datagram, now)?;
        let mut heard = self.apply(host, place, &datagram, from, now);
        heard.wake = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        Ok(heard)
    }

    /// The key that the datagram was checked with, where there is one.
    fn authenticate(
        &self,
        known: Option<u32>,
        connection: &str,
        datagram: &Datagram,
        signature: Option<[u8; 32]>,
        json: &[u8],
        now: Now,
    ) -> Result<Option<&ring::hmac::Key>, Rejection> {
        let host = known.map(|host| &self.hosts[host as usize]);
        if host.is_none() && self.common.most_strangers.is_none() {
            return Err(Rejection::UnknownHost);
        }
        let own = host.and_then(|host| host.profile.key.as_ref());
        let (key, signature) = match (own.or(self.common.key.as_ref()), signature) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(Rejection::BadSignature),
            (Some(_), None) => return Err(Rejection::Unsigned),
            (Some(key), Some(signature)) => (key, signature),
        };
        if !wire::verify(key, json, &signature) {
            return Err(Rejection::BadSignature);
        }
        let time = datagram.time.ok_or(Rejection::BadField(datagram::TIME_WANTED))?.micros;
        let skew = i64::try_from(self.common.clock_skew.as_micros()).unwrap_or(i64::MAX);
        let ours = now.wall.0.saturating_mul(1000);
        if time.abs_diff(ours) > skew.unsigned_abs() {
            return Err(Rejection::Stale);
        }
        let last = host.and_then(|host| Some(host.connections[host.place(connection)?].signed));
        // A time from beyond the skew was taken while our own clock was wrong. It must not shut
        // the host out until that time comes.
        match last {
            Some(last) if time <= last && last <= ours.saturating_add(skew) => {
                Err(Rejection::Replay)
            }
            _ => Ok(Some(key)),
        }
    }

    /// The places of its host and its connection, which may be new.
    fn admit(
        &mut self,
        known: Option<u32>,
        connection: &str,
        datagram: &Datagram,
        now: Now,
    ) -> Result<(u32, usize), Rejection> {
        if datagram.metrics.len() > MAX_METRICS {
            return Err(Rejection::TooManyMetrics);
        }
        let host = match known {
            Some(host) => host,
            None if Some(self.strangers) >= self.common.most_strangers => {
                return Err(Rejection::TooManyHosts);
            }
            None => self.add(Host::new((&*datagram.host).into(), self.stranger.clone(), now)),
        };
        let entry = &mut self.hosts[host as usize];
        let place = match entry.place(connection) {
            Some(place) => place,
            None if entry.connections.len() == MAX_CONNECTIONS => {
                return Err(Rejection::TooManyConnections);
            }
            None => entry.connect(self.names.intern(connection), now),
        };
        Ok((host, place))
    }

    fn apply(
        &mut self,
        index: u32,
        place: usize,
        datagram: &Datagram,
        from: IpAddr,
        now: Now,
    ) -> Heard {
        let host = &mut self.hosts[index as usize];
        let was = host.state;
        let mut heard = Heard {
            events: host.hear(place, datagram, from, &self.common, now),
            ..Heard::default()
        };
        let mut moved = was != host.state;
        if !datagram.metrics.is_empty() && matches!(datagram.event, Kind::Beat | Kind::Boot) {
            let (profile, gauges) = (&host.profile, &mut host.gauges);
            let names = &mut self.names;
            let taken = gauge::take(gauges, &host.name, &datagram.metrics, profile, names, now);
            moved |= taken.moved || !taken.events.is_empty();
            host.changed |= !taken.events.is_empty() || !taken.ended.is_empty();
            heard.events.extend(taken.events);
            heard.ended = taken.ended;
        }
        self.schedule_connections(index);
        if moved {
            self.schedule_metrics(index);
            self.note_state(index);
        }
        if self.hosts[index as usize].changed {
            heard.rows.push(self.take_row(index));
        } else {
            self.list(index);
        }
        heard
    }
}

/// The name of a connection that has none: by the sender's address.
fn family(from: IpAddr) -> &'static str {
    if from.to_canonical().is_ipv4() { "ipv4" } else { "ipv6" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::play::{BEGIN, DAY, Play, SECOND, rules};
    use crate::heartbeat::settings::UnknownHosts;
    use crate::heartbeat::wire::{Beat, key, sign};
    use crate::secret::Secret;

    const BEAT: &str = r#"{"host":"web1"}"#;

    #[test]
    fn connections_are_named_by_the_address_of_the_sender() {
        for (address, name) in
            [("10.1.2.3", "ipv4"), ("::ffff:10.1.2.3", "ipv4"), ("fe80::1", "ipv6")]
        {
            let mut play = Play::new();
            let from = address.parse().unwrap();
            play.fleet.hear(BEAT.as_bytes(), from, play.now).unwrap();
            assert_eq!(play.fleet.view("web1").unwrap().connections[0].name, name);
        }
    }

    #[test]
    fn unknown_hosts_are_ignored_or_accepted_up_to_a_number() {
        let mut play = Play::new();
        assert_eq!(play.try_hear(br#"{"host":"x"}"#), Err(Rejection::UnknownHost));
        let mut rules = rules();
        rules.settings.unknown_hosts = UnknownHosts::Accept;
        rules.settings.max_unknown_hosts = 2;
        let mut play = Play::with(rules);
        play.beat("x").beat("y").beat("x");
        assert_eq!(play.try_hear(br#"{"host":"z"}"#), Err(Rejection::TooManyHosts));
        play.beat("web1").restart_after(SECOND).beat("x").beat("y");
        assert_eq!(play.try_hear(br#"{"host":"z"}"#), Err(Rejection::TooManyHosts));
    }

    #[test]
    fn a_host_has_at_most_sixteen_connections() {
        let mut play = Play::new();
        for n in 0..16 {
            play.beat_over("web1", &format!("c{n}"));
        }
        assert_eq!(play.try_hear(BEAT.as_bytes()), Err(Rejection::TooManyConnections));
        play.beat_over("web1", "c3");
    }

    fn signed(secret: &str, time: f64) -> Vec<u8> {
        sign(&key(&Secret::new(secret)), format!(r#"{{"host":"web1","time":{time}}}"#).as_bytes())
    }

    #[test]
    fn with_a_key_only_fresh_signed_datagrams_are_believed() {
        let mut rules = rules();
        rules.settings.key = Some(Secret::new("common"));
        let mut play = Play::with(rules.clone());
        let now = BEGIN.wall.0 as f64 / 1000.0;
        let unsigned = format!(r#"{{"host":"web1","time":{now}}}"#);
        let timeless = sign(&key(&Secret::new("common")), BEAT.as_bytes());
        let cases: [(Vec<u8>, Result<(), Rejection>); 9] = [
            (unsigned.into_bytes(), Err(Rejection::Unsigned)),
            (timeless, Err(Rejection::BadField(datagram::TIME_WANTED))),
            (signed("wrong", now), Err(Rejection::BadSignature)),
            (signed("common", now + 301.0), Err(Rejection::Stale)),
            (signed("common", now - 301.0), Err(Rejection::Stale)),
            (signed("common", now), Ok(())),
            (signed("common", now), Err(Rejection::Replay)),
            (signed("common", now - 0.001), Err(Rejection::Replay)),
            (signed("common", now + 0.001), Ok(())),
        ];
        for (bytes, expected) in cases {
            assert_eq!(play.try_hear(&bytes).map(drop), expected);
        }
        play.restart_after(SECOND);
        assert_eq!(play.try_hear(&signed("common", now)), Err(Rejection::Replay), "after restart");

        rules.hosts.get_mut("web1").unwrap().key = Some(Secret::new("own"));
        let mut play = Play::with(rules);
        assert_eq!(play.try_hear(&signed("common", now)), Err(Rejection::BadSignature));
        assert!(play.try_hear(&signed("own", now)).is_ok());
        assert_eq!(Play::new().try_hear(&signed("own", now)), Err(Rejection::BadSignature));
    }

    #[test]
    fn a_time_from_a_wrong_clock_does_not_shut_a_host_out() {
        let mut rules = rules();
        rules.settings.key = Some(Secret::new("k"));
        let mut play = Play::with(rules);
        let right = play.now;
        play.now.wall = right.wall + 365 * DAY;
        play.try_hear(&signed("k", play.now.wall.0 as f64 / 1000.0)).unwrap();
        play.now = right.later(SECOND);
        play.try_hear(&signed("k", play.now.wall.0 as f64 / 1000.0)).unwrap();
    }

    #[test]
    fn an_answer_is_given_when_asked_for_and_signed_like_the_request() {
        let mut rules = rules();
        rules.settings.key = Some(Secret::new("k"));
        let beat =
            Beat { host: "web1".into(), time: Some(BEGIN.wall), ack: true, ..Beat::default() };
        let json = beat.json();
        let request = sign(&key(&Secret::new("k")), &json);
        let ack = Play::with(rules).try_hear(&request).unwrap().ack.unwrap();
        assert!(ack.len() <= request.len());
        assert!(ack.ends_with(br#" {"ack":1795291928.0,"now":1795291928}"#), "{ack:?}");
        let ack = Play::new().try_hear(&json).unwrap().ack.unwrap();
        assert_eq!(ack, br#"{"ack":1795291928.0,"now":1795291928}"#);
        assert_eq!(Play::new().try_hear(BEAT.as_bytes()).unwrap().ack, None);
    }
}
