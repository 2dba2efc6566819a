//! Text of a file or of the environment in a line of `check`. Pure.

/// Returns the text, quoted if it is empty, could be mistaken for another line, or could change the
/// terminal. `Debug` escapes also the characters that change the direction of a line.
pub(super) fn plain(text: &str) -> String {
    let is_printed = |c: char| c.is_ascii_graphic() || c == ' ' || c.escape_debug().eq([c]);
    if text.is_empty() || text.trim() != text || !text.chars().all(is_printed) {
        format!("{text:?}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_change_the_output_is_quoted() {
        assert_eq!(plain("ann b@x"), "ann b@x");
        for text in ["", " a", "a\nb", "\u{202e}a", "\x1b[31m"] {
            assert_eq!(plain(text), format!("{text:?}"));
        }
    }
}
