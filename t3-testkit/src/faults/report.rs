//! Result table: one aligned line per fault, with mismatches below a failed one.

use std::{fmt::Write as _, time::Duration};

use t3_record::CloseRecord;

use super::{Fault, Mismatch};

/// Result of one fault.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The records are as expected.
    Passed,
    /// A record is not as expected.
    Failed(Vec<Mismatch>),
    /// Not possible on this host, with the reason.
    Impossible(String),
}

impl Outcome {
    #[must_use]
    pub fn failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// One line of the table.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Row {
    /// Name of the fault.
    pub fault: &'static str,
    /// Expected verdict and mechanism.
    pub expected: String,
    /// Verdict and mechanism of the record.
    pub got: String,
    pub outcome: Outcome,
    /// Time from start to record.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
    /// Lines of the records of affected sessions.
    pub records: Vec<String>,
    /// dispatch or t3-trace lacked CPU while it ran, so a mismatch does not count.
    #[serde(skip)]
    pub(super) lacked_cpu: bool,
    /// Records and stderr, for a failure.
    pub details: String,
}

fn millis<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl Row {
    pub(super) fn new(fault: &Fault) -> Self {
        let word = |key| fault.expected.of(key).map(ToString::to_string).unwrap_or_default();
        Self {
            fault: fault.name,
            expected: format!("{} {}", word("verdict"), word("how")),
            got: String::new(),
            outcome: Outcome::Passed,
            took: Duration::ZERO,
            records: Vec::new(),
            lacked_cpu: false,
            details: String::new(),
        }
    }

    pub(super) fn got(&mut self, record: &CloseRecord) {
        let how = record.how.map(|how| how.to_string()).unwrap_or_default();
        self.got = format!("{} {how}", record.verdict);
        self.records.push(record.to_line());
    }

    pub(super) fn add(&mut self, mismatch: Mismatch) {
        match &mut self.outcome {
            Outcome::Failed(mismatches) => mismatches.push(mismatch),
            outcome => *outcome = Outcome::Failed(vec![mismatch]),
        }
    }

    /// The line of the table and the mismatches.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (mark, tail) = match &self.outcome {
            Outcome::Passed => ("ok", format!("{:.1} s", self.took.as_secs_f32())),
            Outcome::Failed(_) => ("FAIL", format!("{:.1} s", self.took.as_secs_f32())),
            Outcome::Impossible(why) => ("--", why.clone()),
        };
        let mut text =
            format!("{:<24} {:<34} {:<34} {mark:<4} {tail}\n", self.fault, self.expected, self.got);
        if let Outcome::Failed(mismatches) = &self.outcome {
            for Mismatch { key, expected, got } in mismatches {
                let _ = writeln!(text, "  {key}: expected {expected}, got {got}");
            }
            text.push_str(&self.details);
        }
        text
    }
}

/// Column names of the table.
pub const HEAD: [&str; 4] = ["fault", "expected", "got", "ok"];

/// Prints one row; before the first one, the column names.
pub fn print(row: &Row, first: bool) {
    if first {
        let [fault, expected, got, ok] = HEAD;
        println!("{fault:<24} {expected:<34} {got:<34} {ok}");
    }
    print!("{}", row.to_text());
}
