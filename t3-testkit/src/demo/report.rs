//! The table at the end: what was done against what the record says. Pure.

use t3_record::{CloseRecord, How, KernelSource};

use super::scenario::Ending;

/// What came of one ending.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The session's records: right is exactly one with the right verdict.
    Records(Vec<CloseRecord>),
    /// It could not be shown here, and why.
    NotShown(String),
}

/// The demo's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Where kernel evidence comes from on this machine.
    pub kernel: KernelSource,
    /// Each ending with what came of it, in order.
    pub outcomes: Vec<(Ending, Outcome)>,
}

impl Report {
    fn kernel_sees(&self) -> bool {
        matches!(self.kernel, KernelSource::Kprobe | KernelSource::Tracepoint)
    }

    fn is_right(&self, ending: Ending, records: &[CloseRecord]) -> bool {
        let right = ending.right(self.kernel_sees());
        matches!(records, [record] if right.contains(&record.verdict) && record.user == ending.user() && record.kernel == self.kernel)
    }

    /// How many were shown, and how many of them explained rightly.
    #[must_use]
    pub fn score(&self) -> (usize, usize) {
        let shown = self.outcomes.iter().filter_map(|(ending, outcome)| match outcome {
            Outcome::Records(records) => Some(self.is_right(*ending, records)),
            Outcome::NotShown(_) => None,
        });
        shown.fold((0, 0), |(shown, right), is_right| (shown + 1, right + usize::from(is_right)))
    }

    /// Everything that was shown was explained rightly, and something was shown.
    #[must_use]
    pub fn all_right(&self) -> bool {
        let (shown, right) = self.score();
        shown > 0 && shown == right
    }

    /// The table and the sum under it, as lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![row(["", "what was done", "verdict", "how", "confidence", ""])];
        for (ending, outcome) in &self.outcomes {
            lines.extend(self.rows(*ending, outcome));
        }
        let (shown, right) = self.score();
        let mut sum = format!("{right} of {shown} explained rightly (kernel={})", self.kernel);
        let left_out = self.outcomes.len() - shown;
        if left_out > 0 {
            sum.push_str(&format!(", {left_out} not shown"));
        }
        lines.push(sum);
        lines
    }

    fn rows(&self, ending: Ending, outcome: &Outcome) -> Vec<String> {
        let words: Vec<_> = ending.right(self.kernel_sees()).iter().map(|verdict| verdict.as_str()).collect();
        let right = words.join(" or ");
        match outcome {
            Outcome::NotShown(why) => {
                vec![row([ending.user(), ending.name(), "-", "", "", &format!("not shown: {why}")])]
            }
            Outcome::Records(records) if records.is_empty() => {
                vec![row([
                    ending.user(),
                    ending.name(),
                    "no record",
                    "",
                    "",
                    &format!("WRONG: {right} expected"),
                ])]
            }
            Outcome::Records(records) => {
                let mark = if self.is_right(ending, records) {
                    "right".to_owned()
                } else {
                    format!("WRONG: one {right} expected with kernel={}", self.kernel)
                };
                let line = |record: &CloseRecord| {
                    let how = record.how.as_ref().map(How::to_string).unwrap_or_default();
                    let confidence = record.confidence.map_or("", |confidence| confidence.as_str());
                    row([ending.user(), ending.name(), record.verdict.as_str(), &how, confidence, &mark])
                };
                records.iter().map(line).collect()
            }
        }
    }
}

fn row([user, done, verdict, how, confidence, mark]: [&str; 6]) -> String {
    format!("  {user:<6} {done:<17} {verdict:<16} {how:<14} {confidence:<11} {mark}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, Segment, Verdict};

    use super::*;

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

    fn report(outcome: Outcome) -> Report {
        Report { kernel: KernelSource::Tracepoint, outcomes: vec![(Ending::TabGone, outcome)] }
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
    fn what_is_not_shown_counts_neither_way_and_showing_nothing_is_not_success() {
        let mut report = report(Outcome::NotShown("needs root".into()));
        assert!(!report.all_right());
        report.outcomes.push((Ending::Reset, Outcome::Records(vec![record("alice", Verdict::ClientReset)])));
        assert!(report.all_right());
        let last = report.lines().pop();
        assert_eq!(last.as_deref(), Some("1 of 1 explained rightly (kernel=tracepoint), 1 not shown"));
    }
}
