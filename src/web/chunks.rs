//! The chunked coding (RFC 9112, section 7.1), with a bound on everything that is not body. Pure.
//!
//! The decoder of the crate that tiny_http uses keeps a chunk-size line of any length in memory
//! and refuses trailers.

use std::io::{self, BufRead, ErrorKind, Read};

const LONGEST_LINE: u64 = 1024;
const MOST_TRAILERS: usize = 16;

/// Reads the body out of its chunks, and ends where it ends.
pub struct Dechunk<R> {
    source: R,
    left_in_chunk: usize,
    started: bool,
    ended: bool,
}

impl<R: BufRead> Dechunk<R> {
    /// Decodes `source`.
    pub fn new(source: R) -> Dechunk<R> {
        Dechunk { source, left_in_chunk: 0, started: false, ended: false }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if self.started && !self.line()?.is_empty() {
            return Err(malformed("a chunk is longer than its size"));
        }
        self.started = true;
        let line = self.line()?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(malformed("the size of a chunk is not a number"));
        }
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        self.left_in_chunk =
            usize::from_str_radix(digits, 16).map_err(|_| malformed("a chunk is too large"))?;
        if self.left_in_chunk == 0 {
            self.skip_trailers()?;
            self.ended = true;
        }
        Ok(())
    }

    fn skip_trailers(&mut self) -> io::Result<()> {
        for _ in 0..=MOST_TRAILERS {
            if self.line()?.is_empty() {
                return Ok(());
            }
        }
        Err(malformed("too many trailers"))
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.source.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(content) => Ok(content.to_vec()),
            None if line.len() as u64 == LONGEST_LINE => Err(malformed("a line is too long")),
            None if line.ends_with(b"\n") => Err(malformed("a line ends without CR")),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: BufRead> Read for Dechunk<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left_in_chunk == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.ended || into.is_empty() {
            return Ok(0);
        }
        let wanted = into.len().min(self.left_in_chunk);
        let count = self.source.read(&mut into[..wanted])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left_in_chunk -= count;
        Ok(count)
    }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<String, ErrorKind> {
        let mut body = String::new();
        let result = Dechunk::new(text.as_bytes()).read_to_string(&mut body);
        result.map(|_| body).map_err(|error| error.kind())
    }

    #[test]
    fn a_body_is_read_out_of_its_chunks() {
        assert_eq!(
            decode("3\r\nhel\r\nB;x=y\r\nlo world!!!\r\n0\r\n\r\n").unwrap(),
            "hello world!!!"
        );
        assert_eq!(decode("0\r\nA: b\r\nC: d\r\n\r\nGET / HTTP/1.1").unwrap(), "");
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for (text, expected) in [
            ("", ErrorKind::UnexpectedEof),
            ("5\r\nhel", ErrorKind::UnexpectedEof),
            ("0\r\n", ErrorKind::UnexpectedEof),
            ("-1\r\n", ErrorKind::InvalidData),
            ("\r\n", ErrorKind::InvalidData),
            ("fffffffff\r\n", ErrorKind::InvalidData),
            ("3\nhel", ErrorKind::InvalidData),
            ("3\r\nhello\r\n0\r\n\r\n", ErrorKind::InvalidData),
        ] {
            assert_eq!(decode(text), Err(expected), "{text:?}");
        }
        assert_eq!(decode(&"1".repeat(1_000_000)), Err(ErrorKind::InvalidData));
        assert_eq!(decode(&format!("0\r\n{}", "a: b\r\n".repeat(99))), Err(ErrorKind::InvalidData));
    }
}
