//! Changes of the host around a close: packages, serve's version, OOM kills with the largest
//! processes, shutdown and start. Only what a log states; nothing is concluded from them.

pub mod oom;

use t3_record::CloseRecord;

use super::facts::{ExplainInput, Timed};
use crate::{
    closes::changes::dpkg,
    present::{text::safe, units},
};

/// Limit of package lines.
const PACKAGES: usize = 12;

/// A change: time in milliseconds since the epoch, source and text.
pub(super) type Change = (i64, &'static str, String);

/// Returns the changes, in the order of their sources.
pub(super) fn changes(facts: &ExplainInput) -> Vec<Change> {
    let mut list = Vec::new();
    packages(&mut list, &facts.packages);
    list.extend(version(&facts.record, facts.at_ms, &facts.history));
    if let Some(around) = &facts.around {
        list.extend(
            oom::reports(&around.kernel).iter().map(|report| (report.at_ms, "oom", oom_text(report))),
        );
        list.extend(around.host.iter().map(|line| (line.at_ms, "host", safe(&line.what))));
    }
    list
}

fn packages(list: &mut Vec<Change>, packages: &[Timed<dpkg::Change>]) {
    let skipped = packages.len().saturating_sub(PACKAGES);
    let mut shown = packages.iter().skip(skipped).peekable();
    if let Some(first) = shown.peek().filter(|_| skipped > 0) {
        let more = units::count(skipped as u64, "more package");
        list.push((first.at_ms, "dpkg", format!("{more} changed in the hour before")));
    }
    list.extend(shown.map(|package| (package.at_ms, "dpkg", safe(&package.what.to_string()))));
}

/// Another version than that of the user's last close before it.
fn version(record: &CloseRecord, at_ms: i64, history: &[Timed<CloseRecord>]) -> Option<Change> {
    let ours = record.serve_version.as_ref()?;
    let before = history.iter().filter(|close| close.at_ms <= at_ms && close.what.user == record.user);
    let with_version = before.filter(|close| close.what.serve_version.is_some());
    let last = with_version.max_by_key(|close| close.at_ms)?;
    let theirs = last.what.serve_version.as_ref().filter(|version| *version != ours)?;
    let text = format!(
        "serve had version {} in session {}; this session had {}",
        safe(theirs),
        safe(&last.what.conn),
        safe(ours)
    );
    Some((last.at_ms, "version", text))
}

fn oom_text(report: &oom::Report) -> String {
    // The last part of the path is the unit.
    let unit = |path: &String| safe(path.rsplit('/').next().unwrap_or_default());
    let place = report.cgroup.as_ref().map_or("of the host".to_owned(), |path| format!("in {}", unit(path)));
    let killed = report
        .victim
        .as_ref()
        .map_or_else(String::new, |(pid, name)| format!(": killed {}[{pid}]", safe(name)));
    let largest: Vec<_> = report
        .largest
        .iter()
        .map(|task| format!("{}[{}] {}", safe(&task.name), task.pid, units::size(task.rss)))
        .collect();
    let largest = if largest.is_empty() {
        String::new()
    } else {
        format!("; largest processes: {}", largest.join(", "))
    };
    let swap = match (report.swap_free, report.swap_total) {
        (_, Some(0)) => "; the host has no swap".to_owned(),
        (Some(free), Some(total)) => format!("; free swap {} of {}", units::size(free), units::size(total)),
        _ => String::new(),
    };
    let by = report
        .invoker
        .as_ref()
        .map_or_else(String::new, |name| format!(" (an allocation of {})", safe(name)));
    format!("OOM killer {place}{killed}{by}{largest}{swap}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(conn: &str, version: Option<&str>) -> CloseRecord {
        let version = version.map_or_else(String::new, |version| format!(" serve_version={version}"));
        CloseRecord::from_line(&format!(
            "ws close user=ann ip=192.0.2.7 dur_ms=5000 cause=graceful verdict=client_closed segment=downstream conn={conn} \
             kernel=tracepoint{version}"
        ))
        .unwrap()
    }

    #[test]
    fn a_change_of_serves_version_needs_both_versions() {
        let with = |ours: Option<&str>, others: &[(i64, Option<&str>)]| {
            let others: Vec<_> = others
                .iter()
                .map(|(at_ms, version)| Timed { at_ms: *at_ms, what: close("c0", *version) })
                .collect();
            version(&close("c1", ours), 1_000, &others).map(|(at_ms, _, text)| (at_ms, text))
        };
        let text = "serve had version 1.0 in session c0; this session had 1.1".to_owned();
        for (ours, others, expected) in [
            (Some("1.1"), &[(500, Some("1.0"))][..], Some((500, text.clone()))),
            (Some("1.1"), &[(500, Some("1.0")), (700, None)], Some((500, text))),
            (Some("1.1"), &[(500, Some("1.0")), (700, Some("1.1"))], None),
            (Some("1.1"), &[(1_500, Some("1.0"))], None),
            (None, &[(500, Some("1.0"))], None),
            (Some("1.1"), &[], None),
        ] {
            assert_eq!(with(ours, others), expected, "{ours:?} {others:?}");
        }
    }

    #[test]
    fn only_the_last_packages_are_listed() {
        let change = |n: i64| Timed {
            at_ms: n,
            what: dpkg::Change {
                action: "upgrade",
                name: format!("p{n}"),
                from: Some("1".to_owned()),
                to: Some("2".to_owned()),
            },
        };
        let mut list = Vec::new();
        packages(&mut list, &(0..14).map(change).collect::<Vec<_>>());
        assert_eq!(list.len(), 13);
        assert_eq!(list[0].2, "2 more packages changed in the hour before");
        assert_eq!(list[12], (13, "dpkg", "upgrade of p13 from 1 to 2".to_owned()));
    }
}
