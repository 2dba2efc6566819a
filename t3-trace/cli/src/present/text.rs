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

/// Zero width, but not a combining accent: direction marks, joiners, selectors, tags.
const fn unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
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

/// Folds a line at blanks; continuation lines are indented by ten columns.
#[must_use]
pub fn folded(line: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return line.to_owned() };
    let options = textwrap::Options::new(width)
        .break_words(false)
        .subsequent_indent("          ")
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .word_separator(textwrap::WordSeparator::AsciiSpace);
    textwrap::wrap(line, options).join("\n")
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
