//! A headless Chromium, driven over WebDriver (<https://www.w3.org/TR/webdriver2/>) and thrown
//! away after the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a fact is waited for.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The checker of accessibility, as npm knows it.
const AXE: &str = "axe-core@4.14.1";

/// One browser with one tab.
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium, too.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    pub fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is there: the package chromium-driver");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("chromedriver says where it listens");
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        let agent: ureq::Agent = config.timeout_global(Some(TIMEOUT)).build().into();
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--lang=en-GB",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Browser { driver, session: base, agent, _profile: profile };
        let made = browser.call("", wanted);
        let id = made["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    fn call(&self, path: &str, body: Value) -> Value {
        let sent = self
            .agent
            .post(format!("{}{path}", self.session))
            .content_type("application/json")
            .send(body.to_string());
        let mut answer = sent.unwrap_or_else(|why| panic!("{path}: {why}"));
        let text = answer.body_mut().with_config().limit(1 << 26).read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{path}: {value}");
        value
    }

    /// Goes to a page and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.call("/url", json!({ "url": url }));
    }

    /// Runs a function body in the page.
    pub fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", json!({"script": script, "args": []}))
    }

    /// The value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.run(&format!("return {expression}"))
    }

    /// Waits until an expression holds.
    pub fn wait(&self, expression: &str) {
        self.wait_for(expression, TIMEOUT);
    }

    /// The same, and how long it took.
    pub fn wait_for(&self, expression: &str, patience: Duration) -> Duration {
        let begun = Instant::now();
        while self.value(expression) != json!(true) {
            let waited = begun.elapsed();
            assert!(
                waited < patience,
                "never: {expression}; {}",
                self.value("document.body.innerText")
            );
        }
        begun.elapsed()
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.call("/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    /// The size of the window, and which colours are preferred.
    pub fn screen(&self, width: u32, height: u32, dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", scheme);
    }

    /// Whether scripts of pages run.
    pub fn scripts(&self, run: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": !run }));
    }

    /// Presses keys, as a person does: `\u{e004}` is Tab, `\u{e007}` is Enter.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})))
            .collect();
        self.call("/actions", json!({"actions": [{"type": "key", "id": "k", "actions": actions}]}));
    }

    /// What was written to the console since it was last asked for.
    pub fn console(&self) -> Vec<String> {
        let lines = self.call("/se/log", json!({"type": "browser"}));
        lines.as_array().unwrap().iter().map(|line| line["message"].to_string()).collect()
    }

    /// What the checker of accessibility has against the page; of a long table it sees the
    /// beginning, the other rows are alike.
    pub fn axe(&self) -> Vec<String> {
        self.run(&axe());
        let script = "const done = arguments[arguments.length - 1];
            axe.run({exclude: ['.hosts tbody tr:nth-child(n+15)']}, {resultTypes: ['violations']})
               .then(found => done(found.violations), why => done(String(why)))";
        let found = self.call("/execute/async", json!({"script": script, "args": []}));
        let violations = found.as_array().unwrap_or_else(|| panic!("{found}"));
        let words = violations.iter().map(|violation| {
            let node = &violation["nodes"][0];
            format!(
                "{}: {}: {} {}",
                violation["id"], violation["help"], node["html"], node["any"][0]["message"]
            )
        });
        words.collect()
    }

    /// The whole page as a picture, below `target/page`.
    pub fn picture(&self, name: &str) {
        let height =
            self.value("document.documentElement.scrollHeight").as_u64().unwrap().min(6000);
        let width = self.value("innerWidth").as_u64().unwrap();
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let shot = json!({"captureBeyondViewport": true, "clip": clip});
        let shot = self.devtools("Page.captureScreenshot", shot);
        let folder = target().join("page");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), base64(shot["data"].as_str().unwrap()))
            .unwrap();
    }
}

fn target() -> PathBuf {
    // target/debug/hbd
    Path::new(env!("CARGO_BIN_EXE_hbd")).ancestors().nth(2).unwrap().to_owned()
}

/// The script of the checker, fetched once.
fn axe() -> String {
    static ONCE: Mutex<()> = Mutex::new(());
    let _alone = ONCE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = target().join(AXE);
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let npm = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--prefix", ".", AXE])
            .current_dir(&folder)
            .output()
            .expect("npm is there: the package npm");
        assert!(npm.status.success(), "{}", String::from_utf8_lossy(&npm.stderr));
    }
    std::fs::read_to_string(&script).unwrap()
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |letter| LETTERS.iter().position(|known| *known == letter).unwrap() as u32;
    let letters: Vec<u32> = text.trim_end_matches('=').bytes().map(value).collect();
    let mut bytes = Vec::new();
    for four in letters.chunks(4) {
        let bits = four.iter().fold(0, |bits, value| bits << 6 | value) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}
