//! Identity and address of a client, from the headers of a trusted hop ([`crate::routing::trust`]).
//! Pure.

use std::net::IpAddr;

use http::HeaderMap;

use crate::{
    routing::{
        login::{LoginError, check_login},
        table::{Route, Table},
        trust::{Trust, TrustedHops, Untrusted},
    },
    sys::peer_owner::PeerOwner,
};

/// Header of authentik with the login.
pub const USERNAME: &str = "x-authentik-username";
/// Characters of a login or header value in a log line or a message.
const SHOWN: usize = 64;

/// Reason for a 400 or 403.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// A trusted proxy sent no login.
    #[error("no X-authentik-username header: is the request authenticated?")]
    MissingName,
    #[error("invalid X-authentik-username header: {0}")]
    InvalidName(LoginError),
    #[error("user {:?} has no entry in the routing table", shortened(.0))]
    UnknownLogin(String),
}

/// Returns the login in the headers of a trusted hop.
///
/// # Errors
/// [`IdentityError`].
pub fn login(headers: &HeaderMap) -> Result<&str, IdentityError> {
    let mut names = headers.get_all(USERNAME).iter();
    let name = names.next().ok_or(IdentityError::MissingName)?;
    if names.next().is_some() {
        return Err(IdentityError::InvalidName(LoginError::Several));
    }
    let name = name.to_str().map_err(|_| IdentityError::InvalidName(LoginError::Character))?.trim();
    if name.is_empty() {
        // authentik sends an empty header without a user.
        return Err(IdentityError::MissingName);
    }
    check_login(name).map_err(IdentityError::InvalidName)?;
    Ok(name)
}

/// Returns the route of a login: of the complete login, else of its local part if its domain is one
/// of `domains` (in lower case).
///
/// # Errors
/// [`IdentityError::UnknownLogin`].
pub fn route<'a>(table: &'a Table, login: &str, domains: &[String]) -> Result<&'a Route, IdentityError> {
    let by_local_part = || {
        let (local, domain) = login.split_once('@')?;
        domains.iter().any(|known| known.eq_ignore_ascii_case(domain)).then(|| table.route(local))?
    };
    let unknown = || IdentityError::UnknownLogin(login.to_owned());
    table.route(login).or_else(by_local_part).ok_or_else(unknown)
}

/// Returns the client's address, as a trusted hop reports it: the value of the configured header,
/// else the rightmost hop of X-Forwarded-For that is not a trusted proxy, else the peer. A client
/// can write anything to the left of that hop.
#[must_use]
pub fn client(headers: &HeaderMap, peer: IpAddr, owner: PeerOwner, trust: &Trust) -> IpAddr {
    if trust.hops.check(peer, owner, headers).is_err() {
        return peer.to_canonical();
    }
    let named = trust.client_ip_header.as_ref().and_then(|name| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        address(value.to_str().ok()?.trim())
    });
    named.or_else(|| rightmost(headers, &trust.hops)).unwrap_or_else(|| peer.to_canonical())
}

/// The rightmost hop that is not a trusted proxy; `None` if all are, or if that hop is not an
/// address. A loopback address is that of a proxy, because no client is on the host of a proxy.
fn rightmost(headers: &HeaderMap, hops: &TrustedHops) -> Option<IpAddr> {
    let values: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let chain = values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    let mut chain = chain.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty());
    chain
        .find_map(|hop| {
            let hop = std::str::from_utf8(hop).ok().and_then(address);
            let is_proxy = |hop: IpAddr| hop.is_loopback() || hops.has_network(hop);
            if hop.is_some_and(is_proxy) { None } else { Some(hop) }
        })
        .flatten()
}

/// Parses an address with or without brackets and port.
fn address(hop: &str) -> Option<IpAddr> {
    let parsed = hop
        .parse::<IpAddr>()
        .ok()
        .or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    parsed.map(|address| address.to_canonical())
}

/// Returns the beginning of a text from a client, for a log line or a message.
#[must_use]
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
