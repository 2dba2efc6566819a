//! The page: everything that is said about one close, and its text for a terminal. Pure; the same
//! content as text and as JSON.

use std::fmt::Write;

use t3_record::{
    CloseRecord, Confidence, Segment, Verdict,
    edge::{Part, Refinement, refine},
};

use super::{
    answer,
    checked::{self, Check},
    facts::ExplainInput,
    find::Close,
    next::{self, Window},
    timeline::{self, Entry},
};
use crate::present::{
    text::{Paint, lasted, safe},
    units,
    verdict_text::{self, Tone, tone},
};

/// Lines are no longer than this, where words allow it.
const WIDTH: usize = 110;
/// What the commands of the next steps look at before and after the close, in milliseconds.
const LOOK: (i64, i64) = (60_000, 30_000);

/// What is said about one close.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Page {
    /// The session's id.
    pub conn: String,
    /// Whose it was.
    pub user: String,
    /// From where.
    pub ip: String,
    /// When it ended, as the clock on the wall shows it.
    pub at: String,
    /// The same in milliseconds since the epoch.
    pub at_ms: i64,
    /// How long it had lasted.
    pub lasted_ms: u64,
    /// What happened, in a sentence or two.
    pub answer: String,
    /// How sure that is, and why.
    pub sure: String,
    /// What the layers in front add, or why they add nothing.
    pub in_front: Option<EdgeFindings>,
    /// Everything known, in the order of time.
    pub timeline: Vec<Entry>,
    /// Looked at, and as it should be.
    pub clean: Vec<Check>,
    /// Looked at, not as it should be, and not the cause.
    pub beside: Vec<Check>,
    /// Not looked at, or not to be had.
    pub unknown: Vec<Check>,
    /// What to do.
    pub next: Vec<String>,
    /// Other closes that could have been meant.
    pub near: Vec<Nearby>,
    /// The record that all of this comes from.
    pub record: CloseRecord,
}

/// What the layers in front of this machine add to `segment=downstream`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EdgeFindings {
    /// Which part it was, if that can be said.
    pub part: Option<Part>,
    /// How sure that is.
    pub confidence: Option<Confidence>,
    /// The reasons, each with its source.
    pub said: Vec<String>,
    /// Why no part can be named.
    pub cannot: Option<String>,
}

/// A close that could have been meant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Nearby {
    /// The session's id.
    pub conn: String,
    /// When.
    pub at: String,
    /// What happened.
    pub verdict: Verdict,
}

impl Page {
    /// The page. `wall` says a time in seconds since the epoch as `2026-11-25 14:10:07`.
    #[must_use]
    pub fn of(facts: &ExplainInput, near: &[Close], wall: impl Fn(u64) -> String) -> Self {
        let record = &facts.record;
        let wall_ms = |ms: i64| wall(u64::try_from(ms / 1000).unwrap_or(0));
        let zero = facts.zero_ms();
        let refinement = refine(&facts.ended(), &facts.gathered.layers);
        let checks = checked::checks(facts);
        let layers = &facts.gathered.layers;
        let front = next::EdgeFindings {
            asked: layers.traefik.is_some() && layers.cloudflared.is_some(),
            part: refinement.part,
        };
        let window = Window {
            since: wall_ms(zero.saturating_sub(LOOK.0)),
            until: wall_ms(facts.at_ms.saturating_add(LOOK.1)),
        };
        let near = near.iter().map(|close| Nearby {
            conn: safe(&close.record.conn),
            at: wall_ms(close.at_ms),
            verdict: close.record.verdict,
        });
        Self {
            conn: safe(&record.conn),
            user: safe(&record.user),
            ip: safe(&record.ip),
            at: wall_ms(zero),
            at_ms: zero,
            lasted_ms: record.dur_ms,
            answer: answer::sentence(record),
            sure: answer::sure(record),
            timeline: timeline::entries(facts, refinement.line.as_ref()),
            in_front: in_front(record, refinement),
            clean: checks.clean,
            beside: checks.beside,
            unknown: checks.unknown,
            next: next::steps(record, &window, front),
            near: near.collect(),
            record: record.clone(),
        }
    }

    /// The page for a terminal.
    #[must_use]
    pub fn text(&self, paint: Paint, wall: impl Fn(u64) -> String) -> String {
        let mut out = String::new();
        let record = &self.record;
        let lasted = if self.lasted_ms == 0 {
            "never opened".to_owned()
        } else {
            format!("lasted {}", lasted(self.lasted_ms))
        };
        let _ =
            writeln!(out, "{}  session {}  of {}  from {}  {lasted}", self.at, self.conn, self.user, self.ip);
        heading(&mut out, paint, "ANSWER");
        let code = match tone(record.verdict, record.segment) {
            Tone::Fine => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
        };
        // Further lines stand further in: text from outside must never look like the line of the
        // record's words below.
        for (n, line) in wrapped(&self.answer, WIDTH - 4).iter().enumerate() {
            let _ = writeln!(out, "{}{}", if n == 0 { "  " } else { "    " }, paint.with(code, line));
        }
        let _ = writeln!(out, "  {}", paint.dim(&vocabulary(record)));
        if let Some(in_front) = &self.in_front {
            in_front.lines().iter().for_each(|line| paragraph(&mut out, "  ", line));
        }
        heading(&mut out, paint, "HOW SURE");
        paragraph(&mut out, "  ", &self.sure);
        heading(&mut out, paint, "TIME LINE");
        for entry in &self.timeline {
            self.entry(&mut out, entry, paint, &wall);
        }
        checks(&mut out, paint, "CHECKED AND CLEAN", &self.clean);
        checks(&mut out, paint, "SEEN, AND NOT THE CAUSE", &self.beside);
        checks(&mut out, paint, "NOT CHECKED", &self.unknown);
        heading(&mut out, paint, "NEXT");
        self.next.iter().for_each(|step| paragraph(&mut out, "  - ", step));
        if !self.near.is_empty() {
            heading(&mut out, paint, "OR DID YOU MEAN");
            for Nearby { conn, at, verdict } in &self.near {
                let _ = writeln!(
                    out,
                    "  {at}  {:width$}  t3-trace explain {conn}",
                    verdict_text::plain(*verdict),
                    width = verdict_text::WIDTH
                );
            }
        }
        out
    }

    fn entry(&self, out: &mut String, entry: &Entry, paint: Paint, wall: &impl Fn(u64) -> String) {
        let at_ms = self.at_ms.saturating_add(entry.offset_ms);
        let at = wall(u64::try_from(at_ms / 1000).unwrap_or(0));
        // The day is said only where it is another one.
        let day = |at: &str| at.split(' ').next().unwrap_or_default().to_owned();
        let clock =
            if day(&at) == day(&self.at) { at.split(' ').next_back().unwrap_or_default() } else { &at };
        let head = format!("  {clock:8}  {:>8}  {:10}  ", units::offset(entry.offset_ms), entry.source);
        let indent = " ".repeat(head.chars().count());
        for (n, line) in
            wrapped(&entry.text, WIDTH.saturating_sub(indent.len()).max(40)).into_iter().enumerate()
        {
            let _ = if n == 0 {
                writeln!(out, "{}{line}", paint.dim(&head))
            } else {
                writeln!(out, "{indent}{line}")
            };
        }
    }
}

/// The record's own words, so that the page can be held against it.
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

fn in_front(record: &CloseRecord, refinement: Refinement) -> Option<EdgeFindings> {
    let Refinement { part, confidence, reasons: said, unresolved: cannot, .. } = refinement;
    let printable = |text: String| safe(&text);
    (record.segment == Segment::Downstream).then(|| EdgeFindings {
        part,
        confidence,
        said: said.into_iter().map(printable).collect(),
        cannot: cannot.map(printable),
    })
}

impl EdgeFindings {
    fn lines(&self) -> Vec<String> {
        let part = self.part.map(|part| {
            let sure = self.confidence.map_or_else(String::new, |confidence| format!(" ({confidence})"));
            let part = match part {
                Part::Traefik => "Traefik or its node",
                Part::Tunnel => "the tunnel between Cloudflare and cloudflared",
                Part::LastMile => "the last mile, between the person and Cloudflare",
            };
            format!("In front of this machine it was {part}{sure}:")
        });
        let cannot = self.cannot.as_ref();
        let cannot =
            cannot.map(|why| format!("No part of the way in front of this machine can be named: {why}."));
        let said = self.said.iter().map(|said| format!("- {said}"));
        part.into_iter().chain(cannot).chain(said).collect()
    }
}

fn heading(out: &mut String, paint: Paint, text: &str) {
    let _ = writeln!(out, "\n{}", paint.with("1", text));
}

fn checks(out: &mut String, paint: Paint, title: &str, checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    heading(out, paint, title);
    for check in checks {
        paragraph(out, &format!("  {}: ", check.what), &check.said);
    }
}

/// A text behind a beginning, its further lines indented by four.
fn paragraph(out: &mut String, begin: &str, text: &str) {
    let first = WIDTH.saturating_sub(begin.chars().count());
    for (n, line) in wrapped_to(text, |n| if n == 0 { first } else { WIDTH - 4 }).into_iter().enumerate() {
        let _ = writeln!(out, "{}{line}", if n == 0 { begin } else { "    " });
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    wrapped_to(text, |_| width)
}

/// Breaks at blanks, but not within a command, which must stay one line to be pasted. What is
/// longer than its line stands alone on it.
fn wrapped_to(text: &str, width: impl Fn(usize) -> usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words_of(text) {
        let number = lines.len() - 1;
        let Some(line) = lines.last_mut() else { continue };
        let full = !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width(number);
        if full {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Words between blanks; what stands between backquotes is one.
fn words_of(text: &str) -> Vec<&str> {
    let (mut words, mut begin, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '`' => quoted = !quoted,
            ' ' if !quoted => {
                words.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    words.push(&text[begin..]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_blanks_and_never_within_a_command() {
        for (text, width, lines) in [
            ("one two three", 7, &["one two", "three"][..]),
            ("one two three", 100, &["one two three"]),
            ("extraordinarily so", 4, &["extraordinarily", "so"]),
            ("do `a b c d`, then", 8, &["do", "`a b c d`,", "then"]),
            ("an open ` is no command", 9, &["an open", "` is no command"]),
            ("", 5, &[""]),
        ] {
            assert_eq!(wrapped(text, width), lines, "{text}");
        }
    }
}
