//! The first line: what this is, whether it is connected, how much happens, what time it is; and
//! below it what the reader must know before believing the rest.

use ratatui::{buffer::Buffer, layout::Rect};
use t3_record::vocabulary::KernelSource;

use super::{
    View,
    text::{put, put_right, thousands, wrap},
};
use crate::{
    live::{screen::link::Link, source::RETRY},
    present::verdict_text::Tone,
};

/// The first line.
pub fn draw(view: &View<'_>, area: Rect, buf: &mut Buffer) {
    let (model, theme) = (view.model, view.theme);
    buf.set_style(area, theme.chosen());
    let clock = (view.clock)(model.now);
    let (state, tone) = match &model.source.link {
        Link::Trying => ("connecting".to_owned(), Tone::Warning),
        Link::Down { .. } => ("NOT CONNECTED".to_owned(), Tone::Bad),
        Link::Up { since, .. } if area.width >= 80 => {
            (format!("connected since {}", (view.clock)(*since)), Tone::Fine)
        }
        Link::Up { .. } => ("connected".to_owned(), Tone::Fine),
    };
    let closes = format!("{} closes", thousands(model.total()));
    let kernel = match model.source.kernel {
        Some(KernelSource::Kprobe | KernelSource::Tracepoint) => Some("kernel evidence: yes".to_owned()),
        Some(KernelSource::Off | KernelSource::Timeout) => Some("kernel evidence: NO".to_owned()),
        None => None,
    };
    let rate = format!("{:.1} a second", model.rate());
    let title = if area.width >= 60 { " t3-trace live" } else { " live" };
    let right = u16::try_from(clock.len()).unwrap_or(0) + 1;
    let room = area.right().saturating_sub(right + 2);
    let mut x = area.x + put(buf, area, title, theme.strong().patch(theme.chosen()), theme);
    let parts = [
        Some((state, tone)),
        Some((closes, Tone::Fine)),
        Some((rate, Tone::Fine)),
        kernel.map(|text| (text, Tone::Fine)),
    ];
    for (n, (text, tone)) in parts.into_iter().flatten().enumerate() {
        let width = u16::try_from(text.len()).unwrap_or(u16::MAX);
        if n > 0 && x + 3 + width > room {
            break;
        }
        let style = if tone == Tone::Bad { theme.strong().patch(theme.chosen()) } else { theme.chosen() };
        x += 3 + put(buf, Rect { x: x + 3, width: room.saturating_sub(x + 3), ..area }, &text, style, theme);
    }
    put_right(buf, Rect { width: area.width.saturating_sub(1), ..area }, &clock, theme.chosen(), theme);
}

/// What the reader must know, most important first.
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
                "Not connected since {}: {why}. Closes come from the journal; trying again every {RETRY:?}.",
                clock(*since)
            ),
        )),
        Link::Up { has_sessions: false, .. } => {
            alerts.push((
                Tone::Warning,
                "This t3-trace does not tell open sessions: it is older than this program.".to_owned(),
            ));
        }
        Link::Up { .. } => {}
    }
    if let Some(silent) = source.silent_for(now) {
        alerts.push((
            Tone::Bad,
            format!("t3-trace has not answered for {silent} s: what stands here may be old."),
        ));
    }
    if let Some(outage) = source.recent_outage(now) {
        let what =
            if outage.restarted { "t3-trace was restarted" } else { "The connection to t3-trace broke" };
        alerts.push((
            Tone::Warning,
            format!(
                "{what}: away from {} to {}; closes of that time were read from the journal.",
                clock(outage.from),
                clock(outage.to)
            ),
        ));
    }
    if source.skipped > 0 {
        let missing = thousands(source.skipped);
        alerts.push((
            Tone::Warning,
            format!("{missing} messages are missing here: this screen was too slow for t3-trace. `t3-trace closes` has every close."),
        ));
    }
    if source.lost > 0 {
        let lost = thousands(source.lost);
        alerts.push((
            Tone::Warning,
            format!("{lost} kernel events were lost: some closes were judged on less evidence."),
        ));
    }
    let up = matches!(source.link, Link::Up { .. });
    if up && table.known() && !table.dispatch {
        alerts.push((Tone::Bad, "t3-dispatch is not connected to t3-trace: it does not run, or writes closes without kernel evidence.".to_owned()));
    }
    if up && source.kernel == Some(KernelSource::Off) {
        let hooks = source.status.iter().flat_map(|status| &status.hooks);
        let why = hooks.filter(|hook| hook.attached.is_none()).find_map(|hook| hook.why.as_ref());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        alerts.push((Tone::Warning, format!("t3-trace has no kernel evidence{why}")));
    }
    alerts
}

/// The same as lines that fit, at most so many; what does not fit is counted.
#[must_use]
pub fn alert_lines(view: &View<'_>, width: u16, most: usize) -> Vec<(Tone, String)> {
    let alerts = alerts(view);
    let mut lines: Vec<(Tone, String)> = Vec::new();
    for (n, (tone, text)) in alerts.iter().enumerate() {
        let broken = wrap(&format!("! {text}"), usize::from(width), 2);
        let left = alerts.len() - n;
        let fits = lines.len() + broken.len() + usize::from(left > 1) <= most;
        if !fits && !lines.is_empty() {
            lines.push((Tone::Warning, format!("! and {left} more: a larger terminal shows them")));
            return lines;
        }
        lines.extend(broken.into_iter().take(most).map(|line| (*tone, line)));
        if !fits {
            return lines;
        }
    }
    lines
}
