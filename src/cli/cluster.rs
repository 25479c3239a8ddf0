//! `hbd cluster`: has the leader hand over, or moves the state of a single hbd into the Redis of its
//! cluster and back.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::client::{Client, DaemonArgs, DaemonOption, print_unreachable};
use super::{CONFIGURATION, FAILED, config_file, help, print, print_error};
use crate::cluster::settings::ClusterSettings;
use crate::config::Config;
use crate::daemon::migration;
use crate::notify::text::{LineBreaks, clean};

#[derive(Debug, Default, PartialEq)]
struct ClusterArgs {
    daemon: DaemonArgs,
    action: Option<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    StepDown,
    Import,
    Export,
}

/// Reads the arguments and does what they say. Gives the exit code: 0 done, 1 refused, 3 the daemon
/// cannot be reached, 78 the configuration is refused.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some((args, action)) = parse_args(parser)? else {
        return Ok(print(&help::of("cluster")));
    };
    let moves: Migration = match action {
        Action::StepDown => {
            let client = args.daemon.client()?;
            return Ok(client.map_or_else(|code| code, |client| step_down(&client)));
        }
        Action::Import => migration::import,
        Action::Export => migration::export,
    };
    if args.daemon.url.is_some() || args.daemon.ca_file.is_some() {
        return Err("--url and --ca-file go with step-down".into());
    }
    Ok(migrate(args.daemon.config, moves))
}

type Migration = fn(&Config, &ClusterSettings) -> Result<usize, String>;

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<(ClusterArgs, Action)>, lexopt::Error> {
    let mut args = ClusterArgs::default();
    while let Some(argument) = parser.next()? {
        if let Some(option) = DaemonOption::of(&argument) {
            args.daemon.set(option, &mut parser)?;
            continue;
        }
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Value(word) if args.action.is_none() => {
                args.action = Some(match &*word.string()? {
                    "step-down" => Action::StepDown,
                    "import" => Action::Import,
                    "export" => Action::Export,
                    other => {
                        let what =
                            format!("there is step-down, import and export, not \"{other}\"");
                        return Err(what.into());
                    }
                });
            }
            other => return Err(other.unexpected()),
        }
    }
    let action = args.action.ok_or("name what to do: step-down, import or export")?;
    Ok(Some((args, action)))
}

/// Asks the node that the arguments name. The leader that another node names gets no token: where that
/// one is, is what Redis says, and not the operator.
fn step_down(client: &Client) -> u8 {
    let words = |text: &str| clean(text, LineBreaks::Remove);
    let Some(cluster) = client.cluster() else {
        print_error(&format!("{} is no node of a cluster, or does not answer", client.base()));
        return FAILED;
    };
    if let Some(leader) = cluster["leader"].as_str().filter(|_| cluster["role"] != "leader") {
        let url = cluster["leader_url"].as_str().unwrap_or("URL");
        let (leader, url) = (words(leader), words(url));
        print_error(&format!("{leader} leads: hbd cluster step-down --url {url}"));
        return FAILED;
    }
    match client.post_json("/api/v1/cluster/step-down", &serde_json::Value::Null) {
        Ok(Ok(_)) => {
            let name = cluster["leader"].as_str().unwrap_or("the leader");
            print(&format!("{} hands over to another node\n", words(name)))
        }
        Ok(Err(why)) => {
            print_error(&words(&why));
            FAILED
        }
        Err(why) => print_unreachable(&words(&why)),
    }
}

fn migrate(file: Option<PathBuf>, moves: Migration) -> u8 {
    let config = match Config::load(config_file(file)) {
        Ok(config) => config,
        Err(problems) => {
            print_error(&problems);
            return CONFIGURATION;
        }
    };
    let Some(settings) = &config.cluster else {
        print_error(&format!("{}: there is no section cluster", config.file.display()));
        return FAILED;
    };
    match moves(&config, settings) {
        Ok(rows) => print(&format!("{rows} rows were moved\n")),
        Err(why) => {
            print_error(&why);
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<Action>, String> {
        let parsed = parse_args(lexopt::Parser::from_args(words)).map_err(|why| why.to_string());
        parsed.map(|parsed| parsed.map(|(_, action)| action))
    }

    #[test]
    fn one_thing_is_done() {
        assert_eq!(parsed(&["step-down"]), Ok(Some(Action::StepDown)));
        assert_eq!(parsed(&["import", "-c", "x"]), Ok(Some(Action::Import)));
        assert_eq!(parsed(&["--help"]), Ok(None));
        for words in [&[][..], &["forgive"], &["import", "export"]] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }
}
