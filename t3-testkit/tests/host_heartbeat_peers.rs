//! Heartbeats of other applications, by their own libraries: socket.io, whose server pings with a
//! text message, and tornado, the library of Jupyter, which sends Ping frames. dispatch between
//! them, records in a real journald.
//!
//! Each heartbeat must be recognised with its period. A stall of serve is `serve_stalled`, whether
//! the process is stopped or its event loop is blocked; a client that falls silent is not a fault
//! of serve, although serve ends the connection; and a client that closes while all is well is
//! `client_closed`. The intervals are shorter than the defaults (25 s and 30 s), in the same ratio
//! to the timeouts.
//!
//! Needs root, node, npm, pip and `cargo xtask build`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails its test")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use t3_record::{Cause::Graceful, CloseRecord, ClosedBy, Segment, Verdict};
use t3_testkit::{
    faults::{Expect, ExpectedRecord},
    harness::{Process, Setup, Stack, npm_peer, pip_peer},
    journald::Journal,
    prerequisite, sys, wait,
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The version that Jupyter's server of the same time uses.
const TORNADO: &str = "tornado==6.6.1";

/// Interval between pings in milliseconds, above the shortest that is recognised by its period.
const INTERVAL: u64 = 2_500;

/// Pings before a case, enough for a certain period.
const PINGS: usize = 7;

/// serve's silence until a user without a watchdog gives up: two intervals.
const PATIENCE: Duration = Duration::from_millis(2 * INTERVAL);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    SocketIo,
    Tornado,
}
use Library::{SocketIo, Tornado};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// The client closes.
    Closed,
    /// serve's process is stopped; the client gives up.
    Stopped,
    /// serve's event loop is blocked; the client gives up.
    Held,
    /// The client's process is stopped; serve ends the connection.
    Silent,
}

const CASES: [(&str, Library, Case); 8] = [
    ("socketio_closed", SocketIo, Case::Closed),
    ("socketio_stopped", SocketIo, Case::Stopped),
    ("socketio_held", SocketIo, Case::Held),
    ("socketio_silent", SocketIo, Case::Silent),
    ("tornado_closed", Tornado, Case::Closed),
    ("tornado_stopped", Tornado, Case::Stopped),
    ("tornado_held", Tornado, Case::Held),
    ("tornado_silent", Tornado, Case::Silent),
];

struct Fixture {
    stack: Stack,
    scripts: PathBuf,
    tornado: PathBuf,
    wrong: Mutex<Vec<String>>,
}

/// A client's process: it prints what happens and reads orders.
struct Client {
    child: Child,
    orders: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Client {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        sys::dies_with_us(&mut command);
        let mut child = command.spawn().unwrap();
        let (orders, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, orders, lines }
    }

    /// Waits for `count` lines that begin with a word.
    fn wait(&self, word: &str, count: usize) {
        let end = Instant::now() + TIMEOUT;
        for _ in 0..count {
            loop {
                let left = end.saturating_duration_since(Instant::now());
                let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {word}"));
                if line.starts_with(word) {
                    break;
                }
            }
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn signal(&self, signal: i32) {
        sys::signal(self.child.id(), signal).unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fixture {
    fn serve(&self, user: &str, library: Library) -> Process {
        let port = self.stack.port(user).unwrap();
        let mut command = match library {
            SocketIo => Command::new("node"),
            Tornado => Command::new("python3"),
        };
        let script = if library == SocketIo { "socketio-server.mjs" } else { "tornado_server.py" };
        command.env("PYTHONPATH", &self.tornado).current_dir(&self.scripts);
        command.arg(script).arg(port.to_string()).arg(INTERVAL.to_string());
        let process = Process::start(command).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait::until("the server to listen", TIMEOUT, || TcpStream::connect(address).ok()).unwrap();
        process
    }

    fn client(&self, user: &str, library: Library) -> Client {
        let script = if library == SocketIo { "socketio-client.mjs" } else { "browser-client.mjs" };
        let mut command = Command::new("node");
        command.current_dir(&self.scripts).arg(script).arg(self.stack.address.to_string()).arg(user);
        Client::start(command)
    }

    fn run(&self, user: &str, library: Library, case: Case) {
        let serve = self.serve(user, library);
        let mut client = self.client(user, library);
        client.wait("open", 1);
        client.wait("ping", PINGS);
        match case {
            Case::Closed => client.order("close"),
            Case::Stopped => {
                serve.signal(libc::SIGSTOP).unwrap();
                give_up(&mut client, library);
                // Read at the start of the end, while the process is stopped.
                thread::sleep(Duration::from_secs(1));
                serve.signal(libc::SIGCONT).unwrap();
            }
            Case::Held => {
                client.order(&format!("hold {}", 4 * INTERVAL));
                give_up(&mut client, library);
            }
            Case::Silent => {
                client.signal(libc::SIGSTOP);
                // A ping, and the timeout after it.
                thread::sleep(Duration::from_millis(3 * INTERVAL));
                client.signal(libc::SIGCONT);
            }
        }
        let record = self.stack.record(user).unwrap();
        self.check(user, library, case, &serve, &record);
    }

    fn check(&self, user: &str, library: Library, case: Case, serve: &Process, record: &CloseRecord) {
        let comm = if library == SocketIo { "node" } else { "python3" };
        let expected = expected(library, case)
            .is("user", user)
            .is("ray", &format!("ray-{user}"))
            .is("ip", "203.0.113.7")
            .is("kernel", self.stack.kernel().as_str())
            .is("peer_pid", &serve.pid().to_string())
            .is("peer_comm", comm)
            .is("peer_exit", "alive");
        let expected = ["psi_mem", "psi_io", "psi_cpu", "host_psi_mem", "host_psi_io", "host_psi_cpu"]
            .into_iter()
            .fold(expected, |expected, key| expected.if_free(key, Expect::Range(0, 100)));
        println!("{user}: {}", record.to_line());
        let mismatches = expected.mismatches(record);
        if !mismatches.is_empty() {
            let differences = mismatches.iter().map(|mismatch| {
                format!("\n  {}: expected {}, got {}", mismatch.key, mismatch.expected, mismatch.got)
            });
            let text = format!("{user}:{}\n  {}", differences.collect::<String>(), record.to_line());
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }
}

/// Waits until the client's own watchdog closes, or closes as a user who gives up.
fn give_up(client: &mut Client, library: Library) {
    match library {
        SocketIo => client.wait("end ping timeout", 1),
        Tornado => {
            thread::sleep(PATIENCE);
            client.order("close");
        }
    }
}

fn expected(library: Library, case: Case) -> ExpectedRecord {
    let opened =
        |verdict, segment, how: &str, by| ExpectedRecord::opened(verdict, segment, Graceful, how, by);
    // socket.io closes without a code.
    let closes = |expected: ExpectedRecord, side, reason| match library {
        SocketIo => expected.is("ws_from", side),
        Tornado => expected.close_frame(side, "1000", reason),
    };
    let closed = if library == SocketIo { "ws_close" } else { "ws_close:1000" };
    let idle = || Expect::Range(INTERVAL, 3 * INTERVAL);
    let stalled = || {
        let expected = opened(Verdict::ServeStalled, Segment::Serve, "stall", ClosedBy::Downstream);
        closes(expected, "down", "").key("hb_gap_ms", idle()).key("up_idle_ms", idle())
    };
    let expected = match case {
        Case::Closed => {
            let by_user = opened(Verdict::ClientClosed, Segment::Downstream, closed, ClosedBy::Downstream);
            closes(by_user, "down", "").key("hb_gap_ms", Expect::Range(0, INTERVAL + 500))
        }
        Case::Stopped => stalled(),
        // serve's pings alone do not distinguish a stall from a user who leaves in a pause.
        Case::Held => stalled().is("confidence", "likely").key("segment", Expect::StallSegment),
        Case::Silent => {
            let waited = || Expect::Range(INTERVAL / 2, INTERVAL + 500);
            let lost =
                opened(Verdict::PathStalled, Segment::Downstream, "heartbeat_lost", ClosedBy::Upstream);
            closes(lost, "up", "ping timed out")
                .is("confidence", "likely")
                .key("hb_gap_ms", waited())
                .key("hb_wait_ms", waited())
                // serve's Close frame is its first frame since that ping.
                .key("up_silent_ms", waited())
                .key("down_idle_ms", idle())
        }
    };
    // tornado's peers exchange control frames only, but for the order to block.
    let orders = u64::from(case == Case::Held);
    let expected = match library {
        SocketIo => expected.is("hb_by", "rhythm"),
        Tornado => expected.is("hb_by", "ping").is("up_msgs", "0").is("down_msgs", &orders.to_string()),
    };
    let ends = ["fin_in", "fin_out", "rst_in", "rst_out"];
    expected
        .at_least("hb_n", PINGS as u64)
        .key("hb_period_ms", Expect::Range(INTERVAL * 95 / 100, INTERVAL * 105 / 100))
        .one_of("down_end", &ends)
        .one_of("up_end", &ends)
}

#[test]
fn heartbeats_of_other_libraries_are_recognised() {
    let test = "heartbeats_of_other_libraries_are_recognised";
    let folders = prerequisite::root().map_err(|error| error.to_string()).and_then(|()| {
        Ok::<_, String>((npm_peer::installed("heartbeats")?, pip_peer::installed("tornado", TORNADO)?))
    });
    let Some((scripts, tornado)) = prerequisite::or_skip(test, folders) else { return };
    let setup = Setup::named(CASES.map(|(user, ..)| user)).unwrap();
    let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
    let fixture = Fixture { stack, scripts, tornado, wrong: Mutex::default() };
    thread::scope(|scope| {
        for (user, library, case) in CASES {
            let fixture = &fixture;
            scope.spawn(move || fixture.run(user, library, case));
        }
    });
    let wrong = fixture.wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(wrong.is_empty(), "\n{}\n{}", wrong.join("\n"), fixture.stack.stderr());
}
