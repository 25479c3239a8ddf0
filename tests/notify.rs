//! Messages that are sent at once, and the history: hbd driven as an operator drives it, against
//! servers that keep the providers' contracts.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mailparse::{MailHeaderMap, parse_mail};
use serde_json::{Value, json};
use support::mattermost::{MattermostDouble, Mode};
use support::pushover::PushoverDouble;
use support::signal::SignalDouble;
use support::smtp::{Script, Server};

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod http_double;
    pub mod mattermost;
    pub mod pushover;
    pub mod signal;
    pub mod smtp;
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// What must never be printed.
const SECRETS: [&str; 3] =
    [MattermostDouble::TOKEN, PushoverDouble::TOKEN, "the-token-of-the-receiver"];

/// One channel of each type, and a directory.
struct Place {
    directory: tempfile::TempDir,
    chat: MattermostDouble,
    push: PushoverDouble,
    signal: SignalDouble,
    mail: Server,
}

impl Place {
    fn new() -> Place {
        Place::with_mail(Script::default())
    }

    fn with_mail(script: Script) -> Place {
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
            chat: MattermostDouble::start(),
            push: PushoverDouble::start(),
            signal: SignalDouble::start(),
            mail: script.start(),
        };
        place.configure();
        place
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("heartbeat.yaml")
    }

    fn configure(&self) {
        let text = format!(
            r#"
state_dir: {state}
heartbeat: {{port: 0}}
receiver: {{port: 0, token: the-token-of-the-receiver}}
notification_channels:
  chat: {{type: mattermost, host: "{chat}", token: {token}, channel: ops, min_level: critical}}
  mail:
    type: email
    recipients: [ann@example.com, bob@example.com, cy@example.com]
    sender: hbd@example.com
    smtp_server: 127.0.0.1
    smtp_port: {port}
    tls: none
  push: {{type: pushover, token: {push_token}, user: {user}, api_url: "{push}"}}
  phone: {{type: signal, cli_path: "{cli}", user: "+12025550100", recipient: "+12025550101"}}
  log: {{type: log}}
default_notification_channels: [log]
hosts:
  web1: {{watch: true, notification_channels: [chat, push]}}
  mute: {{notification_channels: []}}
"#,
            state = self.directory.path().join("state").display(),
            chat = self.chat.url,
            token = self.chat.token,
            port = self.mail.port,
            push_token = PushoverDouble::TOKEN,
            user = PushoverDouble::USER,
            push = self.push.url,
            cli = self.signal.cli_path.display(),
        );
        fs::write(self.file(), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
        command.args(&arguments[..1]).arg("--config").arg(self.file()).args(&arguments[1..]);
        command.env_remove("HBD_LOG").env_remove("JOURNAL_STREAM").env_remove("HBD_TOKEN");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn hbd(&self, arguments: &[&str]) -> Said {
        Said::from(self.command(arguments).output().unwrap())
    }

    /// The texts that arrived last, as each channel has them: chat, push, phone, mail.
    fn last_texts(&self) -> [String; 4] {
        let chat = self.chat.received().pop().map(|post| post.text);
        let push = self.push.received().pop().map(|fields| fields["message"].clone());
        let phone = self.signal.received().pop().map(|(text, _)| text);
        let mails: Vec<String> = (0..3).map(|_| self.mail.session()).map(mail_text).collect();
        [chat, push, phone]
            .map(Option::unwrap_or_default)
            .into_iter()
            .chain(mails.last().cloned())
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    fn assert_contracts(&self) {
        assert_eq!(self.chat.violations(), [""; 0]);
        assert_eq!(self.push.violations(), [""; 0]);
        assert_eq!(self.signal.violations(), [""; 0]);
    }
}

fn mail_text(session: support::smtp::Session) -> String {
    let mail = session.mails.first().expect("a mail");
    let mail = parse_mail(mail).unwrap();
    mail.subparts[0].get_body().unwrap()
}

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    log: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let said = Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            log: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in SECRETS {
            assert!(!said.out.contains(secret) && !said.log.contains(secret), "{said:?}");
        }
        said
    }
}

impl Said {
    /// The lines of the output by what they begin with, without the times.
    fn line(&self, name: &str) -> &str {
        let mut lines = self.out.lines();
        lines
            .find(|line| line.starts_with(&format!("{name}: ")))
            .unwrap_or_else(|| panic!("{self:?}"))
    }

    /// The log's lines without time and level.
    fn logged(&self) -> Vec<&str> {
        let mut lines: Vec<_> = self.log.lines().map(|line| &line[31..]).collect();
        lines.sort_unstable();
        lines
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

const ALL: [&str; 10] = [
    "--channel",
    "chat",
    "--channel",
    "mail",
    "--channel",
    "push",
    "--channel",
    "phone",
    "--channel",
    "log",
];

#[test]
fn a_message_arrives_on_every_channel_at_once() {
    let place = Place::new();
    let arguments = [&["notify"], &ALL[..], &["Grüße: disk full"]].concat();
    let said = place.hbd(&arguments);
    assert_eq!(said.code, 0, "{said:?}");
    for name in ["chat", "mail", "push", "phone", "log"] {
        assert!(said.line(name).starts_with(&format!("{name}: sent in ")), "{said:?}");
        let sent = format!("Sent notification to {name}: Grüße: disk full (");
        let is_it = |line: &&&str| line.starts_with(&sent) && line.ends_with("s)");
        assert_eq!(said.logged().iter().filter(is_it).count(), 1, "{said:?}");
    }
    let texts = place.last_texts();
    let event = texts[2].lines().last().unwrap().strip_prefix("event ").unwrap();
    for text in &texts {
        assert!(text.contains("Grüße: disk full") && text.contains(event), "{text}");
    }
    assert_eq!(place.push.received()[0]["priority"], "0", "a phone rings");
    assert!(said.logged().contains(&&*format!("Grüße: disk full [{event}]")), "{said:?}");
    place.assert_contracts();
}

#[test]
fn a_host_is_told_about_through_its_own_channels_whatever_their_level() {
    let place = Place::new();
    let said = place.hbd(&["notify", "--host", "web1", "--level", "info", "--json", "hello"]);
    assert_eq!((said.code, said.json()), (0, json!({"chat": true, "push": true})));
    assert_eq!(said.out, "{\"chat\":true,\"push\":true}\n");
    let post = &place.chat.received()[0];
    assert!(post.text.contains("host: `web1`") && post.text.contains("_info, event"), "{post:?}");
    assert_eq!(place.push.received()[0]["title"], "INFO: host web1");
}

#[test]
fn an_unknown_host_is_told_about_through_the_default_channels() {
    let place = Place::new();
    let said = place.hbd(&["notify", "--host", "new-1", "--json", "hello"]);
    assert_eq!((said.code, said.json()), (0, json!({"log": true})));
    assert!(said.log.contains("no host is called \"new-1\" here"), "{said:?}");
    let said = place.hbd(&["notify", "--default", "--json", "hello"]);
    assert_eq!((said.code, said.json()), (0, json!({"log": true})));
}

#[test]
fn who_has_no_channel_is_said_and_is_a_failure() {
    let place = Place::new();
    let said = place.hbd(&["notify", "--host", "mute", "hello"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert_eq!(said.log, "nobody was told: there is no channel for host \"mute\"\n");
    assert_eq!(place.hbd(&["notify", "--host", "mute", "--json", "hello"]).json(), json!({}));
}

#[test]
fn failures_are_told_by_channel_and_leave_the_others_alone() {
    let place = Place::with_mail(Script::default().says("RCPT TO:<bob", "550 5.1.1 no such user"));
    place.chat.set_mode(Mode::Status(403, format!("{{\"message\":\"no {}\"}}", place.chat.token)));
    place.push.set_mode(Mode::Status(500, "down".into()));
    place.signal.answer("echo 'User +12025550100 is not registered' >&2; exit 1");
    let arguments = [&["notify"], &ALL[..], &["--channel", "pusj", "hello"]].concat();
    let said = place.hbd(&arguments);
    assert_eq!(said.code, 1, "{said:?}");
    for (name, why) in [
        ("chat", "403"),
        ("mail", "1 of 3 recipients not reached: bob@example.com: "),
        ("push", "500"),
        ("phone", "registered"),
        ("pusj", "no channel is called \"pusj\", did you mean \"push\"?"),
    ] {
        let line = said.line(name);
        assert!(line.starts_with(&format!("{name}: not sent, after ")), "{line}");
        assert!(line.contains(why), "{line}");
        let (_, why) = line.split_once("not sent, after ").unwrap().1.split_once(": ").unwrap();
        let logged = format!("Failed to send notification to {name}: {why}");
        assert!(said.logged().contains(&logged.as_str()), "{logged}: {said:?}");
    }
    assert!(said.line("log").starts_with("log: sent in "));
    let mails = (0..3).filter(|_| !place.mail.session().mails.is_empty()).count();
    assert_eq!(mails, 2, "the other two have it");
    let arguments = [&["notify", "--json"], &ALL[..], &["hello"]].concat();
    let expected =
        json!({"chat": false, "log": true, "mail": false, "phone": false, "push": false});
    assert_eq!(place.hbd(&arguments).json(), expected);
}

#[test]
fn a_refused_form_is_tried_once_more_short_and_plain() {
    let place = Place::with_mail(Script::default().says(".", "554 5.6.0 too pretty"));
    let said = place.hbd(&["notify", "--channel", "mail", "hello"]);
    assert_eq!(said.code, 1, "{said:?}");
    let sessions: Vec<_> = (0..6).map(|_| place.mail.session()).collect();
    let plain = |session: &support::smtp::Session| {
        let mail = parse_mail(&session.mails[0]).unwrap();
        mail.headers.get_first_value("Content-Type").unwrap().starts_with("text/plain")
    };
    let forms: Vec<bool> = sessions.iter().map(plain).collect();
    assert_eq!(forms, [false, true, false, true, false, true]);
}

#[test]
fn a_channel_that_hangs_holds_up_nobody_else() {
    let place = Place::new();
    let gate = place.directory.path().join("gate");
    place.signal.answer(&format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display()));
    let arguments = [&["notify"], &ALL[..], &["hello"]].concat();
    let mut child = place.command(&arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut first: Vec<_> = lines.by_ref().take(4).collect();
    first.sort();
    let names: Vec<_> = first.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(names, ["chat", "log", "mail", "push"]);
    assert!(child.try_wait().unwrap().is_none(), "it waits for the last");
    fs::write(&gate, "").unwrap();
    assert!(lines.next().unwrap().starts_with("phone: sent in "));
    assert!(child.wait().unwrap().success());
}

#[test]
fn hostile_texts_arrive_right_on_every_channel() {
    let place = Place::new();
    let long = "ü".repeat(5000);
    for (text, shown) in [
        ("Umlauts äöüß, emoji 👩‍👩‍👧 😀", "Umlauts äöüß, emoji 👩‍👩‍👧 😀"),
        ("-rf --help", "-rf --help"),
        ("a\r\nBcc: victim@example.com", "Bcc: victim@example.com"),
        ("@channel @here <!channel>", "@channel @here <!channel>"),
        ("abc\u{202e}txt.exe\u{2066}", "abctxt.exe"),
        ("\u{1b}[31mred\u{7}", "[31mred"),
        ("\u{9b}pay\u{200b}pal\u{ad}\u{e0041}\u{feff}.com", "paypal.com"),
        ("\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{2067}7\u{2069}", "\u{5e9}\u{5dc}\u{5d5}\u{5dd} 7"),
        ("\u{646}\u{647}\u{200c}\u{647}\u{627}", "\u{646}\u{647}\u{200c}\u{647}\u{627}"),
        ("", "(no details)"),
        (" \t ", "(no details)"),
        (&long, &long[..200]),
    ] {
        let arguments = [&["notify"], &ALL[..8], &["--", text]].concat();
        let said = place.hbd(&arguments);
        assert_eq!(said.code, 0, "{text}: {said:?}");
        for arrived in place.last_texts() {
            assert!(arrived.replace("\r\n", "\n").contains(shown), "{text:?} became {arrived:?}");
        }
        assert!(said.out.lines().count() == 4, "{said:?}");
    }
    place.assert_contracts();
}

#[test]
fn signal_cli_was_given_the_secrets_and_the_open_files_of_hbd() {
    let place = Place::new();
    let text = fs::read_to_string(place.file()).unwrap();
    // One by a name that signal-cli would be given; and one that no channel of this run needs.
    let text = text.replace(&place.chat.token, r#""${JAVA_OPTS}""#);
    let text = text.replace(PushoverDouble::TOKEN, r#""${PUSHOVER_TOKEN}""#);
    fs::write(place.file(), text).unwrap();
    let seen = place.directory.path().join("seen");
    place.signal.answer(&format!("{{ env; pwd; ls -l /proc/self/fd; }} >{}", seen.display()));
    let start = "exec 9</dev/zero; exec \"$0\" notify --config \"$1\" --channel phone hello";
    let output = Command::new("sh")
        .args(["-c", start, env!("CARGO_BIN_EXE_hbd")])
        .arg(place.file())
        .env("JAVA_OPTS", &place.chat.token)
        .env("PUSHOVER_TOKEN", PushoverDouble::TOKEN)
        .envs([("JAVA_HOME", "/opt/java"), ("HBD_TOKEN", "hunter22")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let seen = fs::read_to_string(seen).unwrap();
    for given in ["PATH=", "LC_ALL=C.UTF-8", "JAVA_HOME=/opt/java"] {
        assert!(seen.contains(given), "{given}: {seen}");
    }
    assert!(seen.lines().any(|line| line == "/"), "{seen}");
    for kept in [&place.chat.token, PushoverDouble::TOKEN, "hunter22", "/dev/zero"] {
        assert!(!seen.contains(kept), "{kept}: {seen}");
    }
    place.assert_contracts();
}

#[test]
fn a_message_may_come_from_standard_input() {
    let place = Place::new();
    let mut child = place
        .command(&["notify", "--channel", "push", "--json", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all("from a pipe: ä\n".as_bytes()).unwrap();
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.json()), (0, json!({"push": true})));
    let message = &place.push.received()[0]["message"];
    assert!(message.starts_with("from a pipe: ä\nevent "), "{message}");
}

#[test]
fn wrong_arguments_and_configurations_have_their_own_exit_codes() {
    let place = Place::new();
    for arguments in [
        &["notify", "hello"][..],
        &["notify", "--default"],
        &["notify", "--default", "--level", "loud", "x"],
        &["notify", "--default", "-x"],
        &["log", "--limit", "0"],
        &["log", "a", "b"],
    ] {
        assert_eq!(place.hbd(arguments).code, 2, "{arguments:?}");
    }
    fs::write(place.file(), "hots: 1\nreceiver: {port: 1}\n").unwrap();
    let said = place.hbd(&["notify", "--default", "x"]);
    assert!(said.code == 78 && said.log.contains("did you mean \"hosts\"?"), "{said:?}");
    // The daemon may run all the same, with what it had.
    let said = place.hbd(&["log"]);
    assert!(said.code == 3 && said.log.contains("has 1 error: "), "{said:?}");
}

/// A running daemon.
struct Daemon {
    child: Child,
    http: String,
    udp: String,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    fn start(place: &Place) -> Daemon {
        let mut child = place.command(&["run"]).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let ready = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "{}", log.lock().unwrap());
            log.lock().unwrap().push_str(&line);
            if line.contains(" is ready: ") {
                break line;
            }
        };
        let after = |word: &str| {
            let rest = ready.split_once(word).unwrap().1;
            rest.split(',').next().unwrap().to_owned()
        };
        let (udp, http) = (after("heartbeats on UDP "), format!("http://{}", after("HTTP on ")));
        let copy = Arc::clone(&log);
        thread::spawn(move || follow(lines, &copy));
        Daemon { child, http, udp, log }
    }

    fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build();
        let agent = ureq::Agent::from(config);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.http))
            .header("authorization", format!("Bearer {}", SECRETS[2]))
            .header("content-type", "application/json");
        let body = body.map_or(String::new(), |body| body.to_string());
        let mut response = agent.run(request.body(body).unwrap()).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        for secret in SECRETS {
            assert!(!text.contains(secret), "{text}");
        }
        (response.status().as_u16(), serde_json::from_str(&text).unwrap())
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call("GET", path, None);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn notify(&self, body: Value) -> (u16, Value) {
        self.call("POST", "/api/v1/notify", Some(body))
    }

    /// Something that a host has to say, over UDP.
    fn hear(&self, text: &str) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let beat = json!({"host": "web1", "event": "message", "message": text});
        socket.send_to(beat.to_string().as_bytes(), &self.udp).unwrap();
    }

    fn history(&self, query: &str) -> Vec<Value> {
        self.get(&format!("/api/v1/notifications{query}"))["notifications"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// The history, as soon as it is as it should be.
    fn wait_for(&self, query: &str, fact: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let history = self.history(query);
            if fact(&history) {
                return history;
            }
            assert!(Instant::now() < end, "{history:#?}\n{}", self.log.lock().unwrap());
            thread::yield_now();
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn stop(mut self, name: &str) -> String {
        self.signal(name);
        self.child.wait().unwrap();
        self.log.lock().unwrap().clone()
    }

    fn log_command(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
        command.args(["log", "--url", &self.http]).args(arguments).env("HBD_TOKEN", SECRETS[2]);
        Said::from(command.output().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(mut lines: BufReader<ChildStderr>, log: &Mutex<String>) {
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
        log.lock().unwrap().push_str(&line);
        line.clear();
    }
}

fn titles(history: &[Value]) -> Vec<&str> {
    history.iter().map(|one| one["title"].as_str().unwrap()).collect()
}

#[test]
fn the_daemon_sends_at_once_and_remembers_it() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    place.push.set_mode(Mode::Status(500, "down".into()));
    let (status, answer) =
        daemon.notify(json!({"host": "web1", "message": "first", "level": "critical"}));
    assert_eq!(status, 200);
    assert_eq!(answer["results"], json!({"chat": true, "push": false}));
    assert!(answer["why"]["push"].as_str().unwrap().contains("500"), "{answer}");
    assert_eq!(
        daemon.notify(json!({"channels": ["log"], "message": "second"})).1,
        json!({"results": {"log": true}})
    );

    let history = daemon.history("");
    assert_eq!(titles(&history), ["second", "first", "first"]);
    let failed = &history.iter().find(|one| one["channel"] == "push").unwrap();
    assert_eq!((&failed["state"], &failed["host"]), (&json!("failed"), &json!("web1")));
    assert_eq!((&failed["level"], &failed["attempts"]), (&json!("critical"), &json!(1)));
    assert_eq!(history[1]["event"], history[2]["event"]);
    assert!(failed["finished"].as_str().unwrap().ends_with('Z'));
    assert_eq!(titles(&daemon.history("?delivered=false")), ["first"]);
    assert_eq!(titles(&daemon.history("?host=web1&channel=chat")), ["first"]);
    assert_eq!(titles(&daemon.history("?host=nobody")), [""; 0]);

    let page = daemon.get("/api/v1/notifications?limit=1");
    let next = page["next"].as_str().unwrap();
    assert_eq!(titles(&daemon.history(&format!("?before={next}"))), ["first", "first"]);

    for body in [
        json!({"channels": ["chat", "caht"], "message": "x"}),
        json!({"host": "mute", "message": "x"}),
        json!({"message": "x"}),
        json!(7),
    ] {
        let (status, answer) = daemon.notify(body.clone());
        assert!(status == 400 && answer["error"].is_string(), "{body}: {status} {answer}");
    }
    assert_eq!(place.chat.received().len(), 1, "nothing was sent for those");
    let log = daemon.stop("-TERM");
    assert!(log.contains("Sent notification to chat: "), "{log}");
    assert!(log.contains("Failed to send notification to push: "), "{log}");
    SECRETS.iter().for_each(|secret| assert!(!log.contains(secret), "{log}"));
}

#[test]
fn the_history_has_what_waits_what_arrived_and_survives_restarts() {
    let place = Place::new();
    place.push.set_mode(Mode::Status(500, "down".into()));
    let daemon = Daemon::start(&place);
    // A warning: chat hears of what is critical only.
    daemon.hear("is on fire");
    let waiting = daemon
        .wait_for("", |all| all.len() == 1 && all[0]["attempts"] == 1 && !all[0]["why"].is_null());
    assert_eq!(waiting[0]["state"], "waiting");
    assert!(waiting[0]["finished"].is_null());
    let channels = daemon.get("/api/v1/channels");
    let push = channels["channels"].as_array().unwrap().iter().find(|one| one["name"] == "push");
    let push = push.unwrap();
    assert_eq!((&push["type"], &push["min_level"]), (&json!("pushover"), &json!("info")));
    assert_eq!((&push["state"], &push["waiting"]), (&json!("failing"), &json!(1)));
    assert!(push["last_failure"]["why"].as_str().unwrap().contains("500"), "{push}");
    assert!(push["oldest_age_seconds"].as_f64().unwrap() >= 0.0 && push["last_success"].is_null());
    assert_eq!((&push["sent"], &push["failed"]), (&json!(0), &json!(1)));

    daemon.stop("-KILL");
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.history("")[0]["event"], waiting[0]["event"]);
    place.push.set_mode(Mode::Normal);
    let (_, answer) = daemon.notify(json!({"channels": ["push"], "message": "a try"}));
    assert_eq!(answer["results"], json!({"push": true}), "and so what waits goes on at once");
    let arrived = daemon.wait_for("?host=web1", |all| all[0]["state"] == "delivered");
    assert_eq!(arrived.len(), 1);
    assert_eq!(
        (&arrived[0]["id"], &arrived[0]["event"]),
        (&waiting[0]["id"], &waiting[0]["event"])
    );
    assert!(arrived[0]["attempts"].as_u64().unwrap() >= 2);

    daemon.stop("-TERM");
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.history("?host=web1"), arrived);
    assert_eq!(titles(&daemon.history("")), ["a try", "web1 is on fire"]);
    let said = daemon.log_command(&["web1"]);
    assert_eq!(said.code, 0, "{said:?}");
    let mut lines = said.out.lines();
    assert!(lines.next().unwrap().starts_with("TIME "), "{said:?}");
    let line = lines.next().unwrap();
    for word in
        ["warning", "push", "delivered", arrived[0]["event"].as_str().unwrap(), "web1 is on fire"]
    {
        assert!(line.contains(word), "{line}");
    }
    assert_eq!(daemon.log_command(&["--json", "web1"]).json()["notifications"], json!(arrived));
    assert_eq!(daemon.log_command(&["mute"]).out, "there is nothing\n");
    let said = daemon.log_command(&["nobody"]);
    assert!(said.code == 1 && said.log.contains("no host is called \"nobody\""), "{said:?}");
}

#[test]
fn a_long_history_is_told_page_by_page() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    for number in 0..230 {
        let body = json!({"channels": ["log"], "message": format!("message {number}")});
        assert_eq!(daemon.notify(body).0, 200);
    }
    let all = daemon.history("?limit=1000");
    assert_eq!((all.len(), &all[0]["title"]), (230, &json!("message 229")));
    assert_eq!(daemon.history("").len(), 100);
    let (mut paged, mut query) = (Vec::new(), "?limit=60".to_owned());
    loop {
        let page = daemon.get(&format!("/api/v1/notifications{query}"));
        paged.extend(page["notifications"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=60&before={next}");
    }
    assert_eq!(paged, all);
    let said = daemon.log_command(&["--limit", "3"]);
    assert_eq!(said.out.lines().count(), 4, "{said:?}");
    assert!(said.out.lines().last().unwrap().ends_with("message 229"), "the newest comes last");
}

#[test]
fn a_daemon_that_does_not_answer_is_said() {
    let place = Place::new();
    let said = place.hbd(&["log"]);
    assert!(said.code == 3 && said.log.contains("receiver.port is 0"), "{said:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
    let said = Said::from(command.args(["log", "--url", "127.0.0.1:1"]).output().unwrap());
    assert!(said.code == 3 && said.log.contains("is hbd running?"), "{said:?}");
    let daemon = Daemon::start(&place);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
    command.args(["log", "--url", &daemon.http]).env_remove("HBD_TOKEN");
    let said = Said::from(command.output().unwrap());
    assert!(said.code == 3 && said.log.contains("wants a token"), "{said:?}");
}
