//! Both ends close at once: nobody's fault when neither had heard of the other, and an ordinary end
//! when one reacted.

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

/// Attempts at a race that nobody arranges.
const RACES: usize = 10;

fn at_once() -> ExpectedRecord {
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
        // dispatch is held, so that neither end can have heard of the other whatever the scheduler
        // does.
        Fault::new("simultaneous_fin", at_once(), |fx| {
            fx.session()?;
            fx.quiet()?;
            hold(fx, |fx| {
                fx.client().fin();
                fx.order("fin")
            })?;
            fx.ended()
        }),
        Fault::new(
            "simultaneous_close",
            at_once()
                .one_of("verdict", &["client_closed", "serve_closed"])
                .one_of("cause", &["graceful"])
                .key("ws_from", Expect::Present)
                .one_of("ws_code", &["1000", "1012"])
                .one_of("down_end", &["fin_in", "fin_out"])
                .one_of("up_end", &["fin_in", "fin_out"]),
            |fx| {
                fx.session()?;
                fx.quiet()?;
                hold(fx, |fx| {
                    fx.client().close(Some(1000), "");
                    fx.order("close 1012")
                })?;
                fx.ended()
            },
        ),
        // A fair race: the kernel's order decides each, and the record must say what its chain
        // shows.
        Fault::new(
            "simultaneous_race",
            at_once()
                .one_of("verdict", &["client_left", "serve_left"])
                .one_of("cause", &["downstream_closed", "upstream_closed"])
                .one_of("how", &["simultaneous", "fin"])
                .one_of("segment", &["none", "downstream", "serve"])
                .one_of("closed_by", &["both", "downstream", "upstream"])
                .one_of("down_end", &["fin_in", "fin_out"])
                .one_of("up_end", &["fin_in", "fin_out"]),
            race,
        )
        .crowd(RACES, 1)
        .needs(&[super::Need::Kernel])
        .after(as_the_chain_says),
    ]
}

/// Stops dispatch while something happens.
fn hold(fx: &mut Fixture<'_>, happens: impl FnOnce(&mut Fixture<'_>) -> Result<()>) -> Result<()> {
    let pid = fx.stack.dispatch_pid();
    fx.stack.signal_dispatch(libc::SIGSTOP)?;
    let stopped = wait::until("dispatch to stop", TIMEOUT, || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.trim_start().starts_with('T').then_some(())
    });
    let done = stopped.and_then(|()| happens(fx));
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
        fx.quiet()?;
        let start = Barrier::new(2);
        let client = fx.clients.pop();
        let (Some(client), serve) = (client, fx.the_serve()) else { return Ok(()) };
        let ordered = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                client.fin();
            });
            start.wait();
            // The client looks at its orders every other millisecond: serve's come at all distances
            // from that.
            std::thread::sleep(Duration::from_micros(number as u64 * 200));
            serve.order("fin")
        });
        client.wait_end()?;
        fx.clients.push(client);
        // An order that came too late finds no session any more: serve had been told of the end.
        if let Err(error) = ordered {
            eprintln!("    race {number}: {error}");
        }
    }
    Ok(())
}

/// Each record must claim exactly what its chain shows.
fn as_the_chain_says(fx: &mut Fixture<'_>) -> Result<()> {
    let records = fx.stack.journal.closes(|record| record.user == fx.user)?;
    for (record, _) in records {
        let Some(chain) = &record.chain else { continue };
        let claimed = (record.how == Some(How::Simultaneous), record.closed_by);
        let (both, first) = shown(chain);
        let right = (both, Some(if both { ClosedBy::Both } else { first }));
        if claimed != right {
            return Err(TestError::Unexpected {
                what: format!("{right:?} as the chain shows"),
                got: record.to_line(),
            });
        }
        // What nobody knows of must not be in the record either.
        debug_assert!(CloseRecord::from_line(&record.to_line()).is_ok());
    }
    Ok(())
}

/// Whether both ends had acted before either was told, and who was first.
fn shown(chain: &Chain) -> (bool, ClosedBy) {
    let place = |side: Side, what: &str| {
        let is = |event: &Event| event.side == side && event.what == what;
        chain.0.iter().position(is).unwrap_or(usize::MAX)
    };
    let unheard = |side| place(side, "fin_in") < place(side, "fin_out");
    let acted = |side| place(side, "fin_in") < usize::MAX;
    let both = acted(Side::Down) && acted(Side::Up) && unheard(Side::Down) && unheard(Side::Up);
    let first = place(Side::Down, "fin_in") < place(Side::Up, "fin_in");
    (both, if first { ClosedBy::Downstream } else { ClosedBy::Upstream })
}
