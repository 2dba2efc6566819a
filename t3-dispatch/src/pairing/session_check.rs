//! Queries serve about the session of a browser. Only an explicit negative result counts: a slow,
//! broken or different serve must not invalidate a session.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header::COOKIE};
use http_body_util::Full;
use serde::Deserialize;

use super::serve_request::{self, RequestError, Serve};
use crate::sys::timeout::timeout;

/// Endpoint of serve that reports the session (packages/contracts/src/environmentHttp.ts of
/// t3code).
pub const ENDPOINT: &str = "/api/auth/session";

/// Error of a session check.
#[derive(Debug, thiserror::Error)]
pub enum SessionCheckError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("serve on port {port} did not respond to {ENDPOINT} within {} ms", after.as_millis())]
    Timeout {
        port: u16,
        /// `--session-check-timeout`.
        after: Duration,
    },
    /// Not 200.
    #[error("{ENDPOINT} responded {0}")]
    Status(StatusCode),
    /// Unexpected JSON, or more than 64 KiB.
    #[error("{ENDPOINT} responded without \"authenticated\": true or false")]
    Content,
}

/// Returns whether serve knows the session in these cookies.
///
/// # Errors
/// [`SessionCheckError`].
pub(super) async fn is_good(
    serve: &Serve<'_>,
    timeout_after: Duration,
    client_headers: HeaderMap,
    browser: &HeaderMap,
) -> Result<bool, SessionCheckError> {
    let mut request = Request::new(Full::default());
    *request.headers_mut() = client_headers;
    for cookie in browser.get_all(COOKIE) {
        request.headers_mut().append(COOKIE, cookie.clone());
    }
    let response = async {
        let answer = serve_request::send(serve, ENDPOINT, request).await?;
        match answer.status() {
            StatusCode::OK => judge(serve_request::body(answer.into_body()).await),
            status => Err(SessionCheckError::Status(status)),
        }
    };
    timeout(timeout_after, response)
        .await
        .unwrap_or(Err(SessionCheckError::Timeout { port: serve.route.port, after: timeout_after }))
}

fn judge(body: Option<Bytes>) -> Result<bool, SessionCheckError> {
    #[derive(Deserialize)]
    struct Session {
        authenticated: bool,
    }
    let session: Option<Session> = body.and_then(|body| serde_json::from_slice(&body).ok());
    session.map(|session| session.authenticated).ok_or(SessionCheckError::Content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_booleans_are_a_result() {
        let judged = |body: &'static str| judge(Some(Bytes::from_static(body.as_bytes()))).ok();
        assert_eq!(judged(r#"{"authenticated":false,"auth":{"policy":"x"}}"#), Some(false));
        assert_eq!(judged(r#" {"scopes":[],"authenticated":true} "#), Some(true));
        for body in [
            "",
            "false",
            "{}",
            r#"{"authenticated":"false"}"#,
            r#"{"authenticated":0}"#,
            r#"{"authenticated":null}"#,
            r#"{"session":{"authenticated":false}}"#,
            r#"{"authenticated":false"#,
            "<html>authenticated:false</html>",
        ] {
            assert_eq!(judged(body), None, "{body}");
        }
        assert!(judge(None).is_err());
    }
}
