//! Detection of top-level navigations.

use http::{HeaderMap, Method, header::ACCEPT};

/// Destination of a request, from browsers, for pages with TLS or of this host.
pub const DEST: &str = "sec-fetch-dest";

/// Returns whether a request is a top-level navigation: GET with `Sec-Fetch-Dest: document`, or
/// from a browser that does not send the header (Safari before 16.4), GET with an Accept that names
/// text/html.
#[must_use]
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    if method != Method::GET {
        return false;
    }
    if headers.contains_key(DEST) {
        return is_document(headers);
    }
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .flat_map(|accept| accept.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case("text/html"))
}

/// Returns whether the request names the top-level page as its destination, and nothing else.
#[must_use]
pub fn is_document(headers: &HeaderMap) -> bool {
    let mut destinations = headers.get_all(DEST).iter().peekable();
    destinations.peek().is_some() && destinations.all(|destination| destination == "document")
}
