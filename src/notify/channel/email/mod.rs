//! The email channel: mail over SMTP (RFC 5321, RFC 5322), one envelope per recipient.

use crate::address::{is_loopback, to_ascii_host};
use crate::config_file::Section;
use std::path::PathBuf;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;

use super::attempt::{Delivered, Failure, OutgoingMessage, RetryPolicy};
use crate::notify::text::{self, LineBreaks, NO_DETAILS, TextLimit, TextUnit, clean};
use crate::secret::{Secret, scrub};
use crate::tls;

mod diagnosis;
mod message;
mod smtp;
mod stream;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// STARTTLS, required (RFC 3207).
    Starttls,
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// In clear.
    None,
}

/// A channel of `type: email`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// Addresses; at least one.
    pub recipients: Vec<String>,
    /// The sender's address.
    pub sender: String,
    /// The server's name or address.
    pub smtp_server: String,
    /// Its port.
    pub smtp_port: u16,
    /// Only together with `smtp_password`.
    pub smtp_user: Option<String>,
    /// Only together with `smtp_user`.
    pub smtp_password: Option<Secret>,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// Further certificate authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// The name for EHLO.
    pub helo: Option<String>,
}

/// The time limits of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmtpTimeouts {
    /// For each wait for the network.
    pub read: Duration,
    /// For the whole attempt.
    pub total: Duration,
}

impl Default for SmtpTimeouts {
    fn default() -> SmtpTimeouts {
        SmtpTimeouts { read: Duration::from_secs(60), total: Duration::from_secs(150) }
    }
}

impl Email {
    /// Rate, retries and expiry.
    pub const RETRY_POLICY: RetryPolicy = RetryPolicy {
        first_delay: Duration::from_secs(15),
        max_delay: Duration::from_secs(15 * 60),
        per_minute: 30,
        burst: 10,
        give_up_critical: Duration::from_secs(48 * 3600),
        give_up_warning: Duration::from_secs(24 * 3600),
        give_up_other: Duration::from_secs(6 * 3600),
        digest: Some(TextLimit { max: 50_000, unit: TextUnit::Characters }),
    };

    /// The addresses; each gets a delivery, and so an envelope, of its own.
    pub fn recipients(&self) -> &[String] {
        &self.recipients
    }

    /// What must never be shown.
    pub fn secrets(&self) -> Vec<&Secret> {
        self.smtp_password.iter().collect()
    }

    /// Sends the message to its recipient, or in one envelope to all where it names none.
    ///
    /// # Errors
    /// How the attempt ended, in words that tell the operator what to mend and hold no secret.
    pub fn deliver(&self, outgoing: &OutgoingMessage) -> Result<Delivered, Failure> {
        self.deliver_within(outgoing, SmtpTimeouts::default())
    }

    /// [`Email::deliver`] with other time limits.
    ///
    /// # Errors
    /// As [`Email::deliver`].
    pub fn deliver_within(
        &self,
        outgoing: &OutgoingMessage,
        limits: SmtpTimeouts,
    ) -> Result<Delivered, Failure> {
        let hostname = match ClientId::default() {
            ClientId::Domain(name) => Some(name),
            _ => None,
        };
        let ehlo_name = message::ehlo_name(self.helo.as_deref(), hostname.as_deref());
        let sent = message::compose(self, outgoing, ehlo_name.as_deref()).and_then(|mail| {
            smtp::send(self, &mail, ehlo_name.as_deref(), limits).map_err(|stop| {
                let server = format!("{}:{}", one_line(&self.smtp_server), self.smtp_port);
                diagnosis::classify(&stop, &self.context(outgoing, &server, limits))
            })
        });
        sent.map(|()| Delivered::default()).map_err(|failure| self.without_secrets(failure))
    }

    fn context<'a>(
        &'a self,
        outgoing: &'a OutgoingMessage,
        server: &'a str,
        limits: SmtpTimeouts,
    ) -> diagnosis::SessionContext<'a> {
        diagnosis::SessionContext {
            server,
            port: self.smtp_port,
            tls: self.tls,
            logs_in: self.smtp_password.is_some(),
            recipient: outgoing.recipient.unwrap_or("one of the recipients"),
            short_form: outgoing.short_form,
            limits,
        }
    }

    fn without_secrets(&self, failure: Failure) -> Failure {
        failure.map_why(|why| scrub(&why, self.secrets()))
    }
}

impl Email {
    /// Reads the section of such a channel.
    pub fn read(section: &mut Section) -> Email {
        section.require("recipients");
        let smtp_port = section.port("smtp_port").unwrap_or(587);
        let usual = if smtp_port == 465 { TlsMode::Implicit } else { TlsMode::Starttls };
        let choices = [
            ("starttls", TlsMode::Starttls),
            ("implicit", TlsMode::Implicit),
            ("none", TlsMode::None),
        ];
        let recipients = section.texts("recipients");
        if recipients.as_ref().is_some_and(Vec::is_empty) {
            section.error("recipients", "must name at least one address");
        }
        let sender = section.required("sender");
        let smtp_server = read_server(section);
        let email = Email {
            recipients: each_once(section, recipients.unwrap_or_default()),
            sender,
            smtp_server,
            smtp_port,
            smtp_user: section.text("smtp_user"),
            smtp_password: section.secret("smtp_password", "smtp_password_file"),
            tls: section.choice("tls", &choices).unwrap_or(usual),
            ca_file: section.file_with("ca_file", tls::check_ca_file),
            helo: section.host("helo", "a host's name or address"),
        };
        email.check(section);
        email
    }

    fn check(&self, section: &Section) {
        for address in &self.recipients {
            check_address(section, "recipients", address);
        }
        if !self.sender.is_empty() {
            check_address(section, "sender", &self.sender);
        }
        self.check_login(section);
    }

    fn check_login(&self, section: &Section) {
        let password =
            ["smtp_password", "smtp_password_file"].into_iter().find(|key| section.given(key));
        match (section.given("smtp_user"), password) {
            (true, None) => section.error("smtp_user", "needs smtp_password or smtp_password_file"),
            (false, Some(key)) => section.error(key, "needs smtp_user"),
            (true, Some(_)) if self.tls == TlsMode::None && !is_loopback(&self.smtp_server) => {
                section.error("tls", "would send the password in clear: use starttls or implicit");
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

/// The server, as the resolver and its certificate have it; empty when it is wrong, which is reported.
fn read_server(section: &mut Section) -> String {
    let written = section.required("smtp_server");
    if written.is_empty() {
        return written;
    }
    to_ascii_host(&written).unwrap_or_else(|| {
        let what = match written.split_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => {
                "must be a host alone: its port goes into smtp_port".into()
            }
            _ => format!("\"{written}\" cannot be the name of a host"),
        };
        section.error("smtp_server", what);
        String::new()
    })
}

/// Each mailbox once: it would get every message twice.
fn each_once(section: &Section, recipients: Vec<String>) -> Vec<String> {
    let mailbox = |text: &str| message::mailbox(text).map(|mailbox| mailbox.email.to_string());
    let mut known = Vec::new();
    let mut kept = Vec::new();
    for recipient in recipients {
        let key = mailbox(&recipient).unwrap_or_else(|_| recipient.clone()).to_lowercase();
        if known.contains(&key) {
            let what = format!("names {recipient} twice: it gets each message once, take one out");
            section.warning("recipients", what);
            continue;
        }
        known.push(key);
        kept.push(recipient);
    }
    kept
}

fn check_address(section: &Section, key: &str, address: &str) {
    if !address.contains('@') {
        section.error(key, format!("\"{address}\" is no mail address: it has no @"));
    } else if message::mailbox(address).is_err() {
        section.error(key, format!("\"{address}\" is no mail address such as ops@example.com"));
    }
}

/// Untrusted text on one line, its words one space apart.
fn one_line(text: &str) -> String {
    clean_or_empty(text, LineBreaks::Remove).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Untrusted text with its lines.
fn lines(text: &str) -> String {
    clean_or_empty(text, LineBreaks::Keep)
}

/// As [`clean`], but nothing stays nothing: a header, a cell or an error may be empty.
fn clean_or_empty(text: &str, line_breaks: LineBreaks) -> String {
    let clean = clean(text, line_breaks);
    if clean == NO_DETAILS && !text.contains(NO_DETAILS) { String::new() } else { clean }
}

/// At most `max` characters of `text`.
fn cut(text: &str, max: usize) -> String {
    text::cut(text, max, TextUnit::Characters)
}

/// Whether `text` contains a part of a secret, whatever punctuation breaks it up.
fn contains_secret_part(text: &str, secret: &Secret) -> bool {
    const PART: usize = 6;
    let letters = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '+' | '/' | '=')).collect()
    };
    let text = letters(text);
    letters(secret.reveal())
        .windows(PART)
        .any(|piece| text.windows(PART).any(|window| window == piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_bidi_characters_go_and_the_ends_of_lines_are_alike() {
        assert_eq!(lines("a\r\nb\rc\u{2028}d\u{0}\u{202E}e\tf\n"), "a\nb\nc\nde f");
        assert_eq!(one_line(" a\r\n\r\nBcc: b "), "a Bcc: b");
        assert_eq!(one_line("\u{200b} \r\n"), "");
    }

    #[test]
    fn a_piece_of_a_secret_is_found_in_pieces() {
        let secret = Secret::new("correct-horse");
        for (text, found) in [
            ("corr ect", true),
            ("5 t-horse", true),
            ("wrong password", false),
            ("", false),
            ("horse", false),
        ] {
            assert_eq!(contains_secret_part(text, &secret), found, "{text}");
        }
    }
}
