//! Simultaneous closes: `simultaneous` if neither end had received the other's close, an ordinary
//! close if one end reacted.

use std::{sync::Barrier, time::Duration};

use t3_record::{
    Cause::DownstreamClosed, Chain, CloseRecord, ClosedBy, How, LegEnd, Segment, Verdict, chain::Event,
    vocabulary::Side,
};

use super::{Expect, ExpectedRecord, Fault, Fixture};
use crate::{
    client::{Client, TIMEOUT},
    error::{Result, TestError},
    wait,
};

/// Number of races without a controlled outcome.
const RACES: usize = 10;

fn simultaneous() -> ExpectedRecord {
    ExpectedRecord::opened(
        Verdict::ClientLeft,
        Segment::None,
        DownstreamClosed,
        "simultaneous",
        ClosedBy::Both,
    )
    .is("peer_exit", "alive")
    .ends(LegEnd::FinIn, LegEnd::FinIn)
}

pub(super) fn faults() -> Vec<Fault> {
    vec![
        // dispatch is stopped, so that neither end can have received the other's close.
        Fault::new("simultaneous_fin", simultaneous(), |fx| {
            fx.session()?;
            fx.stop_heartbeat()?;
            while_stopped(fx, |fx| {
                fx.client().fin();
                fx.order("fin")
            })?;
            fx.wait_end()
        }),
        Fault::new(
            "simultaneous_close",
            simultaneous()
                .one_of("verdict", &["client_closed", "serve_closed"])
                .one_of("cause", &["graceful"])
                .key("ws_from", Expect::Present)
                .one_of("ws_code", &["1000", "1012"])
                .one_of("down_end", &["fin_in", "fin_out"])
                .one_of("up_end", &["fin_in", "fin_out"]),
            |fx| {
                fx.session()?;
                fx.stop_heartbeat()?;
                while_stopped(fx, |fx| {
                    fx.client().close(Some(1000), "");
                    fx.order("close 1012")
                })?;
                fx.wait_end()
            },
        ),
        // A race: the order in the kernel decides, and the record must agree with its chain.
        Fault::new(
            "simultaneous_race",
            simultaneous()
                .one_of("verdict", &["client_left", "serve_left"])
                .one_of("cause", &["downstream_closed", "upstream_closed"])
                .one_of("how", &["simultaneous", "fin"])
                .one_of("segment", &["none", "downstream", "serve"])
                .one_of("closed_by", &["both", "downstream", "upstream"])
                .one_of("down_end", &["fin_in", "fin_out"])
                .one_of("up_end", &["fin_in", "fin_out"]),
            race,
        )
        .many(RACES, 1)
        .needs(&[super::Need::Kernel])
        .after(matches_the_chain),
    ]
}

/// Runs `act` while dispatch is stopped.
fn while_stopped(fx: &mut Fixture<'_>, act: impl FnOnce(&mut Fixture<'_>) -> Result<()>) -> Result<()> {
    let pid = fx.stack.dispatch_pid();
    fx.stack.signal_dispatch(libc::SIGSTOP)?;
    let stopped = wait::until("dispatch to stop", TIMEOUT, || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.trim_start().starts_with('T').then_some(())
    });
    let done = stopped.and_then(|()| act(fx));
    fx.stack.signal_dispatch(libc::SIGCONT)?;
    done
}

fn race(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    for number in 0..RACES {
        let mut config = fx.config_of(0, number, fx.stack.address);
        config.heartbeat = Some(super::PERIOD);
        let client = Client::connect(config)?;
        client.heartbeats(3)?;
        fx.clients.push(client);
        fx.stop_heartbeat()?;
        let start = Barrier::new(2);
        let client = fx.clients.pop();
        let (Some(client), serve) = (client, fx.last_serve()) else { return Ok(()) };
        let ordered = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                client.fin();
            });
            start.wait();
            // The client reads its orders every 2 ms: vary the distance of serve's order.
            std::thread::sleep(Duration::from_micros(number as u64 * 200));
            serve.order("fin")
        });
        client.wait_end()?;
        fx.clients.push(client);
        // A late order finds no session: serve had already received the close.
        if let Err(error) = ordered {
            eprintln!("    race {number}: {error}");
        }
    }
    Ok(())
}

/// Checks that each record agrees with its chain.
fn matches_the_chain(fx: &mut Fixture<'_>) -> Result<()> {
    let records = fx.stack.journal.closes(|record| record.user == fx.user)?;
    for (record, _) in records {
        let Some(chain) = &record.chain else { continue };
        let claimed = (record.how == Some(How::Simultaneous), record.closed_by);
        let (both, first) = closed_by(chain);
        let expected = (both, Some(if both { ClosedBy::Both } else { first }));
        if claimed != expected {
            return Err(TestError::Unexpected {
                what: format!("{expected:?}, as in the chain"),
                got: record.to_line(),
            });
        }

        debug_assert!(CloseRecord::from_line(&record.to_line()).is_ok());
    }
    Ok(())
}

/// Whether both ends acted before dispatch notified either, and which end acted first.
fn closed_by(chain: &Chain) -> (bool, ClosedBy) {
    let position = |side: Side, what: &str| {
        let is = |event: &Event| event.side == side && event.what == what;
        chain.0.iter().position(is).unwrap_or(usize::MAX)
    };
    let before_notice = |side| position(side, "fin_in") < position(side, "fin_out");
    let acted = |side| position(side, "fin_in") < usize::MAX;
    let both = acted(Side::Down) && acted(Side::Up) && before_notice(Side::Down) && before_notice(Side::Up);
    let first = position(Side::Down, "fin_in") < position(Side::Up, "fin_in");
    (both, if first { ClosedBy::Downstream } else { ClosedBy::Upstream })
}
