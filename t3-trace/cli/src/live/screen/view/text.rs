//! Text in cells: cut to an area, wrapped, drawn as bars.
//!
//! The only place that writes text to the screen; replaces unprintable characters.

use ratatui::{buffer::Buffer, layout::Rect, style::Style, text::Span};

use crate::present::text::safe;

/// Capabilities of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Colours are enabled.
    pub colour: bool,
    /// The terminal shows more than ASCII.
    pub unicode: bool,
}

impl Theme {
    /// Mark at the end of cut text.
    const fn cut(self) -> &'static str {
        if self.unicode { "\u{2026}" } else { "~" }
    }

    const fn bars(self) -> &'static [char] {
        if self.unicode {
            &[
                ' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}',
                '\u{2588}',
            ]
        } else {
            &[' ', '.', ':', '-', '=', '+', '*', '%', '#']
        }
    }

    /// Draws the last `width` percentages as bars; only 0 is blank.
    #[must_use]
    pub fn spark(self, percents: &[u8], width: usize) -> String {
        let bars = self.bars();
        let last = &percents[percents.len().saturating_sub(width)..];
        let most = bars.len() - 1;
        last.iter().map(|percent| bars[(usize::from(*percent) * most).div_ceil(100).min(most)]).collect()
    }
}

/// Writes text into the first line of an area, cut with a mark if too long; returns its width.
pub fn put(buf: &mut Buffer, area: Rect, text: &str, style: Style, theme: Theme) -> u16 {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return 0;
    }
    // Limit the cost of very long text.
    let near: String = text.chars().take(4 * usize::from(area.width) + 4).collect();
    let text = safe(&near);
    let width = usize::from(area.width);
    if Span::raw(text.as_str()).width() <= width {
        return buf.set_stringn(area.x, area.y, &text, width, style).0 - area.x;
    }
    buf.set_stringn(area.x, area.y, &text, width - 1, style);
    buf.set_stringn(area.right() - 1, area.y, theme.cut(), 1, style);
    area.width
}

/// As [`put`], right-aligned.
pub fn put_right(buf: &mut Buffer, area: Rect, text: &str, style: Style, theme: Theme) {
    let width = u16::try_from(Span::raw(safe(text)).width()).unwrap_or(u16::MAX).min(area.width);
    put(buf, Rect { x: area.right() - width, width, ..area }, text, style, theme);
}

/// Wraps text at blanks; continuation lines are indented. Words longer than a line are broken.
#[must_use]
pub fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    // The widest character must fit after the indent.
    let indent = if indent + 2 <= width { indent } else { 0 };
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    let mut fresh = true;
    let safe = safe(text);
    for word in safe.split_inclusive(' ') {
        let bare = word.trim_end_matches(' ');
        let long = Span::raw(bare).width();
        if used + long > width && !fresh {
            lines.push(std::mem::take(&mut line).trim_end_matches(' ').to_owned());
            line = " ".repeat(indent);
            used = indent;
        }
        for c in word.chars() {
            let wide = Span::raw(c.encode_utf8(&mut [0; 4]) as &str).width();
            if used + wide > width && c != ' ' {
                lines.push(std::mem::take(&mut line).trim_end_matches(' ').to_owned());
                line = " ".repeat(indent);
                used = indent;
            }
            line.push(c);
            used += wide;
        }
        fresh = line.trim_matches(' ').is_empty();
    }
    if !line.trim_matches(' ').is_empty() || lines.is_empty() {
        lines.push(line.trim_end_matches(' ').to_owned());
    }
    lines
}

/// Formats a number with thousands separators.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEME: Theme = Theme { colour: false, unicode: true };

    fn shown(text: &str, width: u16) -> String {
        let mut buf = Buffer::filled(Rect::new(0, 0, width + 1, 1), ratatui::buffer::Cell::new("|"));
        let area = Rect::new(0, 0, width, 1);
        buf.set_style(area, Style::new());
        for x in 0..width {
            buf[(x, 0)].reset();
        }
        put(&mut buf, area, text, Style::new(), THEME);
        let mut line = String::new();
        let mut skip = 0;
        for cell in buf.content() {
            if skip == 0 {
                line.push_str(cell.symbol());
                skip = Span::raw(cell.symbol()).width().max(1);
            }
            skip -= 1;
        }
        line
    }

    #[test]
    fn text_stays_in_its_area() {
        for (text, width, wanted) in [
            ("plain", 5, "plain|"),
            ("plain", 4, "pla\u{2026}|"),
            ("", 3, "   |"),
            ("\u{754c}\u{754c}\u{754c}", 6, "\u{754c}\u{754c}\u{754c}|"),
            ("\u{754c}\u{754c}\u{754c}", 5, "\u{754c}\u{754c}\u{2026}|"),
            ("\u{754c}\u{754c}\u{754c}", 4, "\u{754c} \u{2026}|"),
            ("a\u{1b}[2Jb\n", 7, "a\u{fffd}[2Jb\u{fffd}|"),
            ("\u{202e}rtl", 4, "\u{fffd}rtl|"),
            ("e\u{301}e\u{301}", 2, "e\u{301}e\u{301}|"),
            ("x", 1, "x|"),
            ("xy", 1, "\u{2026}|"),
        ] {
            assert_eq!(shown(text, width), wanted, "{text:?} in {width}");
        }
        assert_eq!(shown(&"\u{754c}".repeat(100_000), 4), "\u{754c} \u{2026}|");
    }

    #[test]
    fn nothing_is_drawn_outside_the_screen() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 4, 1));
        for area in
            [Rect::new(0, 1, 4, 1), Rect::new(9, 0, 4, 1), Rect::new(0, 0, 0, 1), Rect::new(2, 0, 9, 9)]
        {
            put(&mut buf, area, "xxxxxxxx", Style::new(), THEME);
        }
        put_right(&mut buf, Rect::new(0, 0, 2, 1), "abc", Style::new(), THEME);
        assert_eq!(buf, Buffer::with_lines(["a\u{2026}x\u{2026}"]));
    }

    #[test]
    fn lines_break_at_blanks_and_long_words_are_split() {
        for (text, width, indent, wanted) in [
            ("one two three", 7, 0, vec!["one two", "three"]),
            ("one two three", 7, 2, vec!["one two", "  three"]),
            (
                "   12 ms  it ended",
                13,
                11,
                vec!["   12 ms  it", "           en", "           de", "           d"],
            ),
            ("abcdefgh", 3, 1, vec!["abc", " de", " fg", " h"]),
            ("\u{754c}\u{754c}\u{754c}", 4, 0, vec!["\u{754c}\u{754c}", "\u{754c}"]),
            ("", 4, 0, vec![""]),
            ("a b", 1, 5, vec!["a", "b"]),
            ("a\nb", 5, 0, vec!["a\u{fffd}b"]),
        ] {
            assert_eq!(wrap(text, width, indent), wanted, "{text:?} in {width}");
        }
        assert!(!wrap("\u{754c} wide", 1, 0).is_empty(), "a character that never fits does not loop");
    }

    proptest::proptest! {
        #[test]
        fn wrapped_lines_fit_and_keep_all_text(text in "\\PC{0,40}( [a-z\u{754c}\u{301}]{0,12}){0,6}", width in 2..30_usize, indent in 0..12_usize) {
            let lines = wrap(&text, width, indent);
            for line in &lines {
                proptest::prop_assert!(Span::raw(line.as_str()).width() <= width, "{line:?}");
            }
            let bare = |text: &str| text.replace(' ', "");
            proptest::prop_assert_eq!(bare(&lines.concat()), bare(&safe(&text)));
        }

        #[test]
        fn any_text_stays_in_its_area(text in ".{0,60}", width in 0..20_u16) {
            let mut buf = Buffer::filled(Rect::new(0, 0, 24, 1), ratatui::buffer::Cell::new("|"));
            let taken = put(&mut buf, Rect::new(2, 0, width, 1), &text, Style::new(), THEME);
            proptest::prop_assert!(taken <= width);
            for x in (0..2).chain(2 + width..24) {
                proptest::prop_assert_eq!(buf[(x, 0)].symbol(), "|");
            }
        }
    }

    #[test]
    fn bars_grow_and_small_values_are_visible() {
        assert_eq!(THEME.spark(&[0, 1, 13, 50, 100, 255], 9), " \u{2581}\u{2582}\u{2584}\u{2588}\u{2588}");
        assert_eq!(THEME.spark(&[1, 2, 100], 1), "\u{2588}");
        assert_eq!(Theme { unicode: false, ..THEME }.spark(&[0, 1, 50, 100], 4), " .=#");
        assert_eq!(
            (thousands(7), thousands(1000), thousands(12_345_678)),
            ("7".into(), "1,000".into(), "12,345,678".into())
        );
    }
}
