//! Screens as golden text files, which `cargo xtask docs` updates; behaviour under a flood.

use std::{path::Path, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend};
use t3_record::{
    Confidence, How, OpenRecord, Segment, Verdict,
    value::Percent,
    vocabulary::KernelSource,
    wire::{Hook, Status},
};

use super::{
    Screen,
    closes::KEPT,
    frame_limiter::FRAME,
    keys,
    model::Effect,
    testing::{NOON, daemon, direct, killed, record, screen, sessions, shown, text},
};
use crate::{
    live::{replay::Collector, source::Item},
    present::via::ViaFilter,
};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 10)];

/// Compares with the golden file, at each size.
fn looks_like(name: &str, screen: &mut Screen) {
    for (width, height) in SIZES {
        let file = format!("src/live/screen/tests/{name}-{width}x{height}.txt");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
        let now = shown(screen, width, height);
        if std::env::var_os("T3_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(now == kept, "{file} differs from the screen (`cargo xtask docs` updates it):\n{now}");
    }
}

fn press(screen: &mut Screen, keys: &[KeyCode]) {
    for key in keys {
        assert_eq!(screen.key(KeyEvent::new(*key, KeyModifiers::NONE)), Effect::Nothing);
    }
}

fn write(screen: &mut Screen, text: &str) {
    press(screen, &text.chars().map(KeyCode::Char).collect::<Vec<_>>());
}

fn closed(n: u64, verdict: Verdict, segment: Segment) -> Item {
    let user = ["alice", "bob", "wizard"][usize::try_from(n % 3).unwrap()];
    let mut close = record(&format!("c{n}"), user, verdict, segment);
    close.dur_ms = 1000 * (n + 1) * (n + 1);
    close.how = Some(How::Fin);
    close.hb_rtt_ms = Some(n);
    close.psi_io = Some(Percent(0.0));
    if n.is_multiple_of(4) {
        close.confidence = Some(Confidence::Likely);
        close.psi_io = Some(Percent(33.0));
    }
    Item::Closed(Box::new(close), NOON + n)
}

/// Connected, with sessions and closes of several kinds, the last one a kill.
fn busy() -> Screen {
    let mut screen = screen();
    screen.receive([Item::Connected(daemon(1)), Item::Sessions(Box::new(sessions(1)))]);
    screen.receive([Item::Sessions(Box::new(sessions(2)))]);
    for n in 0..30 {
        let (verdict, segment) = match n % 7 {
            0..4 => (Verdict::ClientClosed, Segment::Downstream),
            4 => (Verdict::PathStalled, Segment::Downstream),
            5 => (Verdict::ServeStalled, Segment::Devvm),
            _ => (Verdict::ServeOom, Segment::Serve),
        };
        screen.receive([closed(n, verdict, segment)]);
    }
    screen.receive([Item::Closed(Box::new(killed()), NOON + 31)]);
    screen.tick(NOON + 2);
    screen
}

#[test]
fn normal() {
    looks_like("normal", &mut busy());
}

#[test]
fn empty() {
    let mut screen = screen();
    looks_like("empty-trying", &mut screen);
    let mut none = sessions(1);
    (none.open, none.sessions) = (0, vec![]);
    screen.receive([Item::Connected(daemon(1)), Item::Sessions(Box::new(none))]);
    looks_like("empty", &mut screen);
}

#[test]
fn disconnected_and_back() {
    let mut screen = busy();
    screen.tick(NOON + 10);
    screen.receive([Item::Disconnected(
        "no daemon at /run/t3-trace/evidence.sock (is t3-trace.service running?)".to_owned(),
    )]);
    screen.tick(NOON + 20);
    looks_like("disconnected", &mut screen);
    screen.receive([Item::Connected(daemon(2)), Item::Sessions(Box::new(sessions(9)))]);
    screen.tick(NOON + 24);
    looks_like("restarted", &mut screen);
    screen.tick(NOON + 90);
    screen.receive([Item::Sessions(Box::new(sessions(80)))]);
    assert!(!shown(&mut screen, 80, 24).contains("restarted"), "the outage is no longer shown");
}

#[test]
fn lost_events() {
    let mut screen = busy();
    let mut close = killed();
    (close.conn, close.lost) = ("other".to_owned(), Some(1234));
    screen.receive([Item::Skipped(37), Item::Closed(Box::new(close), NOON + 40)]);
    screen.tick(NOON + 60);
    screen.receive([Item::Sessions(Box::new(sessions(60)))]);
    looks_like("lost", &mut screen);
}

#[test]
fn without_kernel_evidence_and_without_dispatch() {
    let mut screen = screen();
    let hook = Hook { name: "all".to_owned(), attached: None, why: Some("disabled by --no-ebpf".to_owned()) };
    let status = Status { kernel: Some(KernelSource::Off), hooks: vec![hook], ..Status::default() };
    let mut alone = sessions(1);
    (alone.dispatch, alone.open, alone.sessions) = (false, 0, vec![]);
    screen.receive([
        Item::Connected(daemon(1)),
        Item::Status(Box::new(status)),
        Item::Sessions(Box::new(alone)),
    ]);
    looks_like("without-kernel", &mut screen);
}

#[test]
fn paused_and_filtered() {
    let mut screen = busy();
    write(&mut screen, " /user:wizard");
    looks_like("typing", &mut screen);
    press(&mut screen, &[KeyCode::Enter]);
    for n in 100..104 {
        screen.receive([closed(n, Verdict::ClientLeft, Segment::Downstream)]);
    }
    looks_like("paused", &mut screen);
    write(&mut screen, "/verdict:nonsense");
    press(&mut screen, &[KeyCode::Enter]);
    assert!(shown(&mut screen, 120, 40).contains("unknown verdict \"nonsense\"; for example serve_oom"));
    press(&mut screen, &[KeyCode::Esc]);
    write(&mut screen, "x");
    write(&mut screen, "/nothing-says-this");
    press(&mut screen, &[KeyCode::Enter]);
    assert!(shown(&mut screen, 80, 24).contains("No close matches the filter (31 in total); x clears it."));
}

#[test]
fn detail_of_a_close() {
    let mut screen = busy();
    press(&mut screen, &[KeyCode::Up, KeyCode::Enter]);
    looks_like("detail", &mut screen);
    press(&mut screen, &[KeyCode::End]);
    assert!(shown(&mut screen, 80, 24).contains("ray=8c1f0000abcd1234-LHR"), "the end can be reached");
    press(&mut screen, &[KeyCode::Left]);
    assert!(shown(&mut screen, 80, 24).contains("conn c29"));
    press(&mut screen, &[KeyCode::Right, KeyCode::Right]);
    assert!(shown(&mut screen, 80, 24).contains("conn k3v9q0a1b2c3d"), "Right stays at the last close");
}

#[test]
fn help_messages_and_sessions() {
    let mut screen = busy();
    write(&mut screen, "?");
    looks_like("help", &mut screen);
    write(&mut screen, "m");
    assert!(shown(&mut screen, 80, 24).contains("No messages."));
    screen.receive([
        Item::Message("journalctl exited".to_owned()),
        Item::Message("journalctl exited".to_owned()),
    ]);
    assert!(shown(&mut screen, 80, 24).contains("12:00:02  journalctl exited (2 times)"));
    press(&mut screen, &[KeyCode::Esc, KeyCode::Tab, KeyCode::Down]);
    screen.tick(NOON + 30);
    screen.receive([Item::Sessions(Box::new(sessions(3)))]);
    looks_like("sessions", &mut screen);
    press(&mut screen, &[KeyCode::Enter]);
    assert!(shown(&mut screen, 80, 24).contains("match filter: user:wizard"));
}

#[test]
fn every_size_works() {
    let mut screen = busy();
    screen.receive([Item::Skipped(1), Item::Disconnected("hos\u{1b}[2Jtile".to_owned())]);
    for keys in ["", "?", "m", "m", "\t", "\t", "/\u{754c}\u{754c}"] {
        for key in keys.chars() {
            let code = if key == '\t' { KeyCode::Tab } else { KeyCode::Char(key) };
            press(&mut screen, &[code]);
        }
        for (width, height) in (0..45).map(|n| (n, n / 3)).chain([(1, 60), (200, 1), (300, 2), (250, 100)]) {
            let shown = shown(&mut screen, width, height);
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
        }
    }
}

#[test]
fn hostile_names_do_not_break_columns() {
    let mut screen = screen();
    for (n, user) in [
        "ok",
        "\u{202e}x\u{1b}[2J\u{754c}\u{754c}\u{754c}\u{754c}\u{754c}",
        "e\u{301}\u{301}\u{301}",
        "a\nb\tc\u{200b}",
    ]
    .iter()
    .enumerate()
    {
        let close = record(&n.to_string(), user, Verdict::ServeOom, Segment::Serve);
        screen.receive([Item::Closed(Box::new(close), NOON)]);
    }
    let shown = shown(&mut screen, 80, 24);
    let lasted: Vec<usize> = shown
        .lines()
        .filter(|line| line.contains("serve OOM-killed  "))
        .map(|line| ratatui::text::Span::raw(line.split("3m12s").next().unwrap()).width())
        .collect();
    assert_eq!(lasted.len(), 4, "{shown}");
    assert!(lasted.iter().all(|column| *column == lasted[0]), "{shown}");
}

/// 1000 closes per second for 100 seconds: frames are limited, memory is bounded, all are counted.
#[test]
fn a_flood_is_counted_completely_and_frames_are_limited() {
    const CLOSES: u64 = 100_000;
    const BATCH: u64 = 50;
    let mut screen = screen();
    let Ok(mut terminal) = Terminal::new(TestBackend::new(60, 12));
    let (mut frames, mut now) = (0_u64, Duration::ZERO);
    for first in (0..CLOSES).step_by(usize::try_from(BATCH).unwrap()) {
        screen.receive((first..first + BATCH).map(|n| {
            let verdict = Verdict::ALL[usize::try_from(n).unwrap() % Verdict::ALL.len()];
            Item::Closed(Box::new(record(&n.to_string(), "u", verdict, Segment::Serve)), NOON)
        }));
        now += Duration::from_millis(BATCH);
        screen.tick(NOON + now.as_secs());
        let Ok(drawn) = screen.draw(&mut terminal, now);
        frames += u64::from(drawn);
    }
    let most = u64::try_from(now.as_millis() / FRAME.as_millis()).unwrap() + 1;
    assert!(frames > most / 2 && frames <= most, "{frames} frames of at most {most}");
    assert_eq!(screen.model.total(), CLOSES);
    assert_eq!(screen.model.closes.counts(), (KEPT, KEPT));
    let each = CLOSES / Verdict::ALL.len() as u64;
    assert!(screen.model.totals().iter().all(|(_, count)| (each..=each + 1).contains(count)));
    assert_eq!(screen.model.totals().len(), Verdict::ALL.len());
    // The last frame is drawn.
    let wait = screen.wait(now).unwrap_or_default();
    let _ = screen.draw(&mut terminal, now + wait);
    assert_eq!(screen.wait(now + wait), None);
    assert!(text(&terminal).contains("100,000 closes"), "{}", text(&terminal));
    assert!((screen.model.rate() - 1000.0).abs() < 1.0, "{}", screen.model.rate());
}

/// docs/LIVE.md shows the current screen and every key.
#[test]
fn the_docs_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/LIVE.md");
    let mut screen = docs_screen();
    let fenced = |text: String| format!("```text\n{}\n```\n", text.trim_end());
    let lists = fenced(shown(&mut screen, 112, 26));
    press(&mut screen, &[KeyCode::Up, KeyCode::Enter]);
    let detail = fenced(shown(&mut screen, 112, 38));
    let row = |(keys, what): &(&str, &str)| {
        let keys: Vec<String> = keys.split(' ').map(|key| format!("`{key}`")).collect();
        format!("| {} | {what} |\n", keys.join(" "))
    };
    let keys = format!("| key | does |\n|---|---|\n{}", keys::TABLE.iter().map(row).collect::<String>());
    let mut expected = std::fs::read_to_string(&path).unwrap();
    for (name, text) in [("screen", lists), ("detail", detail), ("keys", keys)] {
        let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
        let from = expected.find(&begin).expect("the page has the begin mark") + begin.len();
        let to = expected.find(&end).expect("the page has the end mark");
        expected.replace_range(from..to, &text);
    }
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(page == expected, "run `cargo xtask docs` and commit docs/LIVE.md");
}

/// The screen of the page.
fn docs_screen() -> Screen {
    let mut screen = screen();
    screen.receive([Item::Connected(daemon(1))]);
    for second in 1..=2 {
        let mut sent = sessions(second);
        sent.sessions.truncate(3);
        sent.open = 3;
        screen.receive([Item::Sessions(Box::new(sent))]);
    }
    let sent: [(&str, Verdict, Segment, How, u64, f32); 8] = [
        ("alice", Verdict::ClientClosed, Segment::Downstream, How::WsClose(1001), 2_530_000, 0.0),
        ("bob", Verdict::PathStalled, Segment::Downstream, How::HeartbeatLost, 61_000, 0.3),
        ("alice", Verdict::ClientLeft, Segment::Downstream, How::Fin, 754_000, 0.0),
        ("wizard", Verdict::ServeStalled, Segment::Devvm, How::Stall, 903_000, 71.0),
        ("wizard", Verdict::ServeStalled, Segment::Devvm, How::Stall, 34_000, 64.0),
        ("bob", Verdict::ClientClosed, Segment::Downstream, How::WsClose(1000), 8_100_000, 1.2),
        ("alice", Verdict::ClientClosed, Segment::Downstream, How::WsClose(1001), 12_000, 0.0),
        ("bob", Verdict::ServeExited, Segment::Serve, How::Exit(0), 5_000_000, 0.0),
    ];
    for (n, (user, verdict, segment, how, dur_ms, psi)) in (0..).zip(sent) {
        let mut close = record(&format!("c{n}"), user, verdict, segment);
        (close.how, close.dur_ms, close.psi_io, close.hb_rtt_ms) =
            (Some(how), dur_ms, Some(Percent(psi)), Some(2));
        let is_proven = !matches!(verdict, Verdict::PathStalled | Verdict::ServeStalled);
        close.confidence = Some(if is_proven { Confidence::Proven } else { Confidence::Likely });
        close.hb_wait_ms = (verdict == Verdict::ServeStalled).then_some(15_003);
        screen.tick(NOON + 211 * n);
        screen.receive([Item::Closed(Box::new(close), NOON + 211 * n)]);
    }
    screen.tick(NOON + 1700);
    screen.receive([Item::Closed(Box::new(killed()), NOON + 1700)]);
    screen.tick(NOON + 1702);
    let mut sent = sessions(3);
    sent.sessions.truncate(3);
    sent.open = 3;
    screen.receive([Item::Sessions(Box::new(sent))]);
    screen
}

#[test]
fn a_replay_names_its_time_and_what_no_record_has() {
    let mut records = Collector::new(NOON);
    for (n, minutes) in [(1, 50), (2, 20), (3, 1)] {
        let mut close = record(&format!("k{n}"), "alice", Verdict::ServeKilled, Segment::Serve);
        close.how = Some(How::Signal(9));
        records.close(Box::new(close), (NOON - minutes * 60) * 1000);
    }
    let open = OpenRecord::new("bob".to_owned(), "192.0.2.7".to_owned(), "c1".to_owned());
    records.open(open, (NOON - 63) * 1000);
    let mut later = record("c2", "wizard", Verdict::ServeOom, Segment::Serve);
    later.dur_ms = 7_200_000;
    records.close(Box::new(later), (NOON + 600) * 1000);
    records.host(Some("devvm2"));
    records.host(Some("devvm9"));
    let mut screen = screen();
    screen.model.replay(&records.finish("Loki", true));
    looks_like("replay", &mut screen);
    press(&mut screen, &[KeyCode::Up, KeyCode::Enter]);
    assert!(shown(&mut screen, 80, 24).contains("alice's serve was killed by SIGKILL"));
}

/// A connection to a watched port that closed at `at`.
fn direct_closed(conn: &str, rest: &str, at: u64) -> Item {
    let mut record = direct(rest);
    record.conn = conn.to_owned();
    Item::Direct(Box::new(record), at)
}

#[test]
fn direct_connections() {
    let mut screen = screen();
    screen.model.via = ViaFilter::All;
    screen.receive([Item::Connected(daemon(1)), Item::Sessions(Box::new(sessions(1)))]);
    screen.receive([closed(3, Verdict::ClientClosed, Segment::Downstream)]);
    let known = " user=ann client_pid=881 client_comm=nginx psi_io=33.0";
    screen.receive([direct_closed("d1", known, NOON + 4), direct_closed("d1", known, NOON + 4)]);
    let older = " verdict=client_left segment=downstream how=fin confidence=likely dur_min=true";
    let line = direct("").to_line().replace(" verdict=serve_killed segment=serve", "");
    let line = line.replace(" how=signal:9 confidence=proven", "") + older;
    let mut left = t3_record::TcpCloseRecord::from_line(&line).unwrap();
    left.conn = "d2".to_owned();
    screen.receive([Item::Direct(Box::new(left), NOON + 5)]);
    looks_like("direct", &mut screen);
    assert_eq!((screen.model.total(), screen.model.total_direct()), (3, 2), "each once");
    press(&mut screen, &[KeyCode::Up, KeyCode::Up, KeyCode::Enter]);
    looks_like("direct-detail", &mut screen);
    press(&mut screen, &[KeyCode::Esc, KeyCode::Char('/')]);
    write(&mut screen, "port:8080 user:ann");
    press(&mut screen, &[KeyCode::Enter]);
    assert!(shown(&mut screen, 80, 24).contains("1 of 3 match filter: port:8080 user:ann"));
}

#[test]
fn the_carrier_selects_what_is_shown_and_missed() {
    for (via, total, warns) in
        [(ViaFilter::Dispatch, 1, true), (ViaFilter::Direct, 1, false), (ViaFilter::All, 2, true)]
    {
        let mut screen = screen();
        screen.model.via = via;
        let mut none = sessions(1);
        (none.dispatch, none.open, none.sessions) = (false, 0, vec![]);
        screen.receive([Item::Connected(daemon(1)), Item::Sessions(Box::new(none))]);
        let empty = shown(&mut screen, 120, 40);
        assert_eq!(empty.contains("t3-dispatch is not connected"), warns, "{via:?}: {empty}");
        assert_eq!(empty.contains("No direct connection has closed yet"), !via.has_sessions(), "{empty}");
        screen.receive([closed(1, Verdict::ClientLeft, Segment::Downstream)]);
        screen.receive([direct_closed("d1", "", NOON)]);
        assert_eq!(screen.model.total(), total, "{via:?}");
    }
}
