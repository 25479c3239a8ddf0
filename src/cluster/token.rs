//! The fencing token: which leader a change is of. Pure.
//!
//! Tokens are compared whole: after a failover that lost the last of them, two nodes may come to the
//! same epoch.

use std::fmt;
use std::str::FromStr;

use crate::address::is_name;

/// `EPOCH:NODE:INCARNATION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Rises with each leader.
    pub epoch: u64,
    /// `cluster.node` of the leader.
    pub node: String,
    /// Which process of that node it is.
    pub incarnation: String,
}

impl Token {
    /// Whether another process of the same node holds it.
    pub fn is_predecessor_of(&self, node: &str, incarnation: &str) -> bool {
        self.node == node && self.incarnation != incarnation
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.node, self.incarnation)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Token, String> {
        let parse = || {
            let (epoch, rest) = text.split_once(':')?;
            let (node, incarnation) = rest.split_once(':')?;
            let plain = !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
            let sound = plain && is_name(node) && is_name(incarnation);
            let epoch = epoch.parse().ok().filter(|_| sound)?;
            Some(Token { epoch, node: node.to_owned(), incarnation: incarnation.to_owned() })
        };
        parse().ok_or_else(|| format!("\"{}\" is no token of a leader", text.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let token: Token = "17:hb-1.example:4f0a".parse().unwrap();
        assert_eq!((token.epoch, &*token.node, &*token.incarnation), (17, "hb-1.example", "4f0a"));
        assert_eq!(token.to_string(), "17:hb-1.example:4f0a");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "1",
            "1:a",
            "a:b:c",
            ":a:b",
            "1::b",
            "1:a:",
            "1:a:b:c",
            "-1:a:b",
            "+1:a:b",
            "1:a b:c",
            "18446744073709551616:a:b",
            " 1:a:b",
        ] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_of_one_epoch_are_not_the_same() {
        let token = |text: &str| text.parse::<Token>().unwrap();
        assert_ne!(token("5:hb1:a"), token("5:hb2:a"));
        assert_ne!(token("5:hb1:a"), token("5:hb1:b"));
        assert!(token("5:hb1:a").is_predecessor_of("hb1", "b"));
        assert!(!token("5:hb1:a").is_predecessor_of("hb1", "a"));
        assert!(!token("5:hb1:a").is_predecessor_of("hb2", "b"));
    }
}
