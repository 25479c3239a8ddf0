//! Opens the features of backups with the state that the store has of them, and starts the thread
//! that watches the plans.

use std::sync::Arc;

use super::threads::Threads;
use super::wiring;
use crate::backup::pipeline::Pipelines;
use crate::backup::plan_reporter::PlanReporter;
use crate::backup::plan_watch::{self, PendingRechecks, RecheckRequests};
use crate::backup::schedule::ZONE_READER_STACK;
use crate::btree::InsertAll;
use crate::config::Config;
use crate::event::Incident;
use crate::notify::outbox::OpenIncident;
use crate::store::{ChangeSink, Store, Table};
use crate::thread::Stop;
use crate::view::PlanView;

/// The features of backups.
pub struct Backups {
    /// What is told of plans.
    pub reporter: Arc<PlanReporter>,
    /// Alerts until they are answered.
    pub pipelines: Arc<Pipelines>,
    /// Requests that plans be looked at again, for the thread that does it.
    pub rechecks: PendingRechecks,
}

impl Backups {
    /// With what the store has; pipelines that were running go on.
    pub fn open(config: &Config, store: &Store, sink: &ChangeSink, stop: &Stop) -> Backups {
        let rows = store.read::<PlanView>(Table::Plans).into_iter().map(|(_, row)| row);
        let incidents = store.read::<OpenIncident>(Table::Troubles).into_iter();
        let open_incidents = incidents.filter_map(|(_, open)| match open.incident {
            Incident::Backup { plan } => Some(plan),
            _ => None,
        });
        let reporter = Arc::new(PlanReporter::restore(
            rows.collect(),
            &open_incidents.insert_all(),
            wiring::pipeline_settings(config),
            Arc::clone(sink),
            stop.clone(),
        ));
        let (requests, rechecks) = RecheckRequests::channel();
        let alerts = store.rows(Table::Pipelines);
        let pipelines =
            Pipelines::resume(alerts, Arc::clone(&reporter), requests, Arc::clone(sink));
        Backups { reporter, pipelines, rechecks }
    }

    /// Starts the thread that looks at plans without an alert.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_watch(&self, threads: &Threads) -> Result<(), String> {
        let (reporter, rechecks) = (Arc::clone(&self.reporter), self.rechecks.clone());
        let work = move || plan_watch::run(&reporter, &rechecks);
        threads.spawn_with_stack("backups", ZONE_READER_STACK, work)
    }
}
