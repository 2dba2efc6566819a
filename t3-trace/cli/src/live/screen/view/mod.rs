//! From the state to what is drawn, one file a pane. Pure: the same state at the same size always
//! looks the same.

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

/// What panes need to be drawn.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The state.
    pub model: &'a Model,
    /// How it looks on this terminal.
    pub theme: Theme,
    /// The time of day of a moment, as text.
    pub clock: fn(u64) -> String,
    /// Its day.
    pub day: fn(u64) -> String,
}

/// Where everything stands.
#[derive(Debug, Default)]
pub struct Places {
    header: Rect,
    alerts: Vec<(Tone, String)>,
    alert_area: Rect,
    sessions: Option<Rect>,
    /// As a column, or as lines of text.
    totals: Option<Rect>,
    total_lines: Vec<String>,
    total_area: Rect,
    closes: Option<Rect>,
    body: Rect,
    footer: Rect,
}

/// Title and headings of a list.
const AROUND: u16 = 2;
/// How wide the totals are as a column.
const TOTALS: u16 = 34;
/// From this width on they are one.
const BESIDE: u16 = 116;

/// Divides the screen by its size.
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
    let beside = area.width >= BESIDE;
    // The list that the reader is in gets more of the screen.
    let share = if view.model.focus == Focus::Sessions { rest.height * 6 / 10 } else { rest.height * 4 / 10 };
    let wanted = if beside { wanted.max(8) } else { wanted };
    let upper = Rect { height: wanted.min(share).max(AROUND + 1), ..rest };
    rest = below(rest, upper.height);
    if beside {
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

/// How many lines fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// Of open sessions.
    pub sessions: usize,
    /// Of closes.
    pub closes: usize,
    /// Of what lies over them.
    pub overlay: usize,
}

/// How many lines fit into each place.
#[must_use]
pub fn pages(places: &Places) -> Pages {
    let list = |area: Option<Rect>| area.map_or(0, |area| usize::from(area.height.saturating_sub(AROUND)));
    Pages {
        sessions: list(places.sessions),
        closes: list(places.closes),
        overlay: usize::from(places.body.height.saturating_sub(1)),
    }
}

/// Draws everything; gives where the cursor is, if it is to be seen.
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

/// The title of a pane; the one that the keys go to is marked.
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
