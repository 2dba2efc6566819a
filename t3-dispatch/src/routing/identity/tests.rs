//! Tests of identity and address of a client.

use std::path::Path;

use super::*;
use crate::routing::login::LONGEST_LOGIN;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, value.parse().unwrap());
    }
    map
}

fn trust() -> Trust {
    let networks = ["10.0.0.0/8", "2001:db8:1::/64"].map(|text| text.parse().unwrap()).into();
    Trust { hops: TrustedHops { networks, ..TrustedHops::default() }, ..Trust::default() }
}

#[test]
fn a_request_has_exactly_one_login() {
    let invalid = |why| Err(IdentityError::InvalidName(why));
    let long = "a".repeat(LONGEST_LOGIN + 1);
    for (values, expected) in [
        (&["ann"][..], Ok("ann")),
        (&[" ann\t"], Ok("ann")),
        (&["ann@example.org"], Ok("ann@example.org")),
        (&[], Err(IdentityError::MissingName)),
        (&[""], Err(IdentityError::MissingName)),
        (&["ann", "bob"], invalid(LoginError::Several)),
        (&["ann", "ann"], invalid(LoginError::Several)),
        (&["ann", ""], invalid(LoginError::Several)),
        (&["ann, bob"], invalid(LoginError::List)),
        (&["bob@x, alice"], invalid(LoginError::List)),
        (&["ann,"], invalid(LoginError::List)),
        (&["bob@a@b"], invalid(LoginError::At)),
        (&["bob@@b"], invalid(LoginError::At)),
        (&["@b"], invalid(LoginError::At)),
        (&["bob@"], invalid(LoginError::At)),
        (&["@"], invalid(LoginError::At)),
        (&["b\u{f6}b"], invalid(LoginError::Character)),
        (&["bob\tx"], invalid(LoginError::Character)),
        (&[&long], invalid(LoginError::Long)),
    ] {
        let pairs: Vec<_> = values.iter().map(|value| (USERNAME, *value)).collect();
        assert_eq!(login(&headers(&pairs)), expected, "{values:?}");
    }
}

#[test]
fn the_complete_login_comes_first_and_the_local_part_only_counts_for_known_domains() {
    let text = r#"{"bob": {"os_user": "bob", "port": 1}, "ann@example.org": {"os_user": "ann", "port": 2},
                   "ann": {"os_user": "other", "port": 3}}"#;
    let table = Table::parse(text, Path::new("test")).unwrap();
    let user = |login: &str, domains: &[&str]| {
        let domains: Vec<String> = domains.iter().map(ToString::to_string).collect();
        route(&table, login, &domains).map(|route| route.os_user.clone()).ok()
    };
    for (login, domains, expected) in [
        ("bob", &[][..], Some("bob")),
        ("bob@example.org", &[], None),
        ("bob@example.org", &["example.org"], Some("bob")),
        ("bob@EXAMPLE.org", &["example.org"], Some("bob")),
        ("bob@evil.example", &["example.org"], None),
        ("bob@example.org.evil.example", &["example.org"], None),
        ("bob@xexample.org", &["example.org"], None),
        ("ann@example.org", &["example.org"], Some("ann")),
        ("ann@example.org", &[], Some("ann")),
        ("ann", &[], Some("other")),
        ("Bob", &[], None),
        ("eve@example.org", &["example.org"], None),
    ] {
        assert_eq!(user(login, domains).as_deref(), expected, "{login} {domains:?}");
    }
}

#[test]
fn the_client_is_the_rightmost_untrusted_hop() {
    for (peer, hops_before, expected) in [
        ("10.1.1.1", &["203.0.113.7"][..], "203.0.113.7"),
        // A client can write the hops on the left.
        ("10.1.1.1", &["198.51.100.99, 203.0.113.7"], "203.0.113.7"),
        ("10.1.1.1", &["198.51.100.99", "203.0.113.7"], "203.0.113.7"),
        ("10.1.1.1", &["203.0.113.7, 198.51.100.1, 10.2.2.2"], "198.51.100.1"),
        ("10.1.1.1", &["203.0.113.7, 10.9.9.9, 127.0.0.1, "], "203.0.113.7"),
        ("10.1.1.1", &["10.9.9.9, 2001:db8:1::5"], "10.1.1.1"),
        ("10.1.1.1", &["203.0.113.7, [2001:db8::1]:443"], "2001:db8::1"),
        ("10.1.1.1", &["203.0.113.7:1234"], "203.0.113.7"),
        // The hop of the proxy is unusable: nothing to the left of it is used instead.
        ("10.1.1.1", &["203.0.113.7, nonsense"], "10.1.1.1"),
        ("10.1.1.1", &["203.0.113.7, \u{f6}"], "10.1.1.1"),
        ("10.1.1.1", &[""], "10.1.1.1"),
        ("10.1.1.1", &[], "10.1.1.1"),
        // A peer that is not trusted is the client itself.
        ("198.51.100.9", &["203.0.113.7"], "198.51.100.9"),
        ("::ffff:10.1.1.1", &["::ffff:203.0.113.7"], "203.0.113.7"),
    ] {
        let pairs: Vec<_> = hops_before.iter().map(|value| ("x-forwarded-for", *value)).collect();
        let client = client(&headers(&pairs), peer.parse().unwrap(), PeerOwner::Remote, &trust());
        assert_eq!(client.to_string(), expected, "{peer} {hops_before:?}");
    }
}

#[test]
fn a_named_header_has_precedence_if_it_has_one_address() {
    let name = http::HeaderName::from_static("cf-connecting-ip");
    let trust = Trust { client_ip_header: Some(name), ..trust() };
    for (values, expected) in [
        (&["198.51.100.5"][..], "198.51.100.5"),
        (&[" 2001:db8::9 "], "2001:db8::9"),
        (&["::ffff:198.51.100.5"], "198.51.100.5"),
        (&[], "203.0.113.7"),
        (&["198.51.100.5", "198.51.100.6"], "203.0.113.7"),
        (&["198.51.100.5, 198.51.100.6"], "203.0.113.7"),
        (&["x"], "203.0.113.7"),
    ] {
        let mut pairs = vec![("x-forwarded-for", "192.0.2.99, 203.0.113.7")];
        pairs.extend(values.iter().map(|value| ("cf-connecting-ip", *value)));
        let client = client(&headers(&pairs), "10.1.1.1".parse().unwrap(), PeerOwner::Remote, &trust);
        assert_eq!(client.to_string(), expected, "{values:?}");
    }
}

#[test]
fn a_long_login_is_shortened_in_messages() {
    let error = IdentityError::UnknownLogin("x".repeat(60_000)).to_string();
    assert!(error.len() < 150 && error.contains("xxx...\""), "{error}");
    assert_eq!(shortened("short"), "short");
    assert_eq!(shortened(&"\u{f6}".repeat(65)), format!("{}...", "\u{f6}".repeat(64)));
}
