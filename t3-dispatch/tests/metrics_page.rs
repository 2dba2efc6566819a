//! docs/METRICS.md lists all metrics. `cargo xtask docs` writes the list.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::{fmt::Write, fs, path::PathBuf};

use t3_dispatch::metrics::{Family, Metrics};

const BEGIN: &str = "<!-- metrics:begin -->\n";
const END: &str = "<!-- metrics:end -->";
/// Vocabularies of the record are listed in docs/RECORD.md.
const IN_RECORD: [&str; 2] = ["verdict", "cause"];

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md")
}

fn labels(family: &Family) -> String {
    let label = |(name, values): &(String, Vec<String>)| match name.as_str() {
        name if IN_RECORD.contains(&name) => format!("`{name}`: as in [RECORD.md](RECORD.md)"),
        "version" => "`version`".to_owned(),
        name => {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{name}`: {}", values.join(" "))
        }
    };
    family.labels.iter().map(label).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_page_lists_every_metric() {
    let mut list = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for family in Metrics::default().families() {
        let _ =
            writeln!(list, "| `{}` | {} | {} | {} |", family.name, family.kind, labels(&family), family.help);
    }
    let written = fs::read_to_string(page()).expect("docs/METRICS.md is there");
    let from = written.find(BEGIN).expect("the page has the list's begin") + BEGIN.len();
    let to = written.find(END).expect("the page has the list's end");
    let expected = format!("{}{list}{}", &written[..from], &written[to..]);
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(page(), &expected).expect("docs/METRICS.md can be written");
    }
    assert_eq!(
        fs::read_to_string(page()).unwrap(),
        expected,
        "run `cargo xtask docs` and commit docs/METRICS.md"
    );
}

fn selects_metrics(line: &str) -> bool {
    ["t3_dispatch_", "process_"].iter().any(|prefix| line.contains(prefix))
}

/// Label, operator and value.
type Matcher = (String, String, String);

/// Returns the selectors of a query: name, and the matchers.
fn selectors(query: &str) -> Vec<(String, Vec<Matcher>)> {
    let matcher = regex_lite::Regex::new(r#"([a-z_]+)(=~|!~|!=|=)"([^"]*)""#).unwrap();
    let selector = regex_lite::Regex::new(r"\b(t3_dispatch|process)_[a-z_]+(\{[^}]*\})?").unwrap();
    let of = |text: &str| {
        let name = text.split('{').next().unwrap_or_default().to_owned();
        let matchers = matcher.captures_iter(text);
        (name, matchers.map(|c| (c[1].to_owned(), c[2].to_owned(), c[3].to_owned())).collect())
    };
    selector.find_iter(query).map(|found| of(found.as_str())).collect()
}

#[test]
fn every_query_selects_existing_series_and_every_metric_is_queried() {
    let written = fs::read_to_string(page()).unwrap();
    let families = Metrics::default().families();
    let mut unqueried: Vec<_> = families.iter().map(|family| family.name.as_str()).collect();
    let queries = written.lines().filter(|line| line.starts_with("    ") && selects_metrics(line));
    for query in queries {
        for (name, matchers) in selectors(query) {
            let of = |family: &&Family| match family.kind {
                "histogram" => name
                    .strip_prefix(family.name.as_str())
                    .is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest)),
                _ => name == family.name,
            };
            let family = families.iter().find(of).unwrap_or_else(|| panic!("{name} of {query} is not there"));
            unqueried.retain(|unqueried| *unqueried != family.name);
            // `le` is of a histogram, and `job` of the scrape.
            let own = |(label, ..): &&Matcher| label != "le" && label != "job";
            for (label, operator, value) in matchers.iter().filter(own) {
                let (_, values) = family
                    .labels
                    .iter()
                    .find(|(known, _)| known == label)
                    .unwrap_or_else(|| panic!("{name} has no {label}: {query}"));
                let pattern =
                    if operator.ends_with('~') { format!("^({value})$") } else { format!("^{value}$") };
                let pattern = regex_lite::Regex::new(&pattern).unwrap();
                for part in value.split('|').filter(|part| !part.contains('*')) {
                    assert!(values.iter().any(|known| known == part), "{label}={part}: {query}");
                }
                assert!(values.iter().any(|known| pattern.is_match(known)), "{label}={value}: {query}");
            }
        }
    }
    unqueried.retain(|name| {
        ![
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_threads",
            "process_virtual_memory_bytes",
            "t3_dispatch_build_info",
            "t3_dispatch_opens_total",
            "t3_dispatch_table_logins",
            "t3_dispatch_upgrades_total",
        ]
        .contains(name)
    });
    assert!(unqueried.is_empty(), "metrics without a query: {unqueried:?}");
}

#[test]
fn bucket_bounds_in_queries_exist() {
    let written = fs::read_to_string(page()).unwrap();
    let text = Metrics::default().bounds();
    let le = regex_lite::Regex::new(r#"(t3_dispatch_[a-z_]+)_bucket\{le="([0-9.]+)"\}"#).unwrap();
    let mut seen = 0;
    for found in le.captures_iter(&written) {
        let bound: f64 = found[2].parse().unwrap();
        let bounds = &text.iter().find(|(name, _)| *name == found[1]).expect("a histogram").1;
        assert!(bounds.contains(&bound), "{}", &found[0]);
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}
