//! One GET to the daemon of a configuration, over TLS: it must show that configuration's very
//! certificate, whoever issued it, whatever name it is for, and even when it has expired. Nobody
//! else is shown the token.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    SignatureScheme, StreamOwned,
};

use crate::secret::Secret;

/// What is asked, and of whom.
pub struct Question<'a> {
    /// A name or an address, without brackets.
    pub host: &'a str,
    /// The TCP port.
    pub port: u16,
    /// Path and query.
    pub target: &'a str,
    /// What the daemon wants to see.
    pub token: Option<&'a Secret>,
    /// What it must show.
    pub certificate: CertificateDer<'static>,
    /// How long it may take in all.
    pub patience: Duration,
    /// How much of the answer is read.
    pub longest: u64,
}

impl Question<'_> {
    /// Status and body of the answer.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub fn ask(self) -> Result<(u16, String), String> {
        let end = Instant::now() + self.patience;
        let socket = self.connect()?;
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                certificate: self.certificate,
                provider,
            }))
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.to_owned()).map_err(|why| why.to_string())?;
        let tls = ClientConnection::new(Arc::new(config), name).map_err(|why| why.to_string())?;
        let mut stream = StreamOwned::new(tls, socket);
        let token = self
            .token
            .map_or(String::new(), |token| format!("Authorization: Bearer {}\r\n", token.reveal()));
        let head = format!("GET {} HTTP/1.0\r\nHost: localhost\r\n{token}\r\n", self.target);
        stream.write_all(head.as_bytes()).map_err(|why| words(&why, self.patience))?;
        let mut answer = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(words(&ErrorKind::TimedOut.into(), self.patience));
            }
            let _ = stream.sock.set_read_timeout(Some(left));
            match stream.read(&mut piece).map_err(|why| words(&why, self.patience))? {
                0 => return parsed(&answer),
                count if (answer.len() + count) as u64 > self.longest => {
                    return Err("the answer is too long".into());
                }
                count => answer.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn connect(&self) -> Result<TcpStream, String> {
        let addresses = (self.host, self.port).to_socket_addrs();
        let addresses = addresses.map_err(|_| "there is no host of this name".to_owned())?;
        let mut last = "there is no host of this name".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.patience) {
                Ok(socket) => {
                    let patience = Some(self.patience);
                    let set = socket.set_write_timeout(patience);
                    set.and(socket.set_read_timeout(patience)).map_err(|why| why.to_string())?;
                    return Ok(socket);
                }
                Err(why) => last = words(&why, self.patience),
            }
        }
        Err(last)
    }
}

fn parsed(answer: &[u8]) -> Result<(u16, String), String> {
    const BROKEN: &str = "the answer broke off";
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(length)) => {
            let body = String::from_utf8_lossy(&answer[length..]).into_owned();
            Ok((response.code.unwrap_or_default(), body))
        }
        Ok(httparse::Status::Partial) => Err(BROKEN.into()),
        Err(_) => Err("it does not answer as hbd does".into()),
    }
}

fn words(why: &std::io::Error, patience: Duration) -> String {
    let certificate = why.get_ref().and_then(|why| why.downcast_ref::<Error>());
    if matches!(certificate, Some(Error::InvalidCertificate(_))) {
        return "it shows another certificate than receiver.tls names: was hbd reloaded since that changed?".into();
    }
    match why.kind() {
        ErrorKind::ConnectionRefused => "nobody answers there: is hbd running?".into(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("no answer within {} s", patience.as_secs())
        }
        ErrorKind::InvalidData if matches!(certificate, Some(Error::InvalidMessage(_))) => {
            "it does not speak TLS: was hbd reloaded since receiver.tls was set?".into()
        }
        _ => why.to_string(),
    }
}

/// Trusts one certificate.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
