//! Log budget of the program: no client can flood the journal. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod program;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use program::{Running, table};

const TABLE: &str = r#"{"ann": {"os_user": "ann", "port": 1}}"#;

fn send(running: &Running, request: &str) {
    let mut client = TcpStream::connect(&running.address).unwrap();
    // The response to an invalid request can arrive before its end.
    let _ = client.write_all(request.as_bytes());
    let _ = client.read_to_end(&mut Vec::new());
}

/// Sends the request `times` times; returns the log lines after the start.
fn logged(request: &str, times: usize) -> Vec<String> {
    let file = table(TABLE);
    let mut running = Running::start_with(file.path(), &["--no-pairing", "--upgrade-rate", "0"]);
    for _ in 0..times {
        send(&running, request);
    }
    running.signal(libc::SIGTERM);
    let mut log = String::new();
    running.log.read_to_string(&mut log).unwrap();
    // Records are never throttled, and not lines of the log.
    log.lines().filter(|line| !line.contains("ws ")).map(str::to_owned).collect()
}

fn upgrade(user: &str, key: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: {user}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\n{key}\r\n"
    )
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn no_request_causes_a_line_each_time() {
    let get = "GET / HTTP/1.1\r\nHost: t3\r\nConnection: close\r\n";
    for (what, request, part, suppressed) in [
        ("not HTTP", "GARBAGE\r\n\r\n".to_owned(), "400: ", 295),
        (
            "an invalid body",
            "POST / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            "40",
            1,
        ),
        ("a malformed upgrade", upgrade("ann", ""), "400: ", 295),
        ("no serve", format!("{get}X-Authentik-Username: ann\r\n\r\n"), "502: ", 280),
        ("an upgrade without serve", upgrade("ann", KEY), "cannot connect to serve", 280),
        ("no identity", format!("{get}\r\n"), "403: ", 299),
        ("an unknown user", format!("{get}X-Authentik-Username: mallory\r\n\r\n"), "403: ", 299),
    ] {
        let lines = logged(&request, 300);
        assert!(lines.len() < 30, "{what}: {} lines, the last {:?}", lines.len(), lines.last());
        if suppressed > 1 {
            assert!(lines.iter().any(|line| line.contains(part)), "{what}: {lines:#?}");
            let count = format!("suppressed={suppressed}");
            assert!(lines.iter().any(|line| line.contains(&count)), "{what}: no {count} in {lines:#?}");
        }
    }
}

#[test]
fn a_long_login_or_path_is_cut() {
    let long = "x".repeat(60_000);
    for request in [
        format!("GET / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: {long}\r\nConnection: close\r\n\r\n"),
        format!(
            "GET /{} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nConnection: close\r\n\r\n",
            &long[..16_000]
        ),
        format!("GET /{} HTTP/1.1\r\nHost: t3\r\nConnection: close\r\n\r\n", &long[..16_000]),
    ] {
        let lines = logged(&request, 1);
        assert!(
            lines
                .iter()
                .any(|line| line.contains("400: ") || line.contains("403: ") || line.contains("502: ")),
            "{lines:#?}"
        );
        let longest = lines.iter().map(String::len).max().unwrap();
        assert!(longest < 1500, "{longest}");
    }
}

#[test]
fn a_flood_takes_no_record() {
    const TIMES: usize = 300;
    let file = table(TABLE);
    let mut running = Running::start_with(file.path(), &["--no-pairing", "--upgrade-rate", "0"]);
    for _ in 0..TIMES {
        send(&running, "GARBAGE\r\n\r\n");
        send(&running, &upgrade("ann", KEY));
    }
    running.signal(libc::SIGTERM);
    let mut log = String::new();
    running.log.read_to_string(&mut log).unwrap();
    let records = log.lines().filter(|line| line.contains("ws close ")).count();
    assert_eq!(records, TIMES, "one per upgrade that was forwarded");
    // Control: the lines about the same requests are within the budget.
    let lines = log.lines().filter(|line| !line.contains("ws ") && line.contains("cannot connect")).count();
    assert!((1..30).contains(&lines), "{lines}");
}
