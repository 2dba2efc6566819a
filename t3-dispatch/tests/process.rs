//! The program: usage errors, invalid tables, a port in use, reload and stop. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod program;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
};

use program::{GOOD, Running, dispatch, table, text, wait_for};

#[test]
fn a_usage_error_exits_with_2_and_is_named() {
    for (more, named) in [
        (&["--lisen", "127.0.0.1:0"][..], "--lisen"),
        (&["--drain-time", "5"][..], "'5' for '--drain-time <TIME>': expected a duration such as"),
        (&["--trusted-proxy", "10.0.0.0/99"][..], "10.0.0.0/99"),
        (&["--log", "syslog"][..], "syslog"),
        (&["--listen", "3780"][..], "3780"),
    ] {
        let output = dispatch(Path::new("x"), more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(text(&output).contains(named), "{}", text(&output));
    }
    let variable = dispatch(Path::new("x"), &[]).env("T3_DISPATCH_DRAIN_TIME", "soon").output().unwrap();
    assert_eq!(variable.status.code(), Some(2));
    assert!(text(&variable).contains("soon"), "{}", text(&variable));
}

#[test]
fn an_invalid_table_exits_with_78_and_names_the_line() {
    let bad = table("{\n \"ann\": {\"os_user\": \"ann\", \"port\": \"x\"}}");
    let output = dispatch(bad.path(), &["--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text_of = text(&output);
    for part in [bad.path().to_str().unwrap(), "line 2, column", "key \"ann\""] {
        assert!(text_of.contains(part), "{part} in {text_of}");
    }
    let missing = dispatch(Path::new("/nonexistent/dispatch.json"), &[]).output().unwrap();
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing).contains("/nonexistent/dispatch.json"));
}

#[test]
fn a_port_in_use_exits_with_1_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = dispatch(table(GOOD).path(), &["--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&format!("listen on {address}")), "{}", text(&output));
}

#[test]
fn reload_loads_a_valid_table_and_rejects_an_invalid_one() {
    let file = table(GOOD);
    let mut running = Running::start(file.path());
    assert!(running.get("ann").starts_with("HTTP/1.1 502"), "in the table, but no serve");
    assert!(running.get("bob").starts_with("HTTP/1.1 403"));

    // Renamed into place: a file written in place can be read between its truncation and the write.
    let invalid = file.path().with_extension("invalid");
    std::fs::write(&invalid, "{\n\"bob\": ").unwrap();
    std::fs::rename(&invalid, file.path()).unwrap();
    running.signal(libc::SIGHUP);
    let line = wait_for(&mut running.log, "keeping the previous table");
    assert!(line.contains("line 2, column"), "{line}");
    assert!(running.get("ann").starts_with("HTTP/1.1 502"));

    std::fs::write(file.path(), r#"{"bob": {"os_user": "bob", "port": 1}}"#).unwrap();
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "1 logins");
    assert!(running.get("bob").starts_with("HTTP/1.1 502"));
    assert!(running.get("ann").starts_with("HTTP/1.1 403"));
}

#[test]
fn a_file_that_cannot_be_a_table_neither_blocks_reload_nor_replaces_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.json");
    std::fs::write(&path, GOOD).unwrap();
    let mut running = Running::start(&path);
    let port = running.address.rsplit(':').next().unwrap().to_owned();

    // A FIFO without a writer: a plain open would wait for one.
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "not a regular file");

    let replace = |text: &str| {
        let new = dir.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    replace(&" ".repeat((4 << 20) + 1));
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "larger than");

    replace(&format!(r#"{{"loop": {{"os_user": "loop", "port": {port}}}}}"#));
    running.signal(libc::SIGHUP);
    assert!(
        wait_for(&mut running.log, "keeping the previous table").contains("listening port of t3-dispatch")
    );
    assert!(running.get("ann").starts_with("HTTP/1.1 502"), "the first table is in use");
    assert!(running.get("loop").starts_with("HTTP/1.1 403"));

    replace("{}");
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "is empty: every request gets 403");
    replace(GOOD);
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "1 logins");
    assert!(running.get("ann").starts_with("HTTP/1.1 502"));
}

#[test]
fn a_table_with_an_own_port_prevents_the_start() {
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let port = address.rsplit(':').next().unwrap();
    let file = table(&format!(r#"{{"loop": {{"os_user": "loop", "port": {port}}}}}"#));
    let output = dispatch(file.path(), &["--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("listening port of t3-dispatch itself"), "{}", text(&output));
}

#[test]
fn a_stop_signal_exits_with_0() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let file = table(GOOD);
        let mut running = Running::start(file.path());
        running.signal(signal);
        assert_eq!(running.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_flood_of_rejections_is_one_line_and_a_count() {
    let file = table(GOOD);
    let mut running = Running::start_with(file.path(), &["--trusted-user", "4242"]);
    for user in ["ann", "mal\u{22} x=y", "ann"].iter().cycle().take(20) {
        assert!(running.get(user).starts_with("HTTP/1.1 403"));
    }
    running.signal(libc::SIGTERM);
    let mut log = String::new();
    running.log.read_to_string(&mut log).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused=\"peer\"")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    // A local peer is named by its user: all users share its address.
    let user = rustix::process::geteuid().as_raw();
    assert!(
        lines[0].contains(&format!("403: the local user with uid {user} is not a trusted proxy")),
        "{}",
        lines[0]
    );
    let who = format!("who=\"uid {user}\"");
    assert!(lines[0].contains(&who) && !lines[0].contains("suppressed"), "{}", lines[0]);
    assert!(lines[1].contains(&who) && lines[1].contains("suppressed=19"), "{}", lines[1]);
}

#[test]
fn a_rejected_origin_is_logged_with_its_host_and_cannot_forge_fields() {
    let file = table(GOOD);
    let mut running = Running::start(file.path());
    let mut client = TcpStream::connect(&running.address).unwrap();
    let request = "GET /ws?wsTicket=secret HTTP/1.1\r\nHost: t3\r\nX-authentik-username: ann\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: https://evil.example\" user=bob\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let line = wait_for(&mut running.log, "refused=");
    for part in [
        "refused=\"origin\"",
        "who=\"ann\"",
        r#""https://evil.example\" user=bob""#,
        "\"t3\"",
        "--allowed-origin",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("secret"));
}

#[test]
fn too_few_descriptors_for_max_sessions_are_logged_at_start() {
    // A port in use makes it exit right after the start.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = table(GOOD);
    for (sessions, warned) in [("1000000000000", true), ("1", false)] {
        let more = ["--listen", &address, "--max-sessions", sessions];
        let text = text(&dispatch(file.path(), &more).output().unwrap());
        assert_eq!(text.contains(&format!("--max-sessions allows {sessions}")), warned, "{text}");
    }
}
