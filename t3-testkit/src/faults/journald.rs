//! Faults of the journal: journald is stopped, or killed and restarted. Sessions continue, and no
//! record is lost. Those of dispatch are in order.

use std::time::Duration;

use t3_record::vocabulary::Reconciled;

use super::{Fault, Fixture, Need, edge_burst::untouched, expected_record::Expect};
use crate::{
    client::{Client, TIMEOUT},
    error::{Attempt, Result, TestError},
    sys,
};

/// Number of sessions that end while journald is down.
const SESSIONS: usize = 6;

/// Number of their records with a queue of two: those two, and the one in the writer.
const KEPT: usize = 3;

/// Delay between two closes: above the evidence timeout, so that the records are in order.
const APART: Duration = Duration::from_millis(800);

/// Number of rejected upgrades, each with a log line: more than journald's socket buffers.
const LINES: usize = 700;

pub(super) fn faults() -> Vec<Fault> {
    let fault = |name, inject| Fault::new(name, untouched(), inject).needs(&[Need::OwnJournal]).own_stack();
    let many = |name, inject: fn(&mut Fixture<'_>) -> Result<()>| {
        fault(name, inject).many(SESSIONS + 1, 1).after(in_order)
    };
    let free = untouched().key("reconciled", Expect::Free).key("ended_at", Expect::Free);
    vec![
        many("journald_stopped", |fx| {
            fx.open_many(SESSIONS + 1, 1, fx.stack.address)?;
            while_stopped(fx, close_in_order)?;
            last(fx)
        }),
        many("journald_killed", |fx| {
            fx.open_many(SESSIONS + 1, 1, fx.stack.address)?;
            while_killed(fx)?;
            last(fx)
        }),
        // The queue overflows: the oldest records are kept; t3-trace writes the others from its
        // spool.
        Fault::new("journald_killed_for_too_long", free, |fx| {
            fx.open_many(SESSIONS + 1, 1, fx.stack.address)?;
            while_killed(fx)?;
            // The queued records are written before the last one.
            fx.stack.journal.wait_closes(KEPT, TIMEOUT, |record| record.user == fx.user)?;
            last(fx)
        })
        .needs(&[Need::OwnJournal])
        .own_stack()
        .dispatch(&["--record-queue", "2"])
        .many(SESSIONS + 1, 1)
        .after(loss_is_made_up),
        // Log lines must not block sessions either.
        fault("journald_stopped_and_much_to_log", |fx| {
            fx.session_of(0)?;
            while_stopped(fx, |fx| rejections(fx).and_then(|()| fx.nth(0).heartbeats(3)))?;
            fx.nth(0).close(Some(1000), "");
            fx.nth(0).wait_end().map(drop)
        }),
    ]
}

fn while_stopped(fx: &Fixture<'_>, act: fn(&Fixture<'_>) -> Result<()>) -> Result<()> {
    let pid = fx.stack.journal.pid().unwrap_or_default();
    let signal = |number| sys::signal(pid, number).attempt(|| "signal journald".to_owned());
    signal(libc::SIGSTOP)?;
    let done = act(fx);
    signal(libc::SIGCONT)?;
    done
}

fn while_killed(fx: &Fixture<'_>) -> Result<()> {
    fx.stack.journal.kill()?;
    let done = close_in_order(fx);
    fx.stack.journal.start_again()?;
    done
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

/// Closes all sessions but the last one, one after the other; the last one must continue.
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
    let records = fx.stack.journal.closes(|record| record.user == fx.user)?;
    let got: Vec<_> = records.iter().filter_map(|(record, _)| record.ray.clone()).collect();
    let want: Vec<_> = (0..=SESSIONS).map(|number| format!("ray-{}-n{number}", fx.user)).collect();
    if got == want {
        return Ok(());
    }
    Err(TestError::Unexpected {
        what: "records in the order of the closes".to_owned(),
        got: format!("{got:?}"),
    })
}

/// The log of dispatch has the number of records that its queue had no room for, and t3-trace wrote
/// exactly those.
fn loss_is_made_up(fx: &mut Fixture<'_>) -> Result<()> {
    let records = fx.stack.journal.closes(|record| record.user == fx.user)?;
    let mut got: Vec<_> = records
        .into_iter()
        .map(|(record, _)| (record.ray.unwrap_or_default(), record.reconciled, record.ended_at.is_some()))
        .collect();
    got.sort();
    let from_spool = |number| (KEPT..SESSIONS).contains(&number);
    let want: Vec<_> = (0..=SESSIONS)
        .map(|number| {
            let reconciled = from_spool(number).then_some(Reconciled::Spool);
            (format!("ray-{}-n{number}", fx.user), reconciled, from_spool(number))
        })
        .collect();
    let lost = fx.stack.journal.messages("records lost")?;
    let logged: Vec<_> = lost.iter().filter_map(|entry| entry.get("MESSAGE")).collect();
    let number = format!(" records={}", SESSIONS - KEPT);
    if got == want && matches!(logged.as_slice(), [line] if line.ends_with(&number)) {
        return Ok(());
    }
    Err(TestError::Unexpected {
        what: format!("the records {want:?}, and a log line with {} lost", SESSIONS - KEPT),
        got: format!("{got:?}, and {logged:?}"),
    })
}

/// Sends upgrades that dispatch rejects and logs.
fn rejections(fx: &Fixture<'_>) -> Result<()> {
    for number in 0..LINES {
        let mut config = fx.config_of(0, number + 1, fx.stack.address);
        config.headers.push(("Sec-WebSocket-Key".to_owned(), "not a key".to_owned()));
        Client::refused(config)?;
    }
    Ok(())
}
