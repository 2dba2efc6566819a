//! Records of the eBPF programs and their `t3_record` values.

use proptest::prelude::*;
use t3_trace_abi::Wire;

use super::*;

fn named(tgid: u32, name: &[u8]) -> abi::Task {
    let mut task = abi::Task { tgid, ..abi::Task::ZERO };
    task.comm[..name.len()].copy_from_slice(name);
    task
}

#[test]
fn zero_is_never() {
    assert_eq!(socket(&abi::Socket::ZERO, &BTreeMap::new()), SocketFacts::default());
    let trace = process(&abi::Process::ZERO);
    assert_eq!((trace.fate, trace.ended_at, trace.killer, trace.oom_at), (Fate::Alive, None, None, None));
}

#[test]
fn a_socket_keeps_every_fact() {
    let reasons = BTreeMap::from([(11, "tcp_abort_on_close".to_owned())]);
    let raw = abi::Socket {
        fin_in: 1,
        fin_out: 2,
        rst_in: 3,
        rst_out: 4,
        error_at: 5,
        closed: 6,
        error: 104,
        rst_reason: 12,
        retrans: 7,
        closer: named(42, b"node"),
        pad: [0; 8],
    };
    let expected = SocketFacts {
        fin_in: Some(1),
        fin_out: Some(2),
        rst_in: Some(3),
        rst_out: Some(4),
        error: Some((104, 5)),
        closed: Some(6),
        closer: Some(Task { pid: 42, comm: "node".into() }),
        rst_reason: Some("tcp_abort_on_close".into()),
        retrans: 7,
    };
    assert_eq!(socket(&raw, &reasons), expected);
    assert_eq!(socket(&abi::Socket { rst_reason: 99, ..raw }, &reasons).rst_reason, None);
    let full = named(1, b"sixteen-bytes-!!");
    assert_eq!(
        socket(&abi::Socket { closer: full, ..raw }, &reasons).closer.unwrap().comm,
        "sixteen-bytes-!!"
    );
}

#[test]
fn fates() {
    let dead = abi::Process { ended: 100, task: named(7, b"node"), ..abi::Process::ZERO };
    let by = |signal: u32, sender: abi::Task| abi::Process { signal, signalled: 50, sender, ..dead };
    let systemd = named(1, b"systemd");
    // (record, fate, killer's pid, signal time)
    let table = [
        (dead, Fate::Exit(0), None, None),
        (abi::Process { exit_code: 3 << 8, ..dead }, Fate::Exit(3), None, None),
        (abi::Process { exit_code: 0xff00, ..dead }, Fate::Exit(255), None, None),
        (abi::Process { exit_code: 9, ..by(9, systemd) }, Fate::Signal(9), Some(1), Some(50)),
        // With a core dump: bit 7.
        (abi::Process { exit_code: 0x8b, ..by(11, abi::Task::ZERO) }, Fate::Signal(11), None, Some(50)),
        // SIGTERM was handled, then the process exited or aborted.
        (abi::Process { exit_code: 0, ..by(15, systemd) }, Fate::Exit(0), None, None),
        (abi::Process { exit_code: 6, ..by(15, systemd) }, Fate::Signal(6), None, None),
        (abi::Process { oom: 60, exit_code: 9, ..by(9, abi::Task::ZERO) }, Fate::Oom, None, Some(50)),
        // Killed by a process, and marked by the OOM killer while it exited.
        (abi::Process { oom: 60, exit_code: 9, ..by(9, systemd) }, Fate::Signal(9), Some(1), Some(50)),
        // Marked, but it exited by itself.
        (abi::Process { oom: 60, exit_code: 1 << 8, ..dead }, Fate::Exit(1), None, None),
        (abi::Process { ended: 0, ..by(15, systemd) }, Fate::Alive, None, None),
    ];
    for (raw, fate, killer, at) in table {
        let trace = process(&raw);
        let found = (trace.fate, trace.killer.map(|task| task.pid), trace.signalled_at);
        assert_eq!(found, (fate, killer, at), "{raw:?}");
        assert_eq!(trace.last_signal.is_some(), raw.signalled != 0);
    }
}

#[test]
fn events() {
    let bytes = |event: &abi::Event| {
        let mut bytes = vec![0; abi::Event::SIZE];
        event.write(&mut bytes);
        bytes
    };
    let closed = abi::Event { at: 9, kind: abi::Kind::Closed as u32, ..abi::Event::ZERO };
    let ours = abi::Event { socket: abi::SocketId { cookie: 77, ..abi::SocketId::ZERO }, ..closed };
    let kind = EventKind::Socket { socket: SocketKey::Cookie(77), change: Change::Closed };
    assert_eq!(event(&bytes(&ours)), Some(Event { at: 9, kind }));

    let tuple = ServeTuple {
        local: "127.0.0.1:3773".parse().unwrap(),
        remote: "[fd00::1]:40000".parse().unwrap(),
        netns: Some(5),
    };
    let raw = abi::Tuple {
        local: super::super::types::octets(tuple.local.ip()),
        remote: super::super::types::octets(tuple.remote.ip()),
        local_port: 3773,
        remote_port: 40_000,
        netns: 5,
    };
    let end = abi::TupleGen { tuple: raw, generation: 6 };
    let serves = abi::Event { socket: abi::SocketId { cookie: 0, end }, ..closed };
    let kind = EventKind::Socket { socket: SocketKey::Serve(tuple, Generation(6)), change: Change::Closed };
    assert_eq!(event(&bytes(&serves)), Some(Event { at: 9, kind }));

    let exit = abi::Event { kind: abi::Kind::Exit as u32, tgid: 3, value: 9, ..closed };
    assert_eq!(event(&bytes(&exit)).unwrap().kind, EventKind::Exit { tgid: 3, fate: Fate::Signal(9) });
    let oom = abi::Event { kind: abi::Kind::Oom as u32, tgid: 3, ..closed };
    assert_eq!(event(&bytes(&oom)).unwrap().kind, EventKind::Oom { tgid: 3 });
    assert_eq!(event(&bytes(&abi::Event { kind: 99, ..closed })), None);
    assert_eq!(event(&bytes(&closed)[1..]), None);
}

proptest! {
    #[test]
    fn arbitrary_records_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = event(&bytes);
        let _ = process(&abi::Process::read(&bytes));
        let _ = socket(&abi::Socket::read(&bytes), &BTreeMap::new());
    }
}

#[test]
fn a_closed_connection_keeps_every_fact() {
    let tuple = abi::Tuple {
        local: address_of("::ffff:127.0.0.1"),
        remote: address_of("2001:db8::1"),
        local_port: 8080,
        remote_port: 51_000,
        netns: 7,
    };
    let raw = abi::Connection {
        at: 9,
        end: abi::TupleGen { tuple, generation: 5 },
        socket: abi::Socket { fin_in: 8, ..abi::Socket::ZERO },
        cookie: 0,
        acked: 101,
        sent: 150,
        resent: 30,
        received: 41,
        srtt: 8 * 412 + 7,
        retrans: 2,
        unacked: 1,
        lost: 3,
        opener: abi::Opener::ZERO,
        close_frames: abi::CloseFrames::ZERO,
        outgoing: 0,
        pad: 0,
    };
    let decode = |raw: &abi::Connection, has_counters| {
        let mut bytes = [0; abi::Connection::SIZE];
        raw.write(&mut bytes);
        connection(&bytes, &BTreeMap::new(), has_counters).unwrap()
    };
    let found = decode(&raw, true);
    assert_eq!(
        (found.at, found.generation, found.socket.fin_in, found.cookie),
        (9, Generation(5), Some(8), None)
    );
    assert_eq!(found.tuple.local, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(found.tuple.remote, "[2001:db8::1]:51000".parse().unwrap());
    let counters = Counters {
        acked: 101,
        unacked_bytes: 19,
        received: 40,
        rtt_us: 412,
        total_retrans: 2,
        unacked: 1,
        lost: 3,
    };
    assert_eq!(found.counters, Some(counters));
    // Everything was acknowledged, the FIN included.
    let all = decode(&abi::Connection { acked: 121, cookie: 6, ..raw }, true);
    assert_eq!(all.counters.map(|c| (c.acked, c.unacked_bytes)), Some((120, 0)));
    assert_eq!(all.cookie, Some(6));
    assert_eq!(decode(&raw, false).counters, None);
    assert_eq!((found.opener, found.is_outgoing, found.close_frames), (None, false, None));
    let opener = abi::Opener { at: 4, cgroup: 77, task: named(4_242, b"nginx"), ..abi::Opener::ZERO };
    let outgoing = decode(&abi::Connection { opener, outgoing: 1, ..raw }, true);
    let task = Task { pid: 4242, comm: "nginx".to_owned() };
    assert_eq!(outgoing.opener, Some(Opener { at: 4, task, cgroup: 77 }));
    assert!(outgoing.is_outgoing);
    assert_eq!(connection(&[0; 279], &BTreeMap::new(), true), None);
}

#[test]
fn close_frames_are_those_of_a_websocket() {
    use abi::WebSocket;
    let raw = abi::CloseFrames { received: 7, received_code: 1_000, sent: 9, ..abi::CloseFrames::ZERO };
    assert_eq!(close_frames(&raw), None, "no handshake");
    let flags = WebSocket::OPEN | WebSocket::LOST_SENT;
    let found = close_frames(&abi::CloseFrames { flags, ..raw }).unwrap();
    assert_eq!((found.received, found.sent), (Some((7, Some(1_000))), Some((9, None))));
    assert_eq!((found.is_read_complete, found.is_sent_complete), (true, false));
}

fn address_of(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}
