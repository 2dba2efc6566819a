//! Header changes of a proxy (RFC 9110 section 7.6.1), and checks of a WebSocket upgrade (RFC 6455
//! section 4.2.1). Pure.

use std::{net::IpAddr, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

const KEY: &str = "sec-websocket-key";
const VERSION: &str = "sec-websocket-version";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// An invalid upgrade: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Section 4.2.1, item 1.
    #[error("a WebSocket upgrade is a GET of HTTP/1.1")]
    Method,
    /// An upgrade has no body.
    #[error("a WebSocket upgrade has no body")]
    Body,
    /// Item 4.
    #[error("expected exactly one Sec-WebSocket-Key with 16 bytes in base64")]
    Key,
    /// Item 6.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
}

/// Returns whether the request is a WebSocket upgrade.
#[must_use]
pub fn wants_websocket(headers: &HeaderMap) -> bool {
    any_has_token(headers, &UPGRADE, "websocket") && any_has_token(headers, &CONNECTION, "upgrade")
}

/// Checks an upgrade. Returns its key.
///
/// # Errors
/// [`Malformed`] names the violated rule.
pub fn check_upgrade<B>(request: &Request<B>) -> Result<HeaderValue, Malformed> {
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Malformed::Method);
    }
    let headers = request.headers();
    let empty = headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    if !empty || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Malformed::Body);
    }
    let key = only(headers, KEY).filter(|key| is_key(key.as_bytes())).ok_or(Malformed::Key)?;
    if only(headers, VERSION).is_none_or(|version| version != "13") {
        return Err(Malformed::Version);
    }
    Ok(key.clone())
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// 16 bytes in base64: 22 characters and two of padding.
fn is_key(text: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(text, [digits @ .., b'=', b'='] if digits.len() == 22 && digits.iter().all(digit))
}

/// Returns whether a list contains this token, ignoring case. Text that is not ASCII contains none.
#[must_use]
pub fn has_token(list: &[u8], token: &str) -> bool {
    let text = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e);
    list.iter().all(text)
        && list
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn any_has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| has_token(value.as_bytes(), token))
}

/// Removes hop-by-hop headers: the fixed list, and those that `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    let trailers = any_has_token(headers, &TE, "trailers");
    for name in ["connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
    if trailers {
        // The sender of TE names it as a connection option, too (RFC 9110 section 10.1.4).
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Returns whether a header must not be removed through `Connection`: without it serve would
/// interpret the request differently.
fn is_end_to_end(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, HOST, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO].contains(name)
        || ["x-authentik-username", "cookie", "authorization"].contains(&name.as_str())
}

/// Returns whether the client waits for 100 Continue before it sends the body (RFC 9110 section
/// 10.1.1).
#[must_use]
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Returns the idle timeout that the sender announced (`Keep-Alive: timeout=5`, in seconds).
#[must_use]
pub fn announced_keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("keep-alive")?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// Adds the Host that HTTP/1.1 requires; an HTTP/1.0 client may have sent none.
pub fn ensure_host(headers: &mut HeaderMap, port: u16) {
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&format!("127.0.0.1:{port}"))
    {
        headers.insert(HOST, host);
    }
}

/// Adds the peer to X-Forwarded-For; keeps host and protocol of the trusted previous hop, else sets
/// its own.
pub fn forwarded(headers: &mut HeaderMap, peer: IpAddr) {
    let mut hops: Vec<u8> = Vec::new();
    for value in headers.get_all(&FORWARDED_FOR) {
        hops.extend_from_slice(value.as_bytes());
        hops.extend_from_slice(b", ");
    }
    hops.extend_from_slice(peer.to_canonical().to_string().as_bytes());
    if let Ok(hops) = HeaderValue::from_bytes(&hops) {
        headers.insert(FORWARDED_FOR, hops);
    }
    if !headers.contains_key(&FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Request<()> {
        let builder = Request::get("/ws")
            .header("Connection", "keep-alive, Upgrade")
            .header("Upgrade", "WebSocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Version", "13");
        change(builder).body(()).unwrap()
    }

    #[test]
    fn an_upgrade_is_checked_rule_by_rule() {
        type Change = fn(http::request::Builder) -> http::request::Builder;
        let table: [(Change, Option<Malformed>); 8] = [
            (|b| b, None),
            (|b| b.header("Content-Length", "0"), None),
            (|b| b.method("POST"), Some(Malformed::Method)),
            (|b| b.version(Version::HTTP_10), Some(Malformed::Method)),
            (|b| b.header("Content-Length", "3"), Some(Malformed::Body)),
            (|b| b.header("Transfer-Encoding", "chunked"), Some(Malformed::Body)),
            (|b| b.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), Some(Malformed::Key)),
            (|b| b.header("Sec-WebSocket-Version", "8"), Some(Malformed::Version)),
        ];
        for (n, (change, expected)) in table.into_iter().enumerate() {
            let request = request(change);
            assert!(wants_websocket(request.headers()));
            assert_eq!(check_upgrade(&request).err(), expected, "row {n}");
        }
        for key in
            ["", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZ===", "dGhl\u{20}HNhbXBsZSBub25jZQ=="]
        {
            assert!(!is_key(key.as_bytes()), "{key:?}");
        }
    }

    #[test]
    fn hop_by_hop_headers_are_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-private, Host, content-length"),
            ("x-private", "1"),
            ("host", "t3"),
            ("content-length", "3"),
            ("keep-alive", "5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                ("accept", "*/*"),
                ("connection", "te"),
                ("content-length", "3"),
                ("host", "t3"),
                ("te", "trailers")
            ]
        );
    }

    #[test]
    fn an_announced_idle_timeout_is_read() {
        for (value, seconds) in
            [("timeout=5", Some(5)), ("max=9, timeout= 72", Some(72)), ("timeout=x", None), ("5", None)]
        {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", HeaderValue::from_static(value));
            assert_eq!(announced_keep_alive(&headers), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn the_peer_is_appended_and_forwarded_values_are_kept() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
        headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.2"));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        headers.insert("host", HeaderValue::from_static("t3.example.org"));
        forwarded(&mut headers, "::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(headers["x-forwarded-for"], "203.0.113.7, 10.0.0.2, 10.0.0.1");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "t3.example.org");
    }
}
