//! Lets the input answer as an SMTP server: its parts, between `|`, are the banner and what is said to
//! one command after the other. Whatever is said, the attempt ends in time, it says "delivered" only
//! where the mail was taken for certain, and "not delivered" only where it was not.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::clock::Wall;
use heartbeat::event::{Event, EventId, EventKind};
use heartbeat::notify::channel::attempt::{Failure, OutgoingMessage};
use heartbeat::notify::channel::email::{Email, SmtpTimeouts, TlsMode};
use heartbeat::secret::Secret;

const AT: Wall = Wall(1_795_291_928_000);
const LIMITS: SmtpTimeouts =
    SmtpTimeouts { read: Duration::from_secs(1), total: Duration::from_secs(2) };
/// How long the server waits for the client's next line.
const PATIENCE: Duration = Duration::from_millis(20);
const PASSWORD: &str = "correct-horse-battery";
/// The password as PLAIN and LOGIN send it.
const ENCODED: [&str; 2] = ["AGFubgBjb3JyZWN0LWhvcnNlLWJhdHRlcnk=", "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"];

/// One client.
#[derive(Default)]
struct Session {
    /// What it said.
    heard: Vec<u8>,
    /// What was said about the whole mail; none where there was none.
    verdict: Option<Vec<u8>>,
}

/// A server, which is told what to say to its next client, and says how that ended.
struct Server {
    port: u16,
    answers: SyncSender<Vec<Vec<u8>>>,
    sessions: Receiver<Session>,
}

fn server() -> &'static Mutex<Server> {
    static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
    SERVER.get_or_init(|| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (answers, next) = sync_channel::<Vec<Vec<u8>>>(1);
        let (tx, sessions) = sync_channel(1);
        thread::spawn(move || {
            for answers in next {
                let (stream, _) = listener.accept().expect("a client");
                let mut session = Session::default();
                let _ = stream.set_nodelay(true);
                // A client that waits for the rest of an answer waits for the end.
                let _ = stream.set_read_timeout(Some(PATIENCE));
                serve(&stream, answers, &mut session);
                // Closed before the next one is let in.
                drop(stream);
                let _ = tx.send(session);
            }
        });
        Mutex::new(Server { port, answers, sessions })
    })
}

/// The next line of the client; none at its end.
fn next_line(lines: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    (lines.read_until(b'\n', &mut line).ok()? > 0).then_some(line)
}

/// Says one part to each line, and one to the whole mail, until either side has no more to say.
fn serve(stream: &TcpStream, answers: Vec<Vec<u8>>, session: &mut Session) -> Option<()> {
    let mut lines = BufReader::new(stream);
    let mut answers = answers.into_iter();
    let mut asked_for_mail = false;
    say(stream, &answers.next()?)?;
    loop {
        let mut line = next_line(&mut lines)?;
        let is_mail = asked_for_mail && line != b"QUIT\r\n";
        while is_mail && line != b".\r\n" {
            line = next_line(&mut lines)?;
        }
        session.heard.extend_from_slice(&line);
        asked_for_mail = line == b"DATA\r\n";
        let answer = answers.next();
        if is_mail {
            session.verdict = Some(answer.clone().unwrap_or_default());
        }
        say(stream, &answer?)?;
    }
}

/// Sends an answer; the end, where it is none that a client could go on from.
fn say(mut stream: &TcpStream, answer: &[u8]) -> Option<()> {
    stream.write_all(answer).ok()?;
    answer.ends_with(b"\n").then_some(())
}

/// What a reply says of a mail, read strictly.
#[derive(Debug, PartialEq)]
enum Said {
    Taken,
    Refused,
    /// It is no whole reply, or one that contradicts itself.
    Nothing,
}

impl Said {
    fn by(bytes: &[u8]) -> Said {
        let (mut codes, mut is_whole) = (Vec::new(), false);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else { return Said::Nothing };
            let line = line.trim_ascii_end();
            let Some(code) = line.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit))
            else {
                return Said::Nothing;
            };
            codes.push(code);
            match line.get(3) {
                Some(b'-') => {}
                None | Some(b' ') => {
                    is_whole = true;
                    break;
                }
                Some(_) => return Said::Nothing,
            }
        }
        if !is_whole {
            return Said::Nothing;
        }
        let agree = codes.windows(2).all(|pair| pair[0] == pair[1]);
        match codes.last().copied() {
            Some(b"250") if agree => Said::Taken,
            Some([b'4' | b'5', ..]) => Said::Refused,
            _ => Said::Nothing,
        }
    }
}

fn email(port: u16, with_login: bool, tls: TlsMode) -> Email {
    Email {
        recipients: vec!["ops@example.com".into()],
        sender: "hbd@example.com".into(),
        smtp_server: "127.0.0.1".into(),
        smtp_port: port,
        smtp_user: with_login.then(|| "ann".into()),
        smtp_password: with_login.then(|| Secret::new(PASSWORD)),
        tls,
        ca_file: None,
        helo: Some("web1.example.com".into()),
    }
}

fn why(failure: &Failure) -> &str {
    match failure {
        Failure::Unreachable { why, .. }
        | Failure::ChannelRefused { why, .. }
        | Failure::MessageRefused(why)
        | Failure::FormRefused(why)
        | Failure::Unknown(why) => why,
    }
}

fn check(result: &Result<(), Failure>, session: &Session, with_login: bool) {
    let verdict = &session.verdict;
    let said = verdict.as_deref().map(Said::by);
    match (result, &said) {
        (Ok(()), Some(Said::Taken)) => {}
        (Ok(()), _) => panic!("delivered, and the server said {said:?}: {verdict:?}"),
        // The mail is with the server: it may have arrived.
        (Err(Failure::Unknown(_)), Some(Said::Nothing)) | (Err(_), Some(Said::Refused) | None) => {}
        (Err(failure), Some(_)) => panic!("{failure:?}, and the server said {verdict:?}"),
    }
    let Err(failure) = result else { return };
    let why = why(failure);
    assert!(!why.is_empty() && why.chars().count() <= 1000, "{why}");
    assert!(!why.chars().any(char::is_control), "{why:?}");
    // A form of the password that was never sent is no echo.
    let heard = String::from_utf8_lossy(&session.heard);
    let sent = ENCODED.into_iter().filter(|secret| heard.contains(secret));
    let known = with_login.then_some(PASSWORD);
    assert!(!sent.chain(known).any(|secret| why.contains(secret)), "a secret is told");
}

/// Checks one input.
pub fn run(bytes: &[u8]) {
    let Some((mode, script)) = bytes.split_first() else { return };
    let (with_login, tls) = match mode {
        b'L' => (true, TlsMode::None),
        b'S' => (true, TlsMode::Starttls),
        _ => (false, TlsMode::None),
    };
    let answers = script.split(|byte| *byte == b'|').map(<[u8]>::to_vec).collect();
    let server = server().lock().expect("a check that fails ends the process");
    server.answers.send(answers).expect("the server lives");
    let kind = EventKind::HostMessage { host: "web1".into(), text: "raid failed\n.\n..".into() };
    let message = Event::new(AT, kind).message(EventId(7));
    let outgoing = OutgoingMessage {
        channel: "mail",
        message: &message,
        recipient: Some("ops@example.com"),
        possible_repeat: false,
        short_form: false,
        thread: None,
        recovered_events: &[],
        now: AT,
    };
    let begun = Instant::now();
    let sent = email(server.port, with_login, tls).deliver_within(&outgoing, LIMITS);
    assert!(begun.elapsed() < LIMITS.total * 3, "it took {:?}", begun.elapsed());
    let session = server.sessions.recv().expect("the server lives");
    check(&sent.map(drop), &session, with_login);
}
