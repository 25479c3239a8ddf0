//! The email channel against mail servers that misbehave in every way that was met, and one that does not.

mod support {
    pub mod certificates;
    pub mod exim;
    pub mod smtp;
}

use std::time::{Duration, Instant};

use heartbeat::clock::Wall;
use heartbeat::event::{EventId, Level, Message, Subject};
use heartbeat::notify::channel::email::{Email, SmtpTimeouts, TlsMode};
use heartbeat::notify::channel::{Failure, OutgoingMessage, Scope};
use heartbeat::secret::Secret;
use mailparse::{MailHeaderMap, ParsedMail, parse_mail};
use support::certificates::{Pair, certificates};
use support::exim::Exim;
use support::smtp::{Reaction, Script, Server};

const PASSWORD: &str = "correct-horse";
/// base64 of "\0ops\0correct-horse": what AUTH PLAIN says.
const PASSWORD_ON_THE_WIRE: &str = "AG9wcwBjb3JyZWN0LWhvcnNl";

fn message(title: &str) -> Message {
    Message {
        event: EventId(0x1a2),
        at: Wall(1_795_291_928_667),
        level: Level::Critical,
        subject: Subject::Host("web1".into()),
        thread: "web1 ipv4".into(),
        title: title.into(),
        details: vec![("last seen".into(), "2026-11-21T20:11:08.000Z".into())],
        link: None,
        table: None,
    }
}

fn outgoing<'a>(message: &'a Message, recipient: &'a str) -> OutgoingMessage<'a> {
    OutgoingMessage {
        channel: "email_ops",
        message,
        recipient: Some(recipient),
        possible_repeat: false,
        short_form: false,
        thread: None,
        recovered_events: &[],
        now: message.at,
    }
}

fn email(port: u16, tls: TlsMode) -> Email {
    Email {
        recipients: vec![
            "ann@example.com".into(),
            "bob@example.com".into(),
            "cy@example.com".into(),
        ],
        sender: "Heartbeat <hbd@example.com>".into(),
        smtp_server: "localhost".into(),
        smtp_port: port,
        smtp_user: Some("ops".into()),
        smtp_password: Some(Secret::new(PASSWORD)),
        tls,
        ca_file: Some(certificates().authority.certificate.clone()),
        helo: None,
    }
}

fn limits() -> SmtpTimeouts {
    SmtpTimeouts { read: Duration::from_millis(400), total: Duration::from_secs(10) }
}

fn attempt(email: &Email, recipient: &str) -> Result<(), Failure> {
    let message = message("web1 ipv4 overdue");
    email.deliver_within(&outgoing(&message, recipient), limits()).map(drop)
}

fn showing(pair: &Pair) -> Script {
    Script { tls: Some(pair.server_config()), ..Script::default() }.offering("AUTH PLAIN LOGIN")
}

fn good() -> Script {
    showing(&certificates().good)
}

/// In clear and without a login: for what has nothing to do with either.
fn clear(server: &Server) -> Email {
    Email { smtp_user: None, smtp_password: None, ..email(server.port, TlsMode::None) }
}

/// What came of it, in a form that fits a table, and why.
fn outcome(result: Result<(), Failure>) -> (&'static str, String) {
    match result {
        Ok(()) => ("delivered", String::new()),
        Err(Failure::Unreachable { why, .. }) => ("unreachable", why),
        Err(Failure::MessageRefused(why)) => ("message refused", why),
        Err(Failure::ChannelRefused { why, .. }) => ("channel refused", why),
        Err(Failure::FormRefused(why)) => ("form refused", why),
        Err(Failure::Unknown(why)) => ("unknown", why),
    }
}

fn expect(result: Result<(), Failure>, wanted: &str, words: &[&str]) {
    let (ended, why) = outcome(result);
    assert_eq!(ended, wanted, "{why}");
    for word in words {
        assert!(why.contains(word), "{why:?} lacks {word:?}");
    }
    for secret in [PASSWORD, PASSWORD_ON_THE_WIRE] {
        assert!(!why.contains(secret), "{why:?} holds a secret");
    }
}

#[test]
fn a_mail_goes_through_starttls_and_through_implicit_tls() {
    let starttls = good().start();
    expect(attempt(&email(starttls.port, TlsMode::Starttls), "bob@example.com"), "delivered", &[]);
    let session = starttls.session();
    assert_eq!(session.in_clear, 2, "EHLO and STARTTLS alone: {:?}", session.lines);
    assert!(session.lines.contains(&"RCPT TO:<bob@example.com>".to_owned()));
    assert!(session.lines.contains(&format!("AUTH PLAIN {PASSWORD_ON_THE_WIRE}")));
    assert_eq!(session.mails.len(), 1);

    let implicit = Script { implicit: true, ..good() }.start();
    expect(attempt(&email(implicit.port, TlsMode::Implicit), "bob@example.com"), "delivered", &[]);
    assert_eq!(implicit.session().in_clear, 0);
}

#[test]
fn a_login_in_two_turns_is_known() {
    let script = Script { offers: vec!["AUTH LOGIN"], ..good() }
        .says("AUTH LOGIN", "334 VXNlcm5hbWU6")
        .says("b3Bz", "334 UGFzc3dvcmQ6")
        .says("Y29ycmVjdC1ob3JzZQ==", "235 welcome");
    let server = script.start();
    expect(attempt(&email(server.port, TlsMode::Starttls), "bob@example.com"), "delivered", &[]);
}

#[test]
fn a_login_that_asks_in_other_words_or_in_none_was_refused() {
    for (user, password) in [
        ("334", "334"),
        ("334 ", "334 "),
        ("334 QmVudXR6ZXJuYW1lOg==", "334 S2VubndvcnQ6"),
        ("334 Username:", "334 Password:"),
        ("334 \u{3a9}", "334 x"),
    ] {
        let script = Script { offers: vec!["AUTH LOGIN"], ..good() }
            .says("AUTH LOGIN", user)
            .says("b3Bz", password)
            .says("Y29ycmVjdC1ob3JzZQ==", "235 welcome");
        let server = script.start();
        let email = email(server.port, TlsMode::Starttls);
        expect(attempt(&email, "bob@example.com"), "delivered", &[]);
    }
    let script = Script { offers: vec!["AUTH LOGIN"], ..good() }
        .says("AUTH LOGIN", "334")
        .says("b3Bz", "334")
        .says("Y29ycmVjdC1ob3JzZQ==", "535 no: Y29ycmVjdC1ob3JzZQ==");
    let server = script.start();
    let result = attempt(&email(server.port, TlsMode::Starttls), "bob@example.com");
    expect(result, "channel refused", &["smtp_password?"]);
}

#[test]
fn a_server_that_knows_no_ehlo_is_greeted_with_helo() {
    for answer in ["500 what?", "502 5.5.1 unrecognized", "504 no"] {
        let server = Script::default().says("EHLO", answer).start();
        expect(attempt(&clear(&server), "bob@example.com"), "delivered", &[]);
        let lines = server.session().lines;
        assert!(lines[1].starts_with("HELO "), "{lines:?}");
    }
    let server = Script::default().says("EHLO", "502 no").says("HELO", "550 no").start();
    let result = attempt(&clear(&server), "bob@example.com");
    expect(result, "channel refused", &["refuses our greeting"]);
    let server = good().says("EHLO", "502 no").start();
    let result = attempt(&email(server.port, TlsMode::Starttls), "bob@example.com");
    expect(result, "channel refused", &["STARTTLS is not offered"]);
}

#[test]
fn a_domain_beyond_ascii_needs_no_server_that_knows_of_it() {
    let server = Script::default().start();
    let email = Email { recipients: vec!["Jürgen <ops@büro.example>".into()], ..clear(&server) };
    expect(attempt(&email, "Jürgen <ops@büro.example>"), "delivered", &[]);
    let session = server.session();
    assert!(session.lines.contains(&"RCPT TO:<ops@xn--bro-hoa.example>".to_owned()), "{session:?}");
    let mail = String::from_utf8(session.mails[0].clone()).unwrap();
    assert!(mail.contains("<ops@xn--bro-hoa.example>") && mail.is_ascii(), "{mail}");
    let sender = Email { sender: "hbd@büro.example".into(), ..clear(&server) };
    expect(attempt(&sender, "bob@example.com"), "delivered", &[]);
    let lines = server.session().lines;
    assert!(lines.iter().any(|line| line.starts_with("MAIL FROM:<hbd@xn--bro-hoa")), "{lines:?}");
    let result = attempt(&clear(&server), "jürgen@büro.example");
    expect(result, "message refused", &["SMTPUTF8"]);
}

#[test]
fn nothing_is_said_in_clear_when_starttls_is_stripped() {
    let server = Script::default().offering("AUTH PLAIN").start();
    let result = attempt(&email(server.port, TlsMode::Starttls), "bob@example.com");
    expect(result, "channel refused", &["STARTTLS is not offered"]);
    assert!(server.session().lines.iter().all(|line| line.starts_with("EHLO") || line == "QUIT"));
}

#[test]
fn an_answer_in_words_decides_by_its_code_and_its_place() {
    let table: &[(&str, &str, &str, &str)] = &[
        ("CONNECT", "421 4.3.2 too busy", "unreachable", "too busy"),
        ("CONNECT", "554 5.7.1 go away", "channel refused", "turns us away: 554"),
        ("EHLO", "550 bad helo", "channel refused", "helo?"),
        ("STARTTLS", "454 4.7.0 TLS not available", "unreachable", "454"),
        ("STARTTLS", "502 what?", "channel refused", "502"),
        ("AUTH", "535 5.7.8 no", "channel refused", "smtp_user, smtp_password?"),
        ("AUTH", "534 5.7.9 too weak", "channel refused", "534"),
        ("AUTH", "454 4.7.0 later", "unreachable", "454"),
        ("MAIL", "530 5.7.0 log in first", "channel refused", "530"),
        ("MAIL", "550 5.7.1 not your sender", "channel refused", "sender"),
        ("MAIL", "451 later", "unreachable", "451"),
        ("RCPT", "450 4.2.0 greylisted", "unreachable", "greylisted"),
        ("RCPT", "451 4.7.1 greylisted", "unreachable", "greylisted"),
        ("RCPT", "550 5.1.1 nobody here", "message refused", "bob@example.com"),
        ("RCPT", "551 moved", "message refused", "551"),
        ("RCPT", "553 no such name", "message refused", "553"),
        ("RCPT", "501 5.1.3 no such syntax", "message refused", "501"),
        ("RCPT", "550 5.7.1 relaying denied", "channel refused", "relaying"),
        ("RCPT", "554 5.7.1 client host rejected", "channel refused", "rejected"),
        ("RCPT", "503 5.5.1 need MAIL", "channel refused", "503"),
        ("RCPT", "521 5.7.1 we accept no mail", "channel refused", "521"),
        ("RCPT", "552 5.2.2 mailbox full", "unreachable", "552"),
        ("RCPT", "556 5.1.10 the domain takes no mail", "message refused", "556"),
        ("RCPT", "554 5.1.1 nobody here", "message refused", "554"),
        ("RCPT", "550 5.1.8 bad sender", "channel refused", "sender"),
        ("RCPT", "550 relay not permitted", "channel refused", "relay"),
        ("RCPT", "553 sorry, not in my list of allowed rcpthosts", "channel refused", "rcpthosts"),
        ("RCPT", "421 4.7.0 too many", "unreachable", "421"),
        ("RCPT", "530 5.7.0 log in first", "channel refused", "530"),
        ("DATA", "451 later", "unreachable", "451"),
        ("DATA", "554 no", "form refused", "554"),
        (".", "552 5.3.4 too large", "form refused", "552"),
        (".", "554 5.7.1 spam", "form refused", "spam"),
        (".", "550 5.7.1 policy", "form refused", "550"),
        (".", "451 4.3.0 disk full", "unreachable", "451"),
        (".", "354 go on", "unknown", "354"),
    ];
    for (line, answer, wanted, word) in table {
        let server = good().says(line, answer).start();
        let result = attempt(&email(server.port, TlsMode::Starttls), "bob@example.com");
        println!("{line} {answer}: {result:?}");
        expect(result, wanted, &[word, "localhost:"]);
    }
}

#[test]
fn a_login_that_one_recipient_needs_silenced_the_others() {
    for answer in [
        "530 5.7.0 log in first",
        "530 SMTP authentication is required",
        "503 this server requires authentication when mail is for a non-local address",
        "535 5.7.0 log in first",
        "500 5.5.2 syntax",
        "502 not for this one",
    ] {
        let server = Script::default().says("RCPT TO:<bob@", answer).start();
        let email = clear(&server);
        let result = attempt(&email, "bob@example.com");
        let about_one =
            matches!(result, Err(Failure::ChannelRefused { scope: Scope::Recipient, .. }));
        assert!(about_one, "{answer}: {result:?}");
    }
}

#[test]
fn a_yes_after_a_no_in_one_reply_was_taken_for_delivered() {
    for (answer, expected) in [
        ("550-5.7.1 no\r\n250 2.0.0 queued", "unknown"),
        ("250-2.0.0 well\r\n451 4.3.0 later", "unreachable"),
        ("250-2.0.0 well\r\n250 2.0.0 queued", "delivered"),
    ] {
        let server = Script::default().says(".", answer).start();
        let result = attempt(&clear(&server), "bob@example.com");
        assert_eq!(outcome(result).0, expected, "{answer}");
    }
}

#[test]
fn a_refusal_of_the_short_plain_form_is_the_end_of_the_message() {
    for answer in ["552 too large", "554 spam", "550 policy"] {
        let server = Script::default().says(".", answer).start();
        let message = message("web1 ipv4 overdue");
        let short = OutgoingMessage { short_form: true, ..outgoing(&message, "bob@example.com") };
        let result = clear(&server).deliver_within(&short, limits()).map(drop);
        expect(result, "message refused", &[answer]);
        assert!(!String::from_utf8_lossy(&server.session().mails[0]).contains("html"));
    }
}

#[test]
fn one_bad_recipient_of_three_costs_the_others_nothing() {
    let server = Script::default().says("RCPT TO:<bob@", "550 5.1.1 nobody here").start();
    let email = clear(&server);
    let ended: Vec<_> =
        email.recipients().iter().map(|to| outcome(attempt(&email, to)).0).collect();
    assert_eq!(ended, ["delivered", "message refused", "delivered"]);
}

#[test]
fn no_login_offered_and_none_that_we_know_are_told_apart() {
    let none = Script { offers: Vec::new(), ..good() }.start();
    let result = attempt(&email(none.port, TlsMode::Starttls), "bob@example.com");
    expect(result, "channel refused", &["no login is offered"]);
    let strange = Script { offers: vec!["AUTH GSSAPI NTLM"], ..good() }.start();
    let result = attempt(&email(strange.port, TlsMode::Starttls), "bob@example.com");
    expect(result, "channel refused", &["GSSAPI NTLM"]);
}

#[test]
fn an_echoed_password_is_not_repeated() {
    const ECHO: &str = "535 unknown: AUTH PLAIN AG9wcwBjb3JyZWN0LWhvcnNl (correct-horse)";
    let server = good().says("AUTH", ECHO).start();
    let result = attempt(&email(server.port, TlsMode::Starttls), "bob@example.com");
    expect(result, "channel refused", &["[secret]"]);
}

#[test]
fn a_password_is_not_told_in_pieces_either() {
    let long = format!("535 AUTH PLAIN {PASSWORD_ON_THE_WIRE} {}", "x".repeat(9000));
    for (line, answer) in [
        ("AUTH", long.leak() as &str),
        ("AUTH", "535-AG9wcwBjb3Jy\r\n535 ZWN0LWhvcnNl"),
        ("MAIL", "550 ops:correct-\u{200b}horse"),
        ("MAIL", "550 ops:correct- horse"),
        ("MAIL", "what? ops:correct- horse"),
    ] {
        let server = good().says(line, answer).start();
        let (_, why) = outcome(attempt(&email(server.port, TlsMode::Starttls), "bob@example.com"));
        for piece in ["AG9w", "ZWN0", "corr", "horse"] {
            assert!(!why.contains(piece), "{why:?} holds {piece}");
        }
    }
}

#[test]
fn an_answer_before_the_question_is_not_believed() {
    for (line, answer) in [
        ("DATA", "354 go on\r\n250 early"),
        ("RCPT", "250 fine\r\n354 early"),
        ("EHLO", "250 mail.example\r\n250 early"),
    ] {
        let server = Script::default().says(line, answer).on(".", Reaction::Close).start();
        expect(attempt(&clear(&server), "bob@example.com"), "unreachable", &["before it is asked"]);
    }
}

#[test]
fn silence_is_told_in_words_wherever_it_falls() {
    let table = [
        ("CONNECT", "unreachable", "no greeting from localhost:"),
        ("EHLO", "unreachable", "within 400 ms after EHLO"),
        ("STARTTLS", "unreachable", "after STARTTLS"),
        ("AUTH", "unreachable", "after AUTH"),
        ("MAIL", "unreachable", "after MAIL FROM"),
        ("RCPT", "unreachable", "after RCPT TO"),
        ("DATA", "unreachable", "after DATA"),
        (".", "unknown", "after the whole mail"),
    ];
    for (line, wanted, words) in table {
        let server = good().on(line, Reaction::Hang).start();
        expect(
            attempt(&email(server.port, TlsMode::Starttls), "bob@example.com"),
            wanted,
            &[words],
        );
        let server = good().on(line, Reaction::Close).start();
        expect(attempt(&email(server.port, TlsMode::Starttls), "bob@example.com"), wanted, &[]);
    }
}

#[test]
fn a_server_that_does_not_answer_the_tls_greeting_is_left() {
    let script = Script { implicit: true, ..Script::default() };
    let server = script.on("CONNECT", Reaction::Hang).start();
    let result = attempt(&email(server.port, TlsMode::Implicit), "bob@example.com");
    expect(result, "unreachable", &["within 400 ms after the TLS greeting"]);
}

#[test]
fn a_trickling_server_is_left_when_the_whole_time_is_up() {
    for line in ["CONNECT", "EHLO", "DATA"] {
        let server = Script::default().on(line, Reaction::Trickle).start();
        let message = message("web1 ipv4 overdue");
        let begin = Instant::now();
        let limits =
            SmtpTimeouts { read: Duration::from_secs(5), total: Duration::from_millis(700) };
        let result = clear(&server).deliver_within(&outgoing(&message, "bob@example.com"), limits);
        expect(result.map(drop), "unreachable", &["too slow", "700 ms"]);
        assert!(begin.elapsed() < Duration::from_secs(3), "{line}: {:?}", begin.elapsed());
        server.session();
    }
}

#[test]
fn words_injected_behind_starttls_are_not_believed() {
    let server = good().says("STARTTLS", "220 begin\r\n250 injected").start();
    let result = attempt(&email(server.port, TlsMode::Starttls), "bob@example.com");
    expect(result, "channel refused", &["meddling"]);
    assert!(server.session().mails.is_empty());
}

#[test]
fn the_wrong_kind_of_port_is_recognised_both_ways() {
    let implicit = Script { implicit: true, ..good() }.start();
    let result = attempt(&email(implicit.port, TlsMode::Starttls), "bob@example.com");
    expect(result, "unreachable", &["no greeting", "wants implicit TLS", "tls: implicit"]);
    let starttls = good().start();
    let result = attempt(&email(starttls.port, TlsMode::Implicit), "bob@example.com");
    expect(result, "channel refused", &["wants STARTTLS", "tls: starttls"]);
}

#[test]
fn a_certificate_that_does_not_hold_is_named_with_its_remedy() {
    let made = certificates();
    let table = [
        (&made.expired, "has expired"),
        (&made.wrong_name, "elsewhere.example"),
        (&made.authority, "CA:TRUE"),
    ];
    for (pair, words) in table {
        let server = showing(pair).start();
        let result = attempt(&email(server.port, TlsMode::Starttls), "bob@example.com");
        expect(result, "channel refused", &[words, "localhost:"]);
        let server = Script { implicit: true, ..showing(pair) }.start();
        let result = attempt(&email(server.port, TlsMode::Implicit), "bob@example.com");
        expect(result, "channel refused", &[words]);
    }
    let server = good().start();
    // Trusting somebody, but not this authority.
    let other = Email {
        ca_file: Some(made.wrong_name.certificate.clone()),
        ..email(server.port, TlsMode::Starttls)
    };
    expect(attempt(&other, "bob@example.com"), "channel refused", &["unknown issuer (ca_file?)"]);
    let session = server.session();
    assert_eq!(session.lines.len(), 2, "nothing after STARTTLS: {:?}", session.lines);
}

#[test]
fn a_ca_file_that_cannot_be_read_is_named() {
    let email = Email { ca_file: Some("/nowhere/ca.pem".into()), ..email(1, TlsMode::Starttls) };
    expect(attempt(&email, "bob@example.com"), "channel refused", &["/nowhere/ca.pem"]);
}

#[test]
fn a_closed_port_and_an_unknown_name_are_unreachable() {
    // Bound, so that nobody else gets the port, but not listening.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    expect(
        attempt(&email(port, TlsMode::Starttls), "bob@example.com"),
        "unreachable",
        &["cannot be reached"],
    );
    let unknown = Email { smtp_server: "mail.invalid".into(), ..email(port, TlsMode::Starttls) };
    expect(attempt(&unknown, "bob@example.com"), "unreachable", &["mail.invalid"]);
}

#[test]
fn a_stranger_behind_the_port_is_refused() {
    for banner in ["HTTP/1.1 400 Bad Request", "* OK IMAP4rev1", "SSH-2.0-OpenSSH_9.2"] {
        let server = Script::default().says("CONNECT", banner).start();
        expect(attempt(&clear(&server), "bob@example.com"), "channel refused", &["SMTP", banner]);
    }
}

/// Real servers look things up and write to disk.
fn patient() -> SmtpTimeouts {
    SmtpTimeouts { read: Duration::from_secs(20), total: Duration::from_secs(30) }
}

fn part<'a>(mail: &'a ParsedMail<'a>, kind: &str) -> String {
    let part = mail.parts().find(|part| part.ctype.mimetype == kind).expect("such a part");
    part.get_body().unwrap().replace("\r\n", "\n")
}

fn header(mail: &ParsedMail, name: &str) -> String {
    mail.headers.get_first_value(name).unwrap_or_default()
}

#[test]
fn every_kind_of_text_arrives_right_through_a_real_mail_server() {
    let exim = Exim::start(&certificates().good, false);
    let email = email(exim.port, TlsMode::Starttls);
    let long = "Überlauf ".repeat(5000 / 9 + 1);
    let cut = format!("{}…", long.chars().take(199).collect::<String>());
    let table: &[(&str, &str, &str)] = &[
        ("web1 ipv4 overdue", "web1 ipv4 overdue", "web1 ipv4 overdue"),
        ("Grüße aus Köln 🚨👩‍🚒", "Grüße aus Köln 🚨👩‍🚒", "Grüße aus Köln 🚨👩‍🚒"),
        ("-rf / --now", "-rf / --now", "-rf / --now"),
        ("a\n.\n..\nQUIT", "a . .. QUIT", "a\n.\n..\nQUIT"),
        (".", ".", "."),
        (
            "web1\r\nBcc: eve@example.com\r\n\r\nhi",
            "web1 Bcc: eve@example.com hi",
            "web1\nBcc: eve@example.com\n\nhi",
        ),
        (&long, &cut, long.trim_end()),
        ("x \u{202E}fdp.exe\u{2066}\u{7}", "x fdp.exe", "x fdp.exe"),
        ("", "(no details)", "(no details)"),
        (" \u{200F}\n", "(no details)", "(no details)"),
        ("<b>&amp;\"=3D", "<b>&amp;\"=3D", "<b>&amp;\"=3D"),
        ("From here on", "From here on", "From here on"),
        ("=?utf-8?q?fake?= subject", "= ?utf-8?q?fake?= subject", "=?utf-8?q?fake?= subject"),
    ];
    for (index, (title, subject, text)) in table.iter().enumerate() {
        let message = message(title);
        let to = format!("case{index}@example.com");
        let sent = email.deliver_within(&outgoing(&message, &to), patient());
        assert_eq!(sent.map(drop), Ok(()), "{title}");
        let raw = exim.mail();
        let mail = parse_mail(&raw).unwrap();
        assert_eq!(header(&mail, "Subject"), *subject);
        assert_eq!(mail.headers.get_first_value("Bcc"), None);
        let plain = part(&mail, "text/plain");
        assert!(plain.starts_with(&format!("{text}\n\nlast seen: ")), "{plain:?}");
        let html = part(&mail, "text/html");
        let escaped = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;");
        assert!(html.contains(&format!("\">{escaped}</p>")), "{html}");
        assert!(raw.split(|byte| *byte == b'\n').all(|line| line.len() < 999), "{title}");
    }
}

#[test]
fn a_mail_carries_the_headers_that_thread_mark_and_sort_it() {
    let exim = Exim::start(&certificates().good, true);
    let email =
        Email { helo: Some("hbd.example.com".into()), ..email(exim.port, TlsMode::Implicit) };
    let mut message = message("web1 ipv4 overdue");
    message.subject = Subject::Host("web1\r\nBcc: eve@example.com".into());
    let repeat = OutgoingMessage {
        possible_repeat: true,
        channel: "ops team",
        ..outgoing(&message, "bob@example.com")
    };
    assert!(email.deliver_within(&repeat, patient()).is_ok());
    let raw = exim.mail();
    let mail = parse_mail(&raw).unwrap();
    let expected = [
        ("Date", "Sat, 21 Nov 2026 20:12:08 +0000"),
        ("From", "Heartbeat <hbd@example.com>"),
        ("To", "ann@example.com, bob@example.com, cy@example.com"),
        ("Message-ID", "<000000000001a2.ops%20team@hbd.example.com>"),
        ("In-Reply-To", "<thread.c2c9b261f4f6faff@hbd.example.com>"),
        ("References", "<thread.c2c9b261f4f6faff@hbd.example.com>"),
        ("Auto-Submitted", "auto-generated"),
        ("List-Id", "Heartbeat <heartbeat.hbd.example.com>"),
        ("X-Priority", "1"),
        ("Importance", "high"),
        ("X-Heartbeat-Host", "web1 Bcc: eve@example.com"),
        ("X-Heartbeat-Event", "000000000001a2"),
        ("X-Heartbeat-Level", "critical"),
        ("Bcc", ""),
        ("Envelope-to", "bob@example.com"),
    ];
    for (name, value) in expected {
        assert_eq!(header(&mail, name), value, "{name}");
    }
    assert_eq!(mail.ctype.mimetype, "multipart/alternative");
    let kinds: Vec<_> = mail.subparts.iter().map(|part| part.ctype.mimetype.as_str()).collect();
    assert_eq!(kinds, ["text/plain", "text/html"]);
    assert_eq!(mail.subparts[0].ctype.charset, "utf-8");
    for kind in kinds {
        assert!(part(&mail, kind).contains("Possible repeat: event 000000000001a2"));
    }
}

#[test]
fn a_certificate_of_version_1_is_told_in_plain_words() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let openssl = |arguments: &str| {
        let output = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory.path())
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{output:?}");
    };
    openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=localhost");
    openssl("x509 -req -in request.pem -signkey key.pem -out old.pem -days 30");
    let old = Pair { certificate: file("old.pem"), key: file("key.pem") };
    let exim = Exim::start(&old, false);
    let email = Email { ca_file: Some(file("old.pem")), ..email(exim.port, TlsMode::Starttls) };
    let message = message("web1 ipv4 overdue");
    let outgoing = outgoing(&message, "bob@example.com");
    let result = email.deliver_within(&outgoing, patient()).map(drop);
    expect(result, "channel refused", &["is of version 1", "make one of version 3"]);
}

#[test]
fn a_real_mail_server_refuses_as_it_should() {
    let exim = Exim::start(&certificates().good, false);
    let email = email(exim.port, TlsMode::Starttls);
    let message = message("full form only");
    let deliver = |email: &Email, outgoing: &OutgoingMessage| {
        email.deliver_within(outgoing, patient()).map(drop)
    };
    let to_nobody = outgoing(&message, "nobody@example.com");
    expect(
        deliver(&email, &to_nobody),
        "message refused",
        &["nobody@example.com", "nobody of that name"],
    );
    let to_elsewhere = outgoing(&message, "bob@elsewhere.example");
    expect(deliver(&email, &to_elsewhere), "channel refused", &["relay not permitted"]);
    let to_bob = outgoing(&message, "bob@example.com");
    expect(deliver(&email, &to_bob), "form refused", &["no HTML today"]);
    let wrong = Email { smtp_password: Some(Secret::new("wrong-horse")), ..email.clone() };
    expect(deliver(&wrong, &to_bob), "channel refused", &["smtp_password?", "535"]);
    let without = Email { smtp_user: None, smtp_password: None, ..email.clone() };
    expect(deliver(&without, &to_bob), "channel refused", &["without a login"]);
    let foreign = outgoing(&message, "jürgen@example.com");
    let short = OutgoingMessage { short_form: true, ..foreign };
    expect(deliver(&email, &short), "delivered", &[]);
}
