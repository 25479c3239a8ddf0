//! One run of another program with bounded output and a deadline; its process group is killed at the
//! end.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, never, select};

use crate::thread::Stop;

/// How many bytes of each output stream are kept.
const MAX_OUTPUT: usize = 64 * 1024;

/// How long output is waited for after the program and its group have ended.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// Reads of one stream before the other streams are served.
const MAX_READS_IN_A_ROW: usize = 16;

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
    /// The first 64 kB of its standard error.
    pub stderr: String,
}

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
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pipes = spawn_pipe_thread(&mut child, input);
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
    Ok(ProgramOutput { code: status.code(), signal: status.signal(), timed_out, stdout, stderr })
}

/// The thread that writes the program's input and reads its output while it runs.
struct PipeThread {
    /// Standard output and standard error, when both have closed.
    texts: Receiver<[Vec<u8>; 2]>,
    /// Dropped, it ends the thread.
    stop_pipe: PipeWriter,
}

impl PipeThread {
    /// Standard output and standard error after the end of the program: both close with its group,
    /// unless a grandchild left the group and holds them. Our ends are closed in any case.
    fn finish(self) -> [String; 2] {
        let texts = self.texts.recv_timeout(OUTPUT_GRACE);
        drop(self.stop_pipe);
        let texts = texts.or_else(|_| self.texts.recv());
        texts.unwrap_or_default().map(|text| String::from_utf8_lossy(&text).into_owned())
    }
}

fn spawn_pipe_thread(child: &mut Child, input: &str) -> std::io::Result<PipeThread> {
    let stdin = child.stdin.take().map(|stdin| pipe(stdin.into())).transpose()?;
    let stdout = child.stdout.take().map(|stdout| pipe(stdout.into())).transpose()?;
    let stderr = child.stderr.take().map(|stderr| pipe(stderr.into())).transpose()?;
    let (stop, stop_pipe) = std::io::pipe()?;
    let (tx, texts) = bounded(1);
    let pipes = Pipes {
        stdin,
        input: input.as_bytes().to_owned(),
        outputs: [stdout, stderr],
        texts: Default::default(),
    };
    spawn_named("program-pipes", move || {
        // Fails when the caller has returned with an error.
        let _ = tx.send(pipes.transfer(&stop));
    })?;
    Ok(PipeThread { texts, stop_pipe })
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
    /// What is left of the input.
    input: Vec<u8>,
    /// Standard output and standard error.
    outputs: [Option<File>; 2],
    texts: [Vec<u8>; 2],
}

impl Pipes {
    /// Writes and reads until both outputs have closed, or until the other end of `stop` is closed.
    fn transfer(mut self, stop: &PipeReader) -> [Vec<u8>; 2] {
        loop {
            self.feed();
            for (output, text) in self.outputs.iter_mut().zip(&mut self.texts) {
                if output.as_ref().is_some_and(|output| !read_available(output, text)) {
                    *output = None;
                }
            }
            let ends = [(&self.stdin, libc::POLLOUT)]
                .into_iter()
                .chain(self.outputs.iter().map(|output| (output, libc::POLLIN)))
                .filter_map(|(end, events)| Some((end.as_ref()?.as_raw_fd(), events)));
            let over = self.outputs.iter().all(Option::is_none);
            if over || !wait(stop.as_raw_fd(), ends) {
                return self.texts;
            }
        }
    }

    /// Writes as much as the pipe takes. A program that ends without reading its input is no error here:
    /// its exit code says what went wrong.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.input.is_empty() {
            match stdin.write(&self.input) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.stdin = None;
    }
}

/// Reads what is available, within bounds; false at the end of the stream. What is beyond the limit is
/// read and dropped, else the program would block.
fn read_available(mut output: &File, text: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    for _ in 0..MAX_READS_IN_A_ROW {
        match output.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => {
                let room = MAX_OUTPUT - text.len();
                text.extend_from_slice(&buffer[..count.min(room)]);
            }
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
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
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
