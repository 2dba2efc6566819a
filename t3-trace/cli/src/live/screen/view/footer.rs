//! Last line: filter input, a recent message, or key hints.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    text::Span,
};

use super::{View, text::put};
use crate::{
    live::screen::{link::Message, model::Focus, overlay::Overlay},
    present::{text::safe, verdict_text::Tone},
};

/// Time for which a message is shown, in seconds.
const FRESH: u64 = 5;

/// Draws the line; returns the cursor position while a filter is typed.
pub fn draw(view: &View<'_>, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (model, theme) = (view.model, view.theme);
    if let Overlay::Prompt { text, error } = &model.overlay {
        return prompt(view, text, error.as_deref(), area, buf);
    }
    let fresh = |message: &&Message| model.now.saturating_sub(message.at) < FRESH;
    if let Some(message) = model.source.messages().next_back().filter(fresh) {
        put(buf, area, &message.text, theme.tone(Tone::Warning), theme);
        return None;
    }
    let hints = match (&model.overlay, model.focus) {
        (Overlay::Detail(_), _) => "Esc back  Left/Right prev/next  u v s filter  q quit",
        (Overlay::Help | Overlay::Messages, _) => "Esc back  q quit",
        (_, Focus::Sessions) => "Tab closes  Enter filter by user  ? help  q quit",
        _ if model.closes.paused().is_some() => "Space resume  Enter evidence  / filter  ? help  q quit",
        _ => "? help  Up, Enter evidence  / filter  Space pause  Tab sessions  q quit",
    };
    put(buf, area, hints, theme.dim(), theme);
    None
}

fn prompt(
    view: &View<'_>,
    text: &str,
    error: Option<&str>,
    area: Rect,
    buf: &mut Buffer,
) -> Option<Position> {
    let theme = view.theme;
    let label = put(buf, area, "filter: ", theme.strong(), theme);
    let place = Rect { x: area.x + label, width: area.width.saturating_sub(label), ..area };
    // Cut at the start, so that the end with the cursor is visible.
    let room = usize::from(place.width).saturating_sub(1);
    let mut shown = safe(text);
    while Span::raw(shown.as_str()).width() > room && !shown.is_empty() {
        shown.remove(0);
    }
    let width = put(buf, place, &shown, theme.strong(), theme);
    let after = Rect { x: place.x + width + 2, width: place.width.saturating_sub(width + 2), ..place };
    match error {
        Some(error) => put(buf, after, error, theme.tone(Tone::Bad), theme),
        None => put(buf, after, "Enter: apply, Esc: cancel", theme.dim(), theme),
    };
    Some(Position::new((place.x + width).min(area.right().saturating_sub(1)), area.y))
}
