//! The opening handshake of RFC 6455 section 4 as text: request and responses. No IO.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The example key of RFC 6455 section 1.3, so that tests send the same bytes each time.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The `Sec-WebSocket-Accept` for [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A client's request with further header fields, written as they are; without `Host` among them,
/// for `t3.test`.
pub fn request<'a>(target: &str, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    let mut has_host = false;
    for (name, value) in fields {
        has_host |= name == "Host";
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !has_host {
        request.push_str("Host: t3.test\r\n");
    }
    request + "\r\n"
}

/// Whether this response to [`request`] opens the WebSocket.
#[must_use]
pub fn opens(response: &str) -> bool {
    response.starts_with("HTTP/1.1 101 ") && response.contains(&derive_accept_key(KEY.as_bytes()))
}

/// The response that opens a WebSocket for this `Sec-WebSocket-Key`.
#[must_use]
pub fn response(key: &str) -> String {
    response_with(key, "")
}

/// [`response`] with further header lines.
#[must_use]
pub fn response_with(key: &str, lines: &str) -> String {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
    )
}

/// The value of a header field in a head.
#[must_use]
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(have, _)| have.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Length of the head at the start of these bytes, its empty line included, once it is complete.
#[must_use]
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 section 1.3.
        let response = response(KEY);
        assert!(response.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")), "{response}");
        assert!(opens(&response) && !opens(&super::response("another key")));
        let request = request("/ws", [("X-User", "ann")]);
        assert_eq!(field(&request, "sec-websocket-key"), Some(KEY));
        assert_eq!(field(&request, "x-user"), Some("ann"));
        assert_eq!(head_length(request.as_bytes()), Some(request.len()));
    }
}
