//! The daemon with the real kernel side: records of plain-text WebSockets on a port with
//! `websocket`. The test is client and server.
//!
//! Needs root and the eBPF object; else it prints the reason and passes, or fails in CI. On a
//! kernel without fentry and kprobes the records have no Close frames, which it checks instead,
//! unless `T3_FUNCTION_HOOKS` is set, as in the guests of `cargo xtask vm-test`.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/records.rs"]
mod records;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use daemon::RunningDaemon;
use t3_record::{Confidence, How, Side, Verdict};
use t3_trace_daemon::{direct::WatchedPort, options::Options};
use t3_trace_host::kernel::WEBSOCKETS;

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

/// Both ends of a WebSocket.
struct Pair {
    server: TcpStream,
    client: TcpStream,
}

impl Pair {
    fn open(listener: &TcpListener) -> Self {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut pair = Self { server: listener.accept().unwrap().0, client };
        pair.send_to_server(REQUEST);
        pair.send_to_client(ANSWER);
        pair
    }

    fn send_to_server(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
        self.server.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }

    fn send_to_client(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).unwrap();
        self.client.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }

    /// The client ends it, and the server after it.
    fn end_by_client(mut self) {
        drop(self.client);
        let _ = self.server.read(&mut [0; 1]);
    }

    fn end_by_server(mut self) {
        drop(self.server);
        let _ = self.client.read(&mut [0; 1]);
    }
}

/// A Close frame; of a client with the mask 5a 03 e9 77.
fn close(code: u16, is_client: bool) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    if is_client {
        vec![0x88, 0x82, 0x5a, 0x03, 0xe9, 0x77, high ^ 0x5a, low ^ 0x03]
    } else {
        vec![0x88, 0x02, high, low]
    }
}

type Scene = (&'static str, fn(Pair), Option<(u16, Side)>, Verdict, How, Confidence);

const SCENES: [Scene; 6] = [
    ("control: FIN only", Pair::end_by_client, None, Verdict::ClientLeft, How::Fin, Confidence::Likely),
    (
        "the client closes with 1000, as a watchdog does",
        |mut pair| {
            pair.send_to_server(&close(1000, true));
            pair.send_to_client(&close(1000, false));
            pair.end_by_client();
        },
        Some((1000, Side::Down)),
        Verdict::ClientClosed,
        How::WsClose(1000),
        Confidence::Likely,
    ),
    (
        "the client closes with a code of the application",
        |mut pair| {
            pair.send_to_server(&close(4001, true));
            pair.send_to_client(&close(4001, false));
            pair.end_by_client();
        },
        Some((4001, Side::Down)),
        Verdict::ClientClosed,
        How::WsClose(4001),
        Confidence::Proven,
    ),
    (
        "the server closes with 1012",
        |mut pair| {
            pair.send_to_client(&close(1012, false));
            pair.send_to_server(&close(1012, true));
            pair.end_by_server();
        },
        Some((1012, Side::Up)),
        Verdict::ServeClosed,
        How::WsClose(1012),
        Confidence::Proven,
    ),
    (
        "the client closes while it is sent a large message",
        |mut pair| {
            let message = [&[0x82, 127, 0, 0, 0, 0, 0, 0x80, 0, 0][..], &vec![0x88; 8 << 20]].concat();
            let mut sending = pair.server.try_clone().unwrap();
            let sender = std::thread::spawn(move || sending.write_all(&message));
            pair.client.read_exact(&mut [0; 1_000]).unwrap();
            pair.send_to_server(&close(1001, true));
            pair.client.read_exact(&mut vec![0; (8 << 20) + 10 - 1_000]).unwrap();
            sender.join().unwrap().unwrap();
            pair.send_to_client(&close(1001, false));
            pair.end_by_client();
        },
        Some((1001, Side::Down)),
        Verdict::ClientClosed,
        How::WsClose(1001),
        Confidence::Proven,
    ),
    (
        "compressed messages",
        |mut pair| {
            pair.send_to_client(&[0xc1, 3, 0xca, 0x00, 0x88]);
            pair.send_to_server(&[0xc1, 0x81, 1, 2, 3, 4, 0x88]);
            pair.send_to_client(&close(1011, false));
            pair.end_by_client();
        },
        Some((1011, Side::Up)),
        Verdict::ServeClosed,
        How::WsClose(1011),
        Confidence::Proven,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_first_close_frame_is_in_the_record() {
    let Some(kernel) = kernel::load(|options| options.websockets = WEBSOCKETS) else { return };
    let hooks: Vec<_> = kernel.hooks().iter().filter(|hook| hook.name.ends_with("msg")).cloned().collect();
    assert_eq!(hooks.len(), 2);
    let has_frames = hooks.iter().all(|hook| hook.attached.is_some());
    let are_required = std::env::var_os("T3_FUNCTION_HOOKS").is_some();
    assert!(has_frames || !are_required, "{hooks:?}");
    if !has_frames {
        eprintln!("without Close frames: {hooks:?}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = WatchedPort {
        min_duration: Duration::ZERO,
        is_websocket: true,
        ..WatchedPort::new(listener.local_addr().unwrap().port())
    };
    let change = |options: &mut Options| {
        options.watch = vec![port];
        options.watch_serve = false;
    };
    let (daemon, journald) = RunningDaemon::start(Box::new(kernel), change).await;
    for (name, play, frame, verdict, how, confidence) in SCENES {
        play(Pair::open(&listener));
        let record = records::next(&journald);
        let found = record.ws_code.zip(record.ws_from);
        if has_frames {
            let judged = (record.verdict, record.how, record.confidence);
            assert_eq!(found, frame, "{name}: {}", record.to_line());
            assert_eq!(judged, (verdict, Some(how), Some(confidence)), "{name}: {}", record.to_line());
        } else {
            assert_eq!((found, record.confidence), (None, Some(Confidence::Likely)), "{name}");
        }
    }
    daemon.stop().await;
}
