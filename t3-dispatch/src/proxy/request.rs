//! A request on its way to serve: whose it is, and the form that serve gets.

use std::net::IpAddr;

use ::http::{Request, Uri, Version};

use crate::{http::headers, routing::table::Route};

/// Who asks, and where that goes.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The login that the trusted proxy named.
    pub login: String,
    /// Its entry in the routing table.
    pub route: Route,
}

/// A request as serve should see it: origin form, HTTP/1.1, with the hop before us in its
/// forwarding headers.
pub fn prepare<B>(request: &mut Request<B>, peer: IpAddr) {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // Of a URL without a path only the query is left.
    let slash = if path.starts_with('/') { "" } else { "/" };
    if let Ok(uri) = format!("{slash}{path}").parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_11;
    headers::forwarded(request.headers_mut(), peer);
}
