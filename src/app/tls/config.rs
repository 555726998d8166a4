//! What the cores share: certificate, key, and what of TLS is spoken.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::{Error, SignatureAlgorithm};

/// Handshake messages that a core works on in one turn of its loop. ECDSA P-256 signs in 0.02 ms, X25519 agrees in 0.03,
/// and with rustls's own work a message takes 0.1 to 0.2: four keep a turn within a millisecond. RSA with 2,048 bits
/// signs in about one: no more than that.
const PER_TURN: u32 = 4;
const PER_TURN_RSA: u32 = 1;
/// An encoded RSA key of 2,048 bits has some 1,190 octets; one that is longer signs in some 3 ms (3,072 bits) or 7 (4,096).
const RSA_2048_DER_MAX: usize = 1300;

/// A certificate, its key, and how TLS is spoken with them; the same for all cores.
///
/// TLS 1.2 and 1.3 with rustls's default suites, ALPN `http/1.1` (RFC 7301: a client that offers only others is
/// refused), tickets (RFC 8446 §4.6.1, RFC 5077) by keys that change every six hours, no early data (it could be
/// replayed), no renegotiation, no compression.
#[derive(Clone)]
pub struct Server {
    pub(super) config: Arc<ServerConfig>,
    /// Handshake messages in one turn.
    pub(super) per_turn: u32,
    slow_key: bool,
}

impl Server {
    /// Reads the certificate, its issuers' behind it, and the key; both are PEM.
    ///
    /// # Errors
    /// A line for the user: what is wrong, where, and what to do.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let chain =
            chain(certificate).map_err(|why| format!("--tls-cert {}: {why}", certificate.display()))?;
        let of_key = |why| format!("--tls-key {}: {why}", key.display());
        let private = private_key(key).map_err(of_key)?;
        Self::new(chain, private).map_err(|error| match error {
            Error::InconsistentKeys(_) => format!(
                "--tls-key {} isn't the key of the certificate in --tls-cert {}: give the two that were made together",
                key.display(),
                certificate.display()
            ),
            Error::InvalidCertificate(_) => {
                let path = certificate.display();
                format!("--tls-cert {path}: the first certificate can't be used ({error}): give one of X.509 version 3")
            }
            error => of_key(format!("{error}: give an ECDSA (P-256, P-384), Ed25519 or RSA key (2,048 bits or more)")),
        })
    }

    /// The same from what was read before.
    ///
    /// # Errors
    /// Certificate or key can't be used, or don't belong together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Error> {
        Self::with_provider(provider::default_provider(), chain, key)
    }

    pub(super) fn with_provider(
        suites: CryptoProvider,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let signing = provider::sign::any_supported_type(&key)?;
        let rsa = signing.algorithm() == SignatureAlgorithm::RSA;
        let slow_key = rsa && key.secret_der().len() > RSA_2048_DER_MAX;
        let mut config = ServerConfig::builder_with_provider(Arc::new(suites))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = provider::Ticketer::new()?;
        // Tickets are the peers' memory; none of ours then (P2).
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Records are this crate's own business once the handshake is over.
        config.enable_secret_extraction = true;
        let per_turn = if rsa { PER_TURN_RSA } else { PER_TURN };
        Ok(Self { config: Arc::new(config), per_turn, slow_key })
    }

    /// Whether a handshake holds its core for several milliseconds: an RSA key of more than 2,048 bits.
    pub fn has_slow_key(&self) -> bool {
        self.slow_key
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("per_turn", &self.per_turn).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{error}: give a PEM file that byway may read"))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err("no certificate in it: give PEM, the server's own first, then its issuers'".to_owned())
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("not valid PEM ({error}): give the file as it came from the issuer")),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if contains(&text, b"BEGIN ENCRYPTED PRIVATE KEY") => {
            Err("the key is encrypted: decrypt it, `openssl pkey -in FILE -out PLAIN`".to_owned())
        }
        Err(pem::Error::NoItemsFound) => {
            Err("no private key in it: give PEM, PKCS#8, PKCS#1 or SEC1".to_owned())
        }
        Err(error) => Err(format!("not valid PEM ({error}): give the file as it was made")),
    }
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}
