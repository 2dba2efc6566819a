//! The daemon's reads of the journal with a real journald and journalctl. Needs root.
//!
//! A child process that sees a private journal reads it and reports the result as text.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use t3_record::{
    journal::{CLOSE_ID, OPEN_ID, datagram},
    reconcile::Moment,
};
use t3_testkit::{journald::Journal, sys, wait};
use t3_trace_daemon::reconcile::scan::{self, Found, From};
use t3_trace_host::journal_trust::Trust;

const REQUEST: &str = "T3_TEST_REQUEST";
const ANSWER: &str = "T3_TEST_ANSWER";
const TIMEOUT: Duration = Duration::from_secs(20);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Boots that a journald is made to believe in, in this order, after the real one.
const SECOND: &str = "22222222222242228222222222222222";
const THIRD: &str = "33333333333343338333333333333333";

#[tokio::test]
#[ignore = "the body of the child process of the tests below; run by them"]
async fn reads_the_journal() {
    let request = env::var(REQUEST).expect("run by the tests below");
    let words: Vec<&str> = request.split(' ').collect();
    let trust = Trust::default();
    let answer = match *words.as_slice() {
        ["sync"] => {
            scan::sync().await.map_err(|error| error.to_string()).map_or_else(|e| e, |()| "ok".into())
        }
        ["scan", ref cursor @ ..] => {
            let from = cursor.first().map_or(From::Boots, |cursor| From::Cursor((*cursor).to_owned()));
            let mut found = Vec::new();
            let scanned = scan::scan(&from, trust, |one| {
                found.push(match one {
                    Found::Open(open) => {
                        assert_eq!((open.user.as_str(), open.ip.as_str()), ("ann", "192.0.2.7"));
                        format!("open {}", open.conn)
                    }
                    Found::Close { conn } => format!("close {conn}"),
                });
            });
            let scanned = scanned.await.unwrap();
            assert_eq!((scanned.warnings.len(), scanned.skipped), (0, 0), "{scanned:?}");
            assert_eq!(usize::try_from(scanned.entries).unwrap(), found.len());
            let again = if scanned.restarted { "restarted" } else { "" };
            format!("{}\n{again}\n{}", scanned.cursor.unwrap_or_default(), found.join("\n"))
        }
        ["recorded", first, end] => {
            let conns: Vec<String> =
                (first.parse::<u32>().unwrap()..end.parse().unwrap()).map(|n| format!("c{n}")).collect();
            let recorded = scan::recorded(&conns, trust).await.unwrap();
            recorded.into_iter().collect::<Vec<_>>().join(" ")
        }
        ["oldest"] => scan::oldest_entry()
            .await
            .unwrap()
            .map_or_else(String::new, |oldest| format!("{} {}", oldest.boot_id, oldest.monotonic_us)),
        ["last", boot, ref pid @ ..] => {
            let pid = pid.first().map(|pid| pid.parse().unwrap());
            scan::last_sign(boot, pid).await.unwrap().map_or_else(String::new, |at| format!("{at:?}"))
        }
        ["clean", boot] => scan::ended_cleanly(boot).await.unwrap().to_string(),
        _ => panic!("{request}"),
    };
    fs::write(env::var_os(ANSWER).unwrap(), answer).unwrap();
}

/// A private journald without the host's journal.
struct Private {
    journal: Journal,
    dir: tempfile::TempDir,
}

/// Result of a scan.
#[derive(Debug, PartialEq, Eq)]
struct Scan {
    cursor: String,
    restarted: bool,
    found: Vec<String>,
}

impl Private {
    /// `None` without root.
    fn start() -> Option<Self> {
        if !sys::is_root() {
            assert!(env::var_os("CI").is_none(), "CI must run this as root: the private journald needs it");
            eprintln!("SKIPPED: needs root for a private journald");
            return None;
        }
        let private = Self { journal: Journal::unfollowed().unwrap(), dir: tempfile::tempdir().unwrap() };
        let host = Path::new("/var/log/journal");
        if host.is_dir() {
            let empty = private.dir.path().join("empty");
            fs::create_dir(&empty).unwrap();
            private.bind(&empty, host);
        }
        Some(private)
    }

    fn files(&self) -> PathBuf {
        self.journal.directory().unwrap()
    }

    fn bind(&self, source: &Path, target: &Path) {
        let (source, target) = (source.to_str().unwrap(), target.to_str().unwrap());
        self.run("mount", &["--bind", source, target]);
    }

    /// Runs a program that sees this journal.
    fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        self.journal.lend(&mut command).unwrap();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn ask(&self, request: &str) -> String {
        let answer = self.dir.path().join("answer");
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "reads_the_journal"]);
        command.env(REQUEST, request).env(ANSWER, &answer).stdout(Stdio::null());
        self.journal.lend(&mut command).unwrap();
        assert!(command.status().unwrap().success(), "{request}");
        fs::read_to_string(answer).unwrap()
    }

    fn sync(&self) {
        assert_eq!(self.ask("sync"), "ok");
    }

    /// From a cursor; all of two boots if it is empty.
    fn scan(&self, cursor: &str) -> Scan {
        let answer = self.ask(format!("scan {cursor}").trim_end());
        let mut lines = answer.lines().map(str::to_owned);
        let (cursor, restarted) = (lines.next().unwrap(), lines.next().unwrap() == "restarted");
        Scan { cursor, restarted, found: lines.filter(|line| !line.is_empty()).collect() }
    }

    /// Sends records in this order.
    fn send(&self, records: &[String]) {
        let socket = self.files().ancestors().nth(2).unwrap().join("systemd/journal/socket");
        let journald = UnixDatagram::unbound().unwrap();
        wait::until("the socket of journald", TIMEOUT, || journald.connect(&socket).ok()).unwrap();
        for record in records {
            let (kind, conn) = record.split_once(' ').unwrap();
            let id = if kind == "open" { OPEN_ID } else { CLOSE_ID };
            let fields = [
                ("MESSAGE", record.as_str()),
                ("MESSAGE_ID", id),
                ("T3_CONN", conn),
                ("T3_USER", "ann"),
                ("T3_IP", "192.0.2.7"),
            ];
            journald.send(&datagram(fields)).unwrap();
        }
    }

    /// All entries as journalctl prints them.
    fn entries(&self) -> Vec<Value> {
        let mut journalctl = Command::new("journalctl");
        journalctl.args(["--quiet", "--no-pager", "--output=json", "--directory"]).arg(self.files());
        let text = String::from_utf8(journalctl.output().unwrap().stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts journald in another boot of the host, after it ended.
    fn boot(&self, id: &str) {
        let file = self.dir.path().join(id);
        let groups = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]];
        fs::write(&file, format!("{}\n", groups.join("-"))).unwrap();
        self.bind(&file, Path::new(BOOT_ID));
        self.journal.start_again().unwrap();
    }
}

fn opens(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("open c{n}")).collect()
}

fn field<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry[name].as_str().unwrap_or_default()
}

#[test]
fn everything_sent_before_a_sync_is_found_after_it() {
    let Some(private) = Private::start() else { return };
    let none = Scan { cursor: String::new(), restarted: false, found: Vec::new() };
    assert_eq!(private.scan(""), none, "a journal without records");
    let mut sent = opens(0..5000);
    private.send(&sent);
    private.sync();
    let first = private.scan("");
    assert_eq!(first.found, sent);

    // journald does not process what a sync does not confirm.
    let journald = private.journal.pid().unwrap();
    sys::signal(journald, libc::SIGSTOP).unwrap();
    let late = opens(5000..5003);
    private.send(&late);
    let answer = private.ask("sync");
    assert!(answer.contains("does not confirm"), "{answer}");
    assert_eq!(private.scan(&first.cursor).found, [""; 0]);
    sys::signal(journald, libc::SIGCONT).unwrap();
    private.sync();
    let second = private.scan(&first.cursor);
    assert_eq!((second.restarted, &second.found), (false, &late), "only what is new");
    sent.extend(late);
    assert_eq!(private.scan("").found, sent);
    assert_eq!(private.scan(&second.cursor).found, [""; 0]);
}

#[test]
fn a_scan_starts_again_when_the_entry_of_its_cursor_was_removed() {
    let Some(private) = Private::start() else { return };
    private.send(&opens(0..100));
    private.sync();
    let cursor = private.scan("").cursor;
    private.run("journalctl", &["--rotate"]);
    let after = opens(100..200);
    private.send(&after);
    private.sync();
    let kept = private.scan(&cursor);
    assert_eq!((kept.restarted, &kept.found), (false, &after), "archived files are read");
    private.run("journalctl", &["--vacuum-size=1"]);
    let vacuumed = private.scan(&cursor);
    assert_eq!((vacuumed.restarted, &vacuumed.found), (true, &after), "the removed entries are missed");
    let oldest = private.entries().remove(0);
    let expected = format!("{} {}", field(&oldest, "_BOOT_ID"), field(&oldest, "__MONOTONIC_TIMESTAMP"));
    assert_eq!(private.ask("oldest"), expected);
}

#[test]
fn closes_are_found_among_a_thousand_sessions() {
    let Some(private) = Private::start() else { return };
    let closed: BTreeSet<String> = (0..1000).filter(|n| n % 7 == 3).map(|n| format!("c{n}")).collect();
    let mut sent = opens(0..1000);
    sent.extend(closed.iter().map(|conn| format!("close {conn}")));
    // Not asked for.
    sent.extend((1000..1100).map(|n| format!("close c{n}")));
    private.send(&sent);
    private.sync();
    let answer = private.ask("recorded 0 1000");
    assert_eq!(answer.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>(), closed);
    assert_eq!(private.ask("recorded 2000 3000"), "");
}

#[test]
fn two_boots_are_read_and_the_end_of_each_is_known() {
    let Some(private) = Private::start() else { return };
    let first = fs::read_to_string(BOOT_ID).unwrap().trim().replace('-', "");
    private.send(&opens(0..10));
    private.sync();
    let cursor = private.scan("").cursor;
    private.journal.stop().unwrap();

    private.boot(SECOND);
    private.send(&opens(10..20));
    private.sync();
    let boots = private.scan("");
    assert_eq!((boots.restarted, &boots.found), (false, &opens(0..20)), "this boot and the first");
    assert_eq!(private.ask(&format!("clean {SECOND}")), "false", "it still runs");
    private.journal.kill().unwrap();

    private.boot(THIRD);
    private.send(&opens(20..30));
    private.sync();
    assert_eq!(private.scan("").found, opens(10..30), "not the first boot");
    assert_eq!(private.scan(&cursor).found, opens(10..30), "all after a cursor in the first boot");
    for (boot, clean) in [(&*first, "true"), (SECOND, "false"), (THIRD, "false")] {
        assert_eq!(private.ask(&format!("clean {boot}")), clean, "{boot}");
    }

    let entries = private.entries();
    let own = process::id().to_string();
    let last = |boot: &str, is_own: bool| {
        let mut of_boot = entries.iter().filter(|entry| field(entry, "_BOOT_ID") == boot);
        let last = of_boot.rfind(|entry| !is_own || field(entry, "_PID") == own);
        let time = |entry, name: &str| field(entry, name).parse::<u64>().unwrap();
        let moment = |entry| Moment {
            wall_us: time(entry, "__REALTIME_TIMESTAMP"),
            monotonic: 1000 * time(entry, "__MONOTONIC_TIMESTAMP"),
        };
        last.map_or_else(String::new, |entry| format!("{:?}", moment(entry)))
    };
    for boot in [&*first, SECOND, THIRD] {
        assert_eq!(private.ask(&format!("last {boot}")), last(boot, false), "{boot}");
        assert_eq!(private.ask(&format!("last {boot} {own}")), last(boot, true), "{boot}");
    }
    assert_ne!(last(&first, false), last(&first, true), "journald wrote after the records");
    assert_eq!(private.ask(&format!("last {first} 1")), "", "no entry of this process");
    assert_eq!(private.ask("last 44444444444444444444444444444444"), "", "no such boot");
    let oldest = field(&entries[0], "__MONOTONIC_TIMESTAMP");
    assert_eq!(private.ask("oldest"), format!("{first} {oldest}"));
}

#[test]
fn an_empty_journal_is_read() {
    let Some(private) = Private::start() else { return };
    private.send(&opens(0..3));
    private.sync();
    let cursor = private.scan("").cursor;
    assert!(!cursor.is_empty() && !private.ask("oldest").is_empty());
    private.journal.kill().unwrap();
    for machine in fs::read_dir(private.files()).unwrap() {
        fs::remove_dir_all(machine.unwrap().path()).unwrap();
    }
    let empty = |restarted| Scan { cursor: String::new(), restarted, found: Vec::new() };
    assert_eq!(private.scan(""), empty(false));
    assert_eq!(private.scan(&cursor), empty(true));
    let boot = fs::read_to_string(BOOT_ID).unwrap().trim().replace('-', "");
    let requests = ["oldest".into(), "recorded 0 3".into(), format!("last {boot}"), format!("clean {boot}")];
    let expected = ["", "", "", "false"];
    assert_eq!(requests.map(|request: String| private.ask(&request)), expected);
}
