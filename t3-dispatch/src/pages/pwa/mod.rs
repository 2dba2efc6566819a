//! PWA support, which makes t3 installable on a phone's home screen: a manifest, and tags in the
//! head of its pages.
//!
//! Tags are inserted only into documents that a browser displays: a 200 response to a GET whose
//! `Sec-Fetch-Dest` is `document` or missing, `text/html` in an ASCII-compatible charset, not
//! compressed, not an attachment, not under `no-transform`. Everything else, and every such page
//! without a plain head or with its own manifest, is forwarded unchanged.

mod etag;
mod head_scanner;
mod splice;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{self, ACCEPT_ENCODING, CONTENT_LENGTH, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH},
};

use self::{head_scanner::HeadPosition, splice::Spliced};
use crate::{http::navigation::is_navigation, response::body::ResponseBody};

/// Path of the manifest.
pub const MANIFEST_PATH: &str = "/manifest.webmanifest";

/// The manifest (W3C Web Application Manifest). The icon comes from serve.
pub const MANIFEST: &str = r##"{
  "name": "T3 Code",
  "short_name": "T3 Code",
  "id": "/",
  "start_url": "/",
  "scope": "/",
  "display": "standalone",
  "background_color": "#161616",
  "theme_color": "#161616",
  "icons": [{ "src": "/apple-touch-icon.png", "sizes": "180x180", "type": "image/png" }]
}
"##;

/// Tags inserted into pages. The manifest is requested with cookies, because the authenticating
/// proxy rejects requests without.
pub const TAGS: &str = concat!(
    r#"<link rel="manifest" href="/manifest.webmanifest" crossorigin="use-credentials">"#,
    r#"<meta name="mobile-web-app-capable" content="yes">"#,
    r#"<meta name="apple-mobile-web-app-capable" content="yes">"#,
    r#"<meta name="apple-mobile-web-app-status-bar-style" content="default">"#,
    r#"<meta name="apple-mobile-web-app-title" content="T3 Code">"#,
);

const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Headers that describe the original bytes and do not hold for the changed page.
const BODY_SPECIFIC_HEADERS: [&str; 6] =
    ["last-modified", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];

/// Request whose response may be a page.
#[derive(Debug)]
pub struct PageRequest {
    /// serve's ETags of the documents that the browser has cached with tags.
    known: Vec<String>,
}

/// Prepares a request for serve. `None` when its response cannot be a page.
///
/// Translates If-None-Match: ETags that t3-dispatch created become those of serve. For a
/// navigation, all other ETags are removed, since the browser has the page without tags or with
/// other tags, and Accept-Encoding, so that serve sends the page uncompressed.
pub fn prepare<B>(request: &mut Request<B>) -> Option<PageRequest> {
    if request.method() != Method::GET {
        return None;
    }
    let navigates = is_navigation(request.method(), request.headers());
    let headers = request.headers_mut();
    if headers.contains_key(FETCH_DEST) && !navigates {
        return None;
    }
    let mut known = Vec::new();
    if headers.contains_key(IF_NONE_MATCH) {
        let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut kept: Vec<String> = Vec::new();
        let mut any = false;
        for value in values {
            any |= value.trim() == "*";
            for name in etag::list(value) {
                match etag::theirs(name) {
                    Some(theirs) => known.push(theirs),
                    None if navigates => {}
                    None => kept.push(name.to_owned()),
                }
            }
        }
        if !any && (navigates || !known.is_empty()) {
            kept.extend_from_slice(&known);
            headers.remove(IF_NONE_MATCH);
            if let Ok(value) = HeaderValue::from_str(&kept.join(", "))
                && !kept.is_empty()
            {
                headers.insert(IF_NONE_MATCH, value);
            }
        }
    }
    if navigates {
        // Changed pages have no Last-Modified.
        headers.remove(IF_MODIFIED_SINCE);
        // A compressed page takes no tags; the proxies in front compress it for the browser.
        headers.remove(ACCEPT_ENCODING);
    }
    Some(PageRequest { known })
}

impl PageRequest {
    /// Inserts the tags into serve's response. Returns when the end of the head is known; the rest
    /// is streamed.
    pub async fn answer(self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        let (mut parts, body) = response.into_parts();
        if parts.status == StatusCode::NOT_MODIFIED {
            self.not_modified(&mut parts.headers);
            return Response::from_parts(parts, body);
        }
        if parts.status != StatusCode::OK || !is_page(&parts.headers) {
            return Response::from_parts(parts, body);
        }
        let (mut body, found) = Spliced::read_ahead(body).await;
        if let HeadPosition::At(offset) = found
            && update_headers(&mut parts.headers)
        {
            body.insert(offset, TAGS.as_bytes());
        }
        Response::from_parts(parts, ResponseBody::boxed(body))
    }

    /// On a 304, replaces serve's ETag with that of the changed page.
    fn not_modified(&self, headers: &mut HeaderMap) {
        let Some(name) = headers.get(ETAG).and_then(|name| name.to_str().ok()) else { return };
        if self.known.iter().any(|known| etag::matches_weakly(known, name))
            && let Some(Ok(ours)) = etag::ours(name).map(HeaderValue::try_from)
        {
            headers.insert(ETAG, ours);
            headers.remove(header::LAST_MODIFIED);
            vary(headers);
        }
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let plain = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|encoding| encoding.is_empty() || encoding == "identity");
    let saved = headers
        .get(header::CONTENT_DISPOSITION)
        .is_some_and(|how| how.as_bytes().trim_ascii().to_ascii_lowercase().starts_with(b"attachment"));
    is_html(headers) && plain && !saved && !mentions(headers, &header::CACHE_CONTROL, "no-transform")
}

/// Returns whether the type is `text/html` in an ASCII-compatible charset.
fn is_html(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (types.next(), types.next()) else { return false };
    let Ok(kind) = kind.to_str() else { return false };
    let mut parts = kind.split(';').map(str::trim);
    let html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
    let charset = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map_or("utf-8", |(_, charset)| charset.trim().trim_matches('"'));
    let known = ["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"];
    html && known.iter().any(|known| charset.eq_ignore_ascii_case(known))
}

/// Returns whether a list header contains a token, ignoring parameters.
fn mentions(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.split(';').next().is_some_and(|part| part.trim().eq_ignore_ascii_case(word)))
}

/// Adapts the headers to the changed body. Returns `false` and changes nothing when Content-Length
/// is invalid.
fn update_headers(headers: &mut HeaderMap) -> bool {
    if let Some(length) = headers.get(CONTENT_LENGTH) {
        let length = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
        let Some(length) = length.and_then(|length| length.checked_add(TAGS.len() as u64)) else {
            return false;
        };
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let name = headers.remove(ETAG);
    let ours = name.as_ref().and_then(|name| name.to_str().ok()).and_then(etag::ours);
    if let Some(Ok(ours)) = ours.map(HeaderValue::try_from) {
        headers.insert(ETAG, ours);
    }
    for name in BODY_SPECIFIC_HEADERS {
        headers.remove(name);
    }
    vary(headers);
    true
}

/// The same URL returns other bytes to `fetch`.
fn vary(headers: &mut HeaderMap) {
    if !mentions(headers, &header::VARY, "*") && !mentions(headers, &header::VARY, FETCH_DEST.as_str()) {
        headers.append(header::VARY, HeaderValue::from_static("Sec-Fetch-Dest"));
    }
}

#[cfg(test)]
mod tests;
