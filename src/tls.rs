//! Whom TLS connections trust: the system's certificate authorities and the operator's own.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long a name may take to be found; the resolver itself is not bound by the timeout of all.
const LONGEST_RESOLVE: Duration = Duration::from_secs(10);

/// The system's certificate authorities, read once. Empty where there are none.
pub fn system_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| rustls_native_certs::load_native_certs().certs)
}

/// The certificates of a PEM file.
///
/// # Errors
/// A sentence that names the file when it cannot be read or holds no certificate.
pub fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = path.display();
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|why| format!("ca_file {name} cannot be read: {why}"))?;
    if certificates.is_empty() {
        return Err(format!("ca_file {name} holds no certificate in PEM form"));
    }
    Ok(certificates)
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

/// An HTTP client for one request: whatever the status, it is an answer; no redirect is followed, no
/// proxy asked, no connection kept. `timeout` is for all of it, `roots` where it is encrypted.
pub fn http_agent(timeout: Duration, roots: Option<&[CertificateDer]>) -> ureq::Agent {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent(concat!("heartbeat/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(timeout))
        .timeout_resolve(Some(timeout.min(LONGEST_RESOLVE)));
    if let Some(roots) = roots {
        config = config.tls_config(http_client(roots));
    }
    config.build().into()
}

/// TLS for the HTTP client: these roots and no others, and the one TLS stack that there is.
fn http_client(roots: &[CertificateDer]) -> TlsConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned());
    TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(provider)
        .build()
}
