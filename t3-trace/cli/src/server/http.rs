//! Queries of Loki and Prometheus: one GET, the response bounded. Errors are clauses without a
//! secret. Follows no redirect; the caller bounds the time.

use std::{fmt::Write as _, path::PathBuf};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use t3_http_client::{HttpClient, HttpError};
use t3_record::edge::redacted;

use super::source::Source;
use crate::present::text::safe;

/// Limit of a response body, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;
/// Limit of the shown beginning of a body, in characters.
const SHOWN: usize = 200;

/// A query without a usable response.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No TCP connection.
    #[error("cannot connect to {place}: {why}; check --{option}")]
    Connect { place: String, why: String, option: &'static str },
    /// No TLS.
    #[error(
        "cannot set up TLS with {place}: {why}; add a private CA to the trust store of the system, or set --layer-ca"
    )]
    Tls { place: String, why: String },
    /// No HTTP response, or only a part of it.
    #[error("cannot query {place}: {why}")]
    Http { place: String, why: String },
    /// A status other than 200; `body` is its beginning.
    #[error("{place} answered {status}{body}; {hint}")]
    Status { place: String, status: StatusCode, body: String, hint: String },
    /// A response that is not in the format of its API; `body` is its beginning.
    #[error("{place} answered something other than {expected}{body}; check --{option}")]
    Answer { place: String, expected: &'static str, body: String, option: &'static str },
    /// The trusted certificates cannot be used.
    #[error("{why}; check --layer-ca")]
    Roots { why: String },
    /// Not within the time.
    #[error("no complete response from {place} within {seconds} s (--layer-timeout)")]
    Timeout { place: String, seconds: f32 },
}

/// Client of Loki and Prometheus.
pub(crate) struct Client {
    http: HttpClient,
}

impl Client {
    /// Trusts the certificates of the system and those of `ca_file`.
    pub(crate) fn new(ca_file: Option<&PathBuf>) -> Result<Self, FetchError> {
        let http = HttpClient::new(ca_file.map(PathBuf::as_path))
            .map_err(|error| FetchError::Roots { why: error.to_string() })?;
        Ok(Self { http })
    }

    /// Returns the body of a 200.
    pub(crate) async fn get(
        &self,
        source: &Source,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Bytes, FetchError> {
        let request = request(source, path, query)?;
        let response = self.http.send(&source.url, request, LONGEST).await.map_err(|error| {
            let place = source.place();
            match error {
                HttpError::Connect(why) => {
                    FetchError::Connect { place, why: why.to_string(), option: source.option }
                }
                HttpError::Tls(why) => FetchError::Tls { place, why: why.to_string() },
                error => FetchError::Http { place, why: error.to_string() },
            }
        })?;
        let (head, body) = response.into_parts();
        if head.status == StatusCode::OK { Ok(body) } else { Err(refused(source, head.status, &body)) }
    }
}

fn request(source: &Source, path: &str, query: &[(&str, &str)]) -> Result<Request<()>, FetchError> {
    let base = source.url.path().trim_end_matches('/');
    let mut target = format!("{base}{path}");
    for (n, (key, value)) in query.iter().enumerate() {
        let _ = write!(target, "{}{key}={}", if n == 0 { '?' } else { '&' }, encoded(value));
    }
    let authority = source.url.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::get(target)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("t3-trace/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &source.headers {
        request = request.header(name, value);
    }
    request.body(()).map_err(|error| FetchError::Http { place: source.place(), why: error.to_string() })
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
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

fn refused(source: &Source, status: StatusCode, body: &[u8]) -> FetchError {
    let option = source.option;
    let hint = match status.as_u16() {
        401 | 403 => format!(
            "set credentials with --{option}-token-file, --{option}-user or --{option}-header-file, and the tenant"
        ),
        300..=399 => {
            format!("redirected to a login page? Use an address behind the login, or --{option}-header-file")
        }
        404 | 405 => format!("is --{option} the base of its API?"),
        400 | 422 => "check the selectors and the tenant".to_owned(),
        429 => "it is overloaded; try again in a minute".to_owned(),
        _ => "see its own log".to_owned(),
    };
    FetchError::Status { place: source.place(), status, body: shown_body(source, body), hint }
}

/// `: ` and the beginning of a body without secrets, or nothing.
pub(crate) fn shown_body(source: &Source, body: &[u8]) -> String {
    let text =
        String::from_utf8_lossy(body.get(..body.len().min(16 * SHOWN)).unwrap_or_default()).into_owned();
    // The body can be a log line.
    let text = redacted(&source.shown(&text));
    let shown: String = safe(text.trim()).chars().take(SHOWN).collect();
    if shown.is_empty() { String::new() } else { format!(": {shown}") }
}
