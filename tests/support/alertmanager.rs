//! Debian's prometheus-alertmanager, thrown away after the test. Each test file uses some of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A running Alertmanager.
pub struct Alertmanager {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Alertmanager {
    /// Starts one that tells nobody, on a port that the system chooses, and waits until it says
    /// which.
    pub fn start() -> Alertmanager {
        Alertmanager::start_at("127.0.0.1:0")
    }

    /// Starts one that tells nobody, at this address.
    pub fn start_at(address: &str) -> Alertmanager {
        Alertmanager::start_with(
            address,
            "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
        )
    }

    /// Starts one that posts to `url` at once, again after a second when something changed, and
    /// every `repeat` in any case.
    pub fn sending_to(url: &str, repeat: &str) -> Alertmanager {
        let text = format!(
            "route: {{receiver: hbd, group_wait: 0s, group_interval: 1s, repeat_interval: {repeat}}}\n\
             receivers: [{{name: hbd, webhook_configs: [{{url: \"{url}\"}}]}}]\n"
        );
        Alertmanager::start_with("127.0.0.1:0", &text)
    }

    /// Starts one that posts alerts that came together in one body, with this setting of the webhook.
    pub fn sending_groups_to(url: &str, setting: &str) -> Alertmanager {
        let text = format!(
            "route: {{receiver: hbd, group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers: [{{name: hbd, webhook_configs: [{{url: \"{url}\", {setting}}}]}}]\n"
        );
        Alertmanager::start_with("127.0.0.1:0", &text)
    }

    fn start_with(address: &str, config: &str) -> Alertmanager {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("alertmanager.yml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it can be started: apt-get install prometheus-alertmanager");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| listening(&line))
            .expect("prometheus-alertmanager says where it listens");
        // Whoever stops reading lets it block.
        std::thread::spawn(move || lines.for_each(drop));
        Alertmanager { child, address, _directory: directory }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets alerts fire, by name and `id`.
    pub fn fire(&self, alerts: &[(&str, &str)]) {
        let alert = |(name, id): &(&str, &str)| {
            json!({
                "labels": {"alertname": name, "id": id},
                "annotations": {"summary": "It failed"},
            })
        };
        self.post("alerts", alerts.iter().map(alert).collect());
    }

    /// Lets an alert about a plan fire since a time (RFC 3339), or ends it.
    pub fn tell(&self, name: &str, id: &str, since: &str, until: Option<&str>) {
        let mut alert = json!({
            "labels": {"alertname": name, "id": id},
            "annotations": {"summary": "It failed"},
            "startsAt": since,
        });
        if let Some(until) = until {
            alert["endsAt"] = json!(until);
        }
        self.post("alerts", json!([alert]));
    }

    /// How many webhooks it has sent.
    pub fn sent(&self) -> u64 {
        let mut answer = ureq::get(format!("{}/metrics", self.url())).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let name = "alertmanager_notifications_total{integration=\"webhook\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
    }

    /// Silences the alerts of an `id`.
    pub fn silence(&self, id: &str) {
        self.post(
            "silences",
            json!({
                "matchers": [{"name": "id", "value": id, "isRegex": false}],
                "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2090-01-01T00:00:00Z",
                "createdBy": "test", "comment": "test",
            }),
        );
    }

    fn post(&self, what: &str, body: Value) {
        let url = format!("{}/api/v2/{what}", self.url());
        let sent =
            ureq::post(&url).header("content-type", "application/json").send(body.to_string());
        assert_eq!(sent.unwrap().status().as_u16(), 200);
    }
}

/// The address in `msg="Listening on" address=127.0.0.1:34567`.
fn listening(line: &str) -> Option<String> {
    let rest = line.split_once("address=")?.1;
    let address = rest.split_whitespace().next()?.trim_matches('"');
    (line.contains("istening") && !address.ends_with(":0")).then(|| address.to_owned())
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
