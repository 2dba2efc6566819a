//! Faults in front of us: the browser and everything between it and dispatch.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, Graceful, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, Fault, Need, PERIOD, Truth, World};
use crate::{
    client::PATIENCE,
    error::{Result, TestError},
    frame::{self, opcode},
    harness::Netns,
};

/// Long enough without a heartbeat that nobody could take it for jitter.
const SILENCE: Duration = Duration::from_secs(4);

fn left(verdict: Verdict, how: &str) -> Truth {
    Truth::opened(verdict, Segment::Downstream, DownstreamClosed, how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
}

fn closed(code: &str, reason: &str) -> Truth {
    let how = if code.is_empty() { "ws_close".to_owned() } else { format!("ws_close:{code}") };
    // serve answers the close frame and, as RFC 6455 section 7.1.1 asks of a server, closes the
    // connection first.
    Truth::opened(Verdict::ClientClosed, Segment::Downstream, Graceful, &how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .close_frame("down", code, reason)
        .ends(LegEnd::FinOut, LegEnd::FinIn)
}

pub(super) fn faults() -> Vec<Fault> {
    let fin = |how| left(Verdict::ClientLeft, how).ends(LegEnd::FinIn, LegEnd::FinOut);
    let rst = || left(Verdict::ClientReset, "rst").ends(LegEnd::RstIn, LegEnd::RstOut);
    vec![
        Fault::new("client_close", closed("1000", "bye"), |w| close(w, Some(1000), "bye")),
        Fault::new("client_close_1001", closed("1001", ""), |w| close(w, Some(1001), "")),
        Fault::new("client_close_app", closed("4321", "own \"reason\" x=1"), |w| {
            close(w, Some(4321), "own \"reason\" x=1")
        }),
        Fault::new("client_close_empty", closed("", ""), |w| close(w, None, "")),
        Fault::new("client_fin", fin("fin"), |w| {
            w.session()?;
            w.client().fin();
            w.ended()
        }),
        Fault::new("client_rst", rst(), |w| {
            w.session()?;
            w.client().reset();
            Ok(())
        }),
        Fault::new("client_sigkill", fin("fin"), |w| {
            w.session()?;
            w.quiet()?;
            w.client_process_killed()
        }),
        // Bytes that the dead process has not read turn its FIN into a RST.
        Fault::new("client_sigkill_unread", rst(), |w| {
            w.session()?;
            w.quiet()?;
            w.client().reading(false);
            w.order("send something that nobody reads")?;
            std::thread::sleep(PERIOD);
            w.client_process_killed()
        }),
        Fault::new("client_half_close", fin("half_close"), half_close),
        Fault::new("client_mid_frame", fin("mid_frame"), |w| {
            w.session()?;
            w.client().heartbeat(None);
            let whole = frame::from_client(opcode::TEXT, &[b'x'; 100]);
            w.client().write(whole.get(..50).unwrap_or(&whole).to_vec());
            w.client().fin();
            w.ended()
        }),
        Fault::new(
            "client_unmasked",
            // serve sees the breach and ends the connection: it acts first, the browser's side is
            // to blame.
            Truth::opened(
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
            |w| {
                w.session()?;
                w.quiet()?;
                w.client().write(frame::raw(0x81, b"not masked", false));
                w.ended()
            },
        ),
        Fault::new(
            "client_watchdog_path",
            // The watchdog's clean Close 1000 after heartbeats had stopped coming, though serve had
            // answered each.
            closed("1000", "")
                .is("verdict", "path_stalled")
                .is("how", "heartbeat_lost")
                .is("confidence", "likely")
                .key("hb_gap_ms", Expect::Range(3_000, 60_000))
                .key("up_idle_ms", Expect::Range(3_000, 60_000))
                .key("hb_wait_ms", Expect::Absent),
            |w| {
                w.session()?;
                w.quiet()?;
                std::thread::sleep(SILENCE);
                w.client().close(Some(1000), "");
                w.ended()
            },
        ),
        Fault::new("client_vanished_idle", vanished("vanished"), vanish)
            .needs(&[Need::Root, Need::Netns])
            .patience(180),
        Fault::new("client_vanished_unacked", vanished("loss").at_least("down_retrans", 1), |w| {
            vanish(w)?;
            w.order("send into the void")
        })
        .needs(&[Need::Root, Need::Netns])
        .patience(180),
    ]
}

fn close(w: &mut World<'_>, code: Option<u16>, reason: &str) -> Result<()> {
    w.session()?;
    w.client().close(code, reason);
    w.ended()
}

/// The browser's side sends FIN and waits, while serve goes on talking for a while.
fn half_close(w: &mut World<'_>) -> Result<()> {
    w.patient_session()?;
    w.order("deaf")?;
    w.client().fin();
    for _ in 0..3 {
        std::thread::sleep(PERIOD);
        w.order("send still talking")?;
    }
    w.client().wait("what serve said after the FIN", PATIENCE, |seen| seen.messages.len() == 3)?;
    // A FIN does not lie unread in serve's socket as data would, so this gives a FIN too.
    w.order("drop")?;
    // Both directions have ended now; the browser's side lets go.
    w.client().drop_socket();
    Ok(())
}

fn vanished(how: &str) -> Truth {
    let mut truth = Truth::opened(
        Verdict::ClientVanished,
        Segment::Downstream,
        DownstreamClosed,
        how,
        // Our own kernel gives up; the peer does nothing any more.
        ClosedBy::Dispatch,
    )
    .is("peer_exit", "alive")
    .is("down_end", "timeout")
    .one_of("up_end", &["fin_out", "rst_out"]);
    for key in ["hb_gap_ms", "down_idle_ms", "up_idle_ms"] {
        truth = truth.key(key, Expect::Range(5_000, 180_000));
    }
    for key in ["down_retrans", "down_unacked", "down_lost"] {
        truth = truth.key(key, Expect::Free);
    }
    truth
}

/// A session over a link of its own; then the link goes down.
fn vanish(w: &mut World<'_>) -> Result<()> {
    let netns = Netns::new()?;
    w.serve(&[])?;
    let mut config = w.config();
    config.address = (netns.near, w.stack.address.port()).into();
    config.namespace = Some(netns.descriptor()?);
    w.open(config)?;
    w.quiet()?;
    netns.cut()?;
    w.keep(netns);
    if w.client().seen().ended.is_some() {
        let got = "the client noticed".to_owned();
        return Err(TestError::Unexpected { what: "a link that goes down in silence".to_owned(), got });
    }
    Ok(())
}
