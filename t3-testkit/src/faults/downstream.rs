//! Downstream faults: the client and the path between it and dispatch.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, Graceful, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need, PERIOD};
use crate::{
    client::TIMEOUT,
    error::{Result, TestError},
    frame,
};

/// Time without heartbeats, far above jitter.
const SILENCE: Duration = Duration::from_secs(4);

pub(super) fn left(verdict: Verdict, how: &str) -> ExpectedRecord {
    ExpectedRecord::opened(verdict, Segment::Downstream, DownstreamClosed, how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
}

fn closed(code: &str, reason: &str) -> ExpectedRecord {
    let how = if code.is_empty() { "ws_close".to_owned() } else { format!("ws_close:{code}") };
    // serve replies to the Close frame and closes the connection first, as RFC 6455 section 7.1.1
    // requires of a server.
    ExpectedRecord::opened(Verdict::ClientClosed, Segment::Downstream, Graceful, &how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .close_frame("down", code, reason)
        .ends(LegEnd::FinOut, LegEnd::FinIn)
}

pub(super) fn faults() -> Vec<Fault> {
    let fin = |how| left(Verdict::ClientLeft, how).ends(LegEnd::FinIn, LegEnd::FinOut);
    let rst = || left(Verdict::ClientReset, "rst").ends(LegEnd::RstIn, LegEnd::RstOut);
    vec![
        Fault::new("client_close", closed("1000", "bye"), |fx| close(fx, Some(1000), "bye")),
        Fault::new("client_close_1001", closed("1001", ""), |fx| close(fx, Some(1001), "")),
        Fault::new("client_close_app", closed("4321", "own \"reason\" x=1"), |fx| {
            close(fx, Some(4321), "own \"reason\" x=1")
        }),
        Fault::new("client_close_empty", closed("", ""), |fx| close(fx, None, "")),
        Fault::new("client_fin", fin("fin"), |fx| {
            fx.session()?;
            fx.client().fin();
            fx.wait_end()
        }),
        Fault::new("client_rst", rst(), |fx| {
            fx.session()?;
            fx.client().reset();
            Ok(())
        }),
        Fault::new("client_sigkill", fin("fin"), |fx| {
            fx.session()?;
            fx.stop_heartbeat()?;
            fx.client_process_killed()
        }),
        // Unread bytes turn the FIN of a killed process into RST.
        Fault::new("client_sigkill_unread", rst(), |fx| {
            fx.session()?;
            fx.stop_heartbeat()?;
            fx.client().reading(false);
            fx.order("send something that is not read")?;
            std::thread::sleep(PERIOD);
            fx.client_process_killed()
        }),
        Fault::new("client_half_close", fin("half_close"), half_close),
        Fault::new("client_mid_frame", fin("mid_frame"), |fx| {
            fx.session()?;
            fx.client().heartbeat(None);
            fx.client().write(frame::half(true));
            fx.client().fin();
            fx.wait_end()
        }),
        Fault::new(
            "client_unmasked",
            // serve detects the violation and closes first, but the client caused it.
            ExpectedRecord::opened(
                Verdict::ClientProtocol,
                Segment::Downstream,
                UpstreamClosed,
                "protocol",
                ClosedBy::Upstream,
            )
            .is("peer_exit", "alive")
            .key("ws_code", Expect::Free)
            .key("ws_from", Expect::Free)
            .key("ws_reason", Expect::Free)
            .one_of("cause", &["upstream_closed", "graceful"])
            .ends(LegEnd::FinOut, LegEnd::FinIn),
            |fx| {
                fx.session()?;
                fx.stop_heartbeat()?;
                fx.client().write(frame::raw(0x81, b"not masked", false));
                fx.wait_end()
            },
        ),
        Fault::new(
            "client_watchdog_path",
            // Clean Close 1000 of the watchdog after the heartbeats stopped, although serve had
            // replied to each.
            closed("1000", "")
                .is("verdict", "path_stalled")
                .is("how", "heartbeat_lost")
                .is("confidence", "likely")
                .key("hb_gap_ms", Expect::Range(3_000, 60_000))
                .key("up_idle_ms", Expect::Range(3_000, 60_000))
                .key("hb_wait_ms", Expect::Absent),
            |fx| {
                fx.session()?;
                fx.stop_heartbeat()?;
                std::thread::sleep(SILENCE);
                fx.client().close(Some(1000), "");
                fx.wait_end()
            },
        ),
        Fault::new("client_vanished_idle", vanished("vanished"), vanish)
            .needs(&[Need::Root, Need::Netns])
            .timeout(180),
        // Nothing of the link is delivered, which loss alone would be.
        Fault::new("client_vanished_unacked", vanished("vanished").at_least("down_retrans", 1), |fx| {
            vanish(fx)?;
            fx.order("send into the void")
        })
        .needs(&[Need::Root, Need::Netns])
        .timeout(180),
    ]
}

fn close(fx: &mut Fixture<'_>, code: Option<u16>, reason: &str) -> Result<()> {
    fx.session()?;
    fx.client().close(code, reason);
    fx.wait_end()
}

/// The client sends FIN and waits while serve continues to send.
fn half_close(fx: &mut Fixture<'_>) -> Result<()> {
    fx.session_ignoring_fin()?;
    fx.order("deaf")?;
    fx.client().fin();
    for _ in 0..3 {
        std::thread::sleep(PERIOD);
        fx.order("send still talking")?;
    }
    fx.client().wait("messages of serve after the FIN", TIMEOUT, |seen| seen.messages.len() == 3)?;
    // serve's socket has no unread data, so dropping it sends FIN.
    fx.order("drop")?;
    // Both directions have ended.
    fx.client().drop_socket();
    Ok(())
}

fn vanished(how: &str) -> ExpectedRecord {
    let mut expected = ExpectedRecord::opened(
        Verdict::ClientVanished,
        Segment::Downstream,
        DownstreamClosed,
        how,
        // The host's kernel times out; the peer does not act.
        ClosedBy::Dispatch,
    )
    .is("peer_exit", "alive")
    .is("down_end", "timeout")
    .one_of("up_end", &["fin_out", "rst_out"]);
    for key in ["hb_gap_ms", "down_idle_ms", "up_idle_ms"] {
        expected = expected.key(key, Expect::Range(5_000, 180_000));
    }
    for key in ["down_retrans", "down_unacked", "down_lost"] {
        expected = expected.key(key, Expect::Free);
    }
    expected
}

/// A session over a separate link, which then goes down.
fn vanish(fx: &mut Fixture<'_>) -> Result<()> {
    let netns = fx.session_over_link(|_| ())?;
    fx.stop_heartbeat()?;
    netns.cut()?;
    fx.keep_netns(netns);
    if fx.client().seen().ended.is_some() {
        let got = "the client's connection ended".to_owned();
        return Err(TestError::Unexpected { what: "a link that goes down silently".to_owned(), got });
    }
    Ok(())
}
