//! Shape of the screens in docs/SCREENS.md: the text without values that vary from run to run
//! (times, process ids, session ids, durations, pressure). Two screens of the same shape are
//! considered equal. Pure.

use regex_lite::Regex;
use t3_trace_cli::present::text::INDENT;

/// Patterns of varying values and their placeholders.
const VARIES: [(&str, &str); 19] = [
    (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DAY"),
    (r"\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"\b\d+(\.\d+)?\s?%", "N%"),
    (r"\b(\d+d\d\dh|\d+h\d\dm|\d+m\d\ds|\d+(\.\d+)?\s?(ms|us|µs|ns|s))\b", "LONG"),
    (r"\b\d+(\.\d+)?\s?([KMGT]i?B|B)\b", "SIZE"),
    (r"\[\d+\]", "[PID]"),
    (r"\bpid \d+", "pid PID"),
    (r"(--port |serve-)\d+", "${1}N"),
    (r"\bsession [a-z0-9]{13}\b", "session ID"),
    (r"(\d+\.\d+\.\d+\.\d+):\d+", "$1:PORT"),
    (r"\b(host )?PSI (ok|(io|mem|cpu) N%( (io|mem|cpu) N%)*)", "PRESSURE"),
    (r"\b(hb RTT <?|ping unanswered )LONG", "hb LONG"),
    (r"[▁▂▃▄▅▆▇█]+", "▁"),
    (r"#+", "#"),
    (r"─+", "─"),
    (r"\bDAY TIME\s+\d+(\s+#)?$", "DAY TIME N"),
    (r"\s{2,}", "  "),
    // In a line of a close; an id without digits looks like a word ([`ids`]).
    (r"^TIME  [a-z0-9]{13}\b", "TIME  ID"),
];

/// Further patterns for `t3-trace live`: values of open sessions, and text that a column truncates.
const VARIES_LIVE: [(&str, &str); 5] = [
    (r"PRESSURE  .*$|PRESSURE$", "PRESSURE"),
    (r"\d+(\.\d+)?/s\b", "N/s"),
    (r"\b(mem|io|cpu) N%|(LONG|SIZE)(/s)?|\d+ B/s|▁|\bok\b|\bunanswered\b", ""),
    (r"(\s)-(\s)", "$1$2"),
    (r"\s{2,}", "  "),
];

/// Kind of a screen: the rules for its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines; repeated lines count once.
    Lines,
    /// `t3-trace live` in full-screen mode.
    Live,
    /// `t3-trace doctor`: names of sections and checks, without their findings.
    Checks,
    /// A page with headings in capitals: the headings, and the text of those in `SECTIONS`.
    Page,
}

/// Sections of a page with a text that does not depend on the host.
const SECTIONS: [&str; 3] = ["ANSWER", "CONFIDENCE", "NEXT"];
/// Optional section.
const MAYBE: &str = "SEEN, NOT THE CAUSE";

/// The shape of a screen.
#[must_use]
pub fn shape(kind: Kind, screen: &str) -> Vec<String> {
    let mut lines = match kind {
        Kind::Lines => lines(&unfolded(screen), &[]),
        Kind::Live => lines(&without_losses(screen), &VARIES_LIVE),
        Kind::Checks => return checks(screen),
        Kind::Page => return page(screen),
    };
    lines.dedup();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Whether the kernel skips a run of a program depends on the load of the host.
fn without_losses(screen: &str) -> String {
    let is_loss = |line: &&str| line.starts_with("! ") && line.contains(" kernel events lost: ");
    screen.lines().filter(|line| !is_loss(line)).map(|line| format!("{line}\n")).collect()
}

fn lines(screen: &str, more: &[(&str, &'static str)]) -> Vec<String> {
    let rules = VARIES.iter().chain(more);
    let rules: Vec<(Regex, &str)> =
        rules.filter_map(|(rule, stands)| Some((Regex::new(rule).ok()?, *stands))).collect();
    let line = |line: &str| {
        let mut line = line.trim_end().to_owned();
        for (rule, stands) in &rules {
            line = rule.replace_all(&line, *stands).into_owned();
        }
        ids(&line).trim_end().to_owned()
    };
    screen.lines().map(line).collect()
}

/// Joins the continuation lines of a close to its first line: where a line is folded depends on the
/// lengths of values that vary.
fn unfolded(screen: &str) -> String {
    let mut out = String::new();
    let mut of_close = false;
    for line in screen.lines() {
        let continues = line.strip_prefix(INDENT).is_some_and(|rest| !rest.starts_with(' '));
        if of_close && continues {
            out.push_str("  ");
            out.push_str(line.trim_start());
            continue;
        }
        of_close = line.as_bytes().get(2) == Some(&b':') && line.as_bytes().get(5) == Some(&b':');
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(line);
    }
    out
}

fn checks(screen: &str) -> Vec<String> {
    let name = |line: &str| {
        let (state, check) = line.strip_prefix("  ")?.split_once("  ")?;
        let state = ["ok", "note", "warning", "BROKEN"].contains(&state);
        state.then_some(check.trim_start().split_once(':')?.0.to_owned())
    };
    let heading = |line: &str| !line.is_empty() && line.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let mut shape: Vec<String> = screen
        .lines()
        .filter_map(|line| name(line).or_else(|| heading(line).then(|| line.to_owned())))
        .collect();
    shape.dedup();
    shape
}

fn page(screen: &str) -> Vec<String> {
    let heading =
        |line: &str| !line.is_empty() && line.chars().all(|c| c.is_ascii_uppercase() || " ,".contains(c));
    let mut shape: Vec<String> = Vec::new();
    let mut counts = true;
    for line in screen.lines().filter(|line| !line.trim().is_empty()) {
        if heading(line) {
            counts = SECTIONS.contains(&line);
            shape.extend((line != MAYBE).then(|| line.to_owned()));
            // The text of a section is one line: line breaks depend on varying values.
            shape.extend(counts.then(String::new));
        } else if counts {
            match shape.last_mut() {
                Some(text) if !heading(text) => *text = format!("{text} {}", line.trim()),
                _ => shape.push(line.trim().to_owned()),
            }
        }
    }
    shape.iter().flat_map(|text| lines(text, &[])).collect()
}

const FENCE: &str = "```";

/// The code block of a page that begins with this line.
#[must_use]
pub fn block<'a>(page: &'a str, first_line: &str) -> Option<&'a str> {
    let begin = format!("{FENCE}text\n{first_line}\n");
    let at = page.find(&begin)? + FENCE.len() + "text\n".len();
    page.get(at..)?.split_inclusive(&format!("\n{FENCE}")).next()?.strip_suffix(FENCE)
}

/// Replaces session ids: thirteen lower-case letters and digits, with at least one digit.
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

/// Differences of the shapes of two screens as `-` and `+` lines; empty if equal.
#[must_use]
pub fn difference(kind: Kind, kept: &str, fresh: &str) -> String {
    let (kept, fresh) = (shape(kind, kept), shape(kind, fresh));
    let mut changes = String::new();
    let most = kept.len().max(fresh.len());
    for n in 0..most {
        let (old, new) = (kept.get(n), fresh.get(n));
        if old != new {
            changes.extend(old.map(|line| format!("-{line}\n")));
            changes.extend(new.map(|line| format!("+{line}\n")));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_vary_are_not_part_of_the_shape() {
        let one = "TIME      WHAT\n2026-11-25\n17:50:01  serve killed by signal    alice     3m12s  signal:9  PSI io 45% cpu 2%  hb RTT 12ms  by bash[77]\n\
                   median 1m00s\n  2026-11-25 17:50:00    3  ###\n  2026-11-25 17:51:00  0\n  k3v9q0a1b2c3d done\n\n";
        let two = "TIME      WHAT\n2027-01-02\n07:00:59  serve killed by signal    alice      850ms  signal:9  PSI ok  ping unanswered 1.2s  by bash[4242]\n\
                   median 2m00s\n  2027-01-02 07:00:00    9  ########\n  a00000000000z done\n";
        assert_eq!(difference(Kind::Lines, one, two), "");
        assert_eq!(
            shape(Kind::Lines, one),
            [
                "TIME  WHAT",
                "DAY",
                "TIME  serve killed by signal  alice  LONG  signal:9  PRESSURE  hb LONG  by bash[PID]",
                "median LONG",
                "  DAY TIME N",
                "  ID done",
            ]
        );
    }

    #[test]
    fn an_id_without_digits_is_an_id_in_the_line_of_a_close() {
        let line = |id: &str| shape(Kind::Lines, &format!("17:50:01  {id}  client_reset  carol"));
        assert_eq!(line("bomhnkbofcxtj"), ["TIME  ID  client_reset  carol"]);
        assert_eq!(line("k6m3xts3yt73x"), line("bomhnkbofcxtj"));
    }

    #[test]
    fn a_loss_of_kernel_events_is_not_part_of_the_screen() {
        let lossy = "t3-trace live\n! 2 kernel events lost: some verdicts are based on less evidence.\nUSER";
        assert_eq!(difference(Kind::Live, "t3-trace live\nUSER", lossy), "");
        assert_ne!(difference(Kind::Live, "t3-trace live\nUSER", "t3-trace live\n! another\nUSER"), "");
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
    fn a_folded_close_has_the_shape_of_an_unfolded_one() {
        let one = "17:50:01  serve OOM-killed  ivan  1s  oom  hb RTT 1ms  victim t3-serve --port 1\n";
        let two =
            "17:50:01  serve OOM-killed  ivan  1s  oom  hb RTT <1ms\n          victim t3-serve --port 1\n";
        assert_eq!(difference(Kind::Lines, one, two), "");
        assert_ne!(difference(Kind::Lines, one, &two.replace("--port 1", "")), "");
        assert_ne!(difference(Kind::Lines, "total\n", "total\n          more\n"), "");
        let one = "17:50:01  serve unresponsive  judy  5.2s  stall  PSI ok  ping unanswered 3.6s\n";
        let two =
            "17:50:01  serve unresponsive  judy  5.2s  stall  host PSI io 1% cpu 1%\n          hb RTT 1ms\n";
        assert_eq!(difference(Kind::Lines, one, two), "");
    }

    #[test]
    fn a_changed_word_heading_or_line_changes_the_shape() {
        let kept = "TIME  WHAT\n17:50:01  serve killed by signal  alice\n";
        assert_eq!(difference(Kind::Lines, kept, &kept.replace("WHAT", "HOW")), "-TIME  WHAT\n+TIME  HOW\n");
        assert_eq!(
            difference(Kind::Lines, kept, &kept.replace("killed", "stopped")),
            "-TIME  serve killed by signal  alice\n+TIME  serve stopped by signal  alice\n"
        );
        assert_eq!(difference(Kind::Lines, kept, "TIME  WHAT\n"), "-TIME  serve killed by signal  alice\n");
        assert_eq!(difference(Kind::Lines, "", "1 closes\n"), "+1 closes\n");
        assert_ne!(difference(Kind::Lines, "exit:1", "exit:2"), "");
        assert_eq!(ids("administrator ran out"), "administrator ran out");
    }

    #[test]
    fn the_live_screen_is_compared_by_words_not_numbers() {
        let one = " t3-trace live   connected since 18:26:07   10 closes   0.2/s   kernel evidence: yes      18:26:28\n\
                   - Open sessions 1   host PSI some (10 s): mem 0%  io 0%  cpu 99%      - Totals since 18:26:07\n\
                   judy             789ms                                        client closed    1\n\
                   18:26:19  serve OOM-killed   ivan  893ms  oom  PSI mem 1% cpu 6%  hb RTT <1ms  victim t3-s…\n";
        let two = " t3-trace live   connected since 18:36:07   10 closes   1.2/s   kernel evidence: yes      18:36:28\n\
                   - Open sessions 1   host PSI some (10 s): mem 0%  io 0%  cpu 99%      - Totals since 18:36:07\n\
                   judy              1.8s  2.4ms  500 B/s  1.2 MB/s  io 61% ▂▃▇  client closed    1\n\
                   18:36:19  serve OOM-killed   ivan  1.2s  oom  PSI ok  hb RTT <1ms  victim t3-serve…\n";
        assert_eq!(difference(Kind::Live, one, two), "");
        assert_ne!(difference(Kind::Live, one, &two.replace("yes", "no")), "");
        assert_ne!(difference(Kind::Live, one, &two.replace("ivan", "judy")), "");
        assert_ne!(difference(Kind::Live, one, &two.replace("closed    1", "closed    2")), "");
    }

    #[test]
    fn a_page_is_compared_by_its_answer_regardless_of_line_breaks() {
        let one = "2026-11-25 18:26:18  session ffylsrbqyendj  of ivan  lasted 893ms\n\nANSWER\n  It waited 3.6s for its\n    answer.\n\n\
                   TIMELINE\n  18:26:08  x\n\nSEEN, NOT THE CAUSE\n  leg\n\nNEXT\n  - Read `log --since '2026-11-25 18:26:18'`.\n";
        let two = "2026-11-26 08:26:18  session aym2exqzu3oc1  of ivan  lasted 1.2s\n\nANSWER\n  It waited 1m03s for\n    its answer.\n\n\
                   TIMELINE\n  18:26:08  y\n\nNEXT\n  - Read `log --since\n    '2026-11-26 18:26:18'`.\n";
        assert_eq!(difference(Kind::Page, one, two), "");
        assert_ne!(difference(Kind::Page, one, &two.replace("answer", "question")), "");
        assert_ne!(difference(Kind::Page, one, &two.replace("TIMELINE", "HISTORY")), "");
        assert_ne!(difference(Kind::Page, one, &two.replace("Read", "Burn")), "");
    }

    #[test]
    fn a_report_is_compared_by_its_checks_not_their_findings() {
        let one = "t3-trace doctor 0.1.0\n\nkernel\n  ok        btf: Linux has it\n  note      hook tcp_close: not attached: x\n            -> do: it\n\n1 notes.\n";
        assert_eq!(shape(Kind::Checks, one), ["kernel", "btf", "hook tcp_close"]);
        assert_eq!(
            difference(Kind::Checks, one, &one.replace("ok        btf: Linux has it", "BROKEN    btf: none")),
            ""
        );
        assert_ne!(difference(Kind::Checks, one, &one.replace("btf", "types")), "");
        assert_ne!(difference(Kind::Checks, one, &one.replace("kernel", "machine")), "");
    }
}
