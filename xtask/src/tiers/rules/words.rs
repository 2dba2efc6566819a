//! Words and old texts that comments, messages and documentation must not contain. The reasons and
//! the replacements are in docs/STYLE.md.

use super::source::{Kind, tokens};
use super::{File, Finding};

/// Whole words and phrases, in any case. `is no` has one exception, see [`banned`].
const WORDS: [&str; 11] = [
    "told",
    "heard",
    "anew",
    "for ever",
    "goodbye",
    "whoever",
    "mend",
    "come by",
    "stood still",
    "put up with",
    "is no",
];
/// Distinctive parts of texts that were replaced, one a line; with `=` in front only as a complete
/// text.
const OLD_TEXTS: &str = include_str!("old_texts.txt");
/// Text that is not ours or names the words: data, the style guide, and the tables of this rule.
const EXEMPT: [&str; 6] = [
    "docs/STYLE.md",
    "LICENSE-",
    "deploy/debian/copyright",
    "fuzz/seeds/",
    "xtask/src/tiers/rules/words.rs",
    "xtask/src/tiers/rules/old_texts.txt",
];

pub fn check(files: &[File]) -> Vec<Finding> {
    let old: Vec<&str> = OLD_TEXTS.lines().filter(|line| !line.is_empty()).collect();
    let in_file = |(name, text): &File| {
        let findings = |block: Block| {
            banned(&block.text, &old)
                .into_iter()
                .map(move |word| Finding::new(name, block.line, word))
                .collect::<Vec<_>>()
        };
        let mut found: Vec<Finding> = blocks(name, text).into_iter().flat_map(findings).collect();
        if name.starts_with("deploy/") {
            found.extend(doubled(name, text));
        }
        found
    };
    files.iter().filter(|(name, _)| is_checked(name)).flat_map(in_file).collect()
}

fn is_checked(name: &str) -> bool {
    let kind = name.rsplit('.').next().unwrap_or_default();
    let is_text = matches!(kind, "rs" | "md") || name.starts_with("deploy/") || name.ends_with("Cargo.toml");
    is_text && !EXEMPT.iter().any(|prefix| name.starts_with(prefix))
}

/// Text that belongs together, on one line.
struct Block {
    /// Where it begins.
    line: usize,
    text: String,
}

fn blocks(name: &str, text: &str) -> Vec<Block> {
    if name.ends_with(".rs") { rust_blocks(text) } else { paragraphs(text) }
}

/// Comments of adjacent lines are one block; each string of several words is one.
fn rust_blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut last_comment = None;
    for token in tokens(text) {
        match token.kind {
            Kind::Comment(comment) => {
                let content = comment.trim_start_matches(['/', '!', '*']).trim();
                match found.last_mut() {
                    Some(block) if last_comment == Some(token.line - 1) => {
                        block.text.push(' ');
                        block.text.push_str(content);
                    }
                    _ => found.push(Block { line: token.line, text: one_line(content) }),
                }
                last_comment = Some(token.line);
            }
            Kind::Text(text) => {
                // A text of one word is a key (`#[serde(rename = "told")]`), not prose.
                if text.contains(char::is_whitespace) {
                    found.push(Block { line: token.line, text: one_line(&text) });
                }
                last_comment = None;
            }
            _ => last_comment = None,
        }
    }
    found
}

/// Lines up to an empty one, without the marks of comments and lists.
fn paragraphs(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        let content = line.trim().trim_start_matches(['#', '>', '-', '*', '/', '.']).trim();
        if content.is_empty() {
            open = false;
        } else if let Some(block) = found.last_mut().filter(|_| open) {
            block.text.push(' ');
            block.text.push_str(content);
        } else {
            found.push(Block { line: at + 1, text: content.to_owned() });
            open = true;
        }
    }
    found
}

/// Line ends and their indentation become one space, and a backslash before them goes.
fn one_line(text: &str) -> String {
    text.replace("\\\n", "\n").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Comment marks in a row, as a tool leaves them that wraps comments which already have a mark.
const DOUBLED: [&str; 2] = ["// //", "# #"];

/// Lines of a file without Rust code that have a doubled comment mark.
fn doubled(name: &str, text: &str) -> Vec<Finding> {
    let is_doubled = |line: &str| DOUBLED.iter().any(|marks| line.trim_start().starts_with(marks));
    let lines = text.lines().enumerate().filter(|(_, line)| is_doubled(line));
    lines.map(|(at, _)| Finding::new(name, at + 1, "has two comment marks")).collect()
}

/// What is wrong with a text.
fn banned(text: &str, old: &[&str]) -> Vec<String> {
    let lower = text.to_lowercase();
    let mut found = Vec::new();
    for word in WORDS {
        let is_whole = |(at, _): &(usize, &str)| {
            let before = lower[..*at].chars().next_back();
            let after = lower[at + word.len()..].chars().next();
            let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let follows = lower[at + word.len()..].trim_start();
            let is_allowed = word == "is no" && (after != Some(' ') || follows.starts_with("longer"));
            !is_letter(before) && !is_letter(after) && !is_allowed
        };
        let count = lower.match_indices(word).filter(is_whole).count();
        found.extend(std::iter::repeat_n(format!("contains {word:?}"), count));
    }
    found.extend(
        old.iter()
            .filter(|part| part.strip_prefix('=').map_or_else(|| text.contains(**part), |all| text == all))
            .map(|part| format!("contains the old text {part:?}")),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::{OLD_TEXTS, banned, check};

    fn found(name: &str, text: &str) -> Vec<(usize, String)> {
        check(&[(name.to_owned(), text.to_owned())])
            .into_iter()
            .map(|found| (found.line, found.text))
            .collect()
    }

    #[test]
    fn doubled_comment_marks_are_found_in_shipped_files() {
        let text = "# # x\n# y\n## z\n    // // w\nurl = \"https://x\"\n";
        let lines: Vec<usize> = found("deploy/x.conf", text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 4]);
        assert!(found("docs/x.md", text).is_empty());
    }

    #[test]
    fn words_are_found_whole_and_in_any_case() {
        assert_eq!(banned("Whoever was told", &[]).len(), 2);
        assert!(banned("retold, mended, recommend, overheard, is not, is now, is no longer", &[]).is_empty());
        assert_eq!(banned("there is no way", &[]), ["contains \"is no\""]);
    }

    #[test]
    fn comments_and_strings_are_checked_and_code_is_not() {
        let text = "// it waits for\n// ever\nfn told() { heard(\"a \\\n     goodbye\") }\n";
        let expected = [(1, "contains \"for ever\"".to_owned()), (3, "contains \"goodbye\"".to_owned())];
        assert_eq!(found("a.rs", text), expected);
        assert_eq!(found("docs/a.md", "one\n\ntwo is\nno good\n").len(), 1);
        assert!(found("a.rs", "const KEY: &str = \"told\";").is_empty());
        assert!(found("fuzz/seeds/x.md", "told").is_empty());
        assert!(found("t/tests/golden/x.txt", "told").is_empty());
    }

    #[test]
    fn some_old_texts_are_only_found_alone() {
        assert_eq!(banned("leg to serve", &["=leg to serve"]).len(), 1);
        assert!(banned("no probe leg to serve", &["=leg to serve"]).is_empty());
    }

    #[test]
    fn an_old_text_is_found() {
        let any = OLD_TEXTS.lines().find(|line| *line == "WHAT HAPPENED").unwrap();
        assert_eq!(found("deploy/x.service", &format!("# {any}\n")).len(), 1);
    }
}
