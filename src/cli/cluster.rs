//! `hbd cluster`: has the leader hand over, forgets a node that is gone, or moves the state of a single hbd
//! into the Redis of its cluster and back.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::client::{Client, DaemonArgs, DaemonOption, print_unreachable};
use super::{CONFIGURATION, FAILED, config_file, help, print, print_error};
use crate::cluster::connection::Connector;
use crate::cluster::keys::Keys;
use crate::cluster::members;
use crate::cluster::settings::ClusterSettings;
use crate::config::Config;
use crate::daemon::migration;
use crate::notify::text::{LineBreaks, clean};

#[derive(Debug, Default, PartialEq)]
struct ClusterArgs {
    daemon: DaemonArgs,
    action: Option<Action>,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    StepDown,
    /// The node of that name.
    Forget(String),
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
        Action::Forget(node) => {
            args.need_no_daemon()?;
            return Ok(forget(args.daemon.config, &node));
        }
        Action::Import => migration::import,
        Action::Export => migration::export,
    };
    args.need_no_daemon()?;
    Ok(migrate(args.daemon.config, moves))
}

impl ClusterArgs {
    fn need_no_daemon(&self) -> Result<(), lexopt::Error> {
        if self.daemon.url.is_some() || self.daemon.ca_file.is_some() {
            return Err("--url and --ca-file go with step-down".into());
        }
        Ok(())
    }
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
                    "forget" => Action::Forget(parser.value()?.string()?),
                    "import" => Action::Import,
                    "export" => Action::Export,
                    other => {
                        let what = format!(
                            "there is step-down, forget, import and export, not \"{other}\""
                        );
                        return Err(what.into());
                    }
                });
            }
            other => return Err(other.unexpected()),
        }
    }
    let action =
        args.action.take().ok_or("name what to do: step-down, forget, import or export")?;
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

/// The configuration, and what it says of the cluster; else the exit code.
fn load(file: Option<PathBuf>) -> Result<(Config, ClusterSettings), u8> {
    let config = Config::load(config_file(file)).map_err(|problems| {
        print_error(&problems);
        CONFIGURATION
    })?;
    let Some(settings) = config.cluster.clone() else {
        print_error(&format!("{}: there is no section cluster", config.file.display()));
        return Err(FAILED);
    };
    Ok((config, settings))
}

/// Forgets a node that is gone. One that lives tells of itself again within a second.
fn forget(file: Option<PathBuf>, node: &str) -> u8 {
    let settings = match load(file) {
        Ok((_, settings)) => settings,
        Err(code) => return code,
    };
    let forgotten = Connector::new(&settings).and_then(|connector| {
        let mut redis = connector.connect().map_err(|fault| fault.to_string())?;
        members::forget(&mut redis, &Keys::new(&settings.name), node)
            .map_err(|fault| fault.to_string())
    });
    match forgotten {
        Ok(true) => print(&format!("{node} is forgotten\n")),
        Ok(false) => {
            print_error(&format!("no node is called {node}"));
            FAILED
        }
        Err(why) => {
            print_error(&clean(&why, LineBreaks::Remove));
            FAILED
        }
    }
}

fn migrate(file: Option<PathBuf>, moves: Migration) -> u8 {
    let (config, settings) = match load(file) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    match moves(&config, &settings) {
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
        let forget = Action::Forget("hb3".into());
        assert_eq!(parsed(&["forget", "hb3"]), Ok(Some(forget)));
        for words in [&[][..], &["forgive"], &["import", "export"], &["forget"]] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }
}
