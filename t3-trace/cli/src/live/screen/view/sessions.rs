//! Pane of open sessions: age, heartbeat, rates, and pressure of the user's cgroup.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};
use t3_record::{value::Percent, wire::live::PressureStats};

use super::{
    View, bar,
    table::{self, Field},
    text::{put, thousands},
};
use crate::{
    live::screen::{evidence::bytes, link::Link, model::Focus, sessions::Row},
    present::{text::lasted, verdict_text::Tone},
};

/// PSI values from here on are highlighted, in percent.
const HIGH: f32 = 20.0;

pub fn draw(view: &View<'_>, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let (table, theme) = (&view.model.sessions, view.theme);
    let mut title = format!("Open sessions {}", thousands(table.open));
    if table.open > table.sent() as u64 {
        title.push_str(&format!(", {} listed", table.sent()));
    }
    if !table.known() {
        "Open sessions".clone_into(&mut title);
    }
    if let Some(host) = &table.host {
        title.push_str(&format!("   host PSI some (10 s): {}", all(host)));
    }
    bar(view, area, &title, view.model.focus == Focus::Sessions, buf);
    let (rows, selected) = table.on_screen();
    if rows.is_empty() && area.height > 2 {
        let why = match view.model.source.link {
            Link::Replay { .. } => "No open sessions.",
            Link::Up { has_sessions: true, .. } if table.known() => "No open sessions.",
            Link::Up { has_sessions: true, .. } | Link::Trying => "Waiting for data.",
            _ => "Unknown without t3-trace.",
        };
        put(buf, Rect { y: area.y + 2, height: 1, ..area }, why, theme.dim(), theme);
    }
    let below = Rect { y: area.y + 1, height: area.height - 1, ..area };
    table::draw(view, below, plan(area.width, table.has_resumed()), rows.iter(), selected, buf);
}

const USER: Field<Row> = Field {
    title: "USER",
    width: 12,
    right: false,
    text: |_, row, _| (row.session.user.clone(), Style::new()),
};
const IP: Field<Row> = Field {
    title: "ADDRESS",
    width: 15,
    right: false,
    text: |_, row, _| (row.session.ip.clone(), Style::new()),
};
const AGE: Field<Row> = Field {
    title: "OPEN FOR",
    width: 8,
    right: true,
    text: |_, row, _| (lasted(row.session.age_ms), Style::new()),
};
const RESUMED: Field<Row> = Field { title: "RESUMED", width: 7, right: true, text: resumed };
const HEARTBEAT: Field<Row> = Field { title: "HEARTBEAT", width: 16, right: true, text: heartbeat };
const DOWN: Field<Row> =
    Field { title: "FROM CLIENT", width: 11, right: true, text: |view, row, _| rate(view, row.down_rate) };
const UP: Field<Row> =
    Field { title: "FROM SERVE", width: 10, right: true, text: |view, row, _| rate(view, row.up_rate) };
const PSI: Field<Row> = Field { title: "PSI SOME 10s", width: 0, right: false, text: psi };

const fn plan(width: u16, has_resumed: bool) -> &'static [Field<Row>] {
    match width {
        110.. if has_resumed => &[USER, IP, AGE, RESUMED, HEARTBEAT, DOWN, UP, PSI],
        96.. => &[USER, IP, AGE, HEARTBEAT, DOWN, UP, PSI],
        78.. => &[USER, AGE, HEARTBEAT, DOWN, UP, PSI],
        48.. => &[USER, AGE, HEARTBEAT, PSI],
        _ => &[USER, AGE, HEARTBEAT],
    }
}

fn heartbeat(view: &View<'_>, row: &Row, _: u16) -> (String, Style) {
    if row.session.ending {
        return ("ending".to_owned(), view.theme.dim());
    }
    if let Some(wait) = row.unanswered_ms() {
        return (format!("unanswered {}", lasted(wait)), view.theme.tone(Tone::Bad));
    }
    let Some(rtt) = row.session.live.and_then(|live| live.rtt_us) else {
        return (String::new(), Style::new());
    };
    let text =
        if rtt < 10_000 { format!("{}.{}ms", rtt / 1000, rtt % 1000 / 100) } else { lasted(rtt / 1000) };
    (text, Style::new())
}

/// Restarts of t3-dispatch that the session survived.
fn resumed(_: &View<'_>, row: &Row, _: u16) -> (String, Style) {
    let text = match row.session.resumed {
        0 => String::new(),
        times => format!("{times}x"),
    };
    (text, Style::new())
}

fn rate(view: &View<'_>, rate: Option<u64>) -> (String, Style) {
    match rate {
        None => (String::new(), Style::new()),
        Some(0) => ("-".to_owned(), view.theme.dim()),
        Some(rate) => (format!("{}/s", bytes(rate)), Style::new()),
    }
}

fn psi(view: &View<'_>, row: &Row, width: u16) -> (String, Style) {
    /// Width of the highest value: `mem 100%` and a blank.
    const WORST: usize = 9;
    let Some(pressure) = &row.session.strain else { return (String::new(), Style::new()) };
    let (name, percent) = worst(pressure);
    let text = if percent < 1.0 { "ok".to_owned() } else { format!("{name} {percent:.0}%") };
    let spark = view.theme.spark(&pressure.seconds, usize::from(width).saturating_sub(WORST).min(30));
    let style = if percent >= HIGH { view.theme.tone(Tone::Warning) } else { Style::new() };
    (format!("{text:WORST$}{spark}"), style)
}

fn worst(pressure: &PressureStats) -> (&'static str, f32) {
    let known = [("mem", pressure.mem), ("io", pressure.io), ("cpu", pressure.cpu)];
    let known = known.into_iter().filter_map(|(name, percent)| Some((name, percent?.0)));
    known.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("", 0.0))
}

fn all(pressure: &PressureStats) -> String {
    let known = [("mem", pressure.mem), ("io", pressure.io), ("cpu", pressure.cpu)];
    let known = known
        .into_iter()
        .filter_map(|(name, percent)| Some(format!("{name} {:.0}%", percent.map(|Percent(p)| p)?)));
    known.collect::<Vec<_>>().join("  ")
}
