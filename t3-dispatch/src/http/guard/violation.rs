//! Why the guard refuses a request, and with which status it is answered. Words only.

use http::StatusCode;

/// Why a request is refused. The text goes to the client and to the log; it never holds anything
/// that the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 9112 section 2.2: CR LF ends a line, and neither stands alone.
    #[error("line does not end with CR LF")]
    LineEnd,
    /// RFC 9110 section 5.5.
    #[error("control character in the request head")]
    Control,
    /// The first bytes are those of a TLS handshake (RFC 8446 section 5.1).
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
    /// CONNECT would make a tunnel and TRACE would tell headers that the client may not see.
    #[error("method not allowed")]
    Method,
    /// RFC 9112 section 3.2.
    #[error("request target is not a path or URL, or has characters that must be encoded")]
    Target,
    /// RFC 9112 section 3.
    #[error("request line too long")]
    TargetTooLong,
    /// RFC 9112 section 3.2: exactly one Host that makes sense.
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
    /// More bytes than allowed.
    #[error("request head too large")]
    HeadTooLarge,
    /// More fields than allowed.
    #[error("too many header fields")]
    TooManyFields,
    /// RFC 9112 section 6.1.
    #[error("Transfer-Encoding and Content-Length together")]
    TwoLengths,
    /// RFC 9110 section 8.6: once, digits only.
    #[error("expected exactly one numeric Content-Length")]
    ContentLength,
    /// RFC 9112 section 6.1: `chunked` is the only coding that is known here.
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
    /// Nothing of the body came for `--body-timeout`.
    #[error("timed out reading the request body")]
    SlowBody,
}

impl Violation {
    /// The status that says it.
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

    /// The head before it was in order, and has been let through.
    #[must_use]
    pub fn in_body(self) -> bool {
        matches!(self, Self::Chunk | Self::ChunkExtension | Self::Trailers | Self::SlowBody)
    }
}
