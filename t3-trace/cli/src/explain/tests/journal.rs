//! Pages of reconciled records, and of a journal that was read in part.

use super::*;

#[test]
fn a_reconciled_record_has_the_time_of_the_end_and_names_its_origin() {
    for (origin, said) in [
        ("journal", "record written by t3-trace, from the ws open"),
        ("spool", "record written again by t3-trace: it had not arrived in the journal"),
        ("restart", "record written by t3-trace: no t3-dispatch continued the session"),
    ] {
        let record = record(&format!("unknown power_loss devvm likely reconciled={origin}"));
        let mut facts = ExplainInput::of(record, 1_000_000);
        facts.written_ms = 4_600_000;
        let page = Page::of(&facts, &[], wall);
        assert_eq!(page.at_ms, 1_000_000);
        let written = page.timeline.iter().find(|entry| entry.text == said);
        assert_eq!(written.map(|entry| entry.offset_ms), Some(3_600_000), "{:?}", page.timeline);
        assert!(page.next[0].contains("--list-boots"), "{:?}", page.next);
    }
}

#[test]
fn a_journal_that_was_read_in_part_is_named() {
    let mut facts = ExplainInput::of(record("client_left fin downstream proven"), 1_000);
    facts.around = Some(Context::default());
    let sentence = "a part of the journal could not be read";
    assert!(!text(&facts).contains(sentence));
    facts.around = Some(Context { incomplete: true, ..Context::default() });
    assert!(text(&facts).contains(sentence));
}
