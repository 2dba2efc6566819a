//! Comments and documentation have at most 100 columns. Tables, code blocks and lines with a URL
//! are exempt.

use super::source::{Kind, tokens};
use super::{File, Finding};

const MAX: usize = 100;

pub fn check(files: &[File]) -> Vec<Finding> {
    let in_file = |(name, text): &File| {
        let lines = match name.rsplit('.').next() {
            Some("rs") => comment_lines(text),
            Some("md") => prose_lines(text),
            _ => Vec::new(),
        };
        let long = |line: &usize| {
            let content = text.lines().nth(line - 1).unwrap_or_default();
            content.chars().count() > MAX && !content.contains("://")
        };
        let finding = |line| Finding::new(name, line, format!("more than {MAX} columns"));
        lines.into_iter().filter(long).map(finding).collect::<Vec<_>>()
    };
    files.iter().flat_map(in_file).collect()
}

/// Lines of a Rust file with a comment, but for tables and code blocks in it.
fn comment_lines(text: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut is_code = false;
    for token in tokens(text) {
        let Kind::Comment(comment) = token.kind else { continue };
        for (offset, line) in comment.lines().enumerate() {
            let content = line.trim_start_matches(['/', '!', '*', ' ']);
            is_code ^= content.starts_with("```");
            if !is_code && !content.starts_with('|') {
                lines.push(token.line + offset);
            }
        }
    }
    lines.dedup();
    lines
}

/// Lines of a Markdown file outside of tables and code blocks.
pub fn prose_lines(text: &str) -> Vec<usize> {
    let mut is_code = false;
    let mut is_prose = |line: &str| {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        !is_code && !fence && !line.starts_with("    ") && !line.trim_start().starts_with('|')
    };
    text.lines().enumerate().filter(|(_, line)| is_prose(line)).map(|(at, _)| at + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::check;

    fn lines(name: &str, text: &str) -> Vec<usize> {
        check(&[(name.to_owned(), text.to_owned())]).into_iter().map(|found| found.line).collect()
    }

    #[test]
    fn long_comments_are_found_and_long_code_is_not() {
        let long = "x".repeat(101);
        assert_eq!(
            lines("a.rs", &format!("//! {long}\nlet a = \"{long}\";\n/// | {long} |\n// http://{long}\n")),
            [1]
        );
        assert_eq!(lines("a.rs", &format!("/// ```\n/// {long}\n/// ```\n/* a\n{long} */\n")), [5]);
    }

    #[test]
    fn long_prose_is_found_outside_of_tables_and_code() {
        let long = "y ".repeat(51);
        assert_eq!(
            lines("a.md", &format!("{long}\n| {long} |\n```\n{long}\n```\n\n    {long}\n- {long}\n")),
            [1, 8]
        );
        assert!(lines("a.toml", &long).is_empty());
    }
}
