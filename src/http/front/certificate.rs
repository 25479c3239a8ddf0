//! The certificate of the server: loaded from PEM files with those of its issuers and its key,
//! checked, and replaced while the server runs.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use std::{fmt, io};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use crate::clock::{Wall, format_duration};
use crate::tls::{VERSION_1_REMEDY, is_version_1};

/// Certificates are renewed a month before they expire: two weeks are left to find out why not.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);
/// No chain is so long. A file of `/dev/zero` would be.
const MAX_FILE: u64 = 1 << 20;

/// A certificate that clients can be shown.
pub struct ServerCertificate {
    /// The certificate itself, then its issuers.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    config: Arc<ServerConfig>,
    not_before: Wall,
    not_after: Wall,
}

/// Which of the two files is wrong, and how.
#[derive(Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// The certificate.
    Certificate(String),
    /// The key.
    Key(String),
}

impl ServerCertificate {
    /// Reads a chain and a key in PEM form (RFC 7468). They may stand in one file.
    ///
    /// # Errors
    /// What is wrong, with the remedy.
    pub fn load(
        certificate_file: &Path,
        key_file: &Path,
    ) -> Result<ServerCertificate, CertificateError> {
        let text = read(certificate_file).map_err(CertificateError::Certificate)?;
        let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(
            |why| CertificateError::Certificate(format!("{}: {why}", certificate_file.display())),
        )?;
        let what = format!(
            "{} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)",
            certificate_file.display()
        );
        let leaf = chain.first().ok_or(CertificateError::Certificate(what))?;
        let fields = fields(leaf).ok_or_else(|| {
            let name = certificate_file.display();
            CertificateError::Certificate(format!("{name}: the first certificate cannot be read"))
        })?;
        let (not_before, not_after) = (fields.not_before, fields.not_after);
        let key = key(key_file).map_err(CertificateError::Key)?;
        let config = config(&chain, &key, certificate_file, key_file)?;
        Ok(ServerCertificate { chain, key, config: Arc::new(config), not_before, not_after })
    }

    /// A connection to a client that begins with TLS.
    pub fn connection(&self) -> io::Result<ServerConnection> {
        ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)
    }

    /// The certificate itself, without its issuers (DER).
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> Wall {
        self.not_after
    }

    /// What makes clients refuse it, now or soon.
    pub fn warnings(&self, now: Wall) -> Vec<String> {
        let mut warnings = Vec::new();
        let until = self.not_after;
        let left = until.since(now);
        if self.not_before > now {
            let from = self.not_before;
            warnings
                .push(format!("is not valid before {from}: is the clock of this machine right?"));
        } else if until <= now {
            warnings.push(format!("expired at {until}: renew it, no client will accept it"));
        } else if left < EXPIRY_WARNING {
            warnings.push(format!("expires in {}, at {until}: renew it", format_duration(left)));
        }
        let issued = |pair: &[CertificateDer]| {
            let (of, by) = (fields(&pair[0]), fields(&pair[1]));
            matches!((of, by), (Some(of), Some(by)) if of.issuer == by.subject)
        };
        if let Some(place) = self.chain.windows(2).position(|pair| !issued(pair)) {
            warnings.push(format!(
                "certificate {} of the file did not issue the one before it: put the issuers behind it, each after what it issued",
                place + 2
            ));
        }
        warnings
    }
}

impl PartialEq for ServerCertificate {
    fn eq(&self, other: &ServerCertificate) -> bool {
        self.chain == other.chain && self.key == other.key
    }
}

impl Eq for ServerCertificate {}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Identity valid until {}", self.not_after)
    }
}

/// The section `receiver.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate, followed by those of its issuers.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// What was in the files when the configuration was loaded.
    pub certificate: Arc<ServerCertificate>,
}

/// The certificate that is shown at present, none where TLS is not spoken.
#[derive(Debug, Default)]
pub struct CurrentCertificate(RwLock<Option<Arc<ServerCertificate>>>);

impl CurrentCertificate {
    /// Shows this one.
    pub fn new(certificate: Option<Arc<ServerCertificate>>) -> CurrentCertificate {
        CurrentCertificate(RwLock::new(certificate))
    }

    /// What is shown.
    pub fn get(&self) -> Option<Arc<ServerCertificate>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the next connection on, shows this one.
    pub fn replace(&self, certificate: Option<Arc<ServerCertificate>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }
}

/// The bytes of a file.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let name = file.display();
    let data: Metadata = fs::metadata(file).map_err(|why| format!("cannot read {name}: {why}"))?;
    if !data.is_file() || data.len() > MAX_FILE {
        return Err(format!("{name} is no file in PEM form"));
    }
    fs::read(file).map_err(|why| format!("cannot read {name}: {why}"))
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(file)?;
    let name = file.display();
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        if text.windows(9).any(|word| word == b"ENCRYPTED") {
            format!(
                "{name} is encrypted, and nobody is there to type the passphrase: openssl pkey -in {name} -out KEY_FILE"
            )
        } else {
            format!("{name} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)")
        }
    })
}

fn config(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    certificate_file: &Path,
    key_file: &Path,
) -> Result<ServerConfig, CertificateError> {
    let (of, by) = (certificate_file.display(), key_file.display());
    if is_version_1(&chain[0]) {
        return Err(CertificateError::Certificate(format!(
            "the certificate in {of} {VERSION_1_REMEDY}"
        )));
    }
    let signing = ring::sign::any_supported_type(key).map_err(|_| {
        CertificateError::Key(format!("{by} is of a kind that is not known here: use ECDSA P-256, P-384, Ed25519, or RSA of 2048 bits or more"))
    })?;
    let belongs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&signing)).keys_match().is_ok()
    };
    if !belongs(&chain[0]) {
        return Err(match chain.iter().position(belongs) {
            Some(place) => CertificateError::Certificate(format!(
                "the key belongs to certificate {} of {of}: put that one first, then its issuers",
                place + 1
            )),
            None => CertificateError::Key(format!(
                "the key in {by} does not belong to the certificate in {of}"
            )),
        });
    }
    let unusable =
        |why: rustls::Error| CertificateError::Certificate(format!("{of} cannot be used: {why}"));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(unusable)?;
    // A browser must not choose HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The explicit tag of the version, which may be left out.
const VERSION: u8 = 0xa0;

/// The fields of a certificate (RFC 5280, section 4.1) that matter to a server, read from its DER
/// (X.690). Whether it is to be trusted is for its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateFields<'a> {
    /// The name of its issuer, encoded.
    pub issuer: &'a [u8],
    /// The name that it is for, encoded.
    pub subject: &'a [u8],
    /// From when on it is valid.
    pub not_before: Wall,
    /// Until when.
    pub not_after: Wall,
}

/// Reads them; none when it is no certificate.
pub fn fields(certificate: &[u8]) -> Option<CertificateFields<'_>> {
    let mut outer = DerReader(DerReader(certificate).expect(SEQUENCE)?);
    let mut body = DerReader(outer.expect(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.next()?;
    }
    let _serial_number = body.next()?;
    let _signature = body.expect(SEQUENCE)?;
    let issuer = body.expect(SEQUENCE)?;
    let mut validity = DerReader(body.expect(SEQUENCE)?);
    let subject = body.expect(SEQUENCE)?;
    let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
    Some(CertificateFields { issuer, subject, not_before, not_after })
}

/// Reads one element of an encoding after the other.
struct DerReader<'a>(&'a [u8]);

impl<'a> DerReader<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The number of bytes of the length; a length of more than four is longer than any file.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// `YYMMDDhhmmssZ`, of 1950 to 2049, or `YYYYMMDDhhmmssZ` (RFC 5280, section 4.1.2.5).
fn time((tag, content): (u8, &[u8])) -> Option<Wall> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let digits = match (tag, text.len()) {
        (UTC_TIME, 12) if text >= "50" => format!("19{text}"),
        (UTC_TIME, 12) => format!("20{text}"),
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| digits.get(from..to);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    match humantime::parse_rfc3339(&text) {
        Ok(time) => Some(time.into()),
        // What began before 1970 has begun.
        Err(_) if digits.as_str() < "1970" => Some(Wall(0)),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match content.len() {
            short @ 0..0x80 => bytes.push(short as u8),
            long => bytes.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        bytes.extend(content);
        bytes
    }

    fn certificate(validity: &[u8], version: bool) -> Vec<u8> {
        let mut body = if version { element(VERSION, &element(2, &[2])) } else { Vec::new() };
        body.extend(element(2, &[1; 20]));
        body.extend(element(SEQUENCE, &[6, 0]));
        body.extend(element(SEQUENCE, b"issuer"));
        body.extend(element(SEQUENCE, validity));
        body.extend(element(SEQUENCE, b"subject"));
        body.extend(element(SEQUENCE, &[0; 300]));
        element(SEQUENCE, &element(SEQUENCE, &body))
    }

    fn years(from: &str, to: &str) -> Vec<u8> {
        let time = |text: &str| {
            let tag = if text.len() == 13 { UTC_TIME } else { GENERALIZED_TIME };
            element(tag, text.as_bytes())
        };
        [time(from), time(to)].concat()
    }

    #[test]
    fn the_fields_of_a_certificate_are_found() {
        for version in [true, false] {
            let bytes = certificate(&years("490101000000Z", "99991231235959Z"), version);
            let fields = fields(&bytes).unwrap();
            assert_eq!((fields.issuer, fields.subject), (&b"issuer"[..], &b"subject"[..]));
            assert_eq!(fields.not_before.to_string(), "2049-01-01T00:00:00.000Z");
            assert_eq!(fields.not_after.to_string(), "9999-12-31T23:59:59.000Z");
        }
        let old = certificate(&years("500101000000Z", "700101000001Z"), true);
        let fields = fields(&old).unwrap();
        assert_eq!((fields.not_before, fields.not_after), (Wall(0), Wall(1000)));
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let good = certificate(&years("490101000000Z", "99991231235959Z"), true);
        for end in 0..good.len() {
            assert_eq!(fields(&good[..end]), None, "{end}");
        }
        for validity in [years("491301000000Z", "99991231235959Z"), years("49010100000Z", "x")] {
            assert_eq!(fields(&certificate(&validity, true)), None);
        }
        for byte in 0..good.len() {
            let mut damaged = good.clone();
            damaged[byte] = 0xff;
            // Whatever it makes of it, it ends.
            let _ = fields(&damaged);
        }
    }
}
