//! Page about one close, as text for a terminal and as JSON with the same content. Pure.

use std::fmt::Write;

use t3_record::{
    CloseRecord, Confidence, Segment, Verdict,
    edge::{Part, Refinement, refine},
};

use super::{
    checked::{self, Check},
    facts::ExplainInput,
    find::Close,
    next::{self, Window},
    pattern::{self, FalseAlarms},
    timeline::{self, Entry},
};
use crate::{
    present::{
        answer,
        text::{Paint, folded, lasted, safe},
        units,
        verdict_text::{self, Tone, tone},
    },
    time::utc,
};

/// Page width in columns where the output is not a terminal.
pub const WIDTH: usize = 110;
/// Smallest width of a text in the timeline, in columns.
const NARROWEST: usize = 24;
/// Time range of the commands under NEXT, before and after the close, in milliseconds.
const LOOK: (i64, i64) = (60_000, 30_000);

/// Everything about one close.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Page {
    pub conn: String,
    pub user: String,
    pub ip: String,
    /// Host of the session, if it is not this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Local time of the close.
    pub at: String,
    /// The same in milliseconds since the epoch.
    pub at_ms: i64,
    pub lasted_ms: u64,
    /// Conclusion in one or two sentences.
    pub answer: String,
    /// Pattern over the user's sessions that this close belongs to or that surrounds it.
    pub pattern: Option<FalseAlarms>,
    /// Confidence and the deciding evidence.
    #[serde(rename = "sure")]
    pub confidence: String,
    /// Findings of the edge, or why there are none.
    #[serde(rename = "in_front")]
    pub edge: Option<EdgeFindings>,
    pub timeline: Vec<Entry>,
    /// Checked and healthy.
    #[serde(rename = "clean")]
    pub healthy: Vec<Check>,
    /// Checked, not healthy, and not the cause.
    #[serde(rename = "beside")]
    pub unhealthy: Vec<Check>,
    /// Not checked, or not available.
    #[serde(rename = "unknown")]
    pub unchecked: Vec<Check>,
    pub next: Vec<String>,
    /// Other closes that match the selection.
    pub near: Vec<Nearby>,
    pub record: CloseRecord,
}

/// Findings of the edge for `segment=downstream`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EdgeFindings {
    /// The failed hop, if it is known.
    pub part: Option<Part>,
    pub confidence: Option<Confidence>,
    /// Reasons, each with its source.
    #[serde(rename = "said")]
    pub reasons: Vec<String>,
    /// Why the hop is unknown.
    #[serde(rename = "cannot")]
    pub unresolved: Option<String>,
    /// How the edge and this host contradict each other.
    pub contradiction: Option<String>,
}

/// Another close that matches the selection.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Nearby {
    pub conn: String,
    /// Local time of the close.
    pub at: String,
    pub verdict: Verdict,
}

impl Page {
    /// Builds the page. `wall` formats seconds since the epoch as `2026-11-25 14:10:07`.
    #[must_use]
    pub fn of(facts: &ExplainInput, near: &[Close], wall: impl Fn(u64) -> String) -> Self {
        let record = &facts.record;
        let wall_ms = |ms: i64| wall(u64::try_from(ms / 1000).unwrap_or(0));
        let zero = facts.zero_ms();
        let refinement = refine(&facts.ended(), &facts.gathered.layers);
        let checks = checked::checks(facts);
        let layers = &facts.gathered.layers;
        let front = next::EdgeFindings {
            queried: layers.cloudflared.is_some()
                && (layers.traefik.is_some() || layers.envoy.is_some() || layers.haproxy.is_some()),
            part: refinement.part,
        };
        // journalctl reads a time without a zone in that of the system.
        let for_command = |ms: i64| if facts.has_own_zone { utc(ms) } else { wall_ms(ms) };
        let window = Window {
            since: for_command(zero.saturating_sub(LOOK.0)),
            until: for_command(facts.at_ms.saturating_add(LOOK.1)),
        };
        let near = near.iter().map(|close| Nearby {
            conn: safe(&close.record.conn),
            at: wall_ms(close.at_ms),
            verdict: close.record.verdict,
        });
        let host = facts.other_host().map(safe);
        let mut next = next::steps(record, &window, front);
        if let Some(host) = &host {
            next.insert(0, format!("The session was on host {host}: run the commands there."));
        }
        Self {
            conn: safe(&record.conn),
            user: safe(&record.user),
            ip: safe(&record.ip),
            host,
            at: wall_ms(zero),
            at_ms: zero,
            lasted_ms: record.dur_ms,
            answer: answer::sentence(&doubted(record, &refinement)),
            pattern: pattern::false_alarms(record, facts.at_ms, &facts.history),
            confidence: match &refinement.contradiction {
                Some(why) => answer::contradicted(record, why),
                None => answer::confidence(record),
            },
            timeline: timeline::entries(facts, &refinement),
            edge: edge(record, refinement),
            healthy: checks.healthy,
            unhealthy: checks.unhealthy,
            unchecked: checks.unchecked,
            next,
            near: near.collect(),
            record: record.clone(),
        }
    }

    /// Returns the page for a terminal of this width in columns.
    #[must_use]
    pub fn text(&self, paint: Paint, width: usize, wall: impl Fn(u64) -> String) -> String {
        let mut out = String::new();
        let record = &self.record;
        let lasted = if self.lasted_ms == 0 {
            "never opened".to_owned()
        } else {
            format!("lasted {}", lasted(self.lasted_ms))
        };
        let mut head =
            format!("{}  session {}  of {}  from {}  {lasted}", self.at, self.conn, self.user, self.ip);
        if let Some(host) = &self.host {
            let _ = write!(head, "  on host {host}");
        }
        let _ = writeln!(out, "{}", folded(&head, Some(width)));
        heading(&mut out, paint, "ANSWER");
        let code = match tone(record.verdict, record.segment) {
            Tone::Fine => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
        };
        // Continuation lines are indented by four: outside text must never look like the line of
        // contract words below.
        let indented = |out: &mut String, text: &str, code: &str| {
            for (n, line) in wrapped(text, width.saturating_sub(4)).iter().enumerate() {
                let _ = writeln!(out, "{}{}", if n == 0 { "  " } else { "    " }, paint.with(code, line));
            }
        };
        indented(&mut out, &self.answer, code);
        indented(&mut out, &vocabulary(record), "2");
        if let Some(pattern) = &self.pattern {
            paragraph(&mut out, width, "  ", &pattern.sentence(record));
        }
        if let Some(edge) = &self.edge {
            edge.lines().iter().for_each(|line| paragraph(&mut out, width, "  ", line));
        }
        heading(&mut out, paint, "CONFIDENCE");
        paragraph(&mut out, width, "  ", &self.confidence);
        heading(&mut out, paint, "TIMELINE");
        for entry in &self.timeline {
            self.entry(&mut out, entry, paint, width, &wall);
        }
        checks(&mut out, (paint, width), "CHECKED, OK", &self.healthy);
        checks(&mut out, (paint, width), "SEEN, NOT THE CAUSE", &self.unhealthy);
        checks(&mut out, (paint, width), "NOT CHECKED", &self.unchecked);
        heading(&mut out, paint, "NEXT");
        self.next.iter().for_each(|step| paragraph(&mut out, width, "  - ", step));
        if !self.near.is_empty() {
            heading(&mut out, paint, "OR DID YOU MEAN");
            for Nearby { conn, at, verdict } in &self.near {
                let label = verdict_text::label(*verdict);
                let line = format!("  {at}  {label:0$}  t3-trace explain {conn}", verdict_text::WIDTH);
                let _ = writeln!(out, "{}", folded(&line, Some(width)));
            }
        }
        out
    }

    fn entry(
        &self,
        out: &mut String,
        entry: &Entry,
        paint: Paint,
        width: usize,
        wall: &impl Fn(u64) -> String,
    ) {
        let at_ms = self.at_ms.saturating_add(entry.offset_ms);
        let at = wall(u64::try_from(at_ms / 1000).unwrap_or(0));
        // The day is shown only where it differs from the day of the close.
        let day = |at: &str| at.split(' ').next().unwrap_or_default().to_owned();
        let clock =
            if day(&at) == day(&self.at) { at.split(' ').next_back().unwrap_or_default() } else { &at };
        let head = format!("  {clock:8}  {:>8}  {:10}  ", units::offset(entry.offset_ms), entry.source);
        let mut indent = head.chars().count();
        let mut line = paint.dim(&head);
        // Below the head if there is not enough room next to it.
        if indent + NARROWEST > width {
            let _ = writeln!(out, "{}", paint.dim(head.trim_end()));
            indent = 4;
            line = " ".repeat(indent);
        }
        for text in wrapped(&entry.text, width.saturating_sub(indent).max(NARROWEST)) {
            let _ = writeln!(out, "{line}{text}");
            line = " ".repeat(indent);
        }
    }
}

/// Returns the contract words of the record, for comparison with the page.
fn vocabulary(record: &CloseRecord) -> String {
    let mut words = format!("verdict={} segment={}", record.verdict, record.segment);
    for (key, value) in [
        ("how", record.how.map(|how| how.to_string())),
        ("closed_by", record.closed_by.map(|by| by.to_string())),
        ("confidence", record.confidence.map(|confidence| confidence.to_string())),
    ] {
        value.into_iter().for_each(|value| words.push_str(&format!(" {key}={value}")));
    }
    words
}

/// The record; likely at most if the edge contradicts it.
fn doubted(record: &CloseRecord, refinement: &Refinement) -> CloseRecord {
    let mut record = record.clone();
    if refinement.contradiction.is_some() {
        record.confidence = record.confidence.map(|_| Confidence::Likely);
    }
    record
}

/// Findings of the edge: for a downstream cause the hop, for any other the statements.
fn edge(record: &CloseRecord, refinement: Refinement) -> Option<EdgeFindings> {
    let Refinement { part, confidence, reasons, unresolved, statements, contradiction, .. } = refinement;
    let printable = |text: String| safe(&text);
    let downstream = record.segment == Segment::Downstream;
    (downstream || !statements.is_empty()).then(|| EdgeFindings {
        part,
        confidence,
        reasons: reasons.into_iter().map(printable).collect(),
        unresolved: unresolved.filter(|_| downstream).map(printable),
        contradiction: contradiction.map(printable),
    })
}

impl EdgeFindings {
    fn lines(&self) -> Vec<String> {
        let part = self.part.map(|part| {
            let confidence =
                self.confidence.map_or_else(String::new, |confidence| format!(" ({confidence})"));
            let part = match part {
                Part::Traefik => "Traefik or its node",
                Part::Tunnel => "the tunnel between Cloudflare and cloudflared",
                Part::LastMile => "the last mile, between the user and Cloudflare",
                Part::Edge => "Cloudflare's edge",
                Part::Proxy => "the proxy in front of t3-dispatch, or its node",
                Part::BehindEdge => "between Cloudflare and this host: the tunnel, cloudflared or Traefik",
                Part::BeforeProxy => "in front of the proxy: the user's side, Cloudflare or the tunnel",
            };
            format!("Failed hop: {part}{confidence}:")
        });
        let unresolved = self.unresolved.as_ref();
        let unresolved = unresolved.map(|why| {
            format!("Cannot tell which hop failed (client, Cloudflare, cloudflared, Traefik): {why}.")
        });
        let reasons = self.reasons.iter().map(|reason| format!("- {reason}"));
        let contradiction = self.contradiction.as_ref().map(|_| {
            let why = "the edge and this host exclude each other; the verdict is not proven";
            format!("Contradiction: {why} (see CONFIDENCE).")
        });
        contradiction.into_iter().chain(part).chain(unresolved).chain(reasons).collect()
    }
}

pub(super) fn heading(out: &mut String, paint: Paint, text: &str) {
    let _ = writeln!(out, "\n{}", paint.with("1", text));
}

fn checks(out: &mut String, (paint, width): (Paint, usize), title: &str, checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    heading(out, paint, title);
    for check in checks {
        paragraph(out, width, &format!("  {}: ", check.name), &check.text);
    }
}

/// Writes a paragraph; continuation lines are indented by four.
fn paragraph(out: &mut String, width: usize, begin: &str, text: &str) {
    for line in lines(text, width, begin, "    ") {
        let _ = writeln!(out, "{line}");
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    lines(text, width, "", "")
}

fn lines(text: &str, width: usize, begin: &str, indent: &str) -> Vec<String> {
    let options = options(width).initial_indent(begin).subsequent_indent(indent);
    let lines = textwrap::wrap(text, options);
    lines.into_iter().flat_map(|line| continued(&line, width, indent)).collect()
}

/// Splits a command that is longer than a line with `\`, so that the shell accepts it pasted.
fn continued(line: &str, width: usize, indent: &str) -> Vec<String> {
    let fits = |line: &str, more: usize| textwrap::core::display_width(line) + more <= width;
    let Some(command) = line.find('`').filter(|_| !fits(line, 0)) else { return vec![line.to_owned()] };
    let (mut lines, mut last) = (Vec::new(), line[..command].to_owned());
    for (n, word) in arguments(&line[command..]).into_iter().enumerate() {
        // Room for the backslash.
        if n > 0 && !fits(&format!("{last}{}", word.trim_end()), 2) {
            lines.push(format!("{} \\", last.trim_end()));
            last = format!("{indent}  ");
        }
        last.push_str(word);
    }
    lines.push(last.trim_end().to_owned());
    lines
}
/// Breaks only at blanks, and not within a command, which must stay on one line to be pasted.
fn options(width: usize) -> textwrap::Options<'static> {
    textwrap::Options::new(width)
        .break_words(false)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .word_separator(textwrap::WordSeparator::Custom(words))
}

/// Splits at blanks; text between backquotes is one word.
fn words(line: &str) -> Box<dyn Iterator<Item = textwrap::core::Word<'_>> + '_> {
    let (mut words, mut begin, mut quoted, mut blank) = (Vec::new(), 0, false, false);
    for (at, c) in line.char_indices() {
        quoted ^= c == '`';
        if blank && c != ' ' {
            words.push(textwrap::core::Word::from(&line[begin..at]));
            begin = at;
        }
        blank = c == ' ' && !quoted;
    }
    words.push(textwrap::core::Word::from(&line[begin..]));
    Box::new(words.into_iter())
}

/// Splits a command before each option.
fn arguments(command: &str) -> Vec<&str> {
    let (mut words, mut begin, mut quoted, mut blank) = (Vec::new(), 0, false, false);
    for (at, c) in command.char_indices() {
        if blank && c == '-' {
            words.push(&command[begin..at]);
            begin = at;
        }
        quoted ^= c == '\'';
        blank = c == ' ' && !quoted;
    }
    words.push(&command[begin..]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_longer_than_a_line_is_continued() {
        let text = "Run: `tool -u ann --since '14:09 - 14:10' --quiet`.";
        let expected = ["Run:", "    `tool -u ann \\", "      --since '14:09 - 14:10' \\", "      --quiet`."];
        assert_eq!(lines(text, 32, "", "    "), expected);
        assert_eq!(lines(text, 60, "", "    "), [text]);
    }

    #[test]
    fn lines_break_at_blanks_and_never_within_a_command() {
        for (text, width, lines) in [
            ("one two three", 7, &["one two", "three"][..]),
            ("one two three", 100, &["one two three"]),
            ("extraordinarily so", 4, &["extraordinarily", "so"]),
            ("do `a b c d`, then", 8, &["do", "`a b c d`,", "then"]),
            ("an open ` is not a command", 9, &["an open", "` is not a command"]),
            ("", 5, &[""]),
        ] {
            assert_eq!(wrapped(text, width), lines, "{text}");
        }
    }
}
