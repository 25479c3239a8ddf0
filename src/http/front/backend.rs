//! tiny_http behind the gate: on a Unix socket in a directory that only we may enter, and replaced
//! when it has died.
//!
//! tiny_http 0.12 ends its accept loop for good at the first error (running out of descriptors is
//! one), and panics in it when it cannot duplicate a descriptor. The gate notices that nobody
//! listens any more and has a new one started.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tiny_http::{Request, Server};

use crate::thread::Stop;

/// How many threads take requests from it: right on two cores.
pub const HANDLERS: usize = 2;
/// `sun_path` is 108 bytes with the NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
const PREFIX: &str = "hbd-http-";

/// The server that runs now.
#[derive(Clone)]
struct Running {
    server: Arc<Server>,
    path: PathBuf,
    number: u32,
}

/// tiny_http, as long as it lives and again after that.
pub struct Inner {
    running: Mutex<Running>,
    directory: Directory,
    stop: Stop,
}

impl Inner {
    /// Starts it in a fresh directory: below `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR`, else
    /// `scratch`, else where temporary files are.
    pub fn start(scratch: &Path, stop: Stop) -> io::Result<Inner> {
        let directory = Directory::create(scratch)?;
        let running = Mutex::new(Running::start(&directory, 0)?);
        Ok(Inner { running, directory, stop })
    }

    /// A connection to it, on which each wait may take so long.
    pub fn connect(&self, patience: Duration) -> io::Result<UnixStream> {
        let running = self.running();
        let connection = match UnixStream::connect(&running.path) {
            Err(why)
                if matches!(
                    why.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                ) =>
            {
                UnixStream::connect(self.replace(running.number)?)
            }
            other => other,
        }?;
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))?;
        Ok(connection)
    }

    /// Asks it something simple; an error when there is no answer until `end`.
    pub fn answers(&self, end: Instant) -> io::Result<()> {
        const OK: &[u8] = b"HTTP/1.1 200 ";
        let patience = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut connection = self.connect(patience)?;
        connection.write_all(
            b"GET /-/healthy HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )?;
        let mut status = [0; OK.len()];
        connection.read_exact(&mut status)?;
        if status == OK { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// The next request; none when it is time to stop.
    pub fn next(&self) -> Option<Request> {
        while !self.stop.stopped() {
            if let Ok(request) = self.running().server.recv() {
                return Some(request);
            }
        }
        None
    }

    /// Wakes whoever waits for a request, after the stop.
    pub fn wake(&self) {
        let running = self.running();
        (0..HANDLERS).for_each(|_| running.server.unblock());
    }

    /// Starts a new server in place of `number`, unless somebody else has.
    fn replace(&self, number: u32) -> io::Result<PathBuf> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.number == number {
            let new = Running::start(&self.directory, number + 1)?;
            let old = std::mem::replace(&mut *running, new);
            (0..HANDLERS).for_each(|_| old.server.unblock());
            log::warn!("the inner HTTP server had died and was started again");
        }
        Ok(running.path.clone())
    }

    fn running(&self) -> Running {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks behind the gate, where neither a token nor a crowd of clients is in the way.
pub struct Probe(Weak<Inner>);

impl Probe {
    /// Asks this one, as long as it is there.
    pub fn new(inner: &Arc<Inner>) -> Probe {
        Probe(Arc::downgrade(inner))
    }

    /// Whether a request is answered until `end`. After the stop it always is.
    pub fn answers(&self, end: Instant) -> bool {
        self.0.upgrade().is_none_or(|inner| inner.answers(end).is_ok())
    }
}

impl Running {
    /// The path is new each time: an old server removes its own when it is dropped.
    fn start(directory: &Directory, number: u32) -> io::Result<Running> {
        let path = directory.0.join(format!("{number}.sock"));
        let server = Server::http_unix(&path).map_err(|why| match why.downcast::<io::Error>() {
            Ok(why) => *why,
            Err(why) => io::Error::other(why.to_string()),
        })?;
        Ok(Running { server: Arc::new(server), path, number })
    }
}

/// A directory of mode 0700, removed with its sockets when dropped.
struct Directory(PathBuf);

impl Directory {
    fn create(scratch: &Path) -> io::Result<Directory> {
        let runtime = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].into_iter().filter_map(first_of);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for parent in runtime.chain([scratch.to_owned(), std::env::temp_dir()]) {
            match Directory::create_in(&parent) {
                Ok(directory) => return Ok(directory),
                Err(why) => last = why,
            }
        }
        Err(io::Error::new(last.kind(), format!("no directory for the HTTP socket: {last}")))
    }

    fn create_in(parent: &Path) -> io::Result<Directory> {
        sweep(parent);
        for attempt in 0..100 {
            let path = parent.join(format!("{PREFIX}{}-{attempt}", std::process::id()));
            // Room for "/NUMBER.sock", whatever the number.
            if path.as_os_str().len() + "/4294967295.sock".len() > LONGEST_SOCKET_PATH {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long"));
            }
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| Directory(path)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// systemd gives several directories separated by colons (systemd.exec(5)).
fn first_of(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?;
    let first = value.as_bytes().split(|byte| *byte == b':').next()?;
    (!first.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(first)))
}

/// Removes what killed daemons left. What cannot be removed belongs to somebody else.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_is_ours_alone_and_goes_with_us() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::create_in(scratch.path()).unwrap();
        let path = directory.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_not_taken() {
        let scratch = tempfile::tempdir().unwrap();
        let long = scratch.path().join("a".repeat(100));
        fs::create_dir(&long).unwrap();
        assert!(Directory::create_in(&long).is_err());
    }

    #[test]
    fn what_a_killed_daemon_left_is_removed_and_the_living_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let [dead, alive] = [u32::MAX, std::process::id()]
            .map(|owner| scratch.path().join(format!("{PREFIX}{owner}-7")));
        for path in [&dead, &alive] {
            fs::create_dir(path).unwrap();
        }
        sweep(scratch.path());
        assert!(!dead.exists() && alive.exists());
    }

    #[test]
    fn a_server_that_died_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let (_stopper, stop) = crate::thread::Stop::channel();
        let inner = Inner::start(scratch.path(), stop).unwrap();
        fs::remove_file(inner.running().path).unwrap();
        inner.connect(Duration::from_secs(1)).unwrap();
        assert_eq!(inner.running().number, 1);
    }
}
