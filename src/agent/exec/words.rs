//! The last words of a job: its standard error passes through us, and its last line is remembered.
//!
//! A terminal is left to the job. What the job leaves behind may write on when it has ended and we
//! have, too: a process of its own passes that through.

use std::io::{self, ErrorKind, IsTerminal, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};

use crate::heartbeat::datagram::cleaned_text;

/// How much of the end is remembered, in bytes.
const MAX_TAIL: usize = 4096;
/// How much is read when the job has ended, in bytes: what a pipe holds (pipe(7)). What is behind that
/// its descendants wrote.
const MAX_REST: usize = 64 * 1024;

/// Passes the standard error of a job through.
pub struct LastWords {
    work: JoinHandle<Passed>,
    /// Dropped when the job has ended.
    running: PipeWriter,
}

/// What passed through.
struct Passed {
    tail: Vec<u8>,
    /// What reads from the job's descendants, where there are any that can still write.
    rest: Option<PipeReader>,
}

impl LastWords {
    /// Begins, and gives what is to be the standard error of the job; none where the job is to have
    /// ours: that is a terminal, or there is no pipe or thread to be had.
    pub fn start() -> Option<(LastWords, PipeWriter)> {
        if io::stderr().is_terminal() {
            return None;
        }
        let (reader, writer) = io::pipe().ok()?;
        let (stop, running) = io::pipe().ok()?;
        let work = move || pass(reader, &stop, &mut io::stderr());
        let work = thread::Builder::new().name("stderr".into()).spawn(work).ok()?;
        Some((LastWords { work, running }, writer))
    }

    /// The job has ended: its last line, when all that it wrote has passed.
    pub fn finish(self) -> Option<String> {
        drop(self.running);
        let passed = self.work.join().ok()?;
        if let Some(rest) = passed.rest {
            leave_behind(&rest);
        }
        last_line(&passed.tail)
    }
}

/// Copies until all that could write has ended, or the job has and what it wrote has passed.
fn pass(mut reader: PipeReader, stop: &PipeReader, to: &mut dyn Write) -> Passed {
    let (mut tail, mut buffer) = (Vec::new(), [0; 4096]);
    let (mut stop, mut left) = (Some(stop), MAX_REST);
    loop {
        match wait(&reader, stop) {
            Ready::Stop => stop = None,
            Ready::Input if left == 0 => return Passed { tail, rest: Some(reader) },
            Ready::Nothing => return Passed { tail, rest: Some(reader) },
            Ready::Input => match reader.read(&mut buffer) {
                Ok(0) => return Passed { tail, rest: None },
                Ok(length) => {
                    // Where ours is closed there is nobody to tell.
                    let _ = to.write_all(&buffer[..length]);
                    if stop.is_none() {
                        left = left.saturating_sub(length);
                    }
                    tail.extend_from_slice(&buffer[..length]);
                    tail.drain(..tail.len().saturating_sub(MAX_TAIL));
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Passed { tail, rest: None },
            },
        }
    }
}

enum Ready {
    /// There is something to read, or nothing will come any more.
    Input,
    /// The job has ended.
    Stop,
    /// It had ended before, and there is nothing to read at present.
    Nothing,
}

/// Waits for input or for the end of the job; where that was before, it does not wait.
fn wait(reader: &PipeReader, stop: Option<&PipeReader>) -> Ready {
    let watched = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // A negative descriptor is ignored (poll(2)).
    let mut both = [watched(reader.as_raw_fd()), watched(stop.map_or(-1, AsRawFd::as_raw_fd))];
    let timeout = if stop.is_some() { -1 } else { 0 };
    loop {
        // SAFETY: pointer and length are those of a live array, whose descriptors are open.
        let ready = unsafe { libc::poll(both.as_mut_ptr(), both.len() as libc::nfds_t, timeout) };
        match both.map(|one| ready > 0 && one.revents != 0) {
            [_, true] => return Ready::Stop,
            [true, _] => return Ready::Input,
            _ if ready == 0 => return Ready::Nothing,
            // A signal came.
            _ => {}
        }
    }
}

/// Starts a process that passes on what the job's descendants write from now on: for them our end must
/// not be one of their standard error.
fn leave_behind(rest: &PipeReader) {
    let mut buffer = [0u8; 4096];
    let from = rest.as_raw_fd();
    // SAFETY: the child has this thread alone: until its end it calls only what signal-safety(7) allows,
    // with a buffer of its own. A failure leaves things as they are.
    unsafe {
        if libc::fork() != 0 {
            return;
        }
        libc::close(0);
        libc::close(1);
        loop {
            let length = libc::read(from, buffer.as_mut_ptr().cast(), buffer.len());
            if length <= 0 || libc::write(2, buffer.as_ptr().cast(), length.cast_unsigned()) < 0 {
                libc::_exit(0);
            }
        }
    }
}

/// The last line that is not empty, as a text beside a metric.
fn last_line(tail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(tail);
    // A progress bar goes back to the start of its line.
    text.rsplit(['\n', '\r']).find_map(cleaned_text)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_line_that_says_something_is_remembered() {
        for (tail, words) in [
            (&b""[..], None),
            (b"\n \r\n", None),
            (b"one\ntwo\n\n", Some("two")),
            (b"10 %\r50 %\rFatal: no repository", Some("Fatal: no repository")),
            (b"\x1b[31mred\x1b[0m\xff\n", Some("[31mred[0m\u{fffd}")),
        ] {
            assert_eq!(last_line(tail).as_deref(), words);
        }
    }

    #[test]
    fn what_a_job_left_behind_wrote_without_pause_and_its_end_was_never_reported() {
        let (reader, mut writer) = io::pipe().unwrap();
        let (stop, running) = io::pipe().unwrap();
        drop(running);
        writer.write_all(&[b'x'; 4096]).unwrap();
        let (done, passed) = mpsc::channel();
        // What is read is there again at once.
        thread::spawn(move || done.send(pass(reader, &stop, &mut writer).rest.is_some()));
        assert_eq!(passed.recv_timeout(Duration::from_secs(10)), Ok(true));
    }

    #[test]
    fn all_that_a_job_wrote_passes_when_it_has_ended() {
        let (reader, mut writer) = io::pipe().unwrap();
        let (stop, running) = io::pipe().unwrap();
        writer.write_all(&[b'x'; 8000]).unwrap();
        writer.write_all(b"\nok").unwrap();
        drop((running, writer));
        let mut all = Vec::new();
        let passed = pass(reader, &stop, &mut all);
        assert_eq!((all.len(), last_line(&passed.tail).as_deref()), (8003, Some("ok")));
    }
}
