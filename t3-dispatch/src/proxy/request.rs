//! Client identity and request form of a forwarded request.

use std::{net::IpAddr, sync::Arc};

use ::http::{Request, StatusCode, Uri, Version};

use crate::{
    http::{guard::InterimSender, headers},
    routing::table::Route,
    upstream::request_body::UploadProgress,
};

/// Login and route of a client.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The login that the trusted proxy named.
    pub login: String,
    /// Its entry in the routing table.
    pub route: Route,
    /// Address of the client, as the trusted proxy reports it.
    pub ip: IpAddr,
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

/// Passes interim responses (1xx) of serve on to the client. 100 Continue starts the upload of a
/// client that waits for it; the HTTP library sends its own to the client.
pub fn pass_interims<B>(request: &mut Request<B>, upload: Option<Arc<UploadProgress>>) {
    let sender = request.extensions_mut().remove::<InterimSender>();
    hyper::ext::on_informational(request, move |response| match (response.status(), &sender) {
        (StatusCode::CONTINUE, _) => {
            if let Some(upload) = &upload {
                upload.set_continued();
            }
        }
        (status, Some(sender)) => sender.send(status, response.headers()),
        _ => {}
    });
}
