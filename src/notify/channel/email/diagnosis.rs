//! Errors of an SMTP session: where it ended and why, what that means for the delivery, and the
//! sentence that tells the operator. Pure.

use std::time::Duration;

use super::{SmtpTimeouts, TlsMode};
use crate::clock::format_duration;
use crate::notify::channel::attempt::Failure;
use crate::tls::{CertificateFault, VERSION_1_REMEDY};

/// How far a session had come.
///
/// ```text
/// Connect -> [Handshake] -> Banner -> Ehlo -> [Starttls -> Handshake -> Ehlo] -> [Auth]
///         -> Sender -> Recipient (each) -> Data -> EndOfData
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the name and connecting.
    Connect,
    /// Waiting for the greeting.
    Banner,
    /// EHLO, before or after TLS.
    Ehlo,
    /// STARTTLS was sent.
    Starttls,
    /// The TLS handshake.
    Handshake,
    /// User and password.
    Auth,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, and the mail up to its last line.
    Data,
    /// The dot that ends the mail was sent: from here on the server may have it.
    EndOfData,
}

impl Stage {
    /// What was sent last, for `no answer after ...`.
    fn last_sent(self) -> &'static str {
        match self {
            Stage::Connect | Stage::Banner => "connecting",
            Stage::Ehlo => "EHLO",
            Stage::Starttls => "STARTTLS",
            Stage::Handshake => "the TLS greeting",
            Stage::Auth => "AUTH",
            Stage::Sender => "MAIL FROM",
            Stage::Recipient => "RCPT TO",
            Stage::Data => "DATA",
            Stage::EndOfData => "the whole mail",
        }
    }
}

/// A server's reply (RFC 5321, section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpReply {
    /// Three digits.
    pub code: u16,
    /// What follows the code, line by line, as it came.
    pub lines: Vec<String>,
}

/// Words of servers that refuse us, or the way, and not a mailbox: of Postfix, Exim, qmail,
/// Sendmail, Exchange and block lists.
const POLICY_WORDS: [&str; 16] = [
    "relay",
    "rcpthosts",
    "authenticat",
    "log in",
    "login",
    "denied",
    "not permitted",
    "not allowed",
    "not authorized",
    "prohibited",
    "policy",
    "blocked",
    "black",
    "rejected",
    "sender",
    "spam",
];

impl SmtpReply {
    /// Whether it refuses this client or the way to the recipient and not the mailbox, by its
    /// enhanced code (RFC 3463, section 3), or by its words where it has none.
    fn is_policy(&self) -> bool {
        let line = self.lines.first().map(|line| line.to_ascii_lowercase()).unwrap_or_default();
        match enhanced_code(&line) {
            // 5.1.7 and 5.1.8 are about the sender.
            Some((subject, detail)) => !matches!(subject, 1 | 2) || matches!(detail, 7 | 8),
            None => POLICY_WORDS.iter().any(|word| line.contains(word)),
        }
    }

    fn names_the_mailbox(&self) -> bool {
        matches!(self.code, 501 | 550 | 551 | 553 | 556)
            || self.lines.first().is_some_and(|line| enhanced_code(line).is_some())
    }
}

/// The subject and the detail of `5.1.10 ...`: subject 1 is the address, 2 the mailbox.
fn enhanced_code(line: &str) -> Option<(u16, u16)> {
    let mut parts = line.split_whitespace().next()?.split('.');
    parts.next().filter(|class| *class == "5")?;
    let numbers = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(numbers)
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// The server replied with another code than the expected one.
    Reply(SmtpReply),
    /// Nothing came within [`SmtpTimeouts::read`].
    Timeout,
    /// [`SmtpTimeouts::total`] has passed.
    DeadlineExceeded,
    /// The server closed the connection.
    Closed,
    /// The network, or the name's resolution, in the system's words.
    Network(String),
    /// The server's certificate is not trusted.
    Certificate(CertificateFault),
    /// What came was not TLS.
    NotTls,
    /// Another failure of TLS, in the words of the library.
    TlsFailed(String),
    /// What came was not SMTP.
    NotSmtp(String),
    /// The server replied before the command: that would be taken for the reply to the next one.
    Unsolicited,
    /// More than the reply to STARTTLS came in clear: a response injection (CVE-2021-38371).
    InjectedData,
    /// The server or this machine lacks what the configuration needs: trying again does not help.
    Unsupported(String),
    /// The recipient's address needs an extension that the server does not have.
    RecipientUnsupported(String),
}

/// Where a session ended and why.
#[derive(Clone, Debug, PartialEq)]
pub struct SmtpError {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub cause: Cause,
}

/// What an error's meaning and its sentence depend on besides the session itself.
#[derive(Clone, Copy, Debug)]
pub struct SessionContext<'a> {
    /// `mail.example.com:587`
    pub server: &'a str,
    /// The port alone.
    pub port: u16,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// Whether we log in.
    pub logs_in: bool,
    /// To whom, as the operator wrote it.
    pub recipient: &'a str,
    /// Whether this was the short plain form already.
    pub short_form: bool,
    /// The limits that it kept.
    pub limits: SmtpTimeouts,
}

/// What the error means for the delivery.
pub fn classify(error: &SmtpError, about: &SessionContext) -> Failure {
    let why = describe(error, about);
    match &error.cause {
        Cause::Reply(reply) => classify_reply(error.stage, reply, about.short_form, why),
        Cause::Unsolicited => Failure::unreachable(why),
        // A server may let a client wait, or hang up, because of a recipient.
        Cause::Timeout | Cause::Closed if error.stage == Stage::Recipient => {
            Failure::recipient_deferred(why)
        }
        _ if error.stage == Stage::EndOfData => Failure::Unknown(why),
        Cause::Timeout | Cause::DeadlineExceeded | Cause::Closed | Cause::Network(_) => {
            Failure::unreachable(why)
        }
        // Another protocol in the greeting stays one; garbage in mid-session may pass.
        Cause::NotSmtp(_) if error.stage != Stage::Banner => Failure::unreachable(why),
        Cause::TlsFailed(_) | Cause::NotTls if error.stage != Stage::Handshake => {
            Failure::unreachable(why)
        }
        Cause::Certificate(_)
        | Cause::NotTls
        | Cause::TlsFailed(_)
        | Cause::NotSmtp(_)
        | Cause::InjectedData
        | Cause::Unsupported(_) => Failure::channel_refused(why),
        Cause::RecipientUnsupported(_) => Failure::MessageRefused(why),
    }
}

fn classify_reply(stage: Stage, reply: &SmtpReply, short_form: bool, why: String) -> Failure {
    match (stage, reply.code) {
        (Stage::Recipient | Stage::Data | Stage::EndOfData, 400..=499) => {
            Failure::recipient_deferred(why)
        }
        (_, 400..=499) => Failure::unreachable(why),
        // A full mailbox, or RFC 5321, section 4.5.3.1.10: it passes.
        (Stage::Recipient, 552) => Failure::recipient_deferred(why),
        (Stage::Recipient, 500..=599) if reply.names_the_mailbox() && !reply.is_policy() => {
            Failure::MessageRefused(why)
        }
        // Also what asks for a login: a server may take mail for its own people without one.
        (Stage::Recipient, 500..=599) => Failure::recipient_refused(why),
        (_, 530 | 534 | 535 | 538) => Failure::channel_refused(why),
        (Stage::Data | Stage::EndOfData, 500..=599) if short_form => Failure::MessageRefused(why),
        (Stage::Data | Stage::EndOfData, 500..=599) => Failure::FormRefused(why),
        (_, 500..=599) => Failure::channel_refused(why),
        (Stage::EndOfData, _) => Failure::Unknown(why),
        _ => Failure::unreachable(why),
    }
}

fn describe(error: &SmtpError, about: &SessionContext) -> String {
    let server = about.server;
    let after = error.stage.last_sent();
    match &error.cause {
        Cause::Reply(reply) => refusal(error.stage, reply, about),
        Cause::Timeout => silence(error.stage, about),
        Cause::DeadlineExceeded => {
            format!(
                "{server} is too slow: not done within {}, broken off after {after}",
                seconds(about.limits.total)
            )
        }
        Cause::Closed => {
            format!("{server} hung up after {after}{}", tls_hint(error.stage, about, false))
        }
        Cause::Network(why) if error.stage == Stage::Connect => {
            format!("{server} cannot be reached: {why}")
        }
        Cause::Network(why) => format!("the connection to {server} broke after {after}: {why}"),
        Cause::Certificate(error) => certificate(error, about),
        Cause::NotTls => not_tls(error.stage, about),
        Cause::TlsFailed(why) if error.stage != Stage::Handshake => {
            format!("the TLS connection to {server} broke after {after}: {why}")
        }
        Cause::TlsFailed(why) => format!("{server} and we cannot agree on TLS: {why}"),
        Cause::NotSmtp(said) => format!("{server} does not speak SMTP after {after}: \"{said}\""),
        Cause::Unsolicited => format!("{server} answers before it is asked, after {after}"),
        Cause::InjectedData => format!(
            "{server} sent more than its answer to STARTTLS: somebody may be meddling with the connection"
        ),
        Cause::Unsupported(what) => format!("{server}: {what}"),
        Cause::RecipientUnsupported(what) => format!("{server}: {what}"),
    }
}

fn silence(stage: Stage, about: &SessionContext) -> String {
    let (server, limit) = (about.server, seconds(about.limits.read));
    match stage {
        Stage::Connect => {
            format!("{server} cannot be reached: nothing answers there (a firewall?)")
        }
        Stage::Banner => {
            format!("no greeting from {server} within {limit}{}", tls_hint(stage, about, true))
        }
        _ => format!("no answer from {server} within {limit} after {}", stage.last_sent()),
    }
}

/// The hint that the port expects TLS from the first byte: such a server waits for the client to
/// begin, or closes the connection after a while.
fn tls_hint(stage: Stage, about: &SessionContext, silent: bool) -> &'static str {
    match (stage, about.tls) {
        (Stage::Banner, TlsMode::Starttls | TlsMode::None) if about.port == 465 => {
            " (465 wants implicit TLS: set tls: implicit)"
        }
        (Stage::Banner, TlsMode::Starttls | TlsMode::None) if silent => {
            " (if it is a port like 465, it wants implicit TLS: set tls: implicit)"
        }
        _ => "",
    }
}

fn not_tls(stage: Stage, about: &SessionContext) -> String {
    let server = about.server;
    match about.tls {
        TlsMode::Implicit if about.port == 587 => {
            format!("{server} does not begin with TLS (587 wants STARTTLS: set tls: starttls)")
        }
        TlsMode::Implicit => format!(
            "{server} does not begin with TLS (if it is a port like 587, it wants STARTTLS: set tls: starttls)"
        ),
        TlsMode::Starttls | TlsMode::None => {
            format!("{server} does not speak TLS after {}", stage.last_sent())
        }
    }
}

fn refusal(stage: Stage, reply: &SmtpReply, about: &SessionContext) -> String {
    let server = about.server;
    let said = format!("{} {}", reply.code, reply.lines.join(" "));
    let said = said.trim_end();
    match stage {
        Stage::Connect | Stage::Banner => format!("{server} turns us away: {said}"),
        Stage::Ehlo => format!("{server} refuses our greeting (helo?): {said}"),
        Stage::Starttls | Stage::Handshake => format!("{server} refuses STARTTLS: {said}"),
        Stage::Auth => {
            let hint = if reply.code >= 500 { " (smtp_user, smtp_password?)" } else { "" };
            format!("{server} refuses the login{hint}: {said}")
        }
        Stage::Sender => format!("{server} refuses the sender{}: {said}", login_hint(about)),
        Stage::Recipient => {
            format!(
                "{server} refuses the recipient {}{}: {said}",
                about.recipient,
                login_hint(about)
            )
        }
        Stage::Data | Stage::EndOfData if reply.code < 400 => {
            format!("{server} answers out of turn after {}: {said}", stage.last_sent())
        }
        Stage::Data | Stage::EndOfData => format!("{server} refuses the mail: {said}"),
    }
}

fn login_hint(about: &SessionContext) -> &'static str {
    if about.logs_in { "" } else { " (without a login: smtp_user, smtp_password?)" }
}

fn certificate(fault: &CertificateFault, about: &SessionContext) -> String {
    let subject = format!("the certificate of {}", about.server);
    match fault {
        CertificateFault::UnknownIssuer => {
            format!("{subject} is not trusted: unknown issuer (ca_file?)")
        }
        CertificateFault::Expired => {
            format!("{subject} has expired (or this machine's clock is wrong)")
        }
        CertificateFault::NotYetValid => {
            format!("{subject} is not valid yet (is this machine's clock right?)")
        }
        CertificateFault::WrongName(None) => {
            format!("{subject} is for another name (smtp_server must be the name in it)")
        }
        CertificateFault::WrongName(Some(presented)) => format!(
            "{subject} is for another name: {} (smtp_server must be the name in it)",
            if presented.is_empty() { "none".into() } else { presented.join(", ") }
        ),
        CertificateFault::IsAuthority => format!(
            "{subject} is an authority's own (CA:TRUE), which no server may show: \
             make one with CA:FALSE, or let the authority sign one"
        ),
        CertificateFault::Version1 => format!("{subject} {VERSION_1_REMEDY}"),
        CertificateFault::Other(other) => format!("{subject} does not hold: {other}"),
    }
}

/// `60 s`, also where [`format_duration`] would say minutes.
fn seconds(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format_duration(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(port: u16, tls: TlsMode) -> SessionContext<'static> {
        SessionContext {
            server: "mail.example.com:port",
            port,
            tls,
            logs_in: true,
            recipient: "bob@example.com",
            short_form: false,
            limits: SmtpTimeouts::default(),
        }
    }

    fn judged(stage: Stage, cause: Cause, port: u16, tls: TlsMode) -> Failure {
        classify(&SmtpError { stage, cause }, &about(port, tls))
    }

    #[test]
    fn the_well_known_ports_are_named_when_they_are_taken_for_each_other() {
        let Failure::Unreachable { why, .. } =
            judged(Stage::Banner, Cause::Timeout, 465, TlsMode::Starttls)
        else {
            panic!("silence is worth another try")
        };
        assert_eq!(
            why,
            "no greeting from mail.example.com:port within 60 s (465 wants implicit TLS: set tls: implicit)"
        );
        let Failure::ChannelRefused { why, .. } =
            judged(Stage::Handshake, Cause::NotTls, 587, TlsMode::Implicit)
        else {
            panic!("nothing but a change of the configuration helps")
        };
        assert!(why.ends_with("(587 wants STARTTLS: set tls: starttls)"), "{why}");
    }

    #[test]
    fn silence_says_how_long_and_after_what() {
        let failure = judged(Stage::Ehlo, Cause::Timeout, 587, TlsMode::Starttls);
        let why = "no answer from mail.example.com:port within 60 s after EHLO";
        assert_eq!(failure, Failure::unreachable(why));
    }

    #[test]
    fn whatever_ends_the_conversation_after_the_last_dot_leaves_it_unknown() {
        for cause in [
            Cause::Timeout,
            Cause::DeadlineExceeded,
            Cause::Closed,
            Cause::Network("reset".into()),
            Cause::NotSmtp("?".into()),
            Cause::TlsFailed("bad record".into()),
            Cause::Reply(SmtpReply { code: 354, lines: Vec::new() }),
        ] {
            let failure = judged(Stage::EndOfData, cause.clone(), 587, TlsMode::Starttls);
            assert!(matches!(failure, Failure::Unknown(_)), "{cause:?}");
        }
    }
}
