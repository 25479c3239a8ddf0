//! One name, with the time moved by hand.

use domain::tsig::Algorithm;

use super::*;
use crate::dyndns::method::{DnsServer, Provider};
use crate::dyndns::settings::UpdateTiming;
use crate::event::EventId;
use crate::secret::Secret;

const BEGIN: Now = Now { mono: Mono(10_000_000), wall: Wall(1_795_291_928_000) };
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOME: &str = "1.1.1.1";
const AWAY: &str = "8.8.8.8";
const SIX: &str = "2a00::1";

struct Play {
    record: DnsRecord,
    entry: DyndnsEntry,
    now: Now,
    /// What the server says to attempts; the addresses that were written.
    answer: Result<(), UpdateError>,
    zone: BTreeMap<RecordFamily, IpAddr>,
    written: Vec<String>,
    attempts: usize,
    told: Vec<String>,
}

fn server() -> UpdateMethod {
    UpdateMethod::Rfc2136(DnsServer {
        server: "127.0.0.1".into(),
        port: 53,
        zone: "example.com".into(),
        ttl: 60,
        key_name: "hbd".into(),
        key: Secret::new("c2VjcmV0"),
        algorithm: Algorithm::Sha256,
    })
}

fn provider(url: &str) -> UpdateMethod {
    UpdateMethod::Http(Provider {
        url: Secret::new(url),
        user: None,
        password: None,
        expect: vec!["good".into()],
        ca_file: None,
    })
}

fn entry(method: UpdateMethod) -> DyndnsEntry {
    DyndnsEntry {
        name: "web1.example.com".into(),
        connections: vec!["ipv4".into(), "ipv6".into()],
        allow_private: false,
        timing: UpdateTiming::default(),
        method,
    }
}

impl Play {
    fn new() -> Play {
        Play::with(entry(server()))
    }

    fn with(entry: DyndnsEntry) -> Play {
        Play {
            record: DnsRecord::new("web1", entry.clone()),
            entry,
            now: BEGIN,
            answer: Ok(()),
            zone: BTreeMap::new(),
            written: Vec::new(),
            attempts: 0,
            told: Vec::new(),
        }
    }

    fn hear(&mut self, address: &str) -> &mut Play {
        let connection = if address.contains(':') { "ipv6" } else { "ipv4" };
        self.record.address_seen(connection, address.parse().unwrap(), self.now).unwrap();
        self
    }

    /// Lets time pass; it is looked at as often as it asks for.
    fn wait(&mut self, time: Duration) -> &mut Play {
        let end = self.now.later(time);
        for _ in 0..1000 {
            self.look();
            let Some(next) = self.record.next_wakeup().filter(|next| *next <= end.mono) else {
                self.now = end;
                return self;
            };
            self.now = self.now.later(next.since(self.now.mono));
        }
        panic!("it wants to be looked at all the time: {:?}", self.record);
    }

    fn look(&mut self) {
        while let Some(attempt) = self.record.due_attempt(self.now) {
            self.attempts += 1;
            assert!(self.attempts < 1000, "{:?}", self.record);
            let answer = self.answer.clone().map(|()| self.write(&attempt));
            self.record.complete(&attempt, answer, self.now);
        }
        if let Some(event) = self.record.take_event(self.now) {
            let title = event.message(EventId(1)).title;
            self.told.push(format!("{} {title}", event.level.name()));
        }
    }

    fn write(&mut self, attempt: &UpdateAttempt) -> UpdateResult {
        let mut result = UpdateResult::default();
        for address in &attempt.request.addresses {
            let old = self.zone.insert(RecordFamily::of(*address), *address);
            let asks =
                attempt.check_first && matches!(attempt.entry.method, UpdateMethod::Rfc2136(_));
            if asks && old == Some(*address) {
                result.unchanged.push(*address);
            } else {
                result.written.push(*address);
                self.written.push(address.to_string());
            }
        }
        result
    }

    fn restart(&mut self) -> &mut Play {
        let row = serde_json::to_vec(&self.record.row()).unwrap();
        let row = serde_json::from_slice(&row).unwrap();
        self.record = DnsRecord::restore("web1", self.entry.clone(), row, self.now);
        self
    }

    fn state(&self) -> &'static str {
        self.record.view(self.now).state.name()
    }
}

#[test]
fn an_address_is_written_when_it_has_proven_itself() {
    let mut play = Play::new();
    play.hear(HOME).wait(29 * SECOND);
    assert_eq!((play.written.len(), play.state()), (0, "waiting"));
    play.wait(2 * SECOND);
    assert_eq!((play.written.clone(), play.state()), (vec![HOME.to_owned()], "kept"));
    play.wait(MINUTE).hear(AWAY).wait(20 * SECOND).hear(HOME).wait(10 * MINUTE);
    assert_eq!((play.written.len(), play.attempts), (1, 1), "it was gone too soon");
    play.hear(AWAY).wait(20 * SECOND).hear("9.9.9.9").wait(29 * SECOND);
    assert_eq!(play.written.len(), 1, "the newest one has to prove itself, too");
    play.wait(SECOND);
    assert_eq!(play.written, [HOME, "9.9.9.9"]);
}

#[test]
fn an_address_that_the_zone_has_already_is_not_written() {
    let mut play = Play::new();
    play.zone.insert(RecordFamily::V4, HOME.parse().unwrap());
    play.hear(HOME).wait(MINUTE);
    assert_eq!((play.written.len(), play.attempts, play.state()), (0, 1, "kept"));
    assert_eq!(play.record.view(play.now).records[0].last_update, None);
}

#[test]
fn both_families_go_in_one_update_but_one_by_one_to_a_provider_with_one_place() {
    let mut play = Play::new();
    play.hear(HOME).hear(SIX).wait(MINUTE);
    assert_eq!((play.attempts, play.written.len()), (1, 2));
    let mut play = Play::with(entry(provider("https://x.example/u?ip={ip}")));
    play.hear(HOME).hear(SIX).wait(MINUTE);
    assert_eq!((play.attempts, play.written.len()), (2, 2));
    let mut play = Play::with(entry(provider("https://x.example/u?ip={ipv4}")));
    play.hear(HOME);
    assert!(play.record.address_seen("ipv6", SIX.parse().unwrap(), play.now).is_err());
}

#[test]
fn a_name_is_written_once_a_minute_at_most() {
    let mut play = Play::with(DyndnsEntry {
        timing: UpdateTiming { settle: SECOND, ..UpdateTiming::default() },
        ..entry(provider("https://x.example/u?ip={ip}"))
    });
    for n in 0..60 {
        play.hear(&format!("1.1.1.{}", n % 2)).wait(2 * SECOND);
    }
    assert!(play.written.len() <= 3, "{:?}", play.written);
}

#[test]
fn what_fails_is_tried_again_less_and_less_and_told_after_a_while() {
    let mut play = Play::new();
    play.answer = Err(UpdateError::Unreachable("it is away".into()));
    play.hear(HOME).wait(10 * MINUTE);
    assert_eq!((play.state(), play.told.len()), ("failing", 0));
    assert!((4..=6).contains(&play.attempts), "{}", play.attempts);
    play.wait(MINUTE);
    assert_eq!(play.told, ["warning web1.example.com cannot be updated: it is away"]);
    play.wait(Duration::from_secs(24 * 3600));
    assert!((35..=75).contains(&play.attempts), "{}", play.attempts);
    assert_eq!(play.told.len(), 1);
    play.answer = Ok(());
    play.hear(AWAY).wait(40 * MINUTE);
    assert_eq!(play.written, [AWAY]);
    assert_eq!(play.told[1..], ["ok web1.example.com is kept up to date again"]);
}

#[test]
fn a_failure_that_is_over_soon_is_nobodys_concern() {
    let mut play = Play::new();
    play.answer = Err(UpdateError::Unreachable("it is away".into()));
    play.hear(HOME).wait(5 * MINUTE);
    play.answer = Ok(());
    play.wait(10 * MINUTE);
    assert_eq!((play.state(), play.told.len()), ("kept", 0));
}

#[test]
fn a_refusal_is_told_at_once_and_over_when_it_is() {
    let mut play = Play::new();
    play.answer = Err(UpdateError::Refused("BADKEY".into()));
    play.hear(HOME).wait(31 * SECOND);
    assert_eq!(play.told, ["warning web1.example.com cannot be updated: BADKEY"]);
    assert_eq!(play.state(), "refused");
    // It is not told again after a restart, and its end still is.
    play.restart().wait(MINUTE);
    assert_eq!(play.told.len(), 1);
    play.answer = Ok(());
    play.wait(30 * MINUTE);
    assert_eq!(play.told[1..], ["ok web1.example.com is kept up to date again"]);
}

#[test]
fn what_a_provider_forbids_is_left_for_a_day_or_until_the_configuration_changes() {
    let forbidden = || Play {
        answer: Err(UpdateError::Forbidden("abuse".into())),
        ..Play::with(entry(provider("https://x.example/u?ip={ip}")))
    };
    let mut play = forbidden();
    play.hear(HOME).wait(20 * 60 * MINUTE).hear(AWAY).wait(MINUTE).restart();
    play.hear(AWAY).wait(2 * 60 * MINUTE);
    assert_eq!(play.attempts, 1);
    play.answer = Ok(());
    play.wait(3 * 60 * MINUTE);
    assert_eq!((play.attempts, play.written.clone()), (2, vec![AWAY.to_owned()]));

    for restarts in [false, true] {
        let mut play = forbidden();
        play.hear(HOME).wait(MINUTE);
        play.answer = Ok(());
        play.entry.method = provider("https://x.example/u?other=1&ip={ip}");
        if restarts {
            play.restart();
        } else {
            play.record.reconfigure(play.entry.clone(), play.now);
        }
        play.wait(MINUTE);
        assert_eq!((play.attempts, play.written.len()), (2, 1));
        assert_eq!(play.told[1..], ["ok web1.example.com is kept up to date again"]);
    }
}

#[test]
fn maintenance_is_given_its_time() {
    let mut play = Play::with(entry(provider("https://x.example/u?ip={ip}")));
    play.answer = Err(UpdateError::Busy("911".into(), 30 * MINUTE));
    play.hear(HOME).wait(29 * MINUTE).restart().hear(HOME).wait(MINUTE);
    assert_eq!((play.attempts, play.told.len()), (1, 1));
    play.answer = Ok(());
    play.wait(2 * MINUTE);
    assert_eq!(play.written, [HOME]);
}

#[test]
fn after_a_restart_a_zone_that_says_otherwise_is_put_right_and_another_is_left() {
    let mut play = Play::new();
    play.hear(HOME).wait(MINUTE).restart().wait(MINUTE);
    assert_eq!((play.attempts, play.state()), (1, "kept"), "nobody was heard yet");
    play.hear(HOME).wait(MINUTE).hear(HOME).wait(MINUTE);
    assert_eq!((play.attempts, play.written.len()), (2, 1), "the zone is asked once");
    play.zone.insert(RecordFamily::V4, AWAY.parse().unwrap());
    play.restart().hear(HOME).wait(SECOND);
    assert_eq!(play.written, [HOME, HOME]);

    let mut play = Play::with(entry(provider("https://x.example/u?ip={ip}")));
    play.hear(HOME).wait(MINUTE).restart().hear(HOME).wait(MINUTE);
    assert_eq!(play.attempts, 1, "a provider would count a question as an update");
}

#[test]
fn a_restart_in_the_middle_goes_on_without_another_beat() {
    let mut play = Play::new();
    play.answer = Err(UpdateError::Unreachable("it is away".into()));
    play.hear(HOME).wait(MINUTE).restart();
    play.answer = Ok(());
    play.wait(MINUTE);
    assert_eq!((play.written.clone(), play.state()), (vec![HOME.to_owned()], "kept"));
}

#[test]
fn a_trouble_ends_when_the_host_returns_to_where_its_name_leads() {
    let mut play = Play::new();
    play.hear(HOME).wait(MINUTE);
    play.answer = Err(UpdateError::Refused("BADKEY".into()));
    play.hear(AWAY).wait(MINUTE).hear(HOME).wait(30 * SECOND);
    assert_eq!(play.told.len(), 2, "{:?}", play.told);
    assert_eq!(play.state(), "kept");
}

#[test]
fn a_family_that_is_gone_since_a_restart_did_not_keep_a_trouble_open() {
    let mut play = Play::new();
    play.hear(HOME).hear(SIX).wait(MINUTE);
    play.answer = Err(UpdateError::Refused("BADKEY".into()));
    play.hear(AWAY).wait(MINUTE).restart();
    play.answer = Ok(());
    play.hear(AWAY).wait(30 * MINUTE);
    assert_eq!(play.told.len(), 2, "{:?}", play.told);
}

#[test]
fn only_addresses_that_count_are_taken_and_the_first_connection_goes_first() {
    let mut play = Play::new();
    for (connection, address) in
        [("ipv4", "10.0.0.1"), ("ipv4", "127.0.0.1"), ("vpn", HOME), ("ipv6", "fe80::1")]
    {
        let heard = play.record.address_seen(connection, address.parse().unwrap(), play.now);
        assert!(heard.is_err(), "{connection} {address}");
    }
    assert_eq!((play.record.next_wakeup(), play.state()), (None, "unknown"));
    play.record.address_seen("ipv4", format!("::ffff:{HOME}").parse().unwrap(), play.now).unwrap();
    play.wait(MINUTE);
    assert_eq!(play.written, [HOME]);

    let connections = vec!["dsl".into(), "lte".into()];
    let mut play = Play::with(DyndnsEntry { connections, ..entry(server()) });
    play.record.address_seen("lte", AWAY.parse().unwrap(), play.now).unwrap();
    play.wait(MINUTE);
    play.record.address_seen("dsl", HOME.parse().unwrap(), play.now).unwrap();
    play.record.address_seen("lte", AWAY.parse().unwrap(), play.now).unwrap();
    play.wait(MINUTE);
    assert_eq!(play.written, [AWAY, HOME]);
}

#[test]
fn nothing_is_stored_while_nothing_changes() {
    let mut play = Play::new();
    play.hear(HOME);
    assert_eq!(play.record.take_changed_row(), None, "it has not proven itself");
    play.wait(MINUTE);
    assert!(play.record.take_changed_row().is_some());
    for _ in 0..10 {
        play.hear(HOME).wait(MINUTE);
    }
    assert_eq!(play.record.take_changed_row(), None);
    play.answer = Err(UpdateError::Unreachable("it is away".into()));
    play.hear(AWAY).wait(30 * MINUTE);
    assert!(play.record.take_changed_row().is_some());
    play.wait(5 * 60 * MINUTE);
    assert_eq!(play.record.take_changed_row(), None, "it still fails, for the same reason");
}

#[test]
fn what_an_old_configuration_achieved_says_nothing_about_a_new_one() {
    let mut play = Play::new();
    play.hear(HOME).wait(29 * SECOND);
    play.now = play.now.later(SECOND);
    let attempt = play.record.due_attempt(play.now).unwrap();
    let other = DyndnsEntry { name: "other.example.com".into(), ..entry(server()) };
    play.record.reconfigure(other, play.now);
    let result = UpdateResult { written: attempt.request.addresses.clone(), unchanged: Vec::new() };
    play.record.complete(&attempt, Ok(result), play.now);
    play.wait(SECOND);
    assert_eq!((play.written.clone(), play.attempts), (vec![HOME.to_owned()], 1));
}

#[test]
fn the_fingerprint_in_a_stored_row_outlives_a_renamed_type() {
    let http = UpdateMethod::Http(Provider {
        url: Secret::new("https://dns.example/?t=token&ip={ip}"),
        user: Some("me".into()),
        password: Some(Secret::new("secret-word")),
        expect: vec!["good".into()],
        ca_file: Some("/etc/ca.pem".into()),
    });
    assert_eq!(fingerprint(&entry(server())), "2874e50ab7271cee");
    assert_eq!(fingerprint(&entry(http)), "4ee6ed6eac45ce78");
}

#[test]
fn a_stored_row_keeps_its_names() {
    let stored = r#"{"name":"web1.example.com","place":"127.0.0.1 port 53","fingerprint":"f","records":{"A":{"wanted":"1.1.1.1","sent":"1.1.1.1","at":1795291928000}},"failure":{"since":1795291928000,"at":1795291928000,"why":"x","refused":true,"told":true},"held_until":1795291928000}"#;
    let row: DyndnsRow = serde_json::from_str(stored).unwrap();
    assert_eq!(serde_json::to_string(&row).unwrap(), stored);
    let failure = row.failure.unwrap();
    assert!(failure.refused && failure.told && row.records[&RecordFamily::V4].at.is_some());
}
