//! Certificates for tests of TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Keys that are quick to make and to sign with.
pub const ECDSA: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// A self-signed certificate for `localhost`, good for two days, and its key: PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Identity {
    /// Makes both in `folder`, as cert.pem and key.pem. `algorithm` is what openssl has behind `-newkey`: [`ECDSA`], or
    /// `rsa:2048`.
    ///
    /// # Errors
    /// openssl isn't there, or refuses.
    pub fn make(folder: &Path, algorithm: &[&str]) -> Result<Self> {
        let made = Self { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
        let output = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-batch", "-newkey"])
            .args(algorithm)
            // What clients ask of a server's own, or they take it for an issuer's.
            .args([
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .args(["-keyout".as_ref(), made.key.as_os_str(), "-out".as_ref(), made.certificate.as_os_str()])
            .output()
            .context("openssl")?;
        ensure!(output.status.success(), "openssl req: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(made)
    }
}
