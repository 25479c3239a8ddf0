//! Reads disks and sensors with a timeout: a read that hangs is left behind in its thread.

use std::fmt::Display;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use log::{info, warn};

/// How long a read may take. One that works takes microseconds, on a machine that is short of
/// everything perhaps a second; a disk that has to spin up takes longer and is read again later.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// After this number of new hangs in one round the rest waits for the next one: beats must go on.
const MAX_NEW_HANGS: usize = 2;
/// The least that glibc gives is 16 kB; a read needs a path and a buffer.
const STACK: usize = 64 * 1024;

/// Reads many targets, each with a timeout. A target whose read hangs is not read again before that
/// read has returned: never more threads than targets, however long they hang.
pub struct TimedProbe<Q, T> {
    /// What a target is, for the log.
    kind: &'static str,
    read: fn(&Q) -> Option<T>,
    timeout: Duration,
    /// The names of targets whose reads have not returned, and where the results will come.
    hanging: Vec<(String, Receiver<Option<T>>)>,
}

impl<Q: Clone + Display + Send + 'static, T: Send + 'static> TimedProbe<Q, T> {
    /// A probe that has read nothing yet; the log calls a target by `kind` and its own name.
    pub fn new(kind: &'static str, read: fn(&Q) -> Option<T>) -> TimedProbe<Q, T> {
        TimedProbe { kind, read, timeout: READ_TIMEOUT, hanging: Vec::new() }
    }

    /// The result for each target, in order; none for one that hangs or cannot be read.
    pub fn read_all(&mut self, targets: &[Q]) -> Vec<Option<T>> {
        self.log_returned();
        let mut results: Vec<Option<T>> = targets.iter().map(|_| None).collect();
        let hangs = |target: &Q| self.hanging.iter().any(|(name, _)| *name == target.to_string());
        let mut waiting: Vec<usize> =
            (0..targets.len()).filter(|index| !hangs(&targets[*index])).collect();
        waiting.reverse();
        for _ in 0..MAX_NEW_HANGS {
            if waiting.is_empty() {
                break;
            }
            match self.read_until_one_hangs(targets, &mut waiting, &mut results) {
                Some(hanging) => self.hanging.push(hanging),
                None => break,
            }
        }
        results
    }

    fn log_returned(&mut self) {
        let kind = self.kind;
        self.hanging.retain(|(name, result)| {
            let hangs = result.try_recv().is_err_and(|why| why.is_empty());
            if !hangs {
                info!("{kind} {name} answers again");
            }
            hangs
        });
    }

    /// Reads from the end of `waiting`, in a thread that is left behind when a read hangs: once that
    /// returns, the thread finds its channel closed and ends.
    fn read_until_one_hangs(
        &self,
        targets: &[Q],
        waiting: &mut Vec<usize>,
        results: &mut [Option<T>],
    ) -> Option<(String, Receiver<Option<T>>)> {
        let (next, requested) = bounded::<Q>(1);
        let (done, returned) = bounded(1);
        let read = self.read;
        let work = move || {
            for target in requested {
                if done.send(read(&target)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("probe".into()).stack_size(STACK);
        if let Err(why) = thread.spawn(work) {
            warn!("no thread can be started, {} ... is left out: {why}", self.kind);
            return None;
        }
        while let Some(index) = waiting.pop() {
            let target = &targets[index];
            if next.send(target.clone()).is_err() {
                return None;
            }
            match returned.recv_timeout(self.timeout) {
                Ok(result) => results[index] = result,
                Err(RecvTimeoutError::Timeout) => {
                    warn!("{} {target} hangs: it is left out until it answers", self.kind);
                    return Some((target.to_string(), returned));
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    /// Reading a pipe hangs until it is written to.
    fn first_byte(path: &String) -> Option<u8> {
        let mut byte = [0];
        File::open(path).ok()?.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    fn shown(answers: &[Option<u8>]) -> String {
        answers.iter().map(|answer| answer.map_or('-', char::from)).collect()
    }

    /// Ends a read of the pipe; without one nothing happens.
    fn release(pipe: &str) {
        let writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(pipe);
        let _ = writer.map(|mut pipe| pipe.write_all(b"x"));
    }

    fn pipes(names: &[&str]) -> (tempfile::TempDir, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &&str| folder.path().join(name).to_str().unwrap().to_owned();
        let paths: Vec<String> = names.iter().map(path).collect();
        assert!(Command::new("mkfifo").args(&paths).status().unwrap().success());
        (folder, paths)
    }

    #[test]
    fn what_hangs_holds_up_nobody_else_and_is_asked_again_when_it_has_answered() {
        let (folder, mut targets) = pipes(&["b"]);
        let file = |name: &str| {
            let path: PathBuf = folder.path().join(name);
            fs::write(&path, name).unwrap();
            path.to_str().unwrap().to_owned()
        };
        targets.insert(0, file("a"));
        targets.push(file("c"));
        targets.push("/nonexistent".into());

        let mut probe = TimedProbe::new("the file", first_byte);
        assert_eq!(shown(&probe.read_all(&targets)), "a-c-");
        for _ in 0..20 {
            assert_eq!(shown(&probe.read_all(&targets)), "a-c-");
        }
        assert_eq!(probe.hanging.len(), 1, "it is not read while it hangs");

        let deadline = Instant::now() + Duration::from_secs(30);
        release(&targets[1]);
        fs::remove_file(&targets[1]).unwrap();
        file("b");
        while shown(&probe.read_all(&targets)) != "abc-" {
            assert!(Instant::now() < deadline, "it is never read again");
        }
        assert!(probe.hanging.is_empty());
    }

    #[test]
    fn when_everything_hangs_most_of_it_waits_for_the_next_round() {
        let (_folder, targets) = pipes(&["0", "1", "2", "3", "4", "5", "6"]);
        let mut probe = TimedProbe::new("the file", first_byte);
        probe.timeout = Duration::from_millis(50);
        assert_eq!(shown(&probe.read_all(&targets)), "-------");
        assert_eq!(probe.hanging.len(), MAX_NEW_HANGS);
        probe.read_all(&targets);
        assert_eq!(probe.hanging.len(), 2 * MAX_NEW_HANGS);
        targets.iter().for_each(|pipe| release(pipe));
    }
}
