//! Example records in docs/VERDICTS.md: each verdict has one, which can be parsed and has that
//! verdict.
//!
//! `T3_RECORDS=FILE cargo test -p t3-testkit --test verdicts_page` inserts new ones from a file of
//! `t3-faults --records FILE`.

use std::{collections::BTreeMap, fs, path::Path};

use t3_record::{CloseRecord, Verdict};
use t3_testkit::faults::records;
use t3_trace_cli::present::verdict_text;

#[test]
fn each_verdict_on_the_page_has_a_real_record() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/VERDICTS.md");
    if let Some(file) = std::env::var_os("T3_RECORDS") {
        let new: BTreeMap<String, String> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let page = fs::read_to_string(&path).unwrap();
        fs::write(&path, records::fill(&page, &new)).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap();
    let found = records::read(&page);
    assert!(found.len() > 20, "the page has only {} markers", found.len());
    for (verdict, line) in found {
        let line = line.unwrap_or_else(|| panic!("no record of {verdict}: see the module comment"));
        let record = CloseRecord::from_line(line).unwrap_or_else(|error| panic!("{verdict}: {error}"));
        assert_eq!(record.verdict.as_str(), verdict, "{line}");
        assert_eq!(record.to_line(), line, "the record is not as t3-dispatch writes it");
    }
}

/// The table of labels and meanings; `cargo xtask docs` writes it.
#[test]
fn the_page_shows_the_label_and_the_meaning_of_each_verdict() {
    const BEGIN: &str = "<!-- labels -->\n";
    const END: &str = "\n## Client";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/VERDICTS.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut table = "| verdict | label | meaning |\n|---|---|---|\n".to_owned();
    for verdict in Verdict::ALL {
        let text = verdict_text::text(*verdict);
        table += &format!("| `{verdict}` | {} | {} |\n", text.label, text.meaning);
    }
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}\n{table}{END}{after}");
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let same = fs::read_to_string(&path).unwrap() == expected;
    assert!(same, "{} differs from present/verdict_text.rs; run `cargo xtask docs`", path.display());
}
