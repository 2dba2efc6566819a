//! A lane: a journald, a t3-trace and a dispatch, on which cells run one after the other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::{
    comparison::{Truth, compare},
    plan::{Act, Cell, Failure, Part, Story},
    programs::Programs,
    report::Row,
    sessions::{self, Session},
};
use crate::{
    error::Result,
    harness::{NO_LIMITS, Serve, Setup, Stack},
    journald::{Journal, Stored},
    wait,
};

const USER: &str = "u0";
/// Sessions that stay open through both failures.
const STAY: usize = 3;
/// Sessions that open between the failures, if dispatch serves.
const BETWEEN: usize = 2;
/// Timeout for the records: t3-trace makes a pass each minute.
const RECORDS: Duration = Duration::from_secs(150);
/// After this time t3-trace is asked for a pass.
const UNASKED: Duration = Duration::from_secs(3);
/// Records that come even later are found at the end of the lane.
const LATE: Duration = Duration::from_secs(3);
/// Order in which ended processes are started again, by the number of the cell.
const ORDERS: [[Part; 3]; 6] = {
    use Part::{Dispatch as D, Journald as J, Trace as T};
    [[J, T, D], [D, T, J], [T, J, D], [J, D, T], [T, D, J], [D, J, T]]
};

/// A dispatch that was stopped, or got no CPU among all the lanes, says so in place of the client's
/// close.
const BY_CLIENT: &[&str] = &["client_closed", "dispatch_stalled"];
/// dispatch and t3-trace were stopped at the same time, as on a host that gets no CPU.
const BY_CLIENT_AFTER_A_PAUSE: &[&str] = &["client_closed", "dispatch_stalled", "host_paused"];
const BY_DEATH: &[&str] = &["dispatch_died"];

pub(super) struct Lane<'a> {
    runtime: &'a Handle,
    programs: Programs,
    _serve: Serve,
    stored: Stored,
    done: Vec<(Row, Vec<Truth>)>,
}

impl<'a> Lane<'a> {
    pub(super) fn start(runtime: &'a Handle) -> Result<Self> {
        let mut setup = Setup::users(1)?;
        setup.dispatch_arguments.extend(NO_LIMITS.map(str::to_owned));
        let journal = Arc::new(Journal::unfollowed()?);
        journal.hold_socket()?;
        let stored = Stored::new(&journal);
        let stack = Stack::start(setup, journal)?;
        let serve = stack.serve(USER, &[], None)?;
        Ok(Self { runtime, programs: Programs::new(stack), _serve: serve, stored, done: Vec::new() })
    }

    /// Runs a cell; its records are compared in [`Self::finish`]. On an error the lane is unusable.
    pub(super) fn run(&mut self, number: usize, cell: &Cell) -> Result<()> {
        let began = Instant::now();
        let mut truths = Vec::new();
        let mut asked = 0;
        let outcome = self.play(number, cell, &mut truths).and_then(|()| {
            asked = self.settle(cell, &truths)?;
            Ok(())
        });
        let mut row = Row::new(number, cell.to_string());
        (row.asked, row.took) = (asked, began.elapsed());
        if let Err(error) = &outcome {
            row.wrong.push(format!("{error}\n{}", self.programs.stack.stderr()));
        }
        self.done.push((row, truths));
        outcome
    }

    /// Compares the sessions of all cells with all records.
    pub(super) fn finish(mut self) -> Result<Vec<Row>> {
        // After an error it may not run.
        let _ = self.programs.stack.reconcile();
        std::thread::sleep(LATE);
        let mut all = Stored::new(&self.programs.stack.journal);
        all.read()?;
        let pids = std::mem::take(&mut self.programs.dispatch_pids);
        let mut rows = Vec::new();
        for (mut row, truths) in self.done {
            let prefix = prefix(row.number);
            let opens: Vec<_> = all.opens.iter().filter(|record| record.ray.starts_with(&prefix)).collect();
            let closes: Vec<_> = all.closes.iter().filter(|record| record.ray.starts_with(&prefix)).collect();
            row.add(truths.len(), compare(&truths, &opens, &closes, |pid| pids.contains(&pid)));
            rows.push(row);
        }
        Ok(rows)
    }

    fn open(&self, number: usize, kind: &str, count: usize) -> Result<Vec<Session>> {
        let rays: Vec<_> = (0..count).map(|n| format!("{}{kind}{n}", prefix(number))).collect();
        sessions::open(self.runtime, self.programs.stack.address, USER, &rays)
    }

    /// Opens, fails, closes, brings back and ends all sessions.
    fn play(&mut self, number: usize, cell: &Cell, truths: &mut Vec<Truth>) -> Result<()> {
        let mut staying = self.open(number, "stay", STAY)?;
        let mut closing = self.open(number, "close", cell.closes)?;
        truths.extend(staying.iter().chain(&closing).map(|session| truth(cell, session)));
        self.opens_are_stored(truths)?;
        match cell.story {
            Story::Pair(first, second) => {
                self.programs.fail(first)?;
                if first.part == second.part {
                    self.programs.start(first.part)?;
                }
                if self.programs.dispatch_serves() {
                    let between = self.open(number, "between", BETWEEN)?;
                    truths.extend(between.iter().map(|session| truth(cell, session)));
                    staying.extend(between);
                }
                closing.iter_mut().for_each(Session::close);
                if self.programs.dispatch_serves() {
                    for session in &mut closing {
                        session.wait_end(self.runtime)?;
                    }
                }
                self.programs.fail(second)?;
            }
            Story::Together => {
                self.programs.stack.signal_dispatch(libc::SIGKILL)?;
                self.programs.stack.signal_trace(libc::SIGKILL)?;
                self.programs.kill(Part::Dispatch)?;
                self.programs.kill(Part::Trace)?;
            }
            Story::NotRegistered => self.programs.die_unregistered()?,
            Story::AllGone | Story::AllKilled => {
                self.programs.kill(Part::Journald)?;
                self.programs.kill(Part::Dispatch)?;
                if cell.story == Story::AllGone {
                    self.programs.stop(Part::Trace)?;
                } else {
                    self.programs.kill(Part::Trace)?;
                }
            }
        }
        self.programs.bring_back(ORDERS[number % ORDERS.len()])?;
        // Everything works again.
        let mut after = self.open(number, "after", 1)?;
        let paused = |part| cell.has(part, Act::Pause);
        let verdicts =
            if paused(Part::Dispatch) && paused(Part::Trace) { BY_CLIENT_AFTER_A_PAUSE } else { BY_CLIENT };
        truths.extend(after.iter().map(|session| Truth { verdicts, ..truth(cell, session) }));
        for session in after.iter_mut().chain(&mut staying).chain(&mut closing) {
            session.close();
            session.wait_end(self.runtime)?;
        }
        Ok(())
    }

    /// Waits until the journal has the `ws open` of each session, and notes their identity.
    fn opens_are_stored(&mut self, truths: &mut [Truth]) -> Result<()> {
        wait::until("the `ws open` of each session in the journal", Duration::from_secs(60), || {
            std::thread::sleep(Duration::from_millis(200));
            self.stored.read().ok()?;
            for truth in truths.iter_mut() {
                let its = self.stored.opens.iter().rev().find(|open| open.ray == truth.ray);
                truth.conn = its.map(|open| open.conn.clone());
            }
            truths.iter().all(|truth| truth.conn.is_some()).then_some(())
        })
    }

    /// Waits until each session has a record, or for [`RECORDS`]; returns how often t3-trace was
    /// asked for a pass.
    fn settle(&mut self, cell: &Cell, truths: &[Truth]) -> Result<usize> {
        let began = Instant::now();
        let mut asked = 0;
        loop {
            self.stored.read()?;
            let stored: std::collections::HashSet<&str> =
                self.stored.closes.iter().map(|close| close.ray.as_str()).collect();
            let done = truths.iter().all(|truth| stored.contains(truth.ray.as_str()));
            if done || began.elapsed() > wait::scaled(RECORDS) {
                return Ok(asked);
            }
            if began.elapsed() > UNASKED && asked == 0 && !cell.waits_for_timer() {
                asked += 1;
                self.programs.stack.reconcile()?;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

fn prefix(number: usize) -> String {
    format!("km{number}-")
}

/// An opened session of a cell. Where dispatch does not fail, or only dies, its verdict is known.
fn truth(cell: &Cell, session: &Session) -> Truth {
    let is_closing = session.ray.contains("-close");
    let killed = Failure { part: Part::Dispatch, act: Act::Kill };
    let verdicts = match cell.story {
        _ if !cell.touches(Part::Dispatch) => BY_CLIENT,
        Story::Pair(first, second) if first == killed && second.part != Part::Dispatch => BY_DEATH,
        // The record of a session that has just closed may be lost with dispatch.
        Story::Pair(first, second) if second == killed && first.part != Part::Dispatch && !is_closing => {
            BY_DEATH
        }
        Story::Pair(..) => &[],
        _ => BY_DEATH,
    };
    Truth { ray: session.ray.clone(), conn: None, verdicts }
}
