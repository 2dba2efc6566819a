//! Unit properties from systemd in one query. Empty without systemd.

use std::{collections::BTreeMap, path::PathBuf};

use super::{super::facts::Unit, command::run};

const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,OOMPolicy,FileDescriptorStoreMax,LogRateLimitIntervalUSec,LogRateLimitBurst,LogLevelMax,FragmentPath,DropInPaths";

pub(super) fn read(names: impl Iterator<Item = String>) -> BTreeMap<String, Unit> {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    let mut arguments = vec!["show", "--no-pager", PROPERTIES, "--"];
    arguments.extend(names.iter().map(String::as_str));
    run("systemctl", &arguments).map(|text| parse(&text)).unwrap_or_default()
}

/// Parses `systemctl show` of several units: blocks of `Name=value`, separated by blank lines.
fn parse(text: &str) -> BTreeMap<String, Unit> {
    let block = |block: &str| {
        let value = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let files = [value("FragmentPath"), value("DropInPaths")];
        let files = files.into_iter().flatten().flat_map(str::split_whitespace).map(PathBuf::from);
        let unit = Unit {
            load: value("LoadState")?.to_owned(),
            active: value("ActiveState").unwrap_or_default().to_owned(),
            oom_policy: value("OOMPolicy").filter(|policy| !policy.is_empty()).map(str::to_owned),
            log_interval_us: value("LogRateLimitIntervalUSec").and_then(span_us).unwrap_or(0),
            log_burst: value("LogRateLimitBurst").and_then(|burst| burst.parse().ok()).unwrap_or(0),
            log_level_max: value("LogLevelMax").filter(|level| !level.is_empty()).map(str::to_owned),
            fd_store_max: value("FileDescriptorStoreMax").and_then(|most| most.parse().ok()),
            files: files.collect(),
        };
        Some((value("Id")?.to_owned(), unit))
    };
    text.split("\n\n").filter_map(block).collect()
}

/// Parses a time span of systemd (systemd.time(7)): `30s`, `1min 30s`, `500ms`; seconds without a
/// unit.
pub(super) fn span_us(text: &str) -> Option<u64> {
    let text = text.trim();
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let us: u64 = match unit {
            "us" | "usec" => 1,
            "ms" | "msec" => 1000,
            "" | "s" | "sec" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(us)?)?;
        rest = after.trim_start();
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_parsed_as_units() {
        let text = "OOMPolicy=stop\nLogRateLimitIntervalUSec=1min 30s\nLogRateLimitBurst=200\nId=a.service\nLoadState=loaded\nActiveState=active\n\
                    FragmentPath=/etc/systemd/system/a.service\nDropInPaths=/x/1.conf /x/2.conf\n\
                    FileDescriptorStoreMax=8200\n\n\
                    Id=b.slice\nLoadState=not-found\nActiveState=inactive\nFragmentPath=\nDropInPaths=\n";
        let units = parse(text);
        let a = &units["a.service"];
        assert_eq!(
            (a.oom_policy.as_deref(), a.log_interval_us, a.log_burst),
            (Some("stop"), 90_000_000, 200)
        );
        assert_eq!((a.files.len(), a.fd_store_max), (3, Some(8200)));
        let b = &units["b.slice"];
        assert_eq!((b.exists(), b.oom_policy.as_deref(), b.files.len()), (false, None, 0));
        assert_eq!(parse("garbage").len(), 0);
    }

    #[test]
    fn systemd_time_spans_are_parsed() {
        for (text, us) in [
            ("0", Some(0)),
            ("30s", Some(30_000_000)),
            ("1min 30s", Some(90_000_000)),
            ("1h5min", Some(3_900_000_000)),
            ("500ms", Some(500_000)),
            ("5", Some(5_000_000)),
            ("infinity", None),
            ("", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(span_us(text), us, "{text:?}");
        }
    }
}
