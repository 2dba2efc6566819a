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
        let judged = judge_direct(&kernel, None);
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
    assert_eq!(judge_direct(&later, None).verdict, Verdict::ClientLeft, "killed after the client had left");
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
    assert_eq!(judge_direct(&closed, None).verdict, Verdict::ClientLeft, "destroyed after it had ended");
}

#[test]
fn without_any_act_nothing_is_claimed() {
    for kernel in [open(), with(|s| s.closed = Some(END)), KernelFacts::absent(KernelSource::Off)] {
        let judged = judge_direct(&kernel, None);
        assert_eq!((judged.verdict, judged.confidence), (Verdict::Unknown, Likely));
    }
}

/// Both directions were followed to their ends.
const FOLLOWED: CloseFrames = CloseFrames {
    received: None,
    sent: None,
    is_read_complete: true,
    has_unread: false,
    is_sent_complete: true,
};

/// Close frames of client and serve, each with its FIN a moment later.
fn closing(client: Option<(Nanos, u16)>, serve: Option<(Nanos, u16)>) -> (KernelFacts, CloseFrames) {
    let fin = |frame: Option<(Nanos, u16)>| frame.map(|(at, _)| at + 5 * MS);
    let kernel = with(|s| (s.fin_in, s.fin_out) = (fin(client), fin(serve)));
    let frame = |frame: Option<(Nanos, u16)>| frame.map(|(at, code)| (at, Some(code)));
    (kernel, CloseFrames { received: frame(client), sent: frame(serve), ..FOLLOWED })
}

#[test]
fn the_first_close_frame_decides_and_is_proven_only_when_nothing_was_missed() {
    type Change = fn(&mut KernelFacts, &mut CloseFrames);
    type Row = (&'static str, (KernelFacts, CloseFrames), Change, Verdict, How, Confidence);
    let client = |code| closing(Some((END, code)), Some((END + MS, code)));
    let serve = |code| closing(Some((END + MS, code)), Some((END, code)));
    let (by_client, by_serve) = (Verdict::ClientClosed, Verdict::ServeClosed);
    let rows: Vec<Row> = vec![
        ("client, page left", client(1001), |_, _| (), by_client, How::WsClose(1001), Proven),
        ("client, code of the application", client(4001), |_, _| (), by_client, How::WsClose(4001), Proven),
        (
            "client 1000: a watchdog sends it, too",
            client(1000),
            |_, _| (),
            by_client,
            How::WsClose(1000),
            Likely,
        ),
        (
            "client without a code",
            client(1001),
            |_, f| f.received = Some((END, None)),
            by_client,
            How::WsCloseEmpty,
            Likely,
        ),
        (
            "its FIN came in before the frame was read",
            client(1001),
            |k, _| k.serve.as_mut().unwrap().fin_in = Some(END),
            by_client,
            How::WsClose(1001),
            Proven,
        ),
        ("serve restarts", serve(1012), |_, _| (), by_serve, How::WsClose(1012), Proven),
        ("no reply", closing(None, Some((END, 1011))), |_, _| (), by_serve, How::WsClose(1011), Proven),
        (
            "frames that crossed have different codes",
            serve(1012),
            |_, f| f.received = Some((END + MS, Some(1000))),
            by_serve,
            How::WsClose(1012),
            Likely,
        ),
        (
            "what came in was not all read",
            closing(None, Some((END, 1012))),
            |_, f| f.has_unread = true,
            by_serve,
            How::WsClose(1012),
            Likely,
        ),
        (
            "received: lost",
            serve(1012),
            |_, f| f.is_read_complete = false,
            by_serve,
            How::WsClose(1012),
            Likely,
        ),
        ("sent: lost", serve(1012), |_, f| f.is_sent_complete = false, by_serve, How::WsClose(1012), Likely),
        (
            "client; sent: lost",
            client(1001),
            |_, f| f.is_sent_complete = false,
            by_client,
            How::WsClose(1001),
            Likely,
        ),
        ("events were lost", serve(1012), |k, _| k.lost = 1, by_serve, How::WsClose(1012), Likely),
        (
            "tables overflowed",
            serve(1012),
            |k, _| k.is_overflowed = true,
            by_serve,
            How::WsClose(1012),
            Likely,
        ),
        ("the process is not known", serve(1012), |k, _| k.peer = None, by_serve, How::WsClose(1012), Likely),
        (
            "no end of the connection",
            serve(1012),
            |k, _| k.serve = Some(SocketFacts::default()),
            by_serve,
            How::WsClose(1012),
            Likely,
        ),
        (
            "serve had sent FIN before",
            closing(Some((END, 1001)), None),
            |k, _| k.serve.as_mut().unwrap().fin_out = Some(END - MS),
            Verdict::ServeLeft,
            How::Fin,
            Likely,
        ),
        (
            "serve ended after the reply",
            client(1001),
            |k, _| {
                let died = Process::new(node(), Fate::Signal(9));
                let (signalled_at, ended_at) = (Some(END + 2 * MS), Some(END + 3 * MS));
                k.peer = Some(Process { signalled_at, ended_at, ..died });
            },
            by_client,
            How::WsClose(1001),
            Likely,
        ),
        (
            "serve ended before a client with a watchdog gave up",
            client(1000),
            |k, _| {
                let died = Process::new(node(), Fate::Signal(9));
                let (signalled_at, ended_at) = (Some(END - 3 * MS), Some(END - 2 * MS));
                k.peer = Some(Process { signalled_at, ended_at, ..died });
            },
            Verdict::ServeKilled,
            How::Signal(9),
            Likely,
        ),
        (
            "serve closes as it exits",
            serve(1012),
            |k, _| {
                k.peer =
                    Some(Process { ended_at: Some(END + 3 * MS), ..Process::new(node(), Fate::Exit(0)) });
            },
            Verdict::ServeExited,
            How::Exit(0),
            Likely,
        ),
    ];
    for (name, (mut kernel, mut frames), change, verdict, how, confidence) in rows {
        change(&mut kernel, &mut frames);
        let judged = judge_direct(&kernel, Some(&frames));
        assert_eq!(
            (judged.verdict, judged.how, judged.confidence),
            (verdict, Some(how), confidence),
            "{name}"
        );
    }
}

#[test]
fn a_close_frame_decides_nothing_when_an_earlier_one_may_be_missing() {
    let alone = |client, serve, change: fn(&mut CloseFrames)| {
        let (kernel, mut frames) = closing(client, serve);
        change(&mut frames);
        (frames.first(), judge_direct(&kernel, Some(&frames)), judge_direct(&kernel, None))
    };
    for (name, (first, with_frames, without)) in [
        ("a reply to a lost frame", alone(None, Some((END, 1000)), |f| f.is_read_complete = false)),
        ("the same of the client", alone(Some((END, 1000)), None, |f| f.is_sent_complete = false)),
        (
            "no frames, both lost",
            alone(None, None, |f| (f.is_read_complete, f.is_sent_complete) = (false, false)),
        ),
        ("no frames", alone(None, None, |_| ())),
    ] {
        assert_eq!(first, None, "{name}");
        assert_eq!(with_frames, without, "{name}");
        assert_eq!(with_frames.confidence, Likely, "{name}");
    }
}
