//! Records, sessions and a terminal in memory for the tests of this folder.

use ratatui::{Terminal, backend::TestBackend};
use t3_record::{
    Cause, CloseRecord, Confidence, How, KernelSource, Segment, TcpCloseRecord, Verdict,
    value::Percent,
    vocabulary::{ClosedBy, HeartbeatSource, LegEnd},
    wire::live::{OpenSession, PressureStats, SessionStats, Sessions},
};

use super::{Screen, filter::Filter, model::Model, view::text::Theme};
use crate::live::source::Daemon;

/// A time whose time of day is 12:00:00.
pub(super) const NOON: u64 = 1_700_049_600;

/// The time of day in UTC.
pub(super) fn utc(secs: u64) -> String {
    format!("{:02}:{:02}:{:02}", secs / 3600 % 24, secs / 60 % 60, secs % 60)
}

/// A day that never changes.
pub(super) fn day(_: u64) -> String {
    "2023-11-15".to_owned()
}

/// A record with the mandatory keys only.
pub(super) fn record(conn: &str, user: &str, verdict: Verdict, segment: Segment) -> CloseRecord {
    CloseRecord::new(
        user.to_owned(),
        "192.0.2.7".to_owned(),
        192_000,
        Cause::UpstreamClosed,
        verdict,
        segment,
        conn.to_owned(),
        KernelSource::Tracepoint,
    )
}

/// A record with most keys.
pub(super) fn killed() -> CloseRecord {
    let mut killed = record("k3v9q0a1b2c3d", "wizard", Verdict::ServeKilled, Segment::Serve);
    killed.how = Some(How::Signal(9));
    killed.confidence = Some(Confidence::Proven);
    killed.closed_by = Some(ClosedBy::Upstream);
    (killed.down_end, killed.up_end) = (Some(LegEnd::FinOut), Some(LegEnd::RstIn));
    killed.chain = "up:peer_sig9@-2,up:rst_in@0,down:fin_out@1".parse().ok();
    (killed.hb_n, killed.hb_rtt_ms, killed.hb_rtt_max_ms) = (Some(38), Some(12), Some(48));
    (killed.hb_gap_ms, killed.hb_period_ms) = (Some(2000), Some(5000));
    (killed.psi_io, killed.psi_mem, killed.psi_cpu) =
        (Some(Percent(45.2)), Some(Percent(0.4)), Some(Percent(3.0)));
    (killed.host_psi_io, killed.host_psi_mem) = (Some(Percent(12.0)), Some(Percent(0.0)));
    (killed.peer_pid, killed.peer_comm) = (Some(4242), Some("node".to_owned()));
    killed.peer_exit = Some(t3_record::evidence::Fate::Signal(9));
    killed.killed_by = Some("systemd[1]".to_owned());
    (killed.mem_current, killed.mem_max) = (Some(900_000_000), Some(25_769_803_776));
    (killed.up_bytes, killed.up_msgs, killed.up_idle_ms) = (Some(918_231), Some(412), Some(4));
    (killed.down_bytes, killed.down_msgs) = (Some(20_114), Some(77));
    (killed.down_rtt_us, killed.down_retrans, killed.up_rtt_us) = (Some(412), Some(2), Some(23));
    killed.ray = Some("8c1f0000abcd1234-LHR".to_owned());
    killed.self_lag_ms = Some(3);
    killed
}

/// A connection to port 8080 whose process was killed, with these further keys.
pub(super) fn direct(rest: &str) -> TcpCloseRecord {
    let line = "tcp close ip=203.0.113.7 dur_ms=61873 cause=upstream_closed verdict=serve_killed segment=serve \
                conn=d4k3v9q0a1b2c port=8080 via=direct kernel=tracepoint how=signal:9 confidence=proven \
                peer_unit=nginx.service chain=up:peer_sig9@-1,up:fin_in@0";
    TcpCloseRecord::from_line(&format!("{line}{rest}")).unwrap()
}

pub(super) fn daemon(pid: i32) -> Daemon {
    Daemon { socket: "/run/x".into(), pid: Some(pid), kernel: KernelSource::Kprobe, has_sessions: true }
}

fn strain(io: f32, seconds: Vec<u8>) -> PressureStats {
    PressureStats { mem: Some(Percent(0.2)), io: Some(Percent(io)), cpu: Some(Percent(3.0)), seconds }
}

/// A report: a healthy session, one with an unanswered ping, one that ends, one with a hostile
/// name.
pub(super) fn sessions(second: u64) -> Sessions {
    let open = |conn: &str, user: &str, age_s: u64, bytes: u64| OpenSession {
        conn: conn.to_owned(),
        user: user.to_owned(),
        ip: "203.0.113.7".to_owned(),
        age_ms: (age_s + second) * 1000,
        live: Some(SessionStats {
            down_bytes: bytes / 10 * second,
            up_bytes: bytes * second,
            rtt_us: Some(2400),
            wait_ms: None,
            hb_by: Some(HeartbeatSource::Rhythm),
        }),
        strain: Some(strain(0.4, vec![0; 30])),
        ..OpenSession::default()
    };
    let resumed = OpenSession { resumed: 2, ..open("c1", "alice", 192, 1_250_000) };
    let mut unanswered = open("c2", "wizard", 7500, 0);
    unanswered.live = Some(SessionStats { wait_ms: Some(12_300 + 1000 * second), ..SessionStats::default() });
    unanswered.strain = Some(strain(61.0, (0..30).map(|n| n * 3).collect()));
    let ending = OpenSession { ending: true, strain: None, ..open("c3", "bob", 60, 5000) };
    Sessions {
        at: second * 1_000_000_000,
        open: 4,
        dispatch: true,
        host: Some(strain(12.0, vec![12; 30])),
        more: false,
        sessions: vec![
            resumed,
            unanswered,
            ending,
            open("c4", "\u{202e}x\u{1b}[2J\u{754c}\u{754c}\u{754c}\u{754c}\u{754c}\u{754c}", 5, 120),
        ],
    }
}

/// A screen at noon, without colours.
pub(super) fn screen() -> Screen {
    let theme = Theme { colour: false, unicode: true };
    Screen::new(Model::new(NOON, Filter::default()), theme, utc, day)
}

/// The text of a screen of this size, without blanks at line ends.
pub(super) fn shown(screen: &mut Screen, width: u16, height: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    screen.changed();
    let wait = screen.wait(std::time::Duration::ZERO).unwrap_or_default();
    let Ok(drawn) = screen.draw(&mut terminal, wait);
    assert!(drawn);
    text(&terminal)
}

/// The text of a terminal.
pub(super) fn text(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..buffer.area.width {
            if skip == 0 {
                line.push_str(buffer[(x, y)].symbol());
                skip = ratatui::text::Span::raw(buffer[(x, y)].symbol()).width().max(1);
            }
            skip -= 1;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
