//! Debian's prometheus, thrown away after the test.

use std::process::{Child, Command, Stdio};

/// A running Prometheus.
pub struct Prometheus {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that reads `exporter` five times a second, judges it by `rules` and tells
    /// `alertmanager`; both are `127.0.0.1:PORT`.
    pub fn start(exporter: &str, rules: &str, alertmanager: &str) -> Prometheus {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("rules.yml"), rules).unwrap();
        let config = format!(
            "global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [rules.yml]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: [\"{alertmanager}\"]}}]}}]}}\n\
             scrape_configs: [{{job_name: node, static_configs: [{{targets: [\"{exporter}\"]}}]}}]\n"
        );
        std::fs::write(path("prometheus.yml"), config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.level=error"])
            .stdout(Stdio::null())
            .spawn()
            .expect("it can be started: apt-get install prometheus");
        Prometheus { child, _directory: directory }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
