//! Events are kept on disk while they are held back: each kind survives that.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn text() -> String {
    "web1 \u{fc} \"x\"".into()
}

fn forgotten() -> ForgottenConnection {
    ForgottenConnection {
        name: "ipv4".into(),
        last_seen: Wall(1),
        silent_for: Some(Duration::from_millis(1_500)),
        was_last: true,
        closes: vec![Incident::connection("web1", "ipv4"), Incident::metric("web1", "m")],
    }
}

fn silence() -> SilenceNotice {
    SilenceNotice {
        scope: "web*".into(),
        host: None,
        id: "s17".into(),
        length: Duration::from_secs(7200),
        by: "ann".into(),
        comment: Some(text()),
        by_host: false,
    }
}

fn of_hosts() -> Vec<EventKind> {
    let (host, connection) = (text(), "ipv4".to_owned());
    let gone = Duration::from_millis(61_001);
    vec![
        EventKind::Overdue {
            host: host.clone(),
            connection: connection.clone(),
            last_seen: Wall(1),
            promised: Wall(2),
            others_down: vec!["db1".into()],
            others_count: 12,
            was_last_up: true,
            clock: Some(gone),
            behind_it: vec![text()],
            behind_count: 40,
        },
        EventKind::Shutdown { host: host.clone(), connection: connection.clone() },
        EventKind::Back { host: host.clone(), connection: connection.clone(), gone },
        EventKind::Booted {
            host: host.clone(),
            announced: false,
            returned: vec![connection.clone()],
            gone: None,
        },
        EventKind::NotBack { host: host.clone(), since: Wall(-3), within: gone },
        EventKind::Returned { host: host.clone(), gone },
        EventKind::TwoMachines { host: host.clone(), addresses: vec!["::1".into()] },
        EventKind::Forgotten { host: host.clone(), connection: forgotten() },
        EventKind::HostMessage { host: host.clone(), text: text() },
        EventKind::NeverSeen { host: host.clone(), configured: Wall(4), clock: None },
        EventKind::TooManyMessages { host: host.clone(), limit: 60, count: 7 },
        EventKind::FirstHeard { host: host.clone(), connection },
        EventKind::Threshold {
            host: host.clone(),
            metric: "m".into(),
            value: 95.2,
            limit: "> 90.0".into(),
            since: Wall(5),
            level: Level::Critical,
            reminder: true,
        },
        EventKind::Missing {
            host: host.clone(),
            metric: "m".into(),
            last_sent: Wall(6),
            value: 0.1 + 0.2,
            limit: "> 0.0".into(),
            last_level: Level::Warning,
        },
        EventKind::DyndnsFails { host: host.clone(), name: "a.example".into(), why: text() },
        EventKind::DyndnsKept { host, name: "a.example".into(), failed_for: gone },
    ]
}

fn of_others() -> Vec<EventKind> {
    let table = TextTable { head: vec!["module".into()], rows: vec![vec![text()]] };
    let details = vec![("failed".to_owned(), text())];
    vec![
        EventKind::StoreRefuses { why: text() },
        EventKind::StoreWrites { refused_for: Duration::from_secs(1) },
        EventKind::OutboxRefuses { count: 3, whose: vec![("web1".into(), 3)] },
        EventKind::GivenUp(given_up()),
        EventKind::LimitReached { limit: KeptLimit::UnknownHosts(3) },
        EventKind::Node(NodeEvent::Gone { node: "hb2".into(), hosts: vec![text()], count: 37 }),
        EventKind::Node(NodeEvent::Heard { node: "hb2".into() }),
        EventKind::ChannelFails { channel: "mail".into(), why: text(), waiting: 3 },
        EventKind::ChannelDelivers { channel: "mail".into(), failed_for: Duration::ZERO },
        EventKind::Backup {
            plan: "4".into(),
            notice: BackupNotice::Reminder,
            level: Level::Critical,
            title: text(),
            details: details.clone(),
            table: Some(table.clone()),
        },
        EventKind::BackupSummary { level: Level::Info, title: text(), details, table: None },
        EventKind::AlertsLost { rows: vec![text()], count: 9 },
        EventKind::AlertmanagerSilent { why: text() },
        EventKind::AlertmanagerAnswers { silent_for: Duration::from_secs(60) },
        EventKind::Custom { host: None, level: Level::Info, text: text() },
    ]
}

fn of_silences() -> Vec<EventKind> {
    let events = vec![
        CalmEvent::Silenced(silence()),
        CalmEvent::Unsilenced { scope: "web*".into(), host: None, id: "s1".into(), by: None },
        CalmEvent::Acknowledged {
            host: Some("web1".into()),
            alarms: vec![text()],
            by: "ann".into(),
            comment: Some(text()),
            undone: false,
        },
        CalmEvent::HeldLost { keys: vec!["silence/s1".into()], count: 2 },
        CalmEvent::Notes {
            host: "web1".into(),
            level: Level::Warning,
            watched_only: true,
            texts: vec![text()],
            count: 30,
            held_back: "until then".into(),
        },
        CalmEvent::Storm(StormEvent::Began {
            hosts: vec![text()],
            count: 12,
            of: 14,
            within: Duration::from_millis(20_001),
        }),
        CalmEvent::Storm(StormEvent::Ended {
            count: 12,
            silent: vec![text()],
            silent_count: 2,
            gone: Duration::from_secs(240),
        }),
        CalmEvent::Flap(FlapEvent::Flapping {
            incident: Incident::connection("web1", "ipv4"),
            level: Level::Critical,
            changes: 6,
            within: Duration::from_secs(1080),
        }),
        CalmEvent::Flap(FlapEvent::Settled {
            incident: Incident::metric("web1", "m"),
            level: Level::Ok,
            state: FlapState::Value(0.1 + 0.2),
            changes: 9,
            within: Duration::from_secs(2400),
        }),
    ];
    events.into_iter().map(EventKind::from).collect()
}

fn given_up() -> GivenUp {
    let message = GivenUpMessage {
        event: EventId(1),
        at: Wall(7),
        level: Level::Warning,
        subject: Subject::Daemon,
        for_backups: false,
        title: text(),
        opens: None,
        over: true,
    };
    GivenUp {
        channel: "mail".into(),
        recipient: None,
        cause: GiveUpCause::Late,
        count: 1,
        messages: vec![message],
        why: Some(text()),
        untitled: false,
    }
}

fn of_files() -> Vec<EventKind> {
    let events = [
        StoreFileEvent::MovedAside { why: text(), to: "/x".into() },
        StoreFileEvent::Damaged {
            rows: vec![text()],
            count: 3,
            uncounted: vec![text()],
            alerts: vec![text()],
            why: text(),
            kept: "/x".into(),
        },
        StoreFileEvent::Behind { what: text() },
        StoreFileEvent::Replaced { why: text(), kept: None },
    ];
    events.map(EventKind::StoreFile).to_vec()
}

fn of_watches() -> Vec<EventKind> {
    let incident = Incident::connection("web1", "ipv4");
    let events = [
        WatchEvent::Still {
            incident: incident.clone(),
            level: Level::Warning,
            since: Wall(8),
            lasting: Duration::from_millis(1_001),
        },
        WatchEvent::NoLonger { host: text(), removed: true, closes: vec![incident] },
    ];
    events.map(EventKind::from).to_vec()
}

/// One of each kind.
fn every_kind() -> Vec<EventKind> {
    [of_hosts(), of_others(), of_files(), of_silences(), of_watches()].concat()
}

#[test]
fn every_kind_survives_a_round_trip() {
    let kinds = every_kind();
    let names: BTreeSet<&str> = kinds.iter().map(|kind| kind.describe().name).collect();
    assert_eq!(names, EventKind::NAMES.into(), "one of each kind");
    for kind in kinds {
        let event = Event {
            level: Level::Critical,
            patience: Duration::from_secs(40),
            held_back: Some(text()),
            behind: vec!["router".into()],
            in_storm: true,
            refused: Some(RefusedBeats {
                host: text(),
                from: "10.77.0.12".into(),
                why: "bad signature".into(),
                count: 50,
                since: Wall(9),
            }),
            untold: true,
            ..Event::new(Wall(1_795_291_928_667), kind)
        };
        let stored = serde_json::to_vec(&event).unwrap();
        let read: Event = serde_json::from_slice(&stored).unwrap();
        assert_eq!(read, event, "{}", String::from_utf8_lossy(&stored));
    }
}

#[test]
fn an_unknown_kind_or_field_is_not_read_as_something_else() {
    // Of what is never held back, a later daemon's fields are left out.
    let is_held = |kind: &EventKind| !matches!(kind, EventKind::GivenUp(_));
    for kind in every_kind().into_iter().filter(is_held) {
        let event = Event::new(Wall(1), kind);
        let stored = serde_json::to_value(&event).unwrap();
        let mut more = stored.clone();
        more["more"] = 1.into();
        assert!(serde_json::from_value::<Event>(more).is_err(), "{stored}");
        let mut within = stored.clone();
        let mut fields = within["kind"].as_object_mut().unwrap().values_mut().next().unwrap();
        let group = stored["kind"].get("calm").or(stored["kind"].get("watch"));
        if let Some(group) = group {
            fields = fields.as_object_mut().unwrap().values_mut().next().unwrap();
            if group.get("storm").or(group.get("flap")).is_some() {
                fields = fields.as_object_mut().unwrap().values_mut().next().unwrap();
            }
        }
        fields.as_object_mut().unwrap().insert("more".into(), 1.into());
        assert!(serde_json::from_value::<Event>(within).is_err(), "{stored}");
        let mut unknown = stored;
        let fields = unknown["kind"].as_object_mut().unwrap().values().next().unwrap().clone();
        unknown["kind"] = serde_json::json!({ "later": fields });
        assert!(serde_json::from_value::<Event>(unknown).is_err());
    }
}

#[test]
fn what_held_an_event_back_is_among_its_details() {
    let kind = EventKind::HostMessage { host: "web1".into(), text: "x".into() };
    let event =
        Event { held_back: Some("until then, by s17 of ann".into()), ..Event::new(Wall(1), kind) };
    let details = event.message(EventId(1)).details;
    assert_eq!(details, [("held back".to_owned(), "until then, by s17 of ann".to_owned())]);
}
