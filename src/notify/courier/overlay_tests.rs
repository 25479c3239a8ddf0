//! How silences and windows meet the outbox, told by hand-moved time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::clock::{Mono, Wall};
use crate::event::{BackupNotice, CalmEvent, ForgottenConnection, Level, StoreFileEvent};
use crate::notify::calm::window::{Days, Hours, Window};
use crate::notify::calm::{MAX_NOTES, MAX_SILENCES, Origin, RootCause};
use crate::notify::channel::{Delivered, Failure, ReceiptState, RetryPolicy};
use crate::notify::outbox::{Delivery, QueueSettings, StoredOutbox};
use crate::notify::routing::{ChannelRoute, HostRoute};
use crate::store::{Table, Write};

#[cfg(test)]
#[path = "overlay_cause_tests.rs"]
mod causes;
#[cfg(test)]
#[path = "overlay_channel_tests.rs"]
mod channels;
#[cfg(test)]
#[path = "overlay_flap_tests.rs"]
mod flap;
#[cfg(test)]
#[path = "overlay_property_tests.rs"]
mod properties;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Interval and grace of the hosts here.
const PATIENCE: Duration = Duration::from_secs(40);
const INTERVAL: Duration = Duration::from_secs(10);
/// 2027-01-15T08:00:00Z.
const BEGIN: Now = Now { mono: Mono(1_000_000), wall: Wall(1_800_000_000_000) };

fn policy() -> RetryPolicy {
    RetryPolicy {
        first_delay: 5 * SECOND,
        max_delay: 5 * MINUTE,
        per_minute: 60_000,
        burst: 1000,
        give_up_critical: 9_999 * HOUR,
        give_up_warning: 9_999 * HOUR,
        give_up_other: 9_999 * HOUR,
        digest: None,
    }
}

/// The overlay, the outbox and their disk; all channels work at once.
struct TestOverlay {
    overlay: Overlay,
    outbox: Outbox,
    settings: CalmSettings,
    routes: Routes,
    now: Now,
    disk: BTreeMap<(Table, String), Vec<u8>>,
    /// Titles by channel, in the order in which they were delivered.
    told: Vec<String>,
    /// Every message in full.
    messages: Vec<crate::event::Message>,
    /// The same as deliveries.
    deliveries: Vec<Delivery>,
    /// Incidents that ended without an event, by the number of deliveries before that.
    forgotten: Vec<(usize, Incident)>,
    /// The kinds of the events in the history, with what held each back.
    history: Vec<(&'static str, Vec<String>)>,
    /// Parents that were said to be up, since they fell silent last.
    up: BTreeSet<String>,
    /// Whether the channels work.
    works: bool,
    /// Whether they refuse every message for good.
    refuses: bool,
}

fn routes() -> Routes {
    let line = |min_level| ChannelRoute { min_level };
    let host = |watch| HostRoute { watch, channels: None };
    Routes {
        channels: [("mail".into(), line(Level::Info)), ("pager".into(), line(Level::Critical))]
            .into(),
        default: vec!["mail".into(), "pager".into()],
        hosts: [
            ("web1".into(), host(true)),
            ("web2".into(), host(true)),
            ("quiet".into(), host(false)),
        ]
        .into(),
        backups: vec!["mail".into()],
        ..Routes::default()
    }
}

fn queues(routes: &Routes) -> BTreeMap<String, QueueSettings> {
    let of = |name: &String| {
        (name.clone(), QueueSettings { retry_policy: policy(), recipients: vec![None] })
    };
    routes.channels.keys().map(of).collect()
}

fn window(at: &str, scope: &str) -> Window {
    Window {
        name: "nightly".into(),
        scopes: vec![CalmScope::parse(scope).unwrap()],
        days: Days::Weekly([true; 7]),
        at: Hours::parse(at).unwrap(),
        zone: Some(jiff::tz::TimeZone::UTC),
        unless: None,
    }
}

impl TestOverlay {
    fn new() -> TestOverlay {
        // Where nothing flaps; see `flap` for that.
        TestOverlay::with(CalmSettings { flapping: None, ..CalmSettings::default() })
    }

    fn with(settings: CalmSettings) -> TestOverlay {
        TestOverlay {
            overlay: Overlay::new(settings.clone()),
            outbox: Outbox::new(queues(&routes()), 7, BEGIN),
            settings,
            routes: routes(),
            now: BEGIN,
            disk: BTreeMap::new(),
            told: Vec::new(),
            messages: Vec::new(),
            deliveries: Vec::new(),
            forgotten: Vec::new(),
            history: Vec::new(),
            up: BTreeSet::new(),
            works: true,
            refuses: false,
        }
    }

    /// With a window from now on for an hour.
    fn in_window(scope: &str) -> TestOverlay {
        let mut test = TestOverlay::new();
        test.settings.windows = vec![window("08:00-09:00", scope)];
        test.overlay.calm.reconfigure(test.settings.clone());
        test
    }

    fn accept(&mut self, event: Event) -> &mut TestOverlay {
        self.accept_one(&event);
        self.turn()
    }

    fn accept_one(&mut self, event: &Event) {
        if let EventKind::Overdue { host, was_last_up: true, .. } = &event.kind
            && !event.untold
        {
            self.up.remove(host);
        }
        if self.outbox.acknowledged(event, self.now).is_some() {
            return;
        }
        let passed = self.overlay.accept(event, &mut self.outbox, &self.routes, self.now);
        if let Some(passed) = passed {
            if let Some(incident) = event.incident().opens() {
                let quiet = self.overlay.calm.is_quiet(incident, event.level, self.now);
                assert!(!quiet || passed.told.is_empty(), "{event:?} is held back");
                self.check_causes(event, &passed.told);
            }
            self.history.push((event.kind.describe().name, passed.held_by));
        }
    }

    /// No channel that knows why is told.
    fn check_causes(&self, event: &Event, told: &[String]) {
        for cause in RootCause::of(event) {
            let known = self.outbox.knowing(&cause);
            let goes_on = !cause.parent().is_some_and(|host| self.up.contains(host));
            assert!(!goes_on || told.iter().all(|name| !known.contains(name)), "{event:?}");
        }
    }

    /// A host that others are reached through is heard again.
    fn parent_up(&mut self, host: &str) {
        self.up.insert(host.to_owned());
        self.overlay.calm.set_parent(host, true);
    }

    /// What the courier does at every turn: what is due, one commit, the deliveries.
    fn turn(&mut self) -> &mut TestOverlay {
        self.outbox.expire_acknowledgements(self.now);
        let due = self.overlay.due(&self.outbox, self.now);
        let (outbox, routes) = (&mut self.outbox, &self.routes);
        let released = self.overlay.release_all(due.released, outbox, routes, self.now);
        released.iter().for_each(|(event, passed)| self.check_causes(event, &passed.told));
        due.events.iter().for_each(|event| self.accept_one(event));
        if due.window_began {
            self.overlay.withdraw_reminders(&mut self.outbox, self.now);
        }
        self.commit();
        while self.works {
            let attempts = self.outbox.start(self.now);
            if attempts.is_empty() {
                break;
            }
            for attempt in attempts {
                if self.refuses {
                    let refused = Failure::MessageRefused("no".into());
                    self.outbox.complete(attempt.id, Err(refused), self.now);
                    continue;
                }
                let delivery = &attempt.delivery;
                self.told.push(format!("{} {}", delivery.channel, delivery.message.title));
                self.messages.push((*delivery.message).clone());
                self.deliveries.push(delivery.clone());
                self.outbox.complete(attempt.id, Ok(Delivered::default()), self.now);
            }
        }
        self.commit();
        self
    }

    fn commit(&mut self) {
        self.outbox.report_given_up(&self.routes, self.now);
        let writes = [self.outbox.take_writes(), self.overlay.calm.take_writes()].concat();
        self.write(writes);
    }

    fn write(&mut self, writes: Vec<Write>) {
        for Write { table, key, value } in writes {
            match value {
                Some(value) => drop(self.disk.insert((table, key), value)),
                None => drop(self.disk.remove(&(table, key))),
            }
        }
    }

    /// Moves the time on, from one wake to the next.
    fn wait(&mut self, by: Duration) -> &mut TestOverlay {
        let end = self.now.later(by);
        loop {
            let next = self.overlay.calm.next_wake(self.now);
            let Some(next) = next.filter(|next| *next < end.mono) else { break };
            self.now = self.now.later(next.since(self.now.mono).max(Duration::from_millis(1)));
            self.turn();
        }
        self.now = self.now.later(end.mono.since(self.now.mono));
        self.turn()
    }

    fn rows(&self, table: Table) -> Vec<(String, Vec<u8>)> {
        let of = self.disk.iter().filter(|((row, _), _)| *row == table);
        of.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    /// The daemon dies, and starts again with what is on disk.
    fn restart(&mut self) -> &mut TestOverlay {
        self.restart_with(|then| then)
    }

    fn restart_with(&mut self, rebase: impl Fn(Now) -> Now) -> &mut TestOverlay {
        fn parsed<T: serde::de::DeserializeOwned>(
            rows: Vec<(String, Vec<u8>)>,
        ) -> Vec<(String, T)> {
            rows.into_iter()
                .map(|(key, row)| (key, serde_json::from_slice(&row).unwrap()))
                .collect()
        }
        let now = self.now;
        let mut incidents: Vec<OpenIncident> =
            parsed(self.rows(Table::Troubles)).into_iter().map(|(_, row)| row).collect();
        for open in &mut incidents {
            open.rebase_acknowledgement(&rebase, now);
        }
        let stored = StoredOutbox {
            last_event: self.outbox.last_event(),
            deliveries: parsed(self.rows(Table::Outbox)),
            incidents,
            receipts: parsed(self.rows(Table::Receipts)).into_iter().map(|(_, row)| row).collect(),
        };
        self.outbox = Outbox::new(queues(&self.routes), 7, now);
        self.outbox.restore(stored, now);
        self.outbox.take_over(&self.routes, now);
        self.overlay = Overlay::new(self.settings.clone());
        self.overlay.calm.restore(self.rows(Table::Calm), rebase, now);
        self.overlay.readdress(&self.outbox, &self.routes, now);
        self.turn()
    }

    /// The machine boots, after `away`: its monotonic clock begins anew.
    fn reboot(&mut self, away: Duration, wall: Option<Wall>) -> &mut TestOverlay {
        let wall = wall.unwrap_or(self.now.wall + away);
        let now = Now { mono: Mono(20_000), wall };
        self.now = now;
        self.restart_with(move |then| {
            let age = now.wall.since(then.wall);
            let age = if age > 48 * HOUR { Duration::ZERO } else { age };
            Now { mono: now.mono - age, wall: then.wall }
        })
    }

    fn try_silence(&mut self, scope: &str, length: Duration) -> Result<HandledRequest, CalmError> {
        let new = NewSilence {
            scope: CalmScope::parse(scope).unwrap(),
            length,
            by: "ann".into(),
            comment: Some("kernel update".into()),
            unless: None,
            origin: Origin::Command,
        };
        self.overlay.handle(CalmRequest::Silence(new), &mut self.outbox, self.now)
    }

    fn silence(&mut self, scope: &str, length: Duration) -> &mut TestOverlay {
        let handled = self.try_silence(scope, length).unwrap();
        handled.events.iter().for_each(|event| self.accept_one(event));
        self.turn()
    }

    fn unsilence(&mut self, which: SilenceSelection) -> UnsilencedView {
        let request = CalmRequest::Unsilence { which, by: "bob".into() };
        let handled = self.overlay.handle(request, &mut self.outbox, self.now).unwrap();
        handled.events.iter().for_each(|event| self.accept_one(event));
        self.turn();
        let CalmAnswer::Unsilenced(view) = handled.answer else { panic!() };
        view
    }

    fn try_acknowledge(
        &mut self,
        scope: &str,
        length: Option<Duration>,
    ) -> Result<Vec<String>, CalmError> {
        let new = NewAcknowledgement {
            scope: CalmScope::parse(scope).unwrap(),
            by: "ann".into(),
            comment: Some("on my way".into()),
            length,
        };
        let request = CalmRequest::Acknowledge(new);
        let handled = self.overlay.handle(request, &mut self.outbox, self.now)?;
        handled.events.iter().for_each(|event| self.accept_one(event));
        self.turn();
        let CalmAnswer::Acknowledged(view) = handled.answer else { panic!() };
        Ok(view.acknowledged)
    }

    /// What was told since the last call.
    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn held(&self) -> usize {
        self.overlay.calm.held_view(None, self.now).held.len()
    }

    fn calm_rows(&self) -> usize {
        let held = |(key, _): &&(String, Vec<u8>)| !key.starts_with("meta/");
        self.rows(Table::Calm).iter().filter(held).count()
    }
}

fn event(now: Now, kind: impl Into<EventKind>) -> Event {
    Event::new(now.wall, kind)
}

impl TestOverlay {
    fn overdue(&mut self, host: &str) -> &mut TestOverlay {
        self.overdue_over(host, "ipv4", true)
    }

    fn overdue_over(&mut self, host: &str, connection: &str, last: bool) -> &mut TestOverlay {
        let event = self.overdue_event(host, connection, last);
        self.accept(event)
    }

    fn shutdown(&mut self, host: &str, connection: &str) -> &mut TestOverlay {
        let kind = EventKind::Shutdown { host: host.into(), connection: connection.into() };
        let event = Event { patience: PATIENCE, ..event(self.now, kind) };
        self.accept(event)
    }

    fn not_back(&mut self, host: &str) -> &mut TestOverlay {
        let kind = EventKind::NotBack { host: host.into(), since: Wall(0), within: 15 * MINUTE };
        let event = Event { patience: PATIENCE, ..event(self.now, kind) };
        self.accept(event)
    }

    fn back(&mut self, host: &str) -> &mut TestOverlay {
        let (host, connection) = (host.into(), "ipv4".into());
        self.accept(event(self.now, EventKind::Back { host, connection, gone: HOUR }))
    }

    fn booted(&mut self, host: &str, announced: bool, returned: &[&str]) -> &mut TestOverlay {
        let kind = EventKind::Booted {
            host: host.into(),
            announced,
            returned: returned.iter().map(|name| name.to_string()).collect(),
            gone: Some(3 * MINUTE),
        };
        self.accept(event(self.now, kind))
    }

    fn metric(&mut self, level: Level) -> &mut TestOverlay {
        self.threshold("web1", level, false)
    }

    fn threshold(&mut self, host: &str, level: Level, reminder: bool) -> &mut TestOverlay {
        let kind = EventKind::Threshold {
            host: host.into(),
            metric: "m".into(),
            value: 1.0,
            limit: "> 0.0".into(),
            level,
            since: Wall(0),
            reminder,
        };
        let event = Event { patience: INTERVAL, ..event(self.now, kind) };
        self.accept(event)
    }

    fn missing(&mut self) -> &mut TestOverlay {
        let kind = EventKind::Missing {
            host: "web1".into(),
            metric: "m".into(),
            last_sent: Wall(0),
            value: 1.0,
            limit: "> 0.0".into(),
            last_level: Level::Critical,
        };
        let event = Event { patience: INTERVAL, ..event(self.now, kind) };
        self.accept(event)
    }

    fn plan(&mut self, notice: BackupNotice, level: Level, title: &str) -> &mut TestOverlay {
        let (plan, title) = ("4".into(), title.into());
        let (details, table) = (Vec::new(), None);
        let kind = EventKind::Backup { plan, notice, level, title, details, table };
        self.accept(event(self.now, kind))
    }

    fn said(&mut self, host: &str, text: &str) -> &mut TestOverlay {
        let kind = EventKind::HostMessage { host: host.into(), text: text.into() };
        self.accept(event(self.now, kind))
    }

    fn host_silence(&mut self, host: &str, length: Duration) -> &mut TestOverlay {
        let notice = crate::event::SilenceNotice {
            scope: host.into(),
            host: Some(host.into()),
            id: String::new(),
            length,
            by: host.into(),
            comment: None,
            by_host: true,
        };
        let (outbox, routes) = (&mut self.outbox, &self.routes);
        let asked = self.overlay.on_host_request(&notice, outbox, routes, self.now);
        asked.expect("there is room").events.iter().for_each(|event| self.accept_one(event));
        self.turn()
    }
}

const NONE: [&str; 0] = [];
const OVERDUE: [&str; 2] = ["mail web1 ipv4 overdue", "pager web1 ipv4 overdue"];
const BACK: [&str; 2] = ["mail web1 ipv4 is back", "pager web1 ipv4 is back"];

fn of_metric(level: &str) -> String {
    format!("mail {level}: web1 - m = 1.0 (threshold: > 0.0)")
}

/// Overlays that hold everything about web1 and plan 4 back, for an hour from now on.
fn overlays() -> Vec<(&'static str, TestOverlay)> {
    let mut silence = TestOverlay::new();
    silence.silence("--all", HOUR);
    let mut two = TestOverlay::in_window("--all");
    two.silence("--all", HOUR);
    let mut parts = TestOverlay::new();
    parts.silence("web*", HOUR).silence("plan:4", HOUR);
    vec![
        ("silence", silence),
        ("window", TestOverlay::in_window("--all")),
        ("two", two),
        ("parts", parts),
    ]
}

#[test]
fn without_a_reason_all_is_told_as_ever() {
    let mut test = TestOverlay::new();
    test.silence("web2", HOUR).overdue("web1");
    assert_eq!(test.told(), OVERDUE);
    test.back("web1");
    assert_eq!(test.told(), BACK);
    assert_eq!(test.held(), 0);
}

#[test]
fn silenced_for_an_hour_and_back_within_it_is_nothing() {
    for (name, mut test) in overlays() {
        test.wait(10 * MINUTE).overdue("web1");
        assert_eq!(test.held(), 1, "{name}");
        test.wait(40 * MINUTE).back("web1").wait(2 * HOUR);
        assert_eq!(test.told(), NONE, "{name}");
        let kinds: Vec<_> = test.history.iter().map(|(kind, _)| *kind).collect();
        assert!(kinds.contains(&"overdue") && kinds.contains(&"back"), "{name}: {kinds:?}");
        assert_eq!(test.calm_rows(), 0, "{name}");
    }
}

#[test]
fn back_after_the_end_it_is_told_once_its_patience_has_passed() {
    for (name, mut test) in overlays() {
        test.wait(10 * MINUTE).overdue("web1").wait(50 * MINUTE + PATIENCE - SECOND);
        assert_eq!(test.told(), NONE, "{name}");
        test.wait(2 * SECOND);
        assert_eq!(test.told(), OVERDUE, "{name}");
        test.wait(SECOND).back("web1");
        assert_eq!(test.told(), BACK, "{name}");
        assert_eq!(test.calm_rows(), 0, "{name}");
    }
}

#[test]
fn back_within_its_patience_is_nothing() {
    for (name, mut test) in overlays() {
        test.overdue("web1").wait(HOUR + PATIENCE / 2).back("web1").wait(HOUR);
        assert_eq!(test.told(), NONE, "{name}");
        assert_eq!(test.calm_rows(), 0, "{name}");
    }
}

#[test]
fn the_end_of_what_was_told_before_is_told_at_once_and_to_no_others() {
    for (name, mut test) in overlays() {
        let mut before = TestOverlay::new();
        before.metric(Level::Warning).overdue("web1");
        assert_eq!(before.told().len(), 3);
        // What was told before the overlay began.
        test.outbox = before.outbox;
        test.disk.extend(before.disk);
        test.wait(10 * MINUTE).back("web1").metric(Level::Ok);
        assert_eq!(test.told(), [BACK[0], BACK[1], &of_metric("OK")], "{name}");
        test.wait(2 * HOUR);
        assert_eq!(test.told(), NONE, "{name}");
    }
}

#[test]
fn only_what_differs_from_what_was_told_comes_out() {
    for (levels, expected) in [
        (vec![Level::Critical, Level::Warning], vec![]),
        (vec![Level::Critical, Level::Ok], vec![of_metric("OK")]),
        (vec![Level::Ok, Level::Warning], vec![of_metric("OK"), of_metric("WARNING")]),
        (
            vec![Level::Critical],
            vec![of_metric("CRITICAL"), of_metric("CRITICAL").replace("mail", "pager")],
        ),
    ] {
        for (name, mut test) in overlays() {
            let mut before = TestOverlay::new();
            before.metric(Level::Warning).told();
            test.outbox = before.outbox;
            test.disk.extend(before.disk);
            test.wait(MINUTE);
            for level in &levels {
                test.metric(*level).wait(MINUTE);
            }
            test.wait(HOUR + INTERVAL);
            assert_eq!(test.told(), expected, "{name} {levels:?}");
            assert_eq!(test.calm_rows(), 0, "{name} {levels:?}");
        }
    }
}

#[test]
fn a_plan_comes_out_at_once_when_its_report_says_something_else() {
    for (name, mut test) in overlays() {
        test.plan(BackupNotice::Report, Level::Critical, "plan 4: 1 failed");
        test.wait(30 * MINUTE).plan(BackupNotice::Report, Level::Critical, "plan 4: 2 failed");
        test.wait(30 * MINUTE);
        assert_eq!(test.told(), ["mail plan 4: 2 failed"], "{name}");
        // Told, then silenced: the same report is no news, another one is.
        test.silence("plan:4", HOUR);
        test.plan(BackupNotice::Report, Level::Critical, "plan 4: 2 failed").wait(HOUR);
        assert_eq!(test.told(), NONE, "{name}");
        test.silence("plan:4", HOUR);
        test.plan(BackupNotice::Report, Level::Critical, "plan 4: 3 failed").wait(HOUR);
        assert_eq!(test.told(), ["mail plan 4: 3 failed"], "{name}");
        test.silence("plan:4", HOUR).plan(BackupNotice::Report, Level::Ok, "plan 4: well");
        assert_eq!(test.told(), ["mail plan 4: well"], "{name}: to whoever was told");
        test.plan(BackupNotice::Report, Level::Ok, "plan 4: well").wait(HOUR);
        assert_eq!(test.told(), NONE, "{name}: nobody was told of anything");
    }
}

#[test]
fn a_reminder_is_dropped_and_one_that_waits_is_taken_out() {
    for scope in ["web1", "web1/m", "*/m", "--all"] {
        let mut test = TestOverlay::new();
        test.metric(Level::Warning);
        test.told();
        test.works = false;
        test.threshold("web1", Level::Warning, true);
        assert_eq!(test.outbox.len(), 1);
        test.silence(scope, HOUR);
        assert_eq!(test.outbox.len(), 0, "{scope}");
        test.works = true;
        let before = test.history.len();
        test.wait(MINUTE).threshold("web1", Level::Warning, true).wait(HOUR);
        assert_eq!(test.told(), NONE);
        assert!(!test.history[before..].iter().any(|(kind, _)| *kind == "threshold"));
        test.threshold("web1", Level::Warning, true);
        assert_eq!(test.told(), [of_metric("WARNING")], "afterwards as ever");
        assert_eq!(test.calm_rows(), 0);
    }
}

#[test]
fn a_window_that_begins_takes_waiting_reminders_out() {
    let mut test = TestOverlay::new();
    test.settings.windows = vec![window("08:30-09:00", "web1")];
    test.overlay.calm.reconfigure(test.settings.clone());
    test.metric(Level::Warning).told();
    test.works = false;
    test.threshold("web1", Level::Warning, true).wait(29 * MINUTE);
    assert_eq!(test.outbox.len(), 1);
    test.wait(3 * MINUTE);
    assert_eq!(test.outbox.len(), 0);
}

#[test]
fn a_reminder_that_is_all_that_a_channel_has_stays() {
    let mut test = TestOverlay::new();
    test.works = false;
    test.threshold("web1", Level::Warning, true).silence("web1", HOUR);
    assert_eq!(test.outbox.len(), 1, "it is the alarm");
    test.threshold("web2", Level::Warning, true);
    let mut test = TestOverlay::new();
    test.silence("web1", HOUR).threshold("web1", Level::Warning, true);
    assert_eq!(test.held(), 1, "nobody was told of it: it is one that opens");
    test.wait(HOUR + INTERVAL);
    assert_eq!(test.told(), [of_metric("WARNING")]);
}

#[test]
fn unless_lets_through_what_is_of_its_level_or_above() {
    let mut test = TestOverlay::in_window("--all");
    test.settings.windows[0].unless = Some(Level::Critical);
    test.overlay.calm.reconfigure(test.settings.clone());
    test.metric(Level::Warning);
    assert_eq!(test.told(), NONE);
    test.metric(Level::Critical);
    let critical = of_metric("CRITICAL");
    assert_eq!(test.told(), [critical.clone(), critical.replace("mail", "pager")]);
    assert_eq!(test.held(), 0);
    test.metric(Level::Warning);
    assert_eq!(test.told(), NONE, "held again");
    test.wait(HOUR + INTERVAL);
    assert_eq!(test.told(), [of_metric("WARNING")], "it differs from what was told");
}

#[test]
fn messages_are_kept_and_come_as_one() {
    for (name, mut test) in overlays() {
        test.said("web1", "raid: sdb failed").wait(MINUTE);
        assert_eq!((test.told(), test.held()), (vec![], 1), "{name}");
        test.said("web1", "raid: rebuilt").said("web2", "hello").wait(HOUR);
        if name == "two" || name == "silence" || name == "window" || name == "parts" {
            assert_eq!(
                test.told(),
                [
                    "mail web1: 2 messages came while it was silenced",
                    "mail web2: 1 message came while it was silenced"
                ],
                "{name}"
            );
        }
        let message = &test.messages[0];
        let detail = |label: &str| {
            let found = message.details.iter().find(|(found, _)| found == label);
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        assert_eq!(detail("messages"), "web1 raid: sdb failed\nweb1 raid: rebuilt");
        assert!(detail("held back").starts_with("until 2027-01-15 09:"), "{name}");
        assert_eq!(message.level, Level::Warning);
        assert_eq!(test.calm_rows(), 0, "{name}");
    }
}

#[test]
fn a_flood_of_messages_is_twenty_and_their_count() {
    let mut test = TestOverlay::new();
    test.silence("web1", HOUR);
    for number in 0..100 {
        test.said("web1", &format!("message {number}"));
    }
    assert_eq!(test.calm_rows(), MAX_NOTES + 1);
    test.restart().wait(HOUR);
    assert_eq!(test.told(), ["mail web1: 100 messages came while it was silenced"]);
    let details = &test.messages[0].details;
    assert!(details[0].1.ends_with("web1 message 19\nand 80 more"), "{details:?}");
}

#[test]
fn a_boot_announces_and_ends_at_once() {
    for (name, mut test) in overlays() {
        let mut before = TestOverlay::new();
        before.routes.channels.get_mut("pager").unwrap().min_level = Level::Warning;
        before.overdue_over("web1", "vpn", false);
        before.told();
        test.outbox = before.outbox;
        test.disk.extend(before.disk);
        test.wait(MINUTE).overdue("web1");
        test.booted("web1", false, &["ipv4", "vpn"]);
        let told = ["mail web1 booted", "pager web1 booted"];
        assert_eq!(test.told(), told, "{name}: the end of vpn, to whoever was given it");
        assert_eq!(test.held(), 0, "{name}: they have heard the announcement with it");
        test.wait(HOUR).booted("web1", true, &[]);
        assert_eq!(test.told(), ["mail web1 booted"]);
        test.silence("web1", HOUR).booted("web1", true, &[]).wait(HOUR);
        assert_eq!(test.told(), ["mail web1: 1 message came while it was silenced"], "{name}");
    }
}

#[test]
fn a_part_of_a_host_is_silent_and_the_rest_speaks() {
    let mut test = TestOverlay::new();
    test.silence("web1/ipv4", HOUR).overdue("web1").said("web1", "x").metric(Level::Warning);
    assert_eq!(test.told(), ["mail web1 x".to_owned(), of_metric("WARNING")]);
    test.booted("web1", true, &["ipv4"]).wait(2 * HOUR);
    assert_eq!(test.told(), ["mail web1 booted"]);
}

#[test]
fn a_correction_adds_channels_that_the_routes_did_not_name() {
    for (name, mut test) in overlays() {
        let mut before = TestOverlay::new();
        before.metric(Level::Critical).told();
        test.outbox = before.outbox;
        test.disk.extend(before.disk);
        test.wait(MINUTE).missing();
        assert_eq!((test.told(), test.held()), (vec![], 1), "{name}");
        test.wait(HOUR + INTERVAL);
        let missing = ["mail web1 metric m is missing", "pager web1 metric m is missing"];
        assert_eq!(test.told(), missing, "{name}: the pager too, which is not told of warnings");
    }
}

#[test]
fn what_ends_without_an_event_leaves_no_hold() {
    for (name, mut test) in overlays() {
        test.overdue("web1").metric(Level::Warning);
        for incident in [Incident::connection("web1", "ipv4"), Incident::metric("web1", "m")] {
            test.outbox.close_silently(&incident);
            test.overlay.calm.close_silently(&incident);
        }
        test.wait(2 * HOUR);
        assert_eq!(test.told(), NONE, "{name}");
        assert_eq!(test.calm_rows(), 0, "{name}");
        let connection = ForgottenConnection {
            name: "ipv4".into(),
            last_seen: Wall(0),
            silent_for: Some(HOUR),
            was_last: true,
            closes: vec![Incident::connection("web1", "ipv4")],
        };
        test.silence("web1", HOUR).overdue("web1");
        let kind = EventKind::Forgotten { host: "web1".into(), connection };
        test.accept(event(test.now, kind));
        test.wait(2 * HOUR);
        let note = ["mail web1: 1 message came while it was silenced"];
        assert_eq!(test.told(), note, "{name}: that it is forgotten, and not that it is overdue");
    }
}

#[test]
fn another_reason_before_it_comes_out_holds_it_on() {
    for (name, mut test) in overlays() {
        test.overdue("web1").wait(HOUR + PATIENCE / 2).silence("web1", HOUR);
        test.wait(HOUR - SECOND);
        assert_eq!((test.told(), test.held()), (vec![], 1), "{name}");
        test.wait(PATIENCE + 2 * SECOND);
        assert_eq!(test.told(), OVERDUE, "{name}");
    }
}

#[test]
fn the_last_of_several_reasons_counts() {
    let mut test = TestOverlay::in_window("web1");
    test.silence("web*", 2 * HOUR).overdue("web1").wait(HOUR + 10 * MINUTE);
    assert_eq!(test.held(), 1);
    let view = test.overlay.calm.held_view(None, test.now);
    let reasons: Vec<_> = view.held[0].reasons.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(reasons, ["s1"], "the window has ended");
    assert_eq!(view.held[0].reasons[0].channels, ["mail", "pager"]);
    test.wait(50 * MINUTE + PATIENCE);
    assert_eq!(test.told(), OVERDUE);
    let held = test.messages[0].details.last().unwrap();
    let text = "until 2027-01-15 10:00:00 UTC, by s1 of ann (kernel update)";
    assert_eq!((held.0.as_str(), held.1.as_str()), ("held back", text));
}

#[test]
fn a_reload_that_takes_the_window_away_lets_out_what_differs() {
    let mut test = TestOverlay::in_window("web1");
    test.overdue("web1").metric(Level::Warning).wait(30 * MINUTE);
    test.settings.windows.clear();
    test.overlay.calm.reconfigure(test.settings.clone());
    test.turn().wait(INTERVAL);
    assert_eq!(test.told(), [of_metric("WARNING")]);
    test.wait(PATIENCE);
    assert_eq!(test.told(), OVERDUE);
}

#[test]
fn a_restart_within_a_hold_changes_nothing() {
    for (name, mut test) in overlays() {
        test.overdue("web1").said("web1", "x").restart().wait(30 * MINUTE).restart();
        assert_eq!((test.told(), test.held()), (vec![], 2), "{name}");
        test.wait(30 * MINUTE + SECOND).restart().wait(PATIENCE);
        let note = "mail web1: 1 message came while it was silenced";
        assert_eq!(test.told(), [note, OVERDUE[0], OVERDUE[1]], "{name}");
        test.restart().wait(HOUR);
        assert_eq!(test.told(), NONE, "{name}");
    }
}

#[test]
fn a_reason_that_ended_while_the_daemon_was_down_gives_patience_from_the_start() {
    for (name, mut test) in overlays() {
        test.overdue("web1");
        // It is down for two hours.
        test.now = test.now.later(2 * HOUR);
        test.restart().wait(PATIENCE - SECOND);
        assert_eq!(test.told(), NONE, "{name}");
        test.wait(2 * SECOND);
        assert_eq!(test.told(), OVERDUE, "{name}");
        // The reason ended before, and the patience meanwhile.
        let mut test = TestOverlay::new();
        test.silence("web1", HOUR).overdue("web1").wait(HOUR + SECOND);
        test.now = test.now.later(HOUR);
        test.restart().wait(PATIENCE - SECOND);
        assert_eq!(test.told(), NONE);
        test.wait(2 * SECOND);
        assert_eq!(test.told(), OVERDUE);
    }
}

#[test]
fn a_silence_goes_on_over_a_boot_of_the_machine() {
    let mut test = TestOverlay::new();
    test.silence("web1", 72 * HOUR).overdue("web1").wait(50 * HOUR);
    test.reboot(2 * HOUR, None).restart().wait(19 * HOUR);
    assert_eq!((test.told(), test.held()), (vec![], 1));
    test.restart().wait(HOUR + PATIENCE);
    assert_eq!(test.told(), OVERDUE);
}

#[test]
fn a_lost_clock_holds_nothing_back() {
    for wall in [Wall(0), Wall(BEGIN.wall.0 - 1_000)] {
        for (name, mut test) in overlays() {
            test.overdue("web1");
            if name == "window" || name == "two" {
                // A wall clock within the window cannot be told from a right one.
                test.settings.windows[0].at = Hours::parse("08:00-08:01").unwrap();
                if wall != Wall(0) {
                    continue;
                }
            }
            test.reboot(MINUTE, Some(wall)).wait(PATIENCE + SECOND);
            assert_eq!(test.told(), OVERDUE, "{name} {wall}");
        }
    }
}

#[test]
fn a_wall_clock_that_is_set_moves_windows_and_no_silences() {
    for step in [HOUR, 24 * HOUR] {
        let step = i64::try_from(step.as_millis()).unwrap();
        for sign in [-1, 1] {
            let mut test = TestOverlay::new();
            test.silence("web1", HOUR).overdue("web1").wait(10 * MINUTE);
            test.now.wall.0 += sign * step;
            test.wait(49 * MINUTE);
            assert_eq!(test.told(), NONE, "{step} {sign}");
            test.wait(MINUTE + PATIENCE);
            assert_eq!(test.told(), OVERDUE, "{step} {sign}");
        }
    }
    let mut test = TestOverlay::in_window("web1");
    test.overdue("web1").wait(10 * MINUTE);
    test.now.wall.0 += 3_600_000;
    test.wait(MINUTE + PATIENCE);
    assert_eq!(test.told(), OVERDUE, "noticed within a minute");
    test.now.wall.0 -= 3_600_000;
    test.back("web1");
    assert_eq!(test.told(), BACK);
    test.overdue("web1").wait(10 * MINUTE);
    assert_eq!(test.told(), NONE, "within it again");
}

#[test]
fn a_damaged_row_holds_nothing_back_and_is_told() {
    let mut test = TestOverlay::new();
    test.silence("web1", HOUR).silence("web2", HOUR).overdue("web1").overdue("web2");
    let key = |key: &str| (Table::Calm, key.to_owned());
    test.disk.insert(key("silence/s1"), b"{\"scope\":\"web1\"}".to_vec());
    test.disk.insert(key("meta/last_silence"), b"?".to_vec());
    let row = String::from_utf8(test.disk[&key("silence/s2")].clone()).unwrap();
    test.disk.insert(key("silence/s3"), row.replace("\"by\"", "\"whom\"").into_bytes());
    test.restart();
    let lost = "hbd could not read what it held back";
    assert_eq!(test.told(), [format!("mail {lost}"), format!("pager {lost}")]);
    let details = &test.messages[0].details;
    let keys = "meta/last_silence\nsilence/s1\nsilence/s3";
    assert_eq!(details[0], ("not readable".into(), keys.into()));
    assert_eq!(test.messages[0].level, Level::Critical);
    test.wait(PATIENCE + SECOND);
    assert_eq!(test.told(), OVERDUE, "web2 is silenced still");
    test.restart();
    assert_eq!(test.told(), NONE, "told once");
    test.silence("web1", MINUTE);
    assert!(test.disk.contains_key(&key("silence/s4")), "a number is used once");
}

#[test]
fn the_daemon_s_own_troubles_are_never_held() {
    let mut test = TestOverlay::in_window("--all");
    test.silence("--all", HOUR);
    let store = || EventKind::StoreRefuses { why: "full".into() };
    let kinds = [
        store(),
        EventKind::StoreFile(StoreFileEvent::MovedAside { why: "x".into(), to: "y".into() }),
        EventKind::ChannelFails { channel: "pager".into(), why: "x".into(), waiting: 1 },
        EventKind::AlertsLost { rows: Vec::new(), count: 1 },
        EventKind::AlertmanagerSilent { why: "x".into() },
        EventKind::Calm(CalmEvent::HeldLost { keys: Vec::new(), count: 1 }),
    ];
    for kind in kinds {
        test.accept(event(test.now, kind.clone()));
        assert!(!test.told().is_empty(), "{kind:?}");
        assert_eq!(test.held(), 0);
    }
}

#[test]
fn a_host_that_is_not_watched_leaves_no_rows() {
    let mut test = TestOverlay::new();
    test.silence("--all", HOUR).overdue("quiet").said("quiet", "x").overdue("stranger");
    assert_eq!(test.held(), 0);
    test.threshold("quiet", Level::Warning, false);
    assert_eq!(test.held(), 1, "thresholds are told of every host");
}

#[test]
fn one_event_costs_one_commit() {
    let mut test = TestOverlay::new();
    test.silence("web1", HOUR);
    let event = Event {
        patience: PATIENCE,
        ..event(test.now, EventKind::Shutdown { host: "web1".into(), connection: "ipv4".into() })
    };
    test.accept_one(&event);
    let writes = test.overlay.calm.take_writes();
    assert_eq!(writes.len(), 1, "with the event itself in one transaction");
    assert!(test.outbox.take_writes().is_empty());
    test.write(writes);
    test.restart();
    assert_eq!(test.held(), 1);
    assert_eq!(test.overlay.calm.every_row().len(), test.rows(Table::Calm).len());
}

#[test]
fn a_host_that_silences_itself_for_a_reboot_is_quiet() {
    for answers in [1, 3] {
        let mut test = TestOverlay::new();
        for _ in 0..answers {
            test.host_silence("web1", 20 * MINUTE);
        }
        let silences = test.overlay.calm.silences(test.now).silences;
        assert_eq!(silences.len(), 1, "repeated like a boot");
        assert_eq!((silences[0].kind, silences[0].scope.as_str()), ("host", "web1"));
        let noticed = test.history.iter().filter(|(kind, _)| *kind == "silenced").count();
        assert_eq!(noticed, 1);
        test.shutdown("web1", "ipv4").wait(3 * MINUTE).booted("web1", true, &["ipv4"]);
        test.wait(HOUR);
        assert_eq!(test.told(), NONE);
        assert_eq!(test.calm_rows(), 0);
    }
}

#[test]
fn a_host_that_does_not_come_back_from_its_own_silence_is_critical_and_told_once() {
    for with_report in [false, true] {
        for connections in [&["ipv4"][..], &["ipv4", "vpn"]] {
            let mut test = TestOverlay::new();
            test.host_silence("web1", 20 * MINUTE);
            for one in connections {
                test.shutdown("web1", one);
            }
            test.wait(15 * MINUTE);
            if with_report {
                test.not_back("web1");
            }
            test.wait(5 * MINUTE + PATIENCE - SECOND);
            assert_eq!(test.told(), NONE);
            test.wait(2 * SECOND);
            let what = if with_report { "web1 has not come back" } else { "web1 ipv4 shutdown" };
            assert_eq!(test.told(), [format!("mail {what}"), format!("pager {what}")]);
            assert_eq!(test.messages[0].level, Level::Critical);
            let text = "by its own silence until 2027-01-15 08:20:00 UTC; it has not come back";
            assert_eq!(test.messages[0].details.last().unwrap().1, text);
            assert_eq!(test.calm_rows(), 0);
            test.wait(HOUR);
            assert_eq!(test.told(), NONE);
        }
    }
}

#[test]
fn a_host_ends_its_own_silence_and_no_other() {
    let mut test = TestOverlay::new();
    test.silence("web1", HOUR).host_silence("web1", HOUR).host_silence("web2", HOUR);
    test.host_silence("web1", Duration::ZERO);
    let silences = test.overlay.calm.silences(test.now).silences;
    let scopes: Vec<_> = silences.iter().map(|one| (one.kind, one.scope.as_str())).collect();
    assert_eq!(scopes, [("silence", "web1"), ("host", "web2")]);
    test.host_silence("web1", Duration::ZERO);
    test.host_silence("web2", 2 * HOUR);
    let silences = test.overlay.calm.silences(test.now).silences;
    assert_eq!(silences[1].until, test.now.wall + 2 * HOUR, "a longer one replaces it");
    test.overdue("web2");
    let held = test.overlay.calm.held_view(None, test.now);
    assert_eq!(held.held[0].reasons[0].why, "host");
}

/// How long what a host asked for lasts from now on.
fn left(test: &TestOverlay) -> Option<Duration> {
    let silences = test.overlay.calm.silences(test.now).silences;
    silences.iter().find(|one| one.kind == "host").map(|one| one.until.since(test.now.wall))
}

#[test]
fn what_a_host_asked_for_last_was_cut_to_what_it_asked_for_before() {
    for (first, after, then) in [
        (60 * SECOND, 30 * SECOND, 60 * SECOND),
        (60 * SECOND, 59 * SECOND, 90 * SECOND),
        (120 * SECOND, 10 * SECOND, 10 * SECOND),
        (HOUR, 30 * MINUTE, HOUR),
    ] {
        let mut test = TestOverlay::new();
        test.host_silence("web1", first).wait(after);
        test.host_silence("web1", then);
        assert_eq!(left(&test), Some(then), "{first:?} {then:?}");
        test.overdue("web1").wait(then - SECOND);
        assert_eq!((test.told(), test.calm_rows()), (vec![], 2), "{first:?} {then:?}");
        test.restart().wait(2 * SECOND + PATIENCE);
        assert_eq!(test.told(), OVERDUE, "{first:?} {then:?}");
    }
}

#[test]
fn a_silence_that_had_ended_at_this_moment_stood_for_a_new_one() {
    let mut test = TestOverlay::new();
    test.host_silence("web1", 60 * SECOND);
    test.now = test.now.later(60 * SECOND);
    test.host_silence("web1", 60 * SECOND);
    assert_eq!(left(&test), Some(60 * SECOND));
}

#[test]
fn hosts_that_silence_themselves_left_no_room_for_people_and_for_one_another() {
    let mut test = TestOverlay::new();
    let ask = |test: &mut TestOverlay, host: &str| {
        let notice = crate::event::SilenceNotice {
            scope: host.into(),
            host: Some(host.into()),
            id: String::new(),
            length: HOUR,
            by: host.into(),
            comment: None,
            by_host: true,
        };
        test.overlay.on_host_request(&notice, &mut test.outbox, &test.routes, test.now)
    };
    for number in 0..MAX_SILENCES / 2 {
        ask(&mut test, &format!("stranger{number}")).unwrap();
    }
    let refused = ask(&mut test, "stranger").unwrap_err();
    assert_eq!(refused.to_string(), "500 hosts silence themselves already", "and not in silence");
    assert!(ask(&mut test, "stranger1").is_ok(), "it has one");
    assert!(ask(&mut test, "web1").is_ok(), "a host that is configured");
    assert!(test.try_silence("web1", HOUR).is_ok());
}

#[test]
fn what_is_set_is_shown_with_a_name_and_an_end() {
    let mut test = TestOverlay::in_window("web*");
    test.overdue("web2");
    let HandledRequest { answer: CalmAnswer::Silenced(view), .. } =
        test.try_silence("web1", 2 * HOUR).unwrap()
    else {
        panic!()
    };
    assert_eq!((view.silence.id.as_str(), view.told.len()), ("s1", 0));
    assert_eq!(view.silence.comment.as_deref(), Some("kernel update"));
    test.turn();
    test.overdue("web1");
    let view = test.overlay.calm.silences(test.now);
    let ids: Vec<_> = view.silences.iter().map(|one| (one.id.as_str(), one.holds)).collect();
    assert_eq!(ids, [("s1", 1), ("nightly", 2)]);
    assert_eq!(view.next[0].text, "Sat 08:00 to 09:00 UTC");
    let overview = test.overlay.calm.overview(test.now);
    assert_eq!(overview.quiet("web1"), ["s1", "nightly"]);
    let day = test.now.wall - 24 * HOUR..test.now.wall;
    let marked = overview.windows(&["web1", "web2", "db"], &day);
    let running = test.now.wall..test.now.wall + 2 * HOUR;
    assert!(marked[0].contains(&running) && !marked[1].contains(&running), "{marked:?}");
    assert!(!marked[1].is_empty() && marked[2].is_empty(), "{marked:?}");
    assert_eq!(test.overlay.calm.stats(test.now).held, [1, 0, 2, 0, 0, 0]);
    let ended = test.unsilence(SilenceSelection::Id("s1".into()));
    assert_eq!((ended.ended, ended.follows.len()), (vec!["s1".to_owned()], 0), "the window lasts");
    let mut test = TestOverlay::new();
    test.silence("web1", HOUR).silence("web*", HOUR).overdue("web1").metric(Level::Warning);
    let ended = test.unsilence(SilenceSelection::All);
    assert_eq!(ended.ended, ["s1", "s2"]);
    let follows: Vec<_> =
        ended.follows.iter().map(|one| (one.text.as_str(), one.seconds)).collect();
    assert_eq!(follows, [("web1 m", 10.0), ("web1 ipv4", 40.0)]);
    test.wait(MINUTE);
    assert_eq!(test.told().len(), 3);
}

#[test]
fn a_silence_says_what_is_wrong_and_was_told() {
    let mut test = TestOverlay::new();
    test.overdue("web1").metric(Level::Warning).overdue("web2");
    let HandledRequest { answer: CalmAnswer::Silenced(view), .. } =
        test.try_silence("web1", HOUR).unwrap()
    else {
        panic!()
    };
    assert_eq!(view.told, ["web1 ipv4 overdue", &of_metric("WARNING")[5..]]);
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let mut test = TestOverlay::new();
    let range = "a silence lasts from 1 s to 4 w (calm.longest_silence)";
    let refused = |result: Result<HandledRequest, CalmError>| result.err().unwrap();
    let short = refused(test.try_silence("web1", Duration::ZERO));
    assert_eq!(short, CalmError::Invalid { field: "", what: range.into() });
    assert_eq!(short.to_string(), range);
    let long = refused(test.try_silence("web1", 28 * 24 * HOUR + SECOND));
    assert_eq!(long, CalmError::Conflict(range.into()));
    assert!(test.try_silence("web1", 28 * 24 * HOUR).is_ok());
    for number in 1..MAX_SILENCES {
        assert!(test.try_silence("web1", HOUR).is_ok(), "{number}");
    }
    assert!(matches!(refused(test.try_silence("web1", HOUR)), CalmError::Conflict(_)));
    let mut end = |which| {
        let request = CalmRequest::Unsilence { which, by: "bob".into() };
        test.overlay.handle(request, &mut test.outbox, test.now).err().map(|why| why.to_string())
    };
    assert_eq!(end(SilenceSelection::Id("s7000".into())).unwrap(), "there is no silence s7000");
    let scope = CalmScope::parse("web2").unwrap();
    assert_eq!(end(SilenceSelection::Scope(scope)).unwrap(), "no silence is set for web2");
    assert_eq!(end(SilenceSelection::All), None);
    assert_eq!(end(SilenceSelection::All).unwrap(), "there is no silence");
    let mut test = TestOverlay::new();
    let nothing = "nothing that was told is wrong with web2";
    assert_eq!(test.try_acknowledge("web2", None), Err(CalmError::NotFound(nothing.into())));
    test.silence("web2", HOUR).overdue("web2");
    assert_eq!(test.try_acknowledge("web2", None), Err(CalmError::NotFound(nothing.into())));
    let new = NewSilence {
        scope: CalmScope::All,
        length: HOUR,
        by: "ann".into(),
        comment: Some("x".repeat(501)),
        unless: None,
        origin: Origin::Api,
    };
    let long = refused(test.overlay.handle(CalmRequest::Silence(new), &mut test.outbox, test.now));
    assert_eq!(long.to_string(), "comment: must be at most 500 characters");
}

#[test]
fn what_could_not_be_stored_never_was() {
    let mut test = TestOverlay::new();
    let handled = test.try_silence("web1", HOUR).unwrap();
    test.overlay.undo(&handled.undo, &mut test.outbox);
    test.turn().overdue("web1");
    assert_eq!(test.told(), OVERDUE);
    assert_eq!(test.calm_rows(), 0);
    let new =
        NewAcknowledgement { scope: CalmScope::All, by: "ann".into(), comment: None, length: None };
    let request = CalmRequest::Acknowledge(new);
    let handled = test.overlay.handle(request, &mut test.outbox, test.now).unwrap();
    test.overlay.undo(&handled.undo, &mut test.outbox);
    assert!(test.outbox.open_incidents().all(|open| open.acknowledged.is_none()));
}

#[test]
fn an_acknowledgement_stops_reminders_and_nothing_else() {
    let mut test = TestOverlay::new();
    test.metric(Level::Warning).overdue("web1").told();
    test.works = false;
    test.threshold("web1", Level::Warning, true);
    let acknowledged = test.try_acknowledge("web1/m", None).unwrap();
    assert_eq!(acknowledged, [&of_metric("WARNING")[5..]]);
    assert_eq!(test.outbox.len(), 0, "the one that waits is not sent");
    test.works = true;
    test.threshold("web1", Level::Warning, true);
    assert_eq!(test.told(), NONE);
    test.threshold("web2", Level::Warning, false);
    assert_eq!(test.told().len(), 1, "others are told");
    test.restart().threshold("web1", Level::Warning, true);
    assert_eq!(test.told(), NONE, "over a restart");
    test.metric(Level::Critical);
    assert_eq!(test.told().len(), 2, "the level rises");
    test.threshold("web1", Level::Critical, true);
    assert_eq!(test.told().len(), 2, "and that ends it");
    test.try_acknowledge("--all", None).unwrap();
    test.metric(Level::Ok).metric(Level::Critical).threshold("web1", Level::Critical, true);
    assert_eq!(test.told().len(), 2 + 2 + 2, "it ended with the trouble");
}

#[test]
fn an_acknowledgement_is_undone_or_ends_after_its_time() {
    let mut test = TestOverlay::new();
    test.metric(Level::Warning);
    test.try_acknowledge("web1", None).unwrap();
    test.told();
    let request = || CalmRequest::UndoAcknowledgement { scope: CalmScope::All, by: "ann".into() };
    assert!(test.overlay.handle(request(), &mut test.outbox, test.now).is_ok());
    let again = test.overlay.handle(request(), &mut test.outbox, test.now).err().unwrap();
    assert_eq!(again, CalmError::NotFound("nothing of --all is acknowledged".into()));
    test.threshold("web1", Level::Warning, true);
    assert_eq!(test.told().len(), 1);
    for boot in [false, true] {
        test.try_acknowledge("web1", Some(72 * HOUR)).unwrap();
        test.wait(70 * HOUR);
        if boot {
            test.reboot(HOUR, None);
        } else {
            test.restart().wait(HOUR);
        }
        test.threshold("web1", Level::Warning, true);
        assert_eq!(test.told(), NONE, "{boot}");
        test.wait(HOUR + SECOND).threshold("web1", Level::Warning, true);
        assert_eq!(test.told().len(), 1, "{boot}");
        assert!(test.outbox.open_incidents().all(|open| open.acknowledged.is_none()));
    }
    test.try_acknowledge("web1", Some(72 * HOUR)).unwrap();
    test.reboot(HOUR, Some(Wall(0))).threshold("web1", Level::Warning, true);
    assert_eq!(test.told().len(), 1, "a lost clock ends it");
    let zero = test.try_acknowledge("web1", Some(Duration::ZERO)).unwrap_err();
    assert_eq!(zero.to_string(), "seconds: must be longer than 0 s");
}

#[test]
fn a_reminder_about_a_backup_is_stopped_too() {
    let mut test = TestOverlay::new();
    test.plan(BackupNotice::Report, Level::Critical, "plan 4: 1 failed").told();
    test.try_acknowledge("plan:4", None).unwrap();
    test.plan(BackupNotice::Reminder, Level::Critical, "plan 4: 1 failed, still");
    assert_eq!(test.told(), NONE);
    test.plan(BackupNotice::Report, Level::Ok, "plan 4: well");
    assert_eq!(test.told(), ["mail plan 4: well"]);
}

#[test]
fn a_reminder_about_a_backup_waited_although_it_was_acknowledged_or_silenced() {
    for silenced in [false, true] {
        let mut test = TestOverlay::new();
        test.plan(BackupNotice::Report, Level::Critical, "plan 4: 1 failed").told();
        test.works = false;
        test.plan(BackupNotice::Reminder, Level::Critical, "plan 4: 1 failed, still");
        if silenced {
            test.silence("plan:4", HOUR);
        } else {
            test.try_acknowledge("plan:4", None).unwrap();
        }
        test.works = true;
        test.plan(BackupNotice::Report, Level::Critical, "plan 4: 2 failed").wait(2 * HOUR);
        assert_eq!(test.told(), ["mail plan 4: 2 failed"], "{silenced}");
    }
}

#[test]
fn an_acknowledgement_that_was_not_stored_left_an_older_one_on_a_later_alarm() {
    let undo_of = |test: &mut TestOverlay| {
        let new = NewAcknowledgement {
            scope: CalmScope::Hosts("web1".into()),
            by: "bob".into(),
            comment: None,
            length: None,
        };
        let request = CalmRequest::Acknowledge(new);
        test.overlay.handle(request, &mut test.outbox, test.now).unwrap().undo
    };
    let by = |test: &TestOverlay| {
        let open = test.outbox.open_incidents().next().unwrap();
        open.acknowledged.as_ref().and_then(|by| by.by.clone())
    };
    let ann = || Some("ann".to_owned());
    let mut test = TestOverlay::new();
    test.metric(Level::Warning);
    test.try_acknowledge("web1", None).unwrap();
    let undo = undo_of(&mut test);
    test.overlay.undo(&undo, &mut test.outbox);
    assert_eq!(by(&test), ann(), "as before");
    let undo = undo_of(&mut test);
    test.metric(Level::Critical);
    test.overlay.undo(&undo, &mut test.outbox);
    assert_eq!(by(&test), None, "it rose meanwhile");
    test.try_acknowledge("web1", None).unwrap();
    let undo = undo_of(&mut test);
    test.metric(Level::Ok).metric(Level::Critical);
    test.overlay.undo(&undo, &mut test.outbox);
    assert_eq!(by(&test), None, "another alarm");
    let undo = undo_of(&mut test);
    test.try_acknowledge("web1", None).unwrap();
    test.overlay.undo(&undo, &mut test.outbox);
    assert_eq!(by(&test), ann(), "asked for again, and stored");
}

#[test]
fn a_level_that_comes_out_as_it_was_told_leaves_the_acknowledgement() {
    let mut test = TestOverlay::new();
    test.metric(Level::Warning);
    test.try_acknowledge("web1", None).unwrap();
    test.told();
    test.silence("web1", HOUR).metric(Level::Critical).wait(MINUTE).metric(Level::Warning);
    test.wait(HOUR + INTERVAL).threshold("web1", Level::Warning, true);
    assert_eq!(test.told(), NONE);
    test.silence("web1", HOUR).metric(Level::Critical).wait(HOUR + INTERVAL);
    assert_eq!(test.told().len(), 2);
    test.threshold("web1", Level::Critical, true);
    assert_eq!(test.told().len(), 2, "it came out at a higher level");
}

#[test]
fn an_acknowledgement_covers_what_is_open_and_not_what_comes() {
    let mut test = TestOverlay::new();
    test.metric(Level::Warning);
    test.try_acknowledge("web1", None).unwrap();
    test.overdue_over("web1", "vpn", false);
    let open: Vec<bool> =
        test.outbox.open_incidents().map(|open| open.acknowledged.is_some()).collect();
    assert_eq!(open, [false, true]);
}

#[test]
fn critical_since_is_the_first_of_its_critical_messages() {
    let mut test = TestOverlay::new();
    test.metric(Level::Warning);
    let since = |test: &TestOverlay| {
        let open = test.outbox.open_incident(&Incident::metric("web1", "m")).cloned();
        open.and_then(|open| open.critical_since)
    };
    assert_eq!(since(&test), None);
    test.wait(MINUTE).metric(Level::Critical);
    let first = Some(test.now.wall);
    assert_eq!(since(&test), first);
    test.wait(MINUTE).threshold("web1", Level::Critical, true);
    assert_eq!(since(&test), first);
    test.restart();
    assert_eq!(since(&test), first);
    test.metric(Level::Warning);
    assert_eq!(since(&test), None);
}

/// Delivers what waits; each message on the pager rings until it is acknowledged.
fn ring(test: &mut TestOverlay) {
    loop {
        let attempts = test.outbox.start(test.now);
        if attempts.is_empty() {
            return;
        }
        for attempt in attempts {
            let rings = attempt.delivery.channel == "pager";
            let receipt = rings.then(|| format!("r{}", attempt.delivery.message.event));
            let done = Delivered { receipt, thread: None };
            test.outbox.complete(attempt.id, Ok(done), test.now);
        }
    }
}

#[test]
fn an_acknowledgement_stops_a_phone_that_rings() {
    let mut test = TestOverlay::new();
    test.works = false;
    test.overdue("web1");
    let event = test.outbox.last_event();
    ring(&mut test);
    assert!(test.outbox.due_polls(test.now).is_empty());
    test.try_acknowledge("web1/ipv4", None).unwrap();
    test.commit();
    test.restart();
    test.wait(6 * SECOND);
    let polls = test.outbox.due_polls(test.now);
    assert_eq!(polls.len(), 1);
    assert_eq!(polls[0].cancel, Some(event));
    let lost = Err(crate::notify::channel::Failure::unreachable("lost"));
    test.outbox.on_poll_result(&polls[0], lost, test.now);
    assert!(test.outbox.due_polls(test.now).is_empty());
    test.wait(10 * SECOND);
    let polls = test.outbox.due_polls(test.now);
    let over = Ok(ReceiptState { expired: true, ..ReceiptState::default() });
    assert_eq!(test.outbox.on_poll_result(&polls[0], over, test.now), None);
    test.wait(HOUR);
    assert!(test.outbox.due_polls(test.now).is_empty());
    assert_eq!(test.outbox.queue_status(test.now)[1].unacknowledged, 0);
}

#[test]
fn a_phone_that_begins_to_ring_after_the_acknowledgement_is_stopped_too() {
    let mut test = TestOverlay::new();
    test.works = false;
    test.overdue("web1");
    let attempts = test.outbox.start(test.now);
    test.try_acknowledge("web1", None).unwrap();
    for attempt in attempts {
        let done = Delivered { receipt: Some("r1".into()), thread: None };
        test.outbox.complete(attempt.id, Ok(done), test.now);
    }
    let polls = test.outbox.due_polls(test.now);
    assert!(polls.iter().all(|poll| poll.cancel.is_some()) && !polls.is_empty());
}

#[test]
fn a_receipt_s_acknowledgement_takes_the_same_path() {
    let mut test = TestOverlay::new();
    test.works = false;
    test.metric(Level::Critical);
    ring(&mut test);
    test.threshold("web1", Level::Critical, true);
    assert_eq!(test.outbox.len(), 2, "a reminder on each channel");
    test.wait(MINUTE);
    let poll = test.outbox.due_polls(test.now).remove(0);
    let (acknowledged, device) = (Some(test.now.wall), Some("iphone".into()));
    let answer = Ok(ReceiptState { acknowledged, device, expired: false });
    let note = test.outbox.on_poll_result(&poll, answer, test.now).unwrap();
    assert_eq!(note.by.person(), "through pager on iphone");
    assert_eq!(test.outbox.len(), 0, "they are taken out");
    // One that comes after the trouble has ended opens nothing again.
    test.metric(Level::Critical);
    ring(&mut test);
    test.wait(MINUTE);
    let poll = test.outbox.due_polls(test.now).remove(0);
    test.metric(Level::Ok);
    let (acknowledged, device) = (Some(test.now.wall), None);
    let answer = Ok(ReceiptState { acknowledged, device, expired: false });
    test.outbox.on_poll_result(&poll, answer, test.now);
    assert_eq!(test.outbox.open_incidents().count(), 0);
}
