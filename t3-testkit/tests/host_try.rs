//! `cargo xtask try` in front of a WebSocket backend that knows nothing of t3. Needs root.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails its test")]

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use t3_record::Verdict;
use t3_testkit::{sys, wait};
use tokio_tungstenite::tungstenite::{
    self, Message, WebSocket,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

const LIMIT: Duration = Duration::from_secs(30);

struct Trial {
    program: Child,
    lines: Receiver<String>,
    address: SocketAddr,
}

impl Trial {
    fn start(backend: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_t3-try"));
        command.arg(format!("http://127.0.0.1:{backend}/chat"));
        let mut program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = mpsc::channel();
        let stdout = BufReader::new(program.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let opens = line_with(&lines, "Open http://");
        let address = opens.split("http://").nth(1).unwrap().split("/chat ").next().unwrap().parse().unwrap();
        Self { program, lines, address }
    }

    fn open(&self) -> WebSocket<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        let (mut socket, _) = tungstenite::client(format!("ws://{}/chat", self.address), stream).unwrap();
        socket.send(Message::text("hello")).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text("hello"));
        socket
    }
}

impl Drop for Trial {
    /// Ends the programs also when an assertion fails.
    fn drop(&mut self) {
        if matches!(self.program.try_wait(), Ok(None)) {
            let _ = sys::signal(self.program.id(), libc::SIGTERM);
            let _ = self.program.wait();
        }
    }
}

fn line_with(lines: &Receiver<String>, text: &str) -> String {
    loop {
        let line = lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no line with {text:?}"));
        if line.contains(text) {
            return line;
        }
    }
}

/// Echoes each message; "exit" ends the connection without a Close frame. Returns its port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || -> tungstenite::Result<()> {
                let mut socket =
                    tungstenite::accept(stream?).map_err(|_| tungstenite::Error::ConnectionClosed)?;
                loop {
                    match socket.read()? {
                        message if message == Message::text("exit") => return Ok(()),
                        message if message.is_close() => {}
                        message => socket.send(message)?,
                    }
                }
            });
        }
    });
    port
}

#[test]
fn each_close_is_a_line_and_ctrl_c_ends_everything() {
    assert!(sys::is_root(), "needs root: run `cargo xtask test --tier host`");
    let mut trial = Trial::start(echo());

    let mut polite = trial.open();
    let frame = CloseFrame { code: CloseCode::Away, reason: "".into() };
    polite.close(Some(frame)).unwrap();
    while polite.read().is_ok() {}
    let line = line_with(&trial.lines, "ws_close:1001");
    assert!(line.contains(Verdict::ClientClosed.as_str()) && line.contains(" you "), "{line}");

    let mut left = trial.open();
    left.send(Message::text("exit")).unwrap();
    while left.read().is_ok() {}
    let line = line_with(&trial.lines, " fin");
    assert!(line.contains(Verdict::ServeLeft.as_str()), "{line}");

    let open = trial.open();
    sys::signal(trial.program.id(), libc::SIGINT).unwrap();
    let line = line_with(&trial.lines, Verdict::DispatchShutdown.as_str());
    assert!(line.contains(" you "), "{line}");
    let status = wait::until("the end of t3-try", LIMIT, || trial.program.try_wait().unwrap()).unwrap();
    let mut stderr = String::new();
    trial.program.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(TcpStream::connect(trial.address).is_err(), "the address still accepts");
    drop(open);
}

#[test]
fn a_backend_that_does_not_run_is_an_error() {
    let port = t3_testkit::harness::free_port().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_t3-try")).arg(format!("http://127.0.0.1:{port}")).output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let expected = format!("t3-try: cannot connect to the backend at 127.0.0.1:{port}: Connection refused");
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert!(output.stdout.is_empty());
}
