//! The `ws close` records that t3-dispatch writes to its stderr, found again by the `Cf-Ray` that
//! the demo gave each session.

use std::sync::{Arc, Mutex, PoisonError};

use t3_record::CloseRecord;

/// All records so far.
#[derive(Debug, Clone, Default)]
pub struct Records(Arc<Mutex<Vec<CloseRecord>>>);

impl Records {
    /// Takes a line of stderr; gives whether it was a record. Other lines are the program's log.
    pub fn hear(&self, line: &str) -> bool {
        let Ok(record) = CloseRecord::from_line(line) else { return false };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        true
    }

    /// The records of the session that has this ray: one, if all is well.
    #[must_use]
    pub fn of(&self, ray: &str) -> Vec<CloseRecord> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().filter(|record| record.ray.as_deref() == Some(ray)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_their_ray_and_other_lines_are_not_records() {
        let records = Records::default();
        let line = "ws close user=alice ip=203.0.113.7 dur_ms=5 cause=graceful verdict=client_closed segment=downstream conn=c1 \
                    kernel=off ray=demo-a";
        assert!(records.hear(line));
        assert!(!records.hear("2026 INFO t3_dispatch: listening"));
        assert!(!records.hear("ws open user=alice ip=203.0.113.7 conn=c1"));
        assert_eq!(records.of("demo-a").len(), 1);
        assert!(records.of("demo-b").is_empty());
    }
}
