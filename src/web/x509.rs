//! What of a certificate matters to whoever shows it (RFC 5280, section 4.1), read from its DER
//! (X.690). Whether it is to be trusted is for those who are shown it. Pure.

use crate::clock::Wall;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The explicit tag of the version, which may be left out.
const VERSION: u8 = 0xa0;

/// Some fields of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    /// Who vouches for it, encoded.
    pub issuer: &'a [u8],
    /// Whose it is, encoded.
    pub subject: &'a [u8],
    /// From when on it is valid.
    pub not_before: Wall,
    /// Until when.
    pub not_after: Wall,
}

/// Reads them; none when it is no certificate.
pub fn fields(certificate: &[u8]) -> Option<Fields<'_>> {
    let mut outer = Der(Der(certificate).expect(SEQUENCE)?);
    let mut body = Der(outer.expect(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.next()?;
    }
    let _serial_number = body.next()?;
    let _signature = body.expect(SEQUENCE)?;
    let issuer = body.expect(SEQUENCE)?;
    let mut validity = Der(body.expect(SEQUENCE)?);
    let subject = body.expect(SEQUENCE)?;
    let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
    Some(Fields { issuer, subject, not_before, not_after })
}

/// What is left of an encoding.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // So many bytes of length follow; more than four would be more than there can be.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// `YYMMDDhhmmssZ`, of 1950 to 2049, or `YYYYMMDDhhmmssZ` (RFC 5280, section 4.1.2.5).
fn time((tag, content): (u8, &[u8])) -> Option<Wall> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let digits = match (tag, text.len()) {
        (UTC_TIME, 12) if text >= "50" => format!("19{text}"),
        (UTC_TIME, 12) => format!("20{text}"),
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| digits.get(from..to);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    match humantime::parse_rfc3339(&text) {
        Ok(time) => Some(time.into()),
        // What began before 1970 has begun.
        Err(_) if digits.as_str() < "1970" => Some(Wall(0)),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match content.len() {
            short @ 0..0x80 => bytes.push(short as u8),
            long => bytes.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        bytes.extend(content);
        bytes
    }

    fn certificate(validity: &[u8], version: bool) -> Vec<u8> {
        let mut body = if version { element(VERSION, &element(2, &[2])) } else { Vec::new() };
        body.extend(element(2, &[1; 20]));
        body.extend(element(SEQUENCE, &[6, 0]));
        body.extend(element(SEQUENCE, b"issuer"));
        body.extend(element(SEQUENCE, validity));
        body.extend(element(SEQUENCE, b"subject"));
        body.extend(element(SEQUENCE, &[0; 300]));
        element(SEQUENCE, &element(SEQUENCE, &body))
    }

    fn years(from: &str, to: &str) -> Vec<u8> {
        let time = |text: &str| {
            let tag = if text.len() == 13 { UTC_TIME } else { GENERALIZED_TIME };
            element(tag, text.as_bytes())
        };
        [time(from), time(to)].concat()
    }

    #[test]
    fn the_fields_of_a_certificate_are_found() {
        for version in [true, false] {
            let bytes = certificate(&years("490101000000Z", "99991231235959Z"), version);
            let fields = fields(&bytes).unwrap();
            assert_eq!((fields.issuer, fields.subject), (&b"issuer"[..], &b"subject"[..]));
            assert_eq!(fields.not_before.to_string(), "2049-01-01T00:00:00.000Z");
            assert_eq!(fields.not_after.to_string(), "9999-12-31T23:59:59.000Z");
        }
        let old = certificate(&years("500101000000Z", "700101000001Z"), true);
        let fields = fields(&old).unwrap();
        assert_eq!((fields.not_before, fields.not_after), (Wall(0), Wall(1000)));
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let good = certificate(&years("490101000000Z", "99991231235959Z"), true);
        for end in 0..good.len() {
            assert_eq!(fields(&good[..end]), None, "{end}");
        }
        for validity in [years("491301000000Z", "99991231235959Z"), years("49010100000Z", "x")] {
            assert_eq!(fields(&certificate(&validity, true)), None);
        }
        for byte in 0..good.len() {
            let mut damaged = good.clone();
            damaged[byte] = 0xff;
            // Whatever it makes of it, it ends.
            let _ = fields(&damaged);
        }
    }
}
