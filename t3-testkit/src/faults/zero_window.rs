//! Zero-window faults: the client stops reading while serve continues to send, and its receive
//! window stays closed.
//!
//! serve's replies are queued behind unread data, so unanswered heartbeats are not serve's fault.

use std::time::Duration;

use t3_record::{Cause::DownstreamClosed, ClosedBy, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need};
use crate::{client::Config, error::Result};

/// Bytes to send: more than the buffers of all sockets on the path hold.
const FLOOD: usize = 64 << 20;

/// Longer than a watchdog timeout at the heartbeat period of these tests, shorter than dispatch's
/// `TCP_USER_TIMEOUT`.
const SHUT: Duration = Duration::from_secs(4);

fn stuck(verdict: Verdict, by: ClosedBy) -> ExpectedRecord {
    let mut expected =
        ExpectedRecord::opened(verdict, Segment::Downstream, DownstreamClosed, "zero_window", by)
            .is("peer_exit", "alive")
            .key("up_idle_ms", Expect::Range(2_000, 60_000))
            .last_frame_is_large();
    for key in
        ["down_retrans", "down_unacked", "down_lost", "up_unacked", "hb_gap_ms", "hb_wait_ms", "down_idle_ms"]
    {
        expected = expected.key(key, Expect::Free);
    }
    expected
}

/// Record of a client that leaves while its window is closed; the caller adds the ends of the legs.
pub(super) fn gave_up() -> ExpectedRecord {
    stuck(Verdict::PathStalled, ClosedBy::Downstream).is("confidence", "likely")
}

pub(super) fn faults() -> Vec<Fault> {
    vec![
        // Pings still arrive, as over a path that is blocked in one direction.
        Fault::new(
            "zero_window_reset",
            gave_up().is("down_end", "rst_in").one_of("up_end", &["rst_out", "fin_out"]),
            |fx| {
                blocked_session(fx)?;
                std::thread::sleep(SHUT);
                // Unread bytes turn the FIN into RST.
                fx.client().drop_socket();
                Ok(())
            },
        ),
        Fault::new(
            "zero_window_quiet",
            gave_up().is("down_end", "rst_in").one_of("up_end", &["rst_out", "fin_out"]),
            |fx| {
                blocked_session(fx)?;
                fx.client().heartbeat(None);
                std::thread::sleep(SHUT);
                fx.client().drop_socket();
                Ok(())
            },
        ),
        // The client's watchdog fires: a clean Close 1000, which still arrives.
        Fault::new(
            "zero_window_watchdog",
            gave_up()
                .close_frame("down", "1000", "")
                .one_of("down_end", &["rst_in", "fin_in"])
                .one_of("up_end", &["rst_out", "fin_out"]),
            |fx| {
                blocked_session(fx)?;
                std::thread::sleep(SHUT);
                fx.close_and_drop();
                Ok(())
            },
        ),
        // The client never reads again, and its kernel replies to every probe, until dispatch's
        // timeout.
        Fault::new(
            "zero_window_for_ever",
            stuck(Verdict::ClientVanished, ClosedBy::Dispatch)
                .is("down_end", "timeout")
                .one_of("up_end", &["rst_out", "fin_out"]),
            blocked_session,
        )
        .timeout(120),
        // Then the link goes down: window probes are unanswered.
        Fault::new(
            "zero_window_vanished",
            stuck(Verdict::ClientVanished, ClosedBy::Dispatch)
                .is("down_end", "timeout")
                .one_of("up_end", &["rst_out", "fin_out"]),
            |fx| {
                let netns = fx.session_over_link(small_window)?;
                stop_reading(fx)?;
                std::thread::sleep(SHUT);
                netns.cut()?;
                fx.keep_netns(netns);
                Ok(())
            },
        )
        .needs(&[Need::Root, Need::Netns])
        .timeout(120),
    ]
}

/// Opens a session whose client does not read while serve sends more than all buffers hold.
fn blocked_session(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    small_window(&mut config);
    fx.open(config)?;
    stop_reading(fx)
}

fn small_window(config: &mut Config) {
    config.receive_buffer = Some(4 << 10);
}

fn stop_reading(fx: &mut Fixture<'_>) -> Result<()> {
    fx.client().reading(false);
    fx.last_serve().begin(&format!("flood {FLOOD}"))
}
