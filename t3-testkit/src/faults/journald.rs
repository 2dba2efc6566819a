//! Faults of the journal: journald stands still, or dies and comes back. No session notices, and no
//! record is lost or out of order.

use std::time::Duration;

use super::{ExpectedRecord, Fault, Fixture, Need, edge_burst::untouched};
use crate::{
    client::{Client, TIMEOUT},
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
    let expected = || -> ExpectedRecord { untouched() };
    vec![
        Fault::new("journald_stopped", expected(), |fx| {
            let pid = fx.journal.pid().unwrap_or_default();
            let signal = |number| {
                sys::signal(pid, number)
                    .map_err(|source| TestError::Io { what: "signal journald".to_owned(), source })
            };
            fx.crowd(SESSIONS + 1, 1, fx.stack.address)?;
            signal(libc::SIGSTOP)?;
            let done = close_in_order(fx);
            signal(libc::SIGCONT)?;
            done?;
            last(fx)
        })
        .needs(&[Need::OwnJournal])
        .crowd(SESSIONS + 1, 1)
        .after(in_order)
        .own_stack(),
        Fault::new("journald_killed", expected(), |fx| {
            fx.crowd(SESSIONS + 1, 1, fx.stack.address)?;
            fx.journal.kill()?;
            let done = close_in_order(fx);
            fx.journal.start_again()?;
            done?;
            last(fx)
        })
        .needs(&[Need::OwnJournal])
        .crowd(SESSIONS + 1, 1)
        .after(in_order)
        .own_stack(),
        // Longer away than the queue holds: the oldest records are kept, and what is lost is
        // counted and said.
        Fault::new("journald_killed_for_too_long", expected(), |fx| {
            fx.crowd(SESSIONS + 1, 1, fx.stack.address)?;
            fx.journal.kill()?;
            let done = close_in_order(fx);
            fx.journal.start_again()?;
            done?;
            // The first that waited are out before the last comes.
            fx.journal.wait_closes(KEPT, TIMEOUT, |record| record.user == fx.user)?;
            last(fx)
        })
        .needs(&[Need::OwnJournal])
        .dispatch(&["--record-queue", "2"])
        .crowd(KEPT + 1, 1)
        .after(loss_is_said),
        // Log lines must not stop what records do not stop.
        Fault::new("journald_stopped_and_much_to_log", expected(), |fx| {
            let pid = fx.journal.pid().unwrap_or_default();
            let signal = |number| {
                sys::signal(pid, number)
                    .map_err(|source| TestError::Io { what: "signal journald".to_owned(), source })
            };
            fx.session_of(0)?;
            signal(libc::SIGSTOP)?;
            let done = refusals(fx).and_then(|()| fx.nth(0).heartbeats(3));
            signal(libc::SIGCONT)?;
            done?;
            fx.nth(0).close(Some(1000), "");
            fx.nth(0).wait_end().map(drop)
        })
        .needs(&[Need::OwnJournal])
        .own_stack(),
    ]
}

impl Fixture<'_> {
    fn session_of(&mut self, user: usize) -> Result<()> {
        self.serve_of(user, &[])?;
        let client = Client::connect(self.config_of(user, 0, self.stack.address))?;
        client.heartbeats(3)?;
        self.clients.push(client);
        Ok(())
    }
}

/// One after the other; the last session stays and must not notice anything.
fn close_in_order(fx: &Fixture<'_>) -> Result<()> {
    for number in 0..SESSIONS {
        fx.nth(number).close(Some(1000), "");
        fx.nth(number).wait_end()?;
        std::thread::sleep(APART);
    }
    fx.nth(SESSIONS).heartbeats(3)
}

fn last(fx: &Fixture<'_>) -> Result<()> {
    fx.nth(SESSIONS).heartbeats(3)?;
    fx.nth(SESSIONS).close(Some(1000), "");
    fx.nth(SESSIONS).wait_end().map(drop)
}

fn in_order(fx: &mut Fixture<'_>) -> Result<()> {
    let records = fx.journal.closes(|record| record.user == fx.user)?;
    let got: Vec<_> = records.iter().filter_map(|(record, _)| record.ray.clone()).collect();
    let want: Vec<_> = (0..=SESSIONS).map(|number| format!("ray-{}-n{number}", fx.user)).collect();
    if got == want {
        return Ok(());
    }
    Err(TestError::Unexpected {
        what: "records in the order of the ends".to_owned(),
        got: format!("{got:?}"),
    })
}

/// The first and the last have their records; the number of the others is in the log.
fn loss_is_said(fx: &mut Fixture<'_>) -> Result<()> {
    let records = fx.journal.closes(|record| record.user == fx.user)?;
    let got: Vec<_> = records.iter().filter_map(|(record, _)| record.ray.clone()).collect();
    let want: Vec<_> =
        (0..KEPT).chain([SESSIONS]).map(|number| format!("ray-{}-n{number}", fx.user)).collect();
    let lost = fx.journal.messages("records lost")?;
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
fn refusals(fx: &Fixture<'_>) -> Result<()> {
    for number in 0..LINES {
        let mut config = fx.config_of(0, number + 1, fx.stack.address);
        config.headers.push(("Sec-WebSocket-Key".to_owned(), "not a key".to_owned()));
        Client::refused(config)?;
    }
    Ok(())
}
