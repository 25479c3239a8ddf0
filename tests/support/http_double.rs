//! A small HTTP server on 127.0.0.1:0 that answers by a rule, or misbehaves by its mode.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// How the server treats the requests that come.
#[derive(Clone, Debug)]
pub enum Mode {
    /// As the real one does.
    Normal,
    /// With this status and body, whatever came.
    Status(u16, String),
    /// With this status, these headers and body, whatever came.
    Answer(u16, Vec<(String, String)>, String),
    /// With 301 to a page of its own that answers 200 with HTML.
    Redirect,
    /// With silence, until the client goes.
    Hang,
    /// It resets the connection before it reads.
    DropBeforeReading,
    /// It reads the request, then closes.
    DropAfterReading,
    /// It answers with this status and the beginning of a longer body, then closes.
    Cut(u16, &'static str),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How it is treated.
    pub mode: Mode,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Status, further headers, body.
pub type Reply = (u16, Vec<(String, String)>, String);

pub fn reply(status: u16, body: impl Into<String>) -> Reply {
    (status, Vec::new(), body.into())
}

/// The server. Its rule makes the reply to each request while the mode is [`Mode::Normal`]; in
/// another mode it only sees the request.
pub struct HttpDouble {
    pub url: String,
    mode: Arc<Mutex<Mode>>,
    address: std::net::SocketAddr,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl HttpDouble {
    pub fn start(rule: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> HttpDouble {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(Mutex::new(Mode::Normal));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let rule = Arc::new(rule);
        let (modes, stopped) = (mode.clone(), stop.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let (mode, rule) = (lock(&modes).clone(), rule.clone());
                thread::spawn(move || serve(stream, &mode, &*rule));
            }
        });
        HttpDouble { url: format!("http://{address}"), mode, address, stop }
    }

    pub fn set_mode(&self, mode: Mode) {
        *lock(&self.mode) = mode;
    }
}

impl Drop for HttpDouble {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn serve(stream: TcpStream, mode: &Mode, rule: &dyn Fn(&Request) -> Reply) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    if matches!(mode, Mode::DropBeforeReading) {
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return;
    }
    let Some(request) = read_request(&stream, mode) else { return };
    let normal = rule(&request);
    match mode {
        Mode::Normal => write_reply(&stream, &normal),
        Mode::Status(status, body) => write_reply(&stream, &reply(*status, body.clone())),
        Mode::Answer(status, headers, body) => {
            write_reply(&stream, &(*status, headers.clone(), body.clone()));
        }
        Mode::Redirect if request.method == "GET" => {
            write_reply(&stream, &reply(200, "<html>welcome</html>"));
        }
        Mode::Redirect => {
            let location = vec![("location".into(), "/landing".into())];
            write_reply(&stream, &(301, location, String::new()));
        }
        Mode::Hang => {
            let _ = (&stream).read(&mut [0]);
        }
        Mode::DropBeforeReading | Mode::DropAfterReading => {
            let _ = stream.shutdown(Shutdown::Both);
        }
        Mode::Cut(status, body) => {
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}", body.len() + 1);
            let _ = (&stream).write_all(format!("{head}\r\n\r\n{body}").as_bytes());
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn read_request(stream: &TcpStream, mode: &Mode) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim_end().split_once(':') else { break };
        headers.push((key.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new(), mode: mode.clone() };
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn write_reply(mut stream: &TcpStream, (status, headers, body): &Reply) {
    let mut text = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n");
    for (key, value) in headers {
        text.push_str(&format!("{key}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let _ = stream.write_all(text.as_bytes());
}
