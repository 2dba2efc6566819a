//! Host, port and TLS of a URL.

use http::Uri;

/// Where a URL points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// Name or address, without the brackets of an IPv6 address; empty if the URL has none.
    pub host: &'a str,
    /// Port of the URL, else 443 with TLS and 80 without.
    pub port: u16,
    /// The scheme is `https` or `wss`.
    pub tls: bool,
}

impl<'a> Endpoint<'a> {
    /// Reads a URL.
    #[must_use]
    pub fn of(url: &'a Uri) -> Self {
        let tls = matches!(url.scheme_str(), Some("https" | "wss"));
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        Self { host, port: url.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_gives_the_default_port() {
        for (url, host, port, tls) in [
            ("wss://t3.example.org/probe/ws", "t3.example.org", 443, true),
            ("ws://t3.example.org:81/", "t3.example.org", 81, false),
            ("http://10.0.10.10:3773/api/auth/session", "10.0.10.10", 3773, false),
            ("https://[2001:db8::1]/", "2001:db8::1", 443, true),
            ("http://loki", "loki", 80, false),
        ] {
            assert_eq!(Endpoint::of(&url.parse().unwrap()), Endpoint { host, port, tls });
        }
    }
}
