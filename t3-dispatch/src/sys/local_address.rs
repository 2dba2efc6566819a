//! Addresses of this host: whether the peer of a connection is a process of the same host.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use ipnet::IpNet;

/// Flag of routes to an own address (include/uapi/linux/ipv6_route.h).
const RTF_LOCAL: u32 = 0x8000_0000;

/// Returns whether `remote`, the peer of a connection accepted on `local`, is an address of this
/// host. If that cannot be determined, it is.
#[must_use]
pub fn is_local(remote: SocketAddr, local: SocketAddr) -> bool {
    let ip = remote.ip().to_canonical();
    if ip.is_loopback() || ip == local.ip().to_canonical() {
        return true;
    }
    // The kernel binds a socket only to own addresses, those of "AnyIP" routes included.
    let address = if ip.is_ipv4() { SocketAddr::new(ip, 0) } else { without_port(remote) };
    match UdpSocket::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => false,
        // net.ipv4.ip_nonlocal_bind permits every address, so the routes decide.
        _ => routes_of(ip).is_none_or(|routes| routes.iter().any(|route| route.contains(&ip))),
    }
}

/// Keeps the scope of a link-local address.
fn without_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}

/// Destinations of the family that the kernel delivers to this host; `None` if they cannot be read.
fn routes_of(ip: IpAddr) -> Option<Vec<IpNet>> {
    let (file, parse): (_, fn(&str) -> Vec<IpNet>) =
        if ip.is_ipv4() { ("fib_trie", ipv4_routes) } else { ("ipv6_route", ipv6_routes) };
    let routes = parse(&fs::read_to_string(format!("/proc/self/net/{file}")).ok()?);
    // Every host has a route to its loopback addresses. Without one, the file has another format.
    routes.iter().any(|route| route.addr().is_loopback()).then_some(routes)
}

/// Parses `fib_trie`: a line `|-- ADDRESS` is followed by lines `/BITS SCOPE TYPE`.
fn ipv4_routes(text: &str) -> Vec<IpNet> {
    let mut routes = Vec::new();
    let mut address = None;
    for line in text.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            address = leaf.parse::<Ipv4Addr>().ok();
        } else if let Some(rest) = line.strip_prefix('/') {
            let mut words = rest.split_whitespace();
            let (bits, kind) = (words.next().and_then(|bits| bits.parse().ok()), words.nth(1));
            if let (Some(address), Some(bits), Some("LOCAL")) = (address, bits, kind) {
                routes.extend(IpNet::new(address.into(), bits).ok());
            }
        }
    }
    routes
}

/// Parses `ipv6_route`: destination and prefix length are the first fields, flags the ninth, all in
/// hexadecimal.
fn ipv6_routes(text: &str) -> Vec<IpNet> {
    let route = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
        let address = Ipv6Addr::from(u128::from_str_radix(fields.first()?, 16).ok()?);
        let bits = u8::from_str_radix(fields.get(1)?, 16).ok()?;
        (flags & RTF_LOCAL != 0).then(|| IpNet::new(address.into(), bits).ok())?
    };
    text.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_local_and_others_are_not() {
        let local: SocketAddr = "127.0.0.1:3780".parse().unwrap();
        for (remote, expected) in [
            ("127.0.0.1:4000", true),
            ("127.9.9.9:4000", true),
            ("[::1]:4000", true),
            ("[::ffff:127.0.0.1]:4000", true),
            ("192.0.2.1:4000", false),
            ("[::ffff:192.0.2.1]:4000", false),
            ("[2001:db8::1]:4000", false),
        ] {
            assert_eq!(is_local(remote.parse().unwrap(), local), expected, "{remote}");
        }
        let other: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        assert!(is_local(other, "192.0.2.1:3780".parse().unwrap()), "the address that it connected to");
    }

    #[test]
    fn only_local_routes_count() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
            Local:\n     |-- 127.0.0.0\n        /8 host LOCAL\n     |-- 10.0.0.7\n        /32 host LOCAL\n\
                 |-- 10.0.0.255\n        /32 link BROADCAST\n";
        let routes: Vec<_> = ipv4_routes(text).iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["127.0.0.0/8", "10.0.0.7/32"]);
        let zero = "0".repeat(32);
        let one = format!("{}1", "0".repeat(31));
        let text = format!(
            "{one} 80 {zero} 00 {zero} 00000000 00000002 00000000 80200001       lo\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\nbroken\n"
        );
        let routes: Vec<_> = ipv6_routes(&text).iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["::1/128"]);
        assert_eq!((ipv4_routes("x"), ipv6_routes("x")), (Vec::new(), Vec::new()));
    }

    #[test]
    fn the_routes_of_this_host_are_readable() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let routes = routes_of(loopback).unwrap();
        assert!(routes.iter().any(|route| route.contains(&loopback)));
    }
}
