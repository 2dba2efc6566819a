//! Ends of processes, and the senders of signals.

use rustix::process::Signal;
use t3_record::evidence::Fate;
use t3_trace_host::kernel::{EventKind, Kernel, ProcessFacts};

use crate::{
    fixture::{Leg, kernel, wait_for},
    serve::Serve,
};

fn ended(kernel: &Kernel, pid: u32) -> ProcessFacts {
    let ended = || kernel.process(pid).filter(|process| process.ended_at.is_some());
    wait_for("the process ended", || ended().is_some());
    ended().unwrap()
}

#[test]
fn a_killed_serve_is_distinguished_from_a_closing_one() {
    let Some(mut kernel) = kernel() else { return };
    let mut serve = Serve::listening("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    let leg = Leg::open(&kernel, &mut serve);
    serve.signal(Signal::KILL);
    wait_for("FIN came in", || leg.dispatch_end(&kernel).fin_in.is_some());
    let serves = leg.serve_end(&kernel);
    assert_eq!(
        serves.closer.as_ref().map(|task| task.pid),
        Some(serve.pid()),
        "the exiting process closes its sockets"
    );
    let process = ended(&kernel, serve.pid());
    assert_eq!(process.fate, Fate::Signal(9));
    assert_eq!(process.killer.map(|task| task.pid), Some(std::process::id()));
    assert!(process.signalled_at <= process.ended_at, "the signal comes before the end");
    assert!(process.ended_at <= serves.fin_out, "the end comes before the sockets are closed");
    assert!(process.started_boot_ns.is_some());
    assert_eq!(process.oom_at, None);
}

#[test]
fn exit_codes_and_handled_signals() {
    let Some(kernel) = kernel() else { return };
    for code in [0, 7, 255] {
        let mut serve = Serve::start("127.0.0.1");
        assert_eq!(serve.end_by(&format!("exit {code}")).code(), Some(code));
        let process = ended(&kernel, serve.pid());
        assert_eq!((process.fate, process.killer), (Fate::Exit(code), None));
    }
    let mut serve = Serve::start("127.0.0.1");
    serve.signal(Signal::TERM);
    let process = ended(&kernel, serve.pid());
    assert_eq!(process.fate, Fate::Signal(15));
    assert_eq!(process.killer.map(|task| task.pid), Some(std::process::id()));
}

#[test]
fn a_process_lives_after_the_end_of_its_first_thread() {
    let Some(mut kernel) = kernel() else { return };
    let mut serve = Serve::listening("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    let leg = Leg::open(&kernel, &mut serve);
    serve.order("end_first_thread");
    let stat = t3_trace_host::proc::stat::read(serve.pid()).unwrap();
    assert!(!stat.is_over() && stat.threads > 1 && stat.fate().is_none(), "{stat:?}");
    let sockets = t3_trace_host::proc::sockets(serve.pid());
    assert!(sockets.len() >= 2, "the listener and the connection: {sockets:?}");
    assert_eq!(kernel.process(serve.pid()).and_then(|process| process.ended_at), None);
    serve.order("close");
    wait_for("FIN came in", || leg.dispatch_end(&kernel).fin_in.is_some());
    assert_eq!(leg.serve_end(&kernel).closer.map(|task| task.pid), Some(serve.pid()));
    assert_eq!(kernel.process(serve.pid()).and_then(|process| process.ended_at), None);
    assert_eq!(serve.end_by("exit 3").code(), Some(3));
    assert_eq!(ended(&kernel, serve.pid()).fate, Fate::Exit(3));
}

#[test]
fn a_fault_has_no_sender() {
    let Some(kernel) = kernel() else { return };
    let mut serve = Serve::listening("127.0.0.1");
    serve.end_by("fault");
    let process = ended(&kernel, serve.pid());
    assert!(matches!(process.fate, Fate::Signal(_)), "{process:?}");
    assert_eq!(process.killer, None, "the kernel sent it");
}

#[test]
fn the_exit_of_a_listening_process_is_an_event() {
    let Some(mut kernel) = kernel() else { return };
    let mut events = kernel.take_events().unwrap();
    let mut serve = Serve::start("127.0.0.1");
    let mut other = Serve::start("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    serve.order("listen");
    other.order("listen");
    assert_eq!(kernel.watched_processes(), [serve.pid()], "known before its first connection");
    other.end_by("exit 4");
    serve.end_by("exit 3");
    let mut exits = Vec::new();
    wait_for("the exit is an event", || {
        while let Some(event) = events.next_event() {
            if let EventKind::Exit { tgid, fate } = event.kind {
                exits.push((tgid, fate));
            }
        }
        !exits.is_empty()
    });
    assert_eq!(exits, [(serve.pid(), Fate::Exit(3))], "no event for the process on an unwatched port");
    assert_eq!(ended(&kernel, other.pid()).fate, Fate::Exit(4), "its fate is recorded anyway");
}
