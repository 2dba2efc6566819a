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

/// Trusts the public roots, which are built in (a container from scratch has none), and a file.
pub(crate) fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, RootsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        add(&mut roots, path)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
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
