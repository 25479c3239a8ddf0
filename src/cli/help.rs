//! What `--help` says, of hbd and of each command, and what is said of arguments that are wrong: the
//! nearest command or option of the help is suggested. Pure.

use std::ffi::OsStr;

use lexopt::Error;

use crate::config_file::suggestion;

/// What `hbd --help` says.
pub const OVERVIEW: &str = "\
hbd watches hosts by their heartbeats and tells people.

  hbd run        the daemon, in the foreground, log on the standard error
  hbd check      says what is wrong with the configuration
  hbd reload     has the running daemon read it again, and says what changed
  hbd status     how hosts and channels are
  hbd log        what was sent to whom, or what happened
  hbd notify     sends a message now, through the real channels
  hbd silence    holds messages back for a time; lists what is silent
  hbd unsilence  ends silences
  hbd ack        stops reminders of what was told and is still wrong
  hbd backup     how backup plans fared, and how their repositories are
  hbd key        makes a key; says who still signs with the previous one
  hbd dyndns     the names of hosts in the DNS
  hbd forget     gives up a connection, or a host, until it beats again
  hbd cluster    has the leader hand over; moves the state into Redis and back
  hbd names      the hosts or channels of the configuration, a line each

  hbd COMMAND --help   options and examples of a command
  hbd --version

The configuration is --config FILE, else $HBD_CONFIG, else
/etc/hbd/heartbeat.yaml. What the log shows is set by $HBD_LOG: error, warn,
info (default) or debug. Manual: hbd(8), heartbeat.yaml(5).
";

/// Stands in the text of a command for the options that name the daemon.
const DAEMON: &str = "@daemon\n";
const DAEMON_OPTIONS: &str = "  \
  -c, --config FILE  asks the daemon of this configuration
  --url URL          asks the one there, as http://host:port; the environment
                     variable HBD_TOKEN is its token
  --ca-file FILE     believes these authorities, too, about its certificate
";

/// The commands, and what `--help` says of each.
const COMMANDS: [(&str, &str); 15] = [
    ("run", RUN),
    ("check", CHECK),
    ("reload", RELOAD),
    ("status", STATUS),
    ("log", LOG),
    ("notify", NOTIFY),
    ("silence", SILENCE),
    ("unsilence", UNSILENCE),
    ("ack", ACK),
    ("backup", BACKUP),
    ("key", KEY),
    ("dyndns", DYNDNS),
    ("forget", FORGET),
    ("cluster", CLUSTER),
    ("names", NAMES),
];

const RUN: &str = "\
hbd run [--config FILE]

Runs the daemon in the foreground, with its log on the standard error, until
SIGTERM or SIGINT. SIGHUP has it read its configuration again.

  -c, --config FILE  the configuration

Exit status: 0 stopped, 1 cannot run, 78 the configuration is refused.

  hbd run --config ./heartbeat.yaml
";

const CHECK: &str = "\
hbd check [FILE] [--strict] [--json]

Prints everything that is wrong with a configuration, a line each, with the
place and the remedy. FILE is the configuration, as --config FILE is.

  -c, --config FILE  the configuration
  --strict           warnings count as errors, and a cluster's Redis is asked
  --json             for programs

Exit status: 0 it can be used, 78 it cannot.

  hbd check --strict ./heartbeat.yaml
";

const RELOAD: &str = "\
hbd reload [--json]

Has the running daemon read its configuration again, waits for that, and
prints what changed. When anything is wrong with it, every problem is printed,
and the daemon goes on with what it had.

  --json             for programs
@daemon
Exit status: 0 reloaded, 1 refused, 3 the daemon does not answer.

  hbd check && hbd reload
";

const STATUS: &str = "\
hbd status [HOST] [--all] [--watch] [--json] [--color WHEN]
hbd status --alive

How hosts and channels are, the worst first; or all that is known of one host.

  --alive            prints nothing: whether the daemon itself answers
  --all              hosts that are well, too
  --watch            draws it anew every two seconds, until Ctrl-C
  --json             for programs
  --color WHEN       auto (default), always or never
@daemon
Exit status: 0 all is well, 1 something is not or there is no such host,
3 the daemon does not answer.

  hbd status web1
";

const LOG: &str = "\
hbd log [HOST] [--events] [--follow] [--limit N] [--utc] [--json]

The last messages, the newest last: to whom, and how they ended.

  --events           what happened instead, told or not
  -f, --follow       goes on with new lines as they come, until Ctrl-C
  -n, --limit N      so many lines (default: 50)
  --utc              times in UTC instead of the zone of this machine
  --json             for programs; with --follow one object a line
@daemon
Exit status: 0, 1 there is no such host, 3 the daemon does not answer.

  hbd log web1 --events --limit 20
";

const NOTIFY: &str = "\
hbd notify (--host HOST | --channel NAME ... | --default) [--level LEVEL]
           [--json] MESSAGE

Sends a message now, from this process, through the real channels, whatever
their min_level. A MESSAGE of - is read from the standard input; -- goes before
one that begins with a dash.

  --host HOST        the channels of this host
  --channel NAME     this channel; may be repeated
  --default          the default channels
  --level LEVEL      ok, info, warning (default) or critical
  --json             for programs
  -c, --config FILE  the configuration

Exit status: 0 all sent, 1 some not, 78 the configuration is refused.

  hbd notify --default 'a test of all default channels'
";

const SILENCE: &str = "\
hbd silence SCOPE DURATION [--comment TEXT] [--unless LEVEL] [--by NAME]
hbd silence [--json]

Holds messages back for a time; without a SCOPE, lists what is silent, what
that holds back, and what is next. SCOPE is web1, web*, web1/ipv4,
web1/disk_monitor.*.percent, plan:4 or --all; DURATION is 30m, 2h, 1d.

  --all              everything
  --comment TEXT     why
  --unless LEVEL     info, warning or critical: what is told all the same
  --by NAME          who asks (default: the user)
  --utc              times in UTC instead of the zone of this machine
  --json             for programs
@daemon
Exit status: 0 done, 1 refused, 3 the daemon does not answer.

  hbd silence web1 2h --comment 'kernel update'
";

const UNSILENCE: &str = "\
hbd unsilence (ID | SCOPE | --all) [--json]

Ends a silence by its id as hbd silence lists it, those of exactly this scope,
or all, and says what follows.

  --all              all silences
  --json             for programs
@daemon
Exit status: 0 ended, 1 there is no such silence, 3 the daemon does not answer.

  hbd unsilence s17
";

const ACK: &str = "\
hbd ack SCOPE [--comment TEXT] [--for DURATION] [--by NAME] [--json]
hbd ack --undo SCOPE [--by NAME] [--json]

Stops reminders of what was told and is still wrong. SCOPE is as of silence.

  --all              everything
  --comment TEXT     why
  --for DURATION     for so long only: 30m, 2h, 1d
  --by NAME          who takes care (default: the user)
  --undo             takes that back
  --json             for programs
@daemon
Exit status: 0 done, 1 nothing there was told, 3 the daemon does not answer.

  hbd ack web1/disk_monitor.root.percent --comment 'new disk ordered'
";

const BACKUP: &str = "\
hbd backup (PLAN | --all) [--config FILE] [--json]
hbd backup PLAN --forget

How backup plans fared, asked of Redis and of the repositories now. PLAN is the
id or the name of one.

  --all              every plan
  --json             for programs
  --forget           ends a trouble that hbd tells of, until it changes; asks
                     the daemon, as these say:
@daemon
Exit status: 0 all succeeded, 1 not all, 3 the daemon does not answer,
78 the configuration is refused.

  hbd backup 4
";

const KEY: &str = "\
hbd key (HOST | --common) [--write FILE] [--config FILE]
hbd key --status [--utc] [--json]

Makes a key, and says where it goes on each side.

  --common           for all hosts that have no key of their own
  --write FILE       writes it to this new file, which its owner alone can read
  --status           who still signs with a previous key; asks the daemon:
@daemon
  --utc              times in UTC instead of the zone of this machine
  --json             for programs

Exit status: 0, 1 not written, or somebody signs with a previous key,
3 the daemon does not answer, 78 the configuration is refused.

  hbd key web1 --write /etc/hbd/secrets/web1.key
";

const DYNDNS: &str = "\
hbd dyndns [HOST] [--utc] [--json]
hbd dyndns HOST --dry-run [--address IP ...]

The names of hosts in the DNS, their addresses and last updates.

  --dry-run          what would be sent for that host; nothing is
  --address IP       as if the host had this address; may be repeated
  --utc              times in UTC instead of the zone of this machine
  --json             for programs
@daemon
Exit status: 0 all are kept, 1 not all, 3 the daemon does not answer,
78 the configuration is refused.

  hbd dyndns home --dry-run --address 192.0.2.7
";

const FORGET: &str = "\
hbd forget HOST[/CONNECTION]

Gives up a connection, or all that is known of a host, until it beats again.

@daemon
Exit status: 0 done, 1 there is no such thing, 3 the daemon does not answer.

  hbd forget web1/vpn
";

const CLUSTER: &str = "\
hbd cluster step-down
hbd cluster forget NODE [--config FILE]
hbd cluster (import | export) [--config FILE]

Has the node that leads the cluster hand over to another one. Or forgets a
node that is gone for good, which hbd status counts as missing. Or, while hbd
runs on no node, moves the state from the file of a single hbd into the Redis
of the cluster, which must be empty, or back into a file.

@daemon
Exit status: 0 done, 1 refused, 3 the daemon does not answer,
78 the configuration is refused.

  hbd cluster step-down
";

const NAMES: &str = "\
hbd names (hosts | channels) [--config FILE]

The names of the configuration, a line each, for scripts and for the
completions of shells. They are printed even when something else is wrong with
the file.

  -c, --config FILE  the configuration

Exit status: 0, 78 the file cannot be read.

  for host in $(hbd names hosts); do hbd key $host; done
";

/// What `--help` says of a command.
pub fn of(command: &str) -> String {
    text_of(command).unwrap_or(OVERVIEW).replace(DAEMON, DAEMON_OPTIONS)
}

fn text_of(command: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(name, _)| *name == command).map(|(_, text)| *text)
}

/// The error for a command that there is not.
pub fn unknown_command(name: &str) -> String {
    let meant = suggestion::suggestion(name, COMMANDS.iter().map(|(name, _)| *name));
    format!("there is no command \"{name}\"{meant}")
}

/// What is wrong with the arguments of a command, and the remedy, in one line.
pub fn describe(command: &str, why: Error) -> String {
    let whole = if command.is_empty() { "hbd".into() } else { format!("hbd {command}") };
    let said = match why {
        Error::UnexpectedOption(option) => unknown_option(command, &option),
        Error::UnexpectedArgument(word) => {
            format!("\"{}\" is one word too many", OsStr::to_string_lossy(&word))
        }
        Error::MissingValue { option: Some(option) } => {
            format!("{option}: a value is missing behind it")
        }
        Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        Error::NonUnicodeValue(word) => {
            format!("\"{}\" must be UTF-8", OsStr::to_string_lossy(&word))
        }
        other => other.to_string(),
    };
    // Where something is suggested, that is the remedy.
    let remedy = if said.ends_with('?') { String::new() } else { format!("; see {whole} --help") };
    format!("{whole}: {said}{remedy}")
}

fn unknown_option(command: &str, option: &str) -> String {
    let help = of(command);
    let words = help.split(|c: char| c.is_whitespace() || "[](),;:|".contains(c));
    let known = words.filter_map(|word| word.strip_prefix("--")).filter(|word| !word.is_empty());
    let near = option.strip_prefix("--").and_then(|name| suggestion::nearest(name, known));
    let meant = near.map_or(String::new(), |near| format!(", did you mean --{near}?"));
    format!("there is no option {option}{meant}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_help_fits_a_terminal_and_has_an_example() {
        assert!(OVERVIEW.lines().all(|line| line.chars().count() <= 80));
        for (name, _) in COMMANDS {
            let text = of(name);
            assert!(!text.contains('@'), "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
            let example = text.lines().last().unwrap();
            assert!(
                example.starts_with("  ") && example.contains(&format!("hbd {name}")),
                "{text}"
            );
            assert!(OVERVIEW.contains(&format!("\n  hbd {name} ")), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_with_arguments_is_said_with_the_remedy() {
        let option = |option: &str| Error::UnexpectedOption(option.into());
        for (command, why, said) in [
            (
                "status",
                option("--josn"),
                "hbd status: there is no option --josn, did you mean --json?",
            ),
            ("status", option("-x"), "hbd status: there is no option -x; see hbd status --help"),
            (
                "run",
                option("--frobnicate"),
                "hbd run: there is no option --frobnicate; see hbd run --help",
            ),
            (
                "log",
                option("--followw"),
                "hbd log: there is no option --followw, did you mean --follow?",
            ),
            ("", option("--versoin"), "hbd: there is no option --versoin, did you mean --version?"),
            (
                "log",
                Error::UnexpectedArgument("b".into()),
                "hbd log: \"b\" is one word too many; see hbd log --help",
            ),
            (
                "log",
                Error::MissingValue { option: Some("--limit".into()) },
                "hbd log: --limit: a value is missing behind it; see hbd log --help",
            ),
            (
                "",
                unknown_command("stauts").into(),
                "hbd: there is no command \"stauts\", did you mean \"status\"?",
            ),
        ] {
            assert_eq!(describe(command, why), said);
        }
        assert!(unknown_command("frobnicate").contains("; there are: run, check, "));
    }
}
