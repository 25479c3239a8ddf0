//! The command line of hbc: what is wanted, or what is wrong with it and the remedy. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use super::server::Server;
use super::settings::Overrides;
use crate::duration;
use crate::heartbeat::datagram::DatagramKind;

mod exec;
mod run;

/// What `hbc --help` says.
pub const HELP: &str = "\
hbc tells hbd how this host is.

  hbc run [--config FILE] [--server HOST[:PORT] ...] [--host NAME]
          [--interval DURATION] [--key-file FILE]
                                                beats until it is stopped
  hbc check [--config FILE] [--strict]          says what is wrong with the configuration
  hbc send [--server HOST[:PORT]] [OPTION ...]  sends one datagram
  hbc exec [--server HOST[:PORT]] [OPTION ...] [--] COMMAND [ARGUMENT ...]
                                                runs a job and tells how it went
  hbc metrics [--metrics-dir DIRECTORY]         prints what this machine says about itself
  hbc --help | --version

The configuration is FILE, else $HBC_CONFIG, else /etc/hbc/hbc.yaml; options go before it.
What the logs of run and metrics show is set by HBC_LOG: error, warn, info (default), debug.

Options of hbc send:
  --server HOST[:PORT]  where hbd listens, port 9099 if none is given; may be repeated;
                        without it, server, key and host are those of the configuration
  --host NAME           the host that it is about (default: the name of this machine)
  --connection NAME     the path to it (default: ipv4 or ipv6)
  --event EVENT         beat (default), boot, shutdown or message
  --message TEXT        the text of a message; makes it one
  --metric PATH=VALUE   a number, such as disk_monitor.root.percent=81.5; may be repeated
  --interval DURATION   when the next beat will come: 30s, 5m, 1d
  --boot-id ID|auto     the id of this boot; auto asks the kernel
  --uptime              how long this machine has been running
  --key-file FILE       signs with the key in FILE
  --wait DURATION       asks for an answer, waits for it and prints how long it took

exec takes --server, --host, --connection, --metric, --interval, --key-file and --wait, and:
  --name NAME           what the job is called (default: the command's file name)
metrics takes:
  --metrics-dir DIRECTORY  programs that are run, too (default: /etc/hbc/metrics.d)

Exit status: 0 sent (with --wait: every server has answered), 1 not, 2 wrong options,
78 wrong configuration; of exec that of the job, or 128 and the number of the signal that killed
it. hbc(8) has the details.
";

/// What hbc is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Beat until stopped.
    Run(Overrides),
    /// Say what is wrong with the configuration.
    Check {
        /// Instead of the usual file.
        config: Option<PathBuf>,
        /// Whether warnings count as errors.
        strict: bool,
    },
    /// Send one datagram.
    Send(Box<Errand>),
    /// Run a job and tell how it went.
    Exec(Box<Job>),
    /// Print the metrics of this machine, and of the programs in that directory.
    Metrics(PathBuf),
}

/// The options of `hbc exec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// Whom to tell, about which host, and for how long an answer is waited for.
    pub errand: Errand,
    /// What it is called; none leaves it to the command.
    pub name: Option<String>,
    /// What is run, and its arguments. There is at least one.
    pub command: Vec<OsString>,
}

/// The options of `hbc send`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errand {
    /// All that it is sent to; none leaves it to hbc.yaml.
    pub servers: Vec<Server>,
    /// None is this machine.
    pub host: Option<String>,
    /// None leaves it to the address.
    pub connection: Option<String>,
    /// What is told.
    pub event: DatagramKind,
    /// The text of a message.
    pub message: Option<String>,
    /// Numbers by dotted path.
    pub metrics: BTreeMap<String, f64>,
    /// When the next beat is promised.
    pub interval: Option<Duration>,
    /// The boot id, if it is told.
    pub boot_id: Option<BootId>,
    /// Whether the uptime is told.
    pub uptime: bool,
    /// Where the key is.
    pub key_file: Option<PathBuf>,
    /// How long an answer is waited for; none asks for none.
    pub wait: Option<Duration>,
}

/// Where the boot id comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootId {
    /// The kernel knows it.
    Kernel,
    /// The operator gave it.
    Given(String),
}

/// Reads the arguments behind the program's name. The error is what to tell the operator.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = Parser::from_args(arguments);
    match next(&mut parser)? {
        None => Err("what shall be done? Try: hbc --help".into()),
        Some(Word::Option('h')) => Ok(Command::Help),
        Some(Word::Option('V')) => Ok(Command::Version),
        Some(Word::Value(word)) if word == "help" => Ok(Command::Help),
        Some(Word::Value(word)) if word == "send" => send(&mut parser),
        Some(Word::Value(word)) if word == "exec" => exec::exec(&mut parser),
        Some(Word::Value(word)) if word == "metrics" => exec::metrics(&mut parser),
        Some(Word::Value(word)) if word == "run" => run::run(&mut parser),
        Some(Word::Value(word)) if word == "check" => run::check(&mut parser),
        Some(Word::Value(word)) => Err(format!("there is no command \"{word}\", try: hbc send")),
        Some(Word::Long(name)) => {
            Err(format!("--{name}: a command comes first, such as: hbc send --{name} ..."))
        }
        Some(Word::Option(letter)) => Err(format!("there is no option -{letter}, see hbc --help")),
    }
}

/// One argument, in our own words.
enum Word {
    Option(char),
    Long(String),
    Value(String),
}

fn next(parser: &mut Parser) -> Result<Option<Word>, String> {
    Ok(match parser.next().map_err(|why| format!("{why}, see hbc --help"))? {
        None => None,
        Some(Arg::Short(letter)) => Some(Word::Option(letter)),
        Some(Arg::Long("help")) => Some(Word::Option('h')),
        Some(Arg::Long("version")) => Some(Word::Option('V')),
        Some(Arg::Long(name)) => Some(Word::Long(name.to_owned())),
        Some(Arg::Value(value)) => Some(Word::Value(value.to_string_lossy().into_owned())),
    })
}

fn send(parser: &mut Parser) -> Result<Command, String> {
    let mut errand = Errand::default();
    let mut event = None;
    while let Some(word) = next(parser)? {
        match word {
            Word::Option('h') => return Ok(Command::Help),
            Word::Option('V') => return Ok(Command::Version),
            word @ (Word::Option(_) | Word::Value(_)) => return Err(unknown(word)),
            Word::Long(name) if name == "uptime" => errand.uptime = true,
            Word::Long(name) if name == "event" => event = Some(kind(&value(parser, &name)?)?),
            Word::Long(name) => errand.take(&name, parser)?,
        }
    }
    errand.event = match (event, &errand.message) {
        (None, Some(_)) => DatagramKind::Message,
        (Some(DatagramKind::Message), None) => {
            return Err("--event message: give --message TEXT".into());
        }
        (Some(DatagramKind::Beat | DatagramKind::Boot | DatagramKind::Shutdown), Some(_)) => {
            return Err("--message: is the text of --event message, not of another event".into());
        }
        (event, _) => event.unwrap_or_default(),
    };
    errand.check_event()?;
    Ok(Command::Send(Box::new(errand)))
}

impl Errand {
    /// What hbd would not look at is refused.
    fn check_event(&self) -> Result<(), String> {
        match self.event {
            DatagramKind::Beat | DatagramKind::Boot => Ok(()),
            DatagramKind::Shutdown | DatagramKind::Message if !self.metrics.is_empty() => {
                Err("--metric: belongs to a beat or a boot, send it by itself".into())
            }
            DatagramKind::Shutdown | DatagramKind::Message if self.interval.is_some() => {
                Err("--interval: promises the next beat, and belongs to a beat or a boot".into())
            }
            DatagramKind::Shutdown | DatagramKind::Message => Ok(()),
        }
    }

    /// Takes the value of one option.
    fn take(&mut self, name: &str, parser: &mut Parser) -> Result<(), String> {
        let of_option = |why: String| format!("--{name}: {why}");
        match name {
            "server" => {
                self.servers.push(Server::parse(&value(parser, name)?).map_err(of_option)?);
            }
            "host" => self.host = Some(value(parser, name)?),
            "connection" => self.connection = Some(value(parser, name)?),
            "message" => self.message = Some(value(parser, name)?),
            "metric" => {
                let (path, number) = metric(&value(parser, name)?).map_err(of_option)?;
                if self.metrics.insert(path.clone(), number).is_some() {
                    return Err(format!("--metric: {path} is given twice"));
                }
            }
            "interval" => {
                self.interval = Some(duration::parse(&value(parser, name)?).map_err(of_option)?);
            }
            "boot-id" => {
                self.boot_id = Some(match value(parser, name)?.as_str() {
                    "auto" => BootId::Kernel,
                    id => BootId::Given(id.to_owned()),
                });
            }
            "key-file" => self.key_file = Some(value(parser, name)?.into()),
            "wait" => self.wait = Some(wait(&value(parser, name)?).map_err(of_option)?),
            _ => return Err(unknown(Word::Long(name.to_owned()))),
        }
        Ok(())
    }
}

/// What is said of a word that has no place there.
fn unknown(word: Word) -> String {
    match word {
        Word::Option(letter) => format!("there is no option -{letter}, see hbc --help"),
        Word::Long(name) => format!("there is no option --{name}, see hbc --help"),
        Word::Value(word) => {
            format!("\"{word}\" belongs to no option; a text with spaces needs quotes")
        }
    }
}

fn value(parser: &mut Parser, name: &str) -> Result<String, String> {
    let value = parser.value().map_err(|_| format!("--{name}: a value is missing behind it"))?;
    value.string().map_err(|_| format!("--{name}: must be UTF-8"))
}

fn kind(text: &str) -> Result<DatagramKind, String> {
    match text {
        "beat" => Ok(DatagramKind::Beat),
        "boot" => Ok(DatagramKind::Boot),
        "shutdown" => Ok(DatagramKind::Shutdown),
        "message" => Ok(DatagramKind::Message),
        _ => Err(format!("--event: must be beat, boot, shutdown or message, not \"{text}\"")),
    }
}

/// The last `=` parts path and value: a number has none.
fn metric(text: &str) -> Result<(String, f64), String> {
    let Some((path, number)) = text.rsplit_once('=') else {
        return Err(format!(
            "must be PATH=VALUE, such as disk_monitor.root.percent=81.5, not \"{text}\""
        ));
    };
    match number.trim().parse() {
        Ok(value) if f64::is_finite(value) => Ok((path.trim().to_owned(), value)),
        Ok(_) | Err(_) => Err(format!("{path} must be a number, such as 81.5, not \"{number}\"")),
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        Duration::ZERO => Err("must be longer than nothing, such as 3s".into()),
        wait => Ok(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Command, String> {
        parse(line.iter().map(OsString::from))
    }

    fn errand(line: &[&str]) -> Errand {
        match parsed(line) {
            Ok(Command::Send(errand)) => *errand,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_options_are_understood() {
        let errand = errand(&[
            "send",
            "--server",
            "a:1",
            "--server=[::1]:2",
            "--host",
            "web1",
            "--connection",
            "vpn",
            "--event",
            "beat",
            "--metric",
            "a.b=1.5",
            "--metric",
            "c=-2e3",
            "--interval",
            "1m30s",
            "--key-file",
            "/k",
            "--boot-id",
            "auto",
            "--uptime",
            "--wait",
            "3",
        ]);
        assert_eq!(
            errand.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["a:1", "[::1]:2"]
        );
        assert_eq!(errand.metrics, [("a.b".into(), 1.5), ("c".into(), -2000.0)].into());
        assert_eq!(errand.interval, Some(Duration::from_secs(90)));
        assert_eq!(errand.wait, Some(Duration::from_secs(3)));
        assert_eq!(errand.boot_id, Some(BootId::Kernel));
        assert_eq!(errand.event, DatagramKind::Beat);
        assert!(errand.uptime);
    }

    #[test]
    fn a_text_makes_it_a_message() {
        let errand = errand(&["send", "--server", "a", "--message", "-- disk tired"]);
        assert_eq!(errand.event, DatagramKind::Message);
        assert_eq!(errand.message.as_deref(), Some("-- disk tired"));
    }

    #[test]
    fn help_and_version_are_found_anywhere() {
        for line in [&["--help"][..], &["-h"], &["help"], &["send", "--help"]] {
            assert_eq!(parsed(line), Ok(Command::Help));
        }
        for line in [&["--version"][..], &["-V"], &["send", "-V"]] {
            assert_eq!(parsed(line), Ok(Command::Version));
        }
    }

    #[test]
    fn every_wrong_option_says_what_is_wrong_and_the_remedy() {
        for (line, what) in [
            (&[][..], "what shall be done? Try: hbc --help"),
            (&["sned"], "there is no command \"sned\", try: hbc send"),
            (&["--server", "a"], "--server: a command comes first"),
            (&["send", "--server"], "--server: a value is missing"),
            (&["send", "--server", "a:x"], "--server: \"a:x\" must have a port"),
            (&["send", "--sever", "a"], "there is no option --sever, see hbc --help"),
            (&["send", "-x"], "there is no option -x, see hbc --help"),
            (&["send", "--uptime=5"], "see hbc --help"),
            (&["send", "--server", "a", "disk", "tired"], "\"disk\" belongs to no option"),
            (&["send", "--event", "reboot"], "must be beat, boot, shutdown or message"),
            (&["send", "--server", "a", "--event", "message"], "give --message TEXT"),
            (&["send", "--event", "boot", "--message", "x"], "is the text of --event message"),
            (&["send", "--metric", "cpu"], "must be PATH=VALUE"),
            (&["send", "--metric", "cpu=high"], "cpu must be a number"),
            (&["send", "--metric", "cpu=nan"], "cpu must be a number"),
            (&["send", "--metric", "a=1", "--metric", "a=2"], "a is given twice"),
            (&["send", "--interval", "soon"], "--interval: must be a duration"),
            (&["send", "--wait", "0"], "--wait: must be longer than nothing"),
            (&["send", "--message", "x", "--metric", "a=1"], "--metric: belongs to a beat"),
            (&["send", "--event", "shutdown", "--interval", "1d"], "--interval: promises"),
        ] {
            let why = parsed(line).unwrap_err();
            assert!(why.contains(what), "{line:?}: {why}");
        }
    }
}
