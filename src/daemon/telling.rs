//! What people and scripts ask the daemon about messages, and what they have it send at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::clock::Now;
use crate::http::query::{NotifyRequest, Recipients};
use crate::http::{SendError, SendJob, SendReport};
use crate::notify::courier::{Courier, Order, Standing};
use crate::notify::direct::{Notice, Notifier, Report};
use crate::notify::history;
use crate::notify::outbox::LineView;
use crate::view::query::NotificationQuery;
use crate::view::{ChannelState, ChannelView, FailureView, NotificationView};

/// Messages that are being sent at a time, each by a thread of its own.
const AT_ONCE: usize = 4;
/// How long the answer waits for channels that do not end. The HTTP front gives up after 30 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// So many wrong names are told.
const SHOWN: usize = 10;

/// Counts the messages that are being sent.
#[derive(Clone, Debug, Default)]
pub struct Seats(Arc<AtomicUsize>);

struct Seat(Seats);

impl Seats {
    fn take(&self) -> Option<Seat> {
        let seat = Seat(self.clone());
        // One that is too many is given back by its drop.
        (self.0.fetch_add(1, Ordering::SeqCst) < AT_ONCE).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Prepares a message that is to be sent at once. It does not enter the outbox: who asked is told
/// what failed. What became of it is in the history.
pub fn prepare(
    notifier: Arc<Notifier>,
    courier: Courier,
    seats: &Seats,
    asked: NotifyRequest,
) -> Result<SendJob, SendError> {
    let (channels, host) = whom(&notifier, asked.recipients).map_err(SendError::NoChannel)?;
    let mut notice = Notice { host, ..Notice::new(asked.message) };
    notice.level = asked.level.unwrap_or(notice.level);
    let busy = || SendError::Busy(format!("{AT_ONCE} messages are being sent already"));
    let seat = seats.take().ok_or_else(busy)?;
    Ok(Box::new(move || {
        let (tx, rx) = unbounded();
        let names = channels.clone();
        let send = move || {
            let _seat = seat;
            send(&notifier, &courier, &names, &notice, &tx);
        };
        thread::Builder::new().name("notify".into()).spawn(send).map_err(|why| {
            SendError::Busy(format!("no thread could be started to send the message: {why}"))
        })?;
        Ok(collect(channels, &rx, Instant::now() + PATIENCE))
    }))
}

/// The channels to send to, and the host that it is about.
fn whom(notifier: &Notifier, whom: Recipients) -> Result<(Vec<String>, Option<String>), String> {
    let channels = match whom {
        Recipients::Channels(channels) => {
            let strange = |name: &&String| !notifier.channels().contains_key(*name);
            let strangers: Vec<_> = channels.iter().filter(strange).collect();
            if !strangers.is_empty() {
                let shown = strangers.iter().take(SHOWN).map(|name| format!("\"{name}\""));
                let shown = shown.collect::<Vec<_>>().join(", ");
                let more = if strangers.len() > SHOWN { " and more" } else { "" };
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
    notice: &Notice,
    ended: &Sender<(String, Report)>,
) {
    notifier.send(channels, notice, |message, name, report| {
        // Each as it ends: a channel that hangs must not keep the others out of the history.
        courier.order(Order::Note(history::noted(message, name, report, Now::read().wall)));
        // Who no longer waits finds it there.
        let _ = ended.send((name.to_owned(), report.clone()));
    });
}

fn collect(
    channels: Vec<String>,
    ended: &Receiver<(String, Report)>,
    patience: Instant,
) -> SendReport {
    let mut sent = SendReport::default();
    while let Ok((name, report)) = ended.recv_deadline(patience) {
        sent.why.extend(report.why().map(|why| (name.clone(), why)));
        sent.results.insert(name, report.sent());
    }
    for name in channels {
        if !sent.results.contains_key(&name) {
            let why = format!("it has not ended after {} s and goes on", PATIENCE.as_secs());
            sent.why.insert(name.clone(), why);
            sent.results.insert(name, false);
        }
    }
    sent
}

/// A page of the history, and where to go on.
pub fn notifications(
    courier: &Courier,
    query: &NotificationQuery,
) -> Result<(Vec<NotificationView>, Option<u64>), String> {
    let page = history::ask(courier, query)?;
    Ok((page.notifications, page.next.map(|id| id.0)))
}

/// How every channel stands.
pub fn channels(notifier: &Notifier, standing: &Standing) -> Vec<ChannelView> {
    let lines: BTreeMap<&str, &LineView> =
        standing.lines.iter().map(|line| (line.channel.as_str(), line)).collect();
    let unused = LineView::default();
    let view = |(name, channel): (&String, &Arc<crate::notify::channel::Definition>)| {
        let line = lines.get(name.as_str()).copied().unwrap_or(&unused);
        let failure = |(at, why): &(_, String)| FailureView { at: Some(*at), why: why.clone() };
        ChannelView {
            name: name.clone(),
            kind: channel.type_name(),
            min_level: channel.min_level,
            state: state(line),
            failing_since: line.failing_since,
            last_success: line.last_success,
            last_failure: line.last_failure.as_ref().map(failure),
            waiting: line.waiting,
            unacknowledged: line.unacknowledged,
            oldest_age_seconds: line.oldest.map(|age| age.as_secs_f64()),
            sent: standing.sent.get(name).copied().unwrap_or(0),
            failed: standing.failed.get(name).map_or(0, |counts| counts.values().sum()),
        }
    };
    notifier.channels().iter().map(view).collect()
}

fn state(line: &LineView) -> ChannelState {
    match line.failing_since {
        Some(_) if line.refused => ChannelState::Refused,
        Some(_) => ChannelState::Failing,
        None => ChannelState::Works,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Level;
    use crate::notify::channel::{Definition, Kind};
    use crate::notify::direct::Outcome;

    fn notifier() -> Arc<Notifier> {
        let log = Arc::new(Definition { kind: Kind::Log, min_level: Level::Info });
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
        let outcome =
            Outcome { recipient: None, why: None, reason: None, attempts: 1, took: Duration::ZERO };
        let report = Report { outcomes: vec![outcome], took: Duration::ZERO };
        tx.send(("quick".to_owned(), report)).unwrap();
        let patience = Instant::now() + Duration::from_millis(20);
        let sent = collect(vec!["quick".into(), "hangs".into()], &rx, patience);
        assert_eq!(sent.results, [("hangs".into(), false), ("quick".into(), true)].into());
        assert_eq!(sent.why["hangs"], "it has not ended after 25 s and goes on");
    }

    #[test]
    fn nobody_is_told_when_one_name_is_wrong() {
        let channels = Recipients::Channels(vec!["log".into(), "lgo".into(), "x".into()]);
        assert_eq!(whom(&notifier(), channels), Err("channels: there is no \"lgo\", \"x\"".into()));
        let mute = whom(&notifier(), Recipients::Host("mute".into()));
        assert_eq!(mute, Err("host: there is no channel for \"mute\"".into()));
        let stranger = whom(&notifier(), Recipients::Host("new".into()));
        assert_eq!(stranger, Ok((vec!["log".into()], Some("new".into()))));
    }

    #[test]
    fn only_so_many_messages_are_sent_at_a_time() {
        let (courier, _desk) = Courier::new();
        let seats = Seats::default();
        let next = || {
            let asked = to(Recipients::Host("web1".into()));
            prepare(notifier(), courier.clone(), &seats, asked)
        };
        let mut prepared: Vec<_> = (0..AT_ONCE).map(|_| next().ok().unwrap()).collect();
        assert!(matches!(next(), Err(SendError::Busy(_))));
        // Whether it was made or forgotten, its seat is free again.
        let sent = prepared.pop().unwrap()().unwrap();
        assert_eq!(sent.results, [("log".into(), true)].into());
        drop(prepared);
        assert!(next().is_ok());
    }
}
