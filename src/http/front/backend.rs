//! The backend: tiny_http on a Unix socket in a directory of mode 0700, started again when it has
//! died.
//!
//! tiny_http 0.12 ends its accept loop for good at the first error (running out of descriptors is
//! one), and panics in it when it cannot duplicate a descriptor. The next connection that
//! is refused starts a new one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tiny_http::{Request, Server};

use crate::thread::{Stop, lock};

/// Threads that take requests from it: right on two cores.
pub const HANDLERS: usize = 2;
/// `sun_path` is 108 bytes with the NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
const PREFIX: &str = "hbd-http-";
/// How long requests are still taken from an instance that was replaced: what is sent over an open
/// connection to it at that moment would wait there for ever.
const RETIREMENT: Duration = Duration::from_secs(5);
/// Meanwhile, how often they are looked for.
const RETIREMENT_POLL: Duration = Duration::from_millis(20);

/// One run of tiny_http.
#[derive(Clone)]
struct Instance {
    server: Arc<Server>,
    path: PathBuf,
    number: u32,
}

/// tiny_http, as long as it lives and again after that.
pub struct Backend {
    instance: Mutex<Instance>,
    /// The instances before, and until when each is served.
    retired: Mutex<Vec<(Arc<Server>, Instant)>>,
    directory: SocketDir,
    stop: Stop,
}

impl Backend {
    /// Starts it in a fresh directory: below `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR`, else
    /// where temporary files are, else in `scratch`, whose disk may hang or be taken away.
    ///
    /// # Errors
    /// When there is no directory for its socket, or it cannot listen there.
    pub fn start(scratch: &Path, stop: Stop) -> io::Result<Backend> {
        let directory = SocketDir::create(scratch)?;
        let instance = Mutex::new(Instance::start(&directory, 0)?);
        Ok(Backend { instance, retired: Mutex::default(), directory, stop })
    }

    /// A new connection, and the number of the instance that it leads to.
    ///
    /// # Errors
    /// When it cannot be opened, nor a new instance be started.
    pub fn connect(&self) -> io::Result<(UnixStream, u32)> {
        let instance = self.current();
        match UnixStream::connect(&instance.path) {
            Err(why) if is_gone(&why) => {
                let new = self.restart(instance.number)?;
                Ok((UnixStream::connect(new.path)?, new.number))
            }
            connected => Ok((connected?, instance.number)),
        }
    }

    /// The number of the instance that runs. A connection to an older one must not be used again.
    pub fn instance(&self) -> u32 {
        lock(&self.instance).number
    }

    /// The next request; none when it is time to stop.
    pub fn next(&self) -> Option<Request> {
        while !self.stop.stopped() {
            let server = self.current().server;
            let request = match self.next_of_retired() {
                None => server.recv().ok(),
                Some(None) => server.recv_timeout(RETIREMENT_POLL).ok().flatten(),
                Some(request) => request,
            };
            if request.is_some() {
                return request;
            }
        }
        None
    }

    /// The next request of an instance that was replaced; none at all where none is served any more.
    fn next_of_retired(&self) -> Option<Option<Request>> {
        let now = Instant::now();
        let mut retired = lock(&self.retired);
        if retired.is_empty() {
            return None;
        }
        let expired: Vec<_> = retired.extract_if(.., |(_, until)| *until < now).collect();
        let request = retired.iter().find_map(|(server, _)| server.try_recv().ok().flatten());
        drop(retired);
        for (server, _) in &expired {
            // A handler may still wait there: its wake-up may have been taken as a request.
            unblock_handlers(server);
        }
        // It removes its socket.
        drop(expired);
        Some(request)
    }

    /// Ends the waits for a request, after the stop.
    pub fn unblock(&self) {
        let instance = self.current();
        unblock_handlers(&instance.server);
    }

    /// Starts a new instance in place of `number`, unless another thread has.
    fn restart(&self, number: u32) -> io::Result<Instance> {
        let (new, old) = {
            let mut instance = lock(&self.instance);
            if instance.number != number {
                return Ok(instance.clone());
            }
            let new = Instance::start(&self.directory, number + 1)?;
            let old = std::mem::replace(&mut *instance, new.clone()).server;
            lock(&self.retired).push((Arc::clone(&old), Instant::now() + RETIREMENT));
            (new, old)
        };
        unblock_handlers(&old);
        log::warn!("the inner HTTP server had died and was started again");
        Ok(new)
    }

    fn current(&self) -> Instance {
        lock(&self.instance).clone()
    }
}

/// Ends the wait of every handler for a request of this server.
fn unblock_handlers(server: &Server) {
    (0..HANDLERS).for_each(|_| server.unblock());
}

fn is_gone(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

impl Instance {
    /// The path is new each time: an old server removes its own when it is dropped.
    fn start(directory: &SocketDir, number: u32) -> io::Result<Instance> {
        let path = directory.0.join(format!("{number}.sock"));
        let server = Server::http_unix(&path).map_err(|why| match why.downcast::<io::Error>() {
            Ok(why) => *why,
            Err(why) => io::Error::other(why.to_string()),
        })?;
        Ok(Instance { server: Arc::new(server), path, number })
    }
}

/// A directory of mode 0700, removed with its sockets when dropped.
struct SocketDir(PathBuf);

impl SocketDir {
    fn create(scratch: &Path) -> io::Result<SocketDir> {
        let runtime = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].into_iter().filter_map(first_of);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for parent in runtime.chain([std::env::temp_dir(), scratch.to_owned()]) {
            match SocketDir::create_in(&parent) {
                Ok(directory) => return Ok(directory),
                Err(why) => last = why,
            }
        }
        Err(io::Error::new(last.kind(), format!("no directory for the HTTP socket: {last}")))
    }

    fn create_in(parent: &Path) -> io::Result<SocketDir> {
        sweep(parent);
        for attempt in 0..100 {
            let path = parent.join(format!("{PREFIX}{}-{attempt}", std::process::id()));
            // Room for "/NUMBER.sock", whatever the number.
            if path.as_os_str().len() + "/4294967295.sock".len() > MAX_SOCKET_PATH {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long"));
            }
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| SocketDir(path)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for SocketDir {
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

/// Removes what killed daemons left. What cannot be removed belongs to another user.
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
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_is_ours_alone_and_goes_with_us() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = SocketDir::create_in(scratch.path()).unwrap();
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
        assert!(SocketDir::create_in(&long).is_err());
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
        let backend = Backend::start(scratch.path(), stop).unwrap();
        fs::remove_file(backend.current().path).unwrap();
        assert_eq!(backend.connect().unwrap().1, 1);
        assert_eq!(backend.instance(), 1);
    }

    #[test]
    fn what_was_sent_to_an_instance_that_is_replaced_is_taken() {
        let scratch = tempfile::tempdir().unwrap();
        let (_stopper, stop) = crate::thread::Stop::channel();
        let backend = Backend::start(scratch.path(), stop).unwrap();
        let (mut old, _) = backend.connect().unwrap();
        fs::remove_file(backend.current().path).unwrap();
        let (mut new, _) = backend.connect().unwrap();
        for (stream, path) in [(&mut old, "/old"), (&mut new, "/new")] {
            write!(stream, "GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
            let request = backend.next().unwrap();
            assert_eq!(request.url(), path);
            request.respond(tiny_http::Response::empty(204)).unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).unwrap();
            assert!(response.starts_with("HTTP/1.1 204"), "{response}");
        }
    }
}
