//! Chaos: tens of thousands of WebSockets with random ends through the real programs; each record
//! is compared with the expected record of its session.
//!
//! Each session has its own `Cf-Ray`, address, number of messages and end, so that the evidence of
//! another session shows as a mismatch. t3-trace is killed, stopped and restarted meanwhile; then
//! dispatch, t3-trace or both are killed at random, and the disk of the journal is full for a
//! while.

pub(crate) mod audit;
pub(crate) mod client;
pub(crate) mod clock;
mod expected_record;
pub(crate) mod journal_reader;
pub mod options;
pub(crate) mod outages;
pub(crate) mod plan;
pub(crate) mod process_usage;
mod report;
pub(crate) mod serve;
pub(crate) mod setup;
pub(crate) mod socket;

use std::time::{Duration, Instant};

use crate::{error::Result, wait};
use journal_reader::JournalReader;
use options::{Options, Part};
use outages::Outages;
use plan::Rng;
use report::{Kept, Report};
use setup::{Fixture, Phase};

/// Runs chaos; returns whether everything was right.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(Part::Serve { port }) = options.common.part {
        return serve::run(port).map(|()| true);
    }
    let seed = options.common.seed();
    println!(
        "seed {seed}: {} sessions, t3-trace killed {} times, then it, dispatch or both {} times",
        options.sessions, options.kills, options.crashes
    );
    let mut fixture = Fixture::start(options, seed)?;
    let mut report = run_phases(options, &mut fixture)?;
    report.judge();
    report.print();
    options.common.write_json(&report)?;
    Ok(report.right())
}

fn run_phases(options: &Options, fixture: &mut Fixture) -> Result<Report> {
    let all = options.sessions;
    let (warm, steady, again) = (all / 25, (all / 25).min(1_500), all / 6);
    let (crash, full) = (all / 6, steady);
    let storm = all - warm - 4 * steady - again - crash;
    let pace = Some(options.pace);
    let mut phases: Vec<Phase> = Vec::new();
    let mut say = |phase: Phase| {
        println!("{}: {} sessions in {:.1} s", phase.name, phase.seen.len(), phase.took.as_secs_f64());
        phases.push(phase);
    };
    say(fixture.phase("warm", warm, None, |_, _| Ok(()))?);
    settle(fixture);
    let dispatch = fixture.stack.dispatch_pid();
    let dispatch_before = process_usage::sample(dispatch);

    let mut back_after_ms = Vec::new();
    let kill = kill_and_restart(options.kills, storm, fixture.seed, &mut back_after_ms);
    say(fixture.phase("storm", storm, None, kill)?);
    drop(fixture.stack.trace.take());
    say(fixture.phase("without", steady, pace, |_, _| Ok(()))?);
    fixture.stack.start_trace()?;
    say(fixture.phase("with", steady, pace, |_, _| Ok(()))?);
    settle(fixture);
    let trace = fixture.stack.trace_pid();
    let trace_before = process_usage::sample(trace);
    fixture.stack.signal_trace(libc::SIGSTOP)?;
    say(fixture.phase("stopped", steady, pace, |_, _| Ok(()))?);
    fixture.stack.signal_trace(libc::SIGCONT)?;
    reconnected(fixture)?;
    say(fixture.phase("again", again, None, |_, _| Ok(()))?);

    settle(fixture);
    let kept = vec![
        Kept { program: "t3-dispatch", before: dispatch_before, after: process_usage::sample(dispatch) },
        Kept { program: "t3-trace", before: trace_before, after: process_usage::sample(trace) },
    ];
    let mut outages = Outages::none(dispatch);
    let crashes = outages::kill_at_random(options.crashes, crash, fixture.seed, &mut outages);
    say(fixture.phase("crashes", crash, None, crashes)?);
    let filling = outages::fill_disk(full, fixture.seed, &mut outages);
    say(fixture.phase("full", full, pace, filling)?);
    settle(fixture);
    let status = fixture.stack.status()?;
    let (audit, records) = audited(fixture, &phases, &outages)?;
    let read_back = records.took.as_secs_f64();
    Ok(Report {
        seed: fixture.seed,
        audit,
        kept,
        back_after_ms,
        kills: outages.kills,
        journal: fixture.stack.status()?.journal.unwrap_or_default(),
        held: status.sessions,
        lost: (status.lost, status.map_full),
        read_back,
        findings: Vec::new(),
    })
}

/// The audit of all records, and the records.
pub(crate) fn audited(
    fixture: &Fixture,
    phases: &[Phase],
    outages: &Outages,
) -> Result<(audit::Audit, JournalReader)> {
    let serve_pid = |plan: &plan::Plan| fixture.serve_pid(plan);
    let serve_reports = fixture.serve_reports();
    let input = audit::AuditInput { serve_reports, outages, serve_pid: &serve_pid };
    // What a full disk did not take is found by the next pass of t3-trace.
    let mut attempts = if outages.full.is_empty() { 5 } else { 60 };
    loop {
        attempts -= 1;
        let records = JournalReader::read(&fixture.stack.journal)?;
        let audit = audit::audit(phases, &records, &input);
        // journald writes with a delay; a record that is missing after some seconds is lost.
        if audit.missing == 0 || attempts == 0 {
            return Ok((audit, records));
        }
        fixture.stack.reconcile()?;
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// Waits until t3-trace has no open sessions; the report checks the rest.
fn settle(fixture: &Fixture) {
    let none = || fixture.stack.status().is_ok_and(|status| status.sessions == 0).then_some(());
    let _ = wait::until("the end of all sessions", Duration::from_secs(10), none);
    // Cuts wait for others of a burst, and its summary comes after them.
    std::thread::sleep(Duration::from_secs(2));
}

/// Waits until dispatch is connected to a t3-trace that was stopped.
fn reconnected(fixture: &Fixture) -> Result<()> {
    wait::until("t3-dispatch to connect to t3-trace", Duration::from_secs(20), || {
        fixture.stack.status().is_ok_and(|status| status.dispatch).then_some(())
    })
}

/// Kills t3-trace at even steps and starts it again after up to a second.
fn kill_and_restart(
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
            fixture.stack.start_trace()?;
            back_after_ms.push(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}
