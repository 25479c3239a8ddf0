//! What signal-cli's answers mean. Exit codes do not tell; results and words do. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::notify::channel::attempt::Failure;
use crate::notify::text::{LineBreaks, TextUnit, clean, cut};

/// However long Signal wants to be left alone, it is asked once a day.
const LONGEST_HINT: Duration = Duration::from_secs(24 * 3600);

/// Words of signal-cli and of what starts it, and what to do about them. Nothing is taken until
/// somebody mends it.
const CHANNEL_WORDS: [(&str, &str); 9] = [
    ("not registered", "register it: signal-cli -a NUMBER register, then verify"),
    ("account does not exist", "is `user` the registered number?"),
    ("unsupportedclassversionerror", "Java is too old: signal-cli 0.13 needs Java 21"),
    ("could not find java", "install Java, or the native signal-cli"),
    ("java: not found", "install Java, or the native signal-cli"),
    ("java_home", "install Java, or the native signal-cli"),
    ("too old for the signal-server", "install a newer signal-cli"),
    ("unrecognized arguments", "is `cli_path` a signal-cli of 0.11 or later?"),
    ("usage:", "is `cli_path` a signal-cli of 0.11 or later?"),
];

/// Words of trouble that passes.
const PASSING_WORDS: [&str; 7] = [
    "closed unexpectedly",
    "ioexception",
    "unknownhost",
    "timeout",
    "timed out",
    "connection refused",
    "network",
];

/// What an answer to `send` means: `{"timestamp":1,"results":[{"type":"SUCCESS",...}]}`, on the
/// standard output or as the result of a JSON-RPC. None when it tells no results.
pub fn of_results(answer: &Value, account: &str) -> Option<Result<(), Failure>> {
    let results = answer.get("results")?.as_array()?;
    let kinds: Vec<&str> =
        results.iter().map(|result| result["type"].as_str().unwrap_or_default()).collect();
    if kinds.contains(&"SUCCESS") {
        return Some(Ok(()));
    }
    let worst = results.iter().filter_map(|result| of_result(result, account)).max_by_key(weight);
    Some(Err(
        worst.unwrap_or_else(|| Failure::channel_refused("signal-cli found nobody to send it to"))
    ))
}

/// Of several failures the one that keeps the message for the longest counts.
fn weight(failure: &Failure) -> u8 {
    match failure {
        Failure::ChannelRefused { .. } => 3,
        Failure::Unreachable { .. } => 2,
        Failure::Unknown(_) => 1,
        Failure::MessageRefused(_) | Failure::FormRefused(_) => 0,
    }
}

fn of_result(result: &Value, account: &str) -> Option<Failure> {
    let recipient = ["number", "username", "uuid"]
        .iter()
        .find_map(|key| result["recipientAddress"][key].as_str())
        .unwrap_or("the recipient");
    let recipient = brief(recipient);
    Some(match result["type"].as_str()? {
        "UNREGISTERED_FAILURE" => {
            Failure::MessageRefused(format!("{recipient} is not registered with Signal"))
        }
        "IDENTITY_FAILURE" => Failure::channel_refused(format!(
            "the safety number of {recipient} has changed; compare it, then run: \
             signal-cli -a {account} trust -v SAFETY_NUMBER {recipient}"
        )),
        "RATE_LIMIT_FAILURE" => rate_limit(result, account),
        "NETWORK_FAILURE" => Failure::unreachable("signal-cli could not reach Signal's server"),
        other => Failure::unreachable(format!("signal-cli answered {}", brief(other))),
    })
}

fn rate_limit(result: &Value, account: &str) -> Failure {
    if let Some(token) = result["token"].as_str().filter(|token| !token.is_empty()) {
        return Failure::channel_refused(format!(
            "Signal wants a captcha: solve https://signalcaptchas.org/challenge/generate.html, \
             then run: signal-cli -a {account} submitRateLimitChallenge --challenge {} \
             --captcha CAPTCHA",
            brief(token)
        ));
    }
    Failure::Unreachable {
        why: "Signal limits the rate".into(),
        retry_after: result["retryAfterSeconds"]
            .as_u64()
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_HINT)),
    }
}

/// What a run of signal-cli means that was not killed by us.
pub fn of_output(
    code: Option<i32>,
    stdout: &str,
    stderr: &str,
    account: &str,
) -> Result<(), Failure> {
    let answers = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let whole = serde_json::from_str::<Value>(stdout).ok();
    let answers: Vec<Value> = answers.chain(whole).filter(Value::is_object).collect();
    if let Some(verdict) = answers.iter().rev().find_map(|answer| of_results(answer, account)) {
        return verdict;
    }
    match code {
        // Versions that tell no results: 0 means that at least one recipient was reached.
        Some(0) if answers.iter().any(|answer| answer["timestamp"].is_u64()) => Ok(()),
        Some(0) => Err(Failure::Unknown("signal-cli ended well, but told no results".into())),
        Some(code) => Err(of_words(&format!("{stderr}\n{stdout}"), &format!("exit code {code}"))),
        None => Err(Failure::Unknown("signal-cli was killed".into())),
    }
}

/// What an error object of a JSON-RPC means (JSON-RPC 2.0, section 5.1, and signal-cli's own codes).
pub fn of_rpc_error(error: &Value, account: &str) -> Failure {
    if let Some(Err(failure)) = of_results(&error["data"]["response"], account) {
        return failure;
    }
    let code = error["code"].as_i64().unwrap_or(0);
    let said = error["message"].as_str().unwrap_or_default();
    match code {
        // UNTRUSTED_KEY_ERROR, CAPTCHA_REJECTED, and requests that this daemon does not know.
        -4 | -6 | -32602..=-32600 => {
            Failure::channel_refused(format!("signal-cli's daemon: {}", brief(said)))
        }
        // IO_ERROR, RATELIMIT_ERROR.
        -3 | -5 => Failure::unreachable(format!("signal-cli's daemon: {}", brief(said))),
        code => of_words(said, &format!("error {code}")),
    }
}

/// What signal-cli says without results means. Nothing has been sent then, so that trying again
/// is harmless, and giving up is not.
fn of_words(said: &str, how: &str) -> Failure {
    let lower = said.to_lowercase();
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(how);
    let line = brief(line);
    if let Some((_, remedy)) = CHANNEL_WORDS.iter().find(|(words, _)| lower.contains(words)) {
        return Failure::channel_refused(format!("signal-cli: {line} ({remedy})"));
    }
    if PASSING_WORDS.iter().any(|words| lower.contains(words)) {
        return Failure::unreachable(format!("signal-cli: {line}"));
    }
    Failure::unreachable(format!("signal-cli ended with {how}: {line}"))
}

/// Why signal-cli does not even tell its version, where its words are known.
pub fn of_failed_start(stderr: &str) -> Option<String> {
    match of_words(stderr, "no words") {
        Failure::ChannelRefused { why, .. } => Some(why),
        Failure::Unreachable { .. }
        | Failure::MessageRefused(_)
        | Failure::FormRefused(_)
        | Failure::Unknown(_) => None,
    }
}

/// Words of another program, fit for one line of ours.
pub fn brief(text: &str) -> String {
    cut(&clean(text, LineBreaks::Remove), 200, TextUnit::Characters)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(code: i32, stdout: &str, stderr: &str) -> &'static str {
        outcome(&of_output(Some(code), stdout, stderr, "+491"))
    }

    fn outcome(result: &Result<(), Failure>) -> &'static str {
        match result {
            Ok(()) => "delivered",
            Err(Failure::Unreachable { retry_after: None, .. }) => "unreachable",
            Err(Failure::Unreachable { retry_after: Some(_), .. }) => "unreachable with a hint",
            Err(Failure::MessageRefused(_)) => "message refused",
            Err(Failure::FormRefused(_)) => "form refused",
            Err(Failure::ChannelRefused { .. }) => "channel refused",
            Err(Failure::Unknown(_)) => "unknown",
        }
    }

    #[test]
    fn results_decide_and_exit_codes_do_not() {
        let result = |fields: &str| format!("{{\"timestamp\":1,\"results\":[{fields}]}}\n");
        let success = "{\"type\":\"SUCCESS\"}";
        let network = "{\"type\":\"NETWORK_FAILURE\"}";
        let unregistered = "{\"type\":\"UNREGISTERED_FAILURE\"}";
        for (code, fields, expected) in [
            (0, success.to_owned(), "delivered"),
            (1, success.to_owned(), "delivered"),
            (0, format!("{unregistered},{success}"), "delivered"),
            (0, network.to_owned(), "unreachable"),
            (1, network.to_owned(), "unreachable"),
            (1, unregistered.to_owned(), "message refused"),
            (2, format!("{unregistered},{network}"), "unreachable"),
            (1, "{\"type\":\"IDENTITY_FAILURE\"}".to_owned(), "channel refused"),
            (
                5,
                "{\"type\":\"RATE_LIMIT_FAILURE\",\"retryAfterSeconds\":60}".to_owned(),
                "unreachable with a hint",
            ),
            (
                5,
                "{\"type\":\"RATE_LIMIT_FAILURE\",\"token\":\"abc\"}".to_owned(),
                "channel refused",
            ),
            (1, "{\"type\":\"INVALID_PRE_KEY_FAILURE\"}".to_owned(), "unreachable"),
            (0, String::new(), "channel refused"),
        ] {
            assert_eq!(verdict(code, &result(&fields), ""), expected, "{code} {fields}");
        }
    }

    #[test]
    fn a_wait_beyond_reason_is_a_day() {
        let result = json!({"retryAfterSeconds": u64::MAX});
        let Failure::Unreachable { retry_after, .. } = rate_limit(&result, "+491") else {
            panic!("a rate limit passes")
        };
        assert_eq!(retry_after, Some(LONGEST_HINT));
    }

    #[test]
    fn without_results_the_words_decide() {
        for (code, stdout, stderr, expected) in [
            (0, "{\"timestamp\":1}", "", "delivered"),
            (0, "", "", "unknown"),
            (0, "1795291928667", "", "unknown"),
            (1, "", "User +491 is not registered.", "channel refused"),
            (1, "", "usage: signal-cli [-h]", "channel refused"),
            (1, "", "java.lang.UnsupportedClassVersionError: x", "channel refused"),
            (127, "", "signal-cli: 200: exec: java: not found", "channel refused"),
            (3, "", "the version is too old for the Signal-Server", "channel refused"),
            (3, "", "Failed to send: Closed unexpectedly", "unreachable"),
            (1, "", "java.net.UnknownHostException: chat.signal.org", "unreachable"),
            (3, "", "java.io.IOException: 403", "unreachable"),
            (1, "", "", "unreachable"),
        ] {
            assert_eq!(verdict(code, stdout, stderr), expected, "{code} {stdout} {stderr}");
        }
        assert_eq!(outcome(&of_output(None, "", "", "+491")), "unknown");
    }

    #[test]
    fn a_captcha_is_told_with_the_command_that_takes_it() {
        let stdout = r#"{"results":[{"type":"RATE_LIMIT_FAILURE","token":"tok-1"}]}"#;
        let Err(Failure::ChannelRefused { why, .. }) = of_output(Some(5), stdout, "", "+491")
        else {
            panic!("a captcha is for somebody to solve")
        };
        assert!(why.contains("signal-cli -a +491 submitRateLimitChallenge --challenge tok-1"));
    }

    #[test]
    fn the_daemon_s_errors_are_told_apart() {
        for (error, expected) in [
            (r#"{"code":-1,"message":"User +491 is not registered."}"#, "channel refused"),
            (r#"{"code":-32602,"message":"Specified account does not exist"}"#, "channel refused"),
            (r#"{"code":-32601,"message":"Method not implemented"}"#, "channel refused"),
            (r#"{"code":-3,"message":"x"}"#, "unreachable"),
            (r#"{"code":-32603,"message":"x"}"#, "unreachable"),
            (
                r#"{"code":-1,"message":"x","data":{"response":{"results":[{"type":"UNREGISTERED_FAILURE"}]}}}"#,
                "message refused",
            ),
        ] {
            let error = serde_json::from_str(error).unwrap();
            assert_eq!(outcome(&Err(of_rpc_error(&error, "+491"))), expected, "{error}");
        }
    }
}
