//! Debian's prometheus-alertmanager, thrown away after the test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A running Alertmanager that tells nobody.
pub struct Alertmanager {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Alertmanager {
    /// Starts one on a port that the system chooses, and waits until it says which.
    pub fn start() -> Alertmanager {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("alertmanager.yml");
        std::fs::write(&file, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
        let mut child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", directory.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="])
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
