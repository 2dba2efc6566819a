//! Sections below the options in `--help`, split by headings, so that a manual page has the same
//! text. Pure.

/// Headings below the options of `--help`; upper case in a manual page.
const HEADINGS: [&str; 6] = ["Examples", "Example", "Exit status", "Files", "Environment", "See also"];

/// A section of the help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `EXAMPLES`, `EXIT STATUS`, ...; `NOTES` for text without a heading.
    pub title: String,
    /// Lines, with the blank ones between them.
    pub lines: Vec<Line>,
}

/// A line of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Indented in the help; printed unchanged, without the indent.
    Verbatim(String),
    /// Running text.
    Text(String),
    /// Empty.
    Blank,
}

/// Splits a text. A heading is a line such as `Examples:`, with or without text after the colon; a
/// line that is not indented and follows a blank line has no heading.
#[must_use]
pub fn parse(help: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut after_blank = true;
    for line in help.lines() {
        let (line, indented) = (line.trim_end(), line.starts_with(' '));
        if line.is_empty() {
            if let Some(section) = sections.last_mut() {
                section.lines.push(Line::Blank);
            }
            after_blank = true;
            continue;
        }
        let (title, rest) = match heading(line) {
            Some((title, rest)) => (Some(title), rest),
            None if after_blank && !indented => (Some("NOTES".to_owned()), line),
            None => (None, line),
        };
        if let Some(title) = title
            && sections.last().is_none_or(|last| last.title != title)
        {
            sections.push(Section { title, lines: Vec::new() });
        }
        after_blank = false;
        if rest.is_empty() {
            continue;
        }
        let line =
            if indented { Line::Verbatim(rest.trim_start().to_owned()) } else { Line::Text(rest.to_owned()) };
        match sections.last_mut() {
            Some(section) => section.lines.push(line),
            None => sections.push(Section { title: "NOTES".to_owned(), lines: vec![line] }),
        }
    }
    for section in &mut sections {
        while section.lines.last() == Some(&Line::Blank) {
            section.lines.pop();
        }
    }
    sections
}

fn heading(line: &str) -> Option<(String, &str)> {
    let (title, rest) = line.split_once(':')?;
    let known = HEADINGS.contains(&title);
    let title = if title == "Example" { "Examples" } else { title };
    known.then(|| (title.to_uppercase(), rest.trim_start()))
}

/// Returns the command lines of the examples.
#[must_use]
pub fn examples(help: &str) -> Vec<String> {
    let sections = parse(help).into_iter().filter(|section| section.title == "EXAMPLES");
    sections
        .flat_map(|section| section.lines)
        .filter_map(|line| match line {
            Line::Verbatim(text) | Line::Text(text) => Some(text),
            Line::Blank => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_at_its_headings() {
        let found = parse(
            "Examples:\n  p run\n  p run -x\n\nExit status:\n   0  well\n  2  not\n\nOptions come\nfrom afar.\n",
        );
        let verbatim = |text: &str| Line::Verbatim(text.to_owned());
        let text = |text: &str| Line::Text(text.to_owned());
        let section = |title: &str, lines| Section { title: title.to_owned(), lines };
        assert_eq!(
            found,
            [
                section("EXAMPLES", vec![verbatim("p run"), verbatim("p run -x")]),
                section("EXIT STATUS", vec![verbatim("0  well"), verbatim("2  not")]),
                section("NOTES", vec![text("Options come"), text("from afar.")]),
            ]
        );
    }

    #[test]
    fn a_heading_can_have_text_on_its_line_and_other_colons_are_text() {
        assert_eq!(examples("Example: p run --at 14:10\nExit status: 0 well; 2 not"), ["p run --at 14:10"]);
        let found = parse("Note: this\nExit status: 0 well");
        let titles: Vec<_> = found.iter().map(|section| section.title.as_str()).collect();
        assert_eq!(titles, ["NOTES", "EXIT STATUS"]);
        assert_eq!(parse(""), []);
        assert_eq!(parse("\n\n  only indented\n")[0].title, "NOTES");
    }
}
