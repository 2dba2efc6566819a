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
use plan::Dice;
use report::{Kept, Report};
use setup::{Phase, Stage};

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
    let mut stage = Stage::set(options, seed)?;
    let mut report = play(options, &mut stage)?;
    report.complain();
    report.print();
    if let Some(path) = &options.json {
        let text = serde_json::to_vec_pretty(&report).map_err(std::io::Error::other);
        let what = || format!("write {}", path.display());
        std::fs::write(path, text.attempt(what)?).attempt(what)?;
    }
    Ok(report.right())
}

fn play(options: &Options, stage: &mut Stage) -> Result<Report> {
    let all = options.sessions;
    let (warm, steady, again) = (all / 25, (all / 25).min(1_500), all / 6);
    let storm = all - warm - 3 * steady - again;
    let pace = Some(options.pace);
    let mut phases: Vec<Phase> = Vec::new();
    let mut say = |phase: Phase| {
        println!("{}: {} sessions in {:.1} s", phase.name, phase.seen.len(), phase.took.as_secs_f64());
        phases.push(phase);
    };
    say(stage.phase("warm", warm, None, |_, _| Ok(()))?);
    settle(stage);
    let dispatch = stage.stack.dispatch.as_ref().map_or(0, crate::harness::Process::pid);
    let dispatch_before = process_usage::look(dispatch);

    let mut back_after_ms = Vec::new();
    let kill = kill_now_and_then(options.kills, storm, stage.seed, &mut back_after_ms);
    say(stage.phase("storm", storm, None, kill)?);
    drop(stage.stack.trace.take());
    say(stage.phase("without", steady, pace, |_, _| Ok(()))?);
    stage.stack.start_trace(&stage.journal)?;
    say(stage.phase("with", steady, pace, |_, _| Ok(()))?);
    settle(stage);
    let trace = stage.stack.trace.as_ref().map_or(0, crate::harness::Process::pid);
    let trace_before = process_usage::look(trace);
    signal(stage, libc::SIGSTOP)?;
    say(stage.phase("stopped", steady, pace, |_, _| Ok(()))?);
    signal(stage, libc::SIGCONT)?;
    acquainted(stage)?;
    say(stage.phase("again", again, None, |_, _| Ok(()))?);

    settle(stage);
    let kept = vec![
        Kept { program: "t3-dispatch", before: dispatch_before, after: process_usage::look(dispatch) },
        Kept { program: "t3-trace", before: trace_before, after: process_usage::look(trace) },
    ];
    let status = stage.stack.status()?;
    let told = stage.told();
    let serve_pid = |plan: &plan::Plan| stage.serve_pid(plan);
    let cast = audit::Cast { told, dispatch, serve_pid: &serve_pid };
    let (mut audit, mut read_back) = (audit::Audit::default(), 0.0);
    // journald takes what was sent to it in its own time; a record that is not there after a while
    // never will be.
    for _ in 0..5 {
        let began = Instant::now();
        let ledger = journal_reader::Ledger::read(&stage.journal)?;
        read_back = began.elapsed().as_secs_f64();
        audit = audit::audit(&phases, &ledger, &cast);
        if audit.missing == 0 {
            break;
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(Report {
        seed: stage.seed,
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
fn settle(stage: &Stage) {
    let none = || stage.stack.status().is_ok_and(|status| status.sessions == 0).then_some(());
    let _ = wait::until("no session to be held", Duration::from_secs(10), none);
    // Cuts wait for their neighbours, and a burst is summed up after them.
    std::thread::sleep(Duration::from_secs(2));
}

fn signal(stage: &Stage, signal: i32) -> Result<()> {
    stage.stack.trace.as_ref().map_or(Ok(()), |trace| trace.signal(signal))
}

/// Waits until dispatch has found a t3-trace again that had stood still.
fn acquainted(stage: &Stage) -> Result<()> {
    wait::until("t3-dispatch to connect to t3-trace", Duration::from_secs(20), || {
        stage.stack.status().is_ok_and(|status| status.dispatch).then_some(())
    })
}

/// Kills t3-trace at even steps, leaves it away for up to a second, and starts it again.
fn kill_now_and_then(
    kills: u32,
    sessions: u32,
    seed: u64,
    back_after_ms: &mut Vec<u64>,
) -> impl FnMut(&mut Stage, u32) -> Result<()> {
    let step = sessions / (kills + 1);
    let (mut killed, mut dice) = (0, Dice(seed));
    move |stage, over| {
        if killed < kills && over >= step * (killed + 1) {
            killed += 1;
            drop(stage.stack.trace.take());
            std::thread::sleep(Duration::from_millis(dice.below(1_000)));
            let began = Instant::now();
            stage.stack.start_trace(&stage.journal)?;
            back_after_ms.push(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}
