//! signal-cli as a process (man/signal-cli.1.adoc).

use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use super::{Signal, verdict};
use crate::clock::words;
use crate::notify::channel::Failure;
use crate::process;

impl Signal {
    /// Sends `text` by a run of signal-cli. The text goes in by the standard input: as an argument
    /// it would be seen by everybody, and a text that starts with `-` would be an option.
    pub(super) fn run_command(&self, text: &str, limit: Duration) -> Result<(), Failure> {
        let mut command = self.command();
        command.args(["-o", "json", "-a", &self.user, "send", "--message-from-stdin"]);
        if self.writes_to_itself() {
            command.arg("--notify-self");
        }
        match self.group() {
            Some(id) => command.arg(format!("--group-id={id}")),
            None => command.args(["--", &self.recipient]),
        };
        let finished =
            process::run(&mut command, text, limit).map_err(|why| self.not_started(&why))?;
        if finished.timed_out {
            let limit = words(limit);
            return Err(Failure::Unknown(format!("signal-cli did not end within {limit}")));
        }
        verdict::of_output(finished.code, &finished.stdout, &finished.stderr, &self.user)
    }

    /// What `signal-cli --version` says.
    pub(super) fn command_version(&self, limit: Duration) -> Result<String, String> {
        let name = self.cli_path.display();
        let finished = process::run(self.command().arg("--version"), "", limit)
            .map_err(|why| format!("{name} cannot be started: {why}"))?;
        if finished.timed_out {
            return Err(format!("{name} --version did not end within {}", words(limit)));
        }
        match finished.stdout.trim().strip_prefix("signal-cli ") {
            Some(version) if finished.code == Some(0) => Ok(verdict::brief(version)),
            _ => Err(verdict::of_failed_start(&finished.stderr)
                .unwrap_or_else(|| format!("{name} is not signal-cli: it tells no version"))),
        }
    }

    /// Under another locale than UTF-8 the JVM turns everything beyond ASCII into U+FFFD.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.cli_path);
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    fn not_started(&self, why: &std::io::Error) -> Failure {
        let name = self.cli_path.display();
        let why = match why.kind() {
            ErrorKind::NotFound => format!("{name} is not there, or its interpreter (cli_path?)"),
            ErrorKind::PermissionDenied => format!("{name} may not be executed"),
            _ => {
                let why = format!("{name} cannot be started: {why}");
                return Failure::Unreachable { why, after: None };
            }
        };
        Failure::ChannelRefused { why, after: None }
    }
}
