//! Reports the start and the end of a job to the servers, while it runs.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};

use super::{FinishedJob, unix};
use crate::agent::cli::SendArgs;
use crate::agent::send::SendCommand;
use crate::clock::{Wall, format_duration};
use crate::heartbeat::datagram::DatagramKind;
use crate::secret::Secret;
use crate::thread::{Stop, StopSource};

/// How long the end of a job waits for an answer, without `--wait`.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// The least time for the second datagram of a job that failed.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// How much longer than that a thread may take: a name that is not resolved at once.
const RESOLVE_ALLOWANCE: Duration = Duration::from_secs(2);

/// A thread for each server, so that none waits for another. It sends the start until that is
/// answered or the job has ended, and only then the end: the other way round, hbd would take the job
/// to run for ever.
pub struct Reporter {
    /// The path of the job's metrics.
    path: String,
    args: SendArgs,
    wait: Duration,
    /// Dropped at the end of the job: the start is not sent any more.
    running: StopSource,
    /// The datagrams of the end, once it has ended.
    end: Arc<OnceLock<Vec<SendArgs>>>,
    /// The servers that are told of it.
    waiting: Vec<String>,
    /// Each server that is done, with its errors.
    results: Receiver<(String, Vec<String>)>,
    errors: Vec<String>,
}

impl Reporter {
    /// Begins to report that the job called `job` was started.
    pub fn start(args: SendArgs, job: &str, started: Wall) -> Reporter {
        let nobody = SendArgs { servers: Vec::new(), ..args.clone() };
        let (args, key, mut errors) = match SendCommand::addressed(args) {
            Ok((args, key)) => (args, key, Vec::new()),
            Err(why) => (nobody, None, vec![why]),
        };
        let (running, stop) = Stop::channel();
        let (done, results) = unbounded();
        let wait = args.wait.unwrap_or(DEFAULT_WAIT);
        let path = format!("job_monitor.{job}");
        let metrics = [("running", 1.0), ("started", unix(started))];
        let (end, mut waiting) = (Arc::default(), Vec::new());
        for server in &args.servers {
            let mut start =
                SendArgs { servers: vec![server.clone()], wait: Some(wait), ..args.clone() };
            start.metrics.extend(metrics.map(|(what, value)| (format!("{path}.{what}"), value)));
            let reporter = ServerReporter { start, key: key.clone(), wait, end: Arc::clone(&end) };
            let (stop, done, name) = (stop.clone(), done.clone(), server.to_string());
            let work = move || {
                let _ = done.send((name, reporter.run(&stop)));
            };
            match thread::Builder::new().name(format!("tell-{server}")).spawn(work) {
                Ok(_) => waiting.push(server.to_string()),
                Err(why) => errors.push(format!("no thread can be started for {server}: {why}")),
            }
        }
        Reporter { path, args, wait, running, end, waiting, results, errors }
    }

    /// Reports the end, and waits until it is answered, for as long as `--wait` says. What could not
    /// be reported.
    pub fn finish(self, job: &FinishedJob) -> Vec<String> {
        let mut end = self.args.clone();
        let own = |what: &str| format!("{}.{what}", self.path);
        let metrics = job.metrics().map(|(what, value)| (own(what), value));
        end.metrics.extend(metrics.clone());
        end.texts.extend(job.text().map(|text| (own("exit_code"), text.clone())));
        // With the metrics of the job alone, which have room beside the longest text: hbd tells of both
        // in one message.
        let message = job.message().map(|text| SendArgs {
            event: DatagramKind::Message,
            message: Some(text),
            metrics: metrics.into(),
            texts: end.texts.clone(),
            interval: None,
            ..self.args.clone()
        });
        // The message first: it is the alarm. The end repeats its metrics in a beat: that is a sign of
        // life, and an older hbd takes metrics from nothing else.
        let _ = self.end.set(message.into_iter().chain([end]).collect());
        drop(self.running);
        let mut waiting = self.waiting;
        let timeout = self.wait + MIN_WAIT + RESOLVE_ALLOWANCE;
        let deadline = Instant::now() + timeout;
        let mut errors = self.errors;
        while let (false, Ok((server, why))) =
            (waiting.is_empty(), self.results.recv_deadline(deadline))
        {
            waiting.iter().position(|other| *other == server).map(|at| waiting.swap_remove(at));
            errors.extend(why);
        }
        let within = format_duration(timeout);
        errors
            .extend(waiting.iter().map(|server| format!("{server} was not told within {within}")));
        each_once(errors)
    }
}

/// Reports to one server.
struct ServerReporter {
    start: SendArgs,
    key: Option<Secret>,
    wait: Duration,
    end: Arc<OnceLock<Vec<SendArgs>>>,
}

impl ServerReporter {
    /// What could not be reported. A start that was not answered is no error: the end repeats it.
    fn run(self, stop: &Stop) -> Vec<String> {
        let servers = self.start.servers.clone();
        if let Ok(command) = SendCommand::build(self.start, self.key.as_ref()) {
            command.send_until(stop);
        }
        let _ended = stop.receiver().recv();
        let datagrams = self.end.get().cloned().unwrap_or_default();
        let deadline = Instant::now() + self.wait;
        let mut errors = Vec::new();
        for args in datagrams {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = Some(left.max(MIN_WAIT.min(self.wait)));
            let args = SendArgs { servers: servers.clone(), wait, ..args };
            match SendCommand::build(args, self.key.as_ref()) {
                Ok(command) => errors.extend(command.send().into_iter().filter_map(Result::err)),
                Err(why) => errors.push(why),
            }
        }
        each_once(errors)
    }
}

/// What is wrong with an option is wrong with each datagram to each server.
fn each_once(mut errors: Vec<String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    errors.retain(|why| known.insert(why.clone()));
    errors
}
