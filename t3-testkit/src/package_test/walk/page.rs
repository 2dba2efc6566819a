//! Code blocks of a Markdown page, by section: the commands that a reader copies, and the lines
//! that a reader puts into files. Pure.

/// Block of code of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Text of the closest heading above.
    pub(super) section: String,
    /// Number of its first line.
    pub(super) line: usize,
    /// Word after the fence, for example `sh`.
    pub(super) language: String,
    /// Its lines, without the indentation of the fence.
    pub(super) lines: Vec<String>,
}

/// Command of a page, as a reader copies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageCommand {
    /// Number of its first line.
    pub(super) line: usize,
    pub(super) text: String,
}

/// A page that is not unambiguous about its commands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PageError {
    #[error("line {0}: a code block without a language")]
    NoLanguage(usize),
    #[error("line {0}: a code block without an end")]
    Unclosed(usize),
    /// Its language is unknown, so that a command in it would not be found.
    #[error("line {0}: an indented code block; expected a fence with a language")]
    Indented(usize),
}

const FENCE: &str = "```";
/// Columns from which on a line is code (CommonMark 4.4). Text of a list item has fewer.
const INDENTED: &str = "    ";

/// The blocks of a page, in its order.
pub(super) fn blocks(page: &str) -> Result<Vec<Block>, PageError> {
    let mut found = Vec::new();
    let mut section = String::new();
    let mut lines = page.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let content = line.trim_start();
        let indentation = line.len() - content.len();
        if let Some(language) = content.strip_prefix(FENCE) {
            if language.is_empty() {
                return Err(PageError::NoLanguage(number));
            }
            let mut block = Block {
                section: section.clone(),
                line: number + 1,
                language: language.to_owned(),
                lines: Vec::new(),
            };
            loop {
                let Some((line, _)) = lines.next() else { return Err(PageError::Unclosed(number)) };
                if line.trim() == FENCE {
                    break;
                }
                block.lines.push(line.get(indentation..).unwrap_or_default().to_owned());
            }
            found.push(block);
        } else if line.starts_with(INDENTED) {
            return Err(PageError::Indented(number));
        } else if let Some(heading) = heading(line) {
            heading.clone_into(&mut section);
        }
    }
    Ok(found)
}

/// Text of a heading of any level (CommonMark 4.2).
fn heading(line: &str) -> Option<&str> {
    line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
}

impl Block {
    /// The commands of a block of shell lines; a `\` at the end of a line continues it.
    pub(super) fn commands(&self) -> Vec<PageCommand> {
        let mut found: Vec<PageCommand> = Vec::new();
        let mut is_continued = false;
        for (line, number) in self.lines.iter().zip(self.line..) {
            let (text, continues) =
                line.strip_suffix('\\').map_or((line.as_str(), false), |text| (text, true));
            match found.last_mut().filter(|_| is_continued) {
                Some(command) => command.text.push_str(text),
                None if text.trim().is_empty() || text.starts_with('#') => {}
                None => found.push(PageCommand { line: number, text: text.to_owned() }),
            }
            is_continued = continues;
        }
        found
    }
}

/// Code spans in the text of a page, also those over two lines, that call one of these programs
/// with an argument.
#[cfg(test)]
pub(super) fn commands_in_text(page: &str, programs: &[&str]) -> Vec<String> {
    let mut is_code = false;
    let mut text = String::new();
    for line in page.lines() {
        let is_fence = line.trim_start().starts_with(FENCE);
        is_code ^= is_fence;
        if !is_code && !is_fence {
            text.push_str(line.trim());
            text.push(' ');
        }
    }
    let calls = |span: &&str| span.split_once(' ').is_some_and(|(program, _)| programs.contains(&program));
    let mut found: Vec<String> =
        text.split('`').skip(1).step_by(2).filter(calls).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::{Block, PageCommand, PageError, blocks, commands_in_text};

    fn block(section: &str, line: usize, language: &str, lines: &[&str]) -> Block {
        Block {
            section: section.to_owned(),
            line,
            language: language.to_owned(),
            lines: lines.iter().map(|&line| line.to_owned()).collect(),
        }
    }

    #[test]
    fn blocks_have_their_section_line_and_language() {
        let table: [(&str, Vec<Block>); 6] = [
            ("# A\n\ntext\n", vec![]),
            ("# A\n\n```sh\nls\nid\n```\n", vec![block("A", 4, "sh", &["ls", "id"])]),
            ("# A\n## B c\n```toml\na = 1\n```\n", vec![block("B c", 4, "toml", &["a = 1"])]),
            // A comment of the shell is not a heading.
            (
                "## B\n```sh\n# C\n```\n```sh\nls\n```\n",
                vec![block("B", 3, "sh", &["# C"]), block("B", 6, "sh", &["ls"])],
            ),
            // In a list item.
            ("1. text:\n\n   ```sh\n   ls\n     -l\n   ```\n", vec![block("", 4, "sh", &["ls", "  -l"])]),
            ("#no heading\n```sh\n\n```\n", vec![block("", 3, "sh", &[""])]),
        ];
        for (page, expected) in table {
            assert_eq!(blocks(page).as_ref(), Ok(&expected), "{page}");
        }
    }

    #[test]
    fn a_block_whose_language_is_unknown_is_an_error() {
        let table = [
            ("a\n```\nls\n```\n", PageError::NoLanguage(2)),
            ("```sh\nls\n", PageError::Unclosed(1)),
            ("a:\n\n    ls\n", PageError::Indented(3)),
            ("1. a:\n\n       ls\n", PageError::Indented(3)),
        ];
        for (page, expected) in table {
            assert_eq!(blocks(page), Err(expected), "{page}");
        }
    }

    #[test]
    fn commands_are_lines_or_continued_lines() {
        /// Lines; line numbers and texts of their commands.
        type Case = (&'static [&'static str], &'static [(usize, &'static str)]);
        let table: [Case; 4] = [
            (&["ls", "", "id; pwd"], &[(7, "ls"), (9, "id; pwd")]),
            (&["# remark", "ls    # remark"], &[(8, "ls    # remark")]),
            (&["ls \\", "  -l", "id"], &[(7, "ls   -l"), (9, "id")]),
            (&["ls | \\", "# a", "id"], &[(7, "ls | # a"), (9, "id")]),
        ];
        for (lines, expected) in table {
            let expected: Vec<_> =
                expected.iter().map(|&(line, text)| PageCommand { line, text: text.to_owned() }).collect();
            assert_eq!(block("A", 7, "sh", lines).commands(), expected, "{lines:?}");
        }
    }

    #[test]
    fn commands_in_text_have_a_known_program_and_an_argument() {
        let page = "`ls -l`, `ls` and `a -b`; `ls\n-a`, `ls -l`.\n\n```sh\n`ls -c`\n```\n   `ls -d`\n";
        assert_eq!(commands_in_text(page, &["ls"]), ["ls -a", "ls -d", "ls -l"]);
    }
}
