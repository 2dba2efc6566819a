//! Text of the terminal: colours, text from outside, durations. Pure.

/// Colours, or none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    /// ANSI escape sequences are wanted.
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

/// Text from outside may hold escape sequences, and characters that are not seen but turn the line
/// round or move what follows; a terminal must not see them.
pub fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || unseen(c) { '\u{fffd}' } else { c }).collect()
}

/// Of no width of its own, and not the accent of a letter: marks of direction, joiners, selectors,
/// tags.
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

/// A duration in two units at most: `850ms`, `12.3s`, `3m12s`, `7h05m`, `2d03h`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_made_visible_and_letters_stay() {
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
