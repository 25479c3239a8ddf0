//! The command line of hbc: arguments to a command, or what is wrong with them and the remedy. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use super::help;
use super::plugins::PluginSettings;
use super::server::ServerAddress;
use super::settings::{CliOverrides, INTERVAL_RANGE};
use crate::clock::format_duration;
use crate::duration;
use crate::heartbeat::datagram::{DatagramKind, MAX_SILENCE};

/// What hbc is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum CliCommand {
    /// Print the help about this command; about all when it is empty.
    Help(&'static str),
    /// Print the version.
    Version,
    /// Send beats until stopped.
    Run(CliOverrides),
    /// Check the configuration.
    Check {
        /// The file instead of the default one.
        config: Option<PathBuf>,
        /// Whether warnings count as errors.
        strict: bool,
        /// For programs.
        json: bool,
    },
    /// Send one datagram.
    Send(Box<SendArgs>),
    /// Run a job and report its start and its end.
    Exec(Box<ExecArgs>),
    /// Print the metrics of this machine, and of the plugins in that directory.
    Metrics(PathBuf),
}

/// The options of `hbc exec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecArgs {
    /// The servers that the job is reported to, its host, and how long an answer is waited for.
    pub send: SendArgs,
    /// The name of the job; none makes it the file name of the command.
    pub name: Option<String>,
    /// The command and its arguments. There is at least one.
    pub command: Vec<OsString>,
}

/// The options of `hbc send`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SendArgs {
    /// All that it is sent to; none leaves it to hbc.yaml.
    pub servers: Vec<ServerAddress>,
    /// None is this machine.
    pub host: Option<String>,
    /// None leaves it to the address.
    pub connection: Option<String>,
    /// The event of the datagram.
    pub event: DatagramKind,
    /// The text of a message, or why there is to be a silence.
    pub message: Option<String>,
    /// How long the silence is to last that it asks for; zero ends one.
    pub silence: Option<Duration>,
    /// Numbers by dotted path.
    pub metrics: BTreeMap<String, f64>,
    /// Texts beside these numbers, by the same paths.
    pub texts: BTreeMap<String, String>,
    /// When the next beat is promised.
    pub interval: Option<Duration>,
    /// The boot id, if it is sent.
    pub boot_id: Option<BootIdSource>,
    /// Whether the uptime is sent.
    pub uptime: bool,
    /// The file with the key.
    pub key_file: Option<PathBuf>,
    /// How long an answer is waited for; none wants no answer.
    pub wait: Option<Duration>,
}

/// Where the boot id comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootIdSource {
    /// `auto`: the kernel.
    Kernel,
    /// The command line.
    Given(String),
}

/// Why the arguments of a command are not read to their end.
#[derive(Debug, PartialEq)]
enum Instead {
    Help,
    Version,
    /// An option that the command does not have, with its dashes.
    UnknownOption(String),
    Wrong(String),
}

impl From<String> for Instead {
    fn from(why: String) -> Instead {
        Instead::Wrong(why)
    }
}

impl From<&str> for Instead {
    fn from(why: &str) -> Instead {
        Instead::Wrong(why.to_owned())
    }
}

type ParseCommand = fn(&mut Parser) -> Result<CliCommand, Instead>;

const COMMANDS: [(&str, ParseCommand); 6] = [
    ("run", run),
    ("check", check),
    ("send", send),
    ("exec", exec),
    ("silence", silence),
    ("metrics", metrics),
];

/// Parses the arguments behind the program's name. The error is for the operator.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<CliCommand, String> {
    let mut parser = Parser::from_args(arguments);
    let mut command = "";
    match parse_command(&mut parser, &mut command) {
        Ok(parsed) => Ok(parsed),
        Err(Instead::Help) => Ok(CliCommand::Help(command)),
        Err(Instead::Version) => Ok(CliCommand::Version),
        Err(Instead::UnknownOption(option)) => Err(help::unknown_option(command, &option)),
        Err(Instead::Wrong(why)) => Err(why),
    }
}

/// `command` is then the name of the command.
fn parse_command(parser: &mut Parser, command: &mut &'static str) -> Result<CliCommand, Instead> {
    let find = |word: &OsString| COMMANDS.iter().find(|(name, _)| word == *name);
    match next(parser)? {
        None => Err("what shall be done? Try: hbc --help".into()),
        Some(Argument::Value(word)) if word == "help" => {
            if let Ok(of) = parser.value() {
                let unknown = || help::unknown_command(&of.to_string_lossy());
                *command = find(&of).ok_or_else(unknown)?.0;
            }
            Err(Instead::Help)
        }
        Some(Argument::Value(word)) => {
            let unknown = || help::unknown_command(&word.to_string_lossy());
            let (name, parse) = find(&word).ok_or_else(unknown)?;
            *command = name;
            parse(parser)
        }
        Some(Argument::Long(name)) if COMMANDS.iter().any(|(of, _)| has_option(of, &name)) => {
            Err(format!("--{name}: a command comes first, such as: hbc send --{name} ...").into())
        }
        Some(other) => Err(unknown(&other)),
    }
}

/// Whether the help of a command has this option.
fn has_option(command: &str, name: &str) -> bool {
    let mut words = help::of(command).split(|c: char| c.is_whitespace() || c == ']');
    words.any(|word| word.strip_prefix("--") == Some(name))
}

/// One argument, with the options that every command has set apart.
enum Argument {
    Short(char),
    Long(String),
    Value(OsString),
}

fn next(parser: &mut Parser) -> Result<Option<Argument>, Instead> {
    Ok(match parser.next().map_err(|why| format!("{why}, see hbc --help"))? {
        None => None,
        Some(Arg::Short('h') | Arg::Long("help")) => return Err(Instead::Help),
        Some(Arg::Short('V') | Arg::Long("version")) => return Err(Instead::Version),
        Some(Arg::Short(letter)) => Some(Argument::Short(letter)),
        Some(Arg::Long(name)) => Some(Argument::Long(name.to_owned())),
        Some(Arg::Value(value)) => Some(Argument::Value(value)),
    })
}

/// Parses the options of a command that takes nothing else: `set` gets the name of each.
fn options(
    parser: &mut Parser,
    mut set: impl FnMut(&str, &mut Parser) -> Result<(), Instead>,
) -> Result<(), Instead> {
    while let Some(argument) = next(parser)? {
        match argument {
            Argument::Long(name) => set(&name, parser)?,
            other => return Err(unknown(&other)),
        }
    }
    Ok(())
}

fn send(parser: &mut Parser) -> Result<CliCommand, Instead> {
    let mut args = SendArgs::default();
    let mut event = None;
    options(parser, |name, parser| {
        match name {
            "uptime" => args.uptime = true,
            "event" => event = Some(kind(&value(parser, name)?)?),
            _ => args.set(name, parser)?,
        }
        Ok(())
    })?;
    args.event = match (event, &args.message) {
        (None, Some(_)) => DatagramKind::Message,
        (Some(DatagramKind::Message), None) => {
            return Err("--event message: give --message TEXT".into());
        }
        (Some(DatagramKind::Beat | DatagramKind::Boot | DatagramKind::Shutdown), Some(_)) => {
            return Err("--message: is the text of --event message, not of another event".into());
        }
        (event, _) => event.unwrap_or_default(),
    };
    args.validate_event()?;
    Ok(CliCommand::Send(Box::new(args)))
}

impl SendArgs {
    /// Refuses what hbd would ignore.
    fn validate_event(&self) -> Result<(), String> {
        match self.event {
            DatagramKind::Beat | DatagramKind::Boot => Ok(()),
            DatagramKind::Shutdown | DatagramKind::Message if !self.metrics.is_empty() => {
                Err("--metric: belongs to a beat or a boot, send it by itself".into())
            }
            DatagramKind::Shutdown | DatagramKind::Message if self.interval.is_some() => {
                Err("--interval: promises the next beat, and belongs to a beat or a boot".into())
            }
            DatagramKind::Shutdown | DatagramKind::Message | DatagramKind::Silence => Ok(()),
        }
    }

    /// Sets the option `name` to the value that follows.
    fn set(&mut self, name: &str, parser: &mut Parser) -> Result<(), Instead> {
        let of_option = |why: String| format!("--{name}: {why}");
        match name {
            "server" => {
                self.servers.push(ServerAddress::parse(&value(parser, name)?).map_err(of_option)?);
            }
            "host" => self.host = Some(value(parser, name)?),
            "connection" => self.connection = Some(value(parser, name)?),
            "message" => self.message = Some(value(parser, name)?),
            "metric" => {
                let (path, number) = metric(&value(parser, name)?).map_err(of_option)?;
                if self.metrics.insert(path.clone(), number).is_some() {
                    return Err(format!("--metric: {path} is given twice").into());
                }
            }
            "interval" => {
                self.interval = Some(duration::parse(&value(parser, name)?).map_err(of_option)?);
            }
            "boot-id" => {
                self.boot_id = Some(match value(parser, name)?.as_str() {
                    "auto" => BootIdSource::Kernel,
                    id => BootIdSource::Given(id.to_owned()),
                });
            }
            "key-file" => self.key_file = Some(value(parser, name)?.into()),
            "wait" => self.wait = Some(wait(&value(parser, name)?).map_err(of_option)?),
            _ => return Err(unknown_option(name)),
        }
        Ok(())
    }
}

/// The error for an argument that has no place where it stands.
fn unknown(argument: &Argument) -> Instead {
    match argument {
        Argument::Short(letter) => Instead::UnknownOption(format!("-{letter}")),
        Argument::Long(name) => unknown_option(name),
        Argument::Value(word) => {
            let word = word.to_string_lossy();
            format!("\"{word}\" belongs to no option; a text with spaces needs quotes").into()
        }
    }
}

fn unknown_option(name: &str) -> Instead {
    Instead::UnknownOption(format!("--{name}"))
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

/// The last `=` separates path and value: a number has none.
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

fn run(parser: &mut Parser) -> Result<CliCommand, Instead> {
    let mut overrides = CliOverrides::default();
    options(parser, |name, parser| set_override(&mut overrides, name, parser))?;
    Ok(CliCommand::Run(overrides))
}

fn set_override(
    overrides: &mut CliOverrides,
    name: &str,
    parser: &mut Parser,
) -> Result<(), Instead> {
    let of_option = |why: String| format!("--{name}: {why}");
    match name {
        "config" => overrides.config = Some(value(parser, name)?.into()),
        "server" => {
            let server = ServerAddress::parse(&value(parser, name)?).map_err(of_option)?;
            if overrides.servers.contains(&server) {
                return Err(format!("--server: {server} is given twice").into());
            }
            overrides.servers.push(server);
        }
        "host" => overrides.host = Some(value(parser, name)?),
        "interval" => {
            let interval = duration::parse(&value(parser, name)?).map_err(of_option)?;
            if !INTERVAL_RANGE.contains(&interval) {
                let (from, to) = (
                    format_duration(*INTERVAL_RANGE.start()),
                    format_duration(*INTERVAL_RANGE.end()),
                );
                return Err(of_option(format!("must be from {from} to {to}")).into());
            }
            overrides.interval = Some(interval);
        }
        "key-file" => overrides.key_file = Some(value(parser, name)?.into()),
        _ => return Err(unknown_option(name)),
    }
    Ok(())
}

fn check(parser: &mut Parser) -> Result<CliCommand, Instead> {
    let (mut config, mut strict, mut json) = (None::<PathBuf>, false, false);
    let mut name_file = |file: PathBuf| match config.replace(file) {
        None => Ok(()),
        Some(_) => Err("name one file: FILE is the same as --config FILE"),
    };
    while let Some(argument) = next(parser)? {
        match argument {
            Argument::Value(file) => name_file(file.into())?,
            Argument::Long(name) => match name.as_str() {
                "config" => name_file(value(parser, &name)?.into())?,
                "strict" => strict = true,
                "json" => json = true,
                _ => return Err(unknown_option(&name)),
            },
            short @ Argument::Short(_) => return Err(unknown(&short)),
        }
    }
    Ok(CliCommand::Check { config, strict, json })
}

/// The options that `hbc exec` has in common with `hbc send`.
const SEND_OPTIONS_OF_EXEC: &[&str] =
    &["server", "host", "connection", "metric", "interval", "key-file", "wait"];

/// The options end with `--`, or with the first word that is none: that is the command.
fn exec(parser: &mut Parser) -> Result<CliCommand, Instead> {
    let mut args = ExecArgs::default();
    while let Some(argument) = next(parser)? {
        match argument {
            short @ Argument::Short(_) => return Err(unknown(&short)),
            Argument::Long(name) => match name.as_str() {
                "name" => args.name = Some(value(parser, &name)?),
                "event" | "message" => {
                    return Err(format!("--{name}: exec tells by itself how the job went").into());
                }
                _ if SEND_OPTIONS_OF_EXEC.contains(&name.as_str()) => {
                    args.send.set(&name, parser)?;
                }
                _ => return Err(unknown_option(&name)),
            },
            Argument::Value(command) => {
                args.command.push(command);
                args.command.extend(parser.raw_args().map_err(|why| why.to_string())?);
                break;
            }
        }
    }
    if args.command.is_empty() {
        return Err("what shall be run? Try: hbc exec --server HOST:PORT -- COMMAND".into());
    }
    Ok(CliCommand::Exec(Box::new(args)))
}

/// The options that `hbc silence` has in common with `hbc send`.
const SEND_OPTIONS_OF_SILENCE: &[&str] = &["server", "host", "connection", "key-file", "wait"];
/// How long a silence waits for an answer, without `--wait`: one that was not stored is none.
const SILENCE_WAIT: Duration = Duration::from_secs(10);

fn silence(parser: &mut Parser) -> Result<CliCommand, Instead> {
    let mut args =
        SendArgs { event: DatagramKind::Silence, wait: Some(SILENCE_WAIT), ..SendArgs::default() };
    while let Some(argument) = next(parser)? {
        match argument {
            Argument::Long(name) if name == "comment" => {
                args.message = Some(value(parser, &name)?);
            }
            Argument::Long(name) if SEND_OPTIONS_OF_SILENCE.contains(&name.as_str()) => {
                args.set(&name, parser)?;
            }
            Argument::Value(word) if args.silence.is_none() => {
                args.silence = Some(silence_length(&word.to_string_lossy())?);
            }
            other => return Err(unknown(&other)),
        }
    }
    if args.silence.is_none() {
        return Err("a duration is missing, such as: hbc silence 20m".into());
    }
    Ok(CliCommand::Send(Box::new(args)))
}

fn silence_length(word: &str) -> Result<Duration, String> {
    match word {
        "end" => Ok(Duration::ZERO),
        _ => match duration::parse(word).map_err(|why| format!("the length {why}, or end"))? {
            length if length > MAX_SILENCE => Err("the length must be at most 366d".into()),
            length => Ok(length),
        },
    }
}

fn metrics(parser: &mut Parser) -> Result<CliCommand, Instead> {
    let mut directory = PluginSettings::default().directory;
    options(parser, |name, parser| match name {
        "metrics-dir" => {
            directory = value(parser, name)?.into();
            Ok(())
        }
        _ => Err(unknown_option(name)),
    })?;
    Ok(CliCommand::Metrics(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<CliCommand, String> {
        parse(line.iter().map(OsString::from))
    }

    fn send_args(line: &[&str]) -> SendArgs {
        match parsed(line) {
            Ok(CliCommand::Send(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_options_of_send_are_understood() {
        let args = send_args(&[
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
            args.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["a:1", "[::1]:2"]
        );
        assert_eq!(args.metrics, [("a.b".into(), 1.5), ("c".into(), -2000.0)].into());
        assert_eq!(args.interval, Some(Duration::from_secs(90)));
        assert_eq!(args.wait, Some(Duration::from_secs(3)));
        assert_eq!(args.boot_id, Some(BootIdSource::Kernel));
        assert_eq!(args.event, DatagramKind::Beat);
        assert!(args.uptime);
    }

    #[test]
    fn a_text_makes_it_a_message() {
        let args = send_args(&["send", "--server", "a", "--message", "-- disk tired"]);
        assert_eq!(args.event, DatagramKind::Message);
        assert_eq!(args.message.as_deref(), Some("-- disk tired"));
    }

    #[test]
    fn help_and_version_are_found_anywhere() {
        for (line, of) in [
            (&["--help"][..], ""),
            (&["-h"], ""),
            (&["help"], ""),
            (&["help", "exec"], "exec"),
            (&["send", "--help"], "send"),
            (&["check", "-h"], "check"),
        ] {
            assert_eq!(parsed(line), Ok(CliCommand::Help(of)));
        }
        for line in [&["--version"][..], &["-V"], &["send", "-V"]] {
            assert_eq!(parsed(line), Ok(CliCommand::Version));
        }
    }

    #[test]
    fn every_wrong_option_says_what_is_wrong_and_the_remedy() {
        for (line, what) in [
            (&[][..], "what shall be done? Try: hbc --help"),
            (&["sned"], "there is no command \"sned\", did you mean \"send\"?"),
            (&["--server", "a"], "--server: a command comes first"),
            (&["send", "--server"], "--server: a value is missing"),
            (&["send", "--server", "a:x"], "--server: \"a:x\" must have a port"),
            (&["send", "--sever", "a"], "send has no option --sever, did you mean --server?"),
            (&["send", "-x"], "send has no option -x, see hbc send --help"),
            (&["--vesrion"], "there is no option --vesrion, did you mean --version?"),
            (&["-x"], "there is no option -x, see hbc --help"),
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

    fn parsed_words(line: &str) -> Result<CliCommand, String> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn all_options_of_run_and_check_are_understood() {
        let line =
            "run --config /c --server a --server b:7 --host web1 --interval 1m --key-file /k";
        let Ok(CliCommand::Run(overrides)) = parsed_words(line) else { panic!() };
        assert_eq!(overrides.config, Some("/c".into()));
        assert_eq!(
            overrides.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["a:9099", "b:7"]
        );
        assert_eq!(overrides.host.as_deref(), Some("web1"));
        assert_eq!(overrides.interval, Some(Duration::from_secs(60)));
        assert_eq!(overrides.key_file, Some("/k".into()));
        let check =
            |strict, json| Ok(CliCommand::Check { config: Some("/c".into()), strict, json });
        assert_eq!(parsed_words("check --strict --config /c"), check(true, false));
        assert_eq!(parsed_words("check /c --json"), check(false, true));
    }

    #[test]
    fn what_is_wrong_with_run_and_check_is_named_with_the_remedy() {
        for (line, what) in [
            ("run --server", "--server: a value is missing"),
            ("run --server a --server a:9099", "--server: a:9099 is given twice"),
            ("run --interval 1ms", "--interval: must be from 50 ms to 7 d"),
            ("run --wait 3s", "run has no option --wait"),
            ("run web1", "\"web1\" belongs to no option"),
            ("check -x", "check has no option -x"),
            ("check /c --config /c", "name one file"),
        ] {
            let why = parsed_words(line).unwrap_err();
            assert!(why.contains(what), "{line}: {why}");
        }
    }

    #[test]
    fn a_job_is_what_follows_the_options() {
        let argument_words = |args: &ExecArgs| {
            args.command.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for line in [
            &[
                "exec", "--server", "a", "--wait", "3", "--name", "n", "--", "backup", "--server",
                "x", "--",
            ][..],
            &["exec", "--server", "a", "--wait=3", "--name=n", "backup", "--server", "x", "--"],
        ] {
            let Ok(CliCommand::Exec(args)) = parsed(line) else { panic!("{line:?}") };
            assert_eq!(argument_words(&args), ["backup", "--server", "x", "--"]);
            assert_eq!(args.name.as_deref(), Some("n"));
            assert_eq!(args.send.wait, Some(Duration::from_secs(3)));
        }
    }

    #[test]
    fn a_silence_has_a_length_or_ends_and_waits_for_its_answer() {
        let of = |line: &[&str]| match parsed(line) {
            Ok(CliCommand::Send(args)) => *args,
            other => panic!("{other:?}"),
        };
        let args = of(&["silence", "20m", "--comment", "kernel update", "--server", "a"]);
        assert_eq!((args.event, args.wait), (DatagramKind::Silence, Some(SILENCE_WAIT)));
        assert_eq!(args.silence, Some(Duration::from_secs(1200)));
        assert_eq!(args.message.as_deref(), Some("kernel update"));
        for line in [&["silence", "end", "--wait=3"][..], &["silence", "--wait", "3", "0"]] {
            let args = of(line);
            let (silence, wait) = (args.silence.unwrap(), args.wait.unwrap());
            assert_eq!((silence, wait), (Duration::ZERO, Duration::from_secs(3)));
        }
        for (line, what) in [
            ("silence", "a duration is missing"),
            ("silence soon", "the length must be a duration"),
            ("silence 367d", "the length must be at most 366d"),
            ("silence 1h 2h", "\"2h\" belongs to no option"),
            ("silence 1h --message x", "silence has no option --message"),
            ("silence 1h -x", "silence has no option -x"),
        ] {
            let why = parsed_words(line).unwrap_err();
            assert!(why.contains(what), "{line}: {why}");
        }
    }

    #[test]
    fn metrics_come_from_a_directory_too() {
        let of = |line| match parsed(line) {
            Ok(CliCommand::Metrics(directory)) => directory,
            other => panic!("{other:?}"),
        };
        assert_eq!(of(&["metrics"]), PathBuf::from("/etc/hbc/metrics.d"));
        assert_eq!(of(&["metrics", "--metrics-dir", "/x"]), PathBuf::from("/x"));
    }

    #[test]
    fn what_is_wrong_with_exec_and_metrics_is_said_with_the_remedy() {
        for (line, what) in [
            (&["exec", "--server", "a"][..], "what shall be run?"),
            (&["exec", "--server", "a", "--"], "what shall be run?"),
            (&["exec", "--server", "a", "--message", "x"], "exec tells by itself"),
            (&["exec", "--server", "a", "--uptime", "x"], "exec has no option --uptime"),
            (&["exec", "-x"], "exec has no option -x"),
            (&["metrics", "x"], "\"x\" belongs to no option"),
            (&["metrics", "--server", "x"], "metrics has no option --server"),
        ] {
            let why = parsed(line).unwrap_err();
            assert!(why.contains(what), "{line:?}: {why}");
        }
    }
}
