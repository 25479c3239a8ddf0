//! The kinds of events: what each means to the rest of the program, and its words. Pure.
//!
//! A kind is a variant of [`EventKind`] and an arm of [`EventKind::describe`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calm::CalmEvent;
use super::description::EventDescription;
use super::message::{
    ALSO_OVERDUE, MAX_LISTED, TextTable, counted, differing_clocks, lines, listed,
};
use super::metric::{in_words, limit_number, measured};
use super::node::NodeEvent;
use super::store_file::StoreFileEvent;
use super::{FlapState, GivenUp, Incident, IncidentChange, KeptLimit, Level, Subject, WatchEvent};
use crate::clock::{Wall, format_duration};

/// What happened. [`EventKind::describe`] says all that the rest of the program needs to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EventKind {
    /// A beat that was promised did not come.
    Overdue {
        host: String,
        connection: String,
        last_seen: Wall,
        /// When the next beat was promised.
        promised: Wall,
        /// Other watched hosts that are overdue at this moment, at most [`MAX_LISTED`](super::MAX_LISTED) of them.
        others_down: Vec<String>,
        /// How many there are in all.
        others_count: usize,
        /// It was the host's last connection that was up.
        was_last_up: bool,
        /// Its datagrams come and are not believed: its clock and ours differ by so much.
        clock: Option<Duration>,
        /// Watched hosts that are reached through it alone, at most [`MAX_LISTED`](super::MAX_LISTED) of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        behind_it: Vec<String>,
        /// How many there are in all.
        #[serde(default)]
        behind_count: usize,
    },
    /// A host announced its shutdown on a connection.
    Shutdown { host: String, connection: String },
    /// A connection that was overdue or shut down beats again.
    Back { host: String, connection: String, gone: Duration },
    /// A host booted.
    Booted {
        host: String,
        /// Whether a shutdown was heard before, or the host is new.
        announced: bool,
        /// The connections whose incident ends with it.
        returned: Vec<String>,
        /// How long the host was not heard; none when it is new.
        gone: Option<Duration>,
    },
    /// A host that announced its shutdown is not back in time.
    NotBack { host: String, since: Wall, within: Duration },
    /// A host that was reported as not back beats again.
    Returned { host: String, gone: Duration },
    /// Beats of two machines come under the name of one host.
    TwoMachines { host: String, addresses: Vec<String> },
    /// A connection is no longer expected: it was not heard for long, or an operator said so.
    Forgotten { host: String, connection: ForgottenConnection },
    /// A host sent a text.
    HostMessage { host: String, text: String },
    /// A host sent more than it may; its beats and alarms were taken all the same.
    TooManyMessages {
        host: String,
        /// How many it may send in a minute.
        limit: u32,
        /// How many were not recorded since this was last said.
        count: u64,
    },
    /// A configured, watched host was never heard since it was configured.
    NeverSeen { host: String, configured: Wall, clock: Option<Duration> },
    /// A host that was reported as never seen sent its first beat.
    FirstHeard { host: String, connection: String },
    /// A metric changed its level, or still stands at it.
    Threshold {
        host: String,
        metric: String,
        value: f64,
        /// `> 90.0`: the limit of the event's level.
        limit: String,
        /// Since when the metric is at this level.
        since: Wall,
        /// The level that it is at.
        level: Level,
        /// Whether it repeats what was notified before.
        reminder: bool,
    },
    /// A metric that is not OK is no longer sent, though its host beats on: its level is unknown.
    Missing {
        host: String,
        metric: String,
        /// When it was last sent.
        last_sent: Wall,
        /// Its value then.
        value: f64,
        /// `> 90.0`: the limit that it was beyond.
        limit: String,
        /// The level that it had.
        last_level: Level,
    },
    /// The store cannot write; what happens is delivered all the same, but a crash would lose it.
    StoreRefuses { why: String },
    /// The store writes again, and what waited is in it.
    StoreWrites { refused_for: Duration },
    /// Messages were refused because too many wait for the channels already.
    OutboxRefuses {
        count: u64,
        /// The hosts, and how many of each, the most first.
        whose: Vec<(String, u64)>,
    },
    /// What was found of the file of the store, or happened to it.
    StoreFile(StoreFileEvent),
    /// A channel has been failing for a while, or refuses us.
    ChannelFails { channel: String, why: String, waiting: usize },
    /// A channel that was reported as failing delivers again.
    ChannelDelivers { channel: String, failed_for: Duration },
    /// Messages were given up that a channel was to deliver.
    GivenUp(GivenUp),
    /// The outcome of a backup plan, as its report words it: only the report knows modules and
    /// repositories.
    Backup {
        plan: String,
        notice: BackupNotice,
        level: Level,
        title: String,
        details: Vec<(String, String)>,
        table: Option<TextTable>,
    },
    /// How all backup plans are, once a day, as the summary words it.
    BackupSummary {
        level: Level,
        title: String,
        details: Vec<(String, String)>,
        table: Option<TextTable>,
    },
    /// What was stored of backup alerts that were accepted cannot be read any more.
    AlertsLost {
        /// Key and defect of the rows, at most [`MAX_LISTED`](super::MAX_LISTED) of them.
        rows: Vec<String>,
        /// How many there are in all.
        count: usize,
    },
    /// The Alertmanager that is asked for its alerts has not answered for a while.
    AlertmanagerSilent { why: String },
    /// It answers again.
    AlertmanagerAnswers { silent_for: Duration },
    /// The name of a host in the DNS cannot be kept.
    DyndnsFails { host: String, name: String, why: String },
    /// It is kept again.
    DyndnsKept { host: String, name: String, failed_for: Duration },
    /// Something about a node of the cluster.
    Node(NodeEvent),
    /// Something is no longer kept, because there is too much of it.
    LimitReached { limit: KeptLimit },
    /// An operator's own words, about a host or about nothing in particular.
    Custom { host: Option<String>, level: Level, text: String },
    /// Something about what is held back, or was.
    Calm(CalmEvent),
    /// Something about whether a host is watched.
    Watch(WatchEvent),
}

/// What a message about a backup plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupNotice {
    /// News, a success too.
    Report,
    /// What was told goes on unchanged.
    Reminder,
    /// What was told is over: for those who were told of it.
    End,
}

/// A connection that is no longer expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgottenConnection {
    /// Its name.
    pub name: String,
    /// When it was last heard.
    pub last_seen: Wall,
    /// For how long it was not heard; none when an operator had it forgotten.
    pub silent_for: Option<Duration>,
    /// Nothing is left that the host is expected to beat over.
    pub was_last: bool,
    /// What ends with it.
    pub closes: Vec<Incident>,
}

impl From<CalmEvent> for EventKind {
    fn from(event: CalmEvent) -> EventKind {
        EventKind::Calm(event)
    }
}

impl EventKind {
    /// The [`EventDescription::name`] of every kind, in the order of the enum.
    pub const NAMES: [&'static str; 46] = [
        "overdue",
        "shutdown",
        "back",
        "booted",
        "not_back",
        "returned",
        "two_machines",
        "forgotten",
        "message",
        "too_many_messages",
        "never_seen",
        "first_heard",
        "threshold",
        "missing",
        "store_refuses",
        "store_writes",
        "outbox_refuses",
        "store_moved_aside",
        "store_damaged",
        "store_behind",
        "store_replaced",
        "channel_fails",
        "channel_delivers",
        "given_up",
        "backup",
        "backup_summary",
        "alerts_lost",
        "alertmanager_silent",
        "alertmanager_answers",
        "dyndns_fails",
        "dyndns_kept",
        "node_gone",
        "node_heard",
        "limit_reached",
        "custom",
        "silenced",
        "unsilenced",
        "acknowledged",
        "held_lost",
        "notes",
        "storm",
        "storm_over",
        "flapping",
        "settled",
        "still",
        "no_longer_watched",
    ];

    /// What it says of the connections or the metric that it is about; none when it is about something
    /// else.
    pub fn flap_state(&self) -> Option<FlapState> {
        match self {
            EventKind::Overdue { .. } => Some(FlapState::Overdue),
            EventKind::Shutdown { .. } => Some(FlapState::Shutdown),
            EventKind::Back { .. } | EventKind::Booted { .. } => Some(FlapState::Up),
            EventKind::Threshold { value, .. } => Some(FlapState::Value(*value)),
            EventKind::Missing { .. } => Some(FlapState::Missing),
            EventKind::Watch(WatchEvent::Still { .. }) => Some(FlapState::Overdue),
            _ => None,
        }
    }

    /// What an event of this kind means: one arm each.
    pub fn describe(&self) -> EventDescription {
        match self {
            EventKind::Overdue {
                host,
                connection,
                last_seen,
                promised,
                others_down,
                others_count,
                was_last_up,
                clock,
                behind_it,
                behind_count,
            } => overdue(host, connection, *was_last_up, (*last_seen, *promised, *clock))
                .detail_if("behind it", listed(behind_it, *behind_count).map(untold_behind))
                .detail_if(ALSO_OVERDUE, listed(others_down, *others_count)),
            EventKind::Shutdown { host, connection } => shutdown(host, connection),
            EventKind::Back { host, connection, gone } => back(host, connection, *gone),
            EventKind::Booted { host, announced, returned, gone } => {
                booted(host, *announced, returned, *gone)
            }
            EventKind::NotBack { host, since, within } => not_back(host, *since, *within),
            EventKind::Returned { host, gone } => returned(host, *gone),
            EventKind::TwoMachines { host, addresses } => two_machines(host, addresses),
            EventKind::Forgotten { host, connection } => forgotten(host, connection),
            EventKind::HostMessage { host, text } => host_message(host, text),
            EventKind::TooManyMessages { host, limit, count } => flood(host, *limit, *count),
            EventKind::NeverSeen { host, configured: at, clock } => never_seen(host, *at, *clock),
            EventKind::FirstHeard { host, connection } => first_heard(host, connection),
            EventKind::Threshold { host, metric, value, limit, level, reminder, .. } => {
                threshold(*level, host, metric, *value, limit).reminder(*reminder)
            }
            EventKind::Missing { host, metric, last_sent, value, limit, last_level } => {
                missing(host, metric, *last_sent, (*last_level, *value, limit))
            }
            EventKind::StoreRefuses { why } => store_refuses(why),
            EventKind::StoreWrites { refused_for } => store_writes(*refused_for),
            EventKind::OutboxRefuses { count, whose } => outbox_refuses(*count, whose),
            EventKind::StoreFile(event) => event.describe(),
            EventKind::ChannelFails { channel, why, waiting: n } => channel_fails(channel, why, *n),
            EventKind::ChannelDelivers { channel, failed_for } => delivers(channel, *failed_for),
            EventKind::GivenUp(given_up) => given_up.describe(),
            EventKind::Backup { plan, notice, level, title, details, table } => {
                backup(plan, *notice, *level, title).body(details, table.as_ref())
            }
            EventKind::BackupSummary { level, title, details, table } => {
                backup_summary(*level, title).body(details, table.as_ref())
            }
            EventKind::AlertsLost { rows, count } => alerts_lost(rows, *count),
            EventKind::AlertmanagerSilent { why } => alertmanager_silent(why),
            EventKind::AlertmanagerAnswers { silent_for } => alertmanager_answers(*silent_for),
            EventKind::DyndnsFails { host, name, why } => dyndns_fails(host, name, why),
            EventKind::DyndnsKept { host, name, failed_for } => name_kept(host, name, *failed_for),
            EventKind::Node(event) => event.describe(),
            EventKind::LimitReached { limit } => limit_reached(*limit),
            EventKind::Custom { host, level, text } => custom(host.as_deref(), *level, text),
            EventKind::Calm(event) => event.describe(),
            EventKind::Watch(event) => event.describe(),
        }
    }
}

fn overdue(
    host: &str,
    connection: &str,
    was_last_up: bool,
    (last_seen, promised, clock): (Wall, Wall, Option<Duration>),
) -> EventDescription {
    let level = if was_last_up { Level::Critical } else { Level::Warning };
    EventDescription::of_host("overdue", level, host, format!("{host} {connection} overdue"))
        .watched_only()
        .about(Incident::connection(host, connection))
        .detail("last seen", last_seen.local().to_string())
        .detail("promised", format!("the next beat by {}", promised.local()))
        .detail_if("clock", clock.map(differing_clocks))
}

fn untold_behind(names: String) -> String {
    names + ", not told while it is overdue"
}

fn shutdown(host: &str, connection: &str) -> EventDescription {
    let title = format!("{host} {connection} shutdown");
    EventDescription::of_host("shutdown", Level::Warning, host, title)
        .watched_only()
        .about(Incident::connection(host, connection))
}

fn back(host: &str, connection: &str, gone: Duration) -> EventDescription {
    EventDescription::of_host("back", Level::Ok, host, format!("{host} {connection} is back"))
        .watched_only()
        .about(Incident::connection(host, connection))
        .detail("gone for", format_duration(gone))
}

fn booted(
    host: &str,
    announced: bool,
    returned: &[String],
    gone: Option<Duration>,
) -> EventDescription {
    let level = if announced { Level::Info } else { Level::Warning };
    let unannounced = || "it was not announced by a shutdown".to_owned();
    let over = returned.iter().map(|connection| Incident::connection(host, connection));
    EventDescription::of_host("booted", level, host, format!("{host} booted"))
        .watched_only()
        .closes(over.collect())
        .detail_if("not heard for", gone.map(format_duration))
        .detail_if("reboot", (!announced).then(unannounced))
}

fn not_back(host: &str, since: Wall, within: Duration) -> EventDescription {
    let title = format!("{host} has not come back");
    EventDescription::of_host("not_back", Level::Critical, host, title)
        .watched_only()
        .about(Incident::NotBack { host: host.to_owned() })
        .detail("shut down", since.local().to_string())
        .detail("expected within", format_duration(within))
}

fn returned(host: &str, gone: Duration) -> EventDescription {
    EventDescription::of_host("returned", Level::Ok, host, format!("{host} has come back"))
        .watched_only()
        .about(Incident::NotBack { host: host.to_owned() })
        .detail("gone for", format_duration(gone))
}

fn two_machines(host: &str, addresses: &[String]) -> EventDescription {
    let title = format!("{host}: two machines beat under this name");
    let remedy = "give each its own name: host in hbc.yaml, or hbc run --host";
    EventDescription::of_host("two_machines", Level::Warning, host, title)
        .watched_only()
        .detail("addresses", addresses.join(", "))
        .detail("meanwhile", "one of them can fail and nobody notices")
        .detail("to do", remedy)
}

const NOT_EXPECTED: &str = "no beat of this host is expected until it beats again";

fn forgotten(host: &str, connection: &ForgottenConnection) -> EventDescription {
    let alarming = connection.was_last && connection.silent_for.is_some();
    let level = if alarming { Level::Warning } else { Level::Info };
    let title = format!("{host} {} is forgotten", connection.name);
    let why = match connection.silent_for.map(format_duration) {
        Some(silent) => format!("it was not heard for {silent} (heartbeat.forget_after)"),
        None => "an operator said so (hbd forget)".into(),
    };
    EventDescription::of_host("forgotten", level, host, title)
        .watched_only()
        .closes(connection.closes.clone())
        .detail("last seen", connection.last_seen.local().to_string())
        .detail("why", why)
        .detail_if("meanwhile", alarming.then(|| NOT_EXPECTED.to_owned()))
}

fn host_message(host: &str, text: &str) -> EventDescription {
    EventDescription::of_host("message", Level::Warning, host, format!("{host} {text}"))
        .watched_only()
}

/// Told of hosts that are not watched, too: what was cut is cut from the list of events.
fn flood(host: &str, limit: u32, count: u64) -> EventDescription {
    let title =
        format!("{host} sends more than {limit} messages a minute: {count} were not recorded");
    EventDescription::of_host("too_many_messages", Level::Warning, host, title)
        .detail("meanwhile", "its beats were taken, and its alarms with them")
}

fn outbox_refuses(count: u64, whose: &[(String, u64)]) -> EventDescription {
    let names: Vec<_> =
        whose.iter().take(MAX_LISTED).map(|(host, count)| format!("{host} ({count})")).collect();
    let whose = listed(&names, whose.len()).unwrap_or_default();
    let title =
        format!("{count} messages of {whose} were refused: too many wait to be sent already");
    EventDescription::of_daemon("outbox_refuses", Level::Warning, &title)
        .detail("meanwhile", "beats and alarms are taken")
        .detail("to do", "see which channel does not deliver: hbd status")
}

fn never_seen(host: &str, configured: Wall, clock: Option<Duration>) -> EventDescription {
    let remedy = "install the agent there, or take the host out of the configuration";
    EventDescription::of_host("never_seen", Level::Warning, host, format!("{host} was never heard"))
        .watched_only()
        .about(Incident::NeverSeen { host: host.to_owned() })
        .detail("configured since", configured.local().to_string())
        .detail_if("clock", clock.map(differing_clocks))
        .detail("to do", remedy)
}

fn first_heard(host: &str, connection: &str) -> EventDescription {
    EventDescription::of_host("first_heard", Level::Ok, host, format!("{host} {connection} is up"))
        .watched_only()
        .about(Incident::NeverSeen { host: host.to_owned() })
}

fn threshold(level: Level, host: &str, metric: &str, value: f64, limit: &str) -> EventDescription {
    let shown = measured(value, limit_number(limit));
    let title = format!("{level}: {host} - {metric} = {shown} (threshold: {limit})");
    EventDescription::of_host("threshold", level, host, title)
        .about(Incident::metric(host, metric))
        .detail("measured", in_words(metric, value, limit))
}

/// Sent to every channel that was notified of the incident, whatever its `min_level`.
fn missing(
    host: &str,
    metric: &str,
    last_sent: Wall,
    (level, value, limit): (Level, f64, &str),
) -> EventDescription {
    let then = format!("{level}: {}", in_words(metric, value, limit));
    let title = format!("{host} metric {metric} is missing");
    let incident = IncidentChange::Corrects(Incident::metric(host, metric));
    EventDescription {
        incident,
        ..EventDescription::of_host("missing", Level::Warning, host, title)
    }
    .detail("last sent", last_sent.local().to_string())
    .detail("was then", then)
    .detail("meanwhile", "nobody knows how it stands, its alert stays open")
}

fn store_refuses(why: &str) -> EventDescription {
    let meanwhile = "alarms are sent, but a crash would lose what is not on disk";
    EventDescription::of_daemon(
        "store_refuses",
        Level::Critical,
        "hbd cannot write its state to disk",
    )
    .about(Incident::Store)
    .detail("why", why)
    .detail("meanwhile", meanwhile)
    .detail("after a restart", "a host that fell silent before it may go unnoticed")
}

fn store_writes(refused_for: Duration) -> EventDescription {
    EventDescription::of_daemon("store_writes", Level::Ok, "hbd writes its state to disk again")
        .about(Incident::Store)
        .detail("refused for", format_duration(refused_for))
}

fn channel_fails(channel: &str, why: &str, waiting: usize) -> EventDescription {
    let title = format!("channel {channel} is failing: {why}");
    EventDescription::of_channel("channel_fails", Level::Warning, channel, title)
        .detail("waiting for it", counted(waiting, "message"))
}

fn delivers(channel: &str, failed_for: Duration) -> EventDescription {
    let title = format!("channel {channel} delivers again");
    EventDescription::of_channel("channel_delivers", Level::Ok, channel, title)
        .detail("failed for", format_duration(failed_for))
}

fn backup(plan: &str, notice: BackupNotice, level: Level, title: &str) -> EventDescription {
    let subject = Subject::Plan(plan.to_owned());
    let described = EventDescription::new("backup", level, subject, title.to_owned())
        .about(Incident::Backup { plan: plan.to_owned() })
        .reminder(notice == BackupNotice::Reminder);
    EventDescription { ok_is_news: notice == BackupNotice::Report, ..described }
}

/// A record and no trouble: it opens and ends none.
fn backup_summary(level: Level, title: &str) -> EventDescription {
    let described = EventDescription::of_daemon("backup_summary", level, title);
    EventDescription { for_backups: true, ..described }
}

/// The channels that would have got the reports get why there are none.
fn alerts_lost(rows: &[String], count: usize) -> EventDescription {
    let title = "hbd can no longer read backup alerts that it accepted";
    let described = EventDescription::of_daemon("alerts_lost", Level::Critical, title)
        .detail("not readable", lines(rows, count))
        .detail("lost", "which backups they were about: nobody will be told of these")
        .detail("to do", "look how all backups fared: hbd backup --all");
    EventDescription { for_backups: true, ..described }
}

fn alertmanager_silent(why: &str) -> EventDescription {
    let title = format!("Alertmanager cannot be asked about backups: {why}");
    EventDescription::of_daemon("alertmanager_silent", Level::Warning, &title)
        .about(Incident::Alertmanager)
        .detail("meanwhile", "a backup that fails would not be noticed here")
}

fn alertmanager_answers(silent_for: Duration) -> EventDescription {
    EventDescription::of_daemon("alertmanager_answers", Level::Ok, "Alertmanager answers again")
        .about(Incident::Alertmanager)
        .detail("silent for", format_duration(silent_for))
}

fn dyndns_fails(host: &str, name: &str, why: &str) -> EventDescription {
    let stale = "the name may lead to an address that is no longer the host's";
    let title = format!("{name} cannot be updated: {why}");
    EventDescription::of_host("dyndns_fails", Level::Warning, host, title)
        .about(Incident::Dyndns { host: host.to_owned() })
        .detail("host", host)
        .detail("meanwhile", stale)
}

fn name_kept(host: &str, name: &str, failed_for: Duration) -> EventDescription {
    EventDescription::of_host(
        "dyndns_kept",
        Level::Ok,
        host,
        format!("{name} is kept up to date again"),
    )
    .about(Incident::Dyndns { host: host.to_owned() })
    .detail("host", host)
    .detail("failed for", format_duration(failed_for))
}

fn limit_reached(limit: KeptLimit) -> EventDescription {
    let (title, meanwhile, to_do) = limit.words();
    let described = EventDescription::of_daemon("limit_reached", Level::Warning, &title);
    EventDescription { for_backups: limit.is_about_backups(), ..described }
        .detail("meanwhile", meanwhile)
        .detail("to do", to_do)
}

fn custom(host: Option<&str>, level: Level, text: &str) -> EventDescription {
    let subject = host.map_or(Subject::Daemon, |host| Subject::Host(host.to_owned()));
    // The words alone need not say which host they are about.
    EventDescription::new("custom", level, subject, text.to_owned())
        .detail_if("host", host.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once() {
        let names: std::collections::BTreeSet<_> = EventKind::NAMES.into_iter().collect();
        assert_eq!(names.len(), EventKind::NAMES.len());
        let said = EventKind::HostMessage { host: "web1".into(), text: "x".into() };
        assert!(names.contains(said.describe().name));
    }
}
