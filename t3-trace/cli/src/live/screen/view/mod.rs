//! Draws the state, one file per pane. Pure: depends only on the state and the size.

pub mod closes;
pub mod footer;
pub mod header;
pub mod overlay;
pub mod sessions;
pub mod style;
pub mod table;
pub mod text;
pub mod totals;

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};

use super::model::{Focus, Model};
use crate::present::verdict_text::Tone;
use text::{Theme, put};

/// Input of the panes.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub model: &'a Model,
    pub theme: Theme,
    /// Formats the time of day of a moment.
    pub clock: fn(u64) -> String,
    /// Formats its date.
    pub day: fn(u64) -> String,
}

/// Layout of the screen.
#[derive(Debug, Default)]
pub struct Places {
    header: Rect,
    alerts: Vec<(Tone, String)>,
    alert_area: Rect,
    sessions: Option<Rect>,
    /// A column, or lines of text.
    totals: Option<Rect>,
    total_lines: Vec<String>,
    total_area: Rect,
    closes: Option<Rect>,
    body: Rect,
    footer: Rect,
}

/// Lines for title and headings of a list.
const AROUND: u16 = 2;
/// Width of the totals as a column.
const TOTALS: u16 = 34;
/// Screen width from which the totals are a column.
const BESIDE: u16 = 116;

/// Computes the layout for a size.
#[must_use]
pub fn places(view: &View<'_>, area: Rect) -> Places {
    let mut places = Places { header: Rect { height: area.height.min(1), ..area }, ..Places::default() };
    let mut rest = below(area, places.header.height);
    let footer = u16::from(rest.height > 1);
    places.footer = Rect { y: rest.bottom() - footer, height: footer, ..rest };
    rest.height -= footer;
    let most = match area.height {
        30.. => 6,
        20.. => 4,
        8.. => 2,
        _ => 0,
    };
    places.alerts = header::alert_lines(view, area.width, most);
    let height = u16::try_from(places.alerts.len()).unwrap_or(0);
    places.alert_area = Rect { height, ..rest };
    rest = below(rest, height);
    places.body = rest;
    if rest.height < 14 {
        if view.model.focus == Focus::Sessions {
            places.sessions = Some(rest);
        } else {
            places.closes = Some(rest);
        }
        return places;
    }
    let wanted = u16::try_from(view.model.sessions.sent()).unwrap_or(u16::MAX).max(1).saturating_add(AROUND);
    let has_column = area.width >= BESIDE;
    // The focused list gets more of the screen.
    let share = if view.model.focus == Focus::Sessions { rest.height * 6 / 10 } else { rest.height * 4 / 10 };
    let wanted = if has_column { wanted.max(8) } else { wanted };
    let upper = Rect { height: wanted.min(share).max(AROUND + 1), ..rest };
    rest = below(rest, upper.height);
    if has_column {
        places.sessions = Some(Rect { width: upper.width - TOTALS - 1, ..upper });
        places.totals = Some(Rect { x: upper.right() - TOTALS, width: TOTALS, ..upper });
    } else {
        places.sessions = Some(upper);
        places.total_lines = totals::lines(view, area.width, 2);
        let height = u16::try_from(places.total_lines.len()).unwrap_or(0);
        places.total_area = Rect { height, ..rest };
        rest = below(rest, height);
    }
    places.closes = Some(rest);
    places
}

fn below(area: Rect, height: u16) -> Rect {
    let height = height.min(area.height);
    Rect { y: area.y + height, height: area.height - height, ..area }
}

/// Lines that fit per pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    pub sessions: usize,
    pub closes: usize,
    pub overlay: usize,
}

#[must_use]
pub fn pages(places: &Places) -> Pages {
    let list = |area: Option<Rect>| area.map_or(0, |area| usize::from(area.height.saturating_sub(AROUND)));
    Pages {
        sessions: list(places.sessions),
        closes: list(places.closes),
        overlay: usize::from(places.body.height.saturating_sub(1)),
    }
}

/// Draws the screen; returns the cursor position if it is visible.
pub fn draw(view: &View<'_>, places: &Places, buf: &mut Buffer) -> Option<Position> {
    header::draw(view, places.header, buf);
    for (n, (tone, line)) in places.alerts.iter().enumerate() {
        let y = places.alert_area.y + u16::try_from(n).unwrap_or(0);
        put(buf, Rect { y, height: 1, ..places.alert_area }, line, view.theme.tone(*tone), view.theme);
    }
    if overlay::page(view, places.body.width).is_some() {
        overlay::draw(view, places.body, buf);
    } else {
        if let Some(area) = places.sessions {
            sessions::draw(view, area, buf);
        }
        if let Some(area) = places.totals {
            totals::draw(view, area, buf);
        }
        for (n, line) in places.total_lines.iter().enumerate() {
            let y = places.total_area.y + u16::try_from(n).unwrap_or(0);
            put(buf, Rect { y, height: 1, ..places.total_area }, line, view.theme.dim(), view.theme);
        }
        if let Some(area) = places.closes {
            closes::draw(view, area, buf);
        }
    }
    footer::draw(view, places.footer, buf)
}

/// Draws the title of a pane; `>` marks the focused one.
fn bar(view: &View<'_>, area: Rect, title: &str, active: bool, buf: &mut Buffer) {
    let mark = if active { "> " } else { "- " };
    put(
        buf,
        Rect { height: area.height.min(1), ..area },
        &format!("{mark}{title}"),
        view.theme.strong(),
        view.theme,
    );
}
