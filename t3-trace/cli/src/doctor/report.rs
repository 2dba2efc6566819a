//! The findings as text and as JSON. Pure.

use serde::Serialize;

use super::finding::{Finding, State, worst};
use crate::present::text::safe;

/// How wide the text is: what stands on a line of its own is not broken.
const WIDTH: usize = 110;
/// Where sentences begin.
const INDENT: usize = 12;

/// The report for people; ends with a line that sums up.
#[must_use]
pub fn text(findings: &[Finding], title: &str, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut out = format!("{title}\n");
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
        let lines = wrap(&says, WIDTH - INDENT);
        for (n, line) in lines.iter().enumerate() {
            let word =
                if n == 0 { paint(code, &format!("{:8}", finding.state.word())) } else { " ".repeat(8) };
            out.push_str(&format!("  {word}  {line}\n"));
        }
        for (n, line) in finding.advice.iter().flat_map(|advice| wrap(advice, WIDTH - INDENT - 3)).enumerate()
        {
            let arrow = if n == 0 { "->" } else { "  " };
            out.push_str(&format!("{}{arrow} {line}\n", " ".repeat(INDENT)));
        }
    }
    out.push_str(&format!("\n{}\n", summary(findings)));
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
        State::Broken => format!("Something that should work does not: {sum}."),
        State::Warning => format!("It works, with warnings: {sum}."),
        State::Note | State::Ok => format!("It works: {sum}."),
    }
}

/// Words on lines of at most this width; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    // Some of it comes from outside: a terminal must not see what is in it.
    lines.iter().map(|line| safe(line)).collect()
}

#[derive(Debug, Serialize)]
struct Object<'a> {
    version: &'a str,
    kernel: &'a str,
    health: State,
    checks: &'a [Finding],
}

/// The report for programs: `version`, `kernel`, `health` (the worst state) and `checks`.
///
/// # Errors
/// Never in practice: texts and words only.
pub fn json(findings: &[Finding], kernel: &str) -> serde_json::Result<String> {
    let object =
        Object { version: env!("CARGO_PKG_VERSION"), kernel, health: worst(findings), checks: findings };
    serde_json::to_string_pretty(&object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Check;

    #[test]
    fn long_sentences_go_on_under_their_beginning_and_long_words_stay_whole() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaa b", 3), ["aaaaaaa", "b"]);
        assert_eq!(wrap("", 3), Vec::<String>::new());
        let long = Finding::of(Check::Hook, State::Broken, "word ".repeat(50), "do ".repeat(60)).about("x:y");
        let text = text(&[long], "title", false);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.matches("->").count(), 1);
    }

    #[test]
    fn colours_are_there_when_wanted_only() {
        let found = [Finding::ok(Check::Btf, "fine")];
        assert!(!text(&found, "t", false).contains('\x1b'));
        assert!(text(&found, "t", true).contains("\x1b[32mok      \x1b[0m"));
    }

    #[test]
    fn programs_get_words_that_stay() {
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
