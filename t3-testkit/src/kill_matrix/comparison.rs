//! Comparison of the sessions of a cell with the records in the journal, by the identity of the
//! session. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::journald::StoredRecord;

/// An opened session: its client has received the 101.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub ray: String,
    /// Session id of its `ws open`, if that was in the journal before the first failure.
    pub conn: Option<String>,
    /// Allowed verdicts; any if empty.
    pub verdicts: &'static [&'static str],
}

/// Difference between sessions and records.
#[derive(Debug, Default)]
pub struct Comparison {
    pub opens: usize,
    pub closes: usize,
    /// Sessions without a `ws close`.
    pub missing: usize,
    /// `ws close` entries above one per session.
    pub doubled: usize,
    /// Records by origin: that of `reconciled=`, `t3-trace`, or `dispatch`.
    pub origins: BTreeMap<String, usize>,
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
}

/// Compares; `is_dispatch` tells the processes apart.
pub fn compare(
    truths: &[Truth],
    opens: &[&StoredRecord],
    closes: &[&StoredRecord],
    is_dispatch: impl Fn(u32) -> bool,
) -> Comparison {
    let mut found = Comparison { opens: opens.len(), closes: closes.len(), ..Comparison::default() };
    let (opens_by_ray, closes_by_ray) = (by_ray(opens), by_ray(closes));
    for truth in truths {
        let ray = truth.ray.as_str();
        let opens = opens_by_ray.get(ray).map_or(&[][..], Vec::as_slice);
        let closes = closes_by_ray.get(ray).map_or(&[][..], Vec::as_slice);
        let describe = || {
            let line =
                |record: &&StoredRecord| format!("[{}] conn={} {:?}", record.pid, record.conn, record.keys);
            format!("{}: {:?}", truth.ray, closes.iter().map(line).collect::<Vec<_>>())
        };
        found.missing += usize::from(closes.is_empty());
        found.doubled += closes.len().saturating_sub(1);
        if closes.len() != 1 {
            found.wrong.push(format!("{} `ws close` entries for {}", closes.len(), describe()));
        }
        if opens.len() > 1 || (truth.conn.is_some() && opens.len() != 1) {
            found.wrong.push(format!("{} `ws open` entries for {}", opens.len(), truth.ray));
        }
        // One identity: of the open before the failure, of the open, and of the close.
        let conns: BTreeSet<&str> = (truth.conn.as_deref().into_iter())
            .chain(opens.iter().chain(closes).map(|record| record.conn.as_str()))
            .collect();
        if conns.len() > 1 {
            found.wrong.push(format!("several sessions {conns:?} for {}", describe()));
        }
        for close in closes {
            let verdict = close.key("verdict");
            if !truth.verdicts.is_empty() && !truth.verdicts.contains(&verdict) {
                found.wrong.push(format!("a verdict other than {:?} for {}", truth.verdicts, describe()));
            }
        }
    }
    let known: BTreeSet<&str> = truths.iter().map(|truth| truth.ray.as_str()).collect();
    for record in opens.iter().chain(closes).filter(|record| !known.contains(record.ray.as_str())) {
        found.wrong.push(format!("a record of no session: {record:?}"));
    }
    for close in closes {
        let origin = match close.key("reconciled") {
            "" if is_dispatch(close.pid) => "dispatch",
            "" => "t3-trace",
            origin => origin,
        };
        *found.origins.entry(origin.to_owned()).or_default() += 1;
    }
    found
}

fn by_ray<'a>(records: &[&'a StoredRecord]) -> BTreeMap<&'a str, Vec<&'a StoredRecord>> {
    let mut map: BTreeMap<&str, Vec<&StoredRecord>> = BTreeMap::new();
    for record in records {
        map.entry(record.ray.as_str()).or_default().push(record);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ray: &str, conn: &str) -> StoredRecord {
        let keys = BTreeMap::from([("verdict", "client_closed".to_owned())]);
        StoredRecord { ray: ray.to_owned(), conn: conn.to_owned(), pid: 7, keys }
    }

    fn truths() -> Vec<Truth> {
        let truth = |ray: &str, conn: Option<&str>| Truth {
            ray: ray.to_owned(),
            conn: conn.map(str::to_owned),
            verdicts: &["client_closed"],
        };
        vec![truth("r1", Some("c1")), truth("r2", None)]
    }

    fn found(closes: &[StoredRecord]) -> Comparison {
        let opens = [record("r1", "c1"), record("r2", "c2")];
        let (opens, closes): (Vec<_>, Vec<_>) = (opens.iter().collect(), closes.iter().collect());
        compare(&truths(), &opens, &closes, |pid| pid == 7)
    }

    #[test]
    fn one_record_each_is_right() {
        let found = found(&[record("r1", "c1"), record("r2", "c2")]);
        assert_eq!((found.opens, found.closes, found.missing, found.doubled), (2, 2, 0, 0));
        assert_eq!(found.wrong, [""; 0]);
        assert_eq!(found.origins, BTreeMap::from([("dispatch".to_owned(), 2)]));
    }

    #[test]
    fn a_missing_record_is_found() {
        let found = found(&[record("r2", "c2")]);
        assert_eq!((found.missing, found.doubled, found.wrong.len()), (1, 0, 1), "{:?}", found.wrong);
    }

    #[test]
    fn a_second_record_is_found_also_by_another_process() {
        let again = StoredRecord { pid: 9, ..record("r1", "c1") };
        let found = found(&[record("r1", "c1"), record("r2", "c2"), again]);
        assert_eq!((found.missing, found.doubled, found.wrong.len()), (0, 1, 1), "{:?}", found.wrong);
        assert_eq!(found.origins.get("t3-trace"), Some(&1));
    }

    #[test]
    fn a_record_under_another_identity_or_of_no_session_is_found() {
        let found = found(&[record("r1", "c9"), record("r2", "c2"), record("r3", "c3")]);
        assert_eq!((found.missing, found.doubled, found.wrong.len()), (0, 0, 2), "{:?}", found.wrong);
    }

    #[test]
    fn another_verdict_is_found() {
        let other = BTreeMap::from([("verdict", "unknown".to_owned())]);
        let found = found(&[record("r1", "c1"), StoredRecord { keys: other, ..record("r2", "c2") }]);
        assert_eq!(found.wrong.len(), 1, "{:?}", found.wrong);
    }
}
