//! Messages that are sent at once on request, the log of deliveries, and the state of the channels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::btree::InsertAll;
use crate::clock::Now;
use crate::http::query::{NotifyRequest, Recipients};
use crate::http::{SendError, SendJob, SendResponse};
use crate::notify::courier::{Courier, CourierStats};
use crate::notify::delivery_log;
use crate::notify::notifier::{ChannelResult, DirectMessage, Notifier};
use crate::notify::outbox::QueueStatus;
use crate::thread::Semaphore;
use crate::view::query::NotificationQuery;
use crate::view::{ChannelState, ChannelView, FailureView, NotificationView};

/// How many messages are sent at once, each by a thread of its own.
const MAX_CONCURRENT: usize = 4;
/// How long an answer waits for its channels. The HTTP server gives up after 30 s.
const TIMEOUT: Duration = Duration::from_secs(25);

/// How many unknown names an error lists.
const MAX_LISTED: usize = 10;

/// Limits how many messages are sent at once.
pub fn semaphore() -> Semaphore {
    Semaphore::new(MAX_CONCURRENT)
}

/// Prepares a message that is to be sent at once. It does not enter the outbox: the answer says which
/// channels failed, and nothing is tried again. The results are in the log of deliveries.
pub fn prepare_send(
    notifier: Arc<Notifier>,
    courier: Courier,
    semaphore: &Semaphore,
    request: NotifyRequest,
) -> Result<SendJob, SendError> {
    let (channels, host) =
        recipients(&notifier, request.recipients).map_err(SendError::NoChannel)?;
    let mut notice = DirectMessage { host, ..DirectMessage::new(request.message) };
    notice.level = request.level.unwrap_or(notice.level);
    if courier.is_backlogged() {
        return Err(SendError::Busy("the disk is slow, the history has no room".into()));
    }
    let busy = || SendError::Busy(format!("{MAX_CONCURRENT} messages are being sent already"));
    let permit = semaphore.try_acquire().ok_or_else(busy)?;
    Ok(Box::new(move || {
        let (tx, rx) = unbounded();
        let names = channels.clone();
        let send = move || {
            let _permit = permit;
            send(&notifier, &courier, &names, &notice, &tx);
        };
        thread::Builder::new().name("notify".into()).spawn(send).map_err(|why| {
            SendError::Busy(format!("no thread could be started to send the message: {why}"))
        })?;
        Ok(collect_results(channels, &rx, Instant::now() + TIMEOUT))
    }))
}

/// The channels to send to, and the host that the message is about.
fn recipients(
    notifier: &Notifier,
    whom: Recipients,
) -> Result<(Vec<String>, Option<String>), String> {
    let channels = match whom {
        Recipients::Channels(channels) => {
            let is_unknown = |name: &&String| !notifier.channels().contains_key(*name);
            let unknown: Vec<_> = channels.iter().filter(is_unknown).collect();
            if !unknown.is_empty() {
                let shown = unknown.iter().take(MAX_LISTED).map(|name| format!("\"{name}\""));
                let shown = shown.collect::<Vec<_>>().join(", ");
                let more = if unknown.len() > MAX_LISTED { " and more" } else { "" };
                return Err(format!("channels: there is no {shown}{more}"));
            }
            return Ok((channels, None));
        }
        Recipients::Host(host) => (notifier.channels_of_host(&host).to_vec(), Some(host)),
    };
    match channels {
        (none, Some(host)) if none.is_empty() => {
            Err(format!("host: there is no channel for \"{host}\""))
        }
        channels => Ok(channels),
    }
}

fn send(
    notifier: &Notifier,
    courier: &Courier,
    channels: &[String],
    notice: &DirectMessage,
    results: &Sender<(String, ChannelResult)>,
) {
    notifier.send(channels, notice, |message, name, report| {
        // Each as it ends: a channel that hangs must not keep the others out of the log.
        courier.record(delivery_log::direct_records(message, name, report, Now::read().wall));
        // Fails when the request no longer waits.
        let _ = results.send((name.to_owned(), report.clone()));
    });
}

/// The results that come in until `deadline`; a channel without one has failed so far.
fn collect_results(
    channels: Vec<String>,
    results: &Receiver<(String, ChannelResult)>,
    deadline: Instant,
) -> SendResponse {
    let mut sent = SendResponse::default();
    while let Ok((name, report)) = results.recv_deadline(deadline) {
        sent.why.extend(report.why().map(|why| (name.clone(), why)));
        sent.results.insert(name, report.sent());
    }
    for name in channels {
        if !sent.results.contains_key(&name) {
            let why = format!("it has not ended after {} s and goes on", TIMEOUT.as_secs());
            sent.why.insert(name.clone(), why);
            sent.results.insert(name, false);
        }
    }
    sent
}

/// A page of the log of deliveries, and where the next one begins.
pub fn notifications(
    courier: &Courier,
    query: &NotificationQuery,
) -> Result<(Vec<NotificationView>, Option<u64>), String> {
    let page = delivery_log::query(courier, query)?;
    Ok((page.notifications, page.next.map(|id| id.0)))
}

/// The state of every channel.
pub fn channels(notifier: &Notifier, stats: &CourierStats) -> Vec<ChannelView> {
    let queues: BTreeMap<&str, &QueueStatus> =
        stats.queues.iter().map(|queue| (queue.channel.as_str(), queue)).insert_all();
    let unused = QueueStatus::default();
    let view = |(name, channel): (&String, &Arc<crate::notify::channel::Channel>)| {
        let queue = queues.get(name.as_str()).copied().unwrap_or(&unused);
        let failure = |(at, why): &(_, String)| FailureView { at: Some(*at), why: why.clone() };
        ChannelView {
            name: name.clone(),
            kind: channel.type_name(),
            min_level: channel.min_level,
            state: state(queue),
            failing_since: queue.failing_since,
            last_success: queue.last_success,
            last_failure: queue.last_failure.as_ref().map(failure),
            waiting: queue.waiting,
            unacknowledged: queue.unacknowledged,
            oldest_age_seconds: queue.oldest.map(|age| age.as_secs_f64()),
            sent: stats.sent.get(name).copied().unwrap_or(0),
            failed: stats.failed.get(name).map_or(0, |counts| counts.values().sum()),
        }
    };
    notifier.channels().iter().map(view).collect()
}

fn state(queue: &QueueStatus) -> ChannelState {
    match queue.failing_since {
        Some(_) if queue.refused => ChannelState::Refused,
        Some(_) => ChannelState::Failing,
        None => ChannelState::Works,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Level;
    use crate::notify::channel::{Channel, ChannelKind};
    use crate::notify::courier::MAX_BACKLOG;
    use crate::notify::notifier::RecipientResult;

    fn notifier() -> Arc<Notifier> {
        let log = Arc::new(Channel { kind: ChannelKind::Log, min_level: Level::Info });
        let channels = BTreeMap::from([("log".into(), log)]);
        let hosts = BTreeMap::from([("mute".into(), Vec::new())]);
        Arc::new(Notifier::with(channels, vec!["log".into()], hosts))
    }

    fn to(whom: Recipients) -> NotifyRequest {
        NotifyRequest { recipients: whom, message: "m".into(), level: None }
    }

    #[test]
    fn a_channel_that_does_not_end_keeps_nobody_waiting() {
        let (tx, rx) = unbounded();
        let outcome = RecipientResult {
            recipient: None,
            why: None,
            reason: None,
            attempts: 1,
            took: Duration::ZERO,
        };
        let report = ChannelResult { recipients: vec![outcome], took: Duration::ZERO };
        tx.send(("quick".to_owned(), report)).unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        let sent = collect_results(vec!["quick".into(), "hangs".into()], &rx, deadline);
        assert_eq!(sent.results, [("hangs".into(), false), ("quick".into(), true)].into());
        assert_eq!(sent.why["hangs"], "it has not ended after 25 s and goes on");
    }

    #[test]
    fn nobody_is_told_when_one_name_is_wrong() {
        let channels = Recipients::Channels(vec!["log".into(), "lgo".into(), "x".into()]);
        assert_eq!(
            recipients(&notifier(), channels),
            Err("channels: there is no \"lgo\", \"x\"".into())
        );
        let mute = recipients(&notifier(), Recipients::Host("mute".into()));
        assert_eq!(mute, Err("host: there is no channel for \"mute\"".into()));
        let stranger = recipients(&notifier(), Recipients::Host("new".into()));
        assert_eq!(stranger, Ok((vec!["log".into()], Some("new".into()))));
    }

    #[test]
    fn nothing_is_sent_while_the_disk_has_no_room_for_its_record() {
        let (courier, _pending) = Courier::new();
        for _ in 0..=MAX_BACKLOG {
            courier.record(Vec::new());
        }
        let asked = to(Recipients::Host("web1".into()));
        let prepared = prepare_send(notifier(), courier, &semaphore(), asked);
        assert!(matches!(prepared, Err(SendError::Busy(_))));
    }

    #[test]
    fn only_so_many_messages_are_sent_at_a_time() {
        let (courier, _pending) = Courier::new();
        let semaphore = semaphore();
        let next = || {
            let request = to(Recipients::Host("web1".into()));
            prepare_send(notifier(), courier.clone(), &semaphore, request)
        };
        let mut prepared: Vec<_> = (0..MAX_CONCURRENT).map(|_| next().ok().unwrap()).collect();
        assert!(matches!(next(), Err(SendError::Busy(_))));
        // Whether it was sent or dropped, its permit is free again.
        let sent = prepared.pop().unwrap()().unwrap();
        assert_eq!(sent.results, [("log".into(), true)].into());
        drop(prepared);
        assert!(next().is_ok());
    }
}
