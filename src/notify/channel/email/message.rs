//! A message as a mail: headers, a text and an HTML part. Pure.

use std::time::{Duration, SystemTime};

use lettre::Address;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, Mailbox, Message as Builder, MessageBuilder, MultiPart, SinglePart};

use super::{Email, cut, lines, one_line};
use crate::address::to_ascii_host;
use crate::clock::{Wall, format_duration};
use crate::escape;
use crate::event::{Level, Message, TextTable};
use crate::notify::channel::attempt::{Failure, OutgoingMessage};
use crate::notify::text::format_table;

/// The longest subject, in characters.
const MAX_SUBJECT: usize = 200;

/// The longest text of a title or a detail, and of a short plain mail, in characters.
const MAX_TEXT: usize = 20_000;
const MAX_SHORT_TEXT: usize = 500;

/// A mail and its envelope.
#[derive(Clone, Debug)]
pub struct ComposedMail {
    /// MAIL FROM.
    pub sender: Address,
    /// RCPT TO.
    pub recipients: Vec<Address>,
    /// Headers and body, lines ended by CR and LF, dots as they are.
    pub bytes: Vec<u8>,
}

/// The name for EHLO: the configured one, else the machine's when it is fully qualified.
pub fn ehlo_name(helo: Option<&str>, hostname: Option<&str>) -> Option<String> {
    let clean = |name: &str| -> String {
        name.chars().filter(|c| c.is_ascii_graphic()).take(255).collect()
    };
    helo.map(clean)
        .filter(|name| !name.is_empty())
        .or_else(|| hostname.map(clean).filter(|name| name.trim_matches('.').contains('.')))
}

/// The mail for one delivery. `ehlo_name` is what the function [`ehlo_name`] found.
pub fn compose(
    email: &Email,
    outgoing: &OutgoingMessage,
    ehlo_name: Option<&str>,
) -> Result<ComposedMail, Failure> {
    let sender = mailbox(&email.sender).map_err(|why| {
        let sender = one_line(&email.sender);
        Failure::channel_refused(format!("sender \"{sender}\" is no mail address: {why}"))
    })?;
    let refused = |(text, why): (&str, String)| {
        Failure::MessageRefused(format!(
            "recipient \"{}\" is no mail address: {why}",
            one_line(text)
        ))
    };
    let envelope: Vec<&str> = match outgoing.recipient {
        Some(recipient) => vec![recipient],
        None => email.recipients.iter().map(String::as_str).collect(),
    };
    let envelope = envelope
        .into_iter()
        .map(|text| mailbox(text).map_err(|why| refused((text, why))))
        .collect::<Result<Vec<_>, _>>()?;
    let domain = domain(ehlo_name, &sender.email);
    let recipients = envelope.iter().map(|mailbox| mailbox.email.clone()).collect();
    let mut builder = headers(outgoing, &domain).from(sender.clone());
    for mailbox in shown_recipients(email, envelope) {
        builder = builder.to(mailbox);
    }
    let message = body(builder, outgoing).map_err(|why| {
        Failure::MessageRefused(format!("the mail cannot be put together: {why}"))
    })?;
    Ok(ComposedMail { sender: sender.email, recipients, bytes: message.formatted() })
}

/// The addresses of the `To` header: all recipients of the channel, except those beyond ASCII that
/// this copy does not go to, because they would make every copy need SMTPUTF8.
fn shown_recipients(email: &Email, envelope: Vec<Mailbox>) -> Vec<Mailbox> {
    let mut shown: Vec<Mailbox> = Vec::new();
    for mailbox in email.recipients.iter().filter_map(|text| mailbox(text).ok()) {
        let ours = envelope.iter().any(|one| one.email == mailbox.email);
        let known = shown.iter().any(|one| one.email == mailbox.email);
        if !known && (ours || mailbox.email.to_string().is_ascii()) {
            shown.push(mailbox);
        }
    }
    for mailbox in envelope {
        if !shown.iter().any(|one| one.email == mailbox.email) {
            shown.push(mailbox);
        }
    }
    shown
}

/// `bob@example.com` or `Bob <bob@example.com>`, its domain in A-labels: only a local part beyond
/// ASCII needs SMTPUTF8.
pub fn mailbox(text: &str) -> Result<Mailbox, String> {
    let text = one_line(text);
    let (name, address) = match text.rsplit_once('<') {
        Some((name, rest)) => (name.trim(), rest.trim_end().trim_end_matches('>')),
        None => ("", text.as_str()),
    };
    let name = name.trim_matches('"').trim().replace("=?", "= ?");
    let address = address.trim().parse::<Address>().map_err(|error| error.to_string())?;
    let address = match to_ascii_host(address.domain()) {
        Some(domain) if !address.domain().is_ascii() => {
            Address::new(address.user(), domain).map_err(|error| error.to_string())?
        }
        _ => address,
    };
    Ok(Mailbox::new(Some(name).filter(|name| !name.is_empty()), address))
}

/// The domain of our message ids. It does not depend on a DNS server, which may answer differently
/// at the next attempt: the ids must stay the same.
fn domain(ehlo_name: Option<&str>, sender: &Address) -> String {
    let usable = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    match ehlo_name.filter(usable) {
        Some(name) => name.trim_matches('.').to_owned(),
        None if sender.domain().is_ascii() => sender.domain().to_owned(),
        None => "heartbeat.invalid".into(),
    }
}

struct Header(&'static str, String);

fn with_headers(
    builder: MessageBuilder,
    headers: impl IntoIterator<Item = Header>,
) -> MessageBuilder {
    headers.into_iter().fold(builder, |builder, Header(name, value)| {
        builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value))
    })
}

fn headers(outgoing: &OutgoingMessage, domain: &str) -> MessageBuilder {
    let message = outgoing.message;
    let root = format!("<thread.{}@{domain}>", short_hash(&message.thread));
    let id = format!("<{}.{}@{domain}>", message.event, id_token(outgoing.channel));
    let mut own = vec![
        Header("Auto-Submitted", "auto-generated".into()),
        Header("List-Id", format!("Heartbeat <heartbeat.{domain}>")),
        Header("X-Heartbeat-Event", message.event.to_string()),
        Header("X-Heartbeat-Level", message.level.name().into()),
    ];
    if let Some(host) = message.host() {
        own.push(Header("X-Heartbeat-Host", unstructured(host, 255)));
    }
    if message.level == Level::Critical {
        own.push(Header("X-Priority", "1".into()));
        own.push(Header("Importance", "high".into()));
    }
    let builder = Builder::builder()
        .date(date(message.at))
        .message_id(Some(id))
        .in_reply_to(root.clone())
        .references(root)
        .subject(unstructured(&title_line(message), MAX_SUBJECT));
    with_headers(builder, own)
}

/// Untrusted text for a header. The mark of an encoded word (RFC 2047) is broken up: lettre lets it
/// through, and a mail reader would decode characters from it that are removed everywhere else.
fn unstructured(text: &str, max: usize) -> String {
    cut(&one_line(text).replace("=?", "= ?"), max)
}

/// The time of the event, the same at each attempt. (lettre panics beyond these bounds.)
fn date(at: Wall) -> SystemTime {
    const YEAR_9999: u64 = 253_402_300_799;
    let seconds = u64::try_from(at.0 / 1000).unwrap_or(0).min(YEAR_9999);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn body(
    builder: MessageBuilder,
    outgoing: &OutgoingMessage,
) -> Result<Builder, lettre::error::Error> {
    if outgoing.short_form {
        return builder.singlepart(part(ContentType::TEXT_PLAIN, short_text(outgoing)));
    }
    // No line of quoted-printable can hold it.
    let boundary = format!("=_{}", outgoing.message.event);
    builder.multipart(
        MultiPart::alternative()
            .boundary(boundary)
            .singlepart(part(ContentType::TEXT_PLAIN, text(outgoing)))
            .singlepart(part(ContentType::TEXT_HTML, html(outgoing))),
    )
}

/// Always quoted-printable: no long lines, no lone dots, no bare CR.
fn part(kind: ContentType, content: String) -> SinglePart {
    let body = Body::new_with_encoding(content, ContentTransferEncoding::QuotedPrintable);
    let body = body.unwrap_or_else(Body::new);
    SinglePart::builder().header(kind).body(body)
}

fn title_line(message: &Message) -> String {
    let line = one_line(&message.title);
    if line.is_empty() { "(no details)".into() } else { line }
}

fn title_text(message: &Message, max: usize) -> String {
    let text = lines(&message.title);
    if text.is_empty() { "(no details)".into() } else { cut(&text, max) }
}

/// The note in a mail that may have arrived before.
fn repeat_mark(outgoing: &OutgoingMessage) -> Option<String> {
    outgoing.possible_repeat.then(|| {
        format!("Possible repeat: event {} may have been delivered before.", outgoing.message.event)
    })
}

/// The details, and the facts that are in every mail.
fn rows(outgoing: &OutgoingMessage) -> Vec<(String, String)> {
    const LATE: Duration = Duration::from_secs(300);
    let message = outgoing.message;
    let mut rows: Vec<_> = message
        .details
        .iter()
        .map(|(label, text)| (cut(&one_line(label), 100), cut(&lines(text), MAX_TEXT)))
        .collect();
    rows.extend(message.link.clone().map(|link| ("page".into(), link)));
    rows.push(("at".into(), message.at.local().to_string()));
    let delay = outgoing.now.since(message.at);
    if delay > LATE {
        rows.push(("sent late".into(), format!("{} after it happened", format_duration(delay))));
    }
    rows.push(("level".into(), message.level.name().into()));
    rows.push(("event".into(), message.event.to_string()));
    rows
}

fn text(outgoing: &OutgoingMessage) -> String {
    let mut text = title_text(outgoing.message, MAX_TEXT);
    text.push('\n');
    if let Some(mark) = repeat_mark(outgoing) {
        text.push_str(&format!("\n{mark}\n"));
    }
    text.push('\n');
    let rows = rows(outgoing);
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0).min(24);
    for (label, value) in &rows {
        let indent = format!("\n{}", " ".repeat(width + 2));
        let label = format!("{label}:");
        text.push_str(&format!("{label:<0$} {1}\n", width + 1, value.replace('\n', &indent)));
    }
    if let Some(table) = &outgoing.message.table {
        text.push_str(&format!("\n{}\n", cut(&format_table(table), MAX_TEXT)));
    }
    text
}

fn short_text(outgoing: &OutgoingMessage) -> String {
    let mut text = title_text(outgoing.message, MAX_SHORT_TEXT);
    text.push_str(&format!(
        "\n\n{} event {}\n",
        outgoing.message.at.local(),
        outgoing.message.event
    ));
    if let Some(mark) = repeat_mark(outgoing) {
        text.push_str(&format!("{mark}\n"));
    }
    text.push_str("(shortened: the mail server refused the full form)\n");
    text
}

fn html(outgoing: &OutgoingMessage) -> String {
    let colour = match outgoing.message.level {
        Level::Critical => "#b3261e",
        Level::Warning => "#b26a00",
        Level::Ok => "#1e7b34",
        Level::Info => "#3b5b8c",
    };
    let title = escape::html(&title_text(outgoing.message, MAX_TEXT));
    let mark = repeat_mark(outgoing).map(|mark| format!("<p><i>{}</i></p>\n", escape::html(&mark)));
    let mut html = format!(
        "<!DOCTYPE html>\n<html>\n<head><meta charset=\"utf-8\"></head>\n\
         <body style=\"font-family:sans-serif;font-size:14px\">\n\
         <p style=\"border-left:6px solid {colour};padding:6px 10px;font-size:16px;\
         font-weight:bold;white-space:pre-wrap;overflow-wrap:anywhere\">{title}</p>\n{}<table>\n",
        mark.unwrap_or_default()
    );
    for (label, value) in rows(outgoing) {
        let mut shown = escape::html(&value);
        if outgoing.message.link.as_deref() == Some(value.as_str()) {
            shown = format!("<a href=\"{shown}\">{shown}</a>");
        }
        html.push_str(&format!(
            "<tr><td style=\"color:#666;vertical-align:top;padding-right:12px\">{}</td>\
             <td style=\"white-space:pre-wrap;overflow-wrap:anywhere\">{}</td></tr>\n",
            escape::html(&label),
            shown
        ));
    }
    html.push_str("</table>\n");
    if let Some(table) = &outgoing.message.table {
        html.push_str(&html_table(table));
    }
    html.push_str("</body>\n</html>\n");
    html
}

fn html_table(table: &TextTable) -> String {
    const STYLE: &str = "text-align:left;vertical-align:top;padding:2px 12px 2px 0;\
                         border-bottom:1px solid #ddd";
    let row = |cells: &Vec<String>, tag: &str, width: usize| {
        let mut row = String::from("<tr>");
        for cell in cells {
            let text = escape::html(&cut(&one_line(cell), 200));
            let span =
                if cells.len() == 1 { format!(" colspan=\"{width}\"") } else { String::new() };
            row.push_str(&format!("<{tag}{span} style=\"{STYLE}\">{text}</{tag}>"));
        }
        row + "</tr>\n"
    };
    let width = table.head.len();
    let mut html = String::from("<table style=\"border-collapse:collapse;margin-top:12px\">\n");
    html.push_str(&row(&table.head, "th", width));
    html.extend(table.rows.iter().map(|cells| row(cells, "td", width)));
    html + "</table>\n"
}

/// A name as part of an id (RFC 5322, `dot-atom`): other bytes as `%20`, what is long as a digest.
fn id_token(name: &str) -> String {
    let mut id_token = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => {
                id_token.push(char::from(byte))
            }
            _ => id_token.push_str(&format!("%{byte:02X}")),
        }
    }
    if id_token.is_empty() || id_token.len() > 100 { short_hash(name) } else { id_token }
}

/// Sixteen hex digits that stand for `text`, the same in every version of this program.
fn short_hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    escape::hex(&digest.as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_a_name_that_the_world_could_know() {
        let table = [
            (Some("mx.example.com"), Some("box"), Some("mx.example.com")),
            (Some(" mx\r\nRSET"), None, Some("mxRSET")),
            (Some("[192.0.2.1]"), None, Some("[192.0.2.1]")),
            (None, Some("box.example.com"), Some("box.example.com")),
            (None, Some("box"), None),
            (None, Some("box."), None),
            (None, None, None),
        ];
        for (helo, hostname, greeting) in table {
            assert_eq!(ehlo_name(helo, hostname).as_deref(), greeting);
        }
    }

    #[test]
    fn ids_stand_under_a_domain_that_does_not_change() {
        let sender = "hbd@example.com".parse().unwrap();
        assert_eq!(domain(Some("box.example.net"), &sender), "box.example.net");
        assert_eq!(domain(Some("[192.0.2.1]"), &sender), "example.com");
        assert_eq!(domain(None, &sender), "example.com");
        assert_eq!(domain(None, &"hbd@müller.example".parse().unwrap()), "heartbeat.invalid");
    }

    #[test]
    fn an_address_may_have_a_name_and_a_name_has_no_lines() {
        let mailbox = mailbox("\"Heart\r\nBeat\" <hbd@example.com>").unwrap();
        assert_eq!(mailbox.name.as_deref(), Some("Heart Beat"));
        assert_eq!(mailbox.email.to_string(), "hbd@example.com");
        for wrong in ["", "bob", "bob@", "<>", "bob@exam ple.com", "a@b@c"] {
            assert!(super::mailbox(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_table_is_escaped_and_a_remark_spans_it() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let table = TextTable {
            head: row(&["a", "b"]),
            rows: vec![row(&["<b>", "\r\n1"]), row(&["rest"])],
        };
        let html = html_table(&table);
        assert!(html.contains("&lt;b&gt;</td>") && !html.contains("<b>"), "{html}");
        assert!(html.contains("colspan=\"2\""), "{html}");
        assert_eq!(html.matches("<tr>").count(), 3);
    }

    #[test]
    fn a_channel_of_any_name_makes_an_id() {
        assert_eq!(id_token("email_ops"), "email_ops");
        assert_eq!(id_token("Büro 1.a"), "B%C3%BCro%201%2Ea");
        assert_eq!(id_token("").len(), 16);
        assert_eq!(id_token(&"x".repeat(500)).len(), 16);
    }

    #[test]
    fn a_date_from_a_broken_clock_does_not_end_the_program() {
        for at in [i64::MIN, -1, 0, i64::MAX] {
            let _ = lettre::message::header::Date::new(date(Wall(at)));
        }
    }
}
