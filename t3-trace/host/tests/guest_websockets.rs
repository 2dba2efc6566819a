//! Close frames of plain-text WebSockets, read by the real eBPF programs in the running kernel from
//! real loopback sockets. The test is client and server.
//!
//! Needs root, and fentry or kprobes, which not every host has: the tests are ignored unless asked
//! for, and fail without. `cargo xtask vm-test` runs them in a guest.

#![expect(clippy::unwrap_used, reason = "the fixture may fail like a test")]

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, recv};
use t3_trace_host::kernel::{
    CloseFrames, Connections, ConnectionsOf, Functions, Kernel, Options, Outgoing, WEBSOCKETS,
};

const REQUEST: &[u8] = b"GET /ws?wsTicket=secret HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// A listening socket whose connections are watched.
struct Watched {
    listener: TcpListener,
    connections: Connections,
    kernel: Kernel,
}

/// Both ends of a connection.
struct Pair {
    server: TcpStream,
    client: TcpStream,
}

impl Watched {
    fn start(functions: Functions) -> Self {
        let options =
            Options { functions, socket_events: false, websockets: WEBSOCKETS, ..Options::default() };
        let mut kernel = Kernel::load(&options).unwrap();
        let hooks = kernel.hooks().iter().filter(|hook| hook.name.ends_with("msg"));
        let missing: Vec<_> = hooks.filter(|hook| hook.attached.is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = kernel.take_connections().unwrap();
        kernel.watch(&[], &[], &[]).unwrap();
        let watched = ConnectionsOf { port, min_age: 0, is_proxy: false, has_websocket: true };
        kernel.watch_connections(&[watched], &Outgoing::default()).unwrap();
        Self { listener, connections, kernel }
    }

    fn pair(&self) -> Pair {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        Pair { server: self.listener.accept().unwrap().0, client }
    }

    /// After the handshake.
    fn open(&self) -> Pair {
        let mut pair = self.pair();
        pair.client.write_all(REQUEST).unwrap();
        pair.receive(REQUEST.len());
        pair.server.write_all(ANSWER).unwrap();
        pair.client.read_exact(&mut vec![0; ANSWER.len()]).unwrap();
        pair
    }

    /// Ends the connection; returns its Close frames.
    fn end(&mut self, pair: Pair) -> Option<CloseFrames> {
        drop(pair.client);
        drop(pair.server);
        self.next()
    }

    fn next(&mut self) -> Option<CloseFrames> {
        let start = Instant::now();
        loop {
            if let Some(closed) = self.connections.next_connection() {
                return closed.close_frames;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "timed out waiting for the connection");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Pair {
    /// The server reads so many bytes.
    fn receive(&mut self, count: usize) {
        self.server.read_exact(&mut vec![0; count]).unwrap();
    }

    /// The client sends, and the server reads in pieces of up to `piece` bytes.
    fn send_to_server(&mut self, bytes: &[u8], piece: usize) {
        self.client.write_all(bytes).unwrap();
        let mut left = bytes.len();
        while left > 0 {
            let mut buffer = vec![0; piece.min(left)];
            left -= self.server.read(&mut buffer).unwrap();
        }
    }

    fn send_to_client(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).unwrap();
        self.client.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }
}

/// A frame: `first` is its first byte.
fn frame(first: u8, payload: &[u8], is_client: bool) -> Vec<u8> {
    let mask = if is_client { 0x80 } else { 0 };
    let mut frame = vec![first];
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=125), _) => frame.push(mask | length),
        (_, Ok(length)) => {
            frame.push(mask | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    let key: [u8; 4] = if is_client { [0x5a, 0x03, 0xe9, 0x77] } else { [0; 4] };
    if is_client {
        frame.extend(key);
    }
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn close(code: u16, reason: &str, is_client: bool) -> Vec<u8> {
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    frame(0x88, &payload, is_client)
}

fn codes(frames: &CloseFrames) -> (Option<Option<u16>>, Option<Option<u16>>) {
    (frames.received.map(|(_, code)| code), frames.sent.map(|(_, code)| code))
}

#[track_caller]
fn complete(frames: Option<CloseFrames>, received: Option<Option<u16>>, sent: Option<Option<u16>>) {
    let frames = frames.unwrap();
    assert_eq!(codes(&frames), (received, sent), "{frames:?}");
    assert!(frames.is_complete(), "{frames:?}");
}

fn each_kind_of_hook(functions: Functions) {
    let mut watched = Watched::start(functions);
    let mut pair = watched.open();
    pair.send_to_server(&frame(0x81, b"hello", true), 64);
    pair.send_to_client(&frame(0x81, b"hello", false));
    pair.send_to_server(&close(1000, "bye", true), 64);
    pair.send_to_client(&close(1000, "", false));
    let frames = watched.end(pair).unwrap();
    assert!(frames.received.unwrap().0 < frames.sent.unwrap().0, "{frames:?}");
    complete(Some(frames), Some(Some(1000)), Some(Some(1000)));

    let mut pair = watched.open();
    pair.send_to_client(&close(1012, "service restart", false));
    pair.send_to_server(&close(1012, "", true), 3);
    let frames = watched.end(pair).unwrap();
    assert!(frames.sent.unwrap().0 < frames.received.unwrap().0, "{frames:?}");
    complete(Some(frames), Some(Some(1012)), Some(Some(1012)));

    // Control: FIN only.
    let mut pair = watched.open();
    pair.send_to_server(&frame(0x82, &[7; 70_000], true), 4_096);
    pair.send_to_client(&frame(0x82, &[7; 300], false));
    complete(watched.end(pair), None, None);
    assert_eq!(watched.kernel.lost().total(), 0);
}

#[test]
#[ignore = "needs fentry or kprobes: run in a guest by cargo xtask vm-test"]
fn the_close_frames_of_both_sides_are_read() {
    each_kind_of_hook(Functions::Best);
}

#[test]
#[ignore = "needs fentry or kprobes: run in a guest by cargo xtask vm-test"]
fn kprobes_read_the_same() {
    each_kind_of_hook(Functions::Kprobe);
}

#[test]
#[ignore = "needs fentry or kprobes: run in a guest by cargo xtask vm-test"]
fn frames_are_found_however_they_are_cut() {
    let mut watched = Watched::start(Functions::Best);
    // The request in small pieces, the answer together with frames, from several buffers.
    let mut pair = watched.pair();
    pair.send_to_server(REQUEST, 7);
    let first = [ANSWER, &frame(0x81, b"first", false)[..]].concat();
    let (head, rest) = first.split_at(40);
    let bye = close(4001, "application", false);
    let slices = [IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(rest), IoSlice::new(&bye[..1])];
    assert_eq!(pair.server.write_vectored(&slices).unwrap(), first.len() + 1);
    pair.server.write_all(&bye[1..3]).unwrap();
    pair.server.write_all(&bye[3..]).unwrap();
    // Compressed, in fragments with a ping between them, read by one byte and by readv.
    let bytes = [
        frame(0x41, &[1; 200], true),
        frame(0x89, b"ping", true),
        frame(0x00, &[2; 3], true),
        frame(0x80, &[], true),
        close(4001, "", true),
    ]
    .concat();
    pair.client.write_all(&bytes).unwrap();
    for _ in 0..20 {
        pair.receive(1);
    }
    let (mut one, mut two) = ([0; 5], vec![0; 500]);
    let mut slices = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
    assert_eq!(pair.server.read_vectored(&mut slices).unwrap(), bytes.len() - 20);
    complete(watched.end(pair), Some(Some(4001)), Some(Some(4001)));

    // Forty frames in one call, and a Close frame without a code.
    let mut pair = watched.open();
    let many: Vec<u8> = (0..40).flat_map(|n| frame(0x82, &vec![n; 20 * usize::from(n)], true)).collect();
    pair.send_to_server(&[many, frame(0x88, &[], true)].concat(), 1 << 20);
    complete(watched.end(pair), Some(None), None);
}

#[test]
#[ignore = "needs fentry or kprobes: run in a guest by cargo xtask vm-test"]
fn a_large_message_that_is_not_sent_in_one_call_is_followed() {
    let mut watched = Watched::start(Functions::Best);
    let mut pair = watched.open();
    pair.server.set_nonblocking(true).unwrap();
    let bytes = [frame(0x82, &vec![9; 16 << 20], false), close(1001, "", false)].concat();
    let mut reader = pair.client.try_clone().unwrap();
    let total = bytes.len();
    let mut at = pair.server.write(&bytes).unwrap();
    let mut calls = 1;
    let reading = std::thread::spawn(move || reader.read_exact(&mut vec![0; total]).unwrap());
    while at < bytes.len() {
        match pair.server.write(&bytes[at..]) {
            Ok(count) => (at, calls) = (at + count, calls + 1),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    reading.join().unwrap();
    assert!(calls > 1, "{calls}");
    complete(watched.end(pair), None, Some(Some(1001)));
}

#[test]
#[ignore = "needs fentry or kprobes: run in a guest by cargo xtask vm-test"]
fn what_was_peeked_at_counts_once() {
    let mut watched = Watched::start(Functions::Best);
    let mut pair = watched.open();
    for bytes in [frame(0x81, b"x", true), close(1000, "", true)] {
        pair.client.write_all(&bytes).unwrap();
        let mut buffer = vec![0; bytes.len()];
        recv(pair.server.as_fd(), &mut buffer[..], RecvFlags::PEEK | RecvFlags::WAITALL).unwrap();
        pair.receive(bytes.len());
    }
    complete(watched.end(pair), Some(Some(1000)), None);
}

#[test]
#[ignore = "needs fentry or kprobes: run in a guest by cargo xtask vm-test"]
fn what_cannot_be_followed_has_no_code_and_is_not_complete() {
    let mut watched = Watched::start(Functions::Best);
    // sendfile: not through a buffer of the process.
    let mut pair = watched.open();
    let mut file = tempfile();
    let bytes = [frame(0x81, b"from a file", false), close(1000, "", false)].concat();
    file.write_all(&bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let sent = rustix::fs::sendfile(pair.server.as_fd(), file.as_fd(), None, bytes.len()).unwrap();
    assert_eq!(sent, bytes.len());
    pair.client.read_exact(&mut vec![0; sent]).unwrap();
    pair.send_to_client(&close(1011, "", false));
    let frames = watched.end(pair).unwrap();
    assert_eq!(codes(&frames), (None, None), "{frames:?}");
    assert!(frames.is_read_complete && !frames.is_sent_complete, "{frames:?}");

    // Discarded by the server.
    let mut pair = watched.open();
    let bytes = frame(0x81, b"discarded", true);
    pair.client.write_all(&bytes).unwrap();
    recv(pair.server.as_fd(), &mut vec![0; bytes.len()][..], RecvFlags::TRUNC | RecvFlags::WAITALL).unwrap();
    pair.send_to_server(&close(1000, "", true), 64);
    let frames = watched.end(pair).unwrap();
    assert_eq!(codes(&frames), (None, None), "{frames:?}");
    assert!(!frames.is_read_complete && frames.is_sent_complete, "{frames:?}");

    // Never read.
    let mut pair = watched.open();
    pair.client.write_all(&close(1000, "", true)).unwrap();
    pair.send_to_client(&frame(0x81, b"x", false));
    let frames = watched.end(pair).unwrap();
    assert_eq!(codes(&frames), (None, None), "{frames:?}");
    assert!(frames.has_unread && frames.is_read_complete && frames.is_sent_complete, "{frames:?}");

    // Too many frames in one call.
    let mut pair = watched.open();
    pair.send_to_client(&[frame(0x81, b"", false).repeat(2_000), close(1000, "", false)].concat());
    let frames = watched.end(pair).unwrap();
    assert_eq!(codes(&frames), (None, None), "{frames:?}");
    assert!(!frames.is_sent_complete, "{frames:?}");
}

#[test]
#[ignore = "needs fentry or kprobes: run in a guest by cargo xtask vm-test"]
fn what_is_not_a_websocket_has_no_frames() {
    let mut watched = Watched::start(Functions::Best);
    for (request, answer) in [
        (REQUEST, &b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..]),
        (b"SSH-2.0-x\r\n", ANSWER),
        (b"", ANSWER),
        (b"G", b"HTTP/1.1 10"),
    ] {
        let mut pair = watched.pair();
        pair.send_to_server(request, 1_024);
        pair.send_to_client(answer);
        pair.send_to_server(&close(1000, "", true), 64);
        pair.send_to_client(&close(1000, "", false));
        assert_eq!(watched.end(pair), None, "{}", String::from_utf8_lossy(request));
    }
    // On a port where they are not read, or from before they were.
    let older = watched.open();
    let port = watched.listener.local_addr().unwrap().port();
    let unread = ConnectionsOf { port, ..ConnectionsOf::default() };
    watched.kernel.watch_connections(&[unread], &Outgoing::default()).unwrap();
    let mut pair = watched.open();
    pair.send_to_server(&close(1000, "", true), 64);
    assert_eq!(watched.end(pair), None);
    drop(older);
}

fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("t3-websockets-{}", std::process::id()));
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    let _ = std::fs::remove_file(path);
    file
}
