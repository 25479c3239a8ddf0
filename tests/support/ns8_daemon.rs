//! The backup side of `hbd` with a time that is passed in: its own deciders, put together as the
//! pipelines and the watch put them together.

use std::collections::{BTreeMap, BTreeSet};

use heartbeat::backup::alert::{self, Alert, AlertNames};
use heartbeat::backup::analysis::PlansReading;
use heartbeat::backup::correlator::RedisState;
use heartbeat::backup::look_schedule::{LookPolicy, LookSchedule, RecheckReason, SeenPlan};
use heartbeat::backup::plan_query::{PlanQuery, alerts_about};
use heartbeat::backup::plan_records::{LookedAt, PlanRecords};
use heartbeat::backup::plan_reporter::{Look, cause_of, with_answers};
use heartbeat::backup::plan_tracker::{EndReason, LookCause};
use heartbeat::backup::queue::{AlertBatch, AlertQueue, BatchId, Enqueued};
use heartbeat::backup::report::ALL_PLANS;
use heartbeat::backup::schedule::Zones;
use heartbeat::backup::settings::{CorrelatorSettings, TellingSettings};
use heartbeat::clock::{Mono, Now, Wall};
use heartbeat::event::{Event, Incident};
use heartbeat::store::change::Change;
use heartbeat::store::{Table, Write};

use super::ns8_world::{MINUTE, World};

/// What is on disk.
#[derive(Default)]
pub struct Disk {
    rows: BTreeMap<(Table, String), Vec<u8>>,
    open: BTreeSet<String>,
}

impl Disk {
    fn write(&mut self, writes: Vec<Write>) {
        for Write { table, key, value } in writes {
            match value {
                Some(value) => drop(self.rows.insert((table, key), value)),
                None => drop(self.rows.remove(&(table, key))),
            }
        }
    }

    fn table(&self, wanted: Table) -> Vec<(String, Vec<u8>)> {
        let rows = self.rows.iter().filter(|((table, _), _)| *table == wanted);
        rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    fn change(&mut self, change: Change) -> Vec<Event> {
        self.write(change.writes);
        let plan = |incident: &Incident| match incident {
            Incident::Backup { plan } => Some(plan.clone()),
            _ => None,
        };
        for event in &change.events {
            let incident = event.incident();
            self.open.extend(incident.opens().and_then(plan));
            for plan in incident.closes().iter().filter_map(plan) {
                self.open.remove(&plan);
            }
        }
        for plan in change.closed_silently.iter().filter_map(plan) {
            self.open.remove(&plan);
        }
        change.events
    }
}

pub struct Daemon {
    records: PlanRecords,
    looks: LookSchedule,
    queue: AlertQueue,
    running: Vec<(BatchId, Mono)>,
    /// What the poller saw last.
    firing: Vec<Alert>,
    policy: LookPolicy,
    settings: CorrelatorSettings,
    telling: TellingSettings,
    names: AlertNames,
    zones: Zones,
}

impl Daemon {
    pub fn start(disk: &Disk, watch: bool, zones: &Zones, now: Now) -> Daemon {
        let rows = disk.table(Table::Plans);
        let rows =
            rows.iter().map(|(_, row)| serde_json::from_slice(row).expect("a row of a plan"));
        let records = PlanRecords::restore(rows.collect(), &disk.open, now.wall);
        let settings = CorrelatorSettings { watch_plans: watch, ..CorrelatorSettings::default() };
        let policy = LookPolicy { recheck: settings.recheck, watch };
        let names = AlertNames {
            backup: ["BackupFailed", "NsBackupMissing"].map(str::to_owned).into(),
            heartbeat: Vec::new(),
            plan_labels: settings.backup_id_labels.clone(),
        };
        Daemon {
            looks: LookSchedule::new(&records.open_plans(), policy, now.mono),
            records,
            queue: AlertQueue::restore(disk.table(Table::Pipelines)),
            running: Vec::new(),
            firing: Vec::new(),
            policy,
            settings,
            telling: TellingSettings::default(),
            names,
            zones: zones.clone(),
        }
    }

    pub fn webhook(&mut self, body: &str, disk: &mut Disk, now: Now) {
        let alerts = alert::from_webhook(body.as_bytes(), &self.names, now.wall).expect("a body");
        self.resolve(&alerts.backup_resolved, disk, now);
        self.enqueue(alerts.backup, disk, now);
    }

    pub fn poll(&mut self, body: &str, disk: &mut Disk, now: Now) {
        let alerts =
            alert::from_api(body.as_bytes(), &self.names, now.wall).expect("a body").backup;
        let fires = |alert: &Alert| alerts.iter().any(|one| one.instance() == alert.instance());
        let mut ended = std::mem::replace(&mut self.firing, alerts.clone());
        ended.retain(|alert| !fires(alert));
        self.resolve(&ended, disk, now);
        self.enqueue(alerts, disk, now);
    }

    fn resolve(&mut self, alerts: &[Alert], disk: &mut Disk, now: Now) {
        let labels = &self.settings.backup_id_labels;
        for alert in alerts {
            let plan = alert.plan_id(labels).map(str::to_owned);
            self.looks.request(plan, RecheckReason::AlertEnded, self.policy, now.mono);
        }
        disk.write(self.queue.resolve(alerts));
    }

    fn enqueue(&mut self, alerts: Vec<Alert>, disk: &mut Disk, now: Now) {
        let labels = &self.settings.backup_id_labels;
        let Enqueued::Taken(taken) = self.queue.enqueue(alerts, labels, now) else {
            panic!("the queue is full");
        };
        disk.write(taken.writes);
        for plan in taken.repeated {
            self.looks.request(plan, RecheckReason::AlertRepeated, self.policy, now.mono);
        }
    }

    /// What the threads do until now.
    pub fn work(&mut self, world: &World, disk: &mut Disk, now: Now) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((id, batch)) = self.queue.start() {
            let passed = now.wall.since(batch.accepted.wall);
            self.running.push((id, now.mono + self.settings.wait.saturating_sub(passed)));
        }
        let is_due = |(_, at): &(BatchId, Mono)| *at <= now.mono;
        let (due, later) = self.running.drain(..).partition(is_due);
        self.running = later;
        for (id, _) in due {
            events.extend(self.answer(id, world, disk, now));
        }
        events.extend(self.watch(world, disk, now));
        events
    }

    fn answer(&mut self, id: BatchId, world: &World, disk: &mut Disk, now: Now) -> Vec<Event> {
        let Some((AlertBatch { alerts, accepted, told, .. }, write)) = self.queue.begin_attempt(id)
        else {
            return Vec::new();
        };
        disk.write(vec![write]);
        let query = PlanQuery::from_alerts(&alerts, &self.settings.backup_id_labels, accepted.wall);
        let reading = self.read(&query, world, now);
        let accepted = Some(accepted.wall);
        let look = Look {
            query: &query,
            cause: LookCause::Alert,
            alerts: &alerts,
            accepted,
            answered: &told,
        };
        let events = self.tell(look, reading, disk, now.wall);
        disk.write(self.queue.complete(id, now.wall));
        events
    }

    fn watch(&mut self, world: &World, disk: &mut Disk, now: Now) -> Vec<Event> {
        let open = self.records.open_plans();
        let known = self.records.known_plans();
        let Some(query) = self.looks.due(&open, &known, self.policy, now) else {
            return Vec::new();
        };
        let reading = self.read(&query, world, now);
        let answered = BTreeSet::new();
        if reading.is_unanswered {
            if !self.looks.on_silence(query, self.policy, now.mono) {
                return Vec::new();
            }
            let query = PlanQuery::for_all();
            let look = Look {
                query: &query,
                cause: LookCause::Alert,
                alerts: &[],
                accepted: None,
                answered: &answered,
            };
            return self.tell(look, PlansReading::unknown(&query, "refused"), disk, now.wall);
        }
        let seen: Vec<SeenPlan> = reading
            .reports
            .iter()
            .map(|report| SeenPlan::of(&report.plan, &self.zones, now.wall))
            .collect();
        self.looks.on_answer(&query, &seen, self.policy, now);
        let look = Look {
            query: &query,
            cause: LookCause::Recheck,
            alerts: &[],
            accepted: None,
            answered: &answered,
        };
        self.tell(look, reading, disk, now.wall)
    }

    fn read(&self, query: &PlanQuery, world: &World, now: Now) -> PlansReading {
        if !world.redis_answers() {
            return PlansReading::of(Err("refused".into()), query, now.mono);
        }
        let (mut snapshot, recent) = (world.snapshot(&self.zones), self.settings.recent);
        let query = &PlanQuery { last_looks: Some(self.records.last_looks()), ..query.clone() };
        snapshot.last_looks.clone_from(&query.last_looks);
        let mut ids: BTreeSet<String> = query.plans.keys().cloned().collect();
        if query.all {
            ids.extend(snapshot.listed_plans(query, recent, now.wall));
        }
        let plan = |id: &String| snapshot.plan(id, query.alert_time(id), recent, now.wall);
        let plans = ids.iter().map(plan).collect();
        PlansReading::of(Ok(RedisState { plans, ..RedisState::default() }), query, now.mono)
    }

    fn tell(
        &mut self,
        look: Look,
        reading: PlansReading,
        disk: &mut Disk,
        now: Wall,
    ) -> Vec<Event> {
        let PlansReading { reports, complete, read_at, .. } = reading;
        let (reports, asked) = with_answers(reports, look);
        let mut events = Vec::new();
        if look.query.all && complete && reports.iter().all(|one| one.plan.id != ALL_PLANS) {
            let ended =
                self.records.end(ALL_PLANS, EndReason::RedisAnswers, self.zones.local(), now);
            events.extend(ended.into_iter().flat_map(|change| disk.change(change)));
        }
        for report in reports.iter().filter(|one| !look.answered.contains(&one.plan.id)) {
            let alerts =
                alerts_about(&report.plan.id, look.alerts, &self.settings.backup_id_labels);
            let cause = cause_of(report, &asked, look.cause);
            let looked_at = LookedAt { report, cause, complete, alerts: &alerts };
            let (accepted, telling) = (look.accepted, &self.telling);
            let change = self.records.take_in(looked_at, accepted, read_at, telling, now);
            events.extend(disk.change(change));
        }
        events
    }
}

/// What both clocks of node 1 show.
pub fn now(world: &World) -> Now {
    Now { mono: Mono(world.minute * MINUTE), wall: Wall(world.wall(1)) }
}
