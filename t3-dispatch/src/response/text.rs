//! Plain-text responses.

use http::{Response, StatusCode, header};

use crate::response::body::ResponseBody;

/// Returns a plain-text response.
#[must_use]
pub fn plain(status: StatusCode, text: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(format!("{text}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
