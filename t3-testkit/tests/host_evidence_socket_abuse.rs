//! The evidence socket against real users: viewers who take all places, viewers and a dispatch that
//! say nothing, and a compromised dispatch that asks without end and never reads.
//!
//! Needs root and `cargo xtask build`. The other users are processes of this test with their uid;
//! dispatch has a uid of its own, too.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails its test")]

use std::{
    fs,
    io::Read,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};
use t3_record::{
    KernelSource,
    wire::{FromTrace, MAX_MESSAGE, Role, Session, ToTrace, VERSION},
};
use t3_testkit::{
    client::{Client, Config},
    harness::{OtherUser, Serve, Setup, Stack, role, say},
    journald::Journal,
    prerequisite, sys,
};

/// Users and groups without a name, who need no account.
const VIEWERS: u32 = 61_400;
const DISPATCH: u32 = 61_401;
const MALLORY: u32 = 61_410;
/// Starts dispatch as its user.
const AS_DISPATCH: &str = r#"
    for argument; do case "$argument" in */dispatch.json) chmod 711 "${argument%/*}";; esac; done
    exec setpriv --reuid 61401 --regid 61400 --clear-groups "$@""#;
/// Duration of the questions: longer than an answer waits for its place.
const ASKING: Duration = Duration::from_secs(14);
/// Sessions that end during the questions.
const ENDS: usize = 12;
const BETWEEN_ENDS: Duration = Duration::from_secs(1);
/// Processes that ask without end and read the answers.
const ATTACKERS: usize = 2;
/// Memory of t3-trace for all questions in progress, far below its `MemoryMax=`.
const MOST_GROWTH: u64 = 128 << 20;
/// Growth between the middle of the questions and their end.
const FLAT: u64 = 16 << 20;

/// Each test takes all CPU, so that evidence would come too late in another one.
static ALONE: Mutex<()> = Mutex::new(());

struct Fixture {
    stack: Stack,
    _serves: Vec<Serve>,
    _alone: MutexGuard<'static, ()>,
}

impl Fixture {
    fn start(test: &str, users: usize) -> Option<Self> {
        prerequisite::or_skip(test, prerequisite::root())?;
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut setup = Setup::users(users).unwrap();
        setup.trace = true;
        let arguments = ["--group", &VIEWERS.to_string(), "--dispatch-user", &DISPATCH.to_string()];
        setup.trace_arguments = arguments.map(str::to_owned).to_vec();
        setup.dispatch_prefix = ["sh", "-c", AS_DISPATCH, "sh"].map(str::to_owned).to_vec();
        let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", stack.dispatch_pid())).unwrap();
        assert!(status.contains(&format!("Uid:\t{DISPATCH}\t")), "{status}");
        assert!(is_traced(stack.kernel()), "t3-trace has no kernel evidence here: {:?}", stack.status());
        let serves = (0..users).map(|n| stack.serve(&format!("u{n}"), &[], None).unwrap()).collect();
        Some(Self { stack, _serves: serves, _alone: alone })
    }

    fn open(&self, user: usize) -> Client {
        let mut config = Config::new(self.stack.address, &format!("u{user}"));
        config.heartbeat = Some(Duration::from_secs(1));
        let client = Client::connect(config).unwrap();
        client.heartbeats(1).unwrap();
        client
    }

    /// Ends a session and asserts that its record has kernel evidence.
    fn ends_with_evidence(&self, user: usize, client: &Client, what: &str) {
        client.fin();
        client.wait_end().unwrap();
        let record = self.stack.record(&format!("u{user}")).unwrap();
        assert!(is_traced(record.kernel), "{what}: {}\n{}", record.to_line(), self.stack.stderr());
    }

    fn viewer(&self, uid: u32, words: &str) -> OtherUser {
        OtherUser::start("viewer", &format!("{} {uid} {VIEWERS} {words}", self.stack.socket().display()))
            .unwrap()
    }

    /// Memory of t3-trace in bytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.stack.trace_pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
    }
}

fn is_traced(kernel: KernelSource) -> bool {
    matches!(kernel, KernelSource::Kprobe | KernelSource::Tracepoint)
}

fn connect(path: &str) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn send(socket: &Socket, message: &ToTrace) -> std::io::Result<()> {
    socket.send(&serde_json::to_vec(message).unwrap()).map(drop)
}

fn receive(socket: &mut Socket) -> Option<FromTrace> {
    let mut packet = vec![0; MAX_MESSAGE];
    let length = socket.read(&mut packet).ok()?;
    serde_json::from_slice(&packet[..length]).ok()
}

fn hello(socket: &Socket, role: Role) -> bool {
    send(socket, &ToTrace::Hello { v: VERSION, role }).is_ok()
}

/// A connection that has a place: it was welcomed, or it says nothing and has not been refused.
fn place(path: &str, speaks: bool) -> Option<Socket> {
    let mut socket = connect(path).ok()?;
    if speaks {
        hello(&socket, Role::Subscriber).then_some(())?;
        matches!(receive(&mut socket), Some(FromTrace::Welcome { .. })).then_some(())?;
    }
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// A user of the viewers' group. Takes as many places as possible, and again those that it
/// loses.
#[test]
#[ignore = "the body of a child process of the tests below; run by them"]
fn viewer() {
    let words = role().unwrap();
    let [path, uid, gid, count, how] = &words[..] else { panic!("{words:?}") };
    sys::become_member(uid.parse().unwrap(), gid.parse().unwrap()).unwrap();
    if let Err(error) = connect(path) {
        return say(&error.kind().to_string());
    }
    let (count, speaks): (usize, _) = (count.parse().unwrap(), how == "speaks");
    let mut held: Vec<_> = (0..count).filter_map(|_| place(path, speaks)).collect();
    say(&held.len().to_string());
    loop {
        // Ended connections have a reason or an end to read.
        held.retain_mut(|socket| {
            socket.read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        });
        let missing = count - held.len();
        held.extend((0..missing).filter_map(|_| place(path, speaks)));
        thread::sleep(Duration::from_millis(5));
    }
}

/// Connects and says nothing. Prints the time until the connection ends, in ms.
#[test]
#[ignore = "the body of a child process of the tests below; run by them"]
fn silent() {
    let words = role().unwrap();
    let [path, uid, gid] = &words[..] else { panic!("{words:?}") };
    sys::become_member(uid.parse().unwrap(), gid.parse().unwrap()).unwrap();
    let mut socket = connect(path).unwrap();
    let since = Instant::now();
    while socket.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
    say(&since.elapsed().as_millis().to_string());
}

/// A compromised dispatch. Registers sessions and asks for the evidence of these and of sessions
/// that do not exist; prints the numbers of questions and of answers that it read.
#[test]
#[ignore = "the body of a child process of the tests below; run by them"]
fn compromised_dispatch() {
    let words = role().unwrap();
    let [path, how] = &words[..] else { panic!("{words:?}") };
    sys::become_member(DISPATCH, VIEWERS).unwrap();
    let mut socket = connect(path).unwrap();
    assert!(hello(&socket, Role::Dispatch));
    say(&format!("{:?}", receive(&mut socket)));
    for n in 0..200 {
        let session = Session {
            conn: format!("mallory-{n}"),
            user: "u".repeat(10_000),
            ip: "192.0.2.7".to_owned(),
            ray: Some("r".repeat(10_000)),
            opened_at: Some(1),
            down: None,
            up: None,
            serve_port: 9,
            kept: false,
            resumed: 0,
        };
        send(&socket, &ToTrace::Register(Box::new(session))).unwrap();
    }
    let reader = (how != "never_reads").then(|| {
        let mut reader = socket.try_clone().unwrap();
        reader.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        thread::spawn(move || {
            let mut read = 0_u64;
            while let Some(message) = receive(&mut reader) {
                read += u64::from(matches!(message, FromTrace::Evidence { .. }));
            }
            read
        })
    });
    let (mut asked, until) = (0_u64, Instant::now() + ASKING);
    if how == "reads" {
        for n in 0..200 {
            asked += u64::from(send(&socket, &ToTrace::Ask { conn: format!("mallory-{n}") }).is_ok());
        }
    } else {
        while Instant::now() < until {
            let conn = if asked % 2 == 0 { format!("mallory-{}", asked % 200) } else { format!("x{asked}") };
            if send(&socket, &ToTrace::Ask { conn }).is_err() {
                break;
            }
            asked += 1;
        }
    }
    let read = reader.map_or(0, |reader| reader.join().unwrap());
    say(&format!("{asked} {read}"));
    thread::sleep(Duration::from_secs(60));
}

/// Starts a compromised dispatch, and waits until it is connected.
fn compromised(how: &str, socket: &Path) -> OtherUser {
    let words = format!("{} {how}", socket.display());
    let mut dispatch = OtherUser::start("compromised_dispatch", &words).unwrap();
    let welcome = dispatch.line();
    assert!(welcome.contains("Welcome"), "{welcome}");
    dispatch
}

/// Words of the last line of a compromised dispatch.
fn numbers(dispatch: &mut OtherUser) -> (u64, u64) {
    let line = dispatch.line();
    let (asked, read) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
    (asked.parse().unwrap(), read.parse().unwrap())
}

#[test]
fn viewers_cannot_take_the_places_of_dispatch() {
    let Some(mut fixture) = Fixture::start("viewers_cannot_take_the_places_of_dispatch", 12) else { return };
    // Control, one viewer with more connections than the socket has, many viewers, and silent ones.
    let scenes = [("nobody", 0, 0), ("one viewer", 1, 300), ("speaks", 20, 40), ("silent", 20, 40)];
    for (number, (name, viewers, count)) in scenes.into_iter().enumerate() {
        let before = fixture.open(3 * number);
        let how = if name == "silent" { "silent" } else { "speaks" };
        let mut attackers: Vec<_> =
            (0..viewers).map(|n| fixture.viewer(MALLORY + n, &format!("{count} {how}"))).collect();
        let held: u32 = attackers.iter_mut().map(|viewer| viewer.line().parse::<u32>().unwrap()).sum();
        println!("{name}: {held} connections");
        assert_eq!(held > 0, viewers > 0, "{name}: viewers may connect");
        fixture.ends_with_evidence(3 * number, &before, name);
        // A new dispatch, then a new t3-trace: all connect at the same time.
        drop(fixture.stack.dispatch.take());
        fixture.stack.start_dispatch().unwrap();
        fixture.ends_with_evidence(3 * number + 1, &fixture.open(3 * number + 1), name);
        drop(fixture.stack.trace.take());
        fixture.stack.start_trace().unwrap();
        fixture.ends_with_evidence(3 * number + 2, &fixture.open(3 * number + 2), name);
    }
}

#[test]
fn only_viewers_connect_and_none_stays_without_a_hello() {
    let Some(fixture) = Fixture::start("only_viewers_connect_and_none_stays_without_a_hello", 1) else {
        return;
    };
    let path = fixture.stack.socket();
    let path = path.display();
    // Another user, in no group of the socket.
    let mut stranger = OtherUser::start("viewer", &format!("{path} {MALLORY} {MALLORY} 1 speaks")).unwrap();
    assert_eq!(stranger.line(), "permission denied");
    for uid in [MALLORY, DISPATCH] {
        let mut silent = OtherUser::start("silent", &format!("{path} {uid} {VIEWERS}")).unwrap();
        let line = silent.line();
        let ended: u64 = line.parse().unwrap_or_else(|_| panic!("{uid}: {line}"));
        assert!((900..2_500).contains(&ended), "{uid}: ended after {ended} ms");
    }
    // Control: one that speaks stays.
    let mut viewer = fixture.viewer(MALLORY, "1 speaks");
    assert_eq!(viewer.line(), "1");
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(fixture.stack.status().unwrap().subscribers, 2, "the viewer and this query");
}

#[test]
fn a_compromised_dispatch_that_does_not_read_takes_no_memory() {
    let test = "a_compromised_dispatch_that_does_not_read_takes_no_memory";
    let Some(fixture) = Fixture::start(test, ENDS + 2) else { return };
    let socket = fixture.stack.socket();
    // Control: who reads gets all answers.
    let mut reader = compromised("reads", &socket);
    assert_eq!(numbers(&mut reader), (200, 200));
    drop(reader);

    let before = fixture.memory();
    let sessions: Vec<_> = (0..=ENDS).map(|user| fixture.open(user)).collect();
    let mut mallory = compromised("never_reads", &socket);
    let (since, mut highest, mut middle, mut ended) = (Instant::now(), before, 0, 0);
    while since.elapsed() < ASKING {
        highest = highest.max(fixture.memory());
        if since.elapsed() < ASKING * 2 / 3 {
            middle = highest;
        }
        // The questions come in waves, so sessions end at all times.
        if ended < ENDS && since.elapsed() >= BETWEEN_ENDS * u32::try_from(ended + 1).unwrap() {
            let what = format!("after {:?} of questions", since.elapsed());
            fixture.ends_with_evidence(ended, &sessions[ended], &what);
            ended += 1;
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ended, ENDS, "ends during the questions");
    // Others are served meanwhile.
    let asked_at = Instant::now();
    fixture.stack.status().unwrap();
    assert!(asked_at.elapsed() < Duration::from_secs(2), "{:?}", asked_at.elapsed());
    fixture.ends_with_evidence(ENDS, &sessions[ENDS], "at the end of the questions");
    let (asked, _) = numbers(&mut mallory);
    let growth = highest.saturating_sub(before);
    println!("{asked} questions: {} KiB before, at most {} KiB more", before >> 10, growth >> 10);
    assert!(asked > 50_000, "{asked} questions");
    assert!(growth < MOST_GROWTH, "{asked} questions: {} KiB more", growth >> 10);
    assert!(highest - middle < FLAT, "still growing: {} KiB", (highest - middle) >> 10);
    drop(mallory);
    fixture.ends_with_evidence(ENDS + 1, &fixture.open(ENDS + 1), "after its end");
}

#[test]
fn compromised_dispatches_that_ask_without_end_do_not_delay_other_answers() {
    let test = "compromised_dispatches_that_ask_without_end_do_not_delay_other_answers";
    let Some(fixture) = Fixture::start(test, ENDS / 2) else { return };
    let sessions: Vec<_> = (0..ENDS / 2).map(|user| fixture.open(user)).collect();
    let mut attackers: Vec<_> =
        (0..ATTACKERS).map(|_| compromised("asks_without_end", &fixture.stack.socket())).collect();
    let since = Instant::now();
    for (user, session) in sessions.iter().enumerate() {
        thread::sleep(BETWEEN_ENDS);
        let what = format!("after {:?} of questions", since.elapsed());
        fixture.ends_with_evidence(user, session, &what);
    }
    assert!(since.elapsed() < ASKING, "ends during the questions");
    for attacker in &mut attackers {
        let (asked, read) = numbers(attacker);
        println!("{asked} questions, {read} answers");
        assert!(read > 1_000, "{asked} questions, {read} answers");
    }
}
