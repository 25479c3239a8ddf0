//! `hbc check`: says what is wrong with a configuration, or what it amounts to.

use std::path::PathBuf;

use super::machine;
use super::settings::{FAMILIES, Overrides, Settings};
use crate::problem::Problems;

/// What to print of the file at `config` (else the usual one), every problem in one line, and
/// whether it can be used. With `strict` warnings count as errors.
pub fn check(config: Option<PathBuf>, strict: bool) -> (String, bool) {
    let overrides = Overrides { config, ..Overrides::default() };
    let loaded = Settings::load(&overrides, &|name| std::env::var(name).ok());
    let said = |problems: &Problems| {
        problems.0.iter().map(|problem| format!("{problem}\n")).collect::<String>()
    };
    match loaded {
        Ok((_, warnings)) if strict && !warnings.0.is_empty() => (said(&warnings), false),
        Ok((settings, warnings)) => (said(&warnings) + &summary(&settings), true),
        Err(problems) => (said(&problems), false),
    }
}

/// `OK: web1 beats every 10 s to hbd.example.com:9099 over ipv4, ipv6, vpn`
fn summary(settings: &Settings) -> String {
    let host = settings.host.clone().or_else(|| machine::hostname().ok()).unwrap_or_default();
    let servers: Vec<_> = settings.servers.iter().map(ToString::to_string).collect();
    let families = FAMILIES.iter().zip(settings.families).filter(|(_, wanted)| *wanted);
    let connections: Vec<&str> = families
        .map(|((name, _), _)| *name)
        .chain(settings.connections.keys().map(String::as_str))
        .collect();
    let every = crate::clock::words(settings.interval);
    format!(
        "OK: {host} beats every {every} to {} over {}\n",
        servers.join(", "),
        connections.join(", ")
    )
}
