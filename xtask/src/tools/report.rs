//! Results by step and tier, and the closing report.

use std::time::Duration;

use crate::tools::progress;
use crate::tools::reasons::reasons;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that a program reported but did not run.
    pub ignored: u32,
    /// Number of summary lines found, thus of programs that counted their tests.
    pub lines: u32,
}

impl Counts {
    /// Sums up the summary lines in a program's output: `test result: … N passed; N failed; N
    /// ignored` of Rust and `N passed, N failed` of this project.
    pub fn read(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines() {
            let line = line.trim();
            let is_rust = line.starts_with("test result:");
            let mut ours = Self::default();
            let mut seen = 0;
            for part in line.split(['.', ';', ',']) {
                let mut words = part.split_whitespace();
                let (Some(number), Some(word)) =
                    (words.next().and_then(|n| n.parse::<u32>().ok()), words.next())
                else {
                    continue;
                };
                let place = match word {
                    "passed" => &mut ours.passed,
                    "failed" => &mut ours.failed,
                    "ignored" | "skipped" => &mut ours.ignored,
                    _ => continue,
                };
                *place = number;
                seen += 1;
            }
            let is_plain = line.starts_with(|first: char| first.is_ascii_digit()) && seen >= 2;
            if is_rust || is_plain {
                sum.passed += ours.passed;
                sum.failed += ours.failed;
                sum.ignored += ours.ignored;
                sum.lines += 1;
            }
        }
        sum
    }

    /// Whether a test program has no tests.
    pub fn is_empty(self) -> bool {
        self.passed + self.failed + self.ignored == 0
    }

    /// Counts of a step that is a single test.
    pub fn one(ok: bool) -> Self {
        Self { passed: u32::from(ok), failed: u32::from(!ok), ..Self::default() }
    }
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name of the action.
    pub name: String,
    /// A failed step has at least one failure.
    pub counts: Counts,
    /// How long it took.
    pub time: Duration,
    /// Reason of the failure, one line.
    pub why: Option<String>,
    /// Lines of the output that say more, for the closing report.
    pub details: Vec<String>,
}

impl Step {
    /// A step from the status and the counts of its program: a failed program is at least one
    /// failure, even if it counted none.
    pub fn new(name: impl Into<String>, ok: bool, mut counts: Counts, time: Duration) -> Self {
        if !ok {
            counts.failed = counts.failed.max(1);
        }
        Self { name: name.into(), counts, time, why: None, details: Vec::new() }
    }

    /// Adds the reason of a failure.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds the lines of a failed program's output that say why it failed.
    #[must_use]
    pub fn with_reasons_of(mut self, output: &str) -> Self {
        self.details = reasons(output);
        self
    }

    /// Prints the result of the step.
    pub fn say(&self) {
        let Counts { passed, failed, ignored, .. } = self.counts;
        let mut text = format!("{:<6} {}", if failed == 0 { "ok" } else { "FAILED" }, self.name);
        if passed + failed > 1 {
            text.push_str(&format!(": {passed} passed"));
            if failed > 0 {
                text.push_str(&format!(", {failed} failed"));
            }
        }
        if ignored > 0 {
            text.push_str(&format!(", {ignored} ignored"));
        }
        if let Some(why) = &self.why {
            text.push_str(&format!(" ({why})"));
        }
        progress::note(&format!("{text} [{}]", progress::took(self.time)));
    }
}

/// A tier's steps.
#[derive(Clone, Debug)]
pub struct TierReport {
    /// The tier's name.
    pub name: &'static str,
    /// Name of the action.
    pub steps: Vec<Step>,
    /// Duration of the tier.
    pub time: Duration,
    /// Reason if the tier did not run.
    pub not_run: Option<String>,
}

/// Results of all tiers.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of execution.
    pub tiers: Vec<TierReport>,
}

impl Report {
    /// Sum over all tiers. A tier that could not run is a failure when `strict`.
    pub fn counts(&self, strict: bool) -> Counts {
        let mut sum = Counts::default();
        for tier in &self.tiers {
            for step in &tier.steps {
                sum.passed += step.counts.passed;
                sum.failed += step.counts.failed;
                sum.ignored += step.counts.ignored;
            }
            sum.failed += u32::from(strict && tier.not_run.is_some());
        }
        sum
    }

    /// Lines of the closing report: failures by name, a table of tiers, and the total last.
    pub fn closing(&self, strict: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for tier in &self.tiers {
            for step in tier.steps.iter().filter(|step| step.counts.failed > 0) {
                let why = step.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                lines.push(format!("FAILED  {}: {}{why}", tier.name, step.name));
                lines.extend(step.details.iter().map(|line| format!("        {line}")));
            }
        }
        lines.push(format!("{:<8} {:>7} {:>7} {:>14}", "tier", "passed", "failed", "time"));
        for tier in &self.tiers {
            let one = Self { tiers: vec![tier.clone()] }.counts(strict);
            let why = tier.not_run.as_deref().map(|why| format!("  not run: {why}")).unwrap_or_default();
            let time = progress::took(tier.time);
            lines.push(format!("{:<8} {:>7} {:>7} {time:>14}{why}", tier.name, one.passed, one.failed));
        }
        let sum = self.counts(strict);
        lines.push(format!("{} passed, {} failed", sum.passed, sum.failed));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Report, Step, TierReport};
    use std::time::Duration;

    #[test]
    fn summary_lines_of_test_programs_are_added() {
        let text = "running 3 tests\ntest a ... ok\n\
                    test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
                    ok      psi\n8 passed, 2 failed\nwe saw 5 passed, 7 failed in a sentence\n";
        assert_eq!(Counts::read(text), Counts { passed: 11, failed: 2, ignored: 1, lines: 2 });
        assert_eq!(Counts::read("nothing here\n"), Counts::default());
    }

    #[test]
    fn a_failed_program_counts_as_a_failure() {
        let counts = Counts { passed: 9, ..Counts::default() };
        assert_eq!(Step::new("x", false, counts, Duration::ZERO).counts.failed, 1);
    }

    #[test]
    fn the_closing_report_has_the_reasons_of_failures() {
        let step = Step::new("x", false, Counts::one(false), Duration::ZERO).because("exit status: 101");
        let step = step.with_reasons_of("a row FAIL 1 s\n  psi_io: expected 0, got nothing\n");
        let tier = TierReport { name: "host", steps: vec![step], time: Duration::ZERO, not_run: None };
        let lines = Report { tiers: vec![tier] }.closing(true);
        assert_eq!(
            lines[..3],
            [
                "FAILED  host: x: exit status: 101",
                "        a row FAIL 1 s",
                "          psi_io: expected 0, got nothing"
            ]
        );
    }

    #[test]
    fn a_tier_that_did_not_run_fails_only_when_strict() {
        let steps = vec![Step::new("fmt", true, Counts::one(true), Duration::ZERO)];
        let ran = TierReport { name: "lint", steps, time: Duration::ZERO, not_run: None };
        let not = TierReport {
            name: "vm",
            steps: vec![],
            time: Duration::ZERO,
            not_run: Some("no qemu".to_owned()),
        };
        let report = Report { tiers: vec![ran, not] };
        assert_eq!(report.counts(false).failed, 0);
        assert_eq!(report.counts(true).failed, 1);
        assert_eq!(report.closing(true).last().unwrap(), "1 passed, 1 failed");
        assert!(report.closing(false).iter().any(|line| line.contains("no qemu")));
    }
}
