//! Exchanges a credential for a session of serve. Uses only the status and the cookies of the
//! response: the rest could contain the credential.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{CONTENT_TYPE, SET_COOKIE},
};
use http_body_util::Full;

use super::{
    credential::Credential,
    decide,
    serve_request::{self, RequestError, Serve},
};
use crate::sys::timeout::timeout;

/// Endpoint of serve that accepts a credential (packages/contracts/src/environmentHttp.ts of
/// t3code).
pub const ENDPOINT: &str = "/api/auth/browser-session";
/// Endpoint of serve before 0.0.25.
pub const OLD_ENDPOINT: &str = "/api/auth/bootstrap";

/// Session that serve created.
#[derive(Debug)]
pub struct PairedSession {
    /// Endpoint that created it.
    pub endpoint: &'static str,
    /// The endpoint is [`OLD_ENDPOINT`].
    pub fallback: bool,
    /// All Set-Cookie headers, unchanged.
    pub cookies: Vec<HeaderValue>,
}

/// Error of an exchange; never contains a credential.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("serve on port {port} did not accept the credential within {} ms", after.as_millis())]
    Timeout {
        port: u16,
        /// `--exchange-timeout`.
        after: Duration,
    },
    #[error("serve on port {port} rejected the credential: {endpoint} responded {status}")]
    Rejected {
        port: u16,
        /// Endpoint that created it.
        endpoint: &'static str,
        status: StatusCode,
    },
    /// 2xx response without a session cookie.
    #[error("serve on port {port} set no {} cookie: {endpoint} responded {status}", decide::COOKIE_NAME)]
    NoCookie {
        port: u16,
        /// Endpoint that created it.
        endpoint: &'static str,
        status: StatusCode,
    },
}

/// Exchanges a credential for a session, within `timeout_after` in total.
///
/// # Errors
/// [`ExchangeError`].
pub(super) async fn exchange(
    serve: &Serve<'_>,
    timeout_after: Duration,
    client_headers: &HeaderMap,
    credential: &Credential,
) -> Result<PairedSession, ExchangeError> {
    let port = serve.route.port;
    let both = async {
        let (status, headers) = post(serve, ENDPOINT, client_headers, credential).await?;
        if status != StatusCode::NOT_FOUND {
            return judge(port, ENDPOINT, status, &headers);
        }
        let (status, headers) = post(serve, OLD_ENDPOINT, client_headers, credential).await?;
        judge(port, OLD_ENDPOINT, status, &headers)
    };
    timeout(timeout_after, both).await.unwrap_or(Err(ExchangeError::Timeout { port, after: timeout_after }))
}

async fn post(
    serve: &Serve<'_>,
    endpoint: &'static str,
    client_headers: &HeaderMap,
    credential: &Credential,
) -> Result<(StatusCode, HeaderMap), RequestError> {
    let mut request = Request::new(Full::new(credential.body()));
    *request.method_mut() = http::Method::POST;
    request.headers_mut().extend(client_headers.clone());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (answer, _) = serve_request::send(serve, endpoint, request).await?.into_parts();
    Ok((answer.status, answer.headers))
}

fn judge(
    port: u16,
    endpoint: &'static str,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<PairedSession, ExchangeError> {
    if !status.is_success() {
        return Err(ExchangeError::Rejected { port, endpoint, status });
    }
    let mut cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    for cookie in &mut cookies {
        cookie.set_sensitive(true);
    }
    // Without one the redirect to / would loop.
    if !cookies.iter().any(|cookie| decide::names_session(cookie.as_bytes())) {
        return Err(ExchangeError::NoCookie { port, endpoint, status });
    }
    Ok(PairedSession { endpoint, fallback: endpoint == OLD_ENDPOINT, cookies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_2xx_with_its_cookie_and_cookies_keep_their_order() {
        let judged = |status: u16, cookies: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for cookie in cookies {
                headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
            }
            judge(1, ENDPOINT, StatusCode::from_u16(status).unwrap(), &headers)
        };
        let paired = judged(200, &["a=b", "t3_session=x; HttpOnly", "c=d"]).unwrap();
        assert_eq!(paired.cookies, ["a=b", "t3_session=x; HttpOnly", "c=d"]);
        assert!(!format!("{paired:?}").contains("HttpOnly"), "a cookie is a credential");
        assert!(judged(201, &["t3_session=x"]).is_ok());
        assert!(matches!(judged(200, &["a=b"]), Err(ExchangeError::NoCookie { .. })));
        assert!(matches!(judged(200, &["t3_session=; Max-Age=0"]), Err(ExchangeError::NoCookie { .. })));
        for status in [302, 400, 401, 404, 500] {
            let error = judged(status, &["t3_session=x"]).unwrap_err();
            assert!(matches!(error, ExchangeError::Rejected { .. }), "{status}");
            assert!(error.to_string().contains(&status.to_string()));
        }
    }
}
