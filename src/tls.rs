//! TLS of outgoing connections: which certificate authorities are trusted, why a server's
//! certificate is not, and an HTTP client that uses both.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long the resolution of a name may take; the timeout of the whole request does not bound the
/// system's resolver.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// No file of authorities is so long: that of a system has a quarter of it.
const MAX_CA_FILE: u64 = 1 << 20;

/// The system's certificate authorities, read once. Empty where there are none.
pub fn system_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| rustls_native_certs::load_native_certs().certs)
}

/// The certificates of a file, in PEM form, or a single one in DER form.
///
/// # Errors
/// A sentence that names the file when it cannot be read or holds no certificate.
pub fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates(path).map_err(|why| format!("ca_file {why}"))
}

/// Certificates in PEM form (RFC 7468), for a library that reads nothing else; those that cannot be
/// trusted are left out.
pub fn to_pem(certificates: &[CertificateDer]) -> Vec<u8> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let mut pem = String::new();
    for certificate in certificates {
        if webpki::anchor_from_trusted_cert(certificate).is_ok() {
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            STANDARD.encode_string(certificate, &mut pem);
            pem.push_str("\n-----END CERTIFICATE-----\n");
        }
    }
    pem.into_bytes()
}

/// Checks that a file holds certificates that can be trusted.
///
/// # Errors
/// A sentence that names the file, and the remedy.
pub fn check_ca_file(path: &Path) -> Result<(), String> {
    certificates(path).map(drop)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CA_FILE).read_to_end(&mut bytes))
        .map_err(|why| format!("{name} cannot be read: {why}"))?;
    // Editors of Windows put a BOM in front, which would hide the first certificate.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let pem: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{name} {}", no_certificate(bytes)))?;
    let found = match pem.is_empty() {
        true => vec![CertificateDer::from(bytes.to_vec())],
        false => pem,
    };
    if found.iter().any(|one| webpki::anchor_from_trusted_cert(one).is_ok()) {
        return Ok(found);
    }
    Err(format!("{name} {}", no_certificate(bytes)))
}

/// What a file holds in place of certificates.
fn no_certificate(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    if bytes.trim_ascii().is_empty() {
        "is empty: put the certificate of the authority into it"
    } else if text.contains("PRIVATE KEY-----") && !text.contains("BEGIN CERTIFICATE") {
        "holds a key and no certificate: name the file with the authority's certificate"
    } else if text.contains("BEGIN CERTIFICATE REQUEST") {
        "holds a request for a certificate: name the file with the authority's certificate"
    } else if text.contains("BEGIN CERTIFICATE") {
        "holds a certificate that cannot be read: is it complete?"
    } else {
        "holds no certificate, in PEM form (-----BEGIN CERTIFICATE-----) or in DER form"
    }
}

/// The system's certificate authorities together with those of `ca_file`.
///
/// # Errors
/// As [`read_ca_file`].
pub fn roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut all = system_roots().to_vec();
    if let Some(path) = ca_file {
        all.extend(read_ca_file(path)?);
    }
    Ok(all)
}

/// An HTTP client for one request: no status is an error, no redirect is followed, no proxy used,
/// no connection kept. `timeout` is for the whole request, `roots` where it is encrypted.
pub fn http_agent(timeout: Duration, roots: Option<&[CertificateDer]>) -> ureq::Agent {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent(concat!("heartbeat/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(timeout))
        .timeout_resolve(Some(timeout.min(RESOLVE_TIMEOUT)));
    if let Some(roots) = roots {
        config = config.tls_config(ureq_config(roots));
    }
    config.build().into()
}

/// TLS for the HTTP client: these roots and no others, and the program's only TLS stack.
fn ureq_config(roots: &[CertificateDer]) -> TlsConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned());
    TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(provider)
        .build()
}

/// Why a server's certificate is not trusted, as far as an operator can do something about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// No certificate authority that is trusted has signed it.
    UnknownIssuer,
    /// Its time is over.
    Expired,
    /// Its time has not begun.
    NotYetValid,
    /// It is for other names; for which, where that is known.
    WrongName(Option<Vec<String>>),
    /// It is a certificate authority's own (CA:TRUE), which no server may show.
    IsAuthority,
    /// It is of version 1, as `openssl x509 -req` makes it without extensions.
    Version1,
    /// Anything else, in the words of the TLS library.
    Other(String),
}

impl From<&CertificateError> for CertificateFault {
    fn from(error: &CertificateError) -> CertificateFault {
        match error {
            CertificateError::UnknownIssuer => CertificateFault::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                CertificateFault::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                CertificateFault::NotYetValid
            }
            CertificateError::NotValidForName => CertificateFault::WrongName(None),
            CertificateError::NotValidForNameContext { presented, .. } => {
                CertificateFault::WrongName(Some(presented.clone()))
            }
            CertificateError::Other(other)
                if matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) =>
            {
                CertificateFault::IsAuthority
            }
            CertificateError::Other(other)
                if matches!(
                    other.0.downcast_ref(),
                    Some(webpki::Error::UnsupportedCertVersion)
                ) =>
            {
                CertificateFault::Version1
            }
            other => CertificateFault::Other(other.to_string()),
        }
    }
}

impl CertificateFault {
    /// What is wrong, and what to do; `authorities` is what names further ones: `ca_file`.
    pub fn describe(&self, authorities: &str) -> String {
        match self {
            CertificateFault::UnknownIssuer if system_roots().is_empty() => {
                "unknown issuer, and this machine has no certificate authorities at all \
                 (is the package ca-certificates installed?)"
                    .into()
            }
            CertificateFault::UnknownIssuer => format!("unknown issuer ({authorities}?)"),
            CertificateFault::Expired => "it has expired".into(),
            CertificateFault::NotYetValid => "it is not valid yet (is the clock right?)".into(),
            CertificateFault::WrongName(_) => "it is for another name".into(),
            CertificateFault::IsAuthority => {
                format!(
                    "it is a certificate authority's own (CA:TRUE) used as a server's; make one \
                     with CA:FALSE, and give its issuer as {authorities}"
                )
            }
            CertificateFault::Version1 => format!("it {VERSION_1_REMEDY}"),
            CertificateFault::Other(other) => other.clone(),
        }
    }
}

/// What is said of a server that answers something else than TLS.
pub const NOT_TLS: &str = "does not speak TLS: write http://";

/// Whether a request failed because the server does not speak TLS.
pub fn is_not_tls(error: &ureq::Error) -> bool {
    let error = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => rustls_error(error),
        _ => None,
    };
    matches!(error, Some(rustls::Error::InvalidMessage(_)))
}

/// The TLS library's error, which an encrypted stream wraps into one of the connection.
pub fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What is wrong with the server's certificate, when that is what a request failed for.
pub fn certificate_fault(error: &ureq::Error) -> Option<CertificateFault> {
    let error = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => rustls_error(error)?,
        _ => return None,
    };
    match error {
        rustls::Error::InvalidCertificate(error) => Some(error.into()),
        _ => None,
    }
}

/// Whether a certificate is of version 1, which no TLS client accepts of a server.
pub fn is_version_1(certificate: &CertificateDer) -> bool {
    matches!(
        webpki::EndEntityCert::try_from(certificate),
        Err(webpki::Error::UnsupportedCertVersion)
    )
}

/// What to do about a certificate of version 1.
pub const VERSION_1_REMEDY: &str = "is of version 1, which is no longer accepted: \
     make one of version 3 (openssl x509 -req with -extfile, openssl req -x509 with -addext)";

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    /// Fails when rustls takes another rustls-webpki than Cargo.toml names: the types differ then.
    #[test]
    fn an_authority_s_own_certificate_is_told_from_other_faults() {
        let pem = include_bytes!("../tests/support/tls/ca.pem");
        let authority = CertificateDer::from_pem_slice(pem).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from("localhost").unwrap();
        let now = UnixTime::now();
        let result = verifier.build().unwrap().verify_server_cert(&authority, &[], &name, &[], now);
        let Err(rustls::Error::InvalidCertificate(error)) = result else {
            panic!("{result:?}");
        };
        assert_eq!(CertificateFault::from(&error), CertificateFault::IsAuthority);
    }
}
