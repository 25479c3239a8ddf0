//! The configuration as an operator writes it: what loads, and what is said about what does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heartbeat::config::Config;
use heartbeat::notify::channel::ChannelKind;
use heartbeat::problem::Problems;
use proptest::prelude::*;

/// The environment of all these tests.
fn environment(name: &str) -> Option<String> {
    let value = match name {
        "PATH" => "/nowhere",
        "STATE_DIRECTORY" => "/srv/state:/srv/other",
        "A_TOKEN" => "token-of-the-environment",
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

fn load(file: &Path) -> Result<Config, Problems> {
    Config::load_with(file, &environment)
}

/// A configuration of its own directory, readable by its owner alone.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn load(&self, text: &str) -> Result<Config, Problems> {
        load(&self.write("heartbeat.yaml", text, 0o600))
    }

    /// The problems as lines, with the directory cut off.
    fn problems(&self, text: &str) -> String {
        let problems = match self.load(text) {
            Ok(config) => config.warnings,
            Err(problems) => problems,
        };
        problems.to_string().replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn the_examples_of_the_specification_load() {
    for file in yaml_files("tests/spec") {
        if let Err(problems) = load(&file) {
            panic!("{problems}");
        }
    }
}

#[test]
fn an_unquoted_number_keeps_its_plus() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec/routing.yaml");
    let config = load(&file).unwrap();
    match &config.channel_config("signal_oncall").unwrap().kind {
        ChannelKind::Signal(signal) => {
            assert_eq!((&*signal.user, &*signal.recipient), ("+1234567890", "+0987654321"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn hosts_have_their_own_channels_or_the_default_ones() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec/routing.yaml");
    let config = load(&file).unwrap();
    let of = |host| config.notification_channels_for_host(host);
    assert_eq!(of("prod-web-01"), ["signal_oncall", "pushover_urgent", "email_ops"]);
    assert_eq!(of("test-server-01"), ["email_ops", "mattermost_devops"]);
    assert_eq!(of("never-heard-of"), ["email_ops", "mattermost_devops"]);
    let names: Vec<_> = config.notification_channels_config("prod-db-01").into_keys().collect();
    assert_eq!(names, ["email_ops", "signal_ops"]);
    assert!(config.channel_config("nobody").is_none());
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = Place::new().load("").unwrap();
    assert_eq!(config.receiver.port, 9099);
    assert_eq!(config.renotify_interval, Some(Duration::from_secs(3600)));
    assert_eq!(config.state_dir, Path::new("/srv/state"));
    assert_eq!(config.threshold_sets.len(), 4);
    let warned = config.warnings.to_string();
    assert!(
        warned.contains(": warning: is empty: no host is watched and nobody is told"),
        "{warned}"
    );
}

/// Without its type, nothing was said of the other keys of a channel.
#[test]
fn the_keys_of_a_channel_without_a_type_are_those_of_all_types() {
    let channel = |of: &str| {
        let text = format!("notification_channels: {{a: {{{of}}}}}\n");
        Place::new().problems(&text)
    };
    for kind in ["email", "pushover", "signal", "mattermost", "log"] {
        let said = channel(&format!("type: {kind}, zzzzzzzz: 1"));
        let line = said.lines().find(|line| line.contains("zzzzzzzz: unknown key")).unwrap();
        for key in line.split_once("; there are: ").unwrap().1.split(", ") {
            let said = channel(&format!("{key}: info"));
            assert!(!said.contains("unknown key"), "{key}: {said}");
        }
    }
}

/// Nodes of a cluster tell one another whether their configurations are the same.
#[test]
fn a_fingerprint_is_of_what_all_nodes_should_have_alike() {
    let of = |cluster: &str, rest: &str| {
        let text = format!("cluster: {{redis_url: 'redis://127.0.0.1:6379', {cluster}}}\n{rest}");
        Place::new().load(&text).unwrap().fingerprint
    };
    let first = of("node: hb1", "hosts: {web1: {watch: true}, web2: {}}\nheartbeat: {grace: 9s}\n");
    let same = [
        (
            "node: hb2, lease: 3s",
            "hosts: {web1: {watch: true}, web2: {}}\nheartbeat: {grace: 9s}\n",
        ),
        ("node: hb1", "# x\nheartbeat:\n  grace: '9s'\nhosts:\n  web2:\n  web1: {watch: true}\n"),
        (
            "node: hb1",
            "state_dir: /srv/x\nhosts: {web1: {watch: true}, web2: {}}\n\
             heartbeat: {grace: 9s, port: 7, host: '::1'}\nreceiver: {port: 7}\n",
        ),
    ];
    for (cluster, rest) in same {
        assert_eq!(of(cluster, rest), first, "{rest}");
    }
    for other in [
        "hosts: {web1: {watch: true}}\nheartbeat: {grace: 9s}\n",
        "hosts: {web1: {watch: true}, web2: {}, web3: }\nheartbeat: {grace: 9s}\n",
        "hosts: {web1: {watch: false}, web2: {}}\nheartbeat: {grace: 9s}\n",
        "hosts: {web1: {watch: true}, web2: {}}\nheartbeat: {grace: 8s}\n",
        "hosts: {web2: {watch: true}, web1: {}}\nheartbeat: {grace: 9s}\n",
    ] {
        assert_ne!(of("node: hb1", other), first, "{other}");
    }
    assert_eq!(Place::new().load("hosts: {web1: {}}\n").unwrap().fingerprint, 0);
}

#[test]
fn secrets_come_from_the_file_the_environment_or_a_file_beside() {
    let place = Place::new();
    place.write("token", "from-a-file\n", 0o600);
    let channel = |token: &str| {
        format!(
            "notification_channels:\n  m: {{type: mattermost, host: h, channel: c, {token}}}\ndefault_notification_channels: [m]\n"
        )
    };
    for (token, clear) in [
        ("token: literal", "literal"),
        ("token: 0123", "0123"),
        ("token: \"${A_TOKEN}\"", "token-of-the-environment"),
        ("token: ${A_TOKEN}", "token-of-the-environment"),
        ("token_file: token", "from-a-file"),
    ] {
        // A brace ends a plain scalar within braces: in block style it does not.
        let text = match token {
            "token: ${A_TOKEN}" => {
                "notification_channels:\n  m:\n    type: mattermost\n    host: h\n    channel: c\n    token: ${A_TOKEN}\ndefault_notification_channels: [m]\n".into()
            }
            _ => channel(token),
        };
        let config = place.load(&text).unwrap_or_else(|problems| panic!("{problems}"));
        match &config.channel_config("m").unwrap().kind {
            ChannelKind::Mattermost(mattermost) => assert_eq!(mattermost.token.reveal(), clear),
            other => panic!("{other:?}"),
        }
        assert_eq!(config.secrets.len(), 1);
        assert_eq!(config.warnings.to_string(), "");
        assert!(!format!("{config:?}").contains(clear));
    }
}

#[test]
fn a_secret_that_cannot_be_had_is_named_but_not_shown() {
    let place = Place::new();
    place.write("open", "x-from-a-file\n", 0o644);
    let text = "\
notification_channels:
  a: {type: mattermost, host: h, channel: c, token: \"${NOT_SET}\"}
  b: {type: mattermost, host: h, channel: c, token_file: nowhere}
  c: {type: mattermost, host: h, channel: c, token: hunter22, token_file: open}
  d: {type: mattermost, host: h, channel: c, token_file: open}
  e: {type: mattermost, host: h, channel: c, token: \"${EMPTY}\"}
  f: {type: mattermost, host: h, channel: c, token: \"hunter22\\n\"}
  g: {type: mattermost, host: h, channel: c, token: [hunter22]}
  h: {type: mattermost, host: h, channel: c, token: }
default_notification_channels: [h]
";
    assert_eq!(
        place.problems(text),
        "\
heartbeat.yaml:2: notification_channels.a.token: the environment variable NOT_SET is not set
heartbeat.yaml:3: notification_channels.b.token_file: cannot read nowhere: No such file or directory (os error 2)
heartbeat.yaml:4: notification_channels.c.token_file: give either token or token_file, not both
heartbeat.yaml:5: warning: notification_channels.d.token_file: others can read open: chmod o-r open
heartbeat.yaml:6: notification_channels.e.token: must not be empty
heartbeat.yaml:7: notification_channels.f.token: must be one line without control characters
heartbeat.yaml:8: notification_channels.g.token: must be one value, not a list
heartbeat.yaml:9: notification_channels.h.token: is missing"
    );
}

#[test]
fn a_file_with_secrets_that_others_can_read_is_a_warning() {
    let place = Place::new();
    let text = "heartbeat: {key: hunter22hunter22}\n";
    let file = place.write("heartbeat.yaml", text, 0o644);
    let warnings = load(&file).unwrap().warnings.to_string();
    let file = file.display();
    assert_eq!(
        warnings,
        format!("{file}: warning: holds secrets and others can read it: chmod o-r {file}")
    );
}

#[test]
fn names_may_look_like_numbers_and_booleans() {
    let text = "\
notification_channels:
  101: {type: log}
  on: {type: log}
  0x1F: {type: log}
default_notification_channels: [101, on]
hosts:
  007: {watch: true, notification_channels: 0x1F}
  null: {watch: yes}
  1e3: {watch: On}
";
    let config = Place::new().load(text).unwrap();
    assert_eq!(config.channels.keys().collect::<Vec<_>>(), ["0x1F", "101", "on"]);
    assert_eq!(config.hosts.keys().collect::<Vec<_>>(), ["007", "1e3", "null"]);
    assert_eq!(config.notification_channels_for_host("007"), ["0x1F"]);
    assert_eq!(config.warnings.to_string(), "");
}

/// `tests/bad/*.yaml` against the `.txt` beside each. HB_BLESS=1 writes these anew, for review.
#[test]
fn every_mistake_is_told_with_its_line_path_and_remedy() {
    let mut wrong = Vec::new();
    for file in yaml_files("tests/bad") {
        let place = Place::new();
        let name = file.file_name().unwrap().to_str().unwrap();
        let copy = place.write(name, "", 0o600);
        fs::write(&copy, fs::read(&file).unwrap()).unwrap();
        let problems = load(&copy).map_or_else(|problems| problems, |config| config.warnings);
        let said =
            format!("{problems}\n").replace(&format!("{}/", place.directory.path().display()), "");
        assert!(!said.contains("hunter2"), "shows a secret: {said}");
        let expected = file.with_extension("txt");
        if std::env::var_os("HB_BLESS").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{name} says\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ten_thousand_hosts_load_with_the_line_of_every_mistake() {
    let mut text = String::from(
        "notification_channels: {log: {type: log}}\ndefault_notification_channels: [log]\nhosts:\n",
    );
    for number in 0..10_000 {
        text.push_str(&format!("  host-{number:05}:\n    watch: true\n    interval: 30s\n"));
    }
    let place = Place::new();
    let config = place.load(&text).unwrap();
    assert_eq!(config.hosts.len(), 10_000);
    assert_eq!(config.warnings.to_string(), "");
    let problems = place.load(&text.replace("interval", "intervall")).unwrap_err();
    assert_eq!(problems.0.len(), 10_000);
    assert!(problems.0.iter().enumerate().all(|(n, problem)| problem.line == Some(6 + 3 * n)));
}

fn example() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("heartbeat.yaml.example");
    fs::read_to_string(file).unwrap()
}

#[test]
fn the_example_works_as_it_stands() {
    let file = Place::new();
    let file = file.write("heartbeat.yaml", &example(), 0o644);
    let config = load(&file).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.warnings.to_string(), "");
    assert!(config.hosts["web1"].watch);
    assert_eq!(config.notification_channels_for_host("web1"), ["log"]);
    assert_eq!(config.channels["log"].kind, ChannelKind::Log);
    assert_eq!(config.receiver.host, "127.0.0.1");
}

/// The example with every key that is commented out taken in. Of a secret and its file, and of what
/// needs a file or a program, one that can be had; of the two ways to the Redis of a cluster the first.
fn whole_example() -> String {
    let key = |line: &&str| {
        let body = line.trim_start().strip_prefix('#').unwrap_or_default();
        let word = body.split(':').next().unwrap_or_default();
        body.contains(':') && !word.is_empty() && !word.contains(' ')
    };
    let lines = example();
    let uncommented = lines.lines().map(|line| match key(&line) {
        true => line.replacen('#', "", 1),
        false => line.to_owned(),
    });
    let other_way = |line: &str| line.starts_with("sentinel") || line.starts_with("service: ");
    let left = |line: &String| !line.contains("_file: ") && !other_way(line.trim());
    uncommented.filter(left).map(|line| line + "\n").collect()
}

#[test]
fn the_example_documents_only_keys_that_there_are() {
    // The two that do not go together are read one after the other.
    for section in ["cluster", "agent"] {
        let said = Place::new().problems(&without(section, &whole_example()));
        let (_, rest) = said.split_once(": ").unwrap_or_default();
        assert_eq!(
            rest, "warning: repo_check.restic_path: there is no program restic in PATH",
            "{said}"
        );
    }
}

/// A configuration without one of its sections.
fn without(section: &str, text: &str) -> String {
    let mut inside = false;
    let is_kept = |line: &&str| {
        if !line.starts_with([' ', '#']) && !line.is_empty() {
            inside = line.starts_with(&format!("{section}:"));
        }
        !inside
    };
    let kept: Vec<&str> = text.lines().filter(is_kept).collect();
    assert!(kept.len() < text.lines().count(), "there is no {section}");
    kept.join("\n") + "\n"
}

/// A repeat comes up to one group_interval late. Without the line a Prometheus that died was missed
/// after twelve hours.
#[test]
fn the_example_waits_for_a_watchdog_as_its_example_of_an_alertmanager_sends_it() {
    let routes = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples/alertmanager.yml");
    let routes: serde_yaml::Value =
        serde_yaml::from_str(&fs::read_to_string(routes).unwrap()).unwrap();
    let routes = routes["route"]["routes"].as_sequence().unwrap();
    let watchdog = |route: &&serde_yaml::Value| {
        route["matchers"][0].as_str().is_some_and(|matcher| matcher.contains("Watchdog"))
    };
    let route = routes.iter().find(watchdog).unwrap();
    let time = |key: &str| humantime::parse_duration(route[key].as_str().unwrap()).unwrap();
    let repeats = time("repeat_interval") + time("group_interval");
    let place = Place::new();
    let text = without("cluster", &whole_example());
    let config = load(&place.write("heartbeat.yaml", &text, 0o600));
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.hosts["prometheus"].interval, Some(repeats));
}

/// A key that does not exist is answered with those that do.
#[test]
fn the_example_documents_every_key_that_there_is() {
    let mut text = String::new();
    let mut probes = 0;
    for line in whole_example().lines() {
        text.push_str(&format!("{line}\n"));
        let indent = line.len() - line.trim_start().len();
        let word = line.trim();
        let below = match word {
            "web1:" | "heartbeat:" | "receiver:" | "correlator:" | "repo_check:" | "notifier:"
            | "default:" | "dyndns:" | "cluster:" => 2,
            _ if word.starts_with("type: ") => 0,
            _ => continue,
        };
        text.push_str(&format!("{}zzzzzzzz: 1\n", " ".repeat(indent + below)));
        probes += 1;
    }
    let said = Place::new().problems(&(text + "zzzzzzzz: 1\n"));
    let lists: Vec<_> = said.lines().filter_map(|line| line.split_once("; there are: ")).collect();
    assert_eq!(lists.len(), probes + 1, "{said}");
    for key in lists.iter().flat_map(|(_, list)| list.split(", ")) {
        let example = example();
        let documented =
            |line: &str| line.trim_start_matches([' ', '#']).starts_with(&format!("{key}:"));
        assert!(example.lines().any(documented), "{key} is not in the example");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_configuration_never_panics(
        cuts in proptest::collection::vec((0..4000usize, "[ -~\n]{0,3}", 0..9usize), 1..6)
    ) {
        let mut text: Vec<char> = whole_example().lines().filter(|line| !line.trim_start().starts_with("# ")).flat_map(|line| line.chars().chain(['\n'])).collect();
        for (at, insert, remove) in cuts {
            let at = at.min(text.len());
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        let _ = Place::new().load(&text);
    }
}

#[test]
fn threshold_sets_take_over_replace_and_drop_rules() {
    let text = "\
threshold_configs:
  default: {extends: default, cpu_monitor.cpu_percent: off}
  ours:
    extends: default
    memory_monitor.percent: {critical: '> 99', for: 5m}
  bare: {load: {warning: '>= 1'}}
";
    let config = Place::new().load(text).unwrap();
    let rules = |set: &str| &config.threshold_sets[set].rules;
    assert_eq!(config.own_threshold_sets, 3);
    assert!(!rules("default").contains_key("cpu_monitor.cpu_percent"));
    assert_eq!(rules("default").len(), 9);
    assert_eq!(rules("ours").len(), 9);
    let memory = rules("ours")["memory_monitor.percent"];
    assert_eq!((memory.warning, memory.for_duration), (None, Duration::from_secs(300)));
    assert_eq!(rules("bare").len(), 1);
    assert_eq!(rules("high_sensitivity").len(), 10);
}

#[test]
fn a_way_back_has_limits_and_a_time_of_its_own() {
    let text = "\
threshold_configs:
  ours:
    m: {warning: '> 80', critical: '> 90', clear: '< 75', clear_critical: '<= 85', clear_for: 15m}
    plain: {warning: '> 80', critical: '> 90'}
    extends: default
    cpu_monitor.cpu_percent: {warning: '> 70'}
";
    let config = Place::new().load(text).unwrap();
    let back = |metric: &str| {
        let rule = config.threshold_sets["ours"].rules[metric];
        let limits = [rule.clear, rule.clear_critical];
        (limits.map(|limit| limit.map(|limit| limit.to_string())), rule.clear_for.as_secs())
    };
    let own = [Some("< 75.0".to_owned()), Some("<= 85.0".to_owned())];
    assert_eq!(back("m"), (own, 900));
    assert_eq!(back("plain"), ([None, None], 0));
    // A rule replaces the inherited one as a whole, its way back too.
    assert_eq!(back("cpu_monitor.cpu_percent"), ([None, None], 0));
    assert_eq!(back("memory_monitor.percent").1, 900);
}

#[test]
fn beyond_loopback_a_key_and_a_token_are_enough() {
    for text in [
        "heartbeat: {host: 0.0.0.0, key: hunter22hunter22}\nreceiver: {host: '::', token: hunter22}\n",
        "heartbeat: {host: 0.0.0.0, accept_unsigned: true}\n",
        "heartbeat: {host: 0.0.0.0}\nhosts: {web1: {key: hunter22hunter22}}\n",
        "heartbeat: {host: 127.3.2.1}\nreceiver: {host: localhost}\n",
    ] {
        assert!(Place::new().load(text).is_ok(), "{text}");
    }
}

#[test]
fn no_part_of_a_password_in_a_url_is_left_in_what_people_see() {
    for (url, user, password) in [
        ("redis://ops:pa/ss@wort@redis.example.com/2", Some("ops"), "pa/ss@wort"),
        ("redis+unix:///run/redis.sock?db=2&user=ops&pass=pa%2Fsswort", Some("ops"), "pa/sswort"),
        ("redis+unix:///run/redis.sock?pass=pa/sswort", None, "pa/sswort"),
    ] {
        let place = Place::new();
        let text = format!("correlator: {{redis_url: '{url}'}}\n");
        let config = load(&place.write("heartbeat.yaml", &text, 0o644)).unwrap();
        assert!(config.warnings.to_string().contains("chmod o-r"), "{url}");
        assert!(!format!("{config:?}").contains("wort"), "{config:?}");
        assert_eq!(config.correlator.redis_user.as_deref(), user);
        assert_eq!(config.correlator.redis_password.unwrap().reveal(), password);
        assert!(config.secrets.iter().any(|secret| secret.reveal() == password));
    }
}

#[test]
fn backup_alerts_that_can_reach_nobody_are_a_warning() {
    let nobody = "warning: notifier: names no channel, so backup alerts reach nobody: name some \
                  here, or in default_notification_channels";
    let channels = "notification_channels: {log: {type: log}}\n";
    let default = "default_notification_channels: [log]\n";
    for (rest, warned) in [
        ("", true),
        ("default_notification_channels: []\n", true),
        ("default_notification_channels: [log]\nnotifier: {notification_channels: []}\n", true),
        ("notifier: {notification_channels: [log]}\n", false),
        (default, false),
        ("hosts: {web1: {notification_channels: [log]}}\n", false),
        ("hosts: {web1: {notification_channels: [log]}}\ncorrelator: {wait_seconds: 1}\n", true),
        ("hosts: {web1: {notification_channels: [log]}}\nreceiver: {alert_names: [X]}\n", true),
    ] {
        let said = Place::new().problems(&format!("{channels}{rest}"));
        assert_eq!(said.contains(nobody), warned, "{rest}: {said}");
    }
    assert_eq!(Place::new().problems("receiver: {port: 1}\n"), "");
}

#[test]
fn the_password_in_a_url_is_a_secret_and_not_part_of_it() {
    let text = "correlator: {redis_url: 'rediss://ops:hunter%4022@redis.example.com/2'}\n";
    let correlator = Place::new().load(text).unwrap().correlator;
    assert_eq!(correlator.redis_url, "rediss://redis.example.com/2");
    assert_eq!(correlator.redis_user.as_deref(), Some("ops"));
    assert_eq!(correlator.redis_password.unwrap().reveal(), "hunter@22");
}

#[test]
fn what_is_told_of_backups_is_configured_for_all_and_for_single_plans() {
    use heartbeat::backup::plan::Plan;
    use heartbeat::backup::plan_tracker::SuccessPolicy::{Always, Never, Recovery};
    let day = Some(std::time::Duration::from_secs(86_400));
    let plan =
        |id: &str, name: &str| Plan { id: id.into(), name: Some(name.into()), ..Plan::default() };
    let default = Place::new().load("").unwrap();
    assert!(!default.correlator.watch_plans && default.telling.renotify == day);
    assert_eq!(default.telling.policy(&plan("7", "x")).success, Recovery);
    let text = "correlator: {recheck_seconds: 0}\nrenotify_interval: 5m\n\
                notifier: {renotify_interval: 0, report_success: never, \
                plans: {7: {report_success: always}, Weekly: {report_success: recovery}, 8: {}}}\n";
    let config = Place::new().load(text).unwrap();
    assert!(config.correlator.watch_plans && config.correlator.recheck.is_none());
    for (id, name, expected) in
        [("7", "x", Always), ("1", "Weekly", Recovery), ("8", "x", Never), ("9", "x", Never)]
    {
        let policy = config.telling.policy(&plan(id, name));
        assert_eq!((policy.success, policy.renotify), (expected, None), "{id}");
    }
    let said = Place::new().problems("notifier: {plans: {7: {report_success: sometimes}}}\n");
    let expected =
        "notifier.plans.7.report_success: must be always, recovery or never, not \"sometimes\"";
    assert!(said.contains(expected), "{said}");
}

const CHANNEL: &str = "notification_channels:\n  a:\n    type: email\n    sender: a@b.example\n";

#[test]
fn a_ca_file_without_a_certificate_passed_the_check() {
    let place = Place::new();
    let pem = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tls/ca.pem"));
    let pem = String::from_utf8(pem.unwrap()).unwrap();
    let der = heartbeat::tls::read_ca_file(&place.write("ca.pem", &pem, 0o600)).unwrap();
    fs::write(place.directory.path().join("ca.der"), &der[0]).unwrap();
    place.write("bom", &format!("\u{feff}{pem}"), 0o600);
    place.write("cut", &pem[..pem.len() / 2], 0o600);
    place.write("empty", "\n", 0o600);
    place.write("key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600);
    place.write("text", "my certificate\n", 0o600);
    for (file, said) in [
        ("ca.pem", ""),
        ("ca.der", ""),
        ("bom", ""),
        ("cut", "holds a certificate that cannot be read: is it complete?"),
        ("empty", "is empty: put the certificate of the authority into it"),
        ("key", "holds a key and no certificate: name the file with the authority's certificate"),
        ("text", "holds no certificate, in PEM form"),
    ] {
        for text in [
            format!(
                "{CHANNEL}    smtp_server: mail.example\n    recipients: a@b.example\n    ca_file: {file}\n"
            ),
            format!(
                "notification_channels: {{a: {{type: mattermost, host: m.example, token: x, channel: c, ca_file: {file}}}}}\n"
            ),
            format!(
                "dyndns: {{method: http, url: 'https://x.example/?ip={{ip}}', ca_file: {file}}}\n"
            ),
        ] {
            let problems =
                place.problems(&format!("{text}notifier: {{notification_channels: []}}\n"));
            let about = problems.lines().find(|line| line.contains("ca_file"));
            assert_eq!(about.is_some(), !said.is_empty(), "{file}: {problems}");
            assert!(about.unwrap_or_default().contains(said), "{file}: {problems}");
        }
    }
}

#[test]
fn hosts_with_brackets_and_names_beyond_ascii_are_understood() {
    let place = Place::new();
    let config = place
        .load(
            "heartbeat: {host: '[::1]'}\nreceiver: {host: '[::1]', poll_url: 'http://büro.example:9093'}\n\
             notification_channels:\n  a: {type: email, sender: a@b.example, recipients: a@b.example, smtp_server: mail.büro.example, helo: büro.example}\n  \
             m: {type: mattermost, host: 'chat.büro.example:8065/team', token: x, channel: c}\n  \
             p: {type: pushover, token: abcdefghijklmnopqrstuvwxyz0123, user: abcdefghijklmnopqrstuvwxyz0123, api_url: 'https://api.pushover.net/1/messages.json'}\n\
             dyndns: {method: rfc2136, server: ns.büro.example, zone: Büro.example, key_name: k, key: c2VjcmV0}\n\
             hosts: {web1: {watch: true, dyndns: true}}\n",
        )
        .unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(config.dyndns["web1"].name, "web1.xn--bro-hoa.example");
    assert_eq!((&*config.heartbeat.host, &*config.receiver.host), ("::1", "::1"));
    assert_eq!(config.receiver.poll_url.as_deref(), Some("http://xn--bro-hoa.example:9093"));
    let ChannelKind::Email(email) = &config.channels["a"].kind else { panic!() };
    assert_eq!(email.smtp_server, "mail.xn--bro-hoa.example");
    assert_eq!(email.helo.as_deref(), Some("xn--bro-hoa.example"));
    let ChannelKind::Mattermost(chat) = &config.channels["m"].kind else { panic!() };
    assert_eq!(chat.base_url, "https://chat.xn--bro-hoa.example:8065/team");
    let ChannelKind::Pushover(pushover) = &config.channels["p"].kind else { panic!() };
    assert_eq!(pushover.api_url, "https://api.pushover.net");
}

#[test]
fn what_was_refused_at_every_send_or_ended_the_start_is_found_by_check() {
    let place = Place::new();
    place.write("file", "x", 0o600);
    let file = place.directory.path().join("file");
    for (text, path, remedy) in [
        ("receiver: {token: tökén-of-mine}\n", "receiver.token", "ASCII"),
        ("receiver: {token: 'blank '}\n", "receiver.token", "no blank at either end"),
        ("receiver: {token: \"${UMLAUT}\"}\n", "receiver.token", "is not set"),
        (
            "notification_channels: {m: {type: mattermost, host: m.example, token: x, channel: c, bot_token: ü}}\n",
            "m.bot_token",
            "ASCII",
        ),
        (&format!("state_dir: {}\n", file.display()), "state_dir", "is a file: name a directory"),
        (&format!("state_dir: {}/below\n", file.display()), "state_dir", "is a file"),
        ("state_dir: ~\n", "state_dir", "nothing in YAML"),
        (
            &format!(
                "{CHANNEL}    smtp_server: m.example\n    recipients: [a@b.example, 'A <a@B.example>']\n"
            ),
            "a.recipients",
            "take one out",
        ),
        (
            "dyndns: {method: http, url: 'https://x.example/?ip={ip}', expect: ['<?xml']}\n",
            "dyndns.expect",
            "refuse",
        ),
    ] {
        let problems = place.problems(text);
        let line = problems.lines().find(|line| line.contains(path)).unwrap_or_default();
        assert!(line.contains(remedy), "{text}: {problems}");
    }
}

#[test]
fn a_recipient_that_is_named_twice_gets_each_message_once() {
    let place = Place::new();
    let text = format!(
        "{CHANNEL}    smtp_server: m.example\n    recipients: [a@b.example, c@b.example, a@B.example]\n"
    );
    let config = place.load(&text).unwrap();
    let ChannelKind::Email(email) = &config.channels["a"].kind else { panic!() };
    assert_eq!(email.recipients, ["a@b.example", "c@b.example"]);
}

#[test]
fn a_key_file_with_a_mark_or_a_blank_holds_the_same_key() {
    let place = Place::new();
    place.write("key", "\u{feff}secret-of-mine \r\n", 0o600);
    let config = place.load("heartbeat: {key_file: key}\n").unwrap();
    assert_eq!(config.heartbeat.key.unwrap().reveal(), "secret-of-mine");
}

#[test]
fn a_nul_is_told_with_its_line() {
    let place = Place::new();
    let said = place.problems("hosts:\n  web1: {}\n  we\0b2: {}\n");
    assert!(said.starts_with("heartbeat.yaml:3: holds a NUL here"), "{said}");
}

/// A configuration of several files, by name, and what is said of it.
fn said_of(files: &[(&str, &str)], text: &str) -> (Place, String) {
    let place = Place::new();
    for (name, text) in files {
        fs::create_dir_all(place.directory.path().join(name).parent().unwrap()).unwrap();
        place.write(name, text, 0o600);
    }
    let said = place.problems(text);
    (place, said)
}

const LOG_CHANNEL: &str =
    "notification_channels: {log: {type: log}}\ndefault_notification_channels: [log]\n";

#[test]
fn hosts_in_several_files_are_as_those_in_one() {
    let files = [
        ("hosts.d/b.yaml", "hosts: {web2: {watch: true}, 'app*': {watch: true}}\n"),
        ("hosts.d/a.yaml", "# the first\nhosts:\n  web1: {watch: true, key_file: secrets/key}\n"),
        ("hosts.d/.hidden.yaml", "hosts: {web1: {}}\n"),
        ("hosts.d/c.yaml~", "hosts: {web1: {}}\n"),
        ("hosts.d/empty.yaml", "# nothing\n"),
        ("secrets/key", "0123456789abcdef\n"),
        (
            "more/limits.yaml",
            "threshold_configs: {x: {a: {warning: '> 1'}}}\nheartbeat: {interval: 30s}\n",
        ),
    ];
    let text = format!(
        "{LOG_CHANNEL}include: [hosts.d, more/*.yaml]\nhosts: {{web0: {{watch: true}}}}\nheartbeat: {{port: 0}}\n"
    );
    let (place, said) = said_of(&files, &text);
    assert_eq!(said, "");
    let config = place.load(&text).unwrap();
    assert_eq!(config.hosts.keys().collect::<Vec<_>>(), ["web0", "web1", "web2"]);
    assert_eq!(config.hosts["web1"].key.as_ref().unwrap().reveal(), "0123456789abcdef");
    assert!(config.host("app7").unwrap().watch && config.host("db1").is_none());
    assert_eq!((config.heartbeat.port, config.heartbeat.interval.as_secs()), (0, 30));
    assert!(config.threshold_sets.contains_key("x"));
    let names = Config::names_in(place.directory.path().join("heartbeat.yaml"), "hosts").unwrap();
    assert_eq!(names, ["web0", "web1", "web2", "app*"]);
}

#[test]
fn every_mistake_in_an_included_file_is_told_with_that_file() {
    let files = [
        (
            "d/a.yaml",
            "hosts:\n  web1: {watch: true}\n  web2: {wacth: true}\ndefault_notification_channels: [log]\n",
        ),
        (
            "d/b.yaml",
            "hosts:\n  web3:\n    watch: true\n  web1: {watch: true}\nhosts: {web9: {}}\n",
        ),
        ("d/c.yaml", "include: more\nheartbeat: {port: 1}\nhots: {}\n"),
        ("d/d.yaml", "hosts: [\n"),
        ("d/e.yaml", "- a list\n"),
        ("d/f.yaml", "heartbeat: {prot: 1}\n"),
        ("d/g.yaml/inner.yaml", ""),
        ("empty/nothing.txt", ""),
    ];
    let text = format!(
        "{LOG_CHANNEL}heartbeat: {{port: 9099}}\ninclude:\n- d\n- missing.yaml\n- missing/*.yaml\n- empty\n- d/a.yaml\n- heartbeat.yaml\n- [x]\n"
    );
    let (place, _) = said_of(&files, &text);
    fs::write(place.directory.path().join("d/h.yaml"), b"# x\nhosts: {caf\xe9: {}}\n").unwrap();
    let said = place.problems(&text);
    assert_eq!(
        said,
        "\
heartbeat.yaml:6: include: missing.yaml cannot be read (No such file or directory (os error 2))
heartbeat.yaml:7: include: missing cannot be read (No such file or directory (os error 2))
heartbeat.yaml:8: warning: include: empty has no file *.yaml: nothing is included
heartbeat.yaml:9: include: names d/a.yaml twice
heartbeat.yaml:10: include: heartbeat.yaml is this file itself: name others
heartbeat.yaml:11: include: must be a file, a directory, or a pattern such as conf.d/*.yaml, or a list of these
d/a.yaml:3: hosts.web2.wacth: unknown key, did you mean \"watch\"?
d/a.yaml:4: default_notification_channels: duplicate key, the first is in heartbeat.yaml:2
d/b.yaml:4: hosts.web1: duplicate key, the first is in d/a.yaml:2
d/b.yaml:5: hosts: duplicate key, the first is on line 1
d/c.yaml:1: include: included files include no others: name those in the first file
d/c.yaml:2: heartbeat.port: duplicate key, the first is in heartbeat.yaml:3
d/c.yaml:3: hots: unknown key, did you mean \"hosts\"?
d/d.yaml:2: a value is missing here, or a bracket [ or brace { before it is never closed
d/e.yaml:1: must be a map: lines of \"key: value\"
d/f.yaml:1: heartbeat.prot: unknown key, did you mean \"port\"?
d/g.yaml: cannot be read (Is a directory (os error 21))
d/h.yaml:2: is not UTF-8 text here: save the file as UTF-8"
    );
}

#[test]
fn each_file_with_secrets_that_others_can_read_is_told_of() {
    let place = Place::new();
    place.write("open.yaml", "heartbeat: {key: hunter2hunter2hunter2}\n", 0o644);
    place.write("closed.yaml", "receiver: {token: hunter2hunter2hunter2}\n", 0o640);
    place.write("plain.yaml", "hosts: {web1: {watch: true}}\n", 0o644);
    let said =
        place.problems(&format!("{LOG_CHANNEL}include: [open.yaml, closed.yaml, plain.yaml]\n"));
    let directory = place.directory.path().display().to_string();
    let said = said.replace(&directory, "");
    assert_eq!(
        said,
        "open.yaml: warning: holds secrets and others can read it: chmod o-r open.yaml"
    );
}

#[test]
fn a_file_has_a_limit_of_its_own_and_all_together_have_one() {
    let place = Place::new();
    let of = |bytes: usize| format!("#{}\n", "x".repeat(bytes - 2));
    place.write("long.yaml", &of((1 << 20) + 1), 0o600);
    let said = place.problems(&format!("{LOG_CHANNEL}include: long.yaml\n"));
    assert!(said.starts_with("long.yaml: is longer than 1 MiB"), "{said}");
    fs::create_dir(place.directory.path().join("d")).unwrap();
    for number in 0..64 {
        place.write(&format!("d/{number:02}.yaml"), &of(1 << 20), 0o600);
    }
    place.write("d/64.yaml", "# one more\n", 0o600);
    let said = place.problems(&format!("{LOG_CHANNEL}include: d\n"));
    assert_eq!(said, "heartbeat.yaml:3: include: names files of more than 64 MiB");
}

#[test]
fn the_receiver_is_found_in_an_included_file_however_broken_the_rest_is() {
    let files = [
        ("d/a.yaml", "hosts: [\n"),
        ("d/b.yaml", "hosts: {x: {colour: red}}\nreceiver: {port: 4711}\n"),
    ];
    for text in ["include: [d, missing]\n", "include: [d, missing]\nhosts: {\n"] {
        let (place, _) = said_of(&files, text);
        let receiver = Config::load_receiver(place.directory.path().join("heartbeat.yaml"));
        assert_eq!(receiver.unwrap().port, 4711, "{text}");
    }
    let broken = [("d/b.yaml", "hosts: [\nreceiver: {port: 4711}\n")];
    let (place, _) = said_of(&broken, "include: d\n");
    let receiver = Config::load_receiver(place.directory.path().join("heartbeat.yaml"));
    assert_eq!(receiver.unwrap().port, 4711);
    // What is nowhere else may stand in the file that is missing.
    let (place, _) = said_of(&[], "include: missing.yaml\n");
    let receiver = Config::load_receiver(place.directory.path().join("heartbeat.yaml"));
    let said = receiver.unwrap_err().to_string();
    assert!(said.contains("missing.yaml"), "{said}");
    let wrong = [("d/b.yaml", "# x\nreceiver: {port: x}\n")];
    let (place, _) = said_of(&wrong, "include: d\n");
    let file = place.directory.path().join("heartbeat.yaml");
    let said = Config::load_receiver(file).unwrap_err().to_string();
    assert!(said.contains("d/b.yaml:2: receiver.port: must be a port"), "{said}");
}

#[test]
fn a_pattern_has_the_channels_and_labels_of_its_hosts() {
    let text = "\
notification_channels: {a: {type: log}, b: {type: log}}
default_notification_channels: [a]
hosts:
  \"web*\": {watch: true, notification_channels: [b], key: 0123456789abcdef}
  web1: {watch: true, key: 0123456789abcdeg}
heartbeat: {host: 0.0.0.0}
receiver: {port: 0}
";
    let config = Place::new().load(text).unwrap();
    assert_eq!(config.warnings.to_string(), "", "every host has a key");
    assert_eq!(config.notification_channels_for_host("web7"), ["b"]);
    assert_eq!(config.notification_channels_for_host("web1"), ["a"]);
    assert_eq!(config.notification_channels_for_host("db1"), ["a"]);
    let notifier = heartbeat::Notifier::new(&config);
    assert_eq!(notifier.channels_of_host("web7"), ["b"]);
    assert_eq!(notifier.channels_of_host("web1"), ["a"]);
    assert_eq!(notifier.channels_of_host("db1"), ["a"]);
}

/// Many hosts do not fit into one file.
#[test]
fn a_hundred_thousand_hosts_load_from_forty_files() {
    let place = Place::new();
    fs::create_dir(place.directory.path().join("d")).unwrap();
    for file in 0..40 {
        let mut text = String::from("hosts:\n");
        for number in 0..2500 {
            text.push_str(&format!("  host-{file:02}-{number:04}: {{watch: true}}\n"));
        }
        place.write(&format!("d/{file:02}.yaml"), &text, 0o600);
    }
    let config = place.load(&format!("{LOG_CHANNEL}include: d\n")).unwrap();
    assert_eq!((config.hosts.len(), config.warnings.to_string()), (100_000, String::new()));
    place.write("d/99.yaml", "hosts:\n  host-39-2499: {watch: true}\n", 0o600);
    let said = place.problems(&format!("{LOG_CHANNEL}include: d\n"));
    assert_eq!(
        said,
        "d/99.yaml:2: hosts.host-39-2499: duplicate key, the first is in d/39.yaml:2501"
    );
}
