//! Sessions over planned restarts and crashes of t3-dispatch, under a keeper in place of systemd:
//! every byte of both directions is compared at both ends, and each session has one record.
//!
//! Needs root and `cargo xtask build`. `T3_RESTARTS`, `T3_KILLS` and `T3_IDLE` set the numbers of
//! planned restarts, of SIGKILLs and of idle sessions, `T3_SEED` the seed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::SealFlags;
use t3_record::CloseRecord;
use t3_testkit::{
    journald::Entry,
    keeper::{self, Counts},
    prerequisite,
    restart::{
        Fixture, Kind, Options, Rng, SessionReport, StreamEnd, Traffic, copy, file, findings, flipped,
    },
    wait,
};

/// Stored descriptors beside those of sessions: the state.
const STATE: &str = "state";
/// Descriptors of one session: client and serve.
const LEGS: usize = 2;

/// Each test needs all CPU.
static ALONE: Mutex<()> = Mutex::new(());

/// `None`: skipped.
fn alone(test: &str) -> Option<MutexGuard<'static, ()>> {
    prerequisite::or_skip(test, prerequisite::root())?;
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Printed, so that a failure can be repeated.
fn seed() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let seed = number("T3_SEED", usize::try_from(now & 0xffff_ffff).unwrap());
    println!("T3_SEED={seed}");
    seed as u64
}

fn options(max: usize, seed: u64) -> Options {
    let keeper = keeper::Options { max, seed, ..keeper::Options::default() };
    Options { keeper, ..Options::default() }
}

/// The programs, and sessions of these kinds whose descriptors are all stored.
fn start(options: &Options, kinds: &[Kind]) -> (Fixture, Traffic) {
    let fixture = Fixture::start(options).unwrap();
    let mut traffic = Traffic::listen(&fixture.serve_ports, options.keeper.seed).unwrap();
    traffic.open(fixture.stack.address, &Fixture::USERS, kinds).unwrap();
    (fixture, traffic)
}

fn until_stored(fixture: &Fixture, sessions: usize) {
    fixture.keeper.until_stored(1 + LEGS * sessions, Duration::from_secs(20)).unwrap();
}

/// Value of a key in the text of a record.
fn value<'a>(entry: &'a Entry, key: &str) -> Option<&'a str> {
    let text = entry.get("MESSAGE")?;
    text.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

/// The records by session; each has exactly one.
fn by_session(records: Vec<(CloseRecord, Entry)>, sessions: usize) -> BTreeMap<u32, (CloseRecord, Entry)> {
    let mut found: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for (record, entry) in records {
        let ray = value(&entry, "ray").unwrap_or_else(|| panic!("no ray: {entry:?}"));
        let session = ray.strip_prefix("restart-").unwrap().parse().unwrap();
        found.entry(session).or_default().push((record, entry));
    }
    let counts: BTreeMap<u32, usize> =
        found.iter().map(|(session, records)| (*session, records.len())).collect();
    let expected: BTreeMap<u32, usize> =
        (0..u32::try_from(sessions).unwrap()).map(|session| (session, 1)).collect();
    assert_eq!(counts, expected, "one record of each session");
    found.into_iter().map(|(session, mut records)| (session, records.remove(0))).collect()
}

fn assert_no_panic(fixture: &Fixture) {
    let stderr = fixture.stderr();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Log messages of all processes of dispatch that contain this text.
fn messages(fixture: &Fixture, text: &str) -> Vec<String> {
    let entries = fixture.journal().messages("").unwrap();
    let messages = entries.into_iter().filter_map(|mut entry| entry.remove("MESSAGE"));
    messages.filter(|message| message.contains(text)).collect()
}

/// A session of a new client with one heartbeat.
fn assert_serves(fixture: &Fixture, traffic: &mut Traffic) {
    traffic.open(fixture.stack.address, &Fixture::USERS, &[Kind::Clock]).unwrap();
}

#[test]
fn traffic_peers_check_every_byte() {
    let Some(_alone) = alone("traffic_peers_check_every_byte") else { return };
    let seed = seed();
    let (fixture, traffic) = start(&options(1000, seed), &Kind::mixed(20));
    thread::sleep(Duration::from_secs(5));
    assert_eq!(traffic.open_sessions(), 20);
    let silence = traffic.silence.take();
    let reports = traffic.finish();
    assert_eq!(findings(&reports), [""; 0]);
    let (mut messages, mut bytes) = (0, 0);
    for report in &reports {
        let (client, serve) = (report.client.as_ref().unwrap(), report.serve.as_ref().unwrap());
        let least = if report.kind == Kind::HalfClosed { 5 } else { 10 };
        assert!(client.sent.frames >= least, "{report:?}");
        assert!(serve.sent.frames >= 5, "{report:?}");
        messages += client.sent.frames + serve.sent.frames;
        bytes += client.sent.bytes + serve.sent.bytes;
    }
    println!("{messages} frames, {} MiB, longest silence {silence:?}", bytes >> 20);
    // The blocked one holds what fits into buffers, and all kinds had large messages.
    assert!(bytes > 20 << 20, "{bytes}");
    by_session(fixture.records(20).unwrap(), 20);
}

#[test]
fn a_killed_dispatch_without_a_store_ends_all_sessions_and_no_byte_is_wrong() {
    let test = "a_killed_dispatch_without_a_store_ends_all_sessions_and_no_byte_is_wrong";
    let Some(_alone) = alone(test) else { return };
    let (mut fixture, traffic) = start(&options(0, seed()), &Kind::mixed(10));
    thread::sleep(Duration::from_secs(1));
    fixture.keeper.kill().unwrap();
    let until = wait::until("the ends of all sessions", Duration::from_secs(20), || {
        // The client of the blocked one does not read.
        (traffic.open_sessions() <= 1).then_some(())
    });
    until.unwrap();
    let reports = traffic.finish();
    assert_eq!(reports.iter().flat_map(SessionReport::wrong).collect::<Vec<_>>(), [""; 0]);
    assert!(reports.iter().all(|report| !report.is_kept()), "{reports:?}");
}

#[test]
fn sessions_with_traffic_survive_twenty_restarts() {
    let Some(_alone) = alone("sessions_with_traffic_survive_twenty_restarts") else { return };
    const SESSIONS: usize = 60;
    let (seed, restarts) = (seed(), number("T3_RESTARTS", 20));
    let kinds = Kind::mixed(SESSIONS);
    let (mut fixture, traffic) = start(&options(10_000, seed), &kinds);
    until_stored(&fixture, SESSIONS);
    traffic.silence.take();
    let mut rng = Rng(seed);
    for restart in 0..restarts {
        thread::sleep(Duration::from_millis(200 + rng.below(400)));
        let times = fixture.restart().unwrap();
        thread::sleep(Duration::from_millis(100));
        println!("restart {restart}: {times:?}, longest silence {:?}", traffic.silence.take());
        assert_eq!(traffic.open_sessions(), SESSIONS, "after restart {restart}\n{}", fixture.stderr());
    }
    thread::sleep(Duration::from_millis(500));
    let reports = traffic.finish();
    assert_eq!(findings(&reports), [""; 0]);
    let resumed = restarts.to_string();
    for (session, (record, entry)) in by_session(fixture.records(SESSIONS).unwrap(), SESSIONS) {
        let have = value(&entry, "resumed");
        assert_eq!(have, (restarts > 0).then_some(resumed.as_str()), "{session}: {}", record.to_line());
        let verdict = record.verdict.to_string();
        // Its client reads so little that answers of serve wait behind other messages.
        let has_backlog = kinds[session as usize] == Kind::Blocked && verdict == "path_stalled";
        assert!(
            verdict.starts_with("client_") || verdict.starts_with("serve_") || has_backlog,
            "{}",
            record.to_line()
        );
    }
    until_stored(&fixture, 0);
    let counts = fixture.keeper.counts().unwrap();
    let stored = (1 + LEGS * SESSIONS) as u64;
    assert_eq!((counts.stored, counts.removed, counts.dropped), (stored, stored - 1, 0), "{counts:?}");
    assert_eq!((counts.duplicates, counts.polled, counts.refused), (0, 0, 0), "{counts:?}");
}

#[test]
fn a_crash_at_any_moment_keeps_every_session_and_every_byte() {
    let Some(_alone) = alone("a_crash_at_any_moment_keeps_every_session_and_every_byte") else { return };
    const SESSIONS: usize = 50;
    let (seed, kills) = (seed(), number("T3_KILLS", 50));
    let (mut fixture, traffic) = start(&options(10_000, seed), &Kind::mixed(SESSIONS));
    until_stored(&fixture, SESSIONS);
    let mut rng = Rng(seed);
    // A session that was lost is no longer at risk.
    let mut at_risk = 0;
    let mut longest = Duration::ZERO;
    // Kills of a process that was not ready: it may have picked up the sessions or not.
    let mut early = 0;
    let up_to = |rng: &mut Rng, most_ms: u64| Duration::from_micros(rng.below(most_ms * 1000));
    for _ in 0..kills {
        let most_ms = if rng.below(4) == 0 { 20 } else { 400 };
        thread::sleep(up_to(&mut rng, most_ms));
        at_risk += traffic.open_sessions();
        if rng.below(8) == 0 {
            // Also while the process still reads its state.
            fixture.keeper.kill().unwrap();
            fixture.spawn().unwrap();
            thread::sleep(up_to(&mut rng, 100));
            early += usize::from(!fixture.keeper.is_ready());
        }
        longest = longest.max(fixture.kill_and_restart().unwrap().total());
        assert_no_panic(&fixture);
    }
    let starts = usize::try_from(fixture.keeper.starts()).unwrap();
    thread::sleep(Duration::from_secs(1));
    let silence = traffic.silence.take();
    let reports = traffic.finish();
    let wrong: Vec<_> = reports.iter().flat_map(SessionReport::wrong).collect();
    assert_eq!(wrong, [""; 0], "no byte may be wrong, repeated or invented");
    let lost: Vec<_> = reports.iter().filter(|report| !report.is_kept()).collect();
    for report in &lost {
        println!("lost: {:?}", report.deviations());
        assert!(report.client.is_some() && report.serve.is_some(), "a lost session is ended: {report:?}");
    }
    println!(
        "{starts} processes, {early} killed before READY=1, {} of {at_risk} session-crashes lost, longest restart {longest:?}, silence {silence:?}",
        lost.len()
    );
    assert!(lost.len() * 1000 <= at_risk, "{} of {at_risk} lost", lost.len());
    let records = by_session(fixture.records(SESSIONS).unwrap(), SESSIONS);
    let died = |session: &u32| records[session].0.verdict.to_string() == "dispatch_died";
    for report in &reports {
        let line = records[&report.session].0.to_line();
        assert_eq!(died(&report.session), !report.is_kept(), "{line}");
        let resumed =
            value(&records[&report.session].1, "resumed").map(|text| text.parse::<usize>().unwrap());
        if report.is_kept() && kills > 0 {
            assert!((starts - 1 - early..starts).contains(&resumed.unwrap_or(0)), "{line}");
        }
    }
}

#[test]
fn t3_trace_writes_no_record_of_a_session_that_is_resumed() {
    let Some(_alone) = alone("t3_trace_writes_no_record_of_a_session_that_is_resumed") else { return };
    const SESSIONS: usize = 20;
    let options = Options { trace: true, ..options(1000, seed()) };
    let (mut fixture, traffic) = start(&options, &Kind::mixed(SESSIONS));
    until_stored(&fixture, SESSIONS);
    for crashes in [true, false, true] {
        fixture.until_connected().unwrap();
        thread::sleep(Duration::from_secs(1));
        if crashes { fixture.kill_and_restart() } else { fixture.restart() }.unwrap();
    }
    fixture.until_connected().unwrap();
    // Longer than t3-trace waits for the next process.
    thread::sleep(Duration::from_secs(15));
    assert_eq!(fixture.journal().closes(|_| true).unwrap(), []);
    assert_eq!(findings(&traffic.finish()), [""; 0]);
    for (_, (record, entry)) in by_session(fixture.records(SESSIONS).unwrap(), SESSIONS) {
        assert_eq!(value(&entry, "resumed"), Some("3"), "{}", record.to_line());
        assert_eq!(record.kernel, fixture.stack.kernel(), "{}", record.to_line());
    }
}

/// Role of a process of this program: see [`IdlePeers`].
const IDLE_ROLE: &str = "T3_RESTART_IDLE";

/// Idle sessions with both ends in a separate process, because the keeper needs the descriptors of
/// this one.
struct IdlePeers {
    child: std::process::Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl IdlePeers {
    fn open(fixture: &Fixture, sessions: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "idle_peers", "--nocapture"]);
        let ports: Vec<_> = fixture.serve_ports.iter().map(u16::to_string).collect();
        let order = format!("{} {} {sessions}", ports.join(","), fixture.stack.address);
        command.env(IDLE_ROLE, order).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut peers = Self { child, answers };
        assert_eq!(peers.answer(), "opened");
        peers
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the idle peers have ended");
            if let Some((_, answer)) = line.trim_end().split_once("idle peers: ") {
                return answer.to_owned();
            }
        }
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        self.answer()
    }
}

impl Drop for IdlePeers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: the process of [`IdlePeers`].
#[test]
fn idle_peers() {
    let Ok(order) = std::env::var(IDLE_ROLE) else { return };
    let words: Vec<_> = order.split(' ').collect();
    let ports: Vec<u16> = words[0].split(',').map(|port| port.parse().unwrap()).collect();
    let mut traffic = Traffic::listen(&ports, 1).unwrap();
    let mut kinds = vec![Kind::Idle; words[2].parse().unwrap()];
    kinds[0] = Kind::Clock;
    traffic.open(words[1].parse().unwrap(), &Fixture::USERS, &kinds).unwrap();
    println!("idle peers: opened");
    for question in std::io::stdin().lines() {
        match question.unwrap().as_str() {
            "silence" => println!("idle peers: {}", traffic.silence.take().as_micros()),
            "open" => println!("idle peers: {}", traffic.open_sessions()),
            _ => break,
        }
    }
    let found = findings(&traffic.finish());
    println!("idle peers: {} wrong {:?}", found.len(), found.first());
    // The test waits for this answer, and then kills this process.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn idle_sessions_survive_a_restart() {
    let Some(_alone) = alone("idle_sessions_survive_a_restart") else { return };
    let sessions = number("T3_IDLE", 1000);
    let mut fixture = Fixture::start(&options(1 + LEGS * sessions, seed())).unwrap();
    let mut peers = IdlePeers::open(&fixture, sessions);
    until_stored(&fixture, sessions);
    for (name, crashes) in [("planned", false), ("crash", true)] {
        peers.ask("silence");
        thread::sleep(Duration::from_millis(500));
        let before = peers.ask("silence");
        let times = if crashes { fixture.kill_and_restart() } else { fixture.restart() }.unwrap();
        thread::sleep(Duration::from_secs(1));
        let silence = Duration::from_micros(peers.ask("silence").parse().unwrap());
        println!(
            "{sessions} idle sessions, {name}: not relayed for {silence:?} (before at most {before} us); \
             signal to READY=1 {:?}: exit {:?}, exec {:?}, ready {:?}",
            times.total(),
            times.exit,
            times.exec,
            times.ready
        );
        assert_eq!(peers.ask("open"), sessions.to_string(), "{name}\n{}", fixture.stderr());
        // A browser sends a heartbeat every 5 s, and the next one must find the relay.
        if sessions <= 1000 {
            assert!(silence < wait::scaled(Duration::from_secs(2)), "{name}: {silence:?}");
        }
    }
    assert_eq!(peers.ask("end"), "0 wrong None");
    let records = by_session(fixture.records(sessions).unwrap(), sessions);
    for (session, (record, entry)) in records {
        assert_eq!(value(&entry, "resumed"), Some("2"), "{session}: {}", record.to_line());
    }
}

#[test]
fn the_store_is_full() {
    let Some(_alone) = alone("the_store_is_full") else { return };
    const FITS: usize = 10;
    const SESSIONS: usize = 15;
    // One more than fits, so that systemd would store one leg of the next session.
    let (mut fixture, traffic) = start(&options(1 + LEGS * FITS + 1, seed()), &[Kind::Both; SESSIONS]);
    thread::sleep(Duration::from_secs(2));
    let names = fixture.keeper.names().len();
    assert!((1 + LEGS * FITS..=2 + LEGS * FITS).contains(&names), "{names}");
    assert_eq!(traffic.open_sessions(), SESSIONS, "a session that is not stored is relayed");
    fixture.restart().unwrap();
    let until = wait::until("the ends of the others", Duration::from_secs(20), || {
        (traffic.open_sessions() <= FITS).then_some(())
    });
    until.unwrap();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(traffic.open_sessions(), FITS);
    let reports = traffic.finish();
    let wrong: Vec<_> = reports.iter().flat_map(SessionReport::wrong).collect();
    assert_eq!(wrong, [""; 0]);
    let records = by_session(fixture.records(SESSIONS).unwrap(), SESSIONS);
    let mut kept = 0;
    for report in &reports {
        let (record, entry) = &records[&report.session];
        if report.is_kept() {
            kept += 1;
            assert_eq!(value(entry, "resumed"), Some("1"), "{}", record.to_line());
            continue;
        }
        assert_eq!(record.verdict.to_string(), "dispatch_shutdown", "{}", record.to_line());
        let (client, serve) = (report.client.as_ref().unwrap(), report.serve.as_ref().unwrap());
        for end in [client, serve] {
            // Close 1001 as today, unless a frame of the other peer was cut.
            assert!(end.inserted_close == Some(Some(1001)) || end.is_inside_frame, "{report:?}");
        }
    }
    assert_eq!(kept, FITS);
    assert_ne!(messages(&fixture, "FileDescriptorStoreMax").len(), 0, "a warning at the start");
    until_stored(&fixture, 0);
}

/// Both peers of all sessions get Close 1001, and FIN after their reply.
fn assert_goodbye(traffic: Traffic) {
    for report in traffic.wait_ends() {
        for end in [report.client.unwrap(), report.serve.unwrap()] {
            assert_eq!(end.inserted_close, Some(Some(1001)), "session {}", report.session);
            assert_eq!((end.end, end.wrong), (Some(StreamEnd::Fin), None), "session {}", report.session);
        }
    }
}

#[test]
fn a_stop_says_goodbye() {
    let Some(_alone) = alone("a_stop_says_goodbye") else { return };
    const SESSIONS: usize = 10;
    let (mut fixture, traffic) = start(&options(1000, seed()), &[Kind::Idle; SESSIONS]);
    until_stored(&fixture, SESSIONS);
    // A stop of a process that has resumed its sessions as well.
    fixture.restart().unwrap();
    let status = fixture.stop().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(fixture.keeper.names().len(), 0);
    assert_goodbye(traffic);
    for (_, (record, _)) in by_session(fixture.records(SESSIONS).unwrap(), SESSIONS) {
        assert_eq!(record.verdict.to_string(), "dispatch_shutdown", "{}", record.to_line());
    }
}

const SESSIONS_OF_STATE: usize = 4;
/// Sessions that fit into the store of [`restart_with_state`].
const FIT_STATE: usize = 8;
/// Bytes before the slots of the sessions, and of the slots in use (fd_store/layout.rs).
const HEADER: usize = 4096;
const SLOTS: usize = SESSIONS_OF_STATE * 768;

/// Restarts dispatch with this in place of its state; it must start, serve and forget the sessions
/// that it does not keep. Returns the number of those that it keeps.
fn restart_with_state(name: &str, change: impl FnOnce(&[u8], SealFlags) -> (Vec<u8>, SealFlags)) -> usize {
    // A small store, so that its state is small.
    let options = options(1 + LEGS * FIT_STATE, 1);
    let (mut fixture, mut traffic) = start(&options, &[Kind::Both; SESSIONS_OF_STATE]);
    until_stored(&fixture, SESSIONS_OF_STATE);
    thread::sleep(Duration::from_millis(300));
    fixture.keeper.kill().unwrap();
    let stored = fixture.keeper.stored(STATE).unwrap().remove(0);
    let (bytes, seals) = copy(stored).unwrap();
    let (bytes, seals) = change(&bytes, seals);
    fixture.keeper.replace(STATE, file(&bytes, seals).unwrap());
    fixture.start_next().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_serves(&fixture, &mut traffic);
    thread::sleep(Duration::from_millis(700));
    assert!(fixture.keeper.ended().is_none(), "{name}");
    assert_no_panic(&fixture);
    let open = traffic.open_sessions();
    let reports = traffic.finish();
    let wrong: Vec<_> = reports.iter().flat_map(SessionReport::wrong).collect();
    assert_eq!(wrong, [""; 0], "{name}");
    let (new, old) = reports.split_last().unwrap();
    assert!(new.is_kept(), "{name}: {:?}", new.deviations());
    let kept = old.iter().filter(|report| report.is_kept()).count();
    assert_eq!(open, kept + 1, "{name}: a session that is not kept is ended at the start");
    // Without its state dispatch does not know a session, but none has two records.
    fixture.journal().wait_closes(kept + 1, Duration::from_secs(30), |_| true).unwrap();
    thread::sleep(Duration::from_millis(500));
    let records = fixture.journal().closes(|_| true).unwrap();
    let mut rays: Vec<_> = records.iter().map(|(_, entry)| value(entry, "ray").unwrap_or_default()).collect();
    rays.sort_unstable();
    rays.dedup();
    assert_eq!(rays.len(), records.len(), "{name}: {rays:?}");
    // The sockets of refused sessions are removed as well.
    until_stored(&fixture, 0);
    assert!(fixture.stop().unwrap().success(), "{name}");
    assert_no_panic(&fixture);
    kept
}

fn random(length: usize, rng: &mut Rng) -> Vec<u8> {
    (0..length.div_ceil(8)).flat_map(|_| rng.below(u64::MAX).to_ne_bytes()).take(length).collect()
}

#[test]
fn a_state_that_dispatch_did_not_write_is_refused() {
    let Some(_alone) = alone("a_state_that_dispatch_did_not_write_is_refused") else { return };
    let mut rng = Rng(seed());
    assert_eq!(restart_with_state("unchanged", |bytes, seals| (bytes.to_vec(), seals)), SESSIONS_OF_STATE);
    type Change = fn(&[u8], &mut Rng) -> Vec<u8>;
    let changes: [(&str, Change); 8] = [
        ("empty", |_, _| Vec::new()),
        ("one byte", |bytes, _| bytes[..1].to_vec()),
        ("half", |bytes, _| bytes[..bytes.len() / 2].to_vec()),
        ("without the last byte", |bytes, _| bytes[..bytes.len() - 1].to_vec()),
        ("zero", |bytes, _| vec![0; bytes.len()]),
        ("ones", |bytes, _| vec![0xff; bytes.len()]),
        ("random", |bytes, rng| random(bytes.len(), rng)),
        ("random after the header", |bytes, rng| {
            [&bytes[..HEADER], &random(bytes.len() - HEADER, rng)].concat()
        }),
    ];
    for (name, change) in changes {
        let kept = restart_with_state(name, |bytes, seals| (change(bytes, &mut rng), seals));
        assert_eq!(kept, 0, "{name}");
    }
    // Without seals its writer could truncate it while dispatch reads it (SIGBUS).
    let unsealed = restart_with_state("unsealed", |bytes, _| (bytes.to_vec(), SealFlags::empty()));
    assert_eq!(unsealed, 0, "a state without seals");
}

#[test]
fn a_state_of_another_version_is_refused() {
    let Some(_alone) = alone("a_state_of_another_version_is_refused") else { return };
    // The header begins with an identification and the version; each of these bytes counts.
    for at in 0..12 {
        let name = format!("byte {at}");
        assert_eq!(restart_with_state(&name, |bytes, seals| (flipped(bytes, at), seals)), 0, "{name}");
    }
}

#[test]
fn a_state_with_a_changed_byte_never_leads_to_a_panic_or_a_wrong_byte() {
    let test = "a_state_with_a_changed_byte_never_leads_to_a_panic_or_a_wrong_byte";
    let Some(_alone) = alone(test) else { return };
    let mut rng = Rng(seed());
    let mut kept = 0;
    for _ in 0..number("T3_FLIPS", 20) {
        let at = HEADER + usize::try_from(rng.below(SLOTS as u64)).unwrap();
        let name = format!("byte {at}");
        let now = restart_with_state(&name, |bytes, seals| (flipped(bytes, at), seals));
        kept += usize::from(now == SESSIONS_OF_STATE);
    }
    println!("{kept} times all sessions were kept");
}

#[test]
fn without_a_store_a_stop_and_a_restart_say_goodbye() {
    let Some(_alone) = alone("without_a_store_a_stop_and_a_restart_say_goodbye") else { return };
    const SESSIONS: usize = 5;
    for is_restart in [false, true] {
        let (mut fixture, traffic) = start(&options(0, seed()), &[Kind::Idle; SESSIONS]);
        if is_restart {
            fixture.restart().unwrap();
        } else {
            assert!(fixture.stop().unwrap().success());
        }
        assert_goodbye(traffic);
        for (_, (record, entry)) in by_session(fixture.records(SESSIONS).unwrap(), SESSIONS) {
            assert_eq!(record.verdict.to_string(), "dispatch_shutdown", "{}", record.to_line());
            assert_eq!(value(&entry, "resumed"), None, "{}", record.to_line());
        }
        assert_eq!(fixture.keeper.counts().unwrap(), Counts::default(), "nothing is sent to a store");
    }
}

#[test]
fn a_connection_that_waits_during_a_restart_is_served() {
    let Some(_alone) = alone("a_connection_that_waits_during_a_restart_is_served") else { return };
    let (mut fixture, mut traffic) = start(&options(1000, seed()), &[Kind::Idle; 2]);
    until_stored(&fixture, 2);
    fixture.keeper.kill().unwrap();
    // The keeper holds the listening socket.
    let mut client = TcpStream::connect(fixture.stack.address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: t3\r\nConnection: close\r\n\r\n").unwrap();
    let began = Instant::now();
    fixture.start_next().unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    println!("answered {:?} after the start", began.elapsed());
    assert_serves(&fixture, &mut traffic);
    assert_eq!(findings(&traffic.finish()), [""; 0]);
    let counts = fixture.keeper.counts().unwrap();
    assert_eq!((counts.dropped, counts.duplicates, counts.refused), (0, 0, 0), "{counts:?}");
}
