//! Violations that are known. The list may only shrink: a place that has fewer is a finding, until
//! its number in the list is reduced.

use std::collections::BTreeMap;

use super::Finding;

/// Lines of `RULE PLACE COUNT`.
const KNOWN: &str = include_str!("known.txt");

/// Removes the known findings of a rule; adds one for every number that is too high.
pub fn apply(rule: &str, findings: Vec<Finding>) -> Vec<String> {
    compare(KNOWN, rule, findings)
}

fn compare(known: &str, rule: &str, findings: Vec<Finding>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = known
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(rule)).then_some(())?;
            Some((words.next()?, words.next()?.parse().ok()?))
        })
        .collect();
    let mut by_place = BTreeMap::<String, Vec<Finding>>::new();
    for finding in findings {
        by_place.entry(finding.place.clone()).or_default().push(finding);
    }
    let mut shown = Vec::new();
    for (place, found) in by_place {
        let count = counts.remove(place.as_str()).unwrap_or(0);
        if found.len() > count {
            shown.extend(found.iter().map(Finding::show));
        } else if found.len() < count {
            shown.push(format!(
                "{place}: {} of {count} known findings are left; reduce known.txt",
                found.len()
            ));
        }
    }
    shown.extend(
        counts.into_keys().map(|place| format!("{place}: no longer violates; remove it from known.txt")),
    );
    shown
}

#[cfg(test)]
mod tests {
    use super::compare;
    use crate::tiers::rules::Finding;

    #[test]
    fn the_list_may_only_shrink() {
        let found = |n: usize| (0..n).map(|line| Finding::new("a.rs", line, "x")).collect::<Vec<_>>();
        let known = "words a.rs 2\nother b.rs 1\n";
        assert!(compare(known, "words", found(2)).is_empty());
        assert_eq!(compare(known, "words", found(3)).len(), 3);
        assert!(compare(known, "words", found(1))[0].contains("1 of 2"));
        assert!(compare(known, "words", found(0))[0].contains("no longer"));
    }
}
