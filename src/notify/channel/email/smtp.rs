//! The SMTP client (RFC 5321): from connecting to the dot that ends the mail.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lettre::Address;
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Quit, Rcpt, Starttls};
use lettre::transport::smtp::extension::{ClientId, MailBodyParameter, MailParameter};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::diagnosis::{Cause, SmtpError, SmtpReply, Stage};
use super::message::ComposedMail;
use super::stream::LineStream;
use super::{Email, SmtpTimeouts, TlsMode, contains_secret_part, cut, one_line};
use crate::deadline::DeadlineExceeded;
use crate::secret::{Secret, scrub};
use crate::tls;

/// The most lines of one reply: without a limit a server could fill the memory.
const MAX_REPLY_LINES: usize = 100;

/// How long the reply to QUIT is waited for: nothing depends on it.
const QUIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Sends `mail` in a session of its own. When it returns, the connection is closed.
pub fn send(
    email: &Email,
    mail: &ComposedMail,
    hello: Option<&str>,
    limits: SmtpTimeouts,
) -> Result<(), SmtpError> {
    let mut client = SmtpClient::open(email, hello, limits)?;
    let result = client.authenticate().and_then(|()| client.send_message(mail));
    let in_session =
        result.as_ref().err().is_none_or(|error| matches!(error.cause, Cause::Reply(_)));
    if in_session {
        client.quit();
    }
    result
}

/// How a login is made.
#[derive(Clone, Copy)]
enum LoginMechanism {
    Plain,
    Login,
}

struct SmtpClient<'a> {
    email: &'a Email,
    stream: LineStream,
    stage: Stage,
    /// The lines of the last reply to EHLO, in capitals, without the first.
    capabilities: Vec<String>,
    /// The password and its encoded forms that were sent: servers echo them in their replies.
    sent_secrets: Vec<Secret>,
}

impl<'a> SmtpClient<'a> {
    /// Connects, starts TLS as configured, and says EHLO.
    fn open(
        email: &'a Email,
        hello: Option<&str>,
        limits: SmtpTimeouts,
    ) -> Result<SmtpClient<'a>, SmtpError> {
        let tls_config = tls_config(email)?;
        let name = email.smtp_server.trim_matches(['[', ']']);
        let stream = LineStream::connect(name, email.smtp_port, limits)
            .map_err(|error| SmtpError { stage: Stage::Connect, cause: cause_of(error) })?;
        let sent_secrets = email.smtp_password.iter().cloned().collect();
        let stage = Stage::Connect;
        let mut this = SmtpClient { email, stream, stage, capabilities: Vec::new(), sent_secrets };
        this.refuse_cleartext_password()?;
        let hello = this.ehlo_name(hello)?;
        match (email.tls, tls_config) {
            (TlsMode::Implicit, Some(tls_config)) => {
                this = this.handshake(tls_config)?;
                this.greet(&hello)?;
            }
            (TlsMode::Starttls, Some(tls_config)) => {
                this.greet(&hello)?;
                this.starttls()?;
                this = this.handshake(tls_config)?;
                this.ehlo(&hello)?;
            }
            (TlsMode::None, _) | (_, None) => this.greet(&hello)?,
        }
        Ok(this)
    }

    fn error(&self, cause: Cause) -> SmtpError {
        SmtpError { stage: self.stage, cause }
    }

    fn connection_error(&self, error: io::Error) -> SmtpError {
        self.error(match cause_of(error) {
            Cause::NotSmtp(said) => Cause::NotSmtp(self.sanitized(&said)),
            cause => cause,
        })
    }

    fn unsupported(&self, what: impl Into<String>) -> SmtpError {
        self.error(Cause::Unsupported(what.into()))
    }

    /// The check of the configuration refuses this too; here the address is the one that was
    /// reached.
    fn refuse_cleartext_password(&self) -> Result<(), SmtpError> {
        let peer = self.stream.peer_address().map_err(|error| self.connection_error(error))?;
        if self.email.tls == TlsMode::None
            && self.email.smtp_password.is_some()
            && !peer.ip().to_canonical().is_loopback()
        {
            return Err(
                self.unsupported("a password is not sent in clear (tls: none) but to loopback")
            );
        }
        Ok(())
    }

    /// `name`, else the local address as a literal (RFC 5321, section 4.1.4).
    fn ehlo_name(&self, name: Option<&str>) -> Result<ClientId, SmtpError> {
        if let Some(name) = name {
            return Ok(ClientId::Domain(name.to_owned()));
        }
        let address = self.stream.local_address().map_err(|error| self.connection_error(error))?;
        Ok(match address.ip().to_canonical() {
            std::net::IpAddr::V4(address) => ClientId::Ipv4(address),
            std::net::IpAddr::V6(address) => ClientId::Ipv6(address),
        })
    }

    fn greet(&mut self, hello: &ClientId) -> Result<(), SmtpError> {
        self.stage = Stage::Banner;
        self.expect_reply(&[220])?;
        self.ehlo(hello)
    }

    fn ehlo(&mut self, hello: &ClientId) -> Result<(), SmtpError> {
        let reply = match self.command(Stage::Ehlo, Ehlo::new(hello.clone()), &[250]) {
            // RFC 5321, section 4.1.4: a server from before 1995.
            Err(SmtpError { cause: Cause::Reply(reply), .. })
                if matches!(reply.code, 500 | 502 | 504) =>
            {
                self.command(Stage::Ehlo, format!("HELO {hello}\r\n"), &[250])?;
                self.capabilities = Vec::new();
                return Ok(());
            }
            other => other?,
        };
        self.capabilities =
            reply.lines.iter().skip(1).map(|line| line.to_ascii_uppercase()).collect();
        Ok(())
    }

    fn starttls(&mut self) -> Result<(), SmtpError> {
        self.stage = Stage::Starttls;
        if !self.supports("STARTTLS") {
            return Err(self.unsupported(
                "STARTTLS is not offered, and without it nothing is sent \
                 (is somebody in between? tls: implicit on port 465?)",
            ));
        }
        self.command(Stage::Starttls, Starttls, &[220])?;
        if self.stream.has_unread() { Err(self.error(Cause::InjectedData)) } else { Ok(()) }
    }

    fn handshake(mut self, tls_config: TlsConfig) -> Result<SmtpClient<'a>, SmtpError> {
        self.stage = Stage::Handshake;
        let error = |error| SmtpError { stage: Stage::Handshake, cause: cause_of(error) };
        let stream = self.stream.handshake(tls_config.config, tls_config.name).map_err(error)?;
        Ok(SmtpClient { stream, capabilities: Vec::new(), ..self })
    }

    fn authenticate(&mut self) -> Result<(), SmtpError> {
        let (Some(user), Some(password)) = (&self.email.smtp_user, &self.email.smtp_password)
        else {
            return Ok(());
        };
        self.stage = Stage::Auth;
        let lines = match self.mechanism()? {
            // RFC 4616.
            LoginMechanism::Plain => {
                let secret = BASE64_STANDARD.encode(format!("\0{user}\0{}", password.reveal()));
                vec![format!("AUTH PLAIN {secret}")]
            }
            // It asks for the user, then for the password, in whatever words, or none.
            LoginMechanism::Login => vec![
                "AUTH LOGIN".into(),
                BASE64_STANDARD.encode(user),
                BASE64_STANDARD.encode(password.reveal()),
            ],
        };
        for line in lines {
            if self.command_with_secret(&line)?.code == 235 {
                return Ok(());
            }
        }
        Err(self.unsupported("the login takes a turn that we do not know"))
    }

    fn mechanism(&self) -> Result<LoginMechanism, SmtpError> {
        let offered: Vec<&str> = self
            .capabilities
            .iter()
            .filter_map(|line| {
                line.strip_prefix("AUTH").filter(|rest| rest.starts_with([' ', '=']))
            })
            .flat_map(|rest| rest[1..].split_whitespace())
            .collect();
        let known = [("PLAIN", LoginMechanism::Plain), ("LOGIN", LoginMechanism::Login)];
        match known.iter().find(|(name, _)| offered.contains(name)) {
            Some((_, mechanism)) => Ok(*mechanism),
            None if offered.is_empty() => Err(self.unsupported(
                "no login is offered (AUTH): leave smtp_user and smtp_password out, or use another port",
            )),
            None => Err(self.unsupported(format!(
                "only logins that we do not know are offered: {}",
                one_line(&offered.join(" "))
            ))),
        }
    }

    fn command_with_secret(&mut self, line: &str) -> Result<SmtpReply, SmtpError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["AUTH", _, secret] | [secret] = words[..] {
            self.sent_secrets.push(Secret::new(secret));
        }
        self.command(Stage::Auth, format!("{line}\r\n"), &[235, 334])
    }

    fn send_message(&mut self, mail: &ComposedMail) -> Result<(), SmtpError> {
        let parameters = self.parameters(mail)?;
        self.command(Stage::Sender, Mail::new(Some(mail.sender.clone()), parameters), &[250])?;
        for recipient in &mail.recipients {
            self.command(
                Stage::Recipient,
                Rcpt::new(recipient.clone(), Vec::new()),
                &[250, 251, 252],
            )?;
        }
        self.command(Stage::Data, Data, &[354])?;
        self.stream
            .write(&dot_stuffed(&mail.bytes))
            .map_err(|error| self.connection_error(error))?;
        if self.stream.data_available() {
            // What comes before the dot is no reply to it.
            return Err(self.error(Cause::Unsolicited));
        }
        self.stage = Stage::EndOfData;
        self.stream.write(b".\r\n").map_err(|error| self.connection_error(error))?;
        self.expect_reply(&[250]).map(drop)
    }

    /// The parameters of MAIL: addresses beyond ASCII need SMTPUTF8 (RFC 6531).
    fn parameters(&mut self, mail: &ComposedMail) -> Result<Vec<MailParameter>, SmtpError> {
        self.stage = Stage::Sender;
        let foreign = |address: &Address| !address.to_string().is_ascii();
        let recipient = mail.recipients.iter().find(|address| foreign(address));
        if !foreign(&mail.sender) && recipient.is_none() {
            return Ok(Vec::new());
        }
        if self.supports("SMTPUTF8") {
            let body = MailParameter::Body(MailBodyParameter::EightBitMime);
            return Ok(vec![body, MailParameter::SmtpUtfEight]);
        }
        const WHY: &str = "has letters beyond ASCII, which the server does not take (SMTPUTF8)";
        Err(self.error(match recipient {
            Some(recipient) if !foreign(&mail.sender) => {
                Cause::RecipientUnsupported(format!("the address {recipient} {WHY}"))
            }
            _ => Cause::Unsupported(format!("the sender {} {WHY}", mail.sender)),
        }))
    }

    fn supports(&self, keyword: &str) -> bool {
        self.capabilities.iter().any(|line| line.split_whitespace().next() == Some(keyword))
    }

    fn command(
        &mut self,
        stage: Stage,
        command: impl ToString,
        wanted: &[u16],
    ) -> Result<SmtpReply, SmtpError> {
        if self.stream.has_unread() {
            return Err(self.error(Cause::Unsolicited));
        }
        self.stage = stage;
        self.stream
            .write(command.to_string().as_bytes())
            .map_err(|error| self.connection_error(error))?;
        self.expect_reply(wanted)
    }

    fn expect_reply(&mut self, wanted: &[u16]) -> Result<SmtpReply, SmtpError> {
        let reply = self.read_reply()?;
        if wanted.contains(&reply.code) {
            Ok(reply)
        } else {
            Err(self.error(Cause::Reply(self.sanitize(reply))))
        }
    }

    fn read_reply(&mut self) -> Result<SmtpReply, SmtpError> {
        let (mut lines, mut first, mut agreed) = (Vec::new(), None, true);
        while lines.len() < MAX_REPLY_LINES {
            let line = self.stream.read_line().map_err(|error| self.connection_error(error))?;
            let Some((code, last, text)) = parse_reply_line(&line) else {
                return Err(self.error(Cause::NotSmtp(self.sanitized(&line))));
            };
            lines.push(text.to_owned());
            agreed &= *first.get_or_insert(code) == code;
            // A refusal may come after a promising beginning (postscreen); a yes after a no is none.
            if last && !agreed && code < 400 {
                return Err(self.error(Cause::NotSmtp(self.sanitized(&line))));
            }
            if last {
                return Ok(SmtpReply { code, lines });
            }
        }
        Err(self.error(Cause::NotSmtp("an answer without end".into())))
    }

    fn sanitize(&self, reply: SmtpReply) -> SmtpReply {
        SmtpReply { lines: vec![self.sanitized(&reply.lines.join(" "))], ..reply }
    }

    /// The server's words without secrets and control characters, shortened; none at all where they
    /// seem to hold a part of a secret.
    fn sanitized(&self, text: &str) -> String {
        // Cleaning may put a secret together again.
        let text = scrub(&one_line(&scrub(text, &self.sent_secrets)), &self.sent_secrets);
        if self.sent_secrets.iter().any(|secret| contains_secret_part(&text, secret)) {
            return "(words that hold a piece of a secret)".into();
        }
        cut(&text, 300)
    }

    fn quit(&mut self) {
        self.stream.shorten_deadline(QUIT_TIMEOUT);
        if self.stream.write(Quit.to_string().as_bytes()).is_ok() {
            let _ = self.stream.read_line();
        }
    }
}

/// What TLS needs: the trusted authorities, and the name that the certificate must be for.
struct TlsConfig {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

fn tls_config(email: &Email) -> Result<Option<TlsConfig>, SmtpError> {
    if email.tls == TlsMode::None {
        return Ok(None);
    }
    let unsupported = |what| SmtpError { stage: Stage::Connect, cause: Cause::Unsupported(what) };
    let config = client_config(email.ca_file.as_deref()).map_err(unsupported)?;
    let name = email.smtp_server.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name)
        .map_err(|_| unsupported("smtp_server is no name that a certificate can be for".into()))?;
    Ok(Some(TlsConfig { config: Arc::new(config), name }))
}

fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(tls::roots(ca_file)?);
    if roots.is_empty() {
        return Err("this machine trusts no certificate authority \
                    (install ca-certificates, or set ca_file)"
            .into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `250-text` or `250 text`: the code, whether it is the last line, the text.
fn parse_reply_line(line: &str) -> Option<(u16, bool, &str)> {
    let code = line.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))?;
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    match line[3..].chars().next() {
        None => Some((code, true, "")),
        Some(' ') => Some((code, true, &line[4..])),
        Some('-') => Some((code, false, &line[4..])),
        Some(_) => None,
    }
}

/// `mail` with a second dot before each dot that begins a line (RFC 5321, section 4.5.2), and with
/// an end to its last line.
fn dot_stuffed(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + 16);
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// What an error of the connection means. Timeouts and certificate errors hide in [`io::Error`]s.
fn cause_of(error: io::Error) -> Cause {
    if DeadlineExceeded::is_in(&error) {
        return Cause::DeadlineExceeded;
    }
    if let Some(error) = tls::rustls_error(&error) {
        return match error {
            rustls::Error::InvalidCertificate(why) => Cause::Certificate(why.into()),
            rustls::Error::InvalidMessage(_) => Cause::NotTls,
            other => Cause::TlsFailed(other.to_string()),
        };
    }
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Cause::Timeout,
        ErrorKind::UnexpectedEof => Cause::Closed,
        ErrorKind::InvalidData => Cause::NotSmtp(one_line(&error.to_string())),
        _ => Cause::Network(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_line_is_taken_apart() {
        assert_eq!(parse_reply_line("250-STARTTLS"), Some((250, false, "STARTTLS")));
        assert_eq!(parse_reply_line("220 mail ESMTP"), Some((220, true, "mail ESMTP")));
        assert_eq!(parse_reply_line("354"), Some((354, true, "")));
        for foreign in
            ["HTTP/1.1 400 Bad Request", "* OK IMAP4", "", "25", "2500 x", "äöü", "199 x"]
        {
            assert_eq!(parse_reply_line(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_line_that_begins_with_a_dot_gets_a_second_one() {
        assert_eq!(dot_stuffed(b".\r\n.a\r\nb."), b"..\r\n..a\r\nb.\r\n");
    }
}
