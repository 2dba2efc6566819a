//! Trust and identity, from the client's socket to serve: secret header, own hosts, logins, the
//! client's address.

#![cfg(test)]

mod fixture;

use std::{io::Write, os::unix::fs::PermissionsExt, time::Duration};

use fixture::{Fixture, TIMEOUT, UNTRUSTED, head, switching};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

const SECRET: &str = "a-secret-of-the-proxy";

async fn status(fixture: &Fixture, headers: &str) -> String {
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.unwrap();
    head(&mut client).await.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Asserts that serve gets the request, and returns its head.
async fn forwarded(fixture: &Fixture, headers: &str) -> String {
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.unwrap();
    let (mut serve, request) = fixture.accept().await;
    serve.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    request
}

async fn nothing_reached_serve(fixture: &Fixture) {
    assert!(timeout(Duration::from_millis(200), fixture.serve.accept()).await.is_err(), "serve was asked");
}

fn secret_file() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{SECRET}").unwrap();
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_secret_a_trusted_peer_needs_it_and_serve_never_sees_it() {
    let file = secret_file();
    let path = file.path().to_str().unwrap();
    let fixture = Fixture::new(&["--proxy-secret-file", path]).await;
    let ann = "Host: t3\r\nX-authentik-username: ann\r\n";
    for secret in [
        String::new(),
        "X-T3-Proxy-Secret: wrong-secret-0123456789\r\n".to_owned(),
        format!("X-T3-Proxy-Secret: {SECRET}\r\nX-T3-Proxy-Secret: {SECRET}\r\n"),
        format!("X-T3-Proxy-Secret: {SECRET}x\r\n"),
    ] {
        assert_eq!(status(&fixture, &format!("{ann}{secret}")).await, "403", "{secret}");
    }
    nothing_reached_serve(&fixture).await;
    let good = format!("{ann}x-t3-proxy-secret: {SECRET}\r\n");
    let request = forwarded(&fixture, &good).await;
    assert!(!request.to_ascii_lowercase().contains("proxy-secret"), "{request}");
    // Of a WebSocket as well, and when the client declares it as a connection option.
    let mut client = fixture.send_upgrade("ann", &format!("X-T3-Proxy-Secret: {SECRET}\r\n")).await;
    let (mut serve, request) = fixture.accept().await;
    assert!(!request.to_ascii_lowercase().contains("proxy-secret"), "{request}");
    serve.write_all(switching().as_bytes()).await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
    assert!(fixture.messages("").iter().all(|message| !message.contains(SECRET)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_alone_is_not_enough_and_without_the_option_the_header_is_removed_too() {
    let file = secret_file();
    let path = file.path().to_str().unwrap();
    let fixture = Fixture::new(&["--proxy-secret-file", path, "--trusted-user", UNTRUSTED]).await;
    let request = format!("Host: t3\r\nX-authentik-username: ann\r\nX-T3-Proxy-Secret: {SECRET}\r\n");
    assert_eq!(status(&fixture, &request).await, "403");
    let fixture = Fixture::new(&[]).await;
    let request = forwarded(&fixture, &request).await;
    assert!(!request.to_ascii_lowercase().contains("proxy-secret"), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_gets_421_and_own_pages_have_no_host() {
    let fixture = Fixture::new(&["--host", "t3.example.org,10.0.10.10:3780"]).await;
    for host in ["evil.example", "127.0.0.1:3780", "t3.example.org.evil.example", "10.0.10.10"] {
        let request = format!("Host: {host}\r\nX-authentik-username: ann\r\n");
        assert_eq!(status(&fixture, &request).await, "421", "{host}");
    }
    // A name that another hop reported does not replace it.
    let request = "Host: evil.example\r\nX-Forwarded-Host: t3.example.org\r\nX-authentik-username: ann\r\n";
    assert_eq!(status(&fixture, request).await, "421");
    nothing_reached_serve(&fixture).await;
    for host in ["t3.example.org", "T3.Example.org:443", "10.0.10.10:3780"] {
        forwarded(&fixture, &format!("Host: {host}\r\nX-authentik-username: ann\r\n")).await;
    }
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: 10.1.2.3\r\n\r\n").await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
    // An upgrade, too: its Origin would match the host.
    let mut client = fixture.send_upgrade("ann", "").await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 421 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_not_exactly_one_gets_400_and_a_foreign_domain_403() {
    let fixture = Fixture::new(&["--login-domain", "Example.org"]).await;
    let name = |login: &str| format!("X-authentik-username: {login}\r\n");
    for (logins, expected) in [
        (&["ann", "ann"][..], "400"),
        (&["ann", "gone"], "400"),
        (&["ann, gone"], "400"),
        (&["ann@x, gone"], "400"),
        (&["ann@a@b"], "400"),
        (&["ann@example.org@example.org"], "400"),
        (&["@example.org"], "400"),
        (&["ann@"], "400"),
        (&["ann@evil.example"], "403"),
        (&["ann@sub.example.org"], "403"),
        (&["Ann@example.org"], "403"),
        (&[""], "403"),
        (&[], "403"),
    ] {
        let logins: String = logins.iter().map(|login| name(login)).collect();
        assert_eq!(status(&fixture, &format!("Host: t3\r\n{logins}")).await, expected, "{logins}");
    }
    nothing_reached_serve(&fixture).await;
    for login in ["ann", "ann@example.org", "ann@EXAMPLE.ORG"] {
        forwarded(&fixture, &format!("Host: t3\r\n{}", name(login))).await;
    }
    let long = "x".repeat(30_000);
    assert_eq!(status(&fixture, &format!("Host: t3\r\n{}", name(&long))).await, "400");
    assert!(fixture.messages("").iter().all(|message| message.len() < 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_has_the_address_that_the_proxy_reports() {
    let forged =
        "X-Forwarded-For: 198.51.100.66, 203.0.113.7, 10.1.1.1\r\nCf-Connecting-Ip: 203.0.113.99\r\n";
    for (options, expected) in [
        (&["--trusted-proxy", "10.0.0.0/8"][..], "203.0.113.7"),
        (&[], "10.1.1.1"),
        (&["--client-ip-header", "Cf-Connecting-Ip"], "203.0.113.99"),
        (&["--client-ip-header", "X-Real-Ip", "--trusted-proxy", "10.0.0.0/8"], "203.0.113.7"),
    ] {
        let mut fixture = Fixture::new(options).await;
        let mut client = fixture.send_upgrade("ann", forged).await;
        let (mut serve, _) = fixture.accept().await;
        serve.write_all(switching().as_bytes()).await.unwrap();
        head(&mut client).await;
        drop((client, serve));
        let (_, record) = timeout(TIMEOUT, fixture.judgement()).await.unwrap();
        assert_eq!(record.ip, expected, "{options:?}");
    }
}
