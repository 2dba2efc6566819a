//! Text in cells: cut to its place, broken into lines, drawn as bars. What comes from outside is
//! made safe here, and nowhere else is text given to the screen.

use ratatui::{buffer::Buffer, layout::Rect, style::Style, text::Span};

use crate::present::text::safe;

/// How it looks on this terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Colours are wanted.
    pub colour: bool,
    /// The terminal shows more than ASCII.
    pub unicode: bool,
}

impl Theme {
    /// What stands where a text was cut.
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

    /// Percentages as bars, the last so many of them. Only nothing at all is empty.
    #[must_use]
    pub fn spark(self, percents: &[u8], width: usize) -> String {
        let bars = self.bars();
        let last = &percents[percents.len().saturating_sub(width)..];
        let most = bars.len() - 1;
        last.iter().map(|percent| bars[(usize::from(*percent) * most).div_ceil(100).min(most)]).collect()
    }
}

/// Puts text into one line of an area: cut with a mark when it is too long. Gives the width that it
/// took.
pub fn put(buf: &mut Buffer, area: Rect, text: &str, style: Style, theme: Theme) -> u16 {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return 0;
    }
    // A text that is far too long is not measured to its end.
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

/// The same, ending at the area's right edge.
pub fn put_right(buf: &mut Buffer, area: Rect, text: &str, style: Style, theme: Theme) {
    let width = u16::try_from(Span::raw(safe(text)).width()).unwrap_or(u16::MAX).min(area.width);
    put(buf, Rect { x: area.right() - width, width, ..area }, text, style, theme);
}

/// Breaks a text at blanks into lines that fit; further lines are set in by so much. A word that is
/// too long is broken too.
#[must_use]
pub fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    // The widest letter has to fit behind it.
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

/// A number with its thousands set apart.
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

    const LOOK: Theme = Theme { colour: false, unicode: true };

    fn shown(text: &str, width: u16) -> String {
        let mut buf = Buffer::filled(Rect::new(0, 0, width + 1, 1), ratatui::buffer::Cell::new("|"));
        let area = Rect::new(0, 0, width, 1);
        buf.set_style(area, Style::new());
        for x in 0..width {
            buf[(x, 0)].reset();
        }
        put(&mut buf, area, text, Style::new(), LOOK);
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
    fn no_text_leaves_its_place() {
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
    fn outside_of_the_screen_nothing_is_drawn() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 4, 1));
        for area in
            [Rect::new(0, 1, 4, 1), Rect::new(9, 0, 4, 1), Rect::new(0, 0, 0, 1), Rect::new(2, 0, 9, 9)]
        {
            put(&mut buf, area, "xxxxxxxx", Style::new(), LOOK);
        }
        put_right(&mut buf, Rect::new(0, 0, 2, 1), "abc", Style::new(), LOOK);
        assert_eq!(buf, Buffer::with_lines(["a\u{2026}x\u{2026}"]));
    }

    #[test]
    fn lines_break_at_blanks_and_long_words_where_they_must() {
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
        assert!(!wrap("\u{754c} wide", 1, 0).is_empty(), "what never fits does not turn for ever");
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_text_its_lines_fit_and_lose_nothing(text in "\\PC{0,40}( [a-z\u{754c}\u{301}]{0,12}){0,6}", width in 2..30_usize, indent in 0..12_usize) {
            let lines = wrap(&text, width, indent);
            for line in &lines {
                proptest::prop_assert!(Span::raw(line.as_str()).width() <= width, "{line:?}");
            }
            let bare = |text: &str| text.replace(' ', "");
            proptest::prop_assert_eq!(bare(&lines.concat()), bare(&safe(&text)));
        }

        #[test]
        fn whatever_the_text_it_stays_in_its_place(text in ".{0,60}", width in 0..20_u16) {
            let mut buf = Buffer::filled(Rect::new(0, 0, 24, 1), ratatui::buffer::Cell::new("|"));
            let taken = put(&mut buf, Rect::new(2, 0, width, 1), &text, Style::new(), LOOK);
            proptest::prop_assert!(taken <= width);
            for x in (0..2).chain(2 + width..24) {
                proptest::prop_assert_eq!(buf[(x, 0)].symbol(), "|");
            }
        }
    }

    #[test]
    fn bars_rise_and_a_little_is_not_nothing() {
        assert_eq!(LOOK.spark(&[0, 1, 13, 50, 100, 255], 9), " \u{2581}\u{2582}\u{2584}\u{2588}\u{2588}");
        assert_eq!(LOOK.spark(&[1, 2, 100], 1), "\u{2588}");
        assert_eq!(Theme { unicode: false, ..LOOK }.spark(&[0, 1, 50, 100], 4), " .=#");
        assert_eq!(
            (thousands(7), thousands(1000), thousands(12_345_678)),
            ("7".into(), "1,000".into(), "12,345,678".into())
        );
    }
}
