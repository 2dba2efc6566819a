//! Faults of the journal: journald stands still, or dies and comes back. No session notices, and no
//! record is lost or out of order.

use std::time::Duration;

use super::{Fault, Need, Truth, World, edge_burst::untouched};
use crate::{
    client::{Client, PATIENCE},
    error::{Result, TestError},
    sys,
};

/// Sessions that end while journald is away.
const SESSIONS: usize = 6;

/// What is left of them with a queue of two: those two, and the one that the writer had in its
/// hand.
const KEPT: usize = 3;

/// Between two ends: more than the patience with evidence, so that the order of the records is
/// known.
const APART: Duration = Duration::from_millis(800);

/// Refused upgrades, each a line in the log: more than journald's socket holds.
const LINES: usize = 700;

pub(super) fn faults() -> Vec<Fault> {
    let truth = || -> Truth { untouched() };
    vec![
        Fault::new("journald_stopped", truth(), |w| {
            let pid = w.journal.pid().unwrap_or_default();
            let signal = |number| {
                sys::signal(pid, number)
                    .map_err(|source| TestError::Io { what: "signal journald".to_owned(), source })
            };
            w.crowd(SESSIONS + 1, 1, w.stack.address)?;
            signal(libc::SIGSTOP)?;
            let done = close_in_order(w);
            signal(libc::SIGCONT)?;
            done?;
            last(w)
        })
        .needs(&[Need::OwnJournal])
        .crowd(SESSIONS + 1, 1)
        .after(in_order)
        .own_stack(),
        Fault::new("journald_killed", truth(), |w| {
            w.crowd(SESSIONS + 1, 1, w.stack.address)?;
            w.journal.kill()?;
            let done = close_in_order(w);
            w.journal.start_again()?;
            done?;
            last(w)
        })
        .needs(&[Need::OwnJournal])
        .crowd(SESSIONS + 1, 1)
        .after(in_order)
        .own_stack(),
        // Longer away than the queue holds: the oldest records are kept, and what is lost is
        // counted and said.
        Fault::new("journald_killed_for_too_long", truth(), |w| {
            w.crowd(SESSIONS + 1, 1, w.stack.address)?;
            w.journal.kill()?;
            let done = close_in_order(w);
            w.journal.start_again()?;
            done?;
            // The first that waited are out before the last comes.
            w.journal.wait_closes(KEPT, PATIENCE, |record| record.user == w.user)?;
            last(w)
        })
        .needs(&[Need::OwnJournal])
        .dispatch(&["--record-queue", "2"])
        .crowd(KEPT + 1, 1)
        .after(loss_is_said),
        // Log lines must not stop what records do not stop.
        Fault::new("journald_stopped_and_much_to_log", truth(), |w| {
            let pid = w.journal.pid().unwrap_or_default();
            let signal = |number| {
                sys::signal(pid, number)
                    .map_err(|source| TestError::Io { what: "signal journald".to_owned(), source })
            };
            w.session_of(0)?;
            signal(libc::SIGSTOP)?;
            let done = refusals(w).and_then(|()| w.nth(0).heartbeats(3));
            signal(libc::SIGCONT)?;
            done?;
            w.nth(0).close(Some(1000), "");
            w.nth(0).wait_end().map(drop)
        })
        .needs(&[Need::OwnJournal])
        .own_stack(),
    ]
}

impl World<'_> {
    fn session_of(&mut self, user: usize) -> Result<()> {
        self.serve_of(user, &[])?;
        let client = Client::connect(self.config_of(user, 0, self.stack.address))?;
        client.heartbeats(3)?;
        self.clients.push(client);
        Ok(())
    }
}

/// One after the other; the last session stays and must not notice anything.
fn close_in_order(w: &World<'_>) -> Result<()> {
    for number in 0..SESSIONS {
        w.nth(number).close(Some(1000), "");
        w.nth(number).wait_end()?;
        std::thread::sleep(APART);
    }
    w.nth(SESSIONS).heartbeats(3)
}

fn last(w: &World<'_>) -> Result<()> {
    w.nth(SESSIONS).heartbeats(3)?;
    w.nth(SESSIONS).close(Some(1000), "");
    w.nth(SESSIONS).wait_end().map(drop)
}

fn in_order(w: &mut World<'_>) -> Result<()> {
    let records = w.journal.closes(|record| record.user == w.user)?;
    let got: Vec<_> = records.iter().filter_map(|(record, _)| record.ray.clone()).collect();
    let want: Vec<_> = (0..=SESSIONS).map(|number| format!("ray-{}-n{number}", w.user)).collect();
    if got == want {
        return Ok(());
    }
    Err(TestError::Unexpected {
        what: "records in the order of the ends".to_owned(),
        got: format!("{got:?}"),
    })
}

/// The first and the last have their records; the number of the others is in the log.
fn loss_is_said(w: &mut World<'_>) -> Result<()> {
    let records = w.journal.closes(|record| record.user == w.user)?;
    let got: Vec<_> = records.iter().filter_map(|(record, _)| record.ray.clone()).collect();
    let want: Vec<_> =
        (0..KEPT).chain([SESSIONS]).map(|number| format!("ray-{}-n{number}", w.user)).collect();
    let lost = w.journal.messages("records lost")?;
    let said: Vec<_> = lost.iter().filter_map(|entry| entry.get("MESSAGE")).collect();
    let number = format!(" records={}", SESSIONS - KEPT);
    if got == want && matches!(said.as_slice(), [line] if line.ends_with(&number)) {
        return Ok(());
    }
    Err(TestError::Unexpected {
        what: format!("the records {want:?}, and that {} are lost", SESSIONS - KEPT),
        got: format!("{got:?}, and {said:?}"),
    })
}

/// Requests that dispatch refuses and logs.
fn refusals(w: &World<'_>) -> Result<()> {
    for number in 0..LINES {
        let mut config = w.config_of(0, number + 1, w.stack.address);
        config.headers.push(("Sec-WebSocket-Key".to_owned(), "not a key".to_owned()));
        Client::refused(config)?;
    }
    Ok(())
}
