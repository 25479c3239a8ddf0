//! What a program does to its store, recorded by tests/support/writes.c, and what of it a disk has after
//! a loss of power.
#![allow(dead_code)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::torture::Dice;

/// What a disk writes as a whole, or not at all.
const SECTOR: usize = 512;

/// tests/support/writes.c, compiled.
static LIBRARY: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("writes.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/writes.c");
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(status.expect("cc can be started: apt-get install gcc").success());
    (directory, library)
});

/// One thing that happened to the file, or was said about it.
#[derive(Clone, Debug)]
pub enum Step {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLength(usize),
    SyncBegins,
    Synced,
    /// The test was told that this is stored.
    Acknowledged(u64),
}

/// The file that a recording goes to.
pub struct Recording(PathBuf);

impl Recording {
    pub fn new(path: PathBuf) -> Recording {
        fs::write(&path, "").unwrap();
        Recording(path)
    }

    /// A program whose writes to the file of this name are recorded.
    pub fn command(&self, program: &str, file: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LD_PRELOAD", &LIBRARY.1).env("WRITES_OF", file).env("WRITES_TO", &self.0);
        command
    }

    /// Takes down that the program has said that something is stored: what was recorded by now was
    /// recorded before it said so.
    pub fn acknowledged(&self, number: u64) {
        let mut record = vec![b'A'];
        record.extend_from_slice(&number.to_le_bytes());
        record.extend_from_slice(&0u64.to_le_bytes());
        OpenOptions::new().append(true).open(&self.0).unwrap().write_all(&record).unwrap();
    }

    pub fn steps(&self) -> Vec<Step> {
        let bytes = fs::read(&self.0).unwrap();
        let mut rest = bytes.as_slice();
        let mut steps = Vec::new();
        // A program that is killed may leave a record that broke off.
        while let Some((head, after)) = rest.split_at_checked(17) {
            let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            rest = after;
            steps.push(match head[0] {
                b'W' => {
                    let Some((bytes, after)) = rest.split_at_checked(number(9) as usize) else {
                        break;
                    };
                    rest = after;
                    Step::Write { offset: number(1) as usize, bytes: bytes.to_vec() }
                }
                b'T' => Step::SetLength(number(1) as usize),
                b'F' => Step::SyncBegins,
                b'S' => Step::Synced,
                b'A' => Step::Acknowledged(number(1)),
                other => panic!("the recording holds {other:?}"),
            });
        }
        steps
    }
}

/// What has not been synced when the power fails.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// Nothing of it is on the disk.
    All,
    /// Everything but the end of the last write.
    TornEnd,
    /// Some writes are, in any order.
    SomeWrites,
    /// Some sectors of each are.
    SomeSectors,
}

impl Loss {
    pub const ALL: [Loss; 4] = [Loss::All, Loss::TornEnd, Loss::SomeWrites, Loss::SomeSectors];
}

/// A file on a disk whose power failed.
pub struct Image {
    pub bytes: Vec<u8>,
    /// What had been said to be stored.
    pub acknowledged: Vec<u64>,
}

fn apply(step: &Step, bytes: &mut Vec<u8>) {
    match step {
        Step::Write { offset, bytes: new } => {
            bytes.resize(bytes.len().max(offset + new.len()), 0);
            bytes[*offset..offset + new.len()].copy_from_slice(new);
        }
        Step::SetLength(length) => bytes.resize(*length, 0),
        Step::SyncBegins | Step::Synced | Step::Acknowledged(_) => {}
    }
}

/// The sectors of a write, each a write of its own.
fn sectors(step: &Step) -> Vec<Step> {
    let Step::Write { offset, bytes } = step else { return vec![step.clone()] };
    let first = SECTOR - offset % SECTOR;
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    let mut at = *offset;
    std::iter::once(head)
        .chain(rest.chunks(SECTOR))
        .map(|part| {
            let sector = Step::Write { offset: at, bytes: part.to_vec() };
            at += part.len();
            sector
        })
        .collect()
}

/// The file when the power fails after so many steps.
pub fn image(steps: &[Step], cut: usize, loss: Loss, dice: &mut Dice) -> Image {
    let before = &steps[..cut];
    // What a sync covers was written before it began.
    let synced = before.iter().rposition(|step| matches!(step, Step::Synced)).unwrap_or(0);
    let begun = before[..synced].iter().rposition(|step| matches!(step, Step::SyncBegins));
    let (durable, pending) = before.split_at(begun.unwrap_or(0));
    let mut bytes = Vec::new();
    durable.iter().for_each(|step| apply(step, &mut bytes));
    let pending =
        pending.iter().filter(|step| matches!(step, Step::Write { .. } | Step::SetLength(_)));
    let mut kept: Vec<Step> = match loss {
        Loss::All => Vec::new(),
        Loss::TornEnd => pending.flat_map(sectors).collect(),
        Loss::SomeWrites => pending.filter(|_| dice.throw(2) == 0).cloned().collect(),
        Loss::SomeSectors => pending.flat_map(sectors).filter(|_| dice.throw(2) == 0).collect(),
    };
    match loss {
        Loss::TornEnd => {
            kept.truncate(kept.len() - dice.throw(kept.len().min(8) as u64 + 1) as usize)
        }
        // Later writes to one place win even so: a disk keeps the order of those.
        Loss::All | Loss::SomeWrites | Loss::SomeSectors => {}
    }
    kept.iter().for_each(|step| apply(step, &mut bytes));
    let acknowledged = before.iter().filter_map(|step| match step {
        Step::Acknowledged(number) => Some(*number),
        _ => None,
    });
    Image { bytes, acknowledged: acknowledged.collect() }
}

/// Writes an image as the store of a state directory.
pub fn install(image: &Image, directory: &Path, file: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(file), &image.bytes).unwrap();
}
