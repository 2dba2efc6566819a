//! `t3-trace explain` with a private journald: records are written and explained. Needs root.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use t3_journal::{Sink, Writer};
use t3_record::{
    BurstRecord, Cause, CloseRecord, Confidence, How, KernelSource, OpenRecord, Segment, Verdict,
};
use t3_testkit::{journald::Journal, sys, wait};

/// Session IDs of the records, in write order.
const CLOSES: [&str; 4] = ["kkkkkkkkkkkk1", "kkkkkkkkkkkk2", "kkkkkkkkkkkk3", "kkkkkkkkkkkk4"];

/// Cloudflare ray of one of them.
const RAY: &str = "8c1f0000abcd1234-LHR";

fn record(conn: &str, user: &str, verdict: Verdict, segment: Segment, how: How) -> CloseRecord {
    let (user, ip, conn) = (user.to_owned(), "203.0.113.7".to_owned(), conn.to_owned());
    let mut record = CloseRecord::new(
        user,
        ip,
        5000,
        Cause::UpstreamClosed,
        verdict,
        segment,
        conn,
        KernelSource::Tracepoint,
    );
    (record.how, record.confidence) = (Some(how), Some(Confidence::Proven));
    record
}

struct Fixture {
    journal: Journal,
    directory: PathBuf,
    socket: PathBuf,
    /// Time after the writes in seconds since the epoch.
    written_at: u64,
}

/// A journal with closes; `None` with a message without root.
fn fixture(test: &str) -> Option<Fixture> {
    if !sys::is_root() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run {test} as root: the private journald needs it"
        );
        eprintln!("SKIPPED {test}: needs root for a private journald");
        return None;
    }
    let journal = Journal::unfollowed().unwrap();
    let directory = journal.directory().unwrap();
    let socket = directory.ancestors().nth(2).unwrap().join("systemd/journal/socket");
    let writer = Writer::start_with("t3-dispatch", Sink::Journald, &socket, 64).unwrap();
    let mut open = OpenRecord::new("ann".to_owned(), "203.0.113.7".to_owned(), CLOSES[0].to_owned());
    drop(writer.write(open.to_fields()));
    let killed = record(CLOSES[0], "ann", Verdict::ServeKilled, Segment::Serve, How::Signal(9));
    let killed = CloseRecord { killed_by: Some("earlyoom[812]".to_owned()), ..killed };
    drop(writer.write(killed.to_fields()));
    let fine = record(CLOSES[1], "bob", Verdict::ClientClosed, Segment::Downstream, How::WsClose(1001));
    drop(writer.write(fine.to_fields()));
    drop(writer.write(BurstRecord::new(20, 5).to_fields()));
    open.conn = "kkkkkkkkkkkk9".to_owned();
    (open.prev, open.gap_ms) = (Some(CLOSES[0].to_owned()), Some(3120));
    drop(writer.write(open.to_fields()));
    let reset = record(CLOSES[2], "ann", Verdict::ClientReset, Segment::Downstream, How::Rst);
    let reset = CloseRecord { ray: Some(RAY.to_owned()), ..reset };
    drop(writer.write(reset.to_fields()));
    let last = record(CLOSES[3], "bob", Verdict::ServeOom, Segment::Serve, How::Oom);
    drop(writer.write(last.to_fields()));
    assert_eq!(writer.flush(Duration::from_secs(10)), 0, "records that did not reach journald");
    let written_at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let fixture = Fixture { journal, directory, socket, written_at };
    wait::until("the records in the journal", Duration::from_secs(20), || {
        fixture.run(&[CLOSES[3]]).status.success().then_some(())
    })
    .unwrap();
    Some(fixture)
}

impl Fixture {
    fn run(&self, options: &[&str]) -> Output {
        explain(&self.directory, options)
    }

    /// The page as JSON.
    fn page(&self, options: &[&str]) -> Value {
        let output = self.run(&[options, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{options:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs the program, which must fail; returns its stderr.
    fn fails(&self, options: &[&str]) -> String {
        let output = self.run(options);
        assert_eq!(output.status.code(), Some(1), "{options:?}");
        assert!(output.stdout.is_empty(), "{options:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn explain(directory: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    command.arg("explain").arg("--directory").arg(directory).args(options);
    command.env_remove("T3_LOKI_URL").env_remove("T3_PROMETHEUS_URL").output().unwrap()
}

#[test]
fn a_close_is_found_by_id_by_user_and_time_and_as_the_last() {
    let Some(fixture) = fixture("a_close_is_found_by_id_by_user_and_time_and_as_the_last") else {
        return;
    };
    let at = format!("@{}", fixture.written_at);
    let far = format!("@{}", fixture.written_at + 1700);
    for (options, conn) in [
        (&[CLOSES[0]][..], CLOSES[0]),
        (&[CLOSES[1]], CLOSES[1]),
        (&["--last"], CLOSES[3]),
        (&["--last", "--user", "ann"], CLOSES[2]),
        (&["--last", "--user", "ann", "--since", "1 hour ago"], CLOSES[2]),
    ] {
        assert_eq!(fixture.page(options)["conn"], conn, "{options:?}");
    }
    // Both closes of ann have the same distance: one is explained, the other listed.
    for at in [&at, &far] {
        let near = fixture.page(&["--user", "ann", "--at", at]);
        let named = [near["conn"].as_str().unwrap(), near["near"][0]["conn"].as_str().unwrap()];
        assert!(named.contains(&CLOSES[0]) && named.contains(&CLOSES[2]), "{named:?}");
        assert_eq!(near["near"].as_array().unwrap().len(), 1, "closes of bob do not match");
    }

    let page = fixture.page(&[CLOSES[0]]);
    let line: Vec<_> =
        page["timeline"].as_array().unwrap().iter().map(|entry| entry["text"].as_str().unwrap()).collect();
    let line = line.join("\n");
    for expected in [
        "session opened, from 203.0.113.7",
        "reconnected as session kkkkkkkkkkkk9 after 3.1s",
        "20 sessions of 5 users closed within one second",
        "bob's session kkkkkkkkkkkk2 closed",
        "bob's session kkkkkkkkkkkk4 closed",
    ] {
        assert!(line.contains(expected), "{expected}\n{line}");
    }
    let text = String::from_utf8(fixture.run(&[CLOSES[0]]).stdout).unwrap();
    assert!(text.contains("ann's serve was killed by SIGKILL (9), sent by earlyoom[812]."), "{text}");
    // Not a terminal: no colours.
    assert!(text.contains("\nNEXT\n") && !text.contains('\u{1b}'), "{text}");
    drop(fixture.journal);
}

#[test]
fn a_missing_close_is_reported_and_a_foreign_record_is_ignored() {
    let Some(fixture) = fixture("a_missing_close_is_reported_and_a_foreign_record_is_ignored") else {
        return;
    };
    let far = format!("@{}", fixture.written_at + 1900);
    for (options, said) in [
        (
            &["nosuchconn000"][..],
            "no close of session \"nosuchconn000\" in this journal; `t3-trace closes --json`",
        ),
        (&["--user", "ann", "--at", &far], "no close of ann within 30 minutes"),
        (&["--user", "eve", "--at", "now"], "`t3-trace closes --user eve`"),
        (&["--last", "--user", "eve"], "no close of eve in this journal"),
        (&["--last", "--since", &far], "no close in this journal"),
    ] {
        let stderr = fixture.fails(options);
        assert!(stderr.contains(said), "{options:?}: {stderr}");
    }
    forge(&fixture.socket, &record("forged0000001", "eve", Verdict::ServeOom, Segment::Serve, How::Oom));
    let reported = wait::until("the forged record in the journal", Duration::from_secs(20), || {
        Some(fixture.fails(&["forged0000001"])).filter(|stderr| stderr.contains("ignored 1 such record"))
    });
    assert!(reported.is_ok());
    // It is skipped as the last one, and counted around another close.
    assert_eq!(fixture.page(&["--last"])["conn"], CLOSES[3]);
    let unknown = fixture.page(&[CLOSES[0]])["unknown"].to_string();
    assert!(unknown.contains("1 entries not written by t3-dispatch"), "{unknown}");

    for wrong in [
        &[][..],
        &["--user", "ann"],
        &["--at", "14:10"],
        &[CLOSES[0], "--last"],
        &["--last", "--at", "now", "--user", "ann"],
    ] {
        assert_eq!(fixture.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let output = explain(Path::new("/nonexistent"), &["--last"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("journalctl failed"), "{output:?}");
}

#[test]
fn log_files_are_read_and_a_missing_one_is_reported() {
    let Some(fixture) = fixture("log_files_are_read_and_a_missing_one_is_reported") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let traefik = file("access.log", &access_line(fixture.written_at));
    let cloudflared = file("cloudflared.log", "2020-01-01T00:00:00Z INF Starting tunnel tunnelID=1\n");
    let missing = folder.path().join("none.log");
    let page = fixture.page(&[CLOSES[2], "--traefik-log", &traefik, "--cloudflared-log", &cloudflared]);
    let said = page["in_front"]["said"].to_string();
    assert!(said.contains("found by its Cf-Ray"), "{page:#}");
    assert!(said.contains("cloudflared's log: no line of a tunnel connection around the close"), "{page:#}");
    assert!(page["in_front"]["cannot"].to_string().contains("the probe was not queried"), "{page:#}");
    let timeline = page["timeline"].to_string();
    assert!(timeline.contains("GET /ws began") && !timeline.contains("SECRET"), "{timeline}");
    assert_eq!(page["record"]["verdict"], "client_reset");
    // The page does not depend on it.
    let page = fixture.page(&[CLOSES[2], "--traefik-log", missing.to_str().unwrap()]);
    let unknown = page["unknown"].to_string();
    assert!(unknown.contains("none.log") && unknown.contains("Traefik's access log"), "{unknown}");
}

/// Line of Traefik's access log for the session with the RST.
fn access_line(ended: u64) -> String {
    let start = ended - 5;
    let of_day = start % 86_400;
    let day = Command::new("date").args(["-u", "+%Y-%m-%d", "-d", &format!("@{start}")]).output().unwrap();
    let day = String::from_utf8(day.stdout).unwrap();
    let (day, hour, minute, second) = (day.trim(), of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!(
        "{{\"ClientHost\":\"203.0.113.7\",\"DownstreamStatus\":500,\"Duration\":5000000000,\"RequestCount\":7,\"RequestMethod\":\"GET\",\
         \"RequestPath\":\"/ws?wsTicket=SECRET\",\"StartUTC\":\"{day}T{hour:02}:{minute:02}:{second:02}.5Z\",\"level\":\"info\",\"msg\":\"\",\
         \"request_Cf-Ray\":\"{RAY}\",\"time\":\"{day}T{hour:02}:{minute:02}:{second:02}Z\"}}\n"
    )
}

/// Sends an entry as another user, as any program of that user could. Only this thread changes its
/// user, after it has connected: only root may enter the directories of the test.
fn forge(socket: &Path, record: &CloseRecord) {
    let entry: String =
        record.to_fields().into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let journald = std::os::unix::net::UnixDatagram::unbound().unwrap();
    journald.connect(socket).unwrap();
    let sending = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        journald.send(entry.as_bytes()).unwrap();
    });
    sending.join().unwrap();
}
