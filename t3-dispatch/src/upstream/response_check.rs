//! Check of the framing headers of serve's responses.

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

/// Rejects responses whose length is ambiguous (RFC 9112 section 6.3): hyper accepts some of them.
///
/// # Errors
/// Returns the reason.
pub fn check_framing<B>(mut response: Response<B>) -> Result<Response<B>, &'static str> {
    let headers = response.headers();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err("unrequested 101 Switching Protocols");
    }
    let length = content_length(headers)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if length.is_some() {
            return Err("Transfer-Encoding and Content-Length together");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("expected Transfer-Encoding: chunked");
        }
    }
    if let Some(length) = length {
        // One line, whatever serve sent.
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    Ok(response)
}

/// Returns the length. Equal ones, in several lines or a list, are one (RFC 9112 section 6.3, item
/// 5).
fn content_length(headers: &HeaderMap) -> Result<Option<HeaderValue>, &'static str> {
    let mut found: Option<&[u8]> = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for one in value.as_bytes().split(|byte| *byte == b',') {
            let one = one.trim_ascii();
            if one.is_empty()
                || !one.iter().all(u8::is_ascii_digit)
                || found.is_some_and(|found| found != one)
            {
                return Err("expected a numeric Content-Length, or equal ones");
            }
            found = Some(one);
        }
    }
    found.map(HeaderValue::from_bytes).transpose().map_err(|_| "expected a numeric Content-Length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_of_ambiguous_length_is_rejected() {
        for (status, headers, valid) in [
            (200, &[][..], true),
            (200, &[("content-length", "5")][..], true),
            (200, &[("transfer-encoding", "Chunked")][..], true),
            (101, &[][..], false),
            (200, &[("content-length", "5"), ("content-length", "5")][..], true),
            (200, &[("content-length", "5, 5")][..], true),
            (200, &[("content-length", "5"), ("content-length", "6")][..], false),
            (200, &[("content-length", "5"), ("content-length", "05")][..], false),
            (200, &[("content-length", "5, 6")][..], false),
            (200, &[("content-length", "5,")][..], false),
            (200, &[("content-length", "")][..], false),
            (200, &[("content-length", "+5")][..], false),
            (200, &[("content-length", "5"), ("transfer-encoding", "chunked")][..], false),
            (200, &[("transfer-encoding", "gzip, chunked")][..], false),
            (200, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")][..], false),
        ] {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            assert_eq!(check_framing(response.body(()).unwrap()).is_ok(), valid, "{status} {headers:?}");
        }
    }
}
