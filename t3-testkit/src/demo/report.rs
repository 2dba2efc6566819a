//! The table at the end: the scenarios and their records. Pure.

use t3_record::{CloseRecord, How, KernelSource};

use super::scenario::Scenario;

/// Result of one scenario.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Its records; right is exactly one with a right verdict.
    Records(Vec<CloseRecord>),
    /// Not possible on this machine: why.
    NotShown(String),
}

/// One scenario with its result.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The scenario.
    pub scenario: Scenario,
    /// The right verdicts.
    pub verdicts: Vec<String>,
    /// Its result.
    pub outcome: Outcome,
}

/// The demo's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Source of kernel evidence on this machine.
    pub kernel: KernelSource,
    /// All scenarios, in order.
    pub rows: Vec<Row>,
}

impl Report {
    fn is_right(&self, row: &Row, records: &[CloseRecord]) -> bool {
        let right =
            |record: &CloseRecord| row.verdicts.iter().any(|verdict| verdict == record.verdict.as_str());
        matches!(records, [record] if right(record) && record.user == row.scenario.user && record.kernel == self.kernel)
    }

    /// How many were shown, and how many of them have the right verdict.
    #[must_use]
    pub fn score(&self) -> (usize, usize) {
        let shown = self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Records(records) => Some(self.is_right(row, records)),
            Outcome::NotShown(_) => None,
        });
        shown.fold((0, 0), |(shown, right), is_right| (shown + 1, right + usize::from(is_right)))
    }

    /// Every scenario that was shown has the right verdict, and at least one was shown.
    #[must_use]
    pub fn all_right(&self) -> bool {
        let (shown, right) = self.score();
        shown > 0 && shown == right
    }

    /// The table and the sum under it, as lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![line(["", "fault", "verdict", "how", "confidence", ""])];
        lines.extend(self.rows.iter().flat_map(|row| self.row_lines(row)));
        let (shown, right) = self.score();
        let mut sum = format!("{right} of {shown} explained correctly (kernel={})", self.kernel);
        let left_out = self.rows.len() - shown;
        if left_out > 0 {
            sum.push_str(&format!(", {left_out} not shown"));
        }
        lines.push(sum);
        lines
    }

    fn row_lines(&self, row: &Row) -> Vec<String> {
        let Scenario { user, label, .. } = row.scenario;
        let wrong =
            || format!("WRONG: expected one {} with kernel={}", row.verdicts.join(" or "), self.kernel);
        match &row.outcome {
            Outcome::NotShown(why) => vec![line([user, label, "-", "", "", &format!("not shown: {why}")])],
            Outcome::Records(records) if records.is_empty() => {
                vec![line([user, label, "no record", "", "", &wrong()])]
            }
            Outcome::Records(records) => {
                let mark = if self.is_right(row, records) { "right".to_owned() } else { wrong() };
                let of = |record: &CloseRecord| {
                    let how = record.how.as_ref().map(How::to_string).unwrap_or_default();
                    let confidence = record.confidence.map_or("", |confidence| confidence.as_str());
                    line([user, label, record.verdict.as_str(), &how, confidence, &mark])
                };
                records.iter().map(of).collect()
            }
        }
    }
}

fn line([user, label, verdict, how, confidence, mark]: [&str; 6]) -> String {
    format!("  {user:<6} {label:<17} {verdict:<16} {how:<14} {confidence:<11} {mark}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, Segment, Verdict};

    use super::*;
    use crate::demo::scenario::SCENARIOS;

    fn record(user: &str, verdict: Verdict) -> CloseRecord {
        CloseRecord::new(
            user.into(),
            "203.0.113.7".into(),
            1,
            Cause::DownstreamClosed,
            verdict,
            Segment::Downstream,
            "c".into(),
            KernelSource::Tracepoint,
        )
    }

    fn row(outcome: Outcome) -> Row {
        Row { scenario: SCENARIOS[1], verdicts: vec!["client_left".to_owned()], outcome }
    }

    fn report(outcome: Outcome) -> Report {
        Report { kernel: KernelSource::Tracepoint, rows: vec![row(outcome)] }
    }

    #[test]
    fn only_one_record_with_the_right_verdict_user_and_source_is_right() {
        let good = record("alice", Verdict::ClientLeft);
        assert!(report(Outcome::Records(vec![good.clone()])).all_right());
        let mut off = good.clone();
        off.kernel = KernelSource::Timeout;
        for wrong in [
            vec![],
            vec![good.clone(), good],
            vec![record("alice", Verdict::ClientClosed)],
            vec![record("bob", Verdict::ClientLeft)],
            vec![off],
        ] {
            let report = report(Outcome::Records(wrong));
            assert!(!report.all_right(), "{report:?}");
            assert!(report.lines().iter().any(|line| line.contains("WRONG")), "{report:?}");
        }
    }

    #[test]
    fn a_scenario_that_is_not_shown_does_not_count_and_none_shown_is_a_failure() {
        let mut report = report(Outcome::NotShown("needs root".into()));
        assert!(!report.all_right());
        report.rows.push(row(Outcome::Records(vec![record("alice", Verdict::ClientLeft)])));
        assert!(report.all_right());
        let last = report.lines().pop();
        assert_eq!(last.as_deref(), Some("1 of 1 explained correctly (kernel=tracepoint), 1 not shown"));
    }
}
