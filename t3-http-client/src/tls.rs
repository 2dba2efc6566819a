//! TLS settings of a client and the handshake.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, crypto,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// The trusted certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read or is not PEM.
    #[error("cannot read certificates from {path}: {why}")]
    File { path: PathBuf, why: String },
    /// The file has no certificate.
    #[error("cannot read certificates from {0}: expected PEM with BEGIN CERTIFICATE")]
    Empty(PathBuf),
    /// The TLS library rejects its own defaults.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
}

/// Trusts the certificates of the system and those of a file.
pub(crate) fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, RootsError> {
    let mut roots = of_system(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        add(&mut roots, path)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The certificates of the system's store, which `SSL_CERT_FILE` and `SSL_CERT_DIR` can replace.
/// Those that the TLS library rejects are left out, as by other programs. Without a store, as in a
/// container from scratch, the public roots are used, which are built in.
fn of_system(certificates: Vec<CertificateDer<'_>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), RootsError> {
    let failed = |why: String| RootsError::File { path: path.to_owned(), why };
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        found = true;
    }
    if found { Ok(()) } else { Err(RootsError::Empty(path.to_owned())) }
}

/// TLS handshake; SNI and certificate are those of `host`.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: S,
) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_of_the_system_replaces_the_built_in_roots_unless_it_is_empty() {
        let made = rcgen::generate_simple_self_signed(["h.test".to_owned()]).unwrap();
        let (valid, broken) = (made.cert.der().clone(), CertificateDer::from(vec![1, 2, 3]));
        let built_in = webpki_roots::TLS_SERVER_ROOTS.len();
        for (certificates, expected) in [
            (vec![], built_in),
            (vec![broken.clone()], built_in),
            (vec![valid.clone()], 1),
            (vec![broken, valid], 1),
        ] {
            let count = certificates.len();
            assert_eq!(of_system(certificates).len(), expected, "{count} certificates");
        }
    }
}
