//! Who may ask: `Authorization: Bearer TOKEN`, or Basic (RFC 7617) with the token as password. Pure.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use ring::hmac;

use crate::secret::Secret;

/// With or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
    let clear = BASE64.decode(credentials).ok()?;
    let colon = clear.iter().position(|byte| *byte == b':')?;
    Some(clear[colon + 1..].to_vec())
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
            assert_eq!(BASE64.decode(text).unwrap(), clear.as_bytes());
        }
        assert!(BASE64.decode("Zg==Zg==").is_err());
    }
}
