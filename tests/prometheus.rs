//! The examples for Prometheus and Grafana, against a real Prometheus that reads a real hbd.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

#[allow(dead_code, reason = "each test file uses some of it")]
mod support {
    pub mod hbd;
    pub mod http_double;
}

use support::hbd::{Hbd, TIMEOUT};

const RULES: &str = "packaging/examples/hbd.rules.yml";
const DASHBOARD: &str = include_str!("../packaging/examples/grafana.json");

/// A Prometheus with the rules, that reads this hbd.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(hbd: SocketAddr) -> Prometheus {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES);
        let config = format!(
            "global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [{}]\n\
             scrape_configs: [{{job_name: hbd, static_configs: [{{targets: [\"{hbd}\"]}}]}}]\n",
            rules.display()
        );
        std::fs::write(path("prometheus.yml"), config).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--web.listen-address={free}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .expect("it can be started: apt-get install prometheus");
        Prometheus { child, address: free, _directory: directory }
    }

    /// What it answers, as soon as it answers.
    fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        let agent: ureq::Agent = config.timeout_global(Some(TIMEOUT)).build().into();
        let end = Instant::now() + TIMEOUT;
        loop {
            let url = format!("http://{}{path}", self.address);
            match agent.get(url).query_pairs(query.iter().copied()).call() {
                Ok(mut answer) if answer.status() == 200 => {
                    let text = answer.body_mut().read_to_string().unwrap();
                    return serde_json::from_str(&text).unwrap();
                }
                // It is not ready yet, or does not like the query.
                Ok(mut answer) => {
                    let why = answer.body_mut().read_to_string().unwrap();
                    assert!(Instant::now() < end && !why.contains("bad_data"), "{query:?}: {why}");
                }
                Err(why) => assert!(Instant::now() < end, "{why}"),
            }
        }
    }

    fn query(&self, expression: &str) -> Value {
        let answer = self.get("/api/v1/query", &[("query", expression)]);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].clone()
    }

    /// The result as soon as there is one.
    fn result(&self, expression: &str) -> Value {
        let end = Instant::now() + TIMEOUT;
        loop {
            let result = self.query(expression);
            if result.as_array().is_some_and(|series| !series.is_empty()) {
                return result;
            }
            assert!(Instant::now() < end, "never a value: {expression}");
        }
    }
}

/// A daemon with a host that is silent, one that is beyond a limit, and one that is well.
fn unwell() -> (Hbd, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("heartbeat.yaml");
    let text = format!(
        "notification_channels: {{log: {{type: log}}}}\n\
         default_notification_channels: [log]\n\
         hosts: {{web1: {{watch: true}}, db1: {{watch: true}}, nas: {{watch: true}}}}\n\
         heartbeat: {{port: 0, grace: 1s}}\nreceiver: {{port: 0}}\ncalm: {{storm: off}}\n\
         agent: {{enabled: false}}\nstate_dir: {}\n",
        place.path().join("state").display()
    );
    std::fs::write(&config, text).unwrap();
    let hbd = Hbd::start(&config);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in [
        r#"{"host":"web1","interval":3600}"#,
        r#"{"host":"web1","interval":0.1,"connection":"vpn"}"#,
        r#"{"host":"db1","interval":0.1}"#,
        r#"{"host":"nas","interval":3600,"metrics":{"disk_monitor":{"root":{"percent":97.5},"home":{"percent":90}}}}"#,
        "no datagram",
    ] {
        socket.send_to(datagram.as_bytes(), hbd.udp()).unwrap();
    }
    hbd.wait_log("db1 ipv4 overdue");
    hbd.wait_log("web1 vpn overdue");
    (hbd, place)
}

/// As Grafana fills it in.
fn filled_in(expression: &str) -> String {
    expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
}

#[test]
fn every_panel_of_the_dashboard_shows_something_and_every_rule_is_evaluated() {
    let (hbd, _place) = unwell();
    let prometheus = Prometheus::start(hbd.address);
    prometheus.result("up{job=\"hbd\"} == 1");
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 15, "{}", panels.len());
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let expression = filled_in(target["expr"].as_str().unwrap());
            prometheus.result(&expression);
        }
    }
    let value = |title: &str| {
        let panel = panels.iter().find(|panel| panel["title"] == title).unwrap();
        let expression = filled_in(panel["targets"][0]["expr"].as_str().unwrap());
        prometheus.result(&expression)[0]["value"][1].clone()
    };
    assert_eq!(value("Hosts up"), "2");
    assert_eq!(value("Hosts down"), "1");
    assert_eq!(value("Critical"), "1");
    assert_eq!(value("Warnings"), "1");
    assert_eq!(value("Channels that fail"), "0");
    // Pending, or firing where a rule waits for nothing.
    for (alert, host) in
        [("HbdHostDown", "db1"), ("HbdConnectionDown", "web1"), ("HbdThresholdCritical", "nas")]
    {
        let series = prometheus.result(&format!("ALERTS{{alertname=\"{alert}\"}}"));
        assert_eq!(series.as_array().unwrap().len(), 1, "{series}");
        assert_eq!(series[0]["metric"]["host"], host, "{series}");
    }
    let rules = prometheus.get("/api/v1/rules", &[]);
    let groups = rules["data"]["groups"].as_array().unwrap();
    let rules: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 15, "{}", rules.len());
    for rule in rules {
        assert_ne!(rule["health"], "err", "{rule}");
    }
}
