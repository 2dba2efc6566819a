//! Lifecycle of the process under systemd: passed sockets, notifications, reload and shutdown. The
//! test starts the program and acts as client and serve. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod program;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::{UnixDatagram, UnixListener},
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use program::{GOOD, Running, dispatch, table, text, wait_for};
use t3_testkit::handshake;

const TIMEOUT: Duration = Duration::from_secs(20);

fn table_of(users: &[&str], port: u16) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let entry = |user: &&str| format!(r#""{user}": {{"os_user": "one", "port": {port}, "uid": {uid}}}"#);
    format!("{{{}}}", users.iter().map(entry).collect::<Vec<_>>().join(","))
}

/// A fake serve, and a table that routes `ann` to it.
fn serve() -> (TcpListener, tempfile::NamedTempFile) {
    let serve = TcpListener::bind("127.0.0.1:0").unwrap();
    let table = table(&table_of(&["ann"], serve.local_addr().unwrap().port()));
    (serve, table)
}

fn head(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

fn request(running: &Running, user: &str, more: &str) -> TcpStream {
    let mut client = TcpStream::connect(&running.address).unwrap();
    let head = format!("GET /x HTTP/1.1\r\nHost: t3\r\nX-authentik-username: {user}\r\n{more}\r\n");
    client.write_all(head.as_bytes()).unwrap();
    client
}

fn websocket(running: &Running, serve: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(&running.address).unwrap();
    client.write_all(handshake::request("/x", [("X-authentik-username", "ann")]).as_bytes()).unwrap();
    let (mut up, _) = serve.accept().unwrap();
    head(&mut up);
    up.write_all(handshake::response(handshake::KEY).as_bytes()).unwrap();
    assert!(head(&mut client).starts_with("HTTP/1.1 101 "));
    (client, up)
}

fn exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Returns the exit code; `None` for a process that was killed or is still running.
fn exit_code(running: &mut Running) -> Option<i32> {
    let until = Instant::now() + TIMEOUT;
    while Instant::now() < until {
        if let Some(status) = running.child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Returns the unread log of an exited process.
fn rest_of_log(running: &mut Running) -> String {
    let mut log = String::new();
    running.log.read_to_string(&mut log).unwrap();
    log
}

#[test]
fn a_changed_table_is_loaded_and_each_state_is_logged_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dispatch.json");
    fs::write(&file, table_of(&["ann"], 1)).unwrap();
    let mut running = Running::start(&file);
    let replace = |text: &str| {
        fs::write(dir.path().join("new"), text).unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
    };

    fs::write(&file, table_of(&["ann", "bob"], 1)).unwrap();
    wait_for(&mut running.log, "2 logins (1 new)");
    assert!(running.get("bob").starts_with("HTTP/1.1 502"));
    replace(&table_of(&["bob"], 1));
    wait_for(&mut running.log, "1 logins (1 gone)");
    assert!(running.get("ann").starts_with("HTTP/1.1 403"));

    replace("{\n\"bob\": 3}");
    let line = wait_for(&mut running.log, "keeping the previous table");
    assert!(line.contains("line 2, column 8: key \"bob\""), "{line}");
    for _ in 0..5 {
        replace("{\n\"bob\": 3}");
    }
    fs::remove_file(&file).unwrap();
    let line = wait_for(&mut running.log, "routing table");
    assert!(
        line.contains("cannot read routing table") && line.contains("keeping the previous table"),
        "{line}"
    );
    assert!(running.get("bob").starts_with("HTTP/1.1 502"), "the previous table stays in use");
    replace(&table_of(&["bob"], 1));
    let line = wait_for(&mut running.log, "routing table");
    assert!(line.contains("1 logins (nothing changed)"), "{line}");
}

#[test]
fn a_session_continues_when_its_user_leaves_the_table() {
    let (serve, file) = serve();
    let mut running = Running::start(file.path());
    let (mut client, mut up) = websocket(&running, &serve);
    fs::write(file.path(), "{}").unwrap();
    wait_for(&mut running.log, "0 logins (1 gone)");
    assert!(running.get("ann").starts_with("HTTP/1.1 403"));
    up.write_all(b"\x81\x02hi").unwrap();
    assert_eq!(exactly(&mut client, 4), b"\x81\x02hi");
    client.write_all(b"\x81\x80\0\0\0\0").unwrap();
    assert_eq!(exactly(&mut up, 6), b"\x81\x80\0\0\0\0");
}

/// systemd's end of NOTIFY_SOCKET.
struct Notified {
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
}

impl Notified {
    fn new(command: &mut Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        command.env("NOTIFY_SOCKET", dir.path().join("notify"));
        Self { socket, _dir: dir }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("no more notifications");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Returns the next message with a line that starts with `wanted`, and the number of `counted`
    /// lines before it.
    fn until(&self, wanted: &str, counted: &str) -> (String, usize) {
        let mut count = 0;
        loop {
            let message = self.next();
            if message.lines().any(|line| line.starts_with(wanted)) {
                return (message, count);
            }
            count += usize::from(message.lines().any(|line| line == counted));
        }
    }

    /// Returns all unread messages.
    fn rest(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        while let Ok(length) = self.socket.recv(&mut buffer) {
            all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        all
    }
}

fn monotonic_usec() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec / 1_000)
}

#[test]
fn systemd_receives_ready_reload_stop_and_status() {
    let (serve, file) = serve();
    let good = fs::read_to_string(file.path()).unwrap();
    let mut command = dispatch(file.path(), &["--listen", "127.0.0.1:0", "--drain-time", "1s"]);
    let notified = Notified::new(&mut command);
    let mut running = Running::of(&mut command);
    let (ready, _) = notified.until("READY=1", "");
    assert!(ready.contains("STATUS=0 WebSockets, 1 logins\n"), "{ready}");
    let _session = websocket(&running, &serve);
    notified.until("STATUS=1 WebSockets, 1 logins", "");

    for (content, status) in [
        ("{", "STATUS=1 WebSockets, 1 logins; keeping the previous table: routing table "),
        (good.as_str(), "STATUS=1 WebSockets, 1 logins"),
    ] {
        fs::write(file.path(), content).unwrap();
        let before = monotonic_usec();
        running.signal(libc::SIGHUP);
        let (reloading, _) = notified.until("RELOADING=1", "");
        let at = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        let at: i128 = at.parse().unwrap();
        assert!(before <= at && at <= monotonic_usec(), "{before} {at}");
        let (ready, _) = notified.until("READY=1", "");
        assert!(ready.lines().any(|line| line.starts_with(status)), "{ready}");
    }

    running.signal(libc::SIGTERM);
    let (stopping, _) = notified.until("STOPPING=1", "");
    assert!(stopping.contains("STATUS=stopping, 1 WebSockets left"), "{stopping}");
    assert_eq!(exit_code(&mut running), Some(0));
    let after = notified.rest();
    assert!(!after.iter().any(|message| message.contains("READY=1")), "{after:?}");
}

#[test]
fn watchdog_keepalives_are_sent_except_while_the_process_is_stopped() {
    let file = table(GOOD);
    let mut command = dispatch(file.path(), &["--listen", "127.0.0.1:0"]);
    command.env("WATCHDOG_USEC", "400000");
    let notified = Notified::new(&mut command);
    let running = Running::of(&mut command);
    for _ in 0..3 {
        notified.until("WATCHDOG=1", "");
    }
    running.signal(libc::SIGSTOP);
    let stopped = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", running.child.id())).unwrap();
        let state = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).unwrap();
        tasks.map(|task| state(task.unwrap())).all(|stat| stat.contains(") T "))
    };
    while !stopped() {
        std::thread::sleep(Duration::from_millis(5));
    }
    notified.rest();
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(notified.rest(), Vec::<String>::new());
    running.signal(libc::SIGCONT);
    notified.socket.set_nonblocking(false).unwrap();
    notified.until("WATCHDOG=1", "");
}

#[test]
fn without_a_watchdog_no_keepalive_is_sent() {
    let file = table(GOOD);
    let mut command = dispatch(file.path(), &["--listen", "127.0.0.1:0"]);
    // The watchdog of another process.
    command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let notified = Notified::new(&mut command);
    let mut running = Running::of(&mut command);
    running.signal(libc::SIGTERM);
    assert_eq!(notified.until("STOPPING=1", "WATCHDOG=1").1, 0);
    assert_eq!(exit_code(&mut running), Some(0));
}

#[test]
fn a_systemd_that_does_not_read_blocks_nothing() {
    let (serve, file) = serve();
    let mut command = dispatch(file.path(), &["--listen", "127.0.0.1:0", "--drain-time", "1s"]);
    command.env("WATCHDOG_USEC", "1000");
    let notified = Notified::new(&mut command);
    let mut running = Running::of(&mut command);
    let (mut client, mut up) = websocket(&running, &serve);
    // The socket is full when another message does not fit.
    let probe = UnixDatagram::unbound().unwrap();
    probe.set_nonblocking(true).unwrap();
    let socket = notified.socket.local_addr().unwrap().as_pathname().unwrap().to_owned();
    let full = (0..10_000).any(|_| {
        let full = probe.send_to(b"", &socket).is_err();
        std::thread::sleep(Duration::from_millis(1));
        full
    });
    assert!(full);
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "nothing changed");
    up.write_all(b"\x81\x02hi").unwrap();
    assert_eq!(exactly(&mut client, 4), b"\x81\x02hi");
    assert!(running.get("nobody").starts_with("HTTP/1.1 403"));
    running.signal(libc::SIGTERM);
    assert_eq!(exit_code(&mut running), Some(0));
}

#[test]
fn shutdown_closes_idle_connections_and_completes_requests_in_flight() {
    let (serve, file) = serve();
    let mut command = dispatch(file.path(), &["--listen", "127.0.0.1:0", "--drain-time", "300s"]);
    let mut running = Running::of(&mut command);
    // An idle connection after a response, and one without any request.
    let mut idle = request(&running, "ann", "");
    let (mut up, _) = serve.accept().unwrap();
    head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
    drop(up);
    assert!(head(&mut idle).starts_with("HTTP/1.1 200 "));
    exactly(&mut idle, 2);
    let mut silent = TcpStream::connect(&running.address).unwrap();
    let mut busy = request(&running, "ann", "");
    let (mut up, _) = serve.accept().unwrap();
    head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhalf").unwrap();
    head(&mut busy);

    running.signal(libc::SIGTERM);
    wait_for(&mut running.log, "stopping");
    for stream in [&mut idle, &mut silent] {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }
    let until = Instant::now() + TIMEOUT;
    while TcpStream::connect(&running.address).is_ok() {
        assert!(Instant::now() < until, "still listening");
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(running.child.try_wait().unwrap(), None, "a request is in flight");
    up.write_all(b"half").unwrap();
    assert_eq!(exactly(&mut busy, 8), b"halfhalf");
    assert_eq!(exit_code(&mut running), Some(0));
}

#[test]
fn a_second_signal_exits_immediately_and_every_session_has_a_record() {
    for (first, second) in
        [(libc::SIGTERM, libc::SIGTERM), (libc::SIGINT, libc::SIGTERM), (libc::SIGTERM, libc::SIGINT)]
    {
        let (serve, file) = serve();
        let mut command = dispatch(file.path(), &["--listen", "127.0.0.1:0", "--drain-time", "1h"]);
        let mut running = Running::of(&mut command);
        // No peer answers a Close frame or completes a request.
        let mut sessions: Vec<_> = (0..5).map(|_| websocket(&running, &serve)).collect();
        let _request = request(&running, "ann", "");
        let _in_flight = serve.accept().unwrap();

        running.signal(first);
        for (client, up) in &mut sessions {
            assert_eq!(exactly(client, 4), b"\x88\x02\x03\xe9");
            assert_eq!(exactly(up, 8)[..2], [0x88, 0x82]);
        }
        assert_eq!(running.child.try_wait().unwrap(), None, "waits for replies");
        running.signal(second);
        assert_eq!(exit_code(&mut running), Some(0));
        let log = rest_of_log(&mut running);
        let records: Vec<_> = log.lines().filter(|line| line.contains("ws close ")).collect();
        assert_eq!(records.len(), 5, "{log}");
        for record in records {
            assert!(record.contains("verdict=dispatch_shutdown"), "{record}");
            assert!(record.contains(&format!("how=proxy_signal:{first}")), "{record}");
        }
    }
}

/// Returns a dispatch that receives these descriptors like from systemd, starting at 3.
fn activated(descriptors: &[&dyn AsFd], table: &Path) -> Command {
    // LISTEN_PID must be the pid of dispatch: a shell sets it and executes dispatch.
    let mut script = String::new();
    for (number, fd) in (3..).zip(descriptors) {
        rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::empty()).unwrap();
        script.push_str(&format!("exec {number}<&{};", 20 + number));
    }
    for (number, fd) in (23..).zip(descriptors) {
        script.insert_str(0, &format!("exec {number}<&{};", fd.as_fd().as_raw_fd()));
    }
    script.push_str(&format!("LISTEN_PID=$$ LISTEN_FDS={} exec \"$0\" \"$@\"", descriptors.len()));
    let direct = dispatch(table, &["--listen", "127.0.0.1:1"]);
    let mut command = Command::new("/bin/bash");
    command.env_clear().envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.arg("-c").arg(script).arg(direct.get_program()).args(direct.get_args());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn sockets_passed_by_systemd_replace_the_address() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let file = table(GOOD);
    let mut running = Running::of(&mut activated(&[&first, &second], file.path()));
    wait_for(&mut running.log, &format!("listening on {}", second.local_addr().unwrap()));
    for listener in [&first, &second] {
        running.address = listener.local_addr().unwrap().to_string();
        assert!(running.get("nobody").starts_with("HTTP/1.1 403"), "{}", running.address);
    }
    // A client that connects while no dispatch runs waits for the next one: systemd keeps the
    // socket.
    running.signal(libc::SIGTERM);
    assert_eq!(exit_code(&mut running), Some(0));
    let mut waiting = TcpStream::connect(first.local_addr().unwrap()).unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: t3\r\nConnection: close\r\n\r\n").unwrap();
    let _next = Running::of(&mut activated(&[&first], file.path()));
    assert!(head(&mut waiting).starts_with("HTTP/1.1 403"));
}

#[test]
fn a_passed_descriptor_of_another_kind_exits_with_1_and_is_named() {
    let file = table(GOOD);
    let dir = tempfile::tempdir().unwrap();
    let unix = UnixListener::bind(dir.path().join("socket")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let accepted = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let plain = fs::File::open("/dev/null").unwrap();
    let wrong: [&dyn AsFd; 3] = [&unix, &accepted, &plain];
    for wrong in wrong {
        let output = activated(&[&listener, wrong], file.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("descriptor 4 is not a listening TCP socket"), "{}", text(&output));
    }
    // The descriptor store may have it: an error would repeat at each restart.
    let mut command = activated(&[&listener, &plain], file.path());
    let mut running = Running::of(command.env("LISTEN_FDNAMES", "t3-dispatch.socket:strange"));
    running.address = listener.local_addr().unwrap().to_string();
    assert!(running.get("nobody").starts_with("HTTP/1.1 403"));
}
