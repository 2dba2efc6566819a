//! The disk of the journal is full: journald takes entries and drops them. t3-trace notices, and
//! writes each record when there is room, or counts it as lost.
//!
//! Needs root and `cargo xtask build`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails its test")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use t3_record::wire::JournalState;
use t3_testkit::{
    harness::{NO_LIMITS, Serve, Setup, Stack, free_port},
    journald::{Journal, Stored, StoredRecord},
    kill_matrix::{
        comparison::{Comparison, Truth, compare},
        sessions::{self, Session},
    },
    prerequisite, wait,
};
use tokio::runtime::Runtime;

const USER: &str = "u0";
/// Size of the disk in bytes: three files of the journal.
const DISK: u64 = 24 << 20;
/// Sessions that close while the disk is full, and sessions that open.
const CLOSES: usize = 42;
const OPENS: usize = 40;
/// Sessions before and after, for which there is room.
const CONTROLS: usize = 5;
/// t3-trace makes a pass each minute.
const TIMEOUT: Duration = Duration::from_secs(150);

struct Fixture {
    runtime: Runtime,
    stack: Stack,
    metrics: SocketAddr,
    _serve: Serve,
    rays: Vec<String>,
}

impl Fixture {
    fn start(test: &str, trace_arguments: &[&str]) -> Option<Self> {
        prerequisite::or_skip(test, prerequisite::root())?;
        let metrics = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let mut setup = Setup::users(1).unwrap();
        setup.dispatch_arguments.extend(NO_LIMITS.map(str::to_owned));
        setup.dispatch_arguments.extend(["--metrics-listen".to_owned(), metrics.to_string()]);
        setup.trace_arguments = trace_arguments.iter().map(|&argument| argument.to_owned()).collect();
        let stack = Stack::start(setup, Arc::new(Journal::on_disk_of(DISK).unwrap())).unwrap();
        let serve = stack.serve(USER, &[], None).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Some(Self { runtime: runtime.unwrap(), stack, metrics, _serve: serve, rays: Vec::new() })
    }

    fn open(&mut self, kind: &str, count: usize) -> Vec<Session> {
        let rays: Vec<_> = (0..count).map(|n| format!("{kind}{n}")).collect();
        self.rays.extend(rays.iter().cloned());
        sessions::open(self.runtime.handle(), self.stack.address, USER, &rays).unwrap()
    }

    fn close(&self, sessions: &mut [Session]) {
        sessions.iter_mut().for_each(Session::close);
        for session in sessions {
            assert!(
                session.wait_end(self.runtime.handle()).unwrap(),
                "a Close frame in reply to that of {}",
                session.ray
            );
        }
    }

    /// Everything in the journal now.
    fn stored(&self) -> Stored {
        let mut stored = Stored::new(&self.stack.journal);
        stored.read().unwrap();
        stored
    }

    fn closes(&self, kind: &str) -> usize {
        self.stored().closes.iter().filter(|close| close.ray.starts_with(kind)).count()
    }

    fn wait_closes(&self, kind: &str, count: usize) {
        let what = format!("{count} `ws close` of {kind}");
        wait::until(&what, TIMEOUT, || {
            std::thread::sleep(Duration::from_millis(500));
            (self.closes(kind) >= count).then_some(())
        })
        .unwrap();
    }

    fn state(&self) -> JournalState {
        self.stack.status().unwrap().journal.unwrap_or_default()
    }

    /// Waits for a state of the comparison with the journal; asks for it, as an operator does.
    fn wait_state(&self, what: &str, holds: impl Fn(&JournalState) -> bool) -> JournalState {
        let mut last = JournalState::default();
        let found = wait::until(what, TIMEOUT, || {
            self.stack.reconcile().unwrap();
            std::thread::sleep(Duration::from_secs(1));
            last = self.state();
            holds(&last).then_some(last)
        });
        found.unwrap_or_else(|error| panic!("{error}: {last:?}\n{}", self.stack.stderr()))
    }

    /// All sessions against all records.
    fn compare(&self) -> Comparison {
        let stored = self.stored();
        let truth = |ray: &String| Truth { ray: ray.clone(), conn: None, verdicts: &["client_closed"] };
        let truths: Vec<_> = self.rays.iter().map(truth).collect();
        let (opens, closes): (Vec<&StoredRecord>, Vec<_>) =
            (stored.opens.iter().collect(), stored.closes.iter().collect());
        compare(&truths, &opens, &closes, |pid| pid == self.stack.dispatch_pid())
    }

    /// A sample of the metrics page of dispatch; 0 without it.
    fn metric(&self, sample: &str) -> u64 {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: t3\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
        value.unwrap_or(0)
    }
}

#[test]
fn records_of_a_full_disk_are_written_when_there_is_room() {
    let test = "records_of_a_full_disk_are_written_when_there_is_room";
    let Some(mut fixture) = Fixture::start(test, &[]) else { return };
    let mut before = fixture.open("before", CONTROLS);
    let mut closing = fixture.open("closing", CLOSES);
    fixture.close(&mut before);
    fixture.wait_closes("before", CONTROLS);
    let state = fixture.wait_state("nothing to verify", |state| state.waiting == 0);
    assert_eq!((state.missing, state.lost), (0, 0), "with room nothing is missing");

    let filler = fixture.stack.journal.exhaust().unwrap();
    fixture.close(&mut closing);
    let mut opened = fixture.open("opened", OPENS);
    let state = fixture.wait_state("all closes missing", |state| state.missing >= CLOSES as u64);
    assert_eq!(state.lost, 0, "the spool has them: {state:?}");
    assert_eq!(fixture.closes("closing"), 0, "the disk is full");

    drop(filler);
    fixture.wait_closes("closing", CLOSES);
    fixture.close(&mut opened);
    let mut after = fixture.open("after", CONTROLS);
    fixture.close(&mut after);
    fixture.wait_closes("opened", OPENS);
    fixture.wait_closes("after", CONTROLS);
    let state = fixture.wait_state("everything verified", |state| state.waiting == 0);
    assert!(state.rewritten >= CLOSES as u64 && state.lost == 0, "{state:?}");
    let found = fixture.compare();
    println!("{state:?}: {} opens, {} closes, {:?}", found.opens, found.closes, found.origins);
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
}

/// Size of the spool in bytes: less than the records of [`MANY`] sessions need.
const SPOOL: &str = "65536";
const MANY: usize = 600;

#[test]
fn records_of_a_full_disk_and_a_full_spool_are_counted_as_lost() {
    let test = "records_of_a_full_disk_and_a_full_spool_are_counted_as_lost";
    let Some(mut fixture) = Fixture::start(test, &["--spool-size", SPOOL]) else { return };
    let mut before = fixture.open("before", CONTROLS);
    fixture.close(&mut before);
    fixture.wait_closes("before", CONTROLS);

    let filler = fixture.stack.journal.exhaust().unwrap();
    let mut closing = fixture.open("closing", MANY);
    fixture.close(&mut closing);
    let state = fixture.wait_state("lost records", |state| state.lost > 0 && state.missing > 0);
    let claimed = state.rewritten;
    assert_eq!(fixture.closes("closing"), 0, "the disk is full");
    let lost = fixture.metric("t3_dispatch_journal_entries_total{outcome=\"lost\"}");
    println!("{state:?}; dispatch says lost {lost}");

    drop(filler);
    let state = fixture.wait_state("everything verified", |state| state.waiting == 0);
    let found = fixture.compare();
    let stored = fixture.closes("closing");
    println!("{state:?}: {stored} of {MANY} stored, {} doubled", found.doubled);
    assert_eq!(found.doubled, 0, "{:#?}", found.wrong);
    assert!(stored > 0, "the spool has some of them");
    assert_eq!(
        stored as u64 + state.lost,
        MANY as u64,
        "each record is in the journal or counted: {state:?}"
    );
    assert_eq!(claimed, 0, "records were called rewritten while nothing could be written");
}
