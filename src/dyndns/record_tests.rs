//! The records of one host, with the time moved by hand.

use domain::tsig::Algorithm;

use super::*;
use crate::dyndns::method::{DnsServer, Provider};
use crate::dyndns::settings::UpdateTiming;
use crate::event::EventId;
use crate::secret::Secret;

const START: Now = Now { mono: Mono(10_000_000), wall: Wall(1_795_291_928_000) };
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOME: &str = "1.1.1.1";
const AWAY: &str = "8.8.8.8";
const SIX: &str = "2a00::1";

struct TestRecord {
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
        refuse: Vec::new(),
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

impl TestRecord {
    fn new() -> TestRecord {
        TestRecord::with(entry(server()))
    }

    fn with(entry: DyndnsEntry) -> TestRecord {
        TestRecord {
            record: DnsRecord::new("web1", entry.clone()),
            entry,
            now: START,
            answer: Ok(()),
            zone: BTreeMap::new(),
            written: Vec::new(),
            attempts: 0,
            told: Vec::new(),
        }
    }

    fn hear(&mut self, address: &str) -> &mut TestRecord {
        let connection = if address.contains(':') { "ipv6" } else { "ipv4" };
        self.record.address_seen(connection, address.parse().unwrap(), self.now).unwrap();
        self
    }

    /// Lets time pass; it is looked at as often as it asks for.
    fn wait(&mut self, time: Duration) -> &mut TestRecord {
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

    fn restart(&mut self) -> &mut TestRecord {
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
    let mut test = TestRecord::new();
    test.hear(HOME).wait(29 * SECOND);
    assert_eq!((test.written.len(), test.state()), (0, "waiting"));
    test.wait(2 * SECOND);
    assert_eq!((test.written.clone(), test.state()), (vec![HOME.to_owned()], "kept"));
    test.wait(MINUTE).hear(AWAY).wait(20 * SECOND).hear(HOME).wait(10 * MINUTE);
    assert_eq!((test.written.len(), test.attempts), (1, 1), "it was gone too soon");
    test.hear(AWAY).wait(20 * SECOND).hear("9.9.9.9").wait(29 * SECOND);
    assert_eq!(test.written.len(), 1, "the newest one has to prove itself, too");
    test.wait(SECOND);
    assert_eq!(test.written, [HOME, "9.9.9.9"]);
}

#[test]
fn an_address_that_the_zone_has_already_is_not_written() {
    let mut test = TestRecord::new();
    test.zone.insert(RecordFamily::V4, HOME.parse().unwrap());
    test.hear(HOME).wait(MINUTE);
    assert_eq!((test.written.len(), test.attempts, test.state()), (0, 1, "kept"));
    assert_eq!(test.record.view(test.now).records[0].last_update, None);
}

#[test]
fn both_families_go_in_one_update_but_one_by_one_to_a_provider_with_one_place() {
    let mut test = TestRecord::new();
    test.hear(HOME).hear(SIX).wait(MINUTE);
    assert_eq!((test.attempts, test.written.len()), (1, 2));
    let mut test = TestRecord::with(entry(provider("https://x.example/u?ip={ip}")));
    test.hear(HOME).hear(SIX).wait(MINUTE);
    assert_eq!((test.attempts, test.written.len()), (2, 2));
    let mut test = TestRecord::with(entry(provider("https://x.example/u?ip={ipv4}")));
    test.hear(HOME);
    assert!(test.record.address_seen("ipv6", SIX.parse().unwrap(), test.now).is_err());
}

#[test]
fn a_name_is_written_once_a_minute_at_most() {
    let mut test = TestRecord::with(DyndnsEntry {
        timing: UpdateTiming { settle: SECOND, ..UpdateTiming::default() },
        ..entry(provider("https://x.example/u?ip={ip}"))
    });
    for n in 0..60 {
        test.hear(&format!("1.1.1.{}", n % 2)).wait(2 * SECOND);
    }
    assert!(test.written.len() <= 3, "{:?}", test.written);
}

#[test]
fn what_fails_is_tried_again_less_and_less_and_told_after_a_while() {
    let mut test = TestRecord::new();
    test.answer = Err(UpdateError::Unreachable("it is away".into()));
    test.hear(HOME).wait(10 * MINUTE);
    assert_eq!((test.state(), test.told.len()), ("failing", 0));
    assert!((4..=6).contains(&test.attempts), "{}", test.attempts);
    test.wait(MINUTE);
    assert_eq!(test.told, ["warning web1.example.com cannot be updated: it is away"]);
    test.wait(Duration::from_secs(24 * 3600));
    assert!((35..=75).contains(&test.attempts), "{}", test.attempts);
    assert_eq!(test.told.len(), 1);
    test.answer = Ok(());
    test.hear(AWAY).wait(40 * MINUTE);
    assert_eq!(test.written, [AWAY]);
    assert_eq!(test.told[1..], ["ok web1.example.com is kept up to date again"]);
}

#[test]
fn a_failure_that_is_over_soon_is_nobodys_concern() {
    let mut test = TestRecord::new();
    test.answer = Err(UpdateError::Unreachable("it is away".into()));
    test.hear(HOME).wait(5 * MINUTE);
    test.answer = Ok(());
    test.wait(10 * MINUTE);
    assert_eq!((test.state(), test.told.len()), ("kept", 0));
}

#[test]
fn a_refusal_is_told_at_once_and_over_when_it_is() {
    let mut test = TestRecord::new();
    test.answer = Err(UpdateError::Refused("BADKEY".into()));
    test.hear(HOME).wait(31 * SECOND);
    assert_eq!(test.told, ["warning web1.example.com cannot be updated: BADKEY"]);
    assert_eq!(test.state(), "refused");
    // It is not told again after a restart, and its end still is.
    test.restart().wait(MINUTE);
    assert_eq!(test.told.len(), 1);
    test.answer = Ok(());
    test.wait(30 * MINUTE);
    assert_eq!(test.told[1..], ["ok web1.example.com is kept up to date again"]);
}

#[test]
fn what_a_provider_forbids_is_left_for_a_day_or_until_the_configuration_changes() {
    let forbidden = || TestRecord {
        answer: Err(UpdateError::Forbidden("abuse".into())),
        ..TestRecord::with(entry(provider("https://x.example/u?ip={ip}")))
    };
    let mut test = forbidden();
    test.hear(HOME).wait(20 * 60 * MINUTE).hear(AWAY).wait(MINUTE).restart();
    test.hear(AWAY).wait(2 * 60 * MINUTE);
    assert_eq!(test.attempts, 1);
    test.answer = Ok(());
    test.wait(3 * 60 * MINUTE);
    assert_eq!((test.attempts, test.written.clone()), (2, vec![AWAY.to_owned()]));

    for restarts in [false, true] {
        let mut test = forbidden();
        test.hear(HOME).wait(MINUTE);
        test.answer = Ok(());
        test.entry.method = provider("https://x.example/u?other=1&ip={ip}");
        if restarts {
            test.restart();
        } else {
            test.record.reconfigure(test.entry.clone(), test.now);
        }
        test.wait(MINUTE);
        assert_eq!((test.attempts, test.written.len()), (2, 1));
        assert_eq!(test.told[1..], ["ok web1.example.com is kept up to date again"]);
    }
}

#[test]
fn maintenance_is_given_its_time() {
    let mut test = TestRecord::with(entry(provider("https://x.example/u?ip={ip}")));
    test.answer = Err(UpdateError::Busy("911".into(), 30 * MINUTE));
    test.hear(HOME).wait(29 * MINUTE).restart().hear(HOME).wait(MINUTE);
    assert_eq!((test.attempts, test.told.len()), (1, 1));
    test.answer = Ok(());
    test.wait(2 * MINUTE);
    assert_eq!(test.written, [HOME]);
}

#[test]
fn after_a_restart_a_zone_that_says_otherwise_is_put_right_and_another_is_left() {
    let mut test = TestRecord::new();
    test.hear(HOME).wait(MINUTE).restart().wait(MINUTE);
    assert_eq!((test.attempts, test.state()), (1, "kept"), "nobody was heard yet");
    test.hear(HOME).wait(MINUTE).hear(HOME).wait(MINUTE);
    assert_eq!((test.attempts, test.written.len()), (2, 1), "the zone is asked once");
    test.zone.insert(RecordFamily::V4, AWAY.parse().unwrap());
    test.restart().hear(HOME).wait(SECOND);
    assert_eq!(test.written, [HOME, HOME]);

    let mut test = TestRecord::with(entry(provider("https://x.example/u?ip={ip}")));
    test.hear(HOME).wait(MINUTE).restart().hear(HOME).wait(MINUTE);
    assert_eq!(test.attempts, 1, "a provider would count a question as an update");
}

#[test]
fn a_restart_in_the_middle_goes_on_without_another_beat() {
    let mut test = TestRecord::new();
    test.answer = Err(UpdateError::Unreachable("it is away".into()));
    test.hear(HOME).wait(MINUTE).restart();
    test.answer = Ok(());
    test.wait(MINUTE);
    assert_eq!((test.written.clone(), test.state()), (vec![HOME.to_owned()], "kept"));
}

#[test]
fn a_trouble_ends_when_the_host_returns_to_where_its_name_leads() {
    let mut test = TestRecord::new();
    test.hear(HOME).wait(MINUTE);
    test.answer = Err(UpdateError::Refused("BADKEY".into()));
    test.hear(AWAY).wait(MINUTE).hear(HOME).wait(30 * SECOND);
    assert_eq!(test.told.len(), 2, "{:?}", test.told);
    assert_eq!(test.state(), "kept");
}

#[test]
fn a_family_that_is_gone_since_a_restart_did_not_keep_a_trouble_open() {
    let mut test = TestRecord::new();
    test.hear(HOME).hear(SIX).wait(MINUTE);
    test.answer = Err(UpdateError::Refused("BADKEY".into()));
    test.hear(AWAY).wait(MINUTE).restart();
    test.answer = Ok(());
    test.hear(AWAY).wait(30 * MINUTE);
    assert_eq!(test.told.len(), 2, "{:?}", test.told);
}

#[test]
fn only_addresses_that_count_are_taken_and_the_first_connection_goes_first() {
    let mut test = TestRecord::new();
    for (connection, address) in
        [("ipv4", "10.0.0.1"), ("ipv4", "127.0.0.1"), ("vpn", HOME), ("ipv6", "fe80::1")]
    {
        let heard = test.record.address_seen(connection, address.parse().unwrap(), test.now);
        assert!(heard.is_err(), "{connection} {address}");
    }
    assert_eq!((test.record.next_wakeup(), test.state()), (None, "unknown"));
    test.record.address_seen("ipv4", format!("::ffff:{HOME}").parse().unwrap(), test.now).unwrap();
    test.wait(MINUTE);
    assert_eq!(test.written, [HOME]);

    let connections = vec!["dsl".into(), "lte".into()];
    let mut test = TestRecord::with(DyndnsEntry { connections, ..entry(server()) });
    test.record.address_seen("lte", AWAY.parse().unwrap(), test.now).unwrap();
    test.wait(MINUTE);
    test.record.address_seen("dsl", HOME.parse().unwrap(), test.now).unwrap();
    test.record.address_seen("lte", AWAY.parse().unwrap(), test.now).unwrap();
    test.wait(MINUTE);
    assert_eq!(test.written, [AWAY, HOME]);
}

#[test]
fn nothing_is_stored_while_nothing_changes() {
    let mut test = TestRecord::new();
    test.hear(HOME);
    assert_eq!(test.record.take_changed_row(), None, "it has not proven itself");
    test.wait(MINUTE);
    assert!(test.record.take_changed_row().is_some());
    for _ in 0..10 {
        test.hear(HOME).wait(MINUTE);
    }
    assert_eq!(test.record.take_changed_row(), None);
    test.answer = Err(UpdateError::Unreachable("it is away".into()));
    test.hear(AWAY).wait(30 * MINUTE);
    assert!(test.record.take_changed_row().is_some());
    test.wait(5 * 60 * MINUTE);
    assert_eq!(test.record.take_changed_row(), None, "it still fails, for the same reason");
}

#[test]
fn what_an_old_configuration_achieved_says_nothing_about_a_new_one() {
    let mut test = TestRecord::new();
    test.hear(HOME).wait(29 * SECOND);
    test.now = test.now.later(SECOND);
    let attempt = test.record.due_attempt(test.now).unwrap();
    let other = DyndnsEntry { name: "other.example.com".into(), ..entry(server()) };
    test.record.reconfigure(other, test.now);
    let result = UpdateResult { written: attempt.request.addresses.clone(), unchanged: Vec::new() };
    test.record.complete(&attempt, Ok(result), test.now);
    test.wait(SECOND);
    assert_eq!((test.written.clone(), test.attempts), (vec![HOME.to_owned()], 1));
}

#[test]
fn the_fingerprint_in_a_stored_row_outlives_a_renamed_type() {
    let http = UpdateMethod::Http(Provider {
        url: Secret::new("https://dns.example/?t=token&ip={ip}"),
        user: Some("me".into()),
        password: Some(Secret::new("secret-word")),
        expect: vec!["good".into()],
        refuse: Vec::new(),
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
