//! The three processes of a lane: their failures, and the return of all of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::plan::{Act, Failure, Part};
use crate::{
    error::{Attempt, Result, TestError},
    harness::{Process, Stack},
    sys, wait,
};

/// From SIGSTOP to SIGCONT: longer than every timeout between the processes.
pub(super) const PAUSE: Duration = Duration::from_secs(12);
/// systemd's `TimeoutStopSec=` of the units.
const STOP: Duration = Duration::from_secs(20);
/// dispatch connects to t3-trace at most this long after both run.
const CONNECT: Duration = Duration::from_secs(60);

/// A stopped process that continues by itself.
#[derive(Debug)]
struct Paused {
    part: Part,
    /// It was killed meanwhile: its process id may belong to another one.
    is_gone: Arc<AtomicBool>,
    timer: JoinHandle<()>,
}

/// The processes.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) stack: Stack,
    paused: Vec<Paused>,
    /// Every process of dispatch so far.
    pub(super) dispatch_pids: Vec<u32>,
}

impl Programs {
    pub(super) fn new(stack: Stack) -> Self {
        let dispatch_pids = vec![stack.dispatch_pid()];
        Self { stack, paused: Vec::new(), dispatch_pids }
    }

    /// Whether dispatch runs and is not stopped.
    pub(super) fn dispatch_serves(&self) -> bool {
        self.stack.dispatch.is_some() && !self.is_paused(Part::Dispatch)
    }

    fn is_paused(&self, part: Part) -> bool {
        self.paused.iter().any(|paused| paused.part == part && !paused.timer.is_finished())
    }

    pub(super) fn fail(&mut self, failure: Failure) -> Result<()> {
        match (failure.part, failure.act) {
            (part, Act::Pause) => self.pause(part),
            (part, Act::Kill) => self.kill(part),
            (part, Act::Restart) => {
                self.stop(part)?;
                match self.start(part) {
                    // systemd holds journald's socket on a real host; without it a program
                    // cannot start its log, and is started again later.
                    Err(_) if !self.stack.journal.is_running() => Ok(()),
                    started => started,
                }
            }
        }
    }

    fn pid(&self, part: Part) -> u32 {
        match part {
            Part::Dispatch => self.stack.dispatch_pid(),
            Part::Trace => self.stack.trace_pid(),
            Part::Journald => self.stack.journal.pid().unwrap_or(0),
        }
    }

    fn pause(&mut self, part: Part) -> Result<()> {
        let pid = self.pid(part);
        if pid == 0 {
            return Err(TestError::Unexpected {
                what: format!("{part:?} running"),
                got: "it is gone".to_owned(),
            });
        }
        sys::signal(pid, libc::SIGSTOP).attempt(|| format!("stop {part:?}"))?;
        let is_gone = Arc::<AtomicBool>::default();
        let gone = Arc::clone(&is_gone);
        let timer = std::thread::spawn(move || {
            std::thread::sleep(PAUSE);
            if !gone.load(Ordering::SeqCst) {
                let _ = sys::signal(pid, libc::SIGCONT);
            }
        });
        self.paused.push(Paused { part, is_gone, timer });
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub(super) fn kill(&mut self, part: Part) -> Result<()> {
        for paused in self.paused.iter().filter(|paused| paused.part == part) {
            paused.is_gone.store(true, Ordering::SeqCst);
        }
        match part {
            Part::Dispatch => drop(self.stack.dispatch.take()),
            Part::Trace => drop(self.stack.trace.take()),
            Part::Journald => self.stack.journal.kill()?,
        }
        Ok(())
    }

    /// SIGTERM, and SIGKILL if that takes too long.
    pub(super) fn stop(&mut self, part: Part) -> Result<()> {
        let process: Option<Process> = match part {
            Part::Dispatch => self.stack.dispatch.take(),
            Part::Trace => self.stack.trace.take(),
            Part::Journald => return self.stack.journal.stop(),
        };
        if let Some(mut process) = process {
            process.signal(libc::SIGTERM)?;
            let _ = process.wait(STOP);
        }
        Ok(())
    }

    /// Starts a process that has ended; nothing if it runs.
    pub(super) fn start(&mut self, part: Part) -> Result<()> {
        let started = self.start_once(part);
        if started.is_err() {
            match part {
                Part::Dispatch => drop(self.stack.dispatch.take()),
                Part::Trace => drop(self.stack.trace.take()),
                Part::Journald => {}
            }
        }
        started
    }

    fn start_once(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Dispatch if self.stack.dispatch.is_none() => {
                self.stack.start_dispatch()?;
                self.dispatch_pids.push(self.stack.dispatch_pid());
                Ok(())
            }
            Part::Trace if self.stack.trace.is_none() => self.stack.start_trace(),
            Part::Journald if !self.stack.journal.is_running() => self.stack.journal.start_again(),
            _ => Ok(()),
        }
    }

    /// Restarts t3-trace while dispatch cannot register, and kills dispatch.
    pub(super) fn die_unregistered(&mut self) -> Result<()> {
        self.stop(Part::Trace)?;
        self.stack.signal_dispatch(libc::SIGSTOP)?;
        // Not part of the stack meanwhile: the start would wait until it is connected.
        let dispatch = self.stack.dispatch.take();
        let started = self.stack.start_trace();
        drop(dispatch);
        started
    }

    /// Waits for the end of all pauses, and starts what has ended, in this order.
    pub(super) fn bring_back(&mut self, order: [Part; 3]) -> Result<()> {
        for paused in self.paused.drain(..) {
            let _ = paused.timer.join();
        }
        // As systemd does after a failed start (`Restart=always`, `RestartSec=1s`).
        let mut attempts = 20;
        while let Err(error) = order.into_iter().map(|part| self.start(part)).fold(Ok(()), Result::and) {
            attempts -= 1;
            if attempts == 0 {
                return Err(error);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        wait::until("t3-dispatch to connect to t3-trace", CONNECT, || {
            self.stack.status().is_ok_and(|status| status.dispatch).then_some(())
        })
    }
}
