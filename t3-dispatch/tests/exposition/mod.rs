//! Strict parser of a metrics page: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;

const PREFIX: &str = "t3_dispatch_";

/// Name without the prefix; the metrics of the process have none.
fn bare(name: &str) -> &str {
    if name.starts_with("process_") { name } else { name.strip_prefix(PREFIX).expect("the prefix") }
}

#[derive(Debug, Default)]
pub struct Page {
    series: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Page {
    /// Panics at the first invalid line.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends with a newline");
        let mut page = Self::default();
        let mut helped = None;
        let mut family: Option<(String, String)> = None;
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help has a text");
                assert!(help.ends_with('.'), "{line}");
                helped = Some(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(helped.as_deref(), Some(name), "a type comes after its help");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let twice = page.kinds.insert(name.to_owned(), kind.to_owned());
                assert!(twice.is_none(), "{line} twice");
                family = Some((name.to_owned(), kind.to_owned()));
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a series has a value");
                let name = series.split('{').next().unwrap();
                let (family, kind) = family.as_ref().expect("a series comes after its type");
                let rest = name.strip_prefix(family.as_str()).expect("it is of its family");
                let allowed: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(allowed.contains(&rest), "{line}");
                let series = bare(series);
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(value >= 0.0, "{line}");
                assert!(page.series.insert(series.to_owned(), value).is_none(), "{line} twice");
            }
        }
        for name in page.kinds.keys() {
            let name = bare(name);
            assert!(page.series.keys().any(|series| series.starts_with(name)), "{name} has no series");
        }
        page
    }

    /// Returns the value of one series, named without the prefix, with labels in alphabetical
    /// order.
    pub fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not on the page"))
    }

    /// Returns the sum of all series of a family.
    pub fn sum(&self, family: &str) -> f64 {
        let of = format!("{family}{{");
        self.series.iter().filter(|(series, _)| series.starts_with(&of)).map(|(_, value)| value).sum()
    }

    /// Asserts that no counter decreases.
    pub fn assert_not_above(&self, later: &Self) {
        for (series, value) in &self.series {
            if series.contains("_total") || series.contains("_bucket") || series.ends_with("_count") {
                assert!(later.value(series) >= *value, "{series} went back");
            }
        }
    }
}
