//! Faults of the downstream link: lossy or busy, but not cut.
//!
//! netem drops the packets, or nftables where the kernel has no netem.

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

/// Packet loss in each direction in percent: few heartbeats arrive, all of them late.
const LOSS: u8 = 60;
/// Timeout of the client's watchdog.
const WATCHDOG: Duration = Duration::from_secs(4);
/// Timeout for the watchdog to fire.
const LIMIT: Duration = Duration::from_secs(90);
/// Size in bytes of one message of the download: small, so that the slow test client does not miss
/// a heartbeat. Only the last one, during which the client closes, is large.
const MESSAGE: usize = 128 << 10;
const LAST: usize = 8 << 20;
/// Bytes that the buffers of all sockets on the path do not hold.
const SNAPSHOT: usize = 64 << 20;
/// Number of messages per heartbeat.
const MESSAGES: usize = 16;
/// Number of heartbeats during the download.
const BEATS: usize = 6;

pub(super) fn faults() -> Vec<Fault> {
    vec![
        // The client's last act may not arrive; then the host's kernel times out.
        Fault::new(
            "client_lossy_link",
            lossy()
                .one_of("verdict", &["path_stalled", "client_vanished"])
                .one_of("how", &["loss", "heartbeat_lost", "vanished"])
                .one_of("closed_by", &["downstream", "dispatch"])
                .one_of("confidence", &["proven", "likely"])
                .one_of("down_end", &["fin_in", "fin_out", "rst_in", "timeout"]),
            |fx| gives_up(fx, LOSS).map(drop),
        )
        .needs(&[Need::Root, Need::Netns, Need::Loss])
        .timeout(120),
        // The client's last act arrives, with all delayed segments. Nothing passes for the time of
        // the watchdog: with a part of the segments lost, the time until the next retransmission
        // can exceed the TCP timeout of dispatch.
        Fault::new("client_lossy_link_heals", lossy(), |fx| gives_up(fx, 100)?.lose(0))
            .needs(&[Need::Root, Need::Netns, Need::Loss])
            .timeout(120),
        // The link loses everything for a while: data waits in dispatch although the client's
        // window is open. Shorter than the TCP timeout, and healed before the next retransmission.
        Fault::new(
            "client_lossy_snapshot",
            lossy()
                .is("how", "loss")
                .key("up_unacked", Expect::Free)
                .key("up_queued", Expect::Free)
                // The snapshot is one frame, which never ended.
                .key("up_silent_ms", Expect::Range(2_000, 60_000)),
            |fx| {
                let netns = fx.session_over_link(|_| ())?;
                netns.lose(100)?;
                fx.last_serve().begin(&format!("flood {SNAPSHOT}"))?;
                std::thread::sleep(WATCHDOG + Duration::from_secs(1));
                fx.close_and_drop();
                fx.keep_netns(netns).lose(0)
            },
        )
        .needs(&[Need::Root, Need::Netns, Need::Loss])
        .timeout(120),
        // A busy path is not a stalled one: the user closes during a download.
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
    // If no ping arrived, there was nothing to retransmit.
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
    .is("peer_exit", "alive")
    .last_frame_is_large();
    // Segments may be in flight, and a receiver slower than the link drops some.
    let loose = ["down_retrans", "down_unacked", "down_lost", "up_unacked"];
    loose.into_iter().fold(expected, |expected, key| expected.key(key, Expect::Free))
}

/// The link becomes lossy, the client's watchdog fires, and the client closes.
fn gives_up<'fx>(fx: &'fx mut Fixture<'_>, percent: u8) -> Result<&'fx Netns> {
    let netns = fx.session_over_link(|_| ())?;
    netns.lose(percent)?;
    watchdog(fx)?;
    fx.close_and_drop();
    Ok(fx.keep_netns(netns))
}

/// Heartbeats pass between the messages; the last message is in flight when the client closes.
fn download(fx: &mut Fixture<'_>) -> Result<()> {
    let netns = fx.session_over_link(|_| ())?;
    fx.keep_netns(netns);
    for _ in 0..BEATS {
        for _ in 0..MESSAGES {
            fx.order(&format!("flood {MESSAGE}"))?;
        }
        fx.client().heartbeats(1)?;
    }
    fx.last_serve().begin(&format!("flood {LAST}"))?;
    fx.client().close(Some(1000), "");
    fx.wait_end()
}

/// Waits until the client has received no reply for the timeout of its watchdog.
fn watchdog(fx: &Fixture<'_>) -> Result<()> {
    let begun = Instant::now();
    let (mut pongs, mut at) = (0, begun);
    while at.elapsed() < WATCHDOG {
        if begun.elapsed() > LIMIT {
            return Err(TestError::Timeout { what: "a gap between two replies".to_owned(), after: LIMIT });
        }
        std::thread::sleep(super::PERIOD / 4);
        let now = fx.client().seen().pongs;
        if now != pongs {
            (pongs, at) = (now, Instant::now());
        }
    }
    Ok(())
}
