//! The conversation with a mail server (RFC 5321): from connecting to the dot that ends the mail.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::{Auth, Data, Ehlo, Mail, Quit, Rcpt, Starttls};
use lettre::transport::smtp::extension::{ClientId, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::diagnosis::{Cause, Reply, Stage, Stop};
use super::message::Mail as Composed;
use super::stream::{Overdue, Wire};
use super::{Email, Limits, Tls, cut, holds_a_piece, one_line};
use crate::secret::{Secret, scrub};
use crate::tls;

/// What a reply may look like at most: replies of several lines are for reading, not for filling us.
const MOST_LINES: usize = 100;

/// How long we wait for the answer to QUIT, on which nothing depends.
const FAREWELL: Duration = Duration::from_secs(3);

/// Hands `mail` over. When it returns, the connection is closed.
pub fn send(
    email: &Email,
    mail: &Composed,
    hello: Option<&str>,
    limits: Limits,
) -> Result<(), Stop> {
    let mut conversation = Conversation::open(email, hello, limits)?;
    let result = conversation.log_in().and_then(|()| conversation.hand_over(mail));
    let still_talking =
        result.as_ref().err().is_none_or(|stop| matches!(stop.cause, Cause::Answer(_)));
    if still_talking {
        conversation.say_goodbye();
    }
    result
}

struct Conversation<'a> {
    email: &'a Email,
    wire: Wire,
    stage: Stage,
    /// The lines of the last answer to EHLO, in capitals, without the first.
    offers: Vec<String>,
    /// Passwords as they went over the wire, which servers echo.
    spoken: Vec<Secret>,
}

impl<'a> Conversation<'a> {
    /// Connects, secures the connection as configured, and greets.
    fn open(
        email: &'a Email,
        hello: Option<&str>,
        limits: Limits,
    ) -> Result<Conversation<'a>, Stop> {
        let security = security(email)?;
        let name = email.smtp_server.trim_matches(['[', ']']);
        let wire = Wire::connect(name, email.smtp_port, limits)
            .map_err(|error| Stop { stage: Stage::Connect, cause: cause(error) })?;
        let spoken = email.smtp_password.iter().cloned().collect();
        let stage = Stage::Connect;
        let mut this = Conversation { email, wire, stage, offers: Vec::new(), spoken };
        this.refuse_a_password_in_clear()?;
        let hello = this.hello(hello)?;
        match (email.tls, security) {
            (Tls::Implicit, Some(security)) => {
                this = this.secure(security)?;
                this.greet(&hello)?;
            }
            (Tls::Starttls, Some(security)) => {
                this.greet(&hello)?;
                this.starttls()?;
                this = this.secure(security)?;
                this.ehlo(&hello)?;
            }
            (Tls::None, _) | (_, None) => this.greet(&hello)?,
        }
        Ok(this)
    }

    fn stop(&self, cause: Cause) -> Stop {
        Stop { stage: self.stage, cause }
    }

    fn broken(&self, error: io::Error) -> Stop {
        self.stop(match cause(error) {
            Cause::NotSmtp(said) => Cause::NotSmtp(self.shown(&said)),
            cause => cause,
        })
    }

    fn lacking(&self, what: impl Into<String>) -> Stop {
        self.stop(Cause::Lacking(what.into()))
    }

    /// The check of the configuration says the same; a password is worth saying it twice.
    fn refuse_a_password_in_clear(&self) -> Result<(), Stop> {
        let peer = self.wire.peer_address().map_err(|error| self.broken(error))?;
        if self.email.tls == Tls::None
            && self.email.smtp_password.is_some()
            && !peer.ip().to_canonical().is_loopback()
        {
            return Err(self.lacking("a password is not sent in clear (tls: none) but to loopback"));
        }
        Ok(())
    }

    /// A name that is worth saying, else the address that we come from (RFC 5321, section 4.1.4).
    fn hello(&self, name: Option<&str>) -> Result<ClientId, Stop> {
        if let Some(name) = name {
            return Ok(ClientId::Domain(name.to_owned()));
        }
        let address = self.wire.local_address().map_err(|error| self.broken(error))?;
        Ok(match address.ip().to_canonical() {
            std::net::IpAddr::V4(address) => ClientId::Ipv4(address),
            std::net::IpAddr::V6(address) => ClientId::Ipv6(address),
        })
    }

    fn greet(&mut self, hello: &ClientId) -> Result<(), Stop> {
        self.stage = Stage::Banner;
        self.answer(&[220])?;
        self.ehlo(hello)
    }

    fn ehlo(&mut self, hello: &ClientId) -> Result<(), Stop> {
        let reply = self.say(Stage::Ehlo, Ehlo::new(hello.clone()), &[250])?;
        self.offers = reply.lines.iter().skip(1).map(|line| line.to_ascii_uppercase()).collect();
        Ok(())
    }

    fn starttls(&mut self) -> Result<(), Stop> {
        self.stage = Stage::Starttls;
        if !self.offers("STARTTLS") {
            return Err(self.lacking(
                "STARTTLS is not offered, and without it nothing is sent \
                 (is somebody in between? tls: implicit on port 465?)",
            ));
        }
        self.say(Stage::Starttls, Starttls, &[220])?;
        if self.wire.has_unread() { Err(self.stop(Cause::Injected)) } else { Ok(()) }
    }

    fn secure(mut self, security: Security) -> Result<Conversation<'a>, Stop> {
        self.stage = Stage::Handshake;
        let stop = |error| Stop { stage: Stage::Handshake, cause: cause(error) };
        let wire = self.wire.secure(security.config, security.name).map_err(stop)?;
        Ok(Conversation { wire, offers: Vec::new(), ..self })
    }

    fn log_in(&mut self) -> Result<(), Stop> {
        let (Some(user), Some(password)) = (&self.email.smtp_user, &self.email.smtp_password)
        else {
            return Ok(());
        };
        let credentials = Credentials::new(user.clone(), password.reveal().to_owned());
        self.stage = Stage::Auth;
        let mechanism = self.mechanism()?;
        let mut command = Auth::new(mechanism, credentials.clone(), None);
        // LOGIN asks twice; whoever asks more often is not after a login.
        for _ in 0..3 {
            let Ok(auth) = &command else { break };
            let reply = self.say_secretly(auth)?;
            if reply.code == 235 {
                return Ok(());
            }
            let challenge = format!("334 {}\r\n", reply.lines.join(" ")).parse::<Response>();
            let Ok(challenge) = challenge else { break };
            command = Auth::new_from_response(mechanism, credentials.clone(), &challenge);
        }
        Err(self.lacking("the login takes a turn that we do not know"))
    }

    fn mechanism(&self) -> Result<Mechanism, Stop> {
        let offered: Vec<&str> = self
            .offers
            .iter()
            .filter_map(|line| {
                line.strip_prefix("AUTH").filter(|rest| rest.starts_with([' ', '=']))
            })
            .flat_map(|rest| rest[1..].split_whitespace())
            .collect();
        let known = [("PLAIN", Mechanism::Plain), ("LOGIN", Mechanism::Login)];
        match known.iter().find(|(name, _)| offered.contains(name)) {
            Some((_, mechanism)) => Ok(*mechanism),
            None if offered.is_empty() => Err(self.lacking(
                "no login is offered (AUTH): leave smtp_user and smtp_password out, or use another port",
            )),
            None => Err(self.lacking(format!(
                "only logins that we do not know are offered: {}",
                one_line(&offered.join(" "))
            ))),
        }
    }

    fn say_secretly(&mut self, auth: &Auth) -> Result<Reply, Stop> {
        let line = auth.to_string();
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["AUTH", _, secret] | [secret] = words[..] {
            self.spoken.push(Secret::new(secret));
        }
        self.say(Stage::Auth, line, &[235, 334])
    }

    fn hand_over(&mut self, mail: &Composed) -> Result<(), Stop> {
        let parameters = self.parameters(mail)?;
        self.say(Stage::Sender, Mail::new(Some(mail.sender.clone()), parameters), &[250])?;
        for recipient in &mail.recipients {
            self.say(Stage::Recipient, Rcpt::new(recipient.clone(), Vec::new()), &[250, 251, 252])?;
        }
        self.say(Stage::Data, Data, &[354])?;
        self.wire.write(&dotted(&mail.bytes)).map_err(|error| self.broken(error))?;
        if self.wire.has_come() {
            // What is said before the dot is no answer to it.
            return Err(self.stop(Cause::Early));
        }
        self.stage = Stage::Dot;
        self.wire.write(b".\r\n").map_err(|error| self.broken(error))?;
        self.answer(&[250]).map(drop)
    }

    /// Addresses beyond ASCII want SMTPUTF8 (RFC 6531).
    fn parameters(&mut self, mail: &Composed) -> Result<Vec<MailParameter>, Stop> {
        self.stage = Stage::Sender;
        let foreign = |address: &Address| !address.to_string().is_ascii();
        let recipient = mail.recipients.iter().find(|address| foreign(address));
        if !foreign(&mail.sender) && recipient.is_none() {
            return Ok(Vec::new());
        }
        if self.offers("SMTPUTF8") {
            let body = MailParameter::Body(MailBodyParameter::EightBitMime);
            return Ok(vec![body, MailParameter::SmtpUtfEight]);
        }
        const WHY: &str = "has letters beyond ASCII, which the server does not take (SMTPUTF8)";
        Err(self.stop(match recipient {
            Some(recipient) if !foreign(&mail.sender) => {
                Cause::RecipientImpossible(format!("the address {recipient} {WHY}"))
            }
            _ => Cause::Lacking(format!("the sender {} {WHY}", mail.sender)),
        }))
    }

    fn offers(&self, keyword: &str) -> bool {
        self.offers.iter().any(|line| line.split_whitespace().next() == Some(keyword))
    }

    fn say(&mut self, stage: Stage, command: impl ToString, wanted: &[u16]) -> Result<Reply, Stop> {
        if self.wire.has_unread() {
            return Err(self.stop(Cause::Early));
        }
        self.stage = stage;
        self.wire.write(command.to_string().as_bytes()).map_err(|error| self.broken(error))?;
        self.answer(wanted)
    }

    fn answer(&mut self, wanted: &[u16]) -> Result<Reply, Stop> {
        let reply = self.reply()?;
        if wanted.contains(&reply.code) {
            Ok(reply)
        } else {
            Err(self.stop(Cause::Answer(self.fit_to_print(reply))))
        }
    }

    fn reply(&mut self) -> Result<Reply, Stop> {
        let mut lines = Vec::new();
        while lines.len() < MOST_LINES {
            let line = self.wire.line().map_err(|error| self.broken(error))?;
            let Some((code, last, text)) = split(&line) else {
                return Err(self.stop(Cause::NotSmtp(self.shown(&line))));
            };
            lines.push(text.to_owned());
            if last {
                return Ok(Reply { code, lines });
            }
        }
        Err(self.stop(Cause::NotSmtp("an answer without end".into())))
    }

    fn fit_to_print(&self, reply: Reply) -> Reply {
        Reply { lines: vec![self.shown(&reply.lines.join(" "))], ..reply }
    }

    /// A stranger's words without our secrets, control characters and epics; none at all where
    /// they seem to hold a piece of a secret.
    fn shown(&self, text: &str) -> String {
        // Cleaning may put a secret together again.
        let text = scrub(&one_line(&scrub(text, &self.spoken)), &self.spoken);
        if self.spoken.iter().any(|secret| holds_a_piece(&text, secret)) {
            return "(words that hold a piece of a secret)".into();
        }
        cut(&text, 300)
    }

    fn say_goodbye(&mut self) {
        self.wire.hurry(FAREWELL);
        if self.wire.write(Quit.to_string().as_bytes()).is_ok() {
            let _ = self.wire.line();
        }
    }
}

/// Whom we take the server for, and whom we believe it.
struct Security {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

fn security(email: &Email) -> Result<Option<Security>, Stop> {
    if email.tls == Tls::None {
        return Ok(None);
    }
    let lacking = |what| Stop { stage: Stage::Connect, cause: Cause::Lacking(what) };
    let config = client_config(email.ca_file.as_deref()).map_err(lacking)?;
    let name = email.smtp_server.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name)
        .map_err(|_| lacking("smtp_server is no name that a certificate can be for".into()))?;
    Ok(Some(Security { config: Arc::new(config), name }))
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
fn split(line: &str) -> Option<(u16, bool, &str)> {
    let code = line.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))?;
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    match line[3..].chars().next() {
        None => Some((code, true, "")),
        Some(' ') => Some((code, true, &line[4..])),
        Some('-') => Some((code, false, &line[4..])),
        Some(_) => None,
    }
}

/// A second dot before a dot that begins a line (RFC 5321, section 4.5.2), and an end to the last line.
fn dotted(mail: &[u8]) -> Vec<u8> {
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

/// What an error of the connection means. Timeouts and certificates hide in [`io::Error`]s.
fn cause(error: io::Error) -> Cause {
    if let Some(inner) = error.get_ref() {
        if inner.is::<Overdue>() {
            return Cause::Overdue;
        }
        if let Some(error) = inner.downcast_ref::<rustls::Error>() {
            return match error {
                rustls::Error::InvalidCertificate(why) => Cause::Certificate(why.clone()),
                rustls::Error::InvalidMessage(_) => Cause::NotTls,
                other => Cause::Tls(other.to_string()),
            };
        }
    }
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Cause::Silent,
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
        assert_eq!(split("250-STARTTLS"), Some((250, false, "STARTTLS")));
        assert_eq!(split("220 mail ESMTP"), Some((220, true, "mail ESMTP")));
        assert_eq!(split("354"), Some((354, true, "")));
        for foreign in
            ["HTTP/1.1 400 Bad Request", "* OK IMAP4", "", "25", "2500 x", "äöü", "199 x"]
        {
            assert_eq!(split(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_line_that_begins_with_a_dot_gets_a_second_one() {
        assert_eq!(dotted(b".\r\n.a\r\nb."), b"..\r\n..a\r\nb.\r\n");
    }
}
