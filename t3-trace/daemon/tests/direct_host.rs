//! The daemon with the real kernel side: connections that nobody carries, between real processes.
//!
//! Needs root and the eBPF object; else it prints the reason and passes, or fails in CI.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use t3_journal::{Sink, Writer};
use t3_record::{Confidence, How, TcpCloseRecord, Verdict};
use t3_trace_daemon::{
    direct::{WatchedPort, WatchedUnit},
    options::Options,
    run,
};
use t3_trace_host::{
    cgroup,
    kernel::{self, Kernel},
};
use tokio::sync::oneshot;

const TIMEOUT: Duration = Duration::from_secs(20);
const SERVER: &str = "T3_TEST_SERVER";

/// The server: prints its port, accepts one connection and keeps it.
#[test]
#[ignore = "started by the other test"]
fn server() {
    assert!(std::env::var_os(SERVER).is_some());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("port {}", listener.local_addr().unwrap().port());
    let mut wait = String::new();
    // The test watches the port before it connects.
    std::io::stdin().read_line(&mut wait).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"hello").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Ends the process when the test does.
struct Server(Child, u16, #[expect(dead_code, reason = "open to the end")] BufReader<ChildStdout>);

impl Server {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server", "--ignored", "--nocapture"])
            .env(SERVER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Open to the end: the test harness of the child writes to it, too.
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let lines = output.by_ref().lines().map_while(Result::ok);
        let port = lines.filter_map(|line| line.split_once("port ")?.1.trim().parse().ok()).next();
        Self(child, port.unwrap(), output)
    }

    /// A connection to it, accepted and with data.
    fn connect(&mut self) -> TcpStream {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn next(journald: &UnixDatagram) -> Option<TcpCloseRecord> {
    let mut buffer = vec![0; 65_536];
    let started = Instant::now();
    while started.elapsed() < TIMEOUT {
        let Ok(length) = journald.recv(&mut buffer) else { continue };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("MESSAGE="));
        return TcpCloseRecord::from_line(line.unwrap()).ok();
    }
    None
}

/// The daemon with the real kernel side.
struct Daemon {
    journald: UnixDatagram,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    /// `None` without the privileges for eBPF, outside CI.
    async fn watching(watch: Vec<WatchedPort>, watch_units: Vec<WatchedUnit>) -> Option<Self> {
        let kernel_options = kernel::Options { socket_events: false, ..kernel::Options::default() };
        let kernel = match Kernel::load(&kernel_options) {
            Ok(kernel) => kernel,
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::from(error));
                assert!(std::env::var_os("CI").is_none(), "skipped: {why}");
                eprintln!("skipped: {why}");
                return None;
            }
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
            watch,
            watch_units,
            watch_serve: true,
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
        Some(Self { journald, stop, running, _dir: dir })
    }

    fn next(&self) -> Option<TcpCloseRecord> {
        next(&self.journald)
    }

    async fn finish_without_a_record(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
        assert_eq!(self.journald.recv(&mut [0; 64]).ok(), None, "another connection has a record");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_connections_are_recorded_with_the_fate_of_the_server() {
    let (mut killed, mut left) = (Server::start(), Server::start());
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |port: u16| WatchedPort { min_duration: Duration::ZERO, ..WatchedPort::new(port) };
    // The third has the default minimum.
    let watch = vec![port(killed.1), port(left.1), WatchedPort::new(own.local_addr().unwrap().port())];
    let Some(daemon) = Daemon::watching(watch, Vec::new()).await else { return };

    // Short: no record.
    drop((TcpStream::connect(own.local_addr().unwrap()).unwrap(), own.accept().unwrap()));
    let client = killed.connect();
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    drop(client);
    let record = daemon.next().expect("the killed server's connection is recorded");
    assert_eq!(
        (record.verdict, record.how),
        (Verdict::ServeKilled, Some(How::Signal(9))),
        "{}",
        record.to_line()
    );
    assert_eq!(
        (record.confidence, record.port),
        (Some(Confidence::Proven), killed.1),
        "{}",
        record.to_line()
    );
    assert_eq!(record.peer_pid, Some(killed.0.id()));
    assert!(record.killed_by.as_ref().is_some_and(|by| by.ends_with(&format!("[{}]", std::process::id()))));
    assert_eq!((record.up_bytes, record.down_bytes, record.dur_min), (Some(5), Some(0), None));

    drop(left.connect());
    let record = daemon.next().expect("the connection is recorded that its client closed");
    assert_eq!((record.verdict, record.port), (Verdict::ClientLeft, left.1), "{}", record.to_line());
    assert_eq!(record.confidence, Some(Confidence::Likely), "a Close frame may have come before");
    daemon.finish_without_a_record().await;
}

/// The client: connects twice, the second time on request, and keeps both connections.
#[test]
#[ignore = "started by the other test"]
fn client() {
    let address = std::env::var(SERVER).unwrap();
    let _first = TcpStream::connect(&address).unwrap();
    let mut wait = String::new();
    std::io::stdin().read_line(&mut wait).unwrap();
    let _second = TcpStream::connect(&address).unwrap();
    std::io::stdin().read_line(&mut wait).unwrap();
}

/// A cgroup with the name of a unit, removed at the end.
struct UnitCgroup(std::path::PathBuf);

impl UnitCgroup {
    fn create(unit: &str) -> Self {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = cgroup::mount_point(&mountinfo).unwrap().join(unit);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for UnitCgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A client in this cgroup, with one connection to the listener.
fn client_in(cgroup: &UnitCgroup, listener: &TcpListener) -> (Child, TcpStream) {
    let procs = cgroup.0.join("cgroup.procs");
    // Enters it before it connects.
    let script = format!("echo $$ > {} && exec \"$0\" \"$@\"", procs.display());
    let child = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "client", "--ignored", "--nocapture"])
        .env(SERVER, listener.local_addr().unwrap().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, listener.accept().unwrap().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn outgoing_connections_of_a_unit_are_recorded_with_their_client() {
    let name = |unit: &str| format!("t3-direct-{unit}-{}.service", std::process::id());
    let (watched, other) = (UnitCgroup::create(&name("watched")), UnitCgroup::create(&name("other")));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut client, older) = client_in(&watched, &listener);
    let (mut stranger, unwatched) = client_in(&other, &listener);
    let unit = WatchedUnit { min_duration: Duration::ZERO, ..WatchedUnit::new(name("watched")) };
    let Some(daemon) = Daemon::watching(Vec::new(), vec![unit]).await else { return };
    // Its cgroup is found within two seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;

    // The server acts first on the connection that is older than the watch.
    drop(older);
    drop(unwatched);
    client.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let (newer, _) = listener.accept().unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    let mut records = [daemon.next().unwrap(), daemon.next().unwrap()];
    records.sort_by_key(|record| record.dur_min.is_none());
    for record in &records {
        let line = record.to_line();
        assert!(record.is_outgoing() && record.ip == "127.0.0.1" && record.port == address.port(), "{line}");
        assert_eq!((record.client_pid, record.peer_pid), (Some(client.id()), None), "{line}");
        assert_eq!(record.client_unit, Some(name("watched")), "{line}");
        assert_eq!(record.confidence, Some(Confidence::Likely), "{line}");
    }
    let [older, killed] = records;
    assert_eq!((older.verdict, older.dur_min), (Verdict::ServeLeft, Some(true)), "{}", older.to_line());
    assert_eq!(
        (killed.verdict, killed.how),
        (Verdict::ClientLeft, Some(How::Signal(9))),
        "{}",
        killed.to_line()
    );
    assert!(killed.killed_by.as_ref().is_some_and(|by| by.ends_with(&format!("[{}]", std::process::id()))));
    drop(newer);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    daemon.finish_without_a_record().await;
}
