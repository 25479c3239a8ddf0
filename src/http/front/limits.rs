//! Limits of the HTTP front: how many connections, for how long, how large. Pure.
//!
//! Together the connections stay below the usual limit of 1,024 descriptors: one for each slot and
//! each idle or lingering connection, three for each connection to the backend.

use std::time::Duration;

/// Connections that are served at a time. A slot costs one descriptor, and a thread with a small
/// stack.
pub const SLOTS: usize = 256;
/// One worker for each slot, and one that makes room for the next connection.
pub const MAX_WORKERS: usize = SLOTS + 1;
/// A worker that had nothing to do for so long ends, but for the last one.
pub const WORKER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at a time on which nothing has come yet.
pub const MAX_IDLE_CONNECTIONS: usize = 320;
/// Connections at a time that have their response, and send on.
pub const MAX_LINGERING_CONNECTIONS: usize = 128;
/// Descriptors that no connection takes: channels and the store need some, whoever else is connected.
pub const RESERVED_DESCRIPTORS: libc::rlim_t = 64;
/// Connections that the kernel keeps until they are accepted: Alertmanager opens hundreds within a
/// second, and who attacks opens thousands. Beyond that, each waits for a second at least.
pub const LISTEN_BACKLOG: i32 = 4096;

/// How long a connection may be idle before its request begins.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a head may take, with the handshake of TLS.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(3);

/// The same of a client that speaks plain HTTP where TLS is spoken, and is sent away in any case.
pub const PLAIN_HEAD_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a body may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the backend may take until its response begins.
pub const BACKEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a response may take.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may read nothing of its response.
pub const RESPONSE_STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what a client still sends is read after the response.
pub const LINGER_TIMEOUT: Duration = Duration::from_millis(500);

/// The largest head, in bytes.
pub const MAX_HEAD: usize = 8 * 1024;
/// The longest target, in bytes.
pub const MAX_TARGET: usize = 2048;
/// Headers of a request.
pub const MAX_HEADERS: usize = 48;
/// The largest body, in bytes.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// What every body may take in any case, in bytes, so that large bodies that fill the memory do not
/// keep out small ones.
pub const FREE_BODY_BYTES: usize = 16 * 1024;
/// What the bodies of all requests may take together beyond that, in bytes.
pub const ALL_BODY_BYTES: usize = 12 << 20;
/// The part of that which the bodies of one client may take.
pub const CLIENT_BODY_BYTES: usize = 8 << 20;
/// How long a body waits for memory that others have.
pub const BODY_MEMORY_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests that the backend works on at a time, and so connections to it. Each costs three
/// descriptors.
pub const MAX_BACKEND_CONNECTIONS: usize = 64;
/// Those of them that may wait for the disk: while it hangs, the others still show the state.
pub const MAX_BACKEND_WRITES: usize = MAX_BACKEND_CONNECTIONS - 8;
/// A connection to the backend that was not used for so long is closed, but for the last one: each
/// keeps a thread of tiny_http.
pub const BACKEND_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
