//! `hbd ack`: somebody takes care of what was told, so that the running daemon stops reminding.

use serde_json::{Value as Json, json};

use super::answer::texts;
use super::calm::{CalmArgs, body, print_answer, scope, seconds, with_known_hosts};
use super::client::Client;
use super::{help, print};

/// Reads the arguments and asks the daemon. Gives the exit code: 0 when it is acknowledged, 1 when
/// nothing that was told is wrong there, 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = CalmArgs::parse(parser, &["comment", "for", "by", "undo"])? else {
        return Ok(print(&help::of("ack")));
    };
    let scope = scope_of(&args)?;
    let client = args.client()?;
    Ok(client.map_or_else(|code| code, |client| acknowledge(&client, &args, &scope)))
}

fn scope_of(args: &CalmArgs) -> Result<String, lexopt::Error> {
    let [word] = &*args.words else {
        return Err("name what you take care of: web1, web1/ipv4, plan:4 or --all".into());
    };
    if args.undo && (args.comment.is_some() || args.length.is_some()) {
        return Err("--comment and --for do not go with --undo".into());
    }
    scope(word)
}

fn acknowledge(client: &Client, args: &CalmArgs, scope: &str) -> u8 {
    if args.undo {
        let body = json!({ "scope": scope, "by": args.by() });
        let answer = client.post_json("/api/v1/acknowledgements/end", &body);
        let answer = with_known_hosts(client, scope, answer);
        return print_answer(answer, args.json, |answer| lines("no longer acknowledged", answer));
    }
    let body = body(json!({
        "scope": scope,
        "comment": args.comment,
        "by": args.by(),
        "seconds": args.length.map(seconds),
    }));
    let answer = client.post_json("/api/v1/acknowledgements", &body);
    let answer = with_known_hosts(client, scope, answer);
    print_answer(answer, args.json, |answer| lines("acknowledged", answer))
}

/// A line for each alarm.
fn lines(what: &str, answer: &Json) -> String {
    texts(answer, "acknowledged").iter().map(|one| format!("{what}: {one}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(CalmArgs, String), String> {
        let parser = lexopt::Parser::from_args(line.split(' ').filter(|word| !word.is_empty()));
        let args = CalmArgs::parse(parser, &["comment", "for", "by", "undo"]);
        let args = args.map_err(|why| why.to_string())?.unwrap();
        let scope = scope_of(&args).map_err(|why| why.to_string())?;
        Ok((args, scope))
    }

    #[test]
    fn what_is_acknowledged_and_for_how_long_is_read() {
        let (args, scope) = parsed("web1/ipv4 --comment x --for 1h --by ann --json").unwrap();
        assert_eq!((&*scope, args.json, args.undo), ("web1/ipv4", true, false));
        assert_eq!(args.length, Some(std::time::Duration::from_secs(3600)));
        assert_eq!((args.comment.as_deref(), &*args.by()), (Some("x"), "ann"));
        let (args, scope) = parsed("--undo --all").unwrap();
        assert_eq!((&*scope, args.undo), ("--all", true));
    }

    #[test]
    fn what_is_wrong_with_an_acknowledgement_is_said() {
        for (line, what) in [
            ("", "name what you take care of"),
            ("web1 web2", "name what you take care of"),
            ("web1 --for soon", "--for must be a duration"),
            ("web1 --undo --comment x", "do not go with --undo"),
            ("web1 --unless critical", "--unless"),
            ("plan:", "the scope must be a host such as"),
        ] {
            let why = parsed(line).unwrap_err();
            assert!(why.contains(what), "{line}: {why}");
        }
    }

    #[test]
    fn every_alarm_has_a_line() {
        let answer = json!({"acknowledged": ["web1 ipv4 overdue", "web1 ipv6 overdue"]});
        let text = "acknowledged: web1 ipv4 overdue\nacknowledged: web1 ipv6 overdue\n";
        assert_eq!(lines("acknowledged", &answer), text);
    }
}
