//! The state in a file of this machine: batches of rows handed to the thread that owns the disk, and
//! what became of those that it did not answer in time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use log::error;

use super::disk_thread::{DiskThread, PATIENCE};
use super::engine::{Batch, Done, Engine, Opened};
use super::history_limit::HistoryLimit;
use super::snapshot::Snapshot;
use super::table::Rows;
use super::{LockError, OpenResult, START_LIMIT};
use crate::event::StoreFileEvent;
use crate::thread::ProgressCounter;

/// The file, and the two threads that wait for its disk.
pub(super) struct FileBackend {
    directory: PathBuf,
    pub(super) engine: DiskThread<Engine>,
    pub(super) reader: Arc<DiskThread<()>>,
    /// What the engine has been given and has not answered yet.
    in_flight: Option<InFlight>,
    /// The first opening, while the disk hangs in it.
    opening: Option<Receiver<Result<Opened, LockError>>>,
    /// A new file was begun since the last commit that was reported.
    fresh: bool,
    pub(super) reports: Vec<StoreFileEvent>,
}

struct InFlight {
    rows: Arc<Rows>,
    answer: Receiver<Result<Done, String>>,
}

impl FileBackend {
    /// The file in `directory`, what opening it brought about, and whether it could be read.
    pub(super) fn open(directory: &Path) -> Result<(FileBackend, OpenResult, bool), LockError> {
        let progress = ProgressCounter::default();
        let no_thread = |why| LockError { why: format!("the store has no thread: {why}") };
        let engine = Engine::new(directory, progress.clone());
        let engine = DiskThread::spawn("store", progress.clone(), engine).map_err(no_thread)?;
        let reader = Arc::new(DiskThread::spawn("store-read", progress, ()).map_err(no_thread)?);
        let mut backend = FileBackend {
            directory: directory.to_owned(),
            engine,
            reader,
            in_flight: None,
            opening: None,
            fresh: false,
            reports: Vec::new(),
        };
        let opening = backend.engine.start(Engine::open);
        let Some(opened) = backend.engine.wait(&opening, START_LIMIT) else {
            backend.opening = Some(opening);
            let why = backend.hangs();
            return Ok((backend, OpenResult::Failed { why }, false));
        };
        let opened = opened?;
        backend.reports.extend(opened.done.reports);
        Ok((backend, opened.result, opened.read))
    }

    pub(super) fn hangs(&self) -> String {
        let seconds = PATIENCE.as_secs();
        format!("{}: the disk has not answered for {seconds} s", self.directory.display())
    }

    /// Where it is, for the log.
    pub(super) fn place(&self) -> std::path::Display<'_> {
        self.directory.display()
    }

    /// The outer option is none when the disk hangs, the inner one when nothing is open.
    pub(super) fn begin_read(&self, or_copy: bool) -> Option<Option<Snapshot>> {
        let transaction = self.engine.ask(PATIENCE, move |engine| engine.begin_read(or_copy))?;
        let snapshot = |(one, bytes)| Snapshot::new(one, bytes, Arc::clone(&self.reader));
        Some(transaction.map(snapshot))
    }

    /// The rows that the engine has been given and has not answered yet.
    pub(super) fn in_flight(&self) -> Option<&Rows> {
        self.in_flight.as_ref().map(|given| &*given.rows)
    }

    /// Whether there is an answer by now to what the disk did not do in time.
    pub(super) fn has_answered(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|given| !given.answer.is_empty())
            || self.opening.as_ref().is_some_and(|opening| !opening.is_empty())
    }

    /// Whether a new file was begun since this was asked last.
    pub(super) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Takes up what became of what the disk did not do in time. Rows that it refused are pending again.
    pub(super) fn settle(&mut self, patience: Duration, pending: &mut Rows) -> Result<(), String> {
        if let Some(opening) = self.opening.take() {
            match opening.recv_timeout(patience) {
                Ok(Ok(opened)) => self.on_done(opened.done),
                Ok(Err(held)) => return Err(held.why),
                Err(_) => {
                    self.opening = Some(opening);
                    return Err(self.hangs());
                }
            }
        }
        let Some(given) = self.in_flight.take() else { return Ok(()) };
        self.await_answer(given, patience, pending)
    }

    /// Gives all pending rows to the engine; `unread` as in [`Batch`].
    pub(super) fn hand_over(
        &mut self,
        pending: &mut Rows,
        limit: Option<HistoryLimit>,
        unread: bool,
    ) -> Result<(), String> {
        let rows = Arc::new(std::mem::take(pending));
        let batch = Batch { rows: Arc::clone(&rows), limit, unread };
        let answer = self.engine.start(move |engine| engine.commit(&batch));
        self.await_answer(InFlight { rows, answer }, PATIENCE, pending)
    }

    fn await_answer(
        &mut self,
        given: InFlight,
        patience: Duration,
        pending: &mut Rows,
    ) -> Result<(), String> {
        let Ok(answer) = given.answer.recv_timeout(patience) else {
            self.in_flight = Some(given);
            return Err(self.hangs());
        };
        match answer {
            Ok(done) => {
                self.on_done(done);
                Ok(())
            }
            Err(why) => {
                // Later rows of the same keys stand.
                for (key, value) in given.rows.iter() {
                    pending.entry(key.clone()).or_insert_with(|| value.clone());
                }
                Err(why)
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        self.fresh |= done.fresh;
        self.reports.extend(done.reports);
    }
}

impl Drop for FileBackend {
    fn drop(&mut self) {
        if !self.engine.end() {
            error!("{} is not closed: the disk does not answer", self.directory.display());
        }
    }
}
