//! t3-trace started, killed and restarted, and dispatch killed, with open sessions: one record per
//! close, with kernel evidence while t3-trace runs.
//!
//! Needs root and `cargo xtask build`.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::time::Duration;

use t3_record::{Cause, KernelSource, Verdict};
use t3_testkit::{
    client::{Client, Config},
    harness::{Serve, Setup, Stack},
    journald::Journal,
    prerequisite,
};

const TIMEOUT: Duration = Duration::from_secs(30);

struct Fixture {
    stack: Stack,
    serves: Vec<Serve>,
}

/// A stack for `users` users with a serve each; `None` if the test has to be skipped.
fn fixture(test: &str, users: usize, trace: bool) -> Option<Fixture> {
    prerequisite::or_skip(test, prerequisite::root())?;
    let mut setup = Setup::users(users).unwrap();
    setup.trace = trace;
    let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
    let serves = (0..users).map(|i| stack.serve(&format!("u{i}"), &[], None).unwrap()).collect();
    Some(Fixture { stack, serves })
}

impl Fixture {
    /// Heartbeats slow enough that a busy host does not look like a stalled serve.
    fn config(&self, user: &str) -> Config {
        let mut config = Config::new(self.stack.address, user);
        config.heartbeat = Some(Duration::from_secs(1));
        config
    }

    fn open(&self, user: &str) -> Client {
        let client = Client::connect(self.config(user)).unwrap();
        client.heartbeats(1).unwrap();
        client
    }

    /// The kernel source of the one record of this user.
    fn kernel_of(&self, user: &str) -> KernelSource {
        self.stack.record(user).unwrap().kernel
    }
}

fn traced(kernel: KernelSource) -> bool {
    matches!(kernel, KernelSource::Kprobe | KernelSource::Tracepoint)
}

#[test]
fn t3_trace_absent_then_started_killed_and_restarted_with_open_sessions() {
    let Some(mut fixture) =
        fixture("t3_trace_absent_then_started_killed_and_restarted_with_open_sessions", 5, false)
    else {
        return;
    };
    let clients: Vec<_> = (0..5).map(|i| fixture.open(&format!("u{i}"))).collect();

    // Absent: the record is written without it.
    clients[0].close(Some(1000), "");
    clients[0].wait_end().unwrap();
    assert_eq!(fixture.kernel_of("u0"), KernelSource::Off);

    // Started later: open sessions have evidence from then on.
    fixture.stack.start_trace().unwrap();
    assert!(
        traced(fixture.stack.kernel()),
        "t3-trace has no kernel evidence here: {:?}",
        fixture.stack.status()
    );
    clients[1].heartbeats(1).unwrap();
    clients[1].fin();
    clients[1].wait_end().unwrap();
    assert!(traced(fixture.kernel_of("u1")));

    // Killed: sessions continue, and closes have records.
    fixture.stack.trace.take().unwrap().signal(libc::SIGKILL).unwrap();
    clients[2].heartbeats(3).unwrap();
    clients[2].fin();
    clients[2].wait_end().unwrap();
    let kernel = fixture.kernel_of("u2");
    assert!(matches!(kernel, KernelSource::Off | KernelSource::Timeout), "{kernel}");

    // Restarted: a session opened before has evidence again.
    fixture.stack.start_trace().unwrap();
    clients[3].heartbeats(1).unwrap();
    fixture.serves[3].process.signal(libc::SIGKILL).unwrap();
    clients[3].wait_end().unwrap();
    assert!(traced(fixture.kernel_of("u3")));
    let record = fixture.stack.record("u3").unwrap();
    assert_eq!(record.verdict, Verdict::ServeKilled, "{}", record.to_line());

    clients[4].heartbeats(1).unwrap();
    clients[4].close(Some(1000), "");
    clients[4].wait_end().unwrap();
    assert!(traced(fixture.kernel_of("u4")));
    assert_eq!(fixture.stack.journal.closes(|_| true).unwrap().len(), 5, "exactly one record per session");
}

#[test]
fn dispatch_killed_with_open_sessions_leaves_a_record_for_each() {
    let Some(mut fixture) = fixture("dispatch_killed_with_open_sessions_leaves_a_record_for_each", 3, true)
    else {
        return;
    };
    let clients: Vec<_> = (0..3).flat_map(|i| [i; 4]).map(|i| fixture.open(&format!("u{i}"))).collect();
    clients[0].close(Some(1000), "");
    clients[0].wait_end().unwrap();
    fixture.stack.journal.wait_closes(1, TIMEOUT, |_| true).unwrap();

    let mut dispatch = fixture.stack.dispatch.take().unwrap();
    dispatch.signal(libc::SIGKILL).unwrap();
    dispatch.wait(TIMEOUT).unwrap();
    for client in &clients {
        client.wait_end().unwrap();
    }
    fixture.stack.journal.wait_closes(12, TIMEOUT, |_| true).unwrap();

    // A new dispatch works immediately, and no session of the old one has a second record.
    fixture.stack.start_dispatch().unwrap();
    let client = fixture.open("u0");
    client.close(Some(1000), "");
    client.wait_end().unwrap();
    let all = fixture.stack.journal.wait_closes(13, TIMEOUT, |_| true).unwrap();
    let dispatch_died: Vec<_> =
        all.iter().filter(|(record, _)| record.verdict == Verdict::DispatchDied).collect();
    assert_eq!((all.len(), dispatch_died.len()), (13, 11));
    for (record, _) in &dispatch_died {
        assert_eq!(record.cause, Cause::DispatchClosed, "{}", record.to_line());
        assert_eq!(record.how.map(|how| how.to_string()).as_deref(), Some("proxy_signal:9"));
    }
    let mut conns: Vec<_> = all.iter().map(|(record, _)| record.conn.as_str()).collect();
    conns.sort_unstable();
    conns.dedup();
    assert_eq!(conns.len(), 13, "no session has two records");
}

#[test]
fn header_values_cannot_forge_record_keys() {
    let Some(fixture) = fixture("header_values_cannot_forge_record_keys", 1, false) else { return };
    let evil = r#"x" verdict=serve_oom dur_ms=1 cause=graceful "#;
    let folded = "abc\r\n ws close user=root ip=1 dur_ms=1 cause=x";
    let cases = [
        ("quotes and =", evil, None),
        ("obs-fold", folded, None),
        ("escapes", r"a\nb\\ T3_VERDICT=unknown", None),
        ("in the identity", "plain", Some("u0\" dur_ms=1 cause=x")),
    ];
    let mut opened = 0;
    for (name, ray, identity) in cases {
        let before = fixture.stack.journal.closes(|_| true).unwrap().len();
        let config = fixture
            .config(identity.unwrap_or("u0"))
            .header("Cf-Ray", ray)
            .header("User-Agent", evil)
            .header("X-Forwarded-For", "203.0.113.7, \"x\" cause=forged");
        match Client::connect(config) {
            Ok(client) => {
                client.heartbeats(1).unwrap();
                client.close(Some(1000), r#"" cause=forged verdict=unknown x=""#);
                client.wait_end().unwrap();
                opened += 1;
                let found = fixture.stack.journal.wait_closes(before + 1, TIMEOUT, |_| true).unwrap();
                assert_eq!(found.len(), before + 1, "{name}");
                let (record, entry) = found.last().unwrap();
                assert_eq!(record.user, "u0", "{name}");
                assert_eq!(record.verdict, Verdict::ClientClosed, "{name}: {}", record.to_line());
                assert_eq!(record.ws_reason.as_deref(), Some(r#"" cause=forged verdict=unknown x=""#));
                assert!(!entry["MESSAGE"].contains('\n'), "{name}: one line");
                assert_eq!(&t3_record::CloseRecord::from_line(&entry["MESSAGE"]).unwrap(), record, "{name}");
                assert!(
                    entry.keys().all(|key| !key.ends_with('+') || !key.starts_with("T3_")),
                    "{name}: {entry:?}"
                );
            }
            // A rejection is correct too, with a response and without a record.
            Err(error) => assert!(error.to_string().contains("HTTP/1.1 4"), "{name}: {error}"),
        }
    }
    assert!(opened > 0, "harmless values are accepted");
    let client = fixture.open("u0");
    client.close(Some(1000), "");
    client.wait_end().unwrap();
    let all = fixture.stack.journal.wait_closes(opened + 1, TIMEOUT, |_| true).unwrap();
    assert_eq!(all.len(), opened + 1);
    assert!(all.iter().all(|(record, _)| record.user == "u0"));
}
