//! Decides whether a request is forwarded, has its session checked, or is paired. Pure; reads the
//! method, the path and the headers only.
//!
//! Only a top-level navigation tolerates a redirect, and a check of `/` by a program (HEAD, curl),
//! which has no `Sec-Fetch-Dest`. Everything else (scripts, images, calls of the page, native
//! clients with a token, WebSockets) is forwarded unchanged; serve responds 401 where a session is
//! missing.

use http::{
    HeaderMap, Method,
    header::{AUTHORIZATION, COOKIE},
};

use crate::http::{
    headers,
    navigation::{DEST, is_document, is_navigation},
};

/// serve's session cookie (apps/server/src/auth/utils.ts of t3code). Cookie names are
/// case-sensitive (RFC 6265 section 5.4).
pub const COOKIE_NAME: &str = "t3_session";

/// Pairing action for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairingAction {
    /// Forward unchanged.
    Forward,
    /// The request has a session: check it with serve.
    Check,
    /// Create a session for a browser.
    Pair,
    /// Create a session for a program that checks `/`.
    PairProgram,
}

/// Returns the action for this request.
#[must_use]
pub fn action(method: &Method, path: &str, headers: &HeaderMap) -> PairingAction {
    if headers::wants_websocket(headers) || has_token(headers) {
        return PairingAction::Forward;
    }
    match (is_navigation(method, headers), has_session(headers)) {
        (true, true) => PairingAction::Check,
        (true, false) => PairingAction::Pair,
        // Its session is not checked: without a redirect it sees serve's own response.
        (false, false) if is_check(method, path, headers) => PairingAction::PairProgram,
        (false, _) => PairingAction::Forward,
    }
}

/// Returns whether a program checks the root page: GET or HEAD, whatever it accepts. A browser
/// names the destination of a request, unless it is old or the page was loaded without TLS.
fn is_check(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    let is_page = !headers.contains_key(DEST) || *method == Method::HEAD && is_document(headers);
    path == "/" && matches!(*method, Method::GET | Method::HEAD) && is_page
}

/// Returns whether there is a token of a native client: Bearer or DPoP. Basic does not count: a
/// proxy on the path may add it to every request.
fn has_token(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        [&b"bearer"[..], b"dpop"].iter().any(|token| scheme.eq_ignore_ascii_case(token))
    })
}

/// Returns whether there is a session cookie with a value.
fn has_session(headers: &HeaderMap) -> bool {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .any(names_session)
}

/// Returns whether `NAME=VALUE`, optionally with attributes, is a session cookie. For Cookie and
/// Set-Cookie.
pub(super) fn names_session(pair: &[u8]) -> bool {
    pair.trim_ascii_start()
        .strip_prefix(COOKIE_NAME.as_bytes())
        .and_then(|rest| rest.trim_ascii_start().strip_prefix(b"="))
        .is_some_and(|value| !matches!(value.trim_ascii_start().first(), None | Some(b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: (&str, &str) = ("sec-fetch-dest", "document");
    const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    const SESSION: (&str, &str) = ("cookie", "theme=dark; t3_session=abc");

    fn action_at(path: &str, method: &str, pairs: &[(&'static str, &'static str)]) -> PairingAction {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        action(&method.parse().unwrap(), path, &headers)
    }

    fn action_of(method: &str, pairs: &[(&'static str, &'static str)]) -> PairingAction {
        action_at("/deep/link", method, pairs)
    }

    #[test]
    fn a_program_that_checks_the_root_page_is_paired_unless_it_has_a_session() {
        const CURL: (&str, &str) = ("accept", "*/*");
        for (method, path, pairs, expected) in [
            ("GET", "/", &[][..], PairingAction::PairProgram),
            ("GET", "/", &[CURL], PairingAction::PairProgram),
            ("GET", "/", &[("accept", "application/json")], PairingAction::PairProgram),
            ("GET", "/", &[("cookie", "theme=dark")], PairingAction::PairProgram),
            ("HEAD", "/", &[], PairingAction::PairProgram),
            ("HEAD", "/", &[CURL], PairingAction::PairProgram),
            ("HEAD", "/", &[HTML], PairingAction::PairProgram),
            ("HEAD", "/", &[DOCUMENT], PairingAction::PairProgram),
            ("GET", "/", &[HTML], PairingAction::Pair),
            ("GET", "/", &[DOCUMENT], PairingAction::Pair),
            // With a session it sees the response of serve.
            ("GET", "/", &[CURL, SESSION], PairingAction::Forward),
            ("HEAD", "/", &[SESSION], PairingAction::Forward),
            // A page's own requests.
            ("GET", "/", &[("sec-fetch-dest", "empty"), CURL], PairingAction::Forward),
            ("HEAD", "/", &[("sec-fetch-dest", "empty")], PairingAction::Forward),
            ("GET", "/", &[("sec-fetch-dest", "iframe"), HTML], PairingAction::Forward),
            // Anything else of a program.
            ("GET", "/api/auth/session", &[CURL], PairingAction::Forward),
            ("HEAD", "/index.html", &[], PairingAction::Forward),
            ("GET", "", &[], PairingAction::Forward),
            ("POST", "/", &[CURL], PairingAction::Forward),
            ("OPTIONS", "/", &[], PairingAction::Forward),
            ("GET", "/", &[("authorization", "Bearer abc")], PairingAction::Forward),
            ("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")], PairingAction::Forward),
        ] {
            assert_eq!(action_at(path, method, pairs), expected, "{method} {path} {pairs:?}");
        }
    }

    #[test]
    fn only_a_navigation_without_a_session_is_paired() {
        for (pairs, expected) in [
            (&[DOCUMENT][..], PairingAction::Pair),
            (&[HTML], PairingAction::Pair),
            (&[("accept", "TEXT/HTML")], PairingAction::Pair),
            (&[("accept", "image/png"), ("accept", "*/*, text/html;level=1")], PairingAction::Pair),
            (&[DOCUMENT, SESSION], PairingAction::Check),
            (&[HTML, SESSION], PairingAction::Check),
            (&[DOCUMENT, ("cookie", "a=b"), ("cookie", "t3_session = x")], PairingAction::Check),
            // Sub-requests, regardless of Accept.
            (&[("sec-fetch-dest", "empty"), HTML], PairingAction::Forward),
            (&[("sec-fetch-dest", "iframe"), HTML], PairingAction::Forward),
            (&[("sec-fetch-dest", "script")], PairingAction::Forward),
            (&[("sec-fetch-dest", "empty"), HTML, SESSION], PairingAction::Forward),
            (&[DOCUMENT, ("sec-fetch-dest", "empty")], PairingAction::Forward),
            (&[("sec-fetch-dest", "")], PairingAction::Forward),
            // No sign of a page.
            (&[], PairingAction::Forward),
            (&[("accept", "*/*")], PairingAction::Forward),
            (&[("accept", "application/json, text/htmlx")], PairingAction::Forward),
            (&[SESSION], PairingAction::Forward),
        ] {
            assert_eq!(action_of("GET", pairs), expected, "{pairs:?}");
        }
        for method in ["POST", "HEAD", "OPTIONS", "PUT"] {
            assert_eq!(action_of(method, &[DOCUMENT, HTML]), PairingAction::Forward, "{method}");
        }
    }

    #[test]
    fn native_clients_and_websockets_are_forwarded() {
        for value in ["Bearer abc", "bearer abc", "BEARER", "DPoP abc"] {
            assert_eq!(
                action_of("GET", &[DOCUMENT, ("authorization", value)]),
                PairingAction::Forward,
                "{value}"
            );
            assert_eq!(
                action_of("GET", &[DOCUMENT, SESSION, ("authorization", value)]),
                PairingAction::Forward
            );
        }
        for value in ["Basic YTpi", "Bearerx abc", ""] {
            assert_eq!(
                action_of("GET", &[DOCUMENT, ("authorization", value)]),
                PairingAction::Pair,
                "{value}"
            );
        }
        let upgrade = [HTML, ("connection", "Upgrade"), ("upgrade", "websocket")];
        assert_eq!(action_of("GET", &upgrade), PairingAction::Forward);
    }

    #[test]
    fn a_session_cookie_has_the_exact_name_and_a_value() {
        for cookie in ["t3_session=a", "a=b;t3_session=a", "a=b;   t3_session=a;c=d", "t3_session=\"\""] {
            assert_eq!(action_of("GET", &[DOCUMENT, ("cookie", cookie)]), PairingAction::Check, "{cookie}");
        }
        for cookie in [
            "",
            "t3_session",
            "t3_session=",
            "t3_session= ; a=b",
            "T3_SESSION=a",
            "t3_session_3773=a",
            "xt3_session=a",
            "a=t3_session=b",
        ] {
            assert_eq!(action_of("GET", &[DOCUMENT, ("cookie", cookie)]), PairingAction::Pair, "{cookie}");
        }
        assert!(names_session(b"t3_session=x; HttpOnly; Path=/"));
        assert!(!names_session(b"t3_session=; Max-Age=0"));
    }
}
