//! Faults of a browser's side that stops reading while serve goes on sending: the window closes,
//! and stays closed.
//!
//! What serve answers meanwhile waits behind what nobody takes, so its unanswered heartbeats are
//! not serve's fault.

use std::time::Duration;

use t3_record::{Cause::DownstreamClosed, ClosedBy, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need};
use crate::{client::Config, error::Result};

/// More than the buffers of all sockets on the way hold.
const FLOOD: usize = 64 << 20;

/// Longer than any watchdog would take at the period of these tests, and less than dispatch's
/// patience with a silent peer.
const SHUT: Duration = Duration::from_secs(4);

fn stuck(verdict: Verdict, by: ClosedBy) -> ExpectedRecord {
    let mut expected =
        ExpectedRecord::opened(verdict, Segment::Downstream, DownstreamClosed, "zero_window", by)
            .is("peer_exit", "alive")
            .key("up_idle_ms", Expect::Range(2_000, 60_000));
    for key in
        ["down_retrans", "down_unacked", "down_lost", "up_unacked", "hb_gap_ms", "hb_wait_ms", "down_idle_ms"]
    {
        expected = expected.key(key, Expect::Free);
    }
    expected
}

pub(super) fn faults() -> Vec<Fault> {
    let gave_up = || stuck(Verdict::PathStalled, ClosedBy::Downstream).is("confidence", "likely");
    vec![
        // Pings go on arriving, as over a path that is clogged in one direction.
        Fault::new(
            "zero_window_reset",
            gave_up().is("down_end", "rst_in").one_of("up_end", &["rst_out", "fin_out"]),
            |fx| {
                clogged(fx)?;
                std::thread::sleep(SHUT);
                // Unread bytes make a RST of it.
                fx.client().drop_socket();
                Ok(())
            },
        ),
        Fault::new(
            "zero_window_quiet",
            gave_up().is("down_end", "rst_in").one_of("up_end", &["rst_out", "fin_out"]),
            |fx| {
                clogged(fx)?;
                fx.client().heartbeat(None);
                std::thread::sleep(SHUT);
                fx.client().drop_socket();
                Ok(())
            },
        ),
        // The browser's watchdog fires: a clean Close 1000, which still gets through.
        Fault::new(
            "zero_window_watchdog",
            gave_up()
                .close_frame("down", "1000", "")
                .one_of("down_end", &["rst_in", "fin_in"])
                .one_of("up_end", &["rst_out", "fin_out"]),
            |fx| {
                clogged(fx)?;
                std::thread::sleep(SHUT);
                fx.gives_up();
                Ok(())
            },
        ),
        // It never reads again, and its kernel answers every probe: dispatch's own patience ends
        // it.
        Fault::new(
            "zero_window_for_ever",
            stuck(Verdict::ClientVanished, ClosedBy::Dispatch)
                .is("down_end", "timeout")
                .one_of("up_end", &["rst_out", "fin_out"]),
            clogged,
        )
        .timeout(120),
        // And then nothing comes from there at all: probes of the shut window go unanswered.
        Fault::new(
            "zero_window_vanished",
            stuck(Verdict::ClientVanished, ClosedBy::Dispatch)
                .is("down_end", "timeout")
                .one_of("up_end", &["rst_out", "fin_out"]),
            |fx| {
                let netns = fx.session_over_link(small_window)?;
                clog(fx)?;
                std::thread::sleep(SHUT);
                netns.cut()?;
                fx.keep(netns);
                Ok(())
            },
        )
        .needs(&[Need::Root, Need::Netns])
        .timeout(120),
    ]
}

/// A session whose browser has stopped reading while serve sends more than fits anywhere.
fn clogged(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    small_window(&mut config);
    fx.open(config)?;
    clog(fx)
}

fn small_window(config: &mut Config) {
    config.receive_buffer = Some(4 << 10);
}

fn clog(fx: &mut Fixture<'_>) -> Result<()> {
    fx.client().reading(false);
    fx.the_serve().begin(&format!("flood {FLOOD}"))
}
