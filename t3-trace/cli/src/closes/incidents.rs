//! Incidents: unexpected closes grouped across users and hosts by the same second, edge, version of
//! serve and cause. Pure. Memory grows with the closes of a few seconds, not with the records.

use std::collections::{BTreeMap, BTreeSet};

use t3_record::{CloseRecord, Segment, Verdict};

use crate::present::{
    text::{folded, safe},
    units::count,
    verdict_text::{Tone, tone},
};

/// Closes of one user that are an incident; of several users, two are.
const MANY: u64 = 5;
/// Incidents listed.
const LISTED: usize = 20;
/// Longest time between two closes of an incident, in seconds: one second of the clock may end
/// between them.
const GAP: u64 = 1;
/// Names listed per incident.
const NAMED: usize = 3;

/// What the closes of an incident have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cause {
    verdict: Verdict,
    segment: Segment,
    /// Data centre of the edge, from `ray`.
    edge: Option<String>,
    serve_version: Option<String>,
}

/// Closes with one cause, with at most [`GAP`] between each and the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Group {
    /// First and last close, in seconds since the epoch.
    first: u64,
    last: u64,
    closes: u64,
    users: BTreeSet<String>,
    hosts: BTreeSet<String>,
}

impl Group {
    fn is_incident(&self) -> bool {
        self.users.len() > 1 || self.closes >= MANY
    }
}

/// Incidents so far. Records come in the order of time, except those that t3-trace wrote later.
#[derive(Debug, Default)]
pub struct Incidents {
    open: BTreeMap<Cause, Group>,
    ended: Vec<(Cause, Group)>,
    /// Number of all, and of their closes.
    total: (u64, u64),
    unexpected: u64,
}

impl Incidents {
    /// Adds a close at a time in seconds since the epoch. Expected closes are none of an incident.
    pub fn close(&mut self, record: &CloseRecord, host: Option<&str>, at: u64) {
        if tone(record.verdict, record.segment) == Tone::Fine {
            return;
        }
        self.unexpected += 1;
        let cause = Cause {
            verdict: record.verdict,
            segment: record.segment,
            edge: record.ray.as_deref().and_then(edge).map(str::to_owned),
            serve_version: record.serve_version.clone(),
        };
        let group = self.open.entry(cause.clone()).or_default();
        let apart = at.saturating_sub(group.last).max(group.first.saturating_sub(at));
        let ended = (group.closes > 0 && apart > GAP).then(|| std::mem::take(group));
        if group.closes == 0 {
            (group.first, group.last) = (at, at);
        }
        (group.first, group.last) = (group.first.min(at), group.last.max(at));
        group.closes += 1;
        group.users.insert(record.user.clone());
        group.hosts.extend(host.map(str::to_owned));
        if let Some(ended) = ended {
            self.end(cause, ended);
        }
        if self.open.len() > 1000 {
            self.end_before(at.saturating_sub(GAP));
        }
    }

    fn end_before(&mut self, at: u64) {
        let ended: Vec<_> = self.open.extract_if(.., |_, group| group.last < at).collect();
        ended.into_iter().for_each(|(cause, group)| self.end(cause, group));
    }

    fn end(&mut self, cause: Cause, group: Group) {
        if !group.is_incident() {
            return;
        }
        self.total = (self.total.0 + 1, self.total.1 + group.closes);
        self.ended.push((cause, group));
        if self.ended.len() >= 2 * LISTED {
            self.rank();
        }
    }

    /// Keeps the worst, in their order.
    fn rank(&mut self) {
        self.ended.sort_by_key(|(cause, group)| {
            let harm = std::cmp::Reverse((group.users.len(), group.closes, group.hosts.len()));
            (harm, group.first, cause.clone())
        });
        self.ended.truncate(LISTED);
    }

    /// The incidents as text, folded to `width` columns. `clock` formats seconds since the epoch.
    #[must_use]
    pub fn text(mut self, width: Option<usize>, clock: impl Fn(u64) -> String) -> String {
        for (cause, group) in std::mem::take(&mut self.open) {
            self.end(cause, group);
        }
        self.rank();
        let (incidents, closes) = self.total;
        let mut lines = vec![format!(
            "{}: {closes} of {}",
            count(incidents, "incident"),
            count(self.unexpected, "unexpected close")
        )];
        for (cause, group) in &self.ended {
            lines.push(format!("{}  {}", clock(group.first), counts(group)));
            lines.push(format!("    {}", of(cause)));
            lines.push(format!("    {}", names(group)));
        }
        let more = incidents.saturating_sub(self.ended.len() as u64);
        if more > 0 {
            lines.push(format!("and {more} smaller ones: use a shorter range"));
        }
        lines.iter().map(|line| folded(line, width) + "\n").collect()
    }
}

fn counts(group: &Group) -> String {
    let mut text = format!("{} of {}", count(group.closes, "close"), count(group.users.len() as u64, "user"));
    if !group.hosts.is_empty() {
        text.push_str(&format!(" on {}", count(group.hosts.len() as u64, "host")));
    }
    let lasted = group.last - group.first;
    if lasted > 0 { format!("{text}, within {} s", lasted + 1) } else { text }
}

fn of(cause: &Cause) -> String {
    let mut text = format!("{} ({})", cause.verdict, cause.segment);
    text.push_str(&format!("  edge {}", cause.edge.as_deref().map_or_else(|| "unknown".to_owned(), safe)));
    let version = cause.serve_version.as_deref().map_or_else(|| "unknown".to_owned(), safe);
    text.push_str(&format!("  serve {version}"));
    text
}

fn names(group: &Group) -> String {
    let listed = |what: &str, names: &BTreeSet<String>| {
        let shown: Vec<_> = names.iter().take(NAMED).map(|name| safe(name)).collect();
        let more = names.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{what} {}{more}", shown.join(", "))
    };
    let mut text = listed("users", &group.users);
    if !group.hosts.is_empty() {
        text.push_str(&format!("  {}", listed("hosts", &group.hosts)));
    }
    text
}

/// The data centre in a Cloudflare ray id, `8c1f0000abcd1234-LHR`: three letters of IATA
/// (developers.cloudflare.com, "Cloudflare Ray ID").
fn edge(ray: &str) -> Option<&str> {
    let (_, place) = ray.rsplit_once('-')?;
    (place.len() == 3 && place.bytes().all(|byte| byte.is_ascii_uppercase())).then_some(place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::record, *};

    fn killed(user: &str, ray: &str, version: &str) -> CloseRecord {
        let mut record = record(user, Verdict::EdgeBurst, Segment::Downstream, 5000);
        (record.ray, record.serve_version) = (Some(ray.to_owned()), Some(version.to_owned()));
        record
    }

    fn text(closes: &[(CloseRecord, &str, u64)]) -> String {
        let mut incidents = Incidents::default();
        closes.iter().for_each(|(record, host, at)| incidents.close(record, Some(host), *at));
        incidents.text(None, |at| format!("@{at}"))
    }

    #[test]
    fn closes_are_grouped_across_users_and_hosts_and_the_worst_is_first() {
        let mut closes: Vec<_> =
            (0..4).map(|n| (killed(&format!("u{n}"), "8c1f-LHR", "1.2"), ["a", "b"][n % 2], 100)).collect();
        // Another edge, another version, another second: incidents of their own, or none.
        closes.push((killed("u1", "8c1f-FRA", "1.2"), "a", 100));
        closes.push((killed("u2", "8c1f-LHR", "1.3"), "a", 100));
        closes.push((killed("u8", "8c1f-LHR", "1.2"), "a", 101));
        closes.push((killed("u1", "8c1f-LHR", "1.2"), "a", 200));
        for n in 0..5 {
            closes.push((record("ann", Verdict::ServeOom, Segment::Serve, 1), "c", 300 + n / 4));
        }
        closes.extend((0..9).map(|_| (record("ann", Verdict::ClientClosed, Segment::None, 1), "c", 400)));
        let expected = "\
2 incidents: 10 of 13 unexpected closes
@100  5 closes of 5 users on 2 hosts, within 2 s
    edge_burst (downstream)  edge LHR  serve 1.2
    users u0, u1, u2 and 2 more  hosts a, b
@300  5 closes of 1 user on 1 host, within 2 s
    serve_oom (serve)  edge unknown  serve unknown
    users ann  hosts c
";
        assert_eq!(text(&closes), expected);
        assert_eq!(text(&[]), "0 incidents: 0 of 0 unexpected closes\n");
    }

    #[test]
    fn the_list_is_limited_and_the_rest_counted() {
        let closes: Vec<_> = (0..200)
            .map(|n| (killed(&format!("u{}", n % 2), "8c1f-LHR", "1.2"), "a", 1000 + n / 2 * 10))
            .collect();
        let text = text(&closes);
        assert!(text.starts_with("100 incidents: 200 of 200"), "{text}");
        assert_eq!(text.lines().count(), 1 + 3 * LISTED + 1);
        assert!(text.ends_with("and 80 smaller ones: use a shorter range\n"), "{text}");
    }

    #[test]
    fn only_a_data_centre_is_an_edge() {
        for (ray, place) in [
            ("8c1f0000abcd1234-LHR", Some("LHR")),
            ("ray-client_close", None),
            ("8c1f0000abcd1234", None),
            ("8c1f-lhr", None),
        ] {
            assert_eq!(edge(ray), place, "{ray}");
        }
    }

    proptest! {
        #[test]
        fn every_close_of_an_incident_is_counted_once(
            closes in prop::collection::vec((0..3_u64, 0..3_usize, 0..2_usize), 0..60),
        ) {
            let mut at = 100;
            let closes: Vec<_> = closes
                .into_iter()
                .map(|(step, user, edge)| {
                    at += step;
                    (killed(["a", "b", "c"][user], ["1-LHR", "1-FRA"][edge], "1"), "h", at)
                })
                .collect();
            let text = text(&closes);
            let listed: u64 = text
                .lines()
                .filter(|line| line.starts_with('@'))
                .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
                .sum();
            let head: Vec<u64> =
                text.lines().next().unwrap().split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
            prop_assert!(head[2] == closes.len() as u64 && head[1] <= head[2]);
            prop_assert!(listed <= head[1] && (head[0] > LISTED as u64 || listed == head[1]));
        }
    }
}
