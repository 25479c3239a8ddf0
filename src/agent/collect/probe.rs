//! Questions that may never be answered: a disk or a sensor that hangs holds up nobody else.

use std::fmt::Display;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use log::{info, warn};

/// How long an answer is waited for. What works takes microseconds, on a machine that is short of
/// everything perhaps a second; a disk that has to spin up takes longer and is told of later.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many may begin to hang in one round before the rest waits for the next: beats must go on.
const MOST_HANGING: usize = 2;
/// The least that glibc gives is 16 kB; a question needs a path and a buffer.
const STACK: usize = 64 * 1024;

/// Asks one question about many things. What did not answer is not asked again before it has:
/// never more threads than things, however long they hang.
pub struct TimedProbe<Q, T> {
    /// What a thing is, for the log.
    what: &'static str,
    question: fn(&Q) -> Option<T>,
    patience: Duration,
    /// Things that have not answered yet, by what they are called.
    hanging: Vec<(String, Receiver<Option<T>>)>,
}

impl<Q: Clone + Display + Send + 'static, T: Send + 'static> TimedProbe<Q, T> {
    /// A question that was not asked yet.
    pub fn new(what: &'static str, question: fn(&Q) -> Option<T>) -> TimedProbe<Q, T> {
        TimedProbe { what, question, patience: PATIENCE, hanging: Vec::new() }
    }

    /// An answer for each thing, in order; none for what hangs or has none.
    pub fn ask(&mut self, things: &[Q]) -> Vec<Option<T>> {
        self.notice_returns();
        let mut answers: Vec<Option<T>> = things.iter().map(|_| None).collect();
        let hangs = |thing: &Q| self.hanging.iter().any(|(name, _)| *name == thing.to_string());
        let mut waiting: Vec<usize> = (0..things.len()).filter(|at| !hangs(&things[*at])).collect();
        waiting.reverse();
        for _ in 0..MOST_HANGING {
            if waiting.is_empty() {
                break;
            }
            match self.ask_until_one_hangs(things, &mut waiting, &mut answers) {
                Some(hanging) => self.hanging.push(hanging),
                None => break,
            }
        }
        answers
    }

    fn notice_returns(&mut self) {
        let what = self.what;
        self.hanging.retain(|(name, answer)| {
            let hangs = answer.try_recv().is_err_and(|why| why.is_empty());
            if !hangs {
                info!("{what} {name} answers again");
            }
            hangs
        });
    }

    /// Takes from the end of `waiting`, in a thread that is left behind when it hangs: it finds
    /// nothing more to do when it comes back.
    fn ask_until_one_hangs(
        &self,
        things: &[Q],
        waiting: &mut Vec<usize>,
        answers: &mut [Option<T>],
    ) -> Option<(String, Receiver<Option<T>>)> {
        let (next, asked) = bounded::<Q>(1);
        let (answer, answered) = bounded(1);
        let question = self.question;
        let work = move || {
            for thing in asked {
                if answer.send(question(&thing)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("probe".into()).stack_size(STACK);
        if let Err(why) = thread.spawn(work) {
            warn!("no thread can be started, {} ... is left out: {why}", self.what);
            return None;
        }
        while let Some(at) = waiting.pop() {
            let thing = &things[at];
            if next.send(thing.clone()).is_err() {
                return None;
            }
            match answered.recv_timeout(self.patience) {
                Ok(answer) => answers[at] = answer,
                Err(RecvTimeoutError::Timeout) => {
                    warn!("{} {thing} hangs: it is left out until it answers", self.what);
                    return Some((thing.to_string(), answered));
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

    /// Reading a pipe hangs until somebody writes.
    fn first_byte(path: &String) -> Option<u8> {
        let mut byte = [0];
        File::open(path).ok()?.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    fn shown(answers: &[Option<u8>]) -> String {
        answers.iter().map(|answer| answer.map_or('-', char::from)).collect()
    }

    /// Whoever reads there is done; where nobody does, nothing happens.
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
        let (folder, mut things) = pipes(&["b"]);
        let file = |name: &str| {
            let path: PathBuf = folder.path().join(name);
            fs::write(&path, name).unwrap();
            path.to_str().unwrap().to_owned()
        };
        things.insert(0, file("a"));
        things.push(file("c"));
        things.push("/nonexistent".into());

        let mut probe = TimedProbe::new("the file", first_byte);
        assert_eq!(shown(&probe.ask(&things)), "a-c-");
        for _ in 0..20 {
            assert_eq!(shown(&probe.ask(&things)), "a-c-");
        }
        assert_eq!(probe.hanging.len(), 1, "it is not asked while it hangs");

        let deadline = Instant::now() + Duration::from_secs(30);
        release(&things[1]);
        fs::remove_file(&things[1]).unwrap();
        file("b");
        while shown(&probe.ask(&things)) != "abc-" {
            assert!(Instant::now() < deadline, "it is never asked again");
        }
        assert!(probe.hanging.is_empty());
    }

    #[test]
    fn when_everything_hangs_most_of_it_waits_for_the_next_round() {
        let (_folder, things) = pipes(&["0", "1", "2", "3", "4", "5", "6"]);
        let mut probe = TimedProbe::new("the file", first_byte);
        probe.patience = Duration::from_millis(50);
        assert_eq!(shown(&probe.ask(&things)), "-------");
        assert_eq!(probe.hanging.len(), MOST_HANGING);
        probe.ask(&things);
        assert_eq!(probe.hanging.len(), 2 * MOST_HANGING);
        things.iter().for_each(|pipe| release(pipe));
    }
}
