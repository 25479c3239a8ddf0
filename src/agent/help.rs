//! What `--help` says, of hbc and of each command. Pure.

use crate::config_file::suggestion;

/// What `hbc --help` says.
pub const OVERVIEW: &str = "\
hbc tells hbd how this host is.

  hbc run      beats until it is stopped
  hbc check    says what is wrong with the configuration
  hbc send     sends one datagram
  hbc exec     runs a job and tells how it went
  hbc silence  asks hbd not to tell of this host for so long
  hbc metrics  prints what this machine says about itself

  hbc COMMAND --help   options and examples of a command
  hbc --version

The configuration is --config FILE, else $HBC_CONFIG, else /etc/hbc/hbc.yaml;
options go before it. What the logs of run and metrics show is set by $HBC_LOG:
error, warn, info (default) or debug. Manual: hbc(8).
";

/// The commands, and what `--help` says of each.
const COMMANDS: [(&str, &str); 6] = [
    ("run", RUN),
    ("check", CHECK),
    ("send", SEND),
    ("exec", EXEC),
    ("silence", SILENCE),
    ("metrics", METRICS),
];

const RUN: &str = "\
hbc run [--config FILE] [--server HOST[:PORT] ...] [--host NAME]
        [--interval DURATION] [--key-file FILE]

Beats until it is stopped: boot first, shutdown at SIGTERM.

  --config FILE         the configuration
  --server HOST[:PORT]  where hbd listens, port 9099 if none is given; may be
                        repeated
  --host NAME           the name of this host (default: that of the machine)
  --interval DURATION   between two beats: 10s, 1m
  --key-file FILE       signs with the key in FILE

Exit status: 0 stopped, 1 cannot run, 78 wrong configuration.

  hbc run --server hbd.example.com --key-file ./hbc.key
";

const CHECK: &str = "\
hbc check [FILE] [--strict] [--json]

Prints everything that is wrong with the configuration, a line each, with the
place and the remedy. FILE is the configuration, as --config FILE is.

  --config FILE  the configuration
  --strict       warnings count as errors
  --json         for programs

Exit status: 0 it can be used, 78 it cannot.

  hbc check --strict ./hbc.yaml
";

const SEND: &str = "\
hbc send [OPTION ...]

Sends one datagram. Without --server, server, key and host are those of the
configuration.

  --server HOST[:PORT]  where hbd listens, port 9099 if none is given; may be
                        repeated
  --host NAME           the host that it is about (default: this machine)
  --connection NAME     the path to it (default: ipv4 or ipv6)
  --event EVENT         beat (default), boot, shutdown or message
  --message TEXT        the text of a message; makes it one
  --metric PATH=VALUE   a number, as disk_monitor.root.percent=81.5; may be
                        repeated
  --interval DURATION   when the next beat will come: 30s, 5m, 1d
  --boot-id ID|auto     the id of this boot; auto asks the kernel
  --uptime              how long this machine has been running
  --key-file FILE       signs with the key in FILE
  --wait DURATION       asks for an answer, and prints how long it took

Exit status: 0 sent (with --wait: every server has answered), 1 not.

  hbc send --message 'the tape is full' --wait 3s
";

const EXEC: &str = "\
hbc exec [OPTION ...] [--] COMMAND [ARGUMENT ...]

Runs a job, tells that it began and how it ended, and ends as it did.

  --name NAME           what the job is called (default: the command's name)
  --server HOST[:PORT]  where hbd listens; may be repeated (default: that of
                        the configuration)
  --host NAME           the host that it is about (default: this machine)
  --connection NAME     the path to it (default: ipv4 or ipv6)
  --metric PATH=VALUE   a number; may be repeated
  --interval DURATION   when the next run will come: 1h, 1d
  --key-file FILE       signs with the key in FILE
  --wait DURATION       how long an answer is waited for

Exit status: that of the job, or 128 and the number of the signal that ended it.

  hbc exec --name backup --interval 1d -- /usr/local/bin/backup
";

const SILENCE: &str = "\
hbc silence (DURATION | end) [OPTION ...]

Asks hbd not to tell of this host for so long, or to end that.

  --comment TEXT        why
  --wait DURATION       how long an answer is waited for (default: 10s)
  --server HOST[:PORT]  where hbd listens; may be repeated (default: that of
                        the configuration)
  --host NAME           the host that it is about (default: this machine)
  --connection NAME     the path to it (default: ipv4 or ipv6)
  --key-file FILE       signs with the key in FILE

Exit status: 0 every server has answered, 1 not.

  hbc silence 20m --comment 'kernel update'
";

const METRICS: &str = "\
hbc metrics [--metrics-dir DIRECTORY]

Prints what this machine says about itself, after a second in which rates are
measured.

  --metrics-dir DIRECTORY  programs that are run, too (default:
                           /etc/hbc/metrics.d)

Exit status: 0.

  hbc metrics --metrics-dir ./metrics.d
";

/// What `--help` says of a command; of one that there is not, what it says of all.
pub fn of(command: &str) -> &'static str {
    COMMANDS.iter().find(|(name, _)| *name == command).map_or(OVERVIEW, |(_, text)| *text)
}

/// The error for a command that there is not.
pub fn unknown_command(name: &str) -> String {
    let meant = suggestion::suggestion(name, COMMANDS.iter().map(|(name, _)| *name));
    format!("there is no command \"{name}\"{meant}")
}

/// The error for an option that a command does not have, with its dashes.
pub fn unknown_option(command: &str, option: &str) -> String {
    let words = of(command).split(|c: char| c.is_whitespace() || "[](),;:|".contains(c));
    let known = words.filter_map(|word| word.strip_prefix("--")).filter(|word| !word.is_empty());
    let (none, gap) = match command {
        "" => ("there is no option".to_owned(), ""),
        _ => (format!("{command} has no option"), " "),
    };
    match option.strip_prefix("--").and_then(|name| suggestion::nearest(name, known)) {
        Some(near) => format!("{none} {option}, did you mean --{near}?"),
        None => format!("{none} {option}, see hbc {command}{gap}--help"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_help_fits_a_terminal_and_has_an_example() {
        assert!(OVERVIEW.lines().all(|line| line.chars().count() <= 80));
        for (name, text) in COMMANDS {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
            let example = text.lines().last().unwrap();
            assert!(example.starts_with(&format!("  hbc {name} ")), "{text}");
            assert!(OVERVIEW.contains(&format!("\n  hbc {name} ")), "{name}");
        }
    }

    #[test]
    fn the_nearest_command_or_option_is_suggested() {
        assert!(unknown_command("sned").ends_with("\"sned\", did you mean \"send\"?"));
        assert!(unknown_command("frobnicate").contains("; there are: run, check, send, "));
        for (command, option, said) in [
            ("send", "--sever", "send has no option --sever, did you mean --server?"),
            ("send", "-x", "send has no option -x, see hbc send --help"),
            ("metrics", "--server", "metrics has no option --server, see hbc metrics --help"),
            ("", "--versoin", "there is no option --versoin, did you mean --version?"),
        ] {
            assert_eq!(unknown_option(command, option), said);
        }
    }
}
