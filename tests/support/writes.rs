//! What a program does to the files of a directory, recorded by tests/support/writes.c, and what of it a
//! disk has after a loss of power.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::preload::compile;
use super::torture::Dice;

/// What a disk writes as a whole, or not at all.
const SECTOR: usize = 512;

/// tests/support/writes.c, compiled.
static LIBRARY: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| compile("writes.c"));

/// The number of a file, whatever its name is.
pub type Inode = u64;

/// One thing that happened to a file, or to its name, or was said about it.
#[derive(Clone, Debug)]
pub enum Step {
    Write {
        file: Inode,
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLength {
        file: Inode,
        length: usize,
    },
    SyncBegins(Inode),
    Synced(Inode),
    Named {
        file: Inode,
        name: String,
    },
    Renamed {
        from: String,
        to: String,
    },
    Removed(String),
    /// The test was told that this is stored.
    Acknowledged(u64),
}

impl Step {
    /// The file whose content it changes.
    fn changes(&self) -> Option<Inode> {
        match self {
            Step::Write { file, .. } | Step::SetLength { file, .. } => Some(*file),
            _ => None,
        }
    }

    fn changes_names(&self) -> bool {
        matches!(self, Step::Named { .. } | Step::Renamed { .. } | Step::Removed(_))
    }

    fn read(kind: u8, file: Inode, offset: usize, bytes: &[u8]) -> Step {
        let text = || String::from_utf8(bytes.to_vec()).unwrap();
        match kind {
            b'W' => Step::Write { file, offset, bytes: bytes.to_vec() },
            b'T' => Step::SetLength { file, length: offset },
            b'F' => Step::SyncBegins(file),
            b'S' => Step::Synced(file),
            b'N' => Step::Named { file, name: text() },
            b'R' => {
                let names = text();
                let (from, to) = names.split_once('\0').unwrap();
                Step::Renamed { from: from.into(), to: to.into() }
            }
            b'U' => Step::Removed(text()),
            b'A' => Step::Acknowledged(file),
            other => panic!("the recording holds {other:?}"),
        }
    }
}

/// A directory whose files are recorded, and the file that the recording goes to.
pub struct Recording {
    directory: PathBuf,
    trace: PathBuf,
}

impl Recording {
    pub fn of(directory: PathBuf, trace: PathBuf) -> Recording {
        fs::create_dir_all(&directory).unwrap();
        fs::write(&trace, "").unwrap();
        Recording { directory, trace }
    }

    /// A program whose writes to the directory are recorded.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_PRELOAD", &LIBRARY.1)
            .env("WRITES_OF", &self.directory)
            .env("WRITES_TO", &self.trace);
        command
    }

    /// Takes down that the program has said that something is stored: what was recorded by now was
    /// recorded before it said so.
    pub fn acknowledged(&self, number: u64) {
        let mut record = vec![b'A'];
        record.extend([number, 0, 0].into_iter().flat_map(u64::to_le_bytes));
        OpenOptions::new().append(true).open(&self.trace).unwrap().write_all(&record).unwrap();
    }

    /// What was recorded.
    pub fn steps(&self) -> Steps {
        let bytes = fs::read(&self.trace).unwrap();
        let mut rest = bytes.as_slice();
        let mut steps = Vec::new();
        while let Some((head, after)) = rest.split_at_checked(25) {
            let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            // A program that is killed may leave a record that broke off.
            let Some((bytes, after)) = after.split_at_checked(number(17) as usize) else { break };
            rest = after;
            steps.push(Step::read(head[0], number(1), number(9) as usize, bytes));
        }
        Steps { directory: self.directory.metadata().unwrap().ino(), steps }
    }
}

/// All that happened, in order.
pub struct Steps {
    pub directory: Inode,
    pub steps: Vec<Step>,
}

/// What has not been synced when the power fails.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// Nothing of it is on the disk.
    All,
    /// Everything but the end of the last writes.
    TornEnd,
    /// Some writes are.
    SomeWrites,
    /// Some sectors of each are.
    SomeSectors,
}

impl Loss {
    pub const ALL: [Loss; 4] = [Loss::All, Loss::TornEnd, Loss::SomeWrites, Loss::SomeSectors];

    /// What of these writes is on the disk. Those to one place keep their order.
    fn kept(self, pending: Vec<&Step>, dice: &mut Dice) -> Vec<Step> {
        let in_sectors = pending.iter().flat_map(|step| sectors(step));
        match self {
            Loss::All => Vec::new(),
            Loss::TornEnd => {
                let mut kept: Vec<Step> = in_sectors.collect();
                let torn = dice.throw(kept.len().min(8) as u64 + 1) as usize;
                kept.truncate(kept.len() - torn);
                kept
            }
            Loss::SomeWrites => {
                pending.into_iter().filter(|_| dice.throw(2) == 0).cloned().collect()
            }
            Loss::SomeSectors => in_sectors.filter(|_| dice.throw(2) == 0).collect(),
        }
    }
}

/// The files of a directory on a disk whose power failed.
pub struct Image {
    pub files: BTreeMap<String, Vec<u8>>,
    /// What had been said to be stored.
    pub acknowledged: BTreeSet<u64>,
}

impl Image {
    pub fn install(&self, directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        for (name, bytes) in &self.files {
            fs::write(directory.join(name), bytes).unwrap();
        }
    }
}

fn apply(step: &Step, bytes: &mut Vec<u8>) {
    match step {
        Step::Write { offset, bytes: new, .. } => {
            bytes.resize(bytes.len().max(offset + new.len()), 0);
            bytes[*offset..offset + new.len()].copy_from_slice(new);
        }
        Step::SetLength { length, .. } => bytes.resize(*length, 0),
        _ => {}
    }
}

/// The sectors of a write, each a write of its own.
fn sectors(step: &Step) -> Vec<Step> {
    let Step::Write { file, offset, bytes } = step else { return vec![step.clone()] };
    let (head, rest) = bytes.split_at((SECTOR - offset % SECTOR).min(bytes.len()));
    let mut at = *offset;
    let parts = std::iter::once(head).chain(rest.chunks(SECTOR));
    let sector = |part: &[u8]| {
        let sector = Step::Write { file: *file, offset: at, bytes: part.to_vec() };
        at += part.len();
        sector
    };
    parts.map(sector).collect()
}

impl Steps {
    /// Up to which of the first `cut` steps a sync covers this file.
    fn synced(&self, file: Inode, cut: usize) -> usize {
        let before = &self.steps[..cut];
        let done = before.iter().rposition(|step| matches!(step, Step::Synced(of) if *of == file));
        let Some(done) = done else { return 0 };
        let begins = |step: &Step| matches!(step, Step::SyncBegins(of) if *of == file);
        // What a sync covers was written before it began.
        before[..done].iter().rposition(begins).unwrap_or(0)
    }

    /// The names that the files have: up to the last sync, of the directory or of a file whose name
    /// changed, as a journal keeps the order of those; and some of the later ones.
    fn names(&self, cut: usize, loss: Loss, dice: &mut Dice) -> BTreeMap<String, Inode> {
        let files: BTreeSet<Inode> = self.steps[..cut].iter().filter_map(Step::changes).collect();
        let synced = files.into_iter().chain([self.directory]).map(|file| self.synced(file, cut));
        let synced = synced.max().unwrap_or(0);
        let later = self.steps[synced..cut].iter().filter(|step| step.changes_names()).count();
        let mut kept = match loss {
            Loss::All => 0,
            _ => dice.throw(later as u64 + 1) as usize,
        };
        let mut names = BTreeMap::new();
        for (index, step) in self.steps[..cut].iter().enumerate().filter(|(_, s)| s.changes_names())
        {
            if index >= synced && kept == 0 {
                break;
            }
            kept -= usize::from(index >= synced);
            match step {
                Step::Named { file, name } => drop(names.insert(name.clone(), *file)),
                Step::Renamed { from, to } => {
                    let file = names.remove(from).expect("it was opened before");
                    names.insert(to.clone(), file);
                }
                Step::Removed(name) => drop(names.remove(name)),
                _ => {}
            }
        }
        names
    }

    /// The files when the power fails after so many steps.
    pub fn image(&self, cut: usize, loss: Loss, dice: &mut Dice) -> Image {
        let before = &self.steps[..cut];
        let names = self.names(cut, loss, dice);
        let files = names.into_iter().map(|(name, file)| {
            let (durable, pending) = before.split_at(self.synced(file, cut));
            let of_file = |step: &&Step| step.changes() == Some(file);
            let mut bytes = Vec::new();
            durable.iter().filter(of_file).for_each(|step| apply(step, &mut bytes));
            let kept = loss.kept(pending.iter().filter(of_file).collect(), dice);
            kept.iter().for_each(|step| apply(step, &mut bytes));
            (name, bytes)
        });
        let files = files.collect();
        let acknowledged = before.iter().filter_map(|step| match step {
            Step::Acknowledged(number) => Some(*number),
            _ => None,
        });
        Image { files, acknowledged: acknowledged.collect() }
    }
}
