//! Causes when serve acted first: the process ended, it closed, or its TCP connection timed out.

use crate::{
    evidence::{Evidence, Fate, KernelFacts, Nanos, Process, RelayFacts},
    how::How,
    verdict::{
        Finding,
        acts::{Act, Kind},
        death::death,
        leg::{broke_protocol, fin_how},
        pressure,
        watchdog::{SHORTEST, period},
    },
    vocabulary::{Confidence, Segment, Side, Verdict},
};

/// A process that ends within this time after its own Close frame or FIN was exiting: the close was
/// part of it.
const DYING: Nanos = 2_000_000_000;

/// The same after a request to end: the evidence is read no earlier, so that the verdict does not
/// depend on the time of reading.
const EXITING: Nanos = 50_000_000;

pub(super) fn judge(evidence: &Evidence, first: Act) -> Finding {
    let kernel = &evidence.kernel;
    if let Some(finding) = died(kernel, first) {
        return finding;
    }
    let relay = evidence.relay.as_ref();
    if let Some(finding) = broke_protocol(evidence, Side::Up) {
        return finding;
    }
    if relay.is_some_and(|relay| client_was_silent(relay, first.at)) {
        return Finding::likely(Verdict::PathStalled, How::HeartbeatLost, Segment::Downstream);
    }
    // These verdicts state that the process was alive, which only kernel evidence shows; a
    // forwarder's own target may have ended. A process that ended by now did so later: see `died`.
    let alive = kernel.peer.as_ref().is_some_and(|process| {
        let was_alive = is_graceful(process, first) && process.ended_at.is_some();
        (process.fate == Fate::Alive || was_alive) && !process.is_forwarder
    });
    let forwards = kernel.peer.as_ref().is_some_and(|process| process.is_forwarder);
    // An act of serve is seen on its own end of the connection, too; else the network of this host
    // sent it (a firewall that rejects).
    let own_end = kernel.serve.as_ref().is_some_and(|serve| {
        [serve.fin_out, serve.rst_out, serve.closed, serve.error.map(|(_, at)| at)]
            .iter()
            .any(Option::is_some)
    });
    let closed = match first.kind {
        Kind::CloseFrame => {
            // serve reports a protocol error of the client, and the relay saw it.
            if let Some(finding) = broke_protocol(evidence, Side::Down) {
                return finding;
            }
            let code = relay.and_then(|r| r.up.close_frame.as_ref()).and_then(|frame| frame.code);
            let how = code.map_or(How::WsCloseEmpty, How::WsClose);
            return if forwards {
                Finding::likely(Verdict::ServeClosed, how, Segment::Serve)
            } else {
                Finding::proven(Verdict::ServeClosed, how, Segment::Serve)
            };
        }
        Kind::Fin => {
            if let Some(finding) = broke_protocol(evidence, Side::Down) {
                return finding;
            }
            let how = relay
                .map_or(How::Fin, |r| fin_how(&r.up, &r.down, kernel.up.as_ref().and_then(|t| t.rst_in)));
            Finding::proven(Verdict::ServeLeft, how, Segment::Serve)
        }
        Kind::Rst => {
            if let Some(finding) = broke_protocol(evidence, Side::Down) {
                return finding;
            }
            // A socket without events has no facts, so the RST that the kernel reported to
            // dispatch came from this host's network.
            let is_seen = kernel.up.as_ref().is_some_and(|up| up.rst_in.is_some()) && kernel.lost == 0;
            let is_local = alive && is_seen && !own_end;
            let segment = if is_local { Segment::Devvm } else { Segment::Serve };
            Finding::proven(Verdict::ServeReset, How::Rst, segment)
        }
        Kind::Timeout if dropped(evidence) => {
            return Finding::likely(Verdict::ServeStalled, How::Loss, Segment::Devvm);
        }
        Kind::Timeout => {
            // The loopback loses nothing: serve's socket accepted no byte because serve read none.
            let segment = if pressure::starved(kernel).is_some() { Segment::Devvm } else { Segment::Serve };
            let finding = Finding::proven(Verdict::ServeStalled, How::ZeroWindow, segment);
            // Without a report of the window a firewall is not excluded.
            let confidence =
                if peer_window(evidence).is_some() { Confidence::Proven } else { Confidence::Likely };
            return Finding { confidence, ..finding };
        }
        Kind::Unreach => Finding::likely(Verdict::ServeLeft, How::Unreach, Segment::Serve),
        Kind::Abort | Kind::Error => return Finding::likely(Verdict::Unknown, How::Rst, Segment::Unknown),
    };
    if alive && own_end { closed } else { Finding::likely(closed.verdict, closed.how, closed.segment) }
}

/// serve sends the pings, and the client sent no frame of any kind after one for the time of
/// serve's watchdog: a period (tornado, the `ws` library's example of a heartbeat) or less (0.8
/// periods with socket.io's defaults).
fn client_was_silent(relay: &RelayFacts, at: Nanos) -> bool {
    let Some(heartbeat) = relay.heartbeat.filter(|heartbeat| heartbeat.is_by_serve) else { return false };
    let silent = heartbeat.silent_since.map_or(0, |since| at.saturating_sub(since));
    heartbeat.pongs > 0 && silent >= (period(&heartbeat) / 2).max(SHORTEST)
}

/// Segments to serve were lost, for its window was open: a firewall of this host, because the
/// loopback loses nothing. At the timeout the kernel has cleared the counters of what was in flight
/// (`tcp_write_queue_purge`), so they are not a condition.
fn dropped(evidence: &Evidence) -> bool {
    peer_window(evidence).is_some_and(|window| window > 0)
}

fn peer_window(evidence: &Evidence) -> Option<u32> {
    evidence.relay.as_ref()?.up.tcp?.peer_window
}

/// The process ended with the connection or just before it.
fn died(kernel: &KernelFacts, first: Act) -> Option<Finding> {
    let process = kernel.peer.as_ref()?;
    let was_signalled = matches!(process.fate, Fate::Signal(_) | Fate::Oom)
        && process.signalled_at.is_some_and(|signalled| signalled <= first.at);
    // A process that ended long after the close did not cause it, unless it had its fatal signal by
    // then.
    let dying = if is_graceful(process, first) { EXITING } else { DYING };
    let with_it = process.ended_at.is_none_or(|ended| ended <= first.at.saturating_add(dying));
    death(kernel, process.fate).filter(|_| with_it || was_signalled)
}

/// serve was asked to end before it closed. It closes its sessions first and ends later, however
/// long that takes: the close is an act of its own.
fn is_graceful(process: &Process, first: Act) -> bool {
    matches!(first.kind, Kind::CloseFrame | Kind::Fin)
        && process.stop_request.as_ref().is_some_and(|request| request.at <= first.at)
}
