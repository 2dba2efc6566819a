//! The last line: the filter that is being typed, what was just said, or the keys that matter now.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    text::Span,
};

use super::{View, text::put};
use crate::{
    live::screen::{link::Remark, model::Focus, overlay::Over},
    present::{text::safe, verdict_text::Tone},
};

/// For how long something that was said stands there, in seconds.
const FRESH: u64 = 5;

/// Draws it; gives where the cursor is, while something is typed.
pub fn draw(view: &View<'_>, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (model, look) = (view.model, view.look);
    if let Over::Prompt { text, wrong } = &model.over {
        return prompt(view, text, wrong.as_deref(), area, buf);
    }
    let fresh = |remark: &&Remark| model.now.saturating_sub(remark.at) < FRESH;
    if let Some(remark) = model.source.remarks().next_back().filter(fresh) {
        put(buf, area, &remark.text, look.tone(Tone::Warning), look);
        return None;
    }
    let hints = match (&model.over, model.focus) {
        (Over::Detail(_), _) => "Esc back  Left Right neighbours  u v s only such  q quit",
        (Over::Help | Over::Messages, _) => "Esc back  q quit",
        (_, Focus::Sessions) => "Tab to the closes  Enter closes of this user  ? help  q quit",
        _ if model.closes.held().is_some() => "Space goes on  Enter evidence  / filter  ? help  q quit",
        _ => "? help  Up Enter evidence  / filter  Space pause  Tab sessions  q quit",
    };
    put(buf, area, hints, look.dim(), look);
    None
}

fn prompt(
    view: &View<'_>,
    text: &str,
    wrong: Option<&str>,
    area: Rect,
    buf: &mut Buffer,
) -> Option<Position> {
    let look = view.look;
    let label = put(buf, area, "filter: ", look.strong(), look);
    let place = Rect { x: area.x + label, width: area.width.saturating_sub(label), ..area };
    // Its end is what is being typed: cut at the beginning.
    let room = usize::from(place.width).saturating_sub(1);
    let mut shown = safe(text);
    while Span::raw(shown.as_str()).width() > room && !shown.is_empty() {
        shown.remove(0);
    }
    let width = put(buf, place, &shown, look.strong(), look);
    let after = Rect { x: place.x + width + 2, width: place.width.saturating_sub(width + 2), ..place };
    match wrong {
        Some(wrong) => put(buf, after, wrong, look.tone(Tone::Bad), look),
        None => put(buf, after, "Enter filters, Esc does not", look.dim(), look),
    };
    Some(Position::new((place.x + width).min(area.right().saturating_sub(1)), area.y))
}
