//! Pane of closes: event, user, duration, mechanism, pressure and heartbeat.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};
use t3_record::Confidence;

use super::{
    View, bar,
    table::{self, Field},
    text::{put, thousands},
};
use crate::{
    live::screen::{close::Close, model::Focus},
    present::{
        close_line,
        text::{Paint, lasted},
        verdict_text::{self, Tone},
        via,
    },
};

pub fn draw(view: &View<'_>, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let (closes, theme) = (&view.model.closes, view.theme);
    let (kept, shown) = closes.counts();
    let mut title = "Closes".to_owned();
    if let Some(arrived) = closes.paused() {
        title.push_str(&format!("   PAUSED, {} new", thousands(arrived)));
    }
    if !closes.filter().is_empty() {
        title.push_str(&format!(
            "   {} of {} match filter: {}",
            thousands(shown as u64),
            thousands(kept as u64),
            closes.filter()
        ));
    }
    bar(view, area, &title, view.model.focus == Focus::Closes, buf);
    let (rows, selected) = closes.on_screen();
    if rows.is_empty() && area.height > 2 {
        let why = if kept == 0 && !view.model.via.has_sessions() {
            "No direct connection has closed yet; t3-trace reports those to watched ports (doctor lists them)."
                .to_owned()
        } else if kept == 0 {
            "No closes yet.".to_owned()
        } else {
            format!("No close matches the filter ({} in total); x clears it.", thousands(kept as u64))
        };
        put(buf, Rect { y: area.y + 2, height: 1, ..area }, &why, theme.dim(), theme);
    }
    let below = Rect { y: area.y + 1, height: area.height - 1, ..area };
    table::draw(view, below, plan(area.width), rows.into_iter(), selected, buf);
}

const TIME: Field<Close> = Field {
    title: "TIME",
    width: 8,
    right: false,
    text: |view, close, _| ((view.clock)(close.at), view.theme.dim()),
};
#[expect(clippy::cast_possible_truncation, reason = "the width of a column")]
const EVENT: Field<Close> =
    Field { title: "EVENT", width: verdict_text::WIDTH as u16 + 1, right: false, text: event };
const WIDE_EVENT: Field<Close> = Field { width: 0, ..EVENT };
const USER: Field<Close> = Field {
    title: "USER",
    width: 12,
    right: false,
    text: |_, close, _| (close.record.user.clone(), Style::new()),
};
const SHORT_USER: Field<Close> = Field { width: 8, ..USER };
const DURATION: Field<Close> = Field {
    title: "DURATION",
    width: 8,
    right: true,
    text: |_, close, _| (lasted(close.record.dur_ms), Style::new()),
};
const HOW: Field<Close> =
    Field { title: "HOW", width: 14, right: false, text: |_, close, _| (how(close), Style::new()) };
const DETAILS: Field<Close> = Field { title: "PSI / HEARTBEAT", width: 0, right: false, text: details };

const PSI: Field<Close> = Field { title: "PSI", text: pressure, ..DETAILS };

const fn plan(width: u16) -> &'static [Field<Close>] {
    match width {
        100.. => &[TIME, EVENT, USER, DURATION, HOW, DETAILS],
        74.. => &[TIME, EVENT, USER, DURATION, PSI],
        56.. => &[TIME, WIDE_EVENT, SHORT_USER, DURATION],
        _ => &[TIME, WIDE_EVENT, SHORT_USER],
    }
}

fn event(view: &View<'_>, close: &Close, _: u16) -> (String, Style) {
    let record = &close.record;
    // `?` marks a likely verdict.
    let mark = if record.confidence == Some(Confidence::Likely) { "?" } else { "" };
    (
        format!("{}{mark}", verdict_text::close_label(record)),
        view.theme.tone(verdict_text::tone(record.verdict, record.segment)),
    )
}

fn how(close: &Close) -> String {
    close.record.how.map_or_else(String::new, |how| how.to_string())
}

fn details(view: &View<'_>, close: &Close, _: u16) -> (String, Style) {
    let style = if close_line::has_high_psi(&close.record) {
        view.theme.tone(Tone::Warning)
    } else {
        view.theme.dim()
    };
    let end = close.direct.as_deref().map(via::ends);
    let parts = close_line::details(&close.record, Paint { colour: false });
    (end.into_iter().chain(parts).collect::<Vec<_>>().join("  "), style)
}

/// Only the pressure, for narrow screens; of other connections the port.
fn pressure(view: &View<'_>, close: &Close, width: u16) -> (String, Style) {
    let (_, style) = details(view, close, width);
    if let Some(direct) = &close.direct {
        return (via::ends(direct), style);
    }
    let parts = close_line::details(&close.record, Paint { colour: false });
    let psi =
        parts.iter().find_map(|part| part.strip_prefix("PSI ").or(part.starts_with("host ").then_some(part)));
    (psi.unwrap_or_default().to_owned(), style)
}
