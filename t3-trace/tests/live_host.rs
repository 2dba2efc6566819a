//! `t3-trace live` on a real terminal against the real daemon: what it shows, how it lives through
//! a restart, another size and a flood, and that the terminal is as it was afterwards. Needs tmux.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{path::PathBuf, process::Command, time::Duration};

use t3_record::{
    Cause, CloseRecord, How, KernelSource, Segment, Verdict,
    wire::{Role, Session, ToTrace, VERSION, live::StatsReport},
};
use t3_testkit::{
    harness::Process,
    tmux::{Modes, Terminal},
};
use t3_trace_host::clock::monotonic;
use tokio_seqpacket::UnixSeqpacket;

const SOON: Duration = Duration::from_secs(30);
const PROGRAM: &str = env!("CARGO_BIN_EXE_t3-trace");

/// Whether it can be done here; in CI it must.
fn possible() -> bool {
    let Err(error) = Terminal::possible() else { return true };
    assert!(std::env::var_os("CI").is_none(), "CI must run this: {error}");
    eprintln!("skipped: {error}");
    false
}

struct World {
    dir: tempfile::TempDir,
    daemon: Option<Process>,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), daemon: None }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("evidence.sock")
    }

    fn start_daemon(&mut self) {
        let mut daemon = Command::new(PROGRAM);
        daemon.args(["daemon", "--no-ebpf", "--log", "stderr", "--socket"]).arg(self.socket());
        self.daemon = Some(Process::start(daemon).unwrap());
    }

    /// Ended as by a crash: its socket's file stays.
    fn kill_daemon(&mut self) {
        self.daemon = None;
    }

    async fn dispatch(&self) -> UnixSeqpacket {
        let socket = loop {
            match UnixSeqpacket::connect(self.socket()).await {
                Ok(socket) => break socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        say(&socket, &ToTrace::Hello { v: VERSION, role: Role::Dispatch }).await;
        socket
    }

    fn live(&self, width: u16, height: u16, options: &[&str]) -> Terminal {
        let mut live = Command::new(PROGRAM);
        live.arg("live").arg("--socket").arg(self.socket()).args(options).env("LC_ALL", "C.UTF-8");
        // What is in the surroundings must not decide.
        live.env_remove("NO_COLOR");
        Terminal::start(width, height, &live).unwrap()
    }
}

async fn say(socket: &UnixSeqpacket, message: &ToTrace) {
    socket.send(&serde_json::to_vec(message).unwrap()).await.unwrap();
}

fn session(conn: &str, user: &str) -> ToTrace {
    ToTrace::Register(Box::new(Session {
        conn: conn.to_owned(),
        user: user.to_owned(),
        ip: "192.0.2.7".to_owned(),
        ray: None,
        opened_at: Some(monotonic()),
        down: None,
        up: None,
        serve_port: 1,
    }))
}

fn done(conn: &str, user: &str, verdict: Verdict) -> ToTrace {
    let mut record = CloseRecord::new(
        user.to_owned(),
        "192.0.2.7".to_owned(),
        192_000,
        Cause::UpstreamClosed,
        verdict,
        Segment::Serve,
        conn.to_owned(),
        KernelSource::Tracepoint,
    );
    record.how = Some(How::Signal(9));
    record.chain = "up:peer_sig9@-2,up:rst_in@0".parse().ok();
    ToTrace::Done { conn: conn.to_owned(), record: Box::new(record) }
}

#[tokio::test]
async fn it_shows_what_happens_and_lives_through_a_restart_and_another_size() {
    if !possible() {
        return;
    }
    let mut world = World::new();
    let live = world.live(100, 30, &[]);
    live.until_shows("Not connected since", SOON).unwrap();
    let modes = live.modes().unwrap();
    assert!(modes.raw && modes.alternate_screen && !modes.mouse, "{modes:?}");

    world.start_daemon();
    live.until_shows("connected since", SOON).unwrap();
    let dispatch = world.dispatch().await;
    say(&dispatch, &session("c1", "wizard")).await;
    say(&dispatch, &session("c2", "alice")).await;
    let waiting = StatsReport {
        conn: "c2".to_owned(),
        down_bytes: 70,
        up_bytes: 9,
        rtt_ns: None,
        waiting_since: Some(monotonic().saturating_sub(60_000_000_000)),
    };
    say(&dispatch, &ToTrace::Pulses { pulses: vec![waiting] }).await;
    let screen = live.until_shows("waits 1m", SOON).unwrap();
    assert!(screen.contains("Open sessions 2") && screen.contains("wizard"), "{screen}");

    say(&dispatch, &done("c1", "wizard", Verdict::ServeKilled)).await;
    live.until_shows("serve killed by signal", SOON).unwrap();
    live.press(&["Enter"]).unwrap();
    live.until_shows("serve process killed by SIGKILL (9)", SOON).unwrap();
    live.press(&["Escape"]).unwrap();
    live.until("the lists again", SOON, |screen| screen.contains("> Closes")).unwrap();

    live.resize(60, 12).unwrap();
    let small =
        live.until("the small screen", SOON, |s| s.contains("WHAT HAPPENED") && !s.contains("Open sessions"));
    let small = small.unwrap();
    assert!(
        small.contains("serve killed by signal") && small.lines().all(|line| line.chars().count() <= 60),
        "{small}"
    );
    live.resize(100, 30).unwrap();
    live.until_shows("Open sessions 1", SOON).unwrap();

    world.kill_daemon();
    live.until_shows("NOT CONNECTED", SOON).unwrap();
    live.until_shows("not known without t3-trace", SOON).unwrap();
    world.start_daemon();
    live.until_shows("t3-trace was restarted: away from", SOON).unwrap();
    let dispatch = world.dispatch().await;
    say(&dispatch, &done("c3", "bob", Verdict::ServeOom)).await;
    let screen = live.until_shows("serve OOM-killed", SOON).unwrap();
    assert!(screen.contains("serve killed by signal") && screen.contains("2 closes"), "{screen}");

    // Stopped as a shell stops it, and continued; the shell in between is missing here, so it goes
    // on at once.
    live.press(&["C-z"]).unwrap();
    live.press(&["?"]).unwrap();
    live.until_shows("pause: the list stands still", SOON).unwrap();
    live.press(&["q"]).unwrap();
    assert_eq!(live.wait(SOON).unwrap(), 0);
    assert_eq!(live.modes().unwrap(), Modes::default());
    assert!(!live.screen().unwrap().contains("t3-trace live"), "its screen has gone with it");
}

#[test]
fn the_terminal_is_put_back_at_each_signal() {
    if !possible() {
        return;
    }
    let world = World::new();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let live = world.live(80, 24, &[]);
        live.until_shows("None yet", SOON).unwrap();
        assert!(live.modes().unwrap().raw);
        live.signal(signal).unwrap();
        assert_eq!(live.wait(SOON).unwrap(), 0, "signal {signal}");
        assert_eq!(live.modes().unwrap(), Modes::default(), "signal {signal}");
    }
}

#[tokio::test]
async fn a_thousand_closes_a_second_are_all_counted_and_keys_are_answered_meanwhile() {
    if !possible() {
        return;
    }
    const CLOSES: u64 = 3000;
    let mut world = World::new();
    world.start_daemon();
    let dispatch = world.dispatch().await;
    let live = world.live(120, 40, &[]);
    live.until_shows("connected since", SOON).unwrap();
    let sent = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        for n in 0..CLOSES {
            if n.is_multiple_of(10) {
                tick.tick().await;
            }
            say(&dispatch, &done(&format!("c{n}"), "u", Verdict::ServeOom)).await;
        }
        dispatch
    });
    let looked = tokio::task::spawn_blocking(move || {
        live.until("the first closes", SOON, |screen| closes(screen) > 0).unwrap();
        live.press(&["Space"]).unwrap();
        let paused = live.until_shows("more have come", SOON).unwrap();
        // The list stands still while the count goes on.
        let more = live.until("a count that goes on", SOON, |s| closes(s) > closes(&paused)).unwrap();
        // A line about what is missing may take one of its lines.
        let (paused, more) = (list(&paused), list(&more));
        assert!(
            !more.is_empty() && (paused.ends_with(&more) || more.ends_with(&paused)),
            "{paused:?} {more:?}"
        );
        live.press(&["?"]).unwrap();
        live.until_shows("this help", SOON).unwrap();
        live.press(&["?", "Space"]).unwrap();
        let all =
            live.until("all closes", SOON, |screen| closes(screen) + missing(screen) == CLOSES).unwrap();
        assert!(!all.contains("PAUSED"), "{all}");
        live.press(&["q"]).unwrap();
        assert_eq!(live.wait(SOON).unwrap(), 0);
    });
    let dispatch = sent.await.unwrap();
    looked.await.unwrap();
    drop(dispatch);
}

/// The number before a word in the text.
fn before(screen: &str, word: &str) -> u64 {
    let Some((head, _)) = screen.split_once(word) else { return 0 };
    let number = head.rsplit([' ', '\n']).next().unwrap_or_default().replace(',', "");
    number.parse().unwrap_or(0)
}

fn closes(screen: &str) -> u64 {
    before(screen, " closes")
}

fn missing(screen: &str) -> u64 {
    before(screen, " messages are missing")
}

/// The closes as they stand there.
fn list(screen: &str) -> Vec<String> {
    screen
        .lines()
        .filter(|line| line.contains("serve OOM-killed  ") && line.contains("signal:9"))
        .map(str::to_owned)
        .collect()
}

/// Whether a text sets a colour of letters, beside the terminal's own (39).
fn coloured(text: &str) -> bool {
    let sequences = text.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
    let mut numbers =
        sequences.flat_map(|(numbers, _)| numbers.split(';')).filter_map(|n| n.parse::<u32>().ok());
    numbers.any(|n| matches!(n, 30..=38 | 90..=97))
}

#[tokio::test]
async fn lines_and_colours_are_as_asked_for() {
    if !possible() {
        return;
    }
    let mut world = World::new();
    world.start_daemon();
    let dispatch = world.dispatch().await;
    let show = |options: &[&str], no_colour: bool| {
        let mut live = Command::new(PROGRAM);
        live.arg("live").arg("--socket").arg(world.socket()).args(options).env("LC_ALL", "C.UTF-8");
        if no_colour {
            live.env("NO_COLOR", "1")
        } else {
            live.env_remove("NO_COLOR")
        };
        Terminal::start(120, 20, &live).unwrap()
    };
    let shown = [show(&[], false), show(&[], true), show(&["--plain"], false), show(&["--plain"], true)];
    let objects = show(&["--json"], false);
    for (n, live) in shown.iter().enumerate() {
        live.until_shows("USER ", SOON).unwrap();
        assert_eq!(live.modes().unwrap().alternate_screen, n < 2);
    }
    // A line says nothing of being connected: closes come until it shows one.
    let mut n = 0;
    let arrived = || {
        shown.iter().all(|live| live.screen().unwrap().contains("serve OOM-killed"))
            && objects.screen().unwrap().lines().any(|line| line.starts_with("{\"time\":\"20"))
    };
    while !arrived() {
        n += 1;
        assert!(n < 1000, "closes do not arrive");
        say(&dispatch, &done(&format!("c{n}"), "u", Verdict::ServeOom)).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let colours: Vec<bool> = shown.iter().map(|live| coloured(&live.screen_in_colour().unwrap())).collect();
    assert_eq!(colours, [true, false, true, false]);
    shown[2].press(&["C-c"]).unwrap();
    assert_eq!(shown[2].wait(SOON).unwrap(), 0);
    let other = world.live(60, 10, &["--user", "nobody", "--short", "2m"]);
    other.until_shows("filter: user:nobody short:2m", SOON).unwrap();
}
