//! The complete chain of real programs: Chromium, Traefik, t3-dispatch, Effect's RPC server,
//! t3-trace, and records in a real journald. Each session ends by a realistic cause, and its
//! complete record is compared. Messages are compressed, as those of today's t3.
//!
//! Needs root, chromium, node, npm, pip and `cargo xtask build`. Takes about two minutes because of
//! the real client's heartbeat period. With `T3_QUICK` a page is only loaded, reloaded and closed.
//! Writes a screenshot of the page to `target/artefacts`.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use t3_record::{
    Cause::{DownstreamClosed, Graceful, UpstreamClosed},
    CloseRecord, ClosedBy, OpenRecord, Segment, Verdict,
};
use t3_testkit::{
    chromium::{Chromium, Page},
    faults::{Expect, ExpectedRecord},
    harness::{EffectServe, Setup, Stack, Traefik, address_of, target},
    journald::Journal,
    prerequisite, wait,
};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(60);

/// One user per case.
const USERS: [&str; 8] = ["reloaded", "frozen", "killed", "stopped", "held", "older", "path", "gone"];

/// Effect's period is 5 s (effect 4.1 RpcClient.ts, `makePinger`); a busy host makes it longer, not
/// shorter.
const PERIOD_MS: (u64, u64) = (4_500, 7_500);

/// Minimum number of bytes in each direction, compressed.
const BIG: u64 = 1_500_000;

/// Heartbeats after which a verdict that rests on their period is proven.
const BEATS: u64 = 6;

/// The page's pings before a case. On a busy host the first ones are too irregular to be counted.
const PINGS: u64 = BEATS + 3;

/// The version that the server reports.
const VERSION: &str = "0.0.42-nightly.20261128.7";

struct Fixture {
    stack: Stack,
    traefik: Traefik,
    browser: Chromium,
    /// Users for which pairing created a session.
    pairing_dir: TempDir,
    wrong: Mutex<Vec<String>>,
}

/// Heartbeat keys of a healthy page. Chromium and serve compress every message.
fn healthy(expected: ExpectedRecord) -> ExpectedRecord {
    let to = |most| Expect::Range(0, most);
    let expected = expected.is("ext", "permessage-deflate").is("hb_by", "rhythm").at_least("hb_n", BEATS);
    let expected = expected.key("hb_period_ms", Expect::Range(PERIOD_MS.0, PERIOD_MS.1));
    let expected = ["hb_gap_ms", "up_idle_ms", "down_idle_ms"]
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, to(PERIOD_MS.1)));
    // Traefik and dispatch race to close first after the close handshake.
    let ends = ["fin_in", "fin_out"];
    expected.one_of("down_end", &ends).one_of("up_end", &ends).is("peer_exit", "alive")
}

/// A page sends Close 1001 when it is closed, reloaded or navigated away from.
fn left_the_page() -> ExpectedRecord {
    let (verdict, segment) = (Verdict::ClientClosed, Segment::Downstream);
    let expected = ExpectedRecord::opened(verdict, segment, Graceful, "ws_close:1001", ClosedBy::Downstream);
    healthy(expected.close_frame("down", "1001", ""))
}

/// The page's watchdog sends Close 1000, as Effect always does.
fn watchdog(verdict: Verdict, segment: Segment, how: &str) -> ExpectedRecord {
    let expected = ExpectedRecord::opened(verdict, segment, Graceful, how, ClosedBy::Downstream);
    // The watchdog fires two periods after the last reply.
    healthy(expected.close_frame("down", "1000", ""))
        .key("up_idle_ms", Expect::Range(PERIOD_MS.0, 2 * PERIOD_MS.1))
}

/// serve had not replied to a ping for one period when the watchdog fired. The record may blame the
/// host, which has other load.
fn stalled() -> ExpectedRecord {
    let waited = Expect::Range(PERIOD_MS.0, PERIOD_MS.1);
    let expected = watchdog(Verdict::ServeStalled, Segment::Serve, "stall");
    expected.key("hb_wait_ms", waited).key("segment", Expect::StallSegment)
}

/// A session too short for a recognised heartbeat.
fn young(expected: ExpectedRecord, record: &CloseRecord) -> ExpectedRecord {
    let keys = ["hb_by", "hb_n", "hb_period_ms", "hb_gap_ms", "hb_wait_ms", "hb_rtt_ms", "hb_rtt_max_ms"];
    let expected = keys.into_iter().fold(expected, |expected, key| expected.key(key, Expect::Free));
    let expected = ["up_msgs", "down_msgs"]
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, Expect::Range(0, 1_000)));
    // Without a message from serve, the time since the open.
    if record.up_msgs == Some(0) {
        expected.key("up_silent_ms", Expect::Near("dur_ms", 50))
    } else {
        expected
    }
}

impl Fixture {
    fn start() -> Self {
        let mut setup = Setup::named(USERS).unwrap();
        let pairing_dir = tempfile::tempdir().unwrap();
        let mint = EffectServe::mint_command(pairing_dir.path()).unwrap();
        setup.dispatch_arguments = vec!["--mint-command".to_owned(), mint];
        let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
        let traefik = Traefik::start_for(stack.dir(), stack.address, &USERS).unwrap();
        let browser = browser();
        Self { stack, traefik, browser, pairing_dir, wrong: Mutex::default() }
    }

    fn serve(&self, user: &str) -> EffectServe {
        EffectServe::start(self.stack.port(user).unwrap(), user, self.pairing_dir.path()).unwrap()
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}.localhost:{}/", self.traefik.address.port())
    }

    /// Opens the user's page and waits until it is connected.
    fn page(&self, user: &str) -> Page {
        open(&self.browser, &self.url(user))
    }

    /// The nth record of a user, in the order of the journal.
    fn record(&self, user: &str, n: usize) -> CloseRecord {
        let found = self.stack.journal.wait_closes(n, TIMEOUT, |record| record.user == user).unwrap();
        found.into_iter().nth(n - 1).unwrap().0
    }

    /// The nth `ws open` of a user.
    fn opened(&self, user: &str, n: usize) -> OpenRecord {
        let opens = || self.stack.journal.opens().unwrap().into_iter().map(|(open, _)| open);
        wait::until("a `ws open`", TIMEOUT, || opens().filter(|open| open.user == user).nth(n - 1)).unwrap()
    }

    /// Compares a complete record.
    fn check(&self, case: &str, expected: ExpectedRecord, serve: &EffectServe, record: &CloseRecord) {
        let user = record.user.clone();
        let expected = expected
            .is("user", &user)
            .is("ray", &format!("ray-{user}"))
            .is("ip", "127.0.0.1")
            .is("kernel", self.stack.kernel().as_str())
            .is("peer_pid", &serve.process.pid().to_string())
            .is("peer_comm", "node")
            .is("serve_version", VERSION);
        let expected = ["psi_mem", "psi_io", "psi_cpu", "host_psi_mem", "host_psi_io", "host_psi_cpu"]
            .into_iter()
            .fold(expected, |expected, key| expected.if_free(key, Expect::Range(0, 100)));
        let mismatches = expected.mismatches(record);
        let differences = mismatches.iter().map(|mismatch| {
            format!("\n  {}: expected {}, got {}", mismatch.key, mismatch.expected, mismatch.got)
        });
        let differences: String = differences.collect();
        println!("{case}: {}", record.to_line());
        if !differences.is_empty() {
            self.fault(format!("{case}:{differences}\n  {}", record.to_line()));
        }
    }

    /// Checks that the period in a record is within 5 % of that of the page.
    fn check_period(&self, case: &str, page_saw: f64, record: &CloseRecord) {
        #[expect(clippy::cast_precision_loss, reason = "a few seconds in milliseconds")]
        let period = record.hb_period_ms.unwrap_or(0) as f64;
        if (period - page_saw).abs() > page_saw * 0.05 {
            self.fault(format!("{case}: the page's period is {page_saw} ms, hb_period_ms is {period}"));
        }
    }

    /// Checks that an open names the session that it replaces.
    fn check_again(&self, case: &str, before: &CloseRecord, again: &OpenRecord) {
        if again.prev.as_deref() != Some(&before.conn) || again.gap_ms.is_none() {
            self.fault(format!("{case}: expected prev={} and gap_ms, got {again:?}", before.conn));
        }
    }

    fn fault(&self, text: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}

/// Sessions without exactly one record.
fn miscounted(journal: &Journal) -> Vec<String> {
    let opens: Vec<_> = journal.opens().unwrap().into_iter().map(|(open, _)| open).collect();
    let opened = |record: &CloseRecord| opens.iter().any(|open| open.conn == record.conn);
    journal.wait_closes(opens.len(), TIMEOUT, opened).unwrap();
    let mut records = BTreeMap::<_, usize>::new();
    for (record, _) in journal.closes(|record| opened(record) || record.dur_ms > 0).unwrap() {
        *records.entry(record.conn).or_default() += 1;
    }
    let many = opens.iter().filter_map(|open| {
        let count = records.remove(&open.conn).unwrap_or(0);
        (count != 1).then(|| format!("{count} records of {open:?}"))
    });
    let mut wrong: Vec<_> = many.collect();
    wrong.extend(records.keys().map(|conn| format!("a record of {conn}, which did not open")));
    wrong
}

fn browser() -> Chromium {
    let hosts = USERS.iter().enumerate().map(|(n, user)| (format!("{user}.localhost"), address_of(n)));
    Chromium::start(&hosts.collect::<Vec<_>>()).unwrap()
}

fn open(browser: &Chromium, url: &str) -> Page {
    let mut page = browser.open(url).unwrap();
    page.until("t3.seen.connects === 1", TIMEOUT).unwrap();
    page
}

/// Waits for enough heartbeats to recognise them.
fn beats(page: &mut Page) {
    page.until(&format!("t3.seen.pongs >= {PINGS}"), TIMEOUT).unwrap();
    assert_eq!(page.evaluate("t3.seen.extensions").unwrap(), "permessage-deflate");
}

/// Median of the intervals between the pings, in milliseconds by the page's clock.
fn page_period(page: &mut Page) -> f64 {
    let intervals = "t3.seen.pings.slice(1).map((at, n) => at - t3.seen.pings[n])";
    let median = format!("{intervals}.sort((a, b) => a - b)[(t3.seen.pings.length - 2) >> 1]");
    page.evaluate(&median).unwrap().as_f64().unwrap()
}

/// Time in milliseconds from the watchdog's close to the next connection, by the page's clock.
fn cut_off(page: &mut Page) -> f64 {
    let expression = "t3.seen.at.connects - t3.seen.at.timeouts";
    page.evaluate(expression).unwrap().as_f64().unwrap()
}

/// A user works, reloads the page, and closes the tab.
fn reloaded(h: &Fixture, quick: bool) {
    let user = "reloaded";
    let serve = h.serve(user);
    let mut page = h.page(user);
    assert_eq!(page.evaluate("t3.add(2, 3)").unwrap(), 5);
    assert_eq!(
        page.evaluate("Promise.all([1, 2, 3].map(n => t3.add(n, n)))").unwrap().to_string(),
        "[2,4,6]"
    );
    assert_eq!(page.evaluate("t3.count(5, 50)").unwrap().to_string(), "[1,2,3,4,5]");
    assert_eq!(page.evaluate(&format!("t3.echo({})", 2 * BIG)).unwrap(), true);
    assert_eq!(page.evaluate("t3.upload(5 << 20)").unwrap(), true);
    let times = page.evaluate("t3.events()").unwrap();
    let times: Vec<_> = times.as_array().unwrap().iter().map(|time| time.as_f64().unwrap()).collect();
    // A buffering proxy would deliver these events together, at the end.
    assert!(times[0] < times[4] / 2.0 && times[4] - times[0] > 600.0, "{times:?}");
    // The first request was answered with a session cookie and a redirect.
    let session = "fetch('/api/auth/session').then(answer => answer.json())";
    assert_eq!(page.evaluate(session).unwrap()["authenticated"], true);
    let manifest =
        "fetch(document.querySelector('head > link[rel=manifest]').href).then(answer => answer.json())";
    assert_eq!(page.evaluate(manifest).unwrap()["display"], "standalone");
    page.evaluate("t3.say('everything answered')").unwrap();
    assert_eq!(page.evaluate("t3.seen.version").unwrap(), VERSION);
    page.screenshot(&target().join("artefacts/browser_chain.png")).unwrap();

    let expected = |expected: ExpectedRecord, record: &CloseRecord| {
        if quick { young(expected, record) } else { expected }
    };
    if !quick {
        beats(&mut page);
    }
    page.reload().unwrap();
    let first = h.record(user, 1);
    let worked = left_the_page().at_least("up_bytes", BIG).at_least("down_bytes", BIG);
    h.check("reloaded", expected(worked, &first), &serve, &first);
    page.until("t3.seen.connects === 1", TIMEOUT).unwrap();
    h.check_again("reloaded", &first, &h.opened(user, 2));
    let mut period = None;
    if !quick {
        beats(&mut page);
        period = Some(page_period(&mut page));
    }
    let minted = EffectServe::minted(h.pairing_dir.path());
    assert_eq!(minted.iter().filter(|whose| *whose == user).count(), 1, "a reload must not create a session");
    page.close().unwrap();
    let last = h.record(user, 2);
    h.check("tab closed", expected(left_the_page(), &last), &serve, &last);
    if let Some(period) = period {
        h.check_period("tab closed", period, &last);
    }
}

/// Chromium has frozen a background tab, so it sends no pings; then it is closed.
fn frozen(h: &Fixture) {
    let serve = h.serve("frozen");
    let mut page = h.page("frozen");
    beats(&mut page);
    page.freeze(true).unwrap();
    thread::sleep(Duration::from_millis(2 * PERIOD_MS.1));
    page.close().unwrap();
    let silent = Expect::Range(2 * PERIOD_MS.1, 4 * PERIOD_MS.1);
    let expected = left_the_page().key("hb_gap_ms", silent.clone()).key("up_idle_ms", silent);
    h.check("frozen, then closed", expected, &serve, &h.record("frozen", 1));
}

/// serve is killed; the page reconnects when serve has restarted.
fn killed(h: &Fixture) {
    let user = "killed";
    let serve = h.serve(user);
    let mut page = h.page(user);
    beats(&mut page);
    serve.process.signal(libc::SIGKILL).unwrap();
    let first = h.record(user, 1);
    let us = format!("[{}]", std::process::id());
    let killer = first.killed_by.clone().unwrap_or_default();
    assert!(killer.ends_with(&us), "killed by {killer}, not by {us}");
    let expected = healthy(ExpectedRecord::opened(
        Verdict::ServeKilled,
        Segment::Serve,
        UpstreamClosed,
        "signal:9",
        ClosedBy::Upstream,
    ));
    h.check(user, expected.is("peer_exit", "sig:9").is("killed_by", &killer), &serve, &first);
    drop(serve);

    let _serve = h.serve(user);
    page.until("t3.seen.connects === 2", TIMEOUT).unwrap();
    assert_eq!(page.evaluate("t3.add(2, 3)").unwrap(), 5);
    h.check_again(user, &first, &h.opened(user, 2));
    page.close().unwrap();
}

/// serve is stopped until the watchdogs of two tabs fire and their next attempts fail; then it
/// continues.
fn stopped(h: &Fixture) {
    let user = "stopped";
    let serve = h.serve(user);
    let mut first = h.page(user);
    // Half a period later, so that its next attempt queues in the browser behind the first one's.
    thread::sleep(Duration::from_millis(2_500));
    let mut second = h.page(user);
    beats(&mut first);
    beats(&mut second);
    serve.process.signal(libc::SIGSTOP).unwrap();
    for page in [&mut first, &mut second] {
        page.until("t3.seen.timeouts === 1", TIMEOUT).unwrap();
    }
    // For dispatch both sessions are open: the browser waits for serve's reply to its Close.
    let attempts = [h.record(user, 1), h.record(user, 2)];
    serve.process.signal(libc::SIGCONT).unwrap();
    let expected = ExpectedRecord::unopened(
        Verdict::ServeTimeout,
        Segment::Serve,
        DownstreamClosed,
        "handshake_timeout",
        ClosedBy::Downstream,
    );
    let expected = expected.is("confidence", "likely").is("peer_exit", "alive");
    let expected = expected.key("down_end", Expect::Present).key("up_end", Expect::Present);
    // The second attempt waits in the browser for the end of the first. On a busy host the tabs can
    // be so close in phase that dispatch sees less than a second of it.
    let barely_seen = || {
        let (verdict, segment) = (Verdict::ClientLeft, Segment::Downstream);
        let expected =
            ExpectedRecord::unopened(verdict, segment, DownstreamClosed, "fin", ClosedBy::Downstream);
        let expected = expected.is("confidence", "likely").is("peer_exit", "alive");
        expected.key("down_end", Expect::Present).key("up_end", Expect::Present)
    };
    for attempt in attempts {
        let was_seen = attempt.up_silent_ms.is_none_or(|waited| waited >= 1_000);
        let expected = if was_seen { expected.clone() } else { barely_seen() };
        h.check("a page that waits for a stopped serve", expected, &serve, &attempt);
    }
    for page in [&mut first, &mut second] {
        page.until("t3.seen.connects === 2", TIMEOUT).unwrap();
    }
    let of_sessions = |record: &CloseRecord| record.user == user && record.dur_ms > 0;
    let found = h.stack.journal.wait_closes(2, TIMEOUT, of_sessions).unwrap();
    for (record, _) in found {
        h.check("stopped", stalled(), &serve, &record);
    }
    first.close().unwrap();
    second.close().unwrap();
    h.stack.journal.wait_closes(4, TIMEOUT, of_sessions).unwrap();
}

/// serve's event loop is blocked by its own work until the watchdog fires.
fn held(h: &Fixture) {
    let user = "held";
    let serve = h.serve(user);
    let mut page = h.page(user);
    beats(&mut page);
    page.begin("t3.hold(13000).catch(() => 0)").unwrap();
    page.until("t3.seen.timeouts === 1", TIMEOUT).unwrap();
    page.until("t3.seen.connects === 2", TIMEOUT).unwrap();
    let first = h.record(user, 1);
    h.check(user, stalled(), &serve, &first);
    let again = h.opened(user, 2);
    h.check_again(user, &first, &again);
    #[expect(clippy::cast_precision_loss, reason = "a few seconds in milliseconds")]
    let (gap, page_saw) = (again.gap_ms.unwrap_or(0) as f64, cut_off(&mut page));
    if (gap - page_saw).abs() > page_saw * 0.3 {
        h.fault(format!("held: the page was disconnected for {page_saw} ms, gap_ms of `ws open` is {gap}"));
    }
    page.close().unwrap();
    h.record(user, 2);
}

/// The client of effect 4.0.1 as t3 patched it: only a Pong is life, and it gives up at the third
/// tick without one.
fn older(h: &Fixture) {
    let user = "older";
    let serve = h.serve(user);
    // Pairing redirects to the other page.
    h.page(user).close().unwrap();
    let mut page = open(&h.browser, &format!("{}4.0.1", h.url(user)));
    beats(&mut page);
    let period = page_period(&mut page);
    serve.process.signal(libc::SIGSTOP).unwrap();
    page.until("t3.seen.timeouts === 1", TIMEOUT).unwrap();
    // On a busy host serve's replies would otherwise reach dispatch before the Close frame.
    thread::sleep(Duration::from_secs(1));
    serve.process.signal(libc::SIGCONT).unwrap();
    page.until("t3.seen.connects === 2", TIMEOUT).unwrap();
    let of_sessions = |record: &CloseRecord| record.user == user && record.dur_ms > 0;
    let (stall, _) = h.stack.journal.wait_closes(2, TIMEOUT, of_sessions).unwrap().remove(1);
    let waited = Expect::Range(3 * PERIOD_MS.0, 3 * PERIOD_MS.1);
    let idle = Expect::Range(3 * PERIOD_MS.0, 4 * PERIOD_MS.1);
    h.check(user, stalled().key("hb_wait_ms", waited).key("up_idle_ms", idle), &serve, &stall);
    h.check_period(user, period, &stall);
    page.close().unwrap();
}

/// The path between browser and dispatch stalls until the watchdog fires; then it delivers the
/// delayed data.
fn path(h: &Fixture) {
    let user = "path";
    let serve = h.serve(user);
    let traefik = Traefik::start_for(h.stack.dir(), h.stack.address, &USERS).unwrap();
    let mut page = open(&h.browser, &format!("http://{user}.localhost:{}/", traefik.address.port()));
    beats(&mut page);
    traefik.process.signal(libc::SIGSTOP).unwrap();
    page.until("t3.seen.timeouts === 1", TIMEOUT).unwrap();
    traefik.process.signal(libc::SIGCONT).unwrap();
    let first = h.record(user, 1);
    let expected = watchdog(Verdict::PathStalled, Segment::Downstream, "heartbeat_lost");
    h.check(user, expected.is("confidence", "likely"), &serve, &first);
    page.until("t3.seen.connects === 2", TIMEOUT).unwrap();
    h.check_again(user, &first, &h.opened(user, 2));
    page.close().unwrap();
    h.record(user, 2);
}

/// The browser is killed, as in a power loss: no Close frame.
fn gone(h: &Fixture) {
    let user = "gone";
    let serve = h.serve(user);
    let browser = browser();
    let mut page = open(&browser, &h.url(user));
    beats(&mut page);
    browser.kill().unwrap();
    let expected = ExpectedRecord::opened(
        Verdict::ClientLeft,
        Segment::Downstream,
        DownstreamClosed,
        "fin",
        ClosedBy::Downstream,
    );
    h.check(user, healthy(expected), &serve, &h.record(user, 1));
}

#[test]
fn a_real_browser_through_real_proxies_to_a_real_rpc_server() {
    let test = "a_real_browser_through_real_proxies_to_a_real_rpc_server";
    let parts = || Chromium::program().and(EffectServe::folder()).and(Traefik::program());
    if prerequisite::or_skip(test, prerequisite::root().and_then(|()| parts())).is_none() {
        return;
    }
    let quick = std::env::var_os("T3_QUICK").is_some();
    let h = Fixture::start();
    if quick {
        eprintln!("T3_QUICK: the page is only loaded, reloaded and closed; no heartbeats, no faults");
        reloaded(&h, quick);
    } else {
        let stories: [fn(&Fixture); 7] = [frozen, killed, stopped, held, older, path, gone];
        thread::scope(|scope| {
            scope.spawn(|| reloaded(&h, quick));
            for case in stories {
                let h = &h;
                scope.spawn(move || case(h));
            }
        });
    }
    let Fixture { stack, browser, wrong, .. } = h;
    browser.quit().unwrap();
    let mut wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    wrong.extend(miscounted(&stack.journal));
    assert!(wrong.is_empty(), "\n{}\n{}", wrong.join("\n"), stack.stderr());
}
