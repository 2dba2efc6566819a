//! `t3-trace explain` on a real journal: records go through a journald of the test's own and one of
//! them comes back as a page through the real program. Needs root for that journald.

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

/// What is written, in this order.
const CLOSES: [&str; 4] = ["kkkkkkkkkkkk1", "kkkkkkkkkkkk2", "kkkkkkkkkkkk3", "kkkkkkkkkkkk4"];

/// The ray of one of them.
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

struct Stage {
    journal: Journal,
    directory: PathBuf,
    socket: PathBuf,
    /// Seconds since the epoch when the first record had been written.
    began: u64,
}

/// A journal with closes in it; `None` where there can be none, said aloud.
fn stage(test: &str) -> Option<Stage> {
    if !sys::is_root() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run {test} as root: a journald of its own needs it"
        );
        eprintln!("SKIPPED {test}: needs root for a journald of its own");
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
    let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let stage = Stage { journal, directory, socket, began };
    wait::until("the records in the journal", Duration::from_secs(20), || {
        stage.run(&[CLOSES[3]]).status.success().then_some(())
    })
    .unwrap();
    Some(stage)
}

impl Stage {
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

    /// What is said where nothing is explained.
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
fn a_close_is_found_by_its_id_by_user_and_time_and_as_the_last_one() {
    let Some(stage) = stage("a_close_is_found_by_its_id_by_user_and_time_and_as_the_last_one") else {
        return;
    };
    let at = format!("@{}", stage.began);
    let far = format!("@{}", stage.began + 1700);
    for (options, conn) in [
        (&[CLOSES[0]][..], CLOSES[0]),
        (&[CLOSES[1]], CLOSES[1]),
        (&["--last"], CLOSES[3]),
        (&["--last", "--user", "ann"], CLOSES[2]),
        (&["--last", "--user", "ann", "--since", "1 hour ago"], CLOSES[2]),
    ] {
        assert_eq!(stage.page(options)["conn"], conn, "{options:?}");
    }
    // Both of ann's lie as near: one is explained, the other named.
    for at in [&at, &far] {
        let near = stage.page(&["--user", "ann", "--at", at]);
        let named = [near["conn"].as_str().unwrap(), near["near"][0]["conn"].as_str().unwrap()];
        assert!(named.contains(&CLOSES[0]) && named.contains(&CLOSES[2]), "{named:?}");
        assert_eq!(near["near"].as_array().unwrap().len(), 1, "bob's are not meant");
    }

    let page = stage.page(&[CLOSES[0]]);
    let line: Vec<_> =
        page["timeline"].as_array().unwrap().iter().map(|entry| entry["text"].as_str().unwrap()).collect();
    let line = line.join("\n");
    for told in [
        "session opened, from 203.0.113.7",
        "reconnected as session kkkkkkkkkkkk9 after 3.1s",
        "20 sessions of 5 users closed within one second",
        "bob's session kkkkkkkkkkkk2 closed",
        "bob's session kkkkkkkkkkkk4 closed",
    ] {
        assert!(line.contains(told), "{told}\n{line}");
    }
    let text = String::from_utf8(stage.run(&[CLOSES[0]]).stdout).unwrap();
    assert!(text.contains("ann's serve was killed by SIGKILL (9), sent by earlyoom[812]."), "{text}");
    // Not a terminal: no colours.
    assert!(text.contains("\nNEXT\n") && !text.contains('\u{1b}'), "{text}");
    drop(stage.journal);
}

#[test]
fn what_is_not_there_is_said_with_what_to_do_and_a_foreign_record_is_not_believed() {
    let Some(stage) = stage("what_is_not_there_is_said_with_what_to_do_and_a_foreign_record_is_not_believed")
    else {
        return;
    };
    let far = format!("@{}", stage.began + 1900);
    for (options, said) in [
        (&["nosuchconn000"][..], "\"nosuchconn000\" in this journal; `t3-trace closes --json`"),
        (&["--user", "ann", "--at", &far], "no close of ann within 30 minutes"),
        (&["--user", "eve", "--at", "now"], "`t3-trace closes --user eve`"),
        (&["--last", "--user", "eve"], "no close of eve in this journal"),
        (&["--last", "--since", &far], "no close in this journal"),
    ] {
        let told = stage.fails(options);
        assert!(told.contains(said), "{options:?}: {told}");
    }
    forge(&stage.socket, &record("forged0000001", "eve", Verdict::ServeOom, Segment::Serve, How::Oom));
    let told = wait::until("the forged record in the journal", Duration::from_secs(20), || {
        Some(stage.fails(&["forged0000001"])).filter(|told| told.contains("left out 1 such record"))
    });
    assert!(told.is_ok());
    // As the last one it is passed over, and around another close it is counted.
    assert_eq!(stage.page(&["--last"])["conn"], CLOSES[3]);
    let unknown = stage.page(&[CLOSES[0]])["unknown"].to_string();
    assert!(unknown.contains("1 entries not written by t3-dispatch"), "{unknown}");

    for wrong in [
        &[][..],
        &["--user", "ann"],
        &["--at", "14:10"],
        &[CLOSES[0], "--last"],
        &["--last", "--at", "now", "--user", "ann"],
    ] {
        assert_eq!(stage.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let output = explain(Path::new("/nonexistent"), &["--last"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("journalctl failed"), "{output:?}");
}

#[test]
fn files_of_the_layers_in_front_are_read_and_one_that_is_not_there_is_said() {
    let Some(stage) = stage("files_of_the_layers_in_front_are_read_and_one_that_is_not_there_is_said") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let traefik = file("access.log", &access_line(stage.began));
    let cloudflared = file("cloudflared.log", "2020-01-01T00:00:00Z INF Starting tunnel tunnelID=1\n");
    let missing = folder.path().join("none.log");
    let page = stage.page(&[CLOSES[2], "--traefik-log", &traefik, "--cloudflared-log", &cloudflared]);
    let said = page["in_front"]["said"].to_string();
    assert!(said.contains("found by its Cf-Ray"), "{page:#}");
    assert!(said.contains("cloudflared's log: no line of a tunnel connection around the close"), "{page:#}");
    assert!(page["in_front"]["cannot"].to_string().contains("the probe was not queried"), "{page:#}");
    let told = page["timeline"].to_string();
    assert!(told.contains("GET /ws began") && !told.contains("SECRET"), "{told}");
    assert_eq!(page["record"]["verdict"], "client_reset");
    // The page is a page without it, too.
    let page = stage.page(&[CLOSES[2], "--traefik-log", missing.to_str().unwrap()]);
    let unknown = page["unknown"].to_string();
    assert!(unknown.contains("none.log") && unknown.contains("Traefik's access log"), "{unknown}");
}

/// Traefik's line of the session that was reset.
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
/// user, and the socket is connected before: the test's directories are root's alone.
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
