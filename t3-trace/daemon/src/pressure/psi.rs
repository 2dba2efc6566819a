//! Parser of a pressure file (Documentation/accounting/psi.rst). Only the totals: the averages are
//! exponential and lag; the totals are updated by each read (kernel/sched/psi.c, `psi_show`), so
//! the difference of two is exact.

/// Stall time in microseconds since boot, or since the cgroup was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// At least one task waited.
    pub some: u64,
    /// All tasks waited. Missing for CPU before 5.13.
    pub full: Option<u64>,
}

/// Returns the totals of a pressure file; `None` for other text.
#[must_use]
pub fn parse(text: &str) -> Option<Totals> {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok())
    };
    Some(Totals { some: total("some")?, full: total("full") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=0.34 avg60=0.41 avg300=0.39 total=17079420\n\
                    full avg10=0.29 avg60=0.34 avg300=0.23 total=12417341\n";
        assert_eq!(parse(text), Some(Totals { some: 17_079_420, full: Some(12_417_341) }));
    }

    #[test]
    fn cpu_pressure_may_lack_the_full_line() {
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(parse(text), Some(Totals { some: 5, full: None }));
    }

    #[test]
    fn other_text_is_rejected() {
        for text in ["", "some", "some avg10=0.00\n", "total=7\n", "something total=7\n", "some total=-1\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
