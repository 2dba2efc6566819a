//! t3-dispatch and t3-trace in front of a WebSocket backend of the user, until Ctrl-C: no routing
//! table, no identity provider, no root. Each close is a line of `t3-trace live`.

pub mod backend;

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use t3_record::KernelSource;

use self::backend::{Backend, BackendError};
use crate::{
    demo::{identity_proxy, screen::Screen, stop::Stop},
    error::{Result, TestError},
    harness::{NO_LIMITS, Process, Setup, Stack, Stream, find},
    journald::Journal,
    sys,
};

/// Login of all sessions.
const USER: &str = "you";
/// Drain time of t3-dispatch (its default) and the time to exit.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Timeout for the last lines of `live`.
const LINES_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of the checks that all programs run.
const STEP: Duration = Duration::from_millis(50);

/// Reason why it did not run until Ctrl-C.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("{program} has ended:\n{stderr}")]
    Ended { program: &'static str, stderr: String },
    /// The set-up failed.
    #[error(transparent)]
    Failed(#[from] TestError),
}

/// Runs until a stop signal; stops all programs also after an error. `port`: of the address to
/// open; 0 selects a free one.
///
/// # Errors
/// [`TrialError`].
pub fn run(backend: &Backend, port: u16) -> Result<(), TrialError> {
    let uid = backend.check()?;
    let screen = Screen::new();
    let stop = Stop::on_signals()?;
    let mut stack = Stack::start(setup(backend, uid), Journal::on_stderr())?;
    let mut live = live(&stack, &screen)?;
    stack.until_subscribers(1)?;
    let address = identity_proxy::open(USER, stack.address, port)?;
    if let Some(why) = missing(&stack) {
        screen.dim(&why);
    }
    screen.line(&format!(
        "Open http://{address}{} in place of port {}. Each close of a WebSocket is a line here; Ctrl-C ends.",
        backend.path, backend.port
    ));
    screen.print_held_lines();
    let heading = screen.shown();
    while !stop.requested() {
        check(&mut stack, &mut live)?;
        thread::sleep(STEP);
    }
    end(&mut stack, &screen, heading)?;
    Ok(())
}

fn setup(backend: &Backend, uid: u32) -> Setup {
    let mut dispatch_arguments = vec!["--no-pairing".to_owned(), "--no-install-tags".to_owned()];
    dispatch_arguments.extend(NO_LIMITS.map(str::to_owned));
    Setup {
        users: [(USER.to_owned(), backend.port)].into(),
        uids: [(USER.to_owned(), uid)].into(),
        listen: ([127, 0, 0, 1], 0).into(),
        trusted: Vec::new(),
        trace: true,
        units: false,
        dispatch_arguments,
        dispatch_prefix: Vec::new(),
        stored: None,
        trace_arguments: Vec::new(),
    }
}

fn live(stack: &Stack, screen: &Screen) -> Result<Process> {
    let mut live = Command::new(find("t3-trace")?);
    live.arg("live").arg("--socket").arg(stack.socket());
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

/// Reason why records have no kernel evidence.
fn missing(stack: &Stack) -> Option<String> {
    if !sys::is_root() {
        return Some("not root: no kernel evidence (kernel=off), so some causes are only likely".to_owned());
    }
    if stack.kernel() != KernelSource::Off {
        return None;
    }
    let why = stack.status().ok()?.hooks.into_iter().find_map(|hook| hook.why);
    let why = why.unwrap_or_else(|| "t3-trace has no hooks".to_owned());
    Some(format!("no kernel evidence (kernel=off): {why}"))
}

fn check(stack: &mut Stack, live: &mut Process) -> Result<(), TrialError> {
    let programs = [
        ("t3-dispatch", stack.dispatch.as_mut()),
        ("t3-trace daemon", stack.trace.as_mut()),
        ("t3-trace live", Some(live)),
    ];
    for (program, process) in programs {
        if let Some(process) = process
            && process.ended().is_some()
        {
            return Err(TrialError::Ended { program, stderr: process.stderr() });
        }
    }
    Ok(())
}

/// Ends open sessions as a planned stop does, so that each has its line, before the programs end.
fn end(stack: &mut Stack, screen: &Screen, heading: usize) -> Result<()> {
    screen.dim("stopping");
    stack.signal_dispatch(libc::SIGTERM)?;
    if let Some(dispatch) = &mut stack.dispatch {
        dispatch.wait(STOP_TIMEOUT)?;
    }
    let closes = stack.journal.closes(|_| true)?.len();
    let deadline = Instant::now() + LINES_TIMEOUT;
    while screen.shown() < heading + closes && Instant::now() < deadline {
        thread::sleep(STEP);
    }
    Ok(())
}
