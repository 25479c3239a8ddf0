//! What the tests share that kill the daemon again and again: chance that can be repeated, requests
//! that may be cut short, and who may have heard what.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// xorshift, begun with anything but zero.
pub struct Dice(pub u64);

impl Dice {
    /// One of so many.
    pub fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Status and answer of a daemon that may be killed at any moment; none when there was no whole
/// one.
pub fn request(
    address: SocketAddr,
    head: &str,
    body: &str,
    patience: Duration,
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

/// The numbers that a text tells of, each once, in order.
pub fn numbers(host: &str, text: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for rest in text.split(&format!("{host} number ")).skip(1) {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest[..end].parse().unwrap();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

/// How many arrived, and how many repeats there were.
pub fn judge(host: &str, told: &[bool], texts: &[String]) -> (usize, usize) {
    let mut arrived = BTreeSet::new();
    let mut repeats = 0;
    for text in texts {
        for number in numbers(host, text) {
            assert!(number < told.len(), "{host} never said {number}: {text}");
            let last = arrived.last().copied();
            if arrived.insert(number) {
                assert!(last < Some(number), "{host} number {number} came after {last:?}");
            } else {
                repeats += 1;
                let marked = text.to_lowercase().contains("possible repeat");
                assert!(marked, "{host} number {number} came twice and does not say so: {text}");
            }
        }
    }
    for (number, stored) in told.iter().enumerate() {
        let lost = *stored && !arrived.contains(&number);
        assert!(!lost, "{host} number {number} was accepted and is lost");
    }
    (arrived.len(), repeats)
}
