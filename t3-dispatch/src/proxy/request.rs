//! Client identity and request form of a forwarded request.

use std::net::IpAddr;

use ::http::{Request, Uri, Version};

use crate::{http::headers, routing::table::Route};

/// Login and route of a client.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The login that the trusted proxy named.
    pub login: String,
    /// Its entry in the routing table.
    pub route: Route,
}

/// Prepares a request for serve: origin form, HTTP/1.1, and the previous hop in the forwarding
/// headers.
pub fn prepare<B>(request: &mut Request<B>, peer: IpAddr) {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // The URL may consist of a query only.
    let slash = if path.starts_with('/') { "" } else { "/" };
    if let Ok(uri) = format!("{slash}{path}").parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_11;
    headers::forwarded(request.headers_mut(), peer);
}
