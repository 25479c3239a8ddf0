//! One run of another program, in an environment that says only what it needs, with bounded output and
//! a deadline; its process group is killed at the end.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, absolute};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, bounded, never, select};

use crate::secret;
use crate::thread::Stop;

/// How many bytes of each output stream are kept.
const MAX_OUTPUT: usize = 64 * 1024;

/// How long output is waited for after the program and its group have ended.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// How long a program waits for descriptors before it cannot be started, and how often it tries.
const DESCRIPTOR_PATIENCE: Duration = Duration::from_secs(10);
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);

/// How many of the last bytes of a longer standard error are kept, too: a program says at its end what
/// became of it.
const MAX_TAIL: usize = 4 * 1024;

/// Reads of one stream before the other streams are served.
const MAX_READS_IN_A_ROW: usize = 16;

/// The variables of our environment that every program is given: where it finds and puts things, and
/// whose language and time it speaks (environ(7), the XDG Base Directory Specification).
const COMMON_VARIABLES: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// What a program is given that speaks to the network: the way out, and whom it trusts there.
pub const NETWORK_VARIABLES: &[&str] = &[
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// A command for another program: in `/`, with an environment that is empty but for the common
/// variables and `more` of ours. Those that secrets are read from are never among them: a caller
/// that wants one gives it.
///
/// The standard library gives it no blocked signal and the default action of SIGPIPE;
/// `descriptors::close_inherited_on_exec` keeps it from those that we were given.
pub fn command(program: &Path, more: &[&str]) -> Command {
    // A path with a slash is relative to where we are; a name is searched in PATH.
    let is_path = program.as_os_str().as_bytes().contains(&b'/');
    let found = is_path.then(|| absolute(program).ok()).flatten();
    let mut command = Command::new(found.as_deref().unwrap_or(program));
    command.current_dir("/").env_clear();
    for name in COMMON_VARIABLES.iter().chain(more).filter(|name| !secret::is_variable(name)) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// How a program ended.
#[derive(Debug)]
pub struct ProgramOutput {
    /// Its exit code; none when it was killed.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether it was killed because its time was up, or because of the stop.
    pub timed_out: bool,
    /// The first 64 kB of its standard output.
    pub stdout: String,
    /// Whether its standard output was longer.
    pub stdout_cut: bool,
    /// The first 64 kB of its standard error; where it was longer, followed by its last 4 kB.
    pub stderr: String,
    /// Whether a part of its standard error is left out.
    pub stderr_cut: bool,
}

/// Is given a program's standard output piece by piece while it runs.
pub type OutputReader = Box<dyn FnMut(&[u8]) + Send>;

/// Runs `command` in a process group of its own, with `input` as its standard input, for at most
/// `limit`. When it ends, or when its time is up, the rest of its group is killed.
///
/// # Errors
/// It could not be started.
pub fn run(command: &mut Command, input: &str, limit: Duration) -> std::io::Result<ProgramOutput> {
    run_until(command, input, limit, None)
}

/// The same, but it is killed at the stop, too.
///
/// # Errors
/// It could not be started.
pub fn run_until(
    command: &mut Command,
    input: &str,
    limit: Duration,
    stop: Option<&Stop>,
) -> std::io::Result<ProgramOutput> {
    let streams = Streams { input: input.as_bytes().to_owned(), reader: None };
    run_streams(command, streams, limit, stop)
}

/// The same without input; `reader` is given the whole standard output, of which nothing is kept. It
/// is not called any more when this has returned.
///
/// # Errors
/// It could not be started.
pub fn run_reading(
    command: &mut Command,
    reader: OutputReader,
    limit: Duration,
    stop: Option<&Stop>,
) -> std::io::Result<ProgramOutput> {
    let streams = Streams { input: Vec::new(), reader: Some(reader) };
    run_streams(command, streams, limit, stop)
}

/// What goes into a program, and where its output goes.
struct Streams {
    input: Vec<u8>,
    /// Is given the standard output; none: the beginning of it is kept.
    reader: Option<OutputReader>,
}

fn run_streams(
    command: &mut Command,
    streams: Streams,
    limit: Duration,
    stop: Option<&Stop>,
) -> std::io::Result<ProgramOutput> {
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_patiently(command, limit.min(DESCRIPTOR_PATIENCE), stop)?;
    let pipes = spawn_pipe_thread(&mut child, streams);
    if pipes.is_err() {
        kill_group(child.id());
    }
    let ended = spawn_exit_watcher(child.id());
    let nothing = never();
    let timed_out = select! {
        recv(ended) -> _ => false,
        recv(after(limit)) -> _ => true,
        recv(stop.map_or(&nothing, Stop::receiver)) -> _ => true,
    };
    kill_group(child.id());
    let status = child.wait()?;
    let [stdout, stderr] = pipes?.finish();
    Ok(ProgramOutput {
        code: status.code(),
        signal: status.signal(),
        timed_out,
        stdout_cut: stdout.cut,
        stdout: stdout.into_text(),
        stderr_cut: stderr.cut,
        stderr: stderr.into_text(),
    })
}

/// Starts it. It needs more descriptors at a time than all else: while strangers hold nearly all, it
/// waits until some are closed, rather than until its next turn.
fn spawn_patiently(
    command: &mut Command,
    patience: Duration,
    stop: Option<&Stop>,
) -> std::io::Result<Child> {
    let nothing = never();
    let end = Instant::now() + patience;
    loop {
        match command.spawn() {
            Err(why) if why.raw_os_error() == Some(libc::EMFILE) && Instant::now() < end => {
                select! {
                    recv(after(DESCRIPTOR_PAUSE)) -> _ => {}
                    recv(stop.map_or(&nothing, Stop::receiver)) -> _ => return Err(why),
                }
            }
            started => return started,
        }
    }
}

/// The beginning of an output stream, and the end of a long one where that is wanted.
#[derive(Default)]
struct CappedOutput {
    head: Vec<u8>,
    /// What came after the head: at least its last bytes.
    tail: Vec<u8>,
    keeps_tail: bool,
    /// Whether something between head and tail is left out.
    cut: bool,
}

impl CappedOutput {
    fn extend(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(MAX_OUTPUT - self.head.len()));
        self.head.extend_from_slice(head);
        if !self.keeps_tail {
            self.cut |= !rest.is_empty();
            return;
        }
        self.tail.extend_from_slice(rest);
        if let Some(surplus @ 1..) = self.tail.len().checked_sub(MAX_TAIL) {
            self.cut = true;
            self.tail.drain(..surplus);
        }
    }

    fn into_text(mut self) -> String {
        if self.cut && self.keeps_tail {
            self.head.push(b'\n');
        }
        self.head.append(&mut self.tail);
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

/// The thread that writes the program's input and reads its output while it runs.
struct PipeThread {
    /// Standard output and standard error, when both have closed.
    outputs: Receiver<[CappedOutput; 2]>,
    /// Dropped, it ends the thread.
    stop_pipe: PipeWriter,
}

impl PipeThread {
    /// Standard output and standard error after the end of the program: both close with its group,
    /// unless a grandchild left the group and holds them. Our ends are closed in any case.
    fn finish(self) -> [CappedOutput; 2] {
        let outputs = self.outputs.recv_timeout(OUTPUT_GRACE);
        drop(self.stop_pipe);
        outputs.or_else(|_| self.outputs.recv()).unwrap_or_default()
    }
}

fn spawn_pipe_thread(child: &mut Child, streams: Streams) -> std::io::Result<PipeThread> {
    let stdin = child.stdin.take().map(|stdin| pipe(stdin.into())).transpose()?;
    let stdout = child.stdout.take().map(|stdout| pipe(stdout.into())).transpose()?;
    let stderr = child.stderr.take().map(|stderr| pipe(stderr.into())).transpose()?;
    let (stop, stop_pipe) = std::io::pipe()?;
    let (tx, outputs) = bounded(1);
    let pipes = Pipes {
        stdin,
        streams,
        ends: [stdout, stderr],
        outputs: [
            CappedOutput::default(),
            CappedOutput { keeps_tail: true, ..CappedOutput::default() },
        ],
    };
    spawn_named("program-pipes", move || {
        // Fails when the caller has returned with an error.
        let _ = tx.send(pipes.transfer(&stop));
    })?;
    Ok(PipeThread { outputs, stop_pipe })
}

/// Makes one of our ends of the pipes non-blocking.
fn pipe(end: OwnedFd) -> std::io::Result<File> {
    let end = File::from(end);
    // SAFETY: the descriptor is open, and neither call takes a pointer.
    let set = unsafe {
        let flags = libc::fcntl(end.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(end.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if set < 0 { Err(std::io::Error::last_os_error()) } else { Ok(end) }
}

/// Our ends of the program's pipes, and what goes through them.
struct Pipes {
    stdin: Option<File>,
    /// What is left of the input, and who reads the output.
    streams: Streams,
    /// Of standard output and standard error.
    ends: [Option<File>; 2],
    outputs: [CappedOutput; 2],
}

impl Pipes {
    /// Writes and reads until both outputs have closed, or until the other end of `stop` is closed.
    fn transfer(mut self, stop: &PipeReader) -> [CappedOutput; 2] {
        loop {
            self.feed();
            self.read();
            let ends = [(&self.stdin, libc::POLLOUT)]
                .into_iter()
                .chain(self.ends.iter().map(|end| (end, libc::POLLIN)))
                .filter_map(|(end, events)| Some((end.as_ref()?.as_raw_fd(), events)));
            let over = self.ends.iter().all(Option::is_none);
            if over || !wait(stop.as_raw_fd(), ends) {
                return self.outputs;
            }
        }
    }

    /// Reads what is available, and closes our ends of what has ended.
    fn read(&mut self) {
        let [stdout_end, stderr_end] = &mut self.ends;
        let [stdout, stderr] = &mut self.outputs;
        let reader = &mut self.streams.reader;
        let take = |bytes: &[u8]| match reader {
            Some(reader) => reader(bytes),
            None => stdout.extend(bytes),
        };
        stdout_end.take_if(|end| !read_available(end, take));
        stderr_end.take_if(|end| !read_available(end, |bytes| stderr.extend(bytes)));
    }

    /// Writes as much as the pipe takes. A program that ends without reading its input is no error here:
    /// its exit code says what went wrong.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        let input = &mut self.streams.input;
        while !input.is_empty() {
            match stdin.write(input) {
                Ok(count) => drop(input.drain(..count)),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.stdin = None;
    }
}

/// Reads what is available, within bounds; false at the end of the stream. Nothing is left unread, else
/// the program would block.
fn read_available(mut output: &File, mut take: impl FnMut(&[u8])) -> bool {
    let mut buffer = [0; 4096];
    for _ in 0..MAX_READS_IN_A_ROW {
        match output.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => take(&buffer[..count]),
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => return why.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

/// Waits until one of these is ready; false at the stop.
fn wait(stop: RawFd, ends: impl Iterator<Item = (RawFd, libc::c_short)>) -> bool {
    let ends = [(stop, libc::POLLIN)].into_iter().chain(ends);
    let mut watched: Vec<libc::pollfd> =
        ends.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 }).collect();
    let count = watched.len() as libc::nfds_t;
    // SAFETY: the pointer is to `count` of them, and the descriptors are open.
    let ready = unsafe { libc::poll(watched.as_mut_ptr(), count, -1) };
    // After a signal everything is tried once more.
    ready < 0 || watched[0].revents == 0
}

/// A channel that closes when the program has ended. The program is not reaped: while it is a zombie
/// its process id cannot be reused, so that [`kill_group`] kills no other group.
fn spawn_exit_watcher(id: u32) -> Receiver<()> {
    let (tx, rx) = bounded(0);
    // Without this thread the channel closes at once and the program is killed: none runs unwatched.
    let _ = spawn_named("program-end", move || {
        let _tx = tx;
        loop {
            // SAFETY: `siginfo_t` is plain data, and the pointer is to a live one.
            let result = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(libc::P_PID, id, &mut info, libc::WEXITED | libc::WNOWAIT)
            };
            let interrupted =
                || std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
            if result == 0 || !interrupted() {
                return;
            }
        }
    });
    rx
}

fn kill_group(id: u32) {
    if let Ok(group) = libc::pid_t::try_from(id) {
        // SAFETY: no memory is involved; the group is the child's own, and the child not reaped.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

fn spawn_named(name: &str, task: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(task).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    /// Runs the script by [`command`]; its output.
    fn said(script: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) -> String {
        let mut command = command(Path::new("sh"), &["CARGO_PKG_NAME", "CARGO_PKG_VERSION"]);
        run(prepare(command.args(["-c", script])), "", LONG).unwrap().stdout
    }

    #[test]
    fn a_program_was_given_the_secrets_of_our_environment() {
        secret::record_variable("CARGO_PKG_VERSION");
        let variables = said("env", |command| command.env("GIVEN", "yes"));
        let names = variables.lines().filter_map(|line| Some(line.split_once('=')?.0));
        // What the shell itself sets, and this command.
        let own = ["PWD", "OLDPWD", "SHLVL", "_", "GIVEN", "CARGO_PKG_NAME"];
        let odd: Vec<_> =
            names.filter(|name| !own.contains(name) && !COMMON_VARIABLES.contains(name)).collect();
        assert!(odd.is_empty(), "{odd:?}");
        for given in ["GIVEN=yes\n", "CARGO_PKG_NAME=heartbeat\n", "PATH="] {
            assert!(variables.contains(given), "{given} in {variables}");
        }
        let given = said("echo $CARGO_PKG_VERSION", |c| c.env("CARGO_PKG_VERSION", "given"));
        assert_eq!(given, "given\n", "a secret may be given all the same");
    }

    #[test]
    fn a_program_starts_in_the_root_with_every_signal_as_it_is_by_default() {
        assert_eq!(said("pwd", |command| command), "/\n");
        let status = said("cat /proc/self/status", |command| command);
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let sigpipe = 1 << (libc::SIGPIPE - 1);
        assert_eq!((set("SigBlk:"), set("SigIgn:") & sigpipe), (0, 0));
    }

    #[test]
    fn a_program_is_found_where_we_are_and_not_where_it_runs() {
        let here = std::env::current_dir().unwrap();
        let relative: std::path::PathBuf = here.ancestors().skip(1).map(|_| "..").collect();
        let finished = run(command(&relative.join("bin/sh"), &[]).args(["-c", "pwd"]), "", LONG);
        assert_eq!(finished.unwrap().stdout, "/\n");
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let finished = run(&mut shell("cat; echo oops >&2; exit 3"), "grüße", LONG).unwrap();
        assert_eq!(
            (finished.code, finished.stdout.as_str(), finished.stderr.as_str()),
            (Some(3), "grüße", "oops\n")
        );
        assert!(!finished.timed_out);
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let begin = Instant::now();
        let limit = Duration::from_millis(200);
        let finished = run(&mut shell("sleep 60 & echo $!; wait"), "", limit).unwrap();
        assert!(finished.timed_out);
        assert_eq!((finished.code, finished.signal), (None, Some(libc::SIGKILL)));
        assert!(begin.elapsed() < Duration::from_secs(10));
        let child = format!("/proc/{}/stat", finished.stdout.trim());
        let gone = |stat: String| stat.contains(") Z ");
        // Its own parent is dead, so nobody waits for it: it dies when it gets the processor.
        while !std::fs::read_to_string(&child).map_or(true, gone) {
            assert!(begin.elapsed() < Duration::from_secs(10), "the child lives");
            thread::yield_now();
        }
    }

    #[test]
    fn children_that_outlive_their_program_are_killed_too() {
        let begin = Instant::now();
        let finished = run(&mut shell("sleep 60 & exit 0"), "", LONG).unwrap();
        assert_eq!((finished.code, finished.timed_out), (Some(0), false));
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_that_has_said_all_is_not_waited_for() {
        let begin = Instant::now();
        for _ in 0..10 {
            assert_eq!(run(&mut shell("echo done"), "", LONG).unwrap().stdout, "done\n");
        }
        assert!(begin.elapsed() < 5 * OUTPUT_GRACE, "{:?}", begin.elapsed());
    }

    #[test]
    fn endless_output_is_bounded() {
        let finished = run(&mut shell("head -c 300000 /dev/zero; echo end >&2"), "", LONG).unwrap();
        assert_eq!(finished.stdout.len(), MAX_OUTPUT);
        assert_eq!(finished.stderr, "end\n");
        assert!(finished.stdout_cut && !finished.stderr_cut);
    }

    #[test]
    fn what_a_program_said_at_its_end_was_lost_behind_the_first_64_kb() {
        let script = |count: usize| {
            format!(
                "{{ echo begin; head -c {count} /dev/zero | tr '\\0' x; echo; echo the end; }} >&2"
            )
        };
        for (count, cut) in [(60_000, false), (66_000, false), (300_000, true)] {
            let finished = run(&mut shell(&script(count)), "", LONG).unwrap();
            assert_eq!(finished.stderr_cut, cut, "{count}");
            assert_eq!(finished.stderr.lines().next(), Some("begin"), "{count}");
            assert_eq!(finished.stderr.lines().last(), Some("the end"), "{count}");
            assert!(finished.stderr.len() <= MAX_OUTPUT + MAX_TAIL + 1, "{count}");
            assert!(cut || finished.stderr.len() == count + 15, "{count}");
        }
    }

    #[test]
    fn a_reader_is_given_all_of_the_output() {
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = count.clone();
        let reader: OutputReader = Box::new(move |bytes| {
            counter.fetch_add(bytes.len(), std::sync::atomic::Ordering::SeqCst);
        });
        let mut command = shell("head -c 3000000 /dev/zero; echo end >&2");
        let finished = run_reading(&mut command, reader, LONG, None).unwrap();
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 3_000_000);
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", "end\n"));
    }

    #[test]
    fn input_that_nobody_reads_does_not_block() {
        let input = "x".repeat(300_000);
        let finished = run(&mut shell("exit 0"), &input, LONG).unwrap();
        assert_eq!(finished.code, Some(0));
        assert!(run(&mut Command::new("/nonexistent"), "", LONG).is_err());
    }

    #[test]
    fn a_grandchild_that_left_its_group_held_our_threads_and_pipes_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name).display().to_string();
        let (begun, ended) = (path("begun"), path("ended"));
        // It writes until nobody reads any more.
        let grandchild = format!(
            "trap '' PIPE; touch {begun}; while echo x 2>&-; do sleep 0.05; done; touch {ended}"
        );
        let script = format!(
            "setsid sh -c \"{grandchild}\" & until [ -e {begun} ]; do sleep 0.05; done; echo done"
        );
        let begin = Instant::now();
        let finished = run(&mut shell(&script), "", LONG).unwrap();
        assert_eq!((finished.code, finished.timed_out), (Some(0), false));
        assert!(finished.stdout.contains("done\n"), "{}", finished.stdout);
        while !std::path::Path::new(&ended).exists() {
            assert!(begin.elapsed() < LONG, "somebody still reads");
            thread::yield_now();
        }
    }

    #[test]
    fn input_larger_than_a_pipe_goes_through() {
        let input = "x".repeat(300_000);
        let finished = run(&mut shell("wc -c"), &input, LONG).unwrap();
        assert_eq!(finished.stdout.trim(), "300000");
    }

    #[test]
    fn a_program_that_hangs_outlived_the_stop() {
        let (source, stop) = crate::thread::Stop::channel();
        let begin = Instant::now();
        let hanging = thread::spawn(move || {
            run_until(&mut shell("sleep 60"), "", LONG, Some(&stop)).unwrap()
        });
        drop(source);
        let finished = hanging.join().unwrap();
        assert_eq!((finished.timed_out, finished.signal), (true, Some(libc::SIGKILL)));
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}
