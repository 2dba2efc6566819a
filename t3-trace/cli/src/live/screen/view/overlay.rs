//! Scrolled overlays: evidence of one close, help, messages.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};
use t3_record::{CloseRecord, TcpCloseRecord};

use super::{
    View, bar,
    text::{put, wrap},
};
use crate::{
    explain,
    live::screen::{evidence, keys, overlay::Overlay},
    present::text::Paint,
};

/// A line and its style.
type Line = (String, Style);

/// Returns title and lines at this width; `None` without an overlay.
#[must_use]
pub fn page(view: &View<'_>, width: u16) -> Option<(String, Vec<Line>)> {
    let width = usize::from(width);
    Some(match &view.model.overlay {
        Overlay::Nothing | Overlay::Prompt { .. } => return None,
        Overlay::Detail(close) => {
            let when = format!("{} {}", (view.day)(close.at), (view.clock)(close.at));
            let lines = match &close.direct {
                Some(record) => direct(view, record, &when, width),
                None => session(view, &close.record, &when, width),
            };
            ("Evidence of one close   Esc: back, Left/Right: previous/next close".to_owned(), lines)
        }
        Overlay::Help => ("Keys".to_owned(), help(view, width)),
        Overlay::Messages => {
            let mut lines: Vec<Line> = Vec::new();
            for message in view.model.source.messages() {
                let times =
                    if message.times > 1 { format!(" ({} times)", message.times) } else { String::new() };
                let text = format!("{}  {}{times}", (view.clock)(message.at), message.text);
                lines.extend(wrap(&text, width, 10).into_iter().map(|line| (line, Style::new())));
            }
            if lines.is_empty() {
                lines.push(("No messages.".to_owned(), view.theme.dim()));
            }
            ("Messages".to_owned(), lines)
        }
    })
}

/// Evidence of a session.
fn session(view: &View<'_>, record: &CloseRecord, when: &str, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for section in evidence::page(record, when) {
        lines.push((section.title.to_owned(), view.theme.strong()));
        let wrapped = section.lines.iter().flat_map(|line| wrap(&format!("  {line}"), width, 4));
        lines.extend(wrapped.map(|line| (line, Style::new())));
    }
    lines
}

/// The page of `explain` of a connection that t3-dispatch did not carry, and its record.
fn direct(view: &View<'_>, record: &TcpCloseRecord, when: &str, width: usize) -> Vec<Line> {
    let page = explain::direct::page(record, None, when, Paint { colour: false }, width);
    let mut lines: Vec<Line> = Vec::new();
    for line in page.lines().chain(["", "RECORD"]) {
        let is_heading = !line.is_empty() && line.chars().all(|c| c.is_ascii_uppercase());
        let style = if is_heading { view.theme.strong() } else { Style::new() };
        lines.push((line.to_owned(), style));
    }
    let wrapped = wrap(&format!("  {}", record.to_line()), width, 4);
    lines.extend(wrapped.into_iter().map(|line| (line, Style::new())));
    lines
}

fn help(view: &View<'_>, width: usize) -> Vec<Line> {
    /// Column of the descriptions.
    const INDENT: usize = 15;
    let mut lines: Vec<Line> = Vec::new();
    for (keys, what) in keys::TABLE {
        lines.extend(
            wrap(&format!("{keys:INDENT$}{what}"), width, INDENT)
                .into_iter()
                .map(|line| (line, Style::new())),
        );
    }
    for text in [
        "",
        "`?` after an event: likely, not proven. HEARTBEAT: RTT of the last ping, or time since an unanswered one.",
        "PSI SOME 10s: percent of the last 10 s in which at least one task of the user's cgroup waited, for the resource with the highest value; the bars are the last seconds.",
        "`t3-trace live --plain` and pipes: one line per close; `--json`: one object per close. See docs/LIVE.md.",
    ] {
        lines.extend(wrap(text, width, 0).into_iter().map(|line| (line, view.theme.dim())));
    }
    lines
}

pub fn draw(view: &View<'_>, area: Rect, buf: &mut Buffer) {
    let Some((title, lines)) = page(view, area.width) else { return };
    let room = usize::from(area.height.saturating_sub(1));
    let most = lines.len().saturating_sub(room);
    let scroll = view.model.scroll.min(most);
    let title = if most > 0 {
        format!("{title}   {} of {} lines", (scroll + room).min(lines.len()), lines.len())
    } else {
        title
    };
    bar(view, area, &title, true, buf);
    for (n, (line, style)) in lines.iter().skip(scroll).take(room).enumerate() {
        let y = area.y + 1 + u16::try_from(n).unwrap_or(0);
        put(buf, Rect { y, height: 1, ..area }, line, *style, view.theme);
    }
}
