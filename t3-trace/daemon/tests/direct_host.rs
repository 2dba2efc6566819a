//! The daemon with the real kernel side: connections that nobody carries, between real processes.
//!
//! Needs root and the eBPF object; else it prints the reason and passes, or fails in CI.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/records.rs"]
mod records;

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    time::Duration,
};

use daemon::RunningDaemon;
use t3_record::{Confidence, How, TcpCloseRecord, Verdict};
use t3_testkit::harness::OneConnection;
use t3_trace_daemon::{
    direct::{WatchedPort, WatchedUnit},
    options::Options,
};
use t3_trace_host::cgroup;

/// Address of the client's server.
const SERVER: &str = "T3_TEST_SERVER_ADDRESS";

#[test]
#[ignore = "started by another test"]
fn server() {
    OneConnection::serve().unwrap();
}

/// The daemon with the real kernel side.
struct Daemon {
    daemon: RunningDaemon,
    journald: UnixDatagram,
}

impl Daemon {
    /// `None` without the privileges for eBPF, outside CI.
    async fn watching(watch: Vec<WatchedPort>, watch_units: Vec<WatchedUnit>) -> Option<Self> {
        let kernel = kernel::load(|_| {})?;
        let change = |options: &mut Options| {
            options.watch = watch;
            options.watch_units = watch_units;
        };
        let (daemon, journald) = RunningDaemon::start(Box::new(kernel), change).await;
        Some(Self { daemon, journald })
    }

    fn next(&self) -> TcpCloseRecord {
        records::next(&self.journald)
    }

    async fn finish_without_a_record(self) {
        self.daemon.stop().await;
        self.journald.set_nonblocking(true).unwrap();
        assert_eq!(self.journald.recv(&mut [0; 64]).ok(), None, "another connection has a record");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_connections_are_recorded_with_the_fate_of_the_server() {
    let start = || OneConnection::start("server").unwrap();
    let (mut killed, mut left) = (start(), start());
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |port: u16| WatchedPort { min_duration: Duration::ZERO, ..WatchedPort::new(port) };
    // The third has the default minimum.
    let watch =
        vec![port(killed.port()), port(left.port()), WatchedPort::new(own.local_addr().unwrap().port())];
    let Some(daemon) = Daemon::watching(watch, Vec::new()).await else { return };

    // Short: no record.
    drop((TcpStream::connect(own.local_addr().unwrap()).unwrap(), own.accept().unwrap()));
    let client = killed.connect().unwrap();
    killed.kill().unwrap();
    drop(client);
    let record = daemon.next();
    assert_eq!(
        (record.verdict, record.how),
        (Verdict::ServeKilled, Some(How::Signal(9))),
        "{}",
        record.to_line()
    );
    assert_eq!(
        (record.confidence, record.port),
        (Some(Confidence::Proven), killed.port()),
        "{}",
        record.to_line()
    );
    assert_eq!(record.peer_pid, Some(killed.pid()));
    assert!(record.killed_by.as_ref().is_some_and(|by| by.ends_with(&format!("[{}]", std::process::id()))));
    assert_eq!((record.up_bytes, record.down_bytes, record.dur_min), (Some(5), Some(0), None));

    drop(left.connect().unwrap());
    let record = daemon.next();
    assert_eq!((record.verdict, record.port), (Verdict::ClientLeft, left.port()), "{}", record.to_line());
    assert_eq!(record.confidence, Some(Confidence::Likely), "a Close frame may have come before");
    daemon.finish_without_a_record().await;
}

/// The client: connects twice, the second time on request, and keeps both connections.
#[test]
#[ignore = "started by another test"]
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
    let mut records = [daemon.next(), daemon.next()];
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
