//! A real Traefik and its access log in both formats: each of 20 sessions of one user behind one
//! address is joined with its own line; two sessions that differ only in their ray are reported as
//! ambiguous if the log has no ray.
//!
//! Needs root, pip (for Traefik) and `cargo xtask build`. Takes about 25 seconds because of the
//! lengths of the sessions; with `T3_QUICK` ten, with four sessions.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use t3_record::{
    CloseRecord,
    edge::{Ended, Join, Layers, Reading, refine, refine::find, traefik},
};
use t3_testkit::{
    client::{Client, Config},
    harness::{Setup, Stack, Traefik},
    journald::Journal,
    prerequisite, wait,
};
use t3_trace_cli::layers::{Layer, LayerArgs, QueryStatus, Window, gather_blocking};

const TIMEOUT: Duration = Duration::from_secs(60);
const ADDRESS: &str = "203.0.113.7";

/// Begins and lengths of sessions, combined: any two sessions differ in one of them by more than
/// the tolerance of the join plus half a second for a busy host.
const STARTS: [u64; 4] = [0, 3_700, 7_400, 11_100];
const LENGTHS: [u64; 5] = [800, 3_400, 6_000, 8_600, 11_200];
/// Length of two last sessions that begin and end together; far from all other lengths.
const TWINS_BEGIN: u64 = 1_000;
const TWIN_LENGTHS: [u64; 2] = [15_000, 6_500];

/// Begin and end of each session, in milliseconds.
fn plan() -> Vec<(u64, u64)> {
    let quick = std::env::var_os("T3_QUICK").is_some();
    let (starts, lengths) = if quick { (&STARTS[..2], &LENGTHS[..2]) } else { (&STARTS[..], &LENGTHS[..]) };
    let twins = (TWINS_BEGIN, TWINS_BEGIN + TWIN_LENGTHS[usize::from(quick)]);
    let each = starts.iter().flat_map(|start| lengths.iter().map(move |length| (*start, start + length)));
    each.chain([twins; 2]).collect()
}

/// Ray of the nth session, in its record; the log line is identified by the user agent.
fn ray(n: usize) -> String {
    format!("ray-{n:02}")
}

fn agent(n: usize) -> String {
    format!("agent-{n:02}")
}

/// Runs all sessions of one user through one Traefik until each has ended.
fn sessions(to: SocketAddr, user: &str) {
    let mut acts: Vec<(u64, bool, usize)> =
        (plan().iter().enumerate()).flat_map(|(n, (from, to))| [(*from, true, n), (*to, false, n)]).collect();
    acts.sort_unstable();
    // dispatch rejects it, and Traefik logs it unchanged.
    let mut hostile = Config::new(to, user).header("User-Agent", "a \" 0 0 \"hostile\\");
    hostile.target = "/ws?wsTicket=secret&a=\"x\"[y]\"".to_owned();
    assert_eq!(Client::refused(hostile).unwrap(), 400);
    let mut open = BTreeMap::new();
    let began = Instant::now();
    for (at, opens, n) in acts {
        thread::sleep(Duration::from_millis(at).saturating_sub(began.elapsed()));
        if opens {
            let mut config = Config::new(to, user).header("X-Forwarded-For", ADDRESS);
            config = config.header("Cf-Ray", &ray(n)).header("User-Agent", &agent(n));
            config.target = format!("/ws?wsTicket=secret&n={n}");
            open.insert(n, Client::connect(config).unwrap());
        } else {
            open[&n].close(Some(1000), "");
        }
    }
    for client in open.values() {
        client.wait_end().unwrap();
    }
}

/// Traefik's line of the nth session, found by its user agent.
fn true_line(log: &str, n: usize) -> traefik::AccessLine {
    let mut lines = log.lines().filter(|line| line.contains(&agent(n)));
    let line = lines.next().unwrap();
    assert!(lines.next().is_none(), "one session has two lines");
    traefik::parse(line).map_err(|bad| format!("{bad}: {line}")).unwrap()
}

/// The log, after Traefik has written a line for each session.
fn complete_log(path: &Path) -> String {
    let log = || fs::read_to_string(path).unwrap_or_default();
    wait::until("the lines of Traefik", TIMEOUT, || {
        let log = log();
        (0..plan().len()).all(|n| log.lines().any(|line| line.contains(&agent(n)))).then_some(log)
    })
    .unwrap()
}

/// Records of a user with their times, in the order of the sessions.
fn records(stack: &Stack, user: &str) -> Vec<(CloseRecord, i64)> {
    let found = stack.journal.wait_closes(plan().len(), TIMEOUT, |record| record.user == user).unwrap();
    let mut records: Vec<_> = (found.into_iter())
        .map(|(record, entry)| (record, entry["__REALTIME_TIMESTAMP"].parse::<i64>().unwrap() / 1000))
        .collect();
    records.sort_by(|a, b| a.0.ray.cmp(&b.0.ray));
    let rays: Vec<_> = records.iter().map(|(record, _)| record.ray.clone().unwrap()).collect();
    assert_eq!(rays, (0..plan().len()).map(ray).collect::<Vec<_>>());
    records
}

/// Checks file, parser and join: compares the joined line of each record with its real one.
fn check(stack: &Stack, user: &str, log: &Path, kept_ray: bool) {
    let text = complete_log(log);
    let hostile = text.lines().find(|line| line.contains("hostile")).unwrap();
    assert!(hostile.contains("secret"), "{hostile}");
    let hostile = traefik::parse(hostile).map_err(|bad| format!("{bad}: {hostile}")).unwrap();
    assert_eq!((hostile.path.as_str(), hostile.status), ("/ws", Some(400)));
    let mut ambiguous = 0;
    for (n, (record, at_ms)) in records(stack, user).iter().enumerate() {
        let ended = Ended { record, at_ms: *at_ms };
        let args = LayerArgs { traefik_log: vec![log.to_owned()], ..LayerArgs::default() };
        let gathered = gather_blocking(&args, &ended, Window::around(&ended)).unwrap();
        let status =
            &gathered.outcomes.iter().find(|outcome| outcome.layer == Layer::Traefik).unwrap().status;
        assert!(matches!(status, QueryStatus::Yes { found, .. } if *found >= plan().len()), "{status:?}");
        let reading = gathered.layers.traefik.as_ref().unwrap();
        assert_eq!(reading.unread, 0, "{:?}", reading.sample);
        assert!(!format!("{reading:?}").contains("secret"), "a ticket was not removed");
        let truth = true_line(&text, n);
        assert!(matches!(truth.status, None | Some(0 | 101)), "{truth:?}");
        let refined = refine(&ended, &gathered.layers);
        let twin = n >= plan().len() - 2;
        if twin && !kept_ray {
            ambiguous += 1;
            assert_eq!(find(&ended, &reading.lines), Join::Ambiguous(2), "{n}");
            assert_eq!(refined.line, None);
            assert!(
                refined.reasons[0].contains("2 lines match this session equally"),
                "{:?}",
                refined.reasons
            );
            continue;
        }
        assert_eq!(refined.line.as_ref(), Some(&truth), "session {n} of {user}: {}", record.to_line());
        assert_eq!(truth.ray.is_some(), kept_ray);
        // JSON lines are sufficient also without the ray, except for the twins.
        let lines = reading.lines.iter().map(|line| traefik::AccessLine { ray: None, ..line.clone() });
        let blind = Reading { lines: lines.collect(), ..Reading::default() };
        let refined = refine(&ended, &Layers { traefik: Some(blind), ..Layers::default() });
        let expected = (!twin).then_some(traefik::AccessLine { ray: None, ..truth });
        assert_eq!(refined.line, expected, "session {n} of {user} without its ray");
    }
    assert_eq!(ambiguous, if kept_ray { 0 } else { 2 });
}

#[test]
fn each_of_twenty_sessions_behind_one_address_is_joined_with_its_own_line() {
    let test = "each_of_twenty_sessions_behind_one_address_is_joined_with_its_own_line";
    let parts = prerequisite::root().and_then(|()| Traefik::program());
    if prerequisite::or_skip(test, parts).is_none() {
        return;
    }
    let mut setup = Setup::users(2).unwrap();
    setup.trace = false;
    setup
        .dispatch_arguments
        .extend(["--max-sessions-per-user", "100", "--upgrade-rate", "0"].map(str::to_owned));
    let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
    let serves = ["u0", "u1"].map(|user| stack.serve(user, &[], None).unwrap());
    let logs = ["json", "common"].map(|format| stack.dir().join(format!("access.{format}")));
    let start =
        |n: usize, format| Traefik::start_logging(stack.dir(), stack.address, format, &logs[n]).unwrap();
    let traefiks = [start(0, "json"), start(1, "common")];
    thread::scope(|scope| {
        for (traefik, user) in traefiks.iter().zip(["u0", "u1"]) {
            scope.spawn(|| sessions(traefik.address, user));
        }
    });
    check(&stack, "u0", &logs[0], true);
    check(&stack, "u1", &logs[1], false);
    drop((traefiks, serves));
}
