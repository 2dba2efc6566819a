//! The eight basic ends with third-party peers: node's `ws` as the server, tokio-tungstenite as the
//! client, dispatch between them, records in a real journald.
//!
//! Needs root, node, npm (installs `ws` below the target folder, once) and `cargo xtask build`.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    fs,
    net::{SocketAddr, TcpStream as StdStream},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use socket2::SockRef;
use t3_record::Verdict;
use t3_testkit::{
    harness::{Process, Setup, Stack},
    journald::Journal,
    prerequisite, wait,
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

const TIMEOUT: Duration = Duration::from_secs(30);
const PING: &str = r#"{"_tag":"Ping"}"#;

/// A server like that of t3 (but without `noServer`), which closes as a message orders.
const SERVER: &str = r#"
const { WebSocketServer } = require("ws");
new WebSocketServer({ port: +process.argv[2], host: "127.0.0.1" }).on("connection", socket => {
  socket.on("error", () => {});
  socket.on("message", data => {
    const text = data.toString();
    if (text === '{"_tag":"Ping"}') socket.send('{"_tag":"Pong"}');
    if (text === "close") socket.close(1011, "oh");
    if (text === "fin") socket._socket.end();
    if (text === "rst") socket._socket.resetAndDestroy();
  });
});
"#;

/// Folder with `ws` installed, or the reason of a failure.
fn node_modules() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let folder = target.join("test-node");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    fs::write(folder.join("server.js"), SERVER).map_err(|error| error.to_string())?;
    if !folder.join("node_modules/ws/package.json").exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"])
            .arg(&folder)
            .arg("ws")
            .stdin(Stdio::null());
        let output = npm.output().map_err(|error| format!("cannot run npm: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(folder)
}

struct Fixture {
    stack: Stack,
    folder: PathBuf,
}

type Client = WebSocketStream<TcpStream>;

impl Fixture {
    fn server(&self, user: &str) -> Process {
        let port = self.stack.port(user).unwrap();
        let mut node = Command::new("node");
        node.arg(self.folder.join("server.js")).arg(port.to_string());
        let process = Process::start(node).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait::until("node to listen", TIMEOUT, || StdStream::connect(address).ok()).unwrap();
        process
    }

    async fn connect(&self, user: &str) -> Result<Client, tokio_tungstenite::tungstenite::Error> {
        let mut request = format!("ws://{}/ws?wsTicket=secret", self.stack.address).into_client_request()?;
        request.headers_mut().insert("X-authentik-username", format!("{user}@example.org").parse().unwrap());
        let stream = TcpStream::connect(self.stack.address).await.unwrap();
        client_async(request, stream).await.map(|(client, _)| client)
    }

    async fn session(&self, user: &str) -> Client {
        let mut client = self.connect(user).await.unwrap();
        for number in 0..3 {
            // A period that a busy host does not violate: a reply may be nearly one period late, a
            // ping two.
            if number > 0 {
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            client.send(Message::text(PING)).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap().to_text().unwrap(), r#"{"_tag":"Pong"}"#);
        }
        client
    }
}

/// Reads until the end and replies to a Close frame.
async fn drain(mut client: Client) {
    while let Some(Ok(_)) = client.next().await {}
}

const CASES: [(&str, Verdict, &str); 8] = [
    ("client_close", Verdict::ClientClosed, "graceful downstream fin_out fin_in alive"),
    ("client_fin", Verdict::ClientLeft, "downstream_closed downstream fin_in fin_out alive"),
    ("client_rst", Verdict::ClientReset, "downstream_closed downstream rst_in rst_out alive"),
    ("serve_close", Verdict::ServeClosed, "graceful upstream fin_out fin_in alive"),
    ("serve_fin", Verdict::ServeLeft, "upstream_closed upstream fin_out fin_in alive"),
    ("serve_rst", Verdict::ServeReset, "upstream_closed upstream rst_out rst_in alive"),
    ("serve_sigkill", Verdict::ServeKilled, "upstream_closed upstream fin_out fin_in sig:9"),
    ("serve_refused", Verdict::ServeRefused, "upstream_closed upstream - refused -"),
];

#[tokio::test]
async fn the_eight_ends_between_node_ws_and_tungstenite() {
    let test = "the_eight_ends_between_node_ws_and_tungstenite";
    let folder = prerequisite::root().map_err(|error| error.to_string()).and_then(|()| node_modules());
    let Some(folder) = prerequisite::or_skip(test, folder) else { return };
    let setup = Setup::named(CASES.map(|(name, ..)| name)).unwrap();
    let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
    let fixture = Fixture { stack, folder };
    let mut wrong = Vec::new();
    for (name, verdict, words) in CASES {
        if name == "serve_refused" {
            assert!(fixture.connect(name).await.is_err());
        } else {
            let server = fixture.server(name);
            let mut client = fixture.session(name).await;
            match name {
                "client_close" => {
                    let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
                    client.close(Some(frame)).await.unwrap();
                    drain(client).await;
                }
                "client_fin" => drop(client),
                "client_rst" => {
                    SockRef::from(client.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
                    drop(client);
                }
                "serve_sigkill" => {
                    server.signal(libc::SIGKILL).unwrap();
                    drain(client).await;
                }
                order => {
                    client.send(Message::text(order.trim_start_matches("serve_"))).await.unwrap();
                    drain(client).await;
                }
            }
            // The server must run until the record is written, or its exit would be the verdict.
            fixture.stack.record(name).unwrap();
        }
        let record = fixture.stack.record(name).unwrap();
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let got = format!(
            "{} {} {} {} {}",
            record.cause,
            text(record.closed_by.map(|word| word.to_string())),
            if name == "serve_refused" {
                "-".to_owned()
            } else {
                text(record.down_end.map(|word| word.to_string()))
            },
            text(record.up_end.map(|word| word.to_string())),
            text(record.peer_exit.map(|fate| t3_record::value::Value::encode(&fate))),
        );
        let line = record.to_line();
        if record.verdict != verdict || got != words || record.kernel != fixture.stack.kernel() {
            wrong.push(format!(
                "{name}: expected {verdict} {words}, got {} {got}\n    {line}",
                record.verdict
            ));
        }
        assert!(!line.contains("secret"), "the ticket is a credential: {line}");
    }
    assert!(wrong.is_empty(), "\n{}\n{}", wrong.join("\n"), fixture.stack.stderr());
}
