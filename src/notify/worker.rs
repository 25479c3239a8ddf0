//! Workers: each makes one attempt at a time, and says how it ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::channel::{Channel, Delivered, Failure, OutgoingMessage, ReceiptState, SharedState};
use super::outbox::{DeliveryId, Job, Poll};
use crate::clock::Now;
use crate::thread::AbortOnPanic;

/// Something to do through a channel.
pub enum Work {
    /// One attempt at a delivery.
    Attempt(Job),
    /// One question about an emergency.
    Ask(Poll),
}

impl Work {
    /// Through which channel.
    pub fn channel(&self) -> &str {
        match self {
            Work::Attempt(job) => &job.delivery.channel,
            Work::Ask(poll) => &poll.channel,
        }
    }
}

/// Work and the channel for it.
pub struct Task {
    /// The channel as it was configured when the work was given out.
    pub channel: Arc<Channel>,
    /// What to do.
    pub work: Work,
}

/// How work ended.
pub struct Done {
    /// What and how.
    pub ended: Ended,
    /// How long it took.
    pub took: Duration,
}

/// How each kind of work ends.
pub enum Ended {
    /// An attempt.
    Delivery(DeliveryId, Result<Delivered, Failure>),
    /// A question.
    Poll(Poll, Result<ReceiptState, Failure>),
}

/// Starts a worker, which works until the courier is gone.
///
/// # Errors
/// When no thread can be started.
pub fn hire<R: From<Done> + Send + 'static>(
    number: usize,
    state: Arc<SharedState>,
    to_do: Receiver<Task>,
    results: Sender<R>,
) -> std::io::Result<()> {
    let work = move || {
        let _vital = AbortOnPanic;
        for task in to_do {
            if results.send(perform(task, &state).into()).is_err() {
                break;
            }
        }
    };
    thread::Builder::new()
        .name(format!("worker-{number}"))
        .stack_size(512 * 1024)
        .spawn(work)
        .map(drop)
}

fn perform(Task { channel, work }: Task, state: &SharedState) -> Done {
    let begun = Instant::now();
    let ended = match work {
        Work::Attempt(job) => Ended::Delivery(job.id, caught(|| attempt(&job, &channel, state))),
        Work::Ask(poll) => {
            let answer = caught(|| channel.poll(&poll.receipt));
            Ended::Poll(poll, answer)
        }
    };
    Done { ended, took: begun.elapsed() }
}

/// A text that makes a library panic must not do so for ever.
fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Failure::FormRefused("the channel's code panicked, see the log".into()))
    })
}

fn attempt(job: &Job, channel: &Channel, state: &SharedState) -> Result<Delivered, Failure> {
    let delivery = &job.delivery;
    let outgoing = OutgoingMessage {
        channel: &delivery.channel,
        message: &delivery.message,
        recipient: delivery.recipient.as_deref(),
        possible_repeat: delivery.possible_repeat,
        short_form: delivery.plain,
        thread: delivery.thread.as_deref(),
        recovered_events: &delivery.ends,
        now: Now::read().wall,
    };
    channel.deliver(&outgoing, state)
}
