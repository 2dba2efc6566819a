//! Report of the findings as text and as JSON. Pure.

use std::{borrow::Cow, ops::RangeInclusive};

use serde::Serialize;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

use super::finding::{Finding, State, worst};
use crate::present::text::{safe, safe_json};

/// Width of the text without a terminal.
pub const WIDTH: usize = 100;
/// Limits of the width: longest words, and readable lines.
const WIDTHS: RangeInclusive<usize> = 40..=120;
/// Column of the text.
const INDENT: usize = 12;

/// Text report for a terminal of `width` columns; ends with a summary. Lines break only between
/// words.
#[must_use]
pub fn text(findings: &[Finding], title: &str, columns: usize, colour: bool) -> String {
    let width = columns.clamp(*WIDTHS.start(), *WIDTHS.end());
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut out = wrap(title, width).join("\n");
    out.push('\n');
    let mut area = "";
    for finding in findings {
        if finding.check.area() != area {
            area = finding.check.area();
            out.push_str(&format!("\n{}\n", paint("1", area)));
        }
        let code = match finding.state {
            State::Ok => "32",
            State::Note => "2",
            State::Warning => "33",
            State::Broken => "1;31",
        };
        let about = finding.about.as_ref().map(|about| format!(" {about}")).unwrap_or_default();
        let says = format!("{}{about}: {}", finding.check.name(), finding.says);
        let lines = wrap(&says, width - INDENT);
        for (n, line) in lines.iter().enumerate() {
            let word =
                if n == 0 { paint(code, &format!("{:8}", finding.state.word())) } else { " ".repeat(8) };
            out.push_str(&format!("  {word}  {line}\n"));
        }
        for (n, line) in finding.advice.iter().flat_map(|advice| wrap(advice, width - INDENT - 3)).enumerate()
        {
            let arrow = if n == 0 { "->" } else { "  " };
            out.push_str(&format!("{}{arrow} {line}\n", " ".repeat(INDENT)));
        }
    }
    out.push_str(&format!("\n{}\n", wrap(&summary(findings), width).join("\n")));
    out
}

fn summary(findings: &[Finding]) -> String {
    let count = |state: State| findings.iter().filter(|finding| finding.state == state).count();
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let sum = format!(
        "{} broken, {}, {}, {} ok",
        count(State::Broken),
        plural(count(State::Warning), "warning"),
        plural(count(State::Note), "note"),
        count(State::Ok)
    );
    match worst(findings) {
        State::Broken => format!("Not all parts work: {sum}."),
        State::Warning => format!("Works, with warnings: {sum}."),
        State::Note | State::Ok => format!("Works: {sum}."),
    }
}

/// Breaks text between words; a word longer than the width has a separate line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    // The text contains data from outside: remove escape sequences.
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = safe(&words.join(" "));
    let options = Options::new(width)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(&text, options).into_iter().map(Cow::into_owned).collect()
}

#[derive(Debug, Serialize)]
struct Object<'a> {
    version: &'a str,
    kernel: &'a str,
    health: State,
    checks: &'a [Finding],
}

/// JSON report: `version`, `kernel`, `health` (the worst state) and `checks`.
///
/// # Errors
/// None in practice: the object has only texts.
pub fn json(findings: &[Finding], kernel: &str) -> serde_json::Result<String> {
    let object =
        Object { version: env!("CARGO_PKG_VERSION"), kernel, health: worst(findings), checks: findings };
    Ok(safe_json(&serde_json::to_string_pretty(&object)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Check;

    #[test]
    fn lines_break_between_words_only() {
        assert_eq!(wrap("aa bb  cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaa b-c", 3), ["aaaaaaa", "b-c"]);
        let long = Finding::of(Check::Hook, State::Broken, "word ".repeat(50), "do ".repeat(60)).about("x:y");
        for columns in [40, 60, 80, 100, 120] {
            let text = text(std::slice::from_ref(&long), "title", columns, false);
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
            assert_eq!(text.matches("->").count(), 1);
        }
    }

    #[test]
    fn colours_are_optional() {
        let found = [Finding::ok(Check::Btf, "fine")];
        assert!(!text(&found, "t", WIDTH, false).contains('\x1b'));
        assert!(text(&found, "t", WIDTH, true).contains("\x1b[32mok      \x1b[0m"));
    }

    #[test]
    fn json_has_stable_keys() {
        let found = [
            Finding::ok(Check::Btf, "fine"),
            Finding::of(Check::MemoryHigh, State::Warning, "no", "do").about("u"),
        ];
        let value: serde_json::Value = serde_json::from_str(&json(&found, "6.1").unwrap()).unwrap();
        assert_eq!((&value["health"], &value["kernel"]), (&"warning".into(), &"6.1".into()));
        let second = serde_json::json!({"check": "memory-high", "about": "u", "state": "warning", "says": "no", "do": "do"});
        assert_eq!(value["checks"][1], second);
        assert_eq!(value["checks"][0].get("do"), None);
    }
}
