//! The operators' Loki query from before the verdicts still works on present lines.

use regex_lite::Regex;
use t3_record::{CloseRecord, vocabulary::Verdict};
use t3_testkit::faults::records;

use crate::queries;

const QUERY: &str = r#"{job="devvm-journal", unit="t3-dispatch.service"} |= "ws close" | regexp `dur_ms=(?P<dur>[0-9]+) cause=(?P<cause>\S+)` | dur < 120000"#;

#[test]
fn the_regexp_finds_duration_and_cause_in_every_example_record() {
    let pattern = Regex::new(QUERY.split('`').nth(1).unwrap()).unwrap();
    let page = queries::read("docs/VERDICTS.md");
    let found = records::read(&page);
    let lines: Vec<_> = found.iter().filter_map(|(_, line)| *line).collect();
    assert!(lines.len() >= Verdict::ALL.len() - 1, "{}", lines.len());
    for line in lines {
        let record = CloseRecord::from_line(line).unwrap();
        assert!(line.contains("ws close"));
        let found = pattern.captures(line).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(found["dur"].parse(), Ok(record.dur_ms), "{line}");
        assert_eq!(&found["cause"], record.cause.as_str(), "{line}");
        // The form in the journal, which is shipped.
        let fields = record.to_fields();
        assert!(fields.iter().any(|(name, value)| name == "MESSAGE" && value == line));
    }
}

#[test]
fn client_input_cannot_change_the_result_of_the_query() {
    let page = queries::read("docs/VERDICTS.md");
    let found = records::read(&page);
    let line = found.iter().find_map(|(_, line)| *line).unwrap();
    let mut record = CloseRecord::from_line(line).unwrap();
    let (dur, cause) = (record.dur_ms, record.cause);
    let forged = "x dur_ms=1 cause=graceful\nws close user=root dur_ms=2 cause=graceful";
    record.ws_reason = Some(forged.to_owned());
    record.ray = Some(forged.to_owned());
    let line = record.to_line();
    assert!(!line.contains('\n'), "{line}");
    assert_eq!(CloseRecord::from_line(&line).unwrap(), record);
    let pattern = Regex::new(QUERY.split('`').nth(1).unwrap()).unwrap();
    let found = pattern.captures(&line).unwrap();
    assert_eq!((found["dur"].parse(), &found["cause"]), (Ok(dur), cause.as_str()));
}

#[test]
fn the_pages_have_the_exact_query() {
    for page in ["docs/RECORD.md", "docs/RUNBOOK.md"] {
        assert!(queries::read(page).lines().any(|line| line.trim() == QUERY), "{page}");
    }
}
