//! One GET, its answer read to the end and bounded. Follows no redirect; what went wrong is told in
//! a sentence without a secret. The caller bounds the time.

use std::{fmt::Write as _, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use t3_record::edge::redacted;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, crypto,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::source::Source;
use crate::live::line::safe;

/// The most of an answer that is read, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;
/// The most of a refusal that is shown, in characters.
const SHOWN: usize = 200;

/// There is no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("connect to {place}: {why}; check --{option}")]
    Connect {
        /// Where.
        place: String,
        /// Why not.
        why: String,
        /// The option that names it.
        option: &'static str,
    },
    /// No TLS.
    #[error("TLS with {place}: {why}; a certificate of your own is believed with --layer-ca")]
    Tls {
        /// Where.
        place: String,
        /// Why not.
        why: String,
    },
    /// No HTTP, or the answer broke off.
    #[error("ask {place}: {why}")]
    Http {
        /// Where.
        place: String,
        /// Why not.
        why: String,
    },
    /// Another status than 200.
    #[error("{place} answered {status}{said}; {hint}")]
    Status {
        /// Where.
        place: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        said: String,
        /// What to do.
        hint: String,
    },
    /// Something else than its API says.
    #[error("{place} answered something else than {what}{said}; check --{option}")]
    Answer {
        /// Where.
        place: String,
        /// What was expected.
        what: &'static str,
        /// What it said.
        said: String,
        /// The option that names it.
        option: &'static str,
    },
    /// The certificates to believe cannot be used.
    #[error("read certificates from {path} (--layer-ca): {why}")]
    Roots {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Not within the time.
    #[error("no whole answer from {place} within {seconds} s (--layer-timeout)")]
    Timeout {
        /// Where.
        place: String,
        /// The time.
        seconds: f32,
    },
}

/// Asks servers.
pub(super) struct Client {
    tls: Arc<ClientConfig>,
}

impl Client {
    /// Believes the public roots, and those of a file.
    pub(super) fn new(more: Option<&PathBuf>) -> Result<Self, FetchError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = more {
            let failed = |why: String| FetchError::Roots { path: path.clone(), why };
            let before = roots.len();
            for certificate in
                CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?
            {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if roots.len() == before {
                return Err(failed("no certificate in it (PEM, BEGIN CERTIFICATE)".to_owned()));
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| FetchError::Tls { place: "any server".to_owned(), why: error.to_string() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config) })
    }

    /// The body of a 200.
    pub(super) async fn get(
        &self,
        source: &Source,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Bytes, FetchError> {
        let host = source.url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let tls = source.url.scheme_str() == Some("https");
        let port = source.url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(|error| FetchError::Connect {
            place: source.place(),
            why: error.to_string(),
            option: source.option,
        })?;
        let request = request(source, path, query)?;
        let (status, body) = if tls {
            let failed = |error: io::Error| FetchError::Tls { place: source.place(), why: error.to_string() };
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let stream =
                TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.map_err(failed)?;
            exchange(source, stream, request).await?
        } else {
            exchange(source, stream, request).await?
        };
        if status == StatusCode::OK { Ok(body) } else { Err(refused(source, status, &body)) }
    }
}

fn request(source: &Source, path: &str, query: &[(&str, &str)]) -> Result<Request<Empty<Bytes>>, FetchError> {
    let base = source.url.path().trim_end_matches('/');
    let mut target = format!("{base}{path}");
    for (n, (key, value)) in query.iter().enumerate() {
        let _ = write!(target, "{}{key}={}", if n == 0 { '?' } else { '&' }, encoded(value));
    }
    let authority = source.url.authority().map_or("", |authority| authority.as_str());
    let mut request =
        Request::get(target).header(header::HOST, authority).header(header::ACCEPT, "application/json");
    request = request.header(header::USER_AGENT, concat!("t3-trace/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &source.headers {
        request = request.header(name, value);
    }
    request
        .body(Empty::new())
        .map_err(|error| FetchError::Http { place: source.place(), why: error.to_string() })
}

/// Everything but RFC 3986's unreserved characters.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

async fn exchange<S>(
    source: &Source,
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |why: String| FetchError::Http { place: source.place(), why };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| {
            failed(if error.is::<LengthLimitError>() {
                format!("the answer is longer than {LONGEST} bytes")
            } else {
                format!("the answer broke off: {error}")
            })
        })?;
        Ok((status, body.to_bytes()))
    };
    // Both in this task: whoever gives up on the answer gives up on the connection.
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection ends with the answer; its error is the answer's, too.
        _ = connection => exchange.await,
    }
}

fn refused(source: &Source, status: StatusCode, body: &[u8]) -> FetchError {
    let option = source.option;
    let hint = match status.as_u16() {
        401 | 403 => format!(
            "identify yourself with --{option}-token-file, --{option}-user or --{option}-header-file, and the tenant"
        ),
        300..=399 => format!("a login in front of it? Name an address behind it, or --{option}-header-file"),
        404 | 405 => format!("is --{option} the base of its API?"),
        400 | 422 => "check the selectors and the tenant".to_owned(),
        429 => "it has too much to do; try again in a minute".to_owned(),
        _ => "look into its own log".to_owned(),
    };
    FetchError::Status { place: source.place(), status, said: said(source, body), hint }
}

/// `: ` and the beginning of an answer, or nothing.
pub(super) fn said(source: &Source, body: &[u8]) -> String {
    let text =
        String::from_utf8_lossy(body.get(..body.len().min(16 * SHOWN)).unwrap_or_default()).into_owned();
    // It may be a log line.
    let text = redacted(&source.shown(&text));
    let shown: String = safe(text.trim()).chars().take(SHOWN).collect();
    if shown.is_empty() { String::new() } else { format!(": {shown}") }
}
