//! Totals: closes per verdict since the start.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};
use t3_record::vocabulary::{Segment, Side, Verdict};

use super::{
    View, bar,
    text::{put, put_right, thousands, wrap},
};
use crate::present::verdict_text::{self, Tone};

/// Draws a column with one verdict per line.
pub fn draw(view: &View<'_>, area: Rect, buf: &mut Buffer) {
    let theme = view.theme;
    bar(view, area, &format!("Totals since {}", (view.clock)(view.model.since)), false, buf);
    let totals = view.model.totals();
    let room = usize::from(area.height.saturating_sub(1));
    let whole = if totals.len() > room { room.saturating_sub(1) } else { room };
    let mut lines: Vec<(String, u64, Style)> = totals
        .iter()
        .take(whole)
        .map(|(verdict, count)| (verdict_text::label(*verdict).to_owned(), *count, style(view, *verdict)))
        .collect();
    if totals.len() > whole {
        let rest = totals[whole..].iter().map(|(_, count)| count).sum();
        lines.push((format!("{} other verdicts", totals.len() - whole), rest, theme.dim()));
    }
    for (n, (what, count, style)) in lines.into_iter().take(room).enumerate() {
        let y = area.y + 1 + u16::try_from(n).unwrap_or(0);
        let count = thousands(count);
        let number = u16::try_from(count.len()).unwrap_or(0);
        let place = Rect { y, height: 1, ..area };
        put(buf, Rect { width: place.width.saturating_sub(number + 1), ..place }, &what, style, theme);
        put_right(buf, place, &count, Style::new(), theme);
    }
}

/// Returns the totals as text of up to `most` lines.
#[must_use]
pub fn lines(view: &View<'_>, width: u16, most: usize) -> Vec<String> {
    let totals = view.model.totals();
    if totals.is_empty() {
        return vec!["Totals: no closes yet".to_owned()];
    }
    for shown in (0..=totals.len()).rev() {
        let mut parts: Vec<String> = totals
            .iter()
            .take(shown)
            .map(|(verdict, count)| format!("{} {}", thousands(*count), verdict_text::label(*verdict)))
            .collect();
        if shown < totals.len() {
            let rest = totals[shown..].iter().map(|(_, count)| count).sum();
            parts.push(format!("{} other", thousands(rest)));
        }
        let lines = wrap(&format!("Totals: {}", parts.join(", ")), usize::from(width), 8);
        if lines.len() <= most || shown == 0 {
            return lines;
        }
    }
    Vec::new()
}

/// The severity depends on the segment of a close; a total has that of its verdict on the
/// downstream segment, or worse.
fn style(view: &View<'_>, verdict: Verdict) -> Style {
    view.theme.tone(match verdict_text::tone(verdict, Segment::Downstream) {
        Tone::Warning
            if verdict.side() == Some(Side::Up)
                || matches!(verdict, Verdict::DispatchStalled | Verdict::DispatchDied) =>
        {
            Tone::Bad
        }
        tone => tone,
    })
}
