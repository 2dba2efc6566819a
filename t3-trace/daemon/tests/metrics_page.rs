//! docs/METRICS.md lists all metrics of t3-trace. `cargo xtask docs` writes the list.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::{fmt::Write, fs, path::PathBuf};

use t3_trace_daemon::metrics::FAMILIES;

const BEGIN: &str = "<!-- trace-metrics:begin -->\n";
const END: &str = "<!-- trace-metrics:end -->";

#[test]
fn the_page_lists_every_metric() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    let mut list = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for family in FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            list,
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind,
            labels.join("; "),
            family.help
        );
    }
    let written = fs::read_to_string(&page).expect("docs/METRICS.md is there");
    let from = written.find(BEGIN).expect("the page has the list's begin") + BEGIN.len();
    let to = written.find(END).expect("the page has the list's end");
    let expected = format!("{}{list}{}", &written[..from], &written[to..]);
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(&page, &expected).expect("docs/METRICS.md can be written");
    }
    assert_eq!(
        fs::read_to_string(&page).unwrap(),
        expected,
        "run `cargo xtask docs` and commit docs/METRICS.md"
    );
}
