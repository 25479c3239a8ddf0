//! Worker threads, each of which makes one attempt at a time; what is logged and counted of the
//! results.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use log::{error, info, warn};

use super::channel::{Channel, Delivered, Failure, OutgoingMessage, ReceiptState, SharedState};
use super::outbox::{
    AcknowledgedMessage, DeliveryAttempt, DeliveryId, DeliveryRecord, DeliveryResult, DropReason,
    ReceiptPoll,
};
use super::text::{LineBreaks, TextUnit, clean, cut};
use crate::clock::{Now, format_duration};
use crate::thread::spawn_critical;

/// What a worker does through a channel.
pub enum TaskKind {
    /// One attempt at a delivery.
    Attempt(DeliveryAttempt),
    /// One poll for a receipt.
    Poll(ReceiptPoll),
}

impl TaskKind {
    /// The channel.
    pub fn channel(&self) -> &str {
        match self {
            TaskKind::Attempt(attempt) => &attempt.delivery.channel,
            TaskKind::Poll(poll) => &poll.channel,
        }
    }
}

/// One job of a worker.
pub struct Task {
    /// The channel as it was configured when the task was dispatched.
    pub channel: Arc<Channel>,
    /// What to do.
    pub kind: TaskKind,
}

/// A finished task.
pub struct TaskDone {
    /// How it ended.
    pub result: TaskResult,
    /// How long it took.
    pub took: Duration,
}

/// How each kind of task ends.
pub enum TaskResult {
    /// An attempt.
    Attempt(DeliveryId, Result<Delivered, Failure>),
    /// An attempt that was not made: there was no permit for it.
    NotMade(DeliveryId),
    /// A question.
    Poll(ReceiptPoll, Result<ReceiptState, Failure>),
}

/// Whether this process may send at this moment. Asked immediately before each attempt and each poll:
/// where several daemons act as one service, only one of them may.
pub type SendPermit = Arc<dyn Fn() -> bool + Send + Sync>;

/// Why nothing is sent without a permit.
const NO_PERMIT: &str = "this node does not lead now";

/// Starts a worker, which runs until the courier's thread has ended.
///
/// # Errors
/// When no thread can be started.
pub fn spawn<R: From<TaskDone> + Send + 'static>(
    number: usize,
    state: Arc<SharedState>,
    permit: SendPermit,
    to_do: Receiver<Task>,
    results: Sender<R>,
) -> std::io::Result<()> {
    let work = move || {
        for task in to_do {
            if results.send(run(task, &state, &permit).into()).is_err() {
                break;
            }
        }
    };
    spawn_critical(&format!("worker-{number}"), 512 * 1024, work).map(drop)
}

fn run(Task { channel, kind: work }: Task, state: &SharedState, permit: &SendPermit) -> TaskDone {
    let started = Instant::now();
    let ended = match work {
        TaskKind::Attempt(attempt) => {
            let refused = Cell::new(false);
            let may_send = || {
                refused.set(!permit());
                !refused.get()
            };
            let result = catch_panic(|| deliver(&attempt, &channel, state, &may_send));
            match refused.get() {
                true => TaskResult::NotMade(attempt.id),
                false => TaskResult::Attempt(attempt.id, result),
            }
        }
        TaskKind::Poll(poll) if !permit() => {
            TaskResult::Poll(poll, Err(Failure::unreachable(NO_PERMIT)))
        }
        TaskKind::Poll(poll) => {
            let answer = catch_panic(|| match poll.cancel {
                Some(event) => channel.cancel(event),
                None => channel.poll(&poll.receipt),
            });
            TaskResult::Poll(poll, answer)
        }
    };
    TaskDone { result: ended, took: started.elapsed() }
}

/// Runs code of a channel. A text that makes a library panic must not end the process, again and
/// again: the message counts as one whose form is refused.
pub fn catch_panic<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Failure::FormRefused("the channel's code panicked, see the log".into()))
    })
}

fn deliver(
    attempt: &DeliveryAttempt,
    channel: &Channel,
    state: &SharedState,
    may_send: &dyn Fn() -> bool,
) -> Result<Delivered, Failure> {
    let delivery = &attempt.delivery;
    let outgoing = OutgoingMessage {
        channel: &delivery.channel,
        message: &delivery.message,
        recipient: delivery.recipient.as_deref(),
        possible_repeat: delivery.possible_repeat,
        short_form: delivery.plain,
        thread: delivery.thread.as_deref(),
        recovered_events: &delivery.recovered_events,
        now: Now::read().wall,
    };
    channel.deliver_if(&outgoing, state, may_send)
}

/// Why attempts fail, as the label in the metrics.
pub const FAILURE_REASONS: [&str; 5] =
    ["unreachable", "unknown", "message_refused", "channel_refused", "expired"];

/// Counters since the start.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    /// Messages that arrived, by channel.
    pub sent: BTreeMap<String, u64>,
    /// Attempts that did not, by channel and reason.
    pub failed: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

impl DeliveryCounters {
    /// Logs and counts each result; `took` is the duration of the attempt that the first is about.
    pub fn log_and_count_all(
        &mut self,
        ended: &[(DeliveryResult, DeliveryRecord)],
        took: Duration,
    ) {
        for (index, (result, record)) in ended.iter().enumerate() {
            self.log_and_count(result, record, if index == 0 { took } else { Duration::ZERO });
        }
    }

    /// Logs one line for a result, and counts it.
    fn log_and_count(&mut self, result: &DeliveryResult, record: &DeliveryRecord, took: Duration) {
        let DeliveryRecord { channel, event, attempts, .. } = record;
        match result {
            DeliveryResult::Delivered { events } => {
                *self.sent.entry(channel.clone()).or_default() += 1;
                let of = if *events > 1 { format!(", {events} events") } else { String::new() };
                let (title, took) = (logged_title(&record.title), format_duration(took));
                info!("Sent notification to {channel}: {title} ({event}{of}, {took})");
            }
            DeliveryResult::Retrying { why, delay, may_have_arrived } => {
                self.count(channel, if *may_have_arrived { "unknown" } else { "unreachable" });
                let again = format_duration(*delay);
                let title = logged_title(&record.title);
                warn!(
                    "Failed to send notification to {channel}: {why} ({event}: {title}, attempt {attempts}, again in {again})"
                );
            }
            DeliveryResult::ChannelPaused { why, delay } => {
                self.count(channel, "channel_refused");
                let again = format_duration(*delay);
                let title = logged_title(&record.title);
                error!(
                    "Failed to send notification to {channel}: {why} (the channel pauses, {event} is kept: {title}, next probe in {again})"
                );
            }
            DeliveryResult::RecipientPaused { why, delay } => {
                self.count(channel, "message_refused");
                let again = format_duration(*delay);
                let title = logged_title(&record.title);
                error!(
                    "Failed to send notification to {channel}: {why} (this recipient alone waits, {event} is kept: {title}, next probe in {again})"
                );
            }
            DeliveryResult::Orphaned => {
                let title = logged_title(&record.title);
                info!(
                    "{event} is not told to {channel}: the alarm that it ends never arrived ({title})"
                );
            }
            DeliveryResult::Moved { to } if to.is_empty() => {
                info!("{event} no longer waits for {channel}: others were given the same");
            }
            DeliveryResult::Moved { to } => {
                let (to, title) = (to.join(", "), logged_title(&record.title));
                info!("{event} no longer waits for {channel}: it goes to {to} ({title})");
            }
            DeliveryResult::Failed { reason, why } => {
                self.count(channel, metric_label(*reason));
                error!(
                    "Failed to send notification to {channel}: {why} ({event} is dropped: {})",
                    logged_title(&record.title)
                );
            }
        }
    }

    /// Counts what was sent without the outbox; `reason` is why it failed, if it was tried.
    pub fn count_direct(&mut self, record: &DeliveryRecord, reason: Option<&'static str>) {
        if record.delivered {
            *self.sent.entry(record.channel.clone()).or_default() += 1;
        } else if let Some(reason) = reason {
            self.count(&record.channel, reason);
        }
    }

    fn count(&mut self, channel: &str, reason: &'static str) {
        *self.failed.entry(channel.to_owned()).or_default().entry(reason).or_default() += 1;
    }
}

/// Which of [`FAILURE_REASONS`]. A removed channel has no metrics; should it come back, what was
/// dropped for it counts like a message that it refused.
fn metric_label(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Expired => "expired",
        DropReason::MessageRefused | DropReason::ChannelRemoved => "message_refused",
    }
}

/// A title as a part of a line of the log.
pub fn logged_title(title: &str) -> String {
    const MAX_TITLE: usize = 200;
    cut(&clean(title, LineBreaks::Remove), MAX_TITLE, TextUnit::Characters)
}

/// Logs one line for a message that was acknowledged.
pub fn log_acknowledgement(message: &AcknowledgedMessage) {
    let incidents: Vec<String> = message.incidents.iter().map(ToString::to_string).collect();
    let of =
        if incidents.is_empty() { String::new() } else { format!(": {}", incidents.join(", ")) };
    let device = message.by.device.as_deref().unwrap_or("a device");
    info!("{} was acknowledged through {} on {device}{of}", message.event, message.by.channel);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::event::{EventId, Level, Subject};

    #[test]
    fn the_metrics_count_by_reason_and_not_by_words() {
        let record = DeliveryRecord {
            event: EventId(1),
            channel: "mail".into(),
            recipient: None,
            subject: Subject::Daemon,
            level: Level::Warning,
            title: "t".into(),
            accepted: Wall(0),
            finished: Wall(0),
            attempts: 1,
            delivered: false,
            why: None,
            is_minor: false,
            told_in: None,
            acknowledged: None,
            acknowledged_by: None,
        };
        let failed = |reason, why: &str| {
            (DeliveryResult::Failed { reason, why: why.into() }, record.clone())
        };
        let mut counters = DeliveryCounters::default();
        let ended = [
            failed(DropReason::Expired, "too late"),
            failed(DropReason::MessageRefused, "given up: no such user"),
        ];
        counters.log_and_count_all(&ended, Duration::ZERO);
        assert_eq!(counters.failed["mail"], [("expired", 1), ("message_refused", 1)].into());
    }
}
