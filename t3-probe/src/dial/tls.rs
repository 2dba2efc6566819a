//! TLS as a client: whom to believe, and the handshake.

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

/// Whom to believe beside the public roots, which are built in: a container from scratch has none.
pub type Roots = Option<PathBuf>;

/// The roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read, or is no PEM.
    #[error("read certificates from {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Nothing in it.
    #[error("{0} has no certificate (PEM, BEGIN CERTIFICATE)")]
    Empty(PathBuf),
    /// The TLS library refused its own defaults.
    #[error("set TLS up: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
}

/// Settings for all legs.
///
/// # Errors
/// [`RootsError`].
pub fn client(more: &Roots) -> Result<Arc<ClientConfig>, RootsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = more {
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

/// Shakes hands; SNI and certificate are those of `host`, whatever the address.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: S,
) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}
