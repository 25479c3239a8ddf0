//! The thread of the courier: its loop, its transactions, and what it does when the disk fails.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{debug, error, info, warn};

use super::delivery_pool::DeliveryPool;
use super::overlay::{
    CalmRequest, HandledRequest, HostRequest, Overlay, Passed, acknowledgement_event,
};
use super::restore::{restore_outbox, restore_overlay};
use super::waiting::{Durability, Waiting};
use super::{
    CalmReply, Command, CourierExit, CourierStats, DirectRecord, EveryRow, Input, InspectFn,
    LAST_EVENT_KEY, OnStored, PendingCourier,
};
use crate::clock::{Mono, Now};
use crate::event::{CalmEvent, Event, EventId, EventKind, Level, SilenceNotice, Subject};
use crate::notify::calm::{CalmError, CalmOverview};
use crate::notify::outbox::{AcknowledgedMessage, OpenIncident, Outbox, UsedShares};
use crate::notify::settings::NotifySettings;
use crate::notify::worker::{self, DeliveryCounters, SendPermit, TaskDone, TaskKind, TaskResult};
use crate::store::{Change, CommitResult, Store, Table, Write};
use crate::thread::lock;
use crate::view::EventView;

/// A bound on the memory of one transaction.
const MAX_INPUTS_PER_COMMIT: usize = 1000;
/// How long attempts that are in flight at the stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last rows are tried to be confirmed at the end, and how often.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);

/// What the thread owns.
pub struct CourierThread {
    store: Store,
    outbox: Outbox,
    overlay: Overlay,
    settings: NotifySettings,
    every_row: EveryRow,
    waiting: Waiting,
    /// The last event number that is on disk.
    stored_event_id: EventId,
    inputs: Receiver<Input>,
    results: Sender<Input>,
    workers: DeliveryPool,
    stats: Arc<Mutex<CourierStats>>,
    used_shares: Arc<Mutex<UsedShares>>,
    /// An event was written since the last commit.
    event_stored: bool,
    /// The process must start again: [`CourierExit::Restart`] or [`CourierExit::Deposed`].
    ending: Option<CourierExit>,
    /// What is shown of silences and acknowledgements may be another than was published.
    calm_changed: bool,
    /// When the overlay was to be looked at next, as of what was published.
    calm_review: Option<Mono>,
    counters: DeliveryCounters,
}

impl CourierThread {
    /// Loads the outbox and starts the workers.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        pending: PendingCourier,
        mut store: Store,
        settings: NotifySettings,
        (every_row, permit): (EveryRow, SendPermit),
        rebase: impl Fn(Now) -> Now,
    ) -> std::io::Result<CourierThread> {
        let now = Now::read();
        let workers = DeliveryPool::new(pending.results.clone(), pending.channel_state, permit);
        let overlay = restore_overlay(&mut store, &settings, &rebase, now);
        let (outbox, dropped) = restore_outbox(&mut store, &settings, rebase, now);
        let mut thread = CourierThread {
            stored_event_id: outbox.last_event(),
            outbox,
            overlay,
            store,
            settings,
            every_row,
            waiting: Waiting::default(),
            inputs: pending.inputs,
            results: pending.results,
            workers,
            stats: pending.stats,
            used_shares: pending.used_shares,
            event_stored: false,
            ending: None,
            calm_changed: true,
            calm_review: None,
            counters: DeliveryCounters::default(),
        };
        thread.overlay.readdress(&thread.outbox, &thread.settings.routes, now);
        thread.counters.log_and_count_all(&dropped, Duration::ZERO);
        thread.raise_reports(now);
        thread.workers.grow(&thread.settings.channels)?;
        thread.publish_stats(now);
        Ok(thread)
    }

    /// Runs until the stop, or until the process must restart.
    pub fn run(mut self) -> CourierExit {
        let mut stopping: Option<Instant> = None;
        loop {
            let inputs = self.wait(stopping);
            let now = Now::read();
            let mut looks = Vec::new();
            for input in inputs {
                match input {
                    Input::Done(done) => self.complete(done, now),
                    Input::Command(Command::Stop) => stopping = Some(Instant::now()),
                    Input::Command(command) => looks.extend(self.handle(command, now)),
                }
            }
            let tasks = self.process_due(now, stopping.is_none());
            self.waiting.tasks.extend(tasks);
            let durability = self.commit(now);
            if let Some(ending) = self.ending {
                // What waits here is unanswered, and is sent again to the next process.
                return if stopping.is_some() { CourierExit::Stored } else { ending };
            }
            // Whoever has an answer finds it in what is shown.
            self.publish_stats(now);
            self.waiting.answer(durability);
            for look in looks {
                look(&self.store, &self.outbox, &self.overlay.calm, now);
            }
            let tasks = self.waiting.take_tasks(durability);
            self.workers.start(tasks, &self.settings.channels);
            if let Some(since) = stopping
                && (!self.outbox.is_busy() || since.elapsed() >= STOP_TIMEOUT)
            {
                return self.final_commit();
            }
        }
    }

    /// Carries out a command; a look is for after the commit.
    fn handle(&mut self, command: Command, now: Now) -> Option<InspectFn> {
        match command {
            Command::Commit(change) => {
                let answer = self.apply_change(change, now);
                self.waiting.answers.extend(answer);
            }
            Command::Reconfigure(settings) => self.reconfigure(settings, now),
            Command::LimitHistory(limit) => self.store.limit_history(limit),
            Command::Record(records) => self.record_direct(&records, now),
            Command::Inspect(look) => return Some(look),
            Command::Calm(request, reply) => {
                let answer = self.handle_calm(request, reply, now);
                self.waiting.answers.extend(answer);
            }
            Command::UndoCalm(undo) => self.overlay.undo(&undo, &mut self.outbox),
            // The loop's own.
            Command::Stop => {}
        }
        None
    }

    /// Waits for an input or for something that falls due; everything that waits by then.
    fn wait(&self, stopping: Option<Instant>) -> Vec<Input> {
        let now = Now::read();
        // At the stop, too, what waits for a confirmation does not wait for the end.
        let is_awake = stopping.is_none() || !self.waiting.tasks.is_empty();
        let next = is_awake.then(|| self.next_wake(now)).flatten();
        let left = stopping.map(|since| STOP_TIMEOUT.saturating_sub(since.elapsed()));
        let timeout = left.into_iter().chain(next).min();
        let first = match timeout {
            Some(timeout) => self.inputs.recv_timeout(timeout),
            None => self.inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        first.into_iter().chain(self.inputs.try_iter().take(MAX_INPUTS_PER_COMMIT)).collect()
    }

    fn next_wake(&self, now: Now) -> Option<Duration> {
        let turn = self.outbox.next_wake(now);
        let store = Some(self.store.next_attempt());
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let grain = Duration::from_millis(1);
        let calm = self.overlay.calm.next_wake(now);
        [turn, store, calm].into_iter().flatten().min().map(|at| at.since(now.mono) + grain)
    }

    /// Puts a change into the transaction at hand.
    fn apply_change(&mut self, change: Change, now: Now) -> Option<OnStored> {
        let last_before = self.outbox.last_delivery();
        let handled = change.entry.iter().flat_map(|entry| entry.writes(now.wall));
        change.writes.into_iter().chain(handled).for_each(|write| self.store.write(write));
        for incident in &change.closed_silently {
            self.outbox.close_silently(incident);
            self.overlay.calm.close_silently(incident);
        }
        change.parents_up.iter().for_each(|host| self.overlay.calm.set_parent(host, true));
        change.not_behind.iter().for_each(|host| self.overlay.calm.clear_parents(host));
        let mut on_stored = change.on_stored;
        for event in change.events {
            match &event.kind {
                EventKind::Calm(CalmEvent::Silenced(request)) if request.is_wish() => {
                    on_stored = self.on_host_request(request, on_stored, now);
                }
                _ => self.accept(&event, now),
            }
        }
        if change.may_repeat || change.entry.is_some_and(|entry| entry.again) {
            self.outbox.mark_as_repeats(last_before);
        }
        on_stored
    }

    /// A host asks for a silence of its own. One that cannot be had, or not be stored, is not answered
    /// and has no effect: the host asks again.
    fn on_host_request(
        &mut self,
        request: &SilenceNotice,
        on_stored: Option<OnStored>,
        now: Now,
    ) -> Option<OnStored> {
        let refuses = self.store.is_failing() && !request.length.is_zero();
        let handled = if refuses {
            Err(CalmError::NotStored("the disk takes nothing".into()))
        } else {
            let routes = &self.settings.routes;
            self.overlay.on_host_request(request, &mut self.outbox, routes, now)
        };
        match handled {
            Err(why) => {
                warn!("{} is not silenced, as it asks for: {why}", request.scope);
                on_stored.map(|answer| Box::new(move |_| answer(false)) as OnStored)
            }
            Ok(HostRequest { events, undo }) => {
                events.iter().for_each(|event| self.accept(event, now));
                let inputs = self.results.clone();
                Some(Box::new(move |stored| {
                    if !stored {
                        // Fails when the thread has ended, and all of it with that.
                        let _ = inputs.send(Input::Command(Command::UndoCalm(undo)));
                    }
                    if let Some(answer) = on_stored {
                        answer(stored);
                    }
                }))
            }
        }
    }

    /// Carries out what people ask of the overlay; the reply, when it is known whether that is
    /// stored.
    fn handle_calm(
        &mut self,
        request: CalmRequest,
        reply: CalmReply,
        now: Now,
    ) -> Option<OnStored> {
        const REFUSED: &str = "the disk takes nothing: it was not stored, and has no effect";
        if self.store.is_failing() {
            reply(Err(CalmError::NotStored(REFUSED.into())));
            return None;
        }
        match self.overlay.handle(request, &mut self.outbox, now) {
            Err(refused) => {
                reply(Err(refused));
                None
            }
            Ok(HandledRequest { answer, undo, events }) => {
                events.iter().for_each(|event| self.accept(event, now));
                let inputs = self.results.clone();
                Some(Box::new(move |stored| {
                    let refused = || Err(CalmError::NotStored(REFUSED.into()));
                    let heard = reply(if stored { Ok(answer) } else { refused() });
                    // Whoever got no answer was told that it has no effect.
                    if !(stored && heard) {
                        // Fails when the thread has ended, and all of it with that.
                        let _ = inputs.send(Input::Command(Command::UndoCalm(undo)));
                    }
                }))
            }
        }
    }

    fn accept(&mut self, event: &Event, now: Now) {
        if let Some(by) = self.outbox.acknowledged(event, now) {
            info!("no reminder of {:?}: acknowledged {}", event.kind, by.describe());
            return;
        }
        let routes = &self.settings.routes;
        let Some(passed) = self.overlay.accept(event, &mut self.outbox, routes, now) else {
            debug!("nothing to tell of {:?}: silenced, flapping, or never told", event.kind);
            return;
        };
        self.record_passed(event, &passed);
    }

    fn record_passed(&mut self, event: &Event, passed: &Passed) {
        let Passed { id, told, held_by } = passed;
        debug!("{:?} is event {id}, told to {told:?}, held by {held_by:?}", event.kind);
        self.store_event(event, passed);
        if event.level > Level::Ok
            && told.is_empty()
            && held_by.is_empty()
            && let Subject::Plan(plan) = event.subject()
        {
            warn!(
                "nobody is told how the backup {plan} fared: no channel takes {}",
                event.level.name()
            );
        }
    }

    /// Keeps an event for the list of events, notified or not. Hosts that are not configured may be
    /// any number: their events are not kept.
    fn store_event(&mut self, event: &Event, passed: &Passed) {
        let is_farewell = matches!(event.kind, EventKind::Watch(_));
        if let Subject::Host(host) = event.subject()
            && !is_farewell
            && self.settings.routes.host(&host).is_none()
        {
            return;
        }
        self.event_stored = true;
        let (told, held_by) = (passed.told.clone(), passed.held_by.clone());
        let row = EventView { told, held_by, ..EventView::of(event, passed.id) };
        self.store.write(Write::put(Table::Events, passed.id.to_string(), &row));
    }

    fn complete(&mut self, done: TaskDone, now: Now) {
        match done.result {
            TaskResult::Attempt(id, result) => {
                let ended = self.outbox.complete(id, result, now);
                self.counters.log_and_count_all(&ended, done.took);
            }
            TaskResult::NotMade(id) => {
                debug!("a message is not sent now: this node does not lead");
                self.outbox.on_not_made(id, now);
            }
            TaskResult::Poll(poll, answer) => {
                let failed = answer.as_ref().err().map(|failure| failure.clone().into_why());
                if let Some(note) = self.outbox.on_poll_result(&poll, answer, now) {
                    worker::log_acknowledgement(&note);
                    self.accept_acknowledgement(&note, now);
                } else if let Some(why) = failed {
                    debug!("a receipt of {} could not be asked about: {why}", poll.channel);
                }
            }
        }
    }

    /// Records that the open incidents of a message were acknowledged through its channel.
    fn accept_acknowledgement(&mut self, note: &AcknowledgedMessage, now: Now) {
        let open = note.incidents.iter().filter_map(|one| self.outbox.open_incident(one));
        let open: Vec<OpenIncident> = open.cloned().collect();
        if !open.is_empty() {
            let by = note.by.person();
            self.accept(&acknowledgement_event(&open, &by, None, false, now), now);
        }
    }

    fn record_direct(&mut self, records: &[DirectRecord], now: Now) {
        for DirectRecord { record, reason } in records {
            self.counters.count_direct(record, *reason);
            self.outbox.record_direct(record, now);
        }
    }

    fn reconfigure(&mut self, settings: NotifySettings, now: Now) {
        self.overlay.calm.reconfigure(settings.calm.clone());
        self.calm_changed = true;
        self.outbox.set_public_url(settings.public_url.clone());
        self.settings = settings;
        let seed = now.wall.0.unsigned_abs();
        let routes = &self.settings.routes;
        let queues = self.settings.queue_settings();
        self.outbox.successions(&queues, routes).iter().for_each(|one| warn!("{one}"));
        self.outbox.set_overdue_renotify(self.settings.overdue_renotify);
        let dropped = self.outbox.reconfigure(queues, routes, seed, now);
        self.overlay.readdress(&self.outbox, routes, now);
        self.counters.log_and_count_all(&dropped, Duration::ZERO);
        if let Err(why) = self.workers.grow(&self.settings.channels) {
            warn!("no further worker could be started: {why}");
        }
    }

    /// Expires deliveries and reports channels; starts every attempt and poll that is due, except
    /// while stopping.
    fn process_due(&mut self, now: Now, starts: bool) -> Vec<TaskKind> {
        let expired = self.outbox.expire(now);
        self.counters.log_and_count_all(&expired, Duration::ZERO);
        let mut events = self.outbox.channel_reports(now);
        events.extend(self.outbox.overdue_reminders(now));
        events.iter().for_each(|event| self.accept(event, now));
        self.process_calm(now);
        if !starts {
            return Vec::new();
        }
        let attempts = self.outbox.start(now).into_iter().map(TaskKind::Attempt);
        attempts.chain(self.outbox.due_polls(now).into_iter().map(TaskKind::Poll)).collect()
    }

    /// Ends what silences and acknowledgements were made for a time, and passes on what comes out of
    /// a hold.
    fn process_calm(&mut self, now: Now) {
        let ended = self.outbox.expire_acknowledgements(now);
        if ended > 0 {
            info!("the time of {ended} acknowledgements is over");
        }
        let due = self.overlay.due(&self.outbox, now);
        let routes = &self.settings.routes;
        let released = self.overlay.release_all(due.released, &mut self.outbox, routes, now);
        released.iter().for_each(|(event, passed)| self.record_passed(event, passed));
        due.events.iter().for_each(|event| self.accept(event, now));
        if due.window_began {
            self.overlay.withdraw_reminders(&mut self.outbox, now);
        }
    }

    /// The rows that changed since the last call.
    fn take_writes(&mut self) -> Vec<Write> {
        let mut writes = self.outbox.take_writes();
        writes.append(&mut self.overlay.calm.take_writes());
        let of_calm = |write: &Write| matches!(write.table, Table::Calm | Table::Troubles);
        self.calm_changed |= writes.iter().any(of_calm);
        writes
    }

    /// All that is known, for a file that has nothing of it.
    fn write_every_row(&mut self) {
        let rows = (self.every_row)().into_iter().chain(self.outbox.every_row());
        let last = Write::put(Table::Meta, LAST_EVENT_KEY, &self.outbox.last_event());
        self.store.rewrite(rows.chain(self.overlay.calm.every_row()).chain([last]));
    }

    /// Stores everything.
    fn commit(&mut self, now: Now) -> Durability {
        // In the transaction that gives them up.
        for (id, event, told) in self.outbox.report_given_up(&self.settings.routes, now) {
            self.store_event(&event, &Passed { id, told, held_by: Vec::new() });
        }
        let writes = self.take_writes();
        // A number that was never shown may be given again.
        let shown = std::mem::take(&mut self.event_stored) || !writes.is_empty();
        if shown && self.outbox.last_event() != self.stored_event_id {
            self.stored_event_id = self.outbox.last_event();
            self.store.write(Write::put(Table::Meta, LAST_EVENT_KEY, &self.stored_event_id));
        }
        for write in writes {
            self.store.write(write);
        }
        let committed = self.store.commit(now);
        self.handle_commit(committed, now)
    }

    /// Reports what the store answered.
    fn handle_commit(&mut self, committed: CommitResult, now: Now) -> Durability {
        self.raise_reports(now);
        match committed {
            CommitResult::Committed => Durability::Stored,
            CommitResult::StillFailing => Durability::Refused,
            CommitResult::Unconfirmed { why } => {
                debug!("{} attempts wait: {why}", self.waiting.tasks.len());
                Durability::Unconfirmed
            }
            CommitResult::Deposed => {
                self.ending = Some(CourierExit::Deposed);
                Durability::Unconfirmed
            }
            CommitResult::Failed { why } => {
                error!("a crash would lose what is not on disk, and that takes nothing: {why}");
                self.raise(EventKind::StoreRefuses { why }, now);
                Durability::Refused
            }
            CommitResult::Recovered { failed_for } => self.on_recovered(failed_for, now),
            CommitResult::RecoveredEmpty { failed_for } => {
                self.write_every_row();
                self.on_recovered(failed_for, now)
            }
            CommitResult::Replaced => {
                self.write_every_row();
                self.commit_events(now)
            }
            CommitResult::RecoveredUnread { .. } => {
                // What was found in the file is told by the next process.
                self.commit_events(now);
                self.ending = self.ending.or(Some(CourierExit::Restart));
                Durability::Refused
            }
        }
    }

    /// What the store found out about its file.
    fn raise_reports(&mut self, now: Now) {
        for kind in self.store.take_reports() {
            self.raise(kind, now);
        }
    }

    fn on_recovered(&mut self, failed_for: Duration, now: Now) -> Durability {
        self.raise(EventKind::StoreWrites { refused_for: failed_for }, now);
        self.commit_events(now)
    }

    /// Puts the courier's own events on disk as well.
    fn commit_events(&mut self, now: Now) -> Durability {
        self.take_writes().into_iter().for_each(|write| self.store.write(write));
        let committed = self.store.commit(now);
        self.handle_commit(committed, now)
    }

    /// The last try for what is not stored yet.
    fn final_commit(mut self) -> CourierExit {
        self.take_writes().into_iter().for_each(|write| self.store.write(write));
        let exit = self.commit_last();
        if self.ending.is_none() {
            let stored = exit == CourierExit::Stored;
            self.waiting.answer(if stored { Durability::Stored } else { Durability::Refused });
        }
        exit
    }

    fn commit_last(&mut self) -> CourierExit {
        let (started, mut rewritten) = (Instant::now(), false);
        loop {
            let rows = self.store.pending();
            match self.store.commit_now(Now::read()) {
                CommitResult::Committed
                | CommitResult::Recovered { .. }
                | CommitResult::RecoveredUnread { .. } => return CourierExit::Stored,
                CommitResult::RecoveredEmpty { .. } | CommitResult::Replaced if !rewritten => {
                    self.write_every_row();
                    rewritten = true;
                }
                CommitResult::Deposed => {
                    // All that was confirmed is the other one's by now.
                    self.ending = Some(CourierExit::Deposed);
                    return CourierExit::Stored;
                }
                CommitResult::Unconfirmed { .. } if started.elapsed() < CONFIRM_TIMEOUT => {
                    drop(self.inputs.recv_timeout(CONFIRM_INTERVAL));
                }
                CommitResult::Unconfirmed { why } => {
                    error!(
                        "it is not confirmed that the last {rows} rows of state are stored: {why}"
                    );
                    return CourierExit::Lost;
                }
                CommitResult::RecoveredEmpty { .. }
                | CommitResult::Replaced
                | CommitResult::Failed { .. }
                | CommitResult::StillFailing => {
                    let waiting = self.outbox.len();
                    error!(
                        "the disk takes nothing: {rows} rows of state are lost, {waiting} deliveries among them"
                    );
                    return CourierExit::Lost;
                }
            }
        }
    }

    /// An event of the courier's own; its deliveries start at the next turn.
    fn raise(&mut self, kind: EventKind, now: Now) {
        self.accept(&Event::new(now.wall, kind), now);
    }

    fn publish_stats(&mut self, now: Now) {
        if let Some(used) = self.outbox.used_shares(&self.settings.routes) {
            *lock(&self.used_shares) = used;
        }
        let (calm, acknowledged) = self.calm_overview(now);
        let stats = CourierStats {
            at: now.mono,
            queues: self.outbox.queue_status(now),
            sent: self.counters.sent.clone(),
            failed: self.counters.failed.clone(),
            store_refuses: self.store.failure().map(str::to_owned),
            calm,
            acknowledged,
        };
        *lock(&self.stats) = stats;
    }

    /// What is silent, and how many alarms are acknowledged: counted only where that may have
    /// changed. A window that begins or ends writes nothing, but moves the next review.
    fn calm_overview(&mut self, now: Now) -> (Arc<CalmOverview>, usize) {
        let review = self.overlay.calm.next_wake(now);
        if !std::mem::take(&mut self.calm_changed) && review == self.calm_review {
            let stats = lock(&self.stats);
            return (Arc::clone(&stats.calm), stats.acknowledged);
        }
        self.calm_review = review;
        let open = self.outbox.open_incidents();
        let acknowledged = open.filter(|open| open.acknowledgement(now).is_some()).count();
        (Arc::new(self.overlay.calm.overview(now)), acknowledged)
    }
}
