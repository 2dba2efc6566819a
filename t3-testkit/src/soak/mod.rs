//! Soak: thousands of concurrent WebSockets with heartbeats through the real programs, then random
//! ends.
//!
//! None may be dropped, the memory of t3-dispatch and t3-trace must be constant, and every session
//! must have one correct record. Plans, serves and the audit are those of chaos. Then the memory of
//! t3-dispatch with every limit at its maximum is measured, and compared with its unit.

pub mod limits;
pub mod options;
pub mod report;
mod session;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use t3_record::Verdict;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    bench::{self, meter},
    chaos::options::Part,
    chaos::{
        self,
        audit::Times,
        outages::Outages,
        plan::Plan,
        process_usage::sample,
        serve,
        setup::{Fixture, Phase},
    },
    error::{Attempt, Result, TestError},
    harness::Process,
    journald::Journal,
    wait,
};
use options::Options;
use report::{Cpu, Report, Sample};
use session::{Common, Counts, Held, PERIOD};

/// Concurrent openings.
const AT_ONCE: usize = 50;
/// Interval between memory samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// Timeout for opening all; a slow host needs 1 to 2 ms for each.
const OPENING: Duration = Duration::from_secs(300);

/// Runs soak; returns whether everything was right.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(Part::Serve { port }) = options.common.part {
        return serve::run(port).map(|()| true);
    }
    let descriptors = bench::raise_descriptors()?;
    // With the reserve of dispatch (t3-dispatch/src/sys/descriptors.rs).
    let needed = 2 * u64::from(options.sessions) + 1_200;
    if descriptors < needed {
        return Err(TestError::Missing {
            what: format!("{needed} descriptors per process (the hard limit is {descriptors})"),
            remedy: "raise it (ulimit -Hn) or lower --sessions".to_owned(),
        });
    }
    let seed = options.common.seed();
    println!("seed {seed}: {} sessions for {} s", options.sessions, options.seconds);
    let mut fixture = Fixture::with(options.users as usize, AT_ONCE, seed, Journal::unfollowed()?)?;
    let mut report = run_phases(options, &mut fixture)?;
    drop(fixture);
    if !options.without_limits {
        report.limits = Some(limits::measure()?);
    }
    report.print();
    options.common.write_json(&report)?;
    Ok(report.right())
}

fn run_phases(options: &Options, fixture: &mut Fixture) -> Result<Report> {
    let dispatch = fixture.stack.dispatch_pid();
    let trace = fixture.stack.trace_pid();
    let before = sample(dispatch);
    let counts = Arc::<Counts>::default();
    let (end, ending) = watch::channel(None);
    let began = Instant::now();
    let browsers = fixture.runtime.spawn(browse(
        Common {
            address: fixture.stack.address,
            seed: fixture.seed,
            counts: Arc::clone(&counts),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        },
        options.sessions,
        fixture.users,
        ending,
    ));
    wait::until("the opening of all sessions", OPENING, || {
        let tried = counts.open.load(Ordering::Relaxed) + counts.unopened.load(Ordering::Relaxed);
        (tried >= options.sessions).then_some(())
    })?;
    let opening = began.elapsed();
    println!("{} open after {:.1} s", counts.open.load(Ordering::Relaxed), opening.as_secs_f64());
    // Allocations of the first heartbeat belong to the start.
    std::thread::sleep(PERIOD + PERIOD / 2);

    let pids = Pids {
        dispatch,
        trace,
        browsers: std::process::id(),
        serves: fixture.serves.iter().map(Process::pid).collect(),
    };
    let (cpu, held_since) = (pids.cpu()?, Instant::now());
    let mut samples = Vec::new();
    loop {
        let since = held_since.elapsed();
        samples.push(Sample {
            seconds: since.as_secs_f64(),
            dispatch_kib: sample(dispatch).rss_kib,
            trace_kib: sample(trace).rss_kib,
        });
        let left = Duration::from_secs(options.seconds).saturating_sub(since);
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(SAMPLE_INTERVAL));
    }
    let held = held_since.elapsed();
    let cpu = pids.cpu()?.since(cpu, held);
    let with = sample(dispatch);
    let registered = fixture.stack.status()?.sessions;

    let over = Instant::now();
    let span = Duration::from_secs(options.closing);
    end.send_replace(Some((tokio::time::Instant::now(), span)));
    let sessions = fixture.runtime.block_on(browsers).map_err(std::io::Error::other);
    let sessions = sessions.attempt(|| "hold the sessions".to_owned())?;
    let ended = over.elapsed();
    let mut rtts: Vec<u64> = Vec::new();
    let mut seen = Vec::with_capacity(sessions.len());
    for Held { seen: one, rtts_us } in sessions {
        rtts.extend(rtts_us.iter().map(|micros| micros.saturating_mul(1_000)));
        seen.push(one);
    }
    let none = || fixture.stack.status().is_ok_and(|status| status.sessions == 0).then_some(());
    let _ = wait::until("the end of all sessions", Duration::from_secs(20), none);
    // Cuts wait for others of a burst.
    std::thread::sleep(Duration::from_secs(2));
    let phase = Phase { name: "soak", took: ended, seen, dispatch_kib: with.rss_kib };
    let (audit, records) = chaos::audited(fixture, &[phase], &Outages::none(dispatch))?;
    let closes = || records.closes.values().flatten().map(|close| &close.record);
    let unknown = closes().filter(|record| record.verdict == Verdict::Unknown).count();
    let lost = closes().filter_map(|record| record.lost).sum();
    let status = fixture.stack.status()?;
    std::thread::sleep(Duration::from_secs(options.settle));
    Ok(Report {
        seed: fixture.seed,
        sessions: options.sessions,
        opening_seconds: opening.as_secs_f64(),
        held_seconds: held.as_secs_f64(),
        ending_seconds: ended.as_secs_f64(),
        unopened: counts.unopened.load(Ordering::Relaxed),
        dropped: counts.dropped.load(Ordering::Relaxed),
        registered,
        heartbeats: Times::of(rtts),
        dispatch: [before, with, sample(dispatch)],
        settle_seconds: options.settle,
        samples,
        cpu,
        unknown,
        lost,
        lost_in_all: status.lost,
        map_full: status.map_full,
        audit,
        limits: None,
    })
}

async fn browse(common: Common, sessions: u32, users: usize, ending: session::Ending) -> Vec<Held> {
    let mut browsers = JoinSet::new();
    for id in 0..sessions {
        let plan = Plan::draw_open(common.seed, id, users);
        browsers.spawn(session::run(common.clone(), Fixture::user(&plan), plan, ending.clone()));
    }
    browsers.join_all().await
}

struct Pids {
    dispatch: u32,
    trace: u32,
    browsers: u32,
    serves: Vec<u32>,
}

/// CPU time used so far, in seconds.
#[derive(Clone, Copy)]
struct Used {
    dispatch: f64,
    trace: f64,
    browsers: f64,
    serves: f64,
}

impl Pids {
    fn cpu(&self) -> Result<Used> {
        let seconds = |pid: u32| meter::cpu(pid).map(|time| time.as_secs_f64());
        Ok(Used {
            dispatch: seconds(self.dispatch)?,
            trace: seconds(self.trace)?,
            browsers: seconds(self.browsers)?,
            serves: self.serves.iter().map(|pid| seconds(*pid)).sum::<Result<f64>>()?,
        })
    }
}

impl Used {
    fn since(self, earlier: Self, time: Duration) -> Cpu {
        let percent = |now: f64, then: f64| 100.0 * (now - then) / time.as_secs_f64();
        Cpu {
            dispatch: percent(self.dispatch, earlier.dispatch),
            trace: percent(self.trace, earlier.trace),
            browsers: percent(self.browsers, earlier.browsers),
            serves: percent(self.serves, earlier.serves),
        }
    }
}
