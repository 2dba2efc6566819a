//! Screens of our programs as docs/SCREENS.md shows them, and what of them must stay as it is. Times, numbers of processes, ids, durations
//! and how the machine was vary from run to run; the rest is the shape, and two screens of one shape say the same. Pure.

use regex_lite::Regex;

/// What varies, and what stands for it.
const VARIES: [(&str, &str); 17] = [
    (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DAY"),
    (r"\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"\b\d+(\.\d+)?\s?%", "N%"),
    (r"\b(\d+d\d\dh|\d+h\d\dm|\d+m\d\ds|\d+(\.\d+)?\s?(ms|us|µs|ns|s))\b", "LONG"),
    (r"\b\d+(\.\d+)?\s?([KMGT]i?B|B)\b", "SIZE"),
    (r"\[\d+\]", "[PID]"),
    (r"\bpid \d+", "pid PID"),
    (r"(--port |serve-)\d+", "${1}N"),
    (r"(\d+\.\d+\.\d+\.\d+):\d+", "$1:PORT"),
    (r"\b(psi|host) (calm|(io|mem|cpu) N%( (io|mem|cpu) N%)*)", "PRESSURE"),
    (r"\bhb (waited )?LONG", "hb LONG"),
    (r"[▁▂▃▄▅▆▇█]+", "▁"),
    (r"#+", "#"),
    (r"─+", "─"),
    (r"\bDAY TIME\s+\d+(\s+#)?$", "DAY TIME N"),
    (r"\s{2,}", "  "),
];

/// The shape of a screen, line by line; a line that comes again and again counts once.
#[must_use]
pub fn shape(screen: &str) -> Vec<String> {
    let rules: Vec<(Regex, &str)> =
        VARIES.iter().filter_map(|(rule, stands)| Some((Regex::new(rule).ok()?, *stands))).collect();
    let line = |line: &str| {
        let mut line = line.trim_end().to_owned();
        for (rule, stands) in &rules {
            line = rule.replace_all(&line, *stands).into_owned();
        }
        ids(&line).trim_end().to_owned()
    };
    let mut lines: Vec<String> = screen.lines().map(line).collect();
    lines.dedup();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

const FENCE: &str = "```";

/// The block of a page that begins with this line.
#[must_use]
pub fn block<'a>(page: &'a str, first_line: &str) -> Option<&'a str> {
    let begin = format!("{FENCE}text\n{first_line}\n");
    let at = page.find(&begin)? + FENCE.len() + "text\n".len();
    page.get(at..)?.split_inclusive(&format!("\n{FENCE}")).next()?.strip_suffix(FENCE)
}

/// Session ids: thirteen small letters and digits, not letters alone.
fn ids(line: &str) -> String {
    let id = |word: &str| {
        let known = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase();
        word.len() == 13 && word.chars().all(known) && word.contains(|c: char| c.is_ascii_digit())
    };
    let words = line.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            if id(end) { format!("ID{}", &word[end.len()..]) } else { word.to_owned() }
        })
        .collect()
}

/// Where two screens differ in shape, as `-` and `+` lines; empty when they do not.
#[must_use]
pub fn difference(kept: &str, fresh: &str) -> String {
    let (kept, fresh) = (shape(kept), shape(fresh));
    let mut told = String::new();
    let most = kept.len().max(fresh.len());
    for n in 0..most {
        let (old, new) = (kept.get(n), fresh.get(n));
        if old != new {
            told.extend(old.map(|line| format!("-{line}\n")));
            told.extend(new.map(|line| format!("+{line}\n")));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_from_run_to_run_is_no_part_of_the_shape() {
        let one = "TIME      WHAT\n2026-11-25\n17:50:01  serve was killed    alice     3m12s  signal:9  psi io 45% cpu 2%  hb 12ms  by bash[77]\n\
                   closes per 1m00s\n  2026-11-25 17:50:00    3  ###\n  2026-11-25 17:51:00  0\n  k3v9q0a1b2c3d done\n\n";
        let two = "TIME      WHAT\n2027-01-02\n07:00:59  serve was killed    alice      850ms  signal:9  psi calm  hb waited 1.2s  by bash[4242]\n\
                   closes per 2m00s\n  2027-01-02 07:00:00    9  ########\n  a00000000000z done\n";
        assert_eq!(difference(one, two), "");
        assert_eq!(
            shape(one),
            [
                "TIME  WHAT",
                "DAY",
                "TIME  serve was killed  alice  LONG  signal:9  PRESSURE  hb LONG  by bash[PID]",
                "closes per LONG",
                "  DAY TIME N",
                "  ID done",
            ]
        );
    }

    #[test]
    fn a_block_of_a_page_is_found_by_its_first_line() {
        let page = "# A\n\n```text\n$ one\nx\n\ny\n```\n\nThen\n\n```text\n$ one --more\nz\n```\n";
        assert_eq!(block(page, "$ one"), Some("$ one\nx\n\ny\n"));
        assert_eq!(block(page, "$ one --more"), Some("$ one --more\nz\n"));
        assert_eq!(block(page, "$ two"), None);
        assert_eq!(block("```text\n$ two\n", "$ two"), None);
    }

    #[test]
    fn another_word_heading_or_line_is_another_shape() {
        let kept = "TIME  WHAT\n17:50:01  serve was killed  alice\n";
        assert_eq!(difference(kept, &kept.replace("WHAT", "HOW")), "-TIME  WHAT\n+TIME  HOW\n");
        assert_eq!(
            difference(kept, &kept.replace("killed", "stopped")),
            "-TIME  serve was killed  alice\n+TIME  serve was stopped  alice\n"
        );
        assert_eq!(difference(kept, "TIME  WHAT\n"), "-TIME  serve was killed  alice\n");
        assert_eq!(difference("", "1 closes\n"), "+1 closes\n");
        assert_ne!(difference("exit:1", "exit:2"), "");
        assert_eq!(ids("administrator ran out"), "administrator ran out");
    }
}
