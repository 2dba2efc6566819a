//! Violations that the guard detects, and the status of each.

use http::StatusCode;

/// Reason for rejecting a request. The text is sent to the client and logged; it contains nothing
/// that the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 9112 section 2.2: CR LF ends a line; neither occurs alone.
    #[error("line does not end with CR LF")]
    LineEnd,
    /// RFC 9110 section 5.5.
    #[error("control character in the request head")]
    Control,
    /// The first byte is that of a TLS handshake (RFC 8446 section 5.1).
    #[error("TLS on a plain HTTP port")]
    Tls,
    /// RFC 9113 section 3.4.
    #[error("HTTP/2 on an HTTP/1.1 port")]
    Http2,
    /// RFC 9112 section 3.
    #[error("expected the request line METHOD TARGET HTTP/1.1")]
    RequestLine,
    /// RFC 9112 section 2.3.
    #[error("expected HTTP/1.1 or HTTP/1.0")]
    Version,
    /// CONNECT would open a tunnel, and TRACE would reveal headers that the client must not see.
    #[error("method not allowed")]
    Method,
    /// RFC 9112 section 3.2.
    #[error("request target is not a path or URL, or has characters that must be encoded")]
    Target,
    /// RFC 9112 section 3.
    #[error("request line too long")]
    TargetTooLong,
    /// RFC 9112 section 3.2: exactly one valid Host.
    #[error("expected exactly one Host header with a name or address")]
    Host,
    /// RFC 9112 section 3.2.2.
    #[error("request target and Host header name different hosts")]
    OtherHost,
    /// RFC 9112 section 5: an empty name, a name that is not a token, or whitespace around it.
    #[error("header field with an invalid name")]
    FieldName,
    /// RFC 9112 section 5.2.
    #[error("header field folded over several lines")]
    Fold,
    #[error("request head too large")]
    HeadTooLarge,
    #[error("too many header fields")]
    TooManyFields,
    /// RFC 9112 section 6.1.
    #[error("Transfer-Encoding and Content-Length together")]
    TwoLengths,
    /// RFC 9110 section 8.6: once, digits only.
    #[error("expected exactly one numeric Content-Length")]
    ContentLength,
    /// RFC 9112 section 6.1: `chunked` is the only supported coding.
    #[error("expected exactly one Transfer-Encoding, chunked, in HTTP/1.1")]
    TransferEncoding,
    /// RFC 9112 section 7.1.
    #[error("malformed chunk")]
    Chunk,
    /// RFC 9112 section 7.1.1.
    #[error("chunk extension too long")]
    ChunkExtension,
    /// RFC 9112 section 7.1.2.
    #[error("trailer section malformed or too large")]
    Trailers,
    /// The head took longer than `--header-timeout`.
    #[error("timed out reading the request head")]
    SlowHead,
    /// No byte of the body arrived within `--body-timeout`.
    #[error("timed out reading the request body")]
    SlowBody,
}

impl Violation {
    /// Response status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version | Self::Http2 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::SlowHead | Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns whether the head of the request was valid and has been forwarded.
    #[must_use]
    pub fn in_body(self) -> bool {
        matches!(self, Self::Chunk | Self::ChunkExtension | Self::Trailers | Self::SlowBody)
    }
}
