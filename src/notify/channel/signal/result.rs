//! What signal-cli's output means for a delivery: its JSON results and its error texts count, for
//! its exit codes do not tell one failure from another. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::notify::channel::attempt::{Failure, Scope};
use crate::notify::text::{LineBreaks, TextUnit, clean, cut};

/// The longest wait for which Signal's hint is followed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Parts of error texts of signal-cli, the JVM and the shell that mean a fault of the installation
/// or the account, with what the operator can do about it.
const LASTING_FAULTS: [(&str, &str); 9] = [
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

/// Parts of error texts that mean a fault of the network.
const PASSING_FAULTS: [&str; 7] = [
    "closed unexpectedly",
    "ioexception",
    "unknownhost",
    "timeout",
    "timed out",
    "connection refused",
    "network",
];

/// What the reply to `send` means, `{"timestamp":1,"results":[{"type":"SUCCESS",...}]}`, on the
/// standard output or as the result of a JSON-RPC call. None when it has no results.
pub fn parse_results(response: &Value, account: &str) -> Option<Result<(), Failure>> {
    let results = response.get("results")?.as_array()?;
    let kinds: Vec<&str> =
        results.iter().map(|result| result["type"].as_str().unwrap_or_default()).collect();
    if kinds.contains(&"SUCCESS") {
        return Some(Ok(()));
    }
    let worst =
        results.iter().filter_map(|result| parse_result(result, account)).max_by_key(severity);
    Some(Err(
        worst.unwrap_or_else(|| Failure::channel_refused("signal-cli found nobody to send it to"))
    ))
}

/// Of several failures the one counts that keeps the message for the longest.
fn severity(failure: &Failure) -> u8 {
    match failure {
        Failure::ChannelRefused { .. } => 3,
        Failure::Unreachable { .. } => 2,
        Failure::Unknown(_) => 1,
        Failure::MessageRefused(_) | Failure::FormRefused(_) => 0,
    }
}

fn parse_result(result: &Value, account: &str) -> Option<Failure> {
    let recipient = ["number", "username", "uuid"]
        .iter()
        .find_map(|key| result["recipientAddress"][key].as_str())
        .unwrap_or("the recipient");
    let recipient = truncate(recipient);
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
        other => Failure::unreachable(format!("signal-cli answered {}", truncate(other))),
    })
}

fn rate_limit(result: &Value, account: &str) -> Failure {
    if let Some(token) = result["token"].as_str().filter(|token| !token.is_empty()) {
        return Failure::channel_refused(format!(
            "Signal wants a captcha: solve https://signalcaptchas.org/challenge/generate.html, \
             then run: signal-cli -a {account} submitRateLimitChallenge --challenge {} \
             --captcha CAPTCHA",
            truncate(token)
        ));
    }
    Failure::Unreachable {
        why: "Signal limits the rate".into(),
        retry_after: result["retryAfterSeconds"]
            .as_u64()
            .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
        scope: Scope::Channel,
    }
}

/// What the output of a run of signal-cli means that ended by itself.
pub fn parse_output(
    code: Option<i32>,
    stdout: &str,
    stderr: &str,
    account: &str,
) -> Result<(), Failure> {
    let documents = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let whole = serde_json::from_str::<Value>(stdout).ok();
    let documents: Vec<Value> = documents.chain(whole).filter(Value::is_object).collect();
    if let Some(result) =
        documents.iter().rev().find_map(|response| parse_results(response, account))
    {
        return result;
    }
    match code {
        // Versions that tell no results: 0 means that at least one recipient was reached.
        Some(0) if documents.iter().any(|response| response["timestamp"].is_u64()) => Ok(()),
        Some(0) => Err(Failure::Unknown("signal-cli ended well, but told no results".into())),
        Some(code) => {
            Err(classify_text(&format!("{stderr}\n{stdout}"), &format!("exit code {code}")))
        }
        None => Err(Failure::Unknown("signal-cli was killed".into())),
    }
}

/// What an error object of JSON-RPC means (JSON-RPC 2.0, section 5.1, and signal-cli's own codes).
pub fn classify_rpc_error(error: &Value, account: &str) -> Failure {
    if let Some(Err(failure)) = parse_results(&error["data"]["response"], account) {
        return failure;
    }
    let code = error["code"].as_i64().unwrap_or(0);
    let said = error["message"].as_str().unwrap_or_default();
    match code {
        // UNTRUSTED_KEY_ERROR, CAPTCHA_REJECTED, and requests that this daemon does not know.
        -4 | -6 | -32602..=-32600 => {
            Failure::channel_refused(format!("signal-cli's daemon: {}", truncate(said)))
        }
        // IO_ERROR, RATELIMIT_ERROR.
        -3 | -5 => Failure::unreachable(format!("signal-cli's daemon: {}", truncate(said))),
        code => classify_text(said, &format!("error {code}")),
    }
}

/// What an error text without results means. Nothing was sent then: another attempt does no harm,
/// and to give up would.
fn classify_text(said: &str, how: &str) -> Failure {
    let lower = said.to_lowercase();
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(how);
    let line = truncate(line);
    if let Some((_, remedy)) = LASTING_FAULTS.iter().find(|(words, _)| lower.contains(words)) {
        return Failure::channel_refused(format!("signal-cli: {line} ({remedy})"));
    }
    if PASSING_FAULTS.iter().any(|words| lower.contains(words)) {
        return Failure::unreachable(format!("signal-cli: {line}"));
    }
    Failure::unreachable(format!("signal-cli ended with {how}: {line}"))
}

/// Why signal-cli cannot even show its version, where its error text is a known one.
pub fn explain_failed_start(stderr: &str) -> Option<String> {
    match classify_text(stderr, "no words") {
        Failure::ChannelRefused { why, .. } => Some(why),
        Failure::Unreachable { .. }
        | Failure::MessageRefused(_)
        | Failure::FormRefused(_)
        | Failure::Unknown(_) => None,
    }
}

/// The text of another program, short enough for one line of the log.
pub fn truncate(text: &str) -> String {
    cut(&clean(text, LineBreaks::Remove), 200, TextUnit::Characters)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome_of(code: i32, stdout: &str, stderr: &str) -> &'static str {
        outcome(&parse_output(Some(code), stdout, stderr, "+491"))
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
            assert_eq!(outcome_of(code, &result(&fields), ""), expected, "{code} {fields}");
        }
    }

    #[test]
    fn a_wait_beyond_reason_is_a_day() {
        let result = json!({"retryAfterSeconds": u64::MAX});
        let Failure::Unreachable { retry_after, .. } = rate_limit(&result, "+491") else {
            panic!("a rate limit passes")
        };
        assert_eq!(retry_after, Some(MAX_RETRY_AFTER));
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
            assert_eq!(outcome_of(code, stdout, stderr), expected, "{code} {stdout} {stderr}");
        }
        assert_eq!(outcome(&parse_output(None, "", "", "+491")), "unknown");
    }

    #[test]
    fn a_captcha_comes_with_the_command_that_takes_it() {
        let stdout = r#"{"results":[{"type":"RATE_LIMIT_FAILURE","token":"tok-1"}]}"#;
        let Err(Failure::ChannelRefused { why, .. }) = parse_output(Some(5), stdout, "", "+491")
        else {
            panic!("a captcha is for a person to solve")
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
            assert_eq!(outcome(&Err(classify_rpc_error(&error, "+491"))), expected, "{error}");
        }
    }
}
