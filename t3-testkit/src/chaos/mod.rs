//! Chaos: tens of thousands of WebSockets opened and closed in random ways through real programs,
//! and every record held against the truth about its own session.
//!
//! Identity, not counting: each session has its own `Cf-Ray`, address, number of messages and way
//! to end, so that the evidence of a neighbour shows as a wrong key. t3-trace is killed, stopped
//! and left out meanwhile.

pub(crate) mod audit;
pub(crate) mod client;
pub(crate) mod clock;
mod expected_record;
pub(crate) mod journal_reader;
pub mod options;
pub(crate) mod plan;
pub(crate) mod process_usage;
mod report;
pub(crate) mod serve;
pub(crate) mod setup;
pub(crate) mod socket;

use std::time::{Duration, Instant};

use crate::{
    error::{Attempt, Result},
    wait,
};
use options::{Options, Part};
use plan::Rng;
use report::{Kept, Report};
use setup::{Fixture, Phase};

/// Runs; whether everything was right.
///
/// # Errors
/// It could not be carried out.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(Part::Serve { port }) = options.part {
        return serve::run(port).map(|()| true);
    }
    let random = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| u64::from(since.subsec_nanos()));
    let seed = options.seed.unwrap_or_else(random);
    println!("seed {seed}: {} sessions, t3-trace killed {} times", options.sessions, options.kills);
    let mut fixture = Fixture::start(options, seed)?;
    let mut report = run_phases(options, &mut fixture)?;
    report.complain();
    report.print();
    if let Some(path) = &options.json {
        let text = serde_json::to_vec_pretty(&report).map_err(std::io::Error::other);
        let what = || format!("write {}", path.display());
        std::fs::write(path, text.attempt(what)?).attempt(what)?;
    }
    Ok(report.right())
}

fn run_phases(options: &Options, fixture: &mut Fixture) -> Result<Report> {
    let all = options.sessions;
    let (warm, steady, again) = (all / 25, (all / 25).min(1_500), all / 6);
    let storm = all - warm - 3 * steady - again;
    let pace = Some(options.pace);
    let mut phases: Vec<Phase> = Vec::new();
    let mut say = |phase: Phase| {
        println!("{}: {} sessions in {:.1} s", phase.name, phase.seen.len(), phase.took.as_secs_f64());
        phases.push(phase);
    };
    say(fixture.phase("warm", warm, None, |_, _| Ok(()))?);
    settle(fixture);
    let dispatch = fixture.stack.dispatch.as_ref().map_or(0, crate::harness::Process::pid);
    let dispatch_before = process_usage::look(dispatch);

    let mut back_after_ms = Vec::new();
    let kill = kill_now_and_then(options.kills, storm, fixture.seed, &mut back_after_ms);
    say(fixture.phase("storm", storm, None, kill)?);
    drop(fixture.stack.trace.take());
    say(fixture.phase("without", steady, pace, |_, _| Ok(()))?);
    fixture.stack.start_trace(&fixture.journal)?;
    say(fixture.phase("with", steady, pace, |_, _| Ok(()))?);
    settle(fixture);
    let trace = fixture.stack.trace.as_ref().map_or(0, crate::harness::Process::pid);
    let trace_before = process_usage::look(trace);
    signal(fixture, libc::SIGSTOP)?;
    say(fixture.phase("stopped", steady, pace, |_, _| Ok(()))?);
    signal(fixture, libc::SIGCONT)?;
    acquainted(fixture)?;
    say(fixture.phase("again", again, None, |_, _| Ok(()))?);

    settle(fixture);
    let kept = vec![
        Kept { program: "t3-dispatch", before: dispatch_before, after: process_usage::look(dispatch) },
        Kept { program: "t3-trace", before: trace_before, after: process_usage::look(trace) },
    ];
    let status = fixture.stack.status()?;
    let serve_reports = fixture.serve_reports();
    let serve_pid = |plan: &plan::Plan| fixture.serve_pid(plan);
    let input = audit::AuditInput { serve_reports, dispatch, serve_pid: &serve_pid };
    let (mut audit, mut read_back) = (audit::Audit::default(), 0.0);
    // journald takes what was sent to it in its own time; a record that is not there after a while
    // never will be.
    for _ in 0..5 {
        let began = Instant::now();
        let reader = journal_reader::JournalReader::read(&fixture.journal)?;
        read_back = began.elapsed().as_secs_f64();
        audit = audit::audit(&phases, &reader, &input);
        if audit.missing == 0 {
            break;
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(Report {
        seed: fixture.seed,
        audit,
        kept,
        back_after_ms,
        held: status.sessions,
        lost: (status.lost, status.map_full),
        read_back,
        complaints: Vec::new(),
    })
}

/// Waits until t3-trace holds no session any more; what it still holds after that is looked at in
/// the report.
fn settle(fixture: &Fixture) {
    let none = || fixture.stack.status().is_ok_and(|status| status.sessions == 0).then_some(());
    let _ = wait::until("no session to be held", Duration::from_secs(10), none);
    // Cuts wait for their neighbours, and a burst is summed up after them.
    std::thread::sleep(Duration::from_secs(2));
}

fn signal(fixture: &Fixture, signal: i32) -> Result<()> {
    fixture.stack.trace.as_ref().map_or(Ok(()), |trace| trace.signal(signal))
}

/// Waits until dispatch has found a t3-trace again that had stood still.
fn acquainted(fixture: &Fixture) -> Result<()> {
    wait::until("t3-dispatch to connect to t3-trace", Duration::from_secs(20), || {
        fixture.stack.status().is_ok_and(|status| status.dispatch).then_some(())
    })
}

/// Kills t3-trace at even steps, leaves it away for up to a second, and starts it again.
fn kill_now_and_then(
    kills: u32,
    sessions: u32,
    seed: u64,
    back_after_ms: &mut Vec<u64>,
) -> impl FnMut(&mut Fixture, u32) -> Result<()> {
    let step = sessions / (kills + 1);
    let (mut killed, mut rng) = (0, Rng(seed));
    move |fixture, over| {
        if killed < kills && over >= step * (killed + 1) {
            killed += 1;
            drop(fixture.stack.trace.take());
            std::thread::sleep(Duration::from_millis(rng.below(1_000)));
            let began = Instant::now();
            fixture.stack.start_trace(&fixture.journal)?;
            back_after_ms.push(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}
