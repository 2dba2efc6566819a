//! The demo without t3-dispatch: sessions through another proxy, or directly to serve, with the
//! line of `t3-trace live` for each connection and a check of its record.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use t3_record::KernelSource;

use super::{Ended, screen::Screen, stop::Stop};
use crate::{
    error::{Result, TestError},
    foreign::{Fault, Leg, Outcome, Proxy, Run, Target, in_own_network, run_target},
    harness::{Process, Setup, Stack, Stream, find},
    journald::Journal,
};

/// Timeout for the lines of `live` after the records.
const LINE_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the demo with this proxy, or without one; returns whether each record is as expected.
pub fn run(proxy: Option<Proxy>, pause: Duration) -> Result<bool, Ended> {
    let screen = Screen::new();
    let stop = Stop::on_signals()?;
    in_own_network(proxy, || show(proxy, pause, &screen, &stop))
}

fn show(proxy: Option<Proxy>, pause: Duration, screen: &Screen, stop: &Stop) -> Result<bool, Ended> {
    let version = proxy.and_then(Proxy::version);
    match (&version, proxy) {
        (Some(version), _) => {
            screen.dim(&format!("starting t3-trace and {version}; each session gets a fake t3 serve"));
        }
        (None, Some(proxy)) => {
            // The error names what is missing.
            proxy.program()?;
        }
        (None, None) => screen.dim("starting t3-trace; each client connects to a fake t3 serve"),
    }
    let target = Target::new(proxy, &[])?;
    let mut setup = Setup::users(0)?;
    setup.trace_arguments = target.watch();
    let stack = Stack::without_dispatch(setup, Journal::on_stderr())?;
    if stack.kernel() == KernelSource::Off {
        let why = stack.status()?.hooks.into_iter().find_map(|hook| hook.why).unwrap_or_default();
        return Err(TestError::Missing { what: "kernel evidence".to_owned(), remedy: why }.into());
    }
    let _live = live(&stack, screen)?;
    stack.until_subscribers(1)?;
    screen.dim("lines with a dot announce a fault, all others are the output of `t3-trace live`");
    if proxy.is_some() {
        screen.dim("two lines per fault: one for the port of the proxy, one for the port of serve behind it");
    }
    screen.print_held_lines();
    let run = Run { journal: &stack.journal, dir: stack.dir() };
    let before = |fault: &Fault| {
        until(stop, pause, || false)?;
        screen.dim(fault.injected);
        Ok(())
    };
    let mut lines = 0;
    let after = |outcome: &Outcome| {
        lines += outcome.at_proxy.iter().chain(&outcome.at_serve).count();
        until(stop, LINE_TIMEOUT, || screen.shown() >= lines)
    };
    let outcomes = run_target(run, &target, before, after)?;
    screen.line("");
    for line in report(&outcomes) {
        screen.line(&line);
    }
    Ok(outcomes.iter().all(|outcome| outcome.mismatches.is_empty()))
}

fn live(stack: &Stack, screen: &Screen) -> Result<Process> {
    let mut live = Command::new(find("t3-trace")?);
    live.args(["live", "--via", "direct", "--socket"]).arg(stack.socket());
    if !screen.colours() {
        live.arg("--plain");
    }
    let shown = screen.clone();
    Process::start_observed(live, move |stream, line| {
        if stream == Stream::Stdout {
            shown.program(line);
        }
    })
}

/// Polls until `holds` or the limit; Ctrl-C ends the wait.
fn until(stop: &Stop, limit: Duration, holds: impl Fn() -> bool) -> Result<(), Ended> {
    let deadline = Instant::now() + limit;
    while !holds() && Instant::now() < deadline {
        if stop.requested() {
            return Err(Ended::Stopped);
        }
        thread::sleep(Duration::from_millis(10));
    }
    if stop.requested() { Err(Ended::Stopped) } else { Ok(()) }
}

/// The table and the score below it, as lines.
fn report(outcomes: &[Outcome]) -> Vec<String> {
    let mut lines = vec![row(["fault", "port of the proxy", "port of serve", ""])];
    lines.extend(outcomes.iter().flat_map(|outcome| {
        let mark = if outcome.mismatches.is_empty() { "correct" } else { "WRONG" };
        let (at_proxy, at_serve) = (words(outcome.at_proxy.as_ref()), words(outcome.at_serve.as_ref()));
        let wrong = outcome.mismatches.iter().map(|wrong| format!("    {wrong}"));
        std::iter::once(row([outcome.fault.name, &at_proxy, &at_serve, mark])).chain(wrong)
    }));
    let correct = outcomes.iter().filter(|outcome| outcome.mismatches.is_empty()).count();
    lines.push(format!("{correct} of {} explained correctly", outcomes.len()));
    lines
}

fn words(leg: Option<&Leg>) -> String {
    leg.map_or_else(
        || "-".to_owned(),
        |leg| {
            let confidence = leg.confidence.map_or("", |confidence| confidence.as_str());
            format!("{} {} {confidence}", leg.verdict.as_str(), leg.how)
        },
    )
}

fn row([fault, at_proxy, at_serve, mark]: [&str; 4]) -> String {
    let line = format!("  {fault:<18} {at_proxy:<34} {at_serve:<34} {mark}");
    line.trim_end().to_owned()
}
