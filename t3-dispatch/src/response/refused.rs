//! Response to a request that the guard rejects.

use http::{HeaderValue, Response, header};

use crate::{
    http::guard::Violation,
    response::{body::ResponseBody, text::plain},
};

/// Returns the response to a violation. It is the last response on its connection.
#[must_use]
pub fn refused(why: Violation) -> Response<ResponseBody> {
    let status = why.status();
    let mut response = plain(status, &why.to_string());
    if why == Violation::Method {
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    close(&mut response);
    response
}

/// Announces that the connection ends after this response.
pub fn close(response: &mut Response<ResponseBody>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
