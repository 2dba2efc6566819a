//! `t3-trace live` in a terminal with the real daemon: display, daemon restart, resize, flood, and
//! restored terminal modes. Needs tmux.

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

/// Whether tmux is available; CI requires it.
fn possible() -> bool {
    let Err(error) = Terminal::possible() else { return true };
    assert!(std::env::var_os("CI").is_none(), "CI must run this: {error}");
    eprintln!("skipped: {error}");
    false
}

struct Fixture {
    dir: tempfile::TempDir,
    daemon: Option<Process>,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), daemon: None }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("evidence.sock")
    }

    fn start_daemon(&mut self) {
        let mut daemon = Command::new(PROGRAM);
        daemon.args(["daemon", "--no-ebpf", "--log", "stderr", "--socket"]).arg(self.socket());
        daemon.arg("--state-dir").arg(self.dir.path().join("state"));
        self.daemon = Some(Process::start(daemon).unwrap());
    }

    /// Kills it, as in a crash: the socket file stays.
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
        send(&socket, &ToTrace::Hello { v: VERSION, role: Role::Dispatch }).await;
        socket
    }

    fn live(&self, width: u16, height: u16, options: &[&str]) -> Terminal {
        let mut live = Command::new(PROGRAM);
        live.arg("live").arg("--socket").arg(self.socket()).args(options).env("LC_ALL", "C.UTF-8");
        // The environment of the test must not matter.
        live.env_remove("NO_COLOR");
        Terminal::start(width, height, &live).unwrap()
    }
}

async fn send(socket: &UnixSeqpacket, message: &ToTrace) {
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
        kept: false,
        resumed: 0,
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
    ToTrace::Done { conn: conn.to_owned(), record: Box::new(record), lost: false, again: false }
}

#[tokio::test]
async fn live_survives_a_daemon_restart_and_a_resize() {
    if !possible() {
        return;
    }
    let mut fixture = Fixture::new();
    let live = fixture.live(100, 30, &[]);
    live.until_shows("Not connected since", SOON).unwrap();
    let modes = live.modes().unwrap();
    assert!(modes.raw && modes.alternate_screen && !modes.mouse, "{modes:?}");

    fixture.start_daemon();
    live.until_shows("connected since", SOON).unwrap();
    let dispatch = fixture.dispatch().await;
    send(&dispatch, &session("c1", "wizard")).await;
    send(&dispatch, &session("c2", "alice")).await;
    let waiting = StatsReport {
        conn: "c2".to_owned(),
        down_bytes: 70,
        up_bytes: 9,
        rtt_ns: None,
        waiting_since: Some(monotonic().saturating_sub(60_000_000_000)),
        hb_by: None,
    };
    send(&dispatch, &ToTrace::Pulses { pulses: vec![waiting] }).await;
    let screen = live.until_shows("unanswered 1m", SOON).unwrap();
    assert!(screen.contains("Open sessions 2") && screen.contains("wizard"), "{screen}");

    send(&dispatch, &done("c1", "wizard", Verdict::ServeKilled)).await;
    live.until_shows("serve killed by signal", SOON).unwrap();
    live.press(&["Enter"]).unwrap();
    live.until_shows("serve process killed by SIGKILL (9)", SOON).unwrap();
    live.press(&["Escape"]).unwrap();
    live.until("the lists again", SOON, |screen| screen.contains("> Closes")).unwrap();

    live.resize(60, 12).unwrap();
    let small = live.until("the small screen", SOON, |s| s.contains("EVENT") && !s.contains("Open sessions"));
    let small = small.unwrap();
    assert!(
        small.contains("serve killed by signal") && small.lines().all(|line| line.chars().count() <= 60),
        "{small}"
    );
    live.resize(100, 30).unwrap();
    live.until_shows("Open sessions 1", SOON).unwrap();

    fixture.kill_daemon();
    live.until_shows("NOT CONNECTED", SOON).unwrap();
    live.until_shows("Unknown without t3-trace.", SOON).unwrap();
    fixture.start_daemon();
    live.until_shows("t3-trace restarted: disconnected from", SOON).unwrap();
    let dispatch = fixture.dispatch().await;
    send(&dispatch, &done("c3", "bob", Verdict::ServeOom)).await;
    let screen = live.until_shows("serve OOM-killed", SOON).unwrap();
    assert!(screen.contains("serve killed by signal") && screen.contains("2 closes"), "{screen}");

    // Ctrl-Z. The process group has no shell here, so the kernel ignores the stop signal.
    live.press(&["C-z"]).unwrap();
    live.press(&["?"]).unwrap();
    live.until_shows("pause the list; counting continues", SOON).unwrap();
    live.press(&["q"]).unwrap();
    assert_eq!(live.wait(SOON).unwrap(), 0);
    assert_eq!(live.modes().unwrap(), Modes::default());
    assert!(!live.screen().unwrap().contains("t3-trace live"), "the alternate screen was left");
}

#[test]
fn each_signal_restores_the_terminal() {
    if !possible() {
        return;
    }
    let fixture = Fixture::new();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let live = fixture.live(80, 24, &[]);
        live.until_shows("No closes yet.", SOON).unwrap();
        assert!(live.modes().unwrap().raw);
        live.signal(signal).unwrap();
        assert_eq!(live.wait(SOON).unwrap(), 0, "signal {signal}");
        assert_eq!(live.modes().unwrap(), Modes::default(), "signal {signal}");
    }
}

#[tokio::test]
async fn a_flood_is_counted_completely_and_keys_work_during_it() {
    if !possible() {
        return;
    }
    const CLOSES: u64 = 3000;
    let mut fixture = Fixture::new();
    fixture.start_daemon();
    let dispatch = fixture.dispatch().await;
    let live = fixture.live(120, 40, &[]);
    live.until_shows("connected since", SOON).unwrap();
    let sent = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        for n in 0..CLOSES {
            if n.is_multiple_of(10) {
                tick.tick().await;
            }
            send(&dispatch, &done(&format!("c{n}"), "u", Verdict::ServeOom)).await;
        }
        dispatch
    });
    let watcher = tokio::task::spawn_blocking(move || {
        live.until("the first closes", SOON, |screen| closes(screen) > 0).unwrap();
        live.press(&["Space"]).unwrap();
        let paused = live.until_shows("PAUSED, ", SOON).unwrap();
        // The list is paused while counting continues.
        let more = live.until("a higher count", SOON, |s| closes(s) > closes(&paused)).unwrap();
        // An alert about dropped messages may take one of its lines.
        let (paused, more) = (list(&paused), list(&more));
        assert!(
            !more.is_empty() && (paused.ends_with(&more) || more.ends_with(&paused)),
            "{paused:?} {more:?}"
        );
        live.press(&["?"]).unwrap();
        live.until_shows("this help", SOON).unwrap();
        live.press(&["?", "Space"]).unwrap();
        let all =
            live.until("all closes", SOON, |screen| closes(screen) + dropped(screen) == CLOSES).unwrap();
        assert!(!all.contains("PAUSED"), "{all}");
        live.press(&["q"]).unwrap();
        assert_eq!(live.wait(SOON).unwrap(), 0);
    });
    let dispatch = sent.await.unwrap();
    watcher.await.unwrap();
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

fn dropped(screen: &str) -> u64 {
    before(screen, " messages dropped")
}

/// The rows of the list of closes.
fn list(screen: &str) -> Vec<String> {
    screen
        .lines()
        .filter(|line| line.contains("serve OOM-killed  ") && line.contains("signal:9"))
        .map(str::to_owned)
        .collect()
}

/// Whether a text sets a foreground colour other than the default (39).
fn coloured(text: &str) -> bool {
    let sequences = text.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
    let mut numbers =
        sequences.flat_map(|(numbers, _)| numbers.split(';')).filter_map(|n| n.parse::<u32>().ok());
    numbers.any(|n| matches!(n, 30..=38 | 90..=97))
}

#[tokio::test]
async fn plain_json_and_no_color_select_the_output() {
    if !possible() {
        return;
    }
    let mut fixture = Fixture::new();
    fixture.start_daemon();
    let dispatch = fixture.dispatch().await;
    let show = |options: &[&str], no_colour: bool| {
        let mut live = Command::new(PROGRAM);
        live.arg("live").arg("--socket").arg(fixture.socket()).args(options).env("LC_ALL", "C.UTF-8");
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
    // Plain output does not report a connection: send closes until one is shown.
    let mut n = 0;
    let arrived = || {
        // The full screen has the words, lines have the verdict.
        let has = |live: &Terminal, text| live.screen().unwrap().contains(text);
        shown[..2].iter().all(|live| has(live, "serve OOM-killed"))
            && shown[2..].iter().all(|live| has(live, "serve_oom"))
            && objects.screen().unwrap().lines().any(|line| line.starts_with("{\"schema\":2,\"time\":\"20"))
    };
    while !arrived() {
        n += 1;
        assert!(n < 1000, "closes do not arrive");
        send(&dispatch, &done(&format!("c{n}"), "u", Verdict::ServeOom)).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let colours: Vec<bool> = shown.iter().map(|live| coloured(&live.screen_in_colour().unwrap())).collect();
    assert_eq!(colours, [true, false, true, false]);
    shown[2].press(&["C-c"]).unwrap();
    assert_eq!(shown[2].wait(SOON).unwrap(), 0);
    let other = fixture.live(60, 10, &["--user", "nobody", "--short", "2m"]);
    other.until_shows("filter: user:nobody short:2m", SOON).unwrap();
}
