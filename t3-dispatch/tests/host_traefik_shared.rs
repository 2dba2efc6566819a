//! Two users whose requests share the connections between a real Traefik and t3-dispatch: requests,
//! hostile logins, duplicated headers, abandoned requests and pairings in random order. Every
//! response and every session belongs to the user of its request.
//!
//! Needs pip (for Traefik) and a shell.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod pairing_fixture;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use pairing_fixture::{Fixture, MINT, NAVIGATION, TIMEOUT};
use t3_testkit::{harness::Traefik, prerequisite};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::{Duration, timeout},
};

/// Requests of each client.
const REQUESTS: usize = 150;
/// Clients of each user, with one connection to Traefik each.
const CLIENTS: usize = 4;

/// The users by number: what serves and mint know of them.
type Users = Arc<[String; 2]>;

/// What the serve of a user received: heads, and credentials.
#[derive(Debug, Default)]
struct Received {
    heads: Vec<String>,
    credentials: Vec<String>,
}

/// Reads one message with its body; `None` at the end of the connection.
async fn message(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().filter_map(|line| line.split_once(": "));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map(|(_, value)| value.parse::<usize>().unwrap()).next().unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, String::from_utf8_lossy(&body).into_owned()))
}

/// A serve that names its user in everything that it sends: body, and session cookie.
async fn serve(listener: TcpListener, users: Users, number: usize, received: Arc<Mutex<Received>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (users, received) = (Arc::clone(&users), Arc::clone(&received));
        tokio::spawn(async move {
            let user = &users[number];
            let mut stream = BufReader::new(stream);
            while let Some((head, body)) = message(&mut stream).await {
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut more = String::new();
                let answer = if path == "/api/auth/browser-session" {
                    received.lock().unwrap().credentials.push(body);
                    more = format!("Set-Cookie: t3_session=of-{user}; Path=/\r\n");
                    r#"{"authenticated":true}"#.to_owned()
                } else if path == "/api/auth/session" {
                    let own = head.contains(&format!("t3_session=of-{user}"));
                    format!(r#"{{"authenticated":{own}}}"#)
                } else {
                    format!("{user} {path}")
                };
                received.lock().unwrap().heads.push(head);
                // Responses of different users overtake each other.
                if path.ends_with("slow") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{more}\r\n{answer}", answer.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A relay that counts its connections, between Traefik and dispatch.
async fn counting(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (address, count)
}

/// A small generator with a known sequence.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Headers that claim to be another user; Traefik adds the true one.
fn claims(other: &str) -> [String; 8] {
    [
        String::new(),
        format!("X-authentik-username: {other}\r\n"),
        format!("X-Authentik-Username: {other}\r\nx-authentik-username: {other}@example.org\r\n"),
        format!("X_authentik_username: {other}\r\n"),
        format!("X-authentik_username: {other}\r\n"),
        format!(
            "X-T3-User: {other}\r\nX-Forwarded-User: {other}\r\nX-Authentik-Email: {other}@example.org\r\n"
        ),
        format!("Cookie: t3_session=of-{other}\r\n"),
        format!("X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Host: {other}.localhost\r\n"),
    ]
}

/// Logins of an identity provider that no user may be, sent by a router that adds none.
fn hostile(user: &str, other: &str) -> [String; 7] {
    let one = |login: &str| format!("X-authentik-username: {login}\r\n");
    [
        one(&format!("{other}@evil.example")),
        one(&format!("{other}@a@b")),
        one(&format!("{other}@example.org@example.org")),
        one(&format!("{user}, {other}")),
        one(&format!("{other} {user}")),
        format!("{}{}", one(user), one(other)),
        String::new(),
    ]
}

/// One client of a user: everything on one connection to Traefik, except what closes it.
async fn client(
    traefik: SocketAddr,
    users: Users,
    number: usize,
    seed: usize,
    counts: Arc<Mutex<BTreeMap<&'static str, usize>>>,
) {
    let (user, other) = (&users[number], &users[1 - number]);
    let mut random = Random(u64::try_from(seed * 2 + number + 1).unwrap());
    let mut stream = BufReader::new(TcpStream::connect(traefik).await.unwrap());
    for n in 0..REQUESTS {
        let slow = ["", "slow"][random.below(2)];
        let path = format!("/{seed}/{n}/{slow}");
        let mine = format!("Host: {user}.localhost\r\n");
        let claim = &claims(other)[random.below(8)];
        let (kind, text) = match random.below(10) {
            0 | 1 => {
                let login = &hostile(user, other)[random.below(7)];
                ("hostile", format!("GET {path} HTTP/1.1\r\nHost: t3.test\r\n{login}\r\n"))
            }
            2 => (
                "pairing",
                format!("GET /page HTTP/1.1\r\n{mine}{NAVIGATION}{}\r\n", claims(other)[random.below(6)]),
            ),
            3 => ("abandoned", format!("GET {path} HTTP/1.1\r\n{mine}{claim}\r\n")),
            4 => ("body", format!("POST {path} HTTP/1.1\r\n{mine}{claim}Content-Length: 5\r\n\r\n{n:05}")),
            _ => ("plain", format!("GET {path} HTTP/1.1\r\n{mine}{claim}\r\n")),
        };
        *counts.lock().unwrap().entry(kind).or_default() += 1;
        stream.write_all(text.as_bytes()).await.unwrap();
        if kind == "abandoned" {
            if random.below(2) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stream = BufReader::new(TcpStream::connect(traefik).await.unwrap());
            continue;
        }
        let (head, body) =
            timeout(TIMEOUT, message(&mut stream)).await.expect("no answer").expect("no answer");
        let status = head.split(' ').nth(1).unwrap_or_default();
        assert!(
            !body.starts_with(other.as_str()) && !head.contains(&format!("of-{other}")),
            "{text}\n{head}{body}"
        );
        match kind {
            "hostile" => assert!(["400", "403"].contains(&status), "{text}\n{head}{body}"),
            "pairing" => {
                // Too many pairings of a user are refused (429), never answered by another serve.
                if status == "302" {
                    assert!(head.contains(&format!("t3_session=of-{user};")), "{text}\n{head}");
                    *counts.lock().unwrap().entry("paired").or_default() += 1;
                } else {
                    assert!(body == format!("{user} /page") || status == "429", "{text}\n{head}{body}");
                }
            }
            _ => assert_eq!(
                (status, body.as_str()),
                ("200", format!("{user} {path}").as_str()),
                "{text}\n{head}"
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_response_and_every_pairing_belongs_to_the_user_of_its_request() {
    let listeners =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    // The name of user 0 is the start of all others, so that it is not used.
    let ports = [1, ports[0], ports[1]];
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::with_serves(&ports, dir, MINT, &["--login-domain", "example.org"]).await;
    let users: Users = Arc::new([fixture.user(1), fixture.user(2)]);
    let received = [Arc::<Mutex<Received>>::default(), Arc::default()];
    for (number, listener) in listeners.into_iter().enumerate() {
        tokio::spawn(serve(listener, Arc::clone(&users), number, Arc::clone(&received[number])));
    }
    let (relay, upstream) = counting(fixture.address).await;
    let rules = tempfile::tempdir().unwrap();
    let (path, names) = (rules.path().to_owned(), Arc::clone(&users));
    let started = tokio::task::spawn_blocking(move || {
        Traefik::start_for(&path, relay, &names.each_ref().map(String::as_str))
    });
    let Some(traefik) = prerequisite::or_skip("Traefik in front", started.await.unwrap()) else { return };

    // In turn, all on one connection: Traefik knows no users.
    let before = upstream.load(Ordering::SeqCst);
    let mut streams = [0, 1].map(|_| std::net::TcpStream::connect(traefik.address).unwrap()).map(|stream| {
        stream.set_nonblocking(true).unwrap();
        BufReader::new(TcpStream::from_std(stream).unwrap())
    });
    for n in 0..40 {
        let (user, stream) = (&users[n % 2], &mut streams[n % 2]);
        let text = format!("GET /turn/{n} HTTP/1.1\r\nHost: {user}.localhost\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let (_, body) = timeout(TIMEOUT, message(stream)).await.expect("no answer").expect("no answer");
        assert_eq!(body, format!("{user} /turn/{n}"));
    }
    assert!(upstream.load(Ordering::SeqCst) <= before + 1, "the users do not share a connection");

    let counts = Arc::<Mutex<BTreeMap<&'static str, usize>>>::default();
    let mut clients = tokio::task::JoinSet::new();
    for seed in 0..CLIENTS {
        for number in 0..2 {
            clients.spawn(client(traefik.address, Arc::clone(&users), number, seed, Arc::clone(&counts)));
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let counts = counts.lock().unwrap().clone();
    let connections = upstream.load(Ordering::SeqCst);
    eprintln!("{counts:?} on {connections} connections between Traefik and dispatch");
    // An abandoned request ends its connection; all others use those that exist.
    let others = 2 * CLIENTS * REQUESTS - counts["abandoned"];
    assert!(connections < counts["abandoned"] + others / 10, "not shared: {connections}");
    assert!(counts["paired"] > 0 && counts["hostile"] > 100, "{counts:?}");
    for (number, received) in received.iter().enumerate() {
        let (user, other) = (&users[number], &users[1 - number]);
        let received = received.lock().unwrap();
        let login = format!("x-authentik-username: {user}@example.org");
        for head in &received.heads {
            let head = head.to_ascii_lowercase();
            let of_dispatch = head.contains("/api/auth/");
            assert!(of_dispatch || head.contains(&login), "{user}: {head}");
            assert!(!head.contains(&format!("x-authentik-username: {other}")), "{user}: {head}");
        }
        assert!(!received.credentials.is_empty(), "{user} was not paired");
        for credential in &received.credentials {
            // The mint puts its user between prefix and process id.
            assert!(credential.contains(&format!("one-time-{user}-")), "{user}: {credential}");
        }
    }
}
