//! Faults of the link in front of us: not cut, only bad.
//!
//! Loss comes from netem, a module that small kernels leave out.

use std::time::{Duration, Instant};

use t3_record::{Cause::DownstreamClosed, ClosedBy, Segment, Verdict};

use super::{Expect, Fault, Need, Truth, World};
use crate::{
    error::{Result, TestError},
    stack::Netns,
};

/// Percent of the packets lost, each way: few heartbeats get through, and every one late.
const LOSS: u8 = 60;
/// The browser's watchdog.
const WATCHDOG: Duration = Duration::from_secs(4);
/// With this loss the watchdog fires long before.
const LIMIT: Duration = Duration::from_secs(90);

pub(super) fn faults() -> Vec<Fault> {
    // What the browser did last may never arrive; then our kernel gives up in its place.
    let truth =
        Truth::opened(Verdict::PathStalled, Segment::Downstream, DownstreamClosed, "", ClosedBy::Downstream)
            .one_of("verdict", &["path_stalled", "client_vanished"])
            .one_of("how", &["loss", "heartbeat_lost", "vanished"])
            .one_of("closed_by", &["downstream", "dispatch"])
            .one_of("cause", &["downstream_closed", "graceful"])
            .one_of("confidence", &["proven", "likely"])
            .one_of("down_end", &["fin_in", "fin_out", "rst_in", "timeout"])
            .one_of("up_end", &["fin_in", "fin_out", "rst_out"])
            .is("peer_exit", "alive")
            .at_least("down_retrans", 1);
    let loose = [
        "ws_code",
        "ws_from",
        "ws_reason",
        "hb_gap_ms",
        "hb_wait_ms",
        "hb_rtt_ms",
        "hb_rtt_max_ms",
        "hb_period_ms",
        "up_idle_ms",
        "down_idle_ms",
        "down_unacked",
        "down_lost",
    ];
    let truth = loose.into_iter().fold(truth, |truth, key| truth.key(key, Expect::Free));
    vec![
        Fault::new("client_lossy_link", truth, |w| {
            let netns = Netns::new()?;
            w.serve(&[])?;
            let mut config = w.config();
            config.address = (netns.near, w.stack.address.port()).into();
            config.namespace = Some(netns.descriptor()?);
            w.open(config)?;
            netns.lose(LOSS)?;
            w.keep(netns);
            watchdog(w)?;
            w.gives_up();
            Ok(())
        })
        .open(
            "the heartbeat rhythm of a lossy link can look like that of a browser that left (client_closed, client_reset)",
        )
        .needs(&[Need::Root, Need::Netns, Need::Netem])
        .patience(120),
    ]
}

/// Waits until no answer has come for as long as the browser's watchdog waits.
fn watchdog(w: &World<'_>) -> Result<()> {
    let begun = Instant::now();
    let (mut pongs, mut at) = (0, begun);
    while at.elapsed() < WATCHDOG {
        if begun.elapsed() > LIMIT {
            return Err(TestError::Timeout { what: "a gap between two answers".to_owned(), after: LIMIT });
        }
        std::thread::sleep(super::PERIOD / 4);
        let now = w.client().seen().pongs;
        if now != pongs {
            (pongs, at) = (now, Instant::now());
        }
    }
    Ok(())
}
