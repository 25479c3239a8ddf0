//! Two machines and two paths between them, `lan` and `vpn`: network namespaces, or loopback
//! addresses where those cannot be made. Over each path datagrams go through a relay that loses and
//! delays; a cut takes the link down where there is one.
#![allow(dead_code)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The paths.
pub const LAN: usize = 0;
pub const VPN: usize = 1;

static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Network {
    /// Of the client and of the server.
    spaces: Option<[String; 2]>,
    /// Where hbd is to listen on the server.
    pub hbd: SocketAddr,
    /// Where the server is on each path; the relays are there, at port 9098.
    pub servers: [String; 2],
    /// Where the client is on each path.
    pub clients: [String; 2],
    relays: Vec<Arc<Weather>>,
    files: tempfile::TempDir,
}

/// What happens on a path.
#[derive(Default)]
struct Weather {
    cut: AtomicBool,
    /// Per mille of what goes either way.
    loss: AtomicU32,
    /// Milliseconds, either way.
    delay: AtomicU32,
    stop: AtomicBool,
}

fn ip(arguments: &str) -> bool {
    let run = Command::new("ip").args(arguments.split(' ')).output();
    run.is_ok_and(|output| output.status.success())
}

fn must(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {why}");
}

impl Network {
    /// Makes it.
    pub fn new() -> Network {
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = |side| format!("hb{}{side}{number}", std::process::id());
        let spaces = [name('c'), name('s')];
        let private = ip(&format!("netns add {}", spaces[0]));
        let (first, second) = (20 + std::process::id() % 200, std::process::id() / 200 % 200);
        let address = |path: u32, end: u32| {
            if private {
                format!("10.77.{path}.{end}")
            } else {
                format!("127.{first}.{second}.{}", number * 10 + path * 5 + end)
            }
        };
        let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let hbd = if private { SocketAddr::from(([127, 0, 0, 1], 9099)) } else { free() };
        let mut network = Network {
            spaces: private.then_some(spaces),
            hbd,
            servers: [address(0, 1), address(1, 1)],
            clients: [address(0, 2), address(1, 2)],
            relays: Vec::new(),
            files: tempfile::tempdir().unwrap(),
        };
        if let Some([client, server]) = &network.spaces {
            must(&format!("netns add {server}"));
            for space in [client, server] {
                must(&format!("-n {space} link set lo up"));
            }
            for (path, name) in ["lan", "vpn"].into_iter().enumerate() {
                must(&format!(
                    "-n {client} link add {name} type veth peer name {name} netns {server}"
                ));
                for (space, address) in [(client, &network.clients), (server, &network.servers)] {
                    must(&format!("-n {space} address add {}/24 dev {name}", address[path]));
                    must(&format!("-n {space} link set {name} up"));
                }
            }
        }
        for path in [LAN, VPN] {
            network.relay(&format!("{}:9098", network.servers[path]));
        }
        network
    }

    /// Whether there are two machines.
    pub fn is_private(&self) -> bool {
        self.spaces.is_some()
    }

    /// An address that nobody answers at.
    pub fn nobody(&self) -> String {
        if self.is_private() { "10.77.0.77".into() } else { "127.0.0.53".into() }
    }

    /// Gives the client another address on a path, where there are two machines.
    pub fn give_client(&self, address: &str, path: usize) -> bool {
        let Some([client, server]) = &self.spaces else { return false };
        must(&format!("-n {client} address add {address}/32 dev lo"));
        must(&format!("-n {server} route add {address}/32 via {}", self.clients[path]));
        true
    }

    /// Gives the server a further address on a path, and the client one, where there are two machines.
    pub fn add_addresses(&self, path: usize, of_server: &str, of_client: Option<&str>) {
        let Some([client, server]) = &self.spaces else { return };
        for (space, address) in [(server, Some(of_server)), (client, of_client)] {
            let Some(address) = address else { continue };
            let family = if address.contains(':') { "nodad" } else { "" };
            let interface = self.interface(path);
            must(format!("-n {space} address add {address} dev {interface} {family}").trim_end());
        }
    }

    /// An interface of the client that leads to the server over a path.
    pub fn interface(&self, path: usize) -> &'static str {
        if self.is_private() { ["lan", "vpn"][path] } else { "lo" }
    }

    fn relay(&mut self, from: &str) {
        let weather = Arc::new(Weather::default());
        self.relays.push(weather.clone());
        let (from, to) = (from.to_owned(), self.hbd);
        self.on_server(move || relay(&UdpSocket::bind(from).unwrap(), to, &weather));
    }

    /// Does something on the server; does not wait for its end.
    fn on_server<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let space = self.spaces.as_ref().map(|spaces| spaces[1].clone());
        thread::spawn(move || {
            enter(space.as_deref());
            work()
        })
    }

    /// Does something on the server.
    pub fn ask<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let space = self.spaces.as_ref().map(|spaces| spaces[1].as_str());
        thread::scope(|scope| {
            let work = || {
                enter(space);
                work()
            };
            scope.spawn(work).join().unwrap()
        })
    }

    /// Cuts a path, or mends it.
    pub fn cut(&self, path: usize, cut: bool) {
        self.relays[path].cut.store(cut, Ordering::SeqCst);
        if let Some([_, server]) = &self.spaces {
            let (name, state) = (self.interface(path), if cut { "down" } else { "up" });
            must(&format!("-n {server} link set {name} {state}"));
        }
    }

    /// Lets a path lose so many of a hundred, and delay all.
    pub fn weather(&self, path: usize, loss: u32, delay: Duration) {
        self.relays[path].loss.store(loss * 10, Ordering::SeqCst);
        self.relays[path].delay.store(delay.as_millis() as u32, Ordering::SeqCst);
    }

    /// A program on the server.
    pub fn on_the_server(&self, program: &str) -> Command {
        self.command(program, 1)
    }

    /// A program on the client, with the hosts and the resolv.conf of
    /// [`write`](Network::write).
    pub fn on_the_client(&self, program: &str) -> Command {
        self.command(program, 0)
    }

    fn command(&self, program: &str, side: usize) -> Command {
        let Some(spaces) = &self.spaces else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &spaces[side], program]);
        command
    }

    /// The same, with a directory whose files stand in the place of those in /etc.
    pub fn with_etc(&self, program: &str) -> Command {
        let mounts = ["hosts", "resolv.conf"].map(|name| {
            let own = self.etc(name);
            assert!(own.exists(), "{name} is written first");
            format!("mount --bind {} /etc/{name} && ", own.display())
        });
        let script = format!("{}exec \"$0\" \"$@\"", mounts.concat());
        let mut command = match &self.spaces {
            Some(spaces) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &spaces[0], "unshare", "--mount"]);
                command
            }
            None => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-root-user", "--mount"]);
                command
            }
        };
        command.args(["sh", "-c", &script, program]);
        command
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Writes a file that stands in the place of the one in /etc.
    pub fn write(&self, name: &str, text: &str) {
        // In place: it may be mounted.
        std::fs::write(self.etc(name), text).unwrap();
    }

    /// A directory that goes with it.
    pub fn directory(&self) -> &Path {
        self.files.path()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.relays.iter().for_each(|relay| relay.stop.store(true, Ordering::SeqCst));
        for space in self.spaces.iter().flatten() {
            ip(&format!("netns del {space}"));
        }
    }
}

/// The network of this thread is that of a namespace from now on (setns(2)).
fn enter(space: Option<&str>) {
    let Some(space) = space else { return };
    let file = File::open(format!("/run/netns/{space}")).unwrap();
    // SAFETY: the descriptor is open, and only this thread moves.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Datagrams that come to `from` go to `to`, and answers back.
fn relay(from: &UdpSocket, to: SocketAddr, weather: &Arc<Weather>) {
    let (fly, flights) = channel::<(Instant, Arc<UdpSocket>, Option<SocketAddr>, Vec<u8>)>();
    let (stop, postman) = (weather.clone(), from.try_clone().unwrap());
    thread::spawn(move || {
        let mut waiting: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
        let mut letters = HashMap::new();
        let mut count = 0;
        while !stop.stop.load(Ordering::SeqCst) {
            let next = waiting.peek().map(|Reverse((at, _))| *at);
            let pause = next.map_or(Duration::from_millis(50), |at| {
                at.saturating_duration_since(Instant::now())
            });
            if let Ok((at, socket, to, bytes)) = flights.recv_timeout(pause) {
                waiting.push(Reverse((at, count)));
                letters.insert(count, (socket, to, bytes));
                count += 1;
            }
            while waiting.peek().is_some_and(|Reverse((at, _))| *at <= Instant::now()) {
                let Some(Reverse((_, number))) = waiting.pop() else { break };
                let (socket, to, bytes): (Arc<UdpSocket>, _, Vec<u8>) =
                    letters.remove(&number).unwrap();
                let _ = match to {
                    Some(to) => postman.send_to(&bytes, to),
                    None => socket.send(&bytes),
                };
            }
        }
    });
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let chance = Arc::new(Mutex::new(88_172_645_463_325_252_u64));
    let mut lines: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = [0; 9000];
    while !weather.stop.load(Ordering::SeqCst) {
        let Ok((length, client)) = from.recv_from(&mut buffer) else { continue };
        let line = lines.entry(client).or_insert_with(|| {
            let line = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
            line.connect(to).unwrap();
            line.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let (back, fly, weather, chance) =
                (line.clone(), fly.clone(), weather.clone(), chance.clone());
            thread::spawn(move || {
                let mut buffer = [0; 9000];
                while !weather.stop.load(Ordering::SeqCst) {
                    let Ok(length) = back.recv(&mut buffer) else { continue };
                    if let Some(at) = arrival(&weather, &chance) {
                        let bytes = buffer[..length].to_vec();
                        let _ = fly.send((at, back.clone(), Some(client), bytes));
                    }
                }
            });
            line
        });
        if let Some(at) = arrival(weather, &chance) {
            let _ = fly.send((at, line.clone(), None, buffer[..length].to_vec()));
        }
    }
}

/// When a datagram arrives, unless it is lost.
fn arrival(weather: &Weather, chance: &Mutex<u64>) -> Option<Instant> {
    let mut state = chance.lock().unwrap();
    // xorshift64 (Marsaglia 2003): the same everywhere.
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    let lost = (*state >> 11) % 1000 < u64::from(weather.loss.load(Ordering::SeqCst));
    let kept = !lost && !weather.cut.load(Ordering::SeqCst);
    let delay = Duration::from_millis(weather.delay.load(Ordering::SeqCst).into());
    kept.then(|| Instant::now() + delay)
}
