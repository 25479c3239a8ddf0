//! What a datagram must bring to be believed, and where it is applied. Pure.

use std::net::IpAddr;

use crate::clock::Now;
use crate::heartbeat::auth::Keys;
use crate::heartbeat::datagram::{self, Datagram, Kind, MAX_BYTES, MAX_METRICS, Rejection};
use crate::heartbeat::encode;
use crate::heartbeat::fleet::{Fleet, Heard, KeyUse};
use crate::heartbeat::host::{Host, MAX_CONNECTIONS};
use crate::heartbeat::metric::{self, Bringer};

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
        let proven = signed.as_ref().is_some_and(|(time, _)| self.proves_address(&arrival, *time));
        let before = self.deadlines.next();
        let (host, place) = self.admit(&arrival)?;
        let mut key = None;
        if let Some((time, tag)) = signed {
            key = self.note_key(host, place, tag);
            let host = &mut self.hosts[host as usize];
            host.connections[place].signed = time;
            // It must not be believed again after a crash.
            host.changed |= datagram.event != Kind::Beat;
        }
        let mut heard = Heard { key, ..self.apply(host, place, &arrival) };
        if datagram.ack {
            // Who still has the previous key must be able to check the answer.
            let key = signed.and_then(|(_, tag)| self.keys(Some(host))?.key(tag));
            let time = datagram.time.map(|time| time.text);
            heard.ack = encode::ack(time, now.wall, key, bytes.len());
        }
        heard.wake = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        if proven {
            let connection = &self.hosts[host as usize].connections[place];
            heard.vouched = Some((host, connection.name.clone()));
        }
        Ok(heard)
    }

    /// Whether a signed datagram of this time proves that its host is where it came from, and
    /// anybody wants to know that.
    ///
    /// One over a connection without a name must be later than all before it of either family:
    /// who overhears a datagram could send it again over the other one, where it is new.
    fn proves_address(&self, arrival: &Arrival, time: i64) -> bool {
        let Some(host) = arrival.host.map(|host| &self.hosts[host as usize]) else { return false };
        let newer = |place: usize| host.connections[place].signed < time;
        host.profile.dyndns
            && !self.moves.is_old(time, arrival.now)
            && (arrival.datagram.connection.is_some()
                || FAMILIES.iter().filter_map(|family| host.place(family)).all(newer))
    }

    /// Takes in a beat that somebody in this process vouches for, whatever keys there are: an alert
    /// that is a sign of life, or the daemon's own machine.
    ///
    /// # Errors
    /// When nobody vouches for that connection of the host, or it has too many.
    pub fn hear_of(&mut self, json: &[u8], from: IpAddr, now: Now) -> Result<Heard, Rejection> {
        let datagram = &datagram::parse(json)?;
        let host = self.index.get(&*datagram.host).copied();
        let connection = datagram.connection.as_deref().unwrap_or(family(from));
        // Nobody expects it any more, or not yet.
        let profile = host.map(|host| &self.hosts[host as usize].profile);
        let promise = profile.and_then(|profile| profile.vouched(connection));
        let promise = promise.ok_or(Rejection::UnknownHost)?;
        let place = host.and_then(|host| self.hosts[host as usize].place(connection));
        let arrival =
            Arrival { datagram, signature: None, json, from, connection, host, place, now };
        let before = self.deadlines.next();
        let (host, place) = self.admit(&arrival)?;
        self.hosts[host as usize].connections[place].promise_anew(promise, now);
        let mut heard = self.apply(host, place, &arrival);
        heard.wake = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        Ok(heard)
    }

    /// The keys of a host.
    fn keys(&self, host: Option<u32>) -> Option<&Keys> {
        let own = host.and_then(|host| self.hosts[host as usize].profile.keys.as_ref());
        own.or(self.common.keys.as_ref())
    }

    /// Notes the key that a connection signs with.
    fn note_key(&mut self, host: u32, place: usize, tag: u32) -> Option<KeyUse> {
        let before = self.hosts[host as usize].connections[place].key;
        self.hosts[host as usize].connections[place].key = tag;
        let keys = self.keys(Some(host))?;
        let previous = keys.is_previous(tag);
        let told = previous || (tag != before && keys.is_previous(before));
        let host = &self.hosts[host as usize];
        told.then(|| KeyUse {
            host: host.name.as_ref().into(),
            connection: host.connections[place].name.as_ref().into(),
            previous,
        })
    }

    /// The time of the datagram, where it is signed, and the tag of its key, after both were
    /// checked.
    fn authenticate(&mut self, arrival: &Arrival) -> Result<Option<(i64, u32)>, Rejection> {
        if arrival.host.is_none() && self.common.most_strangers.is_none() {
            return Err(Rejection::UnknownHost);
        }
        let (keys, signature) = match (self.keys(arrival.host), &arrival.signature) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(Rejection::BadSignature),
            (Some(_), None) => return Err(Rejection::Unsigned),
            (Some(keys), Some(signature)) => (keys, signature),
        };
        let tag = keys.verify(arrival.json, signature).ok_or(Rejection::BadSignature)?;
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
        Ok(Some((time, tag)))
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
        let beats = matches!(datagram.event, Kind::Beat | Kind::Boot);
        let silence = host.silence(place, &self.common, now);
        let look = beats && host.wants_look(place, now);
        let mut heard = Heard {
            events: host.hear(place, datagram, arrival.from, &self.common, now),
            ..Heard::default()
        };
        let mut moved = was != host.state;
        if beats && !(host.gauges.is_empty() && datagram.metrics.is_empty()) {
            host.excuse_metrics(place, silence);
            moved |= self.take_metrics(index, place, look, arrival, &mut heard);
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

    /// Takes the metrics of a beat in, and looks for those that are missing when it is time to.
    /// Whether their deadlines have to be looked at.
    fn take_metrics(
        &mut self,
        index: u32,
        place: usize,
        look: bool,
        arrival: &Arrival,
        heard: &mut Heard,
    ) -> bool {
        let (datagram, now) = (arrival.datagram, arrival.now);
        let host = &mut self.hosts[index as usize];
        let mut moved = false;
        if !datagram.metrics.is_empty() {
            if look {
                host.expect_metrics(place, now);
            }
            let bringer = Bringer { host: &host.name, profile: &host.profile, over: place };
            let (gauges, names) = (&mut host.gauges, &mut self.names);
            let taken = metric::take(gauges, &bringer, &datagram.metrics, names, now);
            moved |= taken.moved || !taken.events.is_empty();
            host.changed |= !taken.events.is_empty() || !taken.ended.is_empty();
            heard.events.extend(taken.events);
            heard.ended = taken.ended;
        }
        if look {
            let missed = host.miss_metrics(place, &self.common, now);
            moved |= missed.moved;
            host.changed |= !missed.events.is_empty() || !missed.ended.is_empty();
            heard.events.extend(missed.events);
            heard.ended.extend(missed.ended);
        }
        moved
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
    use super::*;
    use crate::clock::{Mono, Wall};
    use crate::heartbeat::encode::{Beat, key, sign};
    use crate::heartbeat::settings::{HostSettings, UnknownHosts};
    use crate::heartbeat::test_fleet::{BEGIN, DAY, Play, SECOND, rules};
    use crate::secret::Secret;
    use std::time::Duration;

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

    /// web1 beats, its key and the one before it as in the configuration.
    fn keyed(key: &str, previous: Option<&str>) -> Play {
        let mut rules = rules();
        let host = rules.hosts.get_mut("web1").unwrap();
        host.key = Some(Secret::new(key));
        host.previous_key = previous.map(Secret::new);
        Play::with(rules)
    }

    fn signed_beat(play: &mut Play, with: &str) -> Result<Heard, Rejection> {
        play.now = play.now.later(SECOND);
        let time = play.now.wall.0 as f64 / 1000.0;
        let json = format!(r#"{{"host":"web1","time":{time},"ack":true}}"#);
        play.try_hear(&sign(&key(&Secret::new(with)), json.as_bytes()))
    }

    #[test]
    fn while_a_key_is_changed_both_are_believed_and_answered_under_their_own() {
        let mut play = keyed("new", Some("old"));
        for (with, previous) in [("old", true), ("new", false), ("old", true)] {
            let heard = signed_beat(&mut play, with).unwrap();
            let (signature, json) = datagram::split(heard.ack.as_deref().unwrap());
            assert!(encode::verify(&key(&Secret::new(with)), json, &signature.unwrap()), "{with}");
            assert_eq!(heard.key.map(|key| key.previous), Some(previous), "{with}");
            let view = play.fleet.view("web1").unwrap();
            assert_eq!(view.connections[0].old_key, previous, "{with}");
        }
        assert_eq!(signed_beat(&mut play, "older"), Err(Rejection::BadSignature));
        assert_eq!(signed_beat(&mut play, "new").unwrap().key.map(|key| key.previous), Some(false));
        assert_eq!(signed_beat(&mut play, "new").unwrap().key, None, "no more news");
    }

    #[test]
    fn no_datagram_is_believed_twice_because_there_are_two_keys() {
        let mut play = keyed("new", Some("old"));
        let time = play.now.wall.0 as f64 / 1000.0;
        let json = format!(r#"{{"host":"web1","time":{time}}}"#);
        for (with, heard) in [("old", true), ("old", false), ("new", false)] {
            let bytes = sign(&key(&Secret::new(with)), json.as_bytes());
            assert_eq!(play.try_hear(&bytes).is_ok(), heard, "{with}");
        }
        assert!(signed_beat(&mut play, "new").is_ok());
        let bytes = sign(&key(&Secret::new("old")), json.as_bytes());
        assert_eq!(play.try_hear(&bytes), Err(Rejection::Replay));
    }

    #[test]
    fn a_key_that_becomes_the_previous_one_is_known_to_be_in_use() {
        for reload in [true, false] {
            let mut play = keyed("one", None);
            assert_eq!(signed_beat(&mut play, "one").unwrap().key, None);
            assert!(!play.fleet.view("web1").unwrap().connections[0].old_key);
            play.rules = keyed("two", Some("one")).rules;
            if reload {
                play.fleet.reconfigure(play.rules.clone(), play.now);
            } else {
                play.restart_after(SECOND);
            }
            assert!(
                play.fleet.view("web1").unwrap().connections[0].old_key,
                "before its next beat"
            );
            play.rules = keyed("two", None).rules;
            play.fleet.reconfigure(play.rules.clone(), play.now);
            assert_eq!(signed_beat(&mut play, "one"), Err(Rejection::BadSignature));
            assert!(!play.fleet.view("web1").unwrap().connections[0].old_key);
        }
    }

    #[test]
    fn a_common_key_is_changed_likewise_and_gives_way_to_an_own_one() {
        let mut play = Play::new();
        play.rules.settings.key = Some(Secret::new("new"));
        play.rules.settings.previous_key = Some(Secret::new("old"));
        play.fleet.reconfigure(play.rules.clone(), play.now);
        assert!(signed_beat(&mut play, "old").unwrap().key.unwrap().previous);
        // From the common key to one of its own: the common one is the previous one.
        let host = play.rules.hosts.get_mut("web1").unwrap();
        (host.key, host.previous_key) = (Some(Secret::new("own")), Some(Secret::new("new")));
        play.fleet.reconfigure(play.rules.clone(), play.now);
        assert!(signed_beat(&mut play, "new").unwrap().key.unwrap().previous);
        assert!(!signed_beat(&mut play, "own").unwrap().key.unwrap().previous);
        assert_eq!(signed_beat(&mut play, "old"), Err(Rejection::BadSignature));
    }

    /// A signed datagram that names what there is to name, sent so many seconds after the
    /// beginning.
    fn followed(host: &str, more: &str, after: i64) -> Vec<u8> {
        let time = (BEGIN.wall.0 / 1000) + after;
        let json = format!(r#"{{"host":"{host}","time":{time}{more}}}"#);
        sign(&key(&Secret::new("k")), json.as_bytes())
    }

    fn following() -> Play {
        let mut rules = rules();
        rules.settings.key = Some(Secret::new("k"));
        rules.hosts.get_mut("web1").unwrap().dyndns = true;
        let web2 = rules.hosts["web1"].clone();
        rules.hosts.insert("web2".into(), HostSettings { dyndns: false, ..web2 });
        Play::with(rules)
    }

    /// The connection and the address that are told after a datagram that was believed.
    fn told(play: &mut Play, bytes: &[u8], from: &str) -> Option<String> {
        let from = from.parse().unwrap();
        let path = play.fleet.hear(bytes, from, play.now).unwrap().vouched?;
        let moved = play.fleet.moved(&path, from)?;
        Some(format!("{} {} {}", moved.host, moved.connection, moved.address))
    }

    #[test]
    fn only_a_new_address_of_a_host_that_is_followed_is_told() {
        let mut play = following();
        for (bytes, from, expected) in [
            (followed("web1", "", 1), "1.1.1.1", Some("web1 ipv4 1.1.1.1")),
            (followed("web1", "", 2), "1.1.1.1", None),
            (followed("web1", "", 3), "::ffff:1.1.1.1", None),
            (followed("web1", "", 4), "2a00::1", Some("web1 ipv6 2a00::1")),
            (followed("web1", "", 5), "1.1.1.2", Some("web1 ipv4 1.1.1.2")),
            (followed("web1", r#","connection":"vpn""#, 6), "1.1.1.9", Some("web1 vpn 1.1.1.9")),
            (followed("web2", "", 7), "1.1.1.1", None),
        ] {
            assert_eq!(told(&mut play, &bytes, from).as_deref(), expected, "{from}");
        }
        let rules = play.rules.clone();
        play.fleet.reconfigure(rules, play.now);
        let again = told(&mut play, &followed("web1", "", 8), "1.1.1.2");
        assert_eq!(again.as_deref(), Some("web1 ipv4 1.1.1.2"), "after a reload all is told anew");
    }

    #[test]
    fn a_datagram_that_was_overheard_moved_the_name_of_its_host() {
        let mut play = following();
        let first = followed("web1", "", 2);
        assert!(told(&mut play, &followed("web1", "", 1), "2a00::1").is_some());
        assert!(told(&mut play, &first, "1.1.1.1").is_some());
        // It is new over the other family, and beats there; it proves nothing.
        assert_eq!(told(&mut play, &first, "2a00::66"), None);
        let second = play.fleet.hear(&first, "1.1.1.66".parse().unwrap(), play.now);
        assert_eq!(second.unwrap_err(), Rejection::Replay);
        // What came before a crash and was not stored yet is believed again, but moves nothing.
        let mut restarted = following();
        restarted.now = BEGIN.later(60 * SECOND);
        restarted.start(Vec::new(), None);
        assert_eq!(told(&mut restarted, &followed("web1", "", 50), "1.1.1.66"), None);
        assert!(told(&mut restarted, &followed("web1", "", 61), "1.1.1.1").is_some());
    }

    #[test]
    fn what_is_not_signed_tells_no_address() {
        let mut rules = rules();
        rules.hosts.get_mut("web1").unwrap().dyndns = true;
        let mut play = Play::with(rules);
        assert_eq!(told(&mut play, BEAT.as_bytes(), "1.1.1.1"), None);
    }
}
