//! The chat channels against servers that keep the providers' contracts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heartbeat::clock::Wall;
use heartbeat::event::{EventId, Level, Message, Subject};
use heartbeat::notify::channel::mattermost::{HookHistory, Mattermost};
use heartbeat::notify::channel::pushover::Pushover;
use heartbeat::notify::channel::signal::{AccountLocks, RpcAddress, Signal};
use heartbeat::notify::channel::{Delivered, Failure, OutgoingMessage};
use heartbeat::secret::Secret;
use support::http_double::{HttpDouble, reply};
use support::mattermost::{MattermostDouble, Mode};
use support::pushover::PushoverDouble;
use support::signal::{DaemonMode, SignalDaemon, SignalDouble};
use support::tls_front::{tls_file, tls_front};

mod support;

/// The time of every event and attempt here, unless a test moves it.
const NOW: Wall = Wall(1_795_291_928_000);
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What strangers may call their host or say.
const HOSTILE: &[&str] = &[
    "grüße aus Köln, übermäßig: ÄÖÜß €",
    "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪 😀",
    "-rf --help",
    "web1\r\nBcc: victim@example.com",
    "@channel @here @all <!channel>",
    "`@channel` ``@here`` ```\n@all\n```",
    "[click](http://evil.example) http://evil.example",
    "abc\u{202e}txt.exe\u{2066}\u{200f}",
    "\u{1b}[31mred\u{7}\0",
    "",
    " \r\n\t ",
    "&html=1;<script>alert(1)</script>+%00",
    "{\"results\":[{\"type\":\"SUCCESS\"}]}",
];

fn message(title: &str) -> Message {
    Message {
        event: EventId(0x1a2b3c),
        at: NOW,
        level: Level::Critical,
        subject: Subject::Host("web1".into()),
        thread: "web1 ipv4".into(),
        title: title.into(),
        details: vec![("last seen".into(), "2026-11-21T20:12:08Z".into())],
        link: None,
        table: None,
    }
}

fn outgoing(message: &Message) -> OutgoingMessage<'_> {
    OutgoingMessage {
        channel: "oncall",
        message,
        recipient: None,
        possible_repeat: false,
        short_form: false,
        thread: None,
        recovered_events: &[],
        now: NOW,
    }
}

/// How an attempt ended, without its words.
fn outcome(result: &Result<Delivered, Failure>) -> &'static str {
    match result {
        Ok(_) => "delivered",
        Err(Failure::Unreachable { .. }) => "unreachable",
        Err(Failure::MessageRefused(_)) => "message refused",
        Err(Failure::FormRefused(_)) => "form refused",
        Err(Failure::ChannelRefused { .. }) => "channel refused",
        Err(Failure::Unknown(_)) => "unknown",
    }
}

/// Every word that an attempt leaves behind.
fn words(result: &Result<Delivered, Failure>) -> String {
    format!("{result:?}")
}

fn mattermost(server: &MattermostDouble) -> Mattermost {
    Mattermost {
        base_url: server.url.clone(),
        token: Secret::new(&server.token),
        channel: "town-square".into(),
        username: Some("heartbeat".into()),
        icon: Some(":heart:".into()),
        ca_file: None,
        bot_token: None,
    }
}

/// Nothing is known of any hook.
fn hooks() -> HookHistory {
    HookHistory::default()
}

/// Every account is free.
fn accounts() -> AccountLocks {
    AccountLocks::default()
}

fn as_bot(server: &MattermostDouble) -> Mattermost {
    Mattermost {
        channel: "4xp9fdt77pncbef59f4k1qe83o".into(),
        bot_token: Some(Secret::new(&server.bot_token)),
        ..mattermost(server)
    }
}

#[test]
fn mattermost_takes_a_message() {
    let server = MattermostDouble::start();
    let message = message("web1 ipv4 overdue");
    let result = mattermost(&server).deliver_within(&outgoing(&message), &hooks(), LONG);
    assert_eq!(result, Ok(Delivered::default()));
    let post = &server.received()[0];
    assert_eq!(post.body["channel"], "town-square");
    assert_eq!(post.body["icon_emoji"], "heart");
    assert_eq!(post.body["username"], "heartbeat");
    assert_eq!(
        post.text,
        "`web1 ipv4 overdue`\nlast seen: `2026-11-21T20:12:08Z`\n_critical, event 000000001a2b3c_"
    );
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

const LINK: &str = "https://hbd.example.com/hosts/web1";

fn linked() -> Message {
    Message { link: Some(LINK.into()), ..message("web1 ipv4 overdue") }
}

#[test]
fn a_message_links_to_the_page_of_its_host_as_each_channel_can() {
    let message = linked();
    let chat = MattermostDouble::start();
    mattermost(&chat).deliver_within(&outgoing(&message), &hooks(), LONG).unwrap();
    assert_eq!(chat.received()[0].body["attachments"][0]["title_link"], LINK);
    let push = PushoverDouble::start();
    pushover(&push).deliver_within(&outgoing(&message), LONG).unwrap();
    let fields = &push.received()[0];
    assert_eq!(fields["url"], LINK);
    assert!(!fields["message"].contains(LINK), "{fields:?}");
    let phone = SignalDouble::start();
    let channel = signal(&phone, "+12025550001");
    channel.deliver_within(&outgoing(&message), &accounts(), LONG).unwrap();
    let (text, _) = phone.received().pop().unwrap();
    assert!(text.ends_with(&format!("\n{LINK}\nevent 000000001a2b3c")), "{text}");
    for violations in [chat.violations(), push.violations(), phone.violations()] {
        assert!(violations.is_empty(), "{violations:?}");
    }
}

#[test]
fn mattermost_outcomes_by_status() {
    let id = |id: &str| format!("{{\"id\":\"{id}\",\"message\":\"m\"}}");
    for (status, body, expected) in [
        (200, "ok".into(), "delivered"),
        (200, "<html>ok</html>".into(), "channel refused"),
        (200, "ok\n".into(), "channel refused"),
        (200, String::new(), "channel refused"),
        (204, String::new(), "channel refused"),
        (400, id("web.incoming_webhook.text.app_error"), "message refused"),
        (400, id("web.incoming_webhook.parse.app_error"), "message refused"),
        (400, id("web.incoming_webhook.split_props_length.app_error"), "message refused"),
        (400, "<html>web.incoming_webhook.text.app_error".into(), "channel refused"),
        (401, String::new(), "channel refused"),
        (403, id("web.incoming_webhook.channel_locked.app_error"), "channel refused"),
        (404, id("web.incoming_webhook.channel.app_error"), "channel refused"),
        (413, String::new(), "message refused"),
        (429, String::new(), "unreachable"),
        (500, "Internal".into(), "unreachable"),
        (501, id("web.incoming_webhook.disabled.app_error"), "channel refused"),
        (502, "<html>".into(), "unreachable"),
        (503, String::new(), "unreachable"),
    ] {
        let server = MattermostDouble::start();
        server.set_mode(Mode::Status(status, body.clone()));
        let result = mattermost(&server).deliver_within(&outgoing(&message("x")), &hooks(), LONG);
        assert_eq!(outcome(&result), expected, "{status} {body:?}: {result:?}");
    }
}

#[test]
fn a_redirect_is_no_delivery() {
    let server = MattermostDouble::start();
    server.set_mode(Mode::Redirect);
    let result = mattermost(&server).deliver_within(&outgoing(&message("x")), &hooks(), LONG);
    assert_eq!(outcome(&result), "channel refused");
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn an_unknown_hook_is_refused_unless_it_worked_before() {
    let server = MattermostDouble::start();
    let message = message("x");
    let wrong = Mattermost { token: Secret::new("wrongwrongwrong"), ..mattermost(&server) };
    let result = wrong.deliver_within(&outgoing(&message), &hooks(), LONG);
    assert_eq!(outcome(&result), "channel refused");
    assert!(!words(&result).contains("wrongwrongwrong"), "{result:?}");

    let (hook, hooks) = (mattermost(&server), hooks());
    assert_eq!(outcome(&hook.deliver_within(&outgoing(&message), &hooks, LONG)), "delivered");
    let unknown = "{\"id\":\"web.incoming_webhook.invalid.app_error\"}";
    server.set_mode(Mode::Status(400, unknown.into()));
    for (minutes, expected) in [(0, "unreachable"), (14, "unreachable"), (15, "channel refused")] {
        let outgoing =
            OutgoingMessage { now: NOW + Duration::from_secs(minutes * 60), ..outgoing(&message) };
        assert_eq!(outcome(&hook.deliver_within(&outgoing, &hooks, LONG)), expected, "{minutes}");
    }
}

/// `Invalid webhook` and `Couldn't find the channel` left the operator guessing.
#[test]
fn a_refusal_of_mattermost_names_its_likely_cause() {
    let server = MattermostDouble::start();
    let hook = "web.incoming_webhook";
    for (status, id, cause) in [
        (400, format!("{hook}.invalid.app_error"), "(is token right, or was the webhook deleted?)"),
        (404, format!("{hook}.channel.app_error"), "(channel must be the name in the channel's"),
        (403, format!("{hook}.channel_locked.app_error"), "(the webhook is locked to another"),
        (403, format!("{hook}.permissions.app_error"), "(is the user that made the webhook a"),
        (401, "api.context.session_expired.app_error".into(), "(is bot_token right?)"),
        (403, "api.context.permissions.app_error".into(), "(is the bot a member of the channel?)"),
        (400, "api.context.invalid_body_param.app_error".into(), "(with bot_token, channel must"),
        (404, String::new(), "(is host right, with its path?)"),
    ] {
        let body = serde_json::json!({"id": id, "message": "No."}).to_string();
        let body = if id.is_empty() { "<html>".into() } else { body };
        server.set_mode(Mode::Status(status, body));
        let result = mattermost(&server).deliver_within(&outgoing(&message("x")), &hooks(), LONG);
        assert!(words(&result).contains(cause), "{id}: {result:?}");
    }
}

#[test]
fn a_rate_limit_says_when_to_come_again() {
    let server = MattermostDouble::start();
    for (name, value) in [("Retry-After", "17"), ("X-RateLimit-Reset", "1795291945")] {
        let header = vec![(name.to_owned(), value.to_owned())];
        server.set_mode(Mode::Answer(429, header, String::new()));
        let result = mattermost(&server).deliver_within(&outgoing(&message("x")), &hooks(), LONG);
        let Err(Failure::Unreachable { retry_after, .. }) = result else { panic!("{result:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(17)), "{name}");
    }
}

#[test]
fn what_was_lost_on_the_way_is_told_from_what_never_left() {
    let server = MattermostDouble::start();
    let channel = mattermost(&server);
    for (mode, expected) in [
        (Mode::Hang, "unknown"),
        (Mode::DropAfterReading, "unknown"),
        (Mode::Cut(200, "o"), "unknown"),
        (Mode::Cut(200, "ok"), "unknown"),
        (Mode::Cut(400, "{\"id\""), "unreachable"),
    ] {
        server.set_mode(mode.clone());
        let result = channel.deliver_within(&outgoing(&message("x")), &hooks(), SHORT);
        assert_eq!(outcome(&result), expected, "{mode:?}: {result:?}");
    }
    server.set_mode(Mode::DropBeforeReading);
    let result = channel.deliver_within(&outgoing(&message("x")), &hooks(), LONG);
    assert!(matches!(outcome(&result), "unknown" | "unreachable"), "{result:?}");
    for nowhere in ["http://127.0.0.1:1", "http://host.invalid"] {
        let gone = Mattermost { base_url: nowhere.into(), ..channel.clone() };
        let result = gone.deliver_within(&outgoing(&message("x")), &hooks(), LONG);
        assert_eq!(outcome(&result), "unreachable", "{nowhere}: {result:?}");
    }
}

#[test]
fn only_a_server_with_a_trusted_certificate_is_told_anything() {
    let server = MattermostDouble::start();
    for (certificate, ca_file, expected) in [
        ("server.pem", Some("ca.pem"), None),
        ("server.pem", None, Some("ca_file?")),
        ("elsewhere.pem", Some("ca.pem"), Some("for another name")),
        ("expired.pem", Some("ca.pem"), Some("has expired")),
        ("selfsigned.pem", Some("selfsigned.pem"), Some("CA:FALSE")),
        ("server.pem", Some("missing.pem"), Some("cannot be read")),
        ("server.pem", Some("server.key"), Some("ca_file")),
    ] {
        let before = server.received().len();
        let channel = Mattermost {
            base_url: tls_front(&server.url, certificate),
            ca_file: ca_file.map(tls_file),
            ..mattermost(&server)
        };
        let result = channel.deliver_within(&outgoing(&message("x")), &hooks(), LONG);
        match (expected, result) {
            (None, Ok(_)) => assert_eq!(server.received().len(), before + 1),
            (Some(words), Err(Failure::ChannelRefused { why, .. })) if why.contains(words) => {
                assert_eq!(server.received().len(), before);
            }
            (expected, result) => panic!("{certificate}, {ca_file:?}: {expected:?}, {result:?}"),
        }
    }
    let plain = server.url.replace("http://", "https://");
    let channel = Mattermost { base_url: plain, ..mattermost(&server) };
    let result = channel.deliver_within(&outgoing(&message("x")), &hooks(), LONG);
    assert_eq!(outcome(&result), "unreachable", "{result:?}");
}

/// `received corrupt message of type InvalidContentType` is what was said.
#[test]
fn a_server_that_does_not_speak_tls_is_told_in_words() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("https://{}", listener.local_addr().unwrap());
    let answer = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = std::io::Read::read(&mut client, &mut [0; 4096]).unwrap();
        std::io::Write::write_all(&mut client, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let channel = Mattermost { base_url, ..mattermost(&MattermostDouble::start()) };
    let result = channel.deliver_within(&outgoing(&message("x")), &hooks(), LONG);
    assert_eq!(outcome(&result), "unreachable", "{result:?}");
    assert!(words(&result).contains("does not speak TLS: write http://"), "{result:?}");
    answer.join().unwrap();
}

#[test]
fn mattermost_is_not_misled_by_strangers_words() {
    let server = MattermostDouble::start();
    let long = "ä".repeat(5000);
    for text in HOSTILE.iter().copied().chain([long.as_str()]) {
        let mut message = message(text);
        message.details.push((text.into(), text.into()));
        for channel in [mattermost(&server), as_bot(&server)] {
            let result = channel.deliver_within(&outgoing(&message), &hooks(), LONG);
            assert_eq!(outcome(&result), "delivered", "{text:?}: {result:?}");
        }
        let post = server.received().pop().unwrap();
        assert!(post.text.ends_with("event 000000001a2b3c_"), "{}", post.text);
    }
    assert!(server.violations().is_empty(), "{:#?}", server.violations());
}

#[test]
fn a_bot_keeps_problem_and_recovery_in_one_thread() {
    let server = MattermostDouble::start();
    let channel = as_bot(&server);
    let message = message("web1 ipv4 overdue");
    let root = channel.deliver_within(&outgoing(&message), &hooks(), LONG).unwrap().thread.unwrap();
    let reply = OutgoingMessage { thread: Some(&root), ..outgoing(&message) };
    let delivered = channel.deliver_within(&reply, &hooks(), LONG).unwrap();
    assert_eq!(delivered.thread.as_deref(), Some(root.as_str()));
    assert_eq!(server.received()[1].body["root_id"], root.as_str());
}

#[test]
fn a_deleted_root_does_not_cost_the_alarm() {
    let server = MattermostDouble::start();
    let channel = as_bot(&server);
    let message = message("web1 ipv4 overdue");
    let reply =
        OutgoingMessage { thread: Some("gone00000000000000000000000"), ..outgoing(&message) };
    let delivered = channel.deliver_within(&reply, &hooks(), LONG).unwrap();
    assert_eq!(delivered.thread, Some(server.received()[0].id.clone()));
}

#[test]
fn a_bot_s_refusals_are_its_channel_s_or_its_message_s() {
    let server = MattermostDouble::start();
    let message = message("x");
    let stranger = Mattermost { bot_token: Some(Secret::new("nobody")), ..as_bot(&server) };
    assert_eq!(
        outcome(&stranger.deliver_within(&outgoing(&message), &hooks(), LONG)),
        "channel refused"
    );
    let lost = Mattermost { channel: "town-square".into(), ..as_bot(&server) };
    assert_eq!(
        outcome(&lost.deliver_within(&outgoing(&message), &hooks(), LONG)),
        "channel refused"
    );
    server.set_mode(Mode::Status(400, "{\"id\":\"model.post.is_valid.msg.app_error\"}".into()));
    let result = as_bot(&server).deliver_within(&outgoing(&message), &hooks(), LONG);
    assert_eq!(outcome(&result), "message refused");
    for (mode, expected) in [
        (Mode::Status(201, "<html>".into()), "channel refused"),
        (Mode::Status(400, "<html>".into()), "channel refused"),
        (Mode::Status(204, String::new()), "channel refused"),
        (Mode::Cut(400, "{\"id\""), "unreachable"),
        (Mode::Cut(201, ""), "unknown"),
    ] {
        server.set_mode(mode.clone());
        let result = as_bot(&server).deliver_within(&outgoing(&message), &hooks(), LONG);
        assert_eq!(outcome(&result), expected, "{mode:?}: {result:?}");
    }
}

#[test]
fn a_post_that_was_created_is_not_made_again_for_want_of_its_id() {
    let server = MattermostDouble::start();
    let message = message("x");
    let long = format!("{{\"message\":\"{}\",\"id\":\"abc\"}}", "x".repeat(70_000));
    for mode in [Mode::Cut(201, "{\"id\":\"abc\""), Mode::Status(201, long)] {
        server.set_mode(mode);
        let result = as_bot(&server).deliver_within(&outgoing(&message), &hooks(), LONG);
        assert_eq!(result, Ok(Delivered::default()));
    }
}

#[test]
fn no_secret_is_in_any_error_of_mattermost() {
    let server = MattermostDouble::start();
    let echo = format!("{}/hooks/{}?{}", server.url, server.token, server.bot_token);
    let body = |echo: &str| serde_json::json!({"id": "x", "message": echo}).to_string();
    let modes = [200, 201, 301, 400, 401, 403, 404, 413, 429, 500, 501, 503]
        .into_iter()
        .flat_map(|status| {
            let padded = format!("{}{echo}", "x".repeat(170));
            [echo.clone(), body(&echo), body(&padded)].map(|body| Mode::Status(status, body))
        })
        .chain([Mode::Redirect, Mode::Hang, Mode::DropAfterReading, Mode::DropBeforeReading]);
    for mode in modes {
        server.set_mode(mode.clone());
        for channel in [mattermost(&server), as_bot(&server)] {
            let result = channel.deliver_within(&outgoing(&message("x")), &hooks(), SHORT);
            let words = words(&result) + &format!("{channel:?}");
            for secret in channel.secrets() {
                assert!(!words.contains(&secret.reveal()[..8]), "{mode:?}: {words}");
            }
        }
    }
    for base_url in ["not a url", "http://", "http://host.invalid", "https://127.0.0.1:1"] {
        let channel = Mattermost { base_url: base_url.into(), ..mattermost(&server) };
        let words = words(&channel.deliver_within(&outgoing(&message("x")), &hooks(), LONG));
        assert!(!words.contains(&server.token), "{words}");
    }
}

fn pushover(server: &PushoverDouble) -> Pushover {
    Pushover {
        token: Secret::new(PushoverDouble::TOKEN),
        user: Secret::new(PushoverDouble::USER),
        priority: None,
        retry: Duration::from_secs(60),
        expire: Duration::from_secs(3600),
        sound: Some("siren".into()),
        device: None,
        api_url: server.url.clone(),
    }
}

#[test]
fn pushover_takes_an_emergency_and_gives_a_receipt() {
    let server = PushoverDouble::start();
    let result = pushover(&server).deliver_within(&outgoing(&message("web1 ipv4 overdue")), LONG);
    let receipt = Some(PushoverDouble::RECEIPT.to_owned());
    assert_eq!(result, Ok(Delivered { receipt, thread: None }));
    let fields = &server.received()[0];
    for (name, value) in [
        ("title", "CRITICAL: host web1"),
        ("message", "web1 ipv4 overdue\nlast seen: 2026-11-21T20:12:08Z\nevent 000000001a2b3c"),
        ("priority", "2"),
        ("retry", "60"),
        ("expire", "3600"),
        ("tags", "000000001a2b3c"),
        ("timestamp", "1795291928"),
        ("sound", "siren"),
    ] {
        assert_eq!(fields[name], value, "{name}");
    }
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn pushover_outcomes_by_status() {
    for (status, body, expected) in [
        (200, r#"{"status":1}"#, "delivered"),
        (200, r#"{"status":0,"errors":["no"]}"#, "message refused"),
        (200, r#"{"status":0,"token":"invalid"}"#, "channel refused"),
        (200, "<html>", "channel refused"),
        (200, "{}", "channel refused"),
        (400, r#"{"token":"invalid","status":0}"#, "channel refused"),
        (400, r#"{"user":"invalid","status":0}"#, "channel refused"),
        (400, r#"{"message":"cannot be blank","status":0}"#, "message refused"),
        (200, r#"{"status":1,"info":"no active devices to send to"}"#, "channel refused"),
        (200, r#"{"status":1,"info":"have a nice day"}"#, "delivered"),
        (202, r#"{"status":1}"#, "channel refused"),
        (204, "", "channel refused"),
        (403, "<html>squid", "channel refused"),
        (404, "", "channel refused"),
        (413, "", "channel refused"),
        (429, "", "channel refused"),
        (500, "", "unreachable"),
        (502, "<html>", "unreachable"),
        (503, r#"{"status":1}"#, "unreachable"),
    ] {
        let server = PushoverDouble::start();
        server.set_mode(Mode::Status(status, body.into()));
        let result = pushover(&server).deliver_within(&outgoing(&message("x")), LONG);
        assert_eq!(outcome(&result), expected, "{status} {body}: {result:?}");
    }
}

#[test]
fn pushover_lost_and_redirected() {
    let server = PushoverDouble::start();
    for (mode, expected) in [
        (Mode::Redirect, "channel refused"),
        (Mode::Hang, "unknown"),
        (Mode::DropAfterReading, "unknown"),
        (Mode::Cut(200, ""), "unknown"),
        (Mode::Cut(200, "{\"status\""), "unknown"),
        (Mode::Cut(400, ""), "unreachable"),
        (Mode::Cut(400, "{\"token\":\"inva"), "unreachable"),
    ] {
        server.set_mode(mode.clone());
        let result = pushover(&server).deliver_within(&outgoing(&message("x")), SHORT);
        assert_eq!(outcome(&result), expected, "{mode:?}: {result:?}");
    }
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn a_used_up_quota_says_when_it_is_filled_again() {
    let server = PushoverDouble::start();
    for (reset, expected) in
        [("1795295528", Duration::from_secs(3600)), ("1795295528000", 31 * DAY)]
    {
        let header = vec![("X-Limit-App-Reset".to_owned(), reset.to_owned())];
        server.set_mode(Mode::Answer(429, header, "{}".into()));
        let result = pushover(&server).deliver_within(&outgoing(&message("x")), LONG);
        let Err(Failure::ChannelRefused { retry_after, .. }) = result else { panic!("{result:?}") };
        assert_eq!(retry_after, Some(expected));
    }
}

#[test]
fn pushover_is_not_misled_by_strangers_words() {
    let server = PushoverDouble::start();
    let long = "ä".repeat(5000);
    for text in HOSTILE.iter().copied().chain([long.as_str()]) {
        let mut message = message(text);
        message.subject = Subject::Host(text.into());
        message.details.push((text.into(), text.into()));
        let result = pushover(&server).deliver_within(&outgoing(&message), LONG);
        assert_eq!(outcome(&result), "delivered", "{text:?}: {result:?}");
        let fields = server.received().pop().unwrap();
        assert!(fields["message"].ends_with("\nevent 000000001a2b3c"), "{fields:?}");
    }
    assert!(server.violations().is_empty(), "{:#?}", server.violations());
}

#[test]
fn a_recovery_cancels_its_emergencies_before_it_is_told() {
    let server = PushoverDouble::start();
    let back = Message { level: Level::Ok, ..message("web1 ipv4 is back") };
    let outgoing =
        OutgoingMessage { recovered_events: &[EventId(1), EventId(2)], ..outgoing(&back) };
    assert_eq!(outcome(&pushover(&server).deliver_within(&outgoing, LONG)), "delivered");
    assert_eq!(server.cancelled(), ["00000000000001", "00000000000002"]);
    assert_eq!(server.requests().last().unwrap(), "/1/messages.json");
    assert_eq!(server.received()[0]["priority"], "0");

    let calm = Pushover { priority: Some(1), ..pushover(&server) };
    assert_eq!(outcome(&calm.deliver_within(&outgoing, LONG)), "delivered");
    assert_eq!(server.cancelled().len(), 2, "without emergencies there is nothing to cancel");
}

#[test]
fn an_emergency_that_cannot_be_ended_holds_up_the_recovery_once() {
    let messages = Arc::new(AtomicUsize::new(0));
    let sent = messages.clone();
    let server = HttpDouble::start(move |request| {
        if request.target.contains("cancel_by_tag") {
            return reply(500, "");
        }
        sent.fetch_add(1, Ordering::SeqCst);
        reply(200, "{\"status\":1}")
    });
    let channel = Pushover {
        token: Secret::new(PushoverDouble::TOKEN),
        api_url: server.url.clone(),
        ..pushover(&PushoverDouble::start())
    };
    let back = Message { level: Level::Ok, ..message("web1 ipv4 is back") };
    for (seconds, expected) in [(0, "unreachable"), (9, "unreachable"), (10, "delivered")] {
        let now = back.at + Duration::from_secs(seconds);
        let outgoing = OutgoingMessage { recovered_events: &[EventId(1)], now, ..outgoing(&back) };
        assert_eq!(outcome(&channel.deliver_within(&outgoing, LONG)), expected, "{seconds}");
    }
    assert_eq!(messages.load(Ordering::SeqCst), 1);
}

#[test]
fn however_many_emergencies_end_the_recovery_keeps_to_its_time() {
    let server = PushoverDouble::start();
    server.set_mode(Mode::Hang);
    let ends: Vec<EventId> = (1..=20).map(EventId).collect();
    let back = Message { level: Level::Ok, ..message("web1 ipv4 is back") };
    let begin = Instant::now();
    let late = OutgoingMessage { recovered_events: &ends, now: back.at + DAY, ..outgoing(&back) };
    assert_eq!(outcome(&pushover(&server).deliver_within(&late, SHORT)), "unknown");
    assert!(begin.elapsed() < SHORT + Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(server.requests().len(), 2, "one cancel and the message");

    server.set_mode(Mode::Normal);
    let in_time = OutgoingMessage { recovered_events: &ends, ..outgoing(&back) };
    assert_eq!(outcome(&pushover(&server).deliver_within(&in_time, LONG)), "delivered");
    assert_eq!(server.cancelled().last().unwrap(), &EventId(20).to_string());
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn a_receipt_is_polled() {
    let server = PushoverDouble::start();
    let state = pushover(&server).poll_within(PushoverDouble::RECEIPT, LONG).unwrap();
    assert_eq!(state.acknowledged, Some(Wall(1_795_291_999_000)));
    assert_eq!(state.device.as_deref(), Some("phone"));
    let unknown = pushover(&server).poll_within("nothing", LONG);
    assert!(matches!(unknown, Err(Failure::MessageRefused(_))), "{unknown:?}");
    server.set_mode(Mode::Hang);
    let lost = pushover(&server).poll_within(PushoverDouble::RECEIPT, SHORT);
    assert!(matches!(lost, Err(Failure::Unreachable { .. })), "{lost:?}");
}

#[test]
fn no_secret_is_in_any_error_of_pushover() {
    let server = PushoverDouble::start();
    let echo = format!("{}{}/{}", "x".repeat(190), PushoverDouble::USER, PushoverDouble::TOKEN);
    let body = serde_json::json!({"status": 0, "errors": [echo], "receipt": echo}).to_string();
    let modes = [200, 301, 400, 404, 429, 500, 503]
        .into_iter()
        .flat_map(|status| [echo.clone(), body.clone()].map(|body| Mode::Status(status, body)))
        .chain([Mode::Redirect, Mode::Hang, Mode::DropAfterReading, Mode::DropBeforeReading]);
    let channel = pushover(&server);
    for mode in modes {
        server.set_mode(mode.clone());
        let result = channel.deliver_within(&outgoing(&message("x")), SHORT);
        let polled = channel.poll_within(PushoverDouble::RECEIPT, SHORT);
        let words = words(&result) + &format!("{polled:?}{channel:?}");
        for secret in channel.secrets() {
            assert!(!words.contains(&secret.reveal()[..8]), "{mode:?}: {words}");
        }
    }
    for api_url in ["not a url", "http://host.invalid", "https://127.0.0.1:1"] {
        let channel = Pushover { api_url: api_url.into(), ..channel.clone() };
        let polled = channel.poll_within(PushoverDouble::RECEIPT, LONG);
        assert!(!format!("{polled:?}").contains(PushoverDouble::TOKEN), "{polled:?}");
    }
}

fn signal(program: &SignalDouble, account: &str) -> Signal {
    Signal {
        cli_path: program.cli_path.clone(),
        user: account.into(),
        recipient: "+12025559999".into(),
        rpc: None,
    }
}

fn both_ways(daemon: &SignalDaemon, account: &str) -> [Signal; 2] {
    [RpcAddress::Unix(daemon.path.clone()), RpcAddress::Http(daemon.url.clone())].map(|rpc| {
        Signal {
            cli_path: "/nonexistent".into(),
            user: account.into(),
            recipient: "+12025559999".into(),
            rpc: Some(rpc),
        }
    })
}

#[test]
fn signal_cli_takes_a_message_from_its_standard_input() {
    let program = SignalDouble::start();
    let message = message("web1 ipv4 overdue");
    for (recipient, seen) in [
        ("+12025559999", "+12025550001 -- +12025559999"),
        ("u:alice.01", "+12025550001 -- u:alice.01"),
        ("group:abc+/=", "+12025550001 --group-id=abc+/="),
        ("+12025550001", "+12025550001 -- +12025550001"),
    ] {
        let channel = Signal { recipient: recipient.into(), ..signal(&program, "+12025550001") };
        let result = channel.deliver_within(&outgoing(&message), &accounts(), LONG);
        assert_eq!(result, Ok(Delivered::default()), "{:?}", program.violations());
        let (text, to) = program.received().pop().unwrap();
        assert_eq!(to, seen);
        assert_eq!(
            text,
            "web1 ipv4 overdue\nlast seen: 2026-11-21T20:12:08Z\nevent 000000001a2b3c"
        );
    }
    assert!(program.violations().is_empty(), "{:?}", program.violations());
}

#[test]
fn signal_outcomes_by_what_signal_cli_says() {
    let program = SignalDouble::start();
    let channel = signal(&program, "+12025550002");
    for (script, expected) in [
        ("echo '{\"timestamp\":1,\"results\":[{\"type\":\"SUCCESS\"}]}'; exit 0", "delivered"),
        ("echo '{\"results\":[{\"type\":\"NETWORK_FAILURE\"}]}'; exit 1", "unreachable"),
        ("echo '{\"results\":[{\"type\":\"UNREGISTERED_FAILURE\"}]}'; exit 0", "message refused"),
        ("echo '{\"results\":[{\"type\":\"IDENTITY_FAILURE\"}]}'; exit 1", "channel refused"),
        ("echo 'User +1 is not registered.' >&2; exit 1", "channel refused"),
        ("echo 'Failed: Closed unexpectedly (IOException)' >&2; exit 3", "unreachable"),
        ("exit 0", "unknown"),
        ("kill -9 $$", "unknown"),
    ] {
        program.answer(script);
        let result = channel.deliver_within(&outgoing(&message("x")), &accounts(), LONG);
        assert_eq!(outcome(&result), expected, "{script}: {result:?}");
    }
    assert!(program.violations().is_empty(), "{:?}", program.violations());
}

#[test]
fn a_signal_cli_that_hangs_is_killed_and_may_have_sent() {
    let program = SignalDouble::start();
    let channel = signal(&program, "+12025550003");
    program.answer("sleep 60 & wait");
    let result =
        channel.deliver_within(&outgoing(&message("x")), &accounts(), Duration::from_secs(2));
    assert_eq!(outcome(&result), "unknown", "{result:?}");
    program.answer("");
    let result = channel.deliver_within(&outgoing(&message("x")), &accounts(), LONG);
    assert_eq!(outcome(&result), "delivered", "the lock went with the group: {result:?}");
    assert!(program.violations().is_empty(), "{:?}", program.violations());
}

#[test]
fn one_account_sends_one_message_at_a_time() {
    let program = SignalDouble::start();
    let channel = signal(&program, "+12025550004");
    let accounts = accounts();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let result = channel.deliver_within(&outgoing(&message("x")), &accounts, LONG);
                assert_eq!(outcome(&result), "delivered", "{result:?}");
            });
        }
    });
    assert!(program.violations().is_empty(), "{:?}", program.violations());
}

#[test]
fn who_waited_for_the_account_has_the_whole_time_to_send() {
    let program = SignalDouble::start();
    program.answer("sleep 1.2; echo '{\"results\":[{\"type\":\"SUCCESS\"}]}'");
    let channel = signal(&program, "+12025550024");
    let limit = Duration::from_secs(2);
    let accounts = accounts();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let result = channel.deliver_within(&outgoing(&message("x")), &accounts, limit);
                assert_eq!(outcome(&result), "delivered", "{result:?}");
            });
        }
    });
}

#[test]
fn signal_is_not_misled_by_strangers_words() {
    let program = SignalDouble::start();
    let daemon = SignalDaemon::start();
    let [socket, http] = both_ways(&daemon, "+12025550005");
    let long = "ä".repeat(5000);
    for text in HOSTILE.iter().copied().chain([long.as_str()]) {
        let mut message = message(text);
        message.details.push((text.into(), text.into()));
        for channel in [&signal(&program, "+12025550005"), &socket, &http] {
            let result = channel.deliver_within(&outgoing(&message), &accounts(), LONG);
            assert_eq!(outcome(&result), "delivered", "{text:?}: {result:?}");
        }
        let (heard, _) = program.received().pop().unwrap();
        assert!(heard.ends_with("\nevent 000000001a2b3c"), "{heard}");
        assert!(!heard.chars().any(|c| c.is_control() && c != '\n'), "{heard:?}");
        for call in daemon.received().iter().rev().take(2) {
            assert_eq!(call["message"], heard.as_str());
        }
    }
    assert!(program.violations().is_empty(), "{:#?}", program.violations());
    assert!(daemon.violations().is_empty(), "{:#?}", daemon.violations());
}

#[test]
fn signal_s_daemon_takes_messages_on_both_of_its_ways() {
    let daemon = SignalDaemon::start();
    let message = message("web1 ipv4 overdue");
    for channel in both_ways(&daemon, "+12025550006") {
        for (recipient, key) in [
            ("+12025559999", "recipient"),
            ("group:abc=", "groupId"),
            ("+12025550006", "recipient"),
        ] {
            let channel = Signal { recipient: recipient.into(), ..channel.clone() };
            let result = channel.deliver_within(&outgoing(&message), &accounts(), LONG);
            assert_eq!(result, Ok(Delivered::default()));
            let call = daemon.received().pop().unwrap();
            assert_eq!(call["account"], "+12025550006");
            assert!(!call[key].is_null(), "{call}");
        }
        assert_eq!(channel.version_within(LONG), Ok("0.13.19".into()));
    }
    assert!(daemon.violations().is_empty(), "{:?}", daemon.violations());
}

#[test]
fn signal_outcomes_by_what_its_daemon_says() {
    let daemon = SignalDaemon::start();
    let result = |kind: &str| serde_json::json!({"timestamp": 1, "results": [{"type": kind}]});
    let error = |code: i64, words: &str| serde_json::json!({"code": code, "message": words});
    let failed = serde_json::json!({"code": -1, "message": "Failed to send message",
        "data": {"response": result("UNREGISTERED_FAILURE")}});
    for (mode, expected) in [
        (DaemonMode::Result(result("SUCCESS")), "delivered"),
        (DaemonMode::Result(result("NETWORK_FAILURE")), "unreachable"),
        (DaemonMode::Result(result("IDENTITY_FAILURE")), "channel refused"),
        (DaemonMode::Error(failed), "message refused"),
        (DaemonMode::Error(error(-3, "closed")), "unreachable"),
        (DaemonMode::Error(error(-32602, "Specified account does not exist")), "channel refused"),
        (DaemonMode::Close, "unknown"),
        (DaemonMode::Hang, "unknown"),
    ] {
        daemon.set_mode(mode.clone());
        let limit = if matches!(mode, DaemonMode::Hang) { SHORT } else { LONG };
        for channel in both_ways(&daemon, "+12025550007") {
            let result = channel.deliver_within(&outgoing(&message("x")), &accounts(), limit);
            assert_eq!(outcome(&result), expected, "{mode:?} {:?}: {result:?}", channel.rpc);
        }
    }
    daemon.set_mode(DaemonMode::Babble);
    let [socket, http] = both_ways(&daemon, "+12025550007");
    let result = socket.deliver_within(&outgoing(&message("x")), &accounts(), SHORT);
    assert_eq!(outcome(&result), "unknown", "{result:?}");
    let result = http.deliver_within(&outgoing(&message("x")), &accounts(), LONG);
    assert_eq!(outcome(&result), "channel refused", "{result:?}");
    for rpc in
        [RpcAddress::Unix("/nonexistent".into()), RpcAddress::Http("http://127.0.0.1:1".into())]
    {
        let channel = Signal { rpc: Some(rpc), ..socket.clone() };
        let result = channel.deliver_within(&outgoing(&message("x")), &accounts(), LONG);
        assert_eq!(outcome(&result), "unreachable", "{result:?}");
    }
}

#[test]
fn signal_cli_s_version_is_asked_for_before_the_first_alarm() {
    let program = SignalDouble::start();
    let channel = signal(&program, "+12025550008");
    assert_eq!(channel.version_within(LONG), Ok("0.13.19".into()));
    program.answer_version("echo 'java.lang.UnsupportedClassVersionError: x' >&2; exit 1");
    assert!(channel.version_within(LONG).unwrap_err().contains("needs Java 21"));
    program.answer_version("echo GNU sed 4.9; exit 0");
    assert!(channel.version_within(LONG).unwrap_err().contains("is not signal-cli"));
    program.answer_version("sleep 60 & wait");
    assert!(channel.version_within(SHORT).unwrap_err().contains("did not end within 300 ms"));
    let missing = Signal { cli_path: "/nonexistent".into(), ..channel };
    assert!(missing.version_within(LONG).unwrap_err().starts_with("/nonexistent"));
    let result = missing.deliver_within(&outgoing(&message("x")), &accounts(), LONG);
    assert_eq!(outcome(&result), "channel refused", "{result:?}");
}
