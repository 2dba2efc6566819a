//! Asks serve whether a browser's session is still good. Only a clear no counts: a serve that is
//! slow, broken or of another version must not cost anybody the session they have.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header::COOKIE};
use http_body_util::Full;
use serde::Deserialize;
use tokio::time::timeout;

use super::serve_request::{self, RequestError};
use crate::settings::Timeouts;

/// Where serve says whose session it is (packages/contracts/src/environmentHttp.ts of t3code).
pub const ENDPOINT: &str = "/api/auth/session";

/// serve did not say.
#[derive(Debug, thiserror::Error)]
pub enum SessionCheckError {
    /// It gave no answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It took too long.
    #[error("serve on port {port} did not answer {ENDPOINT} within {} ms", after.as_millis())]
    Timeout {
        /// Its port.
        port: u16,
        /// `--session-check-timeout`.
        after: Duration,
    },
    /// Not 200.
    #[error("{ENDPOINT} answered {0}")]
    Status(StatusCode),
    /// Not the JSON it should be, or more than 64 KiB of it.
    #[error("{ENDPOINT} answered without \"authenticated\": true or false")]
    Content,
}

/// Whether serve knows the session in these cookies, within `patience`.
///
/// # Errors
/// [`SessionCheckError`].
pub(super) async fn is_good(
    port: u16,
    times: &Timeouts,
    timeout_after: Duration,
    client_headers: HeaderMap,
    browser: &HeaderMap,
) -> Result<bool, SessionCheckError> {
    let mut request = Request::new(Full::default());
    *request.headers_mut() = client_headers;
    for cookie in browser.get_all(COOKIE) {
        request.headers_mut().append(COOKIE, cookie.clone());
    }
    let asked = async {
        let answer = serve_request::send(port, times, ENDPOINT, request).await?;
        match answer.status() {
            StatusCode::OK => judge(serve_request::body(answer.into_body()).await),
            status => Err(SessionCheckError::Status(status)),
        }
    };
    timeout(timeout_after, asked)
        .await
        .unwrap_or(Err(SessionCheckError::Timeout { port, after: timeout_after }))
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
    fn only_the_json_truth_values_are_an_answer() {
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
