//! Mail over SMTP (RFC 5321, RFC 5322), one envelope per recipient.

use std::path::PathBuf;

use lettre::message::Mailbox;

use crate::address::{is_host, is_loopback};
use crate::secret::Secret;
use crate::section::Section;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, required (RFC 3207).
    Starttls,
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// None at all.
    None,
}

/// A channel of `type: email`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// To whom; at least one.
    pub recipients: Vec<String>,
    /// From whom.
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
    pub tls: Tls,
    /// Further certificate authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// The name to say in EHLO.
    pub helo: Option<String>,
}

impl Email {
    /// Reads the section of such a channel.
    pub fn read(section: &mut Section) -> Email {
        section.require("recipients");
        let smtp_port = section.port("smtp_port").unwrap_or(587);
        let usual = if smtp_port == 465 { Tls::Implicit } else { Tls::Starttls };
        let choices =
            [("starttls", Tls::Starttls), ("implicit", Tls::Implicit), ("none", Tls::None)];
        let recipients = section.texts("recipients");
        if recipients.as_ref().is_some_and(Vec::is_empty) {
            section.error("recipients", "must name at least one address");
        }
        let email = Email {
            recipients: recipients.unwrap_or_default(),
            sender: section.required("sender"),
            smtp_server: section.required("smtp_server"),
            smtp_port,
            smtp_user: section.text("smtp_user"),
            smtp_password: section.secret("smtp_password", "smtp_password_file"),
            tls: section.choice("tls", &choices).unwrap_or(usual),
            ca_file: section.file("ca_file"),
            helo: section.text("helo"),
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
        self.check_server(section);
        self.check_login(section);
    }

    fn check_server(&self, section: &Section) {
        if !self.smtp_server.is_empty() && !is_host(&self.smtp_server) {
            let what = match self.smtp_server.split_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => {
                    "must be a host alone: its port goes into smtp_port".into()
                }
                _ => format!("\"{}\" cannot be the name of a host", self.smtp_server),
            };
            section.error("smtp_server", what);
        }
        if self.helo.as_deref().is_some_and(|helo| !is_host(helo)) {
            section.error("helo", "must be a host's name or address");
        }
    }

    fn check_login(&self, section: &Section) {
        let password =
            ["smtp_password", "smtp_password_file"].into_iter().find(|key| section.given(key));
        match (section.given("smtp_user"), password) {
            (true, None) => section.error("smtp_user", "needs smtp_password or smtp_password_file"),
            (false, Some(key)) => section.error(key, "needs smtp_user"),
            (true, Some(_)) if self.tls == Tls::None && !is_loopback(&self.smtp_server) => {
                section.error("tls", "would send the password in clear: use starttls or implicit");
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

fn check_address(section: &Section, key: &str, address: &str) {
    if !address.contains('@') {
        section.error(key, format!("\"{address}\" is no mail address: it has no @"));
    } else if address.parse::<Mailbox>().is_err() {
        section.error(key, format!("\"{address}\" is no mail address such as ops@example.com"));
    }
}
