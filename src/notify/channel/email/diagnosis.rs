//! What the end of a conversation with a mail server means, in the operator's words. Pure.

use std::time::Duration;

use rustls::CertificateError;

use super::{Limits, Tls};
use crate::clock::words;
use crate::notify::channel::attempt::Failure;

/// How far a conversation had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the name and connecting.
    Connect,
    /// Waiting for the greeting.
    Banner,
    /// EHLO, before or after TLS.
    Ehlo,
    /// STARTTLS was said.
    Starttls,
    /// TLS is being agreed on.
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
    Dot,
}

impl Stage {
    /// What was said last, for `no answer after ...`.
    fn last_word(self) -> &'static str {
        match self {
            Stage::Connect | Stage::Banner => "connecting",
            Stage::Ehlo => "EHLO",
            Stage::Starttls => "STARTTLS",
            Stage::Handshake => "the TLS greeting",
            Stage::Auth => "AUTH",
            Stage::Sender => "MAIL FROM",
            Stage::Recipient => "RCPT TO",
            Stage::Data => "DATA",
            Stage::Dot => "the whole mail",
        }
    }
}

/// A server's reply (RFC 5321, section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// What follows the code, line by line, as it came.
    pub lines: Vec<String>,
}

impl Reply {
    /// Whether it is about what we are and may do, by its enhanced code (RFC 3463, section 3.8):
    /// no relaying, a client that is not let in.
    fn is_policy(&self) -> bool {
        self.lines.first().is_some_and(|line| line.starts_with("5.7."))
    }
}

/// Why a conversation went no further.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// The server said something other than what was wanted.
    Answer(Reply),
    /// Nothing came within [`Limits::read`].
    Silent,
    /// [`Limits::total`] has passed.
    Overdue,
    /// The server hung up.
    Closed,
    /// The network, or the name's resolution, in the system's words.
    Network(String),
    /// The server's certificate does not hold.
    Certificate(CertificateError),
    /// What came was not TLS.
    NotTls,
    /// TLS was spoken, but nothing was agreed on.
    Tls(String),
    /// What came was not SMTP.
    NotSmtp(String),
    /// The server answered before it was asked: its words would be taken for another answer.
    Early,
    /// Words came in clear behind the answer to STARTTLS, where nobody honest puts any.
    Injected,
    /// The server lacks what is needed, or our side does: nothing to be had by asking again.
    Lacking(String),
    /// The recipient's address asks for something that the server does not have.
    RecipientImpossible(String),
}

/// Where a conversation ended and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub cause: Cause,
}

/// What the words and the verdict depend on besides the conversation itself.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// `mail.example.com:587`
    pub server: &'a str,
    /// The port alone.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// Whether we log in.
    pub logs_in: bool,
    /// To whom, as the operator wrote it.
    pub recipient: &'a str,
    /// Whether this was the short plain form already.
    pub plain: bool,
    /// How long it might take.
    pub limits: Limits,
}

/// What to make of it.
pub fn judge(stop: &Stop, about: &Circumstances) -> Failure {
    let why = sentence(stop, about);
    match &stop.cause {
        Cause::Answer(reply) => judge_answer(stop.stage, reply, about.plain, why),
        Cause::Early => Failure::unreachable(why),
        _ if stop.stage == Stage::Dot => Failure::Unknown(why),
        Cause::Silent | Cause::Overdue | Cause::Closed | Cause::Network(_) => {
            Failure::unreachable(why)
        }
        // A stranger behind the port stays one; a stutter in mid-conversation may pass.
        Cause::NotSmtp(_) if stop.stage != Stage::Banner => Failure::unreachable(why),
        Cause::Tls(_) | Cause::NotTls if stop.stage != Stage::Handshake => {
            Failure::unreachable(why)
        }
        Cause::Certificate(_)
        | Cause::NotTls
        | Cause::Tls(_)
        | Cause::NotSmtp(_)
        | Cause::Injected
        | Cause::Lacking(_) => Failure::channel_refused(why),
        Cause::RecipientImpossible(_) => Failure::MessageRefused(why),
    }
}

fn judge_answer(stage: Stage, reply: &Reply, plain: bool, why: String) -> Failure {
    match (stage, reply.code) {
        (_, 400..=499) => Failure::unreachable(why),
        (_, 530 | 534 | 535 | 538) => Failure::channel_refused(why),
        // A full mailbox, or RFC 5321, section 4.5.3.1.10: it passes.
        (Stage::Recipient, 552) => Failure::unreachable(why),
        (Stage::Recipient, 501 | 550 | 551 | 553) if !reply.is_policy() => {
            Failure::MessageRefused(why)
        }
        (Stage::Data | Stage::Dot, 500..=599) if plain => Failure::MessageRefused(why),
        (Stage::Data | Stage::Dot, 500..=599) => Failure::FormRefused(why),
        (_, 500..=599) => Failure::channel_refused(why),
        (Stage::Dot, _) => Failure::Unknown(why),
        _ => Failure::unreachable(why),
    }
}

fn sentence(stop: &Stop, about: &Circumstances) -> String {
    let server = about.server;
    let after = stop.stage.last_word();
    match &stop.cause {
        Cause::Answer(reply) => refusal(stop.stage, reply, about),
        Cause::Silent => silence(stop.stage, about),
        Cause::Overdue => {
            format!(
                "{server} is too slow: not done within {}, broken off after {after}",
                seconds(about.limits.total)
            )
        }
        Cause::Closed => {
            format!("{server} hung up after {after}{}", hint_of_silence(stop.stage, about, false))
        }
        Cause::Network(why) if stop.stage == Stage::Connect => {
            format!("{server} cannot be reached: {why}")
        }
        Cause::Network(why) => format!("the connection to {server} broke after {after}: {why}"),
        Cause::Certificate(error) => certificate(error, about),
        Cause::NotTls => not_tls(stop.stage, about),
        Cause::Tls(why) if stop.stage != Stage::Handshake => {
            format!("the TLS connection to {server} broke after {after}: {why}")
        }
        Cause::Tls(why) => format!("{server} and we cannot agree on TLS: {why}"),
        Cause::NotSmtp(said) => format!("{server} does not speak SMTP after {after}: \"{said}\""),
        Cause::Early => format!("{server} answers before it is asked, after {after}"),
        Cause::Injected => format!(
            "{server} sent more than its answer to STARTTLS: somebody may be meddling with the connection"
        ),
        Cause::Lacking(what) => format!("{server}: {what}"),
        Cause::RecipientImpossible(what) => format!("{server}: {what}"),
    }
}

fn silence(stage: Stage, about: &Circumstances) -> String {
    let (server, limit) = (about.server, seconds(about.limits.read));
    match stage {
        Stage::Connect => {
            format!("{server} cannot be reached: nothing answers there (a firewall?)")
        }
        Stage::Banner => {
            format!(
                "no greeting from {server} within {limit}{}",
                hint_of_silence(stage, about, true)
            )
        }
        _ => format!("no answer from {server} within {limit} after {}", stage.last_word()),
    }
}

/// A server that waits for us to begin TLS says nothing, or hangs up after a while.
fn hint_of_silence(stage: Stage, about: &Circumstances, silent: bool) -> &'static str {
    match (stage, about.tls) {
        (Stage::Banner, Tls::Starttls | Tls::None) if about.port == 465 => {
            " (465 wants implicit TLS: set tls: implicit)"
        }
        (Stage::Banner, Tls::Starttls | Tls::None) if silent => {
            " (if it is a port like 465, it wants implicit TLS: set tls: implicit)"
        }
        _ => "",
    }
}

fn not_tls(stage: Stage, about: &Circumstances) -> String {
    let server = about.server;
    match about.tls {
        Tls::Implicit if about.port == 587 => {
            format!("{server} does not begin with TLS (587 wants STARTTLS: set tls: starttls)")
        }
        Tls::Implicit => format!(
            "{server} does not begin with TLS (if it is a port like 587, it wants STARTTLS: set tls: starttls)"
        ),
        Tls::Starttls | Tls::None => {
            format!("{server} does not speak TLS after {}", stage.last_word())
        }
    }
}

fn refusal(stage: Stage, reply: &Reply, about: &Circumstances) -> String {
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
        Stage::Data | Stage::Dot if reply.code < 400 => {
            format!("{server} answers out of turn after {}: {said}", stage.last_word())
        }
        Stage::Data | Stage::Dot => format!("{server} refuses the mail: {said}"),
    }
}

fn login_hint(about: &Circumstances) -> &'static str {
    if about.logs_in { "" } else { " (without a login: smtp_user, smtp_password?)" }
}

fn certificate(error: &CertificateError, about: &Circumstances) -> String {
    let subject = format!("the certificate of {}", about.server);
    match error {
        CertificateError::UnknownIssuer => {
            format!("{subject} is not trusted: unknown issuer (ca_file?)")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("{subject} has expired (or this machine's clock is wrong)")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{subject} is not valid yet (is this machine's clock right?)")
        }
        CertificateError::NotValidForName => {
            format!("{subject} is for another name (smtp_server must be the name in it)")
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "{subject} is for another name: {} (smtp_server must be the name in it)",
            if presented.is_empty() { "none".into() } else { presented.join(", ") }
        ),
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => format!(
            "{subject} is an authority's own (CA:TRUE), which no server may show: \
             make one with CA:FALSE, or let the authority sign one"
        ),
        other => format!("{subject} does not hold: {other}"),
    }
}

/// `60 s`, also where [`words`] would say minutes.
fn seconds(limit: Duration) -> String {
    if limit.subsec_millis() == 0 { format!("{} s", limit.as_secs()) } else { words(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(port: u16, tls: Tls) -> Circumstances<'static> {
        Circumstances {
            server: "mail.example.com:port",
            port,
            tls,
            logs_in: true,
            recipient: "bob@example.com",
            plain: false,
            limits: Limits::default(),
        }
    }

    fn judged(stage: Stage, cause: Cause, port: u16, tls: Tls) -> Failure {
        judge(&Stop { stage, cause }, &about(port, tls))
    }

    #[test]
    fn the_well_known_ports_are_named_when_they_are_taken_for_each_other() {
        let Failure::Unreachable { why, .. } =
            judged(Stage::Banner, Cause::Silent, 465, Tls::Starttls)
        else {
            panic!("silence is worth another try")
        };
        assert_eq!(
            why,
            "no greeting from mail.example.com:port within 60 s (465 wants implicit TLS: set tls: implicit)"
        );
        let Failure::ChannelRefused { why, .. } =
            judged(Stage::Handshake, Cause::NotTls, 587, Tls::Implicit)
        else {
            panic!("nothing but a change of the configuration helps")
        };
        assert!(why.ends_with("(587 wants STARTTLS: set tls: starttls)"), "{why}");
    }

    #[test]
    fn silence_says_how_long_and_after_what() {
        let failure = judged(Stage::Ehlo, Cause::Silent, 587, Tls::Starttls);
        let why = "no answer from mail.example.com:port within 60 s after EHLO".into();
        assert_eq!(failure, Failure::Unreachable { why, retry_after: None });
    }

    #[test]
    fn whatever_ends_the_conversation_after_the_last_dot_leaves_it_unknown() {
        for cause in [
            Cause::Silent,
            Cause::Overdue,
            Cause::Closed,
            Cause::Network("reset".into()),
            Cause::NotSmtp("?".into()),
            Cause::Tls("bad record".into()),
            Cause::Answer(Reply { code: 354, lines: Vec::new() }),
        ] {
            let failure = judged(Stage::Dot, cause.clone(), 587, Tls::Starttls);
            assert!(matches!(failure, Failure::Unknown(_)), "{cause:?}");
        }
    }
}
