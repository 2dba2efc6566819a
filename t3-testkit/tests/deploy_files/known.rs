//! Keys and values of records, and metrics with their labels, read from the programs themselves.

use std::collections::BTreeMap;

use t3_dispatch::metrics::Metrics;
use t3_probe::metrics::Metrics as ProbeMetrics;
use t3_record::{
    AttemptsRecord, BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord,
    probe::Way,
    record::Key,
    vocabulary::{Cause, ClosedBy, Confidence, KernelSource, LegEnd, Segment, Side, Verdict, Via},
};

/// Labels with their values; an empty list allows any value.
pub type Labels = BTreeMap<String, Vec<String>>;

/// Keys of the record whose line contains this text; those of `ws close` without a text, as for
/// structured metadata.
pub fn keys(contains: &[String]) -> &'static [Key] {
    let holds = |text: &str| contains.iter().any(|held| held.contains(text));
    if holds("ws open") {
        OpenRecord::KEYS
    } else if holds("ws burst") {
        BurstRecord::KEYS
    } else if holds("ws attempts") {
        AttemptsRecord::KEYS
    } else if holds("tcp close") {
        TcpCloseRecord::KEYS
    } else {
        CloseRecord::KEYS
    }
}

/// Values of a key; an empty list allows any value.
pub fn words(key: &str) -> Vec<&'static str> {
    match key {
        "verdict" => Verdict::ALL.iter().map(|word| word.as_str()).collect(),
        "cause" => Cause::ALL.iter().map(|word| word.as_str()).collect(),
        "segment" => Segment::ALL.iter().map(|word| word.as_str()).collect(),
        "closed_by" => ClosedBy::ALL.iter().map(|word| word.as_str()).collect(),
        "confidence" => Confidence::ALL.iter().map(|word| word.as_str()).collect(),
        "kernel" => KernelSource::ALL.iter().map(|word| word.as_str()).collect(),
        "via" => Via::ALL.iter().map(|word| word.as_str()).collect(),
        "down_end" | "up_end" => LegEnd::ALL.iter().map(|word| word.as_str()).collect(),
        "ws_from" => Side::ALL.iter().map(|word| word.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// All possible series by name, with their labels.
pub fn metrics() -> BTreeMap<String, Labels> {
    let mut all = BTreeMap::new();
    all.insert("up".to_owned(), Labels::new());
    for family in Metrics::default().families() {
        let labels: Labels = family.labels.into_iter().collect();
        insert(&mut all, &family.name, family.kind == "histogram", &labels);
    }
    for family in t3_trace_daemon::metrics::FAMILIES {
        let labels = family.labels.iter().map(|label| {
            let values = words(label).into_iter().map(str::to_owned);
            ((*label).to_owned(), values.collect())
        });
        insert(&mut all, family.name, false, &labels.collect());
    }
    let probe = ProbeMetrics::new().unwrap();
    for way in Way::ALL {
        probe.add_leg(way.as_str());
    }
    let page = String::from_utf8(probe.page().unwrap()).unwrap();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let sample = page.lines().filter(|line| !line.starts_with('#')).find(|line| line.starts_with(name));
        let sample = sample.unwrap_or_else(|| panic!("{name} has no series from the start"));
        let mut labels = Labels::new();
        for label in ["leg", "reason", "version"] {
            if sample.contains(&format!("{label}=\"")) {
                labels.insert(label.to_owned(), values(label));
            }
        }
        insert(&mut all, name, kind == "histogram", &labels);
    }
    all
}

/// Values of a label of the probe; those of `reason` and `version` are open sets.
fn values(label: &str) -> Vec<String> {
    let names = if label == "leg" { Way::ALL } else { &[] };
    names.iter().map(|way| way.as_str().to_owned()).collect()
}

fn insert(all: &mut BTreeMap<String, Labels>, name: &str, histogram: bool, labels: &Labels) {
    if histogram {
        all.insert(format!("{name}_sum"), labels.clone());
        all.insert(format!("{name}_count"), labels.clone());
        let mut labels = labels.clone();
        labels.insert("le".to_owned(), Vec::new());
        all.insert(format!("{name}_bucket"), labels);
    } else {
        all.insert(name.to_owned(), labels.clone());
    }
}
