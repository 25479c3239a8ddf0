//! One run of another program: text in, bounded text out, never longer than its deadline.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};

use crate::stop::Stop;

/// How much of each output stream is kept.
const OUTPUT_CAP: usize = 64 * 1024;

/// How long output is awaited after the program and its group are gone.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; none when it was killed.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether it was killed because its time was up, or everybody was told to stop.
    pub timed_out: bool,
    /// The first 64 kB of its standard output.
    pub stdout: String,
    /// The first 64 kB of its standard error.
    pub stderr: String,
}

/// Runs `command` in a process group of its own, with `input` as its standard input, for at most
/// `limit`. When it ends, or when its time is up, whatever is left of its group is killed.
///
/// # Errors
/// It could not be started.
pub fn run(command: &mut Command, input: &str, limit: Duration) -> std::io::Result<Finished> {
    run_until(command, input, limit, None)
}

/// The same, but when it is time to stop it is killed, too.
///
/// # Errors
/// It could not be started.
pub fn run_until(
    command: &mut Command,
    input: &str,
    limit: Duration,
    stop: Option<&Stop>,
) -> std::io::Result<Finished> {
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let attended = attend(&mut child, input);
    if attended.is_err() {
        kill_group(child.id());
    }
    let ended = watch(child.id());
    let nothing = never();
    let timed_out = select! {
        recv(ended) -> _ => false,
        recv(after(limit)) -> _ => true,
        recv(stop.map_or(&nothing, Stop::receiver)) -> _ => true,
    };
    kill_group(child.id());
    let status = child.wait()?;
    let output = attended?;
    // Both streams close with the group, unless a grandchild left the group and holds them.
    let _ = output.over.recv_timeout(LAST_OUTPUT);
    Ok(Finished {
        code: status.code(),
        signal: status.signal(),
        timed_out,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

/// What is read while the program runs; `over` closes when both streams have.
struct Output {
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    over: Receiver<()>,
}

fn attend(child: &mut Child, input: &str) -> std::io::Result<Output> {
    let (tx, over) = bounded(0);
    let stdout = collect(child.stdout.take(), tx.clone())?;
    let stderr = collect(child.stderr.take(), tx)?;
    feed(child, input.to_owned())?;
    Ok(Output { stdout, stderr, over })
}

/// In a thread, for a program that does not read would block the writer.
fn feed(child: &mut Child, input: String) -> std::io::Result<()> {
    let stdin = child.stdin.take();
    named("program-stdin", move || {
        // A program that ends without reading its input says why by itself.
        let _ = stdin.map(|mut stdin| stdin.write_all(input.as_bytes()));
    })
}

fn collect(
    stream: Option<impl Read + Send + 'static>,
    over: Sender<()>,
) -> std::io::Result<Arc<Mutex<Vec<u8>>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let shared = kept.clone();
    named("program-output", move || {
        let _over = over;
        let mut buffer = [0; 4096];
        let Some(mut stream) = stream else { return };
        // What is beyond the cap is read too, or the program would block.
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let mut kept = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let room = OUTPUT_CAP - kept.len();
            kept.extend_from_slice(&buffer[..count.min(room)]);
        }
    })?;
    Ok(kept)
}

fn text(kept: &Mutex<Vec<u8>>) -> String {
    let kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    String::from_utf8_lossy(&kept).into_owned()
}

/// A channel that closes when the program has ended. The program is not reaped yet: as long as it
/// is a zombie its number belongs to nobody else, so that [`kill_group`] hits nobody else.
fn watch(id: u32) -> Receiver<()> {
    let (tx, rx) = bounded(0);
    // Without this thread the channel closes at once, and the program is killed: never unattended.
    let _ = named("program-end", move || {
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

fn named(name: &str, task: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
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
    fn endless_output_is_bounded() {
        let finished = run(&mut shell("head -c 300000 /dev/zero; echo end >&2"), "", LONG).unwrap();
        assert_eq!(finished.stdout.len(), OUTPUT_CAP);
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
    fn a_program_that_hangs_outlived_the_stop() {
        let (stopper, stop) = crate::stop::channel();
        let begin = Instant::now();
        let hanging = thread::spawn(move || {
            run_until(&mut shell("sleep 60"), "", LONG, Some(&stop)).unwrap()
        });
        drop(stopper);
        let finished = hanging.join().unwrap();
        assert_eq!((finished.timed_out, finished.signal), (true, Some(libc::SIGKILL)));
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}
