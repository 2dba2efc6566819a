//! The daemon with the real kernel side: records of plain-text WebSockets on a port with
//! `websocket`. The test is client and server.
//!
//! Needs root and the eBPF object; else it prints the reason and passes, or fails in CI. On a
//! kernel without fentry and kprobes the records have no Close frames, which it checks instead.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use t3_journal::{Sink, Writer};
use t3_record::{Confidence, How, Side, TcpCloseRecord, Verdict};
use t3_trace_daemon::{direct::WatchedPort, options::Options, run};
use t3_trace_host::kernel::{self, Kernel, WEBSOCKETS};
use tokio::sync::oneshot;

const TIMEOUT: Duration = Duration::from_secs(60);
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

fn next(journald: &UnixDatagram) -> TcpCloseRecord {
    let mut buffer = vec![0; 65_536];
    let started = Instant::now();
    loop {
        if let Ok(length) = journald.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let line = text.lines().find_map(|line| line.strip_prefix("MESSAGE="));
            return TcpCloseRecord::from_line(line.unwrap()).unwrap();
        }
        assert!(started.elapsed() < TIMEOUT, "no record");
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
    let options =
        kernel::Options { socket_events: false, websockets: WEBSOCKETS, ..kernel::Options::default() };
    let kernel = match Kernel::load(&options) {
        Ok(kernel) => kernel,
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            assert!(std::env::var_os("CI").is_none(), "skipped: {why}");
            eprintln!("skipped: {why}");
            return;
        }
    };
    let hooks: Vec<_> = kernel.hooks().iter().filter(|hook| hook.name.ends_with("msg")).cloned().collect();
    assert_eq!(hooks.len(), 2);
    let has_frames = hooks.iter().all(|hook| hook.attached.is_some());
    if !has_frames {
        eprintln!("without Close frames: {hooks:?}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = WatchedPort {
        min_duration: Duration::ZERO,
        is_websocket: true,
        ..WatchedPort::new(listener.local_addr().unwrap().port())
    };
    let dir = tempfile::tempdir().unwrap();
    let journald = UnixDatagram::bind(dir.path().join("journal")).unwrap();
    journald.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let records =
        Writer::start_with("t3-dispatch", Sink::Journald, &dir.path().join("journal"), 100).unwrap();
    let options = Options {
        socket: dir.path().join("evidence.sock"),
        dispatch_user: "no-such-user-here".to_owned(),
        group: "no-such-group-here".to_owned(),
        state_dir: dir.path().join("state"),
        spool_size: 1 << 16,
        watch: vec![port],
        watch_units: Vec::new(),
        watch_serve: false,
        metrics_file: None,
        metrics_interval: t3_trace_daemon::metrics::EVERY,
        publish_only: false,
        to_journald: false,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let socket = options.socket.clone();
    let stopped = async move {
        let _ = stopped.await;
        "end of the test"
    };
    let running = tokio::spawn(run::run(options, Box::new(kernel), records, stopped));
    let started = Instant::now();
    while !socket.exists() {
        assert!(started.elapsed() < TIMEOUT, "the daemon does not listen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (name, play, frame, verdict, how, confidence) in SCENES {
        play(Pair::open(&listener));
        let record = next(&journald);
        let found = record.ws_code.zip(record.ws_from);
        if has_frames {
            let judged = (record.verdict, record.how, record.confidence);
            assert_eq!(found, frame, "{name}: {}", record.to_line());
            assert_eq!(judged, (verdict, Some(how), Some(confidence)), "{name}: {}", record.to_line());
        } else {
            assert_eq!((found, record.confidence), (None, Some(Confidence::Likely)), "{name}");
        }
    }
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}
