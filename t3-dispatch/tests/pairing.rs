//! Tests of docs/PAIRING.md, with t3-dispatch between raw HTTP clients and the fake serve. Needs
//! loopback and a shell.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod pairing_fixture;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use futures_util::future::join_all;
use pairing_fixture::{Fixture, MINT, NAVIGATION, TIMEOUT, answer};
use t3_dispatch::pairing::loops::MAX_SESSIONS;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{sleep, timeout},
};

const BROWSER_SESSION: &str = "/api/auth/browser-session";
const BOOTSTRAP: &str = "/api/auth/bootstrap";
const SESSION: &str = "/api/auth/session";
/// Filter of the alert of the deployment from before the packages (docs/INSTALL.md).
const OLD_ALERT: &str = "mint for .* failed|pairing exchange for .* failed|pairing for .* returned [0-9]";

fn raises_the_old_alert(line: &str) -> bool {
    regex_lite::Regex::new(OLD_ALERT).unwrap().is_match(line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_visit_gets_a_session_and_a_redirect_to_the_root() {
    let fixture = Fixture::new(MINT, &[]).await;
    let paired = fixture.send("GET /deep/link?x=1", NAVIGATION).await;
    assert!(paired.is_paired(), "{paired:?}");
    assert_eq!(
        paired.fields("set-cookie"),
        ["t3_session=session-1; HttpOnly; Path=/; SameSite=Lax", "t3_seen=1; Path=/"],
        "all cookies of serve, unchanged"
    );
    assert_eq!(fixture.mints(), [fixture.user.as_str()], "the user is the last argument");
    assert_eq!(fixture.auth_requests().await, [BROWSER_SESSION]);
    let line = format!(
        "paired user={} ip=127.0.0.1 peer=127.0.0.1 endpoint={BROWSER_SESSION} fallback=false",
        fixture.user
    );
    assert!(!raises_the_old_alert(&line));
    assert_eq!(fixture.lines("paired"), [line]);
    assert_eq!(fixture.counted(), ["paired=1"]);

    let page = fixture.visit_with(&paired.session()).await;
    assert_eq!(page.status, 404, "the fake serve's own response: {page:?}");
    assert_eq!(page.body, "no such page\n");
    assert_eq!(fixture.mints().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_behind_a_socket_pairs_like_a_command() {
    let fixture = Fixture::behind_socket(MINT).await;
    assert!(fixture.visit().await.is_paired());
    assert_eq!(fixture.mints(), [fixture.user.as_str()], "the user is the last argument");
    assert_eq!(fixture.lines("paired").len(), 1);
    assert_eq!(fixture.counted(), ["paired=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_mint_behind_a_socket_is_500_and_one_log_line_with_the_cause() {
    let kept = r#"printf '{"credential":"%s"}' "$CREDENTIAL"; echo "kept $CREDENTIAL twice" >&2; exit 4"#;
    for (mint, gone, cause) in [
        (kept, false, "ended with exit status: 4: \"kept [hidden] twice\""),
        ("echo \"$CREDENTIAL\"", false, "did not print JSON (line 1, column 1)"),
        (
            MINT,
            true,
            "mint.sock: No such file or directory (os error 2); check t3-mint.socket, its owner and --mint-socket",
        ),
    ] {
        let fixture = Fixture::behind_socket(mint).await;
        if gone {
            fs::remove_file(fixture.dir.path().join("mint.sock")).unwrap();
        }
        let failed = fixture.visit().await;
        assert_eq!(failed.status, 500, "{mint}: {failed:?}");
        let lines = fixture.lines("");
        assert_eq!(lines.len(), 1, "{mint}: {lines:?}");
        assert!(lines[0].starts_with("mint for user") && lines[0].contains(" failed: "), "{}", lines[0]);
        assert!(raises_the_old_alert(&lines[0]), "{}", lines[0]);
        assert!(lines[0].contains(cause), "{cause:?} is not in {}", lines[0]);
        assert_eq!(fixture.counted(), ["mint_failed=1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_serve_gets_the_same_credential_at_its_old_endpoint() {
    let fixture = Fixture::new(MINT, &[]).await;
    fixture.order("pairing bootstrap");
    assert!(fixture.visit().await.is_paired());
    assert_eq!(fixture.auth_requests().await, [BROWSER_SESSION, BOOTSTRAP]);
    assert_eq!(fixture.mints().len(), 1);
    let line = format!(
        "paired user={} ip=127.0.0.1 peer=127.0.0.1 endpoint={BOOTSTRAP} fallback=true",
        fixture.user
    );
    assert_eq!(fixture.lines("paired"), [line]);
    assert_eq!(fixture.counted(), ["paired_fallback=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_without_sec_fetch_is_detected_by_accept() {
    let fixture = Fixture::new(MINT, &[]).await;
    assert!(fixture.send("GET /page", "Accept: text/html,*/*;q=0.8\r\n").await.is_paired());
    assert_eq!(fixture.send("GET /page", "Accept: */*\r\n").await.status, 404, "serve's own response");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_replaced_only_when_serve_does_not_know_it() {
    for (order, renewed) in [
        ("session honest", true),
        ("session false", true),
        ("session true", false),
        ("session status:500", false),
        ("session status:401", false),
        ("session garbage", false),
        ("session eof", false),
        ("session silent", false),
    ] {
        // A busy host must not turn a response into a timeout.
        let patience = if order == "session silent" { "400ms" } else { "15s" };
        let fixture = Fixture::new(MINT, &["--session-check-timeout", patience]).await;
        fixture.order(order);
        let visited = fixture.send("GET /", &format!("{NAVIGATION}Cookie: a=b; t3_session=stale\r\n")).await;
        assert_eq!(visited.is_paired(), renewed, "{order}: {visited:?}");
        assert_eq!(fixture.mints().len(), usize::from(renewed), "{order}");
        assert_eq!(fixture.auth_requests().await.first().map(String::as_str), Some(SESSION), "{order}");
        let open = !renewed && order != "session true";
        let counted: &[&str] = match (renewed, open) {
            (true, _) => &["check_unauthenticated=1", "paired=1"],
            (false, true) => &["check_failed=1"],
            (false, false) => &[],
        };
        let mut found = fixture.counted();
        found.sort();
        assert_eq!(found, counted, "{order}");
        if !renewed {
            assert_eq!(visited.status, 200, "{order}: the page passes");
            assert!(visited.body.contains("fake t3 serve of"), "{order}");
        }
        assert_eq!(fixture.lines("cannot check the session: ").len(), usize::from(open), "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sub_requests_are_never_redirected_nor_checked() {
    let fixture = Fixture::new(MINT, &[]).await;
    fixture.order("session false");
    for session in ["", "Cookie: t3_session=stale\r\n"] {
        for (line, headers) in [
            ("GET /", "Sec-Fetch-Dest: empty\r\nAccept: text/html\r\n"),
            ("GET /", "Sec-Fetch-Dest: script\r\n"),
            ("GET /", "Sec-Fetch-Dest: iframe\r\nAccept: text/html\r\n"),
            ("HEAD /", "Sec-Fetch-Dest: empty\r\n"),
            ("POST /", "Sec-Fetch-Dest: document\r\nAccept: text/html\r\nContent-Length: 0\r\n"),
            ("GET /", "Sec-Fetch-Dest: document\r\nAuthorization: Bearer TOKEN-1\r\n"),
        ] {
            let answer = fixture.send(line, &format!("{headers}{session}")).await;
            assert_eq!(answer.status, 200, "{line} {headers:?}");
        }
        // WebSockets of a native client and of a browser without cookie.
        for target in ["/ws?wsTicket=TICKET-1", "/ws"] {
            let upgrade = format!(
                "Accept: text/html\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{session}"
            );
            let mut client = fixture.request(&fixture.user, &format!("GET {target}"), &upgrade).await;
            let mut start = [0; 13];
            timeout(TIMEOUT, client.read_exact(&mut start)).await.unwrap().unwrap();
            assert_eq!(&start, b"HTTP/1.1 101 ", "{target}");
        }
    }
    assert_eq!(fixture.mints().len() + fixture.auth_requests().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_the_root_page_by_a_program_is_paired_every_time() {
    let fixture = Fixture::new(MINT, &[]).await;
    let curl = "User-Agent: curl/8.5.0\r\nAccept: */*\r\n";
    for n in 0..6 {
        for (line, headers) in [("GET /", curl), ("HEAD /", curl), ("HEAD /", ""), ("GET /?check=1", "")] {
            let answer = fixture.send(line, headers).await;
            assert!(answer.is_paired(), "{n}: {line} {headers:?}: {answer:?}");
            assert_eq!(answer.body.is_empty(), line.starts_with("HEAD"), "{line}: {answer:?}");
        }
    }
    assert_eq!(fixture.counted(), ["paired=24"]);
    // With its session it sees serve's own response, which is not checked.
    fixture.order("session false");
    for (line, status) in [("GET /", 200), ("HEAD /", 200)] {
        let answer = fixture.send(line, &format!("{curl}Cookie: t3_session=stale\r\n")).await;
        assert_eq!(answer.status, status, "{line}: {answer:?}");
    }
    // Only the root page.
    assert_eq!(fixture.send("GET /page", curl).await.status, 404);
    assert_eq!(fixture.mints().len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_a_limit_of_pairings_per_minute() {
    let fixture = Fixture::with_users(2, MINT, &["--max-pairings-per-user", "3"]).await;
    for _ in 0..3 {
        assert!(fixture.send("HEAD /", "").await.is_paired());
    }
    for headers in ["", NAVIGATION] {
        let limited = fixture.send("GET /", headers).await;
        assert_eq!(limited.status, 429, "{limited:?}");
        assert_eq!(limited.fields("retry-after"), ["60"]);
        assert_eq!(limited.fields("cache-control"), ["no-store"]);
        assert!(limited.body.contains("--max-pairings-per-user"), "{}", limited.body);
    }
    assert_eq!(fixture.lines("too many pairings: 3 sessions").len(), 1, "logged once");
    let headers = format!("{NAVIGATION}Connection: close\r\n");
    let other = answer(fixture.request(&fixture.user(1), "GET /", &headers).await).await;
    assert!(other.is_paired(), "another user: {other:?}");
    let mut counted = fixture.counted();
    counted.sort();
    assert_eq!(counted, ["limited=2", "paired=4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_first_visits_of_one_user_mint_once() {
    let fixture = Fixture::with_users(2, &format!("until_go; {MINT}"), &[]).await;
    let other = fixture.user(1);
    let headers = format!("{NAVIGATION}Connection: close\r\n");
    let visits = async {
        let visits = join_all((0..8).map(|_| fixture.visit()));
        let visit_of_other = async { answer(fixture.request(&other, "GET /", &headers).await).await };
        tokio::join!(visits, visit_of_other)
    };
    let gate = async {
        fixture.until_mints(2).await;
        // Time for a second mint to start.
        sleep(Duration::from_millis(200)).await;
        fixture.go();
    };
    let ((visits, visit_of_other), ()) = tokio::join!(visits, gate);
    assert!(visits.iter().all(pairing_fixture::Answer::is_paired), "{visits:?}");
    assert!(visits.iter().all(|visit| visit.session() == visits[0].session()));
    assert!(visit_of_other.is_paired());
    let mut minted = fixture.mints();
    minted.sort();
    assert_eq!(minted, [fixture.user.clone(), other]);
    assert_eq!(fixture.auth_requests().await, [BROWSER_SESSION]);
    assert_eq!(fixture.lines("paired").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_does_not_cancel_the_mint_for_others() {
    let fixture = Fixture::new(&format!("until_go; {MINT}"), &[]).await;
    let first = fixture.request(&fixture.user, "GET /", NAVIGATION).await;
    fixture.until_mints(1).await;
    let second = fixture.request(&fixture.user, "GET /", &format!("{NAVIGATION}Connection: close\r\n")).await;
    drop(first);
    // Time to detect the disconnect.
    sleep(Duration::from_millis(200)).await;
    fixture.go();
    assert!(answer(second).await.is_paired());
    assert_eq!(fixture.mints().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_mint_is_500_and_one_log_line_with_the_cause() {
    for (mint, options, cause) in [
        (
            "echo 'sudo: a password is required' >&2; exit 1",
            &[][..],
            "ended with exit status: 1: \"sudo: a password is required\"",
        ),
        (
            r#"echo "could not keep $CREDENTIAL: disk full" >&2; exit 3"#,
            &[],
            "ended with exit status: 3: \"could not keep [hidden]: disk full\"",
        ),
        (
            r#"printf '{"credential":"%s"}' "$CREDENTIAL"; echo "kept $CREDENTIAL twice" >&2; exit 4"#,
            &[],
            "ended with exit status: 4: \"kept [hidden] twice\"",
        ),
        (r"printf 'two\033[31m\nlines' >&2; exit 5", &[], "ended with exit status: 5: \"two\\u{1b}[31m\""),
        ("kill -9 $$", &[], "ended with signal: 9 (SIGKILL): \"nothing on stderr\""),
        ("exit 0", &[], "did not print JSON (line 1, column 0)"),
        ("echo \"$CREDENTIAL\"", &[], "did not print JSON (line 1, column 1)"),
        (
            r#"printf '{"credential":["%s"]}' "$CREDENTIAL""#,
            &[],
            "printed JSON without a string named \"credential\"",
        ),
        (r#"printf '"%s"' "$CREDENTIAL""#, &[], "printed JSON without a string named \"credential\""),
        ("while echo \"$CREDENTIAL\"; do :; done", &[], "printed more than 65536 bytes"),
        ("until_go", &["--mint-timeout", "300ms"], "did not end within 300 ms and was killed"),
        ("", &["--mint-command", "/nonexistent/t3-mint --fast"], "start `/nonexistent/t3-mint --fast user"),
    ] {
        let fixture = Fixture::new(mint, options).await;
        let failed = fixture.visit().await;
        assert_eq!(failed.status, 500, "{mint}: {failed:?}");
        assert_eq!(failed.fields("cache-control"), ["no-store"]);
        assert!(!failed.body.contains("one-time-"));
        let lines = fixture.lines("");
        assert_eq!(lines.len(), 1, "{mint}: {lines:?}");
        assert!(lines[0].starts_with("mint for user") && lines[0].contains(" failed: "), "{}", lines[0]);
        assert!(raises_the_old_alert(&lines[0]), "{}", lines[0]);
        assert!(lines[0].contains(cause), "{cause:?} is not in {}", lines[0]);
        assert!(fixture.auth_requests().await.is_empty(), "{mint}");
        assert_eq!(fixture.counted(), ["mint_failed=1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_exchange_is_502_and_one_log_line_with_the_cause() {
    for (order, counted, cause) in [
        (
            "pairing status:401",
            "exchange_rejected=1",
            "rejected the credential: /api/auth/browser-session responded 401 Unauthorized",
        ),
        (
            "pairing status:404",
            "exchange_rejected=1",
            "rejected the credential: /api/auth/bootstrap responded 404 Not Found",
        ),
        (
            "pairing status:302",
            "exchange_rejected=1",
            "rejected the credential: /api/auth/browser-session responded 302 Found",
        ),
        (
            "pairing no_cookie",
            "exchange_rejected=1",
            "set no t3_session cookie: /api/auth/browser-session responded 200 OK",
        ),
        (
            "pairing eof",
            "exchange_unreachable=1",
            "did not respond to /api/auth/browser-session: connection closed before message completed",
        ),
        ("pairing silent", "exchange_unreachable=1", "did not accept the credential within 400 ms"),
        ("unlisten", "exchange_unreachable=1", "Connection refused"),
    ] {
        let patience = if order == "pairing silent" { "400ms" } else { "15s" };
        let fixture = Fixture::new(MINT, &["--exchange-timeout", patience]).await;
        fixture.order(order);
        let failed = fixture.visit().await;
        assert_eq!(failed.status, 502, "{order}: {failed:?}");
        assert_eq!(failed.fields("cache-control"), ["no-store"]);
        assert!(!failed.body.contains("one-time-"));
        let lines = fixture.lines("");
        assert_eq!(lines.len(), 1, "{order}: {lines:?}");
        assert!(
            lines[0].starts_with("pairing exchange for user") && lines[0].contains(" failed: "),
            "{}",
            lines[0]
        );
        assert!(raises_the_old_alert(&lines[0]), "{}", lines[0]);
        assert!(lines[0].contains(cause), "{cause:?} is not in {}", lines[0]);
        assert_eq!(fixture.counted(), [counted], "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_not_cached() {
    let fixture = Fixture::new(&format!("[ -e \"$DIR/go\" ] || exit 1; {MINT}"), &[]).await;
    assert_eq!(fixture.visit().await.status, 500);
    fixture.go();
    assert!(fixture.visit().await.is_paired());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_mint_is_killed_with_its_children() {
    let fixture = Fixture::new("sleep 600 & echo $! > \"$DIR/child\"; wait", &["--mint-timeout", "2s"]).await;
    assert_eq!(fixture.visit().await.status, 500);
    let child = fs::read_to_string(fixture.dir.path().join("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    // Gone, or a zombie that its new parent has not reaped.
    fixture.until(|_| fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_holds_the_pipes_of_the_mint_does_not_delay_the_response() {
    let patience = ["--mint-timeout", "15s"];
    let fixture = Fixture::new(&format!("sleep 600 & echo $! > \"$DIR/child\"; {MINT}"), &patience).await;
    let visited = fixture.visit().await;
    let child = fs::read_to_string(fixture.dir.path().join("child")).unwrap();
    let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).expect("it was left alone");
    assert!(visited.is_paired(), "{visited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_four_mints_run_at_the_same_time() {
    let script = format!("until_go; echo \"$1\" >> \"$DIR/done\"; {MINT}");
    let fixture = Fixture::with_users(6, &script, &["--mint-timeout", "15s"]).await;
    let headers = format!("{NAVIGATION}Connection: close\r\n");
    let visits = join_all((0..6).map(|number| {
        let (user, headers, fixture) = (fixture.user(number), &headers, &fixture);
        async move { answer(fixture.request(&user, "GET /", headers).await).await }
    }));
    let gate = async {
        fixture.until_mints(4).await;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(fixture.mints().len(), 4);
        fixture.go();
    };
    let (visits, ()) = tokio::join!(visits, gate);
    assert!(visits.iter().all(pairing_fixture::Answer::is_paired), "{visits:?}");
    assert_eq!(fixture.mints().len(), 6);
}

/// Navigates with these headers until a 429; returns the number of sessions before it.
async fn until_stopped(fixture: &Fixture, headers: &str) -> usize {
    let most = usize::try_from(MAX_SESSIONS).unwrap();
    // On a busy host a visit can be late enough to begin the count again.
    for sessions in 0..5 * most {
        let visited = fixture.send("GET /", &format!("{NAVIGATION}{headers}")).await;
        if !visited.is_paired() {
            assert_eq!(visited.status, 429, "{visited:?}");
            assert!(sessions >= most, "stopped after {sessions} sessions");
            return sessions;
        }
    }
    panic!("the loop was not stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_without_cookies_does_not_loop() {
    let fixture = Fixture::new(MINT, &["--max-pairings-per-user", "0"]).await;
    let sessions = until_stopped(&fixture, "").await;
    for _ in 0..3 {
        let stopped = fixture.visit().await;
        assert_eq!(stopped.status, 429, "{stopped:?}");
        assert_eq!(stopped.fields("retry-after"), ["60"]);
        assert_eq!(stopped.fields("cache-control"), ["no-store"]);
        assert!(stopped.body.contains("cookies"), "{}", stopped.body);
    }
    assert_eq!(fixture.mints().len(), sessions);
    assert_eq!(fixture.lines("pairing loop").len(), 1, "logged once");
    let mut counted = fixture.counted();
    counted.sort();
    assert_eq!(counted, ["loop_stopped=4".to_owned(), format!("paired={sessions}")]);
    let other = fixture.send("GET /", &NAVIGATION.replace("Firefox", "Safari")).await;
    assert!(other.is_paired(), "another browser of the same user: {other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_unknown_to_serve_is_a_loop_too() {
    let fixture = Fixture::new(MINT, &["--session-check-timeout", "15s"]).await;
    fixture.order("session false");
    until_stopped(&fixture, "Cookie: t3_session=session-1\r\n").await;
    assert_eq!(fixture.lines("pairing loop").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pairing_disables_it() {
    let fixture = Fixture::new(MINT, &["--no-pairing"]).await;
    fixture.order("session false");
    assert_eq!(fixture.visit().await.status, 200);
    assert_eq!(fixture.visit_with("t3_session=stale").await.status, 404);
    assert_eq!(fixture.mints().len() + fixture.auth_requests().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_receives_only_the_identifying_headers_of_the_browser() {
    let serve = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = serve.local_addr().unwrap().port();
    let fixture = Fixture::with_serves(&[port], tempfile::tempdir().unwrap(), MINT, &[]).await;
    let playing = async {
        let (mut stream, _) = timeout(TIMEOUT, serve.accept()).await.unwrap().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert!(timeout(TIMEOUT, stream.read_buf(&mut request)).await.unwrap().unwrap() > 0);
        }
        // A body without end: only the head counts.
        let answer =
            "HTTP/1.1 200 OK\r\nSet-Cookie: t3_session=x; Path=/\r\nContent-Length: 1000000000\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        (stream, String::from_utf8(request).unwrap())
    };
    let headers = format!(
        "{NAVIGATION}X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nCookie: other=secret\r\nAuthorization: Basic YTpi\r\n"
    );
    let (visited, (_stream, request)) = tokio::join!(fixture.send("GET /", &headers), playing);
    assert!(visited.is_paired(), "{visited:?}");
    let request = request.to_ascii_lowercase();
    assert!(request.starts_with("post /api/auth/browser-session http/1.1\r\n"), "{request}");
    for line in [
        "host: t3.test",
        "user-agent: firefox",
        "x-forwarded-for: 203.0.113.7, 127.0.0.1",
        "x-forwarded-proto: https",
        "x-forwarded-host: t3.test",
        "content-type: application/json",
    ] {
        assert!(request.lines().any(|found| found == line), "{line} in {request}");
    }
    for name in ["cookie:", "authorization:", "x-authentik-username:"] {
        assert!(!request.contains(name), "{name} in {request}");
    }
    assert!(request.contains("\r\n\r\n{\"credential\":\"one-time-"), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_sudo_runs_and_the_log_matches_the_documentation() {
    let fixture = Fixture::new("", &[]).await;
    let path = fixture.dir.path().join("bin");
    // Written by another process: a file open for writing here could not be executed while another
    // test forks (ETXTBSY).
    let script = "#!/bin/sh\nread line && exit 9\nfor word; do printf '%s\\n' \"$word\"; done > \"${0%/*}/argv\"\nprintf '{\"credential\":\"one-time-sudo\"}'\n";
    let made = std::process::Command::new("/bin/sh")
        .args(["-c", "mkdir \"$0\" && printf '%s' \"$1\" > \"$0/sudo\" && chmod 755 \"$0/sudo\""])
        .arg(&path)
        .arg(script)
        .status()
        .unwrap();
    assert!(made.success());
    let table = fixture.dir.path().join("dispatch.json");
    let uid = rustix::process::geteuid().as_raw();
    let text = format!(r#"{{"ann": {{"os_user": "anna", "port": {}, "uid": {uid}}}}}"#, fixture.port);
    fs::write(&table, text).unwrap();
    let mut dispatch = tokio::process::Command::new(env!("CARGO_BIN_EXE_t3-dispatch"))
        .args([
            "serve",
            "--log",
            "stderr",
            "--listen",
            "127.0.0.1:0",
            "--config",
            "/dev/null",
            "--trace-socket",
            "/nonexistent",
            "--table",
        ])
        .arg(&table)
        .env_clear()
        .env("PATH", &path)
        .args(["--login-domain", "example.org"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stderr = dispatch.stderr.take().unwrap().into_owned_fd().unwrap();
    let mut log = BufReader::new(fs::File::from(stderr));
    let mut next_line = move |word: &str| {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "{word:?} was never logged");
        }
        line
    };
    let line = next_line("listening on ");
    let address = line.trim().rsplit(' ').next().unwrap();
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann@example.org\r\nConnection: close\r\n{NAVIGATION}\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(answer(client).await.is_paired());
    let argv = fs::read_to_string(path.join("argv")).unwrap();
    assert_eq!(argv.lines().collect::<Vec<_>>(), ["-n", "/usr/local/bin/t3-mint", "anna"]);
    let line = next_line("paired");
    let expected =
        "paired user=anna ip=127.0.0.1 peer=127.0.0.1 endpoint=/api/auth/browser-session fallback=false";
    assert!(line.contains(expected), "{line}");
}
