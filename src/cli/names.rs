//! `hbd names`: the hosts or the channels of a configuration, for scripts and for completions.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::{CONFIGURATION, config_file, help, print, print_error};
use crate::address;
use crate::config::Config;

/// Reads the arguments and prints the names. Gives the exit code: 0, or 78 when the file cannot be
/// read.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(mut parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let (mut config, mut section) = (None::<PathBuf>, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => config = Some(parser.value()?.into()),
            Long("help") | Short('h') => return Ok(print(&help::of("names"))),
            Value(what) if section.is_none() => section = Some(section_of(&what.string()?)?),
            other => return Err(other.unexpected()),
        }
    }
    let section = section.ok_or("name what to list: hosts or channels")?;
    Ok(match Config::names_in(config_file(config), section) {
        // A shell expands what it completes: nothing but names.
        Ok(names) => {
            let names = names.iter().filter(|name| address::is_name(name));
            print(&names.map(|name| format!("{name}\n")).collect::<String>())
        }
        Err(problems) => {
            print_error(&problems);
            CONFIGURATION
        }
    })
}

fn section_of(what: &str) -> Result<&'static str, String> {
    match what {
        "hosts" => Ok("hosts"),
        "channels" => Ok("notification_channels"),
        _ => Err(format!("there are hosts and channels, not \"{what}\"")),
    }
}
