//! TLS in front of a plain server on 127.0.0.1: one connection after the other, one exchange each.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A file of `tests/support/tls`.
pub fn tls_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tls").join(name)
}

/// Serves `certificate` in front of the server at `plain` (`http://127.0.0.1:PORT`), and returns
/// the address to come to: `https://127.0.0.1:PORT`.
pub fn tls_front(plain: &str, certificate: &str) -> String {
    let chain = CertificateDer::pem_file_iter(tls_file(certificate)).unwrap();
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
        .unwrap();
    let (config, plain) = (Arc::new(config), plain.trim_start_matches("http://").to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut client = StreamOwned::new(connection, client);
            // A client that does not trust us ends here.
            let _ = exchange(&mut client, &plain);
        }
    });
    format!("https://{address}")
}

/// Enough for a request of which each part is sent by one write, and a server that then closes.
fn exchange(client: &mut (impl Read + Write), plain: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 8192];
    while !is_whole(&request) {
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    let mut server = TcpStream::connect(plain)?;
    server.write_all(&request)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.flush()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}
