//! Bad clients (silent, dripping, malformed), and how long a good one waits among them.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

const IDLE: usize = 600;
const DRIPPING: usize = 50;
const MALFORMED: usize = 8;

/// How long good requests took, sorted.
pub struct Times(pub Vec<Duration>);

impl Times {
    /// The time that so many of a hundred did not exceed.
    pub fn percentile(&self, hundredth: usize) -> Duration {
        self.0[(self.0.len() * hundredth / 100).min(self.0.len() - 1)]
    }
}

/// A crowd, as long as it lives.
pub struct Crowd {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// 600 that say nothing, 50 that say a byte now and then, 8 that talk rubbish. With `returning`
    /// those that are sent away come back at once.
    pub fn gather(address: SocketAddr, encrypted: bool, returning: bool) -> Crowd {
        let over = Arc::new(AtomicBool::new(false));
        let idle: Vec<TcpStream> = (0..IDLE).map(|_| silent(address)).collect();
        let mut threads = Vec::new();
        let pause = Duration::from_millis(10);
        let stays = Arc::clone(&over);
        threads.push(thread::spawn(move || {
            let mut idle = idle;
            while !stays.load(Ordering::Relaxed) {
                for stream in idle.iter_mut().filter(|_| returning) {
                    if is_closed(stream) {
                        *stream = silent(address);
                    }
                }
                thread::sleep(pause);
            }
        }));
        let stays = Arc::clone(&over);
        threads.push(thread::spawn(move || {
            let begun = || {
                let mut stream = TcpStream::connect(address).unwrap();
                let start: &[u8] = if encrypted { b"\x16\x03\x01" } else { b"GET /-/hea" };
                let _ = stream.write_all(start);
                stream
            };
            let mut dripping: Vec<TcpStream> = (0..DRIPPING).map(|_| begun()).collect();
            while !stays.load(Ordering::Relaxed) {
                for stream in &mut dripping {
                    if stream.write_all(b"\x02").is_err() || is_closed(stream) {
                        *stream = begun();
                    }
                }
                thread::sleep(pause * 5);
            }
        }));
        for number in 0..MALFORMED {
            let stays = Arc::clone(&over);
            threads.push(thread::spawn(move || {
                while !stays.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(address).unwrap();
                    let _ = stream.write_all(rubbish(number));
                    let _ = stream.read_to_end(&mut Vec::new());
                    thread::sleep(pause);
                }
            }));
        }
        Crowd { over, threads }
    }

    /// The times of so many good requests, one after the other.
    pub fn times(
        &self,
        address: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        count: usize,
    ) -> Times {
        let mut times: Vec<Duration> = (0..count).map(|_| good(address, tls)).collect();
        times.sort();
        Times(times)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Clients without a token that begin a body and drip it, and come back when they are sent away.
pub struct Drips {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drips {
    /// So many, each of which has begun.
    pub fn gather(address: SocketAddr, tls: Option<&Arc<ClientConfig>>, count: usize) -> Drips {
        const THREADS: usize = 4;
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls get a pointer to a live rlimit.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            limit.rlim_cur = limit.rlim_max.min(16_384);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
        let over = Arc::new(AtomicBool::new(false));
        let (begun, all_begun) = std::sync::mpsc::channel();
        let threads = (0..THREADS)
            .map(|_| {
                let (stays, tls, begun) = (Arc::clone(&over), tls.cloned(), begun.clone());
                thread::spawn(move || {
                    let begin = || dripping(address, tls.as_ref());
                    let mut streams: Vec<_> = (0..count / THREADS).map(|_| begin()).collect();
                    begun.send(()).unwrap();
                    while !stays.load(Ordering::Relaxed) {
                        for stream in &mut streams {
                            let sent =
                                stream.as_mut().is_some_and(|one| one.write_all(b"x").is_ok());
                            if !sent {
                                *stream = begin();
                            }
                        }
                        thread::sleep(Duration::from_millis(100));
                    }
                })
            })
            .collect();
        (0..THREADS).for_each(|_| all_begun.recv().unwrap());
        Drips { over, threads }
    }
}

impl Drop for Drips {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn dripping(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Option<Box<dyn Write + Send>> {
    const HEAD: &[u8] =
        b"POST /alert HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n{";
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut stream: Box<dyn Write + Send> = match tls {
        None => Box::new(stream),
        Some(config) => {
            let name = ServerName::try_from("localhost").unwrap();
            let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
            Box::new(StreamOwned::new(connection, stream))
        }
    };
    stream.write_all(HEAD).ok()?;
    Some(stream)
}

/// How long a good request takes from its connection to the end of the answer.
pub fn good(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Duration {
    const REQUEST: &[u8] = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let before = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // As HTTP clients do: else the request may wait 40 ms behind the end of the handshake.
    stream.set_nodelay(true).unwrap();
    let mut answer = String::new();
    match tls {
        None => {
            stream.write_all(REQUEST).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
        Some(config) => {
            let name = ServerName::try_from("localhost").unwrap();
            let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            stream.write_all(REQUEST).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    before.elapsed()
}

/// A client that trusts the authority of this file.
pub fn trusting(authority: &std::path::Path) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(heartbeat::tls::read_ca_file(authority).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn silent(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

fn is_closed(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let ended = match (&*stream).read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(why) => why.kind() != std::io::ErrorKind::WouldBlock,
    };
    let _ = stream.set_nonblocking(false);
    ended
}

fn rubbish(number: usize) -> &'static [u8] {
    match number % 4 {
        0 => b"\x00\x01\x02\x03 rubbish\r\n\r\n",
        1 => b"GET / HTTP/9.9\r\n\r\n",
        2 => b"\x16\x03\x01\x00\x05\xff\xff\xff\xff\xff",
        _ => b"POST /alert HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    }
}
