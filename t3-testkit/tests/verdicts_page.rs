//! docs/VERDICTS.md shows a real record of each verdict. Here: each is there, reads back, and has
//! the verdict that it stands for.
//!
//! `T3_RECORDS=FILE cargo test -p t3-testkit --test verdicts_page` puts new ones in, from a file of
//! `t3-faults --records FILE`.

use std::{collections::BTreeMap, fs, path::Path};

use t3_record::CloseRecord;
use t3_testkit::faults::records;

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
    assert!(found.len() > 20, "the page has lost its markers: {}", found.len());
    for (verdict, line) in found {
        let line = line.unwrap_or_else(|| panic!("no record of {verdict}: see this file's head"));
        let record = CloseRecord::from_line(line).unwrap_or_else(|error| panic!("{verdict}: {error}"));
        assert_eq!(record.verdict.as_str(), verdict, "{line}");
        assert_eq!(record.to_line(), line, "the record as it is written");
    }
}
