//! Feeds bytes to the strict reading of a request: what is accepted is read alike in pieces, by a
//! second reading, and when it is written anew; no byte belongs to two requests.

use std::io::{BufReader, ErrorKind, Read};

use heartbeat::http::front::limits::MAX_HEAD;
use heartbeat::http::front::request::{BodyLength, ChunkedReader, RequestHead, parse};

/// A head as a reader that knows nothing but lines understands it: its framing, by every line that
/// another server could take for one.
struct SecondReading {
    method: String,
    lengths: Vec<String>,
    codings: Vec<String>,
}

impl SecondReading {
    fn of(head: &[u8]) -> SecondReading {
        let text: String = head.iter().map(|byte| char::from(*byte)).collect();
        // Empty lines before a request are passed over (RFC 9112, section 2.2).
        let mut lines = text.trim_start_matches(['\r', '\n']).split(['\r', '\n']);
        let method = lines.next().unwrap().split(' ').next().unwrap().to_owned();
        let (mut lengths, mut codings) = (Vec::new(), Vec::new());
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            // What some servers make of a name: blanks and controls around it are dropped.
            let odd = |c: char| c.is_whitespace() || c.is_control();
            let value = value.trim_matches([' ', '\t']).to_owned();
            match name.trim_matches(odd).to_ascii_lowercase().as_str() {
                "content-length" => lengths.push(value),
                "transfer-encoding" => codings.push(value.to_ascii_lowercase()),
                _ => {}
            }
        }
        SecondReading { method, lengths, codings }
    }

    fn framing(&self) -> Option<BodyLength> {
        match (self.lengths.as_slice(), self.codings.as_slice()) {
            ([], []) => Some(BodyLength::None),
            ([length], []) => length.parse().ok().map(BodyLength::Length),
            ([], [coding]) if coding == "chunked" => Some(BodyLength::Chunked),
            _ => None,
        }
    }
}

/// The head as we would write it.
fn canonical(head: &RequestHead) -> Vec<u8> {
    let version = if head.http10 { "1.0" } else { "1.1" };
    let mut text = format!("{} {} HTTP/{version}\r\n", head.method, head.target);
    for (name, value) in &head.headers {
        text += &format!("{name}: {value}\r\n");
    }
    match head.body {
        BodyLength::None => {}
        BodyLength::Length(length) => text += &format!("Content-Length: {length}\r\n"),
        BodyLength::Chunked => text += "Transfer-Encoding: chunked\r\n",
    }
    if head.wants_continue {
        text += "Expect: 100-continue\r\n";
    }
    (text + "\r\n").into_bytes()
}

fn check_head(bytes: &[u8], head: &RequestHead) {
    assert!(head.length <= bytes.len());
    let own = &bytes[..head.length];
    let second = SecondReading::of(own);
    assert_eq!(second.method, head.method);
    assert_eq!(second.framing(), Some(head.body), "another server sees another body");
    assert!(
        head.target.starts_with('/') && head.target.bytes().all(|byte| byte.is_ascii_graphic())
    );
    let values = head.headers.iter().map(|(_, value)| value);
    assert!(values.flat_map(|value| value.bytes()).all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
    let written = canonical(head);
    let again = parse(&written).expect("what was accepted is accepted again");
    let again = again.expect("it is complete");
    // A list may end in an empty line of it: a blank at the end, which a reader drops.
    let trimmed = |head: &RequestHead| {
        let headers = head.headers.iter().map(|(name, value)| (*name, value.trim_end().to_owned()));
        RequestHead { length: 0, headers: headers.collect(), ..head.clone() }
    };
    assert_eq!(trimmed(&again), trimmed(head));
    assert_eq!(again.length, written.len());
}

/// As it comes in: a piece after the other, the last of which completes it.
fn check_pieces(bytes: &[u8]) {
    let whole = parse(bytes);
    let mut ends: Vec<usize> =
        (0..bytes.len()).filter(|index| bytes[*index] == b'\n').map(|index| index + 1).collect();
    ends.extend([1, bytes.len() / 2, bytes.len() / 3]);
    for end in ends {
        match (parse(&bytes[..end.min(bytes.len())]), &whole) {
            (Ok(Some(piece)), Ok(Some(whole))) => assert_eq!(&piece, whole),
            (Ok(Some(piece)), other) => panic!("{piece:?} became {other:?}"),
            (Err(piece), Ok(whole)) => panic!("{piece:?} became {whole:?}"),
            // What is too long is so from the byte on that makes it so.
            (Ok(None) | Err(_), _) => {}
        }
    }
}

/// The content of chunks and what follows them, by a reading of its own.
fn dechunk(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let line = |rest: &mut &[u8]| -> Option<Vec<u8>> {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest[..end].strip_suffix(b"\r")?.to_vec();
        *rest = &rest[end + 1..];
        Some(line)
    };
    let mut content = Vec::new();
    loop {
        let size = line(&mut rest)?;
        let digits: String = size.iter().map(|byte| char::from(*byte)).collect();
        let digits =
            digits.split(';').next()?.trim_end_matches([' ', '\t', '\x0c', '\r']).to_owned();
        let size = usize::from_str_radix(&digits, 16).ok()?;
        if size == 0 {
            while !line(&mut rest)?.is_empty() {}
            return Some((content, rest));
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
}

fn read_chunks(bytes: &[u8], capacity: usize) -> Result<(Vec<u8>, Vec<u8>), ErrorKind> {
    let mut reader = ChunkedReader::new(BufReader::with_capacity(capacity, bytes));
    let mut content = Vec::new();
    let mut buffer = [0; 7];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => content.extend_from_slice(&buffer[..count]),
            Err(why) => return Err(why.kind()),
        }
    }
    assert!(reader.has_ended());
    let mut rest = Vec::new();
    reader.into_inner().read_to_end(&mut rest).expect("bytes in memory can be read");
    Ok((content, rest))
}

fn check_chunks(bytes: &[u8]) {
    let result = read_chunks(bytes, 4096);
    assert_eq!(result, read_chunks(bytes, 1), "chunks in pieces are read otherwise");
    let Ok((content, rest)) = result else { return };
    let second = dechunk(bytes).expect("another server refuses these chunks");
    assert_eq!((content.as_slice(), rest.as_slice()), (second.0.as_slice(), second.1));
    let mut written = Vec::new();
    if !content.is_empty() {
        written = format!("{:x}\r\n", content.len()).into_bytes();
        written.extend_from_slice(&content);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(read_chunks(&written, 4096), Ok((content, Vec::new())));
}

/// Checks one input.
pub fn run(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MAX_HEAD)];
    check_pieces(bytes);
    let body = match parse(bytes) {
        Ok(Some(head)) => {
            check_head(bytes, &head);
            &bytes[head.length..]
        }
        Ok(None) => return,
        Err(error) => {
            assert!((400..600).contains(&error.status) && !error.why.is_empty());
            bytes
        }
    };
    check_chunks(body);
}
