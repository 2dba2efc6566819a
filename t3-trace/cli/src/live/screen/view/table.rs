//! Table with fixed columns: long values are cut and do not move other columns.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    View,
    text::{put, put_right},
};

/// One column.
pub struct Field<R> {
    pub title: &'static str,
    /// In columns; 0: the remaining width.
    pub width: u16,
    /// Right-aligned.
    pub right: bool,
    /// Value and style of a row at this width.
    pub text: fn(&View<'_>, &R, u16) -> (String, Style),
}

pub fn draw<'r, R: 'r>(
    view: &View<'_>,
    area: Rect,
    fields: &[Field<R>],
    rows: impl Iterator<Item = &'r R>,
    selected: Option<usize>,
    buf: &mut Buffer,
) {
    let theme = view.theme;
    let places = places(area, fields);
    let mut cell = |field: &Field<R>, place: Rect, text: &str, style: Style| {
        if field.right {
            put_right(buf, place, text, style, theme);
        } else {
            put(buf, place, text, style, theme);
        }
    };
    for (field, place) in fields.iter().zip(&places) {
        cell(field, *place, field.title, theme.dim());
    }
    let mut highlighted = None;
    for ((n, row), y) in rows.enumerate().zip(area.y.saturating_add(1)..area.bottom()) {
        for (field, place) in fields.iter().zip(&places) {
            let (text, style) = (field.text)(view, row, place.width);
            cell(field, Rect { y, ..*place }, &text, style);
        }
        if selected == Some(n) {
            highlighted = Some(Rect { y, height: 1, ..area });
        }
    }
    if let Some(line) = highlighted {
        buf.set_style(line, theme.selected());
    }
}

/// Areas of the columns, with a gap between them.
fn places<R>(area: Rect, fields: &[Field<R>]) -> Vec<Rect> {
    let gap = if area.width >= 56 { 2 } else { 1 };
    let gaps = gap * u16::try_from(fields.len().saturating_sub(1)).unwrap_or(0);
    let fixed: u16 = fields.iter().map(|field| field.width).sum::<u16>() + gaps;
    let mut x = area.x;
    let place = |field: &Field<R>| {
        let width = if field.width == 0 { area.width.saturating_sub(fixed) } else { field.width };
        let place = Rect { x, y: area.y, width, height: 1 }.intersection(area);
        x = x.saturating_add(width + gap);
        place
    };
    fields.iter().map(place).collect()
}
