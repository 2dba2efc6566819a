//! Hosts of a store, and those whose journal does not arrive: an answer without their closes looks
//! complete.

use t3_trace_host::clock::realtime_secs;

use crate::{
    journal::warnings::Warnings,
    present::text::safe,
    time::{Moment, utc},
};

/// Time without a line from which a host is silent, in seconds: that of the alert
/// `DevvmJournalSilent`.
pub const SILENT: u64 = 15 * 60;

/// A host with records, and the time of the last line of its journal in nanoseconds since the
/// epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub last_ns: Option<i64>,
}

/// Hosts of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    pub hosts: Vec<Host>,
}

impl Survey {
    /// Whether a list has to name the host of each record.
    #[must_use]
    pub fn has_many(&self) -> bool {
        self.hosts.len() > 1
    }

    /// Warnings about the hosts that are silent at the end of a range, or now if it is later.
    #[must_use]
    pub fn warnings(&self, until: Option<Moment>) -> Warnings {
        let now = realtime_secs().saturating_mul(1_000_000);
        let end = until.map_or(now, Moment::epoch_micros).min(now);
        Warnings::of_loki(self.silent(i64::try_from(end).unwrap_or(i64::MAX).saturating_mul(1000)))
    }

    /// One message per host whose lines end more than [`SILENT`] before the end of the range, in
    /// nanoseconds since the epoch.
    #[must_use]
    pub fn silent(&self, end_ns: i64) -> Vec<String> {
        let limit = end_ns.saturating_sub(i64::try_from(SILENT).unwrap_or(0).saturating_mul(1_000_000_000));
        let silent = self.hosts.iter().filter(|host| host.last_ns.is_none_or(|last| last < limit));
        silent
            .map(|host| {
                let last = host.last_ns.map_or_else(
                    || "for more than a day".to_owned(),
                    |last| format!("after {}", utc(last.div_euclid(1_000_000))),
                );
                format!(
                    "no line of host {} {last}: its later closes are missing here; check its shipper, and the host",
                    safe(&host.name)
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_recent_lines_is_named() {
        const SECOND: i64 = 1_000_000_000;
        let host = |name: &str, last: Option<i64>| Host {
            name: name.to_owned(),
            last_ns: last.map(|last| last * SECOND),
        };
        let survey =
            Survey { hosts: vec![host("a", Some(1_000)), host("b\u{1b}", Some(99)), host("c", None)] };
        let silent = survey.silent(1_000 * SECOND);
        assert_eq!(silent.len(), 2, "{silent:?}");
        assert!(silent[0].contains("host b\u{fffd} after 1970-01-01 00:01:39 UTC"), "{silent:?}");
        assert!(silent[1].contains("host c for more than a day"), "{silent:?}");
        assert!(Survey::default().silent(0).is_empty() && survey.has_many());
    }
}
