//! Connections that a process of this host opened and dispatch did not carry: judged by the events
//! of its socket, the one of the client.
//!
//! What the socket received is an act of the server, what it sent an act of the client. Of the
//! server's process nothing is known, so its acts are never proven; neither is a FIN of the client,
//! which a Close frame could have preceded.

use super::{Finding, Judgement, NOTHING_SEEN, acts::Acts, acts::Kind, finish, leg_cause, peer};
use crate::{
    evidence::{Evidence, Fate, KernelFacts, Nanos, SocketFacts},
    how::How,
    verdict::acts::errno_end,
    vocabulary::{ClosedBy, LegEnd, Segment, Side, Verdict},
};

/// A client that ends within this time after its FIN or RST was exiting: the close was part of it.
const DYING: Nanos = 2_000_000_000;

/// Judges the end of an outgoing connection; `kernel.serve` is its socket, `kernel.peer` the
/// process that connected.
#[must_use]
pub fn judge_outgoing(kernel: &KernelFacts) -> Judgement {
    let evidence = as_legs(kernel);
    let acts = Acts::of(&evidence);
    if let Some(abort) = acts.first_of(Kind::Abort) {
        let finding = Finding::proven(Verdict::AdminKilled, How::SockDestroy, Segment::Devvm);
        return finish(&evidence, finding, leg_cause(abort.side), Some(ClosedBy::Dispatch), Some(abort.at));
    }
    let Some(first) = acts.first() else { return NOTHING_SEEN };
    let (verdict, how, segment) = match (first.side, first.kind) {
        (Side::Up, Kind::Fin) => (Verdict::ServeLeft, How::Fin, Segment::Serve),
        (Side::Up, Kind::Rst) => (Verdict::ServeReset, How::Rst, Segment::Serve),
        (Side::Up, Kind::Timeout | Kind::Unreach) => (Verdict::ServeTimeout, How::Vanished, Segment::Serve),
        (Side::Down, Kind::Fin) => (Verdict::ClientLeft, How::Fin, Segment::Downstream),
        (Side::Down, Kind::Rst) => (Verdict::ClientReset, How::Rst, Segment::Downstream),
        _ => (Verdict::Unknown, How::Rst, Segment::Unknown),
    };
    let mut finding = Finding::likely(verdict, how, segment);
    if first.side == Side::Down
        && let Some(how) = died(kernel, first.at)
    {
        // The verdict states what the server saw; the mechanism why.
        let segment = if how == How::Oom { super::death::oom_segment(kernel) } else { Segment::Downstream };
        finding.how = how;
        finding.segment = if segment == Segment::Devvm { segment } else { Segment::Downstream };
    }
    let given_up = matches!(first.kind, Kind::Timeout | Kind::Unreach);
    let closed_by = if given_up { ClosedBy::Dispatch } else { peer(first.side) };
    finish(&evidence, finding, leg_cause(first.side), Some(closed_by), Some(first.at))
}

/// Way in which the process ended, if its end closed the connection.
fn died(kernel: &KernelFacts, closed_at: Nanos) -> Option<How> {
    let process = kernel.peer.as_ref()?;
    let was_signalled = process.signalled_at.is_some_and(|signalled| signalled <= closed_at);
    let with_it = process.ended_at.is_some_and(|ended| ended <= closed_at.saturating_add(DYING));
    match process.fate {
        Fate::Exit(status) if with_it => Some(How::Exit(status)),
        Fate::Signal(signal) if with_it || was_signalled => Some(How::Signal(signal)),
        Fate::Oom if with_it || was_signalled => Some(How::Oom),
        Fate::Alive | Fate::Exit(_) | Fate::Signal(_) | Fate::Oom => None,
    }
}

/// The socket as the two legs of a session.
pub(crate) fn as_legs(kernel: &KernelFacts) -> Evidence {
    let mut kernel = kernel.clone();
    let socket = kernel.serve.clone().unwrap_or_default();
    let is_abort = |(errno, _): &(i32, Nanos)| errno_end(*errno) == Some(LegEnd::Abort);
    let has_failed = socket.error.is_some_and(|(errno, _)| errno_end(errno).is_some());
    kernel.up = Some(SocketFacts {
        fin_in: socket.fin_in,
        rst_in: socket.rst_in,
        error: socket.error.filter(|error| !is_abort(error)),
        retrans: socket.retrans,
        ..SocketFacts::default()
    });
    kernel.down = Some(SocketFacts {
        fin_in: socket.fin_out,
        rst_in: socket.rst_out.filter(|_| !has_failed),
        error: socket.error.filter(is_abort),
        ..SocketFacts::default()
    });
    // Not the process behind the upstream leg.
    kernel.peer = None;
    kernel.network.clear();
    Evidence { kernel, ..Evidence::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{Process, Task},
        verdict::evidence_builder::{END, MS},
        vocabulary::{Confidence, KernelSource},
    };

    fn closed(change: impl FnOnce(&mut SocketFacts)) -> KernelFacts {
        let mut socket = SocketFacts::default();
        change(&mut socket);
        let task = Task { pid: 4242, comm: "cloudflared".into() };
        KernelFacts {
            serve: Some(socket),
            peer: Some(Process::new(task, Fate::Alive)),
            ..KernelFacts::absent(KernelSource::Tracepoint)
        }
    }

    fn ended(fate: Fate, ended_at: Nanos, signalled_at: Option<Nanos>) -> KernelFacts {
        let mut kernel = closed(|s| s.fin_out = Some(END));
        let process = kernel.peer.as_mut().unwrap();
        (process.fate, process.ended_at, process.signalled_at) = (fate, Some(ended_at), signalled_at);
        kernel
    }

    #[test]
    fn each_way_to_end_names_the_side_that_acted_first() {
        let (down, up, own) = (ClosedBy::Downstream, ClosedBy::Upstream, ClosedBy::Dispatch);
        let likely = Confidence::Likely;
        for (name, kernel, verdict, how, segment, closed_by, confidence) in [
            (
                "server FIN, answered",
                closed(|s| (s.fin_in, s.fin_out) = (Some(END), Some(END + MS))),
                Verdict::ServeLeft,
                How::Fin,
                Segment::Serve,
                up,
                likely,
            ),
            (
                "control: client FIN, answered",
                closed(|s| (s.fin_in, s.fin_out) = (Some(END + MS), Some(END))),
                Verdict::ClientLeft,
                How::Fin,
                Segment::Downstream,
                down,
                likely,
            ),
            (
                "server RST",
                closed(|s| (s.rst_in, s.error) = (Some(END), Some((104, END)))),
                Verdict::ServeReset,
                How::Rst,
                Segment::Serve,
                up,
                likely,
            ),
            (
                "control: client RST",
                closed(|s| s.rst_out = Some(END)),
                Verdict::ClientReset,
                How::Rst,
                Segment::Downstream,
                down,
                likely,
            ),
            (
                "no answer",
                closed(|s| (s.error, s.rst_out) = (Some((110, END)), Some(END - MS))),
                Verdict::ServeTimeout,
                How::Vanished,
                Segment::Serve,
                own,
                likely,
            ),
            (
                "ss -K",
                closed(|s| (s.error, s.rst_out) = (Some((103, END)), Some(END - MS))),
                Verdict::AdminKilled,
                How::SockDestroy,
                Segment::Devvm,
                own,
                Confidence::Proven,
            ),
            (
                "the client was killed",
                ended(Fate::Signal(9), END - MS, Some(END - 2 * MS)),
                Verdict::ClientLeft,
                How::Signal(9),
                Segment::Downstream,
                down,
                likely,
            ),
            (
                "the client exited after its FIN",
                ended(Fate::Exit(0), END + 1_000 * MS, None),
                Verdict::ClientLeft,
                How::Exit(0),
                Segment::Downstream,
                down,
                likely,
            ),
            (
                "control: it exited long after",
                ended(Fate::Exit(0), END + 60_000 * MS, None),
                Verdict::ClientLeft,
                How::Fin,
                Segment::Downstream,
                down,
                likely,
            ),
            (
                "control: it was killed long after",
                ended(Fate::Signal(9), END + 60_000 * MS, Some(END + 59_000 * MS)),
                Verdict::ClientLeft,
                How::Fin,
                Segment::Downstream,
                down,
                likely,
            ),
        ] {
            let judged = judge_outgoing(&kernel);
            assert_eq!(
                (judged.verdict, judged.how, judged.segment, judged.closed_by, judged.confidence),
                (verdict, Some(how), segment, Some(closed_by), confidence),
                "{name}"
            );
            assert_eq!(judged.at, Some(END), "{name}");
        }
        assert_eq!(judge_outgoing(&closed(|_| ())).verdict, Verdict::Unknown);
    }

    #[test]
    fn the_death_of_the_client_is_not_that_of_a_server_that_closed_first() {
        let mut kernel = ended(Fate::Signal(9), END + 2 * MS, Some(END + MS));
        kernel.serve = Some(SocketFacts { fin_in: Some(END), ..SocketFacts::default() });
        let judged = judge_outgoing(&kernel);
        assert_eq!((judged.verdict, judged.how), (Verdict::ServeLeft, Some(How::Fin)));
    }
}
