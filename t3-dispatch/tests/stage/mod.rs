//! A dispatch in this process between a client and a serve that the test plays itself, with a
//! journald of its own.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use t3_dispatch::{cli::Cli, process::run, routing::table::Table, server::app::App};
use t3_journal::{Sink, Writer};
use t3_record::{CloseRecord, Evidence, evidence::RelayFacts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`] (RFC 6455 section 1.3).
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub struct Stage {
    pub app: Arc<App>,
    pub address: SocketAddr,
    pub serve: TcpListener,
    pub judged: mpsc::UnboundedReceiver<(Evidence, CloseRecord)>,
    journald: Arc<UnixDatagram>,
    pub dir: tempfile::TempDir,
}

impl Stage {
    pub async fn new(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("evidence.sock").display().to_string();
        let all = ["t3-dispatch", "serve", "--trace-socket", &trace];
        let options = Cli::parse_from(all.iter().chain(options)).command.options();
        let socket = dir.path().join("journald");
        let journald = UnixDatagram::bind(&socket).unwrap();
        let writer = Writer::start_with("t3-dispatch", Sink::Journald, &socket, 100_000).unwrap();
        let serve = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = serve.local_addr().unwrap().port();
        let table = format!(
            r#"{{"ann": {{"os_user": "ann", "port": {port}}}, "gone": {{"os_user": "gone", "port": 1}}}}"#
        );
        let table = Table::parse(&table, &PathBuf::from("test")).unwrap();
        let (tell, judged) = mpsc::unbounded_channel();
        let tell = Mutex::new(tell);
        let witness = Box::new(move |_: &_, evidence: &Evidence, record: &CloseRecord| {
            let _ = tell.lock().unwrap().send((evidence.clone(), record.clone()));
        });
        let app = run::assemble(&options, table, writer, Some(witness));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        run::start(&app, vec![listener]);
        Self { app, address, serve, judged, journald: Arc::new(journald), dir }
    }

    /// A browser's connection with its upgrade request sent.
    pub async fn ask(&self, user: &str, more: &str) -> TcpStream {
        ask(self.address, user, more).await
    }

    /// serve's end of the next connection, and the request that came on it.
    pub async fn accept(&self) -> (TcpStream, String) {
        let (mut stream, _) = timeout(PATIENCE, self.serve.accept()).await.unwrap().unwrap();
        let head = head(&mut stream).await;
        (stream, head)
    }

    /// An open WebSocket: the browser's end and serve's end, as raw sockets.
    pub async fn open(&self) -> (TcpStream, TcpStream) {
        let mut client = self.ask("ann", "").await;
        let (mut serve, _) = self.accept().await;
        serve.write_all(switching().as_bytes()).await.unwrap();
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        (client, serve)
    }

    /// What was seen of the next session to end.
    pub async fn facts(&mut self) -> RelayFacts {
        self.judgement().await.0.relay.unwrap()
    }

    pub async fn judgement(&mut self) -> (Evidence, CloseRecord) {
        timeout(PATIENCE, self.judged.recv()).await.expect("no record").unwrap()
    }

    /// Nothing was judged twice.
    pub async fn no_more_records(&mut self) {
        timeout(PATIENCE, self.app.recorder.in_flight.none()).await.unwrap();
        assert!(self.judged.try_recv().is_err(), "one record too many");
    }

    /// All `MESSAGE`s that start with `kind`, of what journald has got by now.
    pub fn messages(&self, kind: &str) -> Vec<String> {
        self.journald.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = vec![0; 65536];
        let mut found = Vec::new();
        while let Ok(length) = self.journald.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            found.extend(text.lines().filter_map(|line| line.strip_prefix("MESSAGE=")).map(str::to_owned));
        }
        found.retain(|message| message.starts_with(kind));
        found
    }

    /// Keeps the journald's socket empty, for tests with more records than it buffers.
    pub fn swallow_messages(&self) {
        let journald = Arc::clone(&self.journald);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while journald.recv(&mut buffer).is_ok_and(|length| length > 0) {}
        });
    }
}

/// A browser's connection to `address` with its upgrade request sent.
pub async fn ask(address: SocketAddr, user: &str, more: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /ws?wsTicket=secret HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: {user}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

pub fn switching() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

/// Reads one head, byte by byte so that nothing behind it is taken.
pub async fn head(stream: &mut TcpStream) -> String {
    let read = async {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    timeout(PATIENCE, read).await.expect("no head")
}

/// Everything until the end of file; `Err` for a reset.
pub async fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("no end").map(|_| bytes)
}

pub async fn exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("too few bytes").unwrap();
    bytes
}

pub fn reset(stream: TcpStream) {
    t3_dispatch::sys::tcp::reset(stream);
}

/// A small frame; a browser's is masked with zeros.
pub fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let mut out = vec![first, length | if masked { 0x80 } else { 0 }];
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
    out
}
