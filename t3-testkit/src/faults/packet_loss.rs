//! Faults of the link in front of us: not cut, only bad.
//!
//! Loss comes from netem, or from nftables where a kernel leaves netem out.

use std::time::{Duration, Instant};

use t3_record::{
    Cause::{DownstreamClosed, Graceful},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need};
use crate::{
    error::{Result, TestError},
    harness::Netns,
};

/// Percent of the packets lost, each way: few heartbeats get through, and every one late.
const LOSS: u8 = 60;
/// The browser's watchdog.
const WATCHDOG: Duration = Duration::from_secs(4);
/// With this loss the watchdog fires long before.
const LIMIT: Duration = Duration::from_secs(90);
/// Bytes of one message of the download: so few that our client, which is slow at it, does not miss
/// a beat over one. Only the last, during which it leaves, is big.
const MESSAGE: usize = 128 << 10;
const LAST: usize = 8 << 20;
/// Messages in a beat, and beats that the download lasts.
const MESSAGES: usize = 16;
const BEATS: usize = 6;

pub(super) fn faults() -> Vec<Fault> {
    vec![
        // What the browser did last may never arrive; then our kernel gives up in its place.
        Fault::new(
            "client_lossy_link",
            lossy()
                .one_of("verdict", &["path_stalled", "client_vanished"])
                .one_of("how", &["loss", "heartbeat_lost", "vanished"])
                .one_of("closed_by", &["downstream", "dispatch"])
                .one_of("confidence", &["proven", "likely"])
                .one_of("down_end", &["fin_in", "fin_out", "rst_in", "timeout"]),
            |fx| gives_up(fx).map(drop),
        )
        .needs(&[Need::Root, Need::Netns, Need::Loss])
        .timeout(120),
        // It does arrive, with all that was held up.
        Fault::new("client_lossy_link_heals", lossy(), |fx| gives_up(fx)?.lose(0))
            .needs(&[Need::Root, Need::Netns, Need::Loss])
            .timeout(120),
        // A whole path can be busy without a pause: a person who leaves during a download leaves.
        Fault::new("client_close_download", downloading(), download).needs(&[Need::Root, Need::Netns]),
    ]
}

fn lossy() -> ExpectedRecord {
    let expected = ExpectedRecord::opened(
        Verdict::PathStalled,
        Segment::Downstream,
        DownstreamClosed,
        "",
        ClosedBy::Downstream,
    )
    .one_of("how", &["loss", "heartbeat_lost"])
    .is("confidence", "likely")
    .one_of("cause", &["downstream_closed", "graceful"])
    .one_of("down_end", &["fin_in", "fin_out", "rst_in"])
    .one_of("up_end", &["fin_in", "fin_out", "rst_out"])
    .is("peer_exit", "alive")
    .key("hb_period_ms", Expect::Range(200, 800));
    // If no ping got through, nothing was sent that had to be sent again.
    let loose = [
        "down_retrans",
        "ws_code",
        "ws_from",
        "ws_reason",
        "hb_gap_ms",
        "hb_wait_ms",
        "hb_rtt_ms",
        "hb_rtt_max_ms",
        "up_idle_ms",
        "down_idle_ms",
        "down_unacked",
        "down_lost",
    ];
    loose.into_iter().fold(expected, |expected, key| expected.key(key, Expect::Free))
}

fn downloading() -> ExpectedRecord {
    let expected = ExpectedRecord::opened(
        Verdict::ClientClosed,
        Segment::Downstream,
        Graceful,
        "ws_close:1000",
        ClosedBy::Downstream,
    )
    .close_frame("down", "1000", "")
    .ends(LegEnd::FinOut, LegEnd::FinIn)
    .is("peer_exit", "alive");
    // As much as fits may be on its way, and a receiver that is slower than the link throws
    // segments away.
    let loose = ["down_retrans", "down_unacked", "down_lost", "up_unacked"];
    loose.into_iter().fold(expected, |expected, key| expected.key(key, Expect::Free))
}

/// The link turns bad, the browser's watchdog fires, and the browser is gone.
fn gives_up<'fx>(fx: &'fx mut Fixture<'_>) -> Result<&'fx Netns> {
    let netns = fx.session_over_link(|_| ())?;
    netns.lose(LOSS)?;
    watchdog(fx)?;
    fx.gives_up();
    Ok(fx.keep(netns))
}

/// Heartbeats are answered between the messages, and the last message is on its way when the
/// browser closes.
fn download(fx: &mut Fixture<'_>) -> Result<()> {
    let netns = fx.session_over_link(|_| ())?;
    fx.keep(netns);
    for _ in 0..BEATS {
        for _ in 0..MESSAGES {
            fx.order(&format!("flood {MESSAGE}"))?;
        }
        fx.client().heartbeats(1)?;
    }
    fx.the_serve().begin(&format!("flood {LAST}"))?;
    fx.client().close(Some(1000), "");
    fx.ended()
}

/// Waits until no answer has come for as long as the browser's watchdog waits.
fn watchdog(fx: &Fixture<'_>) -> Result<()> {
    let begun = Instant::now();
    let (mut pongs, mut at) = (0, begun);
    while at.elapsed() < WATCHDOG {
        if begun.elapsed() > LIMIT {
            return Err(TestError::Timeout { what: "a gap between two answers".to_owned(), after: LIMIT });
        }
        std::thread::sleep(super::PERIOD / 4);
        let now = fx.client().seen().pongs;
        if now != pongs {
            (pongs, at) = (now, Instant::now());
        }
    }
    Ok(())
}
