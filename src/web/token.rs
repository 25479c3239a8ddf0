//! Who may ask: `Authorization: Bearer TOKEN`, or Basic (RFC 7617) with the token as password. Pure.

use ring::hmac;

use crate::secret::Secret;

/// The token that is wanted, kept so that comparing takes the same time for every wrong one.
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Token {
    /// Wants `secret`.
    pub fn new(secret: &Secret) -> Token {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"heartbeat token");
        let tag = hmac::sign(&key, secret.reveal().as_bytes());
        Token { key, tag }
    }

    /// Whether the value of an `Authorization` header holds the token.
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        let Some((scheme, credentials)) = authorization.and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            self.is(credentials.as_bytes())
        } else if scheme.eq_ignore_ascii_case("basic") {
            password(credentials).is_some_and(|password| self.is(&password))
        } else {
            false
        }
    }

    /// Of an `Authorization` that was wrong, enough to know it again.
    pub fn print(&self, authorization: &str) -> u32 {
        let tag = hmac::sign(&self.key, authorization.as_bytes());
        let first = tag.as_ref().first_chunk().copied().unwrap_or_default();
        u32::from_be_bytes(first)
    }

    /// Compares digests, in constant time: neither content nor length leaks.
    fn is(&self, given: &[u8]) -> bool {
        hmac::verify(&self.key, given, self.tag.as_ref()).is_ok()
    }
}

fn password(credentials: &str) -> Option<Vec<u8>> {
    let clear = base64(credentials)?;
    let colon = clear.iter().position(|byte| *byte == b':')?;
    Some(clear[colon + 1..].to_vec())
}

/// RFC 4648, section 4, with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_opens_as_bearer_and_as_password() {
        let token = Token::new(&Secret::new("s3cr:et"));
        for (value, opens) in [
            (Some("Bearer s3cr:et"), true),
            (Some("bearer  s3cr:et "), true),
            (Some("Basic YWRtaW46czNjcjpldA=="), true),
            (Some("basic OnMzY3I6ZXQ"), true),
            (Some("Basic czNjcjpldA=="), false),
            (Some("Basic !!!"), false),
            (Some("Bearer s3cr:e"), false),
            (Some("Bearer "), false),
            (Some("Bearer"), false),
            (Some("s3cr:et"), false),
            (Some("Digest s3cr:et"), false),
            (None, false),
        ] {
            assert_eq!(token.admits(value), opens, "{value:?}");
        }
    }

    #[test]
    fn base64_is_read_as_the_rfc_has_it() {
        for (text, clear) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmE", "fooba")] {
            assert_eq!(base64(text).unwrap(), clear.as_bytes());
        }
        assert_eq!(base64("Zg==Zg=="), None);
    }
}
