//! Tells the servers how a job goes, beside it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{Report, unix};
use crate::agent::options::Errand;
use crate::agent::send::Parcel;
use crate::clock::{Wall, words};
use crate::heartbeat::datagram::DatagramKind;
use crate::thread::{Stop, StopSource};

/// How long the end of a job waits for an answer, when nobody said otherwise.
const WAIT: Duration = Duration::from_secs(10);
/// The least that is left for the second datagram of a job that failed.
const LEAST: Duration = Duration::from_secs(1);
/// What asking may take beyond that: a name that is not found at once.
const LATE: Duration = Duration::from_secs(2);

/// A thread for each server, so that none waits for another. It tells the beginning until that is
/// answered or the job has ended, and only then the end: the other way round, the job would run
/// for ever.
pub struct Telling {
    job: String,
    errand: Errand,
    wait: Duration,
    /// Its drop ends the telling of the beginning.
    began: StopSource,
    ends: BTreeMap<String, Sender<Vec<Errand>>>,
    told: Receiver<(String, Vec<String>)>,
    complaints: Vec<String>,
}

impl Telling {
    /// Begins to tell that the job called `job` began.
    pub fn start(errand: Errand, job: &str, at: Wall) -> Telling {
        let (began, stop) = Stop::channel();
        let (tell, told) = unbounded();
        let wait = errand.wait.unwrap_or(WAIT);
        let job = format!("job_monitor.{job}");
        let metrics = [("running", 1.0), ("started", unix(at))];
        let (mut ends, mut complaints) = (BTreeMap::new(), Vec::new());
        for server in &errand.servers {
            let mut start =
                Errand { servers: vec![server.clone()], wait: Some(wait), ..errand.clone() };
            start.metrics.extend(metrics.map(|(what, value)| (format!("{job}.{what}"), value)));
            let (end, ended) = bounded(1);
            let line = Line { server: server.to_string(), start, wait, ended };
            let (stop, tell) = (stop.clone(), tell.clone());
            let go = move || {
                let server = line.server.clone();
                let _ = tell.send((server, line.go(&stop)));
            };
            match thread::Builder::new().name(format!("tell-{server}")).spawn(go) {
                Ok(_) => drop(ends.insert(server.to_string(), end)),
                Err(why) => {
                    complaints.push(format!("no thread can be started for {server}: {why}"))
                }
            }
        }
        Telling { job, errand, wait, began, ends, told, complaints }
    }

    /// Tells the end, and waits until it is answered, for as long as the operator wants. What
    /// could not be told.
    pub fn end(self, report: &Report) -> Vec<String> {
        drop(self.began);
        let mut end = self.errand.clone();
        let metrics = report.metrics().map(|(what, value)| (format!("{}.{what}", self.job), value));
        end.metrics.extend(metrics);
        let message = report.message().map(|text| Errand {
            event: DatagramKind::Message,
            message: Some(text),
            metrics: BTreeMap::new(),
            interval: None,
            ..self.errand
        });
        // The message first: it is what somebody must hear.
        let errands: Vec<Errand> = message.into_iter().chain([end]).collect();
        let mut silent = self.ends;
        for end in silent.values() {
            let _ = end.send(errands.clone());
        }
        let deadline = Instant::now() + self.wait + LEAST + LATE;
        let mut complaints = self.complaints;
        while let (false, Ok((server, why))) =
            (silent.is_empty(), self.told.recv_deadline(deadline))
        {
            silent.remove(&server);
            complaints.extend(why);
        }
        complaints.extend(silent.keys().map(|server| {
            format!("{server} was not told within {}", words(self.wait + LEAST + LATE))
        }));
        complaints.dedup();
        complaints
    }
}

/// What is told to one server.
struct Line {
    server: String,
    start: Errand,
    wait: Duration,
    ended: Receiver<Vec<Errand>>,
}

impl Line {
    /// What could not be told. When the beginning could not, the end says it again.
    fn go(self, stop: &Stop) -> Vec<String> {
        let servers = self.start.servers.clone();
        if let Ok(parcel) = Parcel::pack(self.start) {
            parcel.send_until(stop);
        }
        let errands = self.ended.recv().unwrap_or_default();
        let until = Instant::now() + self.wait;
        let mut complaints = Vec::new();
        for errand in errands {
            let left = until.saturating_duration_since(Instant::now()).max(LEAST.min(self.wait));
            let errand = Errand { servers: servers.clone(), wait: Some(left), ..errand };
            match Parcel::pack(errand) {
                Ok(parcel) => complaints.extend(parcel.send().into_iter().filter_map(Result::err)),
                Err(why) => complaints.push(why),
            }
        }
        complaints.dedup();
        complaints
    }
}
