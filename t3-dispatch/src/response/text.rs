//! Plain-text responses.

use http::{Response, StatusCode, header};

use crate::response::body::ResponseBody;

/// Text of the 502 for a user whose serve port belongs to another user.
pub const FOREIGN_LISTENER: &str = "the port of t3 serve belongs to another user; see the log of t3-dispatch";

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
