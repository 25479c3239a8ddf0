//! Asks an Alertmanager for its alerts, where it cannot be told to send them.

use std::io::Read;
use std::time::Duration;

use super::alert::{self, Fetched, Wanted};
use crate::tls;

/// How long one question may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How much of an answer is read: thousands of alerts.
const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

/// What is wanted of the alerts that the Alertmanager at `base` (`http://127.0.0.1:9093`) holds.
///
/// # Errors
/// Why it could not be asked, or what is wrong with its answer.
pub fn pull(base: &str, wanted: &Wanted) -> Result<Fetched, String> {
    let base = base.trim_end_matches('/');
    let hidden = !wanted.signs.is_empty();
    let url = format!("{base}/api/v2/alerts?active=true&silenced={hidden}&inhibited={hidden}");
    let mut answer = agent(base).get(&url).call().map_err(|why| words(base, &why))?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(format!("{base} answered {status}: is there an Alertmanager?"));
    }
    let mut body = Vec::new();
    let read = answer.body_mut().as_reader().take(LONGEST_ANSWER + 1).read_to_end(&mut body);
    read.map_err(|why| format!("{base}: the answer broke off: {why}"))?;
    if body.len() as u64 > LONGEST_ANSWER {
        return Err(format!("{base}: the answer is longer than 16 MB"));
    }
    alert::fetched(&body, wanted).map_err(|why| format!("{base}: {why}: is it an Alertmanager?"))
}

fn agent(base: &str) -> ureq::Agent {
    let roots = base.starts_with("https:").then(tls::system_roots);
    tls::http_agent(TIMEOUT, roots)
}

fn words(base: &str, why: &ureq::Error) -> String {
    match why {
        ureq::Error::Timeout(_) => format!("{base}: no answer within {} s", TIMEOUT.as_secs()),
        ureq::Error::Io(why) => format!("{base}: {why}"),
        other => format!("{base}: {other}"),
    }
}
