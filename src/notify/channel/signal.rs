//! Signal through signal-cli, as a process or over the JSON-RPC of a running daemon
//! (<https://github.com/AsamK/signal-cli>, man/signal-cli-jsonrpc.5.adoc).

use std::path::PathBuf;

/// Where a running signal-cli daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rpc {
    /// `unix:/path`
    Unix(PathBuf),
    /// `http://host:port`
    Http(String),
}

/// A channel of `type: signal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The program; found in PATH when it has no slash.
    pub cli_path: PathBuf,
    /// The registered number, `+1234567890`.
    pub user: String,
    /// A number, `u:name.01`, a UUID, or `group:ID`.
    pub recipient: String,
    /// Talk to a daemon instead of starting the program.
    pub rpc: Option<Rpc>,
}
