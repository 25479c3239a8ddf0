//! The daemon's bound sockets, and how they outlive that it starts anew in place of itself: execve(2)
//! keeps what is not closed on it, and a variable tells the new program which descriptors these are.
//! So no datagram and no connection that waits in the kernel is lost, and no other program can take
//! the ports meanwhile. With them go the times at which this node lost the lead.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::sync::Mutex;

use log::{debug, error, info};
use socket2::{SockRef, Type};

use super::listeners::bind_tcp;
use crate::clock::Mono;
use crate::config::Config;
use crate::heartbeat::listener;
use crate::problem::ListenError;
use crate::thread::lock;

/// `PID UDP TCP LOSS...`: for the process of that id, which an execve(2) keeps, two descriptors, and
/// times of the machine's monotonic clock in milliseconds.
const VARIABLE: &str = "HBD_ANEW";
/// So many times go with them: one more says no more.
const MAX_LOSSES: usize = 4;

/// Where hbd hears heartbeats, and where its HTTP server listens.
pub struct BoundSockets {
    /// Heartbeats.
    pub udp: UdpSocket,
    /// HTTP.
    pub tcp: TcpListener,
}

impl BoundSockets {
    /// Those that this process had before it started anew, where they are still the right ones; else
    /// new ones.
    ///
    /// # Errors
    /// The key that is wrong, the address and the remedy.
    pub fn open(config: &Config, inherited: InheritedSockets) -> Result<BoundSockets, ListenError> {
        let (heartbeat, receiver) = (&config.heartbeat, &config.receiver);
        let InheritedSockets { udp, tcp, .. } = inherited;
        let udp = udp.filter(|socket| fits(socket.local_addr(), &heartbeat.host, heartbeat.port));
        let tcp = tcp.filter(|socket| fits(socket.local_addr(), &receiver.host, receiver.port));
        Ok(BoundSockets {
            udp: udp.map_or_else(|| listener::bind(heartbeat), Ok)?,
            tcp: tcp.map_or_else(|| bind_tcp(&receiver.host, receiver.port, false), Ok)?,
        })
    }
}

/// Whether a socket is bound where the configuration says.
fn fits(bound: io::Result<SocketAddr>, host: &str, port: u16) -> bool {
    let Ok(bound) = bound else { return false };
    let mut addresses = (host, port).to_socket_addrs().into_iter().flatten();
    addresses.any(|wanted| wanted.ip() == bound.ip() && (port == 0 || port == bound.port()))
}

/// The sockets that this process had before it started anew.
#[derive(Default)]
pub struct InheritedSockets {
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
    losses: Vec<Mono>,
    is_anew: bool,
}

impl InheritedSockets {
    /// Whether this process started itself anew and left them: it ran with a configuration before.
    pub fn is_anew(&self) -> bool {
        self.is_anew
    }

    /// When this node lost the lead lately.
    pub fn losses(&self) -> &[Mono] {
        &self.losses
    }

    /// Takes them, once: the programs that hbd starts get neither them nor the variable. To be called
    /// before a thread runs, and before a descriptor is opened.
    pub fn take() -> InheritedSockets {
        let Some(text) = env::var_os(VARIABLE) else { return InheritedSockets::default() };
        // SAFETY: no other thread runs yet that could read the environment.
        unsafe { env::remove_var(VARIABLE) };
        let numbers = text.to_str().and_then(|text| parse(text, process::id()));
        let Some((udp, tcp, losses)) = numbers else { return InheritedSockets::default() };
        InheritedSockets {
            losses,
            is_anew: true,
            udp: socket(udp, Type::DGRAM).map(UdpSocket::from),
            tcp: socket(tcp, Type::STREAM)
                .filter(|socket| SockRef::from(socket).is_listener().unwrap_or(false))
                .map(TcpListener::from),
        }
    }
}

/// What was left for the process of that id.
fn parse(text: &str, process: u32) -> Option<(RawFd, RawFd, Vec<Mono>)> {
    let mut words = text.split(' ');
    let ours = words.next()?.parse() == Ok(process);
    let mut number = || words.next()?.parse().ok().filter(|number: &RawFd| *number > 2);
    let (udp, tcp) = (number()?, number()?);
    let losses: Option<Vec<Mono>> = words.map(|word| word.parse().ok().map(Mono)).collect();
    let losses = losses.filter(|losses| losses.len() <= MAX_LOSSES)?;
    (ours && udp != tcp).then_some((udp, tcp, losses))
}

/// The descriptor, if it is a socket of that kind; closed on the next execve(2).
fn socket(number: RawFd, kind: Type) -> Option<OwnedFd> {
    // SAFETY: no memory is involved; a descriptor that is not open gives an error.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return None;
    }
    // SAFETY: it is open, and ours: no other one was opened since the start, and the program before
    // left it for us.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let is_right = SockRef::from(&socket).r#type().is_ok_and(|found| found == kind);
    is_right.then_some(socket)
}

/// Duplicates of the bound sockets, for when hbd starts anew: they share all that the sockets have,
/// what waits in them and the size of their buffers.
#[derive(Default)]
pub struct KeptSockets(Mutex<Option<BoundSockets>>);

impl KeptSockets {
    /// Keeps these in place of the others, which are closed when nothing else has them open.
    pub fn keep(&self, udp: &UdpSocket, tcp: &TcpListener) {
        let duplicate = || Ok(BoundSockets { udp: udp.try_clone()?, tcp: tcp.try_clone()? });
        let kept = duplicate().map_err(|why: io::Error| {
            debug!("the sockets are opened anew if hbd starts anew: {why}");
        });
        *lock(&self.0) = kept.ok();
    }

    /// Keeps another UDP socket, or another listener; nothing when none are kept.
    pub fn replace(&self, (udp, tcp): (Option<UdpSocket>, Option<TcpListener>)) {
        let mut kept = lock(&self.0);
        let Some(sockets) = &mut *kept else { return };
        udp.into_iter().for_each(|new| sockets.udp = new);
        tcp.into_iter().for_each(|new| sockets.tcp = new);
    }

    /// Closes them: hbd does not start anew any more.
    pub fn close(&self) {
        *lock(&self.0) = None;
    }

    /// Starts hbd again in place of this process, with the sockets that are kept. systemd sees no
    /// change: the process id stays, and the new program says that it is ready.
    pub fn start_anew(&self, losses: &[Mono]) -> ! {
        let mut command = Command::new("/proc/self/exe");
        command.args(env::args_os().skip(1));
        let kept = lock(&self.0);
        if let Some(BoundSockets { udp, tcp }) = &*kept {
            let (udp, tcp) = (udp.as_raw_fd(), tcp.as_raw_fd());
            // SAFETY: no memory is involved, and both are open as long as they are borrowed.
            let open = [udp, tcp].map(|one| unsafe { libc::fcntl(one, libc::F_SETFD, 0) });
            if open == [0, 0] {
                let last = &losses[losses.len().saturating_sub(MAX_LOSSES)..];
                let losses: String = last.iter().map(|loss| format!(" {}", loss.0)).collect();
                command.env(VARIABLE, format!("{} {udp} {tcp}{losses}", process::id()));
            }
        }
        info!("hbd starts anew");
        let why = command.exec();
        error!("hbd cannot start itself anew ({why}) and ends");
        process::exit(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_left_for_this_process_is_taken() {
        assert_eq!(parse("7 5 9", 7), Some((5, 9, Vec::new())));
        assert_eq!(parse("7 5 9 4 6", 7), Some((5, 9, vec![Mono(4), Mono(6)])));
        for text in [
            "",
            "7",
            "7 5",
            "8 5 9",
            "7 5 5",
            "7 2 9",
            "7 5 -1",
            "7 5 x",
            "7  5 9",
            "7 5 9 ",
            "7 5 9 x",
            "7 5 9 1 2 3 4 5",
        ] {
            assert_eq!(parse(text, 7), None, "{text:?}");
        }
    }

    #[test]
    fn a_descriptor_of_another_kind_is_not_used() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let duplicate = || {
            // SAFETY: the descriptor is open, and no memory is involved.
            unsafe { libc::fcntl(udp.as_raw_fd(), libc::F_DUPFD, 200) }
        };
        assert!(socket(duplicate(), Type::DGRAM).is_some());
        assert!(socket(duplicate(), Type::STREAM).is_none());
        assert!(socket(99_999, Type::DGRAM).is_none());
    }

    #[test]
    fn a_socket_fits_where_the_configuration_says_and_nowhere_else() {
        let bound = |text: &str| Ok(text.parse().unwrap());
        assert!(fits(bound("127.0.0.1:9099"), "127.0.0.1", 9099));
        assert!(fits(bound("127.0.0.1:4711"), "127.0.0.1", 0));
        assert!(!fits(bound("127.0.0.1:9099"), "127.0.0.1", 9098));
        assert!(!fits(bound("0.0.0.0:9099"), "127.0.0.1", 9099));
        assert!(!fits(Err(io::ErrorKind::NotConnected.into()), "127.0.0.1", 9099));
    }
}
