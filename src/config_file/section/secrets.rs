//! Secrets of a section: given as they are, as `${VARIABLE}`, or in a file. Never echoed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Section, is_null};
use crate::config_file::load_context::read_secret_file;
use crate::config_file::yaml::Node;
use crate::secret::{self, Secret};

/// A shorter key is worth a warning, in characters.
const MIN_KEY: usize = 16;

impl<'a> Section<'a> {
    /// The secret at `key`, or in the file that `file_key` names. By convention the latter is `key`
    /// with the suffix `_file`.
    pub fn secret(&mut self, key: &'static str, file_key: &'static str) -> Option<Secret> {
        let node = self.node(key);
        let file = self.path(file_key);
        match (node, file) {
            (Some(_), Some(_)) => {
                self.refuse(file_key, format!("give either {key} or {file_key}, not both"))
            }
            (Some(node), None) => self.inline_secret(key, node),
            (None, Some(file)) => self.file_secret(file_key, &file),
            (None, None) => None,
        }
    }

    /// The secret that datagrams are signed with, at `key` or in the file that `key_file` names. It
    /// is a warning when it is so short that it can be guessed.
    pub fn signing_key(&mut self) -> Option<Secret> {
        let key = self.secret("key", "key_file")?;
        if key.reveal().chars().count() < MIN_KEY {
            let at = if self.given("key") { "key" } else { "key_file" };
            let what = format!(
                "is shorter than {MIN_KEY} characters and can be guessed: make one with hbd key"
            );
            self.warning(at, what);
        }
        Some(key)
    }

    /// A secret that must be there; when it is missing, that is reported and it is empty.
    pub fn required_secret(&mut self, key: &'static str, file_key: &'static str) -> Secret {
        if !self.given(file_key) {
            self.require(key);
        }
        self.secret(key, file_key).unwrap_or_else(|| Secret::new(""))
    }

    /// The path of a file with a secret that another program reads.
    pub fn secret_path(&mut self, file_key: &'static str) -> Option<PathBuf> {
        let path = self.path(file_key)?;
        self.file_secret(file_key, &path)?;
        Some(path)
    }

    /// A map whose values are secrets; empty when it is not there.
    pub fn secrets(&mut self, key: &'static str) -> BTreeMap<String, Secret> {
        let mut secrets = BTreeMap::new();
        self.section(key, |section| {
            section.ignore_rest();
            for entry in section.entries.iter().filter(|entry| !is_null(&entry.node)) {
                if let Some(secret) = section.inline_secret(&entry.key, &entry.node) {
                    secrets.insert(entry.key.clone(), secret);
                }
            }
        });
        secrets
    }

    /// Part of a value that must not be printed, such as the password in a URL.
    pub fn keep_secret(&mut self, clear: &str) -> Secret {
        self.context.note_secret_at(self.last_line);
        let secret = Secret::new(clear);
        self.context.keep_secret(&secret);
        secret
    }

    fn inline_secret(&self, key: &str, node: &'a Node) -> Option<Secret> {
        let text = self.scalar_text(key, node)?;
        let Some(name) = variable_name(text) else {
            if text.contains("${") {
                let what = "is taken as it stands: ${VARIABLE} is replaced only when it is the whole value";
                self.warning(key, what);
            }
            self.context.note_secret_at(node.line.or(self.line_of(key)));
            return self.validate_secret(key, text);
        };
        // `env: {HTTPS_PROXY: ${HTTPS_PROXY}}` passes a variable on, and makes no secret of it.
        if name != key {
            secret::record_variable(name);
        }
        match self.context.variable(name) {
            Some(text) => self.validate_secret(key, &text),
            None => self.refuse(key, format!("the environment variable {name} is not set")),
        }
    }

    fn file_secret(&self, key: &str, path: &std::path::Path) -> Option<Secret> {
        match read_secret_file(path) {
            Ok((text, open)) => {
                if open {
                    let path = path.display();
                    self.warning(key, format!("others can read {path}: chmod o-r {path}"));
                }
                self.validate_secret(key, &text)
            }
            Err(error) => self.refuse(key, format!("cannot read {}: {error}", path.display())),
        }
    }

    fn validate_secret(&self, key: &str, text: &str) -> Option<Secret> {
        if text.is_empty() {
            return self.refuse(key, "must not be empty");
        }
        if text.chars().any(char::is_control) {
            return self.refuse(key, "must be one line without control characters");
        }
        let secret = Secret::new(text);
        self.context.keep_secret(&secret);
        Some(secret)
    }
}

/// `NAME` of `${NAME}`.
fn variable_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    let good = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    good.then_some(name)
}
