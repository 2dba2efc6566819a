//! Records from Loki: the same pages as from the journal, byte by byte, and an answer that is not
//! complete never looks complete.
//!
//! The records are those of the fault catalogue: one of each fault (`catalogue.txt`, written by a
//! test of t3-testkit), and the real ones of docs/VERDICTS.md.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails its test")]

#[path = "loki_store/fixture.rs"]
mod fixture;
#[path = "loki_store/journal.rs"]
mod journal;
#[path = "../../../t3-testkit/tests/deploy_files/logql.rs"]
mod logql;
#[path = "loki_store/loki.rs"]
mod loki;

use std::{fs, ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration};

use fixture::{Fixture, Shipper, two_hours_ago};
use loki::{Line, Loki};
use t3_record::{BurstRecord, CloseRecord, OpenRecord};
use t3_trace_cli::{
    closes::{self, Style, args::ClosesArgs},
    explain::{self, args::ExplainArgs},
    journal::{Completeness, source_args::JournalSource},
    live::{args::LiveArgs, history},
    present::{text::Paint, via::ViaFilter},
    server::LokiArgs,
    store::{
        self, Kind, LokiStore, Query, Store, StoreArgs, StoreKind, Want,
        starts::{FAILED_ID, STARTED_ID},
    },
    time::{Moment, rfc3339},
};
use t3_trace_host::journal_trust::Trust;

const HOST: &str = "devvm2";
const SECOND: u64 = 1_000_000;
/// The units decide.
const TRUST: Trust = Trust { dispatch: None };

fn style(width: Option<usize>) -> Style {
    Style { paint: Paint { colour: false }, width }
}

fn records() -> Vec<CloseRecord> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let catalogue = fs::read_to_string(root.join("tests/loki_store/catalogue.txt")).unwrap();
    let page = fs::read_to_string(root.join("../../docs/VERDICTS.md")).unwrap();
    let mut records: Vec<CloseRecord> = catalogue
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, line)| CloseRecord::from_line(line).unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect();
    assert!(records.len() > 200, "only {} faults in the catalogue", records.len());
    records.extend(page.lines().filter_map(|line| CloseRecord::from_line(line.trim()).ok()));
    for (n, record) in records.iter_mut().enumerate() {
        record.conn = format!("conn{n:09}");
        record.user = format!("user{}", n % 7);
    }
    records
}

/// The records as sessions of one host: opens, closes, reconnects, bursts and messages of systemd;
/// and a few on another host.
fn fixture(records: &[CloseRecord], start: u64) -> Fixture {
    let mut fixture = Fixture::default();
    for (n, record) in records.iter().enumerate() {
        let at = start + n as u64 * 3 * SECOND;
        let (user, ip, conn) = (record.user.clone(), record.ip.clone(), record.conn.clone());
        if record.dur_ms > 0 {
            fixture.open(
                at - record.dur_ms * 1000,
                HOST,
                &OpenRecord::new(user.clone(), ip.clone(), conn.clone()),
            );
        }
        let mut record = record.clone();
        record.ended_at = record.ended_at.and_then(|_| rfc3339(at - SECOND));
        fixture.close(at, HOST, &record);
        let mut back = OpenRecord::new(user.clone(), ip, format!("back{n:09}"));
        (back.prev, back.gap_ms) = (Some(conn), Some(700));
        fixture.open(at + SECOND / 2, HOST, &back);
        let unit = format!("t3-serve@{user}.service");
        fixture.systemd(
            at + 9_000,
            HOST,
            &unit,
            &format!("{unit}: Main process exited, code=killed, status=9/KILL"),
        );
        let (id, text) = match n % 3 {
            0 => (STARTED_ID, format!("Started {unit} - T3 serve of {user}.")),
            1 => (FAILED_ID, format!("{unit}: Failed with result 'signal'.")),
            _ => ("be02cf6855d2428ba40df7e9d022f03d", format!("Stopped {unit} - T3 serve of {user}.")),
        };
        fixture.start(at + 11_000, HOST, &unit, id, &text);
        // An incident of three users.
        if n < 3 {
            let cut = format!(
                "ws close user=cut{n} ip=192.0.2.7 dur_ms=5 cause=downstream_closed verdict=edge_burst segment=downstream conn=cut{n} \
                 kernel=off ray=8c1f0000abcd1234-LHR serve_version=1.2"
            );
            let at = start + SECOND + n as u64 * 1_000;
            fixture.close(at, HOST, &CloseRecord::from_line(&cut).unwrap());
        }
        if n % 9 == 0 {
            fixture.burst(at + 40_000, HOST, &BurstRecord::new(20, 5));
        }
    }
    let died = r#"{"event":"t3probe leg died","at_ms":AT,"leg":"cloudflare","way":"cloudflare","reason":"rtt_timeout","phase":"echo","phase_ms":20000,"age_ms":600000}"#;
    let died = died.replace("AT", &(start / 1000).to_string());
    fixture.line(start, HOST, "t3-probe.service", &died);
    // Another user cannot forge a record: journald sets the unit.
    fixture.line(start, HOST, "cron.service", &records[0].to_line());
    fixture.line(start + SECOND, HOST, "t3-dispatch.service", "listening on 127.0.0.1:8080");
    // The journals of these hosts arrive until now.
    let now = two_hours_ago() + 7_200 * SECOND - SECOND;
    fixture.line(now, HOST, "cron.service", "a line");
    fixture
}

fn at(micros: u64) -> Moment {
    let fraction = u32::try_from(micros % SECOND).unwrap();
    Moment { secs: micros / SECOND, micros: fraction, span: 1, upcoming: None }
}

fn open(url: &str, change: impl FnOnce(&mut StoreArgs)) -> LokiStore {
    let mut args = StoreArgs { from: StoreKind::Loki, ..StoreArgs::default() };
    change(&mut args);
    LokiStore::open(&args, &LokiArgs { loki: Some(url.to_owned()), ..LokiArgs::default() }).unwrap()
}

fn listed(args: &ClosesArgs, store: &dyn Store) -> (String, Completeness) {
    let mut out = Vec::new();
    let complete = closes::list(args, store, TRUST, &mut out, style(Some(110))).unwrap();
    (String::from_utf8(out).unwrap(), complete)
}

fn explained(args: &ExplainArgs, store: &dyn Store) -> String {
    let mut out = Vec::new();
    assert_eq!(explain::explain(args, store, TRUST, &mut out).unwrap(), Completeness::Complete);
    String::from_utf8(out).unwrap()
}

#[test]
fn explain_gives_the_same_page_for_every_fault_of_the_catalogue() {
    let start = two_hours_ago();
    for (n, records) in records().chunks(20).enumerate() {
        let fixture = fixture(records, start);
        let journal = fixture.journal(HOST);
        // A shipper only decides the labels.
        let shipper = if n % 2 == 0 { Shipper::Alloy } else { Shipper::Promtail };
        let (url, _loki) = Loki::new(fixture.lines(shipper)).start();
        let store = open(&url, |_| ());
        for record in records {
            let args = ExplainArgs {
                conn: Some(record.conn.clone()),
                since: Some(at(start - 3_600 * SECOND)),
                ..ExplainArgs::default()
            };
            let page = explained(&args, &journal);
            assert!(page.contains(&format!("verdict={}", record.verdict)), "{page}");
            assert!(page.contains("reconnected as session") && page.contains("status=9/KILL"), "{page}");
            assert_eq!(explained(&args, &store), page, "{shipper:?} {}", record.to_line());
        }
    }
}

#[test]
fn explain_selects_the_same_close_by_time_and_as_the_last() {
    let (records, start) = (records(), two_hours_ago());
    let fixture = fixture(&records, start);
    let (url, _loki) = Loki::new(fixture.lines(Shipper::Promtail)).start();
    let (journal, store) = (fixture.journal(HOST), open(&url, |_| ()));
    let since = Some(at(start - 3_600 * SECOND));
    for args in [
        ExplainArgs {
            user: Some("user3".to_owned()),
            at: Some(at(start + 60 * SECOND)),
            ..ExplainArgs::default()
        },
        ExplainArgs { last: true, ..ExplainArgs::default() },
        ExplainArgs { last: true, user: Some("user5".to_owned()), json: true, ..ExplainArgs::default() },
    ] {
        let args = ExplainArgs { since, ..args };
        assert_eq!(explained(&args, &store), explained(&args, &journal));
    }
    let missing = ExplainArgs { conn: Some("nosuchconn".to_owned()), since, ..ExplainArgs::default() };
    let error = explain::explain(&missing, &store, TRUST, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.starts_with("no close of session \"nosuchconn\""), "{error}");
}

#[test]
fn closes_gives_the_same_output_in_every_form() {
    let (records, start) = (records().split_off(150), two_hours_ago());
    let fixture = fixture(&records, start);
    let journal = fixture.journal(HOST);
    let since = Some(at(start - 3_600 * SECOND));
    for shipper in [Shipper::Promtail, Shipper::Alloy] {
        let (url, _loki) = Loki::new(fixture.lines(shipper)).start();
        let store = open(&url, |_| ());
        for args in [
            ClosesArgs::default(),
            ClosesArgs { summary: true, ..ClosesArgs::default() },
            ClosesArgs { incidents: true, ..ClosesArgs::default() },
            ClosesArgs { json: true, ..ClosesArgs::default() },
            ClosesArgs { csv: true, ..ClosesArgs::default() },
            ClosesArgs { user: Some("user2".to_owned()), ..ClosesArgs::default() },
            ClosesArgs { verdict: vec![records[0].verdict], no_summary: true, ..ClosesArgs::default() },
            ClosesArgs { short: Some(Duration::from_secs(2)), ..ClosesArgs::default() },
            // Both ends of a range are included, to the microsecond.
            ClosesArgs {
                since: Some(at(start + 30 * SECOND)),
                until: Some(at(start + 60 * SECOND)),
                ..ClosesArgs::default()
            },
        ] {
            let args = ClosesArgs { since: args.since.or(since), ..args };
            let expected = listed(&args, &journal);
            assert!(expected.0.lines().count() > 3, "{}", expected.0);
            assert_eq!(listed(&args, &store), expected, "{shipper:?}");
        }
    }
}

#[test]
fn what_changed_is_between_the_closes() {
    let start = two_hours_ago();
    let mut records = records();
    records.truncate(2);
    let mut fixture = fixture(&records, start);
    let dispatch = "t3-dispatch.service";
    let text = format!("Started {dispatch} - Reverse\u{1b}[2J proxy.");
    fixture.start(start + 2_000_000, HOST, dispatch, STARTED_ID, &text);
    fixture.start(start + 9 * SECOND, HOST, "cron.service", STARTED_ID, "Started cron.service - Cron.");
    let text = "t3-trace.service: Failed with result 'watchdog'.";
    fixture.start(start + 9 * SECOND, HOST, "t3-trace.service", FAILED_ID, text);
    let (url, _loki) = Loki::new(fixture.lines(Shipper::Promtail)).start();
    let args = ClosesArgs { since: Some(at(start - SECOND)), ..ClosesArgs::default() };
    for store in [&fixture.journal(HOST) as &dyn Store, &open(&url, |_| ())] {
        let (text, _) = listed(&args, store);
        // Without the heading, the day and folded parts.
        let rows = text.split("\n\n").next().unwrap().lines();
        let rows: Vec<_> = rows.filter(|line| line.get(2..3) == Some(":")).collect();
        let expected = [
            "conn000000000",
            "-- Started t3-serve@user0.service - T3 serve of user0.",
            "cut0",
            "cut1",
            "-- Started t3-dispatch.service - Reverse\u{fffd}[2J proxy.",
            "conn000000001",
            "-- t3-serve@user1.service: Failed with result 'signal'.",
            "-- t3-trace.service: Failed with result 'watchdog'.",
        ];
        assert_eq!(rows.len(), expected.len(), "{text}");
        for (row, expected) in rows.iter().zip(expected) {
            assert!(row[8..].starts_with(&format!("  {expected}")), "{row}\n{text}");
        }
        let user = Some("user0".to_owned());
        let one = ClosesArgs { since: args.since, user, no_summary: true, ..ClosesArgs::default() };
        let (text, _) = listed(&one, store);
        assert!(text.contains("serve@user0") && !text.contains("serve@user1"), "{text}");
        let json = ClosesArgs { since: args.since, json: true, ..ClosesArgs::default() };
        assert!(!listed(&json, store).0.contains("Started"));
    }
}

/// Short records: 100,000 with their opens.
fn many(hosts: &[&str], start: u64) -> (Vec<Line>, usize) {
    const CLOSES: usize = 100_000;
    let labels: Vec<_> = hosts
        .iter()
        .map(|host| {
            let labels = [("job", "devvm-journal"), ("host", *host), ("unit", "t3-dispatch.service")];
            Arc::new(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        })
        .collect();
    let line = |n: usize| {
        let text = format!(
            "ws close user=u{} ip=192.0.2.7 dur_ms=5 cause=graceful verdict=client_closed segment=none conn=c{n} kernel=off",
            n % 50
        );
        // Several hosts write in the same microsecond.
        let ns = i64::try_from((start + n as u64 / 7 * 20_000) * 1000).unwrap();
        Line { ns, labels: Arc::clone(&labels[n % labels.len()]), text }
    };
    ((0..CLOSES).map(line).collect(), CLOSES)
}

#[test]
fn a_hundred_thousand_records_are_read_page_by_page_each_once() {
    let start = two_hours_ago();
    let (lines, number) = many(&["a", "b", "c"], start);
    let (url, loki) = Loki::new(lines).start();
    let end = loki.lines.last().unwrap().ns / 1000;
    for (reverse, first) in [(false, 0), (true, number - 20_000)] {
        let mut seen = vec![false; number];
        let mut last = None;
        let since = u64::try_from(loki.lines[first].ns / 1000).unwrap();
        let query = Query {
            reverse,
            since: Some(at(since)),
            wanted: vec![Want::all(Kind::Close)],
            ..Query::default()
        };
        let store = open(&url, |_| ());
        let warnings = store
            .entries(&query, &mut |entry| {
                let n: usize = entry.get("T3_CONN").unwrap()[1..].parse().unwrap();
                assert!(!std::mem::replace(&mut seen[n], true), "{n} twice");
                let at = entry.micros().unwrap();
                assert!(last.is_none_or(|last| if reverse { at <= last } else { last <= at }));
                last = Some(at);
                ControlFlow::Continue(())
            })
            .unwrap();
        // Those of the same microsecond as the first are also in the range.
        assert!(warnings.is_empty() && seen[first..].iter().all(|seen| *seen));
        assert!(seen[..first].iter().filter(|seen| **seen).count() < 7);
        let newest = u64::try_from(end).unwrap();
        assert!(last.is_some_and(|last| last == if reverse { since } else { newest }));
    }
    assert!(loki.requests() < 50, "{} requests", loki.requests());
}

#[test]
fn smaller_limits_of_the_server_give_the_same_answer() {
    let (records, start) = (records(), two_hours_ago());
    let fixture = fixture(&records, start);
    let lines = fixture.lines(Shipper::Alloy);
    let args = ClosesArgs { since: Some(at(start - 40 * 86_400 * SECOND)), ..ClosesArgs::default() };
    let (url, _loki) = Loki::new(lines.clone()).start();
    let expected = listed(&args, &open(&url, |_| ()));
    let (url, _loki) =
        Loki { most_lines: 41, longest: 4 * 86_400 * 1_000_000_000, ..Loki::new(lines) }.start();
    assert_eq!(listed(&args, &open(&url, |_| ())), expected);
    assert_eq!(expected.1, Completeness::Complete);
}

#[test]
fn records_of_several_hosts_have_a_host_column_and_one_can_be_selected() {
    let (records, start) = (records(), two_hours_ago());
    let mut fixture = fixture(&records, start);
    let mut other = records[0].clone();
    "elsewhere0001".clone_into(&mut other.conn);
    fixture.close(start + SECOND, "devvm9", &other);
    fixture.line(two_hours_ago() + 7_199 * SECOND, "devvm9", "cron.service", "a line");
    let (url, _loki) = Loki::new(fixture.lines(Shipper::Alloy)).start();
    let since = Some(at(start - 3_600 * SECOND));
    let args = ClosesArgs { since, ..ClosesArgs::default() };
    let (all, complete) = listed(&args, &open(&url, |_| ()));
    assert_eq!(complete, Completeness::Complete);
    assert!(all.starts_with("TIME      HOST          CONN"), "{all}");
    assert!(all.lines().any(|line| line.contains("  devvm9        elsewhere0001  ")), "{all}");
    let (one, _) = listed(&args, &open(&url, |store| store.host = vec![HOST.to_owned()]));
    assert_eq!(one, listed(&args, &fixture.journal(HOST)).0);
    let json = ClosesArgs { since, json: true, ..ClosesArgs::default() };
    let both = listed(&json, &open(&url, |store| store.host = vec![HOST.to_owned(), "devvm9".to_owned()])).0;
    assert_eq!(both.lines().count(), records.len() + 3 + 1);
    assert!(both.contains(r#","host":"devvm9"}"#) && both.contains(r#","host":"devvm2"}"#));
    // The page is about one host: closes of another are not its neighbours.
    let args = ExplainArgs { conn: Some(records[0].conn.clone()), since, ..ExplainArgs::default() };
    let page = explained(&args, &open(&url, |_| ()));
    assert_eq!(page, explained(&args, &fixture.journal(HOST)));
    assert!(page.contains("on host devvm2") && page.contains("run the commands there"), "{page}");
}

#[test]
fn an_incomplete_answer_says_so_and_has_another_exit_status() {
    let (records, start) = (records(), two_hours_ago());
    let fixture = fixture(&records, start);
    let lines = fixture.lines(Shipper::Promtail);
    let args = ClosesArgs { since: Some(at(start - 3_600 * SECOND)), ..ClosesArgs::default() };
    let incomplete = |loki: Loki, change: fn(&mut StoreArgs)| {
        let (url, _loki) = loki.start();
        let (text, complete) = listed(&args, &open(&url, change));
        assert_eq!(complete, Completeness::Incomplete, "{text}");
        assert!(text.contains("\nincomplete: a part of the journal could not be read"), "{text}");
    };
    incomplete(Loki::new(lines.clone()), |store| store.loki_limit = 20);
    incomplete(Loki { warnings: vec!["max series reached"], ..Loki::new(lines.clone()) }, |_| ());
    // The last line of the host is more than a quarter of an hour old.
    let silent: Vec<_> = lines.iter().filter(|line| line.text != "a line").cloned().collect();
    incomplete(Loki::new(silent), |_| ());
}

#[test]
fn explain_has_another_exit_status_if_a_silent_host_may_have_the_close() {
    let (records, start) = (records(), two_hours_ago());
    let mut fixture = fixture(&records, start);
    // Its last line is two hours old.
    let mut other = records[0].clone();
    "elsewhere0001".clone_into(&mut other.conn);
    fixture.close(start, "devvm9", &other);
    let (url, _loki) = Loki::new(fixture.lines(Shipper::Alloy)).start();
    let store = open(&url, |_| ());
    let explained = |conn: Option<&str>| {
        let (conn, last) = (conn.map(str::to_owned), conn.is_none());
        let args = ExplainArgs { conn, last, since: Some(at(start - SECOND)), ..ExplainArgs::default() };
        let mut out = Vec::new();
        let complete = explain::explain(&args, &store, TRUST, &mut out).unwrap();
        (complete, out.is_empty())
    };
    // The only close with this id, the last that has arrived, and one that has not.
    assert_eq!(explained(Some(&records[0].conn)), (Completeness::Complete, false));
    assert_eq!(explained(None), (Completeness::Incomplete, false));
    assert_eq!(explained(Some("nosuchconn")), (Completeness::Incomplete, true));
}

#[test]
fn a_store_without_an_answer_is_an_error_with_the_next_step() {
    let start = two_hours_ago();
    let args = ClosesArgs { since: Some(at(start)), ..ClosesArgs::default() };
    let failed = |url: &str, change: fn(&mut StoreArgs)| {
        let list = closes::list(&args, &open(url, change), TRUST, &mut Vec::new(), style(None));
        format!("{:#}", list.unwrap_err())
    };
    let (url, _loki) = Loki::new(Vec::new()).start();
    let empty = failed(&url, |_| ());
    assert!(
        empty.contains("no lines of {job=\"devvm-journal\"} in the last week; check --journal-selector"),
        "{empty}"
    );
    let refused = |status, body| {
        let (url, _loki) = Loki { instead: vec![(status, body)].into(), ..Loki::new(Vec::new()) }.start();
        failed(&url, |_| ())
    };
    let denied = refused(401, "no org id");
    assert!(denied.starts_with("cannot read records from Loki: Loki at http://127.0.0.1"), "{denied}");
    assert!(denied.contains("401 Unauthorized: no org id; set credentials"), "{denied}");
    assert!(refused(200, "<html>").contains("something other than"), "login page");
    let slow = Loki { delay: Duration::from_secs(5), ..Loki::new(Vec::new()) };
    let late = failed(&slow.start().0, |store| store.loki_timeout = Duration::from_millis(50));
    assert!(late.contains("within 0.05 s; use a shorter range"), "{late}");
    let nobody = failed("http://127.0.0.1:1", |_| ());
    assert!(nobody.contains("cannot connect to Loki") && nobody.ends_with("check --loki"), "{nobody}");
}

#[test]
fn options_of_the_other_store_are_errors() {
    let opened = |store: StoreArgs, place: &JournalSource| {
        store::open(&store, place, &LokiArgs::default()).err().map(|error| error.to_string())
    };
    let loki = || StoreArgs { from: StoreKind::Loki, ..StoreArgs::default() };
    let here = JournalSource::default();
    assert!(opened(StoreArgs::default(), &here).is_none());
    let host = StoreArgs { host: vec!["devvm2".to_owned()], ..StoreArgs::default() };
    assert!(opened(host, &here).unwrap().ends_with("add --from loki"));
    assert!(opened(loki(), &here).unwrap().contains("set --loki, or loki in /etc/t3-trace.toml"));
    let copy = JournalSource { directory: Some("/mnt".into()), ..JournalSource::default() };
    assert!(opened(loki(), &copy).unwrap().starts_with("--file, --directory and --boot select a journal"));
}

#[test]
fn a_busy_server_is_asked_again() {
    let (records, start) = (records(), two_hours_ago());
    let fixture = fixture(&records, start);
    let instead = vec![(503, "shutting down"), (429, "too many outstanding requests")].into();
    let (url, _loki) = Loki { instead, ..Loki::new(fixture.lines(Shipper::Promtail)) }.start();
    let args = ClosesArgs { since: Some(at(start - 3_600 * SECOND)), ..ClosesArgs::default() };
    assert_eq!(listed(&args, &open(&url, |_| ())), listed(&args, &fixture.journal(HOST)));
}

#[test]
fn live_replays_the_same_moment() {
    let (records, start) = (records(), two_hours_ago());
    let fixture = fixture(&records, start);
    let (url, _loki) = Loki::new(fixture.lines(Shipper::Alloy)).start();
    let printed = |store: &dyn Store| {
        let replay = history::read(store, TRUST, at(start + 60 * SECOND), ViaFilter::Dispatch).unwrap();
        let mut out = Vec::new();
        let args = LiveArgs { user: Some("user4".to_owned()), ..LiveArgs::default() };
        history::print(&args, &replay, &mut out, Paint { colour: false }, Some(110)).unwrap();
        let text = String::from_utf8(out).unwrap();
        let (limits, rest) = text.split_once("is missing.\n").unwrap();
        assert!(limits.starts_with("Replay from "), "{text}");
        rest.to_owned()
    };
    let text = printed(&open(&url, |_| ()));
    assert_eq!(text, printed(&fixture.journal(HOST)));
    // Of each of the first seven users three sessions closed, and their reconnects are open.
    assert!(text.contains("back000000004  user4") && text.contains("conn000000004"), "{text}");
    assert!(!text.contains("back000000025") && text.contains("closes in the hour before"), "{text}");
}
