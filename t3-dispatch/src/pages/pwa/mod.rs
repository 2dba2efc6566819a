//! Makes t3 installable as an app of its own on a phone's home screen: a manifest, and a few tags
//! in the head of its pages.
//!
//! Tags are put only into what a browser is about to show as a page: the answer 200 to a GET whose
//! `Sec-Fetch-Dest` is `document` or missing, `text/html` in an encoding that ASCII is part of, not
//! compressed, not to be saved as a file, not under `no-transform`. Everything else, and every such
//! page without a plain head or with a manifest of its own, passes byte by byte.

mod etag;
mod head_scanner;
mod splice;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{self, CONTENT_LENGTH, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH},
};

use self::{head_scanner::HeadPosition, splice::Spliced};
use crate::{http::navigation::is_navigation, response::body::ResponseBody};

/// Where the manifest is.
pub const MANIFEST_PATH: &str = "/manifest.webmanifest";

/// The manifest (W3C Web Application Manifest). The icon is serve's own.
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

/// What is put into pages. The manifest is asked for with cookies, because the proxy before us lets
/// nobody in without.
pub const TAGS: &str = concat!(
    r#"<link rel="manifest" href="/manifest.webmanifest" crossorigin="use-credentials">"#,
    r#"<meta name="mobile-web-app-capable" content="yes">"#,
    r#"<meta name="apple-mobile-web-app-capable" content="yes">"#,
    r#"<meta name="apple-mobile-web-app-status-bar-style" content="default">"#,
    r#"<meta name="apple-mobile-web-app-title" content="T3 Code">"#,
);

const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What says something about serve's bytes that is not true of ours.
const BODY_SPECIFIC_HEADERS: [&str; 6] =
    ["last-modified", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];

/// A page that was asked for.
#[derive(Debug)]
pub struct PageRequest {
    /// serve's names of the documents that the browser has with our tags in them.
    known: Vec<String>,
}

/// Looks at a request on its way to serve. `None` when its answer cannot be a page.
///
/// What the browser knows of the page is translated: names that were made here become serve's
/// again; a browser that navigates and knows the page without our tags, or with others, does not
/// know it at all.
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
        // Pages of ours have no date.
        headers.remove(IF_MODIFIED_SINCE);
    }
    Some(PageRequest { known })
}

impl PageRequest {
    /// Looks at serve's answer and puts the tags in where they belong. Returns when the end of the
    /// head is known; the rest is streamed.
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

    /// serve says that the browser's copy is good: the copy goes by our name.
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

/// `text/html`, and bytes below 128 are ASCII.
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

/// One of the words in a list of them, parameters aside.
fn mentions(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.split(';').next().is_some_and(|part| part.trim().eq_ignore_ascii_case(word)))
}

/// Headers as they are true with the tags in the body. `false`, with nothing changed, when the
/// length makes no sense.
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

/// The same address gives other bytes to a page's own `fetch`.
fn vary(headers: &mut HeaderMap) {
    if !mentions(headers, &header::VARY, "*") && !mentions(headers, &header::VARY, FETCH_DEST.as_str()) {
        headers.append(header::VARY, HeaderValue::from_static("Sec-Fetch-Dest"));
    }
}

#[cfg(test)]
mod tests;
