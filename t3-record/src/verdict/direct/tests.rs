//! One row for each way a connection ends that the kernel alone shows, each with its control.

use super::*;
use crate::{
    evidence::{Fate, NetworkChange, NetworkEvent, Process, Span, StopRequest, Task},
    how::How,
    verdict::evidence_builder::{END, MS},
    vocabulary::{ClosedBy, KernelSource, Segment},
};

const SECOND: Nanos = 1_000 * MS;

/// An open connection: nothing has ended, serve is alive.
fn open() -> KernelFacts {
    KernelFacts {
        serve: Some(SocketFacts::default()),
        peer: Some(Process::new(node(), Fate::Alive)),
        ..KernelFacts::absent(KernelSource::Tracepoint)
    }
}

fn node() -> Task {
    Task { pid: 4242, comm: "node".into() }
}

fn with(change: impl FnOnce(&mut SocketFacts)) -> KernelFacts {
    let mut kernel = open();
    change(kernel.serve.get_or_insert_default());
    kernel
}

/// The kernel closes serve's descriptors when it exits: FIN at the end, after its death.
fn died(fate: Fate, change: impl FnOnce(&mut Process)) -> KernelFacts {
    let mut kernel = with(|socket| {
        socket.fin_out = Some(END);
        socket.closer = Some(node());
    });
    let process = kernel.peer.as_mut().unwrap();
    process.fate = fate;
    process.ended_at = Some(END - MS);
    process.signalled_at = matches!(fate, Fate::Signal(_) | Fate::Oom).then_some(END - 2 * MS);
    change(process);
    kernel
}

type Row = (&'static str, KernelFacts, Verdict, How, Segment, ClosedBy, Confidence);

#[track_caller]
fn check(rows: Vec<Row>) {
    for (name, kernel, verdict, how, segment, closed_by, confidence) in rows {
        let judged = judge_direct(&kernel);
        let found = (judged.verdict, judged.how, judged.segment, judged.closed_by, judged.confidence);
        assert_eq!(found, (verdict, Some(how), segment, Some(closed_by), confidence), "{name}");
        assert_eq!(judged.at, Some(END), "{name}");
    }
}

use Confidence::{Likely, Proven};

#[test]
fn the_first_act_names_the_side_and_is_never_proven_without_frames() {
    let (down, up) = (ClosedBy::Downstream, ClosedBy::Upstream);
    check(vec![
        (
            "client FIN, answered",
            with(|s| (s.fin_in, s.fin_out) = (Some(END), Some(END + MS))),
            Verdict::ClientLeft,
            How::Fin,
            Segment::Downstream,
            down,
            Likely,
        ),
        (
            "control: serve FIN, answered",
            with(|s| (s.fin_in, s.fin_out) = (Some(END + MS), Some(END))),
            Verdict::ServeLeft,
            How::Fin,
            Segment::Serve,
            up,
            Likely,
        ),
        (
            "client RST",
            with(|s| (s.rst_in, s.error) = (Some(END), Some((104, END)))),
            Verdict::ClientReset,
            How::Rst,
            Segment::Downstream,
            down,
            Likely,
        ),
        (
            "client RST without the hook",
            with(|s| s.error = Some((104, END))),
            Verdict::ClientReset,
            How::Rst,
            Segment::Downstream,
            down,
            Likely,
        ),
        (
            "control: serve RST",
            with(|s| (s.rst_out, s.closer) = (Some(END), Some(node()))),
            Verdict::ServeReset,
            How::Rst,
            Segment::Serve,
            up,
            Likely,
        ),
    ]);
}

#[test]
fn a_timeout_is_proven_unless_the_host_may_not_have_run() {
    let timeout = |change: fn(&mut KernelFacts)| {
        let mut kernel = with(|s| (s.error, s.rst_out) = (Some((110, END)), Some(END - MS)));
        change(&mut kernel);
        kernel
    };
    let row = |name, kernel, confidence| -> Row {
        (
            name,
            kernel,
            Verdict::ClientVanished,
            How::Vanished,
            Segment::Downstream,
            ClosedBy::Dispatch,
            confidence,
        )
    };
    check(vec![
        row("the kernel's own RST does not count as an act of serve", timeout(|_| ()), Proven),
        row("facts were lost", timeout(|k| k.lost = 1), Likely),
        row("tables overflowed", timeout(|k| k.is_overflowed = true), Likely),
        row(
            "the host did not run",
            timeout(|k| k.delays = vec![Span { from: END - 9 * SECOND, until: END - SECOND }]),
            Likely,
        ),
        row(
            "control: long before",
            timeout(|k| k.delays = vec![Span { from: END - 99 * SECOND, until: END - 90 * SECOND }]),
            Proven,
        ),
        row(
            "control: a short delay",
            timeout(|k| k.delays = vec![Span { from: END - 2 * SECOND, until: END - SECOND }]),
            Proven,
        ),
        (
            "unreachable",
            with(|s| s.error = Some((113, END))),
            Verdict::ClientVanished,
            How::Unreach,
            Segment::Downstream,
            ClosedBy::Dispatch,
            Likely,
        ),
        (
            "the own link was down",
            timeout(|k| {
                let down =
                    NetworkEvent { side: Side::Down, change: NetworkChange::LinkDown, at: END - 20 * SECOND };
                k.network = vec![down];
            }),
            Verdict::ClientVanished,
            How::Vanished,
            Segment::Devvm,
            ClosedBy::Dispatch,
            Likely,
        ),
    ]);
}

#[test]
fn a_death_is_proven_if_it_closed_the_socket() {
    let row = |name, kernel, verdict, how, confidence| -> Row {
        (name, kernel, verdict, how, Segment::Serve, ClosedBy::Upstream, confidence)
    };
    let killed = |change: fn(&mut KernelFacts)| {
        let mut kernel = died(Fate::Signal(9), |_| ());
        change(&mut kernel);
        kernel
    };
    check(vec![
        row("killed", killed(|_| ()), Verdict::ServeKilled, How::Signal(9), Proven),
        row("OOM", died(Fate::Oom, |_| ()), Verdict::ServeOom, How::Oom, Proven),
        row("exited", died(Fate::Exit(1), |_| ()), Verdict::ServeExited, How::Exit(1), Proven),
        row(
            "killed with unread data",
            killed(|k| {
                let socket = k.serve.as_mut().unwrap();
                (socket.fin_out, socket.rst_out) = (None, Some(END));
            }),
            Verdict::ServeKilled,
            How::Signal(9),
            Proven,
        ),
        // serve closed and was killed a second later: the FIN may answer a Close frame.
        row(
            "control: closed before its death",
            died(Fate::Signal(9), |p| {
                (p.signalled_at, p.ended_at) = (Some(END + SECOND), Some(END + SECOND));
            }),
            Verdict::ServeKilled,
            How::Signal(9),
            Likely,
        ),
        row(
            "control: closed long before its death",
            died(Fate::Signal(9), |p| {
                (p.signalled_at, p.ended_at) = (Some(END + 9 * SECOND), Some(END + 9 * SECOND));
            }),
            Verdict::ServeLeft,
            How::Fin,
            Likely,
        ),
        row(
            "control: another process closed",
            killed(|k| k.serve.as_mut().unwrap().closer = Some(Task { pid: 7, comm: "worker".into() })),
            Verdict::ServeKilled,
            How::Signal(9),
            Likely,
        ),
        row(
            "control: the closer was not seen",
            killed(|k| k.serve.as_mut().unwrap().closer = None),
            Verdict::ServeKilled,
            How::Signal(9),
            Likely,
        ),
        row(
            "control: tables overflowed",
            killed(|k| k.is_overflowed = true),
            Verdict::ServeKilled,
            How::Signal(9),
            Likely,
        ),
        row(
            "closes its sessions on SIGTERM and exits later",
            died(Fate::Exit(0), |p| {
                p.ended_at = Some(END + SECOND);
                p.stop_request = Some(StopRequest { signal: 15, by: None, at: END - SECOND });
            }),
            Verdict::ServeLeft,
            How::Fin,
            Likely,
        ),
    ]);
}

#[test]
fn a_client_that_gives_up_on_a_dead_process_is_not_the_cause() {
    let left = |died_before: Nanos| {
        let mut kernel = died(Fate::Signal(11), |p| {
            (p.signalled_at, p.ended_at) = (Some(END - died_before), None);
        });
        let socket = kernel.serve.as_mut().unwrap();
        (socket.fin_in, socket.fin_out) = (Some(END), Some(END + SECOND));
        kernel
    };
    let by = ClosedBy::Downstream;
    check(vec![
        ("core dump", left(10 * SECOND), Verdict::ServeKilled, How::Signal(11), Segment::Serve, by, Likely),
        (
            "control: died long before",
            left(40 * SECOND),
            Verdict::ClientLeft,
            How::Fin,
            Segment::Downstream,
            by,
            Likely,
        ),
    ]);
    let mut later = left(0);
    later.peer.as_mut().unwrap().signalled_at = Some(END + MS);
    assert_eq!(judge_direct(&later).verdict, Verdict::ClientLeft, "killed after the client had left");
}

#[test]
fn a_destroyed_socket_is_neither_sides_act() {
    let destroyed = |change: fn(&mut KernelFacts)| {
        let mut kernel =
            with(|s| (s.error, s.rst_out, s.closed) = (Some((103, END)), Some(END + MS), Some(END)));
        change(&mut kernel);
        kernel
    };
    let row = |name, kernel, confidence| -> Row {
        (name, kernel, Verdict::AdminKilled, How::SockDestroy, Segment::Devvm, ClosedBy::Dispatch, confidence)
    };
    check(vec![
        row("ss -K", destroyed(|_| ()), Proven),
        row("control: tables overflowed", destroyed(|k| k.is_overflowed = true), Likely),
    ]);
    let mut closed = destroyed(|_| ());
    closed.serve.as_mut().unwrap().fin_in = Some(END - SECOND);
    assert_eq!(judge_direct(&closed).verdict, Verdict::ClientLeft, "destroyed after it had ended");
}

#[test]
fn without_any_act_nothing_is_claimed() {
    for kernel in [open(), with(|s| s.closed = Some(END)), KernelFacts::absent(KernelSource::Off)] {
        let judged = judge_direct(&kernel);
        assert_eq!((judged.verdict, judged.confidence), (Verdict::Unknown, Likely));
    }
}
