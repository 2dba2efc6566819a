//! The keeper with a small service: this program, started again as `service` with a role.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, IoSlice, Read, Seek, SeekFrom, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    process::Command,
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use t3_testkit::keeper::{self, Counts, Keeper, Options};
use tokio::signal::unix::{SignalKind, signal};

const ROLE: &str = "T3_KEEPER_ROLE";
const LISTENER: &str = "t3.socket";
/// Sessions of the service with role `many`: as many as the program must be able to keep.
const MANY: usize = 4500;

/// A service of this test binary.
fn service(role: &str) -> Command {
    let mut command = keeper::command(&std::env::current_exe().unwrap());
    command.args(["--exact", "the_service", "--nocapture"]).env(ROLE, role);
    command
}

fn keeper(max: usize) -> (Keeper, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = vec![(LISTENER.to_owned(), OwnedFd::from(listener.try_clone().unwrap()))];
    (Keeper::new(Options { max, ..Options::default() }, passed).unwrap(), listener)
}

/// Descriptors that the service gets, by name and in order.
fn passed() -> Vec<(String, OwnedFd)> {
    assert_eq!(std::env::var("LISTEN_PID").unwrap(), std::process::id().to_string());
    let count: i32 = std::env::var("LISTEN_FDS").unwrap().parse().unwrap();
    let names = std::env::var("LISTEN_FDNAMES").unwrap();
    let names: Vec<_> = names.split(':').collect();
    assert_eq!(names.len(), usize::try_from(count).unwrap());
    let copy = |number: i32| {
        let path = format!("/proc/self/fd/{number}");
        assert!(std::fs::symlink_metadata(&path).is_ok(), "{path}");
        copy_of(number)
    };
    names.iter().zip(3..).map(|(name, number)| ((*name).to_owned(), copy(number))).collect()
}

#[expect(unsafe_code, reason = "passed descriptors come as numbers")]
fn copy_of(number: i32) -> OwnedFd {
    // SAFETY: LISTEN_PID is this process, so the descriptor is open and stays open.
    let passed = unsafe { BorrowedFd::borrow_raw(number) };
    assert_eq!(fcntl_getfd(passed).unwrap(), FdFlags::empty(), "{number} must outlive exec");
    fcntl_dupfd_cloexec(passed, 3).unwrap()
}

fn notify(text: &str, fds: &[BorrowedFd<'_>]) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(std::env::var("NOTIFY_SOCKET").unwrap()).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::empty()).unwrap();
}

/// Not a test of its own: the service.
#[test]
fn the_service() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut passed = passed();
    assert_eq!(passed[0].0, LISTENER, "listening sockets are first");
    let listener = TcpListener::from(passed.remove(0).1);
    match role.as_str() {
        "counter" => counter(&listener, passed),
        "many" => many(passed),
        "exits" => std::process::exit(3),
        other => panic!("{other}"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let mut interrupt = signal(SignalKind::interrupt()).unwrap();
        notify("READY=1\nSTATUS=serves", &[]);
        tokio::select! {
            _ = terminate.recv() => 0,
            _ = interrupt.recv() => 7,
        }
    });
    // The last messages of a process count.
    notify("STOPPING=1", &[]);
    if role == "counter" {
        notify("FDSTOREREMOVE=1\nFDNAME=last", &[]);
    }
    std::process::exit(status);
}

/// Not a test of its own: a process that is not the service.
#[test]
fn the_stranger() {
    if std::env::var(ROLE).as_deref() == Ok("stranger") {
        notify("FDSTOREREMOVE=1\nFDNAME=a", &[]);
    }
}

/// Counts its starts in a stored file, and reports the number to two connections, which it has
/// accepted in its first process.
fn counter(listener: &TcpListener, passed: Vec<(String, OwnedFd)>) {
    let mut by_name: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
    for (name, fd) in passed {
        by_name.entry(name).or_default().push(fd);
    }
    let connections = by_name.remove("a").unwrap_or_else(|| {
        let state = memfd_create("state", MemfdFlags::CLOEXEC).unwrap();
        notify("FDSTORE=1\nFDNAME=state\nFDPOLL=0", &[state.as_fd()]);
        by_name.insert("state".to_owned(), vec![state]);
        let accepted: Vec<OwnedFd> = (0..2).map(|_| listener.accept().unwrap().0.into()).collect();
        let fds: Vec<_> = accepted.iter().map(AsFd::as_fd).collect();
        notify("FDSTORE=1\nFDNAME=a\nFDPOLL=0", &fds);
        let last = memfd_create("last", MemfdFlags::CLOEXEC).unwrap();
        notify("FDSTORE=1\nFDNAME=last\nFDPOLL=0", &[last.as_fd()]);
        accepted
    });
    assert_eq!(connections.len(), 2);
    let mut state = std::fs::File::from(by_name.remove("state").unwrap().remove(0));
    let mut text = String::new();
    state.seek(SeekFrom::Start(0)).unwrap();
    state.read_to_string(&mut text).unwrap();
    let starts = text.lines().count() + 1;
    writeln!(state, "start {starts}").unwrap();
    let others: Vec<_> = by_name.keys().map(String::as_str).collect();
    for connection in connections {
        let line = format!("start {starts} {others:?}\n");
        TcpStream::from(connection).write_all(line.as_bytes()).unwrap();
    }
}

/// Stores [`MANY`] pairs in its first process; the next ones compare them.
fn many(passed: Vec<(String, OwnedFd)>) {
    let name = |number: usize| format!("{number:x}");
    if passed.is_empty() {
        for number in 0..MANY {
            let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
            let text = format!("FDSTORE=1\nFDNAME={}\nFDPOLL=0", name(number));
            notify(&text, &[one.as_fd(), other.as_fd()]);
        }
        return;
    }
    // Newest first, and the two of a pair next to each other, in any order.
    assert_eq!(passed.len(), 2 * MANY);
    for (pair, number) in passed.chunks(2).zip((0..MANY).rev()) {
        assert!(pair.iter().all(|(have, _)| *have == name(number)), "{number}");
        let mut ends =
            pair.iter().map(|(_, fd)| std::os::unix::net::UnixStream::from(fd.try_clone().unwrap()));
        let (mut one, mut other) = (ends.next().unwrap(), ends.next().unwrap());
        one.write_all(&number.to_be_bytes()).unwrap();
        let mut have = [0; 8];
        other.read_exact(&mut have).unwrap();
        assert_eq!(usize::from_be_bytes(have), number, "both ends of the pair");
    }
}

#[test]
fn stored_descriptors_survive_restarts_and_kills_unread() {
    let (mut keeper, listener) = keeper(10);
    let address = listener.local_addr().unwrap();
    let mut clients: Vec<_> = (0..2).map(|_| BufReader::new(TcpStream::connect(address).unwrap())).collect();
    let mut line_of = |expected: &str| {
        for client in &mut clients {
            let mut line = String::new();
            client.read_line(&mut line).unwrap();
            assert_eq!(line.trim_end(), expected);
        }
    };
    let first = keeper.start(service("counter")).unwrap();
    line_of("start 1 []");
    assert_eq!(keeper.status(), "serves");
    assert_eq!(keeper.names(), ["last", "a", "a", "state"]);
    let restart = keeper.restart(service("counter"), |_, _| {}).unwrap();
    // `last` was removed by the last message of the first process.
    line_of("start 2 []");
    assert!(restart.total() < Duration::from_secs(10), "{restart:?}");
    keeper.kill_and_restart(service("counter"), |_, _| {}).unwrap();
    line_of("start 3 []");
    assert_ne!(keeper.pid(), Some(first));
    assert_eq!((keeper.starts(), keeper.is_stopping()), (3, false));
    let expected = Counts { stored: 4, removed: 1, ..Counts::default() };
    assert_eq!(keeper.counts().unwrap(), expected);

    // A replaced descriptor is passed in place of the stored one.
    let other = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&other, b"1\n2\n3\n4\n5\n6\n").unwrap();
    keeper.replace("state", other);
    keeper.restart(service("counter"), |_, _| {}).unwrap();
    line_of("start 7 []");

    // Stop: the store is empty, and both connections end.
    assert_eq!(keeper.stop().unwrap().code(), Some(7));
    assert_eq!((keeper.names().len(), keeper.pid()), (0, None));
    line_of("");
}

#[test]
fn descriptors_above_the_maximum_are_closed_and_counted() {
    let (mut keeper, listener) = keeper(2);
    let address = listener.local_addr().unwrap();
    let _clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    keeper.start(service("counter")).unwrap();
    assert_eq!(keeper.names(), ["a", "state"]);
    let expected = Counts { stored: 2, dropped: 2, ..Counts::default() };
    assert_eq!(keeper.counts().unwrap(), expected);
}

#[test]
fn thousands_of_pairs_are_passed_below_the_length_limit_of_their_names() {
    let (mut keeper, _listener) = keeper(2 * MANY);
    keeper.start(service("many")).unwrap();
    keeper.until_stored(2 * MANY, Duration::from_secs(30)).unwrap();
    let restart = keeper.restart(service("many"), |_, _| {}).unwrap();
    println!("{} descriptors: {restart:?}", 2 * MANY);
    keeper.kill_and_restart(service("many"), |_, _| {}).unwrap();
    assert_eq!(keeper.counts().unwrap().stored, 2 * MANY as u64);
}

#[test]
fn a_process_that_exits_or_is_silent_is_an_error_with_its_reason() {
    let (mut keeper, _listener) = keeper(1);
    let error = keeper.start(service("exits")).unwrap_err().to_string();
    assert!(error.contains("exit status: 3"), "{error}");
    let listeners = Vec::new();
    let options = Options { start_timeout: Duration::from_millis(300), ..Options::default() };
    let mut keeper = Keeper::new(options, listeners).unwrap();
    let mut sleep = keeper::command("/bin/sleep".as_ref());
    sleep.arg("60");
    let error = keeper.start(sleep).unwrap_err().to_string();
    assert!(error.contains("READY=1: none within"), "{error}");
}

#[test]
fn a_message_of_another_process_does_not_count() {
    let (mut keeper, listener) = keeper(10);
    let address = listener.local_addr().unwrap();
    let _clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let pid = keeper.start(service("counter")).unwrap();
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let socket = environment.split('\0').find_map(|line| line.strip_prefix("NOTIFY_SOCKET=")).unwrap();
    let mut stranger = Command::new(std::env::current_exe().unwrap());
    stranger.args(["--exact", "the_stranger"]).env(ROLE, "stranger").env("NOTIFY_SOCKET", socket);
    assert!(stranger.output().unwrap().status.success());
    assert_eq!(keeper.names().len(), 4);
    assert_eq!(keeper.counts().unwrap().refused, 1);
}
