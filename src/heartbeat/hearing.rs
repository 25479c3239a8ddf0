//! What a datagram must bring to be believed, and where it is applied. Pure.

use std::net::IpAddr;

use crate::clock::Now;
use crate::heartbeat::datagram::{self, Datagram, Kind, MAX_BYTES, Rejection};
use crate::heartbeat::fleet::{Fleet, Heard};
use crate::heartbeat::gauge;
use crate::heartbeat::host::{Host, MAX_CONNECTIONS};
use crate::heartbeat::metrics::MAX_METRICS;
use crate::heartbeat::wire;

/// A datagram, and where it belongs as far as that is known.
struct Arrival<'a> {
    datagram: &'a Datagram<'a>,
    signature: Option<[u8; 32]>,
    json: &'a [u8],
    from: IpAddr,
    connection: &'a str,
    host: Option<u32>,
    place: Option<usize>,
    now: Now,
}

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
        let datagram = &datagram::parse(json)?;
        let host = self.index.get(&*datagram.host).copied();
        let connection = datagram.connection.as_deref().unwrap_or(family(from));
        let place = host.and_then(|host| self.hosts[host as usize].place(connection));
        let arrival = Arrival { datagram, signature, json, from, connection, host, place, now };
        let signed = self.authenticate(&arrival)?;
        let before = self.deadlines.next();
        let (host, place) = self.admit(&arrival)?;
        if let Some(time) = signed {
            let host = &mut self.hosts[host as usize];
            host.connections[place].signed = time;
            // It must not be believed again after a crash.
            host.changed |= datagram.event != Kind::Beat;
        }
        let mut heard = self.apply(host, place, &arrival);
        if datagram.ack {
            let key = signed.and_then(|_| self.key(Some(host)));
            let time = datagram.time.map(|time| time.text);
            heard.ack = wire::ack(time, now.wall, key, bytes.len());
        }
        heard.wake = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        Ok(heard)
    }

    /// Takes in a beat that somebody else vouches for, whatever keys there are: an alert that is a
    /// sign of life.
    ///
    /// # Errors
    /// When no signs of life of the host are expected, or it has too many connections.
    pub fn hear_of(&mut self, json: &[u8], from: IpAddr, now: Now) -> Result<Heard, Rejection> {
        let datagram = &datagram::parse(json)?;
        let host = self.index.get(&*datagram.host).copied();
        // Nobody expects them any more, or not yet.
        let profile = host.map(|host| &self.hosts[host as usize].profile);
        let sign = profile.and_then(|profile| profile.sign).ok_or(Rejection::UnknownHost)?;
        let connection = datagram.connection.as_deref().unwrap_or(family(from));
        let place = host.and_then(|host| self.hosts[host as usize].place(connection));
        let arrival =
            Arrival { datagram, signature: None, json, from, connection, host, place, now };
        let before = self.deadlines.next();
        let (host, place) = self.admit(&arrival)?;
        self.hosts[host as usize].connections[place].promise_anew(sign, now);
        let mut heard = self.apply(host, place, &arrival);
        heard.wake = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        Ok(heard)
    }

    /// The key of a host.
    fn key(&self, host: Option<u32>) -> Option<&ring::hmac::Key> {
        let own = host.and_then(|host| self.hosts[host as usize].profile.key.as_ref());
        own.or(self.common.key.as_ref())
    }

    /// The time of the datagram, where it is signed, after the signature and it were checked.
    fn authenticate(&mut self, arrival: &Arrival) -> Result<Option<i64>, Rejection> {
        if arrival.host.is_none() && self.common.most_strangers.is_none() {
            return Err(Rejection::UnknownHost);
        }
        let (key, signature) = match (self.key(arrival.host), &arrival.signature) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(Rejection::BadSignature),
            (Some(_), None) => return Err(Rejection::Unsigned),
            (Some(key), Some(signature)) => (key, signature),
        };
        if !wire::verify(key, arrival.json, signature) {
            return Err(Rejection::BadSignature);
        }
        let time = arrival.datagram.time.ok_or(Rejection::BadField(datagram::TIME_WANTED))?.micros;
        let last = self.last_time(arrival);
        match self.trust.judge(time, last, self.common.clock_skew, arrival.now) {
            Ok(true) => self.trust.agree(arrival.now),
            Ok(false) => {}
            Err(Rejection::Stale) if last.is_some_and(|last| time > last) => {
                self.excuse(arrival, time);
                return Err(Rejection::Stale);
            }
            Err(why) => return Err(why),
        }
        Ok(Some(time))
    }

    /// The time that a signed datagram must be later than: the last one of its connection.
    ///
    /// A connection without a name is named by the sender's address, and that is not signed: as
    /// long as it is not known, the datagram must be later than all that came from the other kind
    /// of address. Else whoever overhears one could send it again from there and make up a
    /// connection that is overdue soon after. When both are known each keeps its own order, since a
    /// host may send the same beat from both addresses, and one of them be slower.
    fn last_time(&self, arrival: &Arrival) -> Option<i64> {
        let host = &self.hosts[arrival.host? as usize];
        match arrival.place {
            Some(place) => Some(host.connections[place].signed),
            None if arrival.datagram.connection.is_some() => None,
            None => {
                let others = FAMILIES.iter().filter_map(|family| host.place(family));
                others.map(|place| host.connections[place].signed).max()
            }
        }
    }

    /// A signed datagram, newer than those before it, cannot be believed since a clock is wrong.
    fn excuse(&mut self, arrival: &Arrival, time: i64) {
        let (Some(index), Some(place)) = (arrival.host, arrival.place) else {
            return;
        };
        let host = &mut self.hosts[index as usize];
        let connection = &mut host.connections[place];
        let excused = connection.granted.map(|grant| grant.from);
        let promise = connection.promise(&host.profile, &self.common);
        if !self.trust.differ(index, time, self.common.clock_skew, excused, arrival.now)
            || !connection.postpone(promise, arrival.now)
        {
            return;
        }
        if excused.is_some() {
            // The same datagram must not excuse it again and again.
            connection.signed = time;
        }
        self.list(index);
    }

    /// The places of its host and its connection, which may be new.
    fn admit(&mut self, arrival: &Arrival) -> Result<(u32, usize), Rejection> {
        let datagram = arrival.datagram;
        if datagram.metrics.len() > MAX_METRICS {
            return Err(Rejection::TooManyMetrics);
        }
        let host = match arrival.host {
            Some(host) => host,
            None if Some(self.strangers) >= self.common.most_strangers => {
                return Err(Rejection::TooManyHosts);
            }
            None => {
                let profile = self.stranger.clone();
                self.add(Host::new((&*datagram.host).into(), profile, arrival.now))
            }
        };
        let entry = &mut self.hosts[host as usize];
        let place = match arrival.place {
            Some(place) => place,
            None if entry.connections.len() == MAX_CONNECTIONS => {
                return Err(Rejection::TooManyConnections);
            }
            None => entry.connect(self.names.intern(arrival.connection), arrival.now),
        };
        Ok((host, place))
    }

    fn apply(&mut self, index: u32, place: usize, arrival: &Arrival) -> Heard {
        let (datagram, now) = (arrival.datagram, arrival.now);
        let host = &mut self.hosts[index as usize];
        let was = host.state;
        let mut heard = Heard {
            events: host.hear(place, datagram, arrival.from, &self.common, now),
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
            self.note_condition(index, now);
            heard.rows.push(self.take_row(index));
        } else {
            self.list(index);
        }
        heard
    }
}

/// The names of connections that have none of their own.
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// The name of a connection that has none: by the sender's address.
fn family(from: IpAddr) -> &'static str {
    FAMILIES[usize::from(from.to_canonical().is_ipv6())]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Mono, Wall};
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

    fn with_key() -> Play {
        let mut rules = rules();
        rules.settings.key = Some(Secret::new("k"));
        Play::with(rules)
    }

    /// A signed datagram of `host`, sent so much after the beginning.
    fn sent(host: &str, after: Duration, fields: &str) -> Vec<u8> {
        let time = (BEGIN.wall + after).0 as f64 / 1000.0;
        let json = format!(r#"{{"host":"{host}","time":{time}{fields}}}"#);
        sign(&key(&Secret::new("k")), json.as_bytes())
    }

    #[test]
    fn a_signed_message_was_believed_again_after_a_crash() {
        for event in ["boot", "shutdown", "message"] {
            let mut play = with_key();
            let said = format!(r#","event":"{event}","message":"disk on fire""#);
            let mut stored = play.try_hear(&sent("web1", Duration::ZERO, "")).unwrap().rows;
            let mark = play.mark();
            play.try_hear(&sent("web1", SECOND, &said)).unwrap();
            stored.extend(play.try_hear(&sent("web1", 2 * SECOND, &said)).unwrap().rows);
            play.now = play.now.later(3 * SECOND);
            play.start(stored.split_off(stored.len() - 1), Some(mark));
            let again = play.try_hear(&sent("web1", 2 * SECOND, &said));
            assert_eq!(again, Err(Rejection::Replay), "{event}");
        }
    }

    #[test]
    fn a_replay_over_the_other_family_did_make_a_connection() {
        let six: IpAddr = "2001:db8::666".parse().unwrap();
        let mut play = with_key();
        play.try_hear(&sent("web1", SECOND, "")).unwrap();
        for after in [Duration::ZERO, SECOND] {
            let replayed = play.fleet.hear(&sent("web1", after, ""), six, play.now);
            assert_eq!(replayed, Err(Rejection::Replay));
        }
        play.fleet.hear(&sent("web1", 2 * SECOND, ""), six, play.now).unwrap();
        play.try_hear(&sent("web1", 3 * SECOND, "")).unwrap();
        let dual = play.fleet.hear(&sent("web1", 3 * SECOND, ""), six, play.now);
        assert!(dual.is_ok(), "both ways are known: each keeps its own order");
        let again = play.fleet.hear(&sent("web1", 3 * SECOND, ""), six, play.now);
        assert_eq!(again, Err(Rejection::Replay));
        let named = sent("web1", SECOND, r#","connection":"vpn""#);
        assert!(play.fleet.hear(&named, six, play.now).is_ok(), "a name is signed");
    }

    #[test]
    fn a_clock_of_ours_that_was_not_set_or_went_back_did_silence_every_signed_host() {
        let hour_behind = Wall(BEGIN.wall.0 - 3_600_000);
        for wrong in [Wall(5_000), hour_behind] {
            let mut play = with_key();
            play.try_hear(&sent("web1", Duration::ZERO, "")).unwrap();
            let (rows, mark) = (play.rows(), play.mark());
            play.kernel = "kernel-2".into();
            play.now = Now { mono: Mono(5_000), wall: wrong };
            play.start(rows, Some(mark));
            for n in 1..20 {
                play.wait(10 * SECOND);
                play.try_hear(&sent("web1", n * 10 * SECOND, "")).unwrap();
                let again = play.try_hear(&sent("web1", n * 10 * SECOND, ""));
                assert_eq!(again, Err(Rejection::Replay));
            }
            play.now.wall = BEGIN.wall + 200 * SECOND;
            play.try_hear(&sent("web1", 200 * SECOND, "")).unwrap();
            let late = play.try_hear(&sent("web1", DAY, ""));
            assert_eq!(late, Err(Rejection::Stale), "the clock is right again");
            assert!(play.events().is_empty());
        }
    }

    #[test]
    fn a_clock_that_a_host_agrees_with_is_right_whatever_the_last_sign_of_life_says() {
        let mut play = with_key();
        play.now.wall = BEGIN.wall + 365 * DAY;
        let (rows, mark) = (play.rows(), play.mark());
        play.now = BEGIN.later(SECOND);
        play.start(rows, Some(mark));
        play.try_hear(&sent("web1", SECOND, "")).unwrap();
        assert_eq!(play.try_hear(&sent("web1", DAY, "")), Err(Rejection::Stale));
    }

    /// Four signed hosts beat for ten minutes, `ahead` of our clock; what is told.
    fn ten_minutes(play: &mut Play, hosts: &[&str], ours: Duration) -> Vec<String> {
        for n in 1..=60 {
            play.wait(10 * SECOND);
            play.now.wall = BEGIN.wall + ours + n * 10 * SECOND;
            for host in hosts {
                let _ = play.try_hear(&sent(host, n * 10 * SECOND, ""));
            }
        }
        play.told()
    }

    fn four_hosts() -> Play {
        let mut rules = rules();
        rules.settings.key = Some(Secret::new("k"));
        for name in ["web2", "web3", "web4"] {
            rules.hosts.insert(name.into(), rules.hosts["web1"].clone());
        }
        let mut play = Play::with(rules);
        for name in ["web1", "web2", "web3", "web4"] {
            play.try_hear(&sent(name, Duration::ZERO, "")).unwrap();
        }
        play
    }

    #[test]
    fn a_clock_of_ours_that_jumped_did_silence_every_signed_host() {
        let all = ["web1", "web2", "web3", "web4"];
        let mut play = four_hosts();
        assert!(ten_minutes(&mut play, &all, 365 * DAY).is_empty());
        for _ in 0..4 {
            play.wait(10 * SECOND);
            for host in all {
                play.try_hear(&sent(host, 600 * SECOND, "")).unwrap_err();
            }
        }
        assert_eq!(play.told().len(), 4, "they have fallen silent, whoever repeats their beats");

        let told = ten_minutes(&mut four_hosts(), &all[1..], 365 * DAY);
        assert_eq!(told, ["critical web1 ipv4 overdue"], "who does not speak is not excused");
    }

    #[test]
    fn clocks_of_hosts_that_are_wrong_excuse_nobody() {
        for (wrong, told) in [(&["web1", "web2", "web3"][..], 4), (&["web1", "web2"][..], 4)] {
            let mut play = four_hosts();
            for n in 1..=60 {
                play.wait(10 * SECOND);
                for host in wrong {
                    let _ = play.try_hear(&sent(host, DAY + n * 10 * SECOND, ""));
                }
                if wrong.len() == 3 {
                    let _ = play.try_hear(&sent("web4", n * 10 * SECOND, ""));
                }
            }
            let events = play.told();
            let expected = if wrong.len() == 3 { told - 1 } else { told };
            assert_eq!(events.len(), expected, "{events:?}");
        }
    }
}
