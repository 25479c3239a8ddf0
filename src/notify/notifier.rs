//! Direct sending: one text, now, through channels by name, each with a result of its own.
//!
//! A failure is returned to the caller and that is all: nothing is queued, repeated or held back by
//! a channel's `min_level` or rate limit. What must arrive goes through the outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, unbounded};
use log::{error, info, warn};

use super::channel::{Channel, Failure, OutgoingMessage, Scope, SharedState};
use super::text::{TextUnit, cut};
use super::worker::{catch_panic, logged_title};
use crate::btree::InsertAll;
use crate::clock::{Now, Wall, format_duration};
use crate::config_file::suggestion;
use crate::event::{Event, EventId, EventKind, Level, Message};
use crate::host_pattern::ByPattern;

/// Threads of one message.
const MAX_PARALLEL_CHANNELS: usize = 16;
/// A channel that has taken this long starts with no further recipient: a mail server that hangs
/// would block the caller once for each.
const MAX_CHANNEL_TIME: Duration = Duration::from_secs(60);
/// A longer text is cut here; most channels cut it once more.
pub const MAX_TEXT: usize = 64 * 1024;
/// As in datagrams.
const MAX_HOST_NAME: usize = 253;

/// Sends texts through the channels of a configuration. `Notifier::new(&config)` makes one.
///
/// ```no_run
/// let config = heartbeat::Config::load("heartbeat.yaml")?;
/// let notifier = heartbeat::Notifier::new(&config);
/// for (channel, sent) in notifier.pushmsg_for_host("prod-web-01", "Server CPU at 95%") {
///     println!("{channel}: {sent}");
/// }
/// notifier.pushmsg_from_config("to the default channels");
/// notifier.pushmsg(["email_ops"], "to these channels");
/// # Ok::<(), heartbeat::problem::Problems>(())
/// ```
#[derive(Clone, Debug)]
pub struct Notifier {
    channels: BTreeMap<String, Arc<Channel>>,
    default: Vec<String>,
    hosts: BTreeMap<String, Vec<String>>,
    patterns: ByPattern<Vec<String>>,
    state: Arc<SharedState>,
}

/// A text to send, written by a person or a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectMessage {
    /// The host that it is about.
    pub host: Option<String>,
    /// How much it matters. Every channel takes every level.
    pub level: Level,
    /// The text; an empty one becomes `(no details)`.
    pub text: String,
}

/// What became of a message on one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelResult {
    /// One for each recipient that has messages of its own; a single one elsewhere.
    pub recipients: Vec<RecipientResult>,
    /// How long all of it took.
    pub took: Duration,
}

/// What became of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientResult {
    /// The recipient, where each has messages of its own.
    pub recipient: Option<String>,
    /// Why it is not known to have arrived; none when it was sent. Never holds a secret.
    pub why: Option<String>,
    /// Which of [`FAILURE_REASONS`](super::courier::FAILURE_REASONS); none when it was sent or not
    /// tried.
    pub reason: Option<&'static str>,
    /// How many attempts were made.
    pub attempts: u32,
    /// How long they took.
    pub took: Duration,
}

/// What was sent, and what became of it by channel.
#[derive(Clone, Debug)]
pub struct SendResult {
    /// The message, with its event id.
    pub message: Message,
    /// By channel.
    pub channels: BTreeMap<String, ChannelResult>,
}

impl SendResult {
    /// By channel: whether every recipient was reached.
    pub fn results(&self) -> BTreeMap<String, bool> {
        self.channels.iter().map(|(name, report)| (name.clone(), report.sent())).insert_all()
    }
}

impl ChannelResult {
    /// Whether every recipient was reached.
    pub fn sent(&self) -> bool {
        self.recipients.iter().all(RecipientResult::sent)
    }

    /// Why it was not sent, and to which recipients.
    pub fn why(&self) -> Option<String> {
        let failed: Vec<(&RecipientResult, &str)> = self
            .recipients
            .iter()
            .filter_map(|outcome| Some((outcome, outcome.why.as_deref()?)))
            .collect();
        let (_, first) = failed.first()?;
        let all = failed.len() == self.recipients.len();
        if all && failed.iter().all(|(_, why)| why == first) {
            return Some((*first).to_owned());
        }
        let named = failed.iter().map(|(outcome, why)| match &outcome.recipient {
            Some(recipient) => format!("{recipient}: {why}"),
            None => (*why).to_owned(),
        });
        let named = named.collect::<Vec<_>>().join("; ");
        Some(format!(
            "{} of {} recipients not reached: {named}",
            failed.len(),
            self.recipients.len()
        ))
    }

    fn unknown_channel<'a>(
        name: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> ChannelResult {
        let meant = suggestion::suggestion(name, known);
        let why = format!("no channel is called \"{name}\"{meant}");
        let outcome = RecipientResult::not_tried(None, why);
        ChannelResult { recipients: vec![outcome], took: Duration::ZERO }
    }
}

impl RecipientResult {
    fn not_tried(recipient: Option<String>, why: String) -> RecipientResult {
        RecipientResult {
            recipient,
            why: Some(why),
            reason: None,
            attempts: 0,
            took: Duration::ZERO,
        }
    }

    /// Whether it is known to have arrived.
    pub fn sent(&self) -> bool {
        self.why.is_none()
    }
}

impl DirectMessage {
    /// A [`warning`](Level::Warning) about no host: the level of a text that a host sends. Phones
    /// ring, but it needs no acknowledgement.
    pub fn new(text: impl Into<String>) -> DirectMessage {
        DirectMessage { host: None, level: Level::Warning, text: text.into() }
    }

    fn message(&self) -> Message {
        let now = Wall::from(SystemTime::now());
        let text = cut(&self.text, MAX_TEXT, TextUnit::Bytes);
        let host = self.host.as_ref().map(|host| cut(host, MAX_HOST_NAME, TextUnit::Characters));
        let kind = EventKind::Custom { host, level: self.level, text };
        Event::new(now, kind).message(EventId::unique(now))
    }
}

impl Notifier {
    /// Sends through the channels of a configuration: `Notifier::new(&config)`.
    pub fn new(channels: impl Into<Notifier>) -> Notifier {
        channels.into()
    }

    /// Channels by name, the default ones, and the hosts that have channels of their own.
    pub fn with(
        channels: BTreeMap<String, Arc<Channel>>,
        default: Vec<String>,
        hosts: BTreeMap<String, Vec<String>>,
    ) -> Notifier {
        let (patterns, state) = (ByPattern::default(), Arc::default());
        Notifier { channels, default, hosts, patterns, state }
    }

    /// The same, with the channels of hosts that are configured by patterns.
    #[must_use]
    pub fn with_patterns(self, patterns: ByPattern<Vec<String>>) -> Notifier {
        Notifier { patterns, ..self }
    }

    /// The same channels, with the state that something else in this process delivers with: a Signal
    /// account takes one attempt at a time.
    #[must_use]
    pub fn sharing(self, state: Arc<SharedState>) -> Notifier {
        Notifier { state, ..self }
    }

    /// Sends to the channels of a host: its own, else the default ones. By channel, whether it
    /// was sent.
    pub fn pushmsg_for_host(&self, host: &str, message: &str) -> BTreeMap<String, bool> {
        let direct = DirectMessage { host: Some(host.to_owned()), ..DirectMessage::new(message) };
        self.send(self.channels_of_host(host), &direct, |_, _, _| {}).results()
    }

    /// Sends to the default channels. By channel, whether it was sent.
    pub fn pushmsg_from_config(&self, message: &str) -> BTreeMap<String, bool> {
        self.pushmsg(&self.default, message)
    }

    /// Sends to these channels. By channel, whether it was sent; a channel that does not exist is
    /// one that was not.
    pub fn pushmsg<N: AsRef<str>>(
        &self,
        channels: impl IntoIterator<Item = N>,
        message: &str,
    ) -> BTreeMap<String, bool> {
        self.send(channels, &DirectMessage::new(message), |_, _, _| {}).results()
    }

    /// The channels of a host: its own, else the default ones.
    pub fn channels_of_host(&self, host: &str) -> &[String] {
        let own = self.hosts.get(host).or_else(|| self.patterns.find(host));
        own.unwrap_or(&self.default)
    }

    /// The default channels.
    pub fn default_channels(&self) -> &[String] {
        &self.default
    }

    /// Every channel by name.
    pub fn channels(&self) -> &BTreeMap<String, Arc<Channel>> {
        &self.channels
    }

    /// Sends through all of these channels in parallel and returns when the last has ended; calls
    /// `ended` as each does.
    pub fn send<N: AsRef<str>>(
        &self,
        channels: impl IntoIterator<Item = N>,
        direct: &DirectMessage,
        mut ended: impl FnMut(&Message, &str, &ChannelResult),
    ) -> SendResult {
        let message = direct.message();
        let mut reports = BTreeMap::new();
        let names: BTreeSet<String> =
            channels.into_iter().map(|name| name.as_ref().to_owned()).insert_all();
        let ((put, tasks), (tx, rx)) = (unbounded(), unbounded());
        names.iter().for_each(|name| drop(put.send(name.clone())));
        drop(put);
        thread::scope(|scope| {
            let worker = || self.work(&tasks, &message, tx.clone());
            let hired = (1..=names.len().min(MAX_PARALLEL_CHANNELS)).filter(|number| {
                let name = format!("direct-{number}");
                thread::Builder::new().name(name).spawn_scoped(scope, worker()).is_ok()
            });
            if hired.count() == 0 && !names.is_empty() {
                warn!("no thread could be started: the channels are sent to one by one");
                worker()();
            }
            drop(tx);
            for (name, report) in &rx {
                log_result(&name, &message, &report);
                ended(&message, &name, &report);
                reports.insert(name, report);
            }
        });
        SendResult { message, channels: reports }
    }

    /// What a thread does: one channel after the other until none is left.
    fn work<'a>(
        &'a self,
        tasks: &Receiver<String>,
        message: &'a Message,
        reports: Sender<(String, ChannelResult)>,
    ) -> impl FnOnce() + Send + use<'a> {
        let tasks = tasks.clone();
        move || {
            for name in tasks {
                let report = match self.channels.get(&name) {
                    Some(channel) => deliver(&name, channel, message, &self.state),
                    None => ChannelResult::unknown_channel(
                        &name,
                        self.channels.keys().map(String::as_str),
                    ),
                };
                let _ = reports.send((name, report));
            }
        }
    }
}

/// Scripts look for these lines in the log.
fn log_result(name: &str, message: &Message, report: &ChannelResult) {
    match report.why() {
        None => {
            let (title, took) = (logged_title(&message.title), format_duration(report.took));
            info!("Sent notification to {name}: {title} ({}, {took})", message.event);
        }
        Some(why) => error!("Failed to send notification to {name}: {why}"),
    }
}

/// Sends to every recipient of a channel, one after the other.
fn deliver(name: &str, channel: &Channel, message: &Message, state: &SharedState) -> ChannelResult {
    let begun = Instant::now();
    let mut outcomes = Vec::new();
    let mut closed = None;
    for recipient in channel.recipients() {
        if closed.is_none() && begun.elapsed() >= MAX_CHANNEL_TIME {
            closed = Some(format!(
                "not tried, {name} is too slow: {}",
                format_duration(begun.elapsed())
            ));
        }
        let outcome = match &closed {
            Some(why) => RecipientResult::not_tried(recipient, why.clone()),
            None => {
                let begun = Instant::now();
                let outgoing = OutgoingMessage {
                    channel: name,
                    message,
                    recipient: recipient.as_deref(),
                    possible_repeat: false,
                    short_form: false,
                    thread: None,
                    recovered_events: &[],
                    now: Now::read().wall,
                };
                let (attempts, result) = attempt(channel, outgoing, state);
                if let Err(Failure::ChannelRefused { why, scope: Scope::Channel, .. }) = &result {
                    closed = Some(why.clone());
                }
                let reason = result.as_ref().err().map(Failure::reason);
                RecipientResult {
                    recipient,
                    why: result.err().map(describe),
                    reason,
                    attempts,
                    took: begun.elapsed(),
                }
            }
        };
        outcomes.push(outcome);
    }
    ChannelResult { recipients: outcomes, took: begun.elapsed() }
}

fn describe(failure: Failure) -> String {
    match failure {
        Failure::Unknown(why) => format!("{why} (it may have arrived)"),
        other => other.into_why(),
    }
}

/// One attempt, and a short plain one when the form is refused. Returns how many, and the end of
/// the last.
fn attempt(
    channel: &Channel,
    outgoing: OutgoingMessage,
    state: &SharedState,
) -> (u32, Result<(), Failure>) {
    let once = |short_form| {
        let outgoing = OutgoingMessage { short_form, now: Now::read().wall, ..outgoing };
        catch_panic(|| channel.deliver(&outgoing, state).map(drop))
    };
    match once(false) {
        Err(Failure::FormRefused(_)) => (2, once(true)),
        other => (1, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(recipient: Option<&str>, why: Option<&str>) -> RecipientResult {
        RecipientResult {
            recipient: recipient.map(String::from),
            why: why.map(String::from),
            reason: None,
            attempts: 1,
            took: Duration::ZERO,
        }
    }

    fn report(outcomes: Vec<RecipientResult>) -> ChannelResult {
        ChannelResult { recipients: outcomes, took: Duration::ZERO }
    }

    fn notifier(names: &[&str]) -> Notifier {
        use crate::notify::channel::ChannelKind;
        let log = Arc::new(Channel { kind: ChannelKind::Log, min_level: Level::Critical });
        let channels = names.iter().map(|name| (name.to_string(), Arc::clone(&log))).collect();
        let hosts = BTreeMap::from([
            ("web1".into(), vec!["b".into(), "gone".into()]),
            ("mute".into(), Vec::new()),
        ]);
        Notifier::with(channels, vec!["a".into()], hosts)
    }

    fn results(pairs: &[(&str, bool)]) -> BTreeMap<String, bool> {
        pairs.iter().map(|(name, sent)| (name.to_string(), *sent)).collect()
    }

    #[test]
    fn a_host_has_its_own_channels_or_the_defaults_and_min_level_does_not_matter() {
        let notifier = notifier(&["a", "b"]);
        assert_eq!(
            notifier.pushmsg_for_host("web1", "x"),
            results(&[("b", true), ("gone", false)])
        );
        assert_eq!(notifier.pushmsg_for_host("stranger", "x"), results(&[("a", true)]));
        assert_eq!(notifier.pushmsg_for_host("mute", "x"), results(&[]));
        assert_eq!(notifier.pushmsg_from_config("x"), results(&[("a", true)]));
    }

    #[test]
    fn a_channel_that_is_named_twice_is_sent_to_once() {
        let mut ended = Vec::new();
        let sent =
            notifier(&["a"]).send(["a", "a", "x"], &DirectMessage::new("x"), |_, name, report| {
                ended.push((name.to_owned(), report.why()));
            });
        ended.sort();
        let unknown = Some("no channel is called \"x\"; there are: a".to_owned());
        assert_eq!(ended, [("a".to_owned(), None), ("x".to_owned(), unknown)]);
        assert_eq!(sent.results(), results(&[("a", true), ("x", false)]));
    }

    #[test]
    fn more_channels_than_threads_are_all_sent_to() {
        let names: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sent = notifier(&names).pushmsg(&names, "x");
        assert!(sent.len() == 50 && sent.values().all(|sent| *sent));
    }

    #[test]
    fn a_channel_says_which_recipients_were_not_reached() {
        let (ann, bob) = (Some("ann@x"), Some("bob@x"));
        for (outcomes, expected) in [
            (vec![outcome(None, None)], None),
            (vec![outcome(None, Some("dead"))], Some("dead")),
            (vec![outcome(ann, Some("dead")), outcome(bob, Some("dead"))], Some("dead")),
            (
                vec![outcome(ann, None), outcome(bob, Some("no such user"))],
                Some("1 of 2 recipients not reached: bob@x: no such user"),
            ),
            (
                vec![outcome(ann, Some("full")), outcome(bob, Some("gone"))],
                Some("2 of 2 recipients not reached: ann@x: full; bob@x: gone"),
            ),
        ] {
            let report = report(outcomes);
            assert_eq!(report.why().as_deref(), expected);
            assert_eq!(report.sent(), expected.is_none());
        }
    }

    #[test]
    fn event_ids_differ_even_at_the_same_moment() {
        let time = Wall(1_795_291_928_667);
        let (first, second) = (EventId::unique(time), EventId::unique(time));
        assert!(first < second);
        assert!(EventId::unique(SystemTime::now().into()).0 >> 12 >= 1_795_291_928_667);
    }

    #[test]
    fn a_message_carries_its_host_and_is_cut_where_it_would_never_end() {
        let text = "ü".repeat(100_000);
        let message =
            DirectMessage { host: Some("web1".into()), ..DirectMessage::new(&text) }.message();
        assert_eq!(message.host(), Some("web1"));
        let long = DirectMessage { host: Some(text), ..DirectMessage::new("x") }.message();
        assert_eq!(long.host().map(|host| host.chars().count()), Some(MAX_HOST_NAME));
        assert!(message.title.len() <= MAX_TEXT && message.title.ends_with('…'));
    }
}
