//! Certificates for one test run, made by the `openssl` command in a directory of their own.
//! Each test file uses some of them.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// What a TLS server needs to show it.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .unwrap()
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }
}

/// Everything that is shown in these tests.
pub struct Certificates {
    _dir: tempfile::TempDir,
    /// The authority; also, wrongly, a server's certificate for `localhost`.
    pub authority: Pair,
    /// For `localhost` and 127.0.0.1.
    pub good: Pair,
    /// The same names again.
    pub other: Pair,
    /// The same, but of the year 2020.
    pub expired: Pair,
    /// For `elsewhere.example`.
    pub wrong_name: Pair,
}

/// The certificates, made once.
pub fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority(dir.path());
        let good = leaf(dir.path(), "good", "DNS:localhost,IP:127.0.0.1", None);
        let other = leaf(dir.path(), "other", "DNS:localhost,IP:127.0.0.1", None);
        let expired = leaf(dir.path(), "expired", "DNS:localhost", Some("20200201000000Z"));
        let wrong_name = leaf(dir.path(), "wrong", "DNS:elsewhere.example", None);
        Certificates { _dir: dir, authority, good, other, expired, wrong_name }
    })
}

fn authority(dir: &Path) -> Pair {
    let config = format!(
        "[ca]\ndefault_ca=own\n[own]\ndatabase={0}/index\nnew_certs_dir={0}\nserial={0}/serial\n\
         default_md=sha256\npolicy=any\nunique_subject=no\ncopy_extensions=copy\n\
         [any]\ncommonName=supplied\n[req]\ndistinguished_name=name\n[name]\n",
        dir.display()
    );
    std::fs::write(dir.join("openssl.cnf"), config).unwrap();
    std::fs::write(dir.join("index"), "").unwrap();
    std::fs::write(dir.join("serial"), "1000\n").unwrap();
    let extensions = "basicConstraints=critical,CA:TRUE";
    openssl(
        dir,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config openssl.cnf \
         -subj /CN=authority -days 30 -addext {extensions} -addext subjectAltName=DNS:localhost \
         -keyout ca.key -out ca.pem"
        ),
    );
    Pair { certificate: dir.join("ca.pem"), key: dir.join("ca.key") }
}

fn leaf(dir: &Path, name: &str, names: &str, end: Option<&str>) -> Pair {
    openssl(
        dir,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config openssl.cnf \
         -subj /CN={name} -addext subjectAltName={names} -addext basicConstraints=CA:FALSE \
         -keyout {name}.key -out {name}.csr"
        ),
    );
    let end = end.unwrap_or("20991231000000Z");
    openssl(
        dir,
        &format!(
            "ca -batch -notext -config openssl.cnf -cert ca.pem -keyfile ca.key \
         -startdate 20200101000000Z -enddate {end} -in {name}.csr -out {name}.pem"
        ),
    );
    Pair { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("the openssl command is there");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
