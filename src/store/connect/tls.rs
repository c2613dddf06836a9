//! `sslmode` and its certificates → a rustls connector.
//!
//! | sslmode | encrypted | chain verified | name verified |
//! |---|---|---|---|
//! | disable | no | | |
//! | allow, prefer | if the server can | no | no |
//! | require | yes | if there is a root certificate | no |
//! | verify-ca | yes | yes | no |
//! | verify-full | yes | yes | yes |
//!
//! Source: PostgreSQL's documentation, "SSL Support" of libpq. A Unix socket is never encrypted.
//! Must not know: hosts, passwords.

use super::surroundings::Surroundings;
use super::words::{Fault, Words};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What encrypts the connections of a target.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connect: MakeRustlsConnect,
    /// What the files held: authorities, and the client's certificate.
    read: (Vec<TrustAnchor<'static>>, Vec<CertificateDer<'static>>),
}

/// Made of the same files; what the words say is compared elsewhere.
impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        self.read == other.read
    }
}

/// How much of the server's certificate must be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    ChainAndName,
}

impl Tls {
    /// Encrypts nothing: no file is looked at, as none would be used.
    pub(super) fn none() -> Result<Tls, Fault> {
        Tls::of(&Words::default(), &Surroundings::default())
    }

    /// Reads the certificates that the words ask for.
    ///
    /// # Errors
    /// A word's value is not one of libpq's, or a file cannot be read.
    pub(super) fn of(words: &Words, around: &Surroundings) -> Result<Tls, Fault> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions(words)?);
        let config = config.map_err(|error| Fault::new(format!("ssl_min_protocol_version: {error}")))?;
        let (verifier, authorities) = verifier(words, around, provider)?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        let mut own = Vec::new();
        let mut config = match own_certificate(words, around)? {
            Some((chain, key)) => {
                own.clone_from(&chain);
                config.with_client_auth_cert(chain, key).map_err(|error| Fault::new(format!("sslcert: {error}")))?
            }
            None => config.with_no_client_auth(),
        };
        config.enable_sni = words.one_of("sslsni", &[("0", false), ("1", true)])?.unwrap_or(true);
        if words.get("sslnegotiation") == Some("direct") {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(Tls { connect: MakeRustlsConnect::new(config), read: (authorities, own) })
    }
}

/// TLS 1.2 is the least that rustls speaks.
fn versions(words: &Words) -> Result<&'static [&'static SupportedProtocolVersion], Fault> {
    const NAMES: [(&str, &[&SupportedProtocolVersion]); 4] = [
        ("TLSv1", rustls::DEFAULT_VERSIONS),
        ("TLSv1.1", rustls::DEFAULT_VERSIONS),
        ("TLSv1.2", rustls::DEFAULT_VERSIONS),
        ("TLSv1.3", &[&rustls::version::TLS13]),
    ];
    Ok(words.one_of("ssl_min_protocol_version", &NAMES)?.unwrap_or(rustls::DEFAULT_VERSIONS))
}

/// What looks at the server's certificate, and the authorities it goes by.
fn verifier(
    words: &Words,
    around: &Surroundings,
    provider: Arc<CryptoProvider>,
) -> Result<(Arc<dyn ServerCertVerifier>, Vec<TrustAnchor<'static>>), Fault> {
    let (mode, mut verify) = modes(words)?;
    let default_root = || around.home(".postgresql/root.crt").filter(|path| path.exists());
    let root = words.get("sslrootcert").map(PathBuf::from);
    let root = root.or_else(|| default_root().filter(|_| mode == SslMode::Require));
    // As libpq: who has a root certificate wants it to be asked.
    if verify == Verify::Nothing && mode == SslMode::Require && root.is_some() {
        verify = Verify::Chain;
    }
    if verify == Verify::Nothing {
        return Ok((Arc::new(Lenient { checks: None, provider }), Vec::new()));
    }
    let roots = roots(root.as_deref())?;
    let authorities = roots.roots.clone();
    let checks = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let checks = checks.map_err(|error| Fault::new(format!("sslrootcert: {error}")))?;
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::ChainAndName => checks,
        _ => Arc::new(Lenient { checks: Some(checks), provider }),
    };
    Ok((verifier, authorities))
}

/// What is asked of a TCP host.
pub(super) fn mode(words: &Words) -> Result<SslMode, Fault> {
    modes(words).map(|(mode, _)| mode)
}

/// The public authorities of this host.
const SYSTEM: &str = "system";

fn modes(words: &Words) -> Result<(SslMode, Verify), Fault> {
    let system = words.get("sslrootcert") == Some(SYSTEM);
    let sslmode = words.get("sslmode").unwrap_or(if system { "verify-full" } else { "prefer" });
    let (mode, verify) = match sslmode {
        "disable" => (SslMode::Disable, Verify::Nothing),
        "allow" | "prefer" => (SslMode::Prefer, Verify::Nothing),
        "require" => (SslMode::Require, Verify::Nothing),
        "verify-ca" => (SslMode::Require, Verify::Chain),
        "verify-full" => (SslMode::Require, Verify::ChainAndName),
        other => {
            let expected = "disable, allow, prefer, require, verify-ca or verify-full";
            let hint = "verify-full is the one that nobody in between can deceive";
            return Err(Fault::new(format!("sslmode: expected {expected}, got {other:?}")).hint(hint));
        }
    };
    if system && verify != Verify::ChainAndName {
        // Anybody can have a certificate of a public authority: without its name it says nothing.
        return Err(
            Fault::new("sslrootcert=system needs sslmode=verify-full").hint("a public authority signs for anybody")
        );
    }
    if words.get("sslnegotiation") == Some("direct") && mode != SslMode::Require {
        return Err(Fault::new("sslnegotiation=direct needs sslmode=require or more")
            .hint("what is not asked for cannot be begun with"));
    }
    Ok((mode, verify))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    let hint = "sslrootcert = the file of the authority that signed the server's certificate, or system";
    let certificates = match file {
        None => return Err(Fault::new("sslrootcert: no root certificate to verify the server by").hint(hint)),
        Some(file) if file == Path::new(SYSTEM) => rustls_native_certs::load_native_certs().certs,
        Some(file) => certificates("sslrootcert", file)?,
    };
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(Fault::new("sslrootcert: no certificate is in it").hint(hint)) } else { Ok(roots) }
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The client's certificate: named, or libpq's default files if they are there.
fn own_certificate(words: &Words, around: &Surroundings) -> Result<Option<Own>, Fault> {
    match words.one_of("sslcertmode", &[("disable", Some(false)), ("allow", Some(true)), ("require", None)])? {
        Some(None) => {
            return Err(Fault::new("sslcertmode=require cannot be had")
                .hint("the server says whom it asks for a certificate: clientcert or cert in its pg_hba.conf"));
        }
        Some(Some(false)) => return Ok(None),
        Some(Some(true)) | None => {}
    }
    let found = |file: &str| around.home(file).filter(|path| path.exists());
    let named = words.get("sslcert").map(PathBuf::from);
    let Some(chain) = named.or_else(|| found(".postgresql/postgresql.crt")) else { return Ok(None) };
    let key = words.get("sslkey").map(PathBuf::from).or_else(|| found(".postgresql/postgresql.key"));
    let key = key.ok_or_else(|| Fault::new("sslkey: a client certificate needs its key"))?;
    let unreadable = |error: std::io::Error| Fault::new(format!("sslkey: read {}: {error}", key.display()));
    let metadata = std::fs::metadata(&key).map_err(unreadable)?;
    let allowed = if metadata.uid() == 0 { 0o640 } else { 0o600 };
    if metadata.mode() & 0o777 & !allowed != 0 {
        return Err(Fault::new(format!("sslkey: others may read {}", key.display())).hint("chmod 0600"));
    }
    let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
        Fault::new(format!("sslkey: {}: {error}", key.display())).hint("a PEM key that is not encrypted is expected")
    })?;
    Ok(Some((certificates("sslcert", &chain)?, secret)))
}

fn certificates(word: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| {
        Fault::new(format!("{word}: {}: {error}", file.display()))
            .hint("a file of PEM certificates that trackd may read")
    })
}

/// Takes any certificate, or any with a good chain. Signatures are always checked: the server has the key.
#[derive(Debug)]
struct Lenient {
    checks: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(checks) = &self.checks else { return Ok(ServerCertVerified::assertion()) };
        match checks.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is checked last: all else is right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
