//! Result table of the demo: the scenarios and their records. Pure.

use t3_record::{CloseRecord, How, KernelSource, Verdict};

use t3_trace_cli::present::verdict_text::{WIDTH, label};

use super::scenario::Scenario;

/// Result of one scenario.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Its records; correct is exactly one record with a correct verdict.
    Records(Vec<CloseRecord>),
    /// Not possible on this host, with the reason.
    NotShown(String),
}

/// One scenario with its result.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub scenario: Scenario,
    /// The correct verdicts.
    pub verdicts: Vec<Verdict>,
    pub outcome: Outcome,
}

/// The demo's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Source of kernel evidence on this host.
    pub kernel: KernelSource,
    /// All scenarios, in the order of the demo.
    pub rows: Vec<Row>,
}

impl Report {
    fn is_correct(&self, row: &Row, records: &[CloseRecord]) -> bool {
        let [record] = records else { return false };
        row.verdicts.contains(&record.verdict)
            && record.user == row.scenario.user
            && record.kernel == self.kernel
    }

    /// Number of scenarios that were shown, and of those with a correct verdict.
    #[must_use]
    pub fn score(&self) -> (usize, usize) {
        let shown = self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Records(records) => Some(self.is_correct(row, records)),
            Outcome::NotShown(_) => None,
        });
        shown.fold((0, 0), |(shown, correct), is_correct| (shown + 1, correct + usize::from(is_correct)))
    }

    /// At least one scenario was shown, and each of those has a correct verdict.
    #[must_use]
    pub fn all_correct(&self) -> bool {
        let (shown, correct) = self.score();
        shown > 0 && shown == correct
    }

    /// The table and the score below it, as lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![line(["", "fault", "verdict", "how", "confidence", ""])];
        lines.extend(self.rows.iter().flat_map(|row| self.row_lines(row)));
        let (shown, correct) = self.score();
        let mut score = format!("{correct} of {shown} explained correctly (kernel={})", self.kernel);
        let not_shown = self.rows.len() - shown;
        if not_shown > 0 {
            score.push_str(&format!(", {not_shown} not shown"));
        }
        lines.push(score);
        lines
    }

    fn row_lines(&self, row: &Row) -> Vec<String> {
        let Scenario { user, fault, .. } = row.scenario;
        let wrong = || {
            let expected: Vec<_> = row.verdicts.iter().map(|verdict| label(*verdict)).collect();
            format!("WRONG: expected one \"{}\" with kernel={}", expected.join("\" or \""), self.kernel)
        };
        match &row.outcome {
            Outcome::NotShown(why) => vec![line([user, fault, "-", "", "", &format!("not shown: {why}")])],
            Outcome::Records(records) if records.is_empty() => {
                vec![line([user, fault, "no record", "", "", &wrong()])]
            }
            Outcome::Records(records) => {
                let mark = if self.is_correct(row, records) { "correct".to_owned() } else { wrong() };
                let of = |record: &CloseRecord| {
                    let how = record.how.as_ref().map(How::to_string).unwrap_or_default();
                    let confidence = record.confidence.map_or("", |confidence| confidence.as_str());
                    line([user, fault, label(record.verdict), &how, confidence, &mark])
                };
                records.iter().map(of).collect()
            }
        }
    }
}

fn line([user, fault, verdict, how, confidence, mark]: [&str; 6]) -> String {
    let line = format!("  {user:<6} {fault:<21} {verdict:<WIDTH$}  {how:<14} {confidence:<11} {mark}");
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, Segment};

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
        Row { scenario: SCENARIOS[1], verdicts: vec![Verdict::ClientLeft], outcome }
    }

    fn report(outcome: Outcome) -> Report {
        Report { kernel: KernelSource::Tracepoint, rows: vec![row(outcome)] }
    }

    #[test]
    fn exactly_one_record_with_correct_verdict_user_and_source_is_correct() {
        let good = record("alice", Verdict::ClientLeft);
        assert!(report(Outcome::Records(vec![good.clone()])).all_correct());
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
            assert!(!report.all_correct(), "{report:?}");
            assert!(report.lines().iter().any(|line| line.contains("WRONG")), "{report:?}");
        }
    }

    #[test]
    fn scenarios_that_are_not_shown_do_not_count_and_none_shown_is_a_failure() {
        let mut report = report(Outcome::NotShown("needs root".into()));
        assert!(!report.all_correct());
        report.rows.push(row(Outcome::Records(vec![record("alice", Verdict::ClientLeft)])));
        assert!(report.all_correct());
        let last = report.lines().pop();
        assert_eq!(last.as_deref(), Some("1 of 1 explained correctly (kernel=tracepoint), 1 not shown"));
    }
}
