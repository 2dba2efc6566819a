//! Identity and address of a client, from the headers that a trusted proxy sets. Pure; ignores the
//! headers of a peer outside the trusted networks.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// Header of authentik with the login.
pub const USERNAME: &str = "x-authentik-username";

/// Reason for a 403.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The peer is outside the trusted networks.
    #[error("{0} is not a trusted proxy; see --trusted-proxy")]
    Untrusted(IpAddr),
    /// A trusted proxy sent no login.
    #[error("no X-authentik-username header: is the request authenticated?")]
    MissingName,
    /// More than one name, or one that is not text.
    #[error("invalid X-authentik-username header")]
    InvalidName,
    #[error("user {0:?} has no entry in the routing table")]
    UnknownLogin(String),
}

/// Returns whether the address is in a trusted network. An IPv4-mapped IPv6 address counts as IPv4.
#[must_use]
pub fn trusted(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Returns the login from a trusted peer; of an e-mail address, its local part.
///
/// # Errors
/// [`IdentityError`] is the reason for the 403.
pub fn login<'a>(headers: &'a HeaderMap, peer: IpAddr, networks: &[IpNet]) -> Result<&'a str, IdentityError> {
    if !trusted(networks, peer) {
        return Err(IdentityError::Untrusted(peer.to_canonical()));
    }
    let mut names = headers.get_all(USERNAME).iter();
    let name = names.next().ok_or(IdentityError::MissingName)?;
    if names.next().is_some() {
        return Err(IdentityError::InvalidName);
    }
    let name = name.to_str().map_err(|_| IdentityError::InvalidName)?.trim();
    match name.split_once('@').map_or(name, |(local, _)| local) {
        "" => Err(IdentityError::MissingName),
        local => Ok(local),
    }
}

/// Returns the client's address: the leftmost hop of X-Forwarded-For that is not a trusted proxy,
/// else the peer. For records only: a client can forge the leftmost hops.
#[must_use]
pub fn client(headers: &HeaderMap, peer: IpAddr, networks: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted(networks, peer) {
        return peer;
    }
    headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|hop| address(hop.trim()))
        .find(|hop| !trusted(networks, *hop))
        .unwrap_or(peer)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Vec<IpNet> {
        ["127.0.0.0/8", "10.0.0.0/8", "::1/128"].iter().map(|text| text.parse().unwrap()).collect()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_login_counts_only_from_a_trusted_peer_and_only_once() {
        let from = |peer: &str, pairs: &[(&'static str, &str)]| {
            login(&headers(pairs), peer.parse().unwrap(), &networks()).map(str::to_owned)
        };
        assert_eq!(from("10.1.2.3", &[(USERNAME, "ann")]), Ok("ann".to_owned()));
        assert_eq!(from("::ffff:127.0.0.1", &[(USERNAME, "ann@example.org")]), Ok("ann".to_owned()));
        assert_eq!(
            from("192.0.2.1", &[(USERNAME, "ann")]),
            Err(IdentityError::Untrusted("192.0.2.1".parse().unwrap()))
        );
        assert_eq!(from("127.0.0.1", &[]), Err(IdentityError::MissingName));
        assert_eq!(from("127.0.0.1", &[(USERNAME, "@x")]), Err(IdentityError::MissingName));
        assert_eq!(
            from("127.0.0.1", &[(USERNAME, "ann"), (USERNAME, "bob")]),
            Err(IdentityError::InvalidName)
        );
    }

    #[test]
    fn the_client_is_the_leftmost_untrusted_hop() {
        for (peer, hops, expected) in [
            ("10.1.1.1", "203.0.113.7", "203.0.113.7"),
            ("10.1.1.1", "203.0.113.7, 198.51.100.1, 10.2.2.2", "203.0.113.7"),
            ("10.1.1.1", "10.9.9.9, 203.0.113.7", "203.0.113.7"),
            ("10.1.1.1", "nonsense\t, [2001:db8::1]:443", "2001:db8::1"),
            ("10.1.1.1", "", "10.1.1.1"),
            ("198.51.100.9", "203.0.113.7", "198.51.100.9"),
            ("::ffff:10.1.1.1", "::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            let map = headers(&[("x-forwarded-for", hops)]);
            let client = client(&map, peer.parse().unwrap(), &networks());
            assert_eq!(client.to_string(), expected, "{peer} {hops}");
        }
    }
}
