//! serve's side acted first: did the process die, did it close, or was it given up?

use crate::{
    evidence::{Breach, Evidence, Fate, KernelFacts, LegFacts, Nanos},
    how::How,
    verdict::{
        Finding,
        acts::{Act, Acts, Kind},
        pressure,
    },
    vocabulary::{Segment, Side, Verdict},
};

/// A process that dies within this time after its own close frame or FIN was on its way out: the
/// close was part of dying.
const DYING: Nanos = 2_000_000_000;

pub(super) fn judge(evidence: &Evidence, _acts: &Acts, first: Act) -> Finding {
    let kernel = &evidence.kernel;
    if let Some(finding) = died(kernel, first.at) {
        return finding;
    }
    let relay = evidence.relay.as_ref();
    if let Some(finding) = broke_protocol(evidence, Side::Up) {
        return finding;
    }
    let alive = kernel.peer.as_ref().is_some_and(|process| process.fate == Fate::Alive);
    let closed = match first.kind {
        Kind::CloseFrame => {
            // serve says that the browser broke the protocol, and we saw it.
            if let Some(finding) = broke_protocol(evidence, Side::Down) {
                return finding;
            }
            let code = relay.and_then(|r| r.up.close_frame.as_ref()).and_then(|frame| frame.code);
            return Finding::proven(
                Verdict::ServeClosed,
                code.map_or(How::WsCloseEmpty, How::WsClose),
                Segment::Serve,
            );
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
            Finding::proven(Verdict::ServeReset, How::Rst, Segment::Serve)
        }
        Kind::Timeout => {
            // On the loopback nothing is lost: serve's kernel took no byte because serve took none.
            let segment = if pressure::starved(kernel).is_some() { Segment::Devvm } else { Segment::Serve };
            return Finding::proven(Verdict::ServeStalled, How::ZeroWindow, segment);
        }
        Kind::Unreach => Finding::likely(Verdict::ServeLeft, How::Unreach, Segment::Serve),
        Kind::Abort | Kind::Error => return Finding::likely(Verdict::Unknown, How::Rst, Segment::Unknown),
    };
    // "and lives" is part of these verdicts; without the kernel nobody saw that it does.
    if alive { closed } else { Finding::likely(closed.verdict, closed.how, closed.segment) }
}

/// The process behind the socket died, and its end came with or right before the connection's.
fn died(kernel: &KernelFacts, at: Nanos) -> Option<Finding> {
    let process = kernel.peer.as_ref()?;
    // A death long after the close did not cause it.
    let with_it = process.ended_at.is_none_or(|ended| ended <= at.saturating_add(DYING));
    match process.fate {
        _ if !with_it => None,
        Fate::Alive => None,
        Fate::Exit(status) => Some(Finding::proven(Verdict::ServeExited, How::Exit(status), Segment::Serve)),
        Fate::Signal(signal) => {
            Some(Finding::proven(Verdict::ServeKilled, How::Signal(signal), Segment::Serve))
        }
        Fate::Oom => Some(Finding::proven(Verdict::ServeOom, How::Oom, oom_segment(kernel))),
    }
}

/// A kill at the cgroup's own limit is serve's; one while the whole machine was out of memory is
/// the machine's.
pub(super) fn oom_segment(kernel: &KernelFacts) -> Segment {
    let machine =
        kernel.host.and_then(|host| host.mem).and_then(|mem| mem.full).is_some_and(|full| full >= 10.0);
    let at_limit = kernel.memory.is_some_and(|memory| memory.max.is_some());
    if machine && !at_limit { Segment::Devvm } else { Segment::Serve }
}

/// One side broke RFC 6455 and the connection ended over it.
pub(super) fn broke_protocol(evidence: &Evidence, side: Side) -> Option<Finding> {
    let breach = evidence.relay.as_ref()?.leg(side).breach?;
    // Data after the own close frame is sloppy, and ends nothing: the connection is closing
    // already.
    (breach != Breach::DataAfterClose).then_some(match side {
        Side::Down => Finding::proven(Verdict::ClientProtocol, How::Protocol, Segment::Downstream),
        Side::Up => Finding::proven(Verdict::ServeProtocol, How::Protocol, Segment::Serve),
    })
}

/// What kind of FIN: inside a frame, of one direction only, or a plain one.
pub(super) fn fin_how(leg: &LegFacts, other: &LegFacts, rst_in: Option<Nanos>) -> How {
    let ended = leg.end.map(|(_, at)| at);
    // A peer that had closed, rather than half-closed, answers later data with RST.
    let data_after = matches!((ended, other.last_byte_at), (Some(end), Some(data)) if data > end);
    if leg.mid_frame {
        How::MidFrame
    } else if data_after && rst_in.is_none() {
        How::HalfClose
    } else {
        How::Fin
    }
}
