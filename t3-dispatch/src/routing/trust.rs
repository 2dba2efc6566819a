//! Trust in the previous hop: whether the identity and forwarding headers of a request count. Pure.
//!
//! A process of this host is trusted by its user, never by its address, because all users of the
//! host share the loopback address. A peer on the network is trusted by its network. With proxy
//! secrets, the request needs one of them as well.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::{routing::host::OwnHost, sys::peer_owner::PeerOwner};

/// Header with the secret that a proxy adds. It never reaches serve.
pub const SECRET: HeaderName = HeaderName::from_static("x-t3-proxy-secret");
/// Minimum length of a secret, in bytes.
const SHORTEST_SECRET: usize = 16;

/// Reason why the headers of a hop do not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("{0} is not a trusted proxy; see --trusted-proxy")]
    Network(IpAddr),
    #[error("the local user with uid {0} is not a trusted proxy; see --trusted-user")]
    User(u32),
    #[error("a local process that is not a trusted proxy (user unknown); see --trusted-user")]
    UnknownUser,
    #[error("no valid X-T3-Proxy-Secret header; see --proxy-secret-file")]
    Secret,
}

/// Secrets of `--proxy-secret-file`: one per line, so that they can be replaced without an
/// interruption. Cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxySecrets(Vec<String>);

impl std::fmt::Debug for ProxySecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxySecrets")
    }
}

impl ProxySecrets {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// Describes the file, without a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let secrets: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if secrets.is_empty() {
            return Err("contains no secret".to_owned());
        }
        if secrets.iter().any(|secret| !secret.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err("a secret must consist of ASCII letters, digits and punctuation".to_owned());
        }
        if secrets.iter().any(|secret| secret.len() < SHORTEST_SECRET) {
            return Err(format!("a secret must have at least {SHORTEST_SECRET} characters"));
        }
        Ok(Self(secrets.into_iter().map(str::to_owned).collect()))
    }

    fn contain(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(SECRET).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        // All are compared, so that the time does not depend on the one that matches.
        self.0.iter().fold(false, |found, secret| found | equal(secret.as_bytes(), value.as_bytes()))
    }
}

/// Compares in a time that depends on the lengths only.
fn equal(secret: &[u8], given: &[u8]) -> bool {
    let differences = secret.iter().zip(given).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    secret.len() == given.len() && differences == 0
}

/// The trusted hops.
#[derive(Debug, Clone, Default)]
pub struct TrustedHops {
    /// Networks of proxies on other hosts.
    pub networks: Vec<IpNet>,
    /// Users of proxies on this host.
    pub users: Vec<u32>,
    pub secrets: Option<ProxySecrets>,
}

impl TrustedHops {
    /// Checks the peer of a connection, by its user or network.
    ///
    /// # Errors
    /// [`Untrusted`]: no request on the connection counts.
    pub fn check_peer(&self, peer: IpAddr, owner: PeerOwner) -> Result<(), Untrusted> {
        match owner {
            PeerOwner::Remote if !self.has_network(peer) => Err(Untrusted::Network(peer.to_canonical())),
            PeerOwner::Local(None) | PeerOwner::Closed(_) => Err(Untrusted::UnknownUser),
            PeerOwner::Local(Some(user)) if !self.users.contains(&user) => Err(Untrusted::User(user)),
            PeerOwner::Remote | PeerOwner::Local(Some(_)) => Ok(()),
        }
    }

    /// Checks the previous hop of a request.
    ///
    /// # Errors
    /// [`Untrusted`]: its identity and forwarding headers do not count.
    pub fn check(&self, peer: IpAddr, owner: PeerOwner, headers: &HeaderMap) -> Result<(), Untrusted> {
        self.check_peer(peer, owner)?;
        match &self.secrets {
            Some(secrets) if !secrets.contain(headers) => Err(Untrusted::Secret),
            _ => Ok(()),
        }
    }

    /// Returns whether an address is in a trusted network. An IPv4-mapped address counts as IPv4.
    #[must_use]
    pub fn has_network(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// Whose headers count, and for which requests.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    pub hops: TrustedHops,
    /// Own hosts; none permits every host.
    pub hosts: Vec<OwnHost>,
    /// Domains of which the local part of a login counts, in lower case.
    pub login_domains: Vec<String>,
    /// Header with the client's address.
    pub client_ip_header: Option<HeaderName>,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FIRST: &str = "first-secret-0123456789";
    const SECOND: &str = "second-secret-0123456789";

    fn hops(secrets: bool) -> TrustedHops {
        TrustedHops {
            networks: ["10.0.0.0/8", "2001:db8::/64", "127.0.0.0/8"].map(|text| text.parse().unwrap()).into(),
            users: vec![0, 998],
            secrets: secrets.then(|| ProxySecrets::parse(&format!("{FIRST}\n\n {SECOND}\n")).unwrap()),
        }
    }

    #[test]
    fn a_local_peer_is_trusted_by_user_and_a_remote_one_by_network() {
        let (yes, network) = (Ok(()), |ip: &str| Err(Untrusted::Network(ip.parse().unwrap())));
        for (peer, owner, expected) in [
            ("10.1.2.3", PeerOwner::Remote, yes.clone()),
            ("::ffff:10.1.2.3", PeerOwner::Remote, yes.clone()),
            ("2001:db8::7", PeerOwner::Remote, yes.clone()),
            ("192.0.2.1", PeerOwner::Remote, network("192.0.2.1")),
            ("::ffff:192.0.2.1", PeerOwner::Remote, network("192.0.2.1")),
            ("127.0.0.1", PeerOwner::Local(Some(0)), yes.clone()),
            ("192.0.2.1", PeerOwner::Local(Some(998)), yes),
            ("127.0.0.1", PeerOwner::Local(Some(1001)), Err(Untrusted::User(1001))),
            // Its address is in a trusted network, which does not matter.
            ("10.1.2.3", PeerOwner::Local(Some(1001)), Err(Untrusted::User(1001))),
            ("10.1.2.3", PeerOwner::Local(None), Err(Untrusted::UnknownUser)),
        ] {
            let found = hops(false).check(peer.parse().unwrap(), owner, &HeaderMap::new());
            assert_eq!(found, expected, "{peer} {owner:?}");
        }
        let nobody = TrustedHops::default();
        for owner in [PeerOwner::Remote, PeerOwner::Local(Some(0)), PeerOwner::Local(None)] {
            assert!(nobody.check("127.0.0.1".parse().unwrap(), owner, &HeaderMap::new()).is_err());
        }
    }

    #[test]
    fn a_secret_is_required_in_addition() {
        let check = |values: &[&str], owner| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SECRET, HeaderValue::from_str(value).unwrap());
            }
            hops(true).check("10.1.2.3".parse().unwrap(), owner, &headers)
        };
        for good in [FIRST, SECOND] {
            assert_eq!(check(&[good], PeerOwner::Remote), Ok(()));
            assert_eq!(check(&[good], PeerOwner::Local(Some(0))), Ok(()));
            assert_eq!(check(&[good], PeerOwner::Local(Some(7))), Err(Untrusted::User(7)));
        }
        let longer = format!("{FIRST}x");
        for bad in [
            &[][..],
            &[""],
            &["first"],
            &[&longer],
            &[&FIRST[1..]],
            &[FIRST, FIRST],
            &["first-secret-0123456789, second-secret-0123456789"],
        ] {
            assert_eq!(check(bad, PeerOwner::Remote), Err(Untrusted::Secret), "{bad:?}");
        }
    }

    #[test]
    fn a_file_without_a_usable_secret_is_rejected_without_showing_it() {
        for text in [
            "",
            " \n\n",
            "short",
            "with space 0123456789",
            "pässword-0123456789",
            "good-secret-0123456789\nx",
        ] {
            let error = ProxySecrets::parse(text).unwrap_err();
            assert!(text.trim().is_empty() || !error.contains(text.trim()), "{error}");
        }
        assert_eq!(format!("{:?}", ProxySecrets::parse(FIRST).unwrap()), "ProxySecrets");
    }
}
