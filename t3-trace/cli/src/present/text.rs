//! Terminal text: colours, width, outside text, durations.

use std::io::IsTerminal;

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    pub colour: bool,
}

impl Paint {
    pub fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// Replaces control and invisible characters of outside text: they could change the terminal or the
/// direction of the line.
pub fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || unseen(c) { '\u{fffd}' } else { c }).collect()
}

/// Escapes the same characters in a JSON text, which can have them in its strings only.
pub fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // JSON escapes the control characters of ASCII; those between values are line ends.
        if c != '\n' && (c.is_control() || unseen(c)) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Zero width, but not a combining accent: direction marks, joiners, selectors, tags.
const fn unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Formats a duration in up to two units: `850ms`, `12.3s`, `3m12s`, `7h05m`, `2d03h`.
#[must_use]
pub fn lasted(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Width of the terminal on stdout in columns, 40 to 120; none where stdout is not a terminal.
#[must_use]
pub fn width() -> Option<usize> {
    let columns = std::io::stdout().is_terminal().then(crossterm::terminal::size)?.ok()?.0;
    Some(usize::from(columns).clamp(40, 120))
}

/// Indent of continuation lines.
pub const INDENT: &str = "          ";

/// Folds a line between its parts, which two or more blanks separate, so that a name stays with its
/// value (`by systemd[1]`). A part that is wider than a line is folded at single blanks.
#[must_use]
pub fn folded(line: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return line.to_owned() };
    let options = |separator| {
        textwrap::Options::new(width)
            .break_words(false)
            .subsequent_indent(INDENT)
            .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
            .word_splitter(textwrap::WordSplitter::NoHyphenation)
            .word_separator(separator)
    };
    let lines = textwrap::wrap(line, options(textwrap::WordSeparator::Custom(parts)));
    let fits = |line: &str| textwrap::core::display_width(line) <= width;
    let lines = lines.iter().flat_map(|line| match fits(line) {
        true => vec![line.to_string()],
        false => {
            let lines = textwrap::wrap(line, options(textwrap::WordSeparator::AsciiSpace));
            lines.into_iter().map(Into::into).collect()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Splits after each run of two or more blanks.
fn parts(line: &str) -> Box<dyn Iterator<Item = textwrap::core::Word<'_>> + '_> {
    let (mut parts, mut begin, mut blanks) = (Vec::new(), 0, 0);
    for (at, c) in line.char_indices() {
        // Blanks at the start are an indent.
        if c != ' ' && blanks > 1 && blanks < at {
            parts.push(textwrap::core::Word::from(&line[begin..at]));
            begin = at;
        }
        blanks = if c == ' ' { blanks + 1 } else { 0 };
    }
    parts.push(textwrap::core::Word::from(&line[begin..]));
    Box::new(parts.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_replaced_and_letters_stay() {
        assert_eq!(
            safe("a\u{202e}b\u{200d}\u{2066}c\u{fe0f}\u{7f}"),
            "a\u{fffd}b\u{fffd}\u{fffd}c\u{fffd}\u{fffd}"
        );
        assert_eq!(safe("e\u{301} \u{754c} \u{5d0}"), "e\u{301} \u{754c} \u{5d0}");
    }

    #[test]
    fn json_has_the_same_characters_as_escapes() {
        let value = serde_json::json!({ "a": "x\u{202e}\u{9b}31m\u{e0001}\u{7f}\u{1b}\n\u{5d0}" });
        let text = safe_json(&serde_json::to_string(&value).unwrap());
        assert!(!text.contains(|c: char| c.is_control() || unseen(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn lines_are_folded_between_their_parts() {
        for (line, width, expected) in [
            (
                "12:00:00  killed by signal  hb RTT 1ms  by cat[7]",
                28,
                "12:00:00  killed by signal\n          hb RTT 1ms\n          by cat[7]",
            ),
            ("a  b c d e f g h i j", 16, "a\n          b c d\n          e f g\n          h i j"),
            ("one two  three", 14, "one two  three"),
            ("longer-than-a-line  by X", 14, "longer-than-a-line\n          by X"),
            ("\u{1b}[2mone\u{1b}[0m  two", 8, "\u{1b}[2mone\u{1b}[0m  two"),
            ("  indented line", 10, "  indented\n          line"),
            ("", 5, ""),
        ] {
            assert_eq!(folded(line, Some(width)), expected, "{line:?}");
            assert_eq!(folded(line, None), line);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (ms, text) in [
            (0, "0ms"),
            (850, "850ms"),
            (12_345, "12.3s"),
            (192_000, "3m12s"),
            (25_500_000, "7h05m"),
            (183_600_000, "2d03h"),
        ] {
            assert_eq!(lasted(ms), text);
        }
    }
}
