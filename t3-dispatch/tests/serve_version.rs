//! serve's version in records: read from an answer that passes, and only of the process behind the
//! session. A fake t3-trace names that process. Needs loopback and a Unix socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use fixture::{Fixture, TIMEOUT, head};
use t3_record::{
    KernelSource,
    evidence::{Fate, KernelFacts, Nanos, Process, Task},
    wire::{FromTrace, ToTrace, VERSION},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

const BODY: &str = r#"{"environmentId":"e","label":"devvm","serverVersion":"0.0.42-nightly.7"}"#;

async fn receive(socket: &UnixSeqpacket) -> ToTrace {
    let mut buffer = vec![0; 65536];
    let length = timeout(TIMEOUT, socket.recv(&mut buffer)).await.expect("no message").unwrap().bytes_read();
    serde_json::from_slice(&buffer[..length]).unwrap()
}

async fn send(socket: &UnixSeqpacket, message: &FromTrace) {
    socket.send(&serde_json::to_vec(message).unwrap()).await.unwrap();
}

/// Requests `path` through dispatch and lets serve answer with `headers` and `body`, in two parts.
async fn get(fixture: &Fixture, path: &str, headers: &str, body: &[u8]) {
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut serve, _) = fixture.accept().await;
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    serve.write_all(answer.as_bytes()).await.unwrap();
    let (first, second) = body.split_at(length / 2);
    serve.write_all(first).await.unwrap();
    let answered = head(&mut client).await;
    assert!(answered.to_lowercase().contains(&format!("content-length: {length}\r\n")), "{answered}");
    // The first part is not held back.
    let mut got = vec![0; length];
    timeout(TIMEOUT, client.read_exact(&mut got[..first.len()])).await.unwrap().unwrap();
    serve.write_all(second).await.unwrap();
    timeout(TIMEOUT, client.read_exact(&mut got[first.len()..])).await.unwrap().unwrap();
    assert_eq!(got, body);
}

/// Opens and closes a session of a process that started at `started_at`; returns its version.
async fn session(fixture: &mut Fixture, trace: &UnixSeqpacket, started_at: Option<Nanos>) -> Option<String> {
    drop(fixture.open().await);
    let conn = loop {
        if let ToTrace::Ask { conn } = receive(trace).await {
            break conn;
        }
    };
    let process = Process { started_at, ..Process::new(Task { pid: 7, comm: "node".into() }, Fate::Alive) };
    let facts = KernelFacts { peer: Some(process), ..KernelFacts::absent(KernelSource::Kprobe) };
    send(trace, &FromTrace::Evidence { conn, facts: Box::new(facts) }).await;
    fixture.judgement().await.1.serve_version
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_read_as_it_passes_and_belongs_to_one_process() {
    let mut fixture = Fixture::new(&["--no-pairing"]).await;
    let path = fixture.dir.path().join("evidence.sock");
    let listener = UnixSeqpacketListener::bind(&path).unwrap();
    let trace = &timeout(TIMEOUT, {
        let mut listener = listener;
        async move { listener.accept().await }
    })
    .await
    .unwrap()
    .unwrap();
    receive(trace).await;
    let welcome = FromTrace::Welcome {
        v: VERSION,
        kernel: KernelSource::Kprobe,
        sessions: true,
        ending: false,
        kept: false,
    };
    send(trace, &welcome).await;

    let environment = "/.well-known/t3/environment";
    let json = "Content-Type: application/json\r\n";
    assert_eq!(session(&mut fixture, trace, Some(1)).await, None, "nothing has passed");
    // Compressed, of another type, of another path, too long, or not short text: not read.
    let gzip = format!("{json}Content-Encoding: gzip\r\n");
    get(&fixture, environment, &gzip, BODY.as_bytes()).await;
    get(&fixture, environment, "Content-Type: text/html\r\n", BODY.as_bytes()).await;
    get(&fixture, "/environment", json, BODY.as_bytes()).await;
    get(&fixture, environment, json, format!("{}{BODY}", " ".repeat(20_000)).as_bytes()).await;
    get(&fixture, environment, json, br#"{"serverVersion":"1 verdict=unknown"}"#).await;
    assert_eq!(session(&mut fixture, trace, Some(1)).await, None);

    get(&fixture, environment, json, BODY.as_bytes()).await;
    let version = Some("0.0.42-nightly.7".to_owned());
    assert_eq!(session(&mut fixture, trace, Some(1)).await, version);
    // A process that started after the answer, and an unknown one.
    assert_eq!(session(&mut fixture, trace, Some(Nanos::MAX)).await, None);
    assert_eq!(session(&mut fixture, trace, None).await, None);
}
