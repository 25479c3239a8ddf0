//! A body that is made while it is read, piece by piece. Pure.

use std::io::{self, Read};

/// Reads what `next` writes: it is called for one piece after the other until it returns false.
pub struct Pieces<F> {
    next: F,
    piece: Vec<u8>,
    read: usize,
    more: bool,
}

impl<F: FnMut(&mut Vec<u8>) -> bool> Pieces<F> {
    /// A body of the pieces that `next` writes into the vector it is given.
    pub fn new(next: F) -> Pieces<F> {
        Pieces { next, piece: Vec::new(), read: 0, more: true }
    }
}

impl<F: FnMut(&mut Vec<u8>) -> bool> Read for Pieces<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() && self.more {
            self.piece.clear();
            self.read = 0;
            self.more = (self.next)(&mut self.piece);
        }
        let rest = &self.piece[self.read..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_in_order_and_an_empty_one_is_not_the_end() {
        let mut pieces = ["ab", "", "cde", ""].into_iter();
        let mut body = Pieces::new(|piece| match pieces.next() {
            Some(text) => {
                piece.extend_from_slice(text.as_bytes());
                true
            }
            None => {
                piece.push(b'!');
                false
            }
        });
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde!");
    }
}
