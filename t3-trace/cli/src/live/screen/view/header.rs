//! First line (connection, closes, rate, kernel evidence, time) and the alerts below it.

use ratatui::{buffer::Buffer, layout::Rect};
use t3_record::vocabulary::KernelSource;

use super::{
    View,
    text::{put, put_right, thousands, wrap},
};
use crate::{
    live::{screen::link::Link, source::RETRY},
    present::{verdict_text::Tone, via::ViaFilter},
};

/// Draws the first line.
pub fn draw(view: &View<'_>, area: Rect, buf: &mut Buffer) {
    let (model, theme) = (view.model, view.theme);
    buf.set_style(area, theme.selected());
    let clock = (view.clock)(model.now);
    let (state, tone) = match &model.source.link {
        Link::Trying => ("connecting".to_owned(), Tone::Warning),
        Link::Down { .. } => ("NOT CONNECTED".to_owned(), Tone::Bad),
        Link::Up { since, .. } if area.width >= 80 => {
            (format!("connected since {}", (view.clock)(*since)), Tone::Fine)
        }
        Link::Up { .. } => ("connected".to_owned(), Tone::Fine),
        Link::Replay { .. } => (format!("REPLAY of {}", (view.day)(model.now)), Tone::Bad),
    };
    let is_replay = matches!(model.source.link, Link::Replay { .. });
    let mut closes = format!("{} closes", thousands(model.total()));
    if model.via == ViaFilter::All {
        closes.push_str(&format!(", {} direct", thousands(model.total_direct())));
    }
    let kernel = match model.source.kernel {
        Some(KernelSource::Kprobe | KernelSource::Tracepoint) => Some("kernel evidence: yes".to_owned()),
        Some(KernelSource::Off | KernelSource::Timeout) => Some("kernel evidence: NO".to_owned()),
        None => None,
    };
    let rate = format!("{:.1}/s", model.rate());
    let title = if area.width >= 60 { " t3-trace live" } else { " live" };
    let right = u16::try_from(clock.len()).unwrap_or(0) + 1;
    let room = area.right().saturating_sub(right + 2);
    let mut x = area.x + put(buf, area, title, theme.strong().patch(theme.selected()), theme);
    let parts = [
        Some((state, tone)),
        Some((closes, Tone::Fine)),
        (!is_replay).then_some((rate, Tone::Fine)),
        kernel.map(|text| (text, Tone::Fine)),
    ];
    for (n, (text, tone)) in parts.into_iter().flatten().enumerate() {
        let width = u16::try_from(text.len()).unwrap_or(u16::MAX);
        if n > 0 && x + 3 + width > room {
            break;
        }
        let style = if tone == Tone::Bad { theme.strong().patch(theme.selected()) } else { theme.selected() };
        x += 3 + put(buf, Rect { x: x + 3, width: room.saturating_sub(x + 3), ..area }, &text, style, theme);
    }
    put_right(buf, Rect { width: area.width.saturating_sub(1), ..area }, &clock, theme.selected(), theme);
}

/// Alerts about the data, the most important first.
#[must_use]
pub fn alerts(view: &View<'_>) -> Vec<(Tone, String)> {
    let (source, table, now) = (&view.model.source, &view.model.sessions, view.model.now);
    let clock = view.clock;
    let mut alerts = Vec::new();
    match &source.link {
        Link::Trying => {}
        Link::Down { since, why } => alerts.push((
            Tone::Bad,
            format!(
                "Not connected since {}: {why}. Closes come from the journal; retrying every {RETRY:?}.",
                clock(*since)
            ),
        )),
        Link::Up { has_sessions: false, .. } => {
            alerts.push((
                Tone::Warning,
                "This t3-trace daemon does not report open sessions: it is older than this program."
                    .to_owned(),
            ));
        }
        Link::Up { .. } => {}
        Link::Replay { limits } => {
            alerts.extend(limits.iter().map(|limit| (Tone::Warning, limit.clone())));
        }
    }
    if let Some(silent) = source.silent_for(now) {
        alerts.push((
            Tone::Bad,
            format!("No response from t3-trace for {silent} s: the data below may be stale."),
        ));
    }
    if let Some(outage) = source.recent_outage(now) {
        let what = if outage.restarted { "t3-trace restarted" } else { "Connection to t3-trace lost" };
        alerts.push((
            Tone::Warning,
            format!(
                "{what}: disconnected from {} to {}; closes of that time were read from the journal.",
                clock(outage.from),
                clock(outage.to)
            ),
        ));
    }
    if source.skipped > 0 {
        let missing = thousands(source.skipped);
        alerts.push((
            Tone::Warning,
            format!(
                "{missing} messages dropped: this screen was too slow. `t3-trace closes` has every close."
            ),
        ));
    }
    if source.lost > 0 {
        let lost = thousands(source.lost);
        alerts.push((
            Tone::Warning,
            format!("{lost} kernel events lost: some verdicts are based on less evidence."),
        ));
    }
    let up = matches!(source.link, Link::Up { .. });
    // Other connections do not need it.
    if up && view.model.via.has_sessions() && table.known() && !table.dispatch {
        alerts.push((Tone::Bad, "t3-dispatch is not connected to t3-trace: it is not running, or writes records without kernel evidence.".to_owned()));
    }
    if up && source.kernel == Some(KernelSource::Off) {
        let hooks = source.status.iter().flat_map(|status| &status.hooks);
        let why = hooks.filter(|hook| hook.attached.is_none()).find_map(|hook| hook.why.as_ref());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        alerts.push((Tone::Warning, format!("No kernel evidence{why}")));
    }
    alerts
}

/// Alerts as wrapped lines, up to `most`; the rest is counted.
#[must_use]
pub fn alert_lines(view: &View<'_>, width: u16, most: usize) -> Vec<(Tone, String)> {
    let alerts = alerts(view);
    let mut lines: Vec<(Tone, String)> = Vec::new();
    for (n, (tone, text)) in alerts.iter().enumerate() {
        let broken = wrap(&format!("! {text}"), usize::from(width), 2);
        let left = alerts.len() - n;
        let fits = lines.len() + broken.len() + usize::from(left > 1) <= most;
        if !fits && !lines.is_empty() {
            lines.push((Tone::Warning, format!("! and {left} more: enlarge the terminal")));
            return lines;
        }
        lines.extend(broken.into_iter().take(most).map(|line| (*tone, line)));
        if !fits {
            return lines;
        }
    }
    lines
}
